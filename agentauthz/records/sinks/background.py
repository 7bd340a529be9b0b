"""Send lines in batches from one thread of this process: with back-off, and loss that is counted.

It serves the sinks that send over a network, and a file log that writes later. Each process has a queue, a thread and a
connection of its own: the child of a fork begins with none.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final, Protocol, final

from agentauthz.canonical import class_name
from agentauthz.errors import SinkError
from agentauthz.records.events import EventRecord
from agentauthz.records.ids import RecordIds
from agentauthz.records.sinks.waiting import NO_MATTER, SPARE, Entry, Gap, Limits, Queue

_FIRST_PAUSE: Final = 0.1  # seconds before the second retry; the first comes at once


class Rejected(Exception):
    """Say that the other side will never take what was sent, so that sending it again is of no use."""


class Wire(Protocol):
    """Be one connection, used by one thread."""

    def send(self, lines: Sequence[Any]) -> None:
        """Return once the other side keeps the lines, or what stands for them, in that order.

        Raises `Rejected` where it never will, else anything: then all of them are sent again.
        """

    def close(self) -> None:
        """Let go of it."""


@final
class Background:
    """Send what `append` is given over what `open_wire` returns; `name` is how messages call the sink.

    With "acknowledged" an append returns once the other side has the line; else once it is in the queue. Where that is
    full, it waits ("block"), or gives up the oldest decisions and effects ("drop_oldest"), or of them the allows and
    effects ("drop_allow_first"): it counts them, and tells the other side in a record of the type `stream.gap`. What
    may not be given up is kept, or the append raises.
    """

    def __init__(self, name: str, open_wire: Callable[[], Wire], limits: Limits) -> None:
        self._name: Final = name
        self._open_wire: Final = open_wire
        self._limits: Final = limits
        self._spare: Final = SPARE[limits.overflow]
        self._ids: Final = RecordIds()
        self._closed = False
        self._queue = Queue(self._spare)

    def close_with(self, sink: object) -> None:
        """See to it that what waits is sent when the interpreter ends, or when nobody has the sink any more."""
        weakref.finalize(sink, self._close_quietly)

    @property
    def lost(self) -> int:
        """Return how many lines this process has lost: given up, rejected, or left over at the end."""
        return self._own().lost

    @property
    def waiting(self) -> int:
        """Return how many lines wait."""
        return len(self._own().entries)

    @property
    def waiting_bytes(self) -> int:
        """Return how many bytes the lines that wait have."""
        return self._own().taken

    @property
    def lag(self) -> float:
        """Return how many seconds the oldest line waits; 0: none does."""
        try:
            return time.monotonic() - self._own().entries[0].since
        except IndexError:
            return 0.0

    @property
    def arrived(self) -> bytes | None:
        """Return the last line that has arrived."""
        return self._own().arrived

    @property
    def failure(self) -> BaseException | None:
        """Return why the last attempt failed; None: it didn't."""
        return self._own().failure

    def put(self, lines: Sequence[bytes], precious: bool) -> None:
        """Take lines, all or none.

        Raises:
            SinkError: they didn't arrive, or find room, in time; or the sink is closed.
        """
        queue, limits = self._own(), self._limits
        entries = [Entry(line, precious, line) for line in lines]
        ends = time.monotonic() + limits.timeout
        with queue.changed:
            self._require_open()
            if not self._find_room(queue, sum(map(len, lines)), ends, entries):
                for entry in entries:
                    queue.skip(entry.line)
                return
            self._start(queue)
            for entry in entries:
                queue.add(entry)
            if limits.delivery == "acknowledged" and not self._arrived(queue, entries, ends):
                for entry in entries:
                    entry.withdrawn = True
                queue.take_back()
                raise self._late(queue) from queue.failure
        self._check(entries)

    def put_one(self, line: bytes, item: object) -> None:
        """Take one line at once, for which the wire is given `item`; whether it may be given up, the line says.

        Raises:
            SinkError: it found no room in time, or the sink is closed.
        """
        queue = self._own()
        entry = Entry(line, None, item)
        with queue.lock:
            self._require_open()
            if queue.thread is None or not queue.thread.is_alive():
                self._start(queue)
            if queue.taken + len(line) > self._limits.room:
                ends = time.monotonic() + self._limits.timeout
                if not self._find_room(queue, len(line), ends, (entry,)):
                    queue.skip(line)
                    return
            queue.add(entry)

    def has_room(self, line: bytes) -> bool:
        """Say whether a line would find room without waiting."""
        queue = self._own()
        return self._limits.overflow != "block" or queue.taken + len(line) <= self._limits.room

    def flush(self, timeout: float) -> None:
        """Return once all that waits now has arrived.

        Raises:
            SinkError: it hasn't within `timeout` seconds, or was rejected.
        """
        queue = self._own()
        with queue.changed:
            entries = list(queue.entries)
            queue.wake()
            if not self._arrived(queue, entries, time.monotonic() + timeout):
                raise self._late(queue) from queue.failure
        self._check(entries)

    def close(self, timeout: float | None = None) -> None:
        """Send what waits, and end; doing it again does nothing.

        Raises:
            SinkError: lines were left over after the time-out; they count as lost.
        """
        queue, timeout = self._own(), self._limits.timeout if timeout is None else timeout
        with queue.changed:
            if self._closed:
                return
            self._closed = True
            queue.ends = time.monotonic() + timeout
            with contextlib.suppress(SinkError):  # what can't be sent is left over
                if queue.entries:
                    self._start(queue)
            queue.wake()
            queue.changed.notify_all()
        if queue.thread is not None and queue.thread is not threading.current_thread():
            queue.thread.join(timeout)
        with queue.changed:
            left = len(queue.entries)
            for entry in queue.entries:
                queue.skip(entry.line)
        if left:
            raise SinkError(f"`{self._name}` was closed before {left} records had arrived{_why(queue.failure)}")

    def untold(self) -> dict[str, object] | None:
        """Return what a record of the lines would say that were given up, and of which nobody was told."""
        gap = self._own().gap
        return None if gap is None else gap.about()

    @property
    def running(self) -> bool:
        """Say whether the thread still runs."""
        thread = self._queue.thread
        return thread is not None and thread.is_alive()

    # ---- on the caller's side

    def _own(self) -> Queue:
        if self._queue.process != os.getpid():
            # a fork: the thread isn't here, and its lock may be held for ever
            self._queue = Queue(self._spare)
        return self._queue

    def _require_open(self) -> None:
        if self._closed:
            raise SinkError(f"`{self._name}` takes no more records: it is closed")

    def _find_room(self, queue: Queue, needed: int, ends: float, entries: Sequence[Entry]) -> bool:
        """Find so many bytes for entries; False: there is no room, and they may be given up."""
        room = self._limits.room

        def fits() -> bool:
            return not queue.entries or queue.taken + needed <= room  # whatever its size, one append can go

        if self._limits.overflow != "block":
            queue.give_up(needed, room)
        elif not fits():
            queue.wake()
            queue.changed.wait_for(lambda: self._closed or fits(), max(0.0, ends - time.monotonic()))
            self._require_open()
        if not fits():
            if self._limits.overflow == "block" or any(map(queue.is_precious, entries)):
                raise SinkError(f"`{self._name}` has no room for a record{_why(queue.failure)}") from queue.failure
            return False
        return True

    def _arrived(self, queue: Queue, entries: Sequence[Entry], ends: float) -> bool:
        return queue.changed.wait_for(lambda: all(entry.done for entry in entries), max(0.0, ends - time.monotonic()))

    def _check(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.error is not None:
                raise SinkError(f"`{self._name}` can't keep a record{_why(entry.error)}") from entry.error

    def _late(self, queue: Queue) -> SinkError:
        return SinkError(f"`{self._name}` didn't keep a record in time{_why(queue.failure)}")

    def _close_quietly(self) -> None:
        with contextlib.suppress(SinkError):  # nobody is there to be told
            self.close()

    # ---- in the thread

    def _start(self, queue: Queue) -> None:
        if queue.thread is not None and queue.thread.is_alive():
            return
        thread = threading.Thread(target=self._run, args=(queue,), name=f"agentauthz-{self._name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as cause:
            raise SinkError(f"`{self._name}` can't keep a record: no thread can be had") from cause
        queue.thread = thread

    def _run(self, queue: Queue) -> None:
        wire: Wire | None = None
        failures = 0
        while batch := self._next(queue):
            try:
                wire = wire or self._open_wire()
                self._send(wire, queue, batch)
                failures, queue.failure = 0, None
            except BaseException as failure:  # whatever it was, the lines are still to be sent
                _closed(wire)
                wire = None
                failures += 1
                self._pause(queue, failures, failure)
        _closed(wire)

    def _next(self, queue: Queue) -> list[object]:
        """Wait for lines, and return those to send now; none: the end has come."""
        batch = self._limits.batch
        with queue.changed:
            self._await(queue, 1, None)
            if self._limits.linger and not queue.hurry:
                self._await(queue, batch, self._limits.linger)
            queue.hurry = False
            if queue.ends is not None and time.monotonic() >= queue.ends:
                return []
            if queue.gap is not None and not (queue.entries and queue.entries[0].report):  # one at a time
                self._report(queue, queue.gap)
            items = [entry.item for entry in islice(queue.entries, batch)]
            queue.flying = len(items)
            return items

    @staticmethod
    def _await(queue: Queue, wanted: int, seconds: float | None) -> None:
        """Wait for so many lines, for somebody who is in a hurry, or for the end."""
        queue.wanted = wanted
        queue.work.wait_for(
            lambda: len(queue.entries) >= wanted or (queue.hurry and queue.entries)
            or queue.gap is not None or queue.ends is not None, seconds,
        )  # fmt: skip
        queue.wanted = NO_MATTER

    def _report(self, queue: Queue, gap: Gap) -> None:
        """Put a record before the next lines that tells what was given up."""
        now = dt.datetime.now(dt.UTC)
        line = EventRecord(id=self._ids.next(now), ts=now, type="stream.gap", about=gap.about()).line()
        queue.gap = None
        # SECURITY: no text of a record
        logging.getLogger("agentauthz.records").error("`%s` has lost records: %d", self._name, gap.count)
        queue.entries.appendleft(Entry(line, precious=True, item=line, report=True))
        queue.taken += len(line)

    def _send(self, wire: Wire, queue: Queue, batch: Sequence[object]) -> None:
        """Send lines; where the other side rejects some of them, find out which: the others must arrive."""
        try:
            wire.send(batch)
        except Rejected as rejected:
            if len(batch) == 1:
                queue.settle(1, rejected, told=self._limits.delivery == "acknowledged")
                return
            half = len(batch) // 2
            self._send(wire, queue, batch[:half])
            self._send(wire, queue, batch[half:])
        else:
            queue.settle(len(batch), None, told=True)

    def _pause(self, queue: Queue, failures: int, failure: BaseException) -> None:
        """Wait before the next attempt: not at all, then ever longer, with some chance in it."""
        longest = self._limits.timeout / 4 if self._limits.delivery == "acknowledged" else self._limits.pause
        pause = 0.0 if failures == 1 else min(longest, _FIRST_PAUSE * 2.0 ** min(failures - 2, 20))
        pause *= 0.5 + random.random() / 2  # noqa: S311  (no secret)
        with queue.changed:
            queue.failure, queue.flying = failure, 0
            queue.take_back()
            if queue.ends is None:
                queue.work.wait_for(lambda: queue.ends is not None, pause)
                return
        time.sleep(min(pause, _FIRST_PAUSE))  # it is closed: the attempts that are left come quickly


def _closed(wire: Wire | None) -> None:
    if wire is not None:
        with contextlib.suppress(Exception):  # it is given up, whatever it says
            wire.close()


def _why(cause: BaseException | None) -> str:
    return "" if cause is None else f": {class_name(cause)}"  # SECURITY: a foreign error's text may hold the record
