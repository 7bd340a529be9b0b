"""Turn a record's tagged JSON back into policy values, and notice whatever is read that isn't in the record."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, cast, final

from agentauthz.principals import Principal, PrincipalKind
from agentauthz.values import ABSENT, INVALID, UNKNOWN, Entity, Record, Unordered, Value, freeze

_ESCAPED: Final = re.compile(r"\\(\\|u[0-9a-f]{4})")
_MICROS: Final = 1_000_000


class Hidden(Exception):  # it never leaves this package
    """Say that a value stands in the record as a digest only, or as nothing but its class."""


@final
class Gaps:
    """Collect what was asked for and isn't in the record."""

    def __init__(self) -> None:
        self.found: dict[str, None] = {}

    def add(self, place: str) -> None:
        """Note a place that was read."""
        self.found[place] = None

    def below(self, place: str) -> Callable[[str], object]:
        """Return what reads members of a record at `place` that aren't there: it notes that, and knows nothing."""

        def read(name: str) -> object:
            self.add(step(place, name))
            return UNKNOWN

        return read


@final
class Times(Mapping[str, dt.datetime]):
    """Be the last-seen times that a record holds; None: the action wasn't seen. Asking for another is noted."""

    def __init__(self, state: str, known: Mapping[str, dt.datetime | None], gaps: Gaps) -> None:
        self._state = state
        self._known = known
        self._gaps = gaps

    def __contains__(self, action: object) -> bool:
        if action not in self._known:
            self._gaps.add(f'{self._state}("{action}")')
            return False
        return self._known[cast(str, action)] is not None

    def __getitem__(self, action: str) -> dt.datetime:
        if action not in self:
            raise KeyError(action)
        return cast(dt.datetime, self._known[action])

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def step(place: str, name: str) -> str:
    """Return the name of the member `name` of what stands at `place`, as a policy writes it."""
    return f"{place}.{name}" if name.isidentifier() and name.isascii() else f'{place}["{name}"]'


def decoded(tree: Any, place: str, gaps: Gaps) -> Value:
    """Return the policy value that tagged JSON stands for.

    Raises:
        Hidden: the record commits to the value, but doesn't hold it.
        ValueError, TypeError, ArithmeticError: the JSON is none that this library writes.
    """
    if tree is None:
        return ABSENT
    if isinstance(tree, list):
        return tuple(decoded(item, f"{place}[{i}]", gaps) for i, item in enumerate(tree))
    if not isinstance(tree, dict):
        return freeze(tree)
    if len(tree) == 1:
        [(tag, held)] = tree.items()
        if tag[:1] == "$" and tag[:2] != "$$":
            if (decode := _TAGS.get(tag)) is None:
                raise Hidden(place)
            return decode(held, place, gaps)
    return _record({_name(name): item for name, item in tree.items()}, place, gaps)


def filled(made: Record, members: Mapping[str, Value], place: str, gaps: Gaps) -> Record:
    """Return `made` with `members`, and with a note of every other that is read."""
    made.update(members)
    made.reader = gaps.below(place)
    return made


def principal(kind: str, id: str, issuer: str | None, place: str, gaps: Gaps) -> Principal:
    """Return a principal, of whose attributes none is known yet."""
    made = Principal(cast(PrincipalKind, kind), id, issuer)
    made.facts.reader = gaps.below(place)
    return made


def moment(text: str) -> dt.datetime:
    """Return the moment that a record's text stands for.

    Raises:
        ValueError: it stands for none, or has no zone.
    """
    found = freeze(dt.datetime.fromisoformat(text))
    if not isinstance(found, dt.datetime):
        raise ValueError(text)
    return found


def _record(members: Mapping[str, Any], place: str, gaps: Gaps, made: Record | None = None) -> Record:
    known = {name: decoded(item, step(place, name), gaps) for name, item in members.items()}
    return filled(Record() if made is None else made, known, place, gaps)


def _name(name: str) -> str:
    return name[1:] if name[:1] == "$" else name


def _pairs(pairs: Any, place: str, gaps: Gaps) -> Value:
    named = {name: item for name, item in pairs if isinstance(name, str)}  # rules can't ask for other names
    return _record(named, place, gaps)


def _entity(tree: Any, place: str, gaps: Gaps) -> Value:
    return _record({_name(name): item for name, item in tree.items()}, place, gaps, Entity())


def _text(escaped: str) -> str:
    return _ESCAPED.sub(lambda found: "\\" if found[1] == "\\" else chr(int(found[1][1:], 16)), escaped)


def _duration(text: str) -> dt.timedelta:
    return dt.timedelta(microseconds=int(Decimal(text) * _MICROS))


_TAGS: Final[Mapping[str, Callable[[Any, str, Gaps], Value]]] = {
    "$i": lambda text, _, __: freeze(int(text, 0)),
    "$d": lambda text, _, __: freeze(Decimal(text)),
    "$t": lambda text, _, __: moment(text),
    "$dur": lambda text, _, __: _duration(text),
    "$p": lambda parts, place, gaps: principal(parts[0], parts[1], (*parts, None)[2], place, gaps),
    "$e": _entity,
    "$m": _pairs,
    "$set": lambda items, place, gaps: Unordered(cast("tuple[Value, ...]", decoded(items, place, gaps))),
    "$w": lambda text, _, __: _text(text),
    "$x": lambda name, _, __: {"unknown": UNKNOWN, "invalid": INVALID}[name],
}
