"""Attacks on approvals: each tries to let a call happen that nobody approved, or to make somebody approve unseen."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from agentauthz import (
    UNKNOWN,
    Chain,
    Delegation,
    Denied,
    InstanceKey,
    InvalidArgument,
    Outcome,
    PolicySet,
    Principal,
    Request,
    Resource,
    ReviewRequired,
    authorize,
)
from agentauthz.approvals import Answer, Review
from agentauthz.errors import ApprovalRefused, SinkError
from agentauthz.state.memory import MemoryState
from agentauthz.state.store import Intent
from tests.approving import KEY, LEAD, OTHER, POLICY, asked, close_all, codes, refund, shared, shop
from tests.support import BOT, HELPER, MARIA, NOON, Clock, Recorded

ORDER = ("o-1", 600)


@pytest.fixture
def kept() -> Recorded:
    return shop()


def approved(kept: Recorded, session: Any, *args: Any, **kwargs: Any) -> Review:
    review = asked(session, *args or ORDER, **kwargs)
    assert kept.authorizer.approvals.approve(review.id, LEAD).standing == "approved"
    return review


def stopped(session: Any, *args: Any, **kwargs: Any) -> bool:
    """Say whether a refund is stopped as if nobody had approved anything."""
    with pytest.raises((ReviewRequired, Denied)):
        session.bind(refund)(*args, **kwargs)
    return True


def code(error: Denied) -> str:
    """Return why a call was denied."""
    assert error.decision is not None
    return error.decision.reasons[0].code


def refused(call: Callable[[], object]) -> str:
    """Return the code with which a call is denied."""
    with pytest.raises(Denied) as error:
        call()
    return code(error.value)


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    yield
    close_all()


# ---- another call


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("o-2", 600), {}),
        (("o-1", 601), {}),
        (("o-1", "600"), {}),
        (("o-1", Decimal("600.01")), {}),
        (("o-1\u200b", 600), {}),
        (("о-1", 600), {}),  # a Cyrillic letter
        (("o-1", 600), {"note": "x"}),
        (("o-1", 600), {"card": "4111"}),
        (("o-1", 600), {"card": "none "}),
    ],
)
def test_an_approval_is_for_no_other_argument(kept: Recorded, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """One value changed, a sensitive one or a default too: nobody has approved that."""
    session = kept.session()
    approved(kept, session)
    assert stopped(session, *args, **kwargs)
    assert session.bind(refund)(*ORDER) == "refunded o-1 600"


def test_the_order_of_names_and_how_arguments_are_given_make_no_difference(kept: Recorded) -> None:
    """Keywords in another order, and a default that is given, are the same call."""
    session = kept.session()
    approved(kept, session)
    assert session.bind(refund)(amount=600, card="none", order="o-1", note="") == "refunded o-1 600"


def test_the_order_of_keys_inside_an_argument_makes_no_difference(kept: Recorded) -> None:
    """Mappings are bound by their canonical form."""
    session = kept.session()
    first = session.decide("shop.x", args={"amount": 600, "to": {"a": 1, "b": [2]}})
    kept.authorizer.approvals.approve(first.approval, LEAD)
    assert session.decide("shop.x", args={"to": {"b": [2], "a": 1}, "amount": 600}).allowed


def test_a_default_that_is_added_later_is_another_call(tmp_path: Path) -> None:
    """A new version of a tool, with one argument more, needs a new approval."""
    state = shared(tmp_path / "state")
    old, new = shop(state=state), shop(state=state)
    approved(old, old.session(id="s"))

    @authorize("shop.refund")
    def refund(order: str, amount: int, note: str = "", card: str = "none", urgent: bool = False) -> str:
        return "refunded"

    with pytest.raises(ReviewRequired):
        new.session(id="s").bind(refund)(*ORDER)


def test_an_approval_is_for_no_other_action(kept: Recorded) -> None:
    """The same arguments to another tool are another call."""
    session = kept.session()
    one = session.decide("shop.x", args={"amount": 600})
    kept.authorizer.approvals.approve(one.approval, LEAD)
    assert session.decide("shop.y", args={"amount": 600}).outcome is Outcome.REVIEW


@pytest.mark.parametrize(
    "resource", [Resource("Order", "2"), Resource("Invoice", "1"), None], ids=["id", "type", "none"]
)
def test_an_approval_is_for_no_other_resource(kept: Recorded, resource: Resource | None) -> None:
    """The resource's type and id are bound."""
    session = kept.session()
    one = session.decide("shop.x", args={"amount": 600}, resource=Resource("Order", "1"))
    kept.authorizer.approvals.approve(one.approval, LEAD)
    assert session.decide("shop.x", args={"amount": 600}, resource=resource).outcome is Outcome.REVIEW
    assert session.decide("shop.x", args={"amount": 600}, resource=Resource("Order", "1")).allowed


@pytest.mark.parametrize(
    "options",
    [
        {"id": "other"},
        {"purpose": "fun"},
        {"subject": Principal.user("maria", issuer="https://other.example")},
        {"subject": OTHER},
        {"actor": Principal.agent("bot", issuer="https://other.example")},
        {"actor": Principal.service("bot")},
    ],
    ids=["session", "purpose", "look-alike subject", "subject", "look-alike actor", "kind"],
)
def test_an_approval_is_for_no_other_session_party_or_purpose(kept: Recorded, options: dict[str, Any]) -> None:
    """Another session, purpose, subject or actor, look-alikes of another issuer too: nobody has approved that."""
    approved(kept, kept.session(id="s", purpose="work"))
    assert stopped(kept.session(**{"id": "s", "purpose": "work", **options}), *ORDER)


def test_an_approval_for_a_shorter_chain_is_not_for_a_longer_one(kept: Recorded) -> None:
    """A helper can't use what the agent that delegates to it was granted, nor the other way round."""
    session = kept.session(id="s")
    child = session.delegate(HELPER)
    approved(kept, session)
    assert stopped(child, *ORDER)
    review = approved(kept, child, "o-2", 700)
    assert stopped(session, "o-2", 700)
    assert review.retry() == "refunded o-2 700"


@pytest.mark.parametrize(
    "hop",
    [
        Delegation(BOT, ["shop.*"]),
        Delegation(BOT, purpose="work"),
        Delegation(BOT, handoff=True),
    ],
    ids=["actions", "purpose", "hand-off"],
)
def test_a_hop_that_says_something_else_is_another_chain(kept: Recorded, hop: Delegation) -> None:
    """Actions, purpose and hand-off of each hop are bound."""
    approved(kept, kept.session(id="s", purpose="work"))
    other = kept.authorizer.session(chain=Chain(MARIA, [hop]), id="s", purpose="work")
    assert stopped(other, *ORDER)


def test_new_policies_void_an_approval(kept: Recorded) -> None:
    """It was given under other policies: a call that names it is told so, and one that doesn't is asked about again."""
    session = kept.session()
    review = approved(kept, session)
    kept.authorizer.replace(PolicySet.parse(POLICY + "\nforbid stop on shop.never when true"))
    assert refused(review.retry) == "approval_void"
    assert asked(session, *ORDER).id != review.id
    late = asked(session, "o-5", 900)
    kept.authorizer.replace(PolicySet.parse(POLICY))
    with pytest.raises(ApprovalRefused, match="approval_void"):
        kept.authorizer.approvals.approve(late.id, LEAD)


def test_an_approval_is_no_bearer_grant(kept: Recorded) -> None:
    """The approved call is decided again: a forbid that holds by now stops it."""
    session = kept.session()
    policy = POLICY + '\nmark seen on shop.read when true\nforbid leak on shop.refund when "seen" in session.marks'
    kept.authorizer.replace(PolicySet.parse(policy))
    review = approved(kept, session)
    session.authorize("shop.read", args={"amount": 1})
    assert refused(review.retry) == "forbidden"
    assert kept.authorizer.approvals.show(review.id).standing == "approved"


def test_what_was_approved_under_other_facts_is_asked_again_where_more_reviews_ask_now(kept: Recorded) -> None:
    """A review that asks only since is satisfied by nobody yet: the old approval doesn't stand in for it."""
    more = (
        '\nmark seen on shop.read when true\nreview leak on shop.refund when "seen" in session.marks'
        ' by "boss" in approver.roles and approver != subject'
    )
    kept.authorizer.replace(PolicySet.parse(POLICY + more))
    session = kept.session()
    review = approved(kept, session)
    session.authorize("shop.read", args={"amount": 1})
    assert refused(review.retry) == "approval_insufficient"
    fresh = asked(session, *ORDER)
    assert set(fresh.rules) == {"big", "leak"}
    assert fresh.id != review.id


# ---- too late, too often


def test_an_expired_approval_is_none(kept: Recorded) -> None:
    """After `within`, by the store's clock, it can be neither given nor used."""
    session = kept.session()
    review, waiting = approved(kept, session), asked(session, "o-2", 600)
    kept.clock.forward(minutes=10)
    assert refused(review.retry) == "approval_expired"
    with pytest.raises(ApprovalRefused, match="approval_expired"):
        kept.authorizer.approvals.approve(waiting.id, LEAD)
    fresh = asked(session, *ORDER)
    assert fresh.id != review.id
    assert "approval_expired" in [reason.code for reason in kept.decisions[-1].reasons]


def test_an_approval_is_used_once(kept: Recorded) -> None:
    """The call that names it again is denied; one like it is asked about anew."""
    session = kept.session()
    review = approved(kept, session)
    assert review.retry() == "refunded o-1 600"
    assert refused(review.retry) == "approval_used"
    assert asked(session, *ORDER).id != review.id


def test_threads_that_use_one_approval_at_once_get_one_call(kept: Recorded) -> None:
    """Of sixteen threads one gets through, and the others are denied."""
    session = kept.session()
    for turn in range(20):
        review = approved(kept, session, f"o-{turn}", 600)
        start = threading.Barrier(16)

        def call(review: Review = review, start: threading.Barrier = start) -> str:
            start.wait()
            try:
                return str(review.retry())
            except Denied as error:
                return code(error)

        with ThreadPoolExecutor(16) as pool:
            results = [future.result() for future in [pool.submit(call) for _ in range(16)]]
        assert sorted(results) == ["approval_used"] * 15 + [f"refunded o-{turn} 600"]


def _use(path: Path, id: str, start: Any, results: Any) -> None:
    kept = shop(state=shared(path))
    start.wait()
    try:
        results.put(kept.authorizer.approvals.call(id, refund))
    except Denied as error:
        results.put(code(error))


def test_processes_that_use_one_approval_at_once_get_one_call(tmp_path: Path) -> None:
    """Of eight processes, each with the same key and store, one gets through."""
    path = tmp_path / "state"
    kept = shop(state=shared(path))
    review = approved(kept, kept.session(id="s"))
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(8), spawn.Queue()
    started = [spawn.Process(target=_use, args=(path, review.id, start, results)) for _ in range(8)]
    for process in started:
        process.start()
    found = sorted(results.get(timeout=120) for _ in started)
    for process in started:
        process.join()
    assert found == ["approval_used"] * 7 + ["refunded o-1 600"]


def test_a_rejected_call_can_not_be_tried_until_somebody_gives_in(kept: Recorded) -> None:
    """Until the request would have expired, nobody is asked again, and nobody can approve it."""
    session = kept.session()
    review = asked(session, *ORDER)
    kept.authorizer.approvals.reject(review.id, OTHER, note="no")
    assert refused(lambda: session.bind(refund)(*ORDER)) == "approval_rejected"
    assert refused(review.retry) == "approval_rejected"
    with pytest.raises(ApprovalRefused, match="approval_answered"):
        kept.authorizer.approvals.approve(review.id, LEAD)
    assert len(kept.authorizer.approvals.list(status=None)) == 1
    kept.clock.forward(minutes=10)
    assert asked(session, *ORDER).id != review.id


@pytest.mark.parametrize("yields", [False, True])
def test_a_call_that_is_rejected_while_another_one_like_it_asks_is_rejected_for_both(yields: bool) -> None:
    """Many calls at once are one question: a no between the look and the asking counts, and a later yes doesn't."""
    store: Any = MemoryState(clock=Clock())
    kept = shop(state=store)
    session, ask = kept.session(id="s"), store.ask

    def late(row: Any) -> Any:
        store.ask = ask
        kept.authorizer.approvals.reject(asked(session, *ORDER).id, OTHER)
        made = ask(row)
        if yields:
            kept.authorizer.approvals.approve(made.id, LEAD)
        return made

    store.ask = late
    assert refused(lambda: session.bind(refund)(*ORDER)) == "approval_rejected"
    assert refused(lambda: session.bind(refund)(*ORDER)) == "approval_rejected"
    assert kept.authorizer.approvals.list() == kept.authorizer.approvals.list(status="approved") == ()


def test_threads_that_ask_at_once_get_one_question() -> None:
    """Of a call that somebody says no to, however many threads make it, no second request is shown to anybody."""
    questions: set[str] = set()

    def no(review: Review) -> Answer:
        questions.add(review.id)
        return Answer(LEAD, approved=False)

    kept = shop(approver=no)
    tool, together = kept.session().bind(refund), threading.Barrier(16)

    def call(_: int) -> None:
        together.wait()
        with pytest.raises((Denied, ReviewRequired)):
            tool(*ORDER)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(call, range(16)))
    assert len(questions) == 1


def test_approval_and_expiry_at_the_same_moment_are_one_or_the_other() -> None:
    """What expires between the look and the answer isn't approved: the store's own clock decides."""
    clock = Clock()
    store = MemoryState(clock=clock)
    kept = shop(state=store, clock=clock)
    review = asked(kept.session(), *ORDER)
    answer = store.answer

    def late(*args: Any, **kwargs: Any) -> bool:
        clock.forward(minutes=10)
        return answer(*args, **kwargs)

    store.answer = late  # type: ignore[method-assign]
    with pytest.raises(ApprovalRefused, match="approval_answered"):
        kept.authorizer.approvals.approve(review.id, LEAD)
    assert refused(review.retry) == "approval_expired"


def test_an_approval_lets_nothing_happen_in_a_closed_session(kept: Recorded) -> None:
    """Approved after the session was closed: its handle is closed all the same."""
    session = kept.session()
    review = asked(session, *ORDER)
    session.close()
    kept.authorizer.approvals.approve(review.id, LEAD)
    assert refused(review.retry) == "session_closed"


def test_what_changed_between_asking_and_retrying_is_not_what_runs(kept: Recorded) -> None:
    """Containers are copied when the call is made: changing the caller's own changes nothing that was approved."""
    items = ["one"]

    @authorize("shop.ship")
    def ship(items: list[str], amount: int) -> list[str]:
        return items

    with pytest.raises(ReviewRequired) as error:
        kept.session().bind(ship)(items, 600)
    review = error.value.review
    assert review is not None
    items.append("two")
    kept.authorizer.approvals.approve(review.id, LEAD)
    assert review.retry() == ["one"]


# ---- the wrong approver


@pytest.mark.parametrize(
    ("who", "code"),
    [
        (MARIA, "not_approver"),
        (Principal.user("maria", roles=["lead"]), "not_approver"),
        (Principal.user("nobody"), "not_approver"),
        (Principal.user("lena"), "not_approver"),
        (BOT, "not_user"),
        (Principal.agent("lena", roles=["lead"]), "not_user"),
        (Principal.service("lena", roles=["lead"]), "not_user"),
    ],
)
def test_only_who_the_policy_asks_for_may_approve(kept: Recorded, who: Principal, code: str) -> None:
    """Not the requester, no agent or service, nobody without the role, and nobody of whom the role isn't known."""
    review = asked(kept.session(), *ORDER)
    with pytest.raises(ApprovalRefused) as error:
        kept.authorizer.approvals.approve(review.id, who)
    assert error.value.reason == code
    assert kept.authorizer.approvals.show(review.id).standing == "pending"


def test_nobody_in_the_chain_may_approve(kept: Recorded) -> None:
    """A person who acts in the chain asks for it too, whatever roles that person has."""
    session = kept.authorizer.session(chain=Chain(MARIA, [Delegation(LEAD), Delegation(BOT)]))
    review = asked(session, *ORDER)
    with pytest.raises(ApprovalRefused, match="in_chain"):
        kept.authorizer.approvals.approve(review.id, LEAD)
    kept.authorizer.approvals.approve(review.id, OTHER)
    assert review.retry() == "refunded o-1 600"


def test_a_look_alike_of_another_issuer_is_somebody_else() -> None:
    """Who is named by a policy is named with the issuer: the same id elsewhere is another person."""
    named = POLICY.replace('"lead" in approver.roles', 'approver == user("lena")')
    kept = shop(named)
    review = asked(kept.session(), *ORDER)
    with pytest.raises(ApprovalRefused, match="not_approver"):
        kept.authorizer.approvals.approve(review.id, Principal.user("lena", issuer="https://evil.example"))
    kept.authorizer.approvals.approve(review.id, Principal.user("lena"))


def test_the_subject_may_approve_only_where_the_policy_says_so() -> None:
    """With `approver == subject` only the subject may, and the subject of another issuer may not."""
    kept = shop(POLICY.replace('"lead" in approver.roles and approver != subject', "approver == subject"))
    review = asked(kept.session(), *ORDER)
    for other in (LEAD, Principal.user("maria", issuer="https://evil.example")):
        with pytest.raises(ApprovalRefused, match="not_approver"):
            kept.authorizer.approvals.approve(review.id, other)
    kept.authorizer.approvals.approve(review.id, MARIA)
    assert review.retry() == "refunded o-1 600"


def test_an_approver_that_says_who_it_is_is_asked_again_when_the_call_is_decided(kept: Recorded) -> None:
    """What `by` reads of the call is read anew: who fits no more when the call is decided, doesn't fit."""
    policy = POLICY.replace('"lead" in approver.roles', "approver.level >= resource.level")
    kept.authorizer.replace(PolicySet.parse(policy))
    session, boss = kept.session(), Principal.user("lena", level=2)
    one = session.decide("shop.x", args={"amount": 600}, resource=Resource("Order", "1", {"level": 2}))
    kept.authorizer.approvals.approve(one.approval, boss)
    again = session.decide("shop.x", args={"amount": 600}, resource=Resource("Order", "1", {"level": 3}))
    assert again.outcome is Outcome.REVIEW
    assert again.approval != one.approval


# ---- the store is written by somebody else


def _rows(kept: Recorded) -> dict[str, Any]:
    rows: dict[str, Any] = kept.authorizer._state._approvals  # type: ignore[attr-defined]
    return rows


def forged(kept: Recorded, review: Review) -> Iterator[Any]:
    """Return rows that somebody who can write the store, but hasn't the key, might put there."""
    row = _rows(kept)[review.id]
    other = shop(key=InstanceKey.random())
    theirs = asked(other.session(id="s"), *ORDER)
    other.authorizer.approvals.approve(theirs.id, LEAD)
    foreign = _rows(other)[theirs.id]
    yield evolve(row, status="approved")
    yield evolve(row, status="approved", answer="{}")
    yield evolve(row, status="approved", answer=row.request)
    yield evolve(row, status="approved", answer=foreign.answer)
    yield evolve(row, status="approved", request=foreign.request, answer=foreign.answer)
    epoch = other.authorizer.approvals._keeper.key.epoch
    yield evolve(row, status="approved", answer=foreign.answer.replace(epoch, KEY.epoch))
    yield evolve(foreign, id=row.id, binding=row.binding)


@pytest.mark.parametrize("kind", range(7))
def test_a_forged_row_counts_as_none(kind: int) -> None:
    """Whatever is written into the store without the key: the call isn't allowed, and a person can still be asked."""
    kept = shop()
    session = kept.session(id="s")
    review = asked(session, *ORDER)
    _rows(kept)[review.id] = list(forged(kept, review))[kind]
    assert refused(review.retry) in ("approval_unknown", "out_of_scope")
    fresh = asked(session, *ORDER)
    assert fresh.id != review.id
    kept.authorizer.approvals.approve(fresh.id, LEAD)
    assert fresh.retry() == "refunded o-1 600"


class Swapping:
    """Be a store that gives, and keeps answers in, other rows than it is asked for: `ids` says which for which."""

    def __init__(self, store: MemoryState) -> None:
        self._store = store
        self.ids: dict[str, str] = {}
        self.first: str | None = None  # the row that is given for every call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def approval(self, id: str) -> Any:
        return self._store.approval(self.ids.get(id, id))

    def answer(self, id: str, *args: Any, **options: Any) -> bool:
        return self._store.answer(self.ids.get(id, id), *args, **options)

    def approvals(self, **options: Any) -> Any:
        return self._store.approvals(**options) if self.first is None else [self._store.approval(self.first)]

    def ask(self, approval: Any) -> Any:
        return self._store.ask(approval) if self.first is None else self._store.approval(self.first)


def test_a_row_that_is_given_for_another_call_lets_nothing_happen() -> None:
    """A store that finds a genuine approval, but of another call, is not believed, nor is anybody asked about that."""
    clock = Clock()
    store = Swapping(MemoryState(clock=clock))
    kept = shop(state=store, clock=clock)
    session = kept.session()
    mine = approved(kept, session, "o-1", 600)
    store.first = mine.id
    assert refused(lambda: session.bind(refund)("o-2", 900_000)) == "approval_forged"
    store.first = None
    assert mine.retry() == "refunded o-1 600"


def test_who_has_read_one_request_answers_no_other() -> None:
    """A store that gives another row between the look and the answer makes nobody consent unseen."""
    clock = Clock()
    store = Swapping(MemoryState(clock=clock))
    kept = shop(state=store, clock=clock)
    session = kept.session()
    shown, hidden = asked(session, "o-1", 600), asked(session, "o-2", 900_000)
    store.ids = {shown.id: hidden.id}
    with pytest.raises(InvalidArgument, match="no request's"):
        kept.authorizer.approvals.approve(shown.id, LEAD)
    store.ids = {}
    assert stopped(session, "o-2", 900_000)


@pytest.mark.parametrize("field", ["binding", "session", "at", "expires", "id"])
def test_an_altered_column_counts_as_no_approval(kept: Recorded, field: str) -> None:
    """An approval that is moved to another call or session, or made to last longer, isn't one any more."""
    session = kept.session(id="s")
    review, other = approved(kept, session), asked(session, "o-2", 700)
    rows = _rows(kept)
    values = {
        "binding": rows[other.id].binding, "session": "t", "at": NOON.replace(year=2020),
        "expires": NOON.replace(year=2030), "id": other.id,
    }  # fmt: skip
    altered = evolve(rows.pop(review.id), **{field: values[field]})
    rows[altered.id] = altered
    if field == "binding":
        assert stopped(session, "o-2", 700)
    assert stopped(session, *ORDER)
    with pytest.raises(Denied):
        review.retry()


def test_an_answer_for_one_call_is_none_for_another(kept: Recorded) -> None:
    """Answers are sealed with their request."""
    session = kept.session(id="s")
    review, other = approved(kept, session), asked(session, "o-2", 700)
    rows = _rows(kept)
    rows[other.id] = evolve(rows[other.id], status="approved", answer=rows[review.id].answer)
    assert stopped(session, "o-2", 700)
    assert refused(other.retry) in ("approval_unknown", "approval_used")


def test_a_rejection_does_not_become_an_approval(kept: Recorded) -> None:
    """The status beside an answer is the one that is sealed in it."""
    session = kept.session(id="s")
    review = asked(session, *ORDER)
    kept.authorizer.approvals.reject(review.id, LEAD)
    rows = _rows(kept)
    rows[review.id] = evolve(rows[review.id], status="approved")
    assert refused(review.retry) == "approval_unknown"


def test_another_key_finds_nothing_and_says_so(tmp_path: Path) -> None:
    """Without the same `key=`, a process can't use, show or answer what another asked, and is told why."""
    state = shared(tmp_path / "state")
    kept, other = shop(state=state), shop(state=state, key=None)
    review = approved(kept, kept.session(id="s"))
    with pytest.raises(InvalidArgument, match="the same `key=`"):
        other.authorizer.approvals.call(review.id, refund)
    assert other.authorizer.approvals.list(status=None) == ()
    assert stopped(other.session(id="s"), *ORDER)


def test_what_is_stored_tells_nothing(kept: Recorded) -> None:
    """Arguments, names and answers are encrypted: whoever reads the store learns that something waits."""
    session = kept.session(id="s")
    review = asked(session, "o-secret-1", 600, card="4111111111111111")
    kept.authorizer.approvals.approve(review.id, LEAD, note="for lena's eyes")
    row = _rows(kept)[review.id]
    for secret in ("o-secret-1", "4111111111111111", "maria", "lena", "eyes"):
        assert secret not in row.request + row.answer


# ---- what can't be bound


@pytest.mark.parametrize(
    "args",
    [{"a": object()}, {"a": [object()]}, {"a": {"b": lambda: 1}}, {"a": UNKNOWN}, {"a": Answer(LEAD, True)}],
    ids=["object", "in a list", "in a mapping", "unknown", "a class"],
)
def test_a_call_with_an_argument_that_is_no_value_can_not_be_approved(kept: Recorded, args: dict[str, Any]) -> None:
    """Nobody could tell whether another call is the same, so it is denied at once."""
    decision = kept.session().decide("shop.x", args={"amount": 600, **args})
    assert decision.outcome is Outcome.DENY
    assert codes(decision)[0] == "unbindable"
    assert kept.authorizer.approvals.list(status=None) == ()


def test_data_that_looks_like_a_tag_is_bound_as_data(kept: Recorded) -> None:
    """A mapping can't pass for what isn't known, nor for a number."""
    session = kept.session()
    one = session.decide("shop.x", args={"amount": 600, "a": {"$u": "x"}, "b": {"$d": "5"}})
    assert one.outcome is Outcome.REVIEW
    kept.authorizer.approvals.approve(one.approval, LEAD)
    assert not session.decide("shop.x", args={"amount": 600, "a": {"$u": "x"}, "b": Decimal(5)}).allowed
    assert session.decide("shop.x", args={"amount": 600, "a": {"$u": "x"}, "b": {"$d": "5"}}).allowed


def test_calls_of_which_the_resource_or_purpose_is_not_known_can_not_be_approved(kept: Recorded) -> None:
    """What isn't known isn't bound."""
    for unknown in ("resource", "purpose", "session", "args"):
        given: dict[str, Any] = {"args": {"amount": 600}, unknown: UNKNOWN}
        decision = kept.authorizer.decide(Request("shop.x", subject=MARIA, actor=BOT, now=NOON, **given))
        assert codes(decision)[0] == "unbindable", unknown


# ---- what the approver sees


@pytest.mark.parametrize(
    "text",
    [
        "a\nb",
        "a\x1b[2Jb",
        "a\rb",
        "a\u202eb",
        "a\u2066b",
        "a\u200bb",
        "a\u0430b",
        "a\U0001d41ab",
        "a\u00a0b",
        "a\ud800b",
    ],
    ids=["line", "escape", "return", "override", "isolate", "zero width", "homoglyph", "styled", "space", "surrogate"],
)
def test_nothing_in_a_view_is_obeyed_or_passes_for_something_else(kept: Recorded, text: str) -> None:
    """Control characters, bidirectional overrides and look-alikes are shown as escapes, wherever they stand."""
    session = kept.session(subject=Principal.user(text), id=text.replace("\ud800", ""), purpose=text)
    decision = session.decide("shop.x", args={"amount": 600, "t": text, text: 1}, resource=Resource("Order", text))
    review = kept.authorizer.approvals.show(decision.approval)
    shown = str(review)
    assert shown.replace("\n", "").isascii()
    assert text not in shown
    assert len(shown.splitlines()) == len(str(review).split("\n"))
    assert shown.count("\\u") >= 4 or text in ("a\nb", "a\rb")


def test_an_escape_that_is_written_out_is_not_taken_for_the_character(kept: Recorded) -> None:
    """A text with a backslash differs from one with the character that it escapes."""
    session = kept.session()
    views = set()
    for text in ("\u202e", "\\u202e", "\\\\u202e", '"', '\\"'):
        decision = session.decide("shop.x", args={"amount": 600, "t": text})
        views.add(str(kept.authorizer.approvals.show(decision.approval)).split("  t = ")[1].split("\n")[0])
    assert len(views) == 5


def test_numbers_texts_and_what_is_secret_are_told_apart(kept: Recorded) -> None:
    """A text that looks like a number, a list, or the sign for a secret stands in quotes."""
    args = {"amount": 600, "a": 5, "b": "5", "c": Decimal("5.1"), "d": "5.1", "e": "[1]", "f": [1], "g": "•••",
            "h": "null", "i": None, "j": True, "k": "true", "l": {"$d": "5.1"}, "m": 2**70}  # fmt: skip
    decision = kept.session().decide("shop.x", args=args)
    shown = str(kept.authorizer.approvals.show(decision.approval))
    values = [line.partition(" = ")[2] for line in shown.splitlines() if line.startswith("  ") and " = " in line]
    assert len(set(values)) == len(args)
    assert "  i = null" in shown
    assert '  h = "null"' in shown


def test_a_long_argument_is_shown_whole(kept: Recorded) -> None:
    """Ten megabytes aren't cut, so that nothing hides behind the end of what is shown."""
    text = "x" * 10_000_000 + "; and delete everything"
    decision = kept.session().decide("shop.x", args={"amount": 600, "t": text})
    shown = str(kept.authorizer.approvals.show(decision.approval))
    assert shown.index("and delete everything") > 10_000_000


def test_an_argument_can_not_be_hidden_by_repeating_it_as_a_secret(kept: Recorded) -> None:
    """What is sensitive is hidden by its name alone: who chooses one argument can't hide another with it."""
    review = asked(kept.session(), "everything to mallory", 600, card="everything to mallory")
    shown = str(review)
    assert '  order = "everything to mallory"' in shown
    assert "  card = •••" in shown


# ---- hooks and sinks


def test_what_a_callback_returns_counts_only_as_an_answer() -> None:
    """Truth, a principal, or an exception isn't consent."""
    for result in (True, LEAD, "yes", {"approved": True}, RuntimeError("x")):

        def approver(review: Review, result: Any = result) -> Any:
            if isinstance(result, Exception):
                raise result
            return result

        with pytest.raises(ReviewRequired):
            shop(approver=approver).session().bind(refund)(*ORDER)
    with pytest.raises(InvalidArgument):
        Answer(LEAD, 1)  # type: ignore[arg-type]


def test_a_callback_can_not_answer_for_somebody_who_may_not() -> None:
    """Its answer is checked as any other."""
    with pytest.raises(ReviewRequired):
        shop(approver=lambda _: Answer(MARIA, True)).session().bind(refund)(*ORDER)


def test_an_approval_that_can_not_be_recorded_does_not_count() -> None:
    """The answer is recorded first: where that fails, the request stays as it is."""

    class Full:
        full = False

        def append(self, line: bytes, record: Any) -> None:
            if self.full:
                raise OSError

        def close(self) -> None: ...

    sink = Full()
    kept = shop(sinks=[sink])
    review = asked(kept.session(), *ORDER)
    sink.full = True
    with pytest.raises(SinkError):
        kept.authorizer.approvals.approve(review.id, LEAD)
    sink.full = False
    assert kept.authorizer.approvals.show(review.id).standing == "pending"


def test_observing_uses_nothing_up() -> None:
    """In observe mode the call runs, nobody is asked, and an approval from before stays."""
    state, clock = MemoryState(clock=Clock()), Clock()
    kept = shop(state=state, clock=clock)
    review = approved(kept, kept.session(id="s"))
    until = NOON.replace(year=2027)
    observing = shop(state=state, clock=clock, mode="observe", observe_until=until)
    assert observing.session(id="s").bind(refund)(*ORDER) == "refunded o-1 600"
    assert len(observing.authorizer.approvals.list(status=None)) == 1
    assert observing.authorizer.approvals.show(review.id).standing == "approved"


def test_a_preview_shows_that_an_approval_fits_and_uses_nothing_up(kept: Recorded) -> None:
    """Previews and explanations change nothing, also where an approval isn't enough any more."""
    session = kept.session()
    args = {"order": "o-1", "amount": 600, "note": "", "card": "none"}
    assert session.preview("shop.refund", args=args).approval is None
    review = asked(session, *ORDER)
    assert session.preview("shop.refund", args=args).approval == review.id
    kept.authorizer.approvals.approve(review.id, LEAD)
    assert session.preview("shop.refund", args=args).allowed
    assert kept.authorizer.approvals.show(review.id).standing == "approved"


def test_a_store_that_fails_denies() -> None:
    """Where nobody can tell what was approved, the call is denied, and not asked about."""
    state: Any = MemoryState(clock=Clock())
    kept = shop(state=state)
    session = kept.session()
    approved(kept, session)

    def fail(**_: Any) -> Any:
        from agentauthz.errors import StateError

        raise StateError("unreachable")

    state.approvals = fail
    assert refused(lambda: session.bind(refund)(*ORDER)) == "state_failed"


def test_what_the_store_says_was_used_is_used() -> None:
    """An approval that somebody else uses up between the look and the commit isn't used twice."""
    state: Any = MemoryState(clock=Clock())
    kept = shop(state=state)
    session = kept.session()
    review = approved(kept, session)
    commit = state.commit

    def first(intent: Intent) -> Any:
        commit(Intent(None, approvals=(review.id,)))
        return commit(intent)

    state.commit = first
    assert refused(review.retry) == "approval_used"


# ---- what was revoked


@pytest.mark.parametrize(
    ("revoke", "code"),
    [
        ({"session": "s"}, "session_revoked"),
        ({"principal": MARIA}, "principal_revoked"),
        ({"principal": LEAD}, "principal_revoked"),
        (None, "halted"),
    ],
)
def test_nothing_is_approved_that_was_revoked(revoke: Any, code: str) -> None:
    """A request of a revoked session or party, one that a revoked person would approve, or any under a halt, stays."""
    made = shop()
    session = made.session(id="s")
    review = asked(session, "o-1", 700)
    if revoke is None:
        made.authorizer.halt("r")
    else:
        made.authorizer.revoke(reason="r", **revoke)
    with pytest.raises(ApprovalRefused) as refused:
        made.authorizer.approvals.approve(review.id, LEAD)
    assert refused.value.reason == code
    assert made.authorizer.approvals.show(review.id).standing == "pending"
    made.authorizer.approvals.reject(review.id, LEAD)


def test_an_approval_given_before_does_not_outlive_a_revocation() -> None:
    """The approved call is decided again, and denied; the approval isn't used up by that."""
    made = shop()
    session = made.session(id="s")
    review = asked(session, "o-1", 700)
    made.authorizer.approvals.approve(review.id, LEAD)
    made.authorizer.revoke(session="s", reason="r")
    with pytest.raises(Denied, match="session_revoked"):
        session.bind(refund)("o-1", 700)
    with pytest.raises(Denied, match="session_revoked"):
        made.authorizer.approvals.call(review.id, refund)
    assert made.authorizer.approvals.show(review.id).standing == "approved"


def test_the_consent_of_somebody_who_was_revoked_since_counts_no_more() -> None:
    """The call asks anew, for somebody else."""
    made = shop()
    session = made.session(id="s")
    review = asked(session, "o-1", 700)
    made.authorizer.approvals.approve(review.id, LEAD)
    made.authorizer.revoke(principal=LEAD, reason="left the company")
    with pytest.raises(ReviewRequired) as again:
        session.bind(refund)("o-1", 700)
    assert again.value.review is not None
    assert again.value.review.id != review.id
    with pytest.raises(Denied, match="approval_used"):
        review.retry()
