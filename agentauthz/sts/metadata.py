"""Say where a token service is and what it can do: authorization server metadata (RFC 8414)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, final
from urllib.parse import urlsplit

from attrs import frozen

from agentauthz.errors import InvalidArgument
from agentauthz.tokens.types import JWT_BEARER, TOKEN_EXCHANGE

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_SHARED_SECRET: Final = ("client_secret_basic", "client_secret_post")


@final
@frozen(kw_only=True)
class Addresses:
    """Be the addresses of a token service, as its clients reach it: below `base`.

    Raises:
        InvalidArgument: not https (http only on loopback), or with a query, a fragment or a user.
    """

    issuer: str
    base: str

    def __attrs_post_init__(self) -> None:
        for name, address in (("issuer", self.issuer), ("base", self.base)):
            if not _secure(address):
                raise InvalidArgument(
                    name, f"must be an https address without query, fragment or user, not `{address}` (RFC 8414 §2)"
                )

    def at(self, path: str) -> str:
        """Return the address of a path that begins with a slash."""
        return self.base.rstrip("/") + path


def _secure(address: str) -> bool:
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018  (reading it checks it)
    except (ValueError, TypeError, AttributeError):
        return False
    if not parts.hostname or "?" in address or "#" in address or "@" in parts.netloc or not address.isascii():
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


def metadata(
    addresses: Addresses,
    *,
    private_key_jwt: Collection[str],
    mutual_tls: bool,
    dpop: Collection[str],
    revocation: bool,
    assertions: bool,
) -> dict[str, object]:
    """Return the metadata document; what isn't there is left out (RFC 8414 §3.2).

    `private_key_jwt` and `dpop` are the algorithms that each takes; none: it isn't there. `response_types_supported`
    is empty, against §3.2: §2 wants it, and without an authorization endpoint there is nothing to put into it.
    """
    methods = [*_SHARED_SECRET]
    methods += ["private_key_jwt"] if private_key_jwt else []
    methods += ["self_signed_tls_client_auth"] if mutual_tls else []  # RFC 8705 §2.2: this very certificate
    authentication: Mapping[str, object] = {"auth_methods_supported": methods}
    if private_key_jwt:
        authentication = {**authentication, "auth_signing_alg_values_supported": sorted(private_key_jwt)}
    endpoints = ["token", "introspection", *(["revocation"] if revocation else [])]
    paths = {"token": "/token", "introspection": "/introspect", "revocation": "/revoke"}
    found: dict[str, object] = {"issuer": addresses.issuer, "jwks_uri": addresses.at("/jwks")}
    for name in endpoints:
        found[f"{name}_endpoint"] = addresses.at(paths[name])
        found |= {f"{name}_endpoint_{key}": value for key, value in authentication.items()}
    found["grant_types_supported"] = [TOKEN_EXCHANGE, *([JWT_BEARER] if assertions else [])]
    found["response_types_supported"] = []
    if assertions:
        found["authorization_grant_profiles_supported"] = ["urn:ietf:params:oauth:grant-profile:id-jag"]
    if dpop:
        found["dpop_signing_alg_values_supported"] = sorted(dpop)  # RFC 9449 §5.1
    if mutual_tls:
        found["tls_client_certificate_bound_access_tokens"] = True  # RFC 8705 §3.3
    return found
