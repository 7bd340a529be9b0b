"""Sign with a private key, or with whatever holds one, and replace keys without an interruption."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, TypeAlias, cast, final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from agentauthz.errors import InvalidArgument
from agentauthz.keys.base64url import from_base64url
from agentauthz.keys.instance import read_private
from agentauthz.keys.jwk import KeySet, VerificationKey, operations_of, public_jwk, thumbprint, verification_key

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

ALGORITHMS: Final = ("Ed25519", "EdDSA", "ES256", "PS256", "RS256")
MAX_PEM: Final = 64 * 1024  # bytes


class Signer(Protocol):
    """Be what signs: a `SigningKey`, or a few lines in front of a KMS or an HSM.

    `algorithm` is the `alg` of JWS (RFC 7518 §3.1), `key_id` the `kid`.
    """

    @property
    def algorithm(self) -> str:
        """Return the name of the signature algorithm."""

    @property
    def key_id(self) -> str:
        """Return the name of the key."""

    def sign(self, data: bytes) -> bytes:
        """Return the signature over `data` in the form of JWS: for ES256, R and S of 32 bytes each (RFC 7518 §3.4)."""

    def public_jwk(self) -> Mapping[str, str]:
        """Return the public key as a JWK, with `kid` and `alg`."""


@final
class SigningKey:
    """Be a private key in memory; make it with `generate`, `from_pem`, `from_jwk` or `from_file`.

    The key is never shown, copied or pickled; `to_pem` is the one way out. `key_id` is the thumbprint (RFC 7638)
    where none is given.

    Raises:
        InvalidArgument: an algorithm that isn't Ed25519, EdDSA, ES256, PS256 or RS256, a key that doesn't fit it, or
            a weak one.
    """

    __slots__ = ("_private", "_public", "algorithm", "key_id")

    algorithm: str
    key_id: str

    def __init__(self, private: PrivateKey, algorithm: str | None = None, key_id: str | None = None) -> None:
        if not isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
            raise InvalidArgument("key", "must be an Ed25519, P-256 or RSA private key")
        if key_id is not None and (not isinstance(key_id, str) or not key_id):
            raise InvalidArgument("key_id", "must be a string that is not empty")
        jwk = public_jwk(private.public_key())
        fitting = [name for name in ALGORITHMS if name in verification_key(jwk).algorithms]
        algorithm = fitting[0] if algorithm is None and fitting else algorithm
        if algorithm not in fitting:
            raise InvalidArgument("algorithm", f"must be one that fits the key: {', '.join(fitting) or 'none does'}")
        self._private = private
        self.algorithm = cast(str, algorithm)
        self.key_id = key_id or thumbprint(jwk)
        self._public: dict[str, str] = {**jwk, "kid": self.key_id, "alg": self.algorithm, "use": "sig"}

    @classmethod
    def generate(cls, algorithm: str = "Ed25519", *, key_id: str | None = None) -> SigningKey:
        """Return a new random key: Ed25519, P-256, or RSA of 3,072 bits, as `algorithm` needs.

        Raises:
            InvalidArgument: an algorithm that isn't Ed25519, EdDSA, ES256, PS256 or RS256.
        """
        if algorithm not in ALGORITHMS:
            raise InvalidArgument("algorithm", f"must be one of {', '.join(ALGORITHMS)}")
        if algorithm in ("Ed25519", "EdDSA"):
            return cls(ed25519.Ed25519PrivateKey.generate(), algorithm, key_id)
        if algorithm == "ES256":
            return cls(ec.generate_private_key(ec.SECP256R1()), algorithm, key_id)
        return cls(rsa.generate_private_key(65537, 3072), algorithm, key_id)

    @classmethod
    def from_pem(
        cls, pem: bytes, *, algorithm: str | None = None, key_id: str | None = None, password: bytes | None = None
    ) -> SigningKey:
        """Return the private key of a PEM text (PKCS #8, PKCS #1 or SEC 1), decrypted with `password` if any.

        Raises:
            InvalidArgument: no private key in PEM, a wrong or missing password, or as for the class.
        """
        if not isinstance(pem, bytes) or len(pem) > MAX_PEM:
            raise InvalidArgument("pem", f"must be bytes, at most {MAX_PEM} of them")
        try:
            private = serialization.load_pem_private_key(pem, password)
        except (ValueError, TypeError, UnsupportedAlgorithm):  # the cause may quote the file
            raise InvalidArgument("pem", "holds no private key that this password, or none, opens") from None
        return cls(cast(Any, private), algorithm, key_id)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        algorithm: str | None = None,
        key_id: str | None = None,
        password: bytes | None = None,
    ) -> SigningKey:
        """Return the private key of a PEM file that only this user (or root) may read.

        Raises:
            InvalidArgument: the file is missing, unreadable or open to others, or as for `from_pem`.
        """
        pem = read_private(os.fspath(path), MAX_PEM)
        return cls.from_pem(pem, algorithm=algorithm, key_id=key_id, password=password)

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, object], *, algorithm: str | None = None) -> SigningKey:
        """Return the private key of a JWK (RFC 7517); its `alg` and `kid` count where nothing else is said.

        Raises:
            InvalidArgument: no private JWK, one that isn't for signing, parts that don't fit together, or as for the
                class.
        """
        if "sign" not in operations_of(jwk, "sign"):
            raise InvalidArgument("jwk", "must be a key for signing: its `key_ops` say that it isn't")
        public = verification_key({name: value for name, value in jwk.items() if name != "key_ops"})
        named = jwk.get("alg")
        private = _private_of(jwk)
        if private is None or public_jwk(private.public_key()) != public_jwk(cast(Any, public.key)):
            raise InvalidArgument("jwk", "holds no private key, or one that doesn't belong to its public part")
        return cls(private, algorithm or (named if isinstance(named, str) else None), public.key_id)

    def sign(self, data: bytes) -> bytes:
        """Return the signature over `data`, in the form of JWS."""
        private = self._private
        if isinstance(private, ed25519.Ed25519PrivateKey):
            return private.sign(data)
        if isinstance(private, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(private.sign(data, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32) + s.to_bytes(32)
        if self.algorithm == "RS256":
            return private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        salted = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=hashes.SHA256().digest_size)
        return private.sign(data, salted, hashes.SHA256())

    def public_jwk(self) -> dict[str, str]:
        """Return the public key as a JWK, with `kid`, `alg` and `use`."""
        return dict(self._public)

    def public_key(self) -> VerificationKey:
        """Return the key that verifies what this one signs."""
        return verification_key(self._public)

    def to_pem(self, password: bytes | None = None) -> bytes:
        """Return the private key as PKCS #8 PEM, encrypted where a password is given.

        Raises:
            InvalidArgument: an empty password.
        """
        if password is not None and not password:
            raise InvalidArgument("password", "must not be empty: leave it out for a key that isn't encrypted")
        return self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password),
        )

    def __repr__(self) -> str:
        return f"SigningKey({self.algorithm}, {self.key_id!r})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InvalidArgument("key", "can't be pickled or copied: load it again where it is needed")


@final
class KeyRing:
    """Be the keys of one issuer over time: one signs, and all that may still be met are published. Safe for threads.

    To replace a key without an interruption: `announce` the next one, wait until every cached key set knows it
    (an hour at the most, with our own `HttpKeys`), `rotate`, wait until the last token of the old key has
    expired, `retire` the old one.

    Raises:
        InvalidArgument: two keys with one name, or something that can't sign.
    """

    def __init__(self, signer: Signer, *, published: Iterable[Signer] = ()) -> None:
        self._lock: Final = threading.Lock()
        self._ring: tuple[Signer, ...] = ()  # the one that signs, then those that are published only
        self._ring = self._with(signer, *published)
        self._verifying: tuple[tuple[Signer, ...], KeySet] | None = None  # the keys of a ring, read once

    @property
    def signer(self) -> Signer:
        """Return what signs now. Read it once for one token: it may change between two reads."""
        return self._ring[0]

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the JWK set to publish (RFC 7517 §5): public keys only."""
        return _jwks(self._ring)

    def key_set(self) -> KeySet:
        """Return the keys with which tokens of this ring are verified."""
        ring, known = self._ring, self._verifying
        if known is None or known[0] is not ring:
            self._verifying = known = (ring, KeySet.of_jwks(_jwks(ring)))
        return known[1]

    def announce(self, signer: Signer) -> None:
        """Publish a key that doesn't sign yet.

        Raises:
            InvalidArgument: its name is taken, or it can't sign.
        """
        with self._lock:
            self._ring = self._with(*self._ring, signer)

    def rotate(self, signer: Signer) -> None:
        """Sign with another key from now on, announced before or not; the old ones stay published.

        Raises:
            InvalidArgument: another key has its name, or it can't sign.
        """
        _name(signer)
        with self._lock:
            known = next((one for one in self._ring if one.key_id == signer.key_id), None)
            if known is not None and _public_only(known) != _public_only(signer):
                raise InvalidArgument("signer", f"has the name `{signer.key_id}`, which is another key's")
            self._ring = self._with(signer, *(one for one in self._ring if one is not known))

    def retire(self, key_id: str) -> None:
        """Publish a key no more: what it signed is refused from then on.

        Raises:
            InvalidArgument: the name isn't known, or names the key that signs.
        """
        with self._lock:
            if key_id == self._ring[0].key_id:
                raise InvalidArgument("key_id", f"`{key_id}` is the key that signs: rotate first")
            if all(one.key_id != key_id for one in self._ring):
                raise InvalidArgument("key_id", f"`{key_id}` is not in this ring")
            self._ring = tuple(one for one in self._ring if one.key_id != key_id)

    @staticmethod
    def _with(*signers: Signer) -> tuple[Signer, ...]:
        names = [_name(signer) for signer in signers]
        if len(names) != len(set(names)):
            raise InvalidArgument("signer", "must have a name of its own: two keys have the same `key_id`")
        return signers

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(signer.key_id for signer in self._ring)})"


def _jwks(ring: Iterable[Signer]) -> dict[str, list[dict[str, str]]]:
    return {"keys": [_public_only(signer) for signer in ring]}


def _name(signer: Signer) -> str:
    """Return a signer's name, if it has all that it needs and a key that fits its algorithm."""
    try:
        fits = signer.algorithm in verification_key(_public_only(signer)).algorithms
        name = signer.key_id
    except AttributeError:
        fits, name = False, ""
    if not fits or not isinstance(name, str) or not name or not callable(getattr(signer, "sign", None)):
        raise InvalidArgument(
            "signer", "must have `algorithm`, `key_id`, `sign` and `public_jwk`, which fit each other"
        )
    return name


def _public_only(signer: Signer) -> dict[str, str]:
    """Return a signer's public JWK as it is published: never a private member, whoever made the signer."""
    jwk = signer.public_jwk()
    kept = {name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in jwk}
    return {**kept, "kid": signer.key_id, "alg": signer.algorithm, "use": "sig"}


def _private_of(jwk: Mapping[str, object]) -> PrivateKey | None:
    parts = {name: from_base64url(part) for name, part in jwk.items() if isinstance(part, str)}
    numbers = {name: int.from_bytes(part) for name, part in parts.items() if part is not None}
    try:
        if jwk["kty"] == "OKP":
            return ed25519.Ed25519PrivateKey.from_private_bytes(cast(bytes, parts["d"]))
        if jwk["kty"] == "EC" and jwk["crv"] == "P-256":
            return ec.derive_private_key(numbers["d"], ec.SECP256R1())
        if jwk["kty"] == "RSA":
            public = rsa.RSAPublicNumbers(numbers["e"], numbers["n"])
            p, q, d, dp, dq, qi = (numbers[name] for name in ("p", "q", "d", "dp", "dq", "qi"))
            return rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, public).private_key()
    except (KeyError, TypeError, ValueError):  # its text may show the key
        return None
    return None
