"""Compiled conditions: the same three answers as the definition, for every operator and every state of an input."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from types import FunctionType
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentauthz.policy import decide as deciding
from agentauthz.policy.compile import Compiled
from agentauthz.policy.compile.units import Numbered, Question, compiled
from agentauthz.policy.evaluate import evaluate
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.policyset import Definition, PolicySet
from agentauthz.policy.source import Source, Span
from agentauthz.policy.syntax import (
    And,
    Arithmetic,
    Call,
    CheckedRule,
    Compare,
    Default,
    Exists,
    Expr,
    Is,
    Like,
    ListOf,
    Literal_,
    Negate,
    Not,
    Or,
    Path,
    Pattern,
    Quantifier,
)
from agentauthz.policy.types import BOOL, DECIMAL, INT, LACKING, STRING, Declared, Enumeration, Fields, Sequence, Type
from agentauthz.principals import Chain, Delegation, Principal
from agentauthz.request import Request, Resource, SessionFacts
from agentauthz.values import UNKNOWN

NOW: Final = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
SPAN: Final = Span(Source("p.authz", "permit r on a.b when true\n"), 0, 6)
PATTERN: Final = Pattern("exact", "a.b", span=SPAN)


class Text(str):
    """Be a string that says it equals everything."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True


VALUES: Final[Mapping[str, object]] = {
    "none": None,
    "unknown": UNKNOWN,
    "wrong": object(),
    "text": "x",
    "other": "xyz",
    "lying": Text("no"),
    "one": 1,
    "big": 10**38,
    "half": Decimal("0.5"),
    "float": 0.5,
    "true": True,
    "now": NOW,
    "naive": NOW.replace(tzinfo=None),
    "hour": dt.timedelta(hours=1),
    "texts": ["x", "y"],
    "gaps": ["y", None, UNKNOWN],
    "mixed": ["y", 1, True, ["x"]],
    "set": {"x"},
    "record": {"n": 1, "s": "x"},
    "records": [{"n": 1}, {"n": 5}, {}],
    "agent": Principal.agent("bot", trust=2),
    "resource": Resource("Order", "o-1", {"n": 1}),
}
SUBJECT: Final = Principal.user("maria", roles=["x", "support"], trust=UNKNOWN)
ACTOR: Final = Principal.agent("bot", trust=3, roles=[None], label=Text("z"))


def request(resource: object = None, session: object = None) -> Request:
    """Return a request whose arguments hold each kind of value under its name."""
    return Request(
        "a.b",
        subject=SUBJECT,
        chain=Chain(SUBJECT, [Delegation(ACTOR, purpose="x", expires=NOW)]),
        args=VALUES,
        resource=resource,  # type: ignore[arg-type]
        session=session,  # type: ignore[arg-type]
        purpose="x",
        context={"n": 1, "deep": {"s": "x"}},
        now=NOW,
    )


FACTS: Final = SessionFacts("s", NOW, None, {"n": 1}, frozenset({"x"}), {"a.b": NOW}, UNKNOWN)
REQUESTS: Final = (
    request(Resource("Order", "o-1", {"n": 1, "s": "x", "texts": ["x"]}), FACTS),
    request(Resource("Doc", "d-1"), UNKNOWN),
    request(UNKNOWN),
    request(),
)


def literal(value: bool | int | Decimal | str | dt.timedelta) -> Literal_:
    return Literal_(value, span=SPAN)


def path(text: str, declared: Mapping[str | None, Type] | None = None) -> Path:
    root, *steps = text.split(".")
    return Path(root, tuple(steps), span=SPAN, declared=None if declared is None else Declared(declared))


def call(name: str, *args: Expr) -> Call:
    return Call(name, args, span=SPAN)


def rule(condition: Expr, effect: str = "forbid", name: str = "r") -> CheckedRule:
    return CheckedRule(effect, name, (PATTERN,), condition, span=SPAN)  # type: ignore[arg-type]


def inputs(asked: Request) -> Inputs:
    return Inputs(asked, asked.chain, lambda alone: None if alone.actor.kind == "agent" else True)


def _functions(conditions: list[Expr], action: str | None) -> list[Callable[[Inputs], tuple[int, ...]]]:
    """Return functions of all conditions: as forbids, as permits, and both of what is not so."""

    def broken(_: Inputs) -> tuple[int, ...]:
        raise AssertionError("the compiled form gave up")

    made = []
    for negated in (False, True):
        for effect in ("forbid", "permit"):
            asked = [Not(condition, span=SPAN) if negated else condition for condition in conditions]
            rules = [Numbered(number, rule(condition, effect), condition) for number, condition in enumerate(asked)]
            made.append(compiled(rules, Question.OUTCOME, action, broken))
    return made


def _expected(known: list[bool | None]) -> list[tuple[int, ...]]:
    """Return what each of the functions should say, where the definition answers `known`."""
    found: list[tuple[int, ...]] = []
    for yes in (True, False):
        forbids = [~number if is_it is None else number for number, is_it in enumerate(known) if is_it in (yes, None)]
        found += [tuple(forbids), tuple(number for number in forbids if number >= 0)]
    return found


def check(*conditions: Expr, action: str | None = "a.b") -> None:
    """Check conditions, compiled together, on every request."""
    for start in range(0, len(conditions), 50):
        some = list(conditions[start : start + 50])
        functions = _functions(some, action)
        for asked in REQUESTS:
            known = [evaluate(condition, inputs(asked)).answer for condition in some]
            for function, right in zip(functions, _expected(known), strict=True):
                found = function(inputs(asked))
                assert found == right, [some[max(n, ~n)] for n in set(found) ^ set(right)]


# ---- every operator, on every kind of value

OPERANDS: Final[tuple[Expr, ...]] = (
    *(path(f"args.{name}") for name in VALUES),
    *(path(text) for text in ("subject", "actor", "actor.trust", "subject.trust", "actor.label", "subject.roles")),
    *(path(text) for text in ("resource", "resource.n", "resource.type", "resource.texts", "resource.n.s")),
    *(path(text) for text in ("session", "session.n", "session.marks", "session.id", "context.deep.s", "purpose")),
    *(path(text) for text in ("now", "chain", "chain.depth", "action.name", "args.agent.trust", "args.missing.x")),
    *(path(text) for text in ("args.agent.kind", "args.resource.type", "args.record.n", "approver.id", "route")),
)
CONSTANTS: Final[tuple[Expr, ...]] = (
    literal("x"), literal(1), literal(Decimal("0.5")), literal(True), literal(dt.timedelta(hours=1)),
    ListOf((), span=SPAN), ListOf((literal("x"), literal("z")), span=SPAN),
    ListOf((literal(1), literal("x")), span=SPAN),
    ListOf((literal(1), literal(Decimal("0.5"))), span=SPAN), ListOf((literal(True),), span=SPAN),
    call("agent", literal("bot")), ListOf((call("agent", literal("bot")), call("user", literal("maria"))), span=SPAN),
    call("time", literal("2026-11-23T12:00:00Z")), call("agent", literal("")),
)  # fmt: skip
MIXED: Final = [
    path(text)
    for text in (
        "args.none", "args.unknown", "args.wrong", "args.text", "args.lying", "args.one", "args.half", "args.true",
        "args.now", "args.texts", "args.gaps", "args.record", "args.agent", "args.resource", "subject", "actor",
    )
]  # fmt: skip
OPERATORS: Final = ("==", "!=", "<", "<=", ">", ">=", "in", "not in")


@pytest.mark.parametrize("operator", OPERATORS)
def test_comparisons_with_constants(operator: str) -> None:
    """Each comparison of each kind of value with each kind of constant, either way round, is the definition's."""
    sides = [(left, right) for left in OPERANDS for right in CONSTANTS]
    sides += [(right, left) for left, right in sides[::3]]
    check(*(Compare(operator, left, right, span=SPAN) for left, right in sides))  # type: ignore[arg-type]


@pytest.mark.parametrize("operator", OPERATORS)
def test_comparisons_of_inputs(operator: str) -> None:
    """Each comparison of each kind of value with each other kind is the definition's."""
    sides = [(left, right) for left in MIXED for right in MIXED]
    check(*(Compare(operator, left, right, span=SPAN) for left, right in sides))  # type: ignore[arg-type]


def test_values_in_a_conditions_place() -> None:
    """Only a bool is an answer; every other value, and every sentinel, is undetermined."""
    check(*OPERANDS, *CONSTANTS)


def test_other_operators_on_every_kind_of_value() -> None:
    """`like`, `is`, `exists`, `??`, functions, arithmetic and loops are the definition's on each kind of value."""
    check(*(condition for value in OPERANDS for condition in _conditions_on(value)))


def _conditions_on(value: Expr) -> Iterator[Expr]:
    for parts in (("x",), ("x", ""), ("", "z"), ("x", "z"), ("", "y", ""), ("", "")):
        yield Like(value, parts, span=SPAN)
    for name in ("agent", "user", "Order"):
        yield Is(value, name, span=SPAN)
    for name in ("starts_with", "ends_with", "contains"):
        yield call(name, value, literal("x"))
        yield call(name, literal("xyz"), value)
    yield Compare("==", call("len", value), literal(2), span=SPAN)
    yield Compare("==", call("lower", value), literal("x"), span=SPAN)
    for operator in ("+", "-", "*"):
        yield Compare(">", Arithmetic(operator, value, literal(1), span=SPAN), literal(1), span=SPAN)
    yield Compare("<", Negate(value, span=SPAN), literal(0), span=SPAN)
    yield Compare("==", Compare("==", value, literal("x"), span=SPAN), literal(True), span=SPAN)
    if isinstance(value, Path):
        yield Exists(value, span=SPAN)
        yield Default(value, literal(True), span=SPAN)
        yield Compare("==", Default(value, literal("x"), span=SPAN), literal("x"), span=SPAN)
    for kind in ("any", "every"):
        for body in (path("e"), Compare("==", path("e"), literal("x"), span=SPAN), path("e.n"), path("args.true")):
            yield Quantifier(kind, "e", value, body, span=SPAN, variable_span=SPAN)


def test_the_session_and_the_policies_are_asked() -> None:
    """`began`, `done` and `permitted` ask what the definition asks."""
    hour = literal(dt.timedelta(hours=1))
    for condition in (
        call("began", literal("a.b"), hour),
        call("began", literal("a.c"), hour),
        call("done", literal("a.b"), hour),
        call("permitted", path("subject")),
        call("permitted", path("actor")),
        call("weekday", path("args.now"), literal("Europe/Berlin")),
        call("ip_in", path("args.text"), literal("10.0.0.0/8")),
    ):
        check(condition)
        check(Compare("==", condition, literal("mon"), span=SPAN))


# ---- declared types

TYPES: Final[tuple[Type, ...]] = (
    BOOL, INT, DECIMAL, STRING, Enumeration(frozenset({"x", "y"})), Sequence(STRING), Sequence(INT), LACKING,
    Fields({}),
)  # fmt: skip


@pytest.mark.parametrize("declared", TYPES, ids=str)
def test_a_value_that_breaks_its_declaration_is_of_the_wrong_type(declared: Type) -> None:
    """Declared types count as in the definition, whatever they hang on and however they are used."""
    tags: list[dict[str | None, Type]]
    tags = [{"a.b": declared}, {None: declared}, {"other": declared}, {"a.b": declared, None: STRING}]
    names = ("none", "unknown", "wrong", "text", "other", "one", "half", "true", "texts", "gaps", "mixed", "record")
    found = [path(f"args.{name}", declared) for declared in tags for name in names]
    tags = [{"user": declared, "agent": STRING}, {None: declared}, {"agent": declared}]
    texts = ("actor.trust", "subject.trust", "actor.roles", "actor.label", "args.agent.trust", "subject.roles")
    found += [path(text, declared) for declared in tags for text in texts]
    tags = [{"Order": declared}, {"Order": declared, "Doc": LACKING}, {None: declared}]
    texts = ("resource.n", "resource.s", "resource.texts", "session.n", "context.n", "context.deep.s")
    found += [path(text, declared) for declared in tags for text in texts]
    check(*(condition for value in found for condition in _uses(value)))
    check(*(condition for value in found[::3] for condition in _uses(value)), action=None)


def _uses(value: Path) -> Iterator[Expr]:
    yield Compare("==", value, literal("x"), span=SPAN)
    yield Compare("<=", value, literal(1), span=SPAN)
    yield Compare("in", literal("x"), value, span=SPAN)
    yield Compare("in", value, ListOf((literal("x"), literal("z")), span=SPAN), span=SPAN)
    yield Exists(value, span=SPAN)
    yield Default(value, literal(False), span=SPAN)
    yield value
    yield Compare("==", value, path("purpose"), span=SPAN)


# ---- generated conditions


def _grown(parts: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    several = st.lists(parts, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        several.map(lambda found: And(found, span=SPAN)),
        several.map(lambda found: Or(found, span=SPAN)),
        parts.map(lambda found: Not(found, span=SPAN)),
        st.tuples(st.sampled_from(["any", "every"]), st.sampled_from(OPERANDS), parts).map(
            lambda found: Quantifier(found[0], "e", found[1], found[2], span=SPAN, variable_span=SPAN)  # type: ignore[arg-type]
        ),
        st.tuples(parts, parts).map(lambda found: Compare("==", found[0], found[1], span=SPAN)),
    )


_ATOMS: Final = st.one_of(
    st.sampled_from(OPERANDS),
    st.sampled_from([literal(True), literal(False)]),
    st.builds(
        lambda operator, left, right: Compare(operator, left, right, span=SPAN),
        st.sampled_from(OPERATORS),
        st.sampled_from([*OPERANDS, path("e")]),
        st.sampled_from([*CONSTANTS, *OPERANDS]),
    ),
)


def _closed(expr: Expr) -> Expr:
    return Quantifier(
        "any", "e", ListOf((literal("x"), path("args.texts")), span=SPAN), expr, span=SPAN, variable_span=SPAN
    )


@settings(max_examples=100)
@given(st.recursive(_ATOMS, _grown, max_leaves=10))
def test_conditions_of_any_shape_are_the_definitions(condition: Expr) -> None:
    """Junctions and loops in each other give the definition's answers."""
    check(_closed(condition))


# ---- loops


def test_too_many_rounds_are_undetermined_as_in_the_definition() -> None:
    """The bound counts the nodes of the body, and the loops around it, just as the definition does."""
    text = """
    forbid three on a.b when any x in args.l: any y in args.l: any z in args.l: (x == y and y == z)
    forbid two on a.b when any x in args.l: any y in args.l: (x == y and x == "none")
    forbid membership on a.b when any x in args.l: any y in args.l: (x == y and "none" in args.l)
    forbid one on a.b when any x in args.l: x == "none"
    """
    made = PolicySet.parse(text)
    # the bound lies between two of the lengths for each of the rules
    for size in (1, 30, 60, 460):
        asked = Request("a.b", subject=SUBJECT, args={"l": [str(number) for number in range(size)]}, now=NOW)
        slow = made.on_definition().decide(asked) if size < 61 else None
        for _ in range(2):
            fast = made.decide(asked)
            assert slow is None or fast.undetermined == slow.undetermined
    assert made.decide(asked).undetermined == ("membership", "three", "two")


# ---- the whole


def test_what_is_compiled_reaches_no_built_in_function() -> None:
    """The compiled code's globals have no built-ins, and hold the policy's texts as values, not as names."""
    condition = Compare("==", path('args.__import__("os")'), literal("__import__('os')"), span=SPAN)
    function = compiled([Numbered(0, rule(condition), condition)], Question.OUTCOME, None, lambda _: ())
    assert isinstance(function, FunctionType)
    module = function.__globals__
    assert module["__builtins__"] == {}
    assert not [name for name in module if "import" in name]
    code = function.__code__
    assert "__import__('os')" not in code.co_consts
    assert code.co_filename == "p.authz"
    assert code.co_firstlineno == 1


def test_where_compiled_code_raises_the_definition_answers_for_that_rule() -> None:
    """An exception inside of a compiled rule changes no answer, of that rule or of another."""
    good, bad = Compare("==", path("purpose"), literal("x"), span=SPAN), call("permitted", path("subject"))
    rules = [Numbered(0, rule(good), good), Numbered(1, rule(bad), bad), Numbered(2, rule(good), good)]
    function = compiled(rules, Question.OUTCOME, None, lambda _: ())
    asked: list[Inputs] = []

    def once(alone: Inputs) -> bool:
        asked.append(alone)
        if len(asked) == 1:
            raise MemoryError
        return True

    assert function(Inputs(REQUESTS[0], REQUESTS[0].chain, once)) == (0, 1, 2)
    assert len(asked) == 2


def test_a_rule_too_deep_for_pythons_compiler_is_asked_of_the_definition() -> None:
    """The largest rule that the checker lets through is answered, however deep the call is."""
    deep = "not " * 190 + "args.true"
    made = PolicySet.parse(f"forbid deep on a.b when {deep}")
    asked = Request("a.b", subject=SUBJECT, args={"true": True}, now=NOW)
    answers: list[tuple[str, ...]] = []

    def call_from(depth: int) -> None:
        if depth:
            call_from(depth - 1)
        else:
            answers.extend(made.decide(asked).rules for _ in range(3))

    call_from(100)
    assert answers == [("deep",)] * 3


def test_rules_are_told_in_the_order_of_their_names() -> None:
    """The verdict's rules come by name, from however many patterns they were found."""
    made = PolicySet.parse(
        "\n".join(
            f"permit p{name} on {on} when true"
            for name, on in zip("dacb", ("a.b", "a.*", "*", "a.b, a.*"), strict=True)
        )
    )
    for _ in range(3):
        found = made._decider.verdict(deciding.inputs_of(made._decider, REQUESTS[0]))
        assert [found_rule.name for found_rule in found.true["permit"]] == ["pa", "pb", "pc", "pd"]


def test_threads_that_ask_at_once_get_the_same() -> None:
    """Rules that are being compiled answer every thread right."""
    text = "\n".join(f'permit p{n} on a.b when args.n == {n % 7} or "r{n}" in subject.roles' for n in range(100))
    made = PolicySet.parse(text)
    asked = Request("a.b", subject=SUBJECT, args={"n": 3}, now=NOW)
    right = made.on_definition().decide(asked)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: made.decide(asked), range(200)))
    assert {decision.rules for decision in found} == {right.rules}


def test_what_is_kept_for_action_names_is_bounded() -> None:
    """Callers who make up names don't fill the memory."""
    made = PolicySet.parse("permit p on * when true")
    compiled_set = made._decider
    assert isinstance(compiled_set, Compiled)
    for number in range(9_000):
        made.decide(Request(f"a{number}", subject=SUBJECT, now=NOW))
    assert len(compiled_set._plans) <= 4096
    assert isinstance(made.on_definition()._decider, Definition)
