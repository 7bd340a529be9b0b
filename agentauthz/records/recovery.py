"""Put right what a writer that died has left behind: a torn line goes to quarantine, and the stream is ended."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from agentauthz.records.catalog import QUARANTINE, Claim, ended, enter, segments, streams
from agentauthz.records.lines import NO_HASH
from agentauthz.records.merkle import leaf_hash
from agentauthz.records.scan import head

_TAIL: Final = 1 << 16  # bytes: more than a line has


def recover(folder: Path) -> Iterator[Mapping[str, object]]:
    """End each stream of a folder whose writer is dead, and return what is to be told of it.

    The stream itself gets no more records: were its file an old copy, its numbers would be used twice.
    """
    for path in _not_ended(folder):
        try:
            claim = Claim(path)
        except OSError:  # its writer lives, or the folder is another user's
            continue
        try:
            if path.name in ended(folder):  # by its writer or by another, since we looked
                continue
            about = _mended(folder, path)
            enter(folder, path.name, "recovered", about)
        finally:
            claim.release()
        yield {"reason": "the writer died", "stream": path.name, **about}


def pending(folder: Path) -> Iterator[tuple[str, int]]:
    """Return what `recover` would do, without doing it: the streams that it would end, and how many bytes it'd cut."""
    for path in _not_ended(folder):
        if _abandoned(path):
            yield path.name, _torn(path)


def _not_ended(folder: Path) -> list[Path]:
    """Return the streams that may have been left: those without a file are being begun, or were taken away."""
    done = ended(folder)
    return [path for path in streams(folder) if path.name not in done and segments(path)]


def _abandoned(stream: Path) -> bool:
    try:
        Claim.probe(stream)
    except FileNotFoundError:  # it never came to have a lock
        return True
    except OSError:
        return False
    return True


def _torn(stream: Path) -> int:
    torn = 0
    for _, path in reversed(segments(stream)):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            last, whole = _last_line(file.fileno(), size)
        torn += size - whole
        if last is not None:
            break
    return torn


def _mended(folder: Path, stream: Path) -> dict[str, object]:
    told: dict[str, object] = {"bytes": 0}
    for first, path in reversed(segments(stream)):
        last, torn = _cut(path)
        if torn:
            whole = path.stat().st_size
            _keep(folder / QUARANTINE, f"{stream.name}-{first}-{whole}", torn)
            told = {"segment": first, "bytes": len(torn), "digest": "sha256:" + hashlib.sha256(torn).hexdigest()}
        if last is not None:  # else it was just begun
            place = head(last)
            return {**told, "size": first if place is None else place.seq + 1, "last": leaf_hash(last).hex()}
    return {**told, "size": 0, "last": NO_HASH}


def _cut(path: Path) -> tuple[bytes | None, bytes]:
    """Cut a file to its whole lines; return the last of them, and what was cut off."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        last, whole = _last_line(file.fileno(), size)
        if size == whole:
            return last, b""
        torn = os.pread(file.fileno(), size - whole, whole)
        file.truncate(whole)
        os.fsync(file.fileno())
        return last, torn


def last_line(path: Path) -> bytes | None:
    """Return the last whole line of a file, without its line feed; None: it has none."""
    with path.open("rb") as file:
        return _last_line(file.fileno(), file.seek(0, os.SEEK_END))[0]


def _last_line(handle: int, size: int) -> tuple[bytes | None, int]:
    """Return the last whole line, without its line feed, and how many bytes end with it."""
    at, tail = size, b""
    while at:
        step = min(at, _TAIL)
        at -= step
        tail = os.pread(handle, step, at) + tail
        cut = tail.rfind(b"\n")
        if cut >= 0 and (at == 0 or b"\n" in tail[:cut]):
            return tail[:cut].rpartition(b"\n")[2], at + cut + 1
    return None, 0


def _keep(quarantine: Path, name: str, torn: bytes) -> None:
    os.makedirs(quarantine, 0o700, exist_ok=True)
    handle = os.open(quarantine / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "wb") as file:
        file.write(torn)
