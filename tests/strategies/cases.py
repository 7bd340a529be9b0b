"""Generate a policy set together with requests that it could decide on."""

from __future__ import annotations

from typing import Final, final

from attrs import frozen
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from hypothesis.vendor.pretty import RepresentationPrinter

from agentauthz.policy.policyset import PolicySet
from tests.strategies.choose import Choose
from tests.strategies.plans import Plan
from tests.strategies.policies import Policy, statements, valid
from tests.strategies.requests import Quality, Requests
from tests.strategies.world import world

REQUESTS: Final = 5  # to one policy set: making a set costs more than deciding on it


@final
@frozen(eq=False)
class Case:
    """Be a policy, the set that it parses to, requests, and the choices of which a law may make more."""

    policy: Policy
    made: PolicySet
    plans: tuple[Plan, ...]
    choose: Choose

    def __repr__(self) -> str:
        plans = "\n".join(map(repr, self.plans))
        return f"\n{self.policy.text}\n\n{plans}"

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        printer.text(repr(self))  # what is failing is best read as a policy, and Hypothesis would print every field


@st.composite
def cases(
    draw: DrawFn,
    *,
    requests: int = REQUESTS,
    passes_on: bool = False,
    quality: Quality | None = None,
    compiled: bool = False,
) -> Case:
    """Generate a policy and `requests` requests; `passes_on`: no hop hands off or comes by token.

    A law holds for both evaluators, so the set is on the definition now and then, unless `compiled` is asked for.
    """
    choose = Choose(draw)
    here = world(choose)
    texts, functions = statements(choose, here)
    policy, made = valid(texts, here, functions)
    if not compiled and choose.chance(40):
        made = made.on_definition()
    asked = Requests(choose, passes_on=passes_on, quality=quality)
    return Case(policy, made, tuple(asked.plan() for _ in range(requests)), choose)
