"""List the streams of a folder, so that one that vanishes is missed, and claim a stream for one writer."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import json
import os
import re
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, final

from agentauthz.canonical import stamp, utf8
from agentauthz.errors import InvalidArgument
from agentauthz.records.lines import NO_HASH, compact, finished
from agentauthz.records.merkle import leaf_hash

try:
    import fcntl
except ImportError:  # where there is no flock, the one writer of a stream is taken on trust
    fcntl = None  # type: ignore[assignment]  # a module where there is one

CATALOG: Final = "catalog.ndjson"
CHECKPOINTS: Final = "checkpoints"
QUARANTINE: Final = "quarantine"
STREAM: Final = re.compile(r"[0-9A-Z]{26}")
SEGMENT: Final = re.compile(r"([0-9]{12,19})\.ndjson")
LEAVES: Final = re.compile(r"([0-9]{12,19})\.leaves")
NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)  # opening a pipe would wait for its other end
_OPEN: Final = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
_LAST: Final = 8192  # bytes: more than any line of the catalog has


def log_folder(given: object) -> Path:
    """Return the absolute path of a log's folder: a later chdir must not move it.

    Raises:
        InvalidArgument: no path is given.
    """
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(text, str) or "\0" in text:
        raise InvalidArgument("folder", "must be the path of a folder")
    return Path(os.path.abspath(text))


def segment_path(folder: Path, first: int) -> Path:
    """Return the path of the segment that begins with that record."""
    return folder / f"{first:012}.ndjson"


def segments(folder: Path) -> list[tuple[int, Path]]:
    """Return the segments of a stream's folder, each with the number of its first record, in order."""
    return _numbered(folder, SEGMENT)


def leaves(folder: Path) -> list[tuple[int, Path]]:
    """Return what pruning has left of segments: files of hashes, 32 bytes each."""
    return _numbered(folder, LEAVES)


def _numbered(folder: Path, pattern: re.Pattern[str]) -> list[tuple[int, Path]]:
    found = [(pattern.fullmatch(path.name), path) for path in folder.iterdir()]
    # what is no file (a pipe would never end) holds no records: they are missed where they should be
    return sorted((int(name[1]), path) for name, path in found if name is not None and path.is_file())


def streams(folder: Path) -> list[Path]:
    """Return the folders of the streams, oldest first."""
    return sorted(path for path in folder.iterdir() if STREAM.fullmatch(path.name) and path.is_dir())


def used(folder: Path) -> int:
    """Return how many bytes the segments of all streams have."""
    size = 0
    for stream in streams(folder):
        for _, path in segments(stream):
            with contextlib.suppress(FileNotFoundError):  # it has just been pruned
                size += path.stat().st_size
    return size


def enter(folder: Path, stream: str, what: str, told: Mapping[str, object]) -> None:
    """Add a line to the catalog: `opened`, `closed`, `recovered` or `pruned`, with what is told of the stream.

    Raises:
        OSError: the catalog can't be written.
    """
    handle = os.open(folder / CATALOG, _OPEN | os.O_APPEND, 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "the catalog is no file")
        size = os.fstat(handle).st_size
        tail = os.pread(handle, _LAST, max(0, size - _LAST)) if size else b""
        whole = tail[: tail.rfind(b"\n") + 1]
        prev = leaf_hash(whole[:-1].rpartition(b"\n")[2]).hex() if whole else NO_HASH
        entry = {"prev": prev, "what": what, "stream": stream, "ts": stamp(dt.datetime.now(dt.UTC)), **told}
        line = finished(compact(entry))
        # a fragment that a dying process left stands in a line of its own
        os.write(handle, line if len(whole) == len(tail) else b"\n" + line)
    finally:
        os.close(handle)


def entries(text: bytes) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Return the lines of a catalog's text, each with what it says; None: it is damaged."""
    for line in text.split(b"\n")[:-1]:
        entry: dict[str, Any] | None = None
        with contextlib.suppress(ValueError, RecursionError):
            tree = json.loads(line)
            if isinstance(tree, dict) and {"prev", "what", "stream"} <= tree.keys():
                entry = tree
        yield line, entry


def read_catalog(folder: Path) -> bytes:
    """Return the catalog's text up to its last whole line; empty, where there is no such file."""
    path = folder / CATALOG
    text = path.read_bytes() if path.is_file() else b""  # a pipe would never end
    return text[: text.rfind(b"\n") + 1]


def ended(folder: Path) -> frozenset[str]:
    """Return the streams that nobody writes any more, by the catalog."""
    found = (entry for _, entry in entries(read_catalog(folder)) if entry is not None)
    return frozenset(str(entry["stream"]) for entry in found if entry["what"] in ("closed", "recovered"))


@final
class Claim:
    """Hold a stream's folder for one writer, by a lock that dies with the process.

    Raises:
        OSError: `BlockingIOError` where another writer lives, or the lock's file can't be made.
    """

    __slots__ = ("_handle",)

    def __init__(self, folder: Path) -> None:
        self._handle = os.open(folder / "lock", _OPEN, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, finished(compact(owner())), 0)
        except OSError:
            self.release()
            raise

    @staticmethod
    def probe(folder: Path) -> None:
        """Return if nobody holds a folder; nothing is changed.

        Raises:
            OSError: `BlockingIOError` where a writer lives, or the lock can't be read.
        """
        handle = os.open(folder / "lock", os.O_RDONLY | NO_WAIT | getattr(os, "O_CLOEXEC", 0))
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(handle)

    def release(self) -> None:
        """Let others claim the folder; doing it again does nothing."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


def owner() -> dict[str, object]:
    """Return who this process is: host, process, and when that process began, in ticks since the host's start."""
    told: dict[str, object] = {"host": utf8(socket.gethostname())[:200], "pid": os.getpid()}
    with contextlib.suppress(OSError, ValueError, IndexError):
        told["start"] = int(Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19])
    return told
