"""Offer a state store that may wait, such as one on another machine: it can be slow, fail, or hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from multiprocessing.managers import BaseManager
from typing import Any, ClassVar, Final

from agentauthz import Authorizer, PolicySet, Principal, Stopped, authorize
from agentauthz.errors import StateError
from agentauthz.records import MemorySink
from agentauthz.state.memory import MemoryState


class DistantState:
    """Be a store that blocks: what it is asked goes on to `near`, unless it is down.

    `down` names the operations that fail ("*": all), `slow` is how many seconds an answer takes, and `asked` counts
    what was asked, by name.
    """

    blocking: Final = True

    def __init__(self, near: Any = None) -> None:
        self.near: Any = MemoryState() if near is None else near
        self.down: set[str] = set()
        self.slow = 0.0
        self.asked: dict[str, int] = {}
        self.threads: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.near, name)

        def asked(*args: Any, **kwargs: Any) -> Any:
            self.asked[name] = self.asked.get(name, 0) + 1
            self.threads.add(threading.current_thread().name)
            if self.slow:
                time.sleep(self.slow)
            if self.down & {name, "*"}:
                raise StateError("the store can't be reached")
            return operation(*args, **kwargs)

        return asked


class Far:
    """Be a store in a process of its own, in which several others meet."""

    store: ClassVar[MemoryState] = MemoryState()

    def ask(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        answer = getattr(self.store, name)(*args, **kwargs)
        return _Begun(answer.started) if name == "begin" else answer


class _Begun:
    def __init__(self, started: Any) -> None:
        self.started = started


class Meeting(BaseManager):
    """Be the process that holds a store, or a way to it; `address` and `authkey` lead there."""


Meeting.register("Far", Far)


class Line:
    """Be what a `DistantState` is near to, where the store is in a `Meeting`."""

    def __init__(self, meeting: Any) -> None:
        self._far = meeting.Far()

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self._far.ask(name, args, kwargs)


@authorize("t.count")
def numbers() -> Iterator[int]:
    """Count, under a decision."""
    yield from range(10)


def decide_until_denied(address: Any, key: bytes, results: Any) -> None:
    """Decide, in a process of its own, in session `s`, until a call is denied; tell when, and why."""
    meeting = Meeting(address, authkey=key)
    meeting.connect()
    store: Any = DistantState(Line(meeting))
    authorizer = Authorizer(PolicySet.parse("permit all on * when true"), state=store, sinks=[MemorySink()])
    session = authorizer.session(Principal.user("maria"), Principal.agent("bot"), id="s")
    half = session.bind(numbers)()
    next(half)
    results.put("begun")
    ends = time.monotonic() + 60
    while (decision := session.decide("t.read")).allowed and time.monotonic() < ends:
        time.sleep(0.005)
    denied_at = time.time()
    try:
        stopped = str(next(half))
    except Stopped as error:
        stopped = str(error)
    results.put((denied_at, decision.reasons[0].code, stopped))
