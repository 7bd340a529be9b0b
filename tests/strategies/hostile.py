"""Hold values that are no policy values, or that lie about what they are, raise, or don't end."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import pathlib
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final
from unittest import mock

from attrs import define

from agentauthz.principals import Principal
from agentauthz.request import Resource
from agentauthz.values import UNKNOWN
from tests.strategies.choose import Choose


class Boom(Exception):
    """Be what hostile values raise."""


class LyingStr(str):
    """Be a string that says it is any other."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        raise Boom

    def startswith(self, *args: Any) -> bool:
        return True

    def __len__(self) -> int:
        return 0


class LyingInt(int):
    """Be a number that is less than any other, and greater."""

    def __lt__(self, other: object) -> bool:
        return True

    def __le__(self, other: object) -> bool:
        return True

    def __gt__(self, other: object) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __int__(self) -> int:
        raise Boom


class LyingList(list[object]):
    """Be a list that doesn't end, and holds everything."""

    def __iter__(self) -> Iterator[object]:
        while True:
            yield "admin"

    def __contains__(self, item: object) -> bool:
        return True

    def __len__(self) -> int:
        return 10**9


class RaisingMapping(Mapping[str, object]):
    """Be a mapping in which nothing can be looked up."""

    def __getitem__(self, key: str) -> object:
        raise Boom

    def __iter__(self) -> Iterator[str]:
        raise Boom

    def __len__(self) -> int:
        return 1


class LyingDict(dict[str, object]):
    """Be a dict that gives everything that it is asked for."""

    def __getitem__(self, key: str) -> object:
        return True

    def get(self, key: str, default: object = None) -> object:
        raise Boom


@dataclasses.dataclass
class Raising:
    """Be an object whose field raises when it is read."""

    n: int = 1

    def __getattribute__(self, name: str) -> object:
        if name == "n":
            raise Boom
        return super().__getattribute__(name)


@define(repr=False)
class Slotted:
    """Be an object with fields, one of which was never set."""

    n: int = 1
    sku: str = "red"


class Nowhere(dt.tzinfo):
    """Be a time zone that raises."""

    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        raise Boom

    def dst(self, moment: dt.datetime | None) -> dt.timedelta:
        raise Boom

    def tzname(self, moment: dt.datetime | None) -> str:
        raise Boom


class Shade(enum.Enum):
    """Be an enumeration, which counts by its values."""

    RED = "red"
    LOOP = ("a", ("b",))


class Pretending:
    """Be an object that says it is of a class that it isn't."""

    def __init__(self, cls: type) -> None:
        self._cls = cls

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return self._cls


class HookRaises:
    """Be an object whose policy value can't be had."""

    def __agentauthz_value__(self) -> object:
        raise Boom


def _cycle() -> list[object]:
    found: list[object] = [1]
    found.append(found)
    return found


def _deep() -> object:
    found: object = 1
    for _ in range(300):
        found = [found]
    return found


def _deep_record() -> object:
    found: dict[str, object] = {}
    for _ in range(3000):
        found = {"a": found, "n": found, "meta": found}
    return found


PLAIN: Final[tuple[Callable[[], object], ...]] = (
    lambda: None,
    lambda: "text",
    lambda: 7,
    lambda: True,
    lambda: ["a", 1, None, UNKNOWN],
    lambda: {"n": 1, "b": None},
    lambda: Decimal("2.5000"),
    lambda: 1e300,
    lambda: dt.timedelta(days=1),
    lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    lambda: {"red", "blue"},
    lambda: Principal.user("maria", roles=["admin"]),
    lambda: Resource("Order", "r-1", {"level": "low"}),
    lambda: [["a"], ["b"]],
    lambda: [{"sku": "red"}, 3, {"n": "text"}],
    lambda: Shade.RED,
    lambda: uuid.UUID(int=5),
    lambda: pathlib.PurePosixPath("/srv/data"),
    lambda: {"red", UNKNOWN},
)
PRETENDING: Final[tuple[Callable[[], object], ...]] = (
    lambda: Pretending(str),
    lambda: Pretending(int),
    lambda: Pretending(dict),
    lambda: Pretending(list),
    lambda: Pretending(dt.datetime),
    lambda: Pretending(Principal),
    lambda: mock.MagicMock(spec=str),
    lambda: mock.MagicMock(),
    lambda: type("Meta", (type,), {"__instancecheck__": lambda *_: True})("C", (), {}),
)
HOSTILE: Final[tuple[Callable[[], object], ...]] = (
    lambda: float("nan"),
    lambda: float("-inf"),
    lambda: -0.0,
    lambda: 5e-324,
    lambda: Decimal("sNaN"),
    lambda: Decimal("-Infinity"),
    lambda: Decimal("1e1000000"),
    lambda: Decimal("1e-1000000"),
    lambda: 10**5000,
    lambda: dt.datetime(2026, 1, 1),  # noqa: DTZ001
    lambda: dt.date(2026, 1, 1),
    lambda: dt.datetime(2026, 1, 1, tzinfo=Nowhere()),
    lambda: dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=14))),
    lambda: dt.timedelta.max,
    lambda: LyingStr("admin"),
    lambda: LyingInt(3),
    lambda: LyingList(["x"]),
    lambda: RaisingMapping(),
    lambda: LyingDict(n=1),
    lambda: Raising(),
    lambda: Slotted.__new__(Slotted),
    lambda: Shade.LOOP,
    lambda: HookRaises(),
    lambda: object(),
    lambda: b"admin",
    lambda: len,
    lambda: types,
    lambda: (item for item in (1, 2)),
    lambda: "\ud800",
    lambda: "a" * 70_000,
    lambda: ["red"] * 10_001,
    lambda: {1: "no name", ("t",): 2, "n": 1},
    lambda: {"__class__": 1, "_private": 2},
    _cycle,
    _deep,
    _deep_record,
    *PRETENDING,
)


def wrong(choose: Choose) -> object:
    """Return a value that is probably of the wrong type: mostly plain ones, some hostile."""
    return choose.one(PLAIN)() if choose.chance(85) else choose.one(HOSTILE)()
