"""Infer what type each expression of a rule has, and report what can't be meant."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, cast, final

from attrs import evolve, frozen

from agentauthz.policy.builtins import FUNCTIONS
from agentauthz.policy.check import compared
from agentauthz.policy.check.facts import NONE, Certainties, Facts
from agentauthz.policy.check.places import look_up
from agentauthz.policy.check.probes import probe
from agentauthz.policy.check.reading import read_path
from agentauthz.policy.check.report import Reporter, text_of, word_span
from agentauthz.policy.check.static import (
    DAYS,
    Kinds,
    called,
    categories,
    category,
    comparable,
    items,
    result_of,
    unite,
)
from agentauthz.policy.check.suggest import FOREIGN
from agentauthz.policy.check.world import ROOT_TYPES, Selection
from agentauthz.policy.syntax import (
    And,
    Arithmetic,
    Call,
    Compare,
    Default,
    Effect,
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
    Quantifier,
)
from agentauthz.policy.types import (
    ANYTHING,
    BOOL,
    DECIMAL,
    DURATION,
    INT,
    STRING,
    TIME,
    Declared,
    Enumeration,
    Type,
)
from agentauthz.policy.types import Sequence as ListOfType
from agentauthz.principals import KINDS

MAX_QUANTIFIERS: Final = 3  # one in another

_A_BOOL: Final[Kinds] = (BOOL,)
_OF_VALUE: Final[Mapping[type, Kinds]] = {
    bool: _A_BOOL, int: (INT,), Decimal: (DECIMAL,), str: (STRING,), dt.timedelta: (DURATION,), dt.datetime: (TIME,),
}  # fmt: skip


@final
@frozen
class Around:
    """Be what holds around an expression: facts, the variables' types, the quantifiers it stands in."""

    facts: Facts = NONE
    variables: Mapping[str, Kinds] = {}
    quantifiers: int = 0
    positive: bool = True  # false below an odd number of `not`


@final
class Typer:
    """Infer the types in one rule; afterwards `declared` holds what was declared of its paths, by `id`."""

    __slots__ = (
        "approver",
        "asks_permitted",
        "certain",
        "declared",
        "effect",
        "marks_read",
        "report",
        "roots",
        "selection",
        "tracked",
    )

    def __init__(self, selection: Selection, effect: Effect, report: Reporter) -> None:
        self.selection = selection
        self.effect = effect
        self.report = report
        self.certain = Certainties(selection.world.resources)
        self.declared: dict[int, Declared] = {}
        self.roots: set[str] = set()
        self.tracked: set[str] = set()
        self.marks_read: set[str] = set()
        self.asks_permitted = False
        self.approver = False  # whether `approver` may be read

    def condition(self, expr: Expr, around: Around) -> None:
        """Check that `expr` is true or false."""
        kinds = self.infer(expr, around)
        if kinds is not _A_BOOL and kinds and "bool" not in categories(kinds):
            hint = "compare it with something; nothing counts as true or false but a bool"
            self.report.error(
                "not-a-condition", f"{text_of(expr)} is {called(kinds)}, not true or false", expr.span, hint
            )

    def infer(self, expr: Expr, around: Around) -> Kinds:
        """Return the types that `expr` may have; none where nothing is known, or it was reported."""
        return _INFER[type(expr)](self, expr, around)

    # ---- leaves

    def _literal(self, expr: Literal_, around: Around) -> Kinds:
        return _OF_VALUE[type(expr.value)]

    def _list(self, expr: ListOf, around: Around) -> Kinds:
        each = [self.infer(item, around) for item in expr.items]
        found = unite(*each) if each else ()
        return tuple(ListOfType(kind) for kind in found) or (ListOfType(ANYTHING),)

    def _path(self, expr: Path, around: Around) -> Kinds:
        return read_path(self, expr, around, guarded=False)

    def _exists(self, expr: Exists, around: Around) -> Kinds:
        read_path(self, expr.path, around, guarded=True)
        self._only_optional(expr, expr.path, around)
        return _A_BOOL

    def _default(self, expr: Default, around: Around) -> Kinds:
        kinds = read_path(self, expr.path, around, guarded=True)
        self._only_optional(expr, expr.path, around)
        fallback = self.infer(expr.fallback, around)
        if kinds and fallback and not comparable(kinds, fallback):
            message = f"{text_of(expr.path)} is {called(kinds)}, but its default is {called(fallback)}"
            self.report.error("type-mismatch", message, expr.fallback.span, "use a default of the same type")
            return ()
        return unite(kinds, fallback)

    def _only_optional(self, expr: Exists | Default, path: Path, around: Around) -> None:
        """Report, in a permit, a question after what is declared as always there."""
        if self.effect != "permit":
            return
        place = look_up(self.selection, (path.root, *path.steps), around.variables.get(path.root))
        reading = place.reading(None)
        if place.declared is None or not place.closed or reading.unknown or reading.optional:
            return
        asked = "`exists`" if isinstance(expr, Exists) else "a default"
        self.report.error(
            "needless-exists",
            f"{text_of(path)} is declared as always there, so {asked} says nothing",
            path.span,
            "read it as it is, or declare it as optional with `?`",
        )

    # ---- conditions

    def _not(self, expr: Not, around: Around) -> Kinds:
        self.condition(expr.operand, evolve(around, positive=not around.positive))
        return _A_BOOL

    def _and(self, expr: And, around: Around) -> Kinds:
        return self._junction(expr, around, self.certain.where(expr, True))

    def _or(self, expr: Or, around: Around) -> Kinds:
        return self._junction(expr, around, self.certain.where(expr, False))

    def _junction(self, expr: And | Or, around: Around, facts: Facts) -> Kinds:
        if facts is not NONE:
            around = evolve(around, facts=around.facts.both(facts))
        for operand in expr.operands:
            self.condition(operand, around)
        return _A_BOOL

    def _quantifier(self, expr: Quantifier, around: Around) -> Kinds:
        over = self.infer(expr.over, around)
        found = self._elements(expr.over, over)
        if around.quantifiers == MAX_QUANTIFIERS:
            message = f"quantifiers stand at most {MAX_QUANTIFIERS} deep in one another"
            self.report.error(
                "too-many-quantifiers", message, word_span(expr.span), "split the condition into several rules"
            )
            return _A_BOOL
        self._may_be_empty(expr, around)
        variables = {**around.variables, expr.variable: found}
        self.condition(expr.body, evolve(around, variables=variables, quantifiers=around.quantifiers + 1))
        return _A_BOOL

    def _elements(self, over: Expr, kinds: Kinds) -> Kinds:
        if isinstance(over, Path) and over.root == "session" and over.steps == ("marks",):
            self.marks_read |= self.selection.world.marks
            return (Enumeration(self.selection.world.marks),)
        if not kinds:
            return ()
        found = items(kinds)
        if found is None:
            hint = 'write `any x in ["a", "b"]: …`, or name a list'
            self.report.error("not-a-list", f"{text_of(over)} is {called(kinds)}, not a list", over.span, hint)
        return found or ()

    def _may_be_empty(self, expr: Quantifier, around: Around) -> None:
        if self.effect != "permit" or expr.kind != "every" or not around.positive or not isinstance(expr.over, Path):
            return
        key = (expr.over.root, *expr.over.steps)
        if key == ("chain",) or key == ("session", "marks") or key in around.facts.filled or self.approver:
            return
        path = text_of(expr.over)
        self.report.warning(
            "every-of-none",
            f"`every` is true where {path} is empty",
            word_span(expr.span),
            f"add `len({path.strip('`')}) > 0 and …` if that must not be enough",
        )

    # ---- comparisons

    def _compare(self, expr: Compare, around: Around) -> Kinds:
        left, right = self.infer(expr.left, around), self.infer(expr.right, around)
        compared.check(self, expr, left, right, around)
        return _A_BOOL

    def _like(self, expr: Like, around: Around) -> Kinds:
        kinds = self.infer(expr.operand, around)
        compared.no_bare_id(self, expr.operand, True, around, expr.span)
        if kinds and "string" not in categories(kinds):
            message = f"`like` works on a string, and {text_of(expr.operand)} is {called(kinds)}"
            self.report.error("type-mismatch", message, expr.operand.span)
        return _A_BOOL

    def _is(self, expr: Is, around: Around) -> Kinds:
        kinds = (
            read_path(self, expr.operand, around, guarded=True)
            if isinstance(expr.operand, Path)
            else (self.infer(expr.operand, around))
        )
        world = self.selection.world
        fitting = {"principal": frozenset(KINDS), "resource": frozenset(world.resources)}
        known = categories(kinds)
        if kinds and not known & fitting.keys():
            message = f"`is` asks about a principal or a resource, and {text_of(expr.operand)} is {called(kinds)}"
            self.report.error("type-mismatch", message, expr.operand.span)
            return _A_BOOL
        names = (
            frozenset[str]().union(*(fitting[name] for name in known & fitting.keys()))
            if kinds
            else (fitting["principal"] | fitting["resource"])
        )
        if expr.type_name not in names:
            self._unknown_type(expr, known, names)
        return _A_BOOL

    def _unknown_type(self, expr: Is, known: frozenset[str], names: frozenset[str]) -> None:
        code, what = (
            ("unknown-kind", "kind of principal") if known == {"principal"} else ("unknown-type", "resource type")
        )
        span = expr.span
        span = evolve(span, start=max(span.start, span.end - len(expr.type_name)))
        else_ = (
            None
            if code == "unknown-kind" or expr.type_name in ROOT_TYPES
            else f"declare it: `type {expr.type_name} {{ … }}`"
        )
        self.report.error(
            code,
            f"there is no {what} `{expr.type_name}`",
            span,
            FOREIGN.get(expr.type_name) or self.report.suggestion(expr.type_name, names, else_=else_),
        )

    # ---- arithmetic and functions

    def _arithmetic(self, expr: Arithmetic, around: Around) -> Kinds:
        left, right = self.infer(expr.left, around), self.infer(expr.right, around)
        found = result_of(expr.operator, left, right)
        if found is None:
            message = f"`{expr.operator}` isn't defined between {called(left)} and {called(right)}"
            hint = "it works on numbers, durations, and a time with a duration"
            self.report.error("type-mismatch", message, expr.span, hint)
        return found or ()

    def _negate(self, expr: Negate, around: Around) -> Kinds:
        kinds = self.infer(expr.operand, around)
        if kinds and not categories(kinds) & {"number", "duration"}:
            message = f"`-` works on a number or a duration, and {text_of(expr.operand)} is {called(kinds)}"
            self.report.error("type-mismatch", message, expr.operand.span)
            return ()
        return kinds

    def _call(self, expr: Call, around: Around) -> Kinds:
        function = FUNCTIONS.get(expr.name)
        self.asks_permitted |= expr.name == "permitted"
        each = [self.infer(arg, around) for arg in expr.args]
        named = {name: (value, self.infer(value, around)) for name, value in expr.named}
        if function is None or len(each) != len(function.params):
            return ()
        pairs = [*zip(function.params, expr.args, each, strict=True)]
        pairs += [
            (function.named[name], value, kinds) for name, (value, kinds) in named.items() if name in function.named
        ]
        fine = [self._argument(expr, wanted, arg, kinds) for wanted, arg, kinds in pairs]
        if all(fine):
            self._literals(expr)
        return (DAYS,) if expr.name == "weekday" else (function.result,)

    def _argument(self, call: Call, wanted: Type, arg: Expr, kinds: Kinds) -> bool:
        if call.name == "len":
            fits = not kinds or bool(categories(kinds) & {"string", "list"})
            what = "a string or a list"
        else:
            fits = wanted == ANYTHING or not kinds or category(wanted) in categories(kinds)
            what = f"a {category(wanted)}"
        if not fits:
            message = f"`{call.name}` takes {what}, and {text_of(arg)} is {called(kinds)}"
            hint = "ask `x in list` whether a list has an element" if call.name == "contains" else None
            self.report.error("type-mismatch", message, arg.span, hint)
        return fits

    def _literals(self, call: Call) -> None:
        """Try out what can be known of a call's arguments before any request."""
        function = FUNCTIONS[call.name]
        for index in sorted(function.literal):
            arg = call.args[index]
            if not isinstance(arg, Literal_):
                message = f"`{call.name}` takes a literal here, which is known when the policy is loaded"
                self.report.error("not-a-literal", message, arg.span, "write the value itself")
                return
        problem = probe(call)
        if call.name in ("began", "done"):
            self._track(call)
        elif problem is not None:
            index, message, hint = problem
            self.report.error("invalid-value", message, call.args[index].span, hint)

    def _track(self, call: Call) -> None:
        name = cast(str, cast(Literal_, call.args[0]).value)
        self.roots.add("session")
        if "*" in name or not name:
            message = f"`{call.name}` takes the exact name of one action"
            self.report.error("star-in-name", message, call.args[0].span, "name each action: `began(…) or began(…)`")
        self.tracked.add(name)


_INFER: Final[Mapping[type, Callable[..., Kinds]]] = {
    Literal_: Typer._literal,
    ListOf: Typer._list,
    Path: Typer._path,
    Exists: Typer._exists,
    Default: Typer._default,
    Call: Typer._call,
    Not: Typer._not,
    And: Typer._and,
    Or: Typer._or,
    Quantifier: Typer._quantifier,
    Compare: Typer._compare,
    Like: Typer._like,
    Is: Typer._is,
    Arithmetic: Typer._arithmetic,
    Negate: Typer._negate,
}
