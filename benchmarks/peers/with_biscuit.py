"""Decide with biscuit: one Datalog policy over the pairs as facts; the facts of the rules are kept in a builder."""

from __future__ import annotations

import datetime as dt

from biscuit_auth import AuthorizationError, Authorizer, AuthorizerBuilder

from benchmarks.peers import Engine
from benchmarks.workload import Asked, Pair

_POLICY = """
allow if action($action), role($role), limit($action, $role, $limit), sensitivity("normal"), amount($amount),
    $amount <= $limit;
deny if true;
"""


def engine(rules: list[Pair], asked: list[Asked]) -> Engine:
    """Return biscuit with the limits of all pairs as facts."""
    facts = "\n".join(f'limit("{rule.action}", "{rule.role}", {rule.limit});' for rule in rules)
    known = AuthorizerBuilder(facts + _POLICY)
    limits = known.limits()  # its own, a millisecond and 1,000 facts, would deny where there are many rules
    limits.max_time, limits.max_facts = dt.timedelta(minutes=10), 10 * len(rules) + 1_000

    def verdict(request: AuthorizerBuilder) -> bool:
        builder = AuthorizerBuilder()
        builder.merge(known)
        builder.merge(request)
        builder.set_limits(limits)
        authorizer: Authorizer = builder.build_unauthenticated()
        try:
            authorizer.authorize()
        except AuthorizationError:
            return False
        return True

    return Engine("biscuit", [AuthorizerBuilder(_facts(one)) for one in asked], verdict)


def _facts(one: Asked) -> str:
    roles = "".join(f'role("{role}");' for role in one.roles)
    return f'action("{one.action}"); {roles} sensitivity("{one.sensitivity}"); amount({one.amount});'
