"""Write checked policies as JSON, and read them back: data, which nothing in here runs."""

from __future__ import annotations

import datetime as dt
import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TypeAlias, cast, final

import attrs

from agentauthz.policy import syntax, types
from agentauthz.policy.check.world import Action
from agentauthz.policy.source import Diagnostic, Source, Span
from agentauthz.principals import Principal

Json: TypeAlias = Any

_CLASSES: Final[tuple[type[attrs.AttrsInstance], ...]] = (
    syntax.Literal_, syntax.ListOf, syntax.Path, syntax.Exists, syntax.Default, syntax.Call, syntax.Not, syntax.And,
    syntax.Or, syntax.Quantifier, syntax.Compare, syntax.Like, syntax.Is, syntax.Arithmetic, syntax.Negate,
    syntax.Pattern, syntax.CheckedObligation, syntax.NamedType, syntax.ListType, syntax.EnumType, syntax.RecordType,
    syntax.Field, syntax.ActionDecl, types.Scalar, types.Enumeration, types.Sequence, types.Fields, types.Anything,
    types.Lacking, Action, Diagnostic,
)  # fmt: skip
_NUMBERS: Final[dict[type, int]] = {cls: number for number, cls in enumerate(_CLASSES)}
_FIELDS: Final = [
    ([(field.name, field.alias or field.name) for field in attrs.fields(cls) if field.init]) for cls in _CLASSES
]


@final
class Writer:
    """Turn values into JSON; mappings, which many paths share, are written once, into `mappings`."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.mappings: list[Json] = []
        self._starts = starts(sources)
        self._places = {id(source): place for place, source in enumerate(sources)}
        self._known: dict[int, int] = {}
        self._kept: list[object] = []  # so that ids stay their own
        self._written: dict[str, int] = {}

    def write(self, value: object) -> Json:
        """Return a value as JSON: scalars as they are, all else as a list that begins with its tag."""
        kind = type(value)
        if value is None or kind is bool or kind is int or kind is str:
            return value
        if kind is tuple or kind is list:
            return ["l", *map(self.write, cast("Sequence[object]", value))]
        if kind is Span:
            return ["@", *self.place(cast(Span, value))]
        number = _NUMBERS.get(kind)
        if number is not None:
            return [number, *(self.write(getattr(value, name)) for name, _ in _FIELDS[number])]
        if isinstance(value, Mapping):
            return ["k" if kind is types.Declared else "m", self._mapping(value)]
        return _scalar(value)

    def place(self, span: Span) -> tuple[int, int]:
        """Return where a span begins in all sources, one after the other, and how long it is."""
        return self._starts[self._places[id(span.source)]] + span.start, span.end - span.start

    def _mapping(self, value: Mapping[object, object]) -> int:
        place = self._known.get(id(value))
        if place is None:
            items = [[self.write(key), self.write(item)] for key, item in value.items()]
            text = json.dumps(items)
            place = self._written.get(text)
            if place is None:
                place = self._written[text] = len(self.mappings)
                self.mappings.append(items)
            self._known[id(value)] = place
            self._kept.append(value)
        return place


def _scalar(value: object) -> Json:
    match value:
        case Decimal():
            return ["d", str(value)]
        case dt.datetime():
            return ["t", value.isoformat()]
        case dt.timedelta():
            return ["s", value.days, value.seconds, value.microseconds]
        case frozenset():
            return ["f", *sorted(value)]
        case Principal():
            return ["p", value.kind, value.id, value.issuer]
    raise TypeError(f"can't be cached: {type(value).__name__}")


@final
class Reader:
    """Turn JSON back into values."""

    def __init__(self, sources: Sequence[Source], mappings: Sequence[Json]) -> None:
        self._sources = sources
        self._starts = starts(sources)
        self._mappings = mappings
        self._read: list[Mapping[object, object] | None] = [None] * len(mappings)
        self._shared: dict[int, types.Declared] = {}
        self._tags: dict[str | int, Callable[[list[Json]], object]] = {
            "l": lambda data: tuple([self.read(item) for item in data[1:]]),
            "@": lambda data: self.span(data[1], data[2]),
            "m": lambda data: self._mapping(data[1]),
            "k": lambda data: self._declared(data[1]),
            "d": lambda data: Decimal(data[1]),
            "t": lambda data: dt.datetime.fromisoformat(data[1]).astimezone(dt.UTC),
            "s": lambda data: dt.timedelta(data[1], data[2], data[3]),
            "f": lambda data: frozenset(data[1:]),
            "p": lambda data: Principal(data[1], data[2], data[3]),
            **{number: self._instance(number) for number in range(len(_CLASSES))},
        }

    def read(self, data: Json) -> Any:
        """Return the value that `data` stands for."""
        return self._tags[data[0]](data) if type(data) is list else data

    def span(self, start: int, length: int) -> Span:
        """Return the span that begins at a place in all sources, one after the other."""
        place = bisect_right(self._starts, start) - 1
        own = start - self._starts[place]
        return Span(self._sources[place], own, own + length)

    def _instance(self, number: int) -> Callable[[list[Json]], object]:
        cls, names = _CLASSES[number], [alias for _, alias in _FIELDS[number]]
        return lambda data: cls(**dict(zip(names, map(self.read, data[1:]), strict=True)))

    def _mapping(self, place: int) -> Mapping[object, object]:
        found = self._read[place]
        if found is None:
            found = self._read[place] = {self.read(key): self.read(item) for key, item in self._mappings[place]}
        return found

    def _declared(self, place: int) -> types.Declared:
        found = self._shared.get(place)
        if found is None:
            found = self._shared[place] = types.Declared(cast("Mapping[str | None, types.Type]", self._mapping(place)))
        return found


def starts(sources: Sequence[Source]) -> list[int]:
    """Return where each source starts if they stood one after the other, with a character between."""
    found = [0]
    for source in sources:
        found.append(found[-1] + len(source.text) + 1)
    return found[:-1]
