"""Generate the operands of comparisons, as text: each of one kind of value, with the guards that its paths need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from attrs import frozen

from tests.strategies.choose import Choose
from tests.strategies.reach import Place, Reach
from tests.strategies.world import DOMAINS, MAILS, NAMES, TAGS, Kind

NUMBERS: Final = ("0", "1", "2", "3", "5", "10", "100", "500", "2.50", "0.1", "-1", "99999999999999999999")
DURATIONS: Final = ("1h", "0s", "5m", "2h", "1d", "250ms")
TIMES: Final = ('time("2026-11-23T11:00:00Z")', 'time("2026-11-23T12:00:00+01:00")', 'time("2027-01-01T00:00:00Z")')
ZONES: Final = ("UTC", "Europe/Berlin", "America/New_York")
DAYS: Final = ("mon", "tue", "sun")


@frozen
class Term:
    """Be an operand's text, the attribute that it is about, and what must be true beside it."""

    text: str
    name: str = ""
    guards: tuple[str, ...] = ()


Maker: TypeAlias = Callable[[Choose, Reach, bool, int], Term]


def quoted(text: str) -> str:
    """Return a string literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def term(choose: Choose, reach: Reach, kind: Kind, permit: bool, depth: int = 2) -> Term:
    """Return an operand that holds a value of `kind`; `permit`: what is declared as always there isn't asked for."""
    compound = _COMPOUND.get(kind)
    if compound is not None and depth > 0 and choose.chance(30):
        return compound(choose, reach, permit, depth - 1)
    places = reach.of(kind)
    return read(choose, choose.one(places), permit) if places else Term(literal(choose, kind))


def read(choose: Choose, place: Place, permit: bool) -> Term:
    """Return a reading of a place, guarded or with a default where that is needed (or now and then)."""
    guards = (place.guard,) if place.guard else ()
    may_ask = not (permit and place.status == "required")
    if place.status == "optional" or (may_ask and choose.chance(25)):
        if place.kind in _WITH_LITERALS and choose.chance(50):
            return Term(f"{place.text} ?? {literal(choose, place.kind, place.name)}", place.name, guards)
        return Term(place.text, place.name, (*guards, f"exists {place.text}"))
    return Term(place.text, place.name, guards)


_WITH_LITERALS: Final = frozenset({"number", "string", "bool", "time", "duration"})


def literal(choose: Choose, kind: Kind, name: str = "") -> str:
    """Return a literal of a kind, from the words of the attribute `name` if it has any."""
    if kind == "number":
        return choose.one(NUMBERS)
    if kind == "string":
        return quoted(str(choose.one(DOMAINS.get(name, TAGS))))
    if kind == "bool":
        return choose.one(("true", "false"))
    if kind == "time":
        return choose.one(TIMES)
    if kind == "duration":
        return choose.one(DURATIONS)
    items = NUMBERS[:6] if kind == "numbers" else tuple(quoted(str(word)) for word in DOMAINS.get(name, TAGS))
    return f"[{', '.join(choose.some(items) or items[:1])}]"


def _number(choose: Choose, reach: Reach, permit: bool, depth: int) -> Term:
    how = choose.up_to(4)
    if how == 0:
        of = term(choose, reach, choose.one(("strings", "string", "numbers")), permit, 0)
        return Term(f"len({of.text})", "", of.guards)
    left = term(choose, reach, "number", permit, depth)
    if how == 1:
        return Term(f"-({left.text})", left.name, left.guards)
    right = term(choose, reach, "number", permit, depth) if choose.chance(50) else Term(choose.one(NUMBERS))
    return _binary(left, choose.one("+-*"), right)


def _binary(left: Term, operator: str, right: Term) -> Term:
    return Term(f"({left.text} {operator} {right.text})", left.name, (*left.guards, *right.guards))


def _duration(choose: Choose, reach: Reach, permit: bool, depth: int) -> Term:
    how = choose.up_to(3)
    if how == 0:
        return _binary(term(choose, reach, "time", permit, depth), "-", term(choose, reach, "time", permit, 0))
    if how == 1:
        of = term(choose, reach, "time", permit, 0)
        return Term(f'time_of_day({of.text}, "{choose.one(ZONES)}")', "", of.guards)
    left = term(choose, reach, "duration", permit, 0)
    if how == 2:
        return _binary(left, "*", Term(choose.one(("2", "0.5", "3"))))
    return _binary(left, choose.one("+-"), Term(choose.one(DURATIONS)))


def _time(choose: Choose, reach: Reach, permit: bool, depth: int) -> Term:
    left = term(choose, reach, "time", permit, 0)
    return _binary(left, choose.one("+-"), term(choose, reach, "duration", permit, 0))


_STRING_FUNCTIONS: Final = ("lower", "email_domain", "url_host", "url_scheme")
_LIKELY: Final[Mapping[str, str]] = {"email_domain": "to", "url_host": "url", "url_scheme": "url"}


def _string(choose: Choose, reach: Reach, permit: bool, depth: int) -> Term:
    if choose.chance(15):
        of = term(choose, reach, "time", permit, 0)
        return Term(f'weekday({of.text}, "{choose.one(ZONES)}")', "weekday", of.guards)
    name = choose.one(_STRING_FUNCTIONS)
    likely = [place for place in reach.of("string") if place.name == _LIKELY.get(name)]
    of = read(choose, likely[0], permit) if likely else term(choose, reach, "string", permit, 0)
    return Term(f"{name}({of.text})", name if name != "lower" else of.name, of.guards)


_COMPOUND: Final[Mapping[Kind, Maker]] = {
    "number": _number,
    "duration": _duration,
    "time": _time,
    "string": _string,
}
WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "weekday": DAYS,
    "email_domain": ("example.com", "evil.test", "mail.example.com"),
    "url_host": ("example.com", "10.0.0.1"),
    "url_scheme": ("https", "http"),
    "purpose": ("support", "audit"),
    "route": ("python:shop", "mcp:crm"),
    "action": ("pay.refund", "crm.read"),
}


def words(name: str) -> tuple[str, ...]:
    """Return the strings that an operand about `name` is likely to hold."""
    return WORDS.get(name) or tuple(str(word) for word in DOMAINS.get(name, (*NAMES, *MAILS[:1])))
