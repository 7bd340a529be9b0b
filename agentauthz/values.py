"""Turn Python values into policy values: freezing, snapshots, and the three states of an input.

A policy value is a bool, an int, a Decimal with a fraction, a str, a UTC datetime, a timedelta, a tuple
(a list), an `Unordered` (a set), a `Record`, or an object whose class has an ``__agentauthz_value__``
method (principals and resources). An input that is not a value is one of the three sentinels.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import pathlib
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final, TypeAlias, final

from agentauthz.errors import InvalidArgument

Value: TypeAlias = object  # one of the types named above, or a sentinel

MAX_ELEMENTS: Final = 10_000  # of one collection
MAX_NESTING: Final = 200  # of collections in collections
MAX_TOTAL: Final = 100_000  # elements of one input, nested ones included
MAX_DIGITS: Final = 38
MAX_PLACES: Final = 18

_INT_BOUND: Final = 10**MAX_DIGITS
_INT_LEAST: Final = -_INT_BOUND  # kept, because negating it makes a number each time
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_QUANTUM: Final = Decimal(1).scaleb(-MAX_PLACES)
_CONTEXT: Final = Context(prec=400, rounding=ROUND_HALF_EVEN)


@final
class Sentinel(enum.Enum):
    """Name the states of an input that holds no value."""

    ABSENT = "absent"  # its record is known and does not hold it
    UNKNOWN = "unknown"  # a look-up failed, or the fact isn't there yet
    INVALID = "invalid"  # something is there, but it is no policy value

    def __repr__(self) -> str:
        return self.name

    def __bool__(self) -> bool:
        raise InvalidArgument(self.name, "has no truth value: compare it with `is`")


ABSENT: Final = Sentinel.ABSENT
UNKNOWN: Final = Sentinel.UNKNOWN
INVALID: Final = Sentinel.INVALID


@final
class Unordered(tuple[Value, ...]):
    """Hold the elements of a set: `in`, `any`, `every` and `len` work on it, comparison doesn't."""

    __slots__ = ()


class Record(dict[str, Value]):
    """Hold named values; with a `reader`, each is frozen when it is first read, and kept from then on.

    ``record[name]`` never raises: a name that isn't there is ABSENT, one whose look-up fails is UNKNOWN.
    """

    # one that isn't set means that all is known: two records are made at every decision, and an `__init__` here
    # would double what that costs
    __slots__ = ("reader",)

    reader: Callable[[str], object]

    def __missing__(self, name: str) -> Value:
        read = getattr(self, "reader", None)
        if read is None or name[:1] == "_":
            return ABSENT
        try:
            value = read(name)
            if type(value) is not str:
                value = freeze(value)
        except Exception:  # a property or a look-up of the host's raised: the fact is unknown
            value = UNKNOWN
        # two threads may read at once: all of them must go on with the same value
        return self.setdefault(name, value)


@final
class Entity(Record):
    """Hold a resource as policies see it: a record that `==` compares by type and id."""

    __slots__ = ()


@final
class _Budget:
    """Count the elements that one input may still have."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_TOTAL


def freeze(value: object) -> Value:
    """Return `value` as a policy value, ABSENT for None, and INVALID for what can't be one.

    Lists, sets and tuples are copied; mappings, attrs, dataclass and pydantic objects become a
    `Record` that reads a field when it is first asked for.
    """
    freezer = _BY_TYPE.get(type(value))
    if freezer is not None:
        return freezer(value)
    try:
        return _freeze_other(value, _Budget(), 0)
    except Exception:  # it says it is of a class that it isn't, or its own hook raised: no value can be had
        return INVALID


def reading(read: Callable[[str], object], known: Mapping[str, Value] = {}) -> Record:
    """Return a record that asks `read` for what isn't `known` yet."""
    record = Record(known)
    record.reader = read
    return record


def record_of(mapping: Mapping[str, object]) -> Record:
    """Return `mapping`, all of it frozen now, as a record.

    Raises:
        InvalidArgument: a name that is no string, or comes twice.
    """
    record = Record(mapping)  # copied first: `freeze` may run code that changes the mapping
    for name, value in record.items():
        if type(name) is not str or name[:1] == "_":
            return _exactly_named(record)
        kind = type(value)  # most arguments are of these two, and a call for each costs more than the rest
        if kind is not str and not (kind is int and _INT_LEAST < value < _INT_BOUND):  # type: ignore[operator]
            record[name] = freeze(value)
    return record


def _exactly_named(values: Record) -> Record:
    """Return a record under exact strings, without the names that no policy can ask for."""
    record = Record()
    for name, value in values.items():
        if not isinstance(name, str):
            raise InvalidArgument("args", "must have names that are strings")
        exact = str.__str__(name)
        if exact in record:  # a subclass that denies to be the text that it is
            raise InvalidArgument("args", f"must have each name once, and `{exact}` comes twice")
        if exact[:1] != "_":
            record[exact] = freeze(value)
    return record


def number(value: int | Decimal) -> Value:
    """Return a number in its one canonical form: an int, or a Decimal with a fraction; else INVALID.

    Numbers have at most 38 digits written out and 18 after the point.
    """
    if isinstance(value, int):
        return _freeze_int(value)
    if not value.is_finite() or value.adjusted() >= MAX_DIGITS:
        return INVALID
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    end = len(digits)
    while exponent < 0 and end > 1 and digits[end - 1] == 0:
        end, exponent = end - 1, exponent + 1
    if end == 1 and digits[0] == 0:
        return 0
    if exponent >= 0:
        return int(value)
    if exponent < -MAX_PLACES or max(end, -exponent) > MAX_DIGITS:
        return INVALID
    return Decimal((sign, digits[:end], exponent))


def copy_plain(value: object, name: str = "args") -> object:
    """Return `value` with every plain list, dict, set and tuple in it copied, and nothing else.

    Shared and cyclic structures stay so. `name` is what it was given as.

    Raises:
        InvalidArgument: the nesting is deeper than 200.
    """
    if type(value) in ATOMIC:
        return value
    try:
        return _copy(value, {}, 0)
    except _TooDeep:
        raise InvalidArgument(name, f"must not nest deeper than {MAX_NESTING} collections") from None


class _TooDeep(Exception):  # it never leaves this module
    pass


def _copy(value: object, memo: dict[int, object], depth: int) -> object:
    kind = type(value)
    if kind not in _PLAIN:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if depth > MAX_NESTING:
        raise _TooDeep
    if kind is list:
        copied: list[object] = []
        memo[id(value)] = copied
        copied.extend(_copy(item, memo, depth + 1) for item in value)  # type: ignore[attr-defined]
        return copied
    if kind is dict:
        mapping: dict[object, object] = {}
        memo[id(value)] = mapping
        for key, item in value.items():  # type: ignore[attr-defined]
            mapping[key] = _copy(item, memo, depth + 1)
        return mapping
    if kind is set:
        return set(value)  # type: ignore[call-overload]
    copy = tuple(_copy(item, memo, depth + 1) for item in value)  # type: ignore[attr-defined]
    kept = value if all(a is b for a, b in zip(copy, value, strict=True)) else copy  # type: ignore[call-overload]
    memo[id(value)] = kept  # tuples that share their parts would else be copied once for each way to them
    return kept


def _freeze_int(value: int) -> Value:
    return value if _INT_LEAST < value < _INT_BOUND else INVALID


def _freeze_float(value: float) -> Value:
    if value != value or value in (float("inf"), float("-inf")):
        return INVALID
    exact = Decimal(repr(value))
    exponent = exact.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -MAX_PLACES:
        exact = exact.quantize(_QUANTUM, context=_CONTEXT)
    return number(exact)


def _freeze_datetime(value: dt.datetime) -> Value:
    if dt.datetime.tzinfo.__get__(value) is None:
        return INVALID
    try:
        return _EPOCH + dt.datetime.__sub__(value, _EPOCH)
    except Exception:  # a time zone that raises, or a moment before year 1 or after 9999
        return INVALID


def utc(moment: object) -> dt.datetime | None:
    """Return a moment with a zone as a plain one in UTC; None: it is none.

    Two moments of one zone are compared, and added to, by the wall clock: wrongly where that is set back.
    """
    if type(moment) is dt.datetime and moment.tzinfo is dt.UTC:
        return moment
    found = freeze(moment) if isinstance(moment, dt.datetime) else None
    return found if isinstance(found, dt.datetime) else None


def told_by(clock: Callable[[], dt.datetime]) -> dt.datetime:
    """Return the time by a host's clock, as a plain moment in UTC.

    Raises:
        InvalidArgument: the clock returned something other than a datetime with a zone.
    """
    if (now := utc(clock())) is None:
        raise InvalidArgument("clock", "must return a datetime with a time zone")
    return now


def _freeze_elements(items: Iterable[object], size: int, budget: _Budget, depth: int) -> list[Value] | None:
    budget.left -= size
    if size > MAX_ELEMENTS or depth >= MAX_NESTING or budget.left < 0:
        return None
    frozen: list[Value] = []
    for item in items:  # two calls a level, and no more: 200 levels must fit on any caller's stack
        freezer = _BY_TYPE.get(type(item))
        try:
            frozen.append(_freeze_other(item, budget, depth + 1) if freezer is None else freezer(item))
        except Exception:  # as in `freeze`: this element can't be had, the others can
            frozen.append(INVALID)
    return frozen


def _freeze_other(value: object, budget: _Budget, depth: int) -> Value:
    """Freeze what isn't exactly one of the scalar types: collections, subclasses, objects with fields."""
    if isinstance(value, enum.Enum):
        elements = _freeze_elements((value._value_,), 1, budget, depth)
        return INVALID if elements is None else elements[0]
    for base, freezer in _BY_BASE:
        if isinstance(value, base):
            return freezer(value)
    for base, made in _COLLECTIONS:
        if isinstance(value, base):
            elements = _freeze_elements(base.__iter__(value), base.__len__(value), budget, depth)
            return INVALID if elements is None else made(elements)
    hook = getattr(type(value), "__agentauthz_value__", None)
    return hook(value) if hook is not None else _record_or_invalid(value)


def _record_or_invalid(value: object) -> Value:
    reader = field_reader(value)
    return INVALID if reader is None else reading(reader)


def field_reader(value: object) -> Callable[[str], object] | None:
    """Return a function that reads one data field of `value` by name (None: no such field), or None.

    Mappings, attrs, dataclass and pydantic objects have fields; methods and other attributes don't exist.
    """
    if type(value) is dict:  # asked at every decision
        return value.get if len(value) <= MAX_ELEMENTS else None
    if isinstance(value, dict):
        # a subclass's own `get` may lie
        return (lambda name: dict.get(value, name)) if dict.__len__(value) <= MAX_ELEMENTS else None
    if isinstance(value, Mapping):
        return _mapping_reader(value)
    names = _field_names(type(value))
    return None if names is None else lambda name: getattr(value, name) if name in names else None


def reader_of(value: object) -> Callable[[str], object]:
    """Return what reads the fields of `value`; where it is no record, all of them are INVALID."""
    return field_reader(value) or no_field


def no_field(_: str) -> object:
    """Read a field of what is no record."""
    return INVALID


def _mapping_reader(value: Mapping[object, object]) -> Callable[[str], object] | None:
    try:
        if len(value) > MAX_ELEMENTS:
            return None
    except Exception:  # a mapping that doesn't know its size is no value
        return None
    return lambda name: value[name] if name in value else None  # noqa: SIM401  (a mapping's own `get` may lie)


def _field_names(cls: type) -> frozenset[str] | None:
    if (attributes := getattr(cls, "__attrs_attrs__", None)) is not None:
        return frozenset(attribute.name for attribute in attributes)
    if dataclasses.is_dataclass(cls):
        return frozenset(field.name for field in dataclasses.fields(cls))
    if hasattr(cls, "__pydantic_validator__") and (fields := getattr(cls, "model_fields", None)) is not None:
        return frozenset(fields)
    return None


_BY_TYPE: Final[dict[type, Callable[..., Value]]] = {
    str: lambda value: value,
    bool: lambda value: value,
    type(None): lambda _: ABSENT,
    int: _freeze_int,
    float: _freeze_float,
    Decimal: number,
    dt.datetime: _freeze_datetime,
    dt.timedelta: lambda value: value,
    Sentinel: lambda value: value,
    Record: lambda value: value,
    Unordered: lambda value: value,
}
_BY_BASE: Final[tuple[tuple[type, Callable[..., Value]], ...]] = (
    # a subclass counts as its base type's value: the base's own methods are asked, never its overrides
    (str, lambda value: str.__str__(value)),
    (int, lambda value: _freeze_int(int.__int__(value))),
    (float, lambda value: _freeze_float(float.__float__(value))),
    (Decimal, lambda value: number(Decimal(Decimal.as_tuple(value))) if Decimal.is_finite(value) else INVALID),  # type: ignore[arg-type]
    (dt.datetime, _freeze_datetime),
    (dt.timedelta, lambda value: dt.timedelta.__add__(value, dt.timedelta(0))),
    (uuid.UUID, lambda value: uuid.UUID.__str__(value)),
    (pathlib.PurePath, lambda value: pathlib.PurePath.__str__(value)),
)
_COLLECTIONS: Final[tuple[tuple[type[Collection[Value]], Callable[[Iterable[Value]], Value]], ...]] = (
    (list, tuple), (tuple, tuple), (set, Unordered), (frozenset, Unordered),
)  # fmt: skip
ATOMIC: Final = frozenset({str, bool, int, float, Decimal, type(None), dt.datetime, dt.date, dt.timedelta, bytes})
_PLAIN: Final = frozenset({list, dict, set, tuple})
