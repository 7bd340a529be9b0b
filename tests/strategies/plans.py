"""Hold requests as plans: plain data that a law can vary at one place before it becomes a `Request`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Literal, TypeAlias, final

from attrs import asdict, evolve, field, frozen
from attrs import fields as fields_of

from agentauthz.principals import Chain, Delegation, Principal, PrincipalKind
from agentauthz.request import Request, Resource, SessionFacts, Unknown
from agentauthz.values import Sentinel
from tests.strategies.world import (
    NOW,
)

Data: TypeAlias = Mapping[str, object]
Place: TypeAlias = tuple[str, ...]  # ("args", "amount"), ("hop 0", "trust"), ("resource",): one value of a plan


@final
@frozen
class Who:
    """Be a principal to be."""

    kind: PrincipalKind
    id: str
    issuer: str | None
    attributes: Data

    def principal(self) -> Principal:
        """Return the principal."""
        return Principal(self.kind, self.id, self.issuer, self.attributes)


@final
@frozen
class Hop:
    """Be a delegation to be."""

    to: Who
    actions: tuple[str, ...] = ("*",)
    purpose: str | None = None
    expires: dt.datetime | None = None
    handoff: bool = False
    via: Literal["host", "session", "token"] = "host"

    def delegation(self) -> Delegation:
        """Return the delegation."""
        return Delegation(self.to.principal(), self.actions, self.purpose, self.expires, self.handoff, self.via)

    @property
    def passes_on(self) -> bool:
        """Say whether the giver stays judged for what the receiver does."""
        return not self.handoff and self.via != "token"


@final
@frozen
class Facts:
    """Be a session's facts to be."""

    attributes: Data
    marks: frozenset[str] | Unknown = frozenset()
    began: Mapping[str, dt.datetime] | Unknown = field(factory=dict)
    done: Mapping[str, dt.datetime] | Unknown = field(factory=dict)
    tracked: Mapping[str, dt.datetime] = field(factory=dict)
    started: dt.datetime = NOW - dt.timedelta(hours=2)
    expires: dt.datetime | None = None
    ceiling: tuple[str, ...] | None = None

    def facts(self) -> SessionFacts:
        """Return the facts."""
        return SessionFacts(
            "s-1",
            self.started,
            self.expires,
            self.attributes,
            self.marks,
            self.began,
            self.done,
            self.tracked,
            self.ceiling,
        )


def shown(value: object, depth: int = 3) -> str:
    """Return a value as text, also where its own `repr` raises or never ends."""
    kind = type(value)
    if kind in (Who, Hop, Facts, Plan):
        fields = [(at.name, getattr(value, at.name)) for at in fields_of(kind)]
        return f"{kind.__name__}({', '.join(f'{key}={shown(item, depth)}' for key, item in fields)})"
    if type(value) is dict and depth > 0:
        return f"{{{', '.join(f'{key!r}: {shown(item, depth - 1)}' for key, item in value.items())}}}"
    if type(value) is tuple and depth > 0:
        return f"({', '.join(shown(item, depth - 1) for item in value)},)"
    try:
        return repr(value)[:200]
    except Exception:  # it is hostile
        return f"<{kind.__name__}>"


@final
@frozen(repr=False)
class Plan:
    """Be a request to be. `resource` is a type and attributes, None or UNKNOWN."""

    action: str
    subject: Who
    hops: tuple[Hop, ...] = ()
    args: Data | Sentinel = field(factory=dict)
    resource: tuple[str, Data] | Sentinel | None = None
    route: object = None
    purpose: object = None
    session: Facts | Sentinel | None = None
    context: Data | Sentinel = field(factory=dict)
    now: dt.datetime = NOW

    def request(self) -> Request:
        """Return the request."""
        subject = self.subject.principal()
        resource = self.resource
        return Request(
            self.action,
            subject=subject,
            chain=Chain(subject, [hop.delegation() for hop in self.hops]),
            args=self.args,  # type: ignore[arg-type]
            resource=Resource(resource[0], "r-1", resource[1]) if isinstance(resource, tuple) else resource,  # type: ignore[arg-type]
            route=self.route,  # type: ignore[arg-type]
            purpose=self.purpose,  # type: ignore[arg-type]
            session=self.session.facts() if isinstance(self.session, Facts) else self.session,  # type: ignore[arg-type]
            context=self.context,  # type: ignore[arg-type]
            now=self.now,
        )

    def __repr__(self) -> str:
        return shown(self)

    # ---- the values that a law may take away or fill in

    def places(self) -> list[Place]:
        """Return the places of all values: attributes, arguments, facts, the resource, purpose and route."""
        found: list[Place] = [("purpose",), ("route",), ("resource",)]
        for part in ("args", "context", "session", "resource", "subject", *(f"hop {i}" for i in range(len(self.hops)))):
            found += [(part, name) for name in self._data(part)]
        return found

    def _data(self, part: str) -> Data:
        if part == "resource":
            return self.resource[1] if isinstance(self.resource, tuple) else {}
        if part == "session":
            return self.session.attributes if isinstance(self.session, Facts) else {}
        if part == "subject":
            return self.subject.attributes
        if part.startswith("hop "):
            return self.hops[int(part[4:])].to.attributes
        data = self.args if part == "args" else self.context
        return data if isinstance(data, Mapping) else {}

    def value(self, place: Place) -> object:
        """Return the value at a place."""
        return getattr(self, place[0]) if len(place) == 1 else self._data(place[0])[place[1]]

    def put(self, place: Place, value: object) -> Plan:
        """Return the plan with another value at a place (None: nothing there)."""
        part = place[0]
        if len(place) == 1:
            return self.having(part, value)
        data = {**self._data(part), place[1]: value}
        if value is None:
            del data[place[1]]
        if part == "resource":
            assert isinstance(self.resource, tuple)
            return evolve(self, resource=(self.resource[0], data))
        if part == "session":
            assert isinstance(self.session, Facts)
            return evolve(self, session=evolve(self.session, attributes=data))
        if part == "subject":
            return evolve(self, subject=evolve(self.subject, attributes=data))
        if part.startswith("hop "):
            at = int(part[4:])
            hop = evolve(self.hops[at], to=evolve(self.hops[at].to, attributes=data))
            return evolve(self, hops=(*self.hops[:at], hop, *self.hops[at + 1 :]))
        return self.having(part, data)

    def having(self, part: str, value: object) -> Plan:
        """Return the plan with another value for one of its own parts."""
        kept = asdict(self, recurse=False)
        return Plan(**{**kept, part: value})
