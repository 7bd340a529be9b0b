"""Write records as lines: one JSON object each, whose beginning says where in its stream it stands.

A line is written once. Its place is put in front of the rest when the stream takes it, so that nothing is encoded
under the stream's lock.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, cast

from attrs import fields

from agentauthz.canonical import quote, stamp, utf8

VERSION: Final = "1.0"
MAX_LINE: Final = 32 * 1024  # bytes, with the line feed
MAX_BODY: Final = MAX_LINE - 256  # what remains beside the place
MAX_NAME: Final = 256  # characters of a name or an id

NO_STREAM: Final = "0" * 26  # a record that belongs to no stream yet
NO_HASH: Final = "0" * 64  # what comes before the first record

NOTHING: Final[Mapping[str, object]] = MappingProxyType({})

# A terminal that shows the line must not obey it: DEL, C1 controls, line separators, marks of direction
_UNSAFE: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def _plain(value: object) -> object:
    if isinstance(value, MappingProxyType):
        return dict(value)
    raise TypeError(f"a record can't hold a {type(value).__name__}")


_encoder: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
compact: Final[Callable[[object], str]] = _encoder.encode  # a JSON tree as text


def place(stream: str, seq: int, prev: str, mono_ns: int) -> bytes:
    """Return how the line of a record begins that stands there; the rest begins with its type."""
    return f'{{"v":"{VERSION}","stream":"{stream}","seq":{seq},"prev":"{prev}","mono_ns":{mono_ns},'.encode()


ALONE: Final = place(NO_STREAM, 0, NO_HASH, 0)
_ALONE: Final = len(ALONE)


def placed(line: bytes, beginning: bytes) -> bytes:
    """Return a line at another place."""
    at = _ALONE if line.startswith(ALONE) else line.index(b'"type":"')  # nearly every line stood nowhere before
    return beginning + line[at:]


def finished(text: str) -> bytes:
    """Return JSON text as one line; what a terminal could take for a command is escaped."""
    if not text.isascii() or "\x7f" in text:
        text = _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return text.encode() + b"\n"


def opening(kind: str, id: str, ts: dt.datetime) -> str:
    """Return how the rest of a line begins, after its place."""
    return f'"type":"{kind}","id":{quote(id)},"ts":"{stamp(utc(ts))}"'


def utc(moment: dt.datetime) -> dt.datetime:
    """Return the same moment, in UTC."""
    return moment.astimezone(dt.UTC)


def name(text: str) -> str:
    """Return what a record keeps of a name or an id."""
    return utf8(text[:MAX_NAME])


def quoted(text: str) -> str:
    """Return what a record keeps of a name, as JSON text."""
    return quote(text if len(text) <= MAX_NAME and text.isascii() else name(text))


def still(value: object) -> object:
    """Return a JSON tree that nobody can change."""
    if isinstance(value, dict):
        return MappingProxyType({name: still(item) for name, item in value.items()})
    return tuple(map(still, value)) if isinstance(value, list) else value


def still_mapping(value: Mapping[str, object]) -> Mapping[str, object]:
    """Return a JSON object that nobody can change."""
    return cast("Mapping[str, object]", still(dict(value)))


def fill(record: Any, wanted: str, make: Callable[[dict[str, Any], bytes], object]) -> object:
    """Read all fields of a record from its line, which was the account from the start, and return one.

    Records that were just written are made so: what a sink never reads isn't made.
    """
    kind = type(record)
    if wanted == "_line" or wanted not in kind.__slots__ or wanted == "__weakref__":
        raise AttributeError(f"`{kind.__name__}` has no field `{wanted}`", name=wanted, obj=record)
    line = record.line()
    whole = make(json.loads(line), line)
    for each in fields(kind):
        object.__setattr__(record, each.name, getattr(whole, each.name))
    return getattr(whole, wanted)


def where(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that tell a record's id, moment and place."""
    told = {name: tree[name] for name in ("id", "stream", "seq", "prev", "mono_ns") if name in tree}
    return {**told, "ts": dt.datetime.fromisoformat(tree["ts"])}
