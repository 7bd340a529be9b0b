"""Read the token that a request's headers present, and the proofs that come with it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, final

from attrs import frozen

from agentauthz.errors import TokenError

_AUTHORIZATION: Final = re.compile(r"(bearer|dpop) +([^ ]+)", re.IGNORECASE | re.ASCII)


@final
@frozen(eq=False, repr=False)
class Presented:
    """Be a token as a request presents it, with what its `DPoP` headers hold."""

    scheme: str  # in small letters
    token: str
    proofs: tuple[str, ...]


def presented(headers: Iterable[tuple[str, str]]) -> Presented:
    """Return the token of a request's headers (RFC 6750 §2.1, RFC 9449 §7.1).

    Raises:
        TokenError: `missing`: there is no `Authorization`; `request`: there are several, or of another scheme.
    """
    given = [(name.lower(), value) for name, value in headers]
    found = [value for name, value in given if name == "authorization"]
    if not found:
        raise TokenError("missing", "the request has no `Authorization` header")
    parts = _AUTHORIZATION.fullmatch(found[0])
    if len(found) > 1 or parts is None:
        raise TokenError("request", "the request must have one `Authorization` header, of Bearer or DPoP")
    return Presented(parts[1].lower(), parts[2], tuple(value for name, value in given if name == "dpop"))
