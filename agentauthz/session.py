"""Hold `Session`: one bounded run of an agent, and the context variable that says which one is current."""

from __future__ import annotations

import datetime as dt
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import Final, Literal, Protocol, TypeAlias, TypeVar, cast, final, overload

from attrs import define, evolve, field, frozen

from agentauthz.decision import Decision, Outcome, Reason
from agentauthz.errors import Denied, InvalidArgument, NoSession, ReviewRequired, SessionError, Stopped, WideningError
from agentauthz.principals import Chain, Delegation, Principal
from agentauthz.request import Resource, SessionFacts, Unknown
from agentauthz.state.memory import SessionMemory, State
from agentauthz.values import UNKNOWN, copy_plain, utc

Expiry: TypeAlias = str | dt.timedelta | dt.datetime
Status: TypeAlias = Literal["done", "failed", "stopped"]
T = TypeVar("T")

_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@final
@define(eq=False, repr=False)  # these three are made at every call: what is frozen costs three times as much
class Call:
    """Be one call before its decision: bound arguments (own copies), and what was looked up for it.

    `problem` and `cause` say that a look-up failed, which denies the call.
    """

    action: str
    args: Mapping[str, object] | Unknown = _NOTHING
    resource: object = None
    context: Mapping[str, object] | Unknown = _NOTHING
    route: str | None = None
    sensitive: frozenset[str] = frozenset()
    problem: Reason | None = None
    cause: BaseException | None = None


@final
@define(eq=False)
class Verdict:
    """Be a decision with the resource that it was made on, and what made it fail, if anything did."""

    decision: Decision
    resource: Resource | Unknown | None = None
    cause: BaseException | None = None


@final
@define(eq=False)
class Effect:
    """Be how an allowed call ended: it returned, raised `error`, or was stopped; after `ns` nanoseconds."""

    decision: Decision
    status: Status
    error: BaseException | None
    ns: int


class Deciding(Protocol):
    """Be what a session needs of its authorizer."""

    def now(self) -> dt.datetime:
        """Return the time by the authorizer's clock."""

    def decide_call(self, session: Session, call: Call) -> Verdict:
        """Decide, commit and record."""

    async def adecide_call(self, session: Session, call: Call) -> Verdict:
        """Decide, commit and record, without blocking the loop on a sink."""

    def preview_call(self, session: Session, call: Call, state: State | None) -> Decision:
        """Decide; commit and record nothing."""

    def finish_call(self, session: Session, effect: Effect) -> None:
        """Remember and record how a call ended."""

    async def afinish_call(self, session: Session, effect: Effect) -> None:
        """Remember and record how a call ended, without blocking the loop on a sink."""


class Bindable(Protocol):
    """Be what a decorated function carries as `__agentauthz__`."""

    def bind(self, tool: object, session: Session) -> object:
        """Return the same tool, fixed to `session`."""


@final
@frozen(eq=False)
class Current:
    """Be what a running tool may know: its session, the decision that let it run, and the resource's original.

    `resource` is the object that was looked up and checked: using it needs no second look-up.
    """

    session: Session
    decision: Decision | None = None
    resource: object = field(default=None, repr=False)


_current: ContextVar[Current | None] = ContextVar("agentauthz.current", default=None)


def _open(active: Current | None) -> Current | None:
    """Return `active`, or the first one around it whose session is still open."""
    while active is not None and active.session.closed:
        active = active.session._before
    return active


def current() -> Current:
    """Return the session that is current here, and inside a decorated function its decision and resource.

    Raises:
        NoSession: there is none.
    """
    found = _current.get()
    if found is None:
        raise NoSession("no session is active here: enter one with `with authorizer.session(…):`")
    return found


def checkpoint() -> None:
    """Let running work stop here if its session was closed or has expired.

    Raises:
        Stopped: the work must end now.
        NoSession: no session is active here.
    """
    current().session.ensure_running()


@final
class Session:
    """Be a handle on one run: whose authority, through whom, why, until when. Made by `Authorizer.session`.

    Use it as a context manager (``with`` or ``async with``), or call its methods directly. Leaving it
    closes the handle and all that were delegated from it; a call in a closed session is denied.
    """

    def __init__(
        self,
        authorizer: Deciding,
        memory: SessionMemory,
        chain: Chain,
        *,
        id: str,
        purpose: str | None = None,
        expires: dt.datetime | None = None,
        attributes: Mapping[str, object] = _NOTHING,
        context: Mapping[str, object] = _NOTHING,
        route: str | None = None,
        parent: Session | None = None,
    ) -> None:
        self.id: Final = id
        self.chain: Final = chain
        self.purpose: Final = purpose
        self.expires: Final = expires
        self.attributes: Final = attributes
        self.context: Final = context
        self.route: Final = route
        self.memory: Final = memory
        self.authorizer: Final = authorizer
        self._parent: Final = parent
        self._closed = False
        self._entered: Literal["no", "yes", "left"] = "no"
        self._before: Current | None = None
        self._here: Final = Current(self)
        self._facts: tuple[State, Mapping[str, dt.datetime], SessionFacts] | None = None

    # ---- life

    @property
    def subject(self) -> Principal:
        """Return the principal whose authority is used."""
        return self.chain.subject

    @property
    def actor(self) -> Principal:
        """Return the principal that makes the calls."""
        return self.chain.actor

    @property
    def closed(self) -> bool:
        """Say whether this handle, or one that it was delegated from, was closed."""
        return self._closed or (self._parent is not None and self._parent.closed)

    @property
    def marks(self) -> frozenset[str]:
        """Return the marks that the session carries now."""
        return self.memory.read().marks

    def mark(self, name: str) -> None:
        """Add a mark on the host's word, to this session and all that share it.

        Raises:
            InvalidArgument: `name` is empty or no string.
        """
        if not isinstance(name, str) or not name:
            raise InvalidArgument("name", "must be a string that is not empty")
        self.memory.mark(str.__str__(name))

    def close(self) -> None:
        """Close this handle, and so all that were delegated from it; doing it again changes nothing."""
        self._closed = True

    def ensure_running(self) -> None:
        """Raise `Stopped` where the session was closed or has expired.

        Raises:
            Stopped: the work must end now.
        """
        if self.closed:
            raise Stopped("this session was closed: stop here")
        now = self.authorizer.now()
        ends = (self.expires, *(hop.expires for hop in self.chain.delegations))
        if any(end is not None and end <= now for end in ends):
            raise Stopped("this session, or a delegation in it, has expired: stop here")

    def __enter__(self) -> Session:
        active = _open(_current.get())
        if self.closed or self._entered != "no":
            raise SessionError(
                "a session is entered once, while it is open: make a new one, with the same `id=` to resume"
            )
        if active is not None and active.session is not self._parent:
            raise SessionError("another session is active here: leave it first, or delegate from it")
        self._before, self._entered = _current.get(), "yes"
        _current.set(self._here)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._entered = "left"
        active = _current.get()
        # in another context, or after an older session was left first, this one isn't current: leave it alone
        if active is not None and active.session is self:
            _current.set(_open(self._before))

    async def __aenter__(self) -> Session:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __reduce__(self) -> tuple[object, ...]:
        raise InvalidArgument("session", "can't be pickled or copied: resume it by its id")

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Session {self.id} of {self.subject}, actor {self.actor}, {state}>"

    def facts(self, state: State, tracked: Mapping[str, dt.datetime]) -> SessionFacts:
        """Return the session as one decision sees it; the same object for as long as nothing changes."""
        known = self._facts  # read once: threads may decide at the same time
        if known is None or known[0] is not state or known[1] is not tracked:
            facts = SessionFacts.trusted(
                self.id, self.memory.started, self.expires, self.attributes,
                state.marks, state.began, state.done, tracked,
            )  # fmt: skip
            known = self._facts = (state, tracked, facts)
        return known[2]

    # ---- inline calls

    def decide(
        self,
        action: str,
        *,
        args: Mapping[str, object] | Unknown = _NOTHING,
        resource: object = None,
        context: Mapping[str, object] = _NOTHING,
    ) -> Decision:
        """Decide one call and record it; the decision says what came out, nothing is raised for a denial.

        Raises:
            InvalidArgument: an argument of the wrong type.
        """
        return self.authorizer.decide_call(self, inline(action, args, resource, context)).decision

    async def adecide(
        self,
        action: str,
        *,
        args: Mapping[str, object] | Unknown = _NOTHING,
        resource: object = None,
        context: Mapping[str, object] = _NOTHING,
    ) -> Decision:
        """Do what `decide` does without blocking the loop on a sink."""
        return (await self.authorizer.adecide_call(self, inline(action, args, resource, context))).decision

    def authorize(
        self,
        action: str,
        *,
        args: Mapping[str, object] | Unknown = _NOTHING,
        resource: object = None,
        context: Mapping[str, object] = _NOTHING,
    ) -> Decision:
        """Decide one call, record it, and raise unless it may happen now.

        Raises:
            Denied, ReviewRequired: the call may not happen (yet).
            InvalidArgument: an argument of the wrong type.
        """
        return allowed(self.authorizer.decide_call(self, inline(action, args, resource, context)))

    async def aauthorize(
        self,
        action: str,
        *,
        args: Mapping[str, object] | Unknown = _NOTHING,
        resource: object = None,
        context: Mapping[str, object] = _NOTHING,
    ) -> Decision:
        """Do what `authorize` does without blocking the loop on a sink."""
        return allowed(await self.authorizer.adecide_call(self, inline(action, args, resource, context)))

    def preview(
        self,
        action: str,
        *,
        args: Mapping[str, object] | Unknown = _NOTHING,
        resource: object = None,
        context: Mapping[str, object] = _NOTHING,
        state: State | None = None,
    ) -> Decision:
        """Decide without recording or remembering anything; values that aren't chosen yet may be UNKNOWN.

        `state` stands for what the session remembers.

        Raises:
            InvalidArgument: an argument of the wrong type.
        """
        return self.authorizer.preview_call(self, inline(action, args, resource, context), state)

    async def apreview(
        self,
        action: str,
        *,
        args: Mapping[str, object] | Unknown = _NOTHING,
        resource: object = None,
        context: Mapping[str, object] = _NOTHING,
        state: State | None = None,
    ) -> Decision:
        """Do what `preview` does, from a coroutine."""
        return self.preview(action, args=args, resource=resource, context=context, state=state)

    def perform(
        self,
        action: str,
        *,
        args: Mapping[str, object] | Unknown = _NOTHING,
        resource: object = None,
        context: Mapping[str, object] = _NOTHING,
    ) -> Performing:
        """Return a context manager that authorizes on entry and records the effect on exit.

        Entering raises what `authorize` raises; it works with ``with`` and ``async with``.
        """
        return Performing(self, self.authorizer, inline(action, args, resource, context))

    # ---- delegation and tools

    def delegate(
        self,
        to: Principal,
        actions: Iterable[str] | None = None,
        purpose: str | None = None,
        expires: Expiry | None = None,
        handoff: bool = False,
    ) -> Session:
        """Return a session one hop longer and no wider, for `to` to act in.

        None means "as in this session". With `handoff` the giver is no longer judged for what the
        receiver does, which is itself the action `delegation.handoff`: a policy must allow it.

        Raises:
            WideningError: an action, purpose or expiry wider than this session's, or a 17th hop.
            Denied, ReviewRequired: the hand-off may not happen.
            SessionError: this session is closed.
            InvalidArgument: a malformed argument.
        """
        if self.closed:
            raise SessionError("this session is closed, so nothing can be delegated from it")
        hop = self._hop(to, actions, purpose, None if expires is None else moment(expires, self.authorizer.now()))
        chain = self.chain.extend(hop)
        if handoff:
            self.authorize("delegation.handoff", args={"to": to, "actions": list(hop.actions), "purpose": hop.purpose})
            chain = self.chain.extend(evolve(hop, handoff=True, via="session"))
        return Session(
            self.authorizer, self.memory, chain, id=self.id, purpose=self.purpose or hop.purpose,
            expires=self.expires, attributes=self.attributes, context=self.context, route=self.route, parent=self,
        )  # fmt: skip

    def _hop(
        self, to: Principal, actions: Iterable[str] | None, purpose: str | None, expires: dt.datetime | None
    ) -> Delegation:
        if self.purpose is not None and purpose is not None and purpose != self.purpose:
            raise WideningError("this session has another purpose, so it can't be delegated for that one")
        if self.expires is not None and expires is not None and expires > self.expires:
            raise WideningError("this session ends before the delegation that was asked for")
        if not self.chain.delegations:
            return Delegation(to, ("*",) if actions is None else actions, purpose, expires)
        kept = self.chain.delegations[-1].narrower(actions=actions, purpose=purpose, expires=expires)
        return Delegation(to, *kept)

    @overload
    def bind(self, tools: list[T]) -> list[T]: ...
    @overload
    def bind(self, tools: T) -> T: ...
    def bind(self, tools: object) -> object:
        """Return the same tool or tools, fixed to this session without the context variable.

        Raises:
            InvalidArgument: something that isn't decorated with `@authorize`.
        """
        return [self._bind(tool) for tool in tools] if isinstance(tools, list | tuple) else self._bind(tools)

    def _bind(self, tool: object) -> object:
        guarded = getattr(tool, "__agentauthz__", None)
        if guarded is None:
            raise InvalidArgument("tools", "must be functions that are decorated with @authorize")
        return cast(Bindable, guarded).bind(tool, self)


@final
class Performing:
    """Authorize on entry, and record on exit how the work ended. Made by `Session.perform`, used once."""

    def __init__(self, session: Session, authorizer: Deciding, call: Call) -> None:
        self._session = session
        self._authorizer = authorizer
        self._call: Call | None = call
        self._started = 0
        self._decision: Decision | None = None

    def __enter__(self) -> Decision:
        return self._begin(self._authorizer.decide_call(self._session, self._take()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._authorizer.finish_call(self._session, self._effect(error))

    async def __aenter__(self) -> Decision:
        return self._begin(await self._authorizer.adecide_call(self._session, self._take()))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._authorizer.afinish_call(self._session, self._effect(error))

    def _take(self) -> Call:
        call, self._call = self._call, None
        if call is None:
            raise SessionError("`perform` is one call: ask for another to make it again")
        return call

    def _begin(self, verdict: Verdict) -> Decision:
        self._decision = allowed(verdict)
        self._started = time.perf_counter_ns()
        return self._decision

    def _effect(self, error: BaseException | None) -> Effect:
        decision, self._decision = self._decision, None
        if decision is None:
            raise SessionError("`perform` is entered once and left once: ask for another to make the call again")
        return effect_of(decision, error, self._started)


# ---- what guards and sessions share


def inline(action: str, args: Mapping[str, object] | Unknown, resource: object, context: Mapping[str, object]) -> Call:
    """Return a call that was made by hand.

    Raises:
        InvalidArgument: an argument of the wrong type.
    """
    if not isinstance(action, str) or not action:
        raise InvalidArgument("action", "must be a string that is not empty")
    if args is not UNKNOWN and args is not _NOTHING:
        args = _names("args", args)
    if context is not _NOTHING:
        context = _names("context", context)
    return Call(str.__str__(action), args, resource, context)


def _names(name: str, mapping: object) -> Mapping[str, object]:
    """Return an own copy of a mapping of names: what is decided is what is recorded, whoever changes it meanwhile."""
    if type(mapping) is not dict and not isinstance(mapping, Mapping):
        raise InvalidArgument(name, "must be a mapping of names to values")
    own = dict(mapping)
    for key in own:
        if not isinstance(key, str):
            raise InvalidArgument(name, "must have names that are strings")
    return cast(Mapping[str, object], copy_plain(own))


def effect_of(decision: Decision, error: BaseException | None, started: int) -> Effect:
    """Return the effect of a call that began at `started` (nanoseconds) and left with `error`.

    Cancelled and closed work was stopped.
    """
    ns = time.perf_counter_ns() - started
    if error is None:
        return Effect(decision, "done", None, ns)
    # by name: asyncio isn't loaded for its sake
    stopped = isinstance(error, Stopped | GeneratorExit) or type(error).__name__ == "CancelledError"
    return Effect(decision, "stopped" if stopped else "failed", error, ns)


def allowed(verdict: Verdict) -> Decision:
    """Return the decision of a call that may happen, else raise.

    Raises:
        Denied, ReviewRequired: with the decision, chained to what made it fail.
    """
    decision = verdict.decision
    if decision.allowed:
        return decision
    text = refusal(decision)
    if decision.outcome is Outcome.REVIEW:
        raise ReviewRequired(text, decision)
    raise Denied(text, decision) from verdict.cause


_ADVICE: Final = {
    "review": "Wait: a person must approve this call first",
    "rule": "Don't try it again: find another way, or tell the user that it isn't allowed",
    "default": "Don't try it again: find another way, or tell the user that it isn't allowed",
    "authority": "This session doesn't hold the authority for it: ask the user to start one that does",
    "limit": "Don't try it again now: the budget for it isn't there",
    "revoked": "Stop: this work may not go on",
    "undetermined": "It couldn't be established that this is allowed: tell the user that something is missing",
    "error": "Something failed while this was checked: report it to the user, and don't go on with it",
}


def refusal(decision: Decision) -> str:
    """Return what a model or a person is told: the action, a stable code, the policy's `because`, what to do."""
    reason = decision.reasons[0] if decision.reasons else Reason("denied", "")
    review = decision.outcome is Outcome.REVIEW
    because = next((found.because for found in decision.reasons if found.because), None)
    head = f"`{decision.action}` {'needs an approval' if review else 'is denied'} ({reason.code})"
    return f"{head}{f': {because}' if because else ''}. {_ADVICE['review' if review else decision.basis.value]}."


def moment(expires: Expiry, now: dt.datetime) -> dt.datetime:
    """Return a moment given as `"10m"`, a timedelta from now, or a datetime with a zone.

    Raises:
        InvalidArgument: another form, or a duration that is not positive.
    """
    if isinstance(expires, str):
        found = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h|d|w)", expires)
        if found is None:
            raise InvalidArgument("expires", f'must be a duration such as "10m", not {expires!r}')
        expires = dt.timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    if isinstance(expires, dt.timedelta):
        if expires <= dt.timedelta(0):
            raise InvalidArgument("expires", "must be a duration longer than nothing")
        try:
            return now + expires
        except OverflowError:
            raise InvalidArgument("expires", "must be a moment before the year 10000") from None
    if (ends := utc(expires)) is None:
        raise InvalidArgument("expires", "must be a duration, a timedelta, or a datetime with a time zone")
    return ends


def new_session_id() -> str:
    """Return an id that nobody can guess."""
    return secrets.token_urlsafe(18)
