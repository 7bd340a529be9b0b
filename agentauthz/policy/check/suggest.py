"""Find the known name that was probably meant."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

_MANY: Final = 300  # names: where there are more, only those that sort near are looked at
_SYNONYMS: Final = {
    "integer": "int", "number": "decimal", "float": "decimal", "double": "decimal", "str": "string", "text": "string",
    "boolean": "bool", "datetime": "time", "timestamp": "time", "timedelta": "duration",
    "length": "len", "lenght": "len", "size": "len", "count": "len", "startswith": "starts_with",
    "endswith": "ends_with", "includes": "contains", "principal": "subject", "agent": "actor",
    "caller": "actor", "request": "args",
}  # fmt: skip
_NOTHING: Final = (
    "there is no such word: whether something is there is asked with `exists`, as in `not exists args.note`"
)
# what other languages call a value, and what to write here
FOREIGN: Final = {
    **dict.fromkeys(("null", "None", "nil", "undefined", "absent"), _NOTHING),
    "True": "write `true`", "False": "write `false`",
}  # fmt: skip
_SHOWN: Final = 8  # names that a help lists


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the name within an edit distance of a third of its length (at least one), if there is one."""
    candidates = sorted(set(known))
    if _SYNONYMS.get(name.lower()) in candidates:
        return _SYNONYMS[name.lower()]
    if len(candidates) > _MANY:
        at = bisect_left(candidates, name)
        candidates = candidates[max(0, at - _MANY // 2) : at + _MANY // 2]
    limit = max(1, len(name) // 3)
    best: str | None = None
    for candidate in candidates:
        distance = _distance(name.lower(), candidate.lower(), limit)
        if distance is not None and (best is None or distance < limit):
            best, limit = candidate, distance
    return best


def suggestion(name: str, known: Iterable[str], *, else_: str | None = None) -> str | None:
    """Return the help for an unknown name: the nearest one, else a short list of what there is."""
    candidates = sorted(set(known))
    found = nearest(name, candidates)
    if found is not None:
        return f"did you mean `{found}`?"
    if else_ is not None or not candidates:
        return else_
    more = len(candidates) - _SHOWN
    return (
        "known here: "
        + ", ".join(f"`{known}`" for known in candidates[:_SHOWN])
        + (f" and {more} more" if more > 0 else "")
    )


def _distance(left: str, right: str, limit: int) -> int | None:
    """Return the number of letters to insert, drop, replace or swap, or None where it is above `limit`."""
    if abs(len(left) - len(right)) > limit or len(left) > 100:
        return None
    two_above: list[int] = []
    above = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        row = [i]
        for j, b in enumerate(right, 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, two_above[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return None
        two_above, above = above, row
    return above[-1] if above[-1] <= limit else None
