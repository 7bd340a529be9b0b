"""Encrypt short texts so that whoever lacks the key can neither read nor change them (AES-256-GCM)."""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agentauthz.errors import InvalidArgument

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


def seal(key: bytes, content: bytes, context: bytes) -> bytes:
    """Return `content` encrypted under `key`; `context` isn't hidden, and must be the same again to open it."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Return what was sealed.

    Raises:
        InvalidArgument: it was sealed under another key or for another context, or was changed.
    """
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
    except (InvalidTag, ValueError):
        raise InvalidArgument("key", "isn't the one that this was sealed with, or it was changed") from None
