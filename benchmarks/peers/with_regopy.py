"""Decide with Rego, by regopy: one rule over the pairs as data, compiled to a bundle beforehand."""

from __future__ import annotations

import regopy

from benchmarks.peers import Engine
from benchmarks.workload import Asked, Pair

_MODULE = """
package authz

import rego.v1

default allow := false

allow if {
    some role in input.roles
    input.sensitivity == "normal"
    input.amount <= data.limits[input.action][role]
}
"""


def engine(rules: list[Pair], asked: list[Asked]) -> Engine:
    """Return Rego with the limits of all pairs as data."""
    limits: dict[str, dict[str, int]] = {}
    for rule in rules:
        limits.setdefault(rule.action, {})[rule.role] = rule.limit
    rego = regopy.Interpreter()
    rego.add_module("authz", _MODULE)
    rego.add_data({"limits": limits})
    bundle = rego.build(None, ["authz/allow"])

    def verdict(request: regopy.Input) -> bool:
        rego.set_input(request)
        allowed: bool = rego.query_bundle_entrypoint(bundle, "authz/allow")[0].expressions[0]
        return allowed

    inputs = [
        regopy.Input(
            {"roles": list(one.roles), "action": one.action, "sensitivity": one.sensitivity, "amount": one.amount}
        )
        for one in asked
    ]
    return Engine("regopy", inputs, verdict)
