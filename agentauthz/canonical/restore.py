"""Turn a tagged JSON tree back into Python data, for calls that are made from what was stored."""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, cast

from agentauthz.canonical.text import Json
from agentauthz.principals import Principal
from agentauthz.values import ABSENT, INVALID, UNKNOWN, Unordered

_ESCAPED: Final = re.compile(r"\\(\\|u[0-9a-f]{4})")
_KEPT: Final = frozenset({str, bool, int, float, type(None), Decimal, dt.date, dt.time, dt.timedelta, bytes})


def restored(tree: Json) -> Any:
    """Return the data that a tree stands for: lists for lists and tuples, UTC for any zone, INVALID for what it lacks.

    Raises:
        ValueError, TypeError, ArithmeticError: the tree is none that `jsonable` returns.
    """
    if isinstance(tree, list):
        return [restored(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1:
        [(tag, held)] = tree.items()
        if tag[:1] == "$" and tag[:2] != "$$":
            return _TAGS[tag](held) if tag in _TAGS else INVALID
    return members(tree)


def members(tree: Mapping[str, Json]) -> dict[str, Any]:
    """Return the data that a mapping's tree stands for, whatever its names are."""
    return {name[1:] if name[:1] == "$" else name: restored(item) for name, item in tree.items()}


def survives(value: object) -> bool:
    """Say whether `restored` gives a value back as it was: of the same types, not only of the same text."""
    kind = type(value)
    if kind is dict:
        pairs = cast("dict[object, object]", value).items()
        return all(type(name) is str and survives(item) for name, item in pairs)
    if kind is list or kind is set:
        return all(map(survives, cast("list[object]", value)))
    return kind in _KEPT or (kind is dt.datetime and cast(dt.datetime, value).tzinfo in (None, dt.UTC))


def _set(items: Json) -> object:
    elements = cast("list[Any]", restored(items))
    try:
        return set(elements)
    except TypeError:  # lists in it, as policies may have them
        return Unordered(tuple(elements))


def _text(escaped: str) -> str:
    return _ESCAPED.sub(lambda found: "\\" if found[1] == "\\" else chr(int(found[1][1:], 16)), escaped)


_TAGS: Final[Mapping[str, Callable[[Any], object]]] = {
    "$i": lambda text: int(text, 0),
    "$d": Decimal,
    "$f": float,
    "$t": dt.datetime.fromisoformat,
    "$local": dt.datetime.fromisoformat,
    "$date": dt.date.fromisoformat,
    "$clock": dt.time.fromisoformat,
    "$dur": lambda text: dt.timedelta(microseconds=int(Decimal(text) * 1_000_000)),
    "$p": lambda parts: Principal(parts[0], parts[1], (*parts, None)[2]),
    "$e": lambda tree: members(tree),
    "$b": base64.b64decode,
    "$w": _text,
    "$m": lambda pairs: {restored(name): restored(item) for name, item in pairs},
    "$set": _set,
    "$x": lambda name: {"unknown": UNKNOWN, "invalid": INVALID, "absent": ABSENT}[name],
}
