"""Grant each key once: what makes the replay of a token or a proof fail."""

from __future__ import annotations

import datetime as dt
import heapq
import threading
from collections.abc import Callable
from typing import Final, Protocol, final

from agentauthz.errors import InvalidArgument, TokenError


class Once(Protocol):
    """Be a store that grants a key once, until it expires; what it raises counts as not granted."""

    def once(self, key: str, expires: dt.datetime) -> bool:
        """Return True the first time that `key` is asked for, over all that share the store, and False ever after.

        After `expires`, which has a time zone, the key may be forgotten.
        """


@final
class MemoryOnce:
    """Grant keys once within this process: bounded, and safe for threads.

    Up to `max_entries` keys are remembered until they expire. When so many are still valid, it raises, and nothing is
    granted: forgetting one would let it be used again. `clock` returns a datetime with a zone.

    Raises:
        InvalidArgument: `max_entries` below 1.
    """

    def __init__(
        self,
        max_entries: int = 100_000,
        *,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        if type(max_entries) is not int or max_entries < 1:
            raise InvalidArgument("max_entries", "must be a number above zero")
        self._max: Final = max_entries
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._known: set[str] = set()
        self._ends: list[tuple[dt.datetime, str]] = []  # a heap: what expires first is in front

    def once(self, key: str, expires: dt.datetime) -> bool:
        """Return True the first time that `key` is asked for, False as long as it is remembered.

        Raises:
            TokenError: `replay_unavailable`: all places are taken by keys that haven't expired.
        """
        now = self._clock()
        with self._lock:
            while self._ends and self._ends[0][0] < now:
                self._known.discard(heapq.heappop(self._ends)[1])
            if key in self._known:
                return False
            if len(self._known) >= self._max:
                raise TokenError("replay_unavailable", "the memory of what was used is full")
            self._known.add(key)
            heapq.heappush(self._ends, (expires, key))
            return True

    def __len__(self) -> int:
        return len(self._known)
