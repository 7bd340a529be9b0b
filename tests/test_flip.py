"""What would turn a decision: which clauses, the values that are named, and what is never supposed."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from agentauthz import UNKNOWN, Chain, Delegation, Outcome, PolicySet, Principal, Resource, SessionFacts
from tests.deciding import Form, requested
from tests.support import BOT, HELPER, MARIA, NOON


def flips(form: Form, text: str, **given: Any) -> list[str]:
    """Return what is told of a request for `t.do`, without the words that all begin with."""
    explanation = form(PolicySet.parse(text)).explain(requested(**given))
    return [flip.words().removeprefix("it would be ") for flip in explanation.flips]


@pytest.mark.parametrize(
    ("condition", "args", "told"),
    [
        ("args.a == 3", {"a": 1}, "`args.a == 3` were true, as with args.a = 3"),
        ("3 == args.a", {"a": 1}, "`3 == args.a` were true, as with args.a = 3"),
        ("args.a <= 500", {"a": 501}, "`args.a <= 500` were true, as with args.a = 500"),
        ("args.a < 500", {"a": 500}, "`args.a < 500` were true, as with args.a = 499"),
        ("500 < args.a", {"a": 500}, "`500 < args.a` were true, as with args.a = 501"),
        ("args.a > 2.5", {"a": 1}, "`args.a > 2.5` were true, as with args.a = 3.5"),
        ('args.a in ["x", "y"]', {"a": "z"}, '`args.a in ["x", "y"]` were true, as with args.a = "x"'),
        ('args.a like "in*@x"', {"a": "z"}, '`args.a like "in*@x"` were true, as with args.a = "in@x"'),
        ("args.a == args.b", {"a": 1, "b": 2}, "`args.a == args.b` were true, as with args.a = 2"),
        ("args.a", {"a": False}, "`args.a` were true, as with args.a = true"),
        ("args.a ?? false", {}, "`args.a ?? false` were true, as with args.a = true"),
        ('args.a != "x"', {"a": "x"}, '`args.a != "x"` were true'),
        ('args.a not in ["x"]', {"a": "x"}, '`args.a not in ["x"]` were true'),
        ('"x" in args.a', {"a": ["y"]}, '`"x" in args.a` were true'),
        ('not ("x" in args.a)', {"a": ["x"]}, '`"x" in args.a` were false'),
        ("not exists args.a", {"a": 1}, "`exists args.a` were false"),
        ("exists args.a", {}, "`exists args.a` were true"),
        ("args.a == 3", {}, "`args.a == 3` were true, as with args.a = 3"),
        ("args.a == 3", {"a": UNKNOWN}, "`args.a == 3` were true, as with args.a = 3"),
        ("any x in args.a: x > 3", {"a": [1]}, "`any x in args.a: x > 3` were true"),
        ("lower(args.a) == \"x\"", {"a": "Y"}, '`lower(args.a) == "x"` were true'),
        ("args.a == 1 and args.b == 2", {"a": 0, "b": 0},
         "`args.a == 1` were true, as with args.a = 1, and `args.b == 2` were true, as with args.b = 2"),
        ("args.a == 1 and args.b == 2 or args.c", {"a": 0, "b": 0, "c": False},
         "`args.c` were true, as with args.c = true"),
    ],
)  # fmt: skip
def test_what_is_named(form: Form, condition: str, args: dict[str, object], told: str) -> None:
    """The smallest set of clauses, with a value where one says more than the clause."""
    assert flips(form, f"permit p on t.do when {condition}", args=args)[0] == f"allowed if {told}"


def test_what_stops_a_call_must_go_too(form: Form) -> None:
    """A denied call needs a permit, and nothing that forbids, limits or reviews it."""
    text = """
    permit p on t.do when args.amount <= 500
    forbid f on t.do when args.to == "mallory"
    review r on t.do when args.big by approver != subject
    """
    [told] = flips(form, text, args={"amount": 600, "to": "mallory", "big": True})
    assert told == (
        "allowed if `args.amount <= 500` were true, as with args.amount = 500, and `args.big` were false, "
        'as with args.big = false, and `args.to == "mallory"` were false'
    )


def test_an_allow_can_be_turned_in_more_ways_than_one(form: Form) -> None:
    """By a forbid or a review that would hold, or the permits that wouldn't; at most three are told."""
    text = """
    permit p on t.do when args.amount <= 500
    forbid f on t.do when args.to == "mallory"
    review r on t.do when args.big by approver != subject
    """
    assert flips(form, text, args={"amount": 5, "to": "otto", "big": False}) == [
        'denied if `args.to == "mallory"` were true, as with args.to = "mallory"',
        "reviewed if `args.big` were true, as with args.big = true",
        "denied if `args.amount <= 500` were false, as with args.amount = 501",
    ]


def test_a_clause_of_several_rules_is_one_clause(form: Form) -> None:
    """What stands in two rules answers the same in both."""
    text = "permit p on t.do when args.a == 1\nforbid f on t.do when args.a == 1"
    assert flips(form, text, args={"a": 2}) == []


def test_clauses_that_exclude_each_other_are_no_flip(form: Form) -> None:
    """Values can't meet both, so nothing is told, where the clauses alone would seem to."""
    text = "permit p on t.do when args.a == args.b and args.a == 1 and args.b == 2"
    assert flips(form, text, args={"a": 3, "b": 4}) == []
    assert flips(form, 'permit p on t.do when lower(args.a) == "x" and args.a == "y"', args={"a": "Y"}) == []


def test_more_than_three_changes_are_not_told(form: Form) -> None:
    """Nothing is said, rather than something long."""
    conditions = [f"args.a{number} == 1" for number in range(4)]
    assert flips(form, f"permit p on t.do when {' and '.join(conditions)}", args={}) == []
    assert len(flips(form, f"permit p on t.do when {' and '.join(conditions[:3])}", args={})) == 1


def test_what_can_not_change_is_not_told(form: Form) -> None:
    """Rules without a condition, the action's own name, and what is decided before the rules."""
    assert flips(form, 'permit p on t.do, t.other when action.name == "t.other"') == []
    assert flips(form, "forbid f on t.do") == []
    chain = Chain(MARIA, (Delegation(BOT, ["t.other"]),))
    assert flips(form, "permit p on t.do when args.a == 1", chain=chain) == []
    expired = SessionFacts(id="s", started=NOON, expires=NOON - dt.timedelta(hours=1))
    assert flips(form, "permit p on t.do when args.a == 1", session=expired) == []


def test_who_somebody_is_is_not_supposed(form: Form) -> None:
    """Of parties attributes get values; identities don't."""
    told = flips(form, 'permit p on t.do when subject.team == "a"', subject=Principal.user("maria", team="b"))
    assert told == ['allowed if `subject.team == "a"` were true, as with subject.team = "a"']
    told = flips(form, 'permit p on t.do when subject == user("otto")')
    assert told == ['allowed if `subject == user("otto")` were true']
    owned = Resource("Doc", "d-1", {"owner": Principal.user("otto")})
    told = flips(form, 'permit p on t.do when resource.owner == subject and "support" in subject.roles', resource=owned)
    assert told == ['allowed if `resource.owner == subject` were true, as with resource.owner = user("maria")']


def test_each_who_is_judged_counts(form: Form) -> None:
    """A call through two agents must be permitted for both; the clause is told once."""
    chain = Chain(MARIA, (Delegation(BOT), Delegation(HELPER)))
    text = "permit p on t.do when actor.trust >= 9 and args.a"
    assert flips(form, text, chain=chain, args={"a": True}) == ["allowed if `actor.trust >= 9` were true"]
    both = "`actor.trust >= 9` were true, and `args.a` were true, as with args.a = true"
    assert flips(form, text, chain=chain, args={"a": False}) == [f"allowed if {both}"]


def test_what_policies_ask_of_others_is_told(form: Form) -> None:
    """`permitted(…)` and `done(…)` are clauses that answer of themselves."""
    text = """
    permit p on t.do when permitted(subject) and done("t.check", 1h)
    permit own on t.do when chain.depth < 1
    """
    session = SessionFacts(id="s", started=NOON, began={}, done={})
    told = flips(form, text, session=session, args={"a": 1})
    assert told == ["allowed if `chain.depth < 1` were true", 'allowed if `done("t.check", 1h)` were true']


def test_many_rules_are_not_asked_again_and_again(form: Form) -> None:
    """Where more than a hundred rules match, nothing is told."""
    rules = [f"permit p{number} on t.do when args.a == {number}" for number in range(101)]
    assert flips(form, "\n".join(rules[:100]), args={"a": -1}) != []
    assert flips(form, "\n".join(rules), args={"a": -1}) == []


def test_a_flip_is_data(form: Form) -> None:
    """It holds the outcome, and for each change the clause, its answer and the fact."""
    [flip] = form(PolicySet.parse("permit p on t.do when args.a == 3")).explain(requested(args={"a": 1})).flips
    [change] = flip.changes
    assert flip.outcome is Outcome.ALLOW
    assert change.becomes is True
    assert change.fact is not None
    assert (str(change.fact[0]), change.fact[1]) == ("args.a", 3)
