"""Take one attempt to pass a session's authority on from what is asked to what is recorded and made of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, TypedDict, cast, final

from attrs import define, evolve, frozen

from agentauthz.calls import NOTHING, Call, Expiry, Verdict, allowed, inline, moment, refusal
from agentauthz.decision import Decision, Outcome, Reason
from agentauthz.errors import AgentAuthzError, Denied, InvalidArgument, ReviewRequired, SessionError, WideningError
from agentauthz.obligations.expiring import NEVER, shortens_life, shortest
from agentauthz.principals import Chain, Delegation, Principal, narrowed
from agentauthz.records.passing import Passing

if TYPE_CHECKING:
    from agentauthz.session import Session
    from agentauthz.tokens.answer import ExchangedToken
    from agentauthz.tokens.exchange import TokenExchangeRequest
    from agentauthz.tokens.verified import VerifiedToken

PASSING: Final = "delegation.pass"  # what passing authority on is called where it has no action of its own
REFUSALS: Final = (WideningError, SessionError, Denied, ReviewRequired)  # of an exchange, before anything is sent


@final
@define(eq=False)
class Delegating:
    """Be a delegation that is asked of a session; `error` is what refuses it, once something does.

    `hop` is what is passed on, or was asked for; `cause` the id of the decision that a hand-off needs.
    """

    session: Session
    to: Principal
    hop: Delegation | None
    error: AgentAuthzError | None = None
    cause: str | None = None

    @classmethod
    def of(
        cls,
        session: Session,
        to: Principal,
        actions: Iterable[str] | None,
        purpose: str | None,
        expires: Expiry | None,
        handoff: bool,
    ) -> Delegating:
        """Return the attempt; where it asks for more than the session holds, it is refused.

        Raises:
            SessionError: the session is closed.
            InvalidArgument: a malformed argument.
        """
        if session.closed:
            raise SessionError("this session is closed, so nothing can be delegated from it")
        ends = None if expires is None else moment(expires, session.authorizer.now())
        given = actions if actions is None or isinstance(actions, str) else tuple(actions)
        try:
            hop = _hop(session, to, given, purpose, ends)
            longer = session.chain.extend(hop)
        except WideningError as error:
            asked = _held(session) if given is None else given
            hop_asked = Delegation(to, asked, purpose, ends, handoff) if asked else None
            return cls(session, to, hop_asked, error)
        if (stop := session.fallen(longer)) is not None:
            denial = Decision(Outcome.DENY, stop[0], PASSING, reasons=(stop[1],))
            return cls(session, to, hop, Denied(refusal(denial), denial))
        return cls(session, to, evolve(hop, handoff=True, via="session") if handoff else hop)

    @property
    def needs_leave(self) -> bool:
        """Say whether a policy must allow it: it is a hand-off that nothing else refuses."""
        return self.error is None and self.hop is not None and self.hop.handoff

    def leave(self) -> Call:
        """Return the call that a policy must allow."""
        hop = cast(Delegation, self.hop)
        arguments = {"to": self.to, "actions": list(hop.actions), "purpose": hop.purpose}
        return inline("delegation.handoff", arguments, None, NOTHING)

    def heed(self, verdict: Verdict) -> None:
        """Be refused where the policy didn't allow it."""
        self.cause = verdict.decision.record_id
        try:
            allowed(verdict)
        except (Denied, ReviewRequired) as error:
            self.error = error

    def passing(self) -> Passing:
        """Return what is recorded."""
        reason = None if self.error is None else _reason(self.error)
        return Passing("session", self.session.chain, self.to, self.hop, reason=reason, cause=self.cause)

    def chain(self) -> Chain:
        """Return the chain of who was delegated to.

        Raises:
            WideningError, Denied, ReviewRequired: it is refused.
        """
        if self.error is not None:
            raise self.error
        return self.session.chain.extend(cast(Delegation, self.hop))


class NextHop(TypedDict, total=False):
    """Be what `Session.exchange` may be given beside the client; `actor_token` is verified."""

    actor_token: VerifiedToken | None
    scope: Iterable[str] | None
    audience: Iterable[str]
    resource: Iterable[str]
    requested_token_type: str | None
    authorization_details: Iterable[Mapping[str, object]] | None


@final
@frozen
class Exchanging:
    """Be an exchange of the token that a session rests on, for the next hop's."""

    session: Session
    token: VerifiedToken
    request: TokenExchangeRequest

    @classmethod
    def of(cls, session: Session, client: object, asked: NextHop) -> Exchanging:
        """Return the exchange that is asked for.

        Raises:
            WideningError, SessionError, InvalidArgument: as `Session.exchange`.
        """
        from agentauthz.tokens.client import TokenExchangeClient
        from agentauthz.tokens.next_hop import next_hop_request

        if type(client) is not TokenExchangeClient:
            raise InvalidArgument("client", "must be a TokenExchangeClient")
        if session.token is None:
            raise InvalidArgument("session", "rests on no token that could be exchanged: make it with `token=`")
        return cls(session, session.token, next_hop_request(session.token, session.chain, **asked))

    def call(self) -> Call:
        """Return the call that it is; what this obliges to of the new token's life, `within_life` sees to."""
        from agentauthz.tokens.next_hop import arguments_of

        call = inline("token.exchange", arguments_of(self.request), None, NOTHING)
        call.carries_out = shortens_life
        return call

    def passing(self, cause: str | None) -> Passing:
        """Return what is recorded before anything is sent, which the decision `cause` allows."""
        asked = self.request
        to = None if asked.actor_token is None else cast("VerifiedToken", asked.actor_token).subject
        return Passing(
            "exchange", self.session.chain, to, scopes=asked.scope, audience=(*asked.audience, *asked.resource),
            token=named(self.session), cause=cause,
        )  # fmt: skip

    def within_life(self, issued: ExchangedToken, decision: Decision) -> ExchangedToken:
        """Return what was issued where it outlives neither the session nor what the policies oblige to.

        Raises:
            ExchangeProtocolError: it does.
        """
        from agentauthz.tokens.next_hop import within_life

        last, now = min(ends(self.session)), self.session.authorizer.now()
        own = NEVER if last >= self.token.expires_at else last
        return within_life(issued, shortest(own, now, decision.obligations), now)


def ends(session: Session) -> list[dt.datetime]:
    """Return when a session ends, and each delegation in it, as far as they do."""
    return [end for end in (session.expires, *(hop.expires for hop in session.chain.delegations)) if end is not None]


def unexchanged(session: Session, error: AgentAuthzError) -> Passing:
    """Return what is recorded of an exchange that was refused before anything was sent."""
    decided = error.decision if isinstance(error, Denied | ReviewRequired) else None
    cause = None if decided is None else decided.record_id
    return Passing("exchange", session.chain, token=named(session), reason=_reason(error), cause=cause)


def brought(session: Session) -> Passing:
    """Return what is recorded of the chain that a token brings into a session."""
    token = cast("VerifiedToken", session.token)
    return Passing("token", session.chain, scopes=token.actions, audience=token.audience, token=named(session))


def named(session: Session) -> str | None:
    """Return how a session's token is named outside of it, which tells nothing of it; None: there is none."""
    if session.token is None:
        return None
    from agentauthz.tokens.revocation import token_name  # who has no token doesn't load what verifies them

    return token_name(session.token)


def _reason(error: AgentAuthzError) -> Reason:
    """Return why a delegation is refused; of a decision its first reason."""
    if isinstance(error, Denied | ReviewRequired) and error.decision is not None and error.decision.reasons:
        first = error.decision.reasons[0]
        return Reason(first.code, first.text)
    return Reason(error.code, str(error))


def _held(session: Session) -> tuple[str, ...]:
    """Return the actions that a session could pass on."""
    if session.chain.delegations:
        return session.chain.delegations[-1].actions
    return ("*",) if session.ceiling is None else session.ceiling


def _hop(
    session: Session, to: Principal, actions: Iterable[str] | None, purpose: str | None, expires: dt.datetime | None
) -> Delegation:
    if session.purpose is not None and purpose is not None and purpose != session.purpose:
        raise WideningError("this session has another purpose, so it can't be delegated for that one")
    if session.expires is not None and expires is not None and expires > session.expires:
        raise WideningError("this session ends before the delegation that was asked for")
    if not session.chain.delegations:
        return Delegation(to, narrowed(_held(session), actions, "this session's token"), purpose, expires)
    kept = session.chain.delegations[-1].narrower(actions=actions, purpose=purpose, expires=expires)
    return Delegation(to, *kept)
