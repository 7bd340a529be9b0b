"""The laws of delegation: authority that is passed on only shrinks."""

from __future__ import annotations

from attrs import evolve

from agentauthz.decision import Outcome
from tests.laws.asking import outcome
from tests.laws.counting import TALLY, law
from tests.strategies.cases import Case, cases
from tests.strategies.requests import Requests


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
