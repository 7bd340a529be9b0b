"""Approvals: asking, answering, waiting, inline callbacks, notification, calls from what was stored, and records."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest

from agentauthz import (
    Chain,
    Delegation,
    Denied,
    Injected,
    InvalidArgument,
    Outcome,
    PolicySet,
    Principal,
    Request,
    Resource,
    ReviewRequired,
    SessionFacts,
    authorize,
    current,
)
from agentauthz.approvals import Answer, Review
from agentauthz.cli import main
from agentauthz.errors import ApprovalRefused
from agentauthz.records import EventRecord
from agentauthz.replay.answer import Answer as Came
from agentauthz.replay.answer import Asker
from agentauthz.state.memory import MemoryState
from tests import logs
from tests.approving import LEAD, OTHER, POLICY, asked, close_all, codes, refund, shared, shop
from tests.support import BOT, MARIA, NOON, Clock, Recorded

FOUR_EYES = (
    POLICY
    + """
review boss
  on shop.*
  when args.amount > 1000
  by "boss" in approver.roles and approver != subject
  within 5m
"""
)
BOSS = Principal.user("bea", roles=["boss"])


def yes(review: Review) -> Answer:
    return Answer(LEAD, True, "fine")


def events(kept: Recorded) -> list[dict[str, Any]]:
    return [record.as_dict() for record in kept.sink.records if getattr(record, "type", "") == "approval"]


def wait_in_steps(found: queue.Queue[Any], count: int) -> list[Any]:
    return [found.get(timeout=30) for _ in range(count)]


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    yield
    close_all()


# ---- asking and answering


def test_a_review_tells_all_of_the_call() -> None:
    """Who asks for whom through whom, what, of what, why, who may approve, and until when."""
    kept = shop()
    session = kept.session(id="s", purpose="refunds")
    decision = session.decide("shop.x", args={"amount": 600, "to": ["a"]}, resource=Resource("Order", "o-1"))
    assert decision.outcome is Outcome.REVIEW
    review = kept.authorizer.approvals.show(decision.approval)
    assert (review.action, review.subject, review.actor, review.session) == ("shop.x", MARIA, BOT, "s")
    assert (review.rules, review.because) == (("big",), "Finance looks at large refunds")
    assert review.asking[0].by == '"lead" in approver.roles and approver != subject'
    assert review.args == {"amount": 600, "to": ["a"]}
    assert review.resource is not None
    assert review.resource.id == "o-1"
    assert review.chain.delegations[0].to == BOT
    assert review.expires - review.at == dt.timedelta(minutes=10)
    assert review.standing == "pending"
    assert repr(review) == f"<Review {review.id} of `shop.x`, pending>"


def test_a_call_that_waits_is_asked_about_once() -> None:
    """Trying it again finds the same request."""
    kept = shop()
    session = kept.session()
    assert asked(session, "o-1", 600).id == asked(session, "o-1", 600).id
    assert [event["about"]["kind"] for event in events(kept)] == ["requested"]


def test_reviews_are_listed_by_status_and_session() -> None:
    """What waits is listed, oldest first; all with None."""
    kept = shop()
    one = asked(kept.session(id="a"), "o-1", 600)
    two = asked(kept.session(id="b"), "o-2", 600)
    approvals = kept.authorizer.approvals
    assert [review.id for review in approvals.list()] == [one.id, two.id]
    assert [review.id for review in approvals.list(session="b")] == [two.id]
    approvals.approve(one.id, LEAD)
    assert [review.id for review in approvals.list(status="approved")] == [one.id]
    kept.clock.forward(minutes=10)
    assert {review.standing for review in approvals.list(status=None)} == {"expired"}
    with pytest.raises(InvalidArgument, match="no request"):
        approvals.show("nothing")


def test_an_inline_call_returns_its_decision_when_it_is_retried() -> None:
    """`authorize` and its async form, with the retry in the same form."""
    kept = shop()
    session = kept.session()
    with pytest.raises(ReviewRequired) as error:
        session.authorize("shop.x", args={"amount": 600})
    review = error.value.review
    assert review is not None
    with pytest.raises(ReviewRequired) as again:
        review.retry()
    assert again.value.review is not None
    assert again.value.review.id == review.id
    kept.authorizer.approvals.approve(review.id, LEAD)
    decision = review.retry()
    assert decision.allowed
    assert decision.approval == review.id

    async def main() -> None:
        with pytest.raises(ReviewRequired) as error:
            await session.aauthorize("shop.y", args={"amount": 600})
        review = error.value.review
        assert review is not None
        kept.authorizer.approvals.approve(review.id, LEAD)
        assert (await review.retry()).allowed

    asyncio.run(main())


def test_work_that_is_performed_is_entered_when_it_is_retried() -> None:
    """The retry of a `perform` is another one, for the same call."""
    kept = shop()
    with pytest.raises(ReviewRequired) as error, kept.session().perform("shop.x", args={"amount": 600}):
        pytest.fail("entered")
    review = error.value.review
    assert review is not None
    kept.authorizer.approvals.approve(review.id, LEAD)
    with review.retry() as decision:
        assert decision.allowed
    assert kept.effects[-1].status == "done"


def test_a_request_made_by_hand_can_be_approved() -> None:
    """It is decided again at the moment of the retry."""
    kept = shop()
    request = Request(
        "shop.x", subject=MARIA, actor=BOT, args={"amount": 600}, session=SessionFacts("s", NOON), now=NOON
    )
    with pytest.raises(ReviewRequired) as error:
        kept.authorizer.authorize(request)
    review = error.value.review
    assert review is not None
    kept.authorizer.approvals.approve(review.id, LEAD)
    kept.clock.forward(minutes=1)
    assert review.retry().allowed
    assert kept.decisions[-1].ts == kept.clock.now


def test_every_kind_of_function_can_be_retried() -> None:
    """Coroutines, generators, async generators and methods, each with the arguments that were approved."""
    kept = shop()
    session = kept.session()

    class Shop:
        @authorize("shop.method")
        def method(self, amount: int, *more: int, flag: bool, **rest: int) -> tuple[Any, ...]:
            return (type(self).__name__, amount, more, flag, rest, current().session.id == session.id)

    @authorize("shop.coroutine")
    async def coroutine(amount: int) -> int:
        return amount

    @authorize("shop.generator")
    def generator(amount: int) -> Iterator[int]:
        yield amount

    @authorize("shop.stream")
    async def stream(amount: int) -> AsyncIterator[int]:
        yield amount

    async def collected(items: AsyncIterator[int]) -> list[int]:
        return [item async for item in items]

    def approved(error: pytest.ExceptionInfo[ReviewRequired]) -> Review:
        assert error.value.review is not None
        kept.authorizer.approvals.approve(error.value.review.id, LEAD)
        return error.value.review

    with pytest.raises(ReviewRequired) as error:
        session.bind(Shop().method)(600, 1, 2, flag=True, k=3)
    assert approved(error).retry() == ("Shop", 600, (1, 2), True, {"k": 3}, True)
    with pytest.raises(ReviewRequired) as error:
        asyncio.run(session.bind(coroutine)(600))
    assert asyncio.run(approved(error).retry()) == 600
    with pytest.raises(ReviewRequired) as error:
        list(session.bind(generator)(600))
    assert list(approved(error).retry()) == [600]
    with pytest.raises(ReviewRequired) as error:
        asyncio.run(collected(session.bind(stream)(600)))
    assert asyncio.run(collected(approved(error).retry())) == [600]


def test_limits_are_tried_before_anybody_is_asked() -> None:
    """What has no room isn't worth a person's time, and an approved call spends in the same step."""
    kept = shop(POLICY + "\nlimit few on shop.* to count <= 1 per subject every 1d")
    session = kept.session()
    review = asked(session, "o-1", 600)
    kept.authorizer.approvals.approve(review.id, LEAD)
    review.retry()
    with pytest.raises(Denied) as error:
        session.bind(refund)("o-2", 600)
    assert error.value.decision is not None
    assert error.value.decision.basis.value == "limit"
    assert len(kept.authorizer.approvals.list(status=None)) == 1


def test_obligations_bind_an_approved_call_too() -> None:
    """An approval lets nothing happen that lacks something else, and isn't used up by it."""
    kept = shop(POLICY.replace("when true", "when true with expire(after: 5m)"))
    session = kept.session()
    review = asked(session, "o-1", 600)
    kept.authorizer.approvals.approve(review.id, LEAD)
    with pytest.raises(Denied, match="obligation_unsupported"):
        review.retry()
    assert kept.authorizer.approvals.show(review.id).standing == "approved"


def test_an_approved_call_sets_marks() -> None:
    """Marks are set in the step that uses the approval up, not when it is asked."""
    kept = shop(POLICY + "\nmark refunded on shop.refund when true")
    session = kept.session()
    review = asked(session, "o-1", 600)
    assert session.marks == frozenset()
    kept.authorizer.approvals.approve(review.id, LEAD)
    review.retry()
    assert session.marks == {"refunded"}


def test_a_hand_off_can_be_approved() -> None:
    """The second attempt finds the approval of the first."""
    kept = shop(
        "permit all on shop.* when true\npermit hand on delegation.handoff when true\n"
        'review hand_off on delegation.handoff when true by "lead" in approver.roles and approver != subject'
    )
    session = kept.session()
    with pytest.raises(ReviewRequired) as error:
        session.delegate(Principal.agent("helper"), handoff=True)
    assert error.value.review is not None
    kept.authorizer.approvals.approve(error.value.review.id, LEAD)
    assert session.delegate(Principal.agent("helper"), handoff=True).chain.depth == 2


# ---- several people


def test_two_reviews_need_two_people_who_fit() -> None:
    """One consent isn't enough while another review asks: the request stays pending, and ends with the shorter time."""
    kept = shop(FOUR_EYES)
    review = asked(kept.session(), "o-1", 2000)
    approvals = kept.authorizer.approvals
    assert set(review.rules) == {"big", "boss"}
    assert review.expires - review.at == dt.timedelta(minutes=5)
    first = approvals.approve(review.id, LEAD, note="ok")
    assert (first.standing, [consent.by for consent in first.consents]) == ("pending", [LEAD])
    with pytest.raises(ReviewRequired):
        review.retry()
    for again in (LEAD, OTHER):
        with pytest.raises(ApprovalRefused, match="not_approver"):
            approvals.approve(review.id, again)
    assert approvals.approve(review.id, BOSS).standing == "approved"
    assert review.retry() == "refunded o-1 2000"
    assert [each.by.sub for each in kept.decisions[-1].consents] == ["lena", "bea"]


def test_one_person_may_satisfy_several_reviews() -> None:
    """Who fits both is enough."""
    kept = shop(FOUR_EYES)
    review = asked(kept.session(), "o-1", 2000)
    both = Principal.user("bo", roles=["boss", "lead"])
    assert kept.authorizer.approvals.approve(review.id, both).standing == "approved"


def test_a_rejection_after_one_consent_ends_the_request() -> None:
    """Anybody's no counts, and who had consented is still told."""
    kept = shop(FOUR_EYES)
    review = asked(kept.session(), "o-1", 2000)
    kept.authorizer.approvals.approve(review.id, LEAD)
    after = kept.authorizer.approvals.reject(review.id, BOSS, note="too much")
    assert (after.standing, [each.by for each in after.consents]) == ("rejected", [LEAD])
    assert after.rejection is not None
    assert (after.rejection.by, after.rejection.note) == (BOSS, "too much")


def test_two_people_who_answer_at_once_do_not_overwrite_each_other() -> None:
    """One of them is told to look again: no consent gets lost."""
    kept = shop(FOUR_EYES)
    review = asked(kept.session(), "o-1", 2000)
    approvals, start = kept.authorizer.approvals, threading.Barrier(2)
    late: list[Principal] = []

    def answer(who: Principal) -> None:
        start.wait()
        try:
            approvals.approve(review.id, who)
        except ApprovalRefused:
            late.append(who)

    threads = [threading.Thread(target=answer, args=(who,)) for who in (LEAD, BOSS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for who in late:
        approvals.approve(review.id, who)
    assert {consent.by for consent in approvals.show(review.id).consents} == {LEAD, BOSS}


# ---- waiting, callbacks, notification


def test_waiting_ends_with_an_answer_or_with_the_time() -> None:
    """`wait` and `awaited` return how it stands then."""
    kept = shop()
    review = asked(kept.session(), "o-1", 600)
    approvals = kept.authorizer.approvals
    assert approvals.wait(review.id, 0).standing == "pending"
    timer = threading.Timer(0.05, approvals.approve, (review.id, LEAD))
    timer.start()
    assert approvals.wait(review.id, 30).standing == "approved"
    timer.join()
    assert asyncio.run(approvals.awaited(review.id, 30)).standing == "approved"
    other = asked(kept.session(), "o-2", 600)
    assert asyncio.run(approvals.awaited(other.id, 0.01)).standing == "pending"
    kept.clock.forward(hours=1)
    assert approvals.wait(other.id).standing == "expired"
    for bad in (-1, float("nan"), "1"):
        with pytest.raises(InvalidArgument):
            approvals.wait(review.id, bad)  # type: ignore[arg-type]


def test_a_callback_answers_while_the_call_is_decided() -> None:
    """A yes lets it run in the same call; a no denies it; nothing leaves it to others."""
    assert shop(approver=yes).session().bind(refund)("o-1", 600) == "refunded o-1 600"
    with pytest.raises(Denied, match="approval_rejected"):
        shop(approver=lambda _: Answer(OTHER, False)).session().bind(refund)("o-1", 600)
    with pytest.raises(ReviewRequired):
        shop(approver=lambda _: None).session().bind(refund)("o-1", 600)


def test_a_callback_may_be_a_coroutine_function_where_the_call_is_async(caplog: pytest.LogCaptureFixture) -> None:
    """In a call that isn't, it can't be asked, and that is logged."""

    async def approver(review: Review) -> Answer:
        await asyncio.sleep(0)
        return yes(review)

    kept = shop(approver=approver)

    async def main() -> None:
        assert (await kept.session().aauthorize("shop.x", args={"amount": 600})).allowed
        assert (await shop(approver=yes).session().aauthorize("shop.x", args={"amount": 600})).allowed

    asyncio.run(main())
    with pytest.raises(ReviewRequired):
        kept.session().bind(refund)("o-1", 600)
    assert "coroutine function" in caplog.text


def test_a_callback_is_asked_for_as_many_people_as_are_needed() -> None:
    """Where two have to consent, it is asked twice, and sees who has."""

    def approver(review: Review) -> Answer:
        return Answer(BOSS if review.consents else LEAD, True)

    assert shop(FOUR_EYES, approver=approver).session().bind(refund)("o-1", 2000) == "refunded o-1 2000"


def test_hooks_are_told_what_happens_and_decide_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A hook that fails or hangs neither blocks a call nor lets one through."""
    told: queue.Queue[Any] = queue.Queue()
    kept = shop(notify=lambda event, review: told.put((event, review.standing)))
    session = kept.session()
    review = asked(session, "o-1", 600)
    kept.authorizer.approvals.approve(review.id, LEAD)
    review.retry()
    assert sorted(wait_in_steps(told, 3)) == [
        ("approved", "approved"),
        ("consumed", "approved"),
        ("requested", "pending"),
    ]

    hang = threading.Event()
    started = time.monotonic()
    with pytest.raises(ReviewRequired):
        shop(notify=lambda *_: hang.wait(20)).session().bind(refund)("o-1", 600)
    assert time.monotonic() - started < 10
    hang.set()

    failed = threading.Event()

    async def fail(event: str, review: Review) -> None:
        failed.set()
        raise RuntimeError("secret")

    with caplog.at_level(logging.ERROR), pytest.raises(ReviewRequired):
        shop(notify=fail).session().bind(refund)("o-1", 600)
    assert failed.wait(20)
    assert "secret" not in caplog.text
    with pytest.raises(InvalidArgument):
        shop(notify="x")


# ---- calls from what was stored


def test_an_approved_call_is_made_after_a_restart(tmp_path: Path) -> None:
    """With the same key and store, another process makes exactly that call, in that session, once."""
    clock = Clock()
    kept = shop(state=shared(tmp_path / "state", clock), clock=clock)
    session = kept.session(id="s", purpose="refunds", context={"tenant": "t"}, expires="1h")
    review = asked(session.delegate(Principal.agent("helper", trust=1)), "o-1", Decimal("600.50"), card="4111")
    kept.authorizer.approvals.approve(review.id, LEAD)

    later = shop(state=shared(tmp_path / "state", clock), clock=clock)
    assert later.authorizer.approvals.call(review.id, refund) == "refunded o-1 600.5"
    record = later.decisions[-1]
    assert (record.session, record.purpose, record.depth) == ("s", "refunds", 2)
    assert record.approval == review.id
    with pytest.raises(Denied, match="approval_used"):
        later.authorizer.approvals.call(review.id, refund)


def test_a_call_can_not_be_made_before_it_is_approved_nor_with_another_tool() -> None:
    """It is decided like any other, and the tool must be the one for the action."""
    kept = shop()
    review = asked(kept.session(id="s"), "o-1", 600)
    approvals = kept.authorizer.approvals
    with pytest.raises(ReviewRequired):
        approvals.call(review.id, refund)

    @authorize("shop.other")
    def other(order: str, amount: int, note: str, card: str) -> str:
        return "other"

    for wrong in (other, print):
        with pytest.raises(InvalidArgument, match="tool"):
            approvals.call(review.id, wrong)


def test_stored_arguments_reach_the_function_as_they_were() -> None:
    """Values of every type that JSON doesn't have, positional-only, further, keyword-only ones; methods, async."""
    kept = shop()
    moment, day = dt.datetime(2026, 1, 2, tzinfo=dt.UTC), dt.date(2026, 1, 2)
    values = [
        moment,
        day,
        dt.timedelta(1),
        Decimal("1.10"),
        2**70,
        1.5,
        True,
        None,
        b"x",
        {"$d": [1]},
        {1, 2},
        "\ud800",
    ]

    class Shop:
        name = "mine"

        @authorize("shop.method")
        def method(self, amount: int, /, one: list[Any], *more: int, flag: bool, **rest: int) -> tuple[Any, ...]:
            return (self.name, amount, one, more, flag, rest)

    @authorize("shop.coroutine")
    async def coroutine(amount: int, db: Annotated[str, Injected] = "none") -> tuple[int, str]:
        return amount, db

    session = kept.session(id="s")
    with pytest.raises(ReviewRequired) as error:
        session.bind(Shop().method)(600, values, 1, 2, flag=False, k=3)
    assert error.value.review is not None
    own = error.value.review.id
    kept.authorizer.approvals.approve(own, LEAD)
    found = kept.authorizer.approvals.call(own, Shop().method)
    assert found == ("mine", 600, values, (1, 2), False, {"k": 3})
    assert [type(value) for value in found[2]] == [type(value) for value in values]

    decision = asyncio.run(_decided(session.bind(coroutine), 600))
    kept.authorizer.approvals.approve(decision, LEAD)
    assert asyncio.run(kept.authorizer.approvals.acall(decision, coroutine, db="real")) == (600, "real")


async def _decided(tool: Any, amount: int) -> str:
    with pytest.raises(ReviewRequired) as error:
        await tool(amount)
    assert error.value.review is not None
    return error.value.review.id


def test_an_argument_that_can_not_be_given_back_as_it_was_is_refused() -> None:
    """A tuple would come back as a list: the process that has asked can retry, no other can."""
    kept = shop()

    @authorize("shop.pair")
    def pair(amount: int, two: tuple[int, int]) -> tuple[int, int]:
        return two

    with pytest.raises(ReviewRequired) as error:
        kept.session(id="s").bind(pair)(600, (1, 2))
    review = error.value.review
    assert review is not None
    kept.authorizer.approvals.approve(review.id, LEAD)
    with pytest.raises(InvalidArgument, match="retry"):
        kept.authorizer.approvals.call(review.id, pair)
    assert review.retry() == (1, 2)


def test_a_call_whose_policies_changed_is_not_made_from_what_was_stored() -> None:
    """What other policies read may not have been stored; in a session that the host gives, it is decided."""
    kept = shop()
    review = asked(kept.session(id="s"), "o-1", 600)
    kept.authorizer.approvals.approve(review.id, LEAD)
    kept.authorizer.replace(PolicySet.parse("permit all on shop.* when true"))
    with pytest.raises(ApprovalRefused, match="approval_void"):
        kept.authorizer.approvals.call(review.id, refund)
    assert kept.authorizer.approvals.call(review.id, refund, session=kept.session(id="s")) == "refunded o-1 600"


def test_a_call_that_rests_on_a_token_needs_its_session() -> None:
    """Whether the token stands is asked of the session: what was stored can't say."""
    kept = shop()
    chain = Chain(MARIA, [Delegation(BOT, via="token")])
    request = Request("shop.refund", subject=MARIA, chain=chain, session=SessionFacts("s", NOON), now=NOON,
                      args={"order": "o-1", "amount": 600, "note": "", "card": "none"})  # fmt: skip
    decision = kept.authorizer.decide_verified(request)
    kept.authorizer.approvals.approve(str(decision.approval), LEAD)
    with pytest.raises(InvalidArgument, match="session"):
        kept.authorizer.approvals.call(str(decision.approval), refund)


def test_what_the_policies_read_of_a_call_is_stored_with_it(tmp_path: Path) -> None:
    """`by` is answered elsewhere as it would be here: attributes of parties, resource, session and context."""
    policy = (
        "permit all on shop.* when true\nreview look on shop.* when true\n"
        "  by approver != subject and approver.team == subject.team and actor.trust == 3\n"
        '  and resource.owner.name == "ann" and context.tenant == "t" and session.desk == 1 and "x" in args.tags'
    )
    clock = Clock()
    kept = shop(policy, state=shared(tmp_path / "state", clock), clock=clock)
    session = kept.authorizer.session(
        Principal.user("maria", team="red"), BOT, id="s", context={"tenant": "t"}, attributes={"desk": 1}
    )
    order = Resource("Order", "1", {"owner": {"name": "ann"}})
    decision = session.decide("shop.x", args={"tags": {"x", "y"}}, resource=order)
    later = shop(policy, state=shared(tmp_path / "state", clock), clock=clock)
    with pytest.raises(ApprovalRefused, match="not_approver"):
        later.authorizer.approvals.approve(str(decision.approval), Principal.user("a", team="blue"))
    approved = later.authorizer.approvals.approve(str(decision.approval), Principal.user("a", team="red"))
    assert approved.standing == "approved"


def test_a_random_key_beside_a_store_that_outlasts_it_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once, when somebody is first asked."""
    kept = shop(state=shared(tmp_path / "state"), key=None)
    for order in ("o-1", "o-2"):
        asked(kept.session(), order, 600)
    assert caplog.text.count("random key") == 1


# ---- records


def test_what_becomes_of_a_review_is_recorded() -> None:
    """Requested, approved, consumed, rejected and expired, with who did it, and the decision that it let happen."""
    kept = shop()
    session = kept.session(id="s")
    review = asked(session, "o-1", 600)
    kept.authorizer.approvals.approve(review.id, LEAD, note="ok")
    review.retry()
    other = asked(session, "o-2", 600)
    kept.authorizer.approvals.reject(other.id, OTHER)
    third = asked(session, "o-3", 600)
    kept.clock.forward(hours=1)
    asked(session, "o-3", 600)
    told = [(event["about"]["kind"], event["about"]["id"]) for event in events(kept)]
    fourth = kept.authorizer.approvals.list()[0]
    assert told == [
        ("requested", review.id), ("approved", review.id), ("consumed", review.id), ("requested", other.id),
        ("rejected", other.id), ("requested", third.id), ("expired", third.id), ("requested", fourth.id),
    ]  # fmt: skip
    about = events(kept)[1]["about"]
    assert about["by"] == {"sub": "lena", "kind": "user"}
    assert about["reason"] == "ok"
    assert about["digest"] == review.binding
    assert events(kept)[0]["session"] == "s"
    assert isinstance(next(r for r in kept.sink.records if getattr(r, "type", "") == "approval"), EventRecord)
    allowed = next(record for record in kept.decisions if record.outcome == "allow")
    assert [(each.by.sub, each.attributes["roles"]) for each in allowed.consents] == [("lena", ("lead",))]


def _replayed(kept: Recorded, policy: str) -> list[tuple[str, str]]:
    asker = Asker(PolicySet.parse(policy))
    found = []
    for record in kept.decisions:
        tree = json.loads(record.line())
        found.append((Came.recorded(tree).outcome, asker.answer(tree).outcome))
    return found


def test_decisions_with_approvals_are_replayed_exactly() -> None:
    """What people said is in the record: approved, insufficient, rejected, used, unbindable come out as they did."""
    kept = shop(FOUR_EYES)
    session = kept.session()
    review = asked(session, "o-1", 2000)
    kept.authorizer.approvals.approve(review.id, LEAD)
    kept.authorizer.approvals.approve(review.id, BOSS)
    review.retry()
    with pytest.raises(Denied):
        review.retry()
    kept.authorizer.approvals.reject(asked(session, "o-2", 600).id, LEAD)
    with pytest.raises(Denied):
        session.bind(refund)("o-2", 600)
    session.decide("shop.x", args={"amount": 600, "o": object()})
    pairs = _replayed(kept, FOUR_EYES)
    assert [before for before, _ in pairs] == ["review", "allow", "deny", "review", "deny", "deny"]
    assert all(before == after for before, after in pairs)
    stricter = FOUR_EYES.replace('"boss" in approver.roles', '"ceo" in approver.roles')
    assert _replayed(kept, stricter)[1] == ("allow", "review")
    assert [after for _, after in _replayed(kept, "permit all on shop.* when true")] == ["allow"] * 6


def test_an_attribute_that_an_approver_lacks_is_recorded_as_absent() -> None:
    """Replay knows then that it wasn't there; one that nobody asked for isn't known."""
    by = "approver.level == 1 or not exists approver.ban"
    policy = POLICY.replace('"lead" in approver.roles', f"({by})")
    kept = shop(policy)
    review = asked(kept.session(), "o-1", 600)
    kept.authorizer.approvals.approve(review.id, LEAD)
    review.retry()
    assert all(before == after for before, after in _replayed(kept, policy))


# ---- the terminal


@pytest.fixture
def desk(tmp_path: Path) -> Any:
    """Return a review that waits in a store, and what runs commands on it."""
    (tmp_path / "shop.authz").write_text(FOUR_EYES)
    (tmp_path / "key").write_bytes(b"an instance key for tests, 32 B.")
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "records").mkdir()

    def now() -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    kept = shop(FOUR_EYES, state=shared(tmp_path / "state", now), clock=now)
    review = asked(kept.session(id="s"), "o-1\u202e\x1b[2J", 600, card="4111")

    def run(*argv: object) -> int:
        head, *rest = argv
        common = ["--state", tmp_path / "state", "--instance-key", tmp_path / "key"]
        return main(["approvals", *map(str, (head, *rest, *common))])

    answering = ("--records", tmp_path / "records")
    approving = ("--policies", tmp_path / "shop.authz", *answering)
    return kept, review, run, approving, answering


def test_the_terminal_lists_and_shows_what_waits(desk: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Every argument, with escapes in the place of what a terminal would obey."""
    _, review, run, _, _ = desk
    assert run("list") == 0
    assert review.id in capsys.readouterr().out
    assert run("show", review.id) == 0
    out = capsys.readouterr().out
    assert '  order = "o-1\\u202e\\u001b[2J"' in out
    assert "  card = •••" in out
    assert all(c == "\n" or c.isprintable() for c in out)
    assert run("show", "nothing") == 4


def test_the_terminal_approves_and_the_call_goes_ahead(desk: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """In another process than the one that asks; the answer is recorded there, and the wait ends."""
    _, review, run, approving, answering = desk
    assert run("wait", review.id, "--timeout", "0") == 1
    assert run("approve", review.id, "--as", "maria", "--attribute", 'roles=["lead"]', *approving) == 2
    out = capsys.readouterr().out
    assert "not_approver" in out
    assert "--attribute" not in out
    assert run("approve", review.id, "--as", "lena", *approving) == 2
    assert 'not_approver); --attribute says what they are, as roles=["lead"]' in capsys.readouterr().out
    assert run("approve", review.id, "--as", "lena", "--attribute", 'roles=["lead"]', "--note", "ok", *approving) == 0
    assert run("wait", review.id) == 0
    assert review.retry() == "refunded o-1\u202e\x1b[2J 600"
    assert run("reject", review.id, "--as", "lena", *answering) == 2
    told = [record for record in logs.records(answering[1]) if isinstance(record, EventRecord)]
    assert "approved" in [record.about.get("kind") for record in told]
    assert run("list", "--all") == 0
    assert "used" in capsys.readouterr().out


def test_the_terminal_rejects_and_says_what_is_still_needed(desk: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit codes tell them apart."""
    kept, review, run, approving, answering = desk
    assert run("reject", review.id, "--as", "otto", "--note", "no", *answering) == 0
    assert run("wait", review.id) == 2
    large = asked(kept.session(id="s"), "o-2", 2000)
    assert run("approve", large.id, "--as", "lena", "--attribute", 'roles=["lead"]', *approving) == 1
    for wrong in ("roles", "roles=[", "=1"):
        assert run("approve", large.id, "--as", "lena", "--attribute", wrong, *approving) == 4
    capsys.readouterr()


def test_the_terminal_makes_no_store_by_a_mistyped_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that isn't there is a mistake."""
    (tmp_path / "key").write_bytes(b"x" * 32)
    (tmp_path / "key").chmod(0o600)
    common = ["--state", str(tmp_path / "nothing"), "--instance-key", str(tmp_path / "key")]
    assert main(["approvals", "list", *common]) == 4
    assert "isn't there" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


def test_memory_forgets_what_ended_long_ago() -> None:
    """Requests are made by calls: those that ended a day ago go, once there are many."""
    state: Any = MemoryState(clock=(clock := Clock()))
    kept = shop(state=state, clock=clock)
    session = kept.session()
    old = asked(session, "o-1", 600)
    clock.forward(days=2)
    state._sweep_approvals_at = 1
    asked(session, "o-2", 600)
    assert state.approval(old.id) is None
    assert codes(session.decide("shop.x", args={"amount": 600}))[0] == "review"
