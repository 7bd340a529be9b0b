"""Write each record to every sink, and tell whether all of them kept it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import Final, final

from attrs import frozen

from agentauthz.canonical import class_name
from agentauthz.decision import Decision
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records.record import Record
from agentauthz.records.sinks import LoggingSink, Sink


@final
class _Writing:
    """Mark one write; contexts that are copied meanwhile see when it has ended."""

    __slots__ = ("active", "outer", "recorder")

    def __init__(self, recorder: Recorder, outer: _Writing | None) -> None:
        self.recorder = recorder
        self.outer = outer
        self.active = True


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


_WRITING: Final[ContextVar[_Writing | None]] = ContextVar("agentauthz_writing", default=None)


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
            _require_append(sink)
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
        _require_append(sink)
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
        mark = _WRITING.get()
        while mark is not None:
            if mark.active and mark.recorder is self:
                return True
            mark = mark.outer
        return False

    def write(self, record: Record) -> None:
        """Append the record to every sink, also where one fails.

        Raises:
            SinkError: a sink failed; it is chained to the first cause. What isn't an Exception (KeyboardInterrupt)
                is raised as it is, after the other sinks had their turn.
        """
        self._ensure_open()
        sinks = self._plan.sinks
        if failures := self._append(sinks, record):
            _raise(failures, len(sinks))

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
        _raise(failures, len(plan.sinks))

    def close(self) -> None:
        """Close every sink; writing raises from then on, closing again does nothing.

        Raises:
            SinkError: a sink failed to; it is chained to the first cause.
        """
        if self._closed:
            return
        self._closed = True
        failures: list[tuple[Sink, BaseException]] = []
        sinks = self._plan.sinks
        for sink in sinks:
            try:
                sink.close()
            except BaseException as cause:
                failures.append((sink, cause))
        _raise(failures, len(sinks))

    def _ensure_open(self) -> None:
        if self._closed:
            raise SinkError("the sinks are closed")

    def _append(self, sinks: Sequence[Sink], record: Record) -> list[tuple[Sink, BaseException]]:
        failures: list[tuple[Sink, BaseException]] = []
        mark = _Writing(self, _WRITING.get())
        token = _WRITING.set(mark)
        try:
            line = record.line()
            for sink in sinks:
                try:
                    sink.append(line, record)
                except BaseException as cause:
                    failures.append((sink, cause))
        finally:
            mark.active = False
            _WRITING.reset(token)
        return failures


def _raise(failures: Sequence[tuple[Sink, BaseException]], asked: int) -> None:
    """Raise what `failures` of so many sinks amount to; without one, do nothing."""
    for _, cause in failures:
        if not isinstance(cause, Exception):
            raise cause
    if failures:
        # SECURITY: only the sinks' names; a foreign error's text may hold the record
        names = ", ".join(f"`{class_name(sink)}`" for sink, _ in failures)
        raise SinkError(f"{len(failures)} of {asked} sinks failed: {names}") from failures[0][1]


def _require_append(sink: object) -> None:
    if not callable(getattr(sink, "append", None)):
        raise InvalidArgument("sinks", f"must hold sinks, and a `{class_name(sink)}` has no `append`")
