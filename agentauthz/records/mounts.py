"""Find out where a sync brings nothing to a device, as Linux tells of what is mounted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_MOUNTS: Final = Path("/proc/self/mountinfo")
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs", "rootfs"})
_DEPTH: Final = 8  # overlays over overlays
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")  # a space in a path is \040


class _Mount(NamedTuple):
    device: str
    kind: str
    options: tuple[str, ...]


def unsynced(folder: Path) -> str | None:
    """Return the kind of file system of a folder where a sync does nothing; None: it does, or nobody can tell."""
    try:
        mounts = tuple(_mounts(_MOUNTS.read_text("utf-8", errors="surrogateescape")))
    except (OSError, ValueError, IndexError):  # another system, or a form that isn't known
        return None
    return _unsynced(mounts, folder, _DEPTH)


def _unsynced(mounts: tuple[_Mount, ...], folder: Path, depth: int) -> str | None:
    try:
        there = os.stat(folder).st_dev
    except OSError:
        return None
    device = f"{os.major(there)}:{os.minor(there)}"
    mount = next((each for each in reversed(mounts) if each.device == device), None)
    if mount is None:
        return None
    if mount.kind in _IN_MEMORY or (mount.kind == "overlay" and "volatile" in mount.options):
        return mount.kind
    if mount.kind == "overlay" and depth:
        # what is written goes into this folder, if this process can see it
        upper = next((each.removeprefix("upperdir=") for each in mount.options if each.startswith("upperdir=")), None)
        if upper is not None and _unsynced(mounts, Path(upper), depth - 1) is not None:
            return mount.kind
    return None


def _mounts(text: str) -> Iterator[_Mount]:
    """Yield what proc_pid_mountinfo(5) tells: fields of the mount, a hyphen, and those of the file system."""
    for line in text.splitlines():
        mount, _, system = line.partition(" - ")
        device = mount.split(" ")[2]
        kind, _, options = system.split(" ", 2)
        yield _Mount(device, kind, tuple(_plain(each) for each in options.split(",")))


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
