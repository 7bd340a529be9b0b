"""Evaluate what is known without a request, and find conditions that can never be true."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias, final

from attrs import define, field

from agentauthz.policy.builtins import (
    ARITHMETIC,
    COMPARISONS,
    FUNCTIONS,
    ORDERED,
    Answer,
    all_of,
    any_of,
    like,
    negate,
    negation,
)
from agentauthz.policy.source import Span
from agentauthz.policy.syntax import (
    And,
    Arithmetic,
    Call,
    Compare,
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
from agentauthz.principals import KINDS
from agentauthz.values import INVALID, Value

Key: TypeAlias = tuple[str, ...]


@final
class _NoConstant(enum.Enum):
    NO_CONSTANT = "no constant"


NO_CONSTANT: Final = _NoConstant.NO_CONSTANT


def constant(expr: Expr) -> Value:
    """Return the value of an expression that reads nothing, else NO_CONSTANT."""
    match expr:
        case Literal_(value):
            return value
        case ListOf(items):
            known = tuple(map(constant, items))
            return NO_CONSTANT if NO_CONSTANT in known else known
        case Negate(operand):
            return _result(negate, (constant(operand),))
        case Arithmetic(operator, left, right):
            return _result(ARITHMETIC[operator], (constant(left), constant(right)))
        case Call(name, args, named) if name in FUNCTIONS and FUNCTIONS[name].apply is not None:
            return _call(name, tuple(map(constant, args)), {key: constant(value) for key, value in named})
        case _:
            return NO_CONSTANT


def _result(apply: object, values: tuple[Value, ...]) -> Value:
    if NO_CONSTANT in values:
        return NO_CONSTANT
    result = apply(*values)  # type: ignore[operator]
    return NO_CONSTANT if result is INVALID else result


def _call(name: str, args: tuple[Value, ...], named: dict[str, Value]) -> Value:
    function = FUNCTIONS[name]
    if NO_CONSTANT in args or NO_CONSTANT in named.values():
        return NO_CONSTANT
    if len(args) != len(function.params) or not named.keys() <= function.named.keys():
        return NO_CONSTANT
    result = function(args, named)
    return NO_CONSTANT if result is INVALID else result


def answer(expr: Expr) -> Answer:
    """Return what a condition is in every request, or None where that depends."""
    match expr:
        case Literal_(value):
            return value if isinstance(value, bool) else None
        case Not(operand):
            return negation(answer(operand))
        case And(operands):
            known = all_of(map(answer, operands))
            return False if known is None and contradiction(expr) is not None else known
        case Or(operands):
            return any_of(map(answer, operands))
        case Compare(operator, left, right):
            return _compared(operator, left, right)
        case Like(operand, parts):
            known_text = constant(operand)
            return None if known_text is NO_CONSTANT else like(known_text, parts)
        case Quantifier():
            return _quantified(expr)
        case _:
            known_value = constant(expr)
            return known_value if isinstance(known_value, bool) else None


def _compared(operator: str, left: Expr, right: Expr) -> Answer:
    if operator in ("in", "not in") and isinstance(right, ListOf) and not right.items:
        return operator == "not in"
    values = constant(left), constant(right)
    return None if NO_CONSTANT in values else COMPARISONS[operator](*values)


def _quantified(expr: Quantifier) -> Answer:
    if isinstance(expr.over, ListOf) and not expr.over.items:
        return expr.kind == "every"
    body = answer(expr.body)
    # over an empty list, `any` is false and `every` true whatever the body says
    return body if body is (expr.kind == "every") else None


# ---- contradictions


@final
@define
class _Wanted:
    """Be what one conjunction asks of one path: the values that fit, and those that don't."""

    fitting: dict[Value, Span] | None = None
    excluded: dict[Value, Span] = field(factory=dict)


def contradiction(expr: And) -> tuple[Span, Span] | None:
    """Return two places in a conjunction that ask the same path for different values."""
    wanted: dict[Key, _Wanted] = {}
    for conjunct, positive in _conjuncts(expr, True):
        for key, values, fits, span in _demands(conjunct, positive):
            clash = _narrow(wanted.setdefault(key, _Wanted()), values, fits, span)
            if clash is not None:
                return span, clash
    return None


def _conjuncts(expr: Expr, positive: bool) -> Iterator[tuple[Expr, bool]]:
    match expr:
        case Not(operand):
            yield from _conjuncts(operand, not positive)
        case And(operands) if positive:
            for operand in operands:
                yield from _conjuncts(operand, True)
        case Or(operands) if not positive:
            for operand in operands:
                yield from _conjuncts(operand, False)
        case _:
            yield expr, positive


def _narrow(wanted: _Wanted, values: frozenset[Value], fits: bool, span: Span) -> Span | None:
    """Add one demand; return the place of an earlier one that rules it out."""
    if not fits:
        wanted.excluded.update(dict.fromkeys(values, span))
    before = wanted.fitting
    if fits:
        wanted.fitting = dict.fromkeys(values if before is None else values & before.keys(), span)
    if wanted.fitting is None:
        return None
    left = wanted.fitting.keys() - wanted.excluded.keys()
    if left:
        return None
    earlier = [*(before or {}).values(), *wanted.excluded.values()]
    return next((place for place in earlier if place != span), span)


_Demand: TypeAlias = tuple[Key, frozenset[Value], bool, Span]


def _demands(expr: Expr, positive: bool) -> Iterator[_Demand]:
    match expr:
        case Compare("==" | "!=" as operator, Path() as path, other) | Compare(
            "==" | "!=" as operator, other, Path() as path
        ):
            value = constant(other)
            if value is not NO_CONSTANT:
                yield (path.root, *path.steps), frozenset({_exact(value)}), (operator == "==") is positive, expr.span
        case Compare("in" | "not in" as operator, Path() as path, ListOf() as other):
            values = constant(other)
            if isinstance(values, tuple) and values:
                each = frozenset(map(_exact, values))
                yield (path.root, *path.steps), each, (operator == "in") is positive, expr.span
        case Is(Path() as path, name):
            part: Literal["kind", "type"] = "kind" if name in KINDS else "type"
            yield (path.root, *path.steps, part), frozenset({_exact(name)}), positive, expr.span
        case _:
            return


def _exact(value: Value) -> Value:
    """Return a key that is equal where the policy's `==` is true: True is not 1."""
    if isinstance(value, tuple):
        return tuple(map(_exact, value))
    return ORDERED.get(type(value), type(value).__name__), value


def never(expr: Expr) -> tuple[str, Span, tuple[tuple[str, Span], ...]] | None:
    """Say why a condition is never true, at the place where it is decided; None where it may be."""
    if answer(expr) is not False:
        return None
    if isinstance(expr, And):
        for operand in expr.operands:
            if (found := never(operand)) is not None:
                return found
        clash = contradiction(expr)
        if clash is not None:
            other = (("this asks for something else", clash[1]),) if clash[0] != clash[1] else ()
            return "these demands can't all hold", clash[0], other
    return "this is never true", expr.span, ()
