"""Number the records of one writer, chain them, and hand each line to the file log before anybody else has it."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Protocol, final

from attrs import frozen

from agentauthz.errors import SinkError
from agentauthz.records.events import EffectRecord, EventRecord, PolicyRecord, event_body, policy_bodies
from agentauthz.records.ids import RecordIds
from agentauthz.records.keeper import Keeper
from agentauthz.records.lines import NO_HASH, finished, opening, place, placed
from agentauthz.records.log import Log, Ticket
from agentauthz.records.merkle import Tree, leaf_hash
from agentauthz.records.record import Record, of_line

_FOLD: Final = 16  # hashes that wait to be added to the tree, so that no record pays for many


class Text(Protocol):
    """Be one file of a policy set."""

    @property
    def name(self) -> str:
        """Return the file's name."""

    @property
    def text(self) -> str:
        """Return what is in it."""


class Policies(Protocol):
    """Be the text behind a digest: what a policy set was made from."""

    @property
    def digest(self) -> str:
        """Return the digest that decisions name."""

    @property
    def sources(self) -> Sequence[Text]:
        """Return the files."""


@final
class Waiting:
    """Be a record that waits for its place, with the policies that must be told before it."""

    __slots__ = ("line", "policies")

    def __init__(self, line: bytes, policies: Policies | None) -> None:
        self.line = line
        self.policies = policies


CLOSED: Final = "the log takes no more records: it is closed"
_BUSY: Final = "the log can't be used from within a write to it"


@final
@frozen
class Taken:
    """Be what came of one record: all that other sinks must have, in order, and what the file log said."""

    records: Sequence[Record]
    failure: SinkError | None = None
    ticket: Ticket | None = None

    def confirm(self) -> None:
        """Return when the file log keeps what it promised to.

        Raises:
            SinkError: it doesn't.
        """
        if self.failure is not None:
            raise self.failure
        if self.ticket is not None:
            self.ticket.confirm()


def _system_time() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@final
class Stream:
    """Be the records of one writer: numbered from 0, each with the hash of the one before.

    INVARIANT: a number never has two contents. A line that the file log refused gives its number back, unless other
    sinks are to have it; then the number stands, and the log says which hash is missing.
    """

    __slots__ = ("_at", "_clock", "_events", "_ids", "_inside", "_known", "_log", "_pending", "_started", "_sum",
                 "closed", "id", "keeper", "lock")  # fmt: skip

    def __init__(self, clock: Callable[[], dt.datetime] = _system_time) -> None:
        self._clock = clock
        self._ids = RecordIds()
        self.id: Final = self._ids.next(clock())
        self.lock: Final = threading.RLock()  # a signal's handler may close what it has interrupted
        self.closed = False
        self.keeper: Keeper | None = None
        self._started = time.monotonic_ns()
        self._log: Log | None = None
        # the tree, and the hashes that aren't in it yet: replaced as one
        self._sum: tuple[Tree, list[bytes]] = (Tree(), [])
        self._at = (0, NO_HASH)
        self._pending: tuple[bytes, bytes, int, int] | None = None
        self._inside = False  # this thread is at work: a signal's handler or the collector may come back here
        self._events: list[Record] = []  # that other sinks haven't had yet
        self._known: set[str] = set()  # digests whose text is in this segment

    def begin(self, log: Log | None = None) -> None:
        """Write the first record, to `log` if there is one.

        Raises:
            OSError: the disk refuses.
        """
        with self.lock:
            self._log = log
            if log is None:
                self.event("stream.open", {"segment": 0})
            else:
                log.begin(self)

    @property
    def seq(self) -> int:
        """Return the number of the next record."""
        return self._at[0]

    @property
    def log(self) -> Log | None:
        """Return the file log, if there is one."""
        return self._log

    def take(self, record: Record, policies: Policies | None = None, *, others: bool) -> Taken:
        """Give a record its place; `others` says whether sinks beside the file log will have it.

        The text of `policies` goes before it, where the stream hasn't told it yet.
        """
        with self.lock:
            if self.closed or self._inside:
                return Taken((), SinkError(_BUSY if self._inside else CLOSED))
            self._inside = True
            try:
                return self._take(record, policies, others)
            except BaseException:  # a signal's handler: what is on the disk must be what is counted
                self._settle()
                raise
            finally:
                self._inside = False

    def _take(self, record: Record, policies: Policies | None, others: bool) -> Taken:
        log, line = self._log, record.line()
        if log is None:
            if policies is not None and policies.digest not in self._known:
                self._tell(policies)
            self._events.append(of_line(self._put(line), record))
            return Taken(self._drained())
        try:
            if not isinstance(record, EffectRecord):  # a call that was let begin may tell how it ended
                log.admit()
            log.ready(self)
            if policies is not None and policies.digest not in self._known:
                self._tell(policies)
            there = self._put(line)
            if others:
                self._events.append(of_line(there, record))
            if self.keeper is not None:
                self.keeper.counted(self._at[0])
            return Taken(self._drained(), None, log.ticket(self._at[0]))
        except OSError as cause:
            self._pending = None
            failure = log.refuse(self, cause)
            failure.__cause__ = cause
            if others:
                there, leaf = self._placed(line)
                log.miss(self.seq, leaf)
                self._advance(leaf)
                self._events.append(of_line(there, record))
            return Taken(self._drained(), failure)

    def take_all(self, waiting: Sequence[Waiting]) -> None:
        """Give records their places and write them at once, all or none; only the file log has them.

        Raises:
            OSError: the disk refuses them. They have no numbers then, and may come again.
            SinkError: the log is closed.
        """
        with self._alone():
            log = self._log
            assert log is not None
            try:
                log.ready(self)
                for each in waiting:
                    if each.policies is not None and each.policies.digest not in self._known:
                        self._tell(each.policies)
                self._write_all(log, [each.line for each in waiting])
            except OSError as cause:
                log.refuse(self, cause, 0)
                raise
            finally:
                self._events.clear()
            if self.keeper is not None:
                self.keeper.counted(self._at[0])

    def _write_all(self, log: Log, lines: Sequence[bytes]) -> None:
        seq, prev = self._at
        now, leaves, there = time.monotonic_ns() - self._started, [], []
        for line in lines:
            there.append(placed(line, place(self.id, seq, prev, now)))
            leaves.append(leaf_hash(there[-1][:-1]))
            seq, prev = seq + 1, leaves[-1].hex()
        log.write(b"".join(there))
        for leaf in leaves:
            self._advance(leaf)

    def event(self, kind: str, about: Mapping[str, object]) -> None:
        """Write a record of the log itself; the lock is held.

        Raises:
            OSError: the disk refuses.
        """
        now = self._clock()
        self._events.append(EventRecord.of_line(self._put(event_body(kind, self._ids.next(now), now, about))))
        if kind == "stream.open":
            self._known.clear()  # so that each segment explains itself

    def tell(self, kind: str, about: Mapping[str, object]) -> None:
        """Write a record of the log itself.

        Raises:
            OSError: the disk refuses.
            SinkError: the log is closed.
        """
        with self._alone():
            if self._log is not None:
                self._log.ready(self)
            self.event(kind, about)

    def standing(self) -> tuple[int, bytes]:
        """Return how many records there are, and the root over them.

        Raises:
            SinkError: this thread is in the middle of a record.
        """
        with self._alone(closed=True):
            self._fold()
            return self._sum[0].size, self._sum[0].root()

    def state(self) -> Mapping[str, object]:
        """Return size, root and last hash, and the roots of the tree's perfect parts as `tree`; the lock is held."""
        self._fold()
        tree = self._sum[0]
        told = {"size": tree.size, "root": tree.root().hex(), "last": self._at[1]}
        return {**told, "tree": [peak.hex() for peak in tree.peaks]}

    def flush(self) -> None:
        """Return once what was taken is on the device.

        Raises:
            SinkError: it may not be, or this thread is in the middle of a record.
        """
        with self._alone(closed=True):
            log, seq = self._log, self._at[0]
            files = () if log is None else log.unsynced()
        if log is not None:
            log.flush(files, seq)

    def close(self, gap: Mapping[str, object] | None = None) -> None:
        """Seal the log; nothing is taken afterwards, and doing it again does nothing. `gap` is told before.

        Raises:
            OSError: the disk refuses the last records.
            SinkError: this thread is in the middle of a record.
        """
        with self._alone(closed=True):
            if not self.closed:
                self.closed = True
                if self._log is not None:
                    self._log.close(self, gap)

    @contextmanager
    def _alone(self, closed: bool = False) -> Iterator[None]:
        with self.lock:
            if self._inside or (self.closed and not closed):
                raise SinkError(_BUSY if self._inside else CLOSED)
            self._inside = True
            try:
                yield
            except BaseException:
                self._settle()
                raise
            finally:
                self._inside = False

    # ---- one line

    def _placed(self, line: bytes) -> tuple[bytes, bytes]:
        seq, prev = self._at
        there = placed(line, place(self.id, seq, prev, time.monotonic_ns() - self._started))
        return there, leaf_hash(there[:-1])

    def _put(self, line: bytes) -> bytes:
        """Give a line its place, write it, and count it."""
        there, leaf = self._placed(line)
        if self._log is not None:
            self._pending = (there, leaf, self._log.position(), self._at[0])
            self._log.write(there)
            self._advance(leaf)
            self._pending = None
        else:
            self._advance(leaf)
        return there

    def _advance(self, leaf: bytes) -> None:
        self._sum[1].append(leaf)  # this counts it: one step, in which no signal is handled
        self._at = (self._at[0] + 1, leaf.hex())
        if len(self._sum[1]) >= _FOLD:
            self._fold()

    def _fold(self) -> None:
        old, waiting = self._sum
        tree = Tree(old.size, old.peaks)
        tree.extend(waiting)
        self._sum = (tree, [])

    def _settle(self) -> None:
        """Count the line whose writing was interrupted, if it is on the disk."""
        pending, self._pending = self._pending, None
        if pending is None or self._log is None:
            return
        line, leaf, before, seq = pending
        tree, waiting = self._sum
        if tree.size + len(waiting) == seq and self._log.complete(line, before):
            waiting.append(leaf)
        if tree.size + len(waiting) > seq:
            self._at = (seq + 1, leaf.hex())

    def _drained(self) -> Sequence[Record]:
        events, self._events = self._events, []
        return events

    def _tell(self, policies: Policies) -> None:
        """Write the text of policies; the lock is held."""
        for body in policy_bodies(policies.digest, [(file.name, file.text) for file in policies.sources]):
            now = self._clock()
            line = finished(f"{opening('policy', self._ids.next(now), now)},{body}}}")
            self._events.append(PolicyRecord.of_line(self._put(line)))
        self._known.add(policies.digest)
