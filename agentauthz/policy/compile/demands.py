"""Find what a rule's condition demands of the inputs: equalities and memberships that its conjunction can't do without.

Where an input that is demanded has another value, of the same type, the rule is false, whatever else it says.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from agentauthz.policy.check.constants import NO_CONSTANT, constant
from agentauthz.policy.compile.values import KINDRED
from agentauthz.policy.syntax import And, CheckedRule, Compare, Expr, Is, Or, Path
from agentauthz.policy.types import Declared
from agentauthz.principals import Principal
from agentauthz.values import Value

_Operator: TypeAlias = Literal["==", "holds", "is"]
_TYPES: Final = {kind.__name__: kind for kind in KINDRED}
_MOST_KEYS: Final = 64  # of one demand; more don't select


class Slot(NamedTuple):
    """Be what can be looked up at once: one path, asked in one way, for values of one type."""

    operator: _Operator
    types: frozenset[type]
    root: str
    steps: tuple[str, ...]
    declared: Declared | None

    def plain(self) -> tuple[object, ...]:
        """Return the slot's parts, to be written down."""
        names = tuple(sorted(kind.__name__ for kind in self.types))
        return self.operator, names, self.root, self.steps, self.declared

    @classmethod
    def of(
        cls,
        operator: _Operator,
        names: tuple[str, ...],
        root: str,
        steps: tuple[str, ...],
        declared: Declared | None,
    ) -> Slot:
        """Return the slot of parts that were written down."""
        return cls(operator, frozenset(_TYPES[name] for name in names), root, steps, declared)


class Demand(NamedTuple):
    """Be the keys of which one must be found in a slot; where it is, the operand at `place` is true."""

    slot: Slot
    keys: tuple[Hashable, ...]
    place: int  # in the conjunction


class Entry(NamedTuple):
    """Be a rule with its number, what it demands, and the places of the operands that are known to be true."""

    number: int
    rule: CheckedRule
    demands: tuple[Demand, ...]
    met: frozenset[int] = frozenset()

    @property
    def condition(self) -> Expr | None:
        """Return what is left of the rule's condition; None: it is true."""
        if not self.met:
            return self.rule.condition
        operands = tuple(o for place, o in enumerate(_conjunction(self.rule.condition)) if place not in self.met)
        if len(operands) < 2:
            return operands[0] if operands else None
        return And(operands, span=self.rule.span)

    def given(self, met: Demand) -> Entry:
        """Return the rule where one of its demands is met."""
        rest = tuple(demand for demand in self.demands if demand is not met)
        return Entry(self.number, self.rule, rest, self.met | {met.place})

    def without(self, slot: Slot) -> Entry:
        """Return the rule to be asked whatever it demands of a slot."""
        return self._replace(demands=tuple(demand for demand in self.demands if demand.slot != slot))

    def path(self, slot: Slot) -> Path:
        """Return the path that the rule demands something of, in a slot."""
        place = next(demand.place for demand in self.demands if demand.slot == slot)
        found = _look(list(_conjunction(self.rule.condition))[place])
        assert found is not None
        return found.path


def demands(rule: CheckedRule) -> tuple[Demand, ...]:
    """Return what a rule demands, in the order of the text."""
    looks = ((place, _look(operand)) for place, operand in enumerate(_conjunction(rule.condition)))
    return tuple(
        Demand(look.slot, look.keys, place)
        for place, look in looks
        if look is not None and len(look.keys) <= _MOST_KEYS
    )


class _Look(NamedTuple):
    """Be the path that an operand is about, and the keys one of which it must have."""

    slot: Slot
    keys: tuple[Hashable, ...]
    path: Path


def _conjunction(condition: Expr | None) -> Iterator[Expr]:
    """Return the operands of a condition's outermost `and`, in the order of the text."""
    if isinstance(condition, And):
        for operand in condition.operands:
            yield from _conjunction(operand)
    elif condition is not None:
        yield condition


def _look(expr: Expr) -> _Look | None:
    match expr:
        case Compare("==", Path() as path, other) | Compare("==", other, Path() as path):
            return _equal(path, (constant(other),))
        case Compare("in", Path() as path, listed) if isinstance(known := constant(listed), tuple):
            return _equal(path, known)
        case Compare("in", item, Path() as path) if type(text := constant(item)) is str:
            return _Look(_slot("holds", frozenset({str}), path), (text,), path)
        case Is(Path() as path, name):
            return _Look(_slot("is", frozenset(), path), (name,), path)
        case Or(operands):
            return _united([_look(operand) for operand in operands])
        case _:
            return None


def _equal(path: Path, values: tuple[Value, ...]) -> _Look | None:
    types = {KINDRED.get(type(value)) for value in values}
    if len(types) != 1 or None in types or NO_CONSTANT in values:
        return None
    kind = cast("frozenset[type]", types.pop())
    keys = (value.identity if isinstance(value, Principal) else value for value in values)
    return _Look(_slot("==", kind, path), tuple(dict.fromkeys(keys)), path)


def _united(found: list[_Look | None]) -> _Look | None:
    first = found[0]
    # a set may hold two of the keys, a path has one value only
    if (
        first is None
        or first.slot.operator == "holds"
        or any(look is None or look.slot != first.slot for look in found)
    ):
        return None
    keys = dict.fromkeys(key for look in found if look is not None for key in look.keys)
    return _Look(first.slot, tuple(keys), first.path)


def _slot(operator: _Operator, types: frozenset[type], path: Path) -> Slot:
    return Slot(operator, types, path.root, path.steps, path.declared)
