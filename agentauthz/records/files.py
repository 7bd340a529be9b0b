"""Keep records in a folder, as lines of JSON."""

from __future__ import annotations

import os
import secrets
import threading
import time
from pathlib import Path
from typing import Final, final

from agentauthz.errors import SinkError
from agentauthz.records.record import Record

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)


@final
class FileSink:
    """Append records to a file of this process's own in `folder`, which is made (mode 0700) where it isn't there.

    A record is handed to the operating system, whole, before the call that it is about goes on: it survives
    the death of the process, not a loss of power. A forked child writes a file of its own.

    Raises:
        SinkError: the folder can't be made or written.
    """

    __slots__ = ("_closed", "_files", "folder")

    blocking: Final = True  # a disk may be slow

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(os.path.abspath(folder))  # a later chdir must not move the records
        self._closed = False
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
        except OSError as cause:
            raise _failed(self.folder, "can't be made", cause) from cause
        self._files: dict[int, _File] = {}
        self._file().open()

    @property
    def path(self) -> Path:
        """Return the file that this process writes now."""
        return self._file().path

    def append(self, line: bytes, record: Record) -> None:
        """Write one record's line, all of it or nothing.

        Raises:
            SinkError: the line can't be written, or the sink is closed.
        """
        if self._closed:
            raise SinkError(f"`{self.folder}` takes no more records: the sink is closed")
        self._file().write(line)

    def close(self) -> None:
        """Close the file; doing it again does nothing."""
        self._closed = True
        self._file().close()

    def _file(self) -> _File:
        process = os.getpid()
        file = self._files.get(process)
        if file is None:
            # a fork: the parent's lock may be held by a thread that isn't here, so nothing of it is used
            file = self._files.setdefault(process, _File(self.folder))
            for other in self._files.keys() - {process}:
                if (inherited := self._files.pop(other, None)) is not None:
                    inherited.abandon()
        return file


@final
class _File:
    """Be one process's file; it begins with the first line after it was made, closed or damaged."""

    __slots__ = ("_closed", "_folder", "_handle", "_lock", "path")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._handle: int | None = None
        self._closed = False
        self.path = self._new_path()

    def _new_path(self) -> Path:
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        return self._folder / f"{moment}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"

    def open(self) -> int:
        """Return the open file, made now if need be."""
        if self._handle is None:
            try:
                self._handle = os.open(self.path, _FLAGS, 0o600)
            except OSError as cause:
                raise _failed(self.path, "can't be opened", cause) from cause
        return self._handle

    def write(self, line: bytes) -> None:
        with self._lock:
            if self._closed:
                raise SinkError(f"`{self.path}` takes no more records: the sink is closed")
            handle = self.open()
            try:
                written = os.write(handle, line)
            except OSError as cause:
                raise _failed(self.path, "can't be written", cause) from cause
            if written != len(line):
                self._roll_back(handle, written)

    def _roll_back(self, handle: int, written: int) -> None:
        """Take back the beginning of a line whose rest found no room; never leave a fragment before a record."""
        try:
            os.ftruncate(handle, os.lseek(handle, 0, os.SEEK_CUR) - written)
        except OSError as cause:
            # the fragment stays, so this file gets no more records: the next one begins another
            self._let_go()
            self.path = self._new_path()
            raise _failed(self.path, "holds the beginning of a record that can't be taken back", cause) from cause
        raise SinkError(f"`{self.path}` can't be written: the disk took only {written} bytes of a record")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._let_go()

    def abandon(self) -> None:
        """Close a handle inherited from a parent, whose lock can't be relied on."""
        self._let_go()

    def _let_go(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


def _failed(path: Path, what: str, cause: OSError) -> SinkError:
    return SinkError(f"`{path}` {what}: {(cause.strerror or 'input/output error').lower()}")
