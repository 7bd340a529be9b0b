"""Read, verify and make signed tokens in the compact form of JWS (RFC 7515 §7.1), by what RFC 8725 asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from functools import cache, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from attrs import field, frozen

from agentauthz.errors import TokenError
from agentauthz.keys.base64url import from_base64url, to_base64url
from agentauthz.keys.jwk import KeySet, VerificationKey
from agentauthz.tokens.strict import Json, json_object, malformed

if TYPE_CHECKING:
    from jwt.algorithms import Algorithm

    from agentauthz.keys.signing import Signer

MAX_TOKEN: Final = 16 * 1024  # characters
DEFAULT_ALGORITHMS: Final = frozenset({"Ed25519", "EdDSA", "ES256", "ES384", "PS256", "RS256"})
MAX_KEY_ID: Final = 256
_MAX_KEPT: Final = 512  # characters of a header that is kept

_json: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode

_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){2}")  # also without a payload, or a signature
_TEXTS: Final = frozenset({"alg", "kid", "typ"})
_HEADER: Final = _TEXTS  # RFC 8725 §3.10: `jku`, `x5u`, `jwk` are ways to another's key


@final
@frozen(eq=False, repr=False)
class Jws:
    """Be a token that was taken apart and is not verified yet: nothing in it may be relied on."""

    header: Mapping[str, Json]
    payload: bytes
    signed: bytes = field()  # what the signature covers
    signature: bytes = field()

    @property
    def algorithm(self) -> str:
        """Return the header's `alg`."""
        return str(self.header["alg"])

    @property
    def key_id(self) -> str | None:
        """Return the header's `kid`."""
        found = self.header.get("kid")
        return found if isinstance(found, str) else None

    @property
    def typ(self) -> str | None:
        """Return the header's `typ` as it stands (RFC 8725 §3.11)."""
        found = self.header.get("typ")
        return found if isinstance(found, str) else None

    def claims(self) -> dict[str, Json]:
        """Return the payload as JSON.

        Raises:
            TokenError: `malformed`.
        """
        return json_object(self.payload)

    def __repr__(self) -> str:
        return "Jws(…)"


def parse(token: object, *, header: Collection[str] = _HEADER, max_length: int = MAX_TOKEN) -> Jws:
    """Take a token apart: three parts of canonical base64url, and a header of only the members in `header`.

    Raises:
        TokenError: `too_large`, or `malformed`: not in compact form (RFC 7515 §7.1), a header member that is not
            understood (§4.1.11), or one of the wrong type.
    """
    if not isinstance(token, str):
        raise malformed("is no text")
    if len(token) > max_length:
        raise TokenError("too_large", f"the token is longer than {max_length} characters")
    parts = token.split(".")
    if len(parts) != 3:
        raise malformed("is not in compact form: three parts of base64url")
    head, payload, signature = parts
    data = _decoded(payload) if payload else b""  # RFC 7515 §2: it may be empty
    read = _header if len(head) <= _MAX_KEPT else _header.__wrapped__
    return Jws(read(head, frozenset(header)), data, token[: -len(signature) - 1].encode("ascii"), _decoded(signature))


def is_compact(token: str) -> bool:
    """Say whether a text has the form of a signed token: whatever it is then, it is nothing else."""
    return len(token) <= MAX_TOKEN and _COMPACT.fullmatch(token) is not None


def _decoded(part: str) -> bytes:
    if (data := from_base64url(part)) is None:
        raise malformed("is not in canonical base64url without padding")
    return data


@lru_cache(maxsize=256)
def _header(part: str, allowed: frozenset[str]) -> Mapping[str, Json]:
    """Return the header of a token; those of one key's tokens are all the same."""
    found = json_object(_decoded(part))
    _check_header(found, allowed)
    return MappingProxyType(found)


def _check_header(header: Mapping[str, Json], allowed: Collection[str]) -> None:
    if "alg" not in header:
        raise TokenError("header", "the token's header has no `alg`")
    for name, value in header.items():
        if name not in allowed:
            raise TokenError("header", "the token has a header member that is not understood")
        if name in _TEXTS and (type(value) is not str or not 0 < len(value) <= MAX_KEY_ID):
            raise TokenError("header", f"the token's header has a `{name}` that is no text, empty or too long")


def verify(jws: Jws, keys: KeySet, algorithms: Collection[str]) -> VerificationKey:
    """Check a token's signature, and return the key that made it.

    Where the token names a key, only that one is tried; where it doesn't, only one may fit (RFC 8725 §3.1).

    Raises:
        TokenError: `algorithm` (not in `algorithms`), `unknown_key`, `ambiguous_key`, or `signature`.
    """
    name = jws.algorithm
    if name not in algorithms or (tool := _tools().get(name)) is None:
        raise TokenError("algorithm", "the token is signed with an algorithm that its issuer may not use")
    key = pick(keys, jws.key_id, name)
    try:
        genuine = tool.verify(jws.signed, key.key, jws.signature)
    except Exception:  # whatever the library makes of a hostile signature
        genuine = False
    if genuine is not True:
        raise TokenError("signature", "the token's signature is not genuine")
    return key


def pick(keys: KeySet, key_id: str | None, algorithm: str) -> VerificationKey:
    """Return the one key of a set that a token may have been signed with.

    Raises:
        TokenError: `unknown_key`, `ambiguous_key`, or `algorithm` where the named key is for another.
    """
    if key_id is not None:
        named = [key for key in keys.keys if key.key_id == key_id]
        if not named:
            raise TokenError("unknown_key", "the token is signed with a key that isn't known")
        if algorithm not in named[0].algorithms:
            raise TokenError("algorithm", "the token's algorithm is not that of its key")
        return named[0]
    fitting = [key for key in keys.keys if algorithm in key.algorithms]
    if len(fitting) != 1:
        reason = "ambiguous_key" if fitting else "unknown_key"
        raise TokenError(reason, "the token doesn't say which key it is signed with")
    return fitting[0]


def make(claims: Mapping[str, object], signer: Signer, *, typ: str, header: Mapping[str, object] | None = None) -> str:
    """Return the compact token of `claims`, signed; `header` adds members such as a proof's `jwk`."""
    return signed(encoded(claims), signer, typ=typ, header=header)


def encoded(claims: Mapping[str, object]) -> bytes:
    """Return claims as the JSON that is signed.

    Raises:
        ValueError, TypeError: they are no JSON in UTF-8.
    """
    return _json(claims).encode()


def signed(payload: bytes, signer: Signer, *, typ: str, header: Mapping[str, object] | None = None) -> str:
    """Return the compact token of an encoded payload."""
    head = {"alg": signer.algorithm, "typ": typ, **(header if header is not None else {"kid": signer.key_id})}
    text = f"{to_base64url(encoded(head))}.{to_base64url(payload)}"
    return f"{text}.{to_base64url(signer.sign(text.encode('ascii')))}"


@cache
def _tools() -> dict[str, Algorithm]:
    """Return PyJWT's algorithms by name; `none` isn't one."""
    from jwt.algorithms import get_default_algorithms

    found = {name: tool for name, tool in get_default_algorithms().items() if name != "none"}
    return {**found, "Ed25519": found["EdDSA"]}  # RFC 9864; keys are of that curve only, see `agentauthz.keys.jwk`
