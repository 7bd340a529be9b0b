"""The laws of delegation: authority that is passed on only shrinks."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from agentauthz import Authorizer, PolicySet, Principal
from agentauthz.decision import Basis, Outcome
from agentauthz.errors import SessionError, WideningError
from agentauthz.principals import OWN_NAMESPACES, Chain, Delegation, covered
from agentauthz.tokens.next_hop import next_hop_request
from agentauthz.tokens.verified import VerifiedToken
from tests.laws.asking import BEFORE_THE_RULES, account, outcome
from tests.laws.counting import TALLY, law
from tests.strategies.cases import Case, cases
from tests.strategies.plans import Facts, Plan
from tests.strategies.requests import Requests
from tests.strategies.world import ACTIONS


@law(cases(passes_on=True), quick=200)
def test_a_delegate_never_gets_allow_where_an_agent_before_it_would_have_got_deny(shard: int, case: Case) -> None:
    """Where every hop passes on, no delegate is allowed what one before it is denied, or must have reviewed."""
    for plan in case.plans:
        decision = case.made.decide(plan.request())
        TALLY.pair(decision)
        # a subject that is no agent is not judged: what a person may do alone is for policies to ask
        for depth in range(0 if plan.subject.kind == "agent" else 1, len(plan.hops)):
            if outcome(case.made, evolve(plan, hops=plan.hops[:depth])) is not Outcome.ALLOW:
                TALLY.applied()
                assert decision.outcome is not Outcome.ALLOW


@law(cases(), quick=200)
def test_inserting_a_hop_that_passes_on_never_turns_deny_into_allow(shard: int, case: Case) -> None:
    """One more hop before the last, which passes on, never allows what the chain without it was denied."""
    for plan in case.plans:
        decision = case.made.decide(plan.request())
        TALLY.pair(decision)
        if decision.outcome is Outcome.DENY and plan.hops:
            at = case.choose.up_to(len(plan.hops) - 1)
            one_more = Requests(case.choose, quality="clean").hop(passes_on=True)
            TALLY.applied()
            assert (
                outcome(case.made, evolve(plan, hops=(*plan.hops[:at], one_more, *plan.hops[at:]))) is not Outcome.ALLOW
            )


# ---- by token


def _ceilings(plan: Plan) -> list[tuple[str, ...]]:
    """Return what tokens let a request do at the most: its session's ceiling, and the actions of each hop by token."""
    session = plan.session.ceiling if isinstance(plan.session, Facts) else None
    return [*([] if session is None else [session]), *(hop.actions for hop in plan.hops if hop.via == "token")]


def _without_ceilings(plan: Plan) -> Plan:
    session = evolve(plan.session, ceiling=None) if isinstance(plan.session, Facts) else plan.session
    hops = tuple(evolve(hop, actions=("*",)) if hop.via == "token" else hop for hop in plan.hops)
    return evolve(plan, session=session, hops=hops)


@law(cases(), quick=200)
def test_what_a_token_covers_is_a_ceiling_and_no_grant(shard: int, case: Case) -> None:
    """Outside of a token's actions nothing is allowed; inside of them it is decided as if there were no token's."""
    for plan in case.plans:
        decision = case.made.decide(plan.request())
        TALLY.pair(decision)
        if not (ceilings := _ceilings(plan)):
            continue
        TALLY.applied()
        if all(covered(patterns, plan.action) for patterns in ceilings):
            assert account(decision) == account(case.made.decide(_without_ceilings(plan).request()))
        else:
            assert decision.outcome is Outcome.DENY
            assert decision.basis in BEFORE_THE_RULES


@law(cases(), quick=200)
def test_a_hop_by_token_never_turns_denied_authority_into_allow(shard: int, case: Case) -> None:
    """A token that covers nothing at any place of the chain leaves nothing but the library's own actions."""
    for plan in case.plans:
        at = case.choose.up_to(len(plan.hops))
        nothing = evolve(Requests(case.choose, quality="clean").hop(passes_on=False), actions=(), via="token")
        decision = case.made.decide(evolve(plan, hops=(*plan.hops[:at], nothing, *plan.hops[at:])).request())
        TALLY.pair(decision)
        if not plan.action.startswith(OWN_NAMESPACES):
            TALLY.applied()
            assert decision.outcome is Outcome.DENY


NOON: Final = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
ISSUER: Final = "https://issuer.example"
EVERYTHING: Final = Authorizer(
    PolicySet.parse("permit all on * when true\npermit own on token.exchange, delegation.handoff when true"),
    clock=lambda: NOON,
)
scopes = st.none() | st.lists(st.sampled_from([*ACTIONS, "pay.*", "*", "pay"]), max_size=4, unique=True)
narrowings = st.none() | st.lists(st.sampled_from([*ACTIONS, "pay.*", "*", "pay", "crm.*"]), min_size=1, max_size=3)
parties = st.builds(Principal.agent, st.sampled_from(["a", "b", "c"]), issuer=st.just(ISSUER))


def _token(chain: Chain, scopes: list[str] | None) -> VerifiedToken:
    """Return what a validator makes of a token with these scopes and no mapper."""
    actions = tuple(scope for scope in scopes or () if "*" not in scope)
    return VerifiedToken(
        "access", ISSUER, chain, ("here",), None if scopes is None else tuple(scopes), actions, None, None, NOON,
        NOON + dt.timedelta(minutes=5), raw="a.b.c", admitted=True,
    )  # fmt: skip


def _session(scopes: list[str] | None, actors: list[Principal]) -> Any:
    chain = Chain(Principal.user("maria", issuer=ISSUER), [Delegation(actor, via="token") for actor in actors])
    return EVERYTHING.session(token=_token(chain, scopes))


def _allowed(session: Any) -> frozenset[str]:
    found = {action: session.preview(action) for action in (*ACTIONS, "pay", "pay.other", "crm.other")}
    assert all(one.allowed or one.basis is Basis.AUTHORITY for one in found.values())
    return frozenset(action for action, decision in found.items() if decision.allowed)


@given(scopes, st.lists(parties, max_size=3), st.lists(st.tuples(parties, narrowings, st.booleans()), max_size=4))
def test_no_delegate_of_a_token_gains_an_action(
    scopes: list[str] | None,
    actors: list[Principal],
    hops: list[tuple[Principal, list[str] | None, bool]],
) -> None:
    """Whatever is delegated, or handed off, where everything is permitted: a delegate may do what its giver may."""
    session = _session(scopes, actors)
    before = _allowed(session)
    assert before == frozenset(scope for scope in scopes or () if "*" not in scope)
    for to, actions, handoff in hops:
        try:
            session = session.delegate(to, actions=actions, handoff=handoff)
        except WideningError:
            continue
        assert _allowed(session) <= before
        before = _allowed(session)


@given(scopes, st.lists(parties, max_size=3), parties, st.sets(st.integers(0, 3)), st.none() | scopes)
def test_no_exchange_asks_for_more_than_its_session_may_do(
    scopes: list[str] | None, actors: list[Principal], to: Principal, kept: set[int], asked: Any
) -> None:
    """What `session.exchange` asks for is of the token, and where it was narrowed in process, of what is left."""
    session = _session(scopes, actors)
    actions = [scope for place, scope in enumerate(scopes or ()) if place in kept and "*" not in scope] or None
    actor_token = _token(Chain(to), None)
    try:
        session = session.delegate(to, actions=actions)
        request = next_hop_request(session.token, session.chain, actor_token=actor_token, scope=asked or None)
    except (WideningError, SessionError):
        return
    assert request.scope
    assert set(request.scope) <= set(scopes or ())
    assert set(request.scope) <= _allowed(session)
