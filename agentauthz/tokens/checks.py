"""Check what a token claims, once its signature is known to be genuine, and return it as a `VerifiedToken`.

Nothing here looks at keys, and nothing here is called with claims that aren't verified: only `Validator` calls it.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, cast

from agentauthz.errors import TokenError
from agentauthz.principals import Chain, Principal
from agentauthz.tokens.claims import MAX_MEMBER, chain_from_claims, confirmation_of, kind_of
from agentauthz.tokens.issuers import TokenLimits, TrustedIssuer
from agentauthz.tokens.jws import Jws
from agentauthz.tokens.strict import Json
from agentauthz.tokens.verified import TYPES, TokenKind, VerifiedToken, actions_of, never_revoked

_JWT: Final = ("iss", "sub", "aud", "exp", "iat")
_ACCESS: Final = (*_JWT, "jti", "client_id")

# RFC 9068 §2.2; OpenID Connect Core §2; for the last two the drafts that define them
REQUIRED: Final[Mapping[TokenKind, tuple[str, ...]]] = {
    "access": _ACCESS,
    "jwt": _ACCESS,
    "id": _JWT,
    "id-jag": _ACCESS,
    "txn": (*_JWT, "txn"),
}
INTROSPECTED: Final = (*_JWT, "client_id")  # RFC 7662 §2.2: the identifier of an opaque token is the token itself

# RFC 8725 §3.12: what makes a token of another kind, whatever its `typ` says
_FOREIGN: Final[Mapping[TokenKind, frozenset[str]]] = {
    "access": frozenset({"events"}),
    "jwt": frozenset({"events", "nonce", "at_hash", "c_hash"}),
    "id": frozenset({"events", "client_id", "scope", "act", "authorization_details"}),
    "id-jag": frozenset({"events"}),
    "txn": frozenset({"events"}),
}
_ONE_AUDIENCE: Final = frozenset({"id-jag", "txn"})

_SCOPE: Final = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")  # RFC 6749 §3.3


def check_type(jws: Jws, kind: TokenKind) -> None:
    """Check the header's `typ` (RFC 8725 §3.11), exactly.

    Raises:
        TokenError: `typ`.
    """
    if jws.typ not in TYPES[kind]:
        raise TokenError("typ", f"the token's `typ` is not that of the kind `{kind}`")


def verified_token(
    claims: dict[str, Json],
    *,
    issuer: TrustedIssuer,
    kind: TokenKind,
    limits: TokenLimits,
    now: float,
    raw: str,
    required: Iterable[str] | None = None,
    revoked: Callable[[], bool] | None = None,
) -> VerifiedToken:
    """Return what genuine claims say, after everything but their audience was checked; `now` is in seconds.

    Raises:
        TokenError: the name of the claim that is missing or malformed (`exp`, `sub`, `scope`, …), or `expired`,
            `not_yet_valid`, `lifetime`, `too_old`, `issuer`, `kind`, `act`, `actor_issuer`, `depth`, `cnf`,
            `scope_mapper`.
    """
    _check_kind(claims, issuer, kind, REQUIRED[kind] if required is None else required)
    issued, expires = _check_dates(claims, limits, now)
    audience = _audience(claims["aud"], one=kind in _ONE_AUDIENCE)
    client = _text(claims, "client_id") if "client_id" in claims else None
    scopes = _scopes(claims)
    chain = chain_from_claims(claims, subject=_subject(claims, issuer, client), limits=limits.act)
    _check_actor(chain, issuer)
    return VerifiedToken(
        kind=kind,
        issuer=issuer.issuer,
        chain=chain,
        audience=audience,
        scopes=scopes,
        actions=_actions(scopes or (), issuer),
        client_id=client,
        jti=_text(claims, "jti") if "jti" in claims else None,
        issued_at=dt.datetime.fromtimestamp(issued, dt.UTC),
        expires_at=dt.datetime.fromtimestamp(expires, dt.UTC),
        confirmation=confirmation_of(claims),
        authorization_details=_details(claims),
        claims=claims,
        raw=raw,
        revoked=revoked or never_revoked,
        admitted=True,  # by who calls: see `Validator`
    )


def check_audience(token: VerifiedToken, issuer: TrustedIssuer) -> None:
    """Check that a token is meant for this service (RFC 7519 §4.1.3, RFC 9068 §4).

    Raises:
        TokenError: `audience`.
    """
    if issuer.audiences.isdisjoint(token.audience):
        raise TokenError("audience", "the token is meant for another service")


def check_presented(token: VerifiedToken) -> None:
    """Check the `token_type` of an answer that has one (RFC 7662 §2.2): it must be that of such an access token.

    A refresh token is none, what is `N_A` can't be presented, and one of DPoP needs a key (RFC 9449 §6.2).

    Raises:
        TokenError: `token_type`.
    """
    said = token.claims.get("token_type", token.token_type)
    if not isinstance(said, str) or said.lower() not in {"bearer", token.token_type.lower()}:
        raise TokenError("token_type", "the token is of a type that it can't be presented as")


def check_still_valid(token: VerifiedToken, limits: TokenLimits, now: float) -> None:
    """Check again, for a token that was verified before, what time changes.

    Raises:
        TokenError: `expired` or `too_old`.
    """
    _check_end(token.issued_at.timestamp(), token.expires_at.timestamp(), limits, now)


def _check_kind(claims: Mapping[str, Json], issuer: TrustedIssuer, kind: TokenKind, required: Iterable[str]) -> None:
    for name in required:
        if name not in claims:
            raise TokenError(name, f"the token has no `{name}`")
    if claims["iss"] != issuer.issuer:
        raise TokenError("issuer", "the token is from another issuer")
    if not _FOREIGN[kind].isdisjoint(claims):
        raise TokenError("kind", f"the token has claims that none of the kind `{kind}` has")


def _check_dates(claims: Mapping[str, Json], limits: TokenLimits, now: float) -> tuple[float, float]:
    """Return `iat` and `exp`, of RFC 7519 §4.1, in seconds."""
    latest = now + limits.leeway.total_seconds()
    issued, expires = _date(claims, "iat"), _date(claims, "exp")
    starts = _date(claims, "nbf") if "nbf" in claims else issued
    if not 0 < expires - issued <= limits.max_lifetime.total_seconds():
        raise TokenError("lifetime", "the token's time from `iat` to `exp` is too long, or none")
    if issued > latest or starts > latest:
        raise TokenError("not_yet_valid", "the token is not valid yet")
    _check_end(issued, expires, limits, now)
    return issued, expires


def _check_end(issued: float, expires: float, limits: TokenLimits, now: float) -> None:
    leeway = limits.leeway.total_seconds()
    if now >= expires + leeway:
        raise TokenError("expired", "the token has expired")
    if now - issued > limits.max_age.total_seconds() + leeway:
        raise TokenError("too_old", "the token was issued too long ago")


def _date(claims: Mapping[str, Json], name: str) -> float:
    """Return a NumericDate (RFC 7519 §2): an integer or a fraction, from 0 on, never a text or a bool."""
    value = claims[name]
    if (type(value) is not int and type(value) is not float) or not 0 <= value < 1e11:
        raise TokenError(name, f"the token's `{name}` is no date: it must be a number of seconds")
    return value


def _text(claims: Mapping[str, Json], name: str) -> str:
    value = claims[name]
    if type(value) is not str or not 0 < len(value) <= MAX_MEMBER:
        raise TokenError(name, f"the token's `{name}` is no text, empty or too long")
    return value


def _audience(value: Json, *, one: bool) -> tuple[str, ...]:
    if type(value) is str and value:
        return (value,)
    found = value if isinstance(value, list) else [value]
    if not found or any(type(name) is not str or not name for name in found) or (one and len(found) > 1):
        raise TokenError("aud", "the token's `aud` must be a text, or a list of texts that is not empty")
    return cast("tuple[str, ...]", tuple(found))


def _scopes(claims: Mapping[str, Json]) -> tuple[str, ...] | None:
    if "scope" not in claims:
        return None
    value = claims["scope"]
    if type(value) is not str or _SCOPE.fullmatch(value) is None:
        raise TokenError("scope", "the token's `scope` must be one text of names with one space between them")
    return tuple(dict.fromkeys(value.split(" ")))


def _actions(scopes: tuple[str, ...], issuer: TrustedIssuer) -> tuple[str, ...]:
    if issuer.actions is None:
        return actions_of(scopes)
    try:
        found = [issuer.actions(scope) for scope in scopes]
        actions = tuple(dict.fromkeys(action for some in found for action in some))
    except Exception as cause:  # a mapper that fails permits nothing
        raise TokenError("scope_mapper", "the scopes couldn't be turned into actions") from cause
    if any(isinstance(some, str) for some in found) or any(type(action) is not str for action in actions):
        raise TokenError("scope_mapper", "the scopes were turned into something other than lists of actions")
    return actions


def _subject(claims: Mapping[str, Json], issuer: TrustedIssuer, client: str | None) -> Principal:
    sub = _text(claims, "sub")
    kind = kind_of(claims, "service" if sub == client else "user")  # RFC 9068 §2.2: a client that acts for itself
    attributes = {name: claims[name] for name in issuer.attributes if name in claims}
    return Principal(kind, sub, issuer.issuer, attributes)


def _check_actor(chain: Chain, issuer: TrustedIssuer) -> None:
    """Refuse a current actor of an issuer for which the token's own can't speak: each could name the other's agents."""
    named = chain.actor.issuer
    if named != issuer.issuer and named not in issuer.actor_issuers:
        raise TokenError("actor_issuer", "the token's issuer isn't trusted to name an actor of another issuer")


def _details(claims: Mapping[str, Json]) -> tuple[Mapping[str, object], ...]:
    """Return the `authorization_details` (RFC 9396 §2, §9.1): objects that each name their `type`."""
    if "authorization_details" not in claims:
        return ()
    value = claims["authorization_details"]
    if not isinstance(value, list):
        raise TokenError("authorization_details", "the token's `authorization_details` must be a list")
    for one in value:
        if not isinstance(one, dict) or not isinstance(one.get("type"), str) or not one["type"]:
            raise TokenError("authorization_details", "the token has `authorization_details` without a `type`")
    return tuple(MappingProxyType(cast("dict[str, object]", one)) for one in value)
