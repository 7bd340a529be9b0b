"""Authenticate a client at a token endpoint (RFC 6749 §2.3, RFC 7523 §2.2)."""

from __future__ import annotations

import base64
import datetime as dt
import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn, Protocol, final
from urllib.parse import quote, quote_plus

from attrs import Attribute, field, frozen

from agentauthz.errors import InvalidArgument
from agentauthz.tokens import jws
from agentauthz.tokens.transport import Headers
from agentauthz.tokens.types import JWT_CLIENT_ASSERTION

if TYPE_CHECKING:
    from agentauthz.keys.signing import Signer

ASSERTION_LIFETIME: Final = dt.timedelta(seconds=60)
_VISIBLE: Final = re.compile(r"[\x20-\x7e]+")  # RFC 6749, appendix A.1 and A.2
ASSERTION_TYPE: Final = "client-authentication+jwt"  # RFC 8725 §3.11: good for nothing else


@final
@frozen(eq=False, repr=False)
class Credentials:
    """Be what authenticates one request: headers, form fields, and which texts of them must never show."""

    headers: Headers = ()
    fields: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "Credentials(…)"


class ClientAuth(Protocol):
    """Be a way for a client to say who it is."""

    def credentials(self) -> Credentials:
        """Return what authenticates one request; called anew for each."""


def _shown(self: object) -> str:
    return f"{type(self).__name__}({getattr(self, 'id', None)!r})"


def _not_copied(self: object, protocol: object) -> NoReturn:
    raise InvalidArgument("auth", "can't be pickled or copied: make it where it is needed")


def _text(instance: object, attribute: Attribute[str], value: str) -> None:
    if not isinstance(value, str) or _VISIBLE.fullmatch(value) is None:
        raise InvalidArgument(attribute.name.lstrip("_"), "must be printable ASCII that is not empty")


@final
@frozen(eq=False, repr=False)
class ClientSecretBasic:
    """Send id and secret in the `Authorization` header, each form-encoded first (RFC 6749 §2.3.1).

    Raises:
        InvalidArgument: an id or secret that is empty or no printable ASCII.
    """

    id: str = field(validator=_text)
    _secret: str = field(validator=_text)

    __repr__ = _shown
    __reduce_ex__ = _not_copied

    def credentials(self) -> Credentials:
        """Return the header."""
        pair = f"{quote_plus(self.id)}:{quote_plus(self._secret)}"
        encoded = base64.b64encode(pair.encode()).decode("ascii")
        return Credentials(headers=(("Authorization", f"Basic {encoded}"),), secrets=(*_forms(self._secret), encoded))


@final
@frozen(eq=False, repr=False)
class ClientSecretPost:
    """Send id and secret as form fields (RFC 6749 §2.3.1), for servers that take nothing better.

    Raises:
        InvalidArgument: an id or secret that is empty or no printable ASCII.
    """

    id: str = field(validator=_text)
    _secret: str = field(validator=_text)

    __repr__ = _shown
    __reduce_ex__ = _not_copied

    def credentials(self) -> Credentials:
        """Return the fields."""
        fields = (("client_id", self.id), ("client_secret", self._secret))
        return Credentials(fields=fields, secrets=_forms(self._secret))


def _forms(secret: str) -> tuple[str, ...]:
    """Return a secret as it is, and as it stands in a form that a server may quote."""
    return (secret, quote_plus(secret), quote(secret, safe=""))


def _can_sign(instance: object, attribute: Attribute[Signer], value: object) -> None:
    if not callable(getattr(value, "sign", None)) or not callable(getattr(value, "public_jwk", None)):
        raise InvalidArgument("signer", "must be what signs, such as a SigningKey")


def _can_tell(instance: object, attribute: Attribute[Callable[[], dt.datetime]], value: object) -> None:
    if not callable(value):
        raise InvalidArgument("clock", "must be a function that returns a datetime with a time zone")


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@final
@frozen(eq=False, repr=False)
class PrivateKeyJwt:
    """Sign an assertion for each request, good once and for a minute (RFC 7523 §3); no secret is sent.

    `audience` is the server's issuer, exactly as its metadata writes it; some servers want their token endpoint's URL.

    Raises:
        InvalidArgument: an id or audience that is empty or no printable ASCII, what can't sign, or no clock.
    """

    id: str = field(validator=_text)
    signer: Signer = field(validator=_can_sign)
    audience: str = field(validator=_text)
    clock: Callable[[], dt.datetime] = field(default=_utc_now, validator=_can_tell)

    __repr__ = _shown
    __reduce_ex__ = _not_copied

    def credentials(self) -> Credentials:
        """Return the fields, with a new assertion."""
        now = int(self.clock().timestamp())
        claims = {
            "iss": self.id,
            "sub": self.id,
            "aud": self.audience,
            "iat": now,
            "exp": now + int(ASSERTION_LIFETIME.total_seconds()),
            "jti": secrets.token_urlsafe(24),
        }
        assertion = jws.make(claims, self.signer, typ=ASSERTION_TYPE)
        fields = (
            ("client_id", self.id),
            ("client_assertion_type", JWT_CLIENT_ASSERTION),
            ("client_assertion", assertion),
        )
        return Credentials(fields=fields, secrets=(assertion,))
