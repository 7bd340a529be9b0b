"""The laws of how rules make a decision."""

from __future__ import annotations

import pathlib
import tempfile

from attrs import evolve

from agentauthz.decision import Basis, Outcome
from agentauthz.policy.explain import ExplainedCall
from agentauthz.policy.policyset import PolicySet
from agentauthz.policy.syntax import Effect
from tests.laws.asking import BEFORE_THE_RULES, account, outcome
from tests.laws.counting import TALLY, law
from tests.strategies.cases import Case, cases
from tests.strategies.conditions import Where, condition
from tests.strategies.plans import Facts
from tests.strategies.policies import rule_text, valid
from tests.strategies.reach import everywhere
from tests.strategies.world import HOST_MARKS, MARKS


def _answers(call: ExplainedCall, effect: Effect) -> list[bool | None]:
    return [explained.answer for explained in call.rules if explained.rule.effect == effect]


@law(cases())
def test_forbid_beats_permit(shard: int, case: Case) -> None:
    """Where a forbid is true or undetermined for any judged call, the decision is a deny, whatever permits it."""
    where = Where(case.choose, everywhere(case.policy.world), -1, permit=False)
    more = f"forbid forbid_9 on * when {condition(where, 1)}"
    made = valid([*case.policy.statements, more], case.policy.world, case.policy.functions)[1]
    for plan in case.plans:
        explained = made.explain(plan.request())
        decision = explained.decision
        TALLY.pair(decision)
        if decision.basis in BEFORE_THE_RULES:
            assert decision.outcome is Outcome.DENY
            continue
        forbids = [answer for call in explained.calls for answer in _answers(call, "forbid")]
        if True in forbids or None in forbids:
            TALLY.applied(all(True in _answers(call, "permit") for call in explained.calls))
            assert decision.outcome is Outcome.DENY
            assert decision.basis is (Basis.RULE if True in forbids else Basis.UNDETERMINED)


@law(cases())
def test_nothing_is_allowed_unless_a_permit_is_true(shard: int, case: Case) -> None:
    """An allow has a permit that is true for each judged call, and without permits nothing is allowed or reviewed."""
    permits = case.policy.rules("permit")
    bare = PolicySet.parse("\n".join(text for text in case.policy.statements if text not in permits))
    for plan in case.plans:
        request = plan.request()
        explained = case.made.explain(request)
        TALLY.pair(explained.decision)
        assert bare.decide(request).outcome is Outcome.DENY
        if explained.decision.outcome is not Outcome.DENY:
            TALLY.applied()
            assert all(True in _answers(call, "permit") for call in explained.calls)
        if explained.decision.allowed:
            true = {
                e.rule.name for call in explained.calls for e in call.rules if e.answer and e.rule.effect == "permit"
            }
            assert set(explained.decision.rules) == true


@law(cases())
def test_a_decision_follows_from_what_its_rules_answer(shard: int, case: Case) -> None:
    """Forbids, then permits, limits and reviews, over all judged calls, give outcome, basis and rules."""
    for plan in case.plans:
        explained = case.made.explain(plan.request())
        decision = explained.decision
        TALLY.pair(decision)
        if decision.basis in BEFORE_THE_RULES:
            continue
        TALLY.applied()
        found = {(e.rule.effect, e.answer, e.rule.name) for call in explained.calls for e in call.rules}

        def named(effect: Effect, found: set[tuple[Effect, bool | None, str]] = found) -> tuple[str, ...]:
            sure = {name for kind, answer, name in found if kind == effect and answer is True}
            return tuple(sorted(sure or {name for kind, answer, name in found if kind == effect and answer is None}))

        if named("forbid"):
            expected = (Outcome.DENY, named("forbid"))
        elif not all(True in _answers(call, "permit") for call in explained.calls):
            expected = (Outcome.DENY, ())
        elif named("limit"):
            expected = (Outcome.DENY, named("limit"))
        elif named("review"):
            expected = (Outcome.REVIEW, named("review"))
        else:
            expected = (Outcome.ALLOW, named("permit"))
        assert (decision.outcome, decision.rules) == expected


@law(cases())
def test_order_of_statements_and_files_does_not_matter(shard: int, case: Case) -> None:
    """The same statements in another order, or spread over files, decide and say the same, under the same digest."""
    statements = case.choose.shuffled(case.policy.statements)
    if case.choose.chance(15):
        at = case.choose.up_to(len(statements))
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "b.authz").write_text("\n".join(statements[:at]), encoding="utf-8")
            pathlib.Path(folder, "a.authz").write_text("\n".join(statements[at:]), encoding="utf-8")
            other = PolicySet.load(folder)
    else:
        other = PolicySet.parse("\n".join(statements))
    for plan in case.plans:
        decision = case.made.decide(plan.request())
        TALLY.pair(decision)
        TALLY.applied(statements != list(case.policy.statements))
        assert account(other.decide(plan.request())) == account(decision)


@law(cases())
def test_a_permit_less_or_forbid_review_limit_more_never_turns_deny_into_allow(shard: int, case: Case) -> None:
    """Taking a permit away, or adding a forbid, review or limit, never allows what was denied."""
    policy, choose = case.policy, case.choose
    effect = choose.one(("permit", "forbid", "review", "limit"))
    permits = policy.rules("permit")
    if effect == "permit":
        changed = PolicySet.parse(policy.without(choose.one(permits))) if permits else case.made
    else:
        more = rule_text(choose, effect, 9, policy.world, policy.marks(), policy.functions)
        changed = valid([*policy.statements, more], policy.world, policy.functions)[1]
    for plan in case.plans:
        decision = case.made.decide(plan.request())
        TALLY.pair(decision)
        if decision.outcome is Outcome.DENY:
            TALLY.applied(changed.digest != case.made.digest)
            assert outcome(changed, plan) is not Outcome.ALLOW
        elif decision.outcome is Outcome.REVIEW and effect != "permit":
            assert outcome(changed, plan) is not Outcome.ALLOW


@law(cases())
def test_a_mark_more_never_turns_deny_or_review_into_allow(shard: int, case: Case) -> None:
    """A session that carries one more mark gets no allow where it got deny or review."""
    for plan in case.plans:
        decision = case.made.decide(plan.request())
        TALLY.pair(decision)
        session = plan.session
        if not isinstance(session, Facts) or not isinstance(session.marks, frozenset):
            continue
        more = session.marks | {case.choose.one((*MARKS, *HOST_MARKS))}
        if decision.outcome is not Outcome.ALLOW:
            TALLY.applied(more != session.marks)
            assert outcome(case.made, evolve(plan, session=evolve(session, marks=more))) is not Outcome.ALLOW
