"""Test rolling windows: whatever is granted, no window holds more than its bound."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from agentauthz.decision import Reason, Spend
from agentauthz.state.windows import PARTS, Buckets, moment, width
from tests.laws.counting import LONG

MANY: Final = settings(max_examples=20_000 if LONG else 300)
WINDOWS: Final = st.sampled_from([1, 61, 62, 63, 1_000, 100_003, 60_000_000]) | st.integers(1, 10**9)
AMOUNTS: Final = st.sampled_from([Decimal(0), Decimal("0.1"), Decimal(1), Decimal("2.5"), Decimal(10)])
# how long until the next call: in windows, in buckets, and in microseconds
STEPS: Final = st.lists(
    st.tuples(st.sampled_from([0, 0, 0, 1]), st.integers(-2, 64), st.integers(-2, 2), AMOUNTS), max_size=30
)


def _spend(window: int, amount: Decimal) -> Spend:
    return Spend("r", "k", amount, Decimal(10), dt.timedelta(microseconds=window), Reason("no_budget", "none"))


@MANY
@given(WINDOWS, st.integers(0, 10**15), STEPS)
def test_no_window_holds_more_than_its_bound(
    window: int, start: int, steps: list[tuple[int, int, int, Decimal]]
) -> None:
    """By brute force over the granted times: in no window is more granted than the bound; at most 64 buckets are kept.

    What is refused wouldn't have fitted within a window that is two buckets longer, and fits when it is said to.
    """
    now, wide, kept, grants = start, width(dt.timedelta(microseconds=window)), Buckets(), list[tuple[int, Decimal]]()
    for windows, buckets, rest, amount in steps:
        now = max(now, now + windows * window + buckets * wide + rest)  # a store's time never steps back
        asked = _spend(window, amount)
        number = kept.turn(asked, now)
        if kept.has_room(asked):
            kept.add(asked, number)
            grants.append((now, amount))
        else:
            assert sum(each for at, each in grants if at >= now - window - 2 * wide) + amount > 10
            _comes(kept, asked, now)
        assert len(kept.spent) <= PARTS + 2
        assert sum(each for at, each in grants if now - window <= at <= now) <= 10


def _comes(kept: Buckets, asked: Spend, now: int) -> None:
    """Hold a budget to when it says that there is room."""
    at = kept.stands(asked, granted=False).room_at
    assert at is not None
    assert at > moment(now)
    later = (at - moment(0)) // dt.timedelta(microseconds=1)
    for when, fits in ((later, True), (later - 1, False)):
        then = Buckets.of(kept.spent.items())
        then.turn(asked, when)
        assert then.has_room(asked) == fits


@given(st.lists(st.tuples(st.integers(0, 5), AMOUNTS, st.booleans()), max_size=20))
def test_what_is_given_back_can_be_spent_again(steps: list[tuple[int, Decimal, bool]]) -> None:
    """The total is the sum of what was spent and not given back, to the last digit; old buckets give nothing back."""
    kept, held, asked = Buckets(), list[tuple[int, Decimal]](), _spend(62, Decimal(0))
    for number, amount, back in steps:
        if back and held:
            kept.give_back(*held.pop())
        elif number >= max([each for each, _ in held], default=0):
            held.append((kept.add(_spend(62, amount), number), amount))
    assert kept.total == sum(amount for _, amount in held)
    before = kept.total
    kept.give_back(99, Decimal(5))
    assert kept.total == before
    kept.turn(asked, 161)  # 62 microseconds later, the window and the bucket of the last have passed
    assert kept.total == 0
    assert kept.spent == {}
    assert kept.has_room(asked)
