"""Read JSON objects of tokens and answers strictly: UTF-8, no member twice, no depth, no number that isn't one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Final, NoReturn, TypeAlias

from agentauthz.errors import TokenError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_NESTING: Final = 40  # objects and lists: an `act` of 16 actors, and details within
MAX_DIGITS: Final = 19  # of an integer: more than any date needs

_SPACE: Final = " \t\n\r"  # RFC 8259 §2
# a string that never ends is taken to the end all the same: looking for another from each of its quotes would cost
# the square of its length
_STRING_OR_BRACKET: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def json_object(data: bytes) -> dict[str, Json]:
    """Return the object that `data` is (RFC 8259, RFC 7515 §4: names are unique).

    Raises:
        TokenError: `malformed`: not UTF-8, a byte order mark, no JSON object, a member twice, NaN or Infinity, a
            number that is too large, or more than 40 levels.
    """
    found = _decoded(data)
    if found is None:  # said out here: the decoders' own errors hold what they read, and would be the context of ours
        raise malformed("is no JSON object in UTF-8")
    return found


def _decoded(data: bytes) -> dict[str, Json] | None:
    try:
        text = data.decode("utf-8").strip(_SPACE)
        if text.count("{") + text.count("[") > MAX_NESTING and _nesting(text) > MAX_NESTING:
            raise malformed("nests too deep")
        found, end = _DECODER.raw_decode(text)  # a byte order mark is no JSON
        if "\\u" in text:  # half of a surrogate pair is no character: nothing could write it again
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return None
    return found if type(found) is dict and end == len(text) else None


def malformed(what: str) -> TokenError:
    """Return the error for what isn't in the form of a token."""
    return TokenError("malformed", f"the token {what}")


def _nesting(text: str) -> int:
    """Return how deep the brackets outside of strings nest, in one pass without recursion."""
    depth = deepest = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        mark = found[0]
        if mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in "]}":
            depth -= 1
    return deepest


def _unique(pairs: Sequence[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise malformed("has a member twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise malformed("has a number that is too large")
    return int(digits)


def _float(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise malformed("has a number that is too large")
    return number


def _no_number(name: str) -> NoReturn:
    raise malformed(f"has `{name}`, which is no number in JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_float, parse_constant=_no_number
)
