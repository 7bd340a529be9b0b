"""Check the assertion with which a client authenticates by its key (RFC 7523 §3, `private_key_jwt`)."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Collection, Iterable
from typing import Final, final

from attrs import field, frozen

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys.jwk import KeySet
from agentauthz.tokens import jws
from agentauthz.tokens.issuers import MAX_LEEWAY
from agentauthz.tokens.once import Once
from agentauthz.tokens.strict import Json

MAX_ASSERTION: Final = 4096  # characters
MAX_JTI: Final = 256

_TYPES: Final = frozenset({None, "JWT", "client-authentication+jwt"})


def _names(given: Iterable[str]) -> frozenset[str]:
    names = frozenset([given] if isinstance(given, str) else given)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InvalidArgument("audiences", "must be texts that are not empty: the issuer, and the token endpoint")
    return names


@final
@frozen(eq=False)
class AssertionRules:
    """Be what a client assertion must keep to.

    `audiences` are the names of this service that one of them must be meant for: its issuer, its token endpoint.
    `once` remembers each assertion until it expires, over all processes that share the service.

    Raises:
        InvalidArgument: no audience, a lifetime that isn't from a second to a day, or a leeway above two minutes.
    """

    audiences: frozenset[str] = field(converter=_names)
    once: Once
    algorithms: Collection[str] = jws.DEFAULT_ALGORITHMS
    max_lifetime: dt.timedelta = dt.timedelta(minutes=5)
    leeway: dt.timedelta = dt.timedelta(seconds=30)

    def __attrs_post_init__(self) -> None:
        if not dt.timedelta(seconds=1) <= self.max_lifetime <= dt.timedelta(days=1):
            raise InvalidArgument("max_lifetime", "must be from a second to a day: minutes are usual")
        if not dt.timedelta(0) <= self.leeway <= MAX_LEEWAY:
            raise InvalidArgument("leeway", "must be at most two minutes")

    def named(self, assertion: str) -> str:
        """Return the client that an assertion, not verified yet, says that it is of.

        Raises:
            TokenError: as for `check`.
        """
        return _client_of(jws.parse(assertion, max_length=MAX_ASSERTION).claims())

    def check(self, assertion: str, keys: KeySet, now: dt.datetime) -> Callable[[], bool]:
        """Check an assertion with the keys of the client that it names; return what uses it up: True the first time.

        Raises:
            TokenError: malformed, another algorithm than the key's, not genuine, of another `typ`, `iss` and `sub`
                that differ, not for this service alone (`aud`), expired, living too long, or no `jti`.
        """
        token = jws.parse(assertion, max_length=MAX_ASSERTION)
        if token.typ not in _TYPES:
            raise TokenError("typ", "the client's assertion has a `typ` of another kind of token")
        jws.verify(token, keys, self.algorithms)
        claims = token.claims()
        audience = claims.get("aud")
        if isinstance(audience, list) and len(audience) == 1:
            audience = audience[0]
        if not isinstance(audience, str) or audience not in self.audiences:  # one only: others could replay it here
            raise TokenError("audience", "the client's assertion isn't for this service alone")
        expires = self._expiry(claims, now)
        key = _replay_key(_client_of(claims), claims.get("jti"))
        return lambda: self.once.once(key, expires) is True

    def _expiry(self, claims: dict[str, Json], now: dt.datetime) -> dt.datetime:
        present = now.timestamp()
        leeway, longest = self.leeway.total_seconds(), self.max_lifetime.total_seconds()
        expires = _seconds(claims, "exp")
        if expires is None or expires + leeway <= present:
            raise TokenError("expired", "the client's assertion has expired, or doesn't say when it does")
        if expires > present + longest + leeway:
            raise TokenError("lifetime", f"the client's assertion lives longer than {longest:g} seconds")
        for name in ("nbf", "iat"):
            since = _seconds(claims, name)
            if since is not None and not 0 <= since <= present + leeway:
                raise TokenError("not_yet", f"the client's assertion has an `{name}` in the future")
        return dt.datetime.fromtimestamp(expires + leeway, dt.UTC)


def _client_of(claims: dict[str, Json]) -> str:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or claims.get("iss") != subject:
        raise TokenError("client", "the client's assertion must have its name as `iss` and as `sub`")
    return subject


def _seconds(claims: dict[str, Json], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise TokenError("malformed", f"the client's assertion has an `{name}` that is no date")
    return float(value)


def _replay_key(client_id: str, jti: Json) -> str:
    if not isinstance(jti, str) or not 0 < len(jti) <= MAX_JTI:
        raise TokenError("jti", "the client's assertion has no `jti`, or one that is too long")
    named = hashlib.sha256(f"{len(client_id)}:{client_id}{jti}".encode("utf-8", "surrogatepass"))
    return f"client-assertion:{named.hexdigest()}"
