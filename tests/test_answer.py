"""Test how a token endpoint's answer is held against what was asked: cases 87 and 88, and the RFCs' musts."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from agentauthz.errors import AgentAuthzError, ExchangeDenied, ExchangeProtocolError, InvalidArgument
from agentauthz.tokens.answer import MAX_WORDS, ExchangedToken, parse_response, within_details
from agentauthz.tokens.exchange import AnyRequest, JwtBearerRequest, TokenExchangeRequest
from agentauthz.tokens.types import ACCESS_TOKEN, ID_JAG, ID_TOKEN, JWT, REFRESH_TOKEN, TXN_TOKEN
from tests.exchanging import JSON, granted

CANARY = "canary-0123456789abcdefghijklmnopqrstuvwxyz"
ASKED = TokenExchangeRequest(CANARY, scope=["docs.read", "docs.write"])
DETAIL = {"type": "payment", "actions": ["pay", "refund"], "locations": ["https://pay.example"], "limit": 5}


def _read(request: AnyRequest = ASKED, *, dpop: bool = False, **changes: object) -> ExchangedToken:
    return parse_response(200, JSON, json.dumps(granted(**changes)).encode(), request, dpop=dpop)


def _refused(reason: str, request: AnyRequest = ASKED, *, dpop: bool = False, **changes: object) -> None:
    with pytest.raises(ExchangeProtocolError) as refused:
        _read(request, dpop=dpop, **{"access_token": CANARY, **changes})
    assert refused.value.reason == reason
    assert "canary" not in f"{refused.value}{refused.value!r}"


def _error(body: bytes, status: int = 400, headers: Any = JSON, **options: Any) -> AgentAuthzError:
    with pytest.raises((ExchangeDenied, ExchangeProtocolError)) as refused:
        parse_response(status, headers, body, ASKED, **options)
    assert "canary" not in f"{refused.value}{refused.value!r}"
    return refused.value


def _denied(status: int = 400, **members: object) -> ExchangeDenied:
    found = _error(json.dumps(members).encode(), status)
    assert isinstance(found, ExchangeDenied)
    return found


def test_a_good_answer_is_a_token() -> None:
    """The positive twin of all that follows: a complete answer within what was asked (RFC 8693 §2.2.1)."""
    token = _read()
    assert (token.access_token, token.issued_token_type, token.token_type) == ("opaque-token", ACCESS_TOKEN, "Bearer")
    assert (token.expires_in, token.scope) == (300, ("docs.read",))
    assert token.verified is None
    assert token.authorization() == "Bearer opaque-token"


# ---- case 87: the members


@pytest.mark.parametrize("value", [None, "", 7, [ACCESS_TOKEN], "no uri", "access_token"])
def test_the_issued_type_is_required(value: object) -> None:
    """Case 87, R7, RFC 8693 §2.2.1: `issued_token_type` is always there, and a URI."""
    _refused("issued_token_type", issued_token_type=value)


def test_the_issued_type_is_the_one_asked_for() -> None:
    """Case 87, R7: what was asked for as `requested_token_type` is what is issued."""
    asked = TokenExchangeRequest("a", requested_token_type=JWT)
    assert _read(asked, issued_token_type=JWT).issued_token_type == JWT
    _refused("issued_token_type", asked, issued_token_type=ACCESS_TOKEN)
    _refused("issued_token_type", asked, issued_token_type=JWT.upper())


@pytest.mark.parametrize("uri", [REFRESH_TOKEN, ID_TOKEN, ID_JAG, "urn:example:surprise"])
def test_an_unasked_type_is_one_for_access(uri: str) -> None:
    """Where no type was asked for, the service chooses among those that give access, and nothing stranger."""
    assert _read(issued_token_type=JWT).issued_token_type == JWT
    for token_type in ("Bearer", "N_A"):
        _refused("issued_token_type", issued_token_type=uri, token_type=token_type)


def test_an_access_token_is_not_na() -> None:
    """Case 87, R8: `N_A` is for what is no access token."""
    _refused("token_type", token_type="N_A")


@pytest.mark.parametrize("uri", [ID_JAG, TXN_TOKEN, ID_TOKEN])
def test_what_gives_no_access_is_na(uri: str) -> None:
    """R8, RFC 8693 §2.2.1: such a token has `N_A` and nothing else, and can't be presented as a bearer token."""
    asked = TokenExchangeRequest("a", requested_token_type=uri, audience=["https://other.example"])
    token = _read(asked, issued_token_type=uri, token_type="n_a", scope=None)
    assert token.token_type == "N_A"
    with pytest.raises(InvalidArgument, match="no access token"):
        token.authorization()
    _refused("token_type", asked, issued_token_type=uri, token_type="Bearer", scope=None)


@pytest.mark.parametrize("value", [None, "", 7, "mac", "Bearer ", "pop", ["Bearer"]])
def test_the_token_type_is_known(value: object) -> None:
    """RFC 6749 §5.1, §7.1: `token_type` is required, and a token of a type that isn't understood is not used."""
    _refused("token_type", token_type=value)


@pytest.mark.parametrize("value", ["Bearer", "bearer", "BEARER"])
def test_the_token_type_has_no_case(value: str) -> None:
    """RFC 6749 §5.1: the value of `token_type` is case-insensitive."""
    assert _read(token_type=value).token_type == "Bearer"


def test_a_bound_token_was_asked_for() -> None:
    """Case 87, RFC 9449 §5: with a proof the token is `DPoP`, never a bearer token; without one it can't be `DPoP`."""
    assert _read(dpop=True, token_type="dpop").authorization() == "DPoP opaque-token"
    _refused("not_bound", dpop=True, token_type="Bearer")
    _refused("token_type", token_type="DPoP")


@pytest.mark.parametrize("scope", ["docs.read admin", "admin", "Docs.read", "docs.rea", "docs.*"])
def test_the_scope_is_within_what_was_asked(scope: str) -> None:
    """Case 87, R9: a scope that wasn't asked for is refused, whatever else is right; scopes are literal."""
    _refused("wider_scope", scope=scope)


def test_a_narrower_scope_is_told() -> None:
    """R9, RFC 6749 §5.1: `scope` says what was granted; left out it is what was asked; unasked it is the service's."""
    assert _read(scope="docs.write").scope == ("docs.write",)
    assert _read(scope="docs.write docs.read").scope == ("docs.write", "docs.read")
    assert _read(scope="").scope == ()
    assert _read(scope=None).scope == ("docs.read", "docs.write")
    assert _read(TokenExchangeRequest("a"), scope="anything").scope == ("anything",)
    assert _read(TokenExchangeRequest("a"), scope=None).scope is None


@pytest.mark.parametrize("scope", [" ", "docs.read ", " docs.read", "docs.read  docs.write", "docs.read\n", 'a"',
                                   ["docs.read"], 7])  # fmt: skip
def test_the_scope_is_well_formed(scope: object) -> None:
    """RFC 6749 §3.3: scopes are one text, separated by single spaces."""
    _refused("scope", TokenExchangeRequest("a"), scope=scope)


@pytest.mark.parametrize("value", [None, "", 7, "a b", "a\r\nX-Other: 1", "ä", ["a"]])
def test_the_token_is_usable(value: Any) -> None:
    """RFC 8693 §2.2.1: `access_token` is required; one with a line break or a space would change the headers."""
    with pytest.raises(ExchangeProtocolError, match="no usable `access_token`"):
        _read(access_token=value)


@pytest.mark.parametrize("value", ["a", "", False, {}])
def test_a_refresh_token_is_refused(value: object) -> None:
    """RFC 8693 §2.2.1: a refresh token is for renewing without the subject's token, and nobody asked for one."""
    _refused("refresh_token", refresh_token=value)


@pytest.mark.parametrize("value", [0, -1, True, "300", 300.5, 1e400, 10**12, [], {}])
def test_a_lifetime_is_sane(value: Any) -> None:
    """`expires_in` is a whole number of seconds that a token may live (RFC 6749 §5.1)."""
    text = json.dumps(granted(expires_in=value)).encode()
    found = _error(text, 200)
    assert isinstance(found, ExchangeProtocolError)
    assert found.reason in ("expires_in", "malformed")


def test_a_lifetime_may_be_left_out() -> None:
    """RFC 8693 §2.2.1: `expires_in` is recommended, not required; `null` isn't leaving it out."""
    assert _read(expires_in=None).expires_in is None
    body = json.dumps({**granted(), "expires_in": None}).encode()
    assert "`expires_in`" in str(_error(body, 200))


# ---- authorization details


@pytest.mark.parametrize(
    "narrower", [{}, {"actions": ["pay"]}, {"actions": ["refund", "pay"]}, {"locations": ["https://pay.example"]}]
)
def test_details_within_what_was_asked(narrower: dict[str, object]) -> None:
    """RFC 9396 §7: the granted details come back; they are those asked, or fewer actions and locations of them."""
    asked = TokenExchangeRequest("a", authorization_details=[DETAIL, {"type": "other"}])
    found = {**DETAIL, **narrower}
    assert _read(asked, scope=None, authorization_details=[found]).authorization_details == (found,)


@pytest.mark.parametrize(
    "wider",
    [{"type": "transfer"}, {"actions": ["pay", "close"]}, {"actions": []}, {"actions": "pay"}, {"limit": 6},
     {"limit": 4}, {"limit": 5.0}, {"locations": ["https://pay.example", "https://other.example"]}, {"extra": 1},
     {"locations": None}],
)  # fmt: skip
def test_details_beyond_what_was_asked(wider: dict[str, object]) -> None:
    """A detail with another type, more actions, a wider location, another value or member is refused."""
    asked = TokenExchangeRequest("a", authorization_details=[DETAIL, {"type": "other"}])
    _refused("wider_details", asked, authorization_details=[{**DETAIL, **wider}])


@pytest.mark.parametrize("name", ["actions", "locations", "limit"])
def test_details_keep_what_restricts(name: str) -> None:
    """A detail that lost a member is refused: without its restriction it may mean everything."""
    asked = TokenExchangeRequest("a", authorization_details=[DETAIL])
    _refused("wider_details", asked, authorization_details=[{k: v for k, v in DETAIL.items() if k != name}])


def test_details_asked_for_are_answered() -> None:
    """RFC 9396 §7: a service that doesn't say which details it granted may not have looked at them."""
    asked = TokenExchangeRequest("a", authorization_details=[DETAIL])
    wrong: list[object] = [None, {}, "a", [1], [{"actions": []}]]
    for value in wrong:
        _refused("authorization_details", asked, scope=None, authorization_details=value)
    assert _read(asked, scope=None, authorization_details=[]).authorization_details == ()
    assert _read(authorization_details=[DETAIL]).authorization_details == (DETAIL,)


def test_true_is_not_one() -> None:
    """Details are compared as JSON values: true is no 1, and the order of members doesn't count."""
    assert within_details([{"type": "a", "b": {"c": 1, "d": 2}}], [{"b": {"d": 2, "c": 1}, "type": "a"}])
    assert not within_details([{"type": "a", "b": True}], [{"type": "a", "b": 1}])
    assert not within_details([{"type": "a", "b": "1"}], [{"type": "a", "b": 1}])


# ---- the JWT bearer grant


def test_an_assertion_gets_an_access_token() -> None:
    """RFC 7523 §2.1, RFC 6749 §5.1: its answer has no `issued_token_type`, and everything else is as strict."""
    asked = JwtBearerRequest(CANARY, scope=["docs.read"])
    token = _read(asked, issued_token_type=None)
    assert (token.issued_token_type, token.token_type) == (ACCESS_TOKEN, "Bearer")
    assert _read(asked).issued_token_type == ACCESS_TOKEN
    _refused("issued_token_type", asked, issued_token_type=ID_JAG)
    _refused("token_type", asked, issued_token_type=None, token_type="N_A")
    _refused("wider_scope", asked, issued_token_type=None, scope="docs.write")
    _refused("refresh_token", asked, issued_token_type=None, refresh_token="a")


# ---- case 88: the form


def test_html_is_refused() -> None:
    """Case 88: a page for people is no answer, whatever its status, and none of it is shown."""
    page = f"<html><body>{CANARY}</body></html>".encode()
    for status in (200, 400, 404, 502):
        found = _error(page, status, (("Content-Type", "text/html"),))
        assert isinstance(found, ExchangeProtocolError)
        assert found.reason == "not_json"
        assert str(status) in str(found)


def test_json_says_that_it_is() -> None:
    """RFC 6749 §5.1: the media type is `application/json`, parameters aside; one that is missing or doubled isn't."""
    body = json.dumps(granted()).encode()
    good = (("content-TYPE", "Application/JSON; charset=utf-8"),)
    assert parse_response(200, good, body, ASKED).access_token == "opaque-token"
    for bad in ((), JSON * 2, (("Content-Type", "text/plain"),), (("Content-Type", "application/jwt"),)):
        assert "no JSON" in str(_error(body, 200, bad))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b'"a"', json.dumps(granted(access_token=CANARY)).encode()[:-5], b"\xff{}",
     b"\xef\xbb\xbf{}", b'{"a":NaN}', b'{"access_token":"canary","access_token":"b"}',
     b'{"error":"invalid_request","error":"invalid_scope"}', b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
)  # fmt: skip
def test_broken_json_is_refused(body: bytes) -> None:
    """Case 88: JSON that is truncated, no object, no UTF-8, too deep, or has a member twice, is no answer."""
    for status in (200, 400):
        found = _error(body, status)
        assert isinstance(found, ExchangeProtocolError)
        assert found.reason == "malformed"


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_redirects_are_refused(status: int) -> None:
    """Case 88: a redirect would carry the tokens elsewhere; it is never followed, nor shown."""
    headers = (*JSON, ("Location", f"https://other.example/{CANARY}"))
    found = _error(json.dumps(granted()).encode(), status, headers)
    assert isinstance(found, ExchangeProtocolError)
    assert found.reason == "redirect"


def test_a_large_body_is_refused() -> None:
    """Case 88: an answer of over 256 KiB isn't read; one of exactly that is."""
    body = json.dumps(granted()).encode()
    assert parse_response(200, JSON, body.ljust(256 * 1024), ASKED).scope == ("docs.read",)
    for size in (256 * 1024 + 1, 2**20):
        found = _error(body.ljust(size), 200)
        assert isinstance(found, ExchangeProtocolError)
        assert found.reason == "too_large"


@pytest.mark.parametrize("status", [100, 199, 201, 204, 206, 299, 600, 0])
def test_other_statuses_are_refused(status: int) -> None:
    """RFC 8693 §2.2.1: a token comes with HTTP 200; with any other status it is none, and no denial either."""
    for body in (granted(), {"error": "invalid_request"}):
        assert isinstance(_error(json.dumps(body).encode(), status), ExchangeProtocolError)


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
def test_a_denial_is_told(status: int) -> None:
    """RFC 6749 §5.2: `error`, `error_description` and `error_uri` of a refusal, and its status."""
    found = _denied(
        status, error="invalid_target", error_description="no such ledger", error_uri="https://as.example/e"
    )
    assert (found.error, found.description, found.uri) == ("invalid_target", "no such ledger", "https://as.example/e")
    assert found.status == status
    assert str(found) == f"the token endpoint refused: `invalid_target` (HTTP {status})"


def test_a_denial_needs_only_its_error() -> None:
    """RFC 6749 §5.2: the description and the URI are optional; of the wrong type they count as left out."""
    for more in ({}, {"error_description": 7, "error_uri": ["a"]}, {"error_uri": "javascript alert"}):
        found = _denied(error="invalid_scope", **more)
        assert (found.description, found.uri) == (None, None)


@pytest.mark.parametrize("error", [None, "", 7, "\n\t", {}])
def test_an_error_without_a_name_is_none(error: object) -> None:
    """RFC 6749 §5.2: without a usable `error` there is no denial to speak of, only a broken answer."""
    found = _error(json.dumps({"error": error, "error_description": CANARY}).encode())
    assert isinstance(found, ExchangeProtocolError)


def test_a_token_with_an_error_status_is_none() -> None:
    """A token that comes with HTTP 400 isn't taken, though it is complete."""
    assert isinstance(_error(json.dumps(granted(access_token=CANARY)).encode(), 400), ExchangeProtocolError)


def test_control_characters_are_cleaned() -> None:
    """Case 88: a server's words lose what could forge lines of a log or turn the text around."""
    found = _denied(error="invalid\r\n_request\x00", error_description="a\nINFO granted\x1b[31m\u202e\u2028b")
    assert found.error == "invalid _request"
    assert found.description == "a INFO granted [31m b"
    assert str(found).isprintable()
    assert isinstance(_error(b'{"error": "half of a surrogate pair: \\ud800"}'), ExchangeProtocolError)


def test_half_a_character_is_no_answer() -> None:
    """Case 88: half of a surrogate pair, which no text can hold, makes the whole answer one that isn't relied on."""
    assert isinstance(_error(b'{"error":"invalid_request","error_description":"\\ud800"}', 400), ExchangeProtocolError)


def test_words_are_short() -> None:
    """Case 88: a server's words are at most 200 characters, however many it sends."""
    found = _denied(error="word " * 10_000, error_description="more words " * 10_000)
    assert len(found.error) <= MAX_WORDS
    assert len(found.description or "") <= MAX_WORDS
    assert "more words" in (found.description or "")


def test_an_echoed_token_is_cut_out() -> None:
    """Case 88, 89: a server that repeats a token or a secret in its error doesn't bring it into what we say."""
    secret = "s3cret!"
    body = json.dumps({
        "error": f"bad {CANARY}",
        "error_description": f"token {CANARY[:36]} of {secret}: {CANARY}",
        "error_uri": f"https://as.example/{CANARY}",
    })  # fmt: skip
    found = _error(body.encode(), secrets=(secret,))
    assert isinstance(found, ExchangeDenied)
    assert found.uri is None
    shown = f"{found.error}{found.description}"
    assert "canary" not in shown
    assert secret not in shown
    assert found.description == "token … of …: …"


def test_a_known_error_stays_as_it_is() -> None:
    """A registered error code is told even where a token happens to be a part of it."""
    with pytest.raises(ExchangeDenied) as denied:
        parse_response(400, JSON, b'{"error":"invalid_request"}', TokenExchangeRequest("a"), secrets=["request"])
    assert denied.value.error == "invalid_request"


# ---- case 89: nothing shows


def test_a_token_does_not_show() -> None:
    """Case 89: neither repr nor text of a result holds the token, and it can't be pickled or copied."""
    token = _read(access_token=CANARY)
    assert token.access_token == CANARY
    assert "canary" not in f"{token!r}{token}"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InvalidArgument, match="can't be pickled or copied"):
            leak(token)
