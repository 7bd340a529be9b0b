"""Tell what happened in one session: its decisions in order, and what came of each."""

from __future__ import annotations

import contextlib
import datetime as dt
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Generic, Literal, TypeAlias, TypeVar, final

from attrs import frozen

from agentauthz.errors import InvalidArgument
from agentauthz.records.events import EffectRecord, EventRecord, PolicyRecord
from agentauthz.records.reading import tree_of
from agentauthz.records.record import DecisionRecord, DelegationRecord, Record, read_record

# What came of a call: it didn't run; an effect tells; none tells, though there should be one; none is ever written
Fate: TypeAlias = Literal["stopped before", "told", "unknown", "inline"]

_Head: TypeAlias = tuple[dt.datetime, str, int]  # the next record of a stream: moment, stream, place in it
T = TypeVar("T", DecisionRecord, DelegationRecord, EventRecord)

_NEEDED: Final = frozenset({"decision", "effect", "delegation", "policy", "approval", "state"})


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
    whole log that are no records. `policies` holds the texts that the log has, of any session, and `passed` the
    attempts to pass the session's authority on; `beside` what became of its reviews, and what was ordered of it.
    """

    session: str
    steps: tuple[Step, ...]
    strays: tuple[EffectRecord, ...]
    policies: tuple[PolicyRecord, ...]
    unreadable: int
    passed: tuple[DelegationRecord, ...] = ()
    beside: tuple[EventRecord, ...] = ()

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
    passed: dict[tuple[str, bytes], DelegationRecord] = {}
    beside: dict[tuple[str, bytes], EventRecord] = {}
    policies: dict[tuple[str, int], PolicyRecord] = {}  # each segment has them again
    read: Counter[bool] = Counter()
    for line, record in _read(lines, session, read):
        if isinstance(record, DecisionRecord) and record.session == session:
            decisions[record.id, line] = record
        elif isinstance(record, EffectRecord):
            effects.append(record)
        elif isinstance(record, DelegationRecord) and record.session == session:
            passed[record.id, line] = record
        elif isinstance(record, EventRecord) and record.session == session:
            beside[record.id, line] = record
        elif isinstance(record, PolicyRecord):
            policies.setdefault((record.digest, record.part), record)
    ids = {record.id for record in decisions.values()}
    effects = list({effect.line(): effect for effect in effects}.values())
    own = [effect for effect in effects if effect.of in ids]
    strays = tuple(effect for effect in effects if effect.session == session and effect.of not in ids)
    if not ids and not strays and not passed and not beside:
        raise InvalidArgument("session", f"is in no record: `{session}`")
    steps = tuple(_steps(list(decisions.values()), own))
    hops, events = tuple(ordered([*passed.values()])), tuple(ordered([*beside.values()]))
    return Story(session, steps, strays, tuple(policies.values()), read[False], hops, events)


def _read(lines: Iterable[bytes], session: str, read: Counter[bool]) -> Iterator[tuple[bytes, Record]]:
    """Return the lines that may tell of a session, with their records; `read` counts under False what is none."""
    for line in lines:
        record = None
        if (tree := tree_of(line)) is not None:
            kind = tree.get("type")
            if kind not in _NEEDED or (kind != "policy" and tree.get("session") not in (session, None)):
                continue
            with contextlib.suppress(InvalidArgument):
                record = read_record(line)
        read[record is not None] += 1
        if record is not None:
            yield line, record


def _steps(decisions: Sequence[DecisionRecord], effects: Iterable[EffectRecord]) -> Iterator[Step]:
    found: dict[str, list[EffectRecord]] = {}
    for effect in effects:
        found.setdefault(effect.of, []).append(effect)
    before: DecisionRecord | None = None
    for record in ordered(decisions):
        caused = before is None or record.stream == before.stream or record.ctx.parent == before.id
        yield Step(record, tuple(found.get(record.id, ())), by_clock=not caused)
        before = record


def ordered(records: Sequence[T]) -> Iterator[T]:
    """Return records in order: those of one stream by number, a cause before what it caused, those of one trace
    together, then by the clock.
    """
    streams: dict[str, list[T]] = {}
    for record in sorted(records, key=lambda each: (each.stream, each.seq)):
        streams.setdefault(record.stream, []).append(record)
    return iter(_Line(streams))


@final
class _Line(Generic[T]):
    """Put the streams' records in one line: each stream's next one waits in heaps, from which the first is taken."""

    def __init__(self, streams: Mapping[str, Sequence[T]]) -> None:
        self._streams: Final[Mapping[str, Sequence[T]]] = streams
        self._heads = dict.fromkeys(streams, -1)
        self._waiting = {record.id for records in streams.values() for record in records}
        self._left = Counter(record.ctx.trace_id for records in streams.values() for record in records)
        self._ready: list[_Head] = []
        self._traced: dict[str | None, list[_Head]] = {}  # the same, by their trace
        self._late: list[_Head] = []  # what waits for its cause; where causes go round in a circle, the clock decides
        self._behind: dict[str, list[_Head]] = {}

    def __iter__(self) -> Iterator[T]:
        for name in self._streams:
            self._begin(name)
        trace: str | None = None
        while (head := self._first(trace if self._left[trace] else None)) is not None:
            _, name, place = head
            record = self._streams[name][place]
            yield record
            trace = record.ctx.trace_id or trace
            self._left[record.ctx.trace_id] -= 1
            self._waiting.discard(record.id)
            for freed in self._behind.pop(record.id, ()):
                if self._heads[freed[1]] == freed[2]:
                    self._stand(freed)
            self._begin(name)

    def _begin(self, name: str) -> None:
        """Let a stream's next record wait for its turn."""
        self._heads[name] += 1
        place = self._heads[name]
        if place == len(self._streams[name]):
            return
        record = self._streams[name][place]
        # records are in UTC, and a damaged one must not stop it
        head, parent = (record.ts.replace(tzinfo=None), name, place), record.ctx.parent
        if parent is None or parent not in self._waiting or parent == record.id:
            self._stand(head)
            return
        heapq.heappush(self._late, head)
        self._behind.setdefault(parent, []).append(head)

    def _stand(self, head: _Head) -> None:
        trace = self._streams[head[1]][head[2]].ctx.trace_id
        heapq.heappush(self._ready, head)
        heapq.heappush(self._traced.setdefault(trace, []), head)

    def _first(self, trace: str | None) -> _Head | None:
        """Return the next head: while a trace is told, one of it or of none; another trace waits for its end."""
        if trace is not None:
            own = [head for each in (trace, None) if (head := self._top(self._traced.get(each, []))) is not None]
            if own:
                return min(own)
        first = self._top(self._ready)
        return self._top(self._late) if first is None else first

    def _top(self, heap: list[_Head]) -> _Head | None:
        """Return the first of a heap that hasn't had its turn."""
        while heap and self._heads[heap[0][1]] != heap[0][2]:
            heapq.heappop(heap)
        return heap[0] if heap else None
