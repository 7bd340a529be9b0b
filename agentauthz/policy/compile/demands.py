"""Find what a rule's condition demands of the inputs: equalities and memberships that its conjunction can't do without.

Where an input that is demanded has another value, of the same type, the rule is false, whatever else it says.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from agentauthz.policy.check.constants import NO_CONSTANT, constant
from agentauthz.policy.compile.values import KINDRED
from agentauthz.policy.syntax import And, CheckedRule, Compare, Expr, Is, Or, Path
from agentauthz.policy.types import Type
from agentauthz.principals import Principal
from agentauthz.values import Value

_Operator: TypeAlias = Literal["==", "holds", "is"]
_MOST_KEYS: Final = 64  # of one demand; more don't select


class Slot(NamedTuple):
    """Be what can be looked up at once: one path, asked in one way, for values of one type."""

    operator: _Operator
    types: frozenset[type]
    root: str
    steps: tuple[str, ...]
    declared: frozenset[tuple[str | None, Type]] | None


class Demand(NamedTuple):
    """Be the keys of which one must be found at `path`; where it is, `operand` is true."""

    slot: Slot
    keys: tuple[Hashable, ...]
    path: Path
    operand: Expr


class Entry(NamedTuple):
    """Be a rule with its number, the operands of its conjunction that are still to be asked, and what they demand."""

    number: int
    rule: CheckedRule
    operands: tuple[Expr, ...]
    demands: tuple[Demand, ...]

    @property
    def condition(self) -> Expr | None:
        """Return what is left of the rule's condition; None: it is true."""
        if len(self.operands) < 2:
            return self.operands[0] if self.operands else None
        return And(self.operands, span=self.rule.span)

    def given(self, met: Demand) -> Entry:
        """Return the rule where one of its demands is met."""
        operands = tuple(operand for operand in self.operands if operand is not met.operand)
        return self._replace(operands=operands, demands=tuple(other for other in self.demands if other is not met))

    def without(self, slot: Slot) -> Entry:
        """Return the rule to be asked whatever it demands of a slot."""
        return self._replace(demands=tuple(other for other in self.demands if other.slot != slot))


def entry(number: int, rule: CheckedRule) -> Entry:
    """Return a rule with what it demands."""
    operands = tuple(conjunction(rule.condition))
    return Entry(number, rule, operands, tuple(found for operand in operands if (found := demand(operand)) is not None))


def conjunction(condition: Expr | None) -> Iterator[Expr]:
    """Return the operands of a condition's outermost `and`, in the order of the text."""
    if isinstance(condition, And):
        for operand in condition.operands:
            yield from conjunction(operand)
    elif condition is not None:
        yield condition


def demand(operand: Expr) -> Demand | None:
    """Return what an operand of a conjunction demands, if anything can be looked up for it."""
    found = _demand(operand)
    return found if found is None or len(found.keys) <= _MOST_KEYS else None


def _demand(expr: Expr) -> Demand | None:
    match expr:
        case Compare("==", Path() as path, other) | Compare("==", other, Path() as path):
            return _equal(expr, path, (constant(other),))
        case Compare("in", Path() as path, listed) if isinstance(known := constant(listed), tuple):
            return _equal(expr, path, known)
        case Compare("in", item, Path() as path) if type(text := constant(item)) is str:
            return Demand(_slot("holds", frozenset({str}), path), (text,), path, expr)
        case Is(Path() as path, name):
            return Demand(_slot("is", frozenset(), path), (name,), path, expr)
        case Or(operands):
            return _united(expr, [_demand(operand) for operand in operands])
        case _:
            return None


def _equal(operand: Expr, path: Path, values: tuple[Value, ...]) -> Demand | None:
    types = {KINDRED.get(type(value)) for value in values}
    if len(types) != 1 or None in types or NO_CONSTANT in values:
        return None
    kind = cast("frozenset[type]", types.pop())
    keys = (value.identity if isinstance(value, Principal) else value for value in values)
    return Demand(_slot("==", kind, path), tuple(dict.fromkeys(keys)), path, operand)


def _united(operand: Expr, found: list[Demand | None]) -> Demand | None:
    first = found[0]
    # a set may hold two of the keys, a path has one value only
    if first is None or first.slot.operator == "holds" or any(d is None or d.slot != first.slot for d in found):
        return None
    keys = dict.fromkeys(key for demand in found if demand is not None for key in demand.keys)
    return Demand(first.slot, tuple(keys), first.path, operand)


def _slot(operator: _Operator, types: frozenset[type], path: Path) -> Slot:
    declared = None if path.declared is None else frozenset(path.declared.items())
    return Slot(operator, types, path.root, path.steps, declared)
