"""Keep files that nobody else may have written, in a folder that nobody else can write."""

from __future__ import annotations

import hashlib
import os
import pathlib
import secrets
import stat
from typing import Final

_LARGEST: Final = 1 << 30  # bytes of a file
_MOST_FILES: Final = 32
_SUFFIX: Final = ".cache"
_MINE: Final = 0o022  # what group and others must not be able to do: write


def read_file(folder: pathlib.Path, name: str, magic: bytes) -> bytes | None:
    """Return a file's content, or None where there is none, or none to be trusted.

    The content must have the digest that stands before it; file and folder must be this user's, and no
    symbolic link; nobody else may be able to write them.
    """
    try:
        opened = _open_folder(folder)
        try:
            data = _read(opened, name)
        finally:
            os.close(opened)
    except (OSError, ValueError):
        return None
    head = len(magic) + 64
    if data is None or data[: len(magic)] != magic or data[head : head + 1] != b"\n":
        return None
    content = data[head + 1 :]
    return content if hashlib.sha256(content).hexdigest().encode() == data[len(magic) : head] else None


def write_file(folder: pathlib.Path, name: str, magic: bytes, content: bytes) -> None:
    """Write a file whole or not at all; where that can't be done, nothing is written."""
    data = b"%s%s\n%s" % (magic, hashlib.sha256(content).hexdigest().encode(), content)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        opened = _open_folder(folder)
        try:
            _write(opened, name + _SUFFIX, data)
            _forget_old(opened)
        finally:
            os.close(opened)
    except (OSError, ValueError):  # a full disk, a folder that can't be written: what is kept only saves time
        return


def _open_folder(folder: pathlib.Path) -> int:
    """Return a descriptor of a folder that only this user can write.

    Raises:
        OSError: it is another's, others can write it, or the system can't tell.
    """
    if not hasattr(os, "geteuid"):
        raise OSError("this system has no owners that could be checked")
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _require_own(os.fstat(opened))
    except OSError:
        os.close(opened)
        raise
    return opened


def _require_own(found: os.stat_result) -> None:
    # SECURITY: what another could have written is never read, whatever its digest says
    if found.st_uid != os.geteuid() or found.st_mode & _MINE:
        raise PermissionError("others can write it")


def _read(folder: int, name: str) -> bytes | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not make us wait
    with os.fdopen(os.open(name + _SUFFIX, flags, dir_fd=folder), "rb") as file:
        found = os.fstat(file.fileno())
        _require_own(found)
        return file.read() if stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST else None


def _write(folder: int, name: str, data: bytes) -> None:
    temporary = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(data)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(temporary, dir_fd=folder)
        raise


def _forget_old(folder: int) -> None:
    """Remove all but the files that were written last: each edit of a policy leaves one behind."""
    names = [name for name in os.listdir(folder) if name.endswith(_SUFFIX)]
    if len(names) > _MOST_FILES:
        age = {name: os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns for name in names}
        for name in sorted(names, key=age.__getitem__)[:-_MOST_FILES]:
            os.unlink(name, dir_fd=folder)
