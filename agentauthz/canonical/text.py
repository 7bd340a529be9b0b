"""Turn a JSON tree into its one text (RFC 8785)."""

from __future__ import annotations

import json.encoder
from collections.abc import Callable
from typing import Final, TypeAlias

quote: Final[Callable[[str], str]] = json.encoder.encode_basestring  # what an encoder with ensure_ascii=False calls

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


def encode(tree: Json) -> bytes:
    """Return the bytes of a JSON tree by RFC 8785: names sorted by UTF-16, ECMAScript's numbers, no spaces."""
    return _text_of(tree).encode()


def _text_of(tree: Json) -> str:
    if isinstance(tree, str):
        return quote(tree)
    if isinstance(tree, dict):
        parts = []
        for name in sorted(tree, key=None if "".join(tree).isascii() else _utf16):
            parts.append(f"{quote(name)}:{_text_of(tree[name])}")
        return "{" + ",".join(parts) + "}"
    if isinstance(tree, list):
        parts = []
        for item in tree:  # one frame for each level of nesting, on every version of Python
            parts.append(_text_of(item))
        return "[" + ",".join(parts) + "]"
    if tree is None:
        return "null"
    if isinstance(tree, bool):
        return "true" if tree else "false"
    return int.__repr__(tree) if isinstance(tree, int) else float_text(tree)


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be")


def float_text(number: float) -> str:
    """Write a float as ECMAScript does (RFC 8785 §3.2.2.3)."""
    text = repr(number)
    if number == 0:
        return "0"
    if text.endswith(".0"):
        return text[:-2]
    if "e" not in text:
        return text
    sign = "-" if number < 0 else ""
    mantissa, _, exponent = text.removeprefix("-").partition("e")
    digits = mantissa.replace(".", "")
    place = int(exponent) + 1  # of the point, counted from the first digit
    if len(digits) <= place <= 21:
        return sign + digits + "0" * (place - len(digits))
    if -6 < place <= 0:
        return f"{sign}0.{'0' * -place}{digits}"
    point = f"{digits[0]}.{digits[1:]}" if len(digits) > 1 else digits
    return f"{sign}{point}e{place - 1:+d}"
