"""The law of flips: a change that is said to turn a decision turns it, whoever makes it, and no part of it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from unittest import mock

from attrs import evolve

from agentauthz.decision import Basis, Decision, Outcome
from agentauthz.policy import evaluate
from agentauthz.policy.decide import without_budget
from agentauthz.policy.explain import Change
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.syntax import Expr, Path
from agentauthz.values import ABSENT
from tests.laws.counting import TALLY, law
from tests.strategies.cases import Case, cases
from tests.strategies.plans import Facts, Plan


@law(cases(), pairs=5_000, quick=300)
def test_a_flip_turns_the_decision(shard: int, case: Case) -> None:
    """A request with the facts changed, and with the clauses answering otherwise, is decided as the flip says."""
    for plan in case.plans:
        decision, inputs = case.made.judge(plan.request())
        TALLY.pair(decision)
        _hold_flips_to(case, plan, decision, inputs)
        if decision.spends:  # where nobody keeps budgets, the same call is denied by its limits
            _hold_flips_to(case, plan, without_budget(decision), inputs)


def _hold_flips_to(case: Case, plan: Plan, decision: Decision, inputs: Inputs) -> None:
    kept = decision.basis is not Basis.LIMIT
    for flip in case.made.flips(decision, inputs):
        assert flip.outcome is not decision.outcome
        assert Outcome.ALLOW in (flip.outcome, decision.outcome)
        changed = _changed(plan, flip.changes)
        if changed is not None:
            TALLY.applied()
            assert _decided(case, changed, flip.changes, kept=kept) is flip.outcome
        for size in range(1, len(flip.changes)):
            for part in combinations(flip.changes, size):
                smaller = _changed(plan, part)
                if smaller is not None:
                    outcome = _decided(case, smaller, part, kept=kept)
                    assert (outcome is Outcome.ALLOW) is (decision.outcome is Outcome.ALLOW)


def _decided(case: Case, plan: Plan, changes: tuple[Change, ...], *, kept: bool) -> Outcome:
    """Return how the definition decides where some clauses answer what they are told to; `kept`: budgets have room."""
    fixed = {change.expr: change.becomes for change in changes if change.fact is None}
    with _answering(fixed, plan.action):
        decision = case.made.on_definition().judge(plan.request())[0]
        return (decision if kept else without_budget(decision)).outcome


@contextmanager
def _answering(fixed: Mapping[Expr, bool], action: str) -> Iterator[None]:
    define = evaluate._evaluate

    def answered(expr: Expr, scope: evaluate._Scope) -> evaluate.Clause:
        if expr in fixed and scope.inputs.name == action and not scope.variables:
            return evaluate.Clause(expr, fixed[expr])
        return define(expr, scope)

    with mock.patch.object(evaluate, "_evaluate", answered):
        yield


def _changed(plan: Plan, changes: tuple[Change, ...]) -> Plan | None:
    """Return a plan with other facts; None: plans have no place for one of them."""
    changed: Plan | None = plan
    for change in changes:
        if changed is not None and change.fact is not None:
            changed = _put(changed, *change.fact)
    return changed


def _put(plan: Plan, path: Path, value: object) -> Plan | None:
    root, (name, *rest) = path.root, path.steps
    if rest or (root in ("args", "context", "session") and not isinstance(getattr(plan, root), Mapping | Facts)):
        return None
    if path.root == "session" and name == "marks":
        assert isinstance(plan.session, Facts)
        assert isinstance(value, tuple)
        return evolve(plan, session=evolve(plan.session, marks=frozenset(map(str, value))))
    part = root if root != "actor" else "hop 0" if plan.hops else "subject"
    place = (part, name)
    if value is ABSENT:
        return plan.put(place, None) if place in plan.places() else plan
    return plan.put(place, value)
