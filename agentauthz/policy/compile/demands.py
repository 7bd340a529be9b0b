"""Find what a rule's condition demands of the inputs: equalities and memberships that its conjunction can't do without.

Where an input that is demanded has another value, of the same type, the rule is false, whatever else it says.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from agentauthz.policy.check.constants import NO_CONSTANT, constant
from agentauthz.policy.compile.values import KINDRED
from agentauthz.policy.syntax import And, Compare, Expr, Is, Or, Path
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
    """Be the keys of which one must be found in a slot; `path` is the one to read."""

    slot: Slot
    keys: tuple[Hashable, ...]
    path: Path


def demands(condition: Expr | None) -> Iterator[Demand]:
    """Return the demands of a rule's condition, in the order of the text."""
    if isinstance(condition, And):
        for operand in condition.operands:
            yield from demands(operand)
    elif condition is not None:
        found = _demand(condition)
        if found is not None and len(found.keys) <= _MOST_KEYS:
            yield found


def _demand(expr: Expr) -> Demand | None:
    match expr:
        case Compare("==", Path() as path, other) | Compare("==", other, Path() as path):
            return _equal(path, (constant(other),))
        case Compare("in", Path() as path, listed) if isinstance(known := constant(listed), tuple):
            return _equal(path, known)
        case Compare("in", item, Path() as path) if type(text := constant(item)) is str:
            return Demand(_slot("holds", frozenset({str}), path), (text,), path)
        case Is(Path() as path, name):
            return Demand(_slot("is", frozenset(), path), (name,), path)
        case Or(operands):
            return _united([_demand(operand) for operand in operands])
        case _:
            return None


def _equal(path: Path, values: tuple[Value, ...]) -> Demand | None:
    types = {KINDRED.get(type(value)) for value in values}
    if len(types) != 1 or None in types or NO_CONSTANT in values:
        return None
    kind = cast("frozenset[type]", types.pop())
    keys = (value.identity if isinstance(value, Principal) else value for value in values)
    return Demand(_slot("==", kind, path), tuple(dict.fromkeys(keys)), path)


def _united(found: list[Demand | None]) -> Demand | None:
    first = found[0]
    # a set may hold two of the keys, a path has one value only
    if first is None or first.slot.operator == "holds" or any(d is None or d.slot != first.slot for d in found):
        return None
    keys = dict.fromkeys(key for demand in found if demand is not None for key in demand.keys)
    return Demand(first.slot, tuple(keys), first.path)


def _slot(operator: _Operator, types: frozenset[type], path: Path) -> Slot:
    declared = None if path.declared is None else frozenset(path.declared.items())
    return Slot(operator, types, path.root, path.steps, declared)
