"""Write values as the text that PostgreSQL reads, so that any string goes in, and comes back the same."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, TypeAlias

Value: TypeAlias = str | int | bool | Decimal | dict[str, int] | Sequence[str | int | Decimal | None] | None

# PostgreSQL's text holds neither NUL nor half a character: those are escaped, and so is what escapes
_ESCAPE: Final = "\x1a"
_UNFIT: Final = re.compile("[\0\x1a\ud800-\udfff]")
_ESCAPED: Final = re.compile("\x1a([0-9a-f]{4})")


def parameter(value: Value) -> bytes | None:
    """Return a value as the text of a parameter."""
    if value is None:
        return None
    if isinstance(value, str):
        return escape(value).encode()
    if isinstance(value, tuple | list):
        return ("{" + ",".join(map(_element, value)) + "}").encode()
    if isinstance(value, dict):
        return json.dumps({escape(key): each for key, each in value.items()}).encode()
    return str(value).encode()


def _element(value: str | int | Decimal | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + escape(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def escape(text: str) -> str:
    """Return a text that PostgreSQL can hold; another one for each."""
    return _UNFIT.sub(lambda found: f"{_ESCAPE}{ord(found[0]):04x}", text) if _UNFIT.search(text) else text


def unescape(text: str) -> str:
    """Return what `escape` was given."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if _ESCAPE in text else text
