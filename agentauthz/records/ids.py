"""Make the ids of records: ordered by time, unique across threads, processes and forks."""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Callable
from typing import Final, final

_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32, as ULIDs use
_PAIRS: Final = tuple(a + b for a in _DIGITS for b in _DIGITS)
_COUNT_BITS: Final = 30  # six digits: more than a process can make in a millisecond
_NODE_BYTES: Final = 7  # 56 bits, of which ten digits hold 50


@final
class Process:
    """Tell a process from the one that it was forked from: there `mark` is another object. It costs no system call.

    `lock` is for what a process makes once: the child's is another one, which nobody holds.
    """

    mark: object = object()
    lock = threading.Lock()


def _forked() -> None:
    Process.mark, Process.lock = object(), threading.Lock()


if hasattr(os, "register_at_fork"):  # where processes fork
    os.register_at_fork(after_in_child=_forked)


@final
class RecordIds:
    """Make ids of 26 characters: ten for the milliseconds, six that count within one, ten that name the process.

    Ids of one process sort in the order in which they were made, also when the clock is set back. `random`
    returns so many random bytes.
    """

    __slots__ = ("_random", "_series")

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random
        self._series = _Series(random)

    def next(self, now: dt.datetime) -> str:
        """Return the next id, made at `now` (with a time zone)."""
        series = self._series
        if series.process is not Process.mark:
            # the child of a fork; its parent's lock may be held by a thread that isn't here
            series = self._series = _Series(self._random)
        millis = int(now.timestamp() * 1000)
        with series.lock:
            if millis > series.millis:
                series.start(millis)
            elif series.count >> _COUNT_BITS:
                series.start(series.millis + 1)
            # one step, in which nothing is collected
            count, stem, series.count = series.count, series.stem, series.count + 1
        if count < 1024:
            return f"{stem}0000{_PAIRS[count]}{series.node}"
        return f"{stem}{_PAIRS[count >> 20]}{_PAIRS[count >> 10 & 1023]}{_PAIRS[count & 1023]}{series.node}"


@final
class _Series:
    """Hold what one process counts."""

    __slots__ = ("count", "lock", "millis", "node", "process", "stem")

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self.process = Process.mark
        self.lock = threading.RLock()  # a generator that is collected in here may end with a record of its own
        self.node = _digits(int.from_bytes(random(_NODE_BYTES)))
        self.millis = 0
        self.count = 0
        self.stem = _digits(0)

    def start(self, millis: int) -> None:
        """Begin a millisecond, if nobody has meanwhile."""
        stem = _digits(millis)
        if millis > self.millis:
            self.millis, self.stem, self.count = millis, stem, 0


def _digits(number: int) -> str:
    """Return the lowest 50 bits as ten digits; where calls are rare, each of their ids begins a millisecond."""
    return "".join([_PAIRS[number >> shift & 1023] for shift in (40, 30, 20, 10, 0)])
