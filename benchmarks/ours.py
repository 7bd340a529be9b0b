"""Put the workload into agentauthz's own terms, and write the same rules by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentauthz.policy.policyset import PolicySet
from agentauthz.principals import Principal
from agentauthz.request import Request, Resource
from benchmarks.workload import Asked, Pair


def policy(rules: list[Pair]) -> str:
    """Return the rules as the text of a policy file."""
    return "\n".join(
        f"permit {rule.name}\n  on {rule.action}\n"
        f'  when "{rule.role}" in subject.roles and resource.sensitivity == "normal" and args.amount <= {rule.limit}\n'
        for rule in rules
    )


def request(one: Asked) -> Request:
    """Return the request that an application's guard would make."""
    return Request(
        one.action,
        subject=Principal.user(one.user, roles=list(one.roles)),
        args={"amount": one.amount},
        resource=Resource("Doc", one.resource, {"sensitivity": one.sensitivity}),
    )


def answers(policies: PolicySet) -> Callable[[Request], bool]:
    """Return the way from a request to a bare verdict: inputs are made, rules that could match are asked.

    The set holds permits only, so a true one is the answer.
    """
    from agentauthz.policy.decide import inputs_of

    rules = policies._decider
    ask = rules.verdict

    def verdict(asked: Request) -> bool:
        return "permit" in ask(inputs_of(rules, asked)).true

    return verdict


def by_hand(rules: list[Pair]) -> Callable[[Request], list[str]]:
    """Return the same rules as a programmer would write them: an `if` for each, that names it where it is true.

    Up to ten rules stand in one function; more are spread over one for each action, in a dict.
    """
    by_action: dict[str, list[Pair]] = {}
    for rule in rules:
        by_action.setdefault(rule.action, []).append(rule)
    if len(rules) <= 10:
        return _function("rules", _body(rules, with_action=True))
    table = {action: _function("rules", _body(own, with_action=False)) for action, own in by_action.items()}

    def decide(asked: Request) -> list[str]:
        return found(asked) if (found := table.get(asked.action)) is not None else []

    return decide


def _body(rules: list[Pair], *, with_action: bool) -> list[str]:
    lines = [
        "action = request.action",
        'amount = request.args["amount"]',
        'roles = request.subject.attributes["roles"]',
        'sensitivity = request.resource.attributes["sensitivity"]',
        "true = []",
    ]
    for rule in rules:
        action = f'action == "{rule.action}" and ' if with_action else ""
        lines += [
            f'if {action}"{rule.role}" in roles and sensitivity == "normal" and amount <= {rule.limit}:',
            f'    true.append("{rule.name}")',
        ]
    return [*lines, "return true"]


def _function(name: str, body: list[str]) -> Callable[[Request], list[str]]:
    scope: dict[str, Any] = {}
    exec("\n".join([f"def {name}(request):", *(f"    {line}" for line in body)]), scope)
    made: Callable[[Request], list[str]] = scope[name]
    return made
