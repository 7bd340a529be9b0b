"""Compare authorization details (RFC 9396 §2): no rule holds for all, so each type has a comparator or is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

Detail: TypeAlias = Mapping[str, object]
Comparator: TypeAlias = Callable[[Detail, Detail], bool]  # (what was granted, what is asked for): is it within

_SETS: Final = frozenset({"actions", "locations", "datatypes", "privileges"})  # RFC 9396 §2.2


def same(granted: Detail, asked: Detail) -> bool:
    """Say whether two details are the same JSON, whatever the order of members."""
    return _text(granted) == _text(asked)


def within_common_fields(granted: Detail, asked: Detail) -> bool:
    """Say whether a detail asks for no more: a part of each of the lists of RFC 9396 §2.2, all else the same.

    A member that one has and the other hasn't makes it another: what its absence means is the type's own.
    """
    if granted.keys() != asked.keys():
        return False
    return all(
        _part(granted[name], asked[name]) if name in _SETS else _text(granted[name]) == _text(asked[name])
        for name in granted
    )


def _part(granted: object, asked: object) -> bool:
    if not isinstance(granted, list | tuple) or not isinstance(asked, list | tuple) or not asked:
        return False
    known = {_text(one) for one in granted}
    return all(_text(one) in known for one in asked)


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=_plain)  # True and 1 are different JSON


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError("no JSON")
