"""Keep what was verified, so that the same text needn't be verified again while its key is still its issuer's."""

from __future__ import annotations

import hashlib
import threading
from typing import Final, final

from attrs import frozen

from agentauthz.errors import InvalidArgument
from agentauthz.keys.jwk import VerificationKey
from agentauthz.tokens import jws
from agentauthz.tokens.issuers import TrustedIssuer
from agentauthz.tokens.verified import TokenKind, VerifiedToken


@final
@frozen(eq=False, repr=False)
class Known:
    """Be a token that was verified before, and the key that it was signed with."""

    token: VerifiedToken
    issuer: TrustedIssuer
    key_id: str | None
    key: VerificationKey

    def signed_by(self, key: VerificationKey) -> bool:
        """Say whether it was signed with `key`, for the same use; of one without a thumbprint nothing can be said."""
        named = [(one.key_id, one.thumbprint, one.algorithms) for one in (key, self.key) if one.thumbprint]
        return key is self.key or (len(named) == 2 and named[0] == named[1])


@final
class Cache:
    """Keep verified tokens, by kind and hash of their text: at most `size`, and the younger half of them at least.

    Raises:
        InvalidArgument: `size` is no number from 0.
    """

    def __init__(self, size: int) -> None:
        if type(size) is not int or size < 0:
            raise InvalidArgument("cache", "must be how many tokens to keep: 0 or more")
        self.size: Final = size
        self._lock: Final = threading.Lock()
        self._kept: dict[tuple[TokenKind, bytes], Known] = {}

    def get(self, token: object, kind: TokenKind) -> Known | None:
        """Return what is known of a text, if that is anything."""
        if not isinstance(token, str) or len(token) > jws.MAX_TOKEN or not token.isascii():
            return None
        return self._kept.get((kind, _hash(token)))

    def put(self, known: Known, now: float) -> None:
        """Keep what is known of a token's text."""
        with self._lock:
            if len(self._kept) >= self.size:
                self._make_room(now)
            self._kept[known.token.kind, _hash(known.token.reveal())] = known

    def _make_room(self, now: float) -> None:
        live = [kept for kept in self._kept.items() if kept[1].token.expires_at.timestamp() > now]
        if len(live) > (half := self.size // 2):  # more than the oldest, so that a full cache isn't gone through often
            live = live[len(live) - half :]
        self._kept = dict(live)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("ascii")).digest()
