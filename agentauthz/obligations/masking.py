"""Mask fields of a result: `mask(fields: ["ssn", "customer.card", "notes?"])`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, cast, final

from attrs import define, field

from agentauthz.errors import InvalidArgument
from agentauthz.obligations.handler import Duty, Handler
from agentauthz.values import MAX_NESTING

MASKED: Final = "•••"


@final
@define(eq=False)
class _Step:
    """Be what is masked below one field: all of it, or the fields below."""

    whole: bool = False
    optional: bool = True  # until a path without a question mark leads through it
    below: dict[str, _Step] = field(factory=dict)


_Steps: TypeAlias = dict[str, _Step]


def _tree(fields: Iterable[str]) -> _Steps:
    """Return the fields of dotted paths as a tree; a step that ends with a question mark may be absent."""
    steps: _Steps = {}
    for path in fields:
        here = steps
        for name in path.split("."):
            step = here.setdefault(name.removesuffix("?"), _Step())
            step.optional = step.optional and name.endswith("?")
            here = step.below
        step.whole = True
    return steps


def _wrong(properties: Mapping[str, object]) -> str | None:
    fields = properties.get("fields")
    if not properties.keys() <= {"fields", "value"} or not isinstance(fields, list | tuple) or not fields:
        return "`mask` takes `fields`, a list of at least one path, and may take `value`, which stands in their place"
    for path in fields:
        if not isinstance(path, str) or not all(name.removesuffix("?") for name in path.split(".")):
            return '`mask` takes paths such as "customer.card" in `fields`; "notes?" says that it may be absent'
    return None


def _masked(duty: Duty, result: Any) -> object:
    value = duty.properties.get("value", MASKED)
    return _copy(result, _tree(cast("Iterable[str]", duty.properties["fields"])), value, 0)


mask: Final = Handler(after=_masked, check=_wrong)


def _copy(found: object, steps: _Steps, value: object, depth: int) -> object:
    """Return a copy with the fields masked; of a list, of each of its elements. None and an empty list hold nothing.

    Raises:
        InvalidArgument: it has another shape, or lacks a field that has to be there.
    """
    if found is None:
        return None
    if depth > MAX_NESTING:
        raise InvalidArgument("result", f"nests deeper than {MAX_NESTING} collections")
    if type(found) is list or type(found) is tuple:
        items = cast("Iterable[object]", found)
        return type(found)([_copy(item, steps, value, depth + 1) for item in items])
    if isinstance(found, Mapping):
        return _fields(_named(found), steps, value, depth)
    make, names = _shape(type(found))
    values = {name: getattr(found, name) for name in names}
    more = getattr(found, "__pydantic_extra__", None)
    return make(_fields({**values, **more} if isinstance(more, Mapping) else values, steps, value, depth))


def _named(mapping: Mapping[object, object]) -> dict[object, object]:
    """Return a mapping's items under exact strings: a subclass may deny to be the name that it is."""
    named: dict[object, object] = {}
    for key, item in mapping.items():
        exact = str.__str__(key) if isinstance(key, str) else key
        if exact in named:
            raise InvalidArgument("result", "holds a name twice")
        named[exact] = item
    return named


def _fields(values: dict[Any, object], steps: _Steps, value: object, depth: int) -> dict[Any, object]:
    for name, step in steps.items():
        if name in values:
            values[name] = value if step.whole else _copy(values[name], step.below, value, depth + 1)
        elif not step.optional:
            raise InvalidArgument("result", f"has no field `{name}`; a policy says `{name}?` where it may be absent")
    return values


def _shape(cls: type) -> tuple[Callable[[dict[Any, object]], object], Iterable[str]]:
    """Return what makes an object of a class from the values of its fields alone, and their names."""
    if (attributes := getattr(cls, "__attrs_attrs__", None)) is not None:
        return lambda values: _filled(cls, values), [attribute.name for attribute in attributes]
    if dataclasses.is_dataclass(cls):
        return lambda values: _filled(cls, values), [each.name for each in dataclasses.fields(cls)]
    if hasattr(cls, "__pydantic_validator__") and (fields := getattr(cls, "model_fields", None)) is not None:
        return lambda values: cls.model_construct(**values), list(fields)  # type: ignore[attr-defined]  # pydantic's
    raise InvalidArgument("result", "is no mapping, list, or object with fields")


def _filled(cls: type, values: Mapping[str, object]) -> object:
    """Return an object with these fields and nothing else: what was computed from the masked ones is gone with them.

    No validator is asked: the mask is of no type that it would take.
    """
    made: object = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made
