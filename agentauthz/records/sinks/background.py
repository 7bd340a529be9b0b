"""Send lines in batches from one thread of this process: a bounded queue, back-off, and loss that is counted.

It is the one queue of the records: of the sinks that send over a network, and of a file log that writes later.

Each process has a queue, a thread and a connection of its own: the child of a fork begins with none.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import re
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final, Literal, Protocol, TypeAlias, final

from attrs import field, frozen

from agentauthz.canonical import class_name
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records.events import EventRecord
from agentauthz.records.ids import RecordIds
from agentauthz.records.lines import NO_STREAM
from agentauthz.records.scan import LOST
from agentauthz.records.sinks.row import row_of

Delivery: TypeAlias = Literal["acknowledged", "queued", "lossy"]
DELIVERIES: Final[tuple[Delivery, ...]] = ("acknowledged", "queued", "lossy")
Overflow: TypeAlias = Literal["block", "drop_oldest", "drop_allow_first"]
OVERFLOWS: Final[tuple[Overflow, ...]] = ("block", "drop_oldest", "drop_allow_first")

ROOM: Final = 16 * 1024 * 1024  # bytes of lines that may wait

_NO_MATTER: Final = sys.maxsize  # the thread is at work: nobody needs to wake it
_FIRST_PAUSE: Final = 0.1  # seconds before the second retry; the first comes at once

# What may be given up, told by how a line goes on after its place: what is neither a decision nor an effect may not
_TOLD: Final = re.compile(rb'"type":"(?:effect"|decision","id":"[^"\\\\]*","ts":"[^"]*","outcome":"(?:(allow)")?)')


def _is_allow(line: bytes) -> bool:
    found = _TOLD.match(line, line.index(b'"type":'))
    return found is not None and (found[1] is not None or found[0].endswith(b'effect"'))


def _is_told(line: bytes) -> bool:
    return _TOLD.match(line, line.index(b'"type":')) is not None


_SPARE: Final[dict[Overflow, Callable[[bytes], bool]]] = {
    "block": lambda _: False,
    "drop_oldest": _is_told,
    "drop_allow_first": _is_allow,
}


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
@frozen
class Limits:
    """Bound a queue: `room` bytes of lines that may wait, `batch` lines at once, `timeout` seconds for one append.

    `linger` is how many seconds a line may wait for others, `pause` how many may lie between two attempts. `overflow`
    is what a full queue does, and follows from `delivery` where it isn't given.

    Raises:
        InvalidArgument: no positive number, or a delivery or an overflow that isn't one.
    """

    delivery: Delivery
    timeout: float
    room: int
    batch: int
    linger: float = 0.0
    pause: float = 30.0
    overflow: Overflow = field()

    @overflow.default
    def _follows(self) -> Overflow:
        return "drop_allow_first" if self.delivery == "lossy" else "block"

    def __attrs_post_init__(self) -> None:
        if self.delivery not in DELIVERIES:
            raise InvalidArgument("delivery", 'must be "acknowledged", "queued" or "lossy"')
        if self.overflow not in OVERFLOWS:
            raise InvalidArgument("overflow", 'must be "block", "drop_oldest" or "drop_allow_first"')
        for name in ("timeout", "room", "batch"):
            number = getattr(self, name)
            if not isinstance(number, int | float) or not 0 < number < float("inf"):
                raise InvalidArgument(name, "must be a positive number")
        if not 0 <= self.linger < float("inf"):
            raise InvalidArgument("linger", "must be a number of seconds")


@final
class _Entry:
    """Be one line on its way, and what the wire is given for it. `since` is the moment from which it waits.

    `error` says that it will never arrive, `report` that it tells of others that didn't. Whether it is `precious` is
    read from the line when it matters, where it isn't told. Who appended a `withdrawn` one was told that it isn't kept;
    it may be under way.
    """

    __slots__ = ("done", "error", "item", "line", "precious", "report", "since", "withdrawn")

    def __init__(self, line: bytes, precious: bool | None, item: object, report: bool = False) -> None:
        self.line = line
        self.item = item
        self.precious = precious
        self.since = time.monotonic()
        self.report = report
        self.done = False
        self.withdrawn = False
        self.error: Exception | None = None


@final
class _Gap:
    """Count lines that were given up since the other side was last told."""

    __slots__ = ("count", "first", "last")

    def __init__(self, line: bytes) -> None:
        self.count = 0
        self.first = self.last = line

    def about(self) -> dict[str, object]:
        """Return what the record of a gap says."""
        first, last = row_of(self.first), row_of(self.last)
        told: dict[str, object] = {"count": self.count, "reason": LOST}
        if first.stream == last.stream != NO_STREAM:
            return told | {"stream": first.stream, "first_seq": first.seq, "last_seq": last.seq}
        return told | {"first": first.id, "last": last.id}


@final
class _Queue:
    """Hold what one process has yet to send. `flying` lines at its head are being sent, `taken` is its size in bytes.

    The thread waits for `work`, until there are `wanted` lines or somebody is in a `hurry`; all others for `changed`.
    `failure` is why the last attempt failed; `ends` when attempts end, which is known once it is closed; `arrived` is
    the last line that has.
    """

    __slots__ = ("arrived", "changed", "ends", "entries", "failure", "flying", "gap", "hurry", "lock", "lost",
                 "process", "spare", "taken", "thread", "wanted", "work")  # fmt: skip

    def __init__(self, spare: Callable[[bytes], bool]) -> None:
        self.process = os.getpid()
        self.spare: Final = spare  # says of a line whether it may be given up
        self.arrived: bytes | None = None
        self.lock: Final = threading.RLock()  # a generator collected in here may end with a record
        self.changed: Final = threading.Condition(self.lock)
        self.work: Final = threading.Condition(self.lock)
        self.wanted = _NO_MATTER
        self.hurry = False
        self.entries: deque[_Entry] = deque()
        self.taken = 0
        self.flying = 0
        self.lost = 0
        self.gap: _Gap | None = None
        self.failure: BaseException | None = None
        self.ends: float | None = None
        self.thread: threading.Thread | None = None

    def add(self, entry: _Entry) -> None:
        """Take an entry; the thread is woken where that is what it waits for, and no more often."""
        self.entries.append(entry)
        self.taken += len(entry.line)
        if len(self.entries) >= self.wanted:
            self.wanted = _NO_MATTER
            self.work.notify()

    def wake(self) -> None:
        """Have the thread send what waits now, rather than wait for more."""
        self.hurry = True
        self.work.notify()

    def settle(self, count: int, error: Exception | None, *, told: bool) -> None:
        """End the first entries: they have arrived, or never will, which their callers are `told` or not."""
        with self.changed:
            for _ in range(count):
                entry = self.entries.popleft()
                self.taken -= len(entry.line)
                self.flying -= 1
                entry.done, entry.error = True, error
                if error is None:
                    self.arrived = entry.line
                elif not told and not entry.report:
                    self.skip(entry.line)
            self.changed.notify_all()

    def take_back(self) -> None:
        """Remove what was withdrawn, unless it is being sent."""
        for index in range(len(self.entries) - 1, self.flying - 1, -1):
            if self.entries[index].withdrawn:
                self._remove(index)

    def give_up(self, needed: int, room: int) -> None:
        """Drop the oldest lines that may be lost, until so many bytes find room, or there are none of them."""
        index = self.flying
        while self.taken + needed > room and index < len(self.entries):
            if self.is_precious(self.entries[index]):
                index += 1
            else:
                self.skip(self._remove(index))

    def is_precious(self, entry: _Entry) -> bool:
        """Say whether a line may not be given up for others."""
        if entry.precious is None:
            entry.precious = not self.spare(entry.line)
        return entry.precious

    def skip(self, line: bytes) -> None:
        """Count a line that nobody gets."""
        self.lost += 1
        self.gap = self.gap or _Gap(line)
        self.gap.count += 1
        self.gap.last = line

    def _remove(self, index: int) -> bytes:
        entry = self.entries[index]
        del self.entries[index]
        self.taken -= len(entry.line)
        entry.done = True
        return entry.line


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
        self._spare: Final = _SPARE[limits.overflow]
        self._ids: Final = RecordIds()
        self._closed = False
        self._queue = _Queue(self._spare)

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
        entries = [_Entry(line, precious, line) for line in lines]
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
        entry = _Entry(line, None, item)
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

    def _own(self) -> _Queue:
        if self._queue.process != os.getpid():
            # a fork: the thread isn't here, and its lock may be held for ever
            self._queue = _Queue(self._spare)
        return self._queue

    def _require_open(self) -> None:
        if self._closed:
            raise SinkError(f"`{self._name}` takes no more records: it is closed")

    def _find_room(self, queue: _Queue, needed: int, ends: float, entries: Sequence[_Entry]) -> bool:
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

    def _arrived(self, queue: _Queue, entries: Sequence[_Entry], ends: float) -> bool:
        return queue.changed.wait_for(lambda: all(entry.done for entry in entries), max(0.0, ends - time.monotonic()))

    def _check(self, entries: Sequence[_Entry]) -> None:
        for entry in entries:
            if entry.error is not None:
                raise SinkError(f"`{self._name}` can't keep a record{_why(entry.error)}") from entry.error

    def _late(self, queue: _Queue) -> SinkError:
        return SinkError(f"`{self._name}` didn't keep a record in time{_why(queue.failure)}")

    def _close_quietly(self) -> None:
        with contextlib.suppress(SinkError):  # nobody is there to be told
            self.close()

    # ---- in the thread

    def _start(self, queue: _Queue) -> None:
        if queue.thread is not None and queue.thread.is_alive():
            return
        thread = threading.Thread(target=self._run, args=(queue,), name=f"agentauthz-{self._name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as cause:
            raise SinkError(f"`{self._name}` can't keep a record: no thread can be had") from cause
        queue.thread = thread

    def _run(self, queue: _Queue) -> None:
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

    def _next(self, queue: _Queue) -> list[object]:
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
    def _await(queue: _Queue, wanted: int, seconds: float | None) -> None:
        """Wait for so many lines, for somebody who is in a hurry, or for the end."""
        queue.wanted = wanted
        queue.work.wait_for(
            lambda: len(queue.entries) >= wanted or (queue.hurry and queue.entries)
            or queue.gap is not None or queue.ends is not None, seconds,
        )  # fmt: skip
        queue.wanted = _NO_MATTER

    def _report(self, queue: _Queue, gap: _Gap) -> None:
        """Put a record before the next lines that tells what was given up."""
        now = dt.datetime.now(dt.UTC)
        line = EventRecord(id=self._ids.next(now), ts=now, type="stream.gap", about=gap.about()).line()
        queue.gap = None
        queue.entries.appendleft(_Entry(line, precious=True, item=line, report=True))
        queue.taken += len(line)

    def _send(self, wire: Wire, queue: _Queue, batch: Sequence[object]) -> None:
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

    def _pause(self, queue: _Queue, failures: int, failure: BaseException) -> None:
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
