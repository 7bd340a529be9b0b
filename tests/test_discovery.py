"""Test how a server's endpoints are found, and that its metadata is really its own (RFC 8414)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentauthz.errors import ExchangeProtocolError, InvalidArgument, TransportError
from agentauthz.tokens.discovery import adiscover, discover
from agentauthz.tokens.transport import HttpResponse
from tests.exchanging import ISSUER, JSON, Endpoint, answer

MISSING = HttpResponse(404)


def _metadata(**changes: object) -> dict[str, Any]:
    return {"issuer": ISSUER, "token_endpoint": f"{ISSUER}/token", "jwks_uri": f"{ISSUER}/jwks", **changes}


def _refused(reason: str, *answers: HttpResponse | Exception, issuer: str = ISSUER, **options: Any) -> None:
    with pytest.raises(ExchangeProtocolError) as refused:
        discover(issuer, Endpoint(*answers), **options)
    assert refused.value.reason == reason


def test_endpoints_are_found() -> None:
    """RFC 8414 §3.1: the metadata lies at a well-known place of the issuer's host."""
    server = Endpoint(answer(**_metadata(scopes_supported=["a"])))
    found = discover(ISSUER, server)
    assert (found.issuer, found.token_endpoint, found.jwks_uri) == (ISSUER, f"{ISSUER}/token", f"{ISSUER}/jwks")
    assert found.members["scopes_supported"] == ["a"]
    assert [request.url for request in server.requests] == [f"{ISSUER}/.well-known/oauth-authorization-server"]
    assert server.requests[0].method == "GET"


async def test_endpoints_are_found_without_blocking() -> None:
    """The async twin asks the same places, in the same order."""
    server = Endpoint(MISSING, answer(**_metadata()))
    assert (await adiscover(ISSUER, server.aio)).token_endpoint == f"{ISSUER}/token"
    assert len(server.requests) == 2
    with pytest.raises(ExchangeProtocolError, match="no metadata"):
        await adiscover(ISSUER, Endpoint(MISSING, MISSING).aio)
    with pytest.raises(ExchangeProtocolError, match="late"):
        await adiscover(ISSUER, Endpoint(TransportError("deadline", "too late")).aio)


def test_the_path_comes_last() -> None:
    """RFC 8414 §3.1: the well-known part goes between host and path; OpenID's comes after the path, and is last."""
    issuer = "https://as.example/tenant/a"
    server = Endpoint(MISSING, MISSING, answer(**_metadata(issuer=issuer)))
    assert discover(issuer, server).issuer == issuer
    assert [request.url for request in server.requests] == [
        "https://as.example/.well-known/oauth-authorization-server/tenant/a",
        "https://as.example/.well-known/openid-configuration/tenant/a",
        "https://as.example/tenant/a/.well-known/openid-configuration",
    ]


@pytest.mark.parametrize("issuer", [f"{ISSUER}/", "https://AS.example", "https://as.example:443", "http://as.example",
                                    "https://as.exampl", None, [ISSUER]])  # fmt: skip
def test_another_issuer_is_refused(issuer: object) -> None:
    """RFC 8414 §3.3: the metadata's `issuer` is the one asked for, character by character."""
    _refused("issuer", answer(**_metadata(issuer=issuer)))


@pytest.mark.parametrize("url", [None, "", "http://as.example/token", "/token", "https://u:p@as.example/token", 7])
def test_endpoints_are_https(url: object) -> None:
    """RFC 8414 §2: the endpoints are https; a server without a usable token endpoint is of no use here."""
    _refused("metadata", answer(**_metadata(token_endpoint=url)))
    _refused("metadata", answer(**_metadata(jwks_uri=url)))


def test_keys_may_be_elsewhere() -> None:
    """RFC 8414 §2: `jwks_uri` is optional."""
    members = _metadata()
    del members["jwks_uri"]
    assert discover(ISSUER, Endpoint(answer(**members))).jwks_uri is None


@pytest.mark.parametrize("issuer", ["http://as.example", "https://as.example?a", "https://as.example?", "as.example",
                                    "https://as.example/#a", "file:///etc/passwd", ""])  # fmt: skip
def test_issuers_are_https(issuer: str) -> None:
    """RFC 8414 §2: an issuer is an https URL without query and fragment; nothing is asked of another."""
    server = Endpoint()
    with pytest.raises(InvalidArgument):
        discover(issuer, server)
    assert server.requests == []


def test_loopback_is_opted_into() -> None:
    """Plain http is for this machine alone, where the caller says so."""
    issuer = "http://127.0.0.1:8080"
    members: dict[str, Any] = {"issuer": issuer, "token_endpoint": f"{issuer}/token"}
    assert discover(issuer, Endpoint(answer(**members)), loopback_http=True).issuer == issuer
    with pytest.raises(InvalidArgument, match="https"):
        discover(issuer, Endpoint(answer(**members)))
    with pytest.raises(InvalidArgument, match="https"):
        discover("http://as.example", Endpoint(answer(**members)), loopback_http=True)


def test_broken_metadata_is_refused() -> None:
    """Redirects, errors, HTML, broken or doubled members, too much and no answer at all are refused."""
    body = json.dumps(_metadata()).encode()
    _refused("status", HttpResponse(302, (*JSON, ("Location", "https://other.example")), body))
    _refused("status", HttpResponse(500, JSON, body))
    _refused("malformed", HttpResponse(200, (), b"<html>"))
    _refused("malformed", HttpResponse(200, JSON, body[:-1] + b',"issuer":"https://as.example"}'))
    _refused("too_large", HttpResponse(200, JSON, body.ljust(256 * 1024 + 1)))
    _refused("deadline", TransportError("deadline", "there was no whole answer"))
    _refused("no_metadata", MISSING, MISSING)


@pytest.mark.parametrize("wrong", [None, "https://as.example", 7])
async def test_only_a_transport_is_asked(wrong: Any) -> None:
    """What can't be called is refused by its name."""
    with pytest.raises(InvalidArgument, match=r"^`transport`"):
        discover(ISSUER, wrong)
    with pytest.raises(InvalidArgument, match=r"^`transport`"):
        await adiscover(ISSUER, wrong)


@pytest.mark.parametrize("failure", [OSError("canary"), ValueError("canary")])
async def test_a_transport_that_fails(failure: Exception) -> None:
    """Whatever a transport raises is one error, that tells the kind of failure and nothing else."""
    _refused("unreachable", failure)
    with pytest.raises(ExchangeProtocolError, match=type(failure).__name__) as caught:
        await adiscover(ISSUER, Endpoint(failure).aio)
    assert "canary" not in str(caught.value)
    assert caught.value.__context__ is None
