"""Keep sessions' marks and last-seen times in this process's memory."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final, final

from attrs import evolve, field, frozen

_EMPTY: Final[Mapping[str, dt.datetime]] = MappingProxyType({})


def _set(marks: Iterable[str]) -> frozenset[str]:
    return frozenset(marks)


@final
@frozen
class State:
    """Be what a session remembers at one moment: marks, and when actions were last allowed and last returned."""

    marks: frozenset[str] = field(default=frozenset(), converter=_set)
    began: Mapping[str, dt.datetime] = _EMPTY
    done: Mapping[str, dt.datetime] = _EMPTY


_NOTHING_YET: Final = State()


@final
class Forgetful:
    """Be the memory of a call that belongs to no session: it has no past, and nothing is kept of it."""

    def read(self) -> State:
        """Return that nothing is remembered."""
        return _NOTHING_YET

    def commit(self, seen: State, marks: Collection[str], began: str | None, now: dt.datetime) -> bool:
        """Keep nothing; nobody else could have changed anything."""
        return True


NO_MEMORY: Final = Forgetful()


@final
class SessionMemory:
    """Remember one session's past, shared by all that are delegated from it. Safe for threads."""

    def __init__(self, started: dt.datetime) -> None:
        self.started = started
        self._lock = threading.Lock()
        self._state = _NOTHING_YET

    def read(self) -> State:
        """Return what is remembered now."""
        return self._state

    def commit(self, seen: State, marks: Collection[str], began: str | None, now: dt.datetime) -> bool:
        """Add marks and a last-seen time in one step; False, and nothing added, if `seen` is out of date."""
        if began is None and not marks:
            return self._state is seen
        with self._lock:
            if self._state is not seen:
                return False
            added = seen.marks.union(marks)
            if added != seen.marks or began is not None:
                times = seen.began if began is None else _later(seen.began, began, now)
                self._state = State(added, times, seen.done)
            return True

    def mark(self, name: str) -> None:
        """Add a mark on the host's word."""
        with self._lock:
            self._state = evolve(self._state, marks=self._state.marks | {name})

    def finish(self, action: str, now: dt.datetime) -> None:
        """Remember that an action was allowed, and has returned."""
        with self._lock:
            self._state = evolve(self._state, done=_later(self._state.done, action, now))


def _later(times: Mapping[str, dt.datetime], action: str, now: dt.datetime) -> Mapping[str, dt.datetime]:
    """Return `times` with `action` seen at `now`; a clock that steps back doesn't lower a time."""
    return {**times, action: max(now, times.get(action, now))}
