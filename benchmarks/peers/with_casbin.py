"""Decide with casbin: its fast enforcer, which looks up the rules of an action and sensitivity first."""

from __future__ import annotations

import casbin

from benchmarks.peers import Engine
from benchmarks.workload import Asked, Pair

_MODEL = """
[request_definition]
r = sub, act, sensitivity, amount

[policy_definition]
p = role, act, sensitivity, limit

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow))

[matchers]
m = r.act == p.act && r.sensitivity == p.sensitivity && r.amount <= p.limit && g(r.sub, p.role)
"""


def engine(rules: list[Pair], asked: list[Asked]) -> Engine:
    """Return casbin with one policy line for each rule, and a role line for each role of a user."""
    model = casbin.FastModel([1, 2])
    model.load_model_from_text(_MODEL)
    enforcer = casbin.FastEnforcer(model, cache_key_order=[1, 2])
    stored = model.model["p"]["p"].policy
    for rule in rules:  # its own way to add one counts all rules each time, which takes hours for 100,000
        stored.append([rule.role, rule.action, "normal", rule.limit])
    enforcer.add_named_grouping_policies("g", sorted({(one.user, role) for one in asked for role in one.roles}))

    def verdict(request: tuple[str, str, str, int]) -> bool:
        allowed: bool = enforcer.enforce(*request)
        return allowed

    return Engine("casbin", [(one.user, one.action, one.sensitivity, one.amount) for one in asked], verdict)
