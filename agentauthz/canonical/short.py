"""Write short scalars, lists and arguments at once: most of what records hold is that."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from agentauthz.canonical.text import float_text, quote
from agentauthz.canonical.tree import SAFE, short_decimal
from agentauthz.principals import Principal
from agentauthz.values import Unordered

_SHORT: Final = 1000  # characters
_FEW: Final = 8  # elements


def plain(value: object) -> str | None:
    """Return the canonical text of a short scalar or a short list of them, as records hold it too; None: another.

    What is left to the general way is only what needs its care: for these values the two ways agree.
    """
    return writer(value) if (writer := _PLAIN.get(type(value))) is not None else None


def _plain_text(text: Any) -> str | None:
    return quote(text) if len(text) <= _SHORT and text.isascii() else None


def _plain_integer(number: Any) -> str | None:
    return repr(number) if -SAFE <= number <= SAFE else None


def _plain_decimal(value: Any) -> str | None:
    text = short_decimal(value)
    return None if text is None else f'{{"$d":"{text}"}}'


def _plain_principal(who: Any) -> str | None:
    own, issuer = who.id, who.issuer or ""
    if len(own) > _SHORT or len(issuer) > _SHORT or not (own + issuer).isascii():
        return None
    return f'{{"$p":["{who.kind}",{quote(own)}' + (f",{quote(issuer)}]}}" if issuer else "]}")


def _plain_list(value: Any) -> str | None:
    items = tuple(value)
    if len(items) > _FEW:
        return None
    texts = []
    for item in items:
        # of lists in lists there may be no end
        if (writer := _PLAIN.get(type(item))) is None or writer is _plain_list or (written := writer(item)) is None:
            return None
        texts.append(written)
    text = f"[{','.join(texts)}]"
    if type(value) is Unordered:
        text = f'{{"$set":[{",".join(sorted(texts))}]}}'
    return text if len(text) <= _SHORT else None


def flat(value: object) -> str | None:
    """Return the canonical text of a small dict of short scalars, which most calls' arguments are; None: another."""
    if type(value) is not dict or len(value) > 4 * _FEW:
        return None
    members = dict(value)  # another thread may change the original
    for name in members:  # a generator would cost more than all else here
        if type(name) is not str:
            return None
    ordered = _ordered(tuple(members))
    if ordered is None:
        return None
    texts = []
    for name, opening in ordered:
        item = members[name]
        if (writer := _PLAIN.get(type(item))) is None:
            if type(item) is not float or not math.isfinite(item):
                return None
            text = float_text(item)
        elif (written := writer(item)) is not None:
            text = written
        else:
            return None
        texts.append(opening + text)
    return "{" + ",".join(texts) + "}"


@functools.lru_cache(maxsize=1024)  # the arguments of a tool have the same names at each call
def _ordered(names: tuple[str, ...]) -> tuple[tuple[str, str], ...] | None:
    """Return short names in their order, each with how its member begins; None: some need care."""
    every = "".join(names)
    if len(every) > _SHORT or not every.isascii() or "$" in every:
        return None
    return tuple([(name, f"{quote(name)}:") for name in sorted(names)])


_PLAIN: Final[dict[type, Callable[[object], str | None]]] = {
    str: _plain_text,
    int: _plain_integer,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "null",
    Decimal: _plain_decimal,
    Principal: _plain_principal,
    list: _plain_list,
    tuple: _plain_list,
    Unordered: _plain_list,
}
