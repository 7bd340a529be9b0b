"""Test what is asked of a token endpoint: the form fields of an exchange and of a JWT bearer grant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentauthz.errors import InvalidArgument
from agentauthz.tokens.exchange import JwtBearerRequest, TokenExchangeRequest
from agentauthz.tokens.types import (
    ACCESS_TOKEN,
    ID_JAG,
    ID_TOKEN,
    JWT,
    JWT_BEARER,
    KINDS,
    REFRESH_TOKEN,
    SAML2,
    TOKEN_EXCHANGE,
)
from agentauthz.tokens.verified import TYPES
from tests.exchanging import Issuer

SECRET = "canary-subject-token"


def _request(**changes: Any) -> TokenExchangeRequest:
    return TokenExchangeRequest(**{"subject_token": SECRET, **changes})


def test_the_least_request_has_three_fields() -> None:
    """RFC 8693 §2.1: grant type, subject token and its type are required, and nothing else is sent unasked."""
    assert _request().build() == [
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", SECRET),
        ("subject_token_type", ACCESS_TOKEN),
    ]
    assert TOKEN_EXCHANGE == "urn:ietf:params:oauth:grant-type:token-exchange"


def test_a_full_request_has_every_field() -> None:
    """RFC 8693 §2.1: all parameters, the scopes as one field with spaces, the details as JSON (RFC 9396 §2)."""
    details = [{"type": "payment", "actions": ["pay"], "amount": 5}]
    fields = _request(
        subject_token_type=JWT,
        actor_token="actor",
        actor_token_type=JWT,
        resource=["https://pay.example/a?b=c"],
        audience=["ledger"],
        scope=["pay", "docs.read"],
        requested_token_type=JWT,
        authorization_details=details,
    ).build()
    found = dict(fields)
    assert len(found) == len(fields) == 10
    assert found["scope"] == "pay docs.read"
    assert found["actor_token"] == "actor"
    assert found["actor_token_type"] == found["requested_token_type"] == JWT
    assert json.loads(found["authorization_details"]) == details


def test_targets_are_repeated_fields() -> None:
    """R5, RFC 8693 §2.1: several resources and audiences are fields of one name each, in order, never one list."""
    fields = _request(resource=["https://a.example", "urn:b"], audience=["x", "y", "z"]).build()
    assert [value for name, value in fields if name == "resource"] == ["https://a.example", "urn:b"]
    assert [value for name, value in fields if name == "audience"] == ["x", "y", "z"]


def test_an_actor_and_its_type_belong_together() -> None:
    """R2, RFC 8693 §2.1: `actor_token_type` with `actor_token` and never without; case 48, on the client's side."""
    both = dict(_request(actor_token="a", actor_token_type=ACCESS_TOKEN).build())
    assert both["actor_token_type"] == ACCESS_TOKEN
    for alone in ({"actor_token": "a"}, {"actor_token_type": ACCESS_TOKEN}):
        with pytest.raises(InvalidArgument, match="belong together"):
            _request(**alone)


@pytest.mark.parametrize("uri", ["https://pay.example", "https://pay.example/a?b=c", "urn:example:ledger", "a:b"])
def test_a_resource_is_an_absolute_uri(uri: str) -> None:
    """R4, RFC 8707 §2: an absolute URI is a resource, with a query too."""
    assert ("resource", uri) in _request(resource=[uri]).build()


@pytest.mark.parametrize(
    "uri",
    ["", "/pay", "pay.example", "https://pay.example/#top", "https://pay.example/#", "https:", "https://p ay", "x:%zz",
     "https://pay.example/\n", "https://päy.example", "1a:b", None, 7, "x:" + "a" * 2048],
)  # fmt: skip
def test_another_resource_is_refused(uri: Any) -> None:
    """R4, RFC 8693 §2.1, RFC 8707 §2: what is relative, has a fragment or is no URI is refused before it is sent."""
    for make in (_request, lambda **more: JwtBearerRequest("a", **more)):
        with pytest.raises(InvalidArgument, match="absolute URIs without a fragment"):
            make(resource=[uri])


@pytest.mark.parametrize("scope", ["a", "docs:read", "!", "#", "[", "~", "*"])
def test_scopes_are_literal(scope: str) -> None:
    """RFC 6749 §3.3: every printable ASCII character but space, quote and backslash may be in a scope."""
    assert ("scope", f"{scope} b") in _request(scope=[scope, "b"]).build()


@pytest.mark.parametrize("scope", ["", "a b", 'a"', "a\\", "ä", "a\n", "\x7f", None, 7])
def test_malformed_scopes_are_refused(scope: Any) -> None:
    """RFC 6749 §3.3: a scope with a character that none may have is refused before it is sent."""
    with pytest.raises(InvalidArgument, match=r"^`scope`"):
        _request(scope=["a", scope])


@pytest.mark.parametrize("name", ["resource", "audience", "scope"])
def test_one_text_is_no_list(name: str) -> None:
    """A text where a list belongs is refused: its letters would be asked for one by one; so is what is no list."""
    for wrong in ("https://pay.example", b"a", 7, None):
        with pytest.raises(InvalidArgument, match=f"^`{name}` must be a list of texts"):
            _request(**{name: wrong})


@pytest.mark.parametrize("details", [[], [{}], [{"type": ""}], [{"type": 1}], ["a"], [{"type": "a", "x": {1}}],
                                     [{"type": "a", "x": float("nan")}], {"type": "a"}, 7])  # fmt: skip
def test_malformed_details_are_refused(details: Any) -> None:
    """RFC 9396 §2: details are a list of objects that JSON can hold, each with a `type`."""
    with pytest.raises(InvalidArgument, match=r"^`authorization_details`"):
        _request(authorization_details=details)


def test_a_request_does_not_change() -> None:
    """What is asked stays what it was, whatever becomes of the lists and objects that it was made of."""
    details, scope = [{"type": "payment", "actions": ["pay"]}], ["a"]
    request = _request(authorization_details=details, scope=scope)
    before = request.build()
    details[0]["actions"] = ["pay", "refund"]
    scope.append("b")
    assert request.build() == before


@pytest.mark.parametrize("token", ["", " ", "a b", "a\r\nX: y", "ä", "\ud800", None, b"a", 7])
def test_malformed_tokens_are_refused(token: Any) -> None:
    """A token is printable ASCII without spaces; what isn't is refused, and not shown."""
    for make in (lambda: TokenExchangeRequest(token), lambda: JwtBearerRequest(token)):
        with pytest.raises(InvalidArgument, match="must be a token: printable ASCII without spaces, or a verified"):
            make()


@pytest.mark.parametrize("name", ["subject_token_type", "requested_token_type"])
def test_types_are_not_empty(name: str) -> None:
    """Case 47, on the client's side: an empty type is refused before it is sent."""
    with pytest.raises(InvalidArgument, match=f"^`{name}`"):
        _request(**{name: ""})


def test_a_verified_token_knows_its_type() -> None:
    """A verified token is exchanged as what it was verified as; another declared type is refused, `jwt` is right."""
    issuer = Issuer()
    verified = issuer.verified("id", aud="bot", client_id=None, scope=None)
    assert dict(TokenExchangeRequest(verified).build())["subject_token_type"] == ID_TOKEN
    assert dict(TokenExchangeRequest(verified).build())["subject_token"] == verified.reveal()
    assert TokenExchangeRequest(verified, JWT).subject_token_type == JWT
    with_actor = TokenExchangeRequest(verified, actor_token=issuer.verified())
    assert with_actor.actor_token_type == ACCESS_TOKEN
    with pytest.raises(InvalidArgument, match="that of the verified token"):
        TokenExchangeRequest(verified, ACCESS_TOKEN)


def test_an_id_jag_is_for_one_server() -> None:
    """An ID-JAG is asked for with the one issuer that will redeem it as audience, as its draft has it."""
    asked = _request(subject_token_type=ID_TOKEN, requested_token_type=ID_JAG, audience=["https://other.example"])
    assert ("requested_token_type", ID_JAG) in asked.build()
    for audience in ([], ["a", "b"]):
        with pytest.raises(InvalidArgument, match="one for an ID-JAG"):
            _request(requested_token_type=ID_JAG, audience=audience)


def test_an_assertion_is_redeemed() -> None:
    """RFC 7523 §2.1: the JWT bearer grant has the assertion, and what a token request may have besides."""
    fields = JwtBearerRequest("jag", resource=["https://pay.example"], scope=["pay"]).build()
    assert fields == [
        ("grant_type", JWT_BEARER),
        ("assertion", "jag"),
        ("resource", "https://pay.example"),
        ("scope", "pay"),
    ]


def test_requests_do_not_show_tokens() -> None:
    """Neither the repr nor the text of a request holds a token."""
    shown = f"{_request(actor_token=SECRET, actor_token_type=JWT, audience=['ledger'])!r}{JwtBearerRequest(SECRET)}"
    assert "canary" not in shown
    assert "ledger" in shown


def test_each_kind_has_a_type() -> None:
    """Every kind of token that can be verified has one type URI; those that can't be have none."""
    assert set(KINDS.values()) == set(TYPES)
    assert not {REFRESH_TOKEN, SAML2} & KINDS.keys()
    assert all(uri.startswith("urn:ietf:params:oauth:token-type:") for uri in KINDS)
