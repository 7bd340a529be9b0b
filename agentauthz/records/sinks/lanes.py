"""Give each sink its work in a thread of its own, so that one that hangs holds nobody up for longer than a time-out."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, final

from attrs import evolve

from agentauthz.canonical import class_name
from agentauthz.errors import SinkError
from agentauthz.records.ids import Process
from agentauthz.records.record import Record
from agentauthz.records.sinks.sink import Metrics, Sink
from agentauthz.records.writing import carried

Failures = list[tuple[Sink, BaseException]]

ROOM: Final = 1000  # records that may wait for one sink


@final
class Ballot:
    """Count who has done one thing, and who has failed to."""

    def __init__(self, sinks: int) -> None:
        self._sinks = sinks
        self._changed = threading.Condition(threading.RLock())
        self._open = True
        self.done = 0
        self.failures: Failures = []

    def done_by(self, sink: Sink, cause: BaseException | None) -> bool:
        """Count one sink; False: it failed, or nobody waits any more."""
        with self._changed:
            if cause is None:
                self.done += 1
            else:
                self.failures.append((sink, cause))
            self._changed.notify_all()
            return cause is None and self._open

    def reaches(self, needed: int, timeout: float) -> bool:
        """Wait until so many have done it, can't any more, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.done >= needed or self._sinks - len(self.failures) < needed, timeout)
            self._open = self.done >= needed  # who comes later isn't lost where enough have kept it
            return self._open


@final
class Lane:
    """Give one sink its work in order, from a thread that may hang with it. The child of a fork begins with none."""

    def __init__(self, sink: Sink) -> None:
        self.sink: Final = sink
        self._begin()

    def _begin(self) -> None:
        self._mark = Process.mark
        self.lost = 0
        self._changed = threading.Condition(threading.RLock())
        self._work: deque[tuple[Callable[[], object], Ballot, bool]] = deque()
        self._since: float | None = None  # when what is being done was begun
        self._thread: threading.Thread | None = None

    def hangs(self, timeout: float) -> bool:
        """Say whether the sink has been at one thing for longer than so many seconds."""
        since = self._since
        return self._mark is Process.mark and since is not None and time.monotonic() - since > timeout

    def metrics(self) -> Metrics:
        """Return how many records wait for the sink, or are being kept, and how long it has been at one."""
        if self._mark is not Process.mark:
            return Metrics()
        since = self._since
        at_work = since is not None
        lag = 0.0 if since is None else time.monotonic() - since
        return Metrics(self.lost, len(self._work) + at_work, lag)

    def put(self, work: Callable[[], object], ballot: Ballot, *, last: bool = False) -> None:
        """Have it do something, after all before; `last`: to close, for which there is always room."""
        if self._mark is not Process.mark:  # a fork: the thread isn't here, and its lock may be held for ever
            self._begin()
        cause: BaseException = SinkError("too many records wait for it")
        with self._changed:
            if last or len(self._work) < ROOM:
                try:
                    self._start()
                    self._work.append((work, ballot, last))
                    self._changed.notify()
                    return
                except RuntimeError as none:  # no thread can be had
                    cause = none
            self.lost += 1
        ballot.done_by(self.sink, cause)

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            name = f"agentauthz-{class_name(self.sink)}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._work)
                self._since = time.monotonic()
                work, ballot, last = self._work.popleft()
            cause = _failure(work)
            self._since = None
            if not ballot.done_by(self.sink, cause):
                self.lost += 1
            if last:
                return


@final
class Watched:
    """Give records to sinks that say nothing of how long they take, each in its lane, within `timeout` seconds."""

    def __init__(self, timeout: float) -> None:
        self._timeout: Final = timeout
        self._lanes: dict[int, Lane] = {}  # a lane holds its sink, so that the id stays its own

    def ask(self, sinks: Sequence[Sink], records: Sequence[Record]) -> Callable[[], Failures]:
        """Have sinks append records, all at the same time; what is returned waits for them, and says which failed.

        One that hangs already counts as failed at once: it gets the records when it goes on.
        """
        asked = [(sink, self._begun(self._lane(sink), records)) for sink in sinks]
        ends = time.monotonic() + self._timeout
        return lambda: [(sink, cause) for sink, ballot in asked if (cause := _outcome(ballot, ends)) is not None]

    def close(self, sink: Sink) -> None:
        """Close a sink after what it still has to keep; raise what it raises.

        Raises:
            SinkError: it didn't close in time.
        """
        ballot = Ballot(1)
        self._lane(sink).put(sink.close, ballot, last=True)
        if (cause := _outcome(ballot, time.monotonic() + self._timeout)) is not None:
            raise cause

    def forget(self, sink: Sink) -> None:
        """End a sink's lane after what it still has to keep."""
        if (lane := self._lanes.pop(id(sink), None)) is not None:
            lane.put(lambda: None, Ballot(1), last=True)

    def metrics(self) -> Sequence[Metrics]:
        """Return how each lane fares; what failed is known to who asked."""
        return [evolve(lane.metrics(), records_lost_total=0) for lane in tuple(self._lanes.values())]

    def _lane(self, sink: Sink) -> Lane:
        lane = self._lanes.get(id(sink))
        return self._lanes.setdefault(id(sink), Lane(sink)) if lane is None else lane

    def _begun(self, lane: Lane, records: Sequence[Record]) -> Ballot | None:
        hangs, ballot = lane.hangs(self._timeout), Ballot(1)
        lane.put(carried(lambda: _append(lane.sink, records)), ballot)
        if hangs:
            ballot.reaches(1, 0)  # nobody waits for it
        return None if hangs else ballot


def _append(sink: Sink, records: Sequence[Record]) -> None:
    for _, cause in append_all((sink,), records):
        raise cause


def _outcome(ballot: Ballot | None, ends: float) -> BaseException | None:
    if ballot is not None and ballot.reaches(1, max(0.0, ends - time.monotonic())):
        return None
    return ballot.failures[0][1] if ballot is not None and ballot.failures else SinkError("it didn't answer in time")


def append_to(sink: Sink, line: bytes, record: Record) -> None:
    """Append a record to one sink; raise what the sink raises.

    Raises:
        SinkError: what it returned has to be awaited: nothing is kept yet, and nobody would ever notice.
    """
    told: object = sink.append(line, record)  # type: ignore[func-returns-value]  # a foreign sink may return anything
    if told is not None and hasattr(told, "__await__"):
        if callable(close := getattr(told, "close", None)):
            close()
        raise SinkError(f"`{class_name(sink)}` must keep a record before `append` returns: it can't be awaited")


def append_all(sinks: Sequence[Sink], records: Sequence[Record]) -> Failures:
    """Append to every sink, and return which failed with what at first; also what isn't an Exception is caught."""
    failures: Failures = []
    for sink in sinks:
        problem: BaseException | None = None
        for record in records:
            try:
                append_to(sink, record.line(), record)
            except BaseException as cause:
                problem = problem or cause
        if problem is not None:
            failures.append((sink, problem))
    return failures


def _failure(work: Callable[[], object]) -> BaseException | None:
    try:
        work()
    except BaseException as cause:
        return cause
    return None
