"""Turn the text of a token into a `VerifiedToken`, or raise: the one way in for resource servers and token services.

Reading keys and asking introspection are the only steps that may wait. Each public method has an async twin, and both
are made of the same steps, none of which does any input or output.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, final

from attrs import define, evolve

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys.jwk import KeySet
from agentauthz.tokens import jws
from agentauthz.tokens.cache import Cache, Known
from agentauthz.tokens.checks import (
    INTROSPECTED,
    check_audience,
    check_presented,
    check_still_valid,
    check_type,
    verified_token,
)
from agentauthz.tokens.confirmation import confirm
from agentauthz.tokens.dpop import DpopVerifier
from agentauthz.tokens.issuers import LIMITS, TokenLimits, TrustedIssuer
from agentauthz.tokens.once import Once
from agentauthz.tokens.presented import Presented, presented
from agentauthz.tokens.revocation import Revocation, token_name
from agentauthz.tokens.strict import Json
from agentauthz.tokens.verified import TYPES, TokenKind, VerifiedToken
from agentauthz.values import told_by

if TYPE_CHECKING:
    from agentauthz.tokens.introspection import Introspector


@final
@define(eq=False, repr=False)
class _Opened:
    """Be a token whose issuer is known and whose keys are needed; `known` where it was verified before."""

    raw: str
    kind: TokenKind
    issuer: TrustedIssuer
    key_id: str | None
    signed: jws.Jws | None = None
    claims: dict[str, Json] | None = None
    known: Known | None = None


@final
@define(eq=False, repr=False)
class _Standing:
    """Ask a revocation hook about one token, whenever it is called."""

    hook: Revocation
    token: VerifiedToken | None = None

    def __call__(self) -> bool:
        """Say whether the token was revoked.

        Raises:
            TokenError: `revocation_unavailable`: the hook doesn't know, or raised.
        """
        try:
            answer = None if self.token is None else self.hook(self.token)
        except Exception as cause:
            raise TokenError("revocation_unavailable", "it isn't known whether the token was revoked") from cause
        if type(answer) is not bool:
            raise TokenError("revocation_unavailable", "it isn't known whether the token was revoked")
        return answer


@final
class Validator:
    """Verify tokens of trusted issuers. Safe for threads and tasks; make one and keep it.

    `replay` makes every token count once. `revocation` is asked for every token, again by `VerifiedToken.revoked` at
    each decision, and must not block. `dpop` checks the proofs of tokens that are bound to a key: without it they are
    refused. `introspection` is asked about tokens that aren't in the compact form of JWS, and about no others.
    `require_actor` refuses tokens without `act`. `cache` is how many verified tokens are kept at most, by the hash of
    their text, until they expire or their key is gone; they are still checked for audience, proof, replay and
    revocation. Whoever presents the text again gets the same object: change nothing within its claims.
    `clock` returns a datetime with a zone.

    Raises:
        InvalidArgument: no issuer, two of one name, or introspection at one that isn't among them.
    """

    def __init__(
        self,
        issuers: Iterable[TrustedIssuer],
        *,
        limits: TokenLimits = LIMITS,
        replay: Once | None = None,
        revocation: Revocation | None = None,
        dpop: DpopVerifier | None = None,
        introspection: Introspector | None = None,
        require_actor: bool = False,
        cache: int = 0,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._issuers: Final = _by_name(issuers)
        if introspection is not None and self._issuers.get(introspection.issuer.issuer) is not introspection.issuer:
            raise InvalidArgument("introspection", "must ask one of the issuers: give it the same TrustedIssuer")
        self._limits: Final = limits
        self._replay: Final = replay
        self._revocation: Final = revocation
        self._dpop: Final = dpop
        self._introspection: Final = introspection
        self._require_actor: Final = require_actor
        self._cache: Final = Cache(cache)
        self._clock: Final = clock

    def verify(
        self,
        token: str,
        *,
        kind: TokenKind = "access",
        method: str | None = None,
        uri: str | None = None,
        dpop: str | Sequence[str] | None = None,
        peer_cert: bytes | None = None,
    ) -> VerifiedToken:
        """Return what a token says, if everything about it is in order.

        `method`, `uri` and `dpop`, the `DPoP` headers, are those of the request that presents it (RFC 9449 §4.3), and
        `peer_cert` is the certificate that its connection was made with (RFC 8705 §3), in DER or PEM.

        Raises:
            TokenError: anything is not; `reason` says what, for records and logs only.
        """
        found = self._genuine(token, kind)
        return self._admit(found, method, uri, dpop, peer_cert)

    async def averify(
        self,
        token: str,
        *,
        kind: TokenKind = "access",
        method: str | None = None,
        uri: str | None = None,
        dpop: str | Sequence[str] | None = None,
        peer_cert: bytes | None = None,
    ) -> VerifiedToken:
        """Do what `verify` does without blocking the loop on keys or introspection."""
        found = await self._agenuine(token, kind)
        return self._admit(found, method, uri, dpop, peer_cert)

    def authenticate(
        self, headers: Iterable[tuple[str, str]], *, method: str, uri: str, peer_cert: bytes | None = None
    ) -> VerifiedToken:
        """Return what the access token of a request's headers says: `Authorization`, as Bearer or DPoP, and `DPoP`.

        `uri` is the URL that the client called, as it sees it from outside.

        Raises:
            TokenError: as for `verify`; `missing`: no `Authorization`; `request`: several, or of another scheme;
                `dpop_missing`: a token that is bound to a key came as a mere bearer token (RFC 9449 §7.2).
        """
        given = presented(headers)
        found = self._genuine(given.token, "access")
        return self._authenticated(found, given, method, uri, peer_cert)

    async def aauthenticate(
        self, headers: Iterable[tuple[str, str]], *, method: str, uri: str, peer_cert: bytes | None = None
    ) -> VerifiedToken:
        """Do what `authenticate` does without blocking the loop on keys or introspection."""
        given = presented(headers)
        found = await self._agenuine(given.token, "access")
        return self._authenticated(found, given, method, uri, peer_cert)

    def genuine(self, token: str, *, kind: TokenKind) -> VerifiedToken:
        """Return what a token says without regard to its audience, to proofs of its key, and to replay.

        For a token service, which checks those itself; a resource server calls `verify`. No session can rest on it.

        Raises:
            TokenError: as for `verify`.
        """
        return _not_admitted(_unrevoked(self._genuine(token, kind)))

    async def agenuine(self, token: str, *, kind: TokenKind) -> VerifiedToken:
        """Do what `genuine` does without blocking the loop on keys or introspection."""
        return _not_admitted(_unrevoked(await self._agenuine(token, kind)))

    # ---- the steps, in their order

    def _genuine(self, token: str, kind: TokenKind) -> VerifiedToken:
        if (asked := self._opaque(token, kind)) is not None:
            return self._introspected(token, kind, asked.issuer, asked.claims(token))
        opened = self._open(token, kind)
        keys = opened.issuer.keys
        return self._settle(opened, keys if isinstance(keys, KeySet) else keys.keys(opened.key_id))

    async def _agenuine(self, token: str, kind: TokenKind) -> VerifiedToken:
        if (asked := self._opaque(token, kind)) is not None:
            return self._introspected(token, kind, asked.issuer, await asked.aclaims(token))
        opened = self._open(token, kind)
        keys = opened.issuer.keys
        return self._settle(opened, keys if isinstance(keys, KeySet) else await keys.akeys(opened.key_id))

    def _opaque(self, token: str, kind: TokenKind) -> Introspector | None:
        """Return what to ask about a token that isn't signed in compact form; None: it is, or there is nothing."""
        if self._introspection is None or kind != "access" or not isinstance(token, str):
            return None
        return None if jws.is_compact(token) else self._introspection

    def _open(self, token: str, kind: TokenKind) -> _Opened:
        """Return a token with its issuer; nothing in it is relied on yet but to find the keys."""
        if not isinstance(kind, str) or kind not in TYPES:
            raise InvalidArgument("kind", f"must be one of {', '.join(TYPES)}")
        if self._cache.size and (known := self._cache.get(token, kind)) is not None:
            return _Opened(token, kind, known.issuer, known.key_id, known=known)
        signed = jws.parse(token)
        claims = signed.claims()
        issuer = self._issuer(claims.get("iss"), kind)
        check_type(signed, kind)
        return _Opened(token, kind, issuer, signed.key_id, signed, claims)

    def _issuer(self, name: Json, kind: TokenKind) -> TrustedIssuer:
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise TokenError("issuer", "the token is from an issuer that isn't trusted")
        if kind not in issuer.token_kinds:
            raise TokenError("kind", f"the token's issuer isn't trusted for tokens of the kind `{kind}`")
        return issuer

    def _settle(self, opened: _Opened, keys: KeySet) -> VerifiedToken:
        """Verify the signature and the claims, unless that was done before with a key that still is the issuer's."""
        now = told_by(self._clock).timestamp()
        if (known := opened.known) is not None and any(known.signed_by(key) for key in keys.keys):
            check_still_valid(known.token, self._limits, now)
            return known.token
        signed = opened.signed or jws.parse(opened.raw)
        key = jws.verify(signed, keys, opened.issuer.algorithms)
        claims = signed.claims() if opened.claims is None else opened.claims
        token = self._checked(claims, opened.issuer, opened.kind, opened.raw, now)
        if self._cache.size:
            self._cache.put(Known(token, opened.issuer, opened.key_id, key), now)
        return token

    def _introspected(
        self, token: str, kind: TokenKind, issuer: TrustedIssuer, claims: Mapping[str, Json]
    ) -> VerifiedToken:
        if kind not in issuer.token_kinds:
            raise TokenError("kind", f"the token's issuer isn't trusted for tokens of the kind `{kind}`")
        named = {"iss": issuer.issuer, **claims}
        found = self._checked(named, issuer, kind, token, told_by(self._clock).timestamp(), INTROSPECTED)
        check_presented(found)
        return found

    def _checked(
        self,
        claims: dict[str, Json],
        issuer: TrustedIssuer,
        kind: TokenKind,
        raw: str,
        now: float,
        required: Iterable[str] | None = None,
    ) -> VerifiedToken:
        standing = None if self._revocation is None else _Standing(self._revocation)
        found = verified_token(
            claims,
            issuer=issuer,
            kind=kind,
            limits=self._limits,
            now=now,
            raw=raw,
            required=required,
            revoked=standing,
        )
        if standing is not None:
            standing.token = found
        if self._require_actor and not found.chain.delegations:
            raise TokenError("actor_required", "the token has no `act`, and who acts is never inferred")
        return found

    def _authenticated(
        self, token: VerifiedToken, given: Presented, method: str, uri: str, peer_cert: bytes | None
    ) -> VerifiedToken:
        if given.scheme != token.token_type.lower():
            if given.scheme == "bearer":
                raise TokenError("dpop_missing", "the token is bound to a key, and came without proof of it")
            raise TokenError("dpop_unbound", "the token isn't bound to the key that there is a proof of")
        return self._admit(token, method, uri, given.proofs, peer_cert)

    def _admit(
        self,
        token: VerifiedToken,
        method: str | None,
        uri: str | None,
        dpop: str | Sequence[str] | None,
        peer_cert: bytes | None,
    ) -> VerifiedToken:
        """Check what belongs to this presentation: audience, standing, proofs, and last, as it is used up, replay."""
        check_audience(token, self._issuers[token.issuer])
        _unrevoked(token)  # after the audience: nobody is asked about a token that was for somebody else
        confirm(
            token.confirmation,
            token.reveal(),
            verifier=self._dpop,
            proofs=dpop,
            method=method,
            uri=uri,
            peer_certificate=peer_cert,
        )
        self._check_replay(token)
        return token

    def _check_replay(self, token: VerifiedToken) -> None:
        if self._replay is None:
            return
        try:
            first = self._replay.once(f"token:{token_name(token)}", token.expires_at + 2 * self._limits.leeway)
        except Exception as cause:
            raise TokenError("replay_unavailable", "it isn't known whether the token was used before") from cause
        if first is not True:
            raise TokenError("replayed", "the token was used before, and counts once")

    def __repr__(self) -> str:
        return f"Validator({', '.join(map(repr, self._issuers))})"


def _by_name(issuers: Iterable[TrustedIssuer]) -> dict[str, TrustedIssuer]:
    given = list(issuers)
    if not given or any(type(issuer) is not TrustedIssuer for issuer in given):
        raise InvalidArgument("issuers", "must be at least one TrustedIssuer")
    found = {issuer.issuer: issuer for issuer in given}
    if len(found) != len(given):
        raise InvalidArgument("issuers", "must each have a name of their own")
    return found


def _unrevoked(token: VerifiedToken) -> VerifiedToken:
    if token.revoked():
        raise TokenError("revoked", "the token was revoked")
    return token


def _not_admitted(token: VerifiedToken) -> VerifiedToken:
    # SECURITY: within the validator all tokens are as `verify` returns them, which is what most ask for; each way out
    # either admits the token or passes here
    return evolve(token, admitted=False)
