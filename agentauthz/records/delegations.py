"""Draw the tree of those who acted: who passed authority on to whom, and what each hop took away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias, final

from attrs import define, field, frozen

from agentauthz.errors import WideningError
from agentauthz.principals import beyond, covered
from agentauthz.records.record import Actor, Bounds, DecisionRecord, DelegationRecord, Hop

_EVERY: Final = ("*",)
_Key: TypeAlias = tuple[Actor, Hop | None]


@final
@frozen
class Refused:
    """Be an attempt to pass authority on that was refused; `at` is the hop that doesn't have what was asked for."""

    record: DelegationRecord
    at: Hop | None = None


@final
@define(eq=False)
class Party:
    """Be one party at one place of the tree. `hop` is the delegation to it; None: the subject.

    `acted` counts the decisions on its own calls; `lost` has the ids of those that this hop's bounds refused.
    `refused` are its own attempts to pass authority on that came to nothing.
    """

    actor: Actor
    hop: Hop | None
    within: tuple[str, ...] = _EVERY  # the actions that were there to be passed on
    before: Hop | None = None
    acted: int = 0
    lost: list[str] = field(factory=list)
    refused: list[Refused] = field(factory=list)
    below: dict[_Key, Party] = field(factory=dict)

    def narrowing(self) -> list[str]:
        """Return what this hop took away or added, one phrase each; nothing: all of it was passed on."""
        if self.hop is None:
            return []
        found = []
        kept = self.hop.actions
        if gone := beyond(kept, self.within):
            found.append(f"only {', '.join(kept) or 'no action'}, of {', '.join(gone)}")
        for name, words in (("purpose", "only for"), ("expires", "only until")):
            value, earlier = getattr(self.hop, name), None if self.before is None else getattr(self.before, name)
            if value is not None and value != earlier:
                found.append(f"{words} {value}")
        if self.hop.handoff:
            found.append("handed off: the one before has no part in it any more")
        return found


def delegations(decisions: Iterable[DecisionRecord], passed: Iterable[DelegationRecord] = ()) -> list[Party]:
    """Return the subjects of decisions and of attempts to pass authority on, each with the parties below it."""
    roots: dict[_Key, Party] = {}
    for record in decisions:
        if not record.actors:
            continue
        path = list(_path(record.actors, record.chain, record.bounds, roots))
        path[-1].acted += 1
        for party in path:
            if party.hop is not None and _refused(record, party.hop):
                party.lost.append(record.id)
                break
    for attempt in passed:
        if not attempt.actors:
            continue
        giver = list(_path(attempt.actors, attempt.chain, None, roots))[-1]
        if attempt.outcome == "refused":
            giver.refused.append(Refused(attempt, _lost_at(attempt)))
        elif attempt.to is not None and attempt.hop is not None:
            whole = (*attempt.actors, attempt.to), (*attempt.chain, attempt.hop)
            list(_path(*whole, None, roots))
    return list(roots.values())


def walk(roots: Sequence[Party]) -> Iterator[tuple[int, Party]]:
    """Return each party with its depth, those below it right behind it."""
    waiting = [(0, party) for party in reversed(roots)]
    while waiting:
        depth, party = waiting.pop()
        yield depth, party
        waiting += [(depth + 1, each) for each in reversed(party.below.values())]


def _path(
    actors: Sequence[Actor], chain: Sequence[Hop], bounds: Bounds | None, roots: dict[_Key, Party]
) -> Iterator[Party]:
    level = roots
    within, before = _EVERY if bounds is None or bounds.ceiling is None else bounds.ceiling, None
    for place, actor in enumerate(actors):
        hop = chain[place - 1] if 0 < place <= len(chain) else None
        party = level.setdefault((actor, hop), Party(actor, hop, within, before))
        yield party
        level, before, within = party.below, hop, within if hop is None else hop.actions


def _refused(record: DecisionRecord, hop: Hop) -> bool:
    """Say whether a call was refused because this hop doesn't cover it."""
    if record.basis != "authority":
        return False
    return not covered(hop.actions, record.action.name) or hop.purpose not in (None, record.purpose)


def _lost_at(attempt: DelegationRecord) -> Hop | None:
    """Return the first hop of who passes on that doesn't have what was asked for."""
    asked = attempt.hop
    if asked is None or (attempt.reason is not None and attempt.reason.code != WideningError.code):
        return None
    for hop in attempt.chain:
        if (
            beyond(hop.actions, asked.actions)
            or asked.purpose not in (None, hop.purpose or asked.purpose)
            or _outlives(asked, hop)
        ):
            return hop
    return None


def _outlives(asked: Hop, hop: Hop) -> bool:
    return asked.expires is not None and hop.expires is not None and asked.expires > hop.expires  # both are UTC
