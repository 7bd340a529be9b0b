"""Keep records in a folder: a log that survives faults, and shows what was changed in it."""

from __future__ import annotations

import atexit
import datetime as dt
import logging
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Final, final

from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records.catalog import log_folder
from agentauthz.records.checkpoints import origin_of, require_ed25519
from agentauthz.records.events import EffectRecord
from agentauthz.records.ids import Process
from agentauthz.records.keeper import Exposure, Keeper
from agentauthz.records.late import Late
from agentauthz.records.log import Log, Mode
from agentauthz.records.mounts import unsynced
from agentauthz.records.record import Record
from agentauthz.records.recovery import recover
from agentauthz.records.segment import failed
from agentauthz.records.sinks.sink import Guarantee, Metrics, Survives
from agentauthz.records.sinks.waiting import Limits, Overflow
from agentauthz.records.stream import CLOSED, Policies, Stream
from agentauthz.values import utc

if TYPE_CHECKING:
    from agentauthz.keys.signing import Signer
    from agentauthz.records.witnessed import Kept

SEGMENT: Final = 64 * 1024 * 1024  # bytes
ROOM: Final = 1024 * 1024  # bytes that may wait in the mode "async": what a kill can cost
_BATCH: Final = 256  # lines that are written at once
_LINGER: Final = 0.005  # seconds that a line may wait for others: the thread that is woken for each costs more than it
_PAUSE: Final = 1.0  # seconds between two attempts to write what the disk refused

_SURVIVES: Final[dict[Mode, Survives]] = {
    "inline": "process_crash", "fsync": "power_loss", "async": "best_effort",
}  # fmt: skip


def _system_time() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@final
class FileSink:
    """Append records to this process's own stream in `folder`, which is made (mode 0700) where it isn't there.

    A record is handed to the operating system, whole, before the call that it is about goes on: it survives the
    death of the process. With `mode="fsync"` it is on the device by then, and survives a loss of power; callers at
    the same time share one sync; where a sync is known to do nothing (a tmpfs), a RuntimeWarning says so.

    With `mode="async"` it is in a queue of `room` bytes by then, which a thread of this process writes: what is in the
    queue when the process dies is lost. A full queue lets wait, `timeout` seconds at most, and then the append raises
    (`overflow="block"`). With "drop_oldest" it gives up the oldest decision or effect, with "drop_allow_first" the
    oldest allow or effect, and where there is none, a denial's append raises. A record of the type `stream.gap` tells
    how many were given up. What the disk refuses stays in the queue, and is tried again. Records get their numbers
    when they are written, so sinks beside it have others.

    A segment ends when it has `segment_size` bytes. A forked child writes a stream of
    its own. What a writer that died has left behind is put right when the sink is made.

    With `quota`, records are refused while the segments of all streams in the folder have that many bytes or more, as
    on a full disk, until `prune` makes room: the newest records are what is refused, and none is ever overwritten.

    With `key` (Ed25519), the state of the stream is signed every `checkpoint_every` records, and after
    `checkpoint_idle` seconds, in the name of `org`; each checkpoint is also given to `witness`, which should keep it
    where the owner of the folder can't change it (`agentauthz.records.witness` has some). Where it raises, it is asked
    again after ever longer pauses; no call waits for it.

    Raises:
        SinkError: the folder can't be made or written.
        InvalidArgument: another mode, a number that isn't positive, a quota of one segment, a key that isn't Ed25519,
            or a witness without one.
    """

    __slots__ = ("_clock", "_closed", "_every", "_idle", "_key", "_late", "_limit", "_mine", "_mode", "_org", "_quota",
                 "_witness", "bounded", "folder", "guarantees")  # fmt: skip

    blocking: Final = True  # a disk may be slow, and a queue full

    def __init__(
        self,
        folder: str | Path,
        *,
        mode: Mode = "inline",
        overflow: Overflow | None = None,
        room: int | None = None,
        timeout: float | None = None,
        segment_size: int = SEGMENT,
        quota: int | None = None,
        key: Signer | None = None,
        org: str = "local",
        checkpoint_every: int = 1_000,
        checkpoint_idle: float = 10.0,
        witness: Callable[[str], object] | None = None,
        clock: Callable[[], dt.datetime] = _system_time,
    ) -> None:
        if mode not in _SURVIVES:
            raise InvalidArgument("mode", f'must be "inline", "fsync" or "async", not {mode!r}')
        for name, given in (("overflow", overflow), ("room", room), ("timeout", timeout)):
            if given is not None and mode != "async":
                raise InvalidArgument(name, 'goes with mode="async": the other modes have no queue')
        self._late = None if mode != "async" else Late(lambda: self.stream, Limits(
            "queued", 5.0 if timeout is None else timeout, ROOM if room is None else room, _BATCH, _LINGER, _PAUSE,
            "block" if overflow is None else overflow,
        ))  # fmt: skip
        if type(segment_size) is not int or segment_size < 1:
            raise InvalidArgument("segment_size", "must be a number of bytes, at least 1")
        if quota is not None and (type(quota) is not int or quota <= segment_size):
            raise InvalidArgument(
                "quota", "must be a number of bytes, more than `segment_size`: what is written now stays"
            )
        if type(checkpoint_every) is not int or checkpoint_every < 1:
            raise InvalidArgument("checkpoint_every", "must be a number of records, at least 1")
        if not isinstance(checkpoint_idle, int | float) or not 0 < checkpoint_idle <= TIMEOUT_MAX:
            raise InvalidArgument("checkpoint_idle", "must be a number of seconds above 0")
        if witness is not None and (key is None or not callable(witness)):
            raise InvalidArgument("witness", "must be a function that takes a checkpoint, and needs a `key` to sign it")
        if key is not None:
            require_ed25519(key)
            origin_of(org, "")
        self._key, self._org, self._witness = key, org, witness
        self._every, self._idle = checkpoint_every, float(checkpoint_idle)
        self.folder = log_folder(folder)
        self._mode: Mode = mode
        self._limit, self._quota = segment_size, quota
        self._clock = clock
        self._closed = False
        self.bounded: Final = self._late is not None
        self.guarantees: Final = Guarantee(_SURVIVES[mode], ordered=True)
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
        except OSError as cause:
            raise failed(self.folder, "can't be made", cause) from cause
        if mode == "fsync" and (kind := unsynced(self.folder)) is not None:
            told = f"`{self.folder}` is on a file system ({kind}) where a sync does nothing"
            warnings.warn(f"{told}: a loss of power loses records; use a disk", RuntimeWarning, stacklevel=2)
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

    @property
    def exposure(self) -> Exposure | None:
        """Return what no witness has seen yet of this process's stream; None: there is no witness."""
        keeper = self.stream.keeper
        return None if keeper is None or self._witness is None else keeper.exposure

    def append(self, line: bytes, record: Record) -> None:
        """Give a record its place in the stream, and write it, all of it or nothing; or queue it.

        Raises:
            SinkError: the record can't be written, found no room, or the sink is closed.
        """
        if self._late is None:
            self.stream.take(record, others=False).confirm()
        else:
            self.put(record, None)

    @property
    def late(self) -> bool:
        """Say whether records are written later: then sinks beside this one have other numbers."""
        return self._late is not None

    def put(self, record: Record, policies: Policies | None) -> None:
        """Queue a record, before which the text of `policies` is written, where the stream hasn't told it yet.

        Raises:
            SinkError: it found no room in time, or the sink is closed.
        """
        assert self._late is not None
        stream = self.stream  # it is begun here, so that a child that can't has no record
        if stream.closed:
            raise SinkError(CLOSED)
        if stream.log is not None and not isinstance(record, EffectRecord):
            try:
                stream.log.admit()  # here, for what is queued will be written
            except OSError as cause:
                raise failed(stream.log.path, "can't be written", cause) from cause
        self._late.put(record, policies)

    def has_room(self, record: Record) -> bool:
        """Say whether a record could be queued without waiting."""
        return self._late is not None and self._late.queue.has_room(record.line())

    def flush(self, durable: bool = False, timeout: float = 5.0) -> None:
        """Return once what was appended before has been handed to the operating system; if `durable`, to the device.

        Raises:
            SinkError: it hasn't within `timeout` seconds (how long a device takes can't be bounded), or was lost.
        """
        stream = self.stream
        if self._late is not None:
            self._late.queue.flush(timeout)
        if durable:
            stream.flush()

    def metrics(self) -> Metrics:
        """Return how the log of this process fares now."""
        stream = self.stream
        log, keeper, queue = stream.log, stream.keeper, None if self._late is None else self._late.queue
        return Metrics(
            records_lost_total=0 if queue is None else queue.lost,
            waiting=0 if queue is None else queue.waiting,
            lag=0.0 if queue is None else queue.lag,
            written_seq=_last(stream.seq),
            durable_seq=_last(0 if log is None else log.synced),
            witnessed_seq=_last(0 if keeper is None else keeper.witnessed),
        )

    def prune(
        self,
        before: dt.datetime,
        *,
        max_bytes: int | None = None,
        checkpoint: Kept = None,
        keys: Iterable[str] = (),
    ) -> int:
        """Let go of whole segments that ended before a moment, and return how many; it is recorded which.

        The hashes of their records stay, so that what is left can still be proven. Streams that other processes write,
        and those that are damaged, stay as they are. With `max_bytes` only as many go, the oldest first, as it takes
        for the segments that are left to have no more than that. With `checkpoint` and `keys` (as for `verify`) only
        segments go that a witness has seen. It reads the whole log, so call it rarely.

        Raises:
            InvalidArgument: a moment without a time zone, a negative number of bytes, or as for `verify`.
            SinkError: the disk refuses.
        """
        if utc(before) is None:
            raise InvalidArgument("before", "must be a datetime with a time zone")
        if max_bytes is not None and (type(max_bytes) is not int or max_bytes < 0):
            raise InvalidArgument("max_bytes", "must be a number of bytes, at least 0")
        from agentauthz.records.retention import candidates, drop, tales  # only who prunes loads what verifies
        from agentauthz.records.verify import verified

        report, leaves, prunes = verified(self.folder, checkpoint, keys)
        mine, dropped = self.stream, 0
        found = candidates(
            self.folder, report, before, witnessed=checkpoint is not None, own=mine.id, max_bytes=max_bytes
        )
        try:
            for about in tales(found, prunes):
                mine.tell("log.pruned", about)
            if found:
                mine.flush()  # first the tale, then the deed: what is gone, and nobody tells of, was taken away
            for stream, may in found:
                drop(leaves[stream], may)
                dropped += len(may)
        except OSError as cause:
            raise failed(self.folder, "couldn't be pruned", cause) from cause
        finally:
            if mine.log is not None:
                mine.log.pruned()
        return dropped

    def close(self, timeout: float | None = None) -> None:
        """Write what waits, for `timeout` seconds at most (None: the queue's), and seal the stream; again: do nothing.

        Raises:
            SinkError: the disk refused the last records, or not all that waited was written in time.
        """
        if self._closed:
            return
        mark, stream = self._mine
        late = None if self._late is None else self._late.close(timeout)
        try:
            if mark is Process.mark and (self._late is None or self._late.ended):
                stream.close(None if self._late is None else self._late.queue.untold())
        except OSError as cause:
            raise failed(self.folder, "couldn't be sealed", cause) from cause
        finally:
            self._closed = stream.closed or mark is not Process.mark
            if self._closed:
                atexit.unregister(self._at_exit)
                if mark is Process.mark and stream.keeper is not None:
                    stream.keeper.stop()
        if late is not None:
            raise late

    def _begun(self) -> Stream:
        stream = Stream(self._clock)
        if self._closed:
            stream.closed = True
            return stream
        try:
            log = Log(self.folder, stream.id, mode=self._mode, limit=self._limit, quota=self._quota)
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
        if self._key is not None:
            stream.keeper = Keeper(
                stream, self.folder, self._key, self._org, every=self._every, idle=self._idle, witness=self._witness
            )
        return stream

    def _at_exit(self) -> None:
        try:
            self.close()
        except SinkError as error:  # nobody is there to be told
            logging.getLogger("agentauthz.records").error("%s", error)


def _last(size: int) -> int | None:
    return size - 1 if size else None
