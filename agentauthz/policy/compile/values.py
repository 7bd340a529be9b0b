"""Help compiled conditions with what is too long to stand in each of them. Nothing in here raises."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, cast

from agentauthz.policy.builtins import COMPARISONS, Answer, Function, like
from agentauthz.policy.evaluate import too_long, too_many
from agentauthz.policy.types import Type, conforms
from agentauthz.principals import Principal
from agentauthz.values import INVALID, UNKNOWN, Entity, Record, Sentinel, Unordered, Value

LISTS: Final = frozenset({tuple, Unordered})
NUMBERS: Final = frozenset({int, Decimal})

# the types whose values `==` compares with a value of this type
KINDRED: Final[Mapping[type, frozenset[type]]] = {
    str: frozenset({str}),
    bool: frozenset({bool}),
    int: NUMBERS,
    Decimal: NUMBERS,
    dt.datetime: frozenset({dt.datetime}),
    dt.timedelta: frozenset({dt.timedelta}),
    Principal: frozenset({Principal}),
}
ORDERED: Final = frozenset({int, Decimal, dt.datetime, dt.timedelta})


def step(value: Value, name: str) -> Value:
    """Return what `value` holds under `name`."""
    kind = type(value)
    if kind is Record or kind is Entity:
        return cast(Record, value)[name]
    if kind is Principal:
        return cast(Principal, value).facts[name]
    return value if kind is Sentinel else INVALID


def conforming(value: Value, declared: Type) -> Value:
    """Return a value that has its declared type, a sentinel, or INVALID."""
    return value if type(value) is Sentinel or conforms(value, declared) else INVALID


def strings(value: Value) -> Value:
    """Return a list or set of strings (and unknowns), a sentinel, or INVALID."""
    kind = type(value)
    if kind is tuple or kind is Unordered:
        for element in cast("tuple[Value, ...]", value):
            if type(element) is not str and element is not UNKNOWN:
                return INVALID
        return value
    return value if kind is Sentinel else INVALID


def distinct(collection: tuple[Value, ...]) -> tuple[Value, ...]:
    """Return the different strings of a collection, and None where it holds anything else."""
    return tuple(dict.fromkeys(element if type(element) is str else None for element in collection))


def lacks(collection: tuple[Value, ...]) -> Answer:
    """Answer whether a string is in a collection where Python found none that is equal."""
    for element in collection:
        if type(element) is not str:
            return None
    return False


def compared(operator: str, left: Value, right: Value, rounds: int) -> Answer:
    """Answer `left operator right` inside of quantifiers that go round `rounds` times."""
    return None if too_many(operator, left, right, rounds) else COMPARISONS[operator](left, right)


def called(function: Function, rounds: int, args: tuple[Value, ...], named: Mapping[str, Value] = {}) -> Value:
    """Return what a function gives inside of quantifiers that go round `rounds` times."""
    return INVALID if too_long((*args, *named.values()), rounds) else function(args, named)


def liked(value: Value, parts: tuple[str, ...], rounds: int) -> Answer:
    """Answer `value like "…"` inside of quantifiers that go round `rounds` times."""
    return None if too_long((value,), rounds) else like(value, parts)


def type_name(value: Value) -> Value:
    """Return what `is` asks for: a kind, a resource's type, ABSENT where there is none, INVALID where nobody knows."""
    if type(value) is Principal:
        return value.kind
    if type(value) is Entity:
        return value["type"]
    return INVALID if value is UNKNOWN or value is INVALID else Sentinel.ABSENT
