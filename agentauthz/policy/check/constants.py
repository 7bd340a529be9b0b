"""Evaluate what is known without a request, and find conditions that can never be true."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias, final

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
_Demand: TypeAlias = tuple[Key, Expr | str | tuple[Expr, ...], bool, Span]


@final
class _NoConstant(enum.Enum):
    NO_CONSTANT = "no constant"


NO_CONSTANT: Final = _NoConstant.NO_CONSTANT


def constant(expr: Expr) -> Value:
    """Return the value of an expression that reads nothing, else NO_CONSTANT."""
    match expr:
        case Path():
            return NO_CONSTANT
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


def _result(apply: Callable[..., Value], values: tuple[Value, ...]) -> Value:
    if NO_CONSTANT in values:
        return NO_CONSTANT
    result = apply(*values)
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
    if isinstance(left, Path) or isinstance(right, Path):
        return None
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
    demands: dict[Key, list[_Demand]] = {}
    for conjunct, positive in _conjuncts(expr, True):
        for key, other, fits, span in _demands(conjunct, positive):
            demands.setdefault(key, []).append((key, other, fits, span))
    for asked in demands.values():
        clash = _clash(asked) if len(asked) > 1 else None
        if clash is not None:
            return clash
    return None


def _clash(asked: list[_Demand]) -> tuple[Span, Span] | None:
    wanted = _Wanted()
    for _, other, fits, span in asked:
        values = _values(other)
        clash = None if values is None else _narrow(wanted, values, fits, span)
        if clash is not None:
            return span, clash
    return None


def _values(other: Expr | str | tuple[Expr, ...]) -> frozenset[Value] | None:
    """Return the values that a demand names, or None where they aren't known."""
    if isinstance(other, str):
        return frozenset({_exact(other)})
    known = tuple(map(constant, other)) if isinstance(other, tuple) else (constant(other),)
    return None if NO_CONSTANT in known or not known else frozenset(map(_exact, known))


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


def _demands(expr: Expr, positive: bool) -> Iterator[_Demand]:
    """Find which path a condition asks for which values: one, one of a list, or of a kind."""
    match expr:
        case Compare("==" | "!=" as operator, left, right):
            for side, other in ((left, right), (right, left)):
                if isinstance(side, Path):
                    yield (side.root, *side.steps), other, (operator == "==") is positive, expr.span
        case Compare("in" | "not in" as operator, Path() as path, ListOf(items)):
            yield (path.root, *path.steps), items, (operator == "in") is positive, expr.span
        case Is(Path() as path, name):
            part = "kind" if name in KINDS else "type"
            yield (path.root, *path.steps, part), name, positive, expr.span
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
