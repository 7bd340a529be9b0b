"""Tell what happened in one session: its decisions in order, and what came of each."""

from __future__ import annotations

import datetime as dt
import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, TypeAlias, final

from attrs import frozen

from agentauthz.errors import InvalidArgument
from agentauthz.records.events import EffectRecord, PolicyRecord
from agentauthz.records.reading import tree_of
from agentauthz.records.record import DecisionRecord, read_record

# What came of a call: it didn't run; an effect tells; none tells, though there should be one; none is ever written
Fate: TypeAlias = Literal["stopped before", "told", "unknown", "inline"]

_Head: TypeAlias = tuple[dt.datetime, str, int]  # the next record of a stream: moment, stream, place in it

_NEEDED: Final = frozenset({"decision", "effect", "policy"})


@final
@frozen
class Step:
    """Be a decision, with the effects that tell what came of it: one, unless somebody wrote more.

    `by_clock`: only the clocks of two processes say that it comes after the step before.
    """

    decision: DecisionRecord
    effects: tuple[EffectRecord, ...] = ()
    by_clock: bool = False

    @property
    def allowed(self) -> bool:
        """Say whether the call could run: it was allowed, or only observed."""
        return self.decision.outcome == "allow" or not self.decision.enforced

    @property
    def fate(self) -> Fate:
        """Return what is known of the call; one without a route was decided inline, and the caller saw to the rest."""
        if self.effects:
            return "told"
        if not self.allowed:
            return "stopped before"
        return "inline" if self.decision.route is None else "unknown"


@final
@frozen
class Story:
    """Be the account of a session. `strays` are effects whose decision isn't there; `unreadable` counts lines of the
    whole log that are no records. `policies` holds the texts that the log has, of any session.
    """

    session: str
    steps: tuple[Step, ...]
    strays: tuple[EffectRecord, ...]
    policies: tuple[PolicyRecord, ...]
    unreadable: int

    @property
    def digests(self) -> tuple[str, ...]:
        """Return the digests of the policies that decided, in the order of their first use."""
        return tuple(dict.fromkeys(step.decision.policy.digest for step in self.steps))

    @property
    def unknown(self) -> tuple[Step, ...]:
        """Return the calls that were allowed, and of which nobody knows what came."""
        return tuple(step for step in self.steps if step.fate == "unknown")


def story(lines: Iterable[bytes], session: str) -> Story:
    """Return what the lines of a log tell of a session.

    Raises:
        InvalidArgument: they tell nothing of it.
    """
    decisions: dict[tuple[str, bytes], DecisionRecord] = {}  # a line that was delivered twice is told once
    effects: list[EffectRecord] = []
    policies: dict[tuple[str, int], PolicyRecord] = {}  # each segment has them again
    unreadable = 0
    for line in lines:
        tree = tree_of(line)
        if tree is None:
            unreadable += 1
            continue
        kind = tree.get("type")
        if kind not in _NEEDED or (kind != "policy" and tree.get("session") not in (session, None)):
            continue
        try:
            record = read_record(line)
        except InvalidArgument:
            unreadable += 1
            continue
        if isinstance(record, DecisionRecord) and record.session == session:
            decisions[record.id, line] = record
        elif isinstance(record, EffectRecord):
            effects.append(record)
        elif isinstance(record, PolicyRecord):
            policies.setdefault((record.digest, record.part), record)
    ids = {record.id for record in decisions.values()}
    effects = list({effect.line(): effect for effect in effects}.values())
    own = [effect for effect in effects if effect.of in ids]
    strays = tuple(effect for effect in effects if effect.session == session and effect.of not in ids)
    if not ids and not strays:
        raise InvalidArgument("session", f"is in no record: `{session}`")
    steps = tuple(_steps(list(decisions.values()), own))
    return Story(session, steps, strays, tuple(policies.values()), unreadable)


def _steps(decisions: Sequence[DecisionRecord], effects: Iterable[EffectRecord]) -> Iterator[Step]:
    found: dict[str, list[EffectRecord]] = {}
    for effect in effects:
        found.setdefault(effect.of, []).append(effect)
    before: DecisionRecord | None = None
    for record in ordered(decisions):
        caused = before is None or record.stream == before.stream or record.ctx.parent == before.id
        yield Step(record, tuple(found.get(record.id, ())), by_clock=not caused)
        before = record


def ordered(decisions: Sequence[DecisionRecord]) -> Iterator[DecisionRecord]:
    """Return decisions in order: those of one stream by number, a cause before what it caused, then by the clock."""
    streams: dict[str, list[DecisionRecord]] = {}
    for record in sorted(decisions, key=lambda each: (each.stream, each.seq)):
        streams.setdefault(record.stream, []).append(record)
    waiting = {record.id for record in decisions}
    heads = dict.fromkeys(streams, -1)
    ready: list[_Head] = []
    late: list[_Head] = []  # what waits for its cause; where causes go round in a circle, the clock decides
    behind: dict[str, list[_Head]] = {}

    def begin(name: str) -> None:
        heads[name] += 1
        if heads[name] == len(streams[name]):
            return
        record = streams[name][heads[name]]
        # records are in UTC, and a damaged one must not stop it
        head, parent = (record.ts.replace(tzinfo=None), name, heads[name]), record.ctx.parent
        if parent is None or parent not in waiting or parent == record.id:
            heapq.heappush(ready, head)
            return
        heapq.heappush(late, head)
        behind.setdefault(parent, []).append(head)

    for name in streams:
        begin(name)
    while ready or late:
        _, name, place = heapq.heappop(ready or late)
        if heads[name] != place:  # it had its turn before its cause, or after
            continue
        record = streams[name][place]
        yield record
        waiting.discard(record.id)
        for head in behind.pop(record.id, ()):
            heapq.heappush(ready, head)
        begin(name)
