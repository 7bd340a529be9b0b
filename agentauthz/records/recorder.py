"""Write each record to every sink, and tell whether all of them kept it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import Final, final

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


_WRITING: Final[ContextVar[_Writing | None]] = ContextVar("agentauthz_writing", default=None)


@final
class Recorder:
    """Hold an authorizer's sinks; with none given, records go to `LoggingSink`, which warns if that is silent.

    Raises:
        InvalidArgument: something in `sinks` can't append.
    """

    __slots__ = ("_always", "_blocking", "_closed", "_lock", "_logging", "_quick", "sinks")

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
        self._use(given)

    def _use(self, sinks: tuple[Sink, ...]) -> None:
        self.sinks = sinks
        self._logging = tuple(sink for sink in self.sinks if isinstance(sink, LoggingSink))
        self._always = len(self._logging) < len(self.sinks)
        self._blocking = tuple(sink for sink in self.sinks if getattr(sink, "blocking", False) is True)
        self._quick = tuple(sink for sink in self.sinks if getattr(sink, "blocking", False) is not True)

    def add(self, sink: Sink) -> None:
        """Write to one more sink from the next record on.

        Raises:
            InvalidArgument: it can't append.
        """
        _require_append(sink)
        with self._lock:
            self._use((*self.sinks, sink))

    def remove(self, sink: Sink) -> None:
        """Write to a sink no more; it isn't closed. One that isn't there is ignored."""
        with self._lock:
            self._use(tuple(one for one in self.sinks if one is not sink))

    def wants(self, decision: Decision) -> bool:
        """Say whether a record of `decision` must be written: a sink does something with it, or is closed."""
        if self._closed or self._always:
            return True
        for sink in self._logging:  # noqa: SIM110  (asked at every decision, and a generator costs more than its answer)
            if sink.wants(decision):
                return True
        return False

    def wants_effects(self) -> bool:
        """Say whether any sink would do something with a record of an effect."""
        return self._always or any(sink.wants_effects() for sink in self._logging)

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
        self._settle(self._append(self.sinks, record))

    async def awrite(self, record: Record) -> None:
        """Do as `write` does, with blocking sinks in a thread; if cancelled, end the write first.

        Raises:
            SinkError: as `write`.
        """
        import asyncio  # programs without a loop don't pay for it

        self._ensure_open()
        failures = self._append(self._quick, record)
        cancelled: asyncio.CancelledError | None = None
        if self._blocking:
            task = asyncio.create_task(asyncio.to_thread(self._append, self._blocking, record))
            while not task.done():
                try:
                    await asyncio.wait([task])
                except asyncio.CancelledError as caught:
                    cancelled = caught
            try:
                failures += task.result()
            except Exception as cause:  # no thread could be had
                failures.append((self._blocking[0], cause))
        if cancelled is not None:
            raise cancelled
        self._settle(failures)

    def close(self) -> None:
        """Close every sink; writing raises from then on, closing again does nothing.

        Raises:
            SinkError: a sink failed to; it is chained to the first cause.
        """
        if self._closed:
            return
        self._closed = True
        failures: list[tuple[Sink, BaseException]] = []
        for sink in self.sinks:
            try:
                sink.close()
            except BaseException as cause:
                failures.append((sink, cause))
        self._settle(failures)

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

    def _settle(self, failures: Sequence[tuple[Sink, BaseException]]) -> None:
        for _, cause in failures:
            if not isinstance(cause, Exception):
                raise cause
        if failures:
            # SECURITY: only the sinks' names; a foreign error's text may hold the record
            names = ", ".join(f"`{class_name(sink)}`" for sink, _ in failures)
            raise SinkError(f"{len(failures)} of {len(self.sinks)} sinks failed: {names}") from failures[0][1]


def _require_append(sink: object) -> None:
    if not callable(getattr(sink, "append", None)):
        raise InvalidArgument("sinks", f"must hold sinks, and a `{class_name(sink)}` has no `append`")
