"""Find an authorization server's endpoints (RFC 8414; OpenID Connect Discovery 1.0 where it has only that)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, final
from urllib.parse import urlsplit

from attrs import field, frozen

from agentauthz.errors import ExchangeProtocolError, InvalidArgument, TokenError
from agentauthz.tokens.strict import Json, json_object
from agentauthz.tokens.transport import (
    MAX_BODY,
    AsyncTransport,
    HttpRequest,
    HttpResponse,
    Transport,
    check_transport,
    no_answer,
)
from agentauthz.urls import checked_url

_FOUND: Final = 200
_MISSING: Final = 404


@final
@frozen(eq=False)
class ServerMetadata:
    """Be what an authorization server publishes of itself; `members` are all of it, as they came."""

    issuer: str
    token_endpoint: str
    jwks_uri: str | None
    members: Mapping[str, Json] = field(repr=False)


def discover(issuer: str, transport: Transport, *, loopback_http: bool = False) -> ServerMetadata:
    """Return the metadata of the server that `issuer` names, by RFC 8414 §3.1 and, where that is missing, OpenID's way.

    Raises:
        InvalidArgument: an issuer that isn't https (or http on loopback with `loopback_http`), or has a query; a
            `transport` that can't be called.
        ExchangeProtocolError: unreachable, no strict JSON, another `issuer` than the one asked (§3.3, compared as
            text), or an endpoint that isn't https.
    """
    check_transport("transport", transport, awaited=False)
    for url in _addresses(issuer, loopback_http):
        response = _got(transport, _asking(url))
        if response.status != _MISSING:
            return _read(response, issuer, loopback_http)
    raise _bad("no_metadata", "the authorization server publishes no metadata")


async def adiscover(issuer: str, transport: AsyncTransport, *, loopback_http: bool = False) -> ServerMetadata:
    """Do what `discover` does without blocking the loop."""
    check_transport("transport", transport, awaited=True)
    for url in _addresses(issuer, loopback_http):
        response = await _agot(transport, _asking(url))
        if response.status != _MISSING:
            return _read(response, issuer, loopback_http)
    raise _bad("no_metadata", "the authorization server publishes no metadata")


def _asking(url: str) -> HttpRequest:
    return HttpRequest("GET", url, (("Accept", "application/json"),))


def _got(transport: Transport, request: HttpRequest) -> HttpResponse:
    try:
        return transport(request)
    except Exception as cause:
        failed = no_answer("the authorization server", cause)
    raise failed


async def _agot(transport: AsyncTransport, request: HttpRequest) -> HttpResponse:
    try:
        return await transport(request)
    except Exception as cause:
        failed = no_answer("the authorization server", cause)
    raise failed


def _addresses(issuer: str, loopback_http: bool) -> tuple[str, ...]:
    checked_url("issuer", issuer, loopback_http=loopback_http)
    parts = urlsplit(issuer)
    if parts.query or issuer.endswith("?"):
        raise InvalidArgument("issuer", "must have no query (RFC 8414 §2)")
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    addresses = (
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{origin}/.well-known/openid-configuration{path}",
        f"{origin}{path}/.well-known/openid-configuration",
    )
    return tuple(dict.fromkeys(addresses))


def _read(response: HttpResponse, issuer: str, loopback_http: bool) -> ServerMetadata:
    if response.status != _FOUND:
        raise _bad("status", f"the authorization server answered HTTP {response.status} for its metadata")
    members = _members(response)
    if members.get("issuer") != issuer:  # as text: `https://a` is not `https://a/`
        raise _bad("issuer", "the authorization server's metadata is of another issuer")
    token_endpoint = _endpoint(members, "token_endpoint", loopback_http)
    jwks_uri = _endpoint(members, "jwks_uri", loopback_http) if "jwks_uri" in members else None
    return ServerMetadata(issuer, token_endpoint, jwks_uri, MappingProxyType(members))


def _endpoint(members: Mapping[str, Json], name: str, loopback_http: bool) -> str:
    try:
        return checked_url(name, members.get(name), loopback_http=loopback_http)
    except InvalidArgument:
        raise _bad("metadata", f"the authorization server's metadata has no `{name}` that may be used") from None


def _members(response: HttpResponse) -> dict[str, Json]:
    if len(response.body) > MAX_BODY:
        raise _bad("too_large", f"the authorization server's metadata is longer than {MAX_BODY} bytes")
    try:
        return json_object(response.body)
    except TokenError:
        raise _bad("malformed", "the authorization server's metadata is no JSON, or has a member twice") from None


def _bad(reason: str, message: str) -> ExchangeProtocolError:
    return ExchangeProtocolError(reason, message)
