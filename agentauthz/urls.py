"""Check addresses before anything is sent to them."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from agentauthz.errors import InvalidArgument

MAX_URL: Final = 2048  # characters

# RFC 3986, without user names, which would be secrets, and without fragments, which are not sent
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
    r"(?:[/?][A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]*)?"
)


def checked_url(argument: str, url: object, *, loopback_http: bool = False) -> str:
    """Return an address that may be asked: https, or, with `loopback_http`, http on this machine's loopback.

    Raises:
        InvalidArgument: anything else, a user name or fragment in it, or characters that RFC 3986 doesn't have.
    """
    found = _URL.fullmatch(url) if isinstance(url, str) and len(url) <= MAX_URL else None
    if found is None:
        raise InvalidArgument(argument, "must be an absolute https URL without a user name and a fragment")
    if found["scheme"] == "http" and not (loopback_http and _is_loopback(found["host"])):
        raise InvalidArgument(
            argument, "must be https: plain http is for tests on the loopback interface, with `loopback_http=True`"
        )
    return found.string


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
