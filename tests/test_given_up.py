"""Calls that are given up while they are decided: what was done for them is known, recorded and given back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest

from agentauthz.approvals import Answer
from agentauthz.records import EventRecord
from tests.approving import LEAD, close_all, refund, shop
from tests.distant import DistantState
from tests.settling import TOKENS, WAYS, left
from tests.support import Recorded

READING: Final = """
mark asked on llm.* when true
forbid afterwards on llm.* when "shopped" in session.marks
mark shopped on shop.* when true
"""


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    """Close what a test opened."""
    yield
    close_all()


class Held(DistantState):
    """Be a store that does what it is asked, and holds the answer to one operation back until it is let."""

    def __init__(self, held: str) -> None:
        super().__init__()
        self.held: str | None = held
        self.reached, self.go = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        operation = super().__getattr__(name)

        def answered(*args: Any, **kwargs: Any) -> Any:
            answer = operation(*args, **kwargs)
            if name == self.held:
                self.held = None
                self.reached.set()
                self.go.wait(10)
            return answer

        return answered


async def _cancelled(store: Held, work: Any) -> None:
    """Cancel work in the middle of what the store holds back."""
    task = asyncio.ensure_future(work)
    assert await asyncio.to_thread(store.reached.wait, 10)
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()  # who insists waits too
    store.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("way", ["coroutine", "async generator", "async perform", "decide"])
async def test_what_was_committed_for_a_cancelled_call_is_recorded_and_comes_back(way: str) -> None:
    """Cancelled while the store commits, which it has: the decision is told, its effect says so, all comes back."""
    store = Held("commit")
    made = Recorded(TOKENS + "mark asked on llm.* when true\n", state=store)
    async with made.session() as session:
        work = WAYS[way](400, took=1) if way in WAYS else session.adecide("llm.ask", args={"most": 400})
        await _cancelled(store, work)
        assert await asyncio.to_thread(left, session) == [("tokens", 1000)]
        assert await session.amarks() == {"asked"}
    [decision], [effect] = made.decisions, made.effects
    assert (decision.outcome, effect.of, effect.status, effect.error_type) == (
        "allow", decision.id, "not_run", "CancelledError",
    )  # fmt: skip


@pytest.mark.parametrize("held", ["begin", "read"])
async def test_nothing_is_committed_for_a_call_that_was_cancelled_before(held: str) -> None:
    """Cancelled while the session's past is read: it is never decided, so there is nothing to record or give back."""
    store = Held(held)
    made = Recorded(TOKENS + READING, state=store)
    async with made.session() as session:
        await _cancelled(store, session.adecide("llm.ask", args={"most": 400}))
        assert "commit" not in store.asked
        assert await asyncio.to_thread(left, session) == [("tokens", 1000)]
    assert (made.decisions, made.effects) == ([], [])


async def test_an_approval_that_a_cancelled_call_has_used_up_is_told() -> None:
    """Its record says what it rests on, a `consumed` record that it is used, and its effect that nothing ran."""
    store = Held("commit")
    made = shop(state=store)
    async with made.session() as session:
        with pytest.raises(Exception, match="approval"):
            await session.aauthorize("shop.refund", args={"amount": 700})
        [review] = await asyncio.to_thread(made.authorizer.approvals.list)
        await asyncio.to_thread(made.authorizer.approvals.approve, review.id, LEAD)
        await _cancelled(store, session.adecide("shop.refund", args={"amount": 700}))
        assert (await asyncio.to_thread(made.authorizer.approvals.show, review.id)).standing == "used"
    assert [one.outcome for one in made.decisions] == ["review", "allow"]
    assert made.decisions[1].approval is not None
    assert [one.status for one in made.effects] == ["not_run"]
    told = [one for one in made.sink.records if isinstance(one, EventRecord) and one.type == "approval"]
    assert [one.about["kind"] for one in told] == ["requested", "approved", "consumed"]


async def test_a_call_that_is_cancelled_while_its_approver_thinks_is_recorded() -> None:
    """The request stands and can still be answered; the record says that the call waits for it."""
    asking = asyncio.Event()

    async def approver(review: Any) -> Answer:
        asking.set()
        await asyncio.sleep(60)
        return Answer(LEAD, approved=True)

    made = shop(approver=approver)
    async with made.session() as session:
        task = asyncio.ensure_future(session.adecide("shop.refund", args={"amount": 700}))
        await asking.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    [decision] = made.decisions
    [review] = made.authorizer.approvals.list()
    assert (decision.outcome, decision.approval) == ("review", review.id)
    assert review.standing == "pending"


def test_an_interrupt_while_the_approver_thinks_is_raised_once_the_request_is_recorded() -> None:
    """Ctrl-C in the callback: the same for plain calls."""

    def approver(review: Any) -> Answer:
        raise KeyboardInterrupt

    made = shop(approver=approver)
    with made.session() as session, pytest.raises(KeyboardInterrupt):
        session.bind(refund)("o-1", 700)
    assert [one.outcome for one in made.decisions] == ["review"]
    assert [one.standing for one in made.authorizer.approvals.list()] == ["pending"]
