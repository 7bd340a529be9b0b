"""Test keys and signatures against the published vectors: Wycheproof, the JOSE cookbook and the RFCs' own examples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys.base64url import to_base64url
from agentauthz.keys.jwk import KeySet, thumbprint, verification_key
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens import jws

VECTORS: Final = Path(__file__).parent / "vectors" / "jose"

# Listed as valid, but 346 and 350 are signed with PS384 under a key for PS256, 347 and 351 have a key for `ES521`, an
# algorithm that doesn't exist, and 372 and 373 hold a character that base64url doesn't have
REFUSED: Final = frozenset({346, 347, 350, 351, 372, 373})
# Listed as invalid for their padding, which the file lost: what is left is, byte for byte, 357, which is valid
SAME_AS_357: Final = frozenset({367, 370})


def _cases(name: str) -> list[Any]:
    document = json.loads((VECTORS / "wycheproof" / name).read_bytes())
    found = [(group, test) for group in document["testGroups"] for test in group["tests"]]
    assert len(found) == document["numberOfTests"]
    return [
        pytest.param(group.get("public") or group["private"], test, id=f"{test['tcId']}-{test['comment']}")
        for group, test in found
    ]


def _accepts(keys: KeySet, token: object) -> bool:
    """Say whether a token is genuine, by the algorithms that its keys say they are for."""
    algorithms = frozenset().union(*(key.algorithms for key in keys.keys))
    try:
        jws.verify(jws.parse(token), keys, algorithms)
    except TokenError:
        return False
    return True


def _key_set(jwks: list[Mapping[str, object]]) -> KeySet | None:
    """Return the keys of a set that may be of shared secrets, which `of_jwks` refuses; None: the set is refused."""
    try:
        return KeySet([verification_key(jwk) for jwk in jwks])
    except InvalidArgument:
        return None


@pytest.mark.parametrize(("jwk", "test"), _cases("json_web_signature_test.json"))
def test_a_signature_gets_the_verdict_of_wycheproof(jwk: dict[str, object], test: dict[str, Any]) -> None:
    """Each of the 401 signatures is accepted or refused as listed, but for the eight that are listed wrongly."""
    keys = _key_set([jwk])
    valid = test["result"] == "valid" or test["tcId"] in SAME_AS_357
    assert (keys is not None and _accepts(keys, test["jws"])) == (valid and test["tcId"] not in REFUSED)


def test_two_signatures_are_listed_as_valid_and_as_invalid() -> None:
    """What Wycheproof refuses as 367 and 370 is the very text, under the very key, that it accepts as 357."""
    found = {case.values[1]["tcId"]: case.values for case in _cases("json_web_signature_test.json")}
    for number in SAME_AS_357:
        assert found[number][0] == found[357][0]
        assert found[number][1]["jws"] == found[357][1]["jws"]


@pytest.mark.parametrize(("jwks", "test"), _cases("json_web_key_test.json"))
def test_a_key_set_gets_the_verdict_of_wycheproof(jwks: dict[str, Any], test: dict[str, Any]) -> None:
    """Each of the 26 key sets verifies its signature, or doesn't, as listed: weak, mixed and ambiguous ones don't."""
    keys = _key_set(jwks["keys"])
    assert (keys is not None and _accepts(keys, test["jws"])) == (test["result"] == "valid")


@pytest.mark.parametrize(("jwks", "test"), _cases("json_web_key_test.json"))
def test_a_published_key_set_is_held_to_more(jwks: dict[str, Any], test: dict[str, Any]) -> None:
    """As the set that an issuer publishes, none of the 26 verifies what it shouldn't, and no secret is in any."""
    try:
        keys = KeySet.of_jwks(jwks, skip_unusable=True)
    except InvalidArgument:
        return
    assert not any(key.symmetric for key in keys.keys)
    assert _accepts(keys, test["jws"]) == (test["result"] == "valid")


# ---- RFC 7520, RFC 7797


def _examples(folder: str) -> list[Any]:
    paths = sorted((VECTORS / folder).glob("*.json"))
    return [pytest.param(json.loads(path.read_bytes()), id=path.stem) for path in paths]


def _keys_of(example: dict[str, Any]) -> list[KeySet]:
    given = example["input"]["key"]
    return [KeySet([verification_key(jwk)]) for jwk in (given if isinstance(given, list) else [given])]


@pytest.mark.parametrize("name", ["4_1.rsa_v15_signature", "4_2.rsa-pss_signature", "4_3.ecdsa_signature",
                                  "4_4.hmac-sha2_integrity_protection"])  # fmt: skip
def test_a_compact_example_of_the_cookbook_verifies(name: str) -> None:
    """RFC 7520 §4.1 to §4.4 verify, and give their payload; with one bit of the payload changed they don't."""
    example = json.loads((VECTORS / "jws" / f"{name}.json").read_bytes())
    [keys] = _keys_of(example)
    token = example["output"]["compact"]
    found = jws.parse(token)
    assert jws.verify(found, keys, {example["input"]["alg"]}).key_id == example["input"]["key"]["kid"]
    assert found.payload.decode() == example["input"]["payload"]
    head, payload, signature = token.split(".")
    assert not _accepts(keys, f"{head}.T{payload[1:]}.{signature}")


@pytest.mark.parametrize("form", ["json", "json_flat"])
@pytest.mark.parametrize("folder", ["jws", "curve25519", "rfc7797"])
def test_json_serialisation_is_refused(folder: str, form: str) -> None:
    """No example in JSON form is taken, neither as text nor as an object (RFC 7515 §7.2), detached ones included."""
    examples = [case.values[0]["output"] for case in _examples(folder)]
    found = [output[form] for output in examples if form in output]
    assert found
    for serialised in found:
        for given in (serialised, json.dumps(serialised)):
            with pytest.raises(TokenError) as refused:
                jws.parse(given)
            assert refused.value.reason == "malformed"


def test_detached_content_is_refused() -> None:
    """RFC 7520 §4.5, whose payload is elsewhere, is not genuine, and says nothing that could be claims."""
    example = json.loads((VECTORS / "jws" / "4_5.signature_with_detached_content.json").read_bytes())
    [keys] = _keys_of(example)
    found = jws.parse(example["output"]["compact"])
    with pytest.raises(TokenError) as refused:
        jws.verify(found, keys, {"HS256"})
    assert refused.value.reason == "signature"
    with pytest.raises(TokenError, match="no JSON"):
        found.claims()


@pytest.mark.parametrize("example", _examples("rfc7797"))
def test_an_unencoded_payload_is_refused(example: dict[str, Any]) -> None:
    """RFC 7797's `b64`, false, is not understood, so whatever is signed with it is refused (RFC 7515 §4.1.11)."""
    protected = example["signing"]["protected"]
    assert protected["b64"] is False
    head = to_base64url(json.dumps(protected).encode())
    with pytest.raises(TokenError) as refused:
        jws.parse(f"{head}.{to_base64url(b'payload')}.{example['signing']['sig']}")
    assert refused.value.reason == "header"
    if "compact" in example["output"]:
        with pytest.raises(TokenError):
            jws.parse(example["output"]["compact"])


@pytest.mark.parametrize(("private", "public"), [("3_2.ec_private_key", "3_1.ec_public_key"),
                                                 ("3_4.rsa_private_key", "3_3.rsa_public_key")])  # fmt: skip
def test_a_private_key_has_the_thumbprint_of_its_public_part(private: str, public: str) -> None:
    """RFC 7520 §3: of a private key only the public part counts, and both have one thumbprint."""
    jwks = [json.loads((VECTORS / "jwk" / f"{name}.json").read_bytes()) for name in (private, public)]
    keys = [verification_key(jwk) for jwk in jwks]
    assert keys[0].thumbprint == keys[1].thumbprint == thumbprint(jwks[0])
    assert keys[0].key_id == "bilbo.baggins@hobbiton.example"


def test_an_encryption_key_is_no_key_for_signatures() -> None:
    """RFC 7520 §3.6 is for encrypting; §3.5 is a secret for signatures, and never part of a published set."""
    encryption, mac = (
        json.loads((VECTORS / "jwk" / f"{name}.json").read_bytes())
        for name in ("3_6.symmetric_key_encryption", "3_5.symmetric_key_mac_computation")
    )
    with pytest.raises(InvalidArgument):
        verification_key(encryption)
    assert verification_key(mac).symmetric
    with pytest.raises(InvalidArgument, match="must be public"):
        KeySet.of_jwks({"keys": [mac]}, skip_unusable=True)


# ---- RFC 7638, RFC 8037

RFC7638_KEY: Final = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
    "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7"
    "d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}


def test_the_thumbprint_of_rfc_7638() -> None:
    """RFC 7638 §3.1: the thumbprint is of the required members only, whatever else the key has."""
    assert thumbprint(RFC7638_KEY) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert verification_key(RFC7638_KEY).thumbprint == thumbprint(RFC7638_KEY)


def test_the_ed25519_example_of_rfc_8037() -> None:
    """RFC 8037 A.3 to A.5: the thumbprint, and the token without `kid`, signed alike and verified by its one key."""
    example = json.loads((VECTORS / "curve25519" / "jws.json").read_bytes())
    jwk, token = example["input"]["key"], example["output"]["compact"]
    assert thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    found = jws.parse(token)
    assert found.key_id is None
    assert jws.verify(found, KeySet([verification_key(jwk)]), {"EdDSA"}).thumbprint == thumbprint(jwk)
    assert found.payload == b"Example of Ed25519 signing"
    assert SigningKey.from_jwk(jwk, algorithm="EdDSA").sign(found.signed) == found.signature
    other = SigningKey.generate("EdDSA").public_key()
    with pytest.raises(TokenError) as refused:
        jws.verify(found, KeySet([verification_key(jwk), other]), {"EdDSA"})
    assert refused.value.reason == "ambiguous_key"
