"""Prove that whoever presents a token holds the key that it is bound to (RFC 9449).

A `DpopKey` makes proofs, a `DpopVerifier` checks them, and `Nonces` bound their age by the server's own clock.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, cast, final

from attrs import field, frozen

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys.base64url import to_base64url
from agentauthz.keys.instance import InstanceKey
from agentauthz.keys.jwk import ED25519_ALGORITHMS, RSA_ALGORITHMS, KeySet, PublicKey, public_jwk, verification_key
from agentauthz.keys.signing import Signer
from agentauthz.tokens import jws
from agentauthz.tokens.once import Once
from agentauthz.tokens.strict import Json
from agentauthz.tokens.target_uri import target_uri

TYPE: Final = "dpop+jwt"
MAX_PROOF: Final = 8 * 1024  # characters: a key of 8,192 bits and its signature fit
MAX_JTI: Final = 256  # characters

_HEADER: Final = frozenset({"alg", "typ", "jwk", "kid"})  # a `kid` must be that of `jwk`: some clients repeat it
_ASYMMETRIC: Final = RSA_ALGORITHMS | ED25519_ALGORITHMS | {"ES256", "ES384", "ES512"}
_JTI_BYTES: Final = 16  # RFC 9449 §4.2 wants 96 random bits at least
_NONCE: Final = re.compile(r"([0-9]{1,12})\.[A-Za-z0-9:]{1,100}", re.ASCII)
_SECOND: Final = dt.timedelta(seconds=1)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _equal(ours: str, theirs: object) -> bool:
    """Compare in a time that tells nothing of `ours`."""
    return isinstance(theirs, str) and hmac.compare_digest(ours.encode(), theirs.encode("utf-8", "surrogatepass"))


def token_hash(access_token: str) -> str:
    """Return a proof's `ath`: the SHA-256 of a token's text, base64url (RFC 9449 §4.2).

    Raises:
        InvalidArgument: the token is not text in ASCII.
    """
    if not isinstance(access_token, str) or not access_token.isascii():
        raise InvalidArgument("access_token", "must be text in ASCII")
    return to_base64url(hashlib.sha256(access_token.encode("ascii")).digest())


# ---- the client's side


@final
class DpopKey:
    """Be a client's key that tokens are bound to, and make the proof that goes with each request. Safe for threads.

    `random` returns so many random bytes.

    Raises:
        InvalidArgument: the signer's public key is malformed, or its algorithm doesn't fit it or isn't asymmetric.
    """

    __slots__ = ("_clock", "_jwk", "_random", "_signer", "thumbprint")

    thumbprint: str

    def __init__(
        self,
        signer: Signer,
        *,
        clock: Callable[[], dt.datetime] = _now,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        key = verification_key(signer.public_jwk())
        if key.symmetric or signer.algorithm not in key.algorithms & _ASYMMETRIC:
            raise InvalidArgument(
                "signer", f"must sign with a public key's algorithm: {', '.join(sorted(_ASYMMETRIC))}"
            )
        self._signer: Final = signer
        self._jwk: Final = public_jwk(cast(PublicKey, key.key))  # never what else a signer puts into its JWK
        self._clock: Final = clock
        self._random: Final = random
        self.thumbprint = key.thumbprint

    def proof(self, method: str, uri: str, *, access_token: str | None = None, nonce: str | None = None) -> str:
        """Return the value of one request's `DPoP` header, to be used once (RFC 9449 §4.2).

        With `access_token` where the request presents one; with `nonce` where the server has given one (§8, §9).

        Raises:
            InvalidArgument: `uri` is no absolute `http` or `https` URI, or another argument is empty or not in ASCII.
        """
        if target_uri(uri) is None:
            raise InvalidArgument("uri", "must be an absolute `http` or `https` URI, percent-encoded, without a user")
        for name, value in (("method", method), ("nonce", "-" if nonce is None else nonce)):
            if not isinstance(value, str) or not value or not value.isascii():
                raise InvalidArgument(name, "must be text in ASCII, and not empty")
        claims: dict[str, object] = {
            "jti": to_base64url(self._random(_JTI_BYTES)),
            "htm": method,
            "htu": re.split(r"[?#]", uri, maxsplit=1)[0],  # as it is sent: a server may normalise, or not
            "iat": int(self._clock().timestamp()),
        }
        if access_token is not None:
            claims["ath"] = token_hash(access_token)
        if nonce is not None:
            claims["nonce"] = nonce
        return jws.make(claims, self._signer, typ=TYPE, header={"jwk": self._jwk})

    def __repr__(self) -> str:
        return f"DpopKey({self._signer.algorithm}, {self.thumbprint})"


# ---- the server's side


@final
class Nonces:
    """Give out nonces and know them again without keeping them (RFC 9449 §8): the time, under a keyed digest.

    Servers that share the key know each other's. A nonce bounds how long before its use a proof can have been made,
    by the server's clock. `lifetime`: up to an hour.

    Raises:
        InvalidArgument: a lifetime outside of one second to one hour.
    """

    __slots__ = ("_clock", "_key", "_lifetime")

    def __init__(
        self,
        key: InstanceKey | None = None,
        lifetime: dt.timedelta = dt.timedelta(minutes=5),
        *,
        clock: Callable[[], dt.datetime] = _now,
    ) -> None:
        if not _SECOND <= lifetime <= dt.timedelta(hours=1):
            raise InvalidArgument("lifetime", "must be from a second to an hour")
        self._key: Final = InstanceKey.random() if key is None else key
        self._lifetime: Final = lifetime.total_seconds()
        self._clock: Final = clock

    def issue(self) -> str:
        """Return a nonce for the header `DPoP-Nonce`, in the characters of §8.1."""
        return self._made(str(int(self._clock().timestamp())))

    def valid(self, nonce: object) -> bool:
        """Say whether a nonce was made with this key, and is not older than its lifetime."""
        found = _NONCE.fullmatch(nonce) if isinstance(nonce, str) else None
        if found is None or not _equal(self._made(found[1]), nonce):
            return False
        age = self._clock().timestamp() - int(found[1])
        return -self._lifetime <= age <= self._lifetime  # made by a server whose clock runs ahead, it isn't stale

    def _made(self, moment: str) -> str:
        return f"{moment}.{self._key.digest('dpop-nonce', moment.encode())}"

    def __repr__(self) -> str:
        return f"Nonces({self._key.epoch})"


@final
@frozen(eq=False, repr=False)
class DpopVerifier:
    """Check DPoP proofs as RFC 9449 §4.3 wants, each no more than once. Safe for threads, as far as `once` is.

    `once` remembers proofs that were used; share it among all servers of one address. With `nonces` each proof must
    hold a fresh one. A proof is taken from `leeway` before its `iat` until `max_age` and `leeway` after it.

    Raises:
        InvalidArgument: an algorithm that isn't asymmetric, none at all, `max_age` outside of a second to ten
            minutes, or `leeway` outside of none to two minutes.
    """

    once: Once
    nonces: Nonces | None = field(default=None, kw_only=True)
    max_age: dt.timedelta = field(default=dt.timedelta(seconds=60), kw_only=True)
    leeway: dt.timedelta = field(default=dt.timedelta(seconds=30), kw_only=True)
    algorithms: Collection[str] = field(default=jws.DEFAULT_ALGORITHMS, kw_only=True, converter=frozenset)
    clock: Callable[[], dt.datetime] = field(default=_now, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.algorithms or not set(self.algorithms) <= _ASYMMETRIC:
            raise InvalidArgument("algorithms", f"must be some of {', '.join(sorted(_ASYMMETRIC))}")
        if not _SECOND <= self.max_age <= dt.timedelta(minutes=10):
            raise InvalidArgument("max_age", "must be from a second to ten minutes")
        if not dt.timedelta(0) <= self.leeway <= dt.timedelta(minutes=2):
            raise InvalidArgument("leeway", "must be at most two minutes")

    def check(
        self,
        proofs: str | Sequence[str] | None,
        *,
        method: str,
        uri: str,
        access_token: str | None = None,
        thumbprint: str | None = None,
    ) -> str:
        """Return the thumbprint (RFC 7638) of the key that made the proof of this request, and use the proof up.

        `proofs` are the values of all headers `DPoP` of the request. With `access_token` the proof must be for it;
        with `thumbprint`, made by that key. `uri` is what the client asked for: behind a proxy, the outer address.

        Raises:
            TokenError: `dpop_missing`; `dpop_proof`: two headers, or anything that §4.3 wants doesn't hold;
                `dpop_nonce`: answer with a new one; `dpop_replayed`: used before, or the store can't tell.
        """
        proof = _only(proofs)
        try:
            found = jws.parse(proof, header=_HEADER, max_length=MAX_PROOF)
            made_by, claims = self._genuine(found), found.claims()
        except TokenError as error:
            raise _refused(f"can't be relied on: {error.message}") from None
        target = _same_request(claims, method, uri)
        if access_token is not None and not _equal(_ath(access_token), claims.get("ath")):
            raise _refused("is not for the token that is presented with it")
        if thumbprint is not None and not _equal(thumbprint, made_by):
            raise _refused("is made by another key than the one that the token is bound to")
        expires = self._in_time(claims.get("iat"))
        if self.nonces is not None and not self.nonces.valid(claims.get("nonce")):
            raise TokenError("dpop_nonce", "the DPoP proof holds no nonce of this server, or a stale one")
        self._use(claims.get("jti"), target, expires)
        return made_by

    def _genuine(self, proof: jws.Jws) -> str:
        """Return the thumbprint of the key in a proof's header, which signed it."""
        if proof.typ != TYPE:
            raise TokenError("type", f"its `typ` is not `{TYPE}`")
        try:
            key = KeySet.of_jwks({"keys": [proof.header.get("jwk")]})  # refuses a private and a symmetric one
        except InvalidArgument as error:
            raise TokenError("header", f"its `jwk` {error.message}") from None
        return jws.verify(proof, key, self.algorithms).thumbprint

    def _in_time(self, issued_at: Json) -> dt.datetime:
        """Return when a proof of this `iat` may be forgotten, since it is taken no longer."""
        if type(issued_at) not in (int, float):
            raise _refused("has no number as `iat`")
        now, age, leeway = self.clock(), self.max_age.total_seconds(), self.leeway.total_seconds()
        elapsed = now.timestamp() - cast(float, issued_at)
        if not -leeway <= elapsed <= age + leeway:
            raise _refused("is too old, or of the future: the clocks of both sides must agree")
        return now + dt.timedelta(seconds=age + 2 * leeway - elapsed)  # the store's clock may run ahead of ours

    def _use(self, jti: Json, target: str, expires: dt.datetime) -> None:
        if not isinstance(jti, str) or not 0 < len(jti) <= MAX_JTI:
            raise _refused("has no text as `jti`, or one that is too long")
        key = f"dpop:{hashlib.sha256(json.dumps([target, jti]).encode()).hexdigest()}"
        try:
            first = self.once.once(key, expires)
        except Exception as cause:
            raise TokenError("dpop_replayed", "the DPoP proof may have been used before: the store failed") from cause
        if first is not True:
            raise TokenError("dpop_replayed", "the DPoP proof has been used before")

    def __repr__(self) -> str:
        return f"DpopVerifier({'/'.join(sorted(self.algorithms))}, nonces={self.nonces is not None})"


def _only(proofs: str | Sequence[str] | None) -> str:
    given = [proofs] if isinstance(proofs, str) else list(proofs or ())
    if not given:
        raise TokenError("dpop_missing", "the request has no DPoP proof")
    if len(given) > 1:
        raise _refused("comes in more than one header")
    return given[0]


def _same_request(claims: Mapping[str, Json], method: str, uri: str) -> str:
    """Return the target URI that a proof is for, which must be the request's, as its method."""
    target, named = target_uri(uri), claims.get("htm")
    if not named or named != method or target is None or target_uri(claims.get("htu")) != target:
        raise _refused("is for another method or URI than the request's")
    return target


def _ath(access_token: str) -> str:
    try:
        return token_hash(access_token)
    except InvalidArgument:
        raise _refused("comes with a token that is not in ASCII") from None


def _refused(what: str) -> TokenError:
    return TokenError("dpop_proof", f"the DPoP proof {what}")
