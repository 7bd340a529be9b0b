"""Read what a function's annotations say: which arguments are sensitive or injected, and their policy types."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import pathlib
import re
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, final

if TYPE_CHECKING:
    from agentauthz.policy.types import Type


@final
class Sensitive:
    """Mark a parameter, as ``Annotated[str, Sensitive]``, whose value stays out of records and messages."""


@final
class Injected:
    """Mark a parameter, as ``Annotated[T, Injected]``, that the framework fills in: policies don't see it."""


def hints(function: Callable[..., Any]) -> Mapping[str, object]:
    """Return the function's annotations, each resolved if it can be; else its text."""
    given = getattr(function, "__annotations__", {})
    return {name: _resolved(name, hint, function) for name, hint in given.items() if name != "return"}


def _resolved(name: str, hint: object, function: Callable[..., Any]) -> object:
    holder = types.SimpleNamespace(__annotations__={name: hint})
    try:
        return typing.get_type_hints(holder, globalns=getattr(function, "__globals__", {}), include_extras=True)[name]
    except Exception:  # a name that is imported for type checking only, or local to a function
        return hint


def marked(found: Mapping[str, object], marker: type) -> frozenset[str]:
    """Return the parameters whose annotation carries `marker`, by value or, where unresolved, by its name."""
    return frozenset(name for name, hint in found.items() if _carries(hint, marker))


def _carries(hint: object, marker: type, within: tuple[object, ...] = ()) -> bool:
    if isinstance(hint, str):
        return re.search(rf"\b{marker.__name__}\b", hint) is not None
    if typing.get_origin(hint) is Annotated:
        if any(extra is marker or isinstance(extra, marker) for extra in hint.__metadata__):  # type: ignore[attr-defined]  # it is Annotated
            return True
    if any(hint is outer for outer in within):  # an alias that names itself
        return False
    parts = [part for part in typing.get_args(hint) if not isinstance(part, str)]
    return any(_carries(part, marker, (*within, hint)) for part in [*parts, *_named(hint)])


def _named(hint: object) -> list[object]:
    """Return what a type alias (`type Card = …`) or a `NewType` stands for."""
    for attribute in ("__value__", "__supertype__"):
        try:
            if not isinstance(hint, type) and (found := getattr(hint, attribute, None)) is not None:
                return [found]
        except Exception:  # an alias of a name that is imported for type checking only
            return []
    return []


def policy_types(signature: inspect.Signature, found: Mapping[str, object]) -> dict[str, tuple[Type, bool]]:
    """Return each parameter's policy type, and whether it may be absent."""
    from agentauthz.policy.types import ANYTHING, Sequence

    declared: dict[str, tuple[Type, bool]] = {}
    for parameter in signature.parameters.values():
        kind, absent = _type(found.get(parameter.name, Any))
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            declared[parameter.name] = (Sequence(ANYTHING if absent else kind), False)
        elif parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            declared[parameter.name] = (kind, absent or parameter.default is None)
    return declared


_LISTS: Final = (list, set, frozenset, collections.abc.Sequence, collections.abc.Set, collections.abc.Iterable)


def _scalars() -> Mapping[object, Type]:
    from agentauthz.policy.types import BOOL, DECIMAL, DURATION, INT, STRING, TIME

    return {
        bool: BOOL, int: INT, float: DECIMAL, decimal.Decimal: DECIMAL, str: STRING, uuid.UUID: STRING,
        pathlib.Path: STRING, pathlib.PurePath: STRING, dt.datetime: TIME, dt.timedelta: DURATION,
    }  # fmt: skip


def _type(hint: object) -> tuple[Type, bool]:
    """Return a hint's policy type and whether None is one of its values."""
    from agentauthz.policy.types import ANYTHING, Enumeration, Sequence

    scalars = _scalars()
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, collections.abc.Hashable) and hint in scalars:
        return scalars[hint], False
    if origin is Annotated:
        return _type(parts[0])
    if origin in (typing.Union, types.UnionType):
        others = [part for part in parts if part is not type(None)]
        return (_type(others[0])[0] if len(others) == 1 else ANYTHING), len(others) < len(parts)
    if origin is Literal:
        strings = [part for part in parts if isinstance(part, str)]
        only = len(strings) == len([part for part in parts if part is not None])
        return (Enumeration(frozenset(strings)) if only and strings else ANYTHING), None in parts
    if origin in _LISTS or (origin is tuple and len(parts) == 2 and parts[1] is ...):
        item, absent = _type(parts[0])
        return Sequence(ANYTHING if absent else item), False
    if isinstance(hint, type):
        return _class_type(hint), False
    return ANYTHING, True


def _class_type(cls: type) -> Type:
    from agentauthz.policy.types import ANYTHING, Enumeration, Fields

    if issubclass(cls, enum.Enum):
        values = [member.value for member in cls]
        return Enumeration(frozenset(values)) if all(isinstance(value, str) for value in values) else ANYTHING
    if dataclasses.is_dataclass(cls) or hasattr(cls, "__attrs_attrs__") or hasattr(cls, "__pydantic_validator__"):
        try:
            found = typing.get_type_hints(cls, include_extras=True)
        except Exception:  # an annotation that can't be resolved tells nothing
            return ANYTHING
        public = {name: hint for name, hint in found.items() if not name.startswith("_")}
        return Fields({name: _field_type(hint) for name, hint in public.items()}, cls.__name__)
    return ANYTHING


def _field_type(hint: object) -> tuple[Type, bool]:
    from agentauthz.policy.types import ANYTHING, Fields

    kind, absent = _type(hint)
    return (ANYTHING if isinstance(kind, Fields) else kind), absent
