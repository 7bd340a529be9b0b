"""Look up the rules that could match: by what they demand of the inputs, so that the others needn't be asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias, cast, final

from attrs import frozen

from agentauthz.policy.compile.conditions import Conditions
from agentauthz.policy.compile.demands import Demand, Slot, demands
from agentauthz.policy.compile.operands import Paths, count_uses
from agentauthz.policy.compile.python import Python, code_of
from agentauthz.policy.compile.units import Codes, Node, Numbered, Question, counts, leaf
from agentauthz.policy.compile.values import LISTS, type_name
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.syntax import CheckedRule, Path
from agentauthz.principals import Principal
from agentauthz.values import INVALID, Value

_FEW: Final = 10  # rules that are asked sooner than looked up
_ENOUGH: Final = 16  # undetermined permits that anybody asks for


class Entry(NamedTuple):
    """Be a rule with its number, and what it demands."""

    number: int
    rule: CheckedRule
    demands: tuple[Demand, ...]


@final
class _Nothing:
    """Answer for no rules."""

    def ask(self, _: Inputs) -> Codes:
        return ()


NOTHING: Final = _Nothing()


Read: TypeAlias = Callable[[Inputs], Value]


def entry(number: int, rule: CheckedRule) -> Entry:
    """Return a rule with what it demands."""
    return Entry(number, rule, tuple(demands(rule.condition)))


@final
@frozen
class Builder:
    """Build indexes for one question; `action` is the only one that the rules are asked about, or None."""

    question: Question
    action: str | None

    def build(self, entries: Sequence[Entry]) -> Node:
        """Return what asks the rules, by what they demand where they are many."""
        if len(entries) > _FEW:
            chosen = _choose(entries)
            kept = {slot: found for slot, found in chosen.items() if slot is not None and len(found) > 2}
            if kept:
                rest = [found for slot, part in chosen.items() if slot not in kept for found in part]
                rest.sort(key=lambda found: found.number)
                return Index([Lookup(self, slot, found) for slot, found in kept.items()], self._leaf(rest))
        return self._leaf(entries)

    def _leaf(self, entries: Sequence[Entry]) -> Node:
        if not entries:
            return NOTHING
        rules: list[Numbered] = [(found.number, found.rule) for found in entries]
        return leaf(rules, self.question, self.action, _ENOUGH if self.question is Question.UNSURE else None)


def _choose(entries: Sequence[Entry]) -> dict[Slot | None, list[Entry]]:
    """Return the rules by the slot that selects best among them; None: they demand nothing."""
    keys: dict[Slot, set[Hashable]] = defaultdict(set)
    for found in entries:
        for demand in found.demands:
            keys[demand.slot].update(demand.keys)
    distinct = {slot: len(values) for slot, values in keys.items()}
    chosen: dict[Slot | None, list[Entry]] = defaultdict(list)
    for found in entries:
        slots = [demand.slot for demand in found.demands]
        chosen[max(slots, key=distinct.__getitem__) if slots else None].append(found)
    return chosen


@final
class Index:
    """Ask the rules that demand nothing, and those that a look-up finds."""

    __slots__ = ("_lookups", "_rest", "ask")

    def __init__(self, lookups: Sequence[Lookup], rest: Node) -> None:
        self._lookups = lookups
        self._rest = rest
        self.ask: Callable[[Inputs], Codes] = lookups[0].ask if rest is NOTHING and len(lookups) == 1 else self._ask

    def _ask(self, inputs: Inputs) -> Codes:
        codes = self._rest.ask(inputs)
        for lookup in self._lookups:
            codes += lookup.ask(inputs)
        return codes


@final
class Lookup:
    """Find rules by the value that the inputs have in one slot."""

    __slots__ = ("_builder", "_entries", "_found", "_otherwise", "_read", "_slot", "ask")

    def __init__(self, builder: Builder, slot: Slot, entries: Sequence[Entry]) -> None:
        self._builder = builder
        self._slot = slot
        self._entries = entries
        # a list of entries becomes a node when it is first found: of many keys most are never asked for
        self._found: dict[Hashable, Node | list[Entry]] = {}
        self._otherwise: Node | None = None
        for found in entries:
            for demand in found.demands:
                if demand.slot == slot:
                    self._insert(found, demand)
        first = next(demand for demand in entries[0].demands if demand.slot == slot)
        self._read = _reader(slot, first.path, builder.action)
        self.ask: Callable[[Inputs], Codes] = self._ask_each if slot.operator == "holds" else self._ask_one

    def _insert(self, found: Entry, demand: Demand) -> None:
        rest = found._replace(demands=tuple(d for d in found.demands if d is not demand))
        for key in demand.keys:
            self._found.setdefault(key, []).append(rest)  # type: ignore[union-attr]

    def _ask_one(self, inputs: Inputs) -> Codes:
        key = self._read(inputs)
        if key is INVALID:
            return self._unsettled(inputs)
        node = self._found.get(key)
        if node is None:
            return ()
        if type(node) is list:
            node = self._found[key] = self._builder.build(node)
        return cast(Node, node).ask(inputs)

    def _ask_each(self, inputs: Inputs) -> Codes:
        elements = self._read(inputs)
        if elements is INVALID:
            return self._unsettled(inputs)
        codes: Codes = ()
        settled = True
        for key in _strings(cast("tuple[Value, ...]", elements)):
            if key is None:
                settled = False
                continue
            node = self._found.get(key)
            if node is not None:
                if type(node) is list:
                    node = self._found[key] = self._builder.build(node)
                codes += cast(Node, node).ask(inputs)
        return codes if settled else codes + self._unsettled(inputs)

    def _unsettled(self, inputs: Inputs) -> Codes:
        """Ask the rules that may be undetermined now, and for whom that matters."""
        if self._otherwise is None:
            unsure = self._builder.question is Question.UNSURE
            kept = [found for found in self._entries if unsure or counts(found.rule)]
            kept = [found._replace(demands=tuple(d for d in found.demands if d.slot != self._slot)) for found in kept]
            self._otherwise = self._builder.build(kept)
        return self._otherwise.ask(inputs)


def _strings(elements: tuple[Value, ...]) -> Iterator[str | None]:
    """Return the different strings among the elements, and None where there is something else."""
    seen: set[str | None] = set()
    for element in elements:
        key = element if type(element) is str else None
        if key not in seen:
            seen.add(key)
            yield key


# ---- reading a slot


def _reader(slot: Slot, path: Path, action: str | None) -> Read:
    """Return a function that gives the key to look up, INVALID where there is none of the slot's type."""
    python = Python()
    python.at(path.span)
    conditions = Conditions(Paths(python, action, count_uses(())))
    paths = conditions.paths
    operand = paths.operand(path)
    if slot.operator == "is":
        code = python.call(python.use(type_name), paths.value(operand))
    else:
        guard, again = paths.guard(operand, LISTS if slot.operator == "holds" else slot.types)
        value = python.attribute(again(), "identity") if Principal in slot.types else again()
        code = python.choose(guard, value, python.use(INVALID))
    function = python.function("read", ["inputs"], [*paths.prologue, python.give(code)])
    exec(code_of([function], path.span.source.name), python.globals)  # noqa: S102
    return cast(Read, python.globals["read"])
