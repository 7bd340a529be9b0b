"""The laws of what is absent or unknown: a fact that is missing never widens what an agent may do."""

from __future__ import annotations

from attrs import evolve

from agentauthz.decision import Outcome
from agentauthz.values import UNKNOWN
from tests.laws.asking import asked_whether_there, names, outcome, words_read
from tests.laws.counting import TALLY, law
from tests.strategies.cases import Case, cases
from tests.strategies.choose import Choose
from tests.strategies.plans import Facts, Place, Plan


def _some_places(choose: Choose, places: list[Place], read: frozenset[str]) -> list[Place]:
    """Return some of the places, mostly such as a condition reads."""
    likely = [place for place in places if place[-1] in read]
    return [choose.one(likely if likely and choose.chance(85) else places) for _ in range(1 + choose.up_to(2))]


def _holed(choose: Choose, value: object) -> object:
    """Return a list or set with one element unknown, or UNKNOWN itself."""
    if not isinstance(value, list | tuple | set) or not value or choose.chance(50):
        return UNKNOWN
    kind, items = type(value), list(value)
    items[choose.up_to(len(items) - 1)] = UNKNOWN
    return kind(items)


def _with_unknowns(choose: Choose, plan: Plan, read: frozenset[str]) -> Plan:
    for place in _some_places(choose, plan.places(), read):
        if place in plan.places():  # taking the resource away took its attributes along
            plan = plan.put(place, UNKNOWN if len(place) == 1 else _holed(choose, plan.value(place)))
    if choose.chance(10):
        plan = plan.having(choose.one(("args", "context")), UNKNOWN)
    if isinstance(plan.session, Facts) and choose.chance(20):
        plan = evolve(plan, session=_without(choose.one(("marks", "began", "done")), plan.session))
    return plan


def _without(name: str, facts: Facts) -> Facts:
    match name:
        case "marks":
            return evolve(facts, marks=UNKNOWN)
        case "began":
            return evolve(facts, began=UNKNOWN)
        case _:
            return evolve(facts, done=UNKNOWN)


@law(cases(quality="clean"), quick=250)
def test_resolving_an_unknown_never_turns_allow_into_deny_or_review(shard: int, case: Case) -> None:
    """What is allowed while a fact is unknown is allowed whatever the fact turns out to be, absent included."""
    read = words_read(case.made)
    for plan in case.plans:
        unknown = _with_unknowns(case.choose, plan, read)
        decision = case.made.decide(unknown.request())
        TALLY.pair(decision)
        # an argument that a declared action doesn't have is no value that its declaration allows
        if decision.outcome is Outcome.ALLOW and not (isinstance(plan.args, dict) and "extra" in plan.args):
            TALLY.applied()
            assert outcome(case.made, plan) is Outcome.ALLOW
            for place in unknown.places():
                if unknown.value(place) is UNKNOWN and case.choose.chance(50):
                    unknown = unknown.put(place, None)
            assert outcome(case.made, unknown) is Outcome.ALLOW


@law(cases())
def test_making_a_value_unknown_never_turns_deny_or_review_into_allow(shard: int, case: Case) -> None:
    """A value that can't be looked up any more gets nobody an allow instead of a deny or review."""
    read = words_read(case.made)
    for plan in case.plans:
        decision = case.made.decide(plan.request())
        TALLY.pair(decision)
        if decision.outcome is Outcome.ALLOW:
            continue
        for place in _some_places(case.choose, plan.places(), read):
            if place in plan.places():
                plan = plan.put(place, UNKNOWN)
            TALLY.applied()
            assert outcome(case.made, plan) is not Outcome.ALLOW


@law(cases())
def test_making_a_value_absent_never_turns_deny_or_review_into_allow_unless_it_is_asked_for(
    shard: int, case: Case
) -> None:
    """A value that isn't there any more gets nobody an allow, where no `exists`, `??` or `is` names it."""
    asked = asked_whether_there(case.made)
    read = words_read(case.made)
    for plan in case.plans:
        decision = case.made.decide(plan.request())
        TALLY.pair(decision)
        places = [p for p in plan.places() if not names(asked, p) and p != ("args", "extra")]
        if decision.outcome is Outcome.ALLOW or not places:
            continue
        for place in _some_places(case.choose, places, read):
            if place in plan.places():
                plan = plan.put(place, None)
                TALLY.applied()
                assert outcome(case.made, plan) is not Outcome.ALLOW
