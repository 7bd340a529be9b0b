"""Compile conditions: each node of the policy becomes Python's, with the three answers as True, False and None."""

from __future__ import annotations

import ast
import enum
from collections.abc import Callable, Sequence
from typing import Final, cast, final

from agentauthz.policy.builtins import ARITHMETIC, FUNCTIONS, is_type, like, negate, negation
from agentauthz.policy.check.constants import NO_CONSTANT, constant
from agentauthz.policy.compile.operands import PRINCIPAL_ROOTS, Operand, Paths
from agentauthz.policy.compile.values import KINDRED, LISTS, ORDERED, called, compared, lacks, liked
from agentauthz.policy.evaluate import MAX_LOOP, size
from agentauthz.policy.syntax import (
    And,
    Arithmetic,
    Call,
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
    Quantifier,
)
from agentauthz.principals import Principal
from agentauthz.values import ABSENT, INVALID, UNKNOWN, Entity


class Mode(enum.Enum):
    """Tell what is asked of a condition."""

    TRUE = "whether it is true"
    FALSE = "whether it is false"
    ANSWER = "its answer"
    OPPOSITE = "the answer of its negation"


_NEGATED: Final = {
    Mode.TRUE: Mode.FALSE,
    Mode.FALSE: Mode.TRUE,
    Mode.ANSWER: Mode.OPPOSITE,
    Mode.OPPOSITE: Mode.ANSWER,
}
_OPERATORS: Final[dict[str, type[ast.cmpop]]] = {
    "==": ast.Eq,
    "!=": ast.NotEq,
    "<": ast.Lt,
    "<=": ast.LtE,
    ">": ast.Gt,
    ">=": ast.GtE,
}
_MIRRORED: Final = {"==": "==", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_TEXT_METHODS: Final = {"starts_with": "startswith", "ends_with": "endswith"}
_TEXT: Final = frozenset({str})


@final
class Conditions:
    """Compile conditions into expressions; `functions` are the loops that they call."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.python = paths.python
        self.functions: list[ast.stmt] = []
        self._rounds: str | None = None  # the name of what counts the rounds of the quantifiers around this place

    def condition(self, expr: Expr, mode: Mode) -> ast.expr:
        """Return code that gives what `mode` asks of a condition."""
        if isinstance(expr, Not):
            return self.condition(expr.operand, _NEGATED[mode])
        if isinstance(expr, And | Or):
            every = isinstance(expr, And) is (mode in (Mode.TRUE, Mode.ANSWER))
            return self._junction(expr.operands, mode, every=every)
        self.python.at(expr.span)
        return _CONDITIONS.get(type(expr), Conditions._truth_value)(self, expr, mode)

    def value(self, expr: Expr) -> ast.expr:
        """Return code that gives a policy value or a sentinel: INVALID for what is undetermined."""
        python = self.python
        known = constant(expr)
        if known is not NO_CONSTANT:
            return python.use(known)
        python.at(expr.span)
        match expr:
            case Path():
                return self.paths.value(self.paths.operand(expr))
            case ListOf(items):
                return python.several([self.value(item) for item in items])
            case Default(path, fallback):
                test, again = self.paths.bound(self.value(path))
                return python.choose(python.same(test, python.use(ABSENT)), self.value(fallback), again())
            case Arithmetic(operator, left, right):
                return python.call(python.use(ARITHMETIC[operator]), self.value(left), self.value(right))
            case Negate(operand):
                return python.call(python.use(negate), self.value(operand))
            case Call(name, args, named) if FUNCTIONS[name].apply is not None:
                values = [python.several([self.value(arg) for arg in args])]
                if named:
                    values.append(python.mapping([(python.use(key), self.value(arg)) for key, arg in named]))
                if self._rounds is not None:
                    return python.call(python.use(called), python.use(FUNCTIONS[name]), self._around(), *values)
                return python.call(python.use(FUNCTIONS[name]), *values)
            case _:
                test, again = self.paths.bound(self.condition(expr, Mode.ANSWER))
                return python.choose(python.same(test, python.fixed(None)), python.use(INVALID), again())

    def operand(self, expr: Expr) -> Operand:
        """Return code for an expression, and what is known of its value."""
        known = constant(expr)
        if known is not NO_CONSTANT:
            return Operand(self.python.use(known), known=known)
        if isinstance(expr, Path):
            self.python.at(expr.span)
            return self.paths.operand(expr)
        return Operand(self.value(expr))

    # ---- what an answer is made of

    def _tested(self, guard: ast.expr | None, test: ast.expr, mode: Mode) -> ast.expr:
        """Return `test`'s answer, which is undetermined where `guard` is false."""
        python = self.python
        if mode in (Mode.FALSE, Mode.OPPOSITE):
            test = python.negated(test)
        if guard is None:
            return test
        if mode in (Mode.TRUE, Mode.FALSE):
            return python.both([guard, test])
        return python.choose(guard, test, python.fixed(None))

    def _answered(self, answer: ast.expr, mode: Mode) -> ast.expr:
        """Return what `mode` asks of code that gives one of the three answers."""
        python = self.python
        if mode is Mode.ANSWER:
            return answer
        if mode is Mode.OPPOSITE:
            return python.call(python.use(negation), answer)
        return python.same(answer, python.fixed(mode is Mode.TRUE))

    def _junction(self, operands: Sequence[Expr], mode: Mode, *, every: bool) -> ast.expr:
        python = self.python
        if mode in (Mode.TRUE, Mode.FALSE):
            parts = [self.condition(operand, mode) for operand in operands]
            return python.both(parts) if every else python.either(parts)
        negative = mode is Mode.OPPOSITE
        settled: list[ast.expr] = []
        unsettled: list[ast.expr] = []
        for operand in operands:
            if _certain(operand):
                settled.append(self.condition(operand, Mode.FALSE if every is not negative else Mode.TRUE))
                continue
            name = python.fresh()
            settled.append(python.same(python.bind(name, self.condition(operand, mode)), python.fixed(not every)))
            unsettled.append(python.same(python.name(name), python.fixed(None)))
        # where none of them settles it, each is the other answer or undetermined
        rest = python.fixed(every)
        if unsettled:
            rest = python.choose(python.either(unsettled), python.fixed(None), rest)
        return python.choose(python.either(settled), python.fixed(not every), rest)

    def _truth_value(self, expr: Expr, mode: Mode) -> ast.expr:
        """Compile a value in a condition's place: a bool is an answer, all else is undetermined."""
        python = self.python
        operand = self.operand(expr)
        if operand.types is not None and bool not in operand.types:
            return python.fixed(None if mode in (Mode.ANSWER, Mode.OPPOSITE) else False)
        if mode in (Mode.TRUE, Mode.FALSE):
            return python.same(operand.code, python.fixed(mode is Mode.TRUE))
        guard, again = self.paths.guard(operand, frozenset({bool}))
        return self._tested(guard, again(), mode)

    # ---- leaves

    def _compare(self, expr: Compare, mode: Mode) -> ast.expr:
        if expr.operator == "!=":
            return self._equality(expr.left, "==", expr.right, _NEGATED[mode])
        if expr.operator == "in":
            return self._member(expr.left, expr.right, mode)
        if expr.operator == "not in":
            return self._member(expr.left, expr.right, _NEGATED[mode])
        return self._equality(expr.left, expr.operator, expr.right, mode)

    def _equality(self, left: Expr, operator: str, right: Expr, mode: Mode) -> ast.expr:
        python = self.python
        if constant(left) is not NO_CONSTANT:
            left, operator, right = right, _MIRRORED[operator], left
        if operator == "==" and _is_principal(left) and _is_principal(right):
            ours, theirs = (self._identity(cast(Path, side)) for side in (left, right))
            return self._tested(None, python.compare(ours, ast.Eq(), theirs), mode)
        known = constant(right)
        types = KINDRED.get(type(known)) if operator == "==" or type(known) in ORDERED else None
        if types is None:
            if operator == "==" and mode is Mode.OPPOSITE:
                return self._compared(left, "!=", right)
            return self._answered(self._compared(left, operator, right), mode)
        if isinstance(known, Principal):
            return self._one_of(left, frozenset({known}), mode)
        guard, again = self.paths.guard(self.operand(left), types)
        if isinstance(known, bool):
            return self._tested(guard, python.same(again(), python.fixed(known)), mode)
        return self._tested(guard, python.compare(again(), _OPERATORS[operator](), python.use(known)), mode)

    def _compared(self, left: Expr, operator: str, right: Expr) -> ast.expr:
        """Compile a comparison of what isn't known before; most that are equal or not are strings."""
        python = self.python
        if operator not in ("==", "!=") or not isinstance(right, Path):
            return self._asked(operator, self.value(left), self.value(right))
        text = python.use(str)
        (ours, again), (theirs, once_more) = (self.paths.bound(self.value(side)) for side in (left, right))
        texts = python.both([python.same(python.type_of(side), text) for side in (ours, theirs)])
        same = python.compare(again(), _OPERATORS[operator](), once_more())
        # the right side wasn't read yet where the left one is no string
        return python.choose(texts, same, self._asked(operator, again(), self.value(right)))

    def _asked(self, operator: str, left: ast.expr, right: ast.expr) -> ast.expr:
        """Compile a comparison that the table of operators makes, within the bound of what loops may look at."""
        return self.python.call(self.python.use(compared), self.python.use(operator), left, right, self._around())

    def _identity(self, path: Path) -> ast.expr:
        return self.python.attribute(self.paths.root(path.root), "identity")

    def _member(self, item: Expr, collection: Expr, mode: Mode) -> ast.expr:
        python = self.python
        known = constant(collection)
        if self._rounds is not None:
            return self._answered(self._asked("in", self.value(item), self.value(collection)), mode)
        if known == ():
            return self._tested(None, python.fixed(False), mode)
        if isinstance(known, tuple) and len({KINDRED.get(type(element)) for element in known} - {None}) == 1:
            if all(type(element) in KINDRED for element in known):
                return self._one_of(item, frozenset(known), mode)
        if type(text := constant(item)) is str:
            return self._holds(collection, text, mode)
        return self._answered(self._asked("in", self.value(item), self.value(collection)), mode)

    def _one_of(self, item: Expr, known: frozenset[object], mode: Mode) -> ast.expr:
        """Compile `item in […]`, and `item == …`, where all that is listed is known and of one type."""
        python = self.python
        kind = type(next(iter(known)))
        guard: ast.expr | None = None
        if kind is not Principal:
            guard, again = self.paths.guard(self.operand(item), KINDRED[kind])
            return self._tested(guard, python.compare(again(), ast.In(), python.use(known)), mode)
        identities = frozenset(cast(Principal, principal).identity for principal in known)
        if _is_principal(item):
            code = self._identity(cast(Path, item))
        else:
            guard, again = self.paths.guard(self.operand(item), KINDRED[kind])
            code = python.attribute(again(), "identity")
        if len(identities) == 1:
            return self._tested(guard, python.compare(code, ast.Eq(), python.use(next(iter(identities)))), mode)
        return self._tested(guard, python.compare(code, ast.In(), python.use(identities)), mode)

    def _holds(self, collection: Expr, text: str, mode: Mode) -> ast.expr:
        """Compile `"text" in collection`; only what is not found needs a look at the other elements' types."""
        python = self.python
        guard, again = self.paths.guard(self.operand(collection), LISTS)
        found = python.compare(python.use(text), ast.In(), again())
        if mode is Mode.TRUE:
            return python.both([guard, found])
        missed = python.call(python.use(lacks), again())
        answer = python.choose(found, python.fixed(True), missed)
        return self._answered(python.choose(guard, answer, python.fixed(None)), mode)

    def _like(self, expr: Like, mode: Mode) -> ast.expr:
        python, parts = self.python, expr.parts
        if self._rounds is not None:
            asked = python.call(python.use(liked), self.value(expr.operand), python.use(parts), self._around())
            return self._answered(asked, mode)
        if len(parts) > 2 or ("" not in parts and len(parts) == 2):
            function = python.use(like)
            return self._answered(python.call(function, self.value(expr.operand), python.use(parts)), mode)
        guard, again = self.paths.guard(self.operand(expr.operand), _TEXT)
        if len(parts) == 1:
            return self._tested(guard, python.compare(again(), ast.Eq(), python.use(parts[0])), mode)
        method, text = ("startswith", parts[0]) if parts[1] == "" else ("endswith", parts[1])
        return self._tested(guard, python.call(python.attribute(again(), method), python.use(text)), mode)

    def _is(self, expr: Is, mode: Mode) -> ast.expr:
        python, name = self.python, expr.type_name
        if _is_principal(expr.operand):
            kind = python.attribute(self.paths.root(cast(Path, expr.operand).root), "kind")
            return self._tested(None, python.compare(kind, ast.Eq(), python.use(name)), mode)
        if isinstance(expr.operand, Path) and expr.operand.root == "resource" and not expr.operand.steps:
            test, again = self.paths.bound(self.paths.root("resource"))
            guard = python.both([python.other(test, python.use(UNKNOWN)), python.other(again(), python.use(INVALID))])
            its_type = python.item(again(), python.use("type"))
            same = python.compare(its_type, ast.Eq(), python.use(name))
            return self._tested(guard, python.both([python.is_one_of(again(), frozenset({Entity})), same]), mode)
        return self._answered(python.call(python.use(is_type), self.value(expr.operand), python.use(name)), mode)

    def _exists(self, expr: Exists, mode: Mode) -> ast.expr:
        python = self.python
        test, again = self.paths.bound(self.value(expr.path))
        guard = python.both([python.other(test, python.use(UNKNOWN)), python.other(again(), python.use(INVALID))])
        return self._tested(guard, python.other(again(), python.use(ABSENT)), mode)

    def _call(self, expr: Call, mode: Mode) -> ast.expr:
        python, paths = self.python, self.paths
        if expr.name == "permitted":
            who = python.use(cast(Path, expr.args[0]).root)
            return self._answered(python.call(python.attribute(paths.inputs, "permitted"), who), mode)
        if expr.name in ("began", "done"):
            known = [python.use(constant(arg)) for arg in expr.args]
            asked = python.attribute(paths.inputs, "seen_within")
            return self._answered(python.call(asked, python.use(expr.name), *known), mode)
        text = constant(expr.args[-1])
        if expr.name not in ("starts_with", "ends_with", "contains") or type(text) is not str:
            return self._truth_value(expr, mode)
        guard, again = paths.guard(self.operand(expr.args[0]), _TEXT)
        if expr.name == "contains":
            return self._tested(guard, python.compare(python.use(text), ast.In(), again()), mode)
        method = python.attribute(again(), _TEXT_METHODS[expr.name])
        return self._tested(guard, python.call(method, python.use(text)), mode)

    # ---- loops

    def _quantifier(self, expr: Quantifier, mode: Mode) -> ast.expr:
        python, paths = self.python, self.paths
        over = self.value(expr.over)
        outer = [python.name(name) for name in paths.variables.values()]
        function = self._loop(expr)
        return self._answered(python.call(python.name(function), paths.inputs, self._around(), over, *outer), mode)

    def _around(self) -> ast.expr:
        """Return code for how often the quantifiers around this place go round."""
        return self.python.fixed(1) if self._rounds is None else self.python.name(self._rounds)

    def _loop(self, expr: Quantifier) -> str:
        """Define the function that a quantifier is, and return its name."""
        python, paths = self.python, self.paths
        around = (paths.variables, paths.looping, self._rounds)
        function, element, answer, result = (python.fresh() for _ in range(4))
        parameters = ["inputs", "rounds", "over", *paths.variables.values()]
        paths.variables, paths.looping, self._rounds = {**paths.variables, expr.variable: element}, True, "rounds"
        settles = expr.kind == "any"
        body = [
            python.assign(answer, self.condition(expr.body, Mode.ANSWER)),
            python.when(python.same(python.name(answer), python.fixed(settles)), [python.give(python.fixed(settles))]),
            python.when(
                python.same(python.name(answer), python.fixed(None)), [python.assign(result, python.fixed(None))]
            ),
        ]
        paths.variables, paths.looping, self._rounds = around
        nodes = python.fixed(size(expr.body))
        entered = python.call(python.use(_enter), python.name("over"), python.name("rounds"), nodes)
        statements = [
            python.assign("rounds", entered),
            python.when(python.same(python.name("rounds"), python.fixed(None)), [python.give(python.fixed(None))]),
            python.assign(result, python.fixed(not settles)),
            python.each(element, python.name("over"), body),
            python.give(python.name(result)),
        ]
        self.functions.append(python.function(function, parameters, statements))
        return function


def _enter(over: object, rounds: int, nodes: int) -> int | None:
    """Return how often a quantifier's body goes round in all, or None where it can't, or mustn't."""
    if type(over) not in LISTS:
        return None
    rounds *= len(cast("tuple[object, ...]", over))
    return None if rounds * nodes > MAX_LOOP else rounds


def _certain(expr: Expr) -> bool:
    """Say whether an operand is about who acts, which is never undetermined."""
    match expr:
        case Is(operand):
            return _is_principal(operand)
        case Compare("==" | "!=", left, right):
            return all(_is_principal(side) or type(constant(side)) is Principal for side in (left, right))
        case _:
            return False


def _is_principal(expr: Expr) -> bool:
    return isinstance(expr, Path) and expr.root in PRINCIPAL_ROOTS and not expr.steps


_CONDITIONS: Final[dict[type, Callable[..., ast.expr]]] = {
    Compare: Conditions._compare,
    Like: Conditions._like,
    Is: Conditions._is,
    Exists: Conditions._exists,
    Call: Conditions._call,
    Quantifier: Conditions._quantifier,
    Literal_: Conditions._truth_value,
}
