"""Test signed tokens across implementations: those of jose (Node) verify here, and ours verify there."""

from __future__ import annotations

from typing import Any, Final

import pytest

from agentauthz.errors import TokenError
from agentauthz.keys.base64url import from_base64url, to_base64url
from agentauthz.keys.jwk import KeySet
from agentauthz.keys.signing import KeyRing, SigningKey
from agentauthz.tokens import jws
from tests.integrations.conftest import NodeScript

ALGORITHMS: Final = ("Ed25519", "EdDSA", "ES256", "PS256", "RS256")
CLAIMS: Final = {
    "sub": "märia ☂",
    "aud": ["a", "b"],
    "exp": 4102444800.5,
    "act": {"sub": "bot", "act": {"sub": "helper"}},
}


def _spoilt(token: str) -> str:
    """Return the token with one bit of its signature turned."""
    signed, _, signature = token.rpartition(".")
    content = bytearray(from_base64url(signature) or b"")
    content[-1] ^= 1
    return f"{signed}.{to_base64url(bytes(content))}"


def test_tokens_of_jose_verify(node_script: NodeScript) -> None:
    """A token that jose signs verifies with the key set that it exports, and means the same; a spoilt one doesn't."""
    wanted = [{"algorithm": name, "claims": CLAIMS, "typ": "at+jwt"} for name in ALGORITHMS]
    signed = node_script("tokens.mjs", {"sign": wanted})["signed"]
    for name, one in zip(ALGORITHMS, signed, strict=True):
        token, keys = jws.parse(one["token"]), KeySet.of_jwks(one["jwks"])
        assert jws.verify(token, keys, {name}).key_id == "of-jose"
        assert (token.algorithm, token.typ, token.claims()) == (name, "at+jwt", CLAIMS)
        with pytest.raises(TokenError, match="not genuine"):
            jws.verify(jws.parse(_spoilt(one["token"])), keys, {name})


def test_jose_verifies_our_tokens(node_script: NodeScript) -> None:
    """A token that we sign verifies in jose with the key set that we publish; spoilt or as another type it doesn't."""
    asked: list[dict[str, Any]] = []
    for name in ALGORITHMS:
        ring = KeyRing(SigningKey.generate(name))
        token = jws.make(CLAIMS, ring.signer, typ="at+jwt")
        one = {"token": token, "jwks": ring.jwks(), "algorithm": name, "typ": "at+jwt"}
        asked += [one, {**one, "token": _spoilt(token)}, {**one, "typ": "JWT"}]
    verified = node_script("tokens.mjs", {"verify": asked})["verified"]
    spoilt, mistyped = "ERR_JWS_SIGNATURE_VERIFICATION_FAILED", "ERR_JWT_CLAIM_VALIDATION_FAILED"
    assert verified == [{"claims": CLAIMS}, {"refused": spoilt}, {"refused": mistyped}] * len(ALGORITHMS)
