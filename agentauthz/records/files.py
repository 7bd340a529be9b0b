"""Keep records in a folder: a log that survives faults, and shows what was changed in it."""

from __future__ import annotations

import atexit
import contextlib
import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records.ids import Process
from agentauthz.records.log import Log, Mode
from agentauthz.records.record import Record
from agentauthz.records.recovery import recover
from agentauthz.records.segment import failed
from agentauthz.records.sinks.sink import Guarantee
from agentauthz.records.stream import Stream

SEGMENT: Final = 64 * 1024 * 1024  # bytes


def _system_time() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@final
class FileSink:
    """Append records to this process's own stream in `folder`, which is made (mode 0700) where it isn't there.

    A record is handed to the operating system, whole, before the call that it is about goes on: it survives the
    death of the process. With `mode="fsync"` it is on the device by then, and survives a loss of power; callers at
    the same time share one sync. A segment ends when it has `segment_size` bytes. A forked child writes a stream of
    its own. What a writer that died has left behind is put right when the sink is made.

    Raises:
        SinkError: the folder can't be made or written.
        InvalidArgument: another mode, or a size that isn't positive.
    """

    __slots__ = ("_clock", "_closed", "_limit", "_lock", "_mine", "_mode", "folder", "guarantees")

    blocking: Final = True  # a disk may be slow

    def __init__(
        self,
        folder: str | Path,
        *,
        mode: Mode = "inline",
        segment_size: int = SEGMENT,
        clock: Callable[[], dt.datetime] = _system_time,
    ) -> None:
        if mode not in ("inline", "fsync"):
            raise InvalidArgument("mode", f'must be "inline" or "fsync", not {mode!r}')
        if type(segment_size) is not int or segment_size < 1:
            raise InvalidArgument("segment_size", "must be a number of bytes, at least 1")
        self.folder = Path(os.path.abspath(folder))  # a later chdir must not move the records
        self._mode: Mode = mode
        self._limit = segment_size
        self._clock = clock
        self._closed = False
        self.guarantees: Final = Guarantee("power_loss" if mode == "fsync" else "process_crash", ordered=True)
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
        except OSError as cause:
            raise failed(self.folder, "can't be made", cause) from cause
        self._mine = (Process.mark, self._begun())
        atexit.register(self._at_exit)

    @property
    def stream(self) -> Stream:
        """Return the stream that this process writes.

        Raises:
            SinkError: it can't be begun.
        """
        mark, stream = self._mine
        if mark is Process.mark:
            return stream
        with Process.lock:  # a forked child; the parent's locks may be held by threads that aren't here
            mark, stream = self._mine
            if mark is not Process.mark:
                stream = self._begun()
                self._mine = (Process.mark, stream)
            return stream

    @property
    def path(self) -> Path:
        """Return the file that this process writes now."""
        log = self.stream.log
        return self.folder if log is None else log.path

    def append(self, line: bytes, record: Record) -> None:
        """Give a record its place in the stream, and write it, all of it or nothing.

        Raises:
            SinkError: the record can't be written, or the sink is closed.
        """
        self.stream.take(record, others=False).confirm()

    def close(self) -> None:
        """Seal the stream; doing it again does nothing.

        Raises:
            SinkError: the disk refused the last records.
        """
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        mark, stream = self._mine
        if mark is Process.mark:
            try:
                stream.close()
            except OSError as cause:
                raise failed(self.folder, "couldn't be sealed", cause) from cause

    def _begun(self) -> Stream:
        stream = Stream(self._clock)
        if self._closed:
            stream.closed = True
            return stream
        try:
            log = Log(self.folder, stream.id, mode=self._mode, limit=self._limit)
            try:
                stream.begin(log)
                with stream.lock:
                    for about in recover(self.folder):
                        stream.event("stream.recovered", about)
            except BaseException:
                log.abandon()
                raise
        except OSError as cause:
            raise failed(self.folder, "can't be written", cause) from cause
        return stream

    def _at_exit(self) -> None:
        with contextlib.suppress(SinkError):
            self.close()
