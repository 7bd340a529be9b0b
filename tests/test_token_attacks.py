"""Refuse every forged, stretched and misused token, and accept what stands right beside it.

The number of a row is the case's number in the table of what must be refused; each row names a token that is refused,
for which reason, and a twin that is accepted by the same validator.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from attrs import field, frozen
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys.base64url import to_base64url
from agentauthz.keys.jwk import KeySet, public_jwk, verification_key
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens.claims import ActLimits
from agentauthz.tokens.issuers import TokenLimits, TrustedIssuer
from agentauthz.tokens.jws import MAX_TOKEN, parse, verify
from agentauthz.tokens.validator import Validator
from tests.issuing import (
    ACT,
    ED,
    ES,
    GONE,
    ISSUER,
    KEYS,
    NOW,
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

HEAD = {"alg": "Ed25519", "kid": "ed", "typ": "at+jwt"}


@frozen
class Row:
    """Be a case: a token that is refused for one of `reasons`, and a twin that is accepted."""

    case: int | str
    what: str
    refused: Callable[[], str]
    reasons: str
    accepted: Callable[[], str] = token
    validator: Callable[[], Validator] = validator
    kind: Any = field(default="access")


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


def _strict_act() -> Validator:
    return validator(limits=TokenLimits(act=ActLimits(strict=True)))


def _deep(depth: int) -> dict[str, Any]:
    act: dict[str, Any] = {"sub": "first", "iss": ISSUER}
    for number in range(depth - 1):
        act = {"sub": f"agent-{number}", "iss": ISSUER, "act": act}
    return act


SIGNATURE = [
    *(
        Row(1, f"alg {alg}, third part {third or 'missing'!r}", lambda a=alg, t=third: _unsigned(a, t), reasons)  # type: ignore[misc]
        for alg in ("none", "None", "nOnE")
        for third, reasons in (("", "malformed"), (".", "malformed"), (".AA", "algorithm"))
    ),
    *(
        Row(
            2, f"HS256 with the public key as {form}",
            lambda s=secret: raw({"alg": "HS256", "kid": "rs", "typ": "at+jwt"}, sign=_hmac_with(s)),  # type: ignore[misc]
            "algorithm", lambda: token(key=RS),
        )
        for form, secret in (
            ("PEM", _public(serialization.Encoding.PEM)),
            ("DER", _public(serialization.Encoding.DER)),
            ("JWK", json.dumps(RS.public_jwk()).encode()),
        )
    ),
    Row(3, "the JWK says RS256, the header PS256", lambda: token(key=PS), "algorithm", lambda: token(key=RS)),
    Row(
        4, "an algorithm of issuer A with issuer B", lambda: token(iss=OTHER_ISSUER), "algorithm",
        lambda: token(iss=OTHER_ISSUER, key=ES), _of_two_issuers,
    ),
    *(
        Row(5, f"`{name}` in the header", lambda n=name, v=value: token(key=STRANGER, header={n: v}), "header")  # type: ignore[misc]
        for name, value in (
            ("jwk", STRANGER.public_jwk()), ("jku", "https://evil.example/jwks"), ("x5u", "https://evil.example/x"),
            ("x5c", ["AAAA"]), ("zip", "DEF"), ("x5t", "AAAA"),
        )
    ),
    *(
        Row(6, f"kid {kid[:20]!r}", lambda k=kid: token(key=STRANGER, header={"kid": k}), reason)  # type: ignore[misc]
        for kid, reason in (
            ("other", "unknown_key"), ("../../etc/passwd", "unknown_key"), ("' OR 1=1 --", "unknown_key"),
            ("https://evil.example/key", "unknown_key"), ("k" * 10 * 1024, "header"), ("", "header"),
        )
    ),
    Row(6, "kid is no text", lambda: token(header={"kid": 7}), "header"),
    Row(
        6, "kid of another issuer's key", lambda: token(iss=OTHER_ISSUER), "unknown_key",
        lambda: token(iss=OTHER_ISSUER, key=ES),
        lambda: validator(trusted(), TrustedIssuer(OTHER_ISSUER, KeySet([ES.public_key()]), [SERVICE])),
    ),
    Row(7, "kid of key 1, signed by key 2", lambda: token(key=STRANGER), "signature"),
    Row(
        8, "no kid and two keys", lambda: raw({"alg": "Ed25519", "typ": "at+jwt"}), "ambiguous_key", token,
        lambda: validator(trusted(keys=TWO_ED_KEYS)),
    ),
    Row(
        8, "no kid and no key that fits", lambda: raw({"alg": "ES256", "typ": "at+jwt"}, sign=ES.sign), "unknown_key",
        lambda: raw({"alg": "Ed25519", "typ": "at+jwt"}), lambda: validator(trusted(keys=ONE_KEY)),
    ),
    Row(
        9, "a key with use enc", lambda: token(key=ES), "unknown_key", token,
        _of_jwks(_bare(ED, use="sig"), _bare(ES, use="enc")),
    ),
    Row(
        9, "a key with key_ops without verify", lambda: token(key=ES), "unknown_key", token,
        _of_jwks(_bare(ED, key_ops=["verify"]), _bare(ES, key_ops=["encrypt"])),
    ),
    Row(
        11, "ES256 with a P-384 key", lambda: raw(ES_HEAD, sign=ES.sign), "algorithm", token,
        _of_jwks(_bare(ED), {**public_jwk(P384.public_key()), "kid": "es"}),
    ),
    Row(12, "ECDSA of r = s = 0", lambda: raw(ES_HEAD, sign=lambda _: bytes(64)), "signature", lambda: token(key=ES)),
    Row(12, "ECDSA in DER", lambda: raw(ES_HEAD, sign=_der_signature), "signature", lambda: token(key=ES)),
    *(
        Row(
            12, f"a signature that is {what}", lambda h=head, k=key, c=change: raw(h, sign=lambda d: c(k.sign(d))),  # type: ignore[misc]
            "signature", lambda k=key: token(key=k),  # type: ignore[misc]
        )
        for head, key in ((ES_HEAD, ES), (HEAD, ED), ({**HEAD, "alg": "RS256", "kid": "rs"}, RS))
        for what, change in (
            (f"cut ({key.algorithm})", lambda s: s[:-1]), (f"longer ({key.algorithm})", lambda s: s + b"\0"),
            (f"zero ({key.algorithm})", lambda s: bytes(len(s))), (f"one byte ({key.algorithm})", lambda s: s[:1]),
        )
    ),
    Row(13, "an unknown crit", lambda: token(header={"crit": ["x"], "x": 1}), "header"),
    Row(13, "an empty crit", lambda: token(header={"crit": []}), "header"),
    Row(13, "b64 false", lambda: token(header={"b64": False, "crit": ["b64"]}), "header"),
    Row(14, "JWE, of five parts", lambda: f"{token()}.AAAA.AAAA", "malformed"),
    Row(
        14, "JSON serialization",
        lambda: json.dumps(dict(zip(("protected", "payload", "signature"), token().split("."), strict=True))),
        "malformed",
    ),
    Row(14, "detached payload", lambda: "{0}..{2}".format(*token().split(".")), "malformed"),
    Row(15, "padding", lambda: f"{token()}==", "malformed"),
    Row(15, "the standard alphabet", _with_standard_alphabet, "malformed"),
    Row(15, "spare bits that are set", _of_spare_bits, "malformed"),
    *(
        Row(15, f"{mark!r} at {place}", lambda m=mark, f=put: f(token(), m), "malformed")  # type: ignore[misc]
        for mark in (" ", "\n", "\t", "\0", "\u00a0")
        for place, put in (
            ("the start", lambda t, m: m + t), ("the end", lambda t, m: t + m),
            ("a dot", lambda t, m: t.replace(".", f".{m}", 1)),
        )
    ),
    Row(16, "a member twice in the header", lambda: raw(b'{"alg":"none","alg":"Ed25519","kid":"ed","typ":"at+jwt"}'), "malformed"),
    Row(
        16, "a claim twice", lambda: raw(HEAD, json.dumps(claims()).encode()[:-1] + b',"sub":"admin"}'), "malformed",
        lambda: raw(HEAD, json.dumps(claims()).encode()),
    ),
    Row(
        16, "a member twice within `act`",
        lambda: raw(HEAD, json.dumps(claims()).encode()[:-1] + b',"act":{"sub":"a","iss":"i","sub":"b"}}'), "malformed",
        lambda: raw(HEAD, json.dumps(claims()).encode()[:-1] + b',"act":{"sub":"a","iss":"i"}}'),
    ),
    Row(17, "claims in UTF-16", lambda: raw(HEAD, json.dumps(claims()).encode("utf-16")), "malformed"),
    Row(17, "a byte order mark", lambda: raw(HEAD, b"\xef\xbb\xbf" + json.dumps(claims()).encode()), "malformed"),
    Row(17, "invalid UTF-8", lambda: raw(HEAD, json.dumps(claims(sub="X")).encode().replace(b"X", b"\xff")), "malformed"),
    *(
        Row(17, f"a payload that is {body.decode()}", lambda b=body: raw(HEAD, b), "malformed")  # type: ignore[misc]
        for body in (b"[]", b'"x"', b"7", b"null", b"true", b"{} {}", b"{", b"{'a':1}", b"nul")
    ),
    Row(18, "over the cap", lambda: token(more="x" * MAX_TOKEN), "too_large", lambda: token(more="x" * 8000)),
    Row(18, "5 MB", lambda: token(more="x" * 4_000_000), "too_large"),
    Row(18, "5 MB of dots", lambda: "." * 5_000_000, "too_large"),
    Row(18, "100,000 lists", lambda: raw(HEAD, b"[" * 100_000 + b"]" * 100_000), "too_large"),
    Row(18, "5,000 lists", lambda: raw(HEAD, b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}"), "malformed"),
    Row(18, "a huge integer", lambda: raw(HEAD, b'{"exp":' + b"9" * 5_000 + b"}"), "malformed"),
    Row(18, "a huge exponent", lambda: raw(HEAD, b'{"exp":1e999999}'), "malformed"),
]  # fmt: skip

_EXPIRED = dict(iat=NOW - 300)

DATES = [
    Row(19, "no exp", lambda: token(exp=GONE), "exp"),
    Row(
        19, "expired by the leeway and a second", lambda: token(exp=NOW - 31, **_EXPIRED), "expired",
        lambda: token(exp=NOW - 29, **_EXPIRED),
    ),
    Row(19, "expired by just the leeway", lambda: token(exp=NOW - 30, **_EXPIRED), "expired"),
    *(
        Row(19, f"exp {value!r}", lambda v=value: token(exp=v), "exp", lambda: token(exp=NOW + 300.5))  # type: ignore[misc]
        for value in (str(NOW + 300), True, -1, None, [NOW + 300], {"n": 1})
    ),
    *(
        Row(19, f"exp {text}", lambda t=text: raw(HEAD, json.dumps(claims(exp=0)).replace('"exp": 0', f'"exp": {t}').encode()), reason)  # type: ignore[misc]
        for text, reason in (
            ("NaN", "malformed"), ("Infinity", "malformed"), ("-Infinity", "malformed"), ("1e400", "malformed"),
            ("99999999999999999999", "malformed"), ("9999999999999999999", "exp"), ("1e300", "exp"), ("-0.5", "exp"),
        )
    ),
    Row(20, "nbf beyond the leeway", lambda: token(nbf=NOW + 31), "not_yet_valid", lambda: token(nbf=NOW + 30)),
    Row(20, "iat beyond the leeway", lambda: token(iat=NOW + 31), "not_yet_valid", lambda: token(iat=NOW + 30)),
    *(
        Row(20, f"{name} {value!r}", lambda n=name, v=value: token(**{n: v}), name, lambda n=name: token(**{n: NOW - 0.5}))  # type: ignore[misc]
        for name in ("nbf", "iat")
        for value in (str(NOW), True, -1, None)
    ),
    Row(20, "no iat", lambda: token(iat=GONE), "iat"),
    Row(
        21, "a lifetime over the cap", lambda: token(exp=NOW + 86_401), "lifetime", lambda: token(exp=NOW + 86_400),
    ),
    Row(21, "exp before iat", lambda: token(iat=NOW + 20, exp=NOW + 10), "lifetime"),
    Row(
        21, "older than max_age", lambda: token(iat=NOW - 631), "too_old", lambda: token(iat=NOW - 629),
        lambda: validator(limits=TokenLimits(max_age=dt.timedelta(minutes=10))),
    ),
]  # fmt: skip


PARTIES = [
    Row(22, "no iss", lambda: token(iss=GONE), "issuer"),
    *(
        Row(22, f"iss {value!r}", lambda v=value: token(iss=v), "issuer")  # type: ignore[misc]
        for value in (
            f"{ISSUER}/", ISSUER.upper(), "https://Issuer.example", ISSUER[:-1], f"{ISSUER}.evil.example", [ISSUER],
            {"a": ISSUER}, None, "", f" {ISSUER}", OTHER_ISSUER,
        )
    ),
    Row(23, "no aud", lambda: token(aud=GONE), "aud"),
    *(
        Row(23, f"aud {value!r}", lambda v=value: token(aud=v), reason, lambda: token(aud=["https://x.example", SERVICE]))  # type: ignore[misc]
        for value, reason in (
            ("https://other.example", "audience"), (SERVICE[:-1], "audience"), (f"{SERVICE}/", "audience"),
            (f"{SERVICE} x", "audience"), (SERVICE.upper(), "audience"), ([], "aud"), ([SERVICE, 7], "aud"),
            (["https://a.example", "https://b.example"], "audience"), (None, "aud"), ({SERVICE: 1}, "aud"), ("", "aud"),
            ([SERVICE, ""], "aud"), ([[SERVICE]], "aud"),
        )
    ),
    Row(24, "no typ", lambda: raw({"alg": "Ed25519", "kid": "ed"}), "typ", lambda: token(typ="application/at+jwt")),
    *(
        Row(24, f"typ {typ}", lambda t=typ: token(typ=t), "typ")  # type: ignore[misc]
        for typ in (
            "JWT", "dpop+jwt", "oauth-id-jag+jwt", "txntoken+jwt", "secevent+jwt", "AT+JWT", "at+jwt ", "jwt", "logout+jwt",
        )
    ),
    Row(24, "an empty typ", lambda: token(typ=""), "header"),
    Row(25, "no sub", lambda: token(sub=GONE), "sub"),
    *(
        Row(25, f"{name} {str(value)[:9]!r}", lambda n=name, v=value: token(**{n: v}), name)  # type: ignore[misc]
        for name in ("sub", "jti", "client_id")
        for value in ("", 7, None, ["x"], True, "x" * 1025)
    ),
    Row(25, "no client_id", lambda: token(client_id=GONE), "client_id"),
    Row(25, "no jti", lambda: token(jti=GONE), "jti"),
    *(
        Row(26, f"scope {value!r}", lambda v=value: token(scope=v), "scope", lambda: token(scope="a:b c.d/e!~#"))  # type: ignore[misc]
        for value in (
            ["payments.read"], "a  b", " a", "a ", "", 'a"b', "a\\b", "a\tb", "a\nb", "a\u00e9", None, 7, {"a": 1},
        )
    ),
]  # fmt: skip

CHAINS = [
    *(
        Row(32, f"act {value!r}", lambda v=value: token(act=v), "act", lambda: token(act=ACT))  # type: ignore[misc]
        for value in ("worker", ["worker"], None, {}, 7, True, [ACT])
    ),
    *(
        Row(33, f"act {value!r}", lambda v=value: token(act=v), "act", lambda: token(act=ACT))  # type: ignore[misc]
        for value in (
            {"iss": ISSUER}, {"sub": ""}, {"sub": 7}, {"sub": None}, {"sub": ["worker"]}, {"sub": "w", "iss": 7},
            {"sub": "w", "iss": ""}, {"sub": "w", "iss": None}, {**ACT, "act": "planner"}, {**ACT, "act": {}},
            {**ACT, "act": {"iss": ISSUER}}, {**ACT, "act": [ACT]}, {**ACT, "act": None},
        )
    ),
    Row(33, "a sub_profile that isn't known", lambda: token(act={**ACT, "sub_profile": "robot"}), "sub_profile"),
    Row(33, "a sub_profile of the subject that isn't known", lambda: token(sub_profile=["user"]), "sub_profile"),
    Row(33, "a text over 1 KiB", lambda: token(act={**ACT, "note": "x" * 1025}), "act", lambda: token(act={**ACT, "note": "x" * 1024})),
    Row(
        33, "an act over 8 KiB", lambda: token(act={**ACT, "notes": ["x" * 1000] * 9}), "act",
        lambda: token(act={**ACT, "notes": ["x" * 1000] * 7}),
    ),
    Row(34, "nine actors", lambda: token(act=_deep(9)), "depth", lambda: token(act=_deep(8))),
    Row(
        34, "three actors where two are the most", lambda: token(act=_deep(3)), "depth", lambda: token(act=_deep(2)),
        lambda: validator(limits=TokenLimits(act=ActLimits(depth=2))),
    ),
    Row(
        38, "no act, and client_id differs from sub, where an actor is needed", token, "actor_required",
        lambda: token(act=ACT), lambda: validator(require_actor=True),
    ),
    *(
        Row(39, f"`{name}` within act, strictly", lambda n=name: token(act={**ACT, n: NOW + 9_000}), "act",  # type: ignore[misc]
            lambda: token(act={**ACT, "act": {"sub": "planner", "iss": ISSUER}}), _strict_act)
        for name in ("exp", "nbf", "iat", "aud", "jti")
    ),
    Row(
        39, "an actor without iss, strictly", lambda: token(act={"sub": "worker"}), "act",
        lambda: token(act={"sub": "worker", "iss": ISSUER}), _strict_act,
    ),
]  # fmt: skip

OTHERS = [
    *(
        Row("RFC 7800 §3.1", f"cnf {value!r}", lambda v=value: token(cnf=v), "cnf")  # type: ignore[misc]
        for value in ({"kid": "x"}, {}, None, "x", {"jkt": "short"}, {"jkt": 7}, {"x5t#S256": "A" * 44})
    ),
    *(
        Row("RFC 9396 §2", f"authorization_details {value!r}", lambda v=value: token(authorization_details=v), "authorization_details",  # type: ignore[misc]
            lambda: token(authorization_details=[{"type": "payment", "actions": ["read"]}]))
        for value in ({"type": "payment"}, [{}], [{"type": ""}], [{"type": 7}], ["payment"], None, [{"type": "a"}, 7])
    ),
]  # fmt: skip

ROWS = [*SIGNATURE, *DATES, *PARTIES, *CHAINS, *OTHERS]


def _name(row: Row) -> str:
    case = f"case {row.case}" if isinstance(row.case, int) else row.case
    return f"{case}: {row.what}".replace("§", "section ").encode("ascii", "backslashreplace").decode()


@pytest.mark.parametrize("row", ROWS, ids=_name)
def test_what_must_be_refused_is_and_its_twin_is_not(row: Row) -> None:
    """The token of the row is refused for its reason, by both forms of `verify`; its twin is verified."""
    asked = row.validator()
    with pytest.raises(TokenError) as caught:
        asked.verify(row.refused(), kind=row.kind)
    assert caught.value.reason == row.reasons
    assert asked.verify(row.accepted(), kind=row.kind).issuer


@pytest.mark.parametrize("row", ROWS, ids=_name)
async def test_the_async_form_refuses_the_same(row: Row) -> None:
    """`averify` refuses and accepts what `verify` does, for the same reasons."""
    asked = row.validator()
    with pytest.raises(TokenError) as caught:
        await asked.averify(row.refused(), kind=row.kind)
    assert caught.value.reason == row.reasons
    assert (await asked.averify(row.accepted(), kind=row.kind)).issuer


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
    """Case 10: the whole set is refused, and the same without the second key is taken."""
    with pytest.raises(InvalidArgument):
        KeySet.of_jwks({"keys": keys}, skip_unusable=True)
    assert KeySet.of_jwks({"keys": [_bare(ED)]}).keys


def _weak_rsa() -> dict[str, Any]:
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()  # noqa: S505
    return {"kty": "RSA", "n": to_base64url(numbers.n.to_bytes(128)), "e": "AQAB"}


@pytest.mark.parametrize(
    "jwk",
    [_weak_rsa(), {**_bare(RS), "e": "AQ"}, {**_bare(ES), "y": to_base64url(bytes(32))}, {**_bare(ES), "crv": "P-384"}],
    ids=["RSA of 1,024 bits", "exponent 1", "a point off the curve", "a P-256 point on P-384"],
)
def test_case_11_weak_and_invalid_keys_are_refused(jwk: dict[str, Any]) -> None:
    """Case 11: a weak or invalid key is none; the good ones of each kind are."""
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
    assert asked.verify(token())
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
