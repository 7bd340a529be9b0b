"""What conditions mean: three answers, absence along paths, quantifiers, `??` and `exists`, and what they hang on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from agentauthz import UNKNOWN, Chain, Delegation, PolicyError, PolicySet, Principal, Resource, SessionFacts
from agentauthz.policy import decide as deciding
from agentauthz.policy.evaluate import MAX_LOOP, answer
from tests.deciding import Form, decided, requested
from tests.support import BOT, HELPER, MARIA, NOON


def asked(text: str, declared: str = "", **given: Any) -> tuple[bool | None, frozenset[str]]:
    """Return what the condition answers as a forbid's, on the definition, and what it hangs on."""
    policies = PolicySet.parse(f"{declared}\nforbid a on t.do when {text}")
    clause = answer(policies.rules[0], deciding.inputs_of(policies._decider, requested(**given)))
    assert clause is not None
    return clause.answer, clause.missing


def answers(text: str, declared: str = "", **given: Any) -> bool | None:
    """Return what the condition answers."""
    return asked(text, declared, **given)[0]


def hangs_on(text: str, declared: str = "", **given: Any) -> set[str]:
    """Return what an undetermined condition hangs on."""
    result, missing = asked(text, declared, **given)
    assert result is None
    return set(missing)


VALUES = {"t": True, "f": False}


# ---- three answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("args.t and args.t", True), ("args.t and args.f", False), ("args.t and args.u", None),
        ("args.u and args.t", None),
        ("args.f and args.u", False), ("args.u and args.f", False), ("args.u and args.u", None),
        ("args.f or args.f", False), ("args.t or args.u", True), ("args.u or args.t", True), ("args.f or args.u", None),
        ("args.u or args.f", None), ("args.u or args.u", None), ("not args.t", False), ("not args.f", True),
        ("not args.u", None), ("args.t and args.u and args.f", False), ("args.f or args.u or args.t", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("nothing", [{}, {"u": None}, {"u": UNKNOWN}, {"u": 1}, {"u": object()}])
def test_and_or_not_follow_kleene(text: str, expected: bool | None, nothing: dict[str, Any]) -> None:
    """What is absent, unknown, of the wrong type or no value counts as undetermined, in either order."""
    assert answers(text, args={**VALUES, **nothing}) is expected


@pytest.mark.parametrize("value", [1, 0, "true", "", [], [True], 0.0, MARIA, dt.timedelta(0)])
def test_nothing_but_a_bool_is_a_condition(value: object) -> None:
    """There is no truthiness: a condition that is no bool is undetermined, and named."""
    assert hangs_on("args.x", args={"x": value}) == {"args.x (of the wrong type)"}
    assert hangs_on("not args.x", args={"x": value}) == {"args.x (of the wrong type)"}


def test_truth_is_not_one() -> None:
    """True and 1 are of different types, so comparing them is undetermined."""
    assert answers("args.x == 1", args={"x": True}) is None
    assert answers("args.x == true", args={"x": 1}) is None
    assert answers("args.x in [1]", args={"x": True}) is None


# ---- what an undetermined condition hangs on


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("args.gone", {"args.gone (absent)"}),
        ("resource.flag", {"resource.flag (unknown)"}),
        ("args.odd", {"args.odd (of the wrong type)"}),
        ("args.t and args.seven", {"args.seven (of the wrong type)"}),
        ("args.f or args.seven or args.gone", {"args.seven (of the wrong type)", "args.gone (absent)"}),
        ("(args.gone ?? args.seven)", {"args.seven (of the wrong type)"}),
        ("(args.seven ?? args.t)", {"args.seven (of the wrong type)"}),
        ("args.gone > 3", {"args.gone (absent)"}),
        ("args.text > 3", {"args.text (of the wrong type)"}),
        ("args.seven + args.text > 3", {"args.text (of the wrong type)", "args.seven (of the wrong type)"}),
        ("args.seven + args.gone > 3", {"args.gone (absent)"}),
        ("-args.text < 3", {"args.text (of the wrong type)"}),
        ("lower(args.seven) == \"x\"", {"args.seven (of the wrong type)"}),
        ("args.seven like \"x*\"", {"args.seven (of the wrong type)"}),
        ("resource is Order", {"resource (unknown)"}),
        ("exists resource.flag", {"resource.flag (unknown)"}),
        ("exists args.odd", {"args.odd (of the wrong type)"}),
        ("args.list.name == 1", {"args.list.name (of the wrong type)"}),
        ("any x in args.seven: x == 1", {"args.seven (of the wrong type)"}),
        ("any x in args.list: (x.ok)", {"x.ok (of the wrong type)"}),
        ("any x in args.list: (x == 1 and args.gone)", {"args.gone (absent)"}),
        ("any x in args.texts: (x)", {"x (of the wrong type)"}),
        ("any x in [args.gone, 1]: x == 2", {"x (absent)"}),
        ("began(\"a.b\", 1h)", {"began(\"a.b\") (unknown)"}),
    ],
)  # fmt: skip
def test_an_undetermined_condition_names_its_inputs(text: str, missing: set[str]) -> None:
    """Each input that the answer hangs on is named with its state, and those that are fine are not."""
    args = {**VALUES, "odd": object(), "seven": 7, "text": "x", "list": [1], "texts": ["x"], "gone": None}
    declared = "type Order { flag: bool }" if "is Order" in text else ""
    assert hangs_on(text, declared, args=args, resource=UNKNOWN, session=UNKNOWN) == missing


def test_a_decided_condition_names_nothing() -> None:
    """What a condition read doesn't count where the answer doesn't hang on it."""
    assert asked("args.t or args.gone", args=VALUES) == (True, frozenset())


def test_a_result_without_a_path_is_told_by_its_text() -> None:
    """Where no input is to blame the expression is named: not its place, which another order of statements moves."""
    [missing] = hangs_on("args.n + 99999999999999999999999999999999999999 > 0", args={"n": 1})
    assert missing == "args.n (of the wrong type)"
    [missing] = hangs_on("len(args.l) * 99999999999999999999999999999999999999 > 0", args={"l": [1, 2]})
    assert missing.startswith("`len(args.l) * ")
    assert missing.endswith("(no result)")


# ---- paths


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("args.a", True), ("args.a.b", True), ("args.a.b.c", True), ("args.a.b.d", False), ("args.x", False),
        ("args.x.y.z", False), ("args.nothing", False), ("args.nothing.more", False), ("resource", False),
        ("resource.any", False), ("purpose", False), ("route", False), ("context.x", False), ("session.id", False),
        ("subject.issuer", False), ("args[\"two words\"]", True), ("args[\"\"]", True),
    ],
)  # fmt: skip
def test_absence_at_a_step_is_absence_of_all_that_follows(path: str, expected: bool) -> None:
    """`exists` is false wherever on the way the first step is absent; None is absent."""
    args = {"a": {"b": {"c": 0}}, "nothing": None, "two words": "", "": 1}
    assert answers(f"exists {path}", args=args) is expected


@pytest.mark.parametrize("path", ["args.n.x", "args.text.upper", "args.list.x", "args.at.year", "subject.roles.x"])
def test_a_step_into_what_has_no_fields_is_of_the_wrong_type(path: str) -> None:
    """Numbers, texts, lists and times have no names below them, whatever Python's objects have."""
    assert answers(f"exists {path}", args={"n": 1, "text": "x", "list": [], "at": NOON}) is None


@pytest.mark.parametrize("name", ["__class__", "__dict__", "__init__", "_read", "__reduce__"])
def test_names_with_an_underscore_can_not_be_written(name: str) -> None:
    """Python's own attributes are out of reach already by their names."""
    for path in (f"args.o.{name}", f'args["o"]["{name}"]', f"subject.{name}"):
        with pytest.raises(PolicyError, match="begins with"):
            answers(f"exists {path}")


@pytest.mark.parametrize("name", ["keys", "get", "items", "setdefault", "pop", "mro", "amount_due"])
def test_methods_and_other_attributes_do_not_exist(name: str) -> None:
    """Only data fields and keys are reached, never what Python's objects can do."""

    @dataclass
    class Order:
        amount: int = 3
        currency: ClassVar[str] = "eur"

        @property
        def amount_due(self) -> int:
            pytest.fail("was called")

    given: dict[str, Any] = {"args": {"o": Order(), "d": {"a": 1}}, "resource": Resource("Order", "o", Order())}
    for path in (f"args.o.{name}", f"args.d.{name}", f"resource.{name}", f"args.{name}", f"subject.{name}"):
        assert answers(f"exists {path}", **given) is False
    assert answers("exists args.o.currency", **given) is False
    assert answers("args.o.amount + resource.amount == 6", **given) is True


def test_a_failing_look_up_is_unknown_for_one_name_only() -> None:
    """A field that raises leaves its own name unknown, and the others as they are."""

    class Lazy(Mapping[str, object]):
        def __getitem__(self, name: str) -> object:
            if name == "broken":
                raise ConnectionError("no database")
            return {"amount": 3}[name]

        def __contains__(self, name: object) -> bool:
            return name in ("broken", "amount")

        def __iter__(self) -> Iterator[str]:
            return iter(("broken", "amount"))

        def __len__(self) -> int:
            return 2

    order = Resource("Order", "o", Lazy())
    assert answers("resource.amount == 3 and not exists resource.other", resource=order) is True
    assert hangs_on("resource.broken == 3", resource=order) == {"resource.broken (unknown)"}
    assert hangs_on("exists resource.broken", resource=order) == {"resource.broken (unknown)"}


def test_a_root_reads_what_it_should() -> None:
    """Each root shows its own part of the request."""
    session = SessionFacts("s-1", NOON, attributes={"region": "eu", "id": "other"}, marks=frozenset({"m"}))
    given: dict[str, Any] = {
        "resource": Resource("Order", "o-1", {"type": "lie", "owner": BOT}),
        "session": session, "context": {"a": 1}, "route": "mcp:x", "purpose": "audit", "args": {"n": 1},
    }  # fmt: skip
    for text in (
        'subject.kind == "user" and subject == user("maria") and actor == agent("bot") and actor.trust == 3',
        'resource.type == "Order" and resource.id == "o-1" and resource.owner == actor',
        'session.id == "s-1" and session.started == now and session.region == "eu" and "m" in session.marks',
        'context.a == 1 and route == "mcp:x" and purpose == "audit" and action.name == "t.do" and args.n == 1',
        'chain.depth > 0 and any h in chain: (h.to == actor and "*" in h.actions and not exists h.purpose)',
    ):
        assert answers(text, "mark m on other", **given) is True, text


# ---- exists and ??


@pytest.mark.parametrize(
    ("given", "there", "default"),
    [
        ({}, False, True), ({"x": None}, False, True), ({"x": 1}, True, True), ({"x": 2}, True, False),
        ({"x": UNKNOWN}, None, None), ({"x": float("nan")}, None, None), ({"x": object()}, None, None),
        ({"x": dt.datetime(2026, 1, 1)}, None, None), ({"x": dt.date(2026, 1, 1)}, None, None),  # noqa: DTZ001
    ],
)  # fmt: skip
def test_exists_and_defaults_are_about_absence_only(given: dict[str, Any], there: bool | None, default: Any) -> None:
    """`exists` is false, and `??` gives its other side, where the input is absent; else undetermined or the value."""
    assert answers("exists args.x", args=given) is there
    assert answers("(args.x ?? 1) == 1", args=given) is default


def test_defaults_chain_to_the_right() -> None:
    """`a ?? (b ?? c)` gives the first that is there."""
    assert answers("(args.a ?? (args.b ?? 3)) == 3") is True
    assert answers("(args.a ?? (args.b ?? 3)) == 2", args={"b": 2}) is True


def test_exists_asks_nothing_of_the_rest() -> None:
    """A guard makes the rest safe: absent is false, and not undetermined."""
    text = 'exists args.reason and args.reason == "x"'
    assert answers(text) is False
    assert answers(text, args={"reason": "x"}) is True
    assert answers(text, args={"reason": 7}) is None


# ---- is


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("subject is user", {}, True), ("subject is agent", {}, False), ("actor is agent", {}, True),
        ("resource is Order", {}, False), ("resource is Order", {"resource": Resource("Order", "1")}, True),
        ("resource is Order", {"resource": Resource("Doc", "1")}, False),
        ("resource is Order", {"resource": UNKNOWN}, None),
        ("args.who is user", {"args": {"who": MARIA}}, True), ("args.who is user", {"args": {"who": "maria"}}, False),
        ("args.who is user", {"args": {}}, False), ("args.who is user", {"args": {"who": UNKNOWN}}, None),
        ("args.who is user", {"args": {"who": object()}}, None),
    ],
)  # fmt: skip
def test_is_asks_for_the_type(text: str, given: dict[str, Any], expected: bool | None) -> None:
    """`is` is false where there is nothing or something else, and undetermined only where nobody knows."""
    assert answers(text, "type Order { a?: int }", **given) is expected


# ---- quantifiers


@pytest.mark.parametrize(
    ("elements", "some", "all_"),
    [
        ([], False, True), ([1], True, True), ([2], False, False), ([1, 2], True, False), ([None], None, None),
        ([1, None], True, None), ([2, None], None, False), ([UNKNOWN, 1], True, None), ([UNKNOWN, 2], None, False),
        (["x", 1], True, None), (["x", 2], None, False), ({1}, True, True), (frozenset(), False, True),
        ((1, 1), True, True),
    ],
)  # fmt: skip
def test_quantifiers_follow_kleene(elements: object, some: bool | None, all_: bool | None, form: Form) -> None:
    """`any` is `or` and `every` is `and` over the elements; over nothing they are false and true."""
    assert answers("any x in args.l: x == 1", args={"l": elements}) is some
    assert answers("every x in args.l: x == 1", args={"l": elements}) is all_
    assert answers("1 in args.l", args={"l": elements}) is some
    assert answers("1 not in args.l", args={"l": elements}) is (None if some is None else not some)
    # the compiled form says the same: true stops, undetermined stops, and false doesn't
    for text, expected in (("any x in args.l: x == 1", some), ("every x in args.l: x == 1", all_)):
        policies = form(PolicySet.parse(f"permit p on t.do when true\nforbid a on t.do when {text}"))
        decision = decided(policies, requested(args={"l": elements}))
        assert decision.allowed is (expected is False)
        assert decision.undetermined == (("a",) if expected is None else ())


@pytest.mark.parametrize("value", [None, UNKNOWN, 1, "text", {"a": 1}, object(), list(range(10_001))])
def test_a_quantifier_over_no_list_is_undetermined(value: object) -> None:
    """What is missing, no list or a list beyond 10,000 elements answers neither `any` nor `every` nor `in`."""
    for text in ("any x in args.l: x == 1", "every x in args.l: x == 1", "1 in args.l", "1 not in args.l"):
        assert answers(text, args={"l": value}) is None


def test_nothing_is_in_an_empty_list() -> None:
    """`x in []` is false even where x is unknown, and true of none."""
    assert answers("args.x in args.l", args={"x": UNKNOWN, "l": []}) is False
    assert answers("args.gone not in args.l", args={"l": []}) is True


def test_lists_of_the_policy_keep_what_is_known() -> None:
    """In `[a, b]` an element that is missing spoils only the answers that hang on it."""
    assert answers("args.x in [args.gone, 2]", args={"x": 2}) is True
    assert answers("args.x in [args.gone, 3]", args={"x": 2}) is None
    assert answers("any y in [args.gone, 3]: y == 3") is True


def test_inner_variables_hide_nothing() -> None:
    """Each quantifier's variable is its own, three deep, and reads the elements of the outer ones."""
    text = "any x in args.a: any y in x.b: any z in y.c: (z == args.n and x.ok and len(y.c) == 2)"
    given = {"a": [{"ok": False, "b": [{"c": [1, 2]}]}, {"ok": True, "b": [{"c": [3, 4]}]}]}
    assert answers(text, args={**given, "n": 3}) is True
    assert answers(text, args={**given, "n": 1}) is False


def test_a_loop_that_is_too_long_is_undetermined(form: Form) -> None:
    """Elements times nodes times the rounds around are at most 1,000,000; beyond, nobody goes round even once."""
    long = list(range(1, 1001))
    nested = "any x in args.a: any y in args.b: x + y == 0"
    assert answers(nested, args={"a": [1], "b": long}) is False
    assert hangs_on(nested, args={"a": long, "b": long}) == {"`any y in …` (too many rounds)"}
    assert MAX_LOOP < 3 * 600 * 600
    assert hangs_on("any x in args.a: any y in args.b: 0 in args.b", args={"a": [1, 2, 3], "b": long[:600]}) == {
        "`in` (too many rounds)"
    }
    policies = form(PolicySet.parse(f"permit p on t.do when true\nforbid a on t.do when {nested}"))
    assert decided(policies, requested(args={"a": [1], "b": long})).allowed
    stopped = decided(policies, requested(args={"a": long, "b": long}))
    assert (stopped.undetermined, stopped.missing) == (("a",), ("`any y in …` (too many rounds)",))


# ---- declared types that data breaks


DECLARED = """
type user { level: "low" | "high", tags: [string], born?: time }
type agent { trust: int }
type Order { amount: decimal, owner: { name: string } }
type Doc { title: string }
action t.do(n: int, m?: [int])
"""


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("subject.level == \"low\"", {"subject": Principal.user("m", level="middle", tags=[])}),
        ("\"x\" in subject.tags", {"subject": Principal.user("m", level="low", tags=["x", None])}),
        ("\"x\" in subject.tags", {"subject": Principal.user("m", level="low", tags=["x", 7])}),
        ("exists subject.born", {"subject": Principal.user("m", born="1970")}),
        ("(subject.born ?? now) == now", {"subject": Principal.user("m", born=7)}),
        ("resource is Order and resource.amount == 3", {"resource": Resource("Order", "1", {"amount": "3"})}),
        ("resource is Order and resource.owner.name == \"x\"", {"resource": Resource("Order", "1", {"owner": "x"})}),
        ("resource is Order and resource.owner.name == \"x\"",
         {"resource": Resource("Order", "1", {"owner": {"name": 1}})}),
        ("args.n != 3", {"args": {"n": 3.5}}),
        ("args.n != 3", {"args": {"n": "3"}}),
        ("exists args.m", {"args": {"n": 1, "m": [1, "2"]}}),
    ],
)  # fmt: skip
def test_a_value_that_breaks_its_declaration_is_undetermined(text: str, given: dict[str, Any], form: Form) -> None:
    """A path's value that isn't of its declared type is of the wrong type, in `exists` and `??` too."""
    if "subject" in text:
        text = f"subject is user and {text}"
    assert answers(text, DECLARED, **given) is None
    policies = form(PolicySet.parse(f"{DECLARED}\npermit p on t.do when true\nforbid a on t.do when {text}"))
    decision = decided(policies, requested(**given))
    assert decision.undetermined == ("a",)
    assert all(item.endswith("(of the wrong type)") for item in decision.missing)


def test_an_attribute_that_the_declared_type_lacks_must_not_be_there() -> None:
    """An agent without a level is as declared; one that has a level all the same breaks its declaration."""
    text = "exists subject.level"
    plain, odd = Principal.agent("a", trust=1), Principal.agent("a", trust=1, level="low")
    assert answers(text, DECLARED, subject=plain) is False
    assert answers(text, DECLARED, subject=odd) is None


# ---- sessions, permitted


def seen(**more: Any) -> SessionFacts:
    return SessionFacts("s", NOON - dt.timedelta(hours=5), **more)


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        (None, None), (UNKNOWN, None), (seen(), False), (seen(began=UNKNOWN), None),
        (seen(began={"a.b": NOON - dt.timedelta(hours=1)}), True),
        (seen(began={"a.b": NOON - dt.timedelta(hours=1, microseconds=1)}), False),
        (seen(began={"a.b.c": NOON, "a": NOON}), False), (seen(done={"a.b": NOON}), False),
        (seen(began={"a.b": NOON + dt.timedelta(hours=9)}), True),
        (seen(tracked={"a.b": NOON - dt.timedelta(minutes=59)}), None),
        (seen(tracked={"a.b": NOON - dt.timedelta(minutes=60)}), False),
        (seen(tracked={"a.b": NOON - dt.timedelta(hours=5)}), False),
    ],
)  # fmt: skip
def test_began_is_true_within_the_time_and_unknown_where_nobody_watched(session: Any, expected: bool | None) -> None:
    """Both ends count, the name is exact, and time that wasn't watched is unknown."""
    assert answers('began("a.b", 1h)', session=session) is expected


def permitted(text: str, form: Form, **given: Any) -> bool:
    """Say whether the rules of `text` and a permit that rests on `permitted` allow the call."""
    return decided(form(PolicySet.parse(text)), requested(**given)).allowed


def test_permitted_asks_for_the_principal_in_its_own_name(form: Form) -> None:
    """Inside, subject and actor are the one who is asked for, without a chain; all else is the same."""
    text = """
permit through on t.do when permitted(subject) and subject != actor
permit own on t.do when subject is user and actor == subject and chain.depth <= 0 and args.n == 1
"""
    assert permitted(text, form, args={"n": 1})
    assert not permitted(text, form, args={"n": 2})


def test_permitted_is_false_inside_permitted(form: Form) -> None:
    """A permit that only rests on itself grants nothing."""
    assert not permitted("permit a on t.do when permitted(subject)", form)
    assert not permitted("permit a on t.do when permitted(actor) or permitted(subject)", form)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", True), ("forbid f on t.do when subject == actor", False),
        ("forbid f on t.do when subject == actor and args.gone", False),
        ("forbid f on t.do when subject == actor and subject == agent(\"bot\") and args.gone", True),
        ("review r on t.do when subject == actor by approver != subject", True),
        ("limit l on t.do when subject == actor to count <= 1 per subject every 1d", True),
    ],
)  # fmt: skip
def test_permitted_is_any_permit_and_no_forbid(more: str, expected: bool, form: Form) -> None:
    """A forbid that could stop the principal counts; reviews and limits are not asked."""
    text = "permit a on t.do when permitted(subject) and subject != actor\npermit b on t.do when subject == actor"
    assert permitted(f"{text}\n{more}", form) is expected


def test_each_judged_agent_answers_for_itself(form: Form) -> None:
    """`actor` and `permitted(actor)` are those of each agent in a chain that is judged."""
    text = "permit a on t.do when actor.trust >= 2"
    chain = Chain(MARIA, (Delegation(BOT), Delegation(HELPER)))
    assert not permitted(text, form, chain=chain)
    assert permitted(text.replace("2", "1"), form, chain=chain)
