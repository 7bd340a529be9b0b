"""Define what the checker knows of an expression's type: the types it may have, or nothing."""

from __future__ import annotations

from typing import Final, TypeAlias

from agentauthz.policy.types import (
    ANYTHING,
    DURATION,
    PRINCIPAL,
    STRING,
    TIME,
    Anything,
    Enumeration,
    Fields,
    Lacking,
    Scalar,
    Sequence,
    Type,
)
from agentauthz.principals import KINDS

Kinds: TypeAlias = tuple[Type, ...]  # the types that a value may have; empty: nobody knows

RESOURCE: Final = Scalar("resource")  # the root itself, which `==` compares by type and id
KIND_NAMES: Final = Enumeration(frozenset(KINDS))
DAYS: Final = Enumeration(frozenset({"mon", "tue", "wed", "thu", "fri", "sat", "sun"}))
HOP: Final = Fields(
    {
        "to": (PRINCIPAL, False),
        "actions": (Sequence(STRING), False),
        "purpose": (STRING, False),
        "expires": (TIME, False),
    },
    "hop",
)
CHAIN: Final = Sequence(HOP)

ORDERED: Final = frozenset({"number", "time", "duration"})
_SUMS: Final = {
    ("+", "number", "number"): "number",
    ("+", "duration", "duration"): "duration",
    ("+", "time", "duration"): "time",
    ("+", "duration", "time"): "time",
    ("-", "number", "number"): "number",
    ("-", "duration", "duration"): "duration",
    ("-", "time", "duration"): "time",
    ("-", "time", "time"): "duration",
    ("*", "number", "number"): "number",
    ("*", "duration", "number"): "duration",
    ("*", "number", "duration"): "duration",
}
_NAMES: Final = "number string bool time duration principal resource list record anything".split()
_ALONE: Final = {name: frozenset({name}) for name in _NAMES}
_OF_CATEGORY: Final = {"number": Scalar("decimal"), "time": TIME, "duration": DURATION}


def category(kind: Type) -> str:
    """Return what messages call a type: int and decimal are one, and so are string and enumeration."""
    match kind:
        case Scalar():
            return "number" if kind.name in ("int", "decimal") else kind.name
        case Enumeration():
            return "string"
        case Sequence():
            return "list"
        case Fields():
            return "record"
        case Anything() | Lacking():
            return "anything"


def categories(kinds: Kinds) -> frozenset[str]:
    """Return the categories of the types that a value may have."""
    if len(kinds) == 1:
        return _ALONE[category(kinds[0])]
    return frozenset(map(category, kinds))


def called(kinds: Kinds) -> str:
    """Return what a message says a value is: `a string`, `a number or a list`."""
    return " or ".join(f"a {name}" for name in sorted(categories(kinds)))


def unite(*several: Kinds) -> Kinds:
    """Return the types that any of some values may have; nothing where nothing is known of one."""
    if not all(several):
        return ()
    kinds = tuple(dict.fromkeys(kind for kinds in several for kind in kinds))
    return () if ANYTHING in kinds else kinds


def comparable(left: Kinds, right: Kinds) -> bool:
    """Say whether values of these types can be equal or unequal at all."""
    if not left or not right:
        return True
    return any(_comparable(a, b) for a in left for b in right)


def _comparable(left: Type, right: Type) -> bool:
    if left == ANYTHING or right == ANYTHING:
        return True
    if isinstance(left, Sequence) and isinstance(right, Sequence):
        return _comparable(left.item, right.item)
    return category(left) == category(right) != "record"


def items(kinds: Kinds) -> Kinds | None:
    """Return the types of the elements, or None where there is no list among `kinds`."""
    found = [kind.item for kind in kinds if isinstance(kind, Sequence)]
    if not found:
        return None
    return () if ANYTHING in found else tuple(dict.fromkeys(found))


def result_of(operator: str, left: Kinds, right: Kinds) -> Kinds | None:
    """Return the types of a sum, difference or product, or None where no such thing is defined."""
    if not left or not right:
        return ()
    found = {_SUMS.get((operator, a, b)) for a in categories(left) for b in categories(right)} - {None}
    return tuple(_OF_CATEGORY[name] for name in sorted(filter(None, found))) or None


def allowed_words(kinds: Kinds) -> frozenset[str] | None:
    """Return the strings that a value may be, or None where that isn't a fixed set."""
    words: set[str] = set()
    for kind in kinds:
        if not isinstance(kind, Enumeration):
            return None
        words |= kind.values
    return frozenset(words) if kinds else None
