"""Read where a line says that it stands, without reading the rest of it."""

from __future__ import annotations

import json
import re
from typing import Final, NamedTuple

_HEAD: Final = re.compile(
    rb'\{"v":"1\.[0-9]+","stream":"([0-9A-Z]{26})","seq":(0|[1-9][0-9]{0,18}),"prev":"([0-9a-f]{64})","mono_ns":'
)


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
    try:
        tree = json.loads(line)
        stream, seq, prev = tree["stream"], tree["seq"], tree["prev"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (isinstance(stream, str) and isinstance(prev, str) and type(seq) is int and seq >= 0):
        return None
    return Place(stream.encode(errors="replace"), seq, prev.encode(errors="replace"))
