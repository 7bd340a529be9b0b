"""Define one call as the decision sees it: `Resource`, `SessionFacts` and `Request`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Set
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, cast, final

from attrs import define, field, frozen

from agentauthz.errors import InvalidArgument
from agentauthz.principals import Chain, Delegation, Principal, patterns
from agentauthz.values import UNKNOWN, Entity, Sentinel, Value, field_reader, no_field, utc

Unknown: TypeAlias = Literal[Sentinel.UNKNOWN]
_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
_NO_TIMES: Final[Mapping[str, dt.datetime]] = MappingProxyType({})


@final
@frozen(eq=False, repr=False)
class Resource:
    """Be what an action is done to: `type`, `id`, and attributes (a mapping, or an object with data fields).

    Attributes are read, and kept, when a rule first asks for them in a decision. `original` is the
    object that the resource was made from, if any.

    Raises:
        InvalidArgument: an empty or non-string type or id, attributes without data fields.
    """

    type: str
    id: str
    attributes: object = field(default=_NOTHING)
    original: object = None

    def __attrs_post_init__(self) -> None:
        for name in ("type", "id"):
            text = getattr(self, name)
            if not isinstance(text, str) or not text:
                raise InvalidArgument(name, "must be a string that is not empty")
            object.__setattr__(self, name, str.__str__(text))
        if field_reader(self.attributes) is None:
            raise InvalidArgument("attributes", "must be a mapping, or an attrs, dataclass or pydantic object")

    def __repr__(self) -> str:
        return f"Resource({self.type!r}, {self.id!r})"  # attributes may be secret

    def __agentauthz_value__(self) -> Value:
        entity = Entity()
        entity["type"], entity["id"] = self.type, self.id
        entity.reader = field_reader(self.attributes) or no_field
        return entity


@final
@frozen(eq=False, init=False)
class SessionFacts:
    """Hold what a session has done so far, as one decision sees it.

    `expires` None means never. `ceiling` are the action patterns that the whole session may not exceed, as a token's
    scopes give them; None: there is none. `began` and `done` are the last time that an action was allowed, and
    returned; `tracked` says since when an action has been watched; one that isn't in it was watched from the session's
    start. UNKNOWN: the store didn't answer.

    Raises:
        InvalidArgument: an empty or non-string id, a time without a zone, marks or actions that aren't strings, a
            malformed ceiling, attributes without data fields.
    """

    id: str
    started: dt.datetime
    expires: dt.datetime | None
    attributes: Mapping[str, object] = field(repr=False)
    marks: frozenset[str] | Unknown
    began: Mapping[str, dt.datetime] | Unknown
    done: Mapping[str, dt.datetime] | Unknown
    tracked: Mapping[str, dt.datetime]
    ceiling: tuple[str, ...] | None

    def __init__(
        self,
        id: str,
        started: dt.datetime,
        expires: dt.datetime | None = None,
        attributes: Mapping[str, object] = _NOTHING,
        marks: frozenset[str] | Unknown = frozenset(),
        began: Mapping[str, dt.datetime] | Unknown = _NO_TIMES,
        done: Mapping[str, dt.datetime] | Unknown = _NO_TIMES,
        tracked: Mapping[str, dt.datetime] = _NO_TIMES,
        ceiling: Iterable[str] | None = None,
    ) -> None:
        if field_reader(attributes) is None:
            raise InvalidArgument("attributes", "must be a mapping, or an attrs, dataclass or pydantic object")
        self.__attrs_init__(
            _text("id", id),
            _moment("started", started),
            None if expires is None else _moment("expires", expires),
            attributes,
            marks if marks is UNKNOWN else _marks(marks),
            began if began is UNKNOWN else _times("began", began),
            done if done is UNKNOWN else _times("done", done),
            _times("tracked", tracked),
            None if ceiling is None else patterns("ceiling", ceiling),
        )

    @classmethod
    def trusted(
        cls,
        id: str,
        started: dt.datetime,
        expires: dt.datetime | None,
        attributes: Mapping[str, object],
        marks: frozenset[str] | Unknown,
        began: Mapping[str, dt.datetime] | Unknown,
        done: Mapping[str, dt.datetime] | Unknown,
        tracked: Mapping[str, dt.datetime],
        ceiling: tuple[str, ...] | None,
    ) -> SessionFacts:
        """Return facts whose parts the library itself has made, without checking them again."""
        made = cls.__new__(cls)
        made.__attrs_init__(id, started, expires, attributes, marks, began, done, tracked, ceiling)
        return made


@define(eq=False, repr=False)
class _Parts:
    """Be a request that isn't sealed yet: setting a field of a frozen object costs three times as much."""

    action: str
    subject: Principal
    actor: Principal
    chain: Chain
    args: Mapping[str, object] | Unknown
    resource: Resource | Unknown | None
    route: str | Unknown | None
    purpose: str | Unknown | None
    session: SessionFacts | Unknown | None
    context: Mapping[str, object] | Unknown
    now: dt.datetime


@final
@frozen(eq=False, repr=False, init=False)
class Request(_Parts):
    """Be one call to decide on: who (through whom), what, to what, why, when.

    `actor` None means the subject itself, `chain` is made from the two where it isn't given; `args`,
    `resource`, `route`, `purpose`, `session`, `context` and single values in them may be UNKNOWN.
    `now` None means the moment when the request was made.

    Raises:
        InvalidArgument: an argument of the wrong type, args that can't be read, or a chain that disagrees with
            subject or actor.
    """

    def __init__(
        self,
        action: str,
        *,
        subject: Principal,
        actor: Principal | None = None,
        chain: Chain | None = None,
        args: Mapping[str, object] | Unknown = _NOTHING,
        resource: Resource | Unknown | None = None,
        route: str | Unknown | None = None,
        purpose: str | Unknown | None = None,
        session: SessionFacts | Unknown | None = None,
        context: Mapping[str, object] | Unknown = _NOTHING,
        now: dt.datetime | None = None,
    ) -> None:
        action = _text("action", action)
        chain = _chain(subject, actor, chain)
        for name, mapping in (("args", args), ("context", context)):
            if mapping is not UNKNOWN:
                _check_names(name, mapping)
        args = args if args is UNKNOWN or type(args) is dict else _read_whole("args", args)
        route = route if route is None or route is UNKNOWN else _text("route", route)
        purpose = purpose if purpose is None or purpose is UNKNOWN else _text("purpose", purpose)
        if not (resource is None or resource is UNKNOWN or type(resource) is Resource):
            raise InvalidArgument("resource", "must be a Resource, None or UNKNOWN")
        if not (session is None or session is UNKNOWN or type(session) is SessionFacts):
            raise InvalidArgument("session", "must be a SessionFacts, None or UNKNOWN")
        self.__attrs_init__(
            action, chain.subject, chain.actor, chain, args, resource, route, purpose, session, context,
            dt.datetime.now(dt.UTC) if now is None else _moment("now", now),
        )  # fmt: skip

    @classmethod
    def trusted(
        cls,
        action: str,
        chain: Chain,
        args: Mapping[str, object] | Unknown,
        resource: Resource | Unknown | None,
        route: str | Unknown | None,
        purpose: str | Unknown | None,
        session: SessionFacts | Unknown | None,
        context: Mapping[str, object] | Unknown,
        now: dt.datetime,
    ) -> Request:
        """Return a request whose parts the library itself has made, without checking them again."""
        made: Any = _Parts(
            action, chain.subject, chain.actor, chain, args, resource, route, purpose, session, context, now
        )
        made.__class__ = cls  # both have the same slots, and from here on nothing can be set
        sealed: Request = made
        return sealed

    def by_hand(self) -> Request:
        """Return the same request with its chain as the host's word alone."""
        if (chain := self.chain.by_hand()) is self.chain:
            return self
        return Request.trusted(
            self.action, chain, self.args, self.resource, self.route, self.purpose, self.session, self.context, self.now
        )

    def at(self, now: dt.datetime) -> Request:
        """Return the same request at another moment."""
        return Request.trusted(
            self.action, self.chain, self.args, self.resource, self.route, self.purpose, self.session, self.context, now
        )

    def with_session(self, session: SessionFacts) -> Request:
        """Return the same request with another account of its session."""
        return Request.trusted(
            self.action, self.chain, self.args, self.resource, self.route, self.purpose, session, self.context, self.now
        )

    def __repr__(self) -> str:
        return f"Request({self.action!r}, subject={self.subject}, actor={self.actor})"  # values may be secret


def _chain(subject: Principal, actor: Principal | None, chain: Chain | None) -> Chain:
    for name, principal in (("subject", subject), ("actor", actor)):
        if type(principal) is not Principal and not (name == "actor" and principal is None):
            raise InvalidArgument(name, "must be a Principal")
    if chain is None:
        return Chain(subject) if actor is None or actor == subject else Chain(subject, (Delegation(actor),))
    if type(chain) is not Chain:
        raise InvalidArgument("chain", "must be a Chain")
    if chain.subject != subject:
        raise InvalidArgument("chain", f"begins with {chain.subject}, but the subject is {subject}")
    if actor is not None and chain.actor != actor:
        raise InvalidArgument("chain", f"ends with {chain.actor}, but the actor is {actor}")
    return chain


def _text(argument: str, value: object) -> str:
    """Return an exact string: a subclass that overrides comparison must not decide which rules match."""
    if not isinstance(value, str) or not value:
        raise InvalidArgument(argument, "must be a string that is not empty")
    return str.__str__(value)


def _moment(argument: str, value: object) -> dt.datetime:
    moment = utc(value)
    if moment is None:
        raise InvalidArgument(argument, "must be a datetime with a time zone")
    return moment


def _marks(value: object) -> frozenset[str]:
    if not isinstance(value, Set) or not all(isinstance(mark, str) for mark in value):
        raise InvalidArgument("marks", "must be a set of strings, or UNKNOWN")
    return frozenset(map(str.__str__, value))


def _times(argument: str, value: object) -> Mapping[str, dt.datetime]:
    """Return the times of actions as a mapping of its own."""
    _check_names(argument, value)
    times = _read_whole(argument, cast("Mapping[str, object]", value))
    return {str.__str__(action): _moment(argument, time) for action, time in times.items()}


def _check_names(argument: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise InvalidArgument(argument, "must be a mapping of names to values")
    try:
        named = all(isinstance(key, str) for key in value)
    except Exception as error:
        raise InvalidArgument(argument, "can't be read: its own code raised") from error
    if not named:
        raise InvalidArgument(argument, "must have names that are strings")


def _read_whole(argument: str, value: Mapping[str, object]) -> dict[str, object]:
    try:
        return dict(value)
    except Exception as error:
        raise InvalidArgument(argument, "can't be read: its own code raised") from error
