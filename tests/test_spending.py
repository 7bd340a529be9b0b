"""Limits as an application meets them: keys, amounts, what is told, and what is given back."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
from decimal import Decimal
from typing import Any

import pytest

from agentauthz import Basis, Decision, Denied, Outcome, Principal, State, authorize
from agentauthz.decision import Reason, Spend
from agentauthz.errors import StateError
from agentauthz.policy.spending import Meter
from agentauthz.records import Record
from agentauthz.state import memory as memory_module
from agentauthz.state.memory import MemoryState
from agentauthz.state.store import Committed, Intent, Refused
from tests.distant import DistantState
from tests.support import HELPER, MARIA, Clock, Recorded

ONCE = "permit p on t.* when true\nlimit l on t.* to count <= 1 per {} every 1d"


def keys(per: str, *values: object) -> int:
    """Return how many calls of one each are allowed, with these values of the argument `k`."""
    kept = Recorded(ONCE.format(per))
    with kept.session() as session:
        return sum(session.decide("t.x", args={"k": value}).allowed for value in values)


# ---- keys


def test_a_key_has_its_type_and_one_number_is_one_key() -> None:
    """A text isn't a number, and a bool isn't either; a number is one key however it is written or worked out."""
    assert keys("args.k", 1, "1", True) == 3
    assert keys("args.k", 1, 1.0, Decimal("1.00"), Decimal("1E0")) == 1
    assert keys("args.k + 0.5", 0.5, Decimal("0.50"), 0.5) == 1
    assert keys("args.k * 1", 2**60, Decimal(2**60)) == 1


def test_a_moment_is_one_key_in_every_zone() -> None:
    """Two moments that are equal share a budget."""
    noon = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
    assert keys("args.k", noon, noon.astimezone(dt.timezone(dt.timedelta(hours=5)))) == 1


def test_a_principal_is_a_key_by_issuer_kind_and_id() -> None:
    """A look-alike of another issuer or kind has a budget of its own; attributes make none."""
    alike = [
        Principal.user("maria"), Principal.user("maria", roles=["admin"]),
        Principal.user("maria", issuer="https://id.example"), Principal.agent("maria"),
    ]  # fmt: skip
    kept = Recorded(ONCE.format("subject"))
    assert [kept.session(subject=who).decide("t.x").allowed for who in alike] == [True, False, True, True]


@pytest.mark.parametrize("value", [None, ["a"], {"a": 1}, dt.timedelta(1), object()])
def test_what_is_no_key_denies(value: object) -> None:
    """A list, record, duration, or what is absent or no value, counts for nobody: the call is denied, and says why."""
    kept = Recorded(ONCE.format("args.k"))
    decision = kept.session().decide("t.x", args={"k": value})
    assert (decision.outcome, decision.basis, decision.rules) == (Outcome.DENY, Basis.LIMIT, ("l",))
    assert decision.reasons[0].code == "no_budget_undetermined"
    assert decision.missing


@pytest.mark.parametrize(
    ("args", "missing"),
    [
        ({}, "args.n (absent)"), ({"n": float("nan")}, "args.n (of the wrong type)"),
        ({"n": "5"}, "`l` (its amount is no number)"), ({"n": True}, "`l` (its amount is no number)"),
        ({"n": -1}, "`l` (its amount is below zero)"), ({"n": Decimal("-0.1")}, "`l` (its amount is below zero)"),
    ],
)  # fmt: skip
def test_an_amount_that_is_none_denies(args: dict[str, object], missing: str) -> None:
    """An amount that is absent, no number or below zero denies, says so, and takes nothing."""
    kept = Recorded("permit p on t.* when true\nlimit l on t.* to sum(args.n) <= 5 per subject every 1d")
    session = kept.session()
    decision = session.decide("t.x", args=args)
    assert (decision.reasons[0].code, decision.missing) == ("no_budget_undetermined", (missing,))
    assert "It couldn't be established that this is allowed" in refused(decision)
    assert session.decide("t.x", args={"n": 5}).allowed


def test_a_bound_that_is_none_denies() -> None:
    """A bound that is absent or below zero denies; zero lets only what takes nothing through."""
    kept = Recorded("permit p on t.* when true\nlimit l on t.* to sum(args.n) <= context.most per subject every 1d")
    session = kept.session()
    for context, missing in (
        ({}, "context.most (absent)"),
        ({"most": -1}, "`l` (its bound is below zero)"),
        ({"most": "9"}, "`l` (its bound is no number)"),
    ):
        decision = session.decide("t.x", args={"n": 0}, context=context)
        assert (decision.reasons[0].code, decision.missing) == ("no_budget_undetermined", (missing,))
    assert session.decide("t.x", args={"n": 0}, context={"most": 0}).allowed
    assert session.decide("t.x", args={"n": 1}, context={"most": 0}).reasons[0].code == "no_budget"


def test_a_limit_on_the_session_needs_one() -> None:
    """A request without a session has no session's budget: it is denied."""
    from agentauthz import Request

    kept = Recorded("permit p on t.* when true\nlimit l on t.* to count <= 1 per session")
    decision = kept.authorizer.decide(Request("t.x", subject=MARIA))
    assert decision.reasons[0].code == "no_budget_undetermined"
    assert decision.missing == ("`l` (there is no session to count in)",)


def test_what_limits_remember_of_keys_is_bounded() -> None:
    """Keys are the callers': neither many nor long ones fill the memory, and each is one budget all the same."""
    kept = Recorded(ONCE.format("args.k"))
    with kept.session() as session:
        [spend] = session.preview("t.x", args={"k": "warm"}).spends
        [meter] = [one for one in gc.get_referrers(spend.reason) if type(one) is Meter]
        for value in ("x" * 100_000, "\ud800" * 1_000, "é" * 1_000):
            assert [session.decide("t.x", args={"k": value}).allowed for _ in range(2)] == [True, False]
        assert [key[1] for key in meter._known] == ["warm"]
        for number in range(5_000):
            session.preview("t.x", args={"k": number})
    assert len(meter._known) <= 4096


# ---- whose budget


def test_a_budget_is_not_multiplied_by_passing_on() -> None:
    """An agent pays for what it passes on: its sub-agents together get no more than it has."""
    kept = Recorded("permit p on t.* when true\nlimit l on t.* to count <= 3 per actor, subject every 1d")
    with kept.session() as session:
        children = [session.delegate(Principal.agent(f"sub-{n}")) for n in range(6)]
        assert sum(child.decide("t.x").allowed for child in children) == 3
        assert not session.decide("t.x").allowed


def test_equal_keys_are_spent_once_with_the_largest_amount_and_the_smallest_bound() -> None:
    """One call of a chain takes one amount from a budget that giver and receiver share."""
    kept = Recorded(
        "type agent { cost: int, most: int }\npermit p on t.* when true\n"
        "limit l on t.* to sum(actor.cost) <= actor.most per subject every 1d"
    )
    giver, receiver = Principal.agent("a", cost=2, most=9), Principal.agent("b", cost=3, most=8)
    with kept.session(actor=giver) as session:
        [budget] = session.delegate(receiver).decide("t.x").budgets
        assert (budget.amount, budget.bound) == (3, 8)
        [budget] = session.delegate(HELPER.__class__.agent("c", cost=1, most=20)).decide("t.x").budgets
        assert (budget.used, budget.amount, budget.bound) == (3, 2, 9)


# ---- order, observe mode, reviews


def test_only_an_allow_takes_anything() -> None:
    """What a forbid or a lacking permit stops, what waits for a person, and a preview take nothing of a budget."""
    kept = Recorded(
        "permit p on t.ok, t.asked, t.no when true\nforbid f on t.no\n"
        'review r on t.asked by approver != subject and "x" in approver.roles\n'
        "limit l on t.* to count <= 1 per subject every 1d"
    )
    with kept.session() as session:
        for action in ("t.no", "t.unpermitted", "t.asked"):
            assert not session.decide(action).allowed
        assert session.preview("t.ok").allowed
        assert session.decide("t.ok").allowed
        # now there is no room, which is said before a person is asked
        assert session.decide("t.asked").basis is Basis.LIMIT
        assert session.decide("t.no").basis is Basis.RULE


def test_observe_mode_takes_nothing_and_sets_marks() -> None:
    """What lacks a budget runs in observe mode; nothing is reserved, while marks are kept."""
    kept = Recorded(
        "permit p on t.* when true\nlimit l on t.* to sum(2) <= 1 per subject every 1d\nmark m on t.*\n"
        'forbid f on u.* when "m" in session.marks',
        mode="observe",
        observe_until=dt.datetime(2026, 11, 24, tzinfo=dt.UTC),
    )
    with kept.session() as session:
        for _ in range(3):
            decision = session.decide("t.x")
            assert (decision.outcome, decision.basis, decision.allowed) == (Outcome.DENY, Basis.LIMIT, True)
            assert [(budget.used, budget.granted) for budget in decision.budgets] == [(0, False)]
        assert session.marks == {"m"}


# ---- what is given back


def test_what_a_call_took_whose_record_can_not_be_kept_comes_back() -> None:
    """The call is denied, and says that nothing was granted; the budget is as it was."""

    class Sink:
        broken = True

        def append(self, line: bytes, record: Record) -> None:
            if self.broken:
                raise OSError

    sink = Sink()
    kept = Recorded(ONCE.format("subject"), sinks=[sink])
    with kept.session() as session:
        denied = session.decide("t.x")
        assert denied.reasons[0].code == "not_recorded"
        assert [budget.granted for budget in denied.budgets] == [False]
        sink.broken = False
        assert session.decide("t.x").allowed


@pytest.mark.parametrize(
    ("error", "comes_back"), [(ValueError, True), (KeyboardInterrupt, False), (asyncio.CancelledError, False)]
)
def test_release_on_error_is_for_what_the_function_raises(error: type[BaseException], comes_back: bool) -> None:
    """Who says that a function which raises has done nothing doesn't say so of one that is interrupted."""

    @authorize("t.x", release_on_error=True)
    def tool() -> None:
        raise error

    kept = Recorded(ONCE.format("subject"))
    with kept.session() as session:
        with pytest.raises(error):
            tool()
        assert session.preview("t.x").allowed is comes_back


# ---- what is told


def refused(decision: Decision) -> str:
    from agentauthz import Request
    from agentauthz.calls import Verdict, allowed

    with pytest.raises(Denied) as caught:
        allowed(Verdict(decision, Request("t.x", subject=MARIA)))
    return str(caught.value)


def test_a_denial_says_when_there_is_room_again() -> None:
    """The message names a minute at which the call fits, and that is so; of other rules it says nothing."""
    kept = Recorded(
        "permit p on t.* when true\nlimit l on t.* to count <= 1 per subject every 1h\n"
        "limit other on t.* to count <= 9 per session"
    )
    with kept.session() as session:
        kept.clock.forward(seconds=30)
        assert session.decide("t.x").allowed
        denied = session.decide("t.x")
        text = refused(denied)
        assert "before 2026-11-23 13:02 UTC" in text
        assert "other" not in text
        kept.clock.now = dt.datetime(2026, 11, 23, 13, 0, 29, tzinfo=dt.UTC)
        assert not session.preview("t.x").allowed
        kept.clock.now = dt.datetime(2026, 11, 23, 13, 2, tzinfo=dt.UTC)
        assert session.decide("t.x").allowed


def test_a_denial_that_time_does_not_mend_says_no_time() -> None:
    """A session's budget that is used up, and an amount above the bound, never have room."""
    for text, calls in (
        ("limit l on t.* to count <= 1 per session", 2),
        ("limit l on t.* to sum(2) <= 1 per subject every 1h", 1),
        ("limit l on t.* to count <= 1 per subject every 999999999d", 2),
    ):
        kept = Recorded(f"permit p on t.* when true\n{text}")
        with kept.session() as session:
            decisions = [session.decide("t.x") for _ in range(calls)]
        assert decisions[-1].basis is Basis.LIMIT
        assert "UTC" not in refused(decisions[-1])
        assert "the budget for it isn't there" in refused(decisions[-1])


def test_what_would_be_used_can_be_supposed() -> None:
    """`State(used=…)` stands for the budgets in a preview and an explanation."""
    from agentauthz import Request

    kept = Recorded("permit p on t.* when true\nlimit l on t.* to sum(args.n) <= 10 per subject every 1d")
    request = Request("t.x", subject=MARIA, args={"n": 4})
    for used, allowed in ((6, True), (7, False)):
        state = State(used={"l": Decimal(used)})
        supposed = kept.authorizer.preview(request, state=state)
        assert supposed.allowed is allowed
        [budget] = supposed.budgets
        assert (budget.used, budget.left, budget.granted) == (Decimal(used), Decimal(10 - used), False)
        assert kept.authorizer.explain(request, state=state).decision.allowed is allowed
    assert not kept.authorizer.policies.decide(request).allowed


# ---- the store


def test_budgets_that_are_new_are_not_swept_away_by_the_same_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the memory of budgets is cleaned while a call takes of two new ones, both are spent."""
    monkeypatch.setattr(memory_module, "_SWEEP", 2)
    state = MemoryState(clock=Clock())

    def taken(*names: str) -> bool:
        spends = tuple(
            Spend(name, name, Decimal(1), Decimal(1), dt.timedelta(hours=1), Reason("no_budget", "")) for name in names
        )
        return isinstance(state.commit(Intent(None, spends=spends)), Committed)

    assert taken("first")
    assert taken("a", "b")
    assert [taken("a"), taken("b"), taken("first")] == [False, False, False]


# ---- what is read of a session


def test_a_key_that_is_the_session_reads_nothing_of_it() -> None:
    """A limit per session neither asks the store for marks nor writes the session's facts into records."""
    kept = Recorded("permit p on t.* when true\nlimit l on t.* to count <= 3 per session")
    remembered = kept.authorizer.policies.remembered("t.x")
    assert (remembered.reads, remembered.started, remembered.writes) == (False, False, True)
    with kept.session() as session:
        assert session.decide("t.x").allowed
    assert "inputs" not in kept.decisions[0].as_dict()


def test_a_session_began_when_the_store_says_so() -> None:
    """Where another process resumes a session by its id, rules see when it began there."""
    policy = "permit p on t.* when now - session.started < 1h"
    state = MemoryState()
    first, second = Recorded(policy, state=state), Recorded(policy, state=state)
    assert first.session(id="s-1").decide("t.x").allowed
    second.clock.forward(hours=2)
    session = second.session(id="s-1")
    assert not session.preview("t.x").allowed
    assert not session.decide("t.x").allowed
    assert not session.decide("t.x").allowed
    assert second.session(id="s-2").decide("t.x").allowed


class _Broken:
    """Be a state store of which nothing can be had but that nobody was revoked."""

    blocking = False

    def revocations(self, since: int) -> list[Any]:
        """Return none."""
        return []

    def __getattr__(self, name: str) -> Any:
        raise StateError("nobody is there")


def test_only_what_needs_the_store_is_denied_where_it_fails() -> None:
    """A limit, and a rule that asks when the session began, deny; other calls go by their rules, with marks unknown."""
    kept = Recorded(
        "permit p on t.* when true\nlimit l on t.limited to count <= 1 per subject every 1d\n"
        "forbid old on t.aged when now - session.started > 1h\n"
        'forbid f on t.marked when "m" in session.marks\nmark m on t.never',
        state=_Broken(),
    )
    with kept.session() as session:
        for ask in (session.decide, session.preview):
            found = {name: ask(f"t.{name}") for name in ("free", "limited", "aged", "marked")}
            codes = [decision.reasons[0].code for decision in found.values()]
            assert codes == ["permitted", "state_failed", "state_failed", "forbidden_undetermined"]


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("answer", [None, Committed(), Refused(), Refused(approvals=("nobody's",))])
def test_a_store_that_answers_nonsense_is_one_that_fails(answer: object, blocking: bool) -> None:
    """What says neither that there was room nor which budget had none is no answer, and so it is told."""
    store = DistantState()
    store.blocking = blocking  # type: ignore[misc]
    kept = Recorded(ONCE.format("subject"), state=store)
    with kept.session() as session:
        store.near.commit = lambda intent: answer
        decision = session.decide("t.x")
        assert (decision.allowed, decision.basis) == (False, Basis.ERROR)
        assert [reason.code for reason in decision.reasons] == ["state_failed"]
    kept.authorizer.close()


def test_a_record_lets_nobody_guess_a_sensitive_key() -> None:
    """Where a limit counts per a sensitive argument, the record has a keyed digest in the place of the budget's key."""

    @authorize("t.x", sensitive=["card"])
    def pay(card: str, shop: str) -> None:
        pass

    kept = Recorded(
        "permit p on t.* when true\nlimit cards on t.x to count <= 3 per lower(args.card) every 1d\n"
        "limit shops on t.x to count <= 3 per args.shop every 1d"
    )
    with kept.session() as session:
        pay("4111", "a")
        plain = session.preview("t.x", args={"card": "4111", "shop": "a"}).budgets
    line = kept.decisions[0].as_dict()
    keys = [budget["key"] for budget in line["budgets"]]
    assert keys[0].startswith("k")
    assert plain[0].key not in str(line)
    assert keys[1] == plain[1].key
    assert "/budgets/0/key" in line["meta"]["redacted"]
