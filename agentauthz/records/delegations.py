"""Draw the tree of those who acted: who passed authority on to whom, and what each hop took away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias, final

from attrs import define, field

from agentauthz.principals import covered, includes
from agentauthz.records.record import Actor, DecisionRecord, Hop

_EVERY: Final = ("*",)
_Key: TypeAlias = tuple[Actor, Hop | None]


@final
@define(eq=False)
class Party:
    """Be one party at one place of the tree. `hop` is the delegation to it; None: the subject.

    `acted` counts the decisions on its own calls; `lost` has the ids of those that this hop's bounds refused.
    """

    actor: Actor
    hop: Hop | None
    within: tuple[str, ...] = _EVERY  # the actions that were there to be passed on
    before: Hop | None = None
    acted: int = 0
    lost: list[str] = field(factory=list)
    below: dict[_Key, Party] = field(factory=dict)

    def narrowing(self) -> list[str]:
        """Return what this hop took away or added, one phrase each; nothing: all of it was passed on."""
        if self.hop is None:
            return []
        found = []
        kept = self.hop.actions
        if gone := [one for one in self.within if not any(includes(wide, one) for wide in kept)]:
            found.append(f"only {', '.join(kept) or 'no action'}, of {', '.join(gone)}")
        for name, words in (("purpose", "only for"), ("expires", "only until")):
            value, earlier = getattr(self.hop, name), None if self.before is None else getattr(self.before, name)
            if value is not None and value != earlier:
                found.append(f"{words} {value}")
        if self.hop.handoff:
            found.append("handed off: the one before has no part in it any more")
        return found


def delegations(decisions: Iterable[DecisionRecord]) -> list[Party]:
    """Return the subjects of decisions, each with the parties below it."""
    roots: dict[_Key, Party] = {}
    for record in decisions:
        if not record.actors:
            continue
        path = list(_path(record, roots))
        path[-1].acted += 1
        for party in path:
            if party.hop is not None and _refused(record, party.hop):
                party.lost.append(record.id)
                break
    return list(roots.values())


def walk(roots: Sequence[Party]) -> Iterator[tuple[int, Party]]:
    """Return each party with its depth, those below it right behind it."""
    waiting = [(0, party) for party in reversed(roots)]
    while waiting:
        depth, party = waiting.pop()
        yield depth, party
        waiting += [(depth + 1, each) for each in reversed(party.below.values())]


def _path(record: DecisionRecord, roots: dict[_Key, Party]) -> Iterator[Party]:
    level = roots
    ceiling = None if record.bounds is None else record.bounds.ceiling
    within, before = _EVERY if ceiling is None else ceiling, None
    for place, actor in enumerate(record.actors):
        hop = record.chain[place - 1] if 0 < place <= len(record.chain) else None
        party = level.setdefault((actor, hop), Party(actor, hop, within, before))
        yield party
        level, before, within = party.below, hop, within if hop is None else hop.actions


def _refused(record: DecisionRecord, hop: Hop) -> bool:
    """Say whether a call was refused because this hop doesn't cover it."""
    if record.basis != "authority":
        return False
    return not covered(hop.actions, record.action.name) or hop.purpose not in (None, record.purpose)
