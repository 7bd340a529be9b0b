"""Write the target URI of a request so that it can be compared, by the rules of RFC 3986 §6.2.2 and §6.2.3 alone."""

from __future__ import annotations

import re
from typing import Final

MAX_URI: Final = 8 * 1024  # characters

_DEFAULT_PORT: Final = {"http": "80", "https": "443"}
_PATH: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})"
_TARGET: Final = re.compile(
    r"(?P<scheme>https?)://"  # no user information: a request's target has none (RFC 9110 §4.2.4)
    r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{0,5}))?"
    rf"(?P<path>(?:/{_PATH}*)?)"
    rf"(?:\?(?:{_PATH}|\?)*)?(?:#(?:{_PATH}|\?)*)?",
    re.IGNORECASE | re.ASCII,
)
_ENCODED: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")


def target_uri(uri: object) -> str | None:
    """Return an absolute `http` or `https` URI in normal form, without query and fragment; None where it is none.

    The case of scheme and host, a default or empty port, an empty path, dot segments, and how a character is
    percent-encoded (§6.2.2.2) make no difference; everything else does.
    """
    found = _TARGET.fullmatch(uri) if isinstance(uri, str) and len(uri) <= MAX_URI else None
    if found is None:
        return None
    scheme, host, port = found["scheme"].lower(), found["host"].lower(), found["port"]
    suffix = f":{port}" if port and port != _DEFAULT_PORT[scheme] else ""
    return f"{scheme}://{host}{suffix}{_without_dots(_ENCODED.sub(_decoded, found['path']))}"


def _decoded(encoded: re.Match[str]) -> str:
    character = chr(int(encoded[1], 16))
    return character if _UNRESERVED.fullmatch(character) else encoded[0].upper()


def _without_dots(path: str) -> str:
    """Return a path, empty or absolute, without the segments `.` and `..` (RFC 3986 §5.2.4)."""
    segments = path.split("/")[1:]
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
