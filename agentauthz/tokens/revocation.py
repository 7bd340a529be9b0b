"""Remember what was revoked: tokens, what descends from them, and what was issued to a party before a moment."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import threading
from collections.abc import Callable
from typing import Final, TypeAlias, cast, final

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys.jwk import KeySet
from agentauthz.principals import Principal
from agentauthz.tokens import jws
from agentauthz.tokens.issuers import MAX_LEEWAY, TrustedIssuer
from agentauthz.tokens.strict import Json
from agentauthz.tokens.verified import VerifiedToken
from agentauthz.values import utc

# True: revoked; False: it stands; None, or raising: not known, so the token is refused
Revocation: TypeAlias = Callable[[VerifiedToken], bool | None]

LINEAGE: Final = "agentauthz_lineage"  # private claim: `jti_hash` of each token that this one was exchanged from
SET_TYPE: Final = "secevent+jwt"  # RFC 8417 §2.3
_NAME: Final = re.compile(r"[0-9a-f]{64}")
_LATEST: Final = dt.datetime.max.replace(tzinfo=dt.UTC)

SESSION_REVOKED: Final = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"


def jti_hash(issuer: str, jti: str) -> str:
    """Return how a token is named outside of it: SHA-256, in hex, of its issuer and its `jti`."""
    return hashlib.sha256(f"{len(issuer)}:{issuer}{jti}".encode("utf-8", "surrogatepass")).hexdigest()


def token_name(token: VerifiedToken) -> str:
    """Return the name of a token: its `jti_hash`, or its fingerprint where it has no `jti`."""
    return token.fingerprint() if token.jti is None else jti_hash(token.issuer, token.jti)


def named(token: VerifiedToken | str) -> str:
    """Return the name of what is to be revoked: a token's, or the `jti_hash` itself where that is given.

    Raises:
        InvalidArgument: no token and no hash: a `jti` or a token's text would revoke nothing.
    """
    if isinstance(token, VerifiedToken):
        return token_name(token)
    if isinstance(token, str) and _NAME.fullmatch(token) is not None:
        return str.__str__(token)
    raise InvalidArgument("token", "must be a VerifiedToken, or the `jti_hash` of one")


def lineage(token: VerifiedToken) -> tuple[str, ...] | None:
    """Return the names of a token and of all that it was exchanged from; None: it doesn't say which those are."""
    ancestors = token.claims.get(LINEAGE, [])
    if not isinstance(ancestors, list) or not all(isinstance(name, str) for name in ancestors):
        return None
    return (token_name(token), *cast("list[str]", ancestors))


@final
class RevokedTokens:
    """Remember in this process what was revoked; give it to a `Validator` as `revocation`. Safe for threads.

    At most `max_entries` tokens and as many parties are remembered, a token until it has expired. Revoking more than
    fit makes every answer "not known", so that every token is refused, until what didn't fit has expired.
    `clock` returns a datetime with a zone.

    Raises:
        InvalidArgument: `max_entries` below 1.
    """

    def __init__(
        self,
        max_entries: int = 100_000,
        *,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        if type(max_entries) is not int or max_entries < 1:
            raise InvalidArgument("max_entries", "must be a number above zero")
        self._max: Final = max_entries
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._tokens: dict[str, dt.datetime] = {}  # until when each has to be remembered
        self._parties: dict[tuple[str | None, str], dt.datetime] = {}  # what was issued before is revoked
        self._unknown_until: dt.datetime | None = None

    def revoke(self, token: VerifiedToken | str, until: dt.datetime | None = None) -> None:
        """Refuse a token, and all that were exchanged from it, from now on.

        `token` is a verified one, or the `jti_hash` of one; then `until` says when it has expired at the latest.

        Raises:
            InvalidArgument: no token and no hash (a `jti` or a token's text would revoke nothing), a hash without
                `until`, or a moment without a zone.
        """
        name = named(token)
        end = utc(token.expires_at if until is None and isinstance(token, VerifiedToken) else until)
        if end is None:
            raise InvalidArgument("until", "must be a datetime with a time zone")
        end = min(end, _LATEST - MAX_LEEWAY) + MAX_LEEWAY
        with self._lock:
            self._forget()
            if name in self._tokens or len(self._tokens) < self._max:
                self._tokens[name] = max(end, self._tokens.get(name, end))
            else:
                self._unknown_until = max(end, self._unknown_until or end)

    def revoke_principal(self, principal: Principal, before: dt.datetime) -> None:
        """Refuse what was issued before a moment to a party, as subject or as any actor.

        The party is whoever has the same issuer and id, of any kind, as tokens name it.

        Raises:
            InvalidArgument: a moment without a zone, or no place for another party.
        """
        moment = utc(before)
        if moment is None:
            raise InvalidArgument("before", "must be a datetime with a time zone")
        key = (principal.issuer, principal.id)
        with self._lock:
            if key not in self._parties and len(self._parties) >= self._max:
                self._unknown_until = _LATEST
                raise InvalidArgument(
                    "principal", "can't be remembered: all places are taken, so all tokens are refused"
                )
            self._parties[key] = max(moment, self._parties.get(key, moment))

    def __call__(self, token: VerifiedToken) -> bool | None:
        """Say whether a token is revoked; None: not known."""
        if (names := lineage(token)) is None:
            return None
        with self._lock:
            if any(name in self._tokens for name in names):
                return True
            if any(self._ended(party, token.issued_at) for party in _parties(token)):
                return True
            return None if self._unknown_until is not None and self._unknown_until > self._clock() else False

    def _ended(self, party: Principal, issued_at: dt.datetime) -> bool:
        before = self._parties.get((party.issuer, party.id))
        return before is not None and issued_at < before

    def _forget(self) -> None:
        if len(self._tokens) >= self._max:
            now = self._clock()
            self._tokens = {name: end for name, end in self._tokens.items() if end > now}


def _parties(token: VerifiedToken) -> list[Principal]:
    return [token.chain.subject, *(hop.to for hop in token.chain.delegations)]


def session_revoked(
    text: str,
    issuer: TrustedIssuer,
    *,
    clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> tuple[Principal, dt.datetime]:
    """Verify a `session-revoked` event (CAEP 1.0 §3.1, in a SET of RFC 8417), and return whose sessions ended when.

    Give the two to `RevokedTokens.revoke_principal`. The event has to be for one of the issuer's `audiences`, and to
    name its subject by `iss` and `sub` (RFC 9493 §3.2.4), in `sub_id` or as the `user` of one. It may read the keys
    over the network, so it blocks.

    Raises:
        TokenError: as for a token, or `event`: it is no such event, has no such subject, or lies in the future.
    """
    opened = jws.parse(text)
    claims = opened.claims()
    if opened.typ not in (SET_TYPE, f"application/{SET_TYPE}") or claims.get("iss") != issuer.issuer:
        raise TokenError("event", "this is no event of the issuer that it is expected from")
    keys = issuer.keys if isinstance(issuer.keys, KeySet) else issuer.keys.keys(opened.key_id)
    jws.verify(opened, keys, issuer.algorithms)
    audience = claims.get("aud")
    if issuer.audiences.isdisjoint(str(name) for name in (audience if isinstance(audience, list) else [audience])):
        raise TokenError("audience", "the event is meant for another service")
    return _whose(claims), _when(claims, clock())


def _event(claims: dict[str, Json]) -> dict[str, Json]:
    events = claims.get("events")
    event = events.get(SESSION_REVOKED) if isinstance(events, dict) else None
    if not isinstance(event, dict):
        raise TokenError("event", "the event doesn't say that sessions were revoked")
    return event


def _whose(claims: dict[str, Json]) -> Principal:
    named = claims.get("sub_id", _event(claims).get("subject"))  # the place before CAEP 1.0 was final
    if isinstance(named, dict) and named.get("format") == "complex":
        named = named.get("user")
    if not isinstance(named, dict) or named.get("format") != "iss_sub":
        raise TokenError("event", "the event doesn't name its subject by `iss` and `sub`")
    issuer, sub = named.get("iss"), named.get("sub")
    if not isinstance(issuer, str) or not issuer or not isinstance(sub, str) or not sub:
        raise TokenError("event", "the event doesn't name its subject by `iss` and `sub`")
    return Principal.user(sub, issuer=issuer)


def _when(claims: dict[str, Json], now: dt.datetime) -> dt.datetime:
    moment = _event(claims).get("event_timestamp", claims.get("iat"))
    latest = (now + MAX_LEEWAY).timestamp()
    if (type(moment) is not int and type(moment) is not float) or not 0 <= cast(float, moment) <= latest:
        raise TokenError("event", "the event has no time, or one in the future")
    return dt.datetime.fromtimestamp(cast(float, moment), dt.UTC)
