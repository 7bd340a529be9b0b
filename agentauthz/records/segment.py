"""Be one file of a log: whole lines are added to it, and nothing else ever happens to it."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Final, final

from agentauthz.errors import SinkError

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
_sync: Final = getattr(os, "fdatasync", os.fsync)


def failed(path: Path, what: str, cause: OSError) -> SinkError:
    """Return the error that says what the operating system refused."""
    return SinkError(f"`{path}` {what}: {reason(cause)}")


def reason(cause: BaseException) -> str:
    """Return what the operating system says, without any of the data."""
    text = cause.strerror if isinstance(cause, OSError) else None
    return (text or "input/output error").lower()


@final
class Segment:
    """Hold one open file; `first` is the number of its first record. All but `confirm` runs under the stream's lock.

    Raises:
        OSError: the file can't be made, or is there already.
    """

    __slots__ = ("_confirmed", "_identity", "_syncing", "_wait", "broken", "first", "handle", "path", "size")

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.first = first
        self.handle = os.open(path, _FLAGS, 0o600)
        found = os.fstat(self.handle)
        self._identity = (found.st_dev, found.st_ino)
        self.size = 0  # bytes of whole lines
        self.broken: str | None = None  # why nothing may be added any more
        self._wait = threading.Condition()
        self._confirmed = 0  # bytes that a sync has confirmed
        self._syncing = False

    def write(self, line: bytes) -> None:
        """Add a line, all of it or nothing.

        Raises:
            OSError: the operating system refused it; a part that it took was taken back.
        """
        if self.broken is not None:
            raise OSError(errno.EIO, self.broken)
        written = os.write(self.handle, line)
        if written != len(line):
            self._write_rest(line[written:])
        self.size += len(line)

    def _write_rest(self, rest: bytes) -> None:
        """Write what found no room at first; a full disk takes a part, and says why only to the next attempt."""
        try:
            while rest:
                rest = rest[os.write(self.handle, rest) :]
        except OSError:
            self.take_back()
            raise

    def take_back(self) -> None:
        """Cut the file to its whole lines; never leave a fragment before a record."""
        try:
            os.ftruncate(self.handle, self.size)
        except OSError:
            self.broken = "a part of a record can't be taken back"

    def complete(self, line: bytes) -> bool:
        """Say whether a line whose writing was interrupted is there, whole; cut off a part of it."""
        length = os.fstat(self.handle).st_size
        if length == self.size + len(line):
            self.size = length
            return True
        if length != self.size:
            self.take_back()
        return False

    def gone(self) -> bool:
        """Say whether what is written here can't be found under the file's name: deleted, replaced or cut."""
        try:
            found = os.stat(self.path)
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != self._identity or found.st_size < self.size

    def rescue(self, other: Path) -> Path | None:
        """Copy what was written to where the file was, or to `other` if something else is there now.

        Return where it is; None: not all of it is left.
        """
        for path in (self.path, other) if self.size else ():
            try:
                copy = os.open(path, _FLAGS, 0o600)
            except OSError:
                continue
            try:
                at = 0
                while chunk := os.pread(self.handle, 1 << 20, at):
                    os.write(copy, chunk)
                    at += len(chunk)
                return path if at >= self.size else None
            except OSError:
                return None
            finally:
                os.close(copy)
        return None

    def confirm(self, size: int) -> None:
        """Return when the first `size` bytes are on the device; callers at the same time share one sync.

        Raises:
            SinkError: a sync failed. It is never tried again: what the system then says means nothing.
        """
        with self._wait:
            while self._confirmed < size:
                if self.broken is not None:
                    raise SinkError(f"`{self.path}` can't be relied on: {self.broken}")
                if not self._syncing:
                    self._syncing = True
                    break
                self._wait.wait()
            else:
                return
        reached = self.size
        broken: str | None = "a sync was interrupted"
        try:
            _sync(self.handle)
            broken = None
        except OSError as cause:
            broken = "a sync failed"
            raise failed(self.path, "couldn't be synced", cause) from cause
        finally:
            with self._wait:
                self._syncing = False
                self.broken = self.broken or broken
                if broken is None:
                    self._confirmed = max(self._confirmed, reached)
                self._wait.notify_all()
        self.confirm(size)

    def close(self) -> None:
        """Let go of the file; doing it again does nothing."""
        handle, self.handle = self.handle, -1
        if handle >= 0:
            os.close(handle)
