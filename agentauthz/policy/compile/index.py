"""Look up the rules that could match: by what they demand of the inputs, so that the others needn't be asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Final, final

from attrs import frozen

from agentauthz.policy.compile.demands import Entry, Slot
from agentauthz.policy.compile.lookups import Table, lookups
from agentauthz.policy.compile.units import Codes, Node, Numbered, Question, all_defined, counts, leaf
from agentauthz.policy.inputs import Inputs

_FEW: Final = 10  # rules that are asked sooner than looked up
_ENOUGH: Final = 16  # undetermined permits that anybody asks for


@final
class _Nothing:
    """Answer for no rules."""

    def ask(self, _: Inputs) -> Codes:
        return ()


NOTHING: Final = _Nothing()


@final
class _Pending:
    """Be a node that is built when it is first asked, and then takes its own place: of many keys most never are."""

    __slots__ = ("_build", "_entries", "_key", "_table")

    def __init__(
        self, build: Callable[[Sequence[Entry]], Node], entries: list[Entry], table: Table, key: Hashable
    ) -> None:
        self._build = build
        self._entries = entries
        self._table = table
        self._key = key

    def add(self, entry: Entry) -> None:
        """Add a rule."""
        self._entries.append(entry)

    def ask(self, inputs: Inputs) -> Codes:
        """Return the codes of the rules for one call's inputs."""
        node = self._table[self._key] = self._build(self._entries)
        return node.ask(inputs)


@final
@frozen
class Builder:
    """Build indexes for one question; `action` is the only one that the rules are asked about, or None."""

    question: Question
    action: str | None

    def build(self, entries: Sequence[Entry]) -> Node:
        """Return what asks the rules, by what they demand where they are many."""
        looked_up, rest = _choose(entries) if len(entries) > _FEW else ({}, entries)
        if not looked_up:
            return self._leaf(entries)
        tables = {slot: self._table(slot, found) for slot, found in looked_up.items()}
        paths = {slot: found[0].path(slot) for slot, found in looked_up.items()}

        def otherwise(inputs: Inputs) -> Codes:
            return all_defined([(entry.number, entry.rule) for entry in entries], self.question, inputs)

        try:
            return lookups(tables, paths, self._leaf(rest), self.action, otherwise)
        except RecursionError:  # called from too deep for Python's compiler: each rule is asked
            return self._leaf(entries)

    def _leaf(self, entries: Sequence[Entry]) -> Node:
        if not entries:
            return NOTHING
        enough = _ENOUGH if self.question is Question.UNSURE else None
        return leaf([_numbered(entry) for entry in entries], self.question, self.action, enough)

    def _table(self, slot: Slot, entries: Sequence[Entry]) -> Table:
        """Return what asks the rules by the key that they demand in a slot; None is where the slot has no key."""
        table: Table = {}
        pending: dict[Hashable, _Pending] = {}
        for entry in entries:
            demanded = next(demand for demand in entry.demands if demand.slot == slot)
            rest = entry.given(demanded)
            for key in demanded.keys:
                if key in pending:
                    pending[key].add(rest)
                else:
                    table[key] = pending[key] = _Pending(self.build, [rest], table, key)
        unsure = self.question is Question.UNSURE
        # they may be undetermined where the slot has no key: who counts then is asked whatever the slot holds
        asked = [entry.without(slot) for entry in entries if unsure or counts(entry.rule)]
        table[None] = _Pending(self.build, asked, table, None) if asked else NOTHING
        return table


def _numbered(entry: Entry) -> Numbered:
    return Numbered(entry.number, entry.rule, entry.condition)


def _choose(entries: Sequence[Entry]) -> tuple[dict[Slot, list[Entry]], Sequence[Entry]]:
    """Return the rules by the slot that selects best among them, and those that nothing selects."""
    keys: dict[Slot, set[Hashable]] = defaultdict(set)
    for entry in entries:
        for demand in entry.demands:
            keys[demand.slot].update(demand.keys)
    distinct = {slot: len(values) for slot, values in keys.items()}
    chosen: dict[Slot | None, list[Entry]] = defaultdict(list)
    for entry in entries:
        slots = [demand.slot for demand in entry.demands]
        chosen[max(slots, key=distinct.__getitem__) if slots else None].append(entry)
    # looking up costs as much as asking two rules
    kept = {slot: found for slot, found in chosen.items() if slot is not None and len(found) > 2}
    return kept, sorted(entry for slot, part in chosen.items() if slot not in kept for entry in part)
