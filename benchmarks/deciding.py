"""Measure what is done for each request: the verdict, beside the same rules by hand, the decision, the explanation."""

from __future__ import annotations

from collections.abc import Sequence

from agentauthz.policy.decide import inputs_of
from agentauthz.policy.policyset import PolicySet
from agentauthz.request import Request
from benchmarks import ours
from benchmarks.timing import Clock, Figure
from benchmarks.workload import expected, pairs, requests


def verdicts(clock: Clock, policies: PolicySet, size: int) -> dict[str, Figure]:
    """Return the times of verdicts and decisions over the 1,000 requests for `size` rules.

    `ready` is the compiled verdict on inputs that were read before; `verdict` begins with the request, and
    `decide` ends with a `Decision`.
    """
    rules, asked = pairs(size), requests(size)
    made = [ours.request(one) for one in asked]
    verdict, by_hand = ours.answers(policies), ours.by_hand(rules)
    _agree("agentauthz", [verdict(one) for one in made], expected(rules, asked))
    _agree("by hand", [bool(by_hand(one)) for one in made], expected(rules, asked))
    for one in made:
        named = sorted(by_hand(one))
        if sorted(policies.decide(one).rules) != named:
            raise AssertionError(f"the rules written by hand name {named} for {one}, and agentauthz others")
    compiled = policies._decider
    inputs = [inputs_of(compiled, one) for one in made]
    for ready in inputs:
        compiled.verdict(ready)  # what it reads is read
    return {
        "ready": clock.calls(f"verdict, ready {size}", compiled.verdict, inputs),
        "hand": clock.calls(f"by hand {size}", by_hand, made),
        "verdict": clock.calls(f"verdict {size}", verdict, made),
        "decide": clock.calls(f"policies.decide {size}", policies.decide, made),
    }


def explanation(clock: Clock, policies: PolicySet, size: int) -> Figure:
    """Return the time of `policies.explain` over the first 50 requests."""
    made: Sequence[Request] = [ours.request(one) for one in requests(size)[:50]]
    return clock.calls(f"explain {size}", policies.explain, made)


def _agree(name: str, got: list[bool], wanted: list[bool]) -> None:
    wrong = [n for n, (one, other) in enumerate(zip(got, wanted, strict=True)) if one is not other]
    if wrong:
        raise AssertionError(f"{name} decides {len(wrong)} of {len(wanted)} requests otherwise, first {wrong[0]}")
