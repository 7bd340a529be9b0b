"""Write bytes as base64url, and read it strictly (RFC 7515 §2): one value, one text."""

from __future__ import annotations

import base64
import binascii
import string
from typing import Final

_ALPHABET: Final = (string.ascii_letters + string.digits + "-_").encode("ascii")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
# the last character where one or two bytes are left: spare bits that are set would give one value two texts
_LAST: Final = {2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}


def to_base64url(data: bytes) -> str:
    """Return bytes as base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes | None:
    """Return the bytes of strict, canonical base64url without padding; None where it isn't that."""
    spare = len(text) % 4
    if not text or not text.isascii() or spare == 1 or (spare and text[-1] not in _LAST[spare]):
        return None
    data = text.encode("ascii")
    if data.translate(None, _ALPHABET):  # something else is left
        return None
    return binascii.a2b_base64(data.translate(_STANDARD) + b"=" * (-spare % 4))
