"""Read where a line says that it stands, without reading the rest of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

from agentauthz.records.lines import MAX_LINE

_HEAD: Final = re.compile(
    rb'\{"v":"1\.[0-9]+","stream":"([0-9A-Z]{26})","seq":(0|[1-9][0-9]{0,18}),"prev":"([0-9a-f]{64})","mono_ns":'
)

_GAP: Final = b'"type":"stream.gap"'
LOST: Final = "lost_on_the_way"  # the reason of a gap whose records were taken, and given up before they were written


class Place(NamedTuple):
    """Be where a line says that it stands; the hash before it is in hexadecimal."""

    stream: bytes
    seq: int
    prev: bytes


def head(line: bytes) -> Place | None:
    """Return where a line says that it stands; None: it doesn't say."""
    if (found := _HEAD.match(line)) is not None:
        return Place(found[1], int(found[2]), found[3])
    return _of_json(line)


def _of_json(line: bytes) -> Place | None:
    """Read a line that a newer minor version may have laid out in another way."""
    if not line.startswith(b"{"):
        return None  # soon seen, where there are millions of them
    try:
        tree = json.loads(line)
        stream, seq, prev = tree["stream"], tree["seq"], tree["prev"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (isinstance(stream, str) and isinstance(prev, str) and type(seq) is int and seq >= 0):
        return None
    return Place(stream.encode(errors="replace"), seq, prev.encode(errors="replace"))


def first_record(path: Path) -> dict[str, Any]:
    """Return the first record of a segment; nothing, where it is damaged."""
    try:
        with path.open("rb") as file:
            tree = json.loads(file.readline(MAX_LINE))
    except (OSError, ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


def lost_in(data: bytes) -> int:
    """Return how many records the gaps among some lines tell of that were taken and never written."""
    if _GAP not in data:  # nearly always, and quickly seen
        return 0
    return sum(_lost(line) for line in data.split(b"\n") if _GAP in line)


def _lost(line: bytes) -> int:
    try:
        tree = json.loads(line)
        about = tree["about"] if tree["type"] == "stream.gap" else {}
        count = about["count"] if about.get("reason") == LOST and "hashes" not in about else 0
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return 0  # damaged, which is told of apart
    return count if type(count) is int and count > 0 else 0
