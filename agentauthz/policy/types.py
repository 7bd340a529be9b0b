"""Define the declared types of the policy language, and when a value conforms to one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, TypeAlias, final

from attrs import frozen

from agentauthz.principals import Principal
from agentauthz.values import UNKNOWN, Entity, Record, Unordered, Value


@final
@frozen
class Scalar:
    """`bool`, `int`, `decimal`, `string`, `time`, `duration`, and `principal` (which policies can't write)."""

    name: str

    def __str__(self) -> str:
        return self.name


@final
@frozen
class Enumeration:
    """`"a" | "b"`."""

    values: frozenset[str]

    def __str__(self) -> str:
        return " | ".join(f'"{value}"' for value in sorted(self.values))


@final
@frozen
class Sequence:
    """`[T]`: a list, or a set."""

    item: Type

    def __str__(self) -> str:
        return f"[{self.item}]"


@final
@frozen
class Fields:
    """`{ name: T }`, a resource's type, a root's declaration; `name` is shown in messages."""

    fields: Mapping[str, tuple[Type, bool]]  # name -> (type, optional)
    name: str = "record"

    def __str__(self) -> str:
        return self.name

    def __hash__(self) -> int:
        return hash(self.name)


@final
@frozen
class Anything:
    """Be the type of what nobody declared: it is checked as it is met."""

    def __str__(self) -> str:
        return "anything"


@final
@frozen
class Lacking:
    """Be the type of an attribute that a declared type doesn't have: data that has it breaks the declaration."""

    def __str__(self) -> str:
        return "nothing"


Type: TypeAlias = Scalar | Enumeration | Sequence | Fields | Anything | Lacking

BOOL: Final = Scalar("bool")
INT: Final = Scalar("int")
DECIMAL: Final = Scalar("decimal")
STRING: Final = Scalar("string")
TIME: Final = Scalar("time")
DURATION: Final = Scalar("duration")
PRINCIPAL: Final = Scalar("principal")
ANYTHING: Final = Anything()
LACKING: Final = Lacking()
SCALARS: Final[Mapping[str, Scalar]] = {t.name: t for t in (BOOL, INT, DECIMAL, STRING, TIME, DURATION)}


@final
class Declared(dict[str | None, Type]):
    """Be the declared type of a path's value by tag: the kind, the type or the action's name that it belongs to.

    None is for every tag that isn't named. It is never changed once it is made; thousands of actions may have a
    tag in it, and thousands of paths share it, so that it is hashed once.
    """

    __slots__ = ("_hash",)

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none, since others do change
        try:
            return self._hash
        except AttributeError:
            self._hash: int = hash(frozenset(self.items()))
            return self._hash


CLASSES: Final[Mapping[str, tuple[type, ...]]] = {
    "bool": (bool,),
    "int": (int,),
    "decimal": (int, Decimal),
    "string": (str,),
    "time": (dt.datetime,),
    "duration": (dt.timedelta,),
    "principal": (Principal,),
}


def conforms(value: Value, declared: Type) -> bool:
    """Say whether a value that is there has the declared type; an unknown element conforms to any."""
    match declared:
        case Anything():
            return True
        case Lacking():
            return False
        case Scalar(name):
            return type(value) in CLASSES[name]
        case Enumeration(values):
            return type(value) is str and value in values
        case Sequence(item):
            if type(value) not in (tuple, Unordered):
                return False
            return all(element is UNKNOWN or conforms(element, item) for element in value)  # type: ignore[attr-defined]  # a tuple
        case Fields():
            return type(value) in (Record, Entity)
