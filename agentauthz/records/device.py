"""Say of a folder whether a sync there puts anything on a device."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")  # blanks and backslashes in the name of a place
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def warn_if_volatile(folder: Path) -> None:
    """Log a warning where a sync succeeds and keeps nothing, so that `mode="fsync"` can't be what it promises."""
    if (why := volatile(folder)) is not None:
        text = '`%s` is on %s, where a sync does nothing: what mode="fsync" writes there won\'t survive a loss of power'
        logging.getLogger("agentauthz.records").warning(text, folder, why)


def volatile(folder: Path, mounts: Path = _MOUNTS) -> str | None:
    """Return what kind of file system loses a folder with the power, in spite of a sync; None: none that is known."""
    try:
        where, text = os.path.realpath(folder), mounts.read_text("utf-8", errors="surrogateescape")
    except OSError:  # a system that doesn't tell
        return None
    kind, options = "", ""
    longest = -1
    for point, found, told in _mounted(text):
        if len(point) >= longest and (where == point or where.startswith(point.rstrip("/") + "/")):
            longest, kind, options = len(point), found, told  # the last mount of a place hides those before
    if kind in _IN_MEMORY:
        return kind
    return "a volatile overlay" if kind == "overlay" and "volatile" in options.split(",") else None


def _mounted(text: str) -> Iterator[tuple[str, str, str]]:
    """Return place, kind and options of each mount, as proc(5) has them."""
    for line in text.splitlines():
        own, _, of_system = line.partition(" - ")
        left, right = own.split(" "), of_system.split(" ")
        if len(left) > 4 and len(right) > 2:
            yield _ESCAPED.sub(lambda found: chr(int(found[1], 8)), left[4]), right[0], right[2]
