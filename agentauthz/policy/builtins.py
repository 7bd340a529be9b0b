"""Hold the one table of operators and functions, which checker, evaluator, compiler and docs all read.

An operator of conditions answers True, False or None (undetermined). One of values answers a value, or
INVALID where it can't: a wrong type, an inexact or too large result. Nothing in here raises.
"""

from __future__ import annotations

import datetime as dt
import functools
import ipaddress
import posixpath
import re
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation
from typing import Final, TypeAlias, cast, final

from attrs import frozen

from agentauthz.errors import InvalidArgument
from agentauthz.policy.types import ANYTHING, BOOL, DURATION, INT, PRINCIPAL, STRING, TIME, Type, conforms
from agentauthz.principals import Principal, PrincipalKind
from agentauthz.values import INVALID, UNKNOWN, Entity, Sentinel, Unordered, Value, number

Answer: TypeAlias = bool | None  # None: undetermined

ORDERED: Final = {int: "number", Decimal: "number", dt.datetime: "time", dt.timedelta: "duration"}
EQUAL: Final = {**ORDERED, str: "string", bool: "bool", Principal: "principal", Entity: "resource", tuple: "list"}
_EXACT: Final = Context(prec=400, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation])


# ---- conditions


def equal(left: Value, right: Value) -> Answer:
    """Answer `left == right`: undetermined between different types, and for records and sets."""
    kind = EQUAL.get(type(left))
    if kind is None or kind != EQUAL.get(type(right)):
        return None
    if kind == "list":
        return _equal_lists(cast("tuple[Value, ...]", left), cast("tuple[Value, ...]", right))
    if kind == "resource":
        ours, theirs = cast(Entity, left), cast(Entity, right)
        return bool(ours["type"] == theirs["type"] and ours["id"] == theirs["id"])
    return left == right


def _equal_lists(left: tuple[Value, ...], right: tuple[Value, ...]) -> Answer:
    if len(left) != len(right):
        return False
    return all_of(equal(a, b) for a, b in zip(left, right, strict=True))


def all_of(answers: Iterable[Answer]) -> Answer:
    """Answer Kleene's `and`: false where one is false, true where all are true."""
    result: Answer = True
    for answer in answers:
        if answer is False:
            return False
        if answer is None:
            result = None
    return result


def any_of(answers: Iterable[Answer]) -> Answer:
    """Answer Kleene's `or`: true where one is true, false where all are false."""
    result: Answer = False
    for answer in answers:
        if answer is True:
            return True
        if answer is None:
            result = None
    return result


def negation(answer: Answer) -> Answer:
    """Answer Kleene's `not`."""
    return None if answer is None else not answer


def less(left: Value, right: Value) -> Answer:
    """Answer `left < right`, for two numbers, times or durations."""
    kind = ORDERED.get(type(left))
    if kind is None or kind != ORDERED.get(type(right)):
        return None
    return cast(int, left) < cast(int, right)


def less_or_equal(left: Value, right: Value) -> Answer:
    """Answer `left <= right`, for two numbers, times or durations."""
    kind = ORDERED.get(type(left))
    if kind is None or kind != ORDERED.get(type(right)):
        return None
    return cast(int, left) <= cast(int, right)


def member(item: Value, collection: Value) -> Answer:
    """Answer `item in collection`, which is `any e in collection: e == item`."""
    if type(collection) is not tuple and type(collection) is not Unordered:
        return None
    return any_of(equal(element, item) for element in collection)


COMPARISONS: Final[Mapping[str, Callable[[Value, Value], Answer]]] = {
    "==": equal,
    "!=": lambda left, right: negation(equal(left, right)),
    "<": less,
    "<=": less_or_equal,
    ">": lambda left, right: less(right, left),
    ">=": lambda left, right: less_or_equal(right, left),
    "in": member,
    "not in": lambda left, right: negation(member(left, right)),
}


def like(value: Value, parts: tuple[str, ...]) -> Answer:
    """Answer `value like "a*b"`, whose literal runs are `parts`: anchored, in linear time."""
    if type(value) is not str:
        return None
    first, *middle, last = parts if len(parts) > 1 else (*parts, None)
    if last is None:
        return value == first
    if len(value) < len(cast(str, first)) + len(last) or not value.startswith(cast(str, first)):
        return False
    at, end = len(cast(str, first)), len(value) - len(last)
    for part in middle:
        at = value.find(cast(str, part), at, end)
        if at < 0:
            return False
        at += len(cast(str, part))
    return value.endswith(last)


def is_type(value: Value, type_name: str) -> Answer:
    """Answer `value is TYPE`: a principal's kind or a resource's type; false where there is nothing."""
    if value is UNKNOWN or value is INVALID:
        return None
    if type(value) is Principal:
        return value.kind == type_name
    return type(value) is Entity and value["type"] == type_name


# ---- arithmetic


def add(left: Value, right: Value) -> Value:
    """Return `left + right`: numbers, durations, or a time and a duration."""
    return _arithmetic(left, right, _ADD)


def subtract(left: Value, right: Value) -> Value:
    """Return `left - right`: numbers, durations, times, or a time less a duration."""
    return _arithmetic(left, right, _SUBTRACT)


def multiply(left: Value, right: Value) -> Value:
    """Return `left * right`: numbers, or a duration and a number where that is exact."""
    return _arithmetic(left, right, _MULTIPLY)


def negate(value: Value) -> Value:
    """Return `-value`, for a number or a duration."""
    if type(value) is dt.timedelta:
        return multiply(value, -1)
    return multiply(value, -1) if ORDERED.get(type(value)) == "number" else INVALID


def _arithmetic(left: Value, right: Value, by_kinds: Mapping[tuple[str, str], Callable[..., Value]]) -> Value:
    operation = by_kinds.get((ORDERED.get(type(left), ""), ORDERED.get(type(right), "")))
    if operation is None:
        return INVALID
    try:
        return operation(left, right)
    except (OverflowError, ArithmeticError):
        return INVALID


def _exact(operation: Callable[[Decimal, Decimal], Decimal]) -> Callable[[int | Decimal, int | Decimal], Value]:
    return lambda left, right: number(operation(Decimal(left), Decimal(right)))


def _scale(duration: dt.timedelta, factor: int | Decimal) -> Value:
    microseconds = number(_EXACT.multiply(Decimal(duration // dt.timedelta(microseconds=1)), Decimal(factor)))
    return dt.timedelta(microseconds=microseconds) if type(microseconds) is int else INVALID


_ADD: Final[Mapping[tuple[str, str], Callable[..., Value]]] = {
    ("number", "number"): _exact(_EXACT.add),
    ("duration", "duration"): lambda left, right: left + right,
    ("time", "duration"): lambda left, right: left + right,
    ("duration", "time"): lambda left, right: right + left,
}
_SUBTRACT: Final[Mapping[tuple[str, str], Callable[..., Value]]] = {
    ("number", "number"): _exact(_EXACT.subtract),
    ("duration", "duration"): lambda left, right: left - right,
    ("time", "duration"): lambda left, right: left - right,
    ("time", "time"): lambda left, right: left - right,
}
_MULTIPLY: Final[Mapping[tuple[str, str], Callable[..., Value]]] = {
    ("number", "number"): _exact(_EXACT.multiply),
    ("duration", "number"): _scale,
    ("number", "duration"): lambda left, right: _scale(right, left),
}
ARITHMETIC: Final[Mapping[str, Callable[[Value, Value], Value]]] = {"+": add, "-": subtract, "*": multiply}


# ---- functions


@final
@frozen
class Function:
    """Be one function of the language.

    `apply` takes values that conform to `params`. Arguments whose index is in `literal` must be literals,
    which the checker tries out with `apply`. The functions without `apply` ask the session or the policies.
    """

    name: str
    params: tuple[Type, ...]
    result: Type
    doc: str
    apply: Callable[..., Value] | None = None
    literal: frozenset[int] = frozenset()
    named: Mapping[str, Type] = {}

    def __call__(self, args: tuple[Value, ...], named: Mapping[str, Value] = {}) -> Value:
        """Return the result, or INVALID where an argument isn't of its type."""
        assert self.apply is not None, self.name
        for value, declared in (*zip(args, self.params, strict=True), *((v, self.named[n]) for n, v in named.items())):
            if type(value) is Sentinel or not conforms(value, declared):
                return INVALID
        return self.apply(*args, **named)


def _length(value: Value) -> Value:
    if type(value) is Unordered and UNKNOWN in value:
        return INVALID  # what is unknown may turn out to be another element
    return len(value) if isinstance(value, str | tuple) else INVALID


_UPPER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST: Final = rf"{_LABEL}(?:\.{_LABEL})*"
_ATOM: Final = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_EMAIL: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@({_HOST})")
_URL: Final = re.compile(
    rf"([A-Za-z][A-Za-z0-9+.-]*)://({_HOST})(?::([0-9]{{1,5}}))?(?:/[!-\[\]-~]*|[?#][!-?A-\[\]-~]*)?"
)
_LONGEST: Final = 65_536  # code points of an address or URL that is looked into


def _lower(text: str) -> str:
    return text.translate(_UPPER)


def _email_domain(text: str) -> Value:
    found = _EMAIL.fullmatch(text) if len(text) <= 320 else None
    return _lower(found[1]) if found and _plain_host(found[1]) else INVALID


def _url(text: str) -> tuple[str, str] | None:
    found = _URL.fullmatch(text) if len(text) <= _LONGEST else None
    if not found or not _plain_host(found[2]) or (found[3] and int(found[3]) > 65_535):
        return None
    return _lower(found[1]), _lower(found[2])


def _plain_host(host: str) -> bool:
    """Say whether every parser reads `host` as one name, or as one IPv4 address in four decimal parts."""
    last = host.rsplit(".", 1)[-1]
    if len(host) > 253:
        return False
    if not last.isdigit() and not re.fullmatch("0[xX][0-9A-Fa-f]*", last):
        return True
    try:
        return str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        return False


def _url_scheme(text: str) -> Value:
    parts = _url(text)
    return INVALID if parts is None else parts[0]


def _url_host(text: str) -> Value:
    parts = _url(text)
    return INVALID if parts is None else parts[1]


def _path_within(path: str, root: str) -> Value:
    for text in (path, root):
        # POSIX leaves the meaning of exactly two leading slashes open
        if not text.startswith("/") or "\0" in text or (text.startswith("//") and not text.startswith("///")):
            return INVALID
    inside, outside = posixpath.normpath(path), posixpath.normpath(root)
    return outside == "/" or inside == outside or inside.startswith(outside + "/")


def _ip_in(address: str, network: str) -> Value:
    if len(address) > 64 or len(network) > 64 or "%" in address + network or "/" not in network:
        return INVALID
    try:
        ip, net = ipaddress.ip_address(address), ipaddress.ip_network(network)
    except ValueError:
        return INVALID
    if getattr(ip, "ipv4_mapped", None) is not None or getattr(net.network_address, "ipv4_mapped", None) is not None:
        return INVALID
    return ip.version == net.version and ip in net


@functools.lru_cache(maxsize=256)
def _zone(name: str) -> zoneinfo.ZoneInfo | None:
    try:
        return zoneinfo.ZoneInfo(name)
    except Exception:  # an unknown zone, or a name that is no file's
        return None


def _wall_clock(moment: dt.datetime, zone: str) -> dt.datetime | None:
    known = _zone(zone)
    try:
        return None if known is None else moment.astimezone(known)
    except OverflowError:
        return None


def _time_of_day(moment: dt.datetime, zone: str) -> Value:
    local = _wall_clock(moment, zone)
    if local is None:
        return INVALID
    return dt.timedelta(hours=local.hour, minutes=local.minute, seconds=local.second, microseconds=local.microsecond)


def _weekday(moment: dt.datetime, zone: str) -> Value:
    local = _wall_clock(moment, zone)
    return INVALID if local is None else ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[local.weekday()]


_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)


def _time(text: str) -> Value:
    if not _RFC3339.fullmatch(text):
        return INVALID
    try:
        return dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return INVALID


def _principal(kind: PrincipalKind) -> Callable[..., Value]:
    def make(id: str, issuer: str | None = None) -> Value:
        try:
            return Principal(kind, id, issuer)
        except InvalidArgument:
            return INVALID

    return make


def valid_zone(name: str) -> bool:
    """Say whether the system (or the `tzdata` package) knows the time zone."""
    return _zone(name) is not None


_TABLE: Final = (
    Function("len", (ANYTHING,), INT, "the number of code points of a string, or elements of a list or set", _length),
    Function("lower", (STRING,), STRING, "the string with A to Z as a to z, and nothing else changed", _lower),
    Function("starts_with", (STRING, STRING), BOOL, "whether the first begins with the second", str.startswith),
    Function("ends_with", (STRING, STRING), BOOL, "whether the first ends with the second", str.endswith),
    Function("contains", (STRING, STRING), BOOL, "whether the second stands in the first", str.__contains__),
    Function("email_domain", (STRING,), STRING, "the host of one plain address, in lower case", _email_domain),
    Function("url_scheme", (STRING,), STRING, "the scheme of a plain URL, in lower case", _url_scheme),
    Function("url_host", (STRING,), STRING, "the host of a plain URL without port, in lower case", _url_host),
    Function("path_within", (STRING, STRING), BOOL, "whether an absolute path lies in the second", _path_within),
    Function("ip_in", (STRING, STRING), BOOL, "whether an IP address lies in a network (CIDR)", _ip_in),
    Function("time_of_day", (TIME, STRING), DURATION, "the wall clock's time since 00:00 in a zone", _time_of_day,
             literal=frozenset({1})),
    Function("weekday", (TIME, STRING), STRING, '"mon" to "sun", by the wall clock of a zone', _weekday,
             literal=frozenset({1})),
    Function("time", (STRING,), TIME, "the moment that an RFC 3339 text names", _time, literal=frozenset({0})),
    *(
        Function(kind, (STRING,), PRINCIPAL, f"the {kind} with this id, by its issuer", _principal(kind),
                 named={"issuer": STRING})
        for kind in ("user", "agent", "service")
    ),
    Function("began", (STRING, DURATION), BOOL, "whether an action was allowed in this session within that time",
             literal=frozenset({0, 1})),
    Function("done", (STRING, DURATION), BOOL, "whether an action was allowed and returned within that time",
             literal=frozenset({0, 1})),
    Function("permitted", (PRINCIPAL,), BOOL, "whether `subject` or `actor` could make this call in its own name"),
)  # fmt: skip
FUNCTIONS: Final[Mapping[str, Function]] = {function.name: function for function in _TABLE}
KEYWORDS: Final = frozenset(
    "permit forbid review limit mark let type action on as when unless with by within to count sum per because "
    "or and not any every in like is exists true false".split()
)
RESERVED: Final = frozenset({"test", "assert", "never"})
