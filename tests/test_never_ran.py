"""Calls that were allowed and never ran: what their effects say, and what comes back of their budgets."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from agentauthz import (
    Stopped,
    authorize,
)
from agentauthz.approvals import Answer
from agentauthz.authorizer.consulting import Consultation
from agentauthz.obligations import Handler
from tests.approving import LEAD, POLICY, close_all, shop
from tests.distant import DistantState
from tests.settling import TOKENS, WAYS, async_generator, coroutine, generator, later, left, plain
from tests.support import Recorded


def fates(made: Recorded) -> list[tuple[str, str | None]]:
    return [(effect.status, effect.error_type) for effect in made.effects]


@pytest.mark.parametrize("way", ["plain", "coroutine", "generator", "async generator"])
async def test_a_call_whose_session_closes_before_it_runs_never_ran(way: str) -> None:
    """Closed between the decision and the first step, the function never begins: so the effect says, all comes back."""
    held: list[Any] = []
    policy = TOKENS.replace("when true", "when true with shut(how: 1)")
    made = Recorded(policy, obligations={"shut": Handler(before=lambda duty: held[0].close())})
    async with made.session(id="s") as session:
        held.append(session)
        with pytest.raises(Stopped):
            await WAYS[way](400, took=1)
        assert [effect.spent for effect in made.effects] == [{"tokens": {"$d": "0"}}]
    assert fates(made) == [("not_run", "Stopped")]
    assert left(made.session(id="s")) == [("tokens", 1000)]


class Gate:
    """Be a sink that keeps what comes, but not before it is let."""

    blocking = True
    bounded = True

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

    def append(self, line: bytes, record: object) -> None:
        self.reached.set()
        self.go.wait(10)

    def close(self) -> None: ...


@pytest.mark.parametrize("way", ["coroutine", "async generator", "async perform", "decide"])
async def test_a_task_that_is_cancelled_while_its_decision_is_recorded_never_ran(way: str) -> None:
    """The decision stands in the log, its effect says `not_run`, and what was reserved comes back."""
    made, gate = Recorded(TOKENS), Gate()
    sink: Any = gate
    async with made.session() as session:
        made.authorizer.add_sink(sink)
        work = WAYS[way](400, took=1) if way in WAYS else session.adecide("llm.ask", args={"most": 400})
        task = asyncio.ensure_future(work)
        await asyncio.to_thread(gate.reached.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        gate.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        made.authorizer.remove_sink(sink)
        assert left(session) == [("tokens", 1000)]
    [decision] = made.decisions
    [effect] = made.effects
    assert (decision.outcome, effect.of, effect.status) == ("allow", decision.id, "not_run")


async def test_a_call_that_people_have_allowed_waits_for_nothing_before_its_record() -> None:
    """Between the answer that allows it and its record there is no moment in which to be cancelled, and lose both."""
    made = shop(approver=lambda review: Answer(LEAD, approved=True))
    asked: list[str] = []
    waiting = Consultation._waiting

    def watched(consultation: Consultation, verdict: Any) -> Any:
        asked.append(verdict.decision.outcome.value)
        return waiting(consultation, verdict)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Consultation, "_waiting", watched)
        async with made.session() as session:
            assert (await session.adecide("shop.refund", args={"amount": 700})).allowed
    assert asked == ["review"]
    close_all()


async def test_a_call_that_is_cancelled_while_people_are_told_never_ran() -> None:
    """Its approval is used and its decision recorded, and then it never begins: its effect says so."""

    class Telling(Gate):
        def append(self, line: bytes, record: object) -> None:
            if b'"kind":"consumed"' in line:
                super().append(line, record)

    gate, policy = Telling(), POLICY + TOKENS.replace("llm", "shop").replace("args.most", "args.amount")
    made = shop(policy, approver=lambda review: Answer(LEAD, approved=True))
    sink: Any = gate

    @authorize("shop.refund")
    async def refund(amount: int) -> None: ...

    async with made.session() as session:
        made.authorizer.add_sink(sink)
        task = asyncio.ensure_future(refund(700))
        await asyncio.to_thread(gate.reached.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        gate.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        made.authorizer.remove_sink(sink)
        [budget] = session.preview("shop.small", args={"amount": 1}).budgets
        assert budget.used == 0
    assert fates(made) == [("not_run", "CancelledError")]
    close_all()


def test_an_interrupt_while_the_decision_is_recorded_is_told() -> None:
    """Ctrl-C in a sink: the record is complete, the call never ran, and says so."""

    class Interrupted:
        blocking = False
        armed = True

        def append(self, line: bytes, record: object) -> None:
            if self.armed:
                self.armed = False
                raise KeyboardInterrupt

        def close(self) -> None: ...

    made = Recorded(TOKENS)
    sink: Any = Interrupted()
    made.authorizer.add_sink(sink)
    with made.session() as session:
        with pytest.raises(KeyboardInterrupt):
            plain(400, took=1)
        assert left(session) == [("tokens", 1000)]
    assert fates(made) == [("not_run", "KeyboardInterrupt")]


async def test_a_coroutine_that_falls_before_its_first_step_never_ran() -> None:
    """Revoked between the decision and the first step of what is cancelled then: not_run."""
    made = Recorded(TOKENS)
    begun: list[int] = []

    @authorize("llm.ask", cancel_on_revoke=True)
    async def first(most: int) -> None:
        begun.append(most)

    watch = type(made.authorizer).watch

    def revoked_first(authorizer: Any, running: object, look: Any) -> None:
        authorizer.revoke(session="s", reason="r")
        watch(authorizer, running, look)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(made.authorizer), "watch", revoked_first)
        async with made.session(id="s"):
            with pytest.raises(Stopped):
                await first(400)
    assert (begun, fates(made)) == ([], [("not_run", "Stopped")])


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_a_coroutine_that_nobody_awaits_was_stopped() -> None:
    """A function that returned one has begun: its call was stopped, stays spent, and its contexts are left."""
    left_with: list[object] = []

    class Around:
        def __enter__(self) -> None: ...

        def __exit__(self, kind: object, error: object, trace: object) -> None:
            left_with.append(kind)

    policy = TOKENS.replace("when true", "when true with held(how: 1)")
    made = Recorded(policy, obligations={"held": Handler(around=lambda duty: Around())})
    async with made.session() as session:
        work = later(400, took=1)
        assert made.effects == []
        del work
        gc.collect()
        assert fates(made) == [("stopped", "GeneratorExit")]
        assert left_with == [GeneratorExit]
        assert left(session) == [("tokens", 600)]
        await later(100, took=1)
        assert left(session) == [("tokens", 599)]
    assert len(made.effects) == 2


async def test_what_was_never_decided_has_no_effect() -> None:
    """A decorated coroutine or generator is decided at its first step: before it, there is nothing to tell."""
    made = Recorded(TOKENS)
    async with made.session() as session:
        coroutine(400, took=1).close()
        generator(400, took=1).close()  # type: ignore[attr-defined]
        await async_generator(400, took=1).aclose()  # type: ignore[attr-defined]
        assert left(session) == [("tokens", 1000)]
    assert (made.decisions, made.effects) == ([], [])


def test_what_never_ran_stays_spent_where_the_store_fails() -> None:
    """A store that can't take a reservation back keeps it: the effect is told all the same."""
    store = DistantState()
    held: list[Any] = []

    def shut(duty: object) -> None:
        store.down = {"release"}
        held[0].close()

    policy = TOKENS.replace("when true", "when true with shut(how: 1)")
    made = Recorded(policy, state=store, obligations={"shut": Handler(before=shut)})
    with made.session(id="s") as session:
        held.append(session)
        with pytest.raises(Stopped):
            plain(400, took=1)
    store.down = set()
    assert fates(made) == [("not_run", "Stopped")]
    assert left(made.session(id="s")) == [("tokens", 600)]
    assert [effect.spent for effect in made.effects] == [{}]
