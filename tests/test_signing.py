"""Test keys that sign and the keys that verify: made, loaded, replaced, refused when weak, and never shown."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from joserfc import jwk as peer_jwk
from joserfc import jws as peer_jws

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys.base64url import from_base64url, to_base64url
from agentauthz.keys.jwk import KeySet, algorithms_of, public_jwk, thumbprint, verification_key
from agentauthz.keys.signing import ALGORITHMS, KeyRing, Signer, SigningKey
from agentauthz.tokens import jws
from tests.loopback import everything_told

pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated via RFC 9864")  # joserfc's; many issuers use it

VECTORS: Final = Path(__file__).parent / "vectors" / "jose"
KEYS: Final = {algorithm: SigningKey.generate(algorithm) for algorithm in ALGORITHMS}
PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")


def _pem(private: Any, password: bytes | None = None, form: str = "PKCS8") -> bytes:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return bytes(private.private_bytes(serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), hidden))


def _private_jwk(key: SigningKey) -> dict[str, Any]:
    """Return the private JWK of a key, made by the peer."""
    kinds: dict[str, type[peer_jwk.OKPKey | peer_jwk.ECKey | peer_jwk.RSAKey]] = {
        "OKP": peer_jwk.OKPKey,
        "EC": peer_jwk.ECKey,
        "RSA": peer_jwk.RSAKey,
    }
    made = kinds[key.public_jwk()["kty"]].import_key(key.to_pem())
    return {**made.as_dict(private=True), "kid": key.key_id, "alg": key.algorithm}


def _verifies(token: str, *keys: SigningKey) -> bool:
    found = jws.parse(token)
    try:
        jws.verify(found, KeySet([key.public_key() for key in keys]), ALGORITHMS)
    except TokenError:
        return False
    return True


# ---- made


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_generated_key_signs_what_its_public_key_verifies(algorithm: str) -> None:
    """What a new key signs is genuine under its own public key, and under no other of its kind."""
    key = KEYS[algorithm]
    token = jws.make({"sub": "maria"}, key, typ="at+jwt")
    assert _verifies(token, key)
    assert not _verifies(token, SigningKey.generate(algorithm, key_id=key.key_id))
    assert (jws.parse(token).algorithm, jws.parse(token).key_id) == (algorithm, key.key_id)
    assert key.public_key().algorithms == {algorithm}


@pytest.mark.parametrize("algorithm", ["none", "HS256", "ES384", "ed25519", "", None, 1])
def test_other_algorithms_are_not_generated(algorithm: object) -> None:
    """Only the five algorithms that are signed with can be asked for."""
    with pytest.raises(InvalidArgument, match="must be one of Ed25519"):
        SigningKey.generate(algorithm)  # type: ignore[arg-type]


def test_a_key_is_named_by_its_thumbprint_or_by_hand() -> None:
    """RFC 7638 names a key where nobody does."""
    key = KEYS["ES256"]
    assert key.key_id == thumbprint(key.public_jwk()) == key.public_key().thumbprint
    assert SigningKey.generate(key_id="2026-11").key_id == "2026-11"
    for name in ("", 1):
        with pytest.raises(InvalidArgument, match="not empty"):
            SigningKey.generate(key_id=name)  # type: ignore[arg-type]


def test_rsa_keys_are_long() -> None:
    """A new RSA key has 3,072 bits."""
    [size] = {len(from_base64url(KEYS[name].public_jwk()["n"]) or b"") for name in ("PS256", "RS256")}
    assert size == 384


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_public_jwk_is_public(algorithm: str) -> None:
    """What is published is the public key with its name, algorithm and use, and a copy at that."""
    key = KEYS[algorithm]
    jwk = key.public_jwk()
    assert not set(PRIVATE) & jwk.keys()
    assert {name: jwk[name] for name in ("kid", "alg", "use")} == {"kid": key.key_id, "alg": algorithm, "use": "sig"}
    jwk["kid"] = "changed"
    assert key.public_jwk()["kid"] == key.key_id


# ---- loaded


@pytest.mark.parametrize("password", [None, b"correct horse"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_survives_pem(algorithm: str, password: bytes | None, tmp_path: Path) -> None:
    """Written as PEM, encrypted or not, and read again, from bytes or a private file, it is the same key."""
    key = KEYS[algorithm]
    pem = key.to_pem(password)
    assert (b"ENCRYPTED" in pem) == (password is not None)
    path = tmp_path / "key.pem"
    path.write_bytes(pem)
    path.chmod(0o600)
    for again in (
        SigningKey.from_pem(pem, algorithm=algorithm, password=password),
        SigningKey.from_file(path, algorithm=algorithm, password=password),
    ):
        assert again.public_jwk() == key.public_jwk()
        assert _verifies(jws.make({}, again, typ="at+jwt"), key)


@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
def test_other_forms_of_pem_are_read(form: str) -> None:
    """PKCS #1 and SEC 1 are read too; a key's first fitting algorithm is taken where none is named."""
    for private, algorithm in ((rsa.generate_private_key(65537, 2048), "PS256"),
                               (ec.generate_private_key(ec.SECP256R1()), "ES256")):  # fmt: skip
        assert SigningKey.from_pem(_pem(private, form=form)).algorithm == algorithm
    assert SigningKey.from_pem(_pem(ed25519.Ed25519PrivateKey.generate())).algorithm == "Ed25519"


@pytest.mark.parametrize("password", [None, b"wrong", b""])
def test_a_wrong_password_opens_nothing(password: bytes | None) -> None:
    """An encrypted key needs its password, and the message repeats none."""
    with pytest.raises(InvalidArgument, match="no private key that this password") as refused:
        SigningKey.from_pem(KEYS["ES256"].to_pem(b"CANARY"), password=password)
    assert "CANARY" not in everything_told(refused.value)
    with pytest.raises(InvalidArgument, match="must not be empty"):
        KEYS["ES256"].to_pem(b"")


def test_what_is_no_private_key_is_refused() -> None:
    """Public keys, certificates, other texts and too much of them are no private keys in PEM."""
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for given in (b"", b"CANARY", pem, pem.decode(), b"x" * 70_000, None):
        with pytest.raises(InvalidArgument) as refused:
            SigningKey.from_pem(given)  # type: ignore[arg-type]
        assert "CANARY" not in str(refused.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666, 0o660])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    """A private key that others may read, or replace, is none."""
    path = tmp_path / "key.pem"
    path.write_bytes(KEYS["ES256"].to_pem())
    path.chmod(mode)
    with pytest.raises(InvalidArgument, match="chmod 600"):
        SigningKey.from_file(path)
    path.chmod(0o400)
    assert SigningKey.from_file(path).key_id == KEYS["ES256"].key_id
    with pytest.raises(InvalidArgument, match="can't be read"):
        SigningKey.from_file(tmp_path / "missing")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_private_jwk_is_a_key(algorithm: str) -> None:
    """A private JWK gives the key, with its own name and algorithm."""
    key = KEYS[algorithm]
    again = SigningKey.from_jwk(_private_jwk(key))
    assert again.public_jwk() == key.public_jwk()
    assert _verifies(jws.make({}, again, typ="at+jwt"), key)


@pytest.mark.parametrize(
    "change",
    [
        {"d": None}, {"d": ""}, {"d": "!"}, {"d": "AAAA"}, {"d": 5}, {"x": KEYS["EdDSA"].public_jwk()["x"]},
        {"kid": 1}, {"kid": ""}, {"alg": "RS256"}, {"alg": "none"}, {"use": "enc"}, {"key_ops": ["verify"]},
        {"key_ops": "sign"}, {"key_ops": []},
        {"kty": "oct", "k": "A" * 43}, {"kty": None}, {"crv": "X25519"}, {"crv": "Ed448"},
    ],
)  # fmt: skip
def test_a_private_jwk_that_does_not_fit_is_refused(change: Mapping[str, object]) -> None:
    """A JWK without its private part, with another's, or that is for something else, signs nothing."""
    jwk = {**_private_jwk(KEYS["Ed25519"]), **change}
    with pytest.raises(InvalidArgument) as refused:
        SigningKey.from_jwk({name: value for name, value in jwk.items() if value is not None})
    assert _private_jwk(KEYS["Ed25519"])["d"] not in everything_told(refused.value)


def test_a_private_jwk_may_be_for_signing_only() -> None:
    """`key_ops` of a private key name `sign` (RFC 7517 §4.3); a public key needs `verify`, and `sign` isn't enough."""
    jwk = _private_jwk(KEYS["ES256"])
    assert SigningKey.from_jwk({**jwk, "key_ops": ["sign"]}).key_id == KEYS["ES256"].key_id
    public = KEYS["ES256"].public_jwk()
    assert verification_key({**public, "key_ops": ["verify"]}).key_id == KEYS["ES256"].key_id
    for operations in (["sign"], ["encrypt"], [], "verify", None, [["verify"]]):
        with pytest.raises(InvalidArgument, match="for signatures"):
            verification_key({**public, "key_ops": operations})
        assert KeySet.of_jwks({"keys": [{**public, "key_ops": operations}]}).keys == ()


def test_half_an_rsa_key_is_refused() -> None:
    """An RSA JWK whose primes are another key's, or missing, is none."""
    jwk = _private_jwk(KEYS["RS256"])
    other = _private_jwk(KEYS["PS256"])
    for change in ({"p": other["p"]}, {"d": other["d"]}, {"p": "AQ"}):
        with pytest.raises(InvalidArgument, match="holds no private key"):
            SigningKey.from_jwk({**jwk, **change})
    with pytest.raises(InvalidArgument, match="holds no private key"):
        SigningKey.from_jwk({name: value for name, value in jwk.items() if name != "p"})


# ---- weak keys


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_keys_of_other_kinds_and_sizes_sign_nothing() -> None:
    """RSA of 1,024 bits, other curves and key agreement are refused."""
    weak = (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256K1()),
            ec.generate_private_key(ec.SECP384R1()), ed448.Ed448PrivateKey.generate(),
            x25519.X25519PrivateKey.generate())  # fmt: skip
    for private in weak:
        with pytest.raises(InvalidArgument):
            SigningKey.from_pem(_pem(private))
        with pytest.raises(InvalidArgument):
            SigningKey(private)  # type: ignore[arg-type]
    for given in (None, b"key", KEYS["ES256"]):
        with pytest.raises(InvalidArgument, match="private key"):
            SigningKey(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(("algorithm", "other"), [("Ed25519", "ES256"), ("ES256", "Ed25519"), ("RS256", "ES256"),
                                                  ("PS256", "HS256"), ("ES256", "none"),
                                                  ("PS256", "PS384")])  # fmt: skip
def test_an_algorithm_must_fit_its_key(algorithm: str, other: str) -> None:
    """A key signs only with what is made for its kind."""
    with pytest.raises(InvalidArgument, match="must be one that fits the key"):
        SigningKey.from_pem(KEYS[algorithm].to_pem(), algorithm=other)


def _rsa(bits: int | None = None, **changes: object) -> dict[str, object]:
    modulus = KEYS["RS256"].public_jwk()["n"]
    if bits is not None:
        modulus = to_base64url(((1 << bits) - 1).to_bytes((bits + 7) // 8))
    return {"kty": "RSA", "n": modulus, "e": "AQAB", **changes}


def _ec(**changes: object) -> dict[str, object]:
    return {**KEYS["ES256"].public_jwk(), "alg": "ES256", **changes}


def _okp(x: int | bytes | None = None, **changes: object) -> dict[str, object]:
    text = KEYS["Ed25519"].public_jwk()["x"]
    if x is not None:
        text = to_base64url(x if isinstance(x, bytes) else x.to_bytes(32, "little"))
    return {"kty": "OKP", "crv": "Ed25519", "x": text, **changes}


P: Final = 2**255 - 19
OTHER_Y: Final = SigningKey.generate("ES256").public_jwk()["y"]
# Points of order 8: their doubles have y = 0 (RFC 8032 §5.1); x² = -y² on the curve
ORDER_8: Final = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)


@pytest.mark.parametrize(
    "jwk",
    [
        _rsa(1024), _rsa(2047), _rsa(8193), _rsa(e="AQ"), _rsa(e="Ag"), _rsa(e="AA"), _rsa(e="BAAA"),
        _rsa(e="A" * 20 + "B"),
        _rsa(n="!"), _rsa(n=""), _rsa(n=None), _rsa(n=5), _rsa(n="A" * 5000), _rsa(e="AQAB="), _rsa(alg="ES256"),
        _ec(y=OTHER_Y), _ec(x="A" * 43, y="A" * 43), _ec(crv="P-384"), _ec(crv="secp256k1"), _ec(crv=None),
        _ec(alg="ES384"),
        _ec(x="AA" + KEYS["ES256"].public_jwk()["x"]), _ec(x=None), _ec(y=""),
        _okp(0), _okp(1), _okp(P - 1), _okp(P), _okp(P + 1), _okp(ORDER_8), _okp(P - ORDER_8), _okp(1 << 255),
        _okp(1 | 1 << 255), _okp(ORDER_8 | 1 << 255), _okp(b"x" * 31), _okp(b"x" * 33), _okp(b"\xff" * 32),
        _okp(crv="X25519"), _okp(crv="Ed448"), _okp(alg="ES256"), _okp(x=None, crv=None),
        _okp(alg=["EdDSA"]), _okp(alg={}), _okp(alg=7),
        {"kty": "oct", "k": "A" * 42}, {"kty": "oct", "k": ""}, {"kty": "oct"},
        {"kty": "oct", "k": "A" * 43, "alg": "HS512"},
        {}, {"kty": "new"}, {"kty": ["RSA"]}, {"kty": None}, None, [], "jwk",
    ],
)  # fmt: skip
def test_a_weak_or_malformed_public_key_is_refused(jwk: Any) -> None:
    """Short moduli, unsafe exponents, points off P-256 or of small order, and short secrets verify nothing."""
    with pytest.raises(InvalidArgument):
        verification_key(jwk)


@pytest.mark.parametrize("jwk", [None, [], "jwk", 7, {}, {"kty": ["EC"]}, {**_okp(), "x": None}, _rsa(e=65537)])
def test_what_is_no_key_has_no_thumbprint(jwk: Any) -> None:
    """RFC 7638 §3.2: each required member is there, as text; what has none of them is no key."""
    with pytest.raises(InvalidArgument, match="thumbprint"):
        thumbprint(jwk)


def test_an_rsa_key_that_can_be_factored_is_refused() -> None:
    """A modulus as CVE-2017-15361 makes them is refused by that name, and an ordinary one isn't."""
    [jwk] = [
        jwk
        for group in json.loads((VECTORS / "wycheproof" / "json_web_key_test.json").read_bytes())["testGroups"]
        for jwk in (group.get("public") or group["private"])["keys"]
        if group["tests"][0]["comment"] == "rejectsKeyWithRocaVulnerability"
    ]
    with pytest.raises(InvalidArgument, match="CVE-2017-15361"):
        verification_key(jwk)
    assert verification_key(_rsa()).algorithms >= {"RS256", "PS256"}


def test_every_good_point_of_ed25519_is_taken() -> None:
    """The check of points refuses no key that is made as RFC 8032 §5.1.5 says."""
    for _ in range(200):
        key = ed25519.Ed25519PrivateKey.generate().public_key()
        assert verification_key(public_jwk(key)).algorithms == {"Ed25519", "EdDSA"}
        assert algorithms_of(key) == {"Ed25519", "EdDSA"}


def test_a_point_of_small_order_would_fit_anything() -> None:
    """Why such points are refused: the library below takes one signature for every text under the neutral point."""
    neutral = ed25519.Ed25519PublicKey.from_public_bytes((1).to_bytes(32, "little"))
    forged = (1).to_bytes(32, "little") + bytes(32)
    for text in (b"pay 1", b"pay 1000000"):
        neutral.verify(forged, text)


def test_off_its_curve_an_ed25519_key_verifies_nothing() -> None:
    """There is no point with y = 2: the library below decodes the key when it verifies, and refuses all signatures."""
    off = KeySet([verification_key(_okp(2))])
    token = jws.make({}, KEYS["Ed25519"], typ="at+jwt", header={})
    forged = f"{token.rpartition('.')[0]}.{to_base64url((1).to_bytes(32, 'little') + bytes(32))}"
    for given in (token, forged):
        with pytest.raises(TokenError) as refused:
            jws.verify(jws.parse(given), off, ALGORITHMS)
        assert refused.value.reason == "signature"


# ---- replaced


def _published(ring: KeyRing) -> list[str]:
    return [jwk["kid"] for jwk in ring.jwks()["keys"]]


def test_a_key_is_replaced_without_an_interruption() -> None:
    """Announce, rotate, retire: at each moment everything that is still valid verifies."""
    one, two = (SigningKey.generate(key_id=name) for name in ("one", "two"))
    ring = KeyRing(one)
    old = jws.make({}, ring.signer, typ="at+jwt")
    ring.announce(two)
    assert (ring.signer.key_id, _published(ring)) == ("one", ["one", "two"])
    ring.rotate(two)
    new = jws.make({}, ring.signer, typ="at+jwt")
    assert (ring.signer.key_id, _published(ring)) == ("two", ["two", "one"])
    for token in (old, new):
        jws.verify(jws.parse(token), ring.key_set(), ALGORITHMS)
    ring.retire("one")
    jws.verify(jws.parse(new), ring.key_set(), ALGORITHMS)
    with pytest.raises(TokenError) as refused:
        jws.verify(jws.parse(old), ring.key_set(), ALGORITHMS)
    assert (refused.value.reason, _published(ring)) == ("unknown_key", ["two"])


def test_a_ring_knows_each_name_once() -> None:
    """Names are unique, and the key that signs can't be retired; what is refused changes nothing."""
    one, two = (SigningKey.generate(key_id=name) for name in ("one", "two"))
    twin = SigningKey.generate(key_id="one")
    with pytest.raises(InvalidArgument, match="the same `key_id`"):
        KeyRing(one, published=[twin])
    ring = KeyRing(one, published=[two])
    bad: Any = object()
    attempts: list[Callable[[], None]] = [
        lambda: ring.announce(twin), lambda: ring.announce(two), lambda: ring.rotate(twin), lambda: ring.retire("one"),
        lambda: ring.retire("other"), lambda: ring.rotate(bad), lambda: ring.announce(bad),
        lambda: ring.rotate(Kms(SigningKey.generate(), name="")),
    ]  # fmt: skip
    for refused in attempts:
        with pytest.raises(InvalidArgument):
            refused()
        assert (ring.signer, _published(ring)) == (one, ["one", "two"])


def test_a_ring_is_never_empty_while_it_turns() -> None:
    """Readers in other threads always find a key that signs, and its public part among those published."""
    one, two = (SigningKey.generate(key_id=name) for name in ("one", "two"))
    ring = KeyRing(one, published=[two])
    failures: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                if set(_published(ring)) != {"one", "two"} or ring.signer.key_id not in ("one", "two"):
                    failures.append(_published(ring))
            except Exception as failure:
                failures.append(failure)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(60):
        ring.rotate(two if turn % 2 else one)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


# ---- signers that hold no key


class Kms:
    """Be what stands before a key service: it has a name and a public key, and asks elsewhere for signatures."""

    def __init__(self, hidden: SigningKey, name: str = "kms-1") -> None:
        self._hidden = hidden
        self.key_id = name
        self.algorithm = hidden.algorithm
        self.asked = 0

    def sign(self, data: bytes) -> bytes:
        self.asked += 1
        return self._hidden.sign(data)

    def public_jwk(self) -> dict[str, str]:
        return {**self._hidden.public_jwk(), "kid": self.key_id, "d": "CANARY"}  # one that leaks


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_service_signs(algorithm: str) -> None:
    """Anything with the four members signs tokens and takes part in a ring; of its JWK only public members go out."""
    signer: Signer = (kms := Kms(KEYS[algorithm]))
    ring = KeyRing(signer)
    token = jws.make({"sub": "maria"}, ring.signer, typ="at+jwt")
    assert kms.asked == 1
    assert jws.verify(jws.parse(token), ring.key_set(), ALGORITHMS).key_id == "kms-1"
    assert "CANARY" not in json.dumps(ring.jwks()) + repr(ring)
    assert "d" not in ring.jwks()["keys"][0]


@pytest.mark.parametrize("member", ["algorithm", "key_id"])
@pytest.mark.parametrize("value", [None, "", "none", "HS256"])
def test_a_key_service_must_say_what_it_is(member: str, value: object) -> None:
    """A signer without a name, or with an algorithm that its key isn't for, is refused."""
    kms = Kms(KEYS["ES256"])
    setattr(kms, member, value)
    if member == "key_id" and value in ("none", "HS256"):
        assert KeyRing(kms).signer is kms  # any text is a name
        return
    with pytest.raises(InvalidArgument):
        KeyRing(kms)


# ---- nothing private is shown


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_nothing_private_is_shown(algorithm: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither repr, str, format, attributes nor logs tell a private number, and keys can't be pickled or copied."""
    caplog.set_level(logging.DEBUG)
    key, private = KEYS[algorithm], _private_jwk(KEYS[algorithm])
    ring = KeyRing(key)
    logging.getLogger("test").info("key %s %r %r", key, ring, key.public_key())
    shown = caplog.text + f"{key}{key!r}{ring!r}{ring.jwks()}{ring.key_set()!r}{key.public_key()!r}{key.public_jwk()}"
    numbers = [int.from_bytes(from_base64url(private[name]) or b"") for name in PRIVATE if name in private]
    for number in numbers:
        for hidden in (str(number), f"{number:x}", to_base64url(number.to_bytes((number.bit_length() + 7) // 8))):
            assert hidden not in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InvalidArgument, match="can't be pickled or copied"):
            leak(key)
    assert not hasattr(key, "__dict__")


def test_a_shared_secret_is_not_shown() -> None:
    """A symmetric verification key tells its name and algorithms only, and can't be pickled or copied."""
    secret = to_base64url(b"CANARY" * 8)
    key = verification_key({"kty": "oct", "k": secret, "kid": "shared"})
    assert secret not in repr(key) + repr(KeySet([key]))
    assert "CANARY" not in repr(key) + repr(KeySet([key]))
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InvalidArgument, match="can't be pickled or copied"):
            leak(key)


# ---- another library


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_joserfc_verifies_what_we_sign(algorithm: str) -> None:
    """A token of ours is genuine for joserfc under the JWK that we publish, and not with a bit changed."""
    key = KEYS[algorithm]
    token = jws.make({"sub": "maria"}, key, typ="at+jwt")
    theirs = peer_jwk.import_key(dict(key.public_jwk()))
    found = peer_jws.deserialize_compact(token, theirs, algorithms=[algorithm])
    assert json.loads(found.payload) == {"sub": "maria"}
    head, payload, signature = token.split(".")
    changed = to_base64url(bytes([(from_base64url(signature) or b"")[0] ^ 1]) + (from_base64url(signature) or b"")[1:])
    with pytest.raises(Exception, match=r"(?i)signature"):
        peer_jws.deserialize_compact(f"{head}.{payload}.{changed}", theirs, algorithms=[algorithm])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_we_verify_what_joserfc_signs(algorithm: str) -> None:
    """A token of joserfc's, made with the same key, is genuine for us, and not with its payload changed."""
    key = KEYS[algorithm]
    theirs = peer_jwk.import_key(_private_jwk(key))
    header = {"alg": algorithm, "kid": key.key_id, "typ": "at+jwt"}
    token = peer_jws.serialize_compact(header, b'{"sub":"maria"}', theirs, algorithms=[algorithm])
    assert _verifies(token, key)
    head, _, signature = token.split(".")
    assert not _verifies(f"{head}.{to_base64url(b'{}')}.{signature}", key)
    assert theirs.thumbprint() == thumbprint(key.public_jwk())
