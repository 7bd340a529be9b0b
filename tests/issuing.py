"""Offer what tests of tokens need: an issuer with keys, its claims and tokens, good and forged, and a validator."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from agentauthz.errors import TokenError
from agentauthz.keys.base64url import to_base64url
from agentauthz.keys.jwk import KeySet
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens import jws
from agentauthz.tokens.dpop import DpopKey, DpopVerifier
from agentauthz.tokens.issuers import TrustedIssuer
from agentauthz.tokens.once import MemoryOnce
from agentauthz.tokens.validator import Validator
from tests.support import NOON, Clock

ISSUER = "https://issuer.example"
OTHER_ISSUER = "https://other.example"
SERVICE = "https://pay.example"
NOW = int(NOON.timestamp())
GONE: Any = ...  # as a claim's value: leave the claim out

ED = SigningKey.generate("Ed25519", key_id="ed")
ES = SigningKey.generate("ES256", key_id="es")
RS = SigningKey.generate("RS256", key_id="rs")
BOUND_KEY = SigningKey.generate("ES256")  # a client's, which tokens are bound to
STRANGER = SigningKey.generate("Ed25519", key_id="ed")  # an attacker's key, of a name that is known

KEYS = KeySet([ED.public_key(), ES.public_key(), RS.public_key()])

ACT: dict[str, Any] = {
    "sub": "worker", "iss": ISSUER, "sub_profile": "ai_agent", "act": {"sub": "planner", "iss": ISSUER},
}  # fmt: skip


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of an access token (RFC 9068 §2.2) that is good now, with changes."""
    good: dict[str, Any] = {
        "iss": ISSUER, "sub": "maria", "aud": SERVICE, "exp": NOW + 300, "iat": NOW, "jti": "token-1",
        "client_id": "worker", "scope": "payments.read payments.refund",
    }  # fmt: skip
    return {name: value for name, value in {**good, **changes}.items() if value is not GONE}


def token(
    given: Mapping[str, Any] | None = None,
    *,
    key: SigningKey = ED,
    typ: str = "at+jwt",
    header: Mapping[str, Any] | None = None,
    **changes: Any,
) -> str:
    """Return a signed token of these claims, or of the good ones with changes; `header` adds to its header."""
    found = claims(**changes) if given is None else given
    return jws.make(found, key, typ=typ, header=None if header is None else {"kid": key.key_id, **header})


def raw(
    header: bytes | Mapping[str, Any],
    payload: bytes | Mapping[str, Any] | None = None,
    *,
    sign: Callable[[bytes], bytes] = ED.sign,
) -> str:
    """Return a token of exactly these bytes, signed by `sign`."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    found = claims() if payload is None else payload
    body = found if isinstance(found, bytes) else json.dumps(found).encode()
    signed = f"{to_base64url(head)}.{to_base64url(body)}"
    return f"{signed}.{to_base64url(sign(signed.encode()))}"


def trusted(**changes: Any) -> TrustedIssuer:
    """Return the issuer as it is trusted, with changes."""
    return TrustedIssuer(**{"issuer": ISSUER, "keys": KEYS, "audiences": [SERVICE], **changes})


def validator(*issuers: TrustedIssuer, **options: Any) -> Validator:
    """Return a validator of these issuers, or of the one above, whose clock stands at noon."""
    return Validator(issuers or [trusted()], **{"clock": Clock(), **options})


def later(**duration: float) -> Clock:
    """Return a clock that stands so long after noon."""
    return Clock(NOON + dt.timedelta(**duration))


def reason(call: Callable[[], object]) -> str:
    """Return for which reason a call is refused."""
    with pytest.raises(TokenError) as caught:
        call()
    return caught.value.reason


def dpop_validator(**options: Any) -> Validator:
    """Return a validator that checks proofs."""
    proofs = DpopVerifier(MemoryOnce(clock=Clock()), clock=Clock())
    return validator(dpop=proofs, **options)


def bound(key: SigningKey = BOUND_KEY) -> tuple[str, DpopKey]:
    """Return a token that is bound to a key, and what makes its proofs."""
    proving = DpopKey(key, clock=Clock())
    return token(cnf={"jkt": proving.thumbprint}), proving
