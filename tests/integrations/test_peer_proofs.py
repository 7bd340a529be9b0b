"""Test DPoP across implementations: oauth4webapi, jose and idpyoidc make proofs that we check, and check ours."""

from __future__ import annotations

import time
from typing import Any, Final

import pytest
from cryptojwt.jwk.ec import new_ec_key
from idpyoidc.client.oauth2.add_on.dpop import DPoPProof

from agentauthz.errors import TokenError
from agentauthz.keys.signing import KeyRing, SigningKey
from agentauthz.tokens import jws
from agentauthz.tokens.confirmation import confirm
from agentauthz.tokens.dpop import DpopKey, DpopVerifier, Nonces, token_hash
from agentauthz.tokens.verified import Confirmation
from tests.integrations.conftest import NodeScript
from tests.proofs import Seen

ISSUER: Final = "https://issuer.example"
URI: Final = "https://payments.example/transfers"
TOKEN: Final = "a-token.of~some-kind"
ALGORITHMS: Final = ("Ed25519", "ES256", "PS256", "RS256")


def test_proofs_of_oauth4webapi_are_taken_once(node_script: NodeScript) -> None:
    """With each algorithm, with a nonce and without, a proof of oauth4webapi is taken for its request, and once."""
    nonces = Nonces()
    request = {"method": "POST", "uri": URI + "?page=2", "token": TOKEN}
    wanted = [{**request, "algorithm": name, "nonce": nonce} for name in ALGORITHMS for nonce in (None, nonces.issue())]
    made = node_script("proofs.mjs", {"make": wanted})["made"]
    assert len(made) == len(wanted)
    for asked, one in zip(wanted, made, strict=True):
        by = DpopVerifier(Seen(), nonces=nonces if asked["nonce"] else None)
        given = {"verifier": by, "proofs": one["proof"], "method": "POST", "uri": URI}
        assert one["authorization"] == f"DPoP {TOKEN}"
        confirm(Confirmation(one["thumbprint"]), TOKEN, **given)
        wrongs: list[tuple[dict[str, Any], str]] = [
            ({}, "dpop_replayed"),
            ({"method": "GET"}, "dpop_proof"),
            ({"uri": URI + "/1"}, "dpop_proof"),
            ({"verifier": DpopVerifier(Seen(), nonces=Nonces())}, "dpop_nonce"),
        ]
        for wrong, reason in wrongs:
            with pytest.raises(TokenError) as caught:
                confirm(Confirmation(one["thumbprint"]), TOKEN, **{**given, **wrong})
            assert caught.value.reason == reason


def _request(ring: KeyRing, key: DpopKey, thumbprint: str, **changed: Any) -> dict[str, Any]:
    """Return a request to a resource server, with an access token (RFC 9068) that is bound to `thumbprint`."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": URI, "sub": "maria", "client_id": "bot", "iat": now, "exp": now + 60, "jti": "one"}
    token = jws.make({**claims, "cnf": {"jkt": thumbprint}}, ring.signer, typ="at+jwt")
    proof = key.proof("POST", URI + "?page=2", access_token=token, nonce="a-nonce")
    request = {"method": "POST", "uri": URI + "?page=2", "token": token, "proof": proof}
    return {**request, "issuer": ISSUER, "audience": URI, "jwks": ring.jwks(), **changed}


def test_oauth4webapi_and_jose_take_our_proofs(node_script: NodeScript) -> None:
    """Our proof with our bound access token is taken by both, by each algorithm; another's key, method or URI isn't."""
    ring = KeyRing(SigningKey.generate("ES256"))
    keys = [DpopKey(SigningKey.generate(algorithm)) for algorithm in ALGORITHMS]
    good = [_request(ring, key, key.thumbprint) for key in keys]
    bad = [
        _request(ring, keys[0], keys[1].thumbprint),
        _request(ring, keys[1], keys[1].thumbprint, method="PUT"),
        _request(ring, keys[1], keys[1].thumbprint, uri=URI + "/1"),
    ]
    checked = node_script("proofs.mjs", {"check": [*good, *bad]})["checked"]
    assert checked[: len(good)] == [
        {"subject": "maria", "thumbprint": key.thumbprint, "nonce": "a-nonce"} for key in keys
    ]
    assert [one.keys() for one in checked[len(good) :]] == [{"refused"}] * len(bad)


def test_proofs_go_both_ways_with_idpyoidc() -> None:
    """A proof that idpyoidc makes is taken for its request, and idpyoidc verifies ours and reads the same claims."""
    theirs = new_ec_key("P-256")
    claims = {"jti": "one", "htm": "POST", "htu": URI, "iat": int(time.time()), "ath": token_hash(TOKEN)}
    proof = DPoPProof(typ="dpop+jwt", alg="ES256", jwk=theirs.serialize(), **claims)
    proof.key = theirs
    header = proof.create_header()
    by = DpopVerifier(Seen())
    assert by.check(header, method="POST", uri=URI, access_token=TOKEN) == theirs.thumbprint("SHA-256").decode()
    with pytest.raises(TokenError, match="is for another method or URI"):
        by.check(header, method="GET", uri=URI, access_token=TOKEN)

    key = DpopKey(SigningKey.generate("ES256"))
    read = DPoPProof().verify_header(key.proof("POST", URI, access_token=TOKEN))
    assert read is not None
    read.verify()
    assert (read["htm"], read["htu"], read["ath"]) == ("POST", URI, token_hash(TOKEN))
    assert read.key is None or read.key.thumbprint("SHA-256").decode() == key.thumbprint
