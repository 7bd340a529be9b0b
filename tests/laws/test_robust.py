"""The laws of bad input: a decision never crashes and never hangs, whatever it is given."""

from __future__ import annotations

from typing import Final

import pytest
from attrs import evolve

from agentauthz.decision import Outcome
from agentauthz.errors import InvalidArgument
from agentauthz.policy.evaluate import MAX_LOOP
from agentauthz.policy.policyset import PolicySet
from agentauthz.principals import Principal
from agentauthz.request import Request, Resource
from agentauthz.values import MAX_ELEMENTS
from tests.laws.asking import account
from tests.laws.counting import TALLY, law
from tests.strategies.cases import Case, cases
from tests.strategies.choose import Choose
from tests.strategies.hostile import HOSTILE, PLAIN, PRETENDING
from tests.strategies.plans import Plan


def _hostile(choose: Choose, plan: Plan) -> Plan:
    places = [place for place in plan.places() if len(place) == 2]
    for _ in range(min(len(places), 1 + choose.up_to(6))):
        make = choose.one(HOSTILE) if choose.chance(80) else choose.one(PLAIN)
        plan = plan.put(choose.one(places), make())
        places = [place for place in plan.places() if len(place) == 2]
    return plan


def _request(plan: Plan) -> Request | None:
    """Return the request, or None where making one of its parts says that it can't be made."""
    try:
        return plan.request()
    except InvalidArgument:
        return None


@law(cases(compiled=True), quick=300)
def test_a_decision_never_crashes(shard: int, case: Case) -> None:
    """Values that lie, raise, loop or break every bound give a decision, the same on both evaluators."""
    defined = case.made.on_definition()
    for plan in case.plans:
        hostile = _hostile(case.choose, plan)
        request, again = _request(hostile), _request(hostile)
        if request is None or again is None:
            continue
        decision = case.made.decide(request)
        TALLY.pair(decision)
        TALLY.applied()
        assert account(defined.decide(again)) == account(decision)
        case.made.explain(request).render()


@law(cases(), quick=100)
def test_an_object_that_pretends_to_be_a_value_is_none(shard: int, case: Case) -> None:
    """An object that says it is of a class that it isn't, or answers to everything, counts as any object."""
    for plan in case.plans:
        decision = case.made.decide(plan.request())
        TALLY.pair(decision)
        places = [place for place in plan.places() if len(place) == 2]
        if places:
            TALLY.applied()
            place = case.choose.one(places)
            plain = account(case.made.decide(plan.put(place, object()).request()))
            assert account(case.made.decide(plan.put(place, case.choose.one(PRETENDING)()).request())) == plain


# ---- bounds


BIG: Final = list(range(MAX_ELEMENTS))
WORST: Final = (
    "any a in resource.big: any b in resource.big: a + b == -1",
    "any a in resource.big: any b in resource.big: any c in resource.big: a + b + c == -1",
    "every a in resource.big: a in resource.big",
    "every a in resource.big: a in resource.set",
    "any a in resource.big: a in [resource.big, resource.big]",
    "every a in resource.some: every b in resource.some: every c in resource.some: a + b + c >= 0",
    "any a in resource.big: resource.big == resource.twin",
    "any a in resource.nested: resource.nested == resource.other",
    "any a in resource.nested: a in resource.other",
    f"[{', '.join(['resource.nested'] * 40)}] == [{', '.join(['resource.other'] * 40)}]",
    f"resource.nested in [{', '.join(['resource.other'] * 40)}]",
    'resource.text like "*a*a*a*a*a*a*a*a*b"',
    'any a in resource.big: resource.text like "*a*a*a*a*a*a*a*a*b"',
    'any a in resource.big: contains(resource.text, "aaaaaaaaaaab")',
    'any a in resource.big: lower(resource.text) == "b"',
)


def _worst() -> Request:
    nested = [list(range(100)) for _ in range(900)]
    held = {
        "big": BIG, "twin": list(BIG), "set": set(BIG), "some": BIG[:99], "nested": nested,
        "other": [*nested[:-1], [*nested[-1][:-1], 0]], "text": "a" * 6_000,
    }  # fmt: skip
    return Request("a.b", subject=Principal.user("maria"), resource=Resource("Thing", "t-1", held))


@pytest.mark.parametrize("condition", WORST)
def test_a_decision_never_hangs(condition: str) -> None:
    """The worst conditions over the largest values end, and both evaluators stop at the same bounds."""
    made = PolicySet.parse(f"permit p on a.b when {condition}\nforbid f on a.b when {condition}")
    assert account(made.decide(_worst())) == account(made.on_definition().decide(_worst()))


def test_the_bound_is_the_one_that_is_stated() -> None:
    """A quantifier visits as many nodes as it may, and with one element more it is undetermined."""
    most = MAX_LOOP // 3 // 2000  # the body `b >= 0` has three nodes
    made = PolicySet.parse("permit p on a.b when every a in resource.big: every b in resource.some: b >= 0")
    for size, outcome in ((most, Outcome.ALLOW), (most + 1, Outcome.DENY)):
        held = {"big": BIG[:2000], "some": BIG[:size]}
        request = Request("a.b", subject=Principal.user("maria"), resource=Resource("Thing", "t-1", held))
        assert made.decide(request).outcome is outcome
    assert made.on_definition().decide(request).outcome is Outcome.DENY


def _nested(depth: int) -> str:
    return "(" * depth + "args.a == 1" + ")" * depth


@pytest.mark.parametrize(
    "condition",
    [
        _nested(190),
        "not (" * 95 + "args.a == 1" + ")" * 95,
        "(args.b or (args.a == 1 and " * 90 + "args.a == 1" + "))" * 90,
        "args.a + " * 195 + "1 == 196",
        " or ".join(["args.a == 1"] * 3000),
        "-" * 150 + "args.a == 1",
    ],
)
@pytest.mark.parametrize("below", [0, 300])
def test_the_deepest_condition_is_decided_from_deep_in_a_program(condition: str, below: int) -> None:
    """A condition as deep as a policy may nest gets a decision, also under a deep stack of the host's own."""
    made = PolicySet.parse(f"permit p on a.b when {condition}")

    def call(depth: int) -> Outcome:
        if depth > 0:
            return call(depth - 1)
        request = Request("a.b", subject=Principal.user("maria"), args={"a": 1, "b": False})
        assert account(made.decide(request)) == account(made.on_definition().decide(request))
        return made.decide(request).outcome

    assert call(below) in (Outcome.ALLOW, Outcome.DENY)


@law(cases(requests=2), quick=50, each=2)
def test_many_rules_and_hops_are_judged_within_bounds(shard: int, case: Case) -> None:
    """The deepest chain that there may be is decided."""
    for plan in case.plans:
        deep = evolve(plan, hops=tuple((plan.hops or ()) * 16)[:16])
        decision = case.made.decide(deep.request())
        TALLY.pair(decision)
        TALLY.applied(bool(deep.hops))
