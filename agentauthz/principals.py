"""Define who acts and for whom: `Principal`, `Delegation`, `Chain`, and what narrowing means. Pure data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType, NoneType
from typing import Final, Literal, TypeAlias, final

from attrs import evolve, field, frozen

from agentauthz.errors import InvalidArgument, WideningError
from agentauthz.values import ABSENT, INVALID, Record, Value, copy_plain, record_of, utc

PrincipalKind: TypeAlias = Literal["user", "agent", "service"]
KINDS: Final[tuple[PrincipalKind, ...]] = ("user", "agent", "service")
MAX_DEPTH: Final = 16  # delegations in one chain

OWN_NAMESPACES: Final = ("delegation.", "token.")  # the library's own actions, never matched by `*`

_EVERY: Final = ("*",)


def patterns(argument: str, given: Iterable[str]) -> tuple[str, ...]:
    """Return action patterns: names, prefixes with a star (`docs.*`) or `*`.

    Raises:
        InvalidArgument: a single text, an empty pattern, or a star elsewhere; `argument` is named.
    """
    if isinstance(given, str):
        raise InvalidArgument(argument, 'must be a list of action names, such as ["docs.*"]')
    actions = tuple(given)
    for action in actions:
        _require_text(argument, action)
        stem = action[:-2] if action.endswith(".*") else action
        if action != "*" and ("*" in stem or not stem):
            raise InvalidArgument(
                argument, f"may have a star only as `*` or at the end of `prefix.*`, not in `{action}`"
            )
    return tuple(str.__str__(action) for action in actions)


def _actions(given: Iterable[str]) -> tuple[str, ...]:
    return _EVERY if given is _EVERY else patterns("actions", given)


def _require_text(argument: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise InvalidArgument(argument, "must be a string that is not empty")


def _identity(principal: Principal) -> tuple[str | None, str, str]:
    return (principal.issuer, principal.kind, principal.id)


def _own(value: object) -> object:
    """Return a copy of what the host may change later; what nests too deep to be copied is no value."""
    try:
        return copy_plain(value)
    except InvalidArgument:
        return INVALID


def _facts(principal: Principal) -> Record:
    given = dict(principal.attributes)
    facts = record_of({name: _own(value) for name, value in given.items()}) if given else Record()
    issuer = ABSENT if principal.issuer is None else principal.issuer
    facts.update(kind=principal.kind, id=principal.id, issuer=issuer)
    return facts


_NAMED: Final = frozenset({"kind", "id", "issuer"})
_EXACT: Final = {str, NoneType}
_NO_ATTRIBUTES: Final[Mapping[str, object]] = MappingProxyType({})


@final
@frozen(eq=False, repr=False)
class Principal:
    """Be an identified party: `kind` (user, agent or service), `id`, `issuer` (who vouches for it; None: the host).

    Two principals are the same where `identity` is: attributes don't count. Attributes are frozen when
    the principal is made.

    Raises:
        InvalidArgument: an unknown kind, an empty or non-string id or issuer, attributes that are no mapping.
    """

    kind: PrincipalKind
    id: str
    issuer: str | None = None
    attributes: Mapping[str, object] = field(factory=dict)
    identity: tuple[str | None, str, str] = field(init=False)
    facts: Record = field(init=False)  # what a policy sees; the built-in names win over attributes

    def __attrs_post_init__(self) -> None:
        if {type(self.kind), type(self.id), type(self.issuer)} - _EXACT:
            self._take_exact_texts()
        kind: object = self.kind  # what it says of itself isn't all that a caller may give
        if type(kind) is not str or kind not in KINDS:
            raise InvalidArgument("kind", f"must be one of user, agent, service, not {kind!r}")
        _require_text("id", self.id)
        if self.issuer is not None:
            _require_text("issuer", self.issuer)
        if type(self.attributes) is not dict and not isinstance(self.attributes, Mapping):
            raise InvalidArgument("attributes", "must be a mapping of names to values")
        object.__setattr__(self, "identity", _identity(self))
        facts = _facts(self)
        object.__setattr__(self, "facts", facts)
        more = len(facts) > len(_NAMED)
        view = MappingProxyType({k: v for k, v in facts.items() if k not in _NAMED}) if more else _NO_ATTRIBUTES
        object.__setattr__(self, "attributes", view)

    def _take_exact_texts(self) -> None:
        """Make the names exact strings: a subclass that overrides comparison must not decide who this is."""
        for name in _NAMED:
            if isinstance(text := getattr(self, name), str):
                object.__setattr__(self, name, str.__str__(text))

    @classmethod
    def user(cls, id: str, *, issuer: str | None = None, **attributes: object) -> Principal:
        """Return a person."""
        return cls("user", id, issuer, attributes)

    @classmethod
    def agent(cls, id: str, *, issuer: str | None = None, **attributes: object) -> Principal:
        """Return an AI agent."""
        return cls("agent", id, issuer, attributes)

    @classmethod
    def service(cls, id: str, *, issuer: str | None = None, **attributes: object) -> Principal:
        """Return a service."""
        return cls("service", id, issuer, attributes)

    def __eq__(self, other: object) -> bool:
        return type(other) is Principal and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __repr__(self) -> str:
        return f"Principal({self})"

    def __str__(self) -> str:
        """Return the principal as a policy names it."""
        issuer = "" if self.issuer is None else f", issuer: {_quoted(self.issuer)}"
        return f"{self.kind}({_quoted(self.id)}{issuer})"

    def __agentauthz_value__(self) -> Value:
        """Return the principal itself: it is a policy value."""
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return (Principal, (self.kind, self.id, self.issuer, dict(self.attributes)))


@final
@frozen
class Delegation:
    """Be one hop: to whom authority passed, narrowed to which actions, purpose and expiry.

    `actions` are names, prefixes with a star (`docs.*`) or `*`. `handoff` asks that the giver is no longer
    judged for what the receiver does. `via` says who made the hop: the host by hand, a session (which
    decided a hand-off when it was made), or a verified token, which may cover no action at all.

    Raises:
        InvalidArgument: a receiver that is no principal, malformed actions or none, an empty purpose, an expiry
            without a zone.
    """

    to: Principal
    actions: tuple[str, ...] = field(default=_EVERY, converter=_actions)
    purpose: str | None = None
    expires: dt.datetime | None = None
    handoff: bool = False
    via: Literal["host", "session", "token"] = "host"

    def __attrs_post_init__(self) -> None:
        if type(self.to) is not Principal:
            raise InvalidArgument("to", "must be a Principal")
        if not self.actions and self.via != "token":
            raise InvalidArgument("actions", "must name at least one action")
        if self.purpose is not None:
            _require_text("purpose", self.purpose)
            object.__setattr__(self, "purpose", str.__str__(self.purpose))
        if self.expires is not None:
            if (expires := utc(self.expires)) is None:
                raise InvalidArgument("expires", "must be a datetime with a time zone")
            object.__setattr__(self, "expires", expires)
        via: object = self.via
        if type(via) is not str or via not in ("host", "session", "token"):
            raise InvalidArgument("via", "must be host, session or token")

    @property
    def narrows(self) -> bool:
        """Say whether this hop passes on less than everything: then a decision must look at what it covers."""
        return self.expires is not None or self.purpose is not None or "*" not in self.actions

    def covers(self, action: str) -> bool:
        """Say whether this hop passed on the authority for `action`; the library's own actions always are."""
        return covered(self.actions, action)

    def narrower(
        self, *, actions: Iterable[str] | None, purpose: str | None, expires: dt.datetime | None
    ) -> tuple[tuple[str, ...], str | None, dt.datetime | None]:
        """Return what a hop after this one holds, where None means "as this one".

        Raises:
            WideningError: an action, purpose or expiry that this hop doesn't cover.
            InvalidArgument: malformed actions.
        """
        kept = narrowed(self.actions, actions, f"the delegation to {self.to}")
        if purpose is not None and self.purpose is not None and purpose != self.purpose:
            raise WideningError(f"the delegation to {self.to} is for another purpose, so this one can't be passed on")
        if expires is not None and self.expires is not None and expires > self.expires:
            raise WideningError(f"the delegation to {self.to} ends before the one asked for")
        return (kept, purpose or self.purpose, expires or self.expires)


NOBODY: Final = Principal.service("nobody")  # in records: who didn't prove who it is; whoever did has an issuer


def narrowed(own: tuple[str, ...], asked: Iterable[str] | None, what: str) -> tuple[str, ...]:
    """Return the action patterns to pass on: those `asked` for, or all of `own`; `what` names their holder.

    Raises:
        WideningError: one that `own` doesn't cover, or nothing to pass on.
        InvalidArgument: malformed patterns.
    """
    kept = own if asked is None else _actions(asked)
    for action in kept:
        if not any(includes(pattern, action) for pattern in own):
            raise WideningError(f"{what} doesn't cover `{action}`, so it can't be passed on")
    if asked is None and not own:
        raise WideningError(f"{what} covers no action, so nothing can be passed on")
    return kept


def _hops(given: Iterable[Delegation]) -> tuple[Delegation, ...]:
    return tuple(given)


@final
@frozen
class Chain:
    """Be the delegations from a subject to the actor, oldest first (the reverse of RFC 8693's nested `act`).

    Raises:
        InvalidArgument: a subject or hop of the wrong type, or more than 16 hops.
    """

    subject: Principal
    delegations: tuple[Delegation, ...] = field(default=(), converter=_hops)
    actor: Principal = field(init=False, eq=False, repr=False)  # who makes the call: the last receiver, or the subject
    narrows: bool = field(init=False, eq=False, repr=False)  # some hop passes on less than everything
    alone: bool = field(init=False, eq=False, repr=False)  # no agent passed authority on: only the actor is judged
    # as records write it, kept by the first one: a session's calls share their chain
    _written: str | None = field(default=None, init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if type(self.subject) is not Principal:
            raise InvalidArgument("subject", "must be a Principal")
        narrows = False
        for hop in self.delegations:  # a loop: one chain is made for each token
            if type(hop) is not Delegation:
                raise InvalidArgument("delegations", "must hold Delegation objects only")
            narrows = narrows or hop.narrows
        if len(self.delegations) > MAX_DEPTH:
            raise InvalidArgument("delegations", f"must be at most {MAX_DEPTH} hops, not {len(self.delegations)}")
        object.__setattr__(self, "actor", self.delegations[-1].to if self.delegations else self.subject)
        object.__setattr__(self, "narrows", narrows)
        object.__setattr__(self, "alone", self.depth < 2 and self.subject.kind != "agent")

    @property
    def depth(self) -> int:
        """Return the number of delegations."""
        return len(self.delegations)

    def extend(self, delegation: Delegation, *, max_depth: int = MAX_DEPTH) -> Chain:
        """Return this chain with one more hop.

        Raises:
            WideningError: the result would be deeper than `max_depth`, or wider than the hop before.
        """
        if self.depth + 1 > max_depth:
            raise WideningError(f"a chain may have at most {max_depth} delegations")
        if self.delegations:
            self.delegations[-1].narrower(
                actions=delegation.actions, purpose=delegation.purpose, expires=delegation.expires
            )
        return Chain(self.subject, (*self.delegations, delegation))

    def _keep(self, written: str) -> str:
        """Keep the text that records write for this chain; it depends on nothing else."""
        object.__setattr__(self, "_written", written)
        return written

    def by_hand(self) -> Chain:
        """Return the chain as the host's word alone: no hop counts as made by a session or a verified token."""
        if not self.delegations or all(hop.via == "host" for hop in self.delegations):
            return self
        return Chain(self.subject, [evolve(hop, via="host") for hop in self.delegations])

    def prefix(self, depth: int) -> Chain:
        """Return the chain up to its first `depth` hops."""
        return Chain(self.subject, self.delegations[:depth])


def covered(patterns: tuple[str, ...], action: str) -> bool:
    """Say whether what was passed on covers an action; the library's own actions always are."""
    # a star covers all but the library's own actions, which are covered anyway
    return "*" in patterns or action.startswith(OWN_NAMESPACES) or any(matches(one, action) for one in patterns)


def matches(pattern: str, action: str) -> bool:
    """Say whether an action pattern (`payments.refund`, `payments.*`, `*`) covers an action's name.

    `payments.*` covers every name below, at any depth, and not `payments` itself; `*` never covers
    `delegation.*` and `token.*`.
    """
    if pattern == "*":
        return not action.startswith(OWN_NAMESPACES)
    if pattern.endswith(".*"):
        return action.startswith(pattern[:-1]) and len(action) > len(pattern) - 1
    return pattern == action


def includes(wider: str, narrower: str) -> bool:
    """Say whether every action that pattern `narrower` covers is covered by pattern `wider`."""
    if narrower == "*":
        return wider == "*"
    if narrower.endswith(".*"):
        if wider == "*":
            return not narrower.startswith(OWN_NAMESPACES)
        return wider.endswith(".*") and narrower.startswith(wider[:-1])
    return matches(wider, narrower)


def beyond(wider: Iterable[str], narrower: Iterable[str]) -> list[str]:
    """Return those of the patterns `narrower` that none of `wider` includes; however many, each is soon found."""
    there = frozenset(wider)
    sizes = {len(one) for one in there}

    def around(one: str) -> Iterator[str]:
        yield from ("*", one)
        yield from (f"{one[: at + 1]}*" for at, sign in enumerate(one) if sign == "." and at + 2 in sizes)

    return [one for one in narrower if not any(wide in there and includes(wide, one) for wide in around(one))]


def _quoted(text: str) -> str:
    if text.isprintable() and '"' not in text and "\\" not in text:  # most are
        return f'"{text}"'
    escaped = "".join(f"\\{c}" if c in '\\"' else c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text)
    return f'"{escaped}"'
