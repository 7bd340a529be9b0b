"""Read how a client says who it is: RFC 6749 §2.3, RFC 7521 §4.2. Nothing here is believed yet."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias, final
from urllib.parse import unquote_to_bytes

from attrs import frozen

from agentauthz.errors import ExchangeRefused
from agentauthz.tokens.types import JWT_CLIENT_ASSERTION

Pairs: TypeAlias = Iterable[tuple[str, str]]
Method: TypeAlias = Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]

MAX_ID: Final = 256  # characters
MAX_SECRET: Final = 1024

_NAMES: Final = frozenset({"client_id", "client_secret", "client_assertion", "client_assertion_type"})
_FORM_TEXT: Final = re.compile(r"(?:[^%\s]|%[0-9A-Fa-f]{2})*", re.ASCII)


@final
@frozen(repr=False)
class Credentials:
    """Be what a request says about its client. `proof`: the secret or the assertion; None: there is only a name.

    `client_id` is None where an assertion alone names the client.
    """

    method: Method
    client_id: str | None
    proof: str | None = None

    def __repr__(self) -> str:
        return f"Credentials({self.method})"


def credentials_of(pairs: Pairs, headers: Pairs) -> Credentials:
    """Return the one way in which a request authenticates its client; `none` where it only names one, or doesn't.

    A parameter without a value counts as left out (RFC 6749 §3.2).

    Raises:
        ExchangeRefused: `invalid_request`: a parameter or header twice, more than one method (§2.3), half an
            assertion; `invalid_client`: an `Authorization` that isn't Basic, malformed, or of another client.
    """
    found = _parameters(pairs)
    authorization = [value for name, value in headers if name.lower() == "authorization"]
    if len(authorization) > 1:
        raise ExchangeRefused("invalid_request", "client_authentication_twice")
    if bool(authorization) + ("client_secret" in found) + _has_assertion(found) > 1:
        raise ExchangeRefused("invalid_request", "client_authentication_twice")
    named = found.get("client_id")
    if authorization:
        client_id, secret = _basic(authorization[0])
        if named not in (None, client_id):
            raise _refused("client_id_mismatch")
        return Credentials("client_secret_basic", client_id, secret)
    if "client_secret" in found:
        return Credentials("client_secret_post", named, found["client_secret"])
    if "client_assertion" in found:
        return Credentials("private_key_jwt", named, found["client_assertion"])
    return Credentials("none", named)


def _parameters(pairs: Pairs) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in _NAMES and value:
            if name in found:
                raise ExchangeRefused("invalid_request", "parameter_twice")
            found[name] = value
    return found


def _has_assertion(found: dict[str, str]) -> bool:
    assertion, kind = found.get("client_assertion"), found.get("client_assertion_type")
    if (assertion is None) != (kind is None):
        raise ExchangeRefused("invalid_request", "client_assertion_incomplete")
    if kind not in (None, JWT_CLIENT_ASSERTION):
        raise _refused("client_assertion_type")
    return assertion is not None


def _basic(authorization: str) -> tuple[str, str]:
    """Return name and secret of Basic credentials, each form-encoded before they were joined (RFC 6749 §2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > 4 * (MAX_ID + MAX_SECRET):
        raise _refused("authorization_header")
    try:
        text = base64.b64decode(encoded.strip(" "), validate=True).decode("ascii")
    except (binascii.Error, ValueError):  # its text may quote the secret
        raise _refused("authorization_header") from None
    name, colon, secret = text.partition(":")
    if not colon:
        raise _refused("authorization_header")
    return _form_decoded(name), _form_decoded(secret)


def _form_decoded(text: str) -> str:
    if _FORM_TEXT.fullmatch(text) is None:
        raise _refused("authorization_header")
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode("utf-8")
    except UnicodeDecodeError:
        raise _refused("authorization_header") from None


def _refused(reason: str) -> ExchangeRefused:
    return ExchangeRefused("invalid_client", reason, status=401)
