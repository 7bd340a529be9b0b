"""Write the claims of an issued token: each is set here or transcribed by name, and nothing else gets in.

RFC 8693 §4, RFC 9068 §2.2; the drafts of identity assertion grants (ID-JAG) and transaction tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final, cast, final

from attrs import frozen

from agentauthz.errors import ExchangeRefused
from agentauthz.principals import Chain, Principal
from agentauthz.sts.ceilings import Target
from agentauthz.sts.narrowing import Details
from agentauthz.sts.parties import Presenter, refused
from agentauthz.tokens.claims import MAX_ACT, extended_act, identity_claims, inherited_act
from agentauthz.tokens.revocation import LINEAGE, token_name
from agentauthz.tokens.strict import Json
from agentauthz.tokens.types import ACCESS_TOKEN, ID_JAG, JWT, TXN_TOKEN
from agentauthz.tokens.verified import VerifiedToken

# what neither a hook nor the transcription may set: this service's own words, and those of tokens of other kinds
RESERVED: Final = frozenset(
    {
        "iss", "sub", "sub_profile", "aud", "exp", "nbf", "iat", "jti", "act", "may_act", "scope", "client_id", "cnf",
        "authorization_details", "azp", "nonce", "at_hash", "c_hash", "s_hash", "sid", "events", "resource", "txn",
        "req_wl", "active", "token_type", "username", LINEAGE,
    }
)  # fmt: skip
HEADER_TYPES: Final[Mapping[str, str]] = {
    ACCESS_TOKEN: "at+jwt",
    JWT: "JWT",
    ID_JAG: "oauth-id-jag+jwt",
    TXN_TOKEN: "txntoken+jwt",
}
MAX_CLAIMS: Final = 10 * 1024  # bytes of JSON: what is larger makes a token that validators refuse

_encoded: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode

_CONTEXT: Final = ("tctx", "rctx")  # of a transaction: never changed


@final
@frozen(eq=False, repr=False)
class Grant:
    """Be what was granted, and still has to be decided on and signed; `expires` is in seconds since 1970."""

    issued_type: str
    token: VerifiedToken  # the subject's
    chain: Chain  # of the result
    actor: Principal
    impersonated: bool
    targets: tuple[Target, ...]
    scopes: list[str]
    details: Details
    expires: int

    @property
    def is_continuation(self) -> bool:
        """Say whether the actor is who acted already, so that `act` stays as it is (RFC 8693 §4.1)."""
        return self.chain.depth == self.token.chain.depth

    def names(self, by: str) -> list[str]:
        """Return the names of the targets by `audience`, or by `resource`."""
        return [target.name for target in self.targets if target.by == by]


def claims_of(
    grant: Grant,
    presenter: Presenter,
    *,
    issued_at: int,
    unique: str,
    transcribed: Iterable[str],
    extra: Mapping[str, object],
    lineage: int,
) -> dict[str, Json]:
    """Return the claims of the token for a grant. `unique` becomes its `jti`, `extra` are the hook's.

    Raises:
        ExchangeRefused: `lineage`, `act_too_large` or `token_too_large`; `server_error`, `reserved_claim` where
            `extra` has what isn't its to set.
    """
    token = grant.token
    copied = {name: cast(Json, token.claims[name]) for name in transcribed if name in token.claims}
    claims: dict[str, Json] = {
        **copied,
        **_checked_extra(extra),
        **identity_claims(grant.chain.subject),
        "iss": presenter.service,
        "iat": issued_at,
        "exp": grant.expires,
        "jti": unique,
        "client_id": presenter.client.id,
        "scope": " ".join(grant.scopes),
        **_of_type(grant, presenter, unique),
        LINEAGE: _lineage(token, lineage),
    }
    if not grant.impersonated:
        claims["act"] = _act(grant)
    if (confirmation := presenter.confirmation_for(token)) is not None:
        claims["cnf"] = cast("dict[str, Json]", confirmation.claim())
    if grant.details:
        claims["authorization_details"] = [dict(one) for one in grant.details]
    size = _size(claims)
    if size > MAX_ACT and not grant.is_continuation and _size(claims.get("act")) > MAX_ACT:
        raise refused("act_too_large")
    if size > MAX_CLAIMS:
        raise refused("token_too_large")
    return claims


def _size(value: Json) -> int:
    try:
        return len(_encoded(value).encode())
    except UnicodeEncodeError:  # half a character, which JSON can spell and UTF-8 can't
        raise refused("not_text") from None


def _of_type(grant: Grant, presenter: Presenter, unique: str) -> dict[str, Json]:
    """Return the claims that hang on what is issued: for whom it is, above all."""
    if grant.issued_type == ID_JAG:
        audience, resources = grant.names("audience")[0], grant.names("resource")
        there = next(target for target in grant.targets if target.name == audience)
        named: dict[str, Json] = {"aud": audience, "client_id": there.client_ids[presenter.client.id]}
        return {**named, "resource": list(resources)} if resources else named
    names = list(dict.fromkeys(target.name for target in grant.targets))
    audiences: dict[str, Json] = {"aud": names[0] if len(names) == 1 else list(names)}
    if grant.issued_type != TXN_TOKEN:
        return audiences
    before = cast("Mapping[str, Json]", grant.token.claims) if grant.token.kind == "txn" else {}
    context = {name: before[name] for name in _CONTEXT if name in before}
    return {**audiences, **context, "txn": before.get("txn", unique), "req_wl": presenter.client.id}


def _act(grant: Grant) -> dict[str, Json]:
    found = cast("Mapping[str, Json] | None", grant.token.claims.get("act"))
    inherited = None if found is None else inherited_act(found, grant.token.issuer)
    if inherited is not None and grant.is_continuation:
        return inherited
    return extended_act(inherited, grant.actor)


def _lineage(token: VerifiedToken, most: int) -> list[Json]:
    """Return the names of the tokens that the result comes from, the nearest first, so that revoking one revokes it."""
    before = token.claims.get(LINEAGE, [])
    if not isinstance(before, list) or not all(isinstance(name, str) for name in before) or len(before) >= most:
        raise refused("lineage")
    return [token_name(token), *before]


def _checked_extra(extra: Mapping[str, object]) -> dict[str, Json]:
    """Return the hook's claims as JSON of our own.

    Raises:
        ExchangeRefused: `server_error`, `reserved_claim`, or `customise` where they are no JSON object.
    """
    if not extra:
        return {}
    try:
        made = json.loads(json.dumps(dict(extra), allow_nan=False))
        named = all(isinstance(name, str) for name in extra)
    except Exception as cause:
        raise ExchangeRefused("server_error", "customise", status=500) from cause
    if not named:
        raise ExchangeRefused("server_error", "customise", status=500)
    if not RESERVED.isdisjoint(made):
        raise ExchangeRefused("server_error", "reserved_claim", status=500)
    return cast("dict[str, Json]", made)
