"""Test what is particular to state in memory: what asks it again in the middle of an operation of the same thread."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import pytest

from agentauthz.errors import StateError
from agentauthz.state import changes, memory, windows
from agentauthz.state.memory import MemoryState
from agentauthz.state.store import Committed, Intent, Refused, Reservation
from agentauthz.testing.trying import FAR, approved, spend, spending, taken, used
from tests.interrupting import interrupted
from tests.support import Clock

WITHIN: Final = (memory, windows, changes)


def _each_line(work: Callable[[MemoryState], object], handler: Callable[[MemoryState], object]) -> Any:
    """Return stores in which something was done, each with something else done before another of its lines."""
    for line in itertools.count(1):
        store = MemoryState()
        store.commit(spending(spend("used", bound="10")))
        approved(store, "approval")

        def handle(store: MemoryState = store) -> None:
            with contextlib.suppress(StateError):
                handler(store)

        if not interrupted(line, WITHIN, lambda store=store: work(store), handle):  # type: ignore[misc]
            assert line > 3
            return
        yield store


@pytest.mark.parametrize("window", [True, False])
def test_a_call_in_the_middle_of_another_one_spends_nothing_twice(window: bool) -> None:
    """A handler of a signal that spends of the same budget gets in before or after, or an error; never between."""
    one = spend("k", bound="1") if window else spend("k", bound="1", window=None)
    got: list[bool] = []

    def take(store: MemoryState) -> None:
        got.append(taken(store.commit(spending(one, session="s"))))

    for store in _each_line(take, take):
        assert sum(got) == 1
        assert used(store, one, session="s") == [1]
        got.clear()


def test_what_is_given_back_in_the_middle_of_a_call_is_given_back_whole_or_not() -> None:
    """A budget's total stays the sum of its buckets, whatever is released while something is spent."""
    made: dict[int, Any] = {}

    def release(store: MemoryState) -> None:
        store.release(made[id(store)])

    def take(store: MemoryState) -> None:
        answer = store.commit(spending(spend("k"), releasable=True))
        assert isinstance(answer, Committed)
        made[id(store)] = answer.reservation
        assert taken(store.commit(spending(spend("k"))))

    for store in _each_line(take, lambda store: release(store) if id(store) in made else None):
        [budget] = [kept for key, kept in store._budgets.items() if key.startswith("k")]
        assert sum(budget.spent.values()) == budget.total >= 1
        made.clear()


def test_a_mark_in_the_middle_of_a_call_is_there_or_refused() -> None:
    """What was marked isn't overwritten by what a commit had read of the session before."""
    said: list[str] = []

    def mark(store: MemoryState) -> None:
        store.mark("s", "theirs")
        said.append("marked")

    for store in _each_line(lambda store: store.commit(Intent("s", marks=("ours",), began="a")), mark):
        marks = store.read("s").marks
        assert "ours" in marks
        assert ("theirs" in marks) == (said == ["marked"])
        said.clear()


def test_what_counts_once_counts_once_in_the_middle_of_itself() -> None:
    """An approval and a key are used by one of the two."""
    got: list[bool] = []

    def use(store: MemoryState) -> None:
        got.append(taken(store.commit(Intent(None, approvals=("approval",)))))

    def once(store: MemoryState) -> None:
        got.append(store.once("key", store.now() + FAR))

    for work in (use, once):
        got.clear()
        for _ in _each_line(work, work):
            assert sum(got) == 1
            got.clear()


def test_a_revocation_in_the_middle_of_another_one_gets_a_number_of_its_own() -> None:
    """At whatever line the handler revokes: all that was revoked is told, each once, in order, and commits know it."""

    def revoke(name: str) -> Callable[[MemoryState], object]:
        return lambda store: store.revoke("session", name, "r")

    for store in _each_line(revoke("a"), revoke("b")):
        told = store.revocations(0)
        assert [one.number for one in told] == [1, 2]
        assert {one.name for one in told} == {"a", "b"}
        assert store.revocations(1) == told[1:]
        assert taken(store.commit(Intent("s", marks=("m",), revocations=2)))


def test_a_call_may_be_made_again_after_an_interruption() -> None:
    """Who was refused in the middle of another operation finds the store as it was."""
    for store in _each_line(lambda store: store.commit(Intent("s", marks=("a",))), lambda store: store.mark("s", "b")):
        store.mark("s", "c")
        assert store.read("s").marks >= {"a", "c"}


@pytest.mark.parametrize("window", [True, False])
def test_an_interruption_makes_no_budget_wider(window: bool) -> None:
    """Wherever Ctrl-C comes into a budget's sums: what counts is never less than what time or a release takes away."""
    clock = Clock()
    one = spend("k") if window else spend("k", window=None)

    def take(store: MemoryState) -> None:
        answer = store.commit(spending(one, session="s", releasable=True))
        assert isinstance(answer, Committed)
        assert answer.reservation is not None
        store.settle(answer.reservation, {one.rule: Decimal("0.25")})

    def stop() -> None:
        raise KeyboardInterrupt

    for line in itertools.count(1):
        store = MemoryState(clock=clock)
        take(store)
        clock.forward(hours=line % 2 * 2)  # in half of them, what was spent before begins to count no more
        with contextlib.suppress(KeyboardInterrupt):
            if not interrupted(line // 2 + 1, [windows], lambda store=store: take(store), stop):  # type: ignore[misc]
                break
        assert used(store, one, session="s") >= [Decimal(0)]
        for kept in (store._budgets if window else store._session("s").budgets).values():
            assert kept.total >= sum(kept.spent.values())


def test_what_spends_nothing_of_a_session_s_budget_begins_no_session() -> None:
    """Neither a refusal, nor a trial, nor giving back: else what is watched in it would seem to be so from then on."""
    store = MemoryState()
    much, some = spend("money", "11", window=None), spend("money", "1", window=None)
    assert isinstance(store.commit(spending(much, session="s")), Refused)
    assert isinstance(store.commit(Intent("s", spends=(some,), reserve=False)), Committed)
    store.release(Reservation(((some, 0),), "s"))
    long_ago = store.now() - dt.timedelta(days=1)
    begun = store.begin("s", long_ago, {"a": long_ago}, keep=False)
    assert (begun.started, store.read("s").watched) == (long_ago, {"a": long_ago})
