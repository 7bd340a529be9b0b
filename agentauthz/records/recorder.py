"""Write each record to every sink, and tell whether all of them kept it."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Iterable, Sequence
from typing import Final, cast, final

from attrs import evolve, frozen

from agentauthz.canonical import class_name
from agentauthz.decision import Decision
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records.events import EventRecord
from agentauthz.records.files import FileSink
from agentauthz.records.ids import Process, RecordIds
from agentauthz.records.record import Record
from agentauthz.records.sinks.combine import close_all, raise_failures, require_append
from agentauthz.records.sinks.lanes import Failures, Watched, append_all
from agentauthz.records.sinks.local import LoggingSink
from agentauthz.records.sinks.sink import Metrics, Sink, is_bounded, is_quick, joint_metrics, metrics_of
from agentauthz.records.stream import Policies, Stream, Taken
from agentauthz.records.writing import Writing, ended, inside

TIMEOUT: Final = 5.0  # seconds after which a sink that hangs has failed


@final
@frozen
class _Plan:
    """Hold the sinks, and what follows from them, as one: a write that has begun sees one list of sinks."""

    sinks: tuple[Sink, ...]
    log: FileSink | None  # where each record gets its place, before the others have it
    late: FileSink | None  # or one that gives places of its own, later
    logging: tuple[LoggingSink, ...]
    always: bool  # some sink takes every record
    others: bool  # there are sinks beside the file
    quick: tuple[Sink, ...]
    bounded: tuple[Sink, ...]  # they may take their time, but keep a time-out of their own
    watched: tuple[Sink, ...]  # all others: they get a thread, and a time-out
    direct: tuple[Sink, ...]  # `bounded` and `quick`

    @classmethod
    def of(cls, sinks: tuple[Sink, ...]) -> _Plan:
        logs = [sink for sink in sinks if isinstance(sink, FileSink)]
        if len(logs) > 1:
            raise InvalidArgument("sinks", "must hold one `FileSink` at most: it is what numbers the records")
        logging = tuple(sink for sink in sinks if isinstance(sink, LoggingSink))
        log = next((sink for sink in logs if not sink.late), None)
        late = next((sink for sink in logs if sink.late), None)
        others = tuple(sink for sink in sinks if not isinstance(sink, FileSink))
        quick = tuple(sink for sink in others if is_quick(sink))
        bounded = tuple(sink for sink in others if not is_quick(sink) and is_bounded(sink))
        watched = tuple(sink for sink in others if not is_quick(sink) and not is_bounded(sink))
        direct = tuple(sink for sink in others if is_quick(sink) or is_bounded(sink))
        always = len(logging) < len(sinks)
        return cls(sinks, log, late, logging, always, bool(others), quick, bounded, watched, direct)

    @property
    def may_wait(self) -> bool:
        """Say whether a write may hold up who waits for it; that of a queue is asked apart."""
        return self.log is not None or bool(self.bounded) or bool(self.watched)


@final
class Recorder:
    """Hold an authorizer's sinks; with none given, records go to `LoggingSink`, which warns if that is silent.

    A record is kept once `required` sinks have it (None: all of them). A failure that stops nothing is logged to
    `agentauthz.records`, and the sinks that work get a record of it, `sink.failed`.

    Records are numbered in the order in which they are written: in the stream of the `FileSink`, if there is one, else
    in one of the recorder's own. Each process has its own stream. A file that writes later numbers for itself.

    A sink that isn't quick, and keeps no time-out of its own, counts as failed after `timeout` seconds.

    Raises:
        InvalidArgument: something in `sinks` can't append, there are two files, `required` is no number or more than
            there are sinks, or `timeout` no positive one.
    """

    __slots__ = ("_closed", "_ids", "_lock", "_lost", "_mine", "_plan", "_required", "_watched")

    def __init__(self, sinks: Iterable[Sink] = (), required: int | None = None, timeout: float = TIMEOUT) -> None:
        if not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
            raise InvalidArgument("sink_timeout", "must be a positive number of seconds")
        if required is not None and (type(required) is not int or required < 0):
            raise InvalidArgument("required", "must be a number of sinks, or None for all of them")
        if not isinstance(sinks, Iterable):
            raise InvalidArgument("sinks", "must be a list of sinks")
        given = tuple(sinks)
        for sink in given:
            require_append(sink)
        if not given:
            default = LoggingSink()
            default.warn_if_silent()
            given = (default,)
        if required is not None and required > len(given):  # no record would ever be in so many places
            raise InvalidArgument("required", f"is {required}, and there are no more sinks than {len(given)}")
        self._required = required
        self._watched = Watched(timeout)
        self._lost = 0
        self._ids = RecordIds()
        self._closed = False
        self._lock = threading.RLock()  # a signal's handler, or a generator that is collected, may write in here
        self._plan = _Plan.of(given)
        self._mine: tuple[object, Stream] | None = None

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """Return the sinks that records go to now."""
        return self._plan.sinks

    def add(self, sink: Sink) -> None:
        """Write to one more sink from the next record on.

        Raises:
            InvalidArgument: it can't append.
        """
        require_append(sink)
        with self._lock:
            self._plan = _Plan.of((*self._plan.sinks, sink))

    def remove(self, sink: Sink) -> None:
        """Write to a sink no more; it isn't closed. One that isn't there is ignored.

        Raises:
            InvalidArgument: fewer sinks would be left than are required.
        """
        with self._lock:
            left = tuple(one for one in self._plan.sinks if one is not sink)
            if len(left) < (self._required or 0):
                raise InvalidArgument("sink", f"is one of {self._required} that are required: add another one first")
            self._plan = _Plan.of(left)
            self._watched.forget(sink)

    def wants(self, decision: Decision) -> bool:
        """Say whether a record of `decision` must be written: a sink does something with it, or is closed."""
        plan = self._plan
        if self._closed or plan.always:
            return True
        for sink in plan.logging:  # noqa: SIM110  (asked at every decision, and a generator costs more than its answer)
            if sink.wants(decision):
                return True
        return False

    def wants_effects(self) -> bool:
        """Say whether any sink would do something with a record of an effect."""
        plan = self._plan
        return plan.always or any(sink.wants_effects() for sink in plan.logging)

    def wants_delegations(self) -> bool:
        """Say whether a record of a delegation must be written: a sink does something with it, or is closed."""
        plan = self._plan
        return self._closed or plan.always or any(sink.wants_delegations() for sink in plan.logging)

    def writing(self) -> bool:
        """Say whether the caller runs inside a sink of this recorder: what it asks for must be refused."""
        return inside(self)

    def write(self, record: Record, policies: Policies | None = None, *, regardless: bool = False) -> None:
        """Give the record its place in the stream and append it to every sink, also where one fails.

        Where the stream hasn't told the text of `policies` yet, it goes before. `regardless` lets failures of sinks
        stop nothing.

        Raises:
            SinkError: too many sinks failed; it is chained to the first cause. What isn't an Exception
                (KeyboardInterrupt) is raised as it is, after the other sinks had their turn.
        """
        self._ensure_open()
        plan = self._plan
        if failures := self._written(plan, plan.direct, record, policies)[1]:
            self._alarm(plan, failures, record, went_ahead=self._settled(plan, failures, regardless))

    async def awrite(self, record: Record, policies: Policies | None = None, *, regardless: bool = False) -> None:
        """Do as `write` does, with blocking sinks in a thread; if cancelled, end the write first.

        Raises:
            SinkError: as `write`.
        """
        import asyncio  # programs without a loop don't pay for it

        self._ensure_open()
        plan = self._plan
        if not plan.may_wait and (plan.late is None or plan.late.has_room(record)):
            self.write(record, policies, regardless=regardless)
            return
        task = asyncio.create_task(asyncio.to_thread(self._written, plan, plan.bounded, record, policies))
        cancelled = await ended(task)
        try:
            records, failures = task.result()
        except Exception as cause:  # no thread could be had
            records, failures = (), [(plan.sinks[0], cause)]
        failures += self._append(plan.quick, records)
        if cancelled is not None:
            raise cancelled
        if failures:
            ahead = self._settled(plan, failures, regardless)
            await asyncio.to_thread(self._alarm, plan, failures, record, went_ahead=ahead)

    def metrics(self) -> Metrics:
        """Return how all sinks fare together; numbers are those of the file log.

        What is lost is what sinks were given and don't keep, or not in time, also where the call was denied for it.
        """
        plan = self._plan
        log = plan.log or plan.late
        own = Metrics() if log is None else log.metrics()
        told = joint_metrics((*map(metrics_of, plan.sinks), *self._watched.metrics()), self._lost)
        return evolve(own, records_lost_total=told.records_lost_total, waiting=told.waiting, lag=told.lag)

    def close(self) -> None:
        """Close every sink; writing raises from then on, closing again does nothing.

        Raises:
            SinkError: a sink failed to; it is chained to the first cause.
        """
        if self._closed:
            return
        self._closed = True
        watched = self._plan.watched
        close_all(self._plan.sinks, lambda sink: self._watched.close(sink) if sink in watched else sink.close())

    def _settled(self, plan: _Plan, failures: Failures, regardless: bool) -> bool:
        """Raise where failures may not be passed over; else say whether that is in spite of too few sinks."""
        enough = self._required is not None and len(plan.sinks) - len(failures) >= self._required
        if not (enough or regardless) or not all(isinstance(cause, Exception) for _, cause in failures):
            raise_failures(failures, len(plan.sinks))
        return not enough

    def _alarm(self, plan: _Plan, failures: Failures, record: Record, *, went_ahead: bool) -> None:
        """Tell of failures that stopped nothing: the log, and the sinks that work."""
        logger, now = logging.getLogger("agentauthz.records"), dt.datetime.now(dt.UTC)
        failed = [sink for sink, _ in failures]
        rest = _Plan.of(tuple(sink for sink in plan.sinks if sink not in failed))
        for sink, cause in failures:
            name, error = class_name(sink), class_name(cause)
            logger.error("`%s` failed to keep record %s: %s", name, record.id, error)
            about = {"sink": name, "error": error, "record": record.id, "went_ahead": went_ahead}
            event = EventRecord(id=self._ids.next(now), ts=now, type="sink.failed", about=about)
            self._written(rest, rest.direct, event, None)

    def _ensure_open(self) -> None:
        if self._closed:
            raise SinkError("the sinks are closed")

    def _own(self) -> Stream:
        """Return the stream of records that no file log numbers."""
        mine = self._mine
        if mine is not None and mine[0] is Process.mark:
            return mine[1]
        with Process.lock:
            if self._mine is mine:
                stream = Stream()
                stream.begin()
                self._mine = mine = (Process.mark, stream)
            return cast("tuple[object, Stream]", self._mine)[1]

    def _taken(self, plan: _Plan, record: Record, policies: Policies | None) -> Taken:
        if plan.log is None:
            return self._own().take(record, policies, others=True)
        try:
            stream = plan.log.stream
        except SinkError as cause:  # a child's file can't be begun: the other sinks must have the record all the same
            return Taken(self._own().take(record, policies, others=True).records, cause)
        return stream.take(record, policies, others=plan.others)

    def _written(
        self, plan: _Plan, sinks: Sequence[Sink], record: Record, policies: Policies | None
    ) -> tuple[Sequence[Record], Failures]:
        """Place a record, and append it to `sinks` and those with a lane; return what others get, and what failed."""
        policies = policies if plan.always else None
        with Writing(self):
            failures: Failures = []
            if plan.late is not None:
                failures += _queued(plan.late, record, policies)
                if not plan.others:
                    return (), self._counted(failures)
            taken = self._taken(plan, record, policies)
            answers = self._watched.ask(plan.watched, taken.records) if plan.watched else None
            failures += append_all(sinks, taken.records)
            if answers is not None:
                failures += answers()
            if plan.log is not None:
                try:
                    taken.confirm()
                except SinkError as cause:
                    failures.insert(0, (plan.log, cause))
            return taken.records, self._counted(failures)

    def _append(self, sinks: Sequence[Sink], records: Sequence[Record]) -> Failures:
        with Writing(self):
            return self._counted(append_all(sinks, records))

    def _counted(self, failures: Failures) -> Failures:
        if failures:
            with self._lock:
                self._lost += len(failures)
        return failures


def _queued(late: FileSink, record: Record, policies: Policies | None) -> Failures:
    try:
        late.put(record, policies)
    except Exception as cause:
        return [(late, cause)]
    return []
