"""Count what was spent within a rolling window: at most 64 buckets, rounded against the caller, exact sums."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterable
from decimal import Decimal
from typing import Final, final

from attrs import define, field

from agentauthz.decision import EXACT, Budget, Spend

PARTS: Final = 62  # of a window; what a window touches is at most two more
FOREVER: Final = 0  # the only bucket of a budget without a window

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NOTHING: Final = Decimal(0)
_MICROSECOND: Final = dt.timedelta(microseconds=1)


def micros(moment: dt.datetime) -> int:
    """Return a moment as microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(micros: int) -> dt.datetime:
    """Return a moment given as microseconds since 1970."""
    return _EPOCH + dt.timedelta(microseconds=micros)


@functools.lru_cache(maxsize=4096)
def sizes(window: dt.timedelta) -> tuple[int, int]:
    """Return how many microseconds a window has, and how many one of its buckets is wide."""
    length = window // _MICROSECOND
    return length, max(1, -(-length // PARTS))


def width(window: dt.timedelta) -> int:
    """Return how many microseconds one bucket of a window is wide."""
    return sizes(window)[1]


@final
@define(eq=False)
class Buckets:
    """Be one budget: what was spent, by bucket, from the oldest to the newest; `total` is the sum of all.

    `ends` is when nothing of it counts any more, in microseconds since 1970.

    INVARIANT: wherever a signal's handler raises, `total` is never less than what the buckets hold: they free no more
    than was spent.
    """

    spent: dict[int, Decimal] = field(factory=dict)
    total: Decimal = Decimal(0)
    ends: int = 0

    @classmethod
    def of(cls, spent: Iterable[tuple[int, Decimal]]) -> Buckets:
        """Return a budget of pairs of a bucket's number and what was spent in it."""
        known = dict(sorted(spent))
        total = Decimal(0)
        for amount in known.values():
            total = EXACT.add(total, amount)
        return cls(known, total)

    def turn(self, spend: Spend, now: int) -> int:
        """Drop the buckets that don't count any more at `now`, in microseconds, and return that of what is spent now.

        INVARIANT: all that was spent in [now - window, now] lies in the buckets that are left, so that in no window
        more is granted than its bound.
        """
        if spend.window is None:
            return FOREVER
        length, wide = sizes(spend.window)
        oldest = (now - length) // wide
        while self.spent and (first := next(iter(self.spent))) < oldest:
            total = EXACT.subtract(self.total, self.spent[first])
            del self.spent[first]
            self.total = total
        return now // wide

    def has_room(self, spend: Spend) -> bool:
        """Say whether an amount fits."""
        return EXACT.add(self.total, spend.amount) <= spend.bound

    def add(self, spend: Spend, number: int) -> int:
        """Spend an amount in a bucket, or in the newest where a clock has stepped back; return which."""
        known = self.spent.get(number)
        if known is None:
            if self.spent and (newest := next(reversed(self.spent))) > number:
                return self.add(spend, newest)
            known = _NOTHING
            if spend.window is not None:
                length, wide = sizes(spend.window)
                self.ends = (number + 1) * wide + length
        spent = EXACT.add(known, spend.amount)
        self.total = EXACT.add(self.total, spend.amount)
        self.spent[number] = spent
        return number

    def give_back(self, number: int, amount: Decimal) -> None:
        """Take an amount out of the bucket that it was spent in, if that still counts."""
        if number in self.spent:
            total = EXACT.subtract(self.total, amount)
            self.spent[number] = EXACT.subtract(self.spent[number], amount)
            self.total = total

    def stands(self, spend: Spend, *, granted: bool) -> Budget:
        """Return how the budget stands before `spend` is taken of it; `room_at` is when it fits, where it doesn't."""
        at = None if granted or self.has_room(spend) else self._room_at(spend)
        return Budget.trusted(spend, self.total, granted, at)

    def _room_at(self, spend: Spend) -> dt.datetime | None:
        if spend.window is None or spend.amount > spend.bound:
            return None
        (length, wide), rest = sizes(spend.window), self.total
        for number, amount in self.spent.items():
            rest = EXACT.subtract(rest, amount)
            if EXACT.add(rest, spend.amount) <= spend.bound:
                try:
                    return moment((number + 1) * wide + length)
                except OverflowError:  # after the year 9999
                    return None
        return None
