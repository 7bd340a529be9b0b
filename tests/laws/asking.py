"""Ask policy sets, and compare what they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from attrs import evolve

from agentauthz.decision import Basis, Decision, Outcome
from agentauthz.policy.policyset import PolicySet
from agentauthz.policy.syntax import Default, Exists, Expr, Is, Path, children
from tests.strategies.plans import Place, Plan

# a decision on one of these rests on who asks, not on what the rules say
BEFORE_THE_RULES: Final = frozenset({Basis.REVOKED, Basis.AUTHORITY, Basis.ERROR})


def outcome(made: PolicySet, plan: Plan) -> Outcome:
    """Return the outcome of a request."""
    return made.decide(plan.request()).outcome


def account(decision: Decision) -> tuple[object, ...]:
    """Return all that a decision says, but not where in the text its rules stand."""
    reasons = tuple(evolve(reason, at=None) for reason in decision.reasons)
    return (
        decision.outcome,
        decision.basis,
        decision.action,
        decision.rules,
        decision.undetermined,
        decision.missing,
        reasons,
        decision.obligations,
        decision.marks,
        decision.policy_digest,
        decision.spends,
    )


def words_read(made: PolicySet) -> frozenset[str]:
    """Return the roots and attributes that some condition reads."""
    conditions = (rule.condition for rule in made.rules if rule.condition is not None)
    paths = (path for condition in conditions for path in _paths(condition))
    return frozenset(word for path in paths for word in (path.root, *path.steps))


def _paths(expr: Expr) -> Iterator[Path]:
    if isinstance(expr, Path):
        yield expr
    for child in children(expr):
        yield from _paths(child)


def asked_whether_there(made: PolicySet) -> list[Path]:
    """Return the paths that some `exists`, `??` or `is` names."""
    conditions = (rule.condition for rule in made.rules if rule.condition is not None)
    return [path for condition in conditions for path in _asked(condition)]


def _asked(expr: Expr) -> Iterator[Path]:
    match expr:
        case Exists(path) | Default(path, _) | Is(Path() as path):
            yield path
    for child in children(expr):
        yield from _asked(child)


def names(paths: list[Path], place: Place) -> bool:
    """Say whether some of the paths leads to a place, or through it."""
    part = place[0].split()[0]
    if part in ("subject", "hop"):
        # a principal is reached as subject, actor, `h.to`, or as an argument: its attribute's name is enough
        return any(place[1] in path.steps for path in paths)
    return any(path.root == part and path.steps[: len(place) - 1] == place[1:] for path in paths)
