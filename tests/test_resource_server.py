"""Test what a protected resource says over HTTP: challenges, its metadata, and its one canonical URI."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.tokens.resource_server import (
    Challenge,
    canonical_resource,
    challenge,
    metadata_url,
    protected_resource_metadata,
    require_scopes,
)
from tests.issuing import GONE, token, validator

METADATA = "https://mcp.example/.well-known/oauth-protected-resource/mcp"


def asked(reason: str | None, **options: Any) -> Challenge:
    return challenge(None if reason is None else TokenError(reason, "the secret details"), **options)


def schemes(given: Challenge) -> list[str]:
    return [value for name, value in given.headers if name == "WWW-Authenticate"]


def test_rfc_6750_section_3_1_no_error_where_there_was_no_token() -> None:
    """RFC 6750 §3.1: a request without authentication is told how to come, and no error code."""
    for reason in (None, "missing"):
        found = asked(reason, resource_metadata=METADATA, scopes=["files:read", "files:write"])
        assert found.status == 401
        assert schemes(found) == [f'Bearer scope="files:read files:write", resource_metadata="{METADATA}"']


def test_a_bad_token_is_invalid_token() -> None:
    """RFC 6750 §3.1, RFC 9728 §5.1: 401 with `invalid_token`, and where the metadata is."""
    for reason in ("expired", "signature", "revoked", "audience", "act", "malformed", "actor_required", "new reason"):
        found = asked(reason, resource_metadata=METADATA, realm="pay")
        assert found.status == 401
        assert schemes(found) == [f'Bearer error="invalid_token", realm="pay", resource_metadata="{METADATA}"']


def test_insufficient_scope_is_403_with_the_scopes() -> None:
    """RFC 6750 §3.1, MCP authorization: 403 names the scopes to ask for, and the metadata."""
    found = asked("insufficient_scope", resource_metadata=METADATA, scopes=["files:write"])
    assert found.status == 403
    assert schemes(found) == [f'Bearer error="insufficient_scope", scope="files:write", resource_metadata="{METADATA}"']


def test_a_request_that_can_not_be_understood_is_400() -> None:
    """RFC 6750 §3.1: several headers, or another scheme, are `invalid_request`."""
    found = asked("request")
    assert (found.status, schemes(found)) == (400, ['Bearer error="invalid_request"'])


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("dpop_missing", "invalid_token"),
        ("dpop_unbound", "invalid_token"),
        ("dpop_proof", "invalid_dpop_proof"),
        ("dpop_replayed", "invalid_dpop_proof"),
    ],
)
def test_rfc_9449_section_7_1_proofs_are_asked_for_by_their_scheme(reason: str, error: str) -> None:
    """RFC 9449 §7.1: what is wrong with a proof is said with the scheme DPoP and its algorithms."""
    found = asked(reason, dpop_algorithms=["ES256", "EdDSA"])
    assert (found.status, schemes(found)) == (401, [f'DPoP error="{error}", algs="ES256 EdDSA"'])
    assert schemes(asked(reason)) == [f'DPoP error="{error}"']


def test_rfc_9449_section_9_a_nonce_is_given_where_one_is_wanted() -> None:
    """RFC 9449 §9: `use_dpop_nonce` comes with a `DPoP-Nonce`, and can't be said without one."""
    found = asked("dpop_nonce", dpop_nonce="1795.abc", dpop_algorithms=["ES256"])
    assert found.status == 401
    assert found.headers == (
        ("WWW-Authenticate", 'DPoP error="use_dpop_nonce", algs="ES256"'), ("DPoP-Nonce", "1795.abc"),
    )  # fmt: skip
    with pytest.raises(InvalidArgument, match="dpop_nonce"):
        asked("dpop_nonce")


def test_both_schemes_are_offered_where_proofs_are_taken() -> None:
    """RFC 9449 §7.2: a server of both kinds of tokens offers both."""
    assert schemes(asked(None, dpop_algorithms=["ES256"])) == ["Bearer", 'DPoP algs="ES256"']


@pytest.mark.parametrize(
    "reason", ["keys_unavailable", "introspection", "replay_unavailable", "revocation_unavailable"]
)
def test_what_the_service_can_not_find_out_is_503(reason: str) -> None:
    """A client isn't told to throw its token away when it is this service that couldn't check it."""
    found = asked(reason, resource_metadata=METADATA)
    assert (found.status, schemes(found)) == (503, [])


def test_the_wire_tells_no_reason() -> None:
    """Neither the reason nor the message of an error stands in any header."""
    for reason in ("expired", "signature", "unknown_key", "dpop_proof", "keys_unavailable"):
        text = repr(asked(reason, dpop_nonce="n").headers)
        assert "secret details" not in text
        assert not re.search(rf"\b{reason}\b", text)


@pytest.mark.parametrize(
    "options",
    [
        {"realm": 'a"b'}, {"realm": "a\r\nSet-Cookie: x"}, {"realm": "é"}, {"scopes": ["a b"]},
        {"scopes": "files:read"},
        {"scopes": ['a"']}, {"resource_metadata": 'https://x.example/"'}, {"resource_metadata": "https://x.example/ y"},
        {"resource_metadata": "https://x.example/\n"}, {"dpop_algorithms": ["ES256 x"]}, {"dpop_nonce": "a\nb"},
        {"resource_metadata": 7}, {"scopes": [""]},
    ],
)  # fmt: skip
def test_a_header_holds_nothing_that_breaks_it(options: dict[str, Any]) -> None:
    """Quotes, line ends and other characters that a header can't hold raise instead."""
    with pytest.raises(InvalidArgument):
        challenge(None, **options)


def test_scopes_can_be_required_early() -> None:
    """A token without a scope that a route needs is refused with `insufficient_scope`; with it, it isn't."""
    found = validator().verify(token())
    require_scopes(found, "payments.read")
    require_scopes(found)
    for given, scopes in ((found, ["payments.write"]), (validator().verify(token(scope=GONE)), ["payments.read"])):
        with pytest.raises(TokenError, match="insufficient_scope"):
            require_scopes(given, "payments.read", *scopes)


# ---- the resource


@pytest.mark.parametrize(
    ("uri", "canonical", "metadata"),
    [
        ("https://mcp.example/mcp", "https://mcp.example/mcp", METADATA),
        ("HTTPS://MCP.Example:443/mcp/", "https://mcp.example/mcp", METADATA),
        ("https://mcp.example", "https://mcp.example", "https://mcp.example/.well-known/oauth-protected-resource"),
        ("https://mcp.example/", "https://mcp.example", "https://mcp.example/.well-known/oauth-protected-resource"),
        (
            "https://mcp.example:8443/Server/mcp", "https://mcp.example:8443/Server/mcp",
            "https://mcp.example:8443/.well-known/oauth-protected-resource/Server/mcp",
        ),
        ("http://[::1]:8000/", "http://[::1]:8000", "http://[::1]:8000/.well-known/oauth-protected-resource"),
        (
            "https://mcp.example/a?b=c", "https://mcp.example/a?b=c",
            "https://mcp.example/.well-known/oauth-protected-resource/a?b=c",
        ),
    ],
)  # fmt: skip
def test_a_resource_has_one_uri_and_one_place_for_its_metadata(uri: str, canonical: str, metadata: str) -> None:
    """RFC 8707 §2, RFC 9728 §3.1, MCP authorization: the canonical URI, and the well-known one before its path."""
    assert canonical_resource(uri) == canonical == canonical_resource(canonical)
    assert metadata_url(uri) == metadata


@pytest.mark.parametrize(
    "uri",
    [
        "mcp.example", "mcp.example/mcp", "https://mcp.example#x", "https://mcp.example/mcp#", "ftp://mcp.example",
        "https://", "https:///mcp", "https://u:p@mcp.example", "https://mcp.example:port", "https://mcp.example:99999",
        "https://mcp.example/ x", "", "file:///etc/passwd", "https://mcp.example/\n", "https://[::1", 7, None,
    ],
)  # fmt: skip
def test_what_names_no_resource_is_refused(uri: Any) -> None:
    """RFC 8707 §2: only an absolute URI without a fragment names a resource."""
    for function in (canonical_resource, metadata_url):
        with pytest.raises(InvalidArgument):
            function(uri)


def test_rfc_9728_section_2_the_metadata() -> None:
    """RFC 9728 §2, §3.2: the resource, its authorization servers, and nothing without a value."""
    assert protected_resource_metadata("https://MCP.example/mcp/", ["https://issuer.example"]) == {
        "resource": "https://mcp.example/mcp",
        "authorization_servers": ["https://issuer.example"],
        "bearer_methods_supported": ["header"],
    }
    full = protected_resource_metadata(
        "https://mcp.example", ["https://issuer.example"], scopes=["a", "b"], dpop_algorithms=["ES256"],
        dpop_required=True, name="Files",
    )  # fmt: skip
    assert full["scopes_supported"] == ["a", "b"]
    assert full["dpop_signing_alg_values_supported"] == ["ES256"]
    assert full["dpop_bound_access_tokens_required"] is True
    assert full["resource_name"] == "Files"


@pytest.mark.parametrize(
    "build",
    [
        lambda: protected_resource_metadata("https://mcp.example", []),
        lambda: protected_resource_metadata("https://mcp.example", "https://issuer.example"),
        lambda: protected_resource_metadata("mcp", ["https://issuer.example"]),
        lambda: protected_resource_metadata("https://mcp.example", ["https://issuer.example"], scopes=["a b"]),
    ],
)
def test_metadata_that_can_not_be_used_is_refused(build: Callable[[], object]) -> None:
    """MCP authorization: there is at least one authorization server, and every value is well formed."""
    with pytest.raises(InvalidArgument):
        build()
