"""Hold lines that wait to be sent or written: a bounded queue, what a full one does, and how its losses are counted."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, TypeAlias, final

from attrs import field, frozen

from agentauthz.errors import InvalidArgument
from agentauthz.records.lines import NO_STREAM
from agentauthz.records.scan import LOST
from agentauthz.records.sinks.row import row_of

Delivery: TypeAlias = Literal["acknowledged", "queued", "lossy"]
DELIVERIES: Final[tuple[Delivery, ...]] = ("acknowledged", "queued", "lossy")
Overflow: TypeAlias = Literal["block", "drop_oldest", "drop_allow_first"]
OVERFLOWS: Final[tuple[Overflow, ...]] = ("block", "drop_oldest", "drop_allow_first")

ROOM: Final = 16 * 1024 * 1024  # bytes of lines that may wait

NO_MATTER: Final = sys.maxsize  # the thread is at work: nobody needs to wake it

# What may be given up, told by how a line goes on after its place: what is neither a decision nor an effect may not
_TOLD: Final = re.compile(rb'"type":"(?:effect"|decision","id":"[^"\\\\]*","ts":"[^"]*","outcome":"(?:(allow)")?)')


def _is_allow(line: bytes) -> bool:
    found = _TOLD.match(line, line.index(b'"type":'))
    return found is not None and (found[1] is not None or found[0].endswith(b'effect"'))


def _is_told(line: bytes) -> bool:
    return _TOLD.match(line, line.index(b'"type":')) is not None


SPARE: Final[dict[Overflow, Callable[[bytes], bool]]] = {
    "block": lambda _: False,
    "drop_oldest": _is_told,
    "drop_allow_first": _is_allow,
}


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
class Entry:
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
class Gap:
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
class Queue:
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
        self.wanted = NO_MATTER
        self.hurry = False
        self.entries: deque[Entry] = deque()
        self.taken = 0
        self.flying = 0
        self.lost = 0
        self.gap: Gap | None = None
        self.failure: BaseException | None = None
        self.ends: float | None = None
        self.thread: threading.Thread | None = None

    def add(self, entry: Entry) -> None:
        """Take an entry; the thread is woken where that is what it waits for, and no more often."""
        self.entries.append(entry)
        self.taken += len(entry.line)
        if len(self.entries) >= self.wanted:
            self.wanted = NO_MATTER
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

    def is_precious(self, entry: Entry) -> bool:
        """Say whether a line may not be given up for others."""
        if entry.precious is None:
            entry.precious = not self.spare(entry.line)
        return entry.precious

    def skip(self, line: bytes) -> None:
        """Count a line that nobody gets."""
        self.lost += 1
        self.gap = self.gap or Gap(line)
        self.gap.count += 1
        self.gap.last = line

    def _remove(self, index: int) -> bytes:
        entry = self.entries[index]
        del self.entries[index]
        self.taken -= len(entry.line)
        entry.done = True
        return entry.line
