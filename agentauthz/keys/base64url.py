"""Write bytes as base64url, and read it strictly (RFC 7515 §2): one value, one text."""

from __future__ import annotations

import base64
import re
from typing import Final

_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")


def to_base64url(data: bytes) -> str:
    """Return bytes as base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes | None:
    """Return the bytes of strict, canonical base64url without padding; None where it isn't that."""
    if _BASE64URL.fullmatch(text) is None or len(text) % 4 == 1:
        return None
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return data if to_base64url(data) == text else None  # spare bits that are set would give one value two texts
