"""Ask an authorization server what a token says, where that can't be read off it (RFC 7662)."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias, final
from urllib.parse import quote_plus, urlencode

from agentauthz.errors import InvalidArgument, TokenError, TransportError
from agentauthz.tokens.jws import MAX_TOKEN
from agentauthz.tokens.strict import Json, json_object
from agentauthz.tokens.transport import (
    MAX_BODY,
    AsyncTransport,
    HttpRequest,
    HttpResponse,
    HttpxTransport,
    Transport,
)
from agentauthz.urls import checked_url
from agentauthz.values import told_by

if TYPE_CHECKING:
    from agentauthz.tokens.issuers import TrustedIssuer
    from agentauthz.tokens.verified import VerifiedToken

DEFAULT_TTL: Final = dt.timedelta(seconds=30)
MAX_TTL: Final = dt.timedelta(minutes=5)  # for so long, at the most, a revocation goes unnoticed
MAX_ENTRIES: Final = 10_000

_TOKEN: Final = re.compile(r"[\x21-\x7e]+")  # RFC 6749 appendix A.12, without the space


@final
class Introspector:
    """Be an issuer's introspection endpoint, asked with this service's own credentials. Safe for threads and loops.

    `auth` is (client id, client secret), sent as RFC 6749 §2.3.1 says. What is said of an active token is kept
    under the token's SHA-256 for `cache_ttl`, at most 5 minutes, and never past its `exp`; zero keeps nothing.
    Anything but a clear yes is an error. A `transport` of one's own must keep a deadline and follow no redirect.

    Raises:
        InvalidArgument: an address that is not https (see `checked_url`), credentials that aren't two texts, a
            `cache_ttl` outside its bounds, or httpx is missing.
    """

    def __init__(
        self,
        endpoint: str,
        issuer: TrustedIssuer,
        *,
        auth: tuple[str, str],
        transport: Transport | None = None,
        async_transport: AsyncTransport | None = None,
        cache_ttl: dt.timedelta = DEFAULT_TTL,
        max_entries: int = MAX_ENTRIES,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        loopback_http: bool = False,
    ) -> None:
        self.issuer: Final = issuer
        self._endpoint: Final = checked_url("endpoint", endpoint, loopback_http=loopback_http)
        self._headers: Final = (
            ("Authorization", _basic(auth)),
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Accept", "application/json"),
        )
        if transport is None and async_transport is None:
            over_httpx = HttpxTransport(loopback_http=loopback_http)
            transport, async_transport = over_httpx, over_httpx.aio
        self._transport: Final = transport
        self._async_transport: Final = async_transport
        self._clock: Final = clock
        self._answers: Final = _Answers(cache_ttl, max_entries)

    def claims(self, token: str) -> dict[str, Json]:
        """Return what the issuer says of an active token, the answer's members; `iss` is always there.

        `act`, `may_act` and `cnf` are as the issuer gave them (RFC 8693 §4.1, §4.4; RFC 8705 §3.2).

        Raises:
            TokenError: `inactive`, `expired`, `issuer`; `malformed` or `too_large`: what can't be a token;
                `introspection`: no answer that can be relied on.
            InvalidArgument: there is an `async_transport` only.
        """
        key, now = _digest(token), told_by(self._clock).timestamp()
        body = self._answers.get(key, now)
        return self._learn(key, self._ask(token), now) if body is None else self._said(body, now)

    async def aclaims(self, token: str) -> dict[str, Json]:
        """Do what `claims` does, without blocking the loop."""
        key, now = _digest(token), told_by(self._clock).timestamp()
        body = self._answers.get(key, now)
        return self._learn(key, await self._aask(token), now) if body is None else self._said(body, now)

    def revoked(self, token: VerifiedToken) -> bool:
        """Say whether the issuer has ended a token: a `Revocation` for a `Validator` whose threads may wait for it.

        What `cache_ttl` keeps, ends that much later.

        Raises:
            TokenError: as for `claims`: it isn't known, which counts as revoked.
        """
        try:
            self.claims(token.reveal())
        except TokenError as refused:
            if refused.reason == "inactive":
                return True
            raise
        return False

    def _ask(self, token: str) -> bytes:
        if self._transport is None:
            raise InvalidArgument("transport", "must be given too: without it, only `aclaims` can be used")
        try:
            return _body(self._transport(self._request(token)))
        except TokenError:
            raise
        except Exception as cause:
            failed = _unanswered(cause)
        raise failed  # out here, so that it hasn't the cause, with what was sent, as its context

    async def _aask(self, token: str) -> bytes:
        if self._async_transport is None:
            return await asyncio.to_thread(self._ask, token)
        try:
            return _body(await self._async_transport(self._request(token)))
        except TokenError:
            raise
        except Exception as cause:
            failed = _unanswered(cause)
        raise failed

    def _request(self, token: str) -> HttpRequest:
        form = urlencode({"token": token, "token_type_hint": "access_token"})
        return HttpRequest("POST", self._endpoint, self._headers, form.encode("ascii"))

    def _learn(self, key: bytes, body: bytes, now: float) -> dict[str, Json]:
        found = self._said(body, now)
        self._answers.keep(key, body, now, _expiry(found))
        return found

    def _said(self, body: bytes, now: float) -> dict[str, Json]:
        """Return the members of an answer, which is checked anew also where it was kept."""
        found = _members(body)
        if found["active"] is False:
            raise TokenError("inactive", "the issuer says that the token is not active")
        if found.setdefault("iss", self.issuer.issuer) != self.issuer.issuer:
            raise TokenError("issuer", "the token is said to be another issuer's")
        if _expiry(found) <= now:
            raise TokenError("expired", "the token has expired")
        return found

    def __repr__(self) -> str:
        return f"Introspector({self._endpoint.partition('?')[0]!r})"


_Kept: TypeAlias = tuple[bytes, float, float]  # an answer's body; kept from, and until, in seconds since 1970


class _Answers:
    """Keep a bounded number of answers: the younger half of them at least.

    Without a lock, which a fork could leave locked: what a race loses is asked for again.
    """

    def __init__(self, ttl: dt.timedelta, max_entries: int) -> None:
        if not isinstance(ttl, dt.timedelta) or not dt.timedelta() <= ttl <= MAX_TTL:
            raise InvalidArgument("cache_ttl", "must be a timedelta from zero to 5 minutes")
        if type(max_entries) is not int or max_entries < 1:
            raise InvalidArgument("max_entries", "must be a number above zero")
        self._ttl = ttl.total_seconds()
        self._half = (max_entries + 1) // 2
        self._young: dict[bytes, _Kept] = {}
        self._old: dict[bytes, _Kept] = {}

    def get(self, key: bytes, now: float) -> bytes | None:
        kept = self._young.get(key) or self._old.get(key)
        return kept[0] if kept is not None and kept[1] <= now < kept[2] else None

    def keep(self, key: bytes, body: bytes, now: float, expires: float) -> None:
        if not self._ttl:
            return
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = (body, now, min(now + self._ttl, expires))


def _basic(auth: tuple[str, str]) -> str:
    """Return the credentials as RFC 6749 §2.3.1 has them: each part form-encoded, then RFC 7617."""
    if not isinstance(auth, tuple) or len(auth) != 2 or not all(isinstance(part, str) and part for part in auth):
        raise InvalidArgument("auth", "must be the client's id and its secret")
    return "Basic " + base64.b64encode(":".join(map(quote_plus, auth)).encode("ascii")).decode("ascii")


def _digest(token: object) -> bytes:
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        raise TokenError("malformed", "the token is no text of printable ASCII characters")
    if len(token) > MAX_TOKEN:
        raise TokenError("too_large", f"the token is longer than {MAX_TOKEN} characters")
    return hashlib.sha256(token.encode("ascii")).digest()


def _body(answer: HttpResponse) -> bytes:
    if answer.status != 200:
        raise _unreliable(f"has status {answer.status}")
    if not isinstance(answer.body, bytes):
        raise _unreliable("has a body that is no bytes")
    if len(answer.body) > MAX_BODY:
        raise _unreliable(f"is larger than {MAX_BODY} bytes")
    return answer.body


def _members(body: bytes) -> dict[str, Json]:
    try:
        found = json_object(body)
    except TokenError:
        raise _unreliable("is no JSON object that can be relied on") from None
    if type(found.get("active")) is not bool:  # RFC 7662 §2.2: a boolean; "true" is none
        raise _unreliable("doesn't say whether the token is active")
    return found


def _expiry(found: dict[str, Json]) -> float:
    """Return when a token expires, in seconds since 1970; infinity where the issuer doesn't say (RFC 7662 §2.2)."""
    expires = found.get("exp", math.inf)
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        raise _unreliable("has an `exp` that is no number")
    return float(expires)


def _unreliable(what: str) -> TokenError:
    return TokenError("introspection", f"the answer of the introspection endpoint {what}")


def _unanswered(cause: Exception) -> TokenError:
    why = str(cause) if isinstance(cause, TransportError) else type(cause).__name__  # another's text may hold secrets
    return TokenError("introspection", f"the introspection endpoint gave no answer: {why}")
