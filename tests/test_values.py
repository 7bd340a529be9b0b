"""From Python's values to policy values: what is one, in which form, within which bounds."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import pathlib
import sys
import threading
import uuid
from collections import OrderedDict, UserDict, deque, namedtuple
from collections.abc import Callable, Iterator, Mapping
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import attrs
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentauthz import InvalidArgument, Principal, Resource
from agentauthz.values import (
    ABSENT,
    INVALID,
    MAX_ELEMENTS,
    MAX_NESTING,
    UNKNOWN,
    Entity,
    Record,
    Sentinel,
    Unordered,
    copy_plain,
    field_reader,
    freeze,
    number,
    reading,
    record_of,
)
from tests.support import NOON


def same(left: object, right: object) -> bool:
    """Say whether two frozen values are equal and of one type."""
    return type(left) is type(right) and left == right


def refuse(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("hostile")


def kind(value: object) -> str:
    """Name a parameter by its type alone: some of them don't let themselves be looked at."""
    return type(value).__name__


# ---- scalars


class Colour(enum.Enum):
    RED = "red"
    SEVEN = 7
    NOTHING = None
    WEIRD = object()


class Level(enum.IntEnum):
    HIGH = 3


class Name(enum.StrEnum):
    A = "a"


@pytest.mark.parametrize(
    ("value", "frozen"),
    [
        (True, True), (False, False), (0, 0), (-7, -7), ("", ""), ("ünï", "ünï"), (None, ABSENT), (UNKNOWN, UNKNOWN),
        (1.0, 1), (0.1, Decimal("0.1")), (-0.0, 0), (1e22, 10**22), (1e-18, Decimal("1E-18")), (1e-19, 0),
        (Decimal("2.50"), Decimal("2.5")), (Decimal("3.000"), 3), (Decimal("-0"), 0), (Decimal("1E+5"), 100_000),
        (dt.timedelta(hours=1), dt.timedelta(hours=1)), (NOON, NOON), (Colour.RED, "red"), (Colour.SEVEN, 7),
        (Colour.NOTHING, ABSENT), (Level.HIGH, 3), (Name.A, "a"), (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
    ids=kind,
)  # fmt: skip
def test_what_is_a_scalar(value: object, frozen: object) -> None:
    """Each type has its policy value; whole numbers are ints, fractions exact decimals, enums their values."""
    assert same(freeze(value), frozen)
    assert freeze([value]) == (frozen,)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"), float("inf"), float("-inf"), 1e38, 1e300, 10**38, -(10**38), Decimal("NaN"), Decimal("sNaN"),
        Decimal("Infinity"), Decimal("1E+38"), Decimal("1E+999999"), Decimal("1E-19"), Decimal("1E-999999"),
        Decimal("0.1234567890123456789"), b"bytes", bytearray(b""), object(), object, len, 1j, Fraction(1, 2),
        dt.date(2026, 1, 1), dt.time(1, 2), dt.datetime(2026, 1, 1), range(3), iter([1]), deque([1]), Colour.WEIRD,  # noqa: DTZ001
        memoryview(b"x"), NotImplemented, ..., (x for x in [1]), type("Bare", (), {"a": 1})(),
    ],
    ids=kind,
)  # fmt: skip
def test_what_is_no_value(value: object) -> None:
    """Everything else is INVALID, alone and inside a list, and nothing raises."""
    assert freeze(value) is INVALID
    assert freeze([value]) == (INVALID,)


def test_an_int_that_python_refuses_to_print_is_no_value() -> None:
    """The size is looked at before anything is written out."""
    assert freeze(10**5000) is INVALID


@pytest.mark.parametrize("digits", ["9" * 38, "-" + "9" * 38, "9" * 20 + "." + "9" * 18, "0." + "9" * 18, "1E+37"])
def test_numbers_at_the_bound_are_values(digits: str) -> None:
    """A number may have 38 digits written out, 18 of them after the point."""
    assert freeze(Decimal(digits)) == Decimal(digits)


@pytest.mark.parametrize("digits", ["1" + "0" * 38, "9" * 21 + "." + "9" * 18, "0." + "9" * 19, "9" * 39])
def test_numbers_beyond_the_bound_are_none(digits: str) -> None:
    """One digit more is no value; zeros after the last place don't count."""
    assert freeze(Decimal(digits)) is INVALID
    assert same(freeze(Decimal("1.5" + "0" * 60)), Decimal("1.5"))


@given(st.floats())
def test_a_float_is_the_shortest_decimal_that_prints_it(value: float) -> None:
    """A finite float within the bounds is what Python prints, rounded half-even to 18 places; others are no values."""
    frozen = freeze(value)
    if value != value or abs(value) >= 1e38:
        assert frozen is INVALID
    else:
        assert isinstance(frozen, int | Decimal)
        assert frozen == Decimal(repr(value)).quantize(Decimal("1E-18"), context=Context(prec=400))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4) | st.integers())
def test_equal_numbers_have_one_form(value: Decimal | int) -> None:
    """Whatever way a number is written, equal numbers freeze to values of one type with one hash and one text."""
    frozen = number(value)
    if isinstance(value, Decimal) and frozen is not INVALID:
        other = number(Decimal(f"{value}000") if "E" not in str(value) and "." in str(value) else value)
        assert same(frozen, other)
        assert repr(frozen) == repr(other)
    assert frozen is INVALID or frozen == value


# ---- subclasses: only the base type's own value counts


class LyingStr(str):
    __slots__ = ()
    __eq__ = refuse
    __hash__ = refuse
    __str__ = refuse
    __len__ = refuse


class OddStr(str):
    __slots__ = ()
    __str__ = refuse


class LyingInt(int):
    __eq__ = refuse
    __hash__ = refuse
    __lt__ = refuse
    __int__ = refuse
    __neg__ = refuse


class LyingFloat(float):
    __float__ = refuse
    __eq__ = refuse
    __hash__ = refuse
    __repr__ = refuse


class LyingDecimal(Decimal):
    as_tuple = refuse
    is_finite = refuse
    __eq__ = refuse
    __hash__ = refuse


class LyingDelta(dt.timedelta):
    __add__ = refuse
    __eq__ = refuse
    __hash__ = refuse


class LyingTime(dt.datetime):
    __sub__ = refuse
    astimezone = refuse


class LyingList(list[Any]):
    __iter__ = refuse
    __len__ = refuse


class LyingTuple(tuple[Any, ...]):
    __slots__ = ()
    __iter__ = refuse
    __len__ = refuse


class LyingSet(set[Any]):
    __iter__ = refuse
    __len__ = refuse


class LyingDict(dict[str, Any]):
    __getitem__ = refuse
    get = refuse
    __len__ = refuse
    __contains__ = refuse


@pytest.mark.parametrize(
    ("value", "frozen"),
    [
        (LyingStr("x"), "x"), (LyingInt(7), 7), (LyingFloat(0.5), Decimal("0.5")),
        (LyingDecimal("0.5"), Decimal("0.5")),
        (LyingDelta(hours=1), dt.timedelta(hours=1)), (LyingTime(2026, 11, 23, 12, tzinfo=dt.UTC), NOON),
        (LyingList([1]), (1,)), (LyingTuple((1,)), (1,)), (LyingSet({1}), Unordered((1,))),
    ],
    ids=kind,
)  # fmt: skip
def test_a_subclass_counts_as_its_base_types_value(value: object, frozen: object) -> None:
    """What a subclass overrides is never asked: the frozen value is exactly of the base type."""
    assert same(freeze(value), frozen)


def test_a_subclass_of_dict_is_read_with_dicts_own_methods() -> None:
    """Neither its look-up nor its size is believed."""
    found = freeze(LyingDict(a=1))
    assert isinstance(found, Record)
    assert (found["a"], found["b"]) == (1, ABSENT)


class Impostor:
    """Say to be a text."""

    __class__ = str  # type: ignore[assignment]


class Exploding:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("hostile")


class Hooked:
    def __agentauthz_value__(self) -> NoReturn:
        raise RuntimeError("hostile")


class BrokenSize(Mapping[str, object]):
    def __len__(self) -> int:
        raise RuntimeError("hostile")

    def __getitem__(self, name: str) -> object:
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(())


class Tall(dt.tzinfo):
    dst = refuse
    tzname = refuse

    def utcoffset(self, _: dt.datetime | None) -> NoReturn:
        raise RuntimeError("hostile")


@pytest.mark.parametrize(
    "make",
    [
        Impostor, Exploding, Hooked, BrokenSize, lambda: dt.datetime(2026, 1, 1, tzinfo=Tall()),
        lambda: dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-1))),
        lambda: dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=1))),
    ],
)  # fmt: skip
def test_objects_that_lie_or_raise_are_no_values(make: Callable[[], object]) -> None:
    """An object that says to be of another class, or that raises when it is looked at, is INVALID."""
    assert freeze(make()) is INVALID
    assert freeze([1, make()]) == (1, INVALID)


# ---- times


def test_times_are_moments_in_utc() -> None:
    """A datetime of any zone is the same moment in UTC; the second of two equal wall clocks is an hour later."""
    berlin = ZoneInfo("Europe/Berlin")
    assert same(freeze(dt.datetime(2026, 11, 23, 13, tzinfo=berlin)), NOON)
    assert freeze(dt.datetime(2026, 11, 23, 13, tzinfo=berlin)).tzinfo is dt.UTC  # type: ignore[attr-defined]
    first = freeze(dt.datetime(2026, 10, 25, 2, 30, tzinfo=berlin))
    second = freeze(dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=berlin))
    assert second - first == dt.timedelta(hours=1)  # type: ignore[operator]


@given(st.datetimes(timezones=st.timezones()))
def test_freezing_keeps_the_moment(moment: dt.datetime) -> None:
    """A frozen time is the moment that Python's own arithmetic gives, or it is no value."""
    frozen = freeze(moment)
    assert frozen is INVALID or frozen == moment.astimezone(dt.UTC)


# ---- collections


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "frozen"),
    [
        ([], ()), ([1, "a", None], (1, "a", ABSENT)), ((1, 2), (1, 2)), (Pair(1, 2), (1, 2)), ([[1], []], ((1,), ())),
        ({1}, Unordered((1,))), (frozenset({"a"}), Unordered(("a",))), ([UNKNOWN], (UNKNOWN,)),
        ((1, 2.50), (1, Decimal("2.5"))),
    ],
)  # fmt: skip
def test_collections_are_copied(value: object, frozen: object) -> None:
    """Lists and tuples become tuples, sets are kept apart from them; elements are frozen one by one."""
    assert same(freeze(value), frozen)


def test_a_frozen_list_does_not_change() -> None:
    """What happens to the list afterwards doesn't matter."""
    items = [1]
    frozen = freeze(items)
    items.append(2)
    assert frozen == (1,)


def nested(depth: int, inner: object = 1) -> object:
    """Return a list in a list …, `depth` of them."""
    for _ in range(depth):
        inner = [inner]
    return inner


def test_bounds_of_collections() -> None:
    """10,000 elements, 200 levels, 100,000 elements in all: one more is no value, wherever it stands."""
    assert freeze([0] * MAX_ELEMENTS) == (0,) * MAX_ELEMENTS
    assert freeze([0] * (MAX_ELEMENTS + 1)) is INVALID
    assert freeze(set(range(MAX_ELEMENTS + 1))) is INVALID
    assert freeze([1, [0] * (MAX_ELEMENTS + 1)]) == (1, INVALID)
    assert freeze(dict.fromkeys(map(str, range(MAX_ELEMENTS + 1)))) is INVALID
    assert INVALID not in flat(freeze(nested(MAX_NESTING)))
    assert INVALID in flat(freeze(nested(MAX_NESTING + 1)))
    assert INVALID not in flat(freeze([[0] * 9_990 for _ in range(10)]))
    assert INVALID in flat(freeze([[0] * MAX_ELEMENTS for _ in range(11)]))


def flat(value: object) -> Iterator[object]:
    """Yield the innermost elements of a frozen list."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, tuple):
            waiting += part
        else:
            yield part


def test_cycles_and_depth_end() -> None:
    """A list that holds itself, and one deeper than Python's stack, are no values where they go too deep."""
    ring: list[object] = [1]
    ring.append(ring)
    assert INVALID in flat(freeze(ring))
    deep = nested(100_000)
    assert INVALID in flat(freeze(deep))
    while isinstance(deep, list):  # taken apart by hand: freeing it at once would recurse
        deep = deep.pop()


def test_a_wide_tree_of_shared_lists_ends() -> None:
    """Sharing that would unfold to more elements than atoms in the world costs no more than the total bound."""
    shared: list[object] = [1]
    for _ in range(60):
        shared = [shared, shared]
    assert INVALID in flat(freeze(shared))


# ---- records


@dataclasses.dataclass
class Order:
    amount: float
    _secret: str = "s"
    tags: list[str] = dataclasses.field(default_factory=list)

    @property
    def total(self) -> NoReturn:
        raise RuntimeError("not a field")

    def method(self) -> int:
        return 1


@attrs.define
class Ticket:
    title: str


class Form(pydantic.BaseModel):
    name: str
    size: int = 3

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def shown(self) -> str:
        return "x"


@pytest.mark.parametrize(
    ("value", "name", "expected"),
    [
        ({"a": 1}, "a", 1), ({"a": 1}, "b", ABSENT), ({"a": None}, "a", ABSENT), ({}, "keys", ABSENT),
        ({"_a": 1}, "_a", ABSENT), ({1: 2}, "1", ABSENT), (OrderedDict(a=1), "a", 1), (UserDict(a=1), "a", 1),
        (UserDict(), "data", ABSENT), (Order(0.5), "amount", Decimal("0.5")), (Order(1), "tags", ()),
        (Order(1), "_secret", ABSENT), (Order(1), "total", ABSENT), (Order(1), "method", ABSENT),
        (Order(1), "__class__", ABSENT), (Ticket("t"), "title", "t"), (Ticket("t"), "__attrs_attrs__", ABSENT),
        (Form(name="n"), "size", 3), (Form(name="n"), "model_dump", ABSENT), (Form(name="n"), "shown", ABSENT),
    ],
)  # fmt: skip
def test_a_record_holds_data_fields_only(value: object, name: str, expected: object) -> None:
    """Keys and fields are there; methods, properties, hidden and other names are not."""
    record = freeze(value)
    assert type(record) is Record
    assert same(record[name], expected)


def test_classes_are_no_records() -> None:
    """A class isn't one of its objects, though it has the same fields."""
    for cls in (Order, Ticket, Form):
        assert freeze(cls) is INVALID


def test_a_field_is_read_once_and_kept() -> None:
    """The first reading counts; nothing is read before, and nothing after."""
    asked: list[str] = []

    def read(name: str) -> object:
        asked.append(name)
        return len(asked)

    record = reading(read, {"known": "k"})
    assert asked == []
    assert [record["a"], record["b"], record["a"], record["known"]] == [1, 2, 1, "k"]
    assert asked == ["a", "b"]


def test_a_field_that_fails_is_unknown_and_stays_so() -> None:
    """A look-up that raises once isn't tried again in the same decision."""
    answers: Iterator[object] = iter([1])

    def read(_: str) -> object:
        return next(answers)

    record = reading(read)
    assert (record["a"], record["b"]) == (1, UNKNOWN)
    answers = iter([2])
    assert (record["a"], record["b"]) == (1, UNKNOWN)


def test_hidden_names_are_not_even_asked_for() -> None:
    """A name with an underscore in front never reaches the host's code."""
    record = reading(refuse)
    assert record["_x"] is ABSENT
    assert record["x"] is UNKNOWN


def test_only_one_of_many_readings_at_once_counts() -> None:
    """Threads that read a field together all go on with the same value."""
    barrier = threading.Barrier(8)
    numbers = iter(range(100))

    def read(_: str) -> object:
        barrier.wait(10)
        return next(numbers)

    record, found = reading(read), []
    threads = [threading.Thread(target=lambda: found.append(record["x"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 8
    assert set(found) == {record["x"]}


def test_a_mutation_after_the_reading_does_not_count() -> None:
    """A field keeps the value that it had when it was read."""
    data = {"a": [1]}
    record = freeze(data)
    assert isinstance(record, Record)
    assert record["a"] == (1,)
    data["a"].append(2)
    data["a"] = [3]
    assert record["a"] == (1,)


def test_principals_and_resources_are_values() -> None:
    """They are what they are, also inside of lists and mappings."""
    maria = Principal.user("maria")
    assert freeze(maria) is maria
    assert freeze([maria]) == (maria,)
    entity = freeze(Resource("Order", "o", {"type": "lie", "a": 1}))
    assert isinstance(entity, Entity)
    assert (entity["type"], entity["id"], entity["a"]) == ("Order", "o", 1)


def test_record_of_freezes_all_of_it_now() -> None:
    """Arguments are frozen before the decision; names that are no strings are refused, hidden ones left out."""
    items = [1]
    record = record_of({"a": items, "_b": 1, OddStr("c"): 2})
    items.append(2)
    assert dict(record) == {"a": (1,), "c": 2}
    assert all(type(name) is str for name in record)
    with pytest.raises(InvalidArgument, match="strings"):
        record_of({1: 2})  # type: ignore[dict-item]


@pytest.mark.parametrize("value", [1, "text", [1], None, object(), BrokenSize()])
def test_what_has_no_fields_has_no_reader(value: object) -> None:
    """Only mappings and objects with declared fields can hold attributes."""
    assert field_reader(value) is None


# ---- sentinels


@pytest.mark.parametrize("sentinel", list(Sentinel))
def test_a_sentinel_has_no_truth_value(sentinel: Sentinel) -> None:
    """`if value:` can't take what isn't known for false."""
    with pytest.raises(InvalidArgument, match="no truth value"):
        bool(sentinel)
    assert repr(sentinel) == sentinel.name


# ---- copying arguments


def test_plain_collections_are_copied_and_nothing_else() -> None:
    """Lists, dicts, sets and tuples of plain types are new; objects and subclasses are the same."""
    thing, odd = object(), LyingList()
    given_ = {"l": [1, [2]], "t": ([3],), "s": {4}, "o": thing, "x": odd, "f": frozenset({5})}
    copied = copy_plain(given_)
    assert isinstance(copied, dict)
    assert copied["o"] is thing
    assert copied["x"] is odd
    assert copied["f"] is given_["f"]
    for name in ("l", "t", "s"):
        assert copied[name] == given_[name]
        assert copied[name] is not given_[name]
    assert copied["l"][1] is not given_["l"][1]  # type: ignore[index]


@pytest.mark.parametrize("value", [1, "x", None, (1, "a"), (), ((),), 2.5, b"x"])
def test_what_can_not_change_is_not_copied(value: object) -> None:
    """Scalars, and tuples of nothing that changes, are the same object."""
    assert copy_plain(value) is value


def test_sharing_and_cycles_stay() -> None:
    """What was one object before is one object after, and a ring stays a ring."""
    shared = [1]
    first, second = copy_plain([shared, shared])  # type: ignore[misc]
    assert first is second  # type: ignore[has-type]
    assert first is not shared  # type: ignore[has-type]
    ring: list[object] = []
    ring.append({"ring": ring})
    copied: Any = copy_plain(ring)
    assert copied is not ring
    assert copied[0]["ring"] is copied


def test_copying_is_bounded_in_depth() -> None:
    """Arguments deeper than 200 are refused with a clear error, and not with Python's."""
    assert copy_plain(nested(MAX_NESTING)) == nested(MAX_NESTING)
    wraps: list[Callable[[Any], Any]] = [lambda x: [x], lambda x: {"a": x}, lambda x: (x, [])]
    for wrap in wraps:
        with pytest.raises(InvalidArgument, match="nest deeper than 200"):
            copy_plain(wrapped(wrap, MAX_NESTING + 2))


def wrapped(wrap: Callable[[Any], Any], times: int) -> Any:
    """Return 1 in `times` wrappings."""
    made: Any = 1
    for _ in range(times):
        made = wrap(made)
    return made


def test_the_bounds_are_below_pythons_own() -> None:
    """What is within the bounds is a value also where the caller stands deep in Python's stack."""

    def below(calls: int) -> object:
        return below(calls - 1) if calls else (freeze(nested(MAX_NESTING)), copy_plain(nested(MAX_NESTING)))

    frozen, copied = below(sys.getrecursionlimit() // 3)  # type: ignore[misc]
    assert INVALID not in flat(frozen)  # type: ignore[has-type]
    assert copied == nested(MAX_NESTING)  # type: ignore[has-type]
