"""Make DPoP proofs, right and wrong, and check them: what tests of proofs and of bindings share."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable
from typing import Any, Final

import pytest

from agentauthz.errors import TokenError
from agentauthz.keys.base64url import to_base64url
from agentauthz.keys.signing import Signer, SigningKey
from agentauthz.tokens.dpop import DpopKey, DpopVerifier, token_hash
from tests.support import NOON, Clock

METHOD: Final = "POST"
URI: Final = "https://payments.example/transfers"
TOKEN: Final = "a-token.of~some-kind"
KEY: Final = SigningKey.generate("ES256")
OTHER_KEY: Final = SigningKey.generate("ES256")
LEFT_OUT: Final = object()


class Seen:
    """Be a store in memory that grants each key once, and tells which it was asked for."""

    def __init__(self) -> None:
        self.keys: dict[str, dt.datetime] = {}
        self._lock = threading.Lock()

    def once(self, key: str, expires: dt.datetime) -> bool:
        with self._lock:
            return self.keys.setdefault(key, expires) is expires


def public(key: SigningKey) -> dict[str, str]:
    """Return a key's JWK as a proof's header has it."""
    return {name: value for name, value in key.public_jwk().items() if name not in ("kid", "alg", "use")}


def signed(header: object, claims: object, sign: Callable[[bytes], bytes] = KEY.sign) -> str:
    """Return a compact token of any header and claims, also of those that no signer of the library would make."""
    parts = [to_base64url(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, claims)]
    return ".".join([*parts, to_base64url(sign(".".join(parts).encode()))])


def claims_of(**changed: object) -> dict[str, object]:
    """Return the claims of a proof of this module's request, some replaced or left out."""
    whole = {"jti": "a-proof", "htm": METHOD, "htu": URI, "iat": NOON.timestamp(), "ath": token_hash(TOKEN), **changed}
    return {name: value for name, value in whole.items() if value is not LEFT_OUT}


def made(header: dict[str, object] | None = None, *, signer: Signer = KEY, **changed: object) -> str:
    """Return a proof of this module's request, with members of its header and claims replaced or left out."""
    head = {"alg": "ES256", "typ": "dpop+jwt", "jwk": public(KEY), **(header or {})}
    return signed({n: value for n, value in head.items() if value is not LEFT_OUT}, claims_of(**changed), signer.sign)


def verifier(**options: Any) -> DpopVerifier:
    """Return a verifier whose clock stands at noon."""
    return DpopVerifier(**{"once": Seen(), "clock": Clock(), **options})


def client(signer: Signer = KEY, clock: Clock | None = None) -> DpopKey:
    """Return a client's key whose clock stands at noon."""
    return DpopKey(signer, clock=clock or Clock())


def checked(proofs: Any, by: DpopVerifier | None = None, **given: Any) -> str:
    """Return the thumbprint that a verifier finds in proofs of this module's request."""
    return (by or verifier()).check(proofs, **{"method": METHOD, "uri": URI, "access_token": TOKEN, **given})


def refused(proofs: Any, by: DpopVerifier | None = None, *, reason: str = "dpop_proof", **given: Any) -> TokenError:
    """Check that proofs are refused for a reason, and return the error, which shows nothing of them."""
    with pytest.raises(TokenError) as caught:
        checked(proofs, by, **given)
    assert caught.value.reason == reason, caught.value
    assert TOKEN not in str(caught.value)
    return caught.value
