"""Write bytes as base64url, and read it strictly (RFC 7515 §2): one value, one text."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
# the last character where one or two bytes are left: spare bits that are set would give one value two texts
_LAST: Final = {2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}


def to_base64url(data: bytes) -> str:
    """Return bytes as base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes | None:
    """Return the bytes of strict, canonical base64url without padding; None where it isn't that."""
    spare = len(text) % 4
    if _BASE64URL.fullmatch(text) is None or spare == 1 or (spare and text[-1] not in _LAST[spare]):
        return None
    return binascii.a2b_base64(text.encode("ascii").translate(_STANDARD) + b"=" * (-len(text) % 4))
