"""Ask for the next hop's token from within a session: no wider than the session, and with every hop to be seen."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping

from agentauthz.errors import ExchangeProtocolError, InvalidArgument, SessionError, WideningError
from agentauthz.principals import Chain, Delegation, includes, matches
from agentauthz.tokens.answer import ExchangedToken
from agentauthz.tokens.exchange import TokenExchangeRequest, check_scopes, texts
from agentauthz.tokens.verified import VerifiedToken, actions_of


def next_hop_request(
    token: VerifiedToken,
    chain: Chain,
    *,
    actor_token: VerifiedToken | None = None,
    scope: Iterable[str] | None = None,
    audience: Iterable[str] = (),
    resource: Iterable[str] = (),
    requested_token_type: str | None = None,
    authorization_details: Iterable[Mapping[str, object]] | None = None,
) -> TokenExchangeRequest:
    """Return the exchange of `token`, on which a session rests whose chain is `chain`.

    `scope` None asks for all of the token's scopes that the hops after it cover. Where the scopes are the names of
    actions, a hop covers those of its actions; where a mapper made the actions of them, all, or none if it narrows.

    Raises:
        WideningError: a scope that the token or a hop after it doesn't cover, or none that they do; authorization
            details after a hop that narrows, since no action says which of them are left.
        SessionError: the session was delegated further than the new token would show.
        InvalidArgument: an empty `scope`, an `actor_token` that isn't verified, or what `TokenExchangeRequest` refuses.
    """
    since = chain.delegations[token.chain.depth :]
    _check_shown(since, actor_token)
    if (authorization_details is not None or token.authorization_details) and _narrow(token, since):
        raise WideningError("it isn't known which authorization details this session still covers: exchange before it")
    return TokenExchangeRequest(
        subject_token=token,
        actor_token=actor_token,
        scope=_scope(token, since, scope),
        audience=audience,
        resource=resource,
        requested_token_type=requested_token_type,
        authorization_details=authorization_details,
    )


def arguments_of(request: TokenExchangeRequest) -> dict[str, object]:
    """Return the arguments of the action `token.exchange` for a request: all but the tokens."""
    return {
        "audience": list(request.audience),
        "resource": list(request.resource),
        "scope": list(request.scope),
        "requested_token_type": request.requested_token_type,
        "authorization_details": list(request.authorization_details or ()),
    }


def within_life(issued: ExchangedToken, ends: dt.datetime, now: dt.datetime) -> ExchangedToken:
    """Return what was issued where it ends by `ends`; the last moment that there is binds nothing.

    No exchange can ask for a shorter life (RFC 8693 §2.1), so what comes back is held to it.

    Raises:
        ExchangeProtocolError: `outlives`: it does, or nobody says when it ends.
    """
    if ends < dt.datetime.max.replace(tzinfo=dt.UTC):
        last = None if issued.expires_in is None else now + dt.timedelta(seconds=issued.expires_in)
        if issued.verified is not None:
            last = issued.verified.expires_at
        if last is None or last > ends:
            raise ExchangeProtocolError(
                "outlives", "the issued token outlives the session that asked for it, or what a policy allows"
            )
    return issued


def _check_shown(since: tuple[Delegation, ...], actor_token: VerifiedToken | None) -> None:
    """Refuse hops that the token service doesn't hear of: it adds the one party that asks, or that it has proof of."""
    if actor_token is not None and type(actor_token) is not VerifiedToken:
        raise InvalidArgument("actor_token", "must be a VerifiedToken: what `validator.verify(…)` returns")
    if not since:
        return
    if len(since) > 1:
        raise SessionError("this session was delegated more than once since its token: exchange one hop at a time")
    party = None if actor_token is None else actor_token.subject
    if party is None or (party.issuer, party.id) != (since[0].to.issuer, since[0].to.id):
        raise SessionError(f"this session was delegated to {since[0].to}: give a token of that party as `actor_token`")


def _scope(token: VerifiedToken, since: tuple[Delegation, ...], asked: Iterable[str] | None) -> tuple[str, ...]:
    if asked is not None:
        return _checked(token, since, asked)
    if token.scopes is None:
        if since:
            raise InvalidArgument("scope", "must be given: the session's token has none to be narrowed")
        return ()
    if not (kept := tuple(one for one in token.scopes if _covered(token, since, one))):
        raise WideningError("the session covers none of its token's scopes, so there is nothing to exchange")
    return kept


def _checked(token: VerifiedToken, since: tuple[Delegation, ...], asked: Iterable[str]) -> tuple[str, ...]:
    kept = texts("scope", asked)
    if not kept:
        raise InvalidArgument("scope", "must have at least one scope; leave it out to ask for all")
    check_scopes(kept)
    for one in kept:
        if (token.scopes is not None and one not in token.scopes) or not _covered(token, since, one):
            raise WideningError(f"the session doesn't cover the scope `{one}`, so it can't be passed on")
    return kept


def _covered(token: VerifiedToken, since: tuple[Delegation, ...], scope: str) -> bool:
    if token.actions != actions_of(token.scopes or ()):  # a mapper's: a scope isn't the action of its name
        return not _narrow(token, since)
    return all("*" in hop.actions or any(matches(one, scope) for one in hop.actions) for hop in since)


def _narrow(token: VerifiedToken, since: tuple[Delegation, ...]) -> bool:
    """Say whether some hop passes on less than all that the token permits."""
    return not all(
        "*" in hop.actions or all(any(includes(one, action) for one in hop.actions) for action in token.actions)
        for hop in since
    )
