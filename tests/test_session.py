"""Sessions: entering, leaving, delegating, remembering, and the inline calls."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import datetime as dt
import gc
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import exceptions

from agentauthz import (
    Basis,
    Delegation,
    Denied,
    InvalidArgument,
    NoSession,
    Outcome,
    Principal,
    Request,
    Resource,
    ReviewRequired,
    State,
    authorize,
    checkpoint,
    current,
)
from agentauthz.active import Current
from agentauthz.errors import SessionError, Stopped, WideningError
from agentauthz.principals import Chain
from agentauthz.state import MemoryState, SqliteState
from agentauthz.values import UNKNOWN
from tests.support import ANYTHING, BOT, HELPER, MARIA, NOON, Recorded, Unreadable


@authorize("t.touch")
def touch(n: int = 1) -> str:
    return current().session.actor.id


# ---- entering and leaving


def test_a_session_is_entered_where_none_is_active() -> None:
    """A second session inside the first raises, whoever owns it."""
    kept = Recorded()
    with kept.session(), pytest.raises(SessionError), kept.session():
        pytest.fail("entered")


def test_a_delegated_session_is_entered_inside_its_parent_only() -> None:
    """The parent must be the one that is active, or none."""
    kept = Recorded()
    with kept.session() as session:
        with session.delegate(HELPER) as child:
            assert touch() == "helper"
            with child.delegate(BOT):
                assert touch() == "bot"
            with pytest.raises(SessionError), session.delegate(BOT):
                pytest.fail("entered beside its sibling")
        assert touch() == "bot"
    with pytest.raises(NoSession):
        current()


def test_what_is_current_inside_of_a_call_can_not_be_changed() -> None:
    """A tool may read its session, decision and resource, and put nothing in their place."""

    @authorize("t.look")
    def look() -> None:
        here = current()
        assert type(here) is Current
        for name in ("session", "decision", "resource", "__class__"):
            with pytest.raises(exceptions.FrozenInstanceError):
                setattr(here, name, None)

    with Recorded().session():
        look()


def test_a_handle_is_entered_once() -> None:
    """Neither twice at once nor again after it was left."""
    session = Recorded().session()
    with session, pytest.raises(SessionError), session:
        pytest.fail("entered")
    with pytest.raises(SessionError), session:
        pytest.fail("entered")


def test_leaving_closes_the_handle_and_those_delegated_from_it() -> None:
    """A call in a closed session is denied, on the authority it no longer has, and recorded."""
    kept = Recorded()
    with kept.session() as session:
        child = session.delegate(HELPER)
        grandchild = child.delegate(BOT)
        child.close()
        assert grandchild.closed
        assert not session.closed
    for handle in (session, child, grandchild):
        decision = handle.decide("t.touch")
        assert (decision.outcome, decision.basis) == (Outcome.DENY, Basis.AUTHORITY)
        with pytest.raises(SessionError):
            handle.delegate(HELPER)
    assert len(kept.decisions) == 3


def test_leaving_never_raises_in_another_context() -> None:
    """A framework that leaves in another context or thread closes the handle all the same."""
    kept = Recorded()

    @contextmanager
    def dependency() -> Iterator[Any]:
        with kept.session() as session:
            yield session

    opened = dependency()
    session = contextvars.copy_context().run(opened.__enter__)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(opened.__exit__, None, None, None).result()
    assert session.closed


def test_a_web_frameworks_yield_dependency() -> None:
    """Entered in one copied context, used in another, left in a third: never another user's session."""
    kept = Recorded()

    @asynccontextmanager
    async def dependency(user: str) -> Any:
        async with kept.session(subject=Principal.user(user), actor=None) as session:
            yield session

    async def request(user: str) -> str:
        opened = dependency(user)
        session = await opened.__aenter__()
        await asyncio.sleep(0)
        found = session.bind(touch)()
        await opened.__aexit__(None, None, None)
        assert session.closed
        return str(found)

    async def serve() -> list[str]:
        return await asyncio.gather(*(request(f"u{i}") for i in range(10)))

    assert asyncio.run(serve()) == [f"u{i}" for i in range(10)]


def test_interleaved_generators_can_not_swap_sessions() -> None:
    """Two generators that each enter a session in one context: the second one raises."""
    kept = Recorded()

    def agent(name: str) -> Iterator[str]:
        with kept.session(subject=Principal.user(name), actor=None):
            while True:
                yield touch()

    a, b = agent("anna"), agent("bert")
    assert next(a) == "anna"
    with pytest.raises(SessionError):
        next(b)
    assert next(a) == "anna"
    a.close()  # type: ignore[attr-defined]
    with pytest.raises(NoSession):
        current()


def test_leaving_the_parent_first_leaves_no_session_behind() -> None:
    """Out of order, the child is closed with its parent, and what is left is no session, not a closed one."""
    kept = Recorded()
    parent = kept.session()
    parent.__enter__()
    child = parent.delegate(HELPER)
    child.__enter__()
    parent.__exit__(None, None, None)
    with pytest.raises(Denied):
        touch()
    child.__exit__(None, None, None)
    with pytest.raises(NoSession):
        touch()
    with kept.session():
        assert touch() == "bot"


def test_a_session_can_not_be_pickled_or_copied() -> None:
    """A handle is authority: it doesn't travel."""
    session = Recorded().session()
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InvalidArgument):
            attempt(session)


def test_checkpoint_stops_closed_and_expired_work() -> None:
    """Without a session there is nothing that could let it go on."""
    kept = Recorded()
    with pytest.raises(NoSession):
        checkpoint()
    with kept.session(expires="10m") as session:
        checkpoint()
        kept.clock.forward(minutes=10)
        with pytest.raises(Stopped):
            checkpoint()
    with pytest.raises(Stopped):
        session.ensure_running()


def test_an_expired_session_is_denied() -> None:
    """Expiry is judged by the authorizer's clock, at each decision."""
    kept = Recorded()
    with kept.session(expires=dt.timedelta(minutes=1)) as session:
        assert session.decide("t.touch").allowed
        kept.clock.forward(seconds=60)
        decision = session.decide("t.touch")
    assert (decision.outcome, decision.basis, decision.reasons[0].code) == (Outcome.DENY, Basis.REVOKED, "expired")


@pytest.mark.parametrize(
    "options",
    [
        {"subject": None},
        {"subject": "maria"},
        {"actor": "bot"},
        {"purpose": ""},
        {"expires": "soon"},
        {"expires": "0s"},
        {"expires": dt.datetime(2030, 1, 1)},  # noqa: DTZ001
        {"expires": dt.timedelta(days=-1)},
        {"id": ""},
        {"id": 3},
        {"attributes": 3},
        {"attributes": Resource("F", "1")},
        {"attributes": {3: 4}},
        {"attributes": Unreadable()},
        {"context": 3},
        {"context": Unreadable()},
        {"route": ""},
        {"chain": Chain(BOT)},
        {"chain": Chain(MARIA, (Delegation(HELPER),))},
    ],
    ids=str,
)
def test_a_session_with_wrong_arguments_is_refused_at_once(options: dict[str, Any]) -> None:
    """Not at its first call."""
    with pytest.raises(InvalidArgument):
        Recorded().session(**options)


# ---- inline calls


def test_decide_returns_and_authorize_raises() -> None:
    """The same step, recorded both ways."""
    kept = Recorded(
        "permit p on a.b when args.n == 1\nreview r on a.c when true by approver != subject\npermit q on a.c when true"
    )
    with kept.session() as session:
        assert session.decide("a.b", args={"n": 1}).allowed
        assert not session.decide("a.b", args={"n": 2}).allowed
        assert session.authorize("a.b", args={"n": 1}).outcome is Outcome.ALLOW
        with pytest.raises(Denied):
            session.authorize("a.b", args={"n": 2})
        with pytest.raises(ReviewRequired):
            session.authorize("a.c")
    assert [d.outcome for d in kept.decisions] == ["allow", "deny", "allow", "deny", "review"]


def test_a_decision_has_no_truth_value() -> None:
    """`if session.decide(…)` would be true for a denial, so it raises."""
    decision = Recorded().session().decide("a.b")
    with pytest.raises(InvalidArgument):
        bool(decision)


def test_preview_records_and_remembers_nothing() -> None:
    """And it takes values that aren't chosen yet, and a state that isn't there."""
    kept = Recorded(
        'mark m on a.b when true\npermit p on a.* when args.n == 1\nforbid f on a.c when "m" in session.marks'
    )
    with kept.session() as session:
        assert session.preview("a.b", args={"n": 1}).allowed
        assert session.marks == frozenset()
        assert not session.preview("a.b", args={"n": UNKNOWN}).allowed
        assert not session.preview("a.b", args=UNKNOWN).allowed
        assert session.preview("a.c", args={"n": 1}).allowed
        assert not session.preview("a.c", args={"n": 1}, state=State(marks={"m"})).allowed
    assert kept.decisions == []


def test_perform_records_the_effect() -> None:
    """Of work that is done inline, or fails."""
    kept = Recorded("permit p on a.b when true")
    with kept.session() as session:
        with session.perform("a.b") as decision:
            assert decision.allowed
        with pytest.raises(KeyError), session.perform("a.b"):
            raise KeyError("x")
        with pytest.raises(Denied), session.perform("a.c"):
            pytest.fail("ran")
        used = session.perform("a.b")
        with used:
            pass
        with pytest.raises(SessionError), used:
            pytest.fail("ran twice")
    assert [e.status for e in kept.effects] == ["done", "failed", "done"]


def test_work_that_is_performed_without_with_closes_the_session() -> None:
    """`session.perform("x")` looks like a check: it warns, and nothing more may run."""
    kept = Recorded(ANYTHING)
    session = kept.session()
    with pytest.warns(UserWarning, match="never entered"):
        session.perform("t.do")
    assert session.closed
    assert kept.decisions == []
    other = kept.session()
    with other.perform("t.do"):
        pass
    gc.collect()
    assert not other.closed


async def test_the_async_twins() -> None:
    """They do what their twins do."""
    kept = Recorded("permit p on a.b when true")
    async with kept.session() as session:
        assert (await session.adecide("a.b")).allowed
        assert (await session.aauthorize("a.b")).allowed
        assert (await session.apreview("a.b")).allowed
        with pytest.raises(Denied):
            await session.aauthorize("a.c")
        async with session.perform("a.b"):
            pass
    assert len(kept.decisions) == 4
    assert len(kept.effects) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": ""}, {"action": 3}, {"args": 3}, {"context": "x"}, {"args": {3: 4}}, {"args": Unreadable()},
        {"context": Unreadable()},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_inline_arguments_are_refused(wrong: dict[str, Any]) -> None:
    """A wrong type raises, and so does a mapping whose own code does."""
    session = Recorded().session()
    call = {"action": "a.b", **wrong}
    with pytest.raises(InvalidArgument):
        session.decide(call.pop("action"), **call)


# ---- remembering


def test_marks_are_set_before_the_function_runs_and_stay() -> None:
    """A mark of an allowed call is seen by the next decision; one of a denied call is never set."""
    policy = """
permit p on crm.read, email.send when true
forbid f on crm.read when args.who == "nobody"
mark secret on crm.read when resource.secret == true
forbid egress on email.send when "secret" in session.marks
"""
    kept = Recorded(policy)
    with kept.session() as session:
        assert session.decide("email.send").allowed
        assert not session.decide(
            "crm.read", args={"who": "nobody"}, resource=Resource("F", "1", {"secret": True})
        ).allowed
        assert session.marks == frozenset()
        assert session.decide("crm.read", args={"who": "x"}, resource=Resource("F", "1", {"secret": False})).allowed
        assert session.marks == frozenset()
        assert session.decide("crm.read", args={"who": "x"}, resource=Resource("F", "1", {})).allowed
        assert session.marks == {"secret"}  # undetermined marks, too
        assert not session.decide("email.send").allowed


def test_marks_belong_to_the_id_and_to_the_whole_delegation_tree() -> None:
    """Starting over with the same id, or a sub-agent, doesn't lose them."""
    kept = Recorded(ANYTHING)
    with kept.session(id="conversation-1") as session:
        with session.delegate(HELPER) as child:
            child.mark("tainted")
        assert session.marks == {"tainted"}
    assert kept.session(id="conversation-1").marks == {"tainted"}
    assert kept.session(id="conversation-2").marks == frozenset()
    assert kept.session().marks == frozenset()


@pytest.mark.parametrize("store", [MemoryState, SqliteState])
def test_a_session_that_is_resumed_by_the_id_it_was_given_forgets_nothing(store: Any, tmp_path: Path) -> None:
    """Who resumes an open session by its id finds all of it, though the other handle goes before the first call."""
    policy = ANYTHING + '\nmark secret on crm.read\nforbid out on email.send when "secret" in session.marks\n'
    policy += "limit twice on crm.read to count <= 1 per session\n"
    state = store(tmp_path / "state.db") if store is SqliteState else store()
    kept = Recorded(policy, state=state)
    session = kept.session()
    assert session.decide("crm.read").allowed
    session = kept.session(id=session.id)
    gc.collect()
    for other in range(70 if store is SqliteState else 0):  # the file forgets what nobody holds on to
        kept.session(id=f"other-{other}").mark("m")
    assert [session.decide(action).allowed for action in ("crm.read", "email.send")] == [False, False]
    kept.authorizer.close()
    state.close()


def test_began_and_done_follow_the_calls() -> None:
    """began: allowed within the time; done: allowed and returned; both ends count, this call doesn't."""
    policy = """
permit check on kyc.check when true
permit pay on pay.out when done("kyc.check", 1h)
permit ask on pay.ask when began("kyc.check", 1h)
"""
    kept = Recorded(policy)

    @authorize("kyc.check")
    def check(fail: bool = False) -> None:
        if fail:
            raise ValueError("failed")

    with kept.session() as session:
        assert not session.decide("pay.ask").allowed
        with pytest.raises(ValueError, match="failed"):
            check(fail=True)
        assert session.decide("pay.ask").allowed
        assert not session.decide("pay.out").allowed
        check()
        assert session.decide("pay.out").allowed
        kept.clock.forward(hours=1)
        assert session.decide("pay.out").allowed
        kept.clock.forward(microseconds=1)
        assert not session.decide("pay.out").allowed


def test_an_action_that_was_not_watched_is_unknown() -> None:
    """After a replace, `began` of a newly named action is unknown until seen, or watched for long enough."""
    from agentauthz import PolicySet

    named = 'permit all on * when true\nforbid f on pay.out when began("crm.read", 1h)'
    kept = Recorded()
    with kept.session() as session:
        session.decide("crm.read")
        kept.clock.forward(minutes=1)
        kept.authorizer.replace(PolicySet.parse(named))
        decision = session.decide("pay.out")
        assert (decision.outcome, decision.basis) == (Outcome.DENY, Basis.UNDETERMINED)
        kept.clock.forward(hours=1)
        assert session.decide("pay.out").allowed
    with kept.session() as fresh:
        assert fresh.decide("pay.out").allowed


# ---- delegation


def test_delegation_only_narrows() -> None:
    """Actions, purpose and expiry; anything wider raises at once."""
    kept = Recorded()
    session = kept.session(purpose=None, expires="1h")
    child = session.delegate(HELPER, actions=["docs.*", "crm.read"], purpose="research", expires="10m")
    assert child.purpose == "research"
    wider: list[dict[str, Any]] = [
        {"actions": ["*"]},
        {"actions": ["docs"]},
        {"actions": ["crm.*"]},
        {"purpose": "sales"},
        {"expires": "11m"},
    ]
    for options in wider:
        with pytest.raises(WideningError):
            child.delegate(BOT, **options)
    with pytest.raises(WideningError):
        session.delegate(HELPER, expires="2h")
    with pytest.raises(WideningError):
        kept.session(purpose="x").delegate(HELPER, purpose="y")
    narrow = child.delegate(BOT, actions=["docs.search"], expires="5m")
    assert narrow.decide("docs.search").allowed
    decision = narrow.decide("crm.read")
    assert (decision.basis, decision.reasons[0].code) == (Basis.AUTHORITY, "action_not_covered")
    kept.clock.forward(minutes=5)
    assert narrow.decide("docs.search").basis is Basis.REVOKED


@pytest.mark.parametrize(
    "options", [{"actions": "docs.*"}, {"actions": []}, {"actions": [""]}, {"actions": ["a*"]}, {"to": "x"}]
)
def test_a_malformed_delegation_is_refused(options: dict[str, Any]) -> None:
    """At once, with the argument's name."""
    with pytest.raises(InvalidArgument):
        Recorded().session().delegate(**{"to": HELPER, **options})


def test_a_chain_has_at_most_sixteen_hops() -> None:
    """The seventeenth raises at once."""
    session = Recorded().session(actor=None)
    for n in range(16):
        session = session.delegate(Principal.agent(f"a{n}"))
    with pytest.raises(WideningError):
        session.delegate(Principal.agent("one too many"))


def test_passing_on_gives_at_most_what_the_giver_has() -> None:
    """A sub-agent with more trust can't do what its giver may not."""
    policy = "permit trusted on a.b when actor is agent and actor.trust >= 2"
    kept = Recorded(policy)
    strong, weak = Principal.agent("strong", trust=9), Principal.agent("weak", trust=1)
    assert kept.session(actor=strong).decide("a.b").allowed
    assert not kept.session(actor=weak).delegate(strong).decide("a.b").allowed
    assert not kept.session(actor=strong).delegate(weak).decide("a.b").allowed


def test_handing_off_must_be_allowed_and_then_judges_the_worker_alone() -> None:
    """delegation.handoff is an action that `*` doesn't cover."""
    policy = "permit trusted on a.b when actor is agent and actor.trust >= 2"
    weak, strong = Principal.agent("weak", trust=1), Principal.agent("strong", trust=9)
    with pytest.raises(Denied):
        Recorded(policy).session(actor=weak).delegate(strong, handoff=True)
    allowing = policy + '\npermit off on delegation.handoff when actor == agent("weak") and args.to == agent("strong")'
    kept = Recorded(allowing)
    worker = kept.session(actor=weak).delegate(strong, handoff=True)
    assert worker.decide("a.b").allowed
    assert [d.action.name for d in kept.decisions] == ["delegation.handoff", "a.b"]


def test_a_hand_off_in_a_chain_given_by_hand_is_asked_again() -> None:
    """The host's word isn't enough: a hop that isn't allowed to hand off passes on."""
    policy = "permit trusted on a.b when actor is agent and actor.trust >= 2"
    off = '\npermit off on delegation.handoff when args.to == agent("strong")'
    weak, strong = Principal.agent("weak", trust=1), Principal.agent("strong", trust=9)
    chain = Chain(MARIA, (Delegation(weak), Delegation(strong, handoff=True)))
    assert not Recorded(policy).session(actor=None, chain=chain).decide("a.b").allowed
    assert Recorded(policy + off).session(actor=None, chain=chain).decide("a.b").allowed


def test_a_chain_given_by_hand_vouches_for_nothing() -> None:
    """`via` in a chain from outside is a claim: its hand-offs are asked again, and its givers are judged."""
    policy = "permit trusted on a.b when actor is agent and actor.trust >= 2"
    weak, strong = Principal.agent("weak", trust=1), Principal.agent("strong", trust=9)
    for claimed in (Delegation(strong, handoff=True, via="session"), Delegation(strong, via="token")):
        chain = Chain(MARIA, (Delegation(weak), claimed))
        kept = Recorded(policy)
        assert not kept.session(actor=None, chain=chain).decide("a.b").allowed
        assert not kept.authorizer.decide(Request("a.b", subject=MARIA, chain=chain)).allowed
        assert not kept.authorizer.preview(Request("a.b", subject=MARIA, chain=chain)).allowed


def test_a_delegations_purpose_must_be_the_requests() -> None:
    """A hop for one purpose covers no other, and none."""
    kept = Recorded()
    chain = Chain(MARIA, (Delegation(BOT, purpose="research"),))
    assert kept.session(actor=None, chain=chain, purpose="research").decide("a.b").allowed
    for purpose in ("sales", None):
        decision = kept.session(actor=None, chain=chain, purpose=purpose).decide("a.b")
        assert decision.reasons[0].code == "purpose_not_covered"


def test_the_session_starts_at_its_first_handle() -> None:
    """`session.started` is the id's, not the handle's."""
    kept = Recorded('permit p on a.b when session.started == time("2026-11-23T12:00:00Z") and session.id == "c"')
    assert kept.session(id="c").decide("a.b").allowed
    kept.clock.forward(hours=1)
    assert kept.session(id="c").decide("a.b").allowed
    assert kept.clock.now != NOON
