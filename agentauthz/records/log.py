"""Write one stream to its folder: segments that follow each other, and what happens when the disk refuses."""

from __future__ import annotations

import contextlib
import errno
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias, final

from attrs import define, field, frozen

from agentauthz.errors import SinkError
from agentauthz.records.catalog import QUARANTINE, Claim, enter, owner, segment_path, used
from agentauthz.records.reserve import QUOTA, Reserve
from agentauthz.records.segment import Segment, failed, reason

Mode: TypeAlias = Literal["inline", "fsync", "async"]  # to the log itself, the last is as the first

MAX_HASHES: Final = 400  # of missing records, that one record of a gap names
_LOOK: Final = 100_000_000  # ns between two looks at whether the file is still there
_RETRY: Final = 1_000_000_000  # ns before a segment that couldn't be begun is tried again


class Writer(Protocol):
    """Be what a log needs of its stream: where it stands, and a way to tell of itself in it."""

    @property
    def seq(self) -> int:
        """Return the number of the next record."""

    def event(self, kind: str, about: Mapping[str, object]) -> None:
        """Write a record of the log itself."""

    def state(self) -> Mapping[str, object]:
        """Return size, root and last hash, and the roots of the tree's perfect parts as `tree`."""


@final
@define
class _Refused:
    """Count what the disk refused since it last took something; `missing` are numbers that stand, with the hashes."""

    error: str
    count: int = 0
    missing: list[tuple[int, bytes]] = field(factory=list)


@final
@frozen
class Ticket:
    """Be what a caller waits for: these bytes of a segment on the device, which end with the record before `seq`."""

    log: Log
    segment: Segment
    size: int
    seq: int

    def confirm(self) -> None:
        """Return when they are.

        Raises:
            SinkError: they may not be.
        """
        self.segment.confirm(self.size)
        self.log.synced = max(self.log.synced, self.seq)


@final
class Log:
    """Hold a stream's folder. All of it but `flush` runs under the stream's lock.

    Raises:
        OSError: the folder can't be made, or written.
    """

    __slots__ = ("__weakref__", "_base", "_claim", "_headed", "_later", "_limit", "_look", "_measured", "_mode",
                 "_quota", "_refused", "_reserve", "_room", "_segment", "_stream", "_tales", "_unsynced", "folder",
                 "synced")  # fmt: skip

    def __init__(self, base: Path, stream: str, *, mode: Mode, limit: int, quota: int | None = None) -> None:
        self._base = base
        self._stream = stream
        self._mode = mode
        self._limit = limit
        self._unsynced: list[Path] = []  # segments that have ended, and nobody has synced
        self.synced = 0  # the number behind the last record that is known to be on the device
        self.folder = base / stream
        self._segment: Segment | None = None
        self._headed = False  # the segment's first record has been written
        self._refused: _Refused | None = None
        self._tales: list[tuple[str, Mapping[str, object]]] = []  # to be told as soon as there is room
        self._look = 0
        self._later = 0  # when a segment that is full may be tried to be replaced again
        self._quota = quota
        self._room = 0  # bytes that the quota leaves, as measured then
        self._measured = 0
        self._reserve = Reserve(self.folder)
        os.mkdir(self.folder, 0o700)
        self._claim = Claim(self.folder)
        _OPEN.add(self)

    # ---- what a stream asks

    @property
    def path(self) -> Path:
        """Return the file that is written now."""
        return segment_path(self.folder, 0) if self._segment is None else self._segment.path

    def begin(self, writer: Writer) -> None:
        """Write the first record of the stream, and enter it in the catalog.

        Raises:
            OSError: the disk refuses.
        """
        self._reserve.keep()
        self._segment = Segment(segment_path(self.folder, writer.seq), writer.seq)
        writer.event("stream.open", {"segment": writer.seq, **owner()})
        self._headed = True
        if self._mode == "fsync":
            self._segment.confirm(self._segment.size)
            for folder in (self.folder, self._base, self._base.parent):  # each entry of the path to it
                _sync_folder(folder)
            self.synced = writer.seq
        enter(self._base, self._stream, "opened", owner())

    def admit(self) -> None:
        """Refuse a record for which the quota leaves no room; what the log tells of itself isn't asked.

        Raises:
            OSError: segments of all streams take as much as they may.
        """
        if self._quota is None:
            return
        if (now := time.monotonic_ns()) >= self._measured:
            self._measured = now + _RETRY
            self._room = self._quota - used(self._base)
        if self._room <= 0:
            raise OSError(QUOTA, "the quota of the log is used up")

    def ready(self, writer: Writer) -> None:
        """Make sure that a line can be written: begin a segment where the last is full, gone or broken.

        Raises:
            OSError: the disk still refuses.
        """
        segment = self._segment
        if self._refused is not None or segment is None or segment.broken is not None:
            self._resume(writer)
            return
        now = time.monotonic_ns()
        if now >= self._look:
            self._look = now + _LOOK
            if segment.gone():
                segment.broken = "the file was deleted, replaced or cut"
                self._resume(writer)
                return
        if segment.size >= self._limit and now >= self._later:
            self._rotate(writer, segment)

    def write(self, line: bytes) -> None:
        """Add a line to the segment, or some of them: all or none.

        Raises:
            OSError: the disk refuses.
        """
        if self._segment is None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._segment.write(line)
        self._room -= len(line)

    def position(self) -> int:
        """Return how many bytes the segment has."""
        return 0 if self._segment is None else self._segment.size

    def complete(self, line: bytes, before: int) -> bool:
        """Say whether a line is there whose writing was interrupted when the segment had so many bytes."""
        if self._segment is None:
            return False
        self._segment.size = before
        return self._segment.complete(line)

    def ticket(self, seq: int) -> Ticket | None:
        """Return what a caller has to wait for, before it may go on; `seq` is the number of the next record."""
        segment = self._segment
        return None if self._mode != "fsync" or segment is None else Ticket(self, segment, segment.size, seq)

    def unsynced(self) -> Sequence[Path]:
        """Return the files that hold what may not be on the device."""
        return (*self._unsynced, self.path)

    def flush(self, files: Sequence[Path], seq: int) -> None:
        """Return once `files`, which end with the record before `seq`, are on the device.

        Raises:
            SinkError: they may not be.
        """
        for path in files:
            try:
                _sync_file(path)
            except FileNotFoundError:  # pruned; or deleted, which is found and told with the next record
                continue
            except OSError as cause:
                if self._segment is not None and self._segment.path == path:
                    self._segment.broken = "a sync failed"  # it is never believed again
                raise failed(path, "couldn't be synced", cause) from cause
        _sync_folder(self.folder)
        self._unsynced = [path for path in self._unsynced if path not in files]
        self.synced = max(self.synced, seq)

    def refuse(self, writer: Writer, cause: OSError, count: int = 1) -> SinkError:
        """Count what wasn't taken; of the first failure, tell with what is kept back for that."""
        refused = self._refused
        if refused is None:
            refused = self._refused = _Refused(reason(cause))
            self._reserve.free()
            with contextlib.suppress(OSError):
                writer.event("sink.failed", {"sink": "FileSink", "error": refused.error})
            if cause.errno == errno.EFBIG and self._segment is not None:
                self._segment.broken = refused.error  # this file may not grow, but another one may
        refused.count += count
        return failed(self.path, "can't be written", cause)

    def miss(self, seq: int, leaf: bytes) -> None:
        """Remember a record that other sinks have, and this one hasn't."""
        if self._refused is not None:
            self._refused.missing.append((seq, leaf))

    def pruned(self) -> None:
        """Measure anew, before the next record, how much the quota leaves."""
        self._measured = 0

    def close(self, writer: Writer, gap: Mapping[str, object] | None) -> None:
        """Seal the stream, and let go of everything; `gap` tells of records that were given up before.

        Raises:
            OSError: the disk refuses the last records; everything is let go of all the same.
        """
        try:
            self.ready(writer)
            if gap is not None:
                writer.event("stream.gap", gap)
            if self._segment is not None:
                self._seal(writer, self._segment, "closed")
                told = writer.state()
                enter(self._base, self._stream, "closed", {name: told[name] for name in ("size", "root", "last")})
                self._reserve.free()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the files, and leave the stream as it is."""
        _OPEN.discard(self)
        if self._segment is not None:
            self._segment.close()
        self._claim.release()

    # ---- segments

    def _rotate(self, writer: Writer, full: Segment) -> None:
        first = writer.seq + 1  # behind the seal
        try:
            fresh = Segment(segment_path(self.folder, first), first)
        except OSError:
            self._later = time.monotonic_ns() + _RETRY  # a segment that is too long is better than none
            return
        try:
            self._seal(writer, full, "full")
        except BaseException:
            fresh.close()
            os.unlink(fresh.path)
            raise
        if full.broken is not None:
            self._tales.append(self._told_of(full))
        self._turn(writer, fresh)
        self._tell_tales(writer)

    def _seal(self, writer: Writer, segment: Segment, why: str) -> None:
        told = writer.state()
        about = {"segment": segment.first, "size": told["size"], "root": told["root"], "last": told["last"]}
        writer.event("stream.sealed", {**about, "reason": why})
        if self._mode == "fsync":
            with contextlib.suppress(SinkError):  # whoever waits for it is told
                segment.confirm(segment.size)

    def _turn(self, writer: Writer, fresh: Segment) -> None:
        """Go on in another segment."""
        old, self._segment, self._headed = self._segment, fresh, False
        if old is not None:
            old.close()
            if self._mode != "fsync":
                self._unsynced.append(old.path)
        self._head(writer, old)
        if self._mode == "fsync":
            _sync_folder(self.folder)

    def _head(self, writer: Writer, old: Segment | None) -> None:
        told = writer.state()
        about: dict[str, object] = {"segment": writer.seq, "tree": told["tree"]}
        if old is not None:
            about["previous"] = {"segment": old.first, "last": told["last"]}
        writer.event("stream.open", {**about, **owner()})
        self._headed = True

    # ---- after a failure

    def _resume(self, writer: Writer) -> None:
        """Go on after a failure: room first, then a file, then what is missing."""
        self._reserve.keep()
        segment = self._segment
        if segment is None or segment.broken is not None:
            if segment is not None and segment.size:
                self._tales.append(self._told_of(segment))
            self._turn(writer, self._fresh(writer.seq))
        elif not self._headed:
            if segment.first != writer.seq:  # numbers have been taken since
                self._segment = self._fresh(writer.seq)
                segment.close()
            self._head(writer, None)
        self._tell_tales(writer)
        if (refused := self._refused) is not None:
            self._tell(writer, refused)
            self._refused = None

    def _tell_tales(self, writer: Writer) -> None:
        while self._tales:
            writer.event(*self._tales[0])
            del self._tales[0]

    def _fresh(self, first: int) -> Segment:
        """Begin a file; one whose first record found no room goes."""
        old = self._segment
        if old is not None and not old.size and not old.gone():
            os.unlink(old.path)
        return Segment(segment_path(self.folder, first), first)

    def _told_of(self, segment: Segment) -> tuple[str, Mapping[str, object]]:
        """Return what is to be told of a segment that can't be used any more."""
        about: dict[str, object] = {"segment": segment.first, "bytes": segment.size}
        if not segment.gone():
            return "sink.failed", {**about, "sink": "FileSink", "error": str(segment.broken)}
        quarantine = self._base / QUARANTINE
        with contextlib.suppress(OSError):
            os.makedirs(quarantine, 0o700, exist_ok=True)
        found = segment.rescue(quarantine / f"{self._stream}-{segment.first}-{os.getpid()}.ndjson")
        where = "nowhere" if found is None else "in its place" if found == segment.path else "in quarantine"
        return "stream.recovered", {**about, "reason": str(segment.broken), "kept": where}

    def _tell(self, writer: Writer, refused: _Refused) -> None:
        missing = refused.missing
        if not missing and refused.count:
            writer.event("stream.gap", {"count": refused.count, "reason": refused.error})
        while missing:
            first = missing[0][0]
            run = [leaf for i, (seq, leaf) in enumerate(missing[:MAX_HASHES]) if seq == first + i]
            about = {"first_seq": first, "last_seq": first + len(run) - 1, "hashes": [leaf.hex() for leaf in run]}
            writer.event("stream.gap", {"count": len(run), "reason": refused.error, **about})
            del missing[: len(run)]


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Put a folder's list of files on the device, where a folder can be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# ---- a forked child has handles of its parent's files, and of the lock that says that the parent lives

_OPEN: Final[weakref.WeakSet[Log]] = weakref.WeakSet()


def _forked() -> None:
    for log in list(_OPEN):
        log.abandon()


_at_fork: Final[Callable[..., None] | None] = getattr(os, "register_at_fork", None)
if _at_fork is not None:
    _at_fork(after_in_child=_forked)
