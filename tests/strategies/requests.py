"""Generate requests: mostly of what policies ask for, some with gaps, some with values that are no such values."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final, Literal, TypeAlias, TypeVar, final

from agentauthz.principals import Principal, PrincipalKind
from agentauthz.request import Unknown
from agentauthz.values import UNKNOWN, Sentinel
from tests.strategies.choose import Choose
from tests.strategies.hostile import wrong
from tests.strategies.plans import Data, Facts, Hop, Plan, Who
from tests.strategies.world import (
    ACTIONS,
    ARGUMENTS,
    CONTEXT,
    DOMAINS,
    HANDOFF,
    HOST_MARKS,
    MARKS,
    NOW,
    PRINCIPALS,
    PURPOSES,
    RESOURCE_OF,
    RESOURCES,
    SESSION,
    Attribute,
)

T = TypeVar("T")
Quality: TypeAlias = Literal["clean", "gaps", "messy"]

_WHOLE: Final = (1, 0, 2, 5, 100, 500, 10, -1)
_EXPIRES: Final = ((44, None), (5, NOW + dt.timedelta(days=1)), (1, NOW))
_PATTERNS: Final = ((16, ("*",)), (1, ("pay.*", "crm.read")), (1, ("pay.refund", "mail.*", "mcp/tool")))
# what a token's scopes give: everything by a mapper, names, or nothing
_SCOPES: Final[Sequence[tuple[int, tuple[str, ...]]]] = (
    (9, ("*",)),
    (3, ACTIONS),
    (1, ("pay.refund", "crm.read")),
    (1, ()),
)
_CEILINGS: Final[Sequence[tuple[int, tuple[str, ...] | None]]] = ((50, None), *_SCOPES[1:])
_NUMBERS: Final = (1, 0, 2, 5, 100, 500, Decimal("2.50"), 0.1, 10, -1)
_TIMES: Final = (NOW, NOW - dt.timedelta(hours=1), NOW + dt.timedelta(days=40), NOW - dt.timedelta(days=400))
_DURATIONS: Final = (dt.timedelta(hours=1), dt.timedelta(0), dt.timedelta(minutes=5), dt.timedelta(days=2))


# ---- values


def fitting(choose: Choose, attribute: Attribute) -> object:
    """Return a value that the attribute's declaration allows."""
    words = DOMAINS.get(attribute.name, ("red", "x"))
    match attribute.kind:
        case "number":
            return choose.one(_WHOLE if attribute.declared == "int" else _NUMBERS)
        case "string":
            return choose.one(words)
        case "bool":
            return choose.chance(50)
        case "time":
            return choose.one(_TIMES)
        case "duration":
            return choose.one(_DURATIONS)
        case "strings":
            items = choose.some(words)
            return choose.one((items, tuple(items), set(items)))
        case "numbers":
            return choose.some((1, 2, 5, 100))
        case "records":
            return [_item(choose) for _ in range(choose.up_to(2))]
        case "record":
            return {"n": choose.one((1, 2, 5)), **({"b": choose.one(("x", "y"))} if choose.chance(50) else {})}


def _item(choose: Choose) -> Data:
    found: dict[str, object] = {"sku": choose.one(DOMAINS["sku"]), "n": choose.one((1, 5, 100))}
    return {**found, "b": choose.one(("x", "y"))} if choose.chance(50) else found


# ---- requests

_FIRST: Final[Sequence[PrincipalKind]] = ("user", "user", "user", "agent", "service")
_LATER: Final[Sequence[PrincipalKind]] = ("agent", "agent", "agent", "agent", "service", "user")
_IDS: Final[Mapping[PrincipalKind, Sequence[str]]] = {
    "user": ("maria", "bob"),
    "agent": ("x", "a1", "a2"),
    "service": ("x", "s1"),
}


@final
class Requests:
    """Make requests that share parts: who asks, the session, resources. Drawing costs more than deciding."""

    def __init__(self, choose: Choose, *, passes_on: bool = False, quality: Quality | None = None) -> None:
        self.choose = choose
        self.passes_on = passes_on
        self.quality = quality
        self._made: dict[str, list[object]] = {}

    def plan(self) -> Plan:
        """Return one request to be."""
        choose = self.choose
        action = HANDOFF if choose.chance(8) else choose.one(ACTIONS)
        count = choose.weighted(((3, 0), (4, 1), (3, 2), (2, 3), (1, 4), (1, 6)))
        gaps = () if self.quality == "clean" else ((1, UNKNOWN),)
        return Plan(
            action,
            self._shared("subject", 4, lambda: self._who(_FIRST)),
            tuple(self._shared("hop", 5, lambda: self.hop(passes_on=self.passes_on)) for _ in range(count)),
            self._shared(f"args of {action}", 3, lambda: self._args(action)),
            self._shared(f"resource of {RESOURCE_OF.get(action)}", 3, lambda: self._resource(RESOURCE_OF.get(action))),
            choose.weighted(((12, "python:shop"), (6, "mcp:crm"), (1, None), *gaps)),
            choose.weighted(((20, "support"), (3, "audit"), (2, None), *gaps)),
            self._shared("session", 4, self._session),
            self._shared("context", 4, self._context),
            choose.weighted(((4, NOW), (1, NOW + dt.timedelta(hours=9)))),
        )

    def hop(self, *, passes_on: bool) -> Hop:
        """Return one delegation."""
        choose = self.choose
        to = self._who(_LATER)
        actions = choose.weighted(_PATTERNS)
        purpose = choose.weighted(((9, None), (1, PURPOSES[0])))
        expires = choose.weighted(_EXPIRES)
        if passes_on:
            return Hop(to, actions, purpose, expires, False, choose.one(("host", "session")))
        via: Literal["host", "session", "token"] = choose.weighted(((7, "host"), (2, "session"), (1, "token")))
        if via == "token":  # its actions are what scopes name, or nothing
            actions = choose.weighted(_SCOPES)
        return Hop(to, actions, purpose, expires, choose.chance(30), via)

    def _shared(self, name: str, most: int, make: Callable[[], T]) -> T:
        """Return one of at most `most` values under `name`, some of which are made before."""
        made: list[T] = self._made.setdefault(name, [])  # type: ignore[assignment]
        at = self.choose.up_to(most - 1)
        if at >= len(made):
            made.append(make())
        return made[min(at, len(made) - 1)]

    def _how(self) -> Quality:
        """Return how good one part is: nothing missing, gaps, or values that are no such values."""
        if self.quality is not None:
            return self.quality
        return self.choose.weighted(((7, "clean"), (2, "gaps"), (1, "messy")))

    def _who(self, kinds: Sequence[PrincipalKind]) -> Who:
        kind = self.choose.one(kinds)
        issuer = "https://id.example" if self.choose.chance(20) else None
        return Who(kind, self.choose.one(_IDS[kind]), issuer, self._filled(PRINCIPALS[kind], self._how()))

    def _args(self, action: str) -> Data | Sentinel:
        if action == HANDOFF:
            return {"to": Principal.agent("a1", trust=2), "actions": ("*",), "purpose": None}
        how = self._how()
        if how != "clean" and self.choose.chance(10):
            return UNKNOWN
        found = self._filled(ARGUMENTS[action], how)
        return {**found, "extra": 1} if self.choose.chance(3) else found

    def _context(self) -> Data | Sentinel:
        how = self._how()
        return UNKNOWN if how != "clean" and self.choose.chance(10) else self._filled(CONTEXT, how)

    def _resource(self, usual: str | None) -> tuple[str, Data] | Sentinel | None:
        choose, how = self.choose, self._how()
        gap = 0 if how == "clean" else 2
        state = choose.weighted(((20, "usual"), (2, "other"), (1, "none"), (gap, "unknown")))
        if state in ("none", "unknown"):
            return UNKNOWN if state == "unknown" else None
        name = usual if usual is not None and state == "usual" else choose.one(("Order", "Doc", "Other"))
        return name, self._filled(RESOURCES.get(name, RESOURCES["Order"]), how)

    def _session(self) -> Facts | Sentinel | None:
        choose, how = self.choose, self._how()
        if choose.chance(4):
            return choose.one((None, UNKNOWN))
        expires = choose.weighted(_EXPIRES)
        return Facts(
            self._filled(SESSION, how),
            UNKNOWN if choose.chance(3) else frozenset(choose.some((*MARKS, *HOST_MARKS), 25)),
            self._seen(),
            self._seen(),
            {name: NOW - dt.timedelta(minutes=choose.one((3, 30, 300))) for name in choose.some(ACTIONS[:3], 10)},
            expires=expires,
            ceiling=choose.weighted(_CEILINGS),
        )

    def _seen(self) -> Mapping[str, dt.datetime] | Unknown:
        choose = self.choose
        if choose.chance(4):
            return UNKNOWN
        return {name: NOW - dt.timedelta(minutes=choose.one((1, 5, 60, 90))) for name in choose.some(ACTIONS[:3], 30)}

    def _filled(self, attributes: Sequence[Attribute], how: Quality) -> dict[str, object]:
        """Return a value for each attribute, as far as `how` says."""
        choose = self.choose
        found: dict[str, object] = {}
        for attribute in attributes:
            if attribute.optional and choose.chance(40):
                continue
            state = "fine" if how == "clean" else choose.weighted(_STATES[how])
            if state == "unknown":
                found[attribute.name] = UNKNOWN
            elif state == "wrong":
                found[attribute.name] = wrong(choose)
            elif state == "fine":
                found[attribute.name] = fitting(choose, attribute)
        return found


_STATES: Final[Mapping[Quality, tuple[tuple[int, str], ...]]] = {
    "gaps": ((80, "fine"), (8, "absent"), (12, "unknown")),
    "messy": ((65, "fine"), (10, "absent"), (10, "unknown"), (15, "wrong")),
}
