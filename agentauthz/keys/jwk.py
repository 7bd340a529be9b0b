"""Read public keys from JSON Web Keys (RFC 7517, RFC 7518 §6, RFC 8037) and refuse those that can't be relied on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NoReturn, TypeAlias, final

from attrs import field, frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from agentauthz.errors import InvalidArgument
from agentauthz.keys.base64url import from_base64url, to_base64url

PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
Jwk: TypeAlias = Mapping[str, object]

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192  # what a verification costs grows with it
MAX_KEYS: Final = 100  # of one set

RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final[Mapping[str, tuple[ec.EllipticCurve, str, int]]] = {
    "P-256": (ec.SECP256R1(), "ES256", 32),
    "P-384": (ec.SECP384R1(), "ES384", 48),
    "P-521": (ec.SECP521R1(), "ES512", 66),
}
ED25519_ALGORITHMS: Final = frozenset({"EdDSA", "Ed25519"})  # RFC 8037, and its exact name of RFC 9864
MAC_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}  # a key is at least as long as the hash: RFC 7518 §3.2
_THUMBPRINT: Final[Mapping[str, Sequence[str]]] = {  # RFC 7638 §3.2, RFC 8037 §2
    "RSA": ("e", "kty", "n"),
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
    "oct": ("k", "kty"),
}
_SECRET: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@final
@frozen(eq=False, repr=False)
class VerificationKey:
    """Be one key that signatures are checked with: the key itself, its `kid`, and the algorithms that it is for.

    A symmetric key is `bytes`.
    """

    key: PublicKey | bytes
    key_id: str | None
    algorithms: frozenset[str]
    thumbprint: str = field(default="")

    @property
    def symmetric(self) -> bool:
        """Say whether the key is a shared secret, with which whoever can verify can also sign."""
        return type(self.key) is bytes

    def __repr__(self) -> str:
        return f"VerificationKey({self.key_id!r}, {'/'.join(sorted(self.algorithms))})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:  # it may be a shared secret
        raise InvalidArgument("key", "can't be pickled or copied: load it again where it is needed")


def _tuple(keys: Iterable[VerificationKey]) -> tuple[VerificationKey, ...]:
    return tuple(keys)


@final
@frozen(eq=False)
class KeySet:
    """Be the keys of one issuer, of which at most one has each `kid`.

    Raises:
        InvalidArgument: two keys have one `kid`, shared secrets stand beside public keys, or there are over 100.
    """

    keys: tuple[VerificationKey, ...] = field(converter=_tuple)

    def __attrs_post_init__(self) -> None:
        ids = [key.key_id for key in self.keys if key.key_id is not None]
        if len(self.keys) > MAX_KEYS:
            raise InvalidArgument("keys", f"must be at most {MAX_KEYS}, not {len(self.keys)}")
        if len(ids) != len(set(ids)):
            raise InvalidArgument("keys", "must each have a `kid` of their own: two keys have the same")
        if len({key.symmetric for key in self.keys}) > 1:
            raise InvalidArgument("keys", "must not hold shared secrets beside public keys")

    @classmethod
    def of_jwks(cls, document: object, *, skip_unusable: bool = False) -> KeySet:
        """Return the keys of a JWK set (RFC 7517 §5): `{"keys": [...]}`, public keys only.

        Keys that are not for verifying signatures (`use`, `key_ops`), and of kinds that aren't known, are left
        out, as §5 wants. With `skip_unusable` so are malformed and weak ones, for sets that others maintain.

        Raises:
            InvalidArgument: no JWK set, a symmetric or private key in it, or two keys with one `kid`.
        """
        jwks = document.get("keys") if isinstance(document, Mapping) else None
        if not isinstance(jwks, list) or not all(isinstance(jwk, Mapping) for jwk in jwks):
            raise InvalidArgument("keys", 'must be a JWK set: an object with a list of objects as "keys"')
        if len(jwks) > MAX_KEYS:
            raise InvalidArgument("keys", f"must be at most {MAX_KEYS}, not {len(jwks)}")
        if any(_SECRET & jwk.keys() or jwk.get("kty") == "oct" for jwk in jwks):
            raise InvalidArgument("keys", "must be public: a JWK set to verify with holds no private or symmetric key")
        ids = [jwk["kid"] for jwk in jwks if isinstance(jwk.get("kid"), str)]
        if len(ids) != len(set(ids)):  # also of keys that are left out below: which one is meant is anyone's guess
            raise InvalidArgument("keys", "must each have a `kid` of their own: two keys have the same")
        found = []
        for jwk in jwks:
            if _for_signatures(jwk):
                try:
                    found.append(verification_key(jwk))
                except InvalidArgument:
                    if not skip_unusable:
                        raise
        return cls(found)


def verification_key(jwk: Jwk) -> VerificationKey:
    """Return the key of a JWK, for what it says that it may be used for; of a private one only the public part.

    Raises:
        InvalidArgument: malformed, weak (RSA below 2,048 bits or with a known flaw, a secret shorter than its hash),
            not on its curve, an `alg` that doesn't fit, or not for verifying signatures.
    """
    if not isinstance(jwk, Mapping):
        raise InvalidArgument("jwk", "must be an object")
    key_id = jwk.get("kid")
    if key_id is not None and (not isinstance(key_id, str) or not key_id):
        raise InvalidArgument("jwk", "has a `kid` that is no string, or an empty one")
    reader = _READERS.get(str(jwk.get("kty")))
    if reader is None or not _for_signatures(jwk):
        raise InvalidArgument("jwk", "must be a key for signatures: RSA, EC (P-256, P-384, P-521), Ed25519 or oct")
    key, algorithms = reader(jwk)
    if (named := jwk.get("alg")) is not None:
        if not isinstance(named, str) or named not in algorithms:
            raise InvalidArgument("jwk", "names an `alg` that doesn't fit the key")
        algorithms = frozenset({named})
    return VerificationKey(key, key_id, algorithms, thumbprint(jwk))


def thumbprint(jwk: Jwk) -> str:
    """Return a key's SHA-256 thumbprint, base64url without padding (RFC 7638 §3).

    Raises:
        InvalidArgument: no object, a kind that isn't known, or a required member that is missing or no string.
    """
    members = _THUMBPRINT.get(str(jwk.get("kty"))) if isinstance(jwk, Mapping) else None
    if members is None or not all(isinstance(jwk.get(name), str) for name in members):
        raise InvalidArgument("jwk", "lacks a member that its thumbprint is made of")
    text = json.dumps({name: jwk[name] for name in members}, separators=(",", ":"), sort_keys=True)
    return to_base64url(hashlib.sha256(text.encode()).digest())


def public_jwk(key: PublicKey) -> dict[str, str]:
    """Return the members of a public key's JWK: `kty` and what makes the key, nothing else.

    Raises:
        InvalidArgument: a curve that isn't supported.
    """
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": to_base64url(key.public_bytes_raw())}
    if isinstance(key, rsa.RSAPublicKey):
        public = key.public_numbers()
        return {"kty": "RSA", "n": _of_int(public.n), "e": _of_int(public.e)}
    point = key.public_numbers()
    for name, (curve, _, size) in _CURVES.items():
        if curve.name == key.curve.name:
            return {"kty": "EC", "crv": name, "x": _of_int(point.x, size), "y": _of_int(point.y, size)}
    raise InvalidArgument("key", f"is on the curve {key.curve.name}, which isn't supported")


def algorithms_of(key: PublicKey) -> frozenset[str]:
    """Return the names (RFC 7518 §3.1, RFC 8037, RFC 9864) of the algorithms that a public key can verify.

    Raises:
        InvalidArgument: a weak key, or a curve that isn't supported.
    """
    return verification_key(public_jwk(key)).algorithms


# ---- one kind of key each


def _rsa(jwk: Jwk) -> tuple[PublicKey, frozenset[str]]:
    modulus, exponent = _int(jwk, "n"), _int(jwk, "e")
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
        raise InvalidArgument("jwk", f"must be an RSA key of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > 64:
        raise InvalidArgument("jwk", "has an RSA exponent that isn't safe: 65537 is what is used")
    if _roca(modulus):
        raise InvalidArgument("jwk", "is an RSA key that can be factored (CVE-2017-15361): make a new one")
    return _made(lambda: rsa.RSAPublicNumbers(exponent, modulus).public_key()), RSA_ALGORITHMS


def _ec(jwk: Jwk) -> tuple[PublicKey, frozenset[str]]:
    found = _CURVES.get(str(jwk.get("crv")))
    if found is None:
        raise InvalidArgument("jwk", f"must be on one of the curves {', '.join(_CURVES)}")
    curve, algorithm, size = found
    x, y = (_bytes(jwk, name) for name in "xy")
    if len(x) != size or len(y) != size:
        raise InvalidArgument("jwk", "has coordinates of another length than its curve's")
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve)
    return _made(numbers.public_key), frozenset({algorithm})


def _okp(jwk: Jwk) -> tuple[PublicKey, frozenset[str]]:
    if jwk.get("crv") != "Ed25519":
        raise InvalidArgument("jwk", "must be on the curve Ed25519")
    content = _bytes(jwk, "x")
    if len(content) != 32 or not _sound(int.from_bytes(content, "little") & ~(1 << 255)):
        raise InvalidArgument("jwk", "is no valid public key")
    return _made(lambda: ed25519.Ed25519PublicKey.from_public_bytes(content)), ED25519_ALGORITHMS


def _oct(jwk: Jwk) -> tuple[bytes, frozenset[str]]:
    secret = _bytes(jwk, "k")
    fitting = frozenset(name for name, size in MAC_BYTES.items() if len(secret) >= size)
    if not fitting:
        raise InvalidArgument("jwk", f"is a secret of {len(secret)} bytes: HS256 needs {MAC_BYTES['HS256']}")
    return secret, fitting


_READERS: Final[Mapping[str, Callable[[Jwk], tuple[PublicKey | bytes, frozenset[str]]]]] = {
    "RSA": _rsa, "EC": _ec, "OKP": _okp, "oct": _oct,
}  # fmt: skip


def _made(make: Callable[[], PublicKey]) -> PublicKey:
    try:
        return make()
    except (ValueError, UnsupportedAlgorithm):  # its text may show the key
        raise InvalidArgument("jwk", "is no valid public key") from None


def operations_of(jwk: Jwk, default: str) -> frozenset[str]:
    """Return what a key may be used for by its `key_ops` (RFC 7517 §4.3); `default` where it doesn't say.

    Raises:
        InvalidArgument: no object.
    """
    if not isinstance(jwk, Mapping):
        raise InvalidArgument("jwk", "must be an object")
    operations = jwk.get("key_ops", [default])
    return frozenset(map(str, operations)) if isinstance(operations, list) else frozenset()


def _for_signatures(jwk: Jwk) -> bool:
    """Say whether `use` and `key_ops` (RFC 7517 §4.2, §4.3) let signatures be verified, and the kind is known."""
    known = isinstance(kind := jwk.get("kty"), str) and kind in _READERS
    return known and jwk.get("use", "sig") == "sig" and "verify" in operations_of(jwk, "verify")


# ---- numbers as text


def _bytes(jwk: Jwk, name: str) -> bytes:
    text = jwk.get(name)
    found = from_base64url(text) if isinstance(text, str) and len(text) <= 4096 else None
    if found is None:
        raise InvalidArgument("jwk", f"needs base64url text without padding as `{name}`")
    return found


def _int(jwk: Jwk, name: str) -> int:
    return int.from_bytes(_bytes(jwk, name))


def _of_int(number: int, size: int | None = None) -> str:
    return to_base64url(number.to_bytes(size or max(1, (number.bit_length() + 7) // 8)))


# ---- points of Ed25519 that the library takes as they come (RFC 8725 §3.4); off the curve it verifies nothing

_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P


def _sound(y: int) -> bool:
    """Say whether a point's `y` is canonical, and not one of the few of small order, which fit signatures of anything.

    From RFC 8032 §5.1, where x² (d y² + 1) = y² - 1: a point of order 1 or 2 has x = 0 and so y² = 1, of order 4
    y = 0, and of order 8 x² = -y² and so d y⁴ + 2 y² = 1.
    """
    square = y * y % _P
    return y < _P and square > 1 and (_D * square * square + 2 * square) % _P != 1


# ---- the one flaw of RSA keys that their modulus shows


def _powers(prime: int) -> frozenset[int]:
    found, power = set(), 1
    while power not in found:
        found.add(power)
        power = power * 65537 % prime
    return frozenset(found)


_PRIMES: Final[Sequence[int]] = [p for p in range(3, 168) if all(p % d for d in range(2, int(p**0.5) + 1))]
_SUBGROUPS: Final[Iterable[tuple[int, frozenset[int]]]] = [(prime, _powers(prime)) for prime in _PRIMES]


def _roca(modulus: int) -> bool:
    """Say whether a modulus has the form that CVE-2017-15361 makes: a power of 65537 modulo each small prime."""
    return all(modulus % prime in powers for prime, powers in _SUBGROUPS)
