"""Revoke, halt, resume and unmark: what each stops, for how long, what is recorded, and what an authorizer knows."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from agentauthz import Authorizer, Basis, Decision, Denied, InvalidArgument, PolicySet, Principal, Request, Stopped
from agentauthz.authorizer.revocations import INTERVAL, Revocations, principal_name
from agentauthz.decision import Reason
from agentauthz.errors import SinkError, StateError
from agentauthz.principals import Chain, Delegation
from agentauthz.records import EventRecord, MemorySink
from agentauthz.records.words import record_line
from agentauthz.request import SessionFacts
from agentauthz.state.memory import MemoryState
from agentauthz.state.store import Intent
from agentauthz.values import UNKNOWN
from tests.distant import DistantState
from tests.recording import until
from tests.support import ANYTHING, BOT, HELPER, MARIA, NOON, Recorded

PAUL = Principal.user("paul")
MARKED = """
permit anything on * when true
mark seen on t.read
forbid after on t.send when "seen" in session.marks
"""


def code(decision: Decision) -> tuple[str, Basis]:
    """Return the code and the basis of a denial."""
    assert not decision.allowed
    return decision.reasons[0].code, decision.basis


def asked(authorizer: Authorizer, *, session: str | None = None, **parties: Any) -> Decision:
    """Decide a request made by hand."""
    facts = None if session is None else SessionFacts(session, NOON)
    given = {"subject": MARIA, "actor": BOT, **parties}
    return authorizer.decide(Request("t.read", session=facts, now=NOON, **given))


def states(sink: MemorySink) -> list[dict[str, Any]]:
    """Return what the records of state tell."""
    told = [record for record in sink.records if isinstance(record, EventRecord) and record.type == "state"]
    return [{**record.about, **({} if record.session is None else {"session": record.session})} for record in told]


class Ticks:
    """Be a clock of seconds that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# ---- what falls


def test_a_revoked_session_is_denied_at_its_next_decision() -> None:
    """The next call is denied with basis `revoked`; another session goes on."""
    made = Recorded()
    session, other = made.session(), made.session()
    assert session.decide("t.read").allowed
    made.authorizer.revoke(session=session, reason="wrong customer")
    assert code(session.decide("t.read")) == ("session_revoked", Basis.REVOKED)
    assert other.decide("t.read").allowed
    with pytest.raises(Denied, match="Stop") as denied:
        session.authorize("t.read")
    assert "customer" not in str(denied.value), "the host's reason is for people"
    assert denied.value.decision is not None
    assert "wrong customer" in denied.value.decision.reasons[0].text


def test_a_session_may_be_revoked_before_anybody_has_it() -> None:
    """Its id needn't be known: whoever begins a session with it later begins a revoked one."""
    made = Recorded()
    made.authorizer.revoke(session="conversation-7", reason="closed by the customer")
    assert code(made.session(id="conversation-7").decide("t.read")) == ("session_revoked", Basis.REVOKED)
    assert made.session(id="conversation-8").decide("t.read").allowed


def test_a_revoked_session_can_not_be_resumed() -> None:
    """The same id gives another handle, and no way around: revocation is of the id, closing of the handle."""
    made = Recorded()
    with made.session(id="c") as first:
        first.authorize("t.read")
    assert code(first.decide("t.read")) == ("session_closed", Basis.AUTHORITY)
    assert made.session(id="c").decide("t.read").allowed
    made.authorizer.revoke(session="c", reason="r")
    assert code(made.session(id="c").decide("t.read")) == ("session_revoked", Basis.REVOKED)
    assert code(first.decide("t.read")) == ("session_revoked", Basis.REVOKED), "it comes before all else"


@pytest.mark.parametrize("revoked", [MARIA, BOT, HELPER])
def test_a_revoked_principal_stops_every_chain_through_it(revoked: Principal) -> None:
    """As subject, in the middle or as actor: each chain that holds it falls, and no other."""
    made = Recorded()
    with made.session() as session, session.delegate(HELPER) as delegated:
        assert delegated.decide("t.read").allowed
        made.authorizer.revoke(principal=revoked, reason="left the company")
        assert code(delegated.decide("t.read")) == ("principal_revoked", Basis.REVOKED)
        assert session.decide("t.read").allowed == (revoked is HELPER)
    assert made.session(subject=PAUL, actor=Principal.agent("other")).decide("t.read").allowed


@pytest.mark.parametrize(
    "other",
    [
        Principal.agent("maria"),
        Principal.user("maria", issuer="https://id.example"),
        Principal.user("Maria"),
        Principal.user('maria", "x'),
        Principal.user("maria\x00"),
    ],
)
def test_a_principal_is_revoked_by_issuer_kind_and_id_exactly(other: Principal) -> None:
    """Somebody who only looks like the revoked one stands, the other way round too; attributes don't count."""
    made = Recorded()
    made.authorizer.revoke(principal=other, reason="r")
    assert asked(made.authorizer).allowed
    made = Recorded()
    made.authorizer.revoke(principal=Principal.user("maria", roles=["other"]), reason="r")
    assert asked(made.authorizer, subject=other).allowed
    assert not asked(made.authorizer).allowed
    assert principal_name(other) != principal_name(MARIA)


def test_a_halt_stops_everything_until_it_is_resumed() -> None:
    """All sessions and requests are denied; afterwards all go on, but what was revoked stays revoked."""
    made = Recorded()
    session = made.session()
    made.authorizer.revoke(session="gone", reason="r")
    made.authorizer.halt("incident 12")
    assert code(session.decide("t.read")) == ("halted", Basis.REVOKED)
    assert code(asked(made.authorizer)) == ("halted", Basis.REVOKED)
    assert code(made.session().decide("t.read")) == ("halted", Basis.REVOKED)
    made.authorizer.halt("again")
    made.authorizer.resume("it is over")
    assert session.decide("t.read").allowed
    assert asked(made.authorizer).allowed
    assert code(asked(made.authorizer, session="gone")) == ("session_revoked", Basis.REVOKED)


def test_what_was_revoked_can_not_be_lifted() -> None:
    """Revocations only grow: a store that says that one is lifted is not believed."""
    made = Recorded()
    made.authorizer.revoke(session="s", reason="r")
    made.authorizer._state.revoke("session", "s", "r", lifts=True)
    assert code(asked(made.authorizer, session="s")) == ("session_revoked", Basis.REVOKED)


def test_a_session_that_is_not_known_is_denied_once_any_was_revoked() -> None:
    """Where nobody knows which session a request belongs to, nobody knows that it wasn't revoked."""
    made = Recorded()
    request = Request("t.read", subject=MARIA, actor=BOT, session=UNKNOWN, now=NOON)
    assert made.authorizer.decide(request).allowed
    made.authorizer.revoke(session="s", reason="r")
    assert code(made.authorizer.decide(request)) == ("revocation_unknown", Basis.ERROR)


# ---- everywhere


@pytest.fixture(params=["halt", "session", "principal"])
def fallen(request: pytest.FixtureRequest) -> tuple[Recorded, Any, str]:
    """Return an authorizer, a session that fell, and the code for it."""
    made = Recorded(MARKED)
    session = made.session(id="s")
    if request.param == "halt":
        made.authorizer.halt("r")
    elif request.param == "session":
        made.authorizer.revoke(session="s", reason="r")
    else:
        made.authorizer.revoke(principal=BOT, reason="r")
    return made, session, "halted" if request.param == "halt" else f"{request.param}_revoked"


async def test_every_way_to_ask_finds_it(fallen: tuple[Recorded, Any, str]) -> None:
    """Decisions, previews, explanations, requests by hand and verified ones are denied alike, sync and async."""
    made, session, expected = fallen
    by_hand = Request("t.read", subject=MARIA, actor=BOT, session=SessionFacts("s", NOON), now=NOON)
    authorizer = made.authorizer
    decisions = [
        session.decide("t.read"), await session.adecide("t.read"), session.preview("t.read"),
        await session.apreview("t.read"), authorizer.decide(by_hand), await authorizer.adecide(by_hand),
        authorizer.preview(by_hand), await authorizer.apreview(by_hand), authorizer.decide_verified(by_hand),
        session.preview("t.read", state=MemoryState().read("s")),
    ]  # fmt: skip
    assert {code(decision) for decision in decisions} == {(expected, Basis.REVOKED)}
    assert expected in authorizer.explain(by_hand).render() or not authorizer.explain(by_hand).decision.allowed
    with pytest.raises(Stopped, match=expected):
        session.ensure_running()
    assert session.fallen()[1].code == expected
    assert session.marks == frozenset(), "a denied call marks nothing"


async def test_nothing_is_delegated_or_handed_off(fallen: tuple[Recorded, Any, str]) -> None:
    """Passing authority on is refused and recorded with the same code."""
    made, session, expected = fallen
    for handoff in (False, True):
        with pytest.raises(Denied) as denied:
            session.delegate(HELPER, handoff=handoff)
        assert denied.value.decision is not None
        assert code(denied.value.decision) == (expected, Basis.REVOKED)
    with pytest.raises(Denied):
        await session.adelegate(HELPER)
    passed = [record for record in made.sink.records if type(record).__name__ == "DelegationRecord"]
    assert {record.as_dict()["delegation"]["reason"]["code"] for record in passed} == {expected}


def test_nothing_is_delegated_to_who_was_revoked() -> None:
    """A session that stands can't pass its authority to a revoked principal."""
    made = Recorded()
    made.authorizer.revoke(principal=HELPER, reason="r")
    session = made.session()
    with pytest.raises(Denied, match="principal_revoked"):
        session.delegate(HELPER)
    assert session.delegate(Principal.agent("third")).decide("t.read").allowed


def test_observe_mode_enforces_it() -> None:
    """A call that only lacked a permit would run; a revoked one doesn't."""
    made = Recorded("forbid nothing on x.y when true", mode="observe", observe_until=NOON.replace(year=2027))
    session = made.session(id="s")
    assert session.decide("t.read").allowed
    made.authorizer.revoke(session="s", reason="r")
    assert code(session.decide("t.read")) == ("session_revoked", Basis.REVOKED)


# ---- records


def test_each_order_is_recorded() -> None:
    """Revoking, halting, resuming, setting and removing a mark leave a `state` record each: what, of whom, why."""
    made = Recorded(MARKED)
    session = made.session(id="s")
    session.mark("seen")
    name = "0" * 64
    made.authorizer.revoke(session=session, reason="one")
    made.authorizer.revoke(principal=MARIA, reason="two")
    made.authorizer.revoke(token=name, reason="three")
    made.authorizer.halt("four")
    made.authorizer.resume("five")
    session.unmark("seen", "six")
    told = states(made.sink)
    digest = told[3].pop("digest")
    assert told == [
        {"kind": "mark", "id": "seen", "session": "s"},
        {"kind": "revoke", "of": "session", "reason": "one", "session": "s"},
        {"kind": "revoke", "of": "principal", "id": 'user("maria")', "reason": "two"},
        {"kind": "revoke", "of": "token", "reason": "three"},
        {"kind": "halt", "reason": "four"},
        {"kind": "resume", "reason": "five"},
        {"kind": "unmark", "id": "seen", "reason": "six", "session": "s"},
    ]
    assert name not in digest
    assert made.authorizer._recording.digest("token", name) == digest, "as delegation records name it"


async def test_each_record_says_whose_order_it_was() -> None:
    """With `by=`, each order's record names that principal; what is none is refused, and then nothing takes effect."""
    made, by = Recorded(MARKED), Principal.user("olga", issuer="https://id.example", roles=["duty"])
    session = made.session(id="s")
    session.mark("seen", by=by)
    await session.amark("seen", by=by)
    made.authorizer.revoke(token="0" * 64, reason="one", by=by)
    await made.authorizer.arevoke(principal=PAUL, reason="two", by=by)
    made.authorizer.halt("three", by=by)
    made.authorizer.resume("four", by=by)
    await made.authorizer.ahalt("five", by=by)
    await made.authorizer.aresume("six", by=by)
    session.unmark("seen", "seven", by=by)
    await session.aunmark("seen", "eight", by=by)
    told = states(made.sink)
    named = {"sub": "olga", "kind": "user", "iss": "https://id.example"}
    assert [each["by"] for each in told] == [named] * 10
    line = record_line(next(record for record in made.sink.records if record.type == "state"))  # type: ignore[union-attr]
    assert line.endswith("  state  kind: mark, id: seen, by: user(olga) of https://id.example")
    assert [each["kind"] for each in told] == ["mark"] * 2 + ["revoke"] * 2 + ["halt", "resume"] * 2 + ["unmark"] * 2
    nobody: Any = "olga"
    session.mark("seen")
    for order in (
        lambda: session.mark("other", by=nobody),
        lambda: session.unmark("seen", "r", by=nobody),
        lambda: made.authorizer.halt("r", by=nobody),
        lambda: made.authorizer.revoke(session=session, reason="r", by=nobody),
    ):
        with pytest.raises(InvalidArgument, match="`by` must be a Principal"):
            order()
    assert session.marks == {"seen"}
    assert session.decide("t.read").allowed
    assert len(states(made.sink)) == 11


def test_a_mark_holds_though_it_can_not_be_recorded() -> None:
    """A mark that its host sets is set, and then it is told that nobody has a record of it."""
    made = Recorded(MARKED)
    session, full = made.session(id="s"), Full()
    sink: Any = full
    made.authorizer.add_sink(sink)
    with pytest.raises(SinkError, match="the mark holds, but"):
        session.mark("seen")
    made.authorizer.remove_sink(sink)
    assert session.marks == {"seen"}
    assert not session.decide("t.send").allowed


def test_a_mark_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Hosts set marks in the course of their work: the log has them among what is allowed."""
    with caplog.at_level(logging.INFO, "agentauthz.decisions"):
        Authorizer(PolicySet.parse(ANYTHING)).session(MARIA, BOT).mark("seen")
    assert [(record.levelname, record.getMessage()[:6]) for record in caplog.records] == [("INFO", "state,")]


def test_a_hostile_reason_makes_one_valid_record() -> None:
    """Whatever its characters, the record is one line that the schema takes."""
    made = Recorded()
    made.authorizer.halt('a\nb"\ud800' + "\u202e" * 900)
    assert states(made.sink)[0]["kind"] == "halt"
    assert code(asked(made.authorizer)) == ("halted", Basis.REVOKED)


class Full:
    """Be a sink that keeps nothing."""

    blocking = False

    def append(self, line: bytes, record: object) -> None:
        raise OSError("full")

    def close(self) -> None: ...


def test_it_holds_though_it_can_not_be_recorded(caplog: pytest.LogCaptureFixture) -> None:
    """The brake works when the disk is full: it takes effect, and then raises and is logged."""
    made = Recorded()
    session = made.session(id="s")
    full: Any = Full()
    made.authorizer.add_sink(full)
    with pytest.raises(SinkError, match="holds, but"):
        made.authorizer.revoke(session="s", reason="r")
    made.authorizer.remove_sink(full)
    assert "couldn't be recorded" in caplog.text
    assert code(session.decide("t.read")) == ("session_revoked", Basis.REVOKED)


def test_it_holds_though_the_clock_fails() -> None:
    """A clock that raises costs the record, not the effect."""
    made = Recorded()
    orders: Any = made.authorizer._orders
    right, orders._now = orders._now, lambda: 1 / 0
    with pytest.raises(SinkError):
        made.authorizer.halt("r")
    orders._now = right
    assert code(asked(made.authorizer)) == ("halted", Basis.REVOKED)


def test_a_halt_is_logged_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Without any sink, who reads warnings sees that everything was halted."""
    with caplog.at_level(logging.WARNING, "agentauthz.decisions"):
        Authorizer(PolicySet.parse(ANYTHING)).halt("r")
    assert any(message.startswith("state, record") for message in caplog.messages)


# ---- marks


async def test_a_mark_is_removed_on_the_hosts_word() -> None:
    """`unmark` says whether it was there, for the whole tree, and the rule that read it doesn't stop any more."""
    made = Recorded(MARKED)
    with made.session() as session, session.delegate(HELPER) as delegated:
        delegated.authorize("t.read")
        assert not session.decide("t.send").allowed
        assert session.unmark("seen", "checked by hand") is True
        assert session.decide("t.send").allowed
        assert session.unmark("seen", "again") is False
        session.mark("seen")
        assert await delegated.aunmark("seen", "once more") is True
        assert session.marks == frozenset()


def test_a_mark_stays_where_its_removal_can_not_be_recorded() -> None:
    """Removing one lets more happen, so it is recorded first, or not done."""
    made = Recorded(MARKED)
    session = made.session()
    session.mark("seen")
    full: Any = Full()
    made.authorizer.add_sink(full)
    with pytest.raises(SinkError, match="stays"):
        session.unmark("seen", "r")
    made.authorizer.remove_sink(full)
    assert session.marks == {"seen"}


# ---- arguments


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"session": "s", "principal": MARIA},
        {"session": ""},
        {"session": 7},
        {"principal": "maria"},
        {"token": "not a name"},
        {"token": 7},
        {"session": "s", "reason": ""},
        {"session": "s", "reason": "x" * 1_001},
    ],
)
def test_mistakes_are_told(given: dict[str, Any]) -> None:
    """What can't be meant raises at once, and revokes nothing."""
    made = Recorded()
    with pytest.raises(InvalidArgument):
        made.authorizer.revoke(**{"reason": "r", **given})
    assert made.authorizer._state.revocations(0) == []


@pytest.mark.parametrize("age", [0, -1, float("nan"), float("inf"), "10s", None])
def test_the_age_must_be_a_number_of_seconds(age: Any) -> None:
    """Knowledge that never ages would be a brake that never works."""
    with pytest.raises(InvalidArgument, match="revocation_max_age"):
        Authorizer(PolicySet.parse(ANYTHING), revocation_max_age=age)


# ---- several authorizers on one store


def test_authorizers_on_one_store_know_at_once() -> None:
    """In one process, what one revokes stops the other's next decision; one made later knows it too."""
    store = MemoryState()
    first, second = (Recorded(state=store).authorizer for _ in range(2))
    first.halt("r")
    assert code(asked(second)) == ("halted", Basis.REVOKED)
    assert code(asked(Recorded(state=store).authorizer)) == ("halted", Basis.REVOKED)
    second.resume("r")
    assert asked(first).allowed


def test_a_store_that_does_not_answer_denies() -> None:
    """Where a store that should answer at once fails, nobody knows, and nothing is allowed."""
    store = MemoryState()
    authorizer = Recorded(state=store).authorizer

    def fails(since: int) -> Any:
        raise StateError("no")

    store.revocations = fails  # type: ignore[method-assign]
    assert code(asked(authorizer)) == ("revocations_outdated", Basis.ERROR)


# ---- a store that may wait


def test_a_distant_store_is_read_at_the_start_and_in_the_background() -> None:
    """What was revoked before is known at the first decision, what others revoke at the next reading; no call waits."""
    store = DistantState()
    store.near.revoke("session", "early", "r")
    authorizer = Recorded(state=store).authorizer
    assert code(asked(authorizer, session="early")) == ("session_revoked", Basis.REVOKED)
    store.near.revoke("principal", principal_name(BOT), "r")
    until(lambda: not asked(authorizer).allowed, seconds=5)
    assert INTERVAL <= 0.5
    authorizer.close()


def test_no_decision_waits_for_a_slow_store() -> None:
    """Where the store takes a second, a decision that needs no state from it asks it nothing."""
    store = DistantState()
    authorizer = Recorded(state=store).authorizer
    store.slow = 1.0
    store.threads.clear()
    for _ in range(50):
        assert asked(authorizer).allowed
    assert threading.current_thread().name not in store.threads
    authorizer.close()


def test_what_is_too_old_is_not_relied_on() -> None:
    """Ten seconds without an answer deny everything; one good reading lets all go on."""
    store, clock = DistantState(), Ticks()
    known = Revocations(store, clock=clock)
    known.close()
    chain = Chain(MARIA, (Delegation(BOT),))
    store.down = {"revocations"}
    clock.now += 9.9
    assert known.against(known.known(), None, chain) is None
    clock.now += 0.1
    found = known.against(known.known(), None, chain)
    assert found is not None
    assert (found[0], found[1].code) == (Basis.ERROR, "revocations_outdated")
    known.poll()
    assert known.known() is None, "a reading that fails makes nothing good"
    store.down = set()
    known.poll()
    assert known.against(known.known(), None, chain) is None


def test_an_answer_is_as_old_as_its_question() -> None:
    """A reading that took nine seconds is nine seconds old when it arrives."""
    store, clock = DistantState(), Ticks()
    known = Revocations(store, clock=clock)
    known.close()
    near = store.near.revocations

    def slow(since: int) -> Any:
        found = near(since)
        clock.now += 9
        return found

    store.near.revocations = slow
    clock.now += 5
    known.poll()
    clock.now += 1
    assert known.known() is None


def test_a_store_that_is_down_at_the_start_denies_until_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    """The authorizer can be made, denies everything, says so once in the log, and works as soon as it has read."""
    store = DistantState()
    store.down = {"*"}
    authorizer = Recorded(state=store).authorizer
    assert code(asked(authorizer)) == ("revocations_outdated", Basis.ERROR)
    until(lambda: store.asked["revocations"] > 2)
    assert [record.getMessage() for record in caplog.records if record.name == "agentauthz.state"] == [
        "what was revoked can't be read: StateError"
    ]
    store.down = set()
    until(lambda: asked(authorizer).allowed)
    authorizer.close()


def test_age_counts_while_the_store_is_down() -> None:
    """With an age of half a second, a store that fails stops everything after that, what is running too."""
    store = DistantState()
    made = Recorded(state=store, revocation_max_age=0.5)
    session = made.session()
    assert session.decide("t.read").allowed
    store.down = {"revocations"}
    until(lambda: not session.decide("t.read").allowed)
    assert code(session.decide("t.read")) == ("revocations_outdated", Basis.ERROR)
    with pytest.raises(Stopped, match="revocations_outdated"):
        session.ensure_running()
    store.down = set()
    until(lambda: session.decide("t.read").allowed)
    made.authorizer.close()


def test_a_store_that_was_restored_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Where a store comes back without what it told, that holds on here, and what it tells anew isn't missed."""
    store = DistantState()
    known = Revocations(store)
    known.close()
    for name in ("a", "b", "c"):
        known.revoke("session", name, "r")
    known.revoke("everything", "", "r")
    store.near = MemoryState()
    known.poll()
    store.near.revoke("session", "d", "r")
    known.poll()
    known.poll()
    assert known.number == 1
    chain = Chain(MARIA)
    assert known.against(known.known(), "d", chain) is not None
    assert known.against(known.known(), "e", chain) is not None, "the halt holds on"
    known.revoke("everything", "", "r", lifts=True)
    assert all(known.against(known.known(), name, chain) is not None for name in "abcd")
    assert known.against(known.known(), "e", chain) is None
    assert caplog.text.count("has lost revocations") == 1


@pytest.mark.parametrize("down", [False, True])
def test_a_store_that_was_restored_lifts_no_halt_that_it_does_not_know(down: bool) -> None:
    """An earlier halt and its resume, told again, say nothing of a later halt; a new resume ends it."""
    store, backup, chain = DistantState(), MemoryState(), Chain(MARIA)
    known = Revocations(store)
    known.close()
    for lifts in (False, True):
        known.revoke("everything", "", "first", lifts=lifts)
    backup._revoked[:] = store.near._revoked
    store.down = {"revoke"} if down else set()
    with pytest.raises(StateError) if down else contextlib.nullcontext():
        known.revoke("everything", "", "second")
    for store.near in (MemoryState(), backup):
        known.poll()
        assert known.against(known.known(), "s", chain) is not None
    backup.revoke("everything", "", "it is over", lifts=True)
    known.poll()
    assert known.against(known.known(), "s", chain) is None


def test_a_store_that_is_behind_for_a_moment_changes_nothing() -> None:
    """A halt that was lifted isn't there again because a reading lacked its end, nor for good."""
    store, behind, chain = DistantState(), MemoryState(), Chain(MARIA)
    known = Revocations(store)
    known.close()
    known.revoke("everything", "", "r")
    behind._revoked[:] = store.near._revoked
    known.revoke("everything", "", "r", lifts=True)
    ahead = store.near
    for store.near in (behind, ahead, behind, ahead):
        known.poll()
        assert known.against(known.known(), "s", chain) is None
    known.revoke("everything", "", "r")
    assert known.against(known.known(), "s", chain) is not None


def test_what_was_revoked_is_told_though_it_is_old() -> None:
    """A revocation that is known is the reason, not that nothing newer is."""
    store, clock = DistantState(), Ticks()
    known = Revocations(store, clock=clock)
    known.close()
    known.revoke("session", "s", "r")
    clock.now += 60
    found = known.against(known.known(), "s", Chain(MARIA))
    assert found is not None
    assert found[1].code == "session_revoked"


def test_who_pulls_the_brake_stops_at_least_this_process() -> None:
    """Where the store can't be asked, it holds here and is recorded, and it raises, since others may not know."""
    store = DistantState()
    made = Recorded(state=store)
    store.down = {"revoke"}
    with pytest.raises(StateError, match="other processes"):
        made.authorizer.revoke(session="s", reason="r")
    assert code(asked(made.authorizer, session="s")) == ("session_revoked", Basis.REVOKED)
    with pytest.raises(StateError, match="other processes"):
        made.authorizer.halt("r")
    assert code(asked(made.authorizer)) == ("halted", Basis.REVOKED)
    assert [told["kind"] for told in states(made.sink)] == ["revoke", "halt"]
    until(lambda: store.asked["revocations"] > 3)
    assert not asked(made.authorizer).allowed, "a reading doesn't undo it"
    with pytest.raises(StateError):
        made.authorizer.resume("r")
    assert not asked(made.authorizer).allowed, "nobody knows whether the halt has ended"
    store.down = set()
    made.authorizer.resume("r")
    assert asked(made.authorizer).allowed
    assert not asked(made.authorizer, session="s").allowed
    made.authorizer.close()


async def test_async_orders_do_not_block_the_loop() -> None:
    """`arevoke`, `ahalt` and `aresume` wait for store and sinks in a thread."""
    store = DistantState()
    made = Recorded(state=store)
    store.slow = 0.02
    store.threads.clear()
    await made.authorizer.arevoke(session="s", reason="r")
    assert code(asked(made.authorizer, session="s")) == ("session_revoked", Basis.REVOKED)
    await made.authorizer.ahalt("r")
    assert code(asked(made.authorizer)) == ("halted", Basis.REVOKED)
    await made.authorizer.aresume("r")
    assert asked(made.authorizer).allowed
    assert threading.current_thread().name not in store.threads
    made.authorizer.close()


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "agentauthz-revocations"]


def test_the_reader_ends_with_the_authorizer() -> None:
    """`close` ends the thread; so does dropping the authorizer, which the thread doesn't keep alive."""
    before = len(readers())
    closed = Recorded(state=DistantState()).authorizer
    dropped = Recorded(state=DistantState())
    assert len(readers()) == before + 2
    closed.close()
    gone = weakref.ref(dropped.authorizer)
    del dropped
    gc.collect()
    assert gone() is None
    until(lambda: len(readers()) == before)


def test_who_asks_once_reads_once() -> None:
    """`read` knows what the store tells now, leaves no thread, and raises where nothing can be told."""
    store = DistantState()
    store.near.revoke("principal", principal_name(BOT), "r")
    before = len(readers())
    read = Revocations.read(store)
    assert read.against(read.known(), None, Chain(BOT)) is not None
    assert read.against(read.known(), None, Chain(MARIA)) is None
    until(lambda: len(readers()) <= before)
    store.down = {"*"}
    with pytest.raises(StateError):
        Revocations.read(store)


def test_a_store_that_does_not_block_needs_no_thread() -> None:
    """Whoever keeps state in memory gets no thread for it."""
    before = len(readers())
    made = Recorded()
    made.session().decide("t.read")
    assert len(readers()) == before


def test_a_reader_that_died_is_replaced() -> None:
    """Whatever killed the thread, the first decision that finds nothing new begins another one."""
    store = DistantState()
    made = Recorded(state=store)
    poller = made.authorizer._revoked._poller
    poller._ended.set()
    assert poller._thread is not None
    poller._thread.join()
    poller._ended.clear()
    store.near.revoke("everything", "", "r")
    until(lambda: not asked(made.authorizer).allowed, seconds=5)
    assert code(asked(made.authorizer)) == ("halted", Basis.REVOKED)
    made.authorizer.close()


def test_no_reader_is_replaced_while_it_hangs() -> None:
    """A store that hangs costs one thread, not one for each decision; what is too old denies."""
    store = DistantState()
    made = Recorded(state=store, revocation_max_age=0.3)
    before, store.slow = len(readers()), 2.0
    until(lambda: not asked(made.authorizer).allowed)
    for _ in range(100):
        asked(made.authorizer)
    assert len(readers()) <= before
    made.authorizer.close()


def in_child(work: Callable[[], bool]) -> bool:
    """Say whether something holds in the child of a fork."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the fork is what is tested
        child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_reads_for_itself() -> None:
    """After a fork the child's own thread reads on, though a lock was held when it forked."""
    store = DistantState()
    made = Recorded(state=store)

    def stops() -> bool:
        if len(readers()) != 1:  # before anything is decided here
            return False
        store.near.revoke("everything", "", "r")  # as another process would, in what the child sees of the store
        ends = time.monotonic() + 5
        while time.monotonic() < ends and asked(made.authorizer).allowed:
            time.sleep(0.01)
        return code(asked(made.authorizer)) == ("halted", Basis.REVOKED)

    with made.authorizer._revoked._lock:
        assert in_child(stops)
    assert asked(made.authorizer).allowed, "the store of this test isn't shared over forks"
    made.authorizer.close()


# ---- while a call is decided

SPENDING = """
permit anything on * when true
limit few on t.pay to count <= 100 per subject every 1d
mark paid on t.pay
"""


class Between:
    """Be a store in which something happens just before a decision is committed."""

    blocking = False

    def __init__(self, happens: Callable[[Any], None]) -> None:
        self.near = MemoryState()
        self.happens: Callable[[Any], None] | None = happens
        self.intents: list[Intent] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.near, name)

    def commit(self, intent: Intent) -> Any:
        self.intents.append(intent)
        if self.happens is not None:
            happens, self.happens = self.happens, None
            happens(self.near)
        return self.near.commit(intent)


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("way", ["session", "by hand"])
def test_a_revocation_during_the_commit_stops_the_call(blocking: bool, way: str) -> None:
    """What is revoked between the look and the commit makes it stale; the look is taken again, nothing is spent."""
    store: Any = Between(lambda near: near.revoke("session", "s", "r"))
    store.blocking = blocking
    made = Recorded(SPENDING, state=store)
    if way == "session":
        session = made.session(id="s")
        assert code(session.decide("t.pay")) == ("session_revoked", Basis.REVOKED)
    else:
        request = Request("t.pay", subject=MARIA, actor=BOT, session=SessionFacts("s", NOON), now=NOON)
        assert code(made.authorizer.decide(request)) == ("session_revoked", Basis.REVOKED)
    assert store.near.read("s").marks == frozenset()
    assert len(store.intents) == 1
    made.authorizer.close()


@pytest.mark.parametrize("blocking", [False, True])
async def test_another_ones_revocation_only_makes_it_look_again(blocking: bool) -> None:
    """Somebody else was revoked meanwhile: the decision is taken afresh, and allowed."""
    store: Any = Between(lambda near: near.revoke("session", "other", "r"))
    store.blocking = blocking
    made = Recorded(SPENDING, state=store)
    assert (await made.session(id="s").adecide("t.pay")).allowed
    assert [intent.revocations for intent in store.intents] == [0, 1]
    assert store.near.read("s").marks == {"paid"}
    made.authorizer.close()


def test_a_reason_has_the_hosts_words() -> None:
    """Who reads the decision is told whom it is about, and why."""
    made = Recorded()
    made.authorizer.revoke(principal=BOT, reason="its key leaked")
    assert asked(made.authorizer).reasons == (Reason("principal_revoked", 'agent("bot") was revoked: its key leaked'),)


def test_a_clock_that_jumps_changes_nothing() -> None:
    """The age of what is known is counted in seconds that pass, not by the clock that decisions are made with."""
    store = DistantState()
    made = Recorded(state=store)
    for jump in (3_600.0, -7_200.0):
        made.clock.forward(seconds=jump)
        assert made.session().decide("t.read").allowed
    made.authorizer.halt("r")
    made.clock.forward(seconds=-86_400)
    assert not made.session().decide("t.read").allowed
    made.authorizer.close()


def test_a_signal_that_revokes_while_a_revocation_is_taken_in_does_not_hang() -> None:
    """The handler of a signal runs in a thread that may hold the lock already."""
    made = Recorded()
    with made.authorizer._revoked._lock:
        made.authorizer.halt("r")
    assert not asked(made.authorizer).allowed


def test_many_threads_revoke_and_all_of_it_holds() -> None:
    """Each of 8 threads' 50 revocations holds in two authorizers, and in the store, once."""
    store = MemoryState()
    first, second = (Recorded(state=store).authorizer for _ in range(2))

    def work(at: int) -> None:
        for number in range(50):
            (first, second)[at % 2].revoke(session=f"{at}-{number}", reason="r")

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for authorizer in (first, second):
        assert not any(asked(authorizer, session=f"{at}-{n}").allowed for at in range(8) for n in range(50))
    assert len(store.revocations(0)) == 400
