"""Test canonical JSON: RFC 8785's vectors, the tags, and that no data, however hostile, gets the better of it."""

from __future__ import annotations

import datetime as dt
import enum
import inspect
import json
import pathlib
import sys
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Final, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentauthz.canonical import bounded, canonical, class_name, encode, jsonable, plain, utf8
from agentauthz.principals import Principal
from agentauthz.values import ABSENT, INVALID, UNKNOWN, Record, Unordered, freeze

VECTORS: Final = Path(__file__).parent / "vectors" / "jcs"
NAMES: Final = sorted(path.stem for path in (VECTORS / "input").iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_vectors_of_rfc_8785(name: str) -> None:
    """Each vector's input gives its output, byte for byte, as text and as the hexadecimal beside it."""
    tree = json.loads((VECTORS / "input" / f"{name}.json").read_bytes())
    expected = bytes.fromhex((VECTORS / "outhex" / f"{name}.txt").read_text())
    assert canonical(tree) == encode(tree) == expected == (VECTORS / "output" / f"{name}.json").read_bytes()


def test_there_are_six_vectors() -> None:
    """No vector is lost."""
    assert NAMES == ["arrays", "french", "structures", "unicode", "values", "weird"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"), (-0.0, "0"), (5e-324, "5e-324"), (-5e-324, "-5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (9007199254740992.0, "9007199254740992"), (295147905179352830000.0, "295147905179352830000"), (1e21, "1e+21"),
        (9.999999999999997e22, "9.999999999999997e+22"), (1e23, "1e+23"), (333333333.3333332, "333333333.3333332"),
        (-1e-7, "-1e-7"), (0.000001, "0.000001"),
        (1424953923781206.2, "1424953923781206.2"), (1e16, "10000000000000000"),
        (0.00001, "0.00001"), (-123e-20, "-1.23e-18"),
    ],
)  # fmt: skip
def test_floats_are_written_as_ecmascript_does(number: float, text: str) -> None:
    """The samples of RFC 8785's appendix B, and those where Python's form differs."""
    assert canonical(number) == text.encode()


class _Colour(enum.Enum):
    RED = "red"


class _Level(enum.IntEnum):
    HIGH = 3


UTC2: Final = dt.timezone(dt.timedelta(hours=2))


@pytest.mark.parametrize(
    ("value", "tree"),
    [
        (None, None), (True, True), (3, 3), ("a", "a"), (1.5, 1.5), (2**53, 2**53),
        (2**53 + 1, {"$i": "9007199254740993"}), (-(2**53) - 1, {"$i": "-9007199254740993"}),
        (1 << 200, {"$i": hex(1 << 200)}),
        (Decimal("1.50"), {"$d": "1.5"}), (Decimal(120), {"$d": "120"}), (Decimal("1E+3"), {"$d": "1000"}),
        (Decimal("-0"), {"$d": "0"}), (Decimal("0.010"), {"$d": "0.01"}), (Decimal("1E+999999"), {"$d": "1e999999"}),
        (Decimal("sNaN"), {"$d": "snan"}), (Decimal("-Infinity"), {"$d": "-infinity"}),
        (float("nan"), {"$f": "nan"}), (float("inf"), {"$f": "inf"}), (float("-inf"), {"$f": "-inf"}),
        (dt.datetime(2026, 11, 23, 9, tzinfo=UTC2), {"$t": "2026-11-23T07:00:00.000000Z"}),
        (dt.datetime(2026, 11, 23, 9), {"$local": "2026-11-23T09:00:00.000000"}),  # noqa: DTZ001
        (dt.date(2026, 11, 23), {"$date": "2026-11-23"}), (dt.time(9, 5), {"$clock": "09:05:00.000000"}),
        (dt.timedelta(minutes=15), {"$dur": "900"}), (dt.timedelta(microseconds=-1500), {"$dur": "-0.0015"}),
        (Principal.agent("bot"), {"$p": ["agent", "bot"]}),
        (Principal.user("maria", issuer="https://id.example"), {"$p": ["user", "maria", "https://id.example"]}),
        (b"\x00\xff", {"$b": "AP8="}), (bytearray(b"a"), {"$b": "YQ=="}),
        ("\ud800\\", {"$w": "\\ud800\\\\"}), ({"\ud800": 1}, {"$m": [[{"$w": "\\ud800"}, 1]]}),
        ({1: "a", "b": 2}, {"$m": [["b", 2], [1, "a"]]}), ({"$d": "1"}, {"$$d": "1"}),
        ({3, 1, 2}, {"$set": [1, 2, 3]}), (frozenset("ba"), {"$set": ["a", "b"]}),
        (Unordered((2, 1)), {"$set": [1, 2]}),
        ((1, [2]), [1, [2]]), (_Colour.RED, "red"), (_Level.HIGH, 3),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"), (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (ABSENT, None), (UNKNOWN, {"$x": "unknown"}), (INVALID, {"$x": "invalid"}), (Record({"a": 1}), {"a": 1}),
        (object(), {"$u": "object"}), (len, {"$u": "builtin_function_or_method"}), (1j, {"$u": "complex"}),
    ],
    ids=lambda part: type(part).__name__,
)  # fmt: skip
def test_each_tag(value: object, tree: object) -> None:
    """What JSON holds is itself; what it doesn't is tagged by its kind."""
    assert jsonable(value) == tree
    assert json.loads(canonical(value)) == tree


def test_a_number_never_equals_a_string() -> None:
    """The same digits as text, int, decimal, bool and big integer give four different digests."""
    forms = [canonical(value) for value in ("1", 1, Decimal(1), True, b"1", {"$d": "1"}, {"$i": "1"}, [1], {1: 1})]
    assert len(set(forms)) == len(forms)


class Spy:
    """Be an object that tells when anything at all is asked of it."""

    asked: Final[list[str]] = []

    def __getattribute__(self, name: str) -> NoReturn:
        Spy.asked.append(name)
        raise RuntimeError("SECRET-asked")

    def __repr__(self) -> str:
        Spy.asked.append("repr")
        return "SECRET-repr"

    __str__ = __repr__

    def __iter__(self) -> Iterator[int]:
        Spy.asked.append("iter")
        return iter(())

    def __eq__(self, other: object) -> bool:
        Spy.asked.append("eq")
        return True

    def __hash__(self) -> int:
        return 1

    def __bool__(self) -> bool:
        Spy.asked.append("bool")
        return False

    def __len__(self) -> int:
        Spy.asked.append("len")
        return 0


def test_unknown_objects_are_never_asked() -> None:
    """Not one attribute or special method of an unknown object is used, wherever it stands."""
    Spy.asked.clear()
    for value in (Spy(), [Spy()], {"a": Spy()}, (Spy(), {"b": [Spy()]})):
        assert b'{"$u":"Spy"}' in canonical(value)
    mapping: dict[object, object] = {Spy(): 1}
    Spy.asked.clear()
    assert canonical(mapping) == b'{"$m":[[{"$u":"Spy"},1]]}'
    assert Spy.asked == []


class _Liar:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return str


class _Text(str):
    def __str__(self) -> str:
        return "lie"

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return id(self)


class _Number(int):
    def __int__(self) -> int:
        return 7

    def __repr__(self) -> str:
        return "lie"


class _Items(dict[str, int]):
    def items(self) -> NoReturn:
        raise RuntimeError

    def __iter__(self) -> NoReturn:
        raise RuntimeError


class _Meta(type):
    @property
    def __name__(cls) -> NoReturn:  # type: ignore[override]
        raise RuntimeError


class _Unnamed(metaclass=_Meta):
    pass


class _Zone(dt.tzinfo):
    def utcoffset(self, moment: dt.datetime | None) -> NoReturn:
        raise RuntimeError

    dst = tzname = utcoffset


def test_liars_count_as_what_they_are() -> None:
    """A false `__class__` deceives nobody; subclasses count as their base's data, overrides are not called."""
    assert jsonable(_Liar()) == {"$u": "_Liar"}
    assert jsonable(_Text("a")) == "a"
    assert jsonable(_Number(3)) == 3
    assert jsonable(_Items(a=1)) == {"a": 1}
    assert jsonable(_Unnamed()) == {"$u": "_Unnamed"}
    assert jsonable(dt.datetime(2026, 1, 1, tzinfo=_Zone())) == {"$u": "datetime"}
    assert jsonable({_Text("a"): 1, _Text("a"): 2}) == {"$m": [["a", 1], ["a", 2]]}


def test_cycles_and_depth_end() -> None:
    """A cycle and a nesting beyond 200 end in a placeholder; shared parts are written each time."""
    loop: list[object] = [1]
    loop.append(loop)
    assert jsonable(loop) == [1, {"$u": "list"}]
    mapping: dict[str, object] = {}
    mapping["self"] = mapping
    assert jsonable(mapping) == {"self": {"$u": "dict"}}
    shared = [1]
    assert jsonable([shared, shared]) == [[1], [1]]
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert canonical(deep) == b"[" * 200 + b'{"$u":"list"}' + b"]" * 200


def test_size_is_bounded() -> None:
    """Too many elements, too much text and an explosion of shared parts end in placeholders, all in a bounded time."""
    assert jsonable([0] * 100_001) == {"$u": "list"}
    assert jsonable({str(i): i for i in range(100_001)}) == {"$u": "dict"}
    assert jsonable("x" * (32 * 1024 * 1024 + 1)) == {"$u": "str"}
    assert jsonable(bytes(33 * 1024 * 1024)) == {"$u": "bytes"}
    bomb: list[object] = ["lol"]
    for _ in range(100):
        bomb = [bomb] * 10
    assert b'{"$u":"list"}' in canonical(bomb)
    assert len(canonical("x" * 10_000_000)) == 10_000_002
    assert jsonable(10**200_000) == {"$i": hex(10**200_000)}


def test_bounded_says_whether_all_fitted() -> None:
    """What was cut for size or depth is told; an unknown class is not a cut."""
    assert bounded(["abc", object()], 2, 3)[1]
    assert not bounded(["abcd"], 2, 3)[1]
    assert not bounded([1, 2, 3], 2, 3)[1]


def test_a_shallow_stack_gives_a_placeholder() -> None:
    """A caller with hardly any stack left gets an answer, not a RecursionError."""
    nested: list[object] = []
    for _ in range(150):
        nested = [nested]

    def down(left: int) -> object:
        return jsonable(nested) if left == 0 else down(left - 1)

    room = sys.getrecursionlimit() - len(inspect.stack())
    assert isinstance(down(room - 60), list)


def test_class_names_are_bounded_text() -> None:
    """A class's name is at most 100 characters that UTF-8 can hold."""
    assert class_name(type("x" * 10_000, (), {})()) == "x" * 100
    assert utf8("a\ud800") == "a\\ud800"
    assert utf8(_Text("b")) == "b"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)  # fmt: skip


@given(JSON)
def test_json_round_trips(tree: object) -> None:
    """Bytes read back as the same data: names with a dollar get one more, all else is itself."""

    def marked(value: object) -> object:
        if isinstance(value, dict):
            return {"$" + name if name.startswith("$") else name: marked(item) for name, item in value.items()}
        return [marked(item) for item in value] if isinstance(value, list) else value

    def number(digits: str) -> float:
        return int(digits) if abs(int(digits)) <= 2**53 else float(digits)

    assert json.loads(canonical(tree), parse_int=number) == marked(tree)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.decimals()
    | st.datetimes() | st.timedeltas() | st.dates() | st.times() | st.uuids() | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner),
)  # fmt: skip


@given(ANYTHING)
def test_any_data_has_a_form(value: object) -> None:
    """Every value gives UTF-8 bytes that are JSON, the same bytes twice."""
    assert canonical(value) == canonical(value)
    json.loads(canonical(value).decode())


SHORT: Final = st.one_of(
    st.text(max_size=20), st.text("ab$\"\\\x00\x7f !", max_size=1_010), st.integers(-(2**53) - 2, 2**53 + 2),
    st.integers(), st.booleans(), st.none(), st.decimals(), st.floats(), st.binary(max_size=3),
    st.builds(Principal.agent, st.text(min_size=1, max_size=5), issuer=st.none() | st.text(min_size=1, max_size=5)),
    st.sampled_from(["x" * 1_000, "x" * 3_000, "\ud800", ABSENT, UNKNOWN, Decimal("sNaN"), Decimal("-0")]),
)  # fmt: skip
LISTED: Final = st.lists(SHORT, max_size=10)


@given(SHORT | LISTED | LISTED.map(tuple) | LISTED.map(Unordered))
def test_the_short_way_gives_the_same_text(value: object) -> None:
    """What is written without a walk is what the walk would write, within the bounds of a value in a record too."""
    text = plain(value)
    assert text is None or (text.encode() == encode(jsonable(value)) and bounded(value, 400, 2_048)[1])


@given(st.dictionaries(st.text('ab$"\\\x7f! é', max_size=4) | st.text(max_size=3) | st.integers(0, 3), SHORT | LISTED))
def test_short_arguments_have_the_same_form(value: dict[object, object]) -> None:
    """A small dict of short values has the form that the walk gives it."""
    assert canonical(value) == encode(jsonable(value))


def test_the_short_way_is_taken() -> None:
    """Plain arguments are written without a walk, and as it would write them."""
    values = ["a", 3, True, None, Decimal("1.50"), ["b", 1, "a"], Unordered(("b", 1, "a")), Principal.agent("bot")]
    assert [plain(value) for value in values] == [encode(jsonable(value)).decode() for value in values]


@given(
    st.one_of(st.text(), st.integers(-(10**30), 10**30), st.booleans(), st.lists(st.integers() | st.text(), max_size=5))
)
def test_frozen_and_raw_values_agree(value: object) -> None:
    """A value and the policy value made of it have one form, but for floats, which policies see as decimals."""
    assert jsonable(freeze(value)) == jsonable(value) or freeze(value) is INVALID


@given(st.decimals(allow_nan=False, allow_infinity=False), st.integers(0, 60), st.integers(-60, 60))
def test_equal_decimals_have_one_form(number: Decimal, zeros: int, exponent: int) -> None:
    """However many zeros a decimal is written with, and with an exponent or without, its form is the same."""
    sign, digits, place = number.as_tuple()
    assert isinstance(place, int)
    same = Decimal((sign, digits + (0,) * zeros, place - zeros))
    assert canonical(same) == canonical(number)
    whole = Decimal(10) ** abs(exponent)
    assert canonical(whole) == canonical(Decimal(int(whole))) == canonical(Decimal((0, (1,), abs(exponent))))
