"""Say whether a token that the service issued still stands (RFC 7662), and take it back (RFC 7009)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Final, TypeAlias, final

from agentauthz.errors import ExchangeRefused, TokenError
from agentauthz.keys.signing import KeyRing
from agentauthz.principals import MAX_DEPTH
from agentauthz.sts.clients import Client
from agentauthz.sts.credentials import Pairs
from agentauthz.tokens.claims import ActLimits
from agentauthz.tokens.issuers import TokenLimits, TrustedIssuer
from agentauthz.tokens.revocation import Revocation
from agentauthz.tokens.sources import RingKeys
from agentauthz.tokens.validator import Validator
from agentauthz.tokens.verified import TokenKind, VerifiedToken

MayRevoke: TypeAlias = Callable[[Client, VerifiedToken], bool]
Revoke: TypeAlias = Callable[[VerifiedToken], None]

_KINDS: Final[tuple[TokenKind, ...]] = ("access", "jwt", "txn", "id-jag")  # what a token service issues
_LIMITS: Final = TokenLimits(act=ActLimits(MAX_DEPTH))  # whatever was issued here
# RFC 7662 §2.2, RFC 8693 §4.1 and §4.4, RFC 7800 §3, RFC 9396 §9.2: what is told of a token
_TOLD: Final = (
    "iss", "sub", "aud", "client_id", "scope", "exp", "iat", "nbf", "jti", "act", "may_act", "cnf",
    "authorization_details", "sub_profile", "auth_time", "acr", "amr",
)  # fmt: skip


def issued_to(client: Client, token: VerifiedToken) -> bool:
    """Say whether a token was issued to a client, which may then take it back (RFC 7009 §2.1).

    The `client_id` of an ID-JAG is a name at another server, so its actor tells.
    """
    if token.kind == "id-jag":
        return token.actor == client.principal(token.issuer)
    return token.client_id == client.id


@final
class Standing:
    """Answer for the tokens of one token service.

    `revocation` is asked whether a token was taken back, and `revoke` takes one back, for the two of a store.
    """

    def __init__(
        self,
        issuer: str,
        ring: KeyRing,
        *,
        revocation: Revocation | None,
        revoke: Revoke | None,
        may_revoke: MayRevoke = issued_to,
        clock: Callable[[], dt.datetime],
    ) -> None:
        own = TrustedIssuer(issuer, RingKeys(ring), token_kinds=_KINDS)
        self._standing: Final = Validator([own], limits=_LIMITS, revocation=revocation, clock=clock)
        self._genuine: Final = Validator([own], limits=_LIMITS, clock=clock)
        self._revoke: Final = revoke
        self._may_revoke: Final = may_revoke

    def described(self, pairs: Pairs, client: Client) -> dict[str, object]:
        """Return what a resource server is told of the token that it was given (RFC 7662 §2.2).

        `{"active": False}` for what is no access token, isn't genuine, has ended, was revoked, or is for none of the
        audiences that this client serves: nothing tells these apart (§2.2, §4).

        Raises:
            ExchangeRefused: `invalid_request`: no token, or a parameter twice.
        """
        text = _token(pairs)
        try:
            token = self._standing.genuine(text, kind="access")
        except TokenError:
            return {"active": False}
        if client.serves.isdisjoint(token.audience):
            return {"active": False}
        told = {name: token.claims[name] for name in _TOLD if name in token.claims}
        return {"active": True, "token_type": token.token_type, **told}

    def revoke(self, pairs: Pairs, client: Client) -> None:
        """Revoke a token, and with it all that were exchanged from it; one that isn't ours, or ended, is no error.

        Raises:
            ExchangeRefused: `invalid_request`: no token, or a parameter twice; `unauthorized_client`: another's
                token; `unsupported_token_type`: nothing is revoked here; `temporarily_unavailable` (503): it couldn't
                be revoked, and still stands (RFC 7009 §2.2.1).
        """
        token = self._found(_token(pairs))
        if self._revoke is None:
            raise ExchangeRefused("unsupported_token_type", "revocation_not_offered")
        if token is None:
            return
        if self._may_revoke(client, token) is not True:
            raise ExchangeRefused("unauthorized_client", "token_of_another")
        try:
            self._revoke(token)
        except Exception as cause:
            raise ExchangeRefused("temporarily_unavailable", "revocation_store", status=503) from cause

    def _found(self, text: str) -> VerifiedToken | None:
        for kind in _KINDS:
            try:
                return self._genuine.genuine(text, kind=kind)
            except TokenError:  # RFC 7009 §2.2: the client's purpose is reached already
                continue
        return None


def _token(pairs: Pairs) -> str:
    given = [(name, value) for name, value in pairs if value and name in ("token", "token_type_hint")]
    if len({name for name, _ in given}) != len(given):
        raise ExchangeRefused("invalid_request", "parameter_twice")
    token = dict(given).get("token")
    if token is None:
        raise ExchangeRefused("invalid_request", "token_missing")
    return token
