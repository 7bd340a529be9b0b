"""Write each record to every sink, and tell whether all of them kept it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import final

from attrs import frozen

from agentauthz.decision import Decision
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records.record import Record
from agentauthz.records.sinks.combine import Failures, append_all, close_all, raise_failures, require_append
from agentauthz.records.sinks.local import LoggingSink
from agentauthz.records.sinks.sink import Sink
from agentauthz.records.writing import Writing, inside


@final
@frozen
class _Plan:
    """Hold the sinks, and what follows from them, as one: a write that has begun sees one list of sinks."""

    sinks: tuple[Sink, ...]
    logging: tuple[LoggingSink, ...]
    always: bool  # some sink takes every record
    blocking: tuple[Sink, ...]
    quick: tuple[Sink, ...]

    @classmethod
    def of(cls, sinks: tuple[Sink, ...]) -> _Plan:
        logging = tuple(sink for sink in sinks if isinstance(sink, LoggingSink))
        blocking = tuple(sink for sink in sinks if getattr(sink, "blocking", False) is True)
        quick = tuple(sink for sink in sinks if getattr(sink, "blocking", False) is not True)
        return cls(sinks, logging, len(logging) < len(sinks), blocking, quick)


@final
class Recorder:
    """Hold an authorizer's sinks; with none given, records go to `LoggingSink`, which warns if that is silent.

    Raises:
        InvalidArgument: something in `sinks` can't append.
    """

    __slots__ = ("_closed", "_lock", "_plan")

    def __init__(self, sinks: Iterable[Sink] = ()) -> None:
        if not isinstance(sinks, Iterable):
            raise InvalidArgument("sinks", "must be a list of sinks")
        given = tuple(sinks)
        for sink in given:
            require_append(sink)
        if not given:
            default = LoggingSink()
            default.warn_if_silent()
            given = (default,)
        self._closed = False
        self._lock = threading.Lock()
        self._plan = _Plan.of(given)

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
        """Write to a sink no more; it isn't closed. One that isn't there is ignored."""
        with self._lock:
            self._plan = _Plan.of(tuple(one for one in self._plan.sinks if one is not sink))

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

    def writing(self) -> bool:
        """Say whether the caller runs inside a sink of this recorder: what it asks for must be refused."""
        return inside(self)

    def write(self, record: Record) -> None:
        """Append the record to every sink, also where one fails.

        Raises:
            SinkError: a sink failed; it is chained to the first cause. What isn't an Exception (KeyboardInterrupt)
                is raised as it is, after the other sinks had their turn.
        """
        self._ensure_open()
        sinks = self._plan.sinks
        if failures := self._append(sinks, record):
            raise_failures(failures, len(sinks))

    async def awrite(self, record: Record) -> None:
        """Do as `write` does, with blocking sinks in a thread; if cancelled, end the write first.

        Raises:
            SinkError: as `write`.
        """
        import asyncio  # programs without a loop don't pay for it

        self._ensure_open()
        plan = self._plan
        failures = self._append(plan.quick, record)
        cancelled: asyncio.CancelledError | None = None
        if plan.blocking:
            task = asyncio.create_task(asyncio.to_thread(self._append, plan.blocking, record))
            while not task.done():
                try:
                    await asyncio.wait([task])
                except asyncio.CancelledError as caught:
                    cancelled = caught
            try:
                failures += task.result()
            except Exception as cause:  # no thread could be had
                failures.append((plan.blocking[0], cause))
        if cancelled is not None:
            raise cancelled
        raise_failures(failures, len(plan.sinks))

    def close(self) -> None:
        """Close every sink; writing raises from then on, closing again does nothing.

        Raises:
            SinkError: a sink failed to; it is chained to the first cause.
        """
        if self._closed:
            return
        self._closed = True
        close_all(self._plan.sinks)

    def _ensure_open(self) -> None:
        if self._closed:
            raise SinkError("the sinks are closed")

    def _append(self, sinks: Sequence[Sink], record: Record) -> Failures:
        with Writing(self):
            return append_all(sinks, record.line(), record)
