"""Limits, marks, people's consent, obligations and revocation in one call: what each says holds beside the others."""

from __future__ import annotations

import asyncio
import json
import threading
from decimal import Decimal
from typing import Any, Final, cast

import pytest

from agentauthz import Chain, Denied, Principal, Request, Resource, ReviewRequired, SessionFacts, authorize
from agentauthz.approvals import Answer, Review
from agentauthz.authorizer.revocations import Revocations
from agentauthz.errors import Stopped
from agentauthz.obligations import Handler
from agentauthz.state.memory import MemoryState
from tests.approving import LEAD, OTHER, POLICY, asked, codes, refund, shop
from tests.support import BOT, MARIA, Clock, Recorded

LIMITED: Final = POLICY + "limit cap on shop.* to sum(args.amount) <= 1000 per subject every 1d\n"
OBLIGED: Final = LIMITED.replace("when true", "when true with tell(how: 1)", 1)


@authorize("shop.pay", sensitive=["salary"])
def pay(salary: Decimal) -> None:
    """Pay somebody."""


def kinds(made: Recorded) -> list[str]:
    """Return what was recorded of reviews, in order."""
    trees = [json.loads(record.line()) for record in made.sink.records]
    return [tree["about"]["kind"] for tree in trees if tree["type"] == "approval"]


def fails(duty: object) -> None:
    """Carry out nothing."""
    raise RuntimeError


# ---- who is asked may take long


class Slow:
    """Be an approver that consents, after something has happened meanwhile."""

    def __init__(self) -> None:
        self.meanwhile: Any = None

    def __call__(self, review: Review) -> Answer:
        self.meanwhile()
        return Answer(LEAD, approved=True)


def _expires(made: Recorded, session: Any) -> None:
    made.clock.forward(minutes=5)


def _closes(made: Recorded, session: Any) -> None:
    session.close()


@pytest.mark.parametrize(("happens", "code"), [(_expires, "expired"), (_closes, "session_closed")])
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_ends_while_a_person_is_asked_has_ended(happens: Any, code: str, is_async: bool) -> None:
    """A call that is consented to inline is decided as of then: its session may have ended since it was made."""
    approver = Slow()
    made = shop(approver=approver)
    session = made.session(expires="2m")
    approver.meanwhile = lambda: happens(made, session)
    call = {"order": "o-1", "amount": 700}
    decision = (
        (await session.adecide("shop.refund", args=call)) if is_async else session.decide("shop.refund", args=call)
    )
    assert codes(decision) == [code]
    [review] = made.authorizer.approvals.list(status=None)
    assert review.standing == "approved"


# ---- who consented may be revoked


def test_a_consent_of_somebody_who_was_revoked_since_completes_none() -> None:
    """A second person's consent leaves the request pending, until somebody else gives the first one's anew."""
    made = shop(
        POLICY + 'review huge on shop.* when args.amount > 900 by "boss" in approver.roles and approver != subject'
    )
    people, boss = made.authorizer.approvals, Principal.user("bea", roles=["boss"])
    review = asked(made.session(), "o-1", 950)
    assert people.approve(review.id, LEAD).standing == "pending"
    made.authorizer.revoke(principal=LEAD, reason="left the company")
    assert people.approve(review.id, boss).standing == "pending"
    assert people.approve(review.id, OTHER).standing == "approved"
    assert review.retry() == "refunded o-1 950"


# ---- what is used up is told


def test_an_approval_that_a_failing_obligation_wastes_is_told() -> None:
    """It is used up, which is recorded; what the call took of limits is there again."""
    made = shop(OBLIGED, obligations={"tell": fails})
    session = made.session()
    review = asked(session, "o-1", 700)
    made.authorizer.approvals.approve(review.id, LEAD)
    with pytest.raises(Denied, match="obligation_failed") as error:
        review.retry()
    assert made.authorizer.approvals.show(review.id).standing == "used"
    assert kinds(made) == ["requested", "approved", "consumed"]
    assert error.value.decision is not None
    assert [budget.granted for budget in error.value.decision.budgets] == [False]
    assert session.preview("shop.refund", args={"amount": 1}).budgets[0].used == 0


def test_an_approval_whose_use_cannot_be_recorded_is_told_to_whom_it_may_concern() -> None:
    """The call is denied, its approval used up, and `notify` says so."""
    told: list[str] = []

    class Full:
        full = False

        def append(self, line: bytes, record: Any) -> None:
            if self.full:
                raise OSError

    sink, ends = Full(), threading.Event()

    def notify(event: str, review: Review) -> None:
        told.append(event)
        if event == "consumed":
            ends.set()

    made = shop(LIMITED, sinks=[sink], notify=notify)
    review = asked(made.session(), "o-1", 700)
    made.authorizer.approvals.approve(review.id, LEAD)
    sink.full = True
    with pytest.raises(Denied, match="not_recorded"):
        review.retry()
    assert ends.wait(10)
    assert made.authorizer.approvals.show(review.id).standing == "used"


def test_an_approval_outlasts_a_limit_without_room() -> None:
    """Where there is no budget at the retry nothing is used up, and the same approval does once there is."""
    made = shop(LIMITED.replace("1d", "1m"))
    session = made.session()
    review = asked(session, "o-1", 700)
    made.authorizer.approvals.approve(review.id, LEAD)
    session.bind(refund)("o-2", 400)
    with pytest.raises(Denied, match="no_budget"):
        review.retry()
    assert made.authorizer.approvals.show(review.id).standing == "approved"
    made.clock.forward(minutes=2)
    assert review.retry() == "refunded o-1 700"
    assert kinds(made) == ["requested", "approved", "consumed"]


# ---- what is secret


def test_what_limits_count_of_a_sensitive_argument_is_in_no_record() -> None:
    """Neither the amount, nor a bound that is made of it, nor what was used before, which was an amount too."""
    made = Recorded(
        "permit p on shop.* when true\n"
        "limit l on shop.pay to sum(args.salary) <= 100000 per subject every 1d\n"
        "limit m on shop.pay to count <= args.salary * 2 per subject every 1d\n"
    )
    session = made.session()
    session.bind(pay)(Decimal("12345.67"))
    session.bind(pay)(Decimal("23456.78"))
    text = "".join(record.line().decode() for record in made.sink.records)
    assert not [each for each in ("12345.67", "24691.34", "23456.78", "46913.56") if each in text]


def test_what_limits_count_of_a_redacted_fact_is_in_no_record() -> None:
    """It is as with sensitive arguments, keys included; `per subject` stays what it is, and replays."""
    made = Recorded(
        "permit p on shop.* when true\n"
        "limit l on shop.* to sum(resource.worth) <= 100000 per subject every 1d\n"
        "limit m on shop.* to count <= 9 per resource.owner every 1d\n"
        "limit n on shop.* to count <= 9 per subject every 1d\n",
        redact={"resource.worth": "secret", "resource.owner": "correlate", "subject.roles": "secret"},
    )
    session = made.session()
    for worth in (Decimal("1234.5"), Decimal("777.25")):
        of = Resource("Order", "1", {"worth": worth, "owner": "olga"})
        decision = session.decide("shop.x", resource=of)
    text = "".join(record.line().decode() for record in made.sink.records)
    keys = {budget.rule: budget.key for budget in decision.budgets}
    shown = [each for each in ("1234.5", "777.25", "2011.75", "olga", keys["m"]) if each in text]
    assert shown == []
    assert keys["n"] in text


# ---- what is interrupted


class Inside:
    """Be a context that knows whether it was left."""

    def __init__(self) -> None:
        self.trail: list[str] = []

    def __call__(self, duty: object) -> Inside:
        return self

    def __enter__(self) -> None:
        self.trail.append("in")

    def __exit__(self, *problem: object) -> None:
        self.trail.append("out")


async def test_a_call_that_is_cancelled_while_its_approval_is_told_of_leaves_its_contexts() -> None:
    """What acts around the call was entered before, and is left though the call never runs."""
    reached, goes_on, inside = threading.Event(), threading.Event(), Inside()

    class Waits:
        def append(self, line: bytes, record: Any) -> None:
            if b'"consumed"' in line:
                reached.set()
                goes_on.wait(10)

    made = shop(OBLIGED, obligations={"tell": Handler(around=inside)}, sinks=[Waits()])
    session = made.session()
    with pytest.raises(ReviewRequired) as error:
        async with session.perform("shop.refund", args={"amount": 700}):
            pass
    assert error.value.review is not None
    made.authorizer.approvals.approve(error.value.review.id, LEAD)

    async def work() -> None:
        async with session.perform("shop.refund", args={"amount": 700}):
            inside.trail.append("ran")

    running = asyncio.create_task(work())
    assert await asyncio.to_thread(reached.wait, 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    goes_on.set()
    assert inside.trail == ["in", "out"]


@authorize("shop.plain")
def plain(amount: int) -> None:
    """Run in a thread's own time."""
    raise AssertionError


@authorize("shop.plain")
async def aplain(amount: int) -> None:
    """Run in a loop."""
    raise AssertionError


@pytest.mark.parametrize("tool", [plain, aplain])
async def test_a_handler_that_closes_the_session_stops_its_call(tool: Any) -> None:
    """Plain functions and coroutines alike don't run any more, and their effect says so."""
    inside: list[Any] = []
    made = shop(OBLIGED, obligations={"tell": lambda duty: inside[0].close()})
    inside.append(made.session())

    async def work() -> None:
        if (called := inside[0].bind(tool)(5)) is not None:
            await called

    with pytest.raises(Stopped):
        await work()
    assert [effect.status for effect in made.effects] == ["not_run"]


# ---- stores that may wait


class Waiting:
    """Be a store that may wait; it notes what is asked of it in a loop's thread, and how often what was revoked."""

    blocking = True

    def __init__(self) -> None:
        self.kept = MemoryState(clock=Clock())
        self.in_loop: list[str] = []
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.kept, name)

        def ask(*args: Any, **options: Any) -> Any:
            if asyncio._get_running_loop() is not None:
                self.in_loop.append(name)
            return operation(*args, **options)

        return ask

    def revocations(self, since: int) -> Any:
        self.asked += 1
        return self.kept.revocations(since)


async def test_marks_and_explanations_do_not_block_the_loop() -> None:
    """Their async twins ask the store in a thread, and say the same."""
    store = Waiting()
    made = shop(
        'type session { marks: ["seen"] }\n'
        'permit p on shop.* when true\nforbid f on shop.* when "seen" in session.marks',
        state=store,
    )
    session = made.session(id="s")
    await session.amark("seen")
    assert await session.amarks() == {"seen"}
    facts = SessionFacts("s", made.clock.now)
    request = Request("shop.refund", subject=MARIA, actor=BOT, args={"amount": 5}, session=facts, now=made.clock.now)
    found = await made.authorizer.aexplain(request)
    assert store.in_loop == []
    assert found.render() == made.authorizer.explain(request).render()
    made.authorizer.close()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_store_that_answers_nothing_denies(is_async: bool) -> None:
    """A commit that gives no answer is a store that failed: the record says so, and replays."""
    made = shop(LIMITED)
    session = made.session()
    store: Any = made.authorizer._state
    store.commit = lambda intent: None
    call = {"order": "o-1", "amount": 5}
    decision = (
        (await session.adecide("shop.refund", args=call)) if is_async else session.decide("shop.refund", args=call)
    )
    assert codes(decision) == ["state_failed"]
    assert made.decisions[-1].cause == "failed"
    assert codes(session.preview("shop.refund", args=call)) == ["state_failed"]


def test_an_answer_reads_once_what_was_revoked() -> None:
    """Who approves asks the store once, and begins no thread that reads in the background."""

    store, threads = Waiting(), set(threading.enumerate())
    store.kept.revoke("principal", '[null, "user", "lena"]', "left")
    read = Revocations.read(cast(Any, store))
    assert store.asked == 1
    assert set(threading.enumerate()) <= threads
    assert read.against(read.known(), None, Chain(LEAD)) is not None
