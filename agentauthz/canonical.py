"""Turn any Python data into one JSON tree and one sequence of bytes (RFC 8785), for digests and for records.

What JSON can't hold becomes an object with a single key, a tag:

=========  =====================================================================================
``$i``     an integer beyond 2^53: decimal text, or hexadecimal beyond 128 bits
``$d``     a decimal, without trailing zeros after the point
``$f``     a float that is ``nan``, ``inf`` or ``-inf``
``$t``     a moment, in UTC with microseconds; ``$local`` one without a zone, ``$date``, ``$clock``
``$dur``   a duration in seconds
``$p``     a principal: kind, id, and the issuer if it has one
``$b``     bytes, in base 64
``$w``     text with lone surrogates, backslashes doubled and surrogates as ``\\udXXX``
``$m``     a mapping whose names are not all plain text: pairs, sorted
``$set``   a set: elements, sorted
``$x``     an input that holds no value: ``unknown`` or ``invalid``
``$u``     the class of what can't be written: an unknown object, a cycle, what is too deep or too big
=========  =====================================================================================

A mapping's own names that begin with ``$`` get one more, so data can never pass for a tag.
"""

from __future__ import annotations

import base64
import datetime as dt
import enum
import json
import json.encoder
import math
import pathlib
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, TypeAlias, cast, final

from agentauthz.principals import Principal
from agentauthz.values import ABSENT, INVALID, MAX_NESTING, MAX_TOTAL, Sentinel, Unordered, freeze

quote: Final[Callable[[str], str]] = json.encoder.encode_basestring  # what an encoder with ensure_ascii=False calls

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

MAX_TEXT: Final = 32 * 1024 * 1024  # characters and bytes of one value, nested ones included

_SAFE: Final = 2**53
_LONGEST_NAME: Final = 100
_SHORT: Final = 1000  # characters
_FEW: Final = 8  # elements
_class_name: Final = cast("Callable[[type], str]", type.__dict__["__name__"].__get__)
_enum_fields: Final = cast("Callable[[object], dict[str, object]]", enum.Enum.__dict__["__dict__"].__get__)


def canonical(value: object) -> bytes:
    """Return the one canonical form of `value`; equal bytes mean equal data, and a number is never a string.

    Objects of classes that we don't know are never asked anything: only their class's name is in the bytes,
    so what is in them is not bound by a digest. Never raises.
    """
    text = _flat(value)
    return encode(jsonable(value)) if text is None else text.encode()


def plain(value: object) -> str | None:
    """Return the canonical text of a short scalar or a short list of them, as records hold it too; None: another.

    What is left to the general way is only what needs its care: for these values the two ways agree.
    """
    return writer(value) if (writer := _PLAIN.get(type(value))) is not None else None


def _plain_text(text: Any) -> str | None:
    return quote(text) if len(text) <= _SHORT and text.isascii() else None


def _plain_integer(number: Any) -> str | None:
    return repr(number) if -_SAFE <= number <= _SAFE else None


def _plain_decimal(value: Any) -> str | None:
    text = _short_decimal(value)
    return None if text is None else f'{{"$d":"{text}"}}'


def _plain_principal(who: Any) -> str | None:
    own, issuer = who.id, who.issuer or ""
    if len(own) > _SHORT or len(issuer) > _SHORT or not (own + issuer).isascii():
        return None
    return f'{{"$p":["{who.kind}",{quote(own)}' + (f",{quote(issuer)}]}}" if issuer else "]}")


def _plain_list(value: Any) -> str | None:
    items = tuple(value)
    if len(items) > _FEW:
        return None
    texts = []
    for item in items:
        written = None if type(item) in _LISTS else plain(item)  # of lists in lists there may be no end
        if written is None:
            return None
        texts.append(written)
    text = f"[{','.join(texts)}]"
    if type(value) is Unordered:
        text = f'{{"$set":[{",".join(sorted(texts))}]}}'
    return text if len(text) <= _SHORT else None


def _flat(value: object) -> str | None:
    """Return the canonical text of a small dict of short scalars, which most calls' arguments are; None: another."""
    if type(value) is not dict or len(value) > 4 * _FEW:
        return None
    members = dict(value)  # another thread may change the original
    for name in members:  # a generator would cost more than all else here
        if type(name) is not str:
            return None
    names = "".join(members)
    if len(names) > _SHORT or not names.isascii() or "$" in names:
        return None
    texts = []
    for name in sorted(members):
        item = members[name]
        text = plain(item)
        if text is None:
            if type(item) is not float or not math.isfinite(item):
                return None
            text = _float_text(item)
        texts.append(f"{quote(name)}:{text}")
    return "{" + ",".join(texts) + "}"


def jsonable(value: object) -> Json:
    """Return `value` as a new JSON tree, tagged as this module's table says. Never raises."""
    return bounded(value, MAX_TOTAL, MAX_TEXT)[0]


def bounded(value: object, nodes: int, text: int) -> tuple[Json, bool]:
    """Return what `jsonable` does within a budget of elements and characters, and whether all of it fitted."""
    walk = _Walk(nodes, text)
    tree = _tree(value, walk, 0)
    return tree, not walk.cut


def encode(tree: Json) -> bytes:
    """Return the bytes of a JSON tree by RFC 8785: names sorted by UTF-16, ECMAScript's numbers, no spaces."""
    return _text_of(tree).encode()


def class_name(value: object) -> str:
    """Return the name of `value`'s class, at most 100 characters, without asking the object or its class."""
    return utf8(_class_name(type(value))[:_LONGEST_NAME])


def utf8(text: str) -> str:
    """Return `text` as exactly a str that UTF-8 can hold: lone surrogates become `\\udXXX`."""
    text = str.__str__(text)
    return text if _encodable(text) else text.encode("utf-8", "backslashreplace").decode()


# ---- from data to a tree


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
            return _collection(value, base, walk, depth)
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
    if -_SAFE <= number <= _SAFE:
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
    if (short := _short_decimal(number)) is not None:
        return {"$d": short}
    sign, digits, exponent = Decimal.as_tuple(number)
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)).lstrip("0")
    stem = text.rstrip("0")
    exponent += len(text) - len(stem)
    if not stem:
        return {"$d": "0"}
    return {"$d": ("-" if sign else "") + _point(stem, exponent)}


def _short_decimal(number: Decimal) -> str | None:
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
_LISTS: Final = (list, tuple, Unordered)
_SETS: Final = (set, frozenset, Unordered)
_COLLECTIONS: Final = frozenset({list, tuple, dict, *_SETS})
_BASES: Final = (
    enum.Enum, str, int, float, Decimal, dt.datetime, dt.date, dt.time, dt.timedelta, bytes, bytearray,
    list, tuple, dict, set, frozenset,
)  # fmt: skip


_PLAIN: Final[dict[type, Callable[[object], str | None]]] = {
    str: _plain_text,
    int: _plain_integer,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "null",
    Decimal: _plain_decimal,
    Principal: _plain_principal,
    list: _plain_list,
    tuple: _plain_list,
    Unordered: _plain_list,
}


# ---- from a tree to bytes


def _text_of(tree: Json) -> str:
    if isinstance(tree, str):
        return quote(tree)
    if isinstance(tree, dict):
        parts = []
        for name in sorted(tree, key=None if "".join(tree).isascii() else _utf16):
            parts.append(f"{quote(name)}:{_text_of(tree[name])}")
        return "{" + ",".join(parts) + "}"
    if isinstance(tree, list):
        parts = []
        for item in tree:  # one frame for each level of nesting, on every version of Python
            parts.append(_text_of(item))
        return "[" + ",".join(parts) + "]"
    if tree is None:
        return "null"
    if isinstance(tree, bool):
        return "true" if tree else "false"
    return int.__repr__(tree) if isinstance(tree, int) else _float_text(tree)


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be")


def _float_text(number: float) -> str:
    """Write a float as ECMAScript does (RFC 8785 §3.2.2.3)."""
    text = repr(number)
    if number == 0:
        return "0"
    if text.endswith(".0"):
        return text[:-2]
    if "e" not in text:
        return text
    sign = "-" if number < 0 else ""
    mantissa, _, exponent = text.removeprefix("-").partition("e")
    digits = mantissa.replace(".", "")
    place = int(exponent) + 1  # of the point, counted from the first digit
    if len(digits) <= place <= 21:
        return sign + digits + "0" * (place - len(digits))
    if -6 < place <= 0:
        return f"{sign}0.{'0' * -place}{digits}"
    point = f"{digits[0]}.{digits[1:]}" if len(digits) > 1 else digits
    return f"{sign}{point}e{place - 1:+d}"
