"""Ask for the next hop's token from within a session: no wider than the session, and with every hop to be seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agentauthz.errors import InvalidArgument, SessionError, WideningError
from agentauthz.principals import Chain, Delegation, matches
from agentauthz.tokens.exchange import TokenExchangeRequest
from agentauthz.tokens.verified import VerifiedToken


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

    `scope` None asks for all of the token's scopes that the hops after it cover, of which each is taken for the
    name of an action.

    Raises:
        WideningError: a scope that the token or a hop after it doesn't cover, or none that they do.
        SessionError: the session was delegated further than the new token would show.
        InvalidArgument: an empty `scope`, or what `TokenExchangeRequest` refuses.
    """
    since = chain.delegations[token.chain.depth :]
    _check_shown(since, actor_token)
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


def _check_shown(since: tuple[Delegation, ...], actor_token: VerifiedToken | None) -> None:
    """Refuse hops that the token service doesn't hear of: it adds the one party that asks, or that it has proof of."""
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
    if not (kept := tuple(one for one in token.scopes if _covered(since, one))):
        raise WideningError("the session covers none of its token's scopes, so there is nothing to exchange")
    return kept


def _checked(token: VerifiedToken, since: tuple[Delegation, ...], asked: Iterable[str]) -> tuple[str, ...]:
    kept = (asked,) if isinstance(asked, str) else tuple(asked)
    if not kept or isinstance(asked, str):
        raise InvalidArgument("scope", "must be a list of at least one scope; leave it out to ask for all")
    for one in kept:
        if (token.scopes is not None and one not in token.scopes) or not _covered(since, one):
            raise WideningError(f"the session doesn't cover the scope `{one}`, so it can't be passed on")
    return kept


def _covered(since: tuple[Delegation, ...], scope: str) -> bool:
    return all("*" in hop.actions or any(matches(one, scope) for one in hop.actions) for hop in since)
