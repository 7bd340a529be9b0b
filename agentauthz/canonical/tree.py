"""Turn any Python data into a JSON tree, tagged where JSON has no such thing."""

from __future__ import annotations

import base64
import datetime as dt
import enum
import pathlib
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Final, TypeAlias, cast, final

from agentauthz.canonical.text import Json, encode
from agentauthz.principals import Principal
from agentauthz.values import ABSENT, INVALID, MAX_NESTING, MAX_TOTAL, Entity, Sentinel, Unordered, freeze

MAX_TEXT: Final = 32 * 1024 * 1024  # characters and bytes of one value, nested ones included

SAFE: Final = 2**53
_LONGEST_NAME: Final = 100
_class_name: Final = cast("Callable[[type], str]", type.__dict__["__name__"].__get__)
_enum_fields: Final = cast("Callable[[object], dict[str, object]]", enum.Enum.__dict__["__dict__"].__get__)


def jsonable(value: object) -> Json:
    """Return `value` as a new JSON tree, tagged as the package's table says. Never raises."""
    return bounded(value, MAX_TOTAL, MAX_TEXT)[0]


def bounded(value: object, nodes: int, text: int) -> tuple[Json, bool]:
    """Return what `jsonable` does within a budget of elements and characters, and whether all of it fitted."""
    walk = _Walk(nodes, text)
    tree = _tree(value, walk, 0)
    return tree, not walk.cut


def class_name(value: object) -> str:
    """Return the name of `value`'s class, at most 100 characters, without asking the object or its class."""
    return utf8(_class_name(type(value))[:_LONGEST_NAME])


def utf8(text: str) -> str:
    """Return `text` as exactly a str that UTF-8 can hold: lone surrogates become `\\udXXX`."""
    text = str.__str__(text)
    return text if _encodable(text) else text.encode("utf-8", "backslashreplace").decode()


@final
class _Walk:
    """Count what may still be written, and know which collections are being written now."""

    __slots__ = ("cut", "nodes", "open", "text")

    def __init__(self, nodes: int, text: int) -> None:
        self.nodes = nodes
        self.text = text
        self.open: set[int] = set()
        self.cut = False

    def spend(self, nodes: int, text: int) -> bool:
        """Say whether so much more fits, and count it if it does."""
        if nodes > self.nodes or text > self.text:
            self.cut = True
            return False
        self.nodes -= nodes
        self.text -= text
        return True


_Writer: TypeAlias = Callable[[object, _Walk], Json]


def _tree(value: object, walk: _Walk, depth: int) -> Json:
    kind = type(value)
    base = kind if kind in _SCALARS or kind in _COLLECTIONS else _known_base(kind)
    try:
        if (writer := _SCALARS.get(base)) is not None:
            return writer(value, walk)
        if base in _COLLECTIONS:
            tree = _collection(value, base, walk, depth)
            return {"$e": tree} if kind is Entity else tree
        if base is enum.Enum and depth < MAX_NESTING:  # its value, from where it is stored: a property may lie
            return _tree(_enum_fields(value)["_value_"], walk, depth + 1)
    except Exception:  # the stack's end, a time zone that raises
        walk.cut = True
    return _placeholder(value)


def _known_base(kind: type) -> type:
    # SECURITY: only the type is asked; isinstance would ask the object for its `__class__`
    return next((base for base in _BASES if issubclass(kind, base)), object)


def _collection(value: object, base: type, walk: _Walk, depth: int) -> Json:
    # two frames for each level of nesting and no more: the stack is the caller's
    if depth >= MAX_NESTING or id(value) in walk.open:
        walk.cut = True
        return _placeholder(value)
    if not walk.spend(base.__len__(value), 0):  # type: ignore[attr-defined]  # the base is a collection
        return _placeholder(value)
    written: list[Json] = []
    walk.open.add(id(value))
    if base is dict:
        names: list[Json] = []
        for name, item in tuple(dict.items(cast("dict[object, object]", value))):
            names.append(name if type(name) is str and name.isascii() else _tree(name, walk, depth + 1))
            written.append(_tree(item, walk, depth + 1))
    else:
        for item in tuple(base.__iter__(value)):  # type: ignore[attr-defined]  # a list, tuple or set
            written.append(_tree(item, walk, depth + 1))
    walk.open.discard(id(value))
    if base is dict:
        return _named(names, written)
    return {"$set": sorted(written, key=encode)} if base in _SETS else written


def _named(names: list[Json], values: list[Json]) -> Json:
    pairs = list(zip(names, values, strict=True))
    named = {"$" + name if name.startswith("$") else name: item for name, item in pairs if isinstance(name, str)}
    if len(named) == len(pairs):
        return named
    # a name that is no text, or two with one text (a subclass of str may claim to differ from itself)
    return {"$m": sorted(([name, item] for name, item in pairs), key=encode)}


def _placeholder(value: object) -> Json:
    return {"$u": class_name(value)}


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _string(value: object, walk: _Walk) -> Json:
    text = str.__str__(cast(str, value))
    if not walk.spend(0, len(text)):
        return _placeholder(value)
    if _encodable(text):
        return text
    return {"$w": text.replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode()}


def _integer(value: object, walk: _Walk) -> Json:
    number = int.__int__(cast(int, value))
    if -SAFE <= number <= SAFE:
        return number
    bits = number.bit_length()
    if bits <= 128:
        return {"$i": str(number)}
    return {"$i": hex(number)} if walk.spend(0, bits // 4) else _placeholder(value)


def _float(value: object, _: _Walk) -> Json:
    number = float.__float__(cast(float, value))
    if number != number:
        return {"$f": "nan"}
    if number in (float("inf"), float("-inf")):
        return {"$f": "inf" if number > 0 else "-inf"}
    return number


def _decimal(value: object, walk: _Walk) -> Json:
    number = cast(Decimal, value)
    if not walk.spend(0, Decimal.__sizeof__(number)):
        return _placeholder(value)
    if not Decimal.is_finite(number):
        return {"$d": Decimal.__str__(number).lower()}
    if (short := short_decimal(number)) is not None:
        return {"$d": short}
    sign, digits, exponent = Decimal.as_tuple(number)
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)).lstrip("0")
    stem = text.rstrip("0")
    exponent += len(text) - len(stem)
    if not stem:
        return {"$d": "0"}
    return {"$d": ("-" if sign else "") + _point(stem, exponent)}


def short_decimal(number: Decimal) -> str | None:
    """Return the text of a finite decimal that isn't zero and whose own text is plain; None: another."""
    if not Decimal.is_finite(number) or not Decimal.__bool__(number):
        return None
    text = Decimal.__str__(number)
    if len(text) > 38 or "E" in text:
        return None
    return text.rstrip("0").rstrip(".") if "." in text else text


def _point(digits: str, exponent: int) -> str:
    """Write digits * 10^exponent, plainly where that is short."""
    place = len(digits) + exponent
    if exponent >= 0 and place <= 40:
        return digits + "0" * exponent
    if 0 < place < len(digits):
        return f"{digits[:place]}.{digits[place:]}"
    if -40 < place <= 0:
        return f"0.{'0' * -place}{digits}"
    return f"{digits}e{exponent}"


def _moment(value: object, _: _Walk) -> Json:
    moment = cast(dt.datetime, value)
    if dt.datetime.tzinfo.__get__(moment) is None:
        return {"$local": dt.datetime.isoformat(moment, timespec="microseconds")}
    utc = freeze(moment)
    return {"$t": stamp(utc)} if type(utc) is dt.datetime else _placeholder(value)


def stamp(moment: dt.datetime) -> str:
    """Return a UTC moment as text with microseconds, `2026-11-23T09:00:00.000000Z`."""
    m = moment
    fields = (m.year, m.month, m.day, m.hour, m.minute, m.second, m.microsecond)
    return "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ" % fields  # noqa: UP031  (half the time of any other way)


def _clock(value: object, _: _Walk) -> Json:
    clock = cast(dt.time, value)
    zoned = dt.time.tzinfo.__get__(clock) is not None
    return _placeholder(value) if zoned else {"$clock": dt.time.isoformat(clock, timespec="microseconds")}


def _duration(value: object, _: _Walk) -> Json:
    span = dt.timedelta.__add__(cast(dt.timedelta, value), dt.timedelta(0))
    micros = (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds
    whole, rest = divmod(abs(micros), 1_000_000)
    text = f"{'-' if micros < 0 else ''}{whole}"
    return {"$dur": f"{text}.{rest:06}".rstrip("0") if rest else text}


def _bytes(value: object, walk: _Walk) -> Json:
    data = cast("bytes | bytearray", value)
    if not walk.spend(0, memoryview(data).nbytes):
        return _placeholder(value)
    return {"$b": base64.b64encode(data).decode()}


def _principal(value: object, _: _Walk) -> Json:
    principal = cast(Principal, value)
    parts: list[Json] = [_plain(principal.kind), _plain(principal.id)]
    return {"$p": parts if principal.issuer is None else [*parts, _plain(principal.issuer)]}


def _plain(text: str) -> Json:
    return _string(text, _Walk(0, MAX_TEXT))


def _sentinel(value: object, _: _Walk) -> Json:
    return None if value is ABSENT else {"$x": "invalid" if value is INVALID else "unknown"}


def _text_form(value: object, walk: _Walk) -> Json:
    return _string(str(value), walk)


_SCALARS: Final[dict[type, _Writer]] = {
    str: _string,
    bool: lambda value, _: cast(bool, value),
    type(None): lambda _, __: None,
    int: _integer,
    float: _float,
    Decimal: _decimal,
    dt.datetime: _moment,
    dt.date: lambda value, _: {"$date": dt.date.isoformat(cast(dt.date, value))},
    dt.time: _clock,
    dt.timedelta: _duration,
    bytes: _bytes,
    bytearray: _bytes,
    Principal: _principal,
    Sentinel: _sentinel,
    # as policies see them; only these very classes, whose text nobody has overridden
    uuid.UUID: _text_form,
    pathlib.PurePosixPath: _text_form,
    pathlib.PureWindowsPath: _text_form,
    pathlib.PosixPath: _text_form,
    pathlib.WindowsPath: _text_form,
}
_SETS: Final = (set, frozenset, Unordered)
_COLLECTIONS: Final = frozenset({list, tuple, dict, *_SETS})
_BASES: Final = (
    enum.Enum, str, int, float, Decimal, dt.datetime, dt.date, dt.time, dt.timedelta, bytes, bytearray,
    list, tuple, dict, set, frozenset,
)  # fmt: skip
