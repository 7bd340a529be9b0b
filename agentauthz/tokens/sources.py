"""Say where an issuer's keys come from."""

from __future__ import annotations

from typing import Protocol

from agentauthz.keys.jwk import KeySet


class KeySource(Protocol):
    """Be where an issuer's keys come from."""

    def keys(self, key_id: str | None) -> KeySet:
        """Return the issuer's keys now; one that doesn't hold `key_id` may be fetched again first.

        Raises:
            TokenError: `keys_unavailable`.
        """

    async def akeys(self, key_id: str | None) -> KeySet:
        """Do what `keys` does without blocking the loop."""
