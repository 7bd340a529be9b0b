"""Hold `Session`: one bounded run of an agent: for whom, through whom, why and until when."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeVar, Unpack, cast, final, overload

from attrs import evolve

from agentauthz.active import ACTIVE, Current, still_open
from agentauthz.calls import NOTHING, Call, Deciding, Expiry, Stop, allowed, inline, repeatable
from agentauthz.decision import Basis, Decision, Reason
from agentauthz.delegating import REFUSALS, Delegating, Exchanging, NextHop, ends, unexchanged
from agentauthz.errors import InvalidArgument, SessionError, Stopped
from agentauthz.performing import Performing
from agentauthz.principals import Chain, Principal
from agentauthz.request import SessionFacts, Unknown
from agentauthz.state.store import NOTHING_YET, State

if TYPE_CHECKING:
    from agentauthz.authorizer.memory import Memory
    from agentauthz.tokens.answer import ExchangedToken
    from agentauthz.tokens.client import TokenExchangeClient
    from agentauthz.tokens.verified import VerifiedToken

T = TypeVar("T")


class Bindable(Protocol):
    """Be what a decorated function carries as `__agentauthz__`."""

    def bind(self, tool: object, session: Session) -> object:
        """Return the same tool, fixed to `session`."""


@final
class Session:
    """Be a handle on one run: whose authority, through whom, why, until when. Made by `Authorizer.session`.

    Use it as a context manager (``with`` or ``async with``), or call its methods directly. Leaving it
    closes the handle and all that were delegated from it; a call in a closed session is denied.
    """

    def __init__(
        self,
        authorizer: Deciding,
        memory: Memory,
        chain: Chain,
        *,
        id: str,
        purpose: str | None = None,
        expires: dt.datetime | None = None,
        attributes: Mapping[str, object] = NOTHING,
        context: Mapping[str, object] = NOTHING,
        route: str | None = None,
        token: VerifiedToken | None = None,
        parent: Session | None = None,
        made_by: str | None = None,
    ) -> None:
        self.id: Final = id
        self.chain: Final = chain
        self.purpose: Final = purpose
        self.expires: Final = expires
        self.attributes: Final = attributes
        self.context: Final = context
        self.route: Final = route
        self.token: Final = token
        self.memory: Final = memory
        self.authorizer: Final = authorizer
        self._parent: Final = parent
        self.made_by = made_by  # the id of the record of the delegation that it came by
        self._closed = False
        self._entered: Literal["no", "yes", "left"] = "no"
        self.before: Current | None = None
        self._here: Final = Current(self)
        self._bare: tuple[State, Mapping[str, dt.datetime], SessionFacts] | None = None
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
    def ceiling(self) -> tuple[str, ...] | None:
        """Return what the session's token covers where it is the subject's own; a delegated one narrows its hop."""
        return None if self.token is None or self.token.chain.delegations else self.token.actions

    def fallen(self, chain: Chain | None = None) -> Stop | None:
        """Say what stops the session, or one that goes on with `chain`: a halt, or something that was revoked.

        That is the session, a party of its chain, or the token that it rests on. None: it stands.
        """
        found = self.authorizer.against(self, self.chain if chain is None else chain)
        return self.token_fallen() if found is None else found

    def token_fallen(self) -> Stop | None:
        """Say why the token that the session rests on stands no more, as who verified it says; None: it does."""
        if self.token is None:
            return None
        try:
            if self.token.revoked() is False:
                return None
        except Exception:  # the host's own code: not to know isn't to know that it stands
            return Basis.ERROR, Reason("revocation_unknown", "it couldn't be found out whether the token was revoked")
        return Basis.REVOKED, Reason("token_revoked", "the token that this session rests on was revoked")

    @property
    def marks(self) -> frozenset[str]:
        """Return the marks that the session carries now."""
        return self.memory.marks()

    async def amarks(self) -> frozenset[str]:
        """Return what `marks` is without blocking the loop on the state store."""
        import asyncio  # programs without a loop don't pay for it

        return await asyncio.to_thread(self.memory.marks)

    def mark(self, name: str, *, by: Principal | None = None) -> None:
        """Add a mark on the host's word, to this session and all that share it.

        It is recorded after it has taken effect, with who orders it, `by`.

        Raises:
            InvalidArgument: `name` is empty or no string, or `by` no Principal.
            StateError: the state store can't be asked.
            SinkError: the mark is set, but that couldn't be recorded.
        """
        self.authorizer.mark(self, name, by)

    async def amark(self, name: str, *, by: Principal | None = None) -> None:
        """Do what `mark` does without blocking the loop on a sink or the state store."""
        await self.authorizer.amark(self, name, by)

    def unmark(self, name: str, reason: str, *, by: Principal | None = None) -> bool:
        """Remove a mark on the host's word, from this session and all that share it; say whether it was there.

        That is recorded before it is done, with `reason` and who orders it, `by`.

        Raises:
            SinkError: it couldn't be recorded, so the mark stays.
            StateError: the state store can't be asked.
            InvalidArgument: `name` or `reason` is empty or no string, or `by` no Principal.
        """
        return self.authorizer.unmark(self, name, reason, by)

    async def aunmark(self, name: str, reason: str, *, by: Principal | None = None) -> bool:
        """Do what `unmark` does without blocking the loop on a sink or the state store."""
        return await self.authorizer.aunmark(self, name, reason, by)

    def close(self) -> None:
        """Close this handle, and so all that were delegated from it; doing it again changes nothing."""
        self._closed = True

    def ensure_running(self) -> None:
        """Raise `Stopped` where the session was closed, has expired or was revoked, or everything was halted.

        A party of its chain, or its token, may have been revoked too. It never waits for the state store.

        Raises:
            Stopped: the work must end now.
        """
        if (stop := self.fallen()) is not None:
            raise Stopped(f"this work may not go on (`{stop[1].code}`): stop here")
        if self.closed:
            raise Stopped("this session was closed: stop here")
        now = self.authorizer.now()
        if any(end <= now for end in ends(self)):
            raise Stopped("this session, or a delegation in it, has expired: stop here")

    def __enter__(self) -> Session:
        active = still_open(ACTIVE.get())
        if self.closed or self._entered != "no":
            raise SessionError(
                "a session is entered once, while it is open: make a new one, with the same `id=` to resume"
            )
        if active is not None and active.session is not self._parent:
            raise SessionError("another session is active here: leave it first, or delegate from it")
        self.before, self._entered = ACTIVE.get(), "yes"
        ACTIVE.set(self._here)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._entered = "left"
        active = ACTIVE.get()
        # in another context, or after an older session was left first, this one isn't current: leave it alone
        if active is not None and active.session is self:
            ACTIVE.set(still_open(self.before))

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
        # read once: threads may decide at the same time; a call is made before its past is asked for, if that is read
        known = self._bare if state is NOTHING_YET else self._facts
        started = self.memory.started  # the store may know of an earlier beginning, once it was asked
        if known is None or known[0] is not state or known[1] is not tracked or known[2].started is not started:
            facts = SessionFacts.trusted(
                self.id, started, self.expires, self.attributes,
                state.marks, state.began, state.done, tracked, self.ceiling,
            )  # fmt: skip
            known = state, tracked, facts
            if state is NOTHING_YET:
                self._bare = known
            else:
                self._facts = known
        return known[2]

    # ---- inline calls

    def decide(
        self,
        action: str,
        *,
        args: Mapping[str, object] | Unknown = NOTHING,
        resource: object = None,
        context: Mapping[str, object] = NOTHING,
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
        args: Mapping[str, object] | Unknown = NOTHING,
        resource: object = None,
        context: Mapping[str, object] = NOTHING,
    ) -> Decision:
        """Do what `decide` does without blocking the loop on a sink."""
        return (await self.authorizer.adecide_call(self, inline(action, args, resource, context))).decision

    def authorize(
        self,
        action: str,
        *,
        args: Mapping[str, object] | Unknown = NOTHING,
        resource: object = None,
        context: Mapping[str, object] = NOTHING,
    ) -> Decision:
        """Decide one call, record it, and raise unless it may happen now.

        Raises:
            Denied, ReviewRequired: the call may not happen (yet).
            InvalidArgument: an argument of the wrong type.
        """
        return self._insist(inline(action, args, resource, context))

    async def aauthorize(
        self,
        action: str,
        *,
        args: Mapping[str, object] | Unknown = NOTHING,
        resource: object = None,
        context: Mapping[str, object] = NOTHING,
    ) -> Decision:
        """Do what `authorize` does without blocking the loop on a sink."""
        return await self._ainsist(inline(action, args, resource, context))

    def _insist(self, call: Call) -> Decision:
        verdict = self.authorizer.decide_call(self, call)
        return allowed(repeatable(verdict, lambda approval: self._insist(evolve(call, approval=approval))))

    async def _ainsist(self, call: Call) -> Decision:
        verdict = await self.authorizer.adecide_call(self, call)
        return allowed(repeatable(verdict, lambda approval: self._ainsist(evolve(call, approval=approval))))

    def preview(
        self,
        action: str,
        *,
        args: Mapping[str, object] | Unknown = NOTHING,
        resource: object = None,
        context: Mapping[str, object] = NOTHING,
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
        args: Mapping[str, object] | Unknown = NOTHING,
        resource: object = None,
        context: Mapping[str, object] = NOTHING,
        state: State | None = None,
    ) -> Decision:
        """Do what `preview` does without blocking the loop on the state store."""
        return await self.authorizer.apreview_call(self, inline(action, args, resource, context), state)

    def perform(
        self,
        action: str,
        *,
        args: Mapping[str, object] | Unknown = NOTHING,
        resource: object = None,
        context: Mapping[str, object] = NOTHING,
    ) -> Performing:
        """Return a context manager that authorizes on entry and records the effect on exit.

        Entering raises what `authorize` raises, and `Stopped` where the session falls while handlers of obligations
        act; it works with ``with`` and ``async with``. One that is never entered warns, and closes the session.
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
        receiver does, which is itself the action `delegation.handoff`: a policy must allow it. The attempt
        is recorded before anything is passed on, and also where it is refused.

        Raises:
            WideningError: an action, purpose or expiry wider than this session's, or a 17th hop.
            Denied, ReviewRequired: the hand-off may not happen.
            SinkError: it couldn't be recorded, so nothing is passed on.
            SessionError: this session is closed.
            InvalidArgument: a malformed argument.
        """
        asked = Delegating.of(self, to, actions, purpose, expires, handoff)
        if asked.needs_leave:
            asked.heed(self.authorizer.decide_call(self, asked.leave()))
        return self._narrower(asked, self.authorizer.pass_on(self, asked.passing()))

    async def adelegate(
        self,
        to: Principal,
        actions: Iterable[str] | None = None,
        purpose: str | None = None,
        expires: Expiry | None = None,
        handoff: bool = False,
    ) -> Session:
        """Do what `delegate` does without blocking the loop on a sink."""
        asked = Delegating.of(self, to, actions, purpose, expires, handoff)
        if asked.needs_leave:
            asked.heed(await self.authorizer.adecide_call(self, asked.leave()))
        return self._narrower(asked, await self.authorizer.apass_on(self, asked.passing()))

    def _narrower(self, asked: Delegating, record_id: str | None) -> Session:
        chain = asked.chain()
        return Session(
            self.authorizer, self.memory, chain, id=self.id, purpose=self.purpose or chain.delegations[-1].purpose,
            expires=self.expires, attributes=self.attributes, context=self.context, route=self.route,
            token=self.token, parent=self, made_by=record_id,
        )  # fmt: skip

    def exchange(self, client: TokenExchangeClient, **asked: Unpack[NextHop]) -> ExchangedToken:
        """Return a token for the next hop: this session's own, exchanged at a token service for a narrower one.

        The client's party becomes the actor or, with `actor_token`, the party that this session was delegated to.
        `scope` left out asks for all of the token's scopes that the session still covers; the rest is as in
        `TokenExchangeRequest`. The exchange is itself the action `token.exchange` (arguments `audience`, `resource`,
        `scope`, `requested_token_type`, `authorization_details`): a policy must allow it here, as at the service.

        Raises:
            Denied, ReviewRequired: the exchange may not happen.
            WideningError: a scope that the session doesn't cover, or authorization details where it was narrowed.
            SessionError: the session was delegated further than the new token would show.
            SinkError: the delegation couldn't be recorded, so nothing was sent.
            ExchangeDenied, ExchangeProtocolError: the service refused, or answered what may not be relied on, such as
                a token that outlives this session where the session ends before its own token.
            InvalidArgument: the session rests on no token, or a malformed argument.
        """
        try:
            exchange = Exchanging.of(self, client, asked)
            with Performing(self, self.authorizer, exchange.call()) as decision:
                self.authorizer.pass_on(self, exchange.passing(decision.record_id))
                return exchange.within_life(client.exchange(exchange.request), decision)
        except REFUSALS as error:
            self.authorizer.pass_on(self, unexchanged(self, error))
            raise

    async def aexchange(self, client: TokenExchangeClient, **asked: Unpack[NextHop]) -> ExchangedToken:
        """Do what `exchange` does without blocking the loop."""
        try:
            exchange = Exchanging.of(self, client, asked)
            async with Performing(self, self.authorizer, exchange.call()) as decision:
                await self.authorizer.apass_on(self, exchange.passing(decision.record_id))
                return exchange.within_life(await client.aexchange(exchange.request), decision)
        except REFUSALS as error:
            await self.authorizer.apass_on(self, unexchanged(self, error))
            raise

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


def new_session_id() -> str:
    """Return an id that nobody can guess."""
    return secrets.token_urlsafe(18)
