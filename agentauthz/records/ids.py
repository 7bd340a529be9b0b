"""Make the ids of records: ordered by time, unique across threads, processes and forks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final, final

_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32, as ULIDs use
_PAIRS: Final = tuple(a + b for a in _DIGITS for b in _DIGITS)
_COUNT_BITS: Final = 30  # six digits: more than a process can make in a millisecond
_NODE_BYTES: Final = 7  # 56 bits, of which ten digits hold 50


@final
class RecordIds:
    """Make ids of 26 characters: ten for the milliseconds, six that count within one, ten that name the process.

    Ids of one process sort in the order in which they were made, also when the clock is set back. `clock`
    returns nanoseconds since 1970, `random` so many random bytes.
    """

    __slots__ = ("_clock", "_random", "_series")

    def __init__(self, clock: Callable[[], int] = time.time_ns, random: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._random = random
        self._series = _Series(random)

    def __call__(self) -> str:
        """Return the next id."""
        series = self._series
        if series.process != os.getpid():
            # the child of a fork; its parent's lock may be held by a thread that isn't here
            series = self._series = _Series(self._random)
        now = self._clock() // 1_000_000
        with series.lock:
            if now > series.millis:
                series.millis, series.count, series.stem = now, 0, _digits(now, 10)
            elif series.count >> _COUNT_BITS:
                series.millis, series.count = series.millis + 1, 0
                series.stem = _digits(series.millis, 10)
            count = series.count
            series.count = count + 1
            stem = series.stem
        return stem + _PAIRS[count >> 20] + _PAIRS[count >> 10 & 1023] + _PAIRS[count & 1023] + series.node


@final
class _Series:
    """Hold what one process counts."""

    __slots__ = ("count", "lock", "millis", "node", "process", "stem")

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self.process = os.getpid()
        self.lock = threading.Lock()
        self.node = _digits(int.from_bytes(random(_NODE_BYTES)), 10)
        self.millis = -1
        self.count = 0
        self.stem = ""


def _digits(number: int, length: int) -> str:
    return "".join(_DIGITS[number >> shift & 31] for shift in range(5 * (length - 1), -1, -5))
