"""Read of a record's line what an index of records has in columns."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any, Final, final

from attrs import fields, frozen

from agentauthz.errors import SinkError
from agentauthz.records.lines import NO_STREAM


@final
@frozen
class Row:
    """Be one record in an index. `decision` is the id of the one whose effect it tells; `line` has no line feed.

    `stream` and `seq` together name a record, once and for all: one that belongs to no stream has its own id as stream.
    """

    stream: str
    seq: int
    id: str
    ts: dt.datetime
    type: str
    outcome: str | None
    basis: str | None
    action: str | None
    session: str | None
    subject: str | None
    actor: str | None
    decision: str | None
    rules: tuple[str, ...]
    line: str


COLUMNS: Final = tuple(each.name for each in fields(Row))


def row_of(line: bytes) -> Row:
    """Return the row of a record's line.

    Raises:
        SinkError: the line is no record.
    """
    try:
        tree: dict[str, Any] = json.loads(line)
        own = tree.get("effect") or tree
        action = own.get("action")
        actors = tree.get("actors") or [{}]
        stream = tree.get("stream", NO_STREAM)
        return Row(
            stream=_text(tree["id"] if stream == NO_STREAM else stream),
            seq=_count(tree.get("seq", 0)),
            id=_text(tree["id"]),
            ts=dt.datetime.fromisoformat(tree["ts"]),
            type=_text(tree["type"]),
            outcome=_told(tree, "outcome"),
            basis=_told(tree, "basis"),
            action=_told(action, "name") if isinstance(action, dict) else _told(own, "action"),
            session=_told(tree, "session"),
            subject=_told(actors[0], "sub"),
            actor=_told(actors[-1], "sub"),
            decision=_told(own, "of"),
            rules=tuple(map(_text, tree.get("rules", ()))),
            line=line.decode().rstrip("\n"),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise SinkError("a line that is no record can't be kept in an index") from None


def _told(tree: Mapping[str, Any], name: str) -> str | None:
    return None if name not in tree else _text(tree[name])


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise TypeError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value.replace("\0", "\ufffd")  # databases take no NUL; the line keeps it, escaped
