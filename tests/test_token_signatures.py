"""Refuse tokens that are forged, or not in the one form of a signed token, and accept what stands right beside each.

The number of a row is the case's number in the table of what must be refused: here 1 to 18.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys.base64url import to_base64url
from agentauthz.keys.jwk import KeySet, public_jwk, verification_key
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens.issuers import TrustedIssuer
from agentauthz.tokens.jws import MAX_TOKEN, parse, verify
from agentauthz.tokens.validator import Validator
from tests.issuing import (
    ED,
    ES,
    KEYS,
    OTHER_ISSUER,
    RS,
    SERVICE,
    STRANGER,
    claims,
    raw,
    token,
    trusted,
    validator,
)
from tests.token_rows import HEAD, Row, acheck, check, name_of

# ---- how the attackers sign


def _hmac_with(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda data: hmac.digest(secret, data, "sha256")


def _public(encoding: serialization.Encoding) -> bytes:
    return RS._private.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)


def _der_signature(data: bytes) -> bytes:
    private = ES._private
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return private.sign(data, ec.ECDSA(hashes.SHA256()))


def _with_standard_alphabet() -> str:
    found = next(t for n in range(1000) if "-" in (t := token(jti=f"t{n}")))
    return found.replace("-", "+")


def _of_spare_bits() -> str:
    good = token()  # 64 bytes: the last character holds two bits that must be zero
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return good[:-1] + alphabet[alphabet.index(good[-1]) + 1]


def _changed(change: Callable[[bytes], bytes], key: SigningKey, data: bytes) -> bytes:
    return change(key.sign(data))


def _put(place: Callable[[str, str], str], mark: str) -> str:
    return place(token(), mark)


def _unsigned(alg: str, third: str) -> str:
    signed = raw({**HEAD, "alg": alg}).rpartition(".")[0]
    return f"{signed}{third}"


PS = SigningKey(RS._private, "PS256", "rs")
P384 = ec.generate_private_key(ec.SECP384R1())
ES_HEAD = {"alg": "ES256", "kid": "es", "typ": "at+jwt"}
ONE_KEY = KeySet([ED.public_key()])
TWO_ED_KEYS = KeySet([ED.public_key(), SigningKey.generate(key_id="ed-2").public_key()])


def _bare(key: SigningKey, **more: Any) -> dict[str, Any]:
    return {**public_jwk(key.public_key().key), "kid": key.key_id, **more}  # type: ignore[arg-type]


def _of_two_issuers() -> Validator:
    strict = TrustedIssuer(OTHER_ISSUER, KEYS, [SERVICE], algorithms=["ES256"])
    return validator(trusted(), strict)


def _of_jwks(*jwks: dict[str, Any]) -> Callable[[], Validator]:
    return lambda: validator(trusted(keys=KeySet.of_jwks({"keys": list(jwks)}, skip_unusable=True)))


ROWS = [
    *(
        Row(1, f"alg {alg}, third part {third or 'missing'!r}", partial(_unsigned, alg, third), reasons)
        for alg in ("none", "None", "nOnE")
        for third, reasons in (("", "malformed"), (".", "malformed"), (".AA", "algorithm"))
    ),
    *(
        Row(
            2,
            f"HS256 with the public key as {form}",
            partial(raw, {**HEAD, "alg": "HS256", "kid": "rs"}, sign=_hmac_with(secret)),
            "algorithm",
            partial(token, key=RS),
        )
        for form, secret in (
            ("PEM", _public(serialization.Encoding.PEM)),
            ("DER", _public(serialization.Encoding.DER)),
            ("JWK", json.dumps(RS.public_jwk()).encode()),
        )
    ),
    Row(3, "the JWK says RS256, the header PS256", partial(token, key=PS), "algorithm", partial(token, key=RS)),
    Row(
        4,
        "an algorithm of issuer A with issuer B",
        partial(token, iss=OTHER_ISSUER),
        "algorithm",
        partial(token, iss=OTHER_ISSUER, key=ES),
        _of_two_issuers,
    ),
    *(
        Row(5, f"`{name}` in the header", partial(token, key=STRANGER, header={name: value}), "header")
        for name, value in (
            ("jwk", STRANGER.public_jwk()),
            ("jku", "https://evil.example/jwks"),
            ("x5u", "https://evil.example/x"),
            ("x5c", ["AAAA"]),
            ("zip", "DEF"),
            ("x5t", "AAAA"),
        )
    ),
    *(
        Row(6, f"kid {kid[:20]!r}", partial(token, key=STRANGER, header={"kid": kid}), reason)
        for kid, reason in (
            ("other", "unknown_key"),
            ("../../etc/passwd", "unknown_key"),
            ("' OR 1=1 --", "unknown_key"),
            ("https://evil.example/key", "unknown_key"),
            ("k" * 10 * 1024, "header"),
            ("", "header"),
        )
    ),
    Row(6, "kid is no text", partial(token, header={"kid": 7}), "header"),
    Row(
        6,
        "kid of another issuer's key",
        partial(token, iss=OTHER_ISSUER),
        "unknown_key",
        partial(token, iss=OTHER_ISSUER, key=ES),
        lambda: validator(trusted(), TrustedIssuer(OTHER_ISSUER, KeySet([ES.public_key()]), [SERVICE])),
    ),
    Row(7, "kid of key 1, signed by key 2", partial(token, key=STRANGER), "signature"),
    Row(
        8,
        "no kid and two keys",
        lambda: raw({"alg": "Ed25519", "typ": "at+jwt"}),
        "ambiguous_key",
        token,
        lambda: validator(trusted(keys=TWO_ED_KEYS)),
    ),
    Row(
        8,
        "no kid and no key that fits",
        lambda: raw({"alg": "ES256", "typ": "at+jwt"}, sign=ES.sign),
        "unknown_key",
        lambda: raw({"alg": "Ed25519", "typ": "at+jwt"}),
        lambda: validator(trusted(keys=ONE_KEY)),
    ),
    Row(
        9,
        "a key with use enc",
        partial(token, key=ES),
        "unknown_key",
        token,
        _of_jwks(_bare(ED, use="sig"), _bare(ES, use="enc")),
    ),
    Row(
        9,
        "a key with key_ops without verify",
        partial(token, key=ES),
        "unknown_key",
        token,
        _of_jwks(_bare(ED, key_ops=["verify"]), _bare(ES, key_ops=["encrypt"])),
    ),
    Row(
        11,
        "ES256 with a P-384 key",
        lambda: raw(ES_HEAD, sign=ES.sign),
        "algorithm",
        token,
        _of_jwks(_bare(ED), {**public_jwk(P384.public_key()), "kid": "es"}),
    ),
    Row(12, "ECDSA of r = s = 0", lambda: raw(ES_HEAD, sign=lambda _: bytes(64)), "signature", partial(token, key=ES)),
    Row(12, "ECDSA in DER", lambda: raw(ES_HEAD, sign=_der_signature), "signature", partial(token, key=ES)),
    *(
        Row(
            12,
            f"a signature that is {what}",
            partial(raw, head, sign=partial(_changed, change, key)),
            "signature",
            partial(token, key=key),
        )
        for head, key in ((ES_HEAD, ES), (HEAD, ED), ({**HEAD, "alg": "RS256", "kid": "rs"}, RS))
        for what, change in (
            (f"cut ({key.algorithm})", lambda s: s[:-1]),
            (f"longer ({key.algorithm})", lambda s: s + b"\0"),
            (f"zero ({key.algorithm})", lambda s: bytes(len(s))),
            (f"one byte ({key.algorithm})", lambda s: s[:1]),
        )
    ),
    Row(13, "an unknown crit", partial(token, header={"crit": ["x"], "x": 1}), "header"),
    Row(13, "an empty crit", partial(token, header={"crit": []}), "header"),
    Row(13, "b64 false", partial(token, header={"b64": False, "crit": ["b64"]}), "header"),
    Row(14, "JWE, of five parts", lambda: f"{token()}.AAAA.AAAA", "malformed"),
    Row(
        14,
        "JSON serialization",
        lambda: json.dumps(dict(zip(("protected", "payload", "signature"), token().split("."), strict=True))),
        "malformed",
    ),
    Row(14, "detached payload", lambda: "{0}..{2}".format(*token().split(".")), "malformed"),
    Row(15, "padding", lambda: f"{token()}==", "malformed"),
    Row(15, "the standard alphabet", _with_standard_alphabet, "malformed"),
    Row(15, "spare bits that are set", _of_spare_bits, "malformed"),
    *(
        Row(15, f"{mark!r} at {place}", partial(_put, put, mark), "malformed")
        for mark in (" ", "\n", "\t", "\0", "\u00a0")
        for place, put in (
            ("the start", lambda t, m: m + t),
            ("the end", lambda t, m: t + m),
            ("a dot", lambda t, m: t.replace(".", f".{m}", 1)),
        )
    ),
    Row(
        16,
        "a member twice in the header",
        lambda: raw(b'{"alg":"none","alg":"Ed25519","kid":"ed","typ":"at+jwt"}'),
        "malformed",
    ),
    Row(
        16,
        "a claim twice",
        lambda: raw(HEAD, json.dumps(claims()).encode()[:-1] + b',"sub":"admin"}'),
        "malformed",
        lambda: raw(HEAD, json.dumps(claims()).encode()),
    ),
    Row(
        16,
        "a member twice within `act`",
        lambda: raw(HEAD, json.dumps(claims()).encode()[:-1] + b',"act":{"sub":"a","role":"i","sub":"b"}}'),
        "malformed",
        lambda: raw(HEAD, json.dumps(claims()).encode()[:-1] + b',"act":{"sub":"a","role":"i"}}'),
    ),
    Row(17, "claims in UTF-16", lambda: raw(HEAD, json.dumps(claims()).encode("utf-16")), "malformed"),
    Row(
        17,
        "half of a surrogate pair",
        lambda: raw(HEAD, json.dumps(claims(sub="X")).encode().replace(b"X", b"\\ud800")),
        "malformed",
        lambda: raw(HEAD, json.dumps(claims(sub="X")).encode().replace(b"X", b"\\ud83d\\ude00")),
    ),
    Row(17, "a byte order mark", lambda: raw(HEAD, b"\xef\xbb\xbf" + json.dumps(claims()).encode()), "malformed"),
    Row(
        17, "invalid UTF-8", lambda: raw(HEAD, json.dumps(claims(sub="X")).encode().replace(b"X", b"\xff")), "malformed"
    ),
    *(
        Row(17, f"a payload that is {body.decode()}", partial(raw, HEAD, body), "malformed")
        for body in (b"[]", b'"x"', b"7", b"null", b"true", b"{} {}", b"{", b"{'a':1}", b"nul")
    ),
    Row(18, "over the cap", partial(token, more="x" * MAX_TOKEN), "too_large", partial(token, more="x" * 8000)),
    Row(18, "5 MB", partial(token, more="x" * 4_000_000), "too_large"),
    Row(18, "5 MB of dots", lambda: "." * 5_000_000, "too_large"),
    Row(18, "100,000 lists", lambda: raw(HEAD, b"[" * 100_000 + b"]" * 100_000), "too_large"),
    Row(18, "5,000 lists", lambda: raw(HEAD, b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}"), "malformed"),
    Row(18, "a huge integer", lambda: raw(HEAD, b'{"exp":' + b"9" * 5_000 + b"}"), "malformed"),
    Row(18, "a huge exponent", lambda: raw(HEAD, b'{"exp":1e999999}'), "malformed"),
]


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_what_must_be_refused_is_and_its_twin_is_not(row: Row) -> None:
    """The token of the row is refused for its reason; its twin is verified."""
    check(row)


@pytest.mark.parametrize("row", ROWS, ids=name_of)
async def test_the_async_form_refuses_the_same(row: Row) -> None:
    """`averify` refuses and accepts what `verify` does, for the same reasons."""
    await acheck(row)


@pytest.mark.parametrize("given", [None, b"a.b.c", 7, "", ".", "..", "a.b", ["a.b.c"], "\ud800.a.b"])
def test_what_is_no_token_is_refused(given: Any) -> None:
    """Whatever is no text of three parts is malformed."""
    with pytest.raises(TokenError, match="malformed"):
        validator().verify(given)


# ---- cases of keys and sets, which are refused before there is a token


@pytest.mark.parametrize(
    "keys",
    [
        [_bare(ED), {**_bare(ES), "kid": "ed"}],
        [_bare(ED), {**_bare(ES, use="enc"), "kid": "ed"}],
        [_bare(ED), {"kty": "oct", "k": to_base64url(bytes(32)), "kid": "shared"}],
        [{**_bare(ED), "d": to_base64url(bytes(32))}],
    ],
    ids=["duplicate kid", "duplicate kid, one for encryption", "a symmetric key", "a private key"],
)
def test_case_10_a_set_with_duplicate_or_secret_keys_is_refused(keys: list[dict[str, Any]]) -> None:
    """Case 10, RFC 7517 §4.5: the whole set is refused, and the same without the second key is taken."""
    with pytest.raises(InvalidArgument):
        KeySet.of_jwks({"keys": keys}, skip_unusable=True)
    assert KeySet.of_jwks({"keys": [_bare(ED)]}).keys


def _weak_rsa() -> dict[str, Any]:
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    return {"kty": "RSA", "n": to_base64url(numbers.n.to_bytes(128)), "e": "AQAB"}


@pytest.mark.parametrize(
    "jwk",
    [_weak_rsa(), {**_bare(RS), "e": "AQ"}, {**_bare(ES), "y": to_base64url(bytes(32))}, {**_bare(ES), "crv": "P-384"}],
    ids=["RSA of 1,024 bits", "exponent 1", "a point off the curve", "a P-256 point on P-384"],
)
def test_case_11_weak_and_invalid_keys_are_refused(jwk: dict[str, Any]) -> None:
    """Case 11, RFC 8725 §3.4, §3.5: a weak or invalid key is none; the good ones of each kind are."""
    with pytest.raises(InvalidArgument):
        verification_key(jwk)
    assert verification_key(_bare(RS)).algorithms
    assert verification_key(_bare(ES)).algorithms


class CountingKeys:
    """Be a source of keys that counts how often it is asked."""

    def __init__(self, keys: KeySet = KEYS) -> None:
        self.asked: list[str | None] = []
        self._keys = keys

    def keys(self, key_id: str | None) -> KeySet:
        self.asked.append(key_id)
        return self._keys

    async def akeys(self, key_id: str | None) -> KeySet:
        return self.keys(key_id)


def test_case_5_a_header_with_a_way_to_keys_asks_for_none() -> None:
    """Case 5: what a header points at is never fetched; not even the issuer's own keys are asked for."""
    source = CountingKeys()
    asked = validator(trusted(keys=source))
    for name in ("jwk", "jku", "x5u", "x5c"):
        with pytest.raises(TokenError, match="header"):
            asked.verify(token(header={name: "https://evil.example"}))
    assert source.asked == []
    assert asked.verify(token()).kind == "access"
    assert source.asked == ["ed"]


async def test_case_6_an_unknown_kid_asks_its_issuer_once() -> None:
    """Case 6: the source is asked once for a token whose key isn't known, in both forms."""
    source = CountingKeys()
    asked = validator(trusted(keys=source))
    with pytest.raises(TokenError, match="unknown_key"):
        asked.verify(token(header={"kid": "new"}))
    with pytest.raises(TokenError, match="unknown_key"):
        await asked.averify(token(header={"kid": "new"}))
    assert source.asked == ["new", "new"]


def test_an_untrusted_issuer_costs_no_look_up() -> None:
    """A token of a stranger is refused before any source is asked."""
    source = CountingKeys()
    with pytest.raises(TokenError, match="issuer"):
        validator(trusted(keys=source)).verify(token(iss="https://stranger.example"))
    assert source.asked == []


@pytest.mark.parametrize("name", ["keys", "akeys"])
async def test_a_source_without_keys_refuses(name: str) -> None:
    """A source that raises `keys_unavailable` makes the token refused with that reason."""

    class Down:
        def keys(self, key_id: str | None) -> KeySet:
            raise TokenError("keys_unavailable", "the keys can't be had")

        async def akeys(self, key_id: str | None) -> KeySet:
            return self.keys(key_id)

    asked = validator(trusted(keys=Down()))
    with pytest.raises(TokenError, match="keys_unavailable"):
        _ = asked.verify(token()) if name == "keys" else await asked.averify(token())


def test_a_key_is_tried_alone_where_it_is_named() -> None:
    """Case 7: even where another key of the set would fit, only the one that `kid` names is tried."""
    other = SigningKey.generate(key_id="ed-2")
    keys = KeySet([ED.public_key(), other.public_key()])
    forged = parse(token(key=other, header={"kid": "ed"}))
    with pytest.raises(TokenError, match="signature"):
        verify(forged, keys, {"Ed25519"})
    assert verify(parse(token(key=other)), keys, {"Ed25519"}).key_id == "ed-2"


def test_hashes_of_public_keys_are_no_secrets() -> None:
    """Case 2: nor is any digest of a public key a secret that a token can be signed with."""
    for name in ("sha256", "sha512"):
        secret = hashlib.new(name, base64.b64decode(base64.b64encode(_public(serialization.Encoding.DER)))).digest()
        with pytest.raises(TokenError, match="algorithm"):
            validator().verify(raw({"alg": "HS256", "kid": "rs", "typ": "at+jwt"}, sign=_hmac_with(secret)))


def test_a_header_that_was_read_before_is_checked_again() -> None:
    """What one caller lets a header hold is not let through for another, and nobody can change what was read."""
    raw = token(header={"jwk": {"kty": "OKP"}})
    lenient = frozenset({"alg", "typ", "kid", "jwk"})
    for _ in range(2):
        read = parse(raw, header=lenient).header
        with pytest.raises(TokenError, match="not understood"):
            parse(raw)
    with pytest.raises(TypeError):
        read["alg"] = "none"  # type: ignore[index]
