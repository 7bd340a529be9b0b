"""Test the client of a token endpoint: what it sends, its one retry, and what it holds a verified result to."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import traceback
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import quote, quote_plus

import pytest

from agentauthz.errors import AgentAuthzError, ExchangeDenied, ExchangeProtocolError, InvalidArgument, TransportError
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens import jws
from agentauthz.tokens.answer import ExchangedToken
from agentauthz.tokens.client import TokenExchangeClient
from agentauthz.tokens.client_auth import ClientSecretBasic, ClientSecretPost, PrivateKeyJwt
from agentauthz.tokens.dpop import DpopKey
from agentauthz.tokens.exchange import AnyRequest, JwtBearerRequest, TokenExchangeRequest
from agentauthz.tokens.transport import HttpResponse
from agentauthz.tokens.types import ACCESS_TOKEN, ID_JAG, REFRESH_TOKEN
from tests.exchanging import ENDPOINT, ISSUER, JSON, Endpoint, Issuer, answer, granted, validator

CANARY = "canary-0123456789abcdefghijklmnopqrstuvwxyz"
AUTH = ClientSecretBasic("bot", CANARY)
ASKED = TokenExchangeRequest(CANARY, scope=["docs.read"])
GOOD = answer(**granted())
WANTS_NONCE = answer(400, [("DPoP-Nonce", "nonce-1")], error="use_dpop_nonce")
KEY = DpopKey(SigningKey.generate())
BOUND = answer(**granted(token_type="DPoP"))


def _client(*answers: HttpResponse | Exception, **options: Any) -> tuple[TokenExchangeClient, Endpoint]:
    endpoint = Endpoint(*answers)
    options = {"transport": endpoint, "async_transport": endpoint.aio, **options}
    return TokenExchangeClient(ENDPOINT, options.pop("auth", AUTH), **options), endpoint


def _nonces(endpoint: Endpoint) -> list[object]:
    proofs = [endpoint.header("DPoP", index) for index in range(len(endpoint.requests))]
    header = ("alg", "typ", "jwk")
    return [jws.parse(proof, header=header).claims().get("nonce") for proof in proofs]


def _same(first: ExchangedToken, second: ExchangedToken) -> bool:
    names = ("access_token", "issued_token_type", "token_type", "scope")
    return all(getattr(first, name) == getattr(second, name) for name in names)


async def _both(make: Callable[[], tuple[TokenExchangeClient, Endpoint]], request: AnyRequest) -> ExchangedToken:
    """Return what both ways of asking give, which is the same."""
    client, _ = make()
    waiting, _ = make()
    found = client.exchange(request)
    assert _same(found, await waiting.aexchange(request))
    return found


def _refused(reason: str, client: TokenExchangeClient, request: AnyRequest = ASKED) -> None:
    with pytest.raises(ExchangeProtocolError) as refused:
        client.exchange(request)
    assert refused.value.reason == reason


# ---- what is sent


def test_a_request_is_a_form() -> None:
    """RFC 8693 §2.1: a POST to the token endpoint, form-encoded, with the client's credentials and no query."""
    client, endpoint = _client(GOOD)
    assert client.exchange(ASKED).access_token == "opaque-token"
    sent = endpoint.requests[0]
    assert (sent.method, sent.url) == ("POST", ENDPOINT)
    assert endpoint.header("content-type") == "application/x-www-form-urlencoded"
    assert endpoint.header("accept") == "application/json"
    assert (endpoint.header("authorization") or "").startswith("Basic ")
    assert endpoint.header("dpop") is None
    assert endpoint.fields() == ASKED.build()


def test_credentials_may_be_fields() -> None:
    """RFC 6749 §2.3.1: with a way that sends fields they follow the request's own, and there is no header."""
    client, endpoint = _client(GOOD, auth=ClientSecretPost("bot", CANARY))
    client.exchange(ASKED)
    assert endpoint.fields() == [*ASKED.build(), ("client_id", "bot"), ("client_secret", CANARY)]
    assert endpoint.header("authorization") is None


async def test_an_exchange_may_be_awaited() -> None:
    """`aexchange` gives what `exchange` gives."""
    assert (await _both(lambda: _client(GOOD), ASKED)).scope == ("docs.read",)


async def test_an_assertion_is_redeemed() -> None:
    """RFC 7523 §2.1: the same client redeems an ID-JAG at the server that it is for."""
    good = answer(**granted(issued_token_type=None))
    request = JwtBearerRequest(CANARY, scope=["docs.read"])
    assert (await _both(lambda: _client(good), request)).issued_token_type == ACCESS_TOKEN
    client, endpoint = _client(good)
    client.exchange(request)
    assert endpoint.fields()[0] == ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")


@pytest.mark.parametrize("url", ["http://as.example/token", "http://127.0.0.1/token", "as.example", "file:///etc",
                                 "https://as.example/token#a", "https://u:p@as.example/token", "", None])  # fmt: skip
def test_the_endpoint_is_https(url: Any) -> None:
    """R16, RFC 6749 §3.2: https and nothing else, no fragment, and no credentials in the URL."""
    with pytest.raises(InvalidArgument, match=r"^`endpoint`"):
        TokenExchangeClient(url, AUTH, transport=Endpoint())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1:8080", "localhost:1", "[::1]"])
def test_loopback_is_opted_into(host: str) -> None:
    """Plain http is for this machine alone, where the caller says so."""
    client = TokenExchangeClient(f"http://{host}/token", AUTH, transport=Endpoint(GOOD), loopback_http=True)
    assert client.exchange(ASKED).scope == ("docs.read",)
    for other in ("as.example", "127.0.0.1.example", "10.0.0.1", "localhost.example"):
        with pytest.raises(InvalidArgument, match=r"^`endpoint`"):
            TokenExchangeClient(f"http://{other}/token", AUTH, transport=Endpoint(), loopback_http=True)


def test_a_client_authenticates() -> None:
    """R3, RFC 8693 §2.1: there is no client without a way to authenticate."""
    for auth in (None, "bot", ("bot", "secret")):
        with pytest.raises(InvalidArgument, match=r"^`auth` must be a way"):
            TokenExchangeClient(ENDPOINT, auth, transport=Endpoint())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [("transport", "httpx"), ("transport", Endpoint().aio), ("async_transport", object()),
     ("dpop", SigningKey.generate()), ("dpop", "key"), ("verify_with", True), ("verify_with", object())],
)  # fmt: skip
def test_wrong_options_are_named(argument: str, wrong: Any) -> None:
    """What can't do its part is refused when the client is made, by its name, and not after a token was issued."""
    with pytest.raises(InvalidArgument, match=f"^`{argument}` must be"):
        TokenExchangeClient(ENDPOINT, AUTH, **{"transport": Endpoint(), argument: wrong})


async def test_only_a_request_is_sent() -> None:
    """A token's text, or fields, are no request: nothing is sent, and the text isn't told."""
    for wrong in (CANARY, {"subject_token": CANARY}, None):
        client, endpoint = _client(GOOD)
        with pytest.raises(InvalidArgument, match=r"^`request` must be") as caught:
            client.exchange(wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match=r"^`request` must be"):
            await client.aexchange(wrong)  # type: ignore[arg-type]
        assert "canary" not in "".join(traceback.format_exception(caught.value))
        assert endpoint.requests == []


def test_an_echoed_form_is_not_told() -> None:
    """Case 89: a server that quotes what it got, form-encoded, doesn't make the client tell its secret."""
    secret = "p@ss w/rd+1"
    for auth in (ClientSecretBasic("bot", secret), ClientSecretPost("bot", secret)):
        for echo in (f"got client_secret={quote_plus(secret)} there", f"got {secret} there", quote(secret, safe="")):
            client, _ = _client(answer(400, error="invalid_client", error_description=echo), auth=auth)
            with pytest.raises(ExchangeDenied) as denied:
                client.exchange(ASKED)
            assert denied.value.description is not None
            assert "rd" not in denied.value.description


async def test_a_transport_is_not_replaced() -> None:
    """Where one transport was given, the other way of asking is refused: it would go out by another road."""
    endpoint = Endpoint(GOOD)
    with pytest.raises(InvalidArgument, match=r"^`async_transport`"):
        await TokenExchangeClient(ENDPOINT, AUTH, transport=endpoint).aexchange(ASKED)
    with pytest.raises(InvalidArgument, match=r"^`transport`"):
        TokenExchangeClient(ENDPOINT, AUTH, async_transport=endpoint.aio).exchange(ASKED)
    assert endpoint.requests == []


@pytest.mark.parametrize("failure", [OSError(CANARY), TransportError("deadline", "too late"), ValueError(CANARY)])
async def test_an_endpoint_that_fails(failure: Exception) -> None:
    """Whatever the transport raises is one error that tells the kind of failure and nothing that was sent."""
    for client in (_client(failure)[0], _client(failure)[0]):
        with pytest.raises(ExchangeProtocolError) as refused:
            client.exchange(ASKED)
        with pytest.raises(ExchangeProtocolError) as awaited:
            await _client(failure)[0].aexchange(ASKED)
        for found in (refused.value, awaited.value):
            assert found.reason == getattr(failure, "reason", "unreachable")
            assert found.__context__ is None
            assert "canary" not in "".join(traceback.format_exception(found))


def test_a_denial_is_raised() -> None:
    """RFC 6749 §5.2: a refusal is `ExchangeDenied`, and is not asked again."""
    client, endpoint = _client(answer(401, error="invalid_client"))
    with pytest.raises(ExchangeDenied) as denied:
        client.exchange(ASKED)
    assert (denied.value.error, denied.value.status, len(endpoint.requests)) == ("invalid_client", 401, 1)


# ---- DPoP


async def test_a_proof_goes_along() -> None:
    """RFC 9449 §5: each request has a proof of its own for this endpoint, and the token must be bound."""
    client, endpoint = _client(BOUND, BOUND, dpop=KEY)
    assert client.exchange(ASKED).token_type == "DPoP"
    await client.aexchange(ASKED)
    proofs = [jws.parse(endpoint.header("DPoP", i), header=("alg", "typ", "jwk")).claims() for i in (0, 1)]
    assert {(proof["htm"], proof["htu"]) for proof in proofs} == {("POST", ENDPOINT)}
    assert proofs[0]["jti"] != proofs[1]["jti"]
    _refused("not_bound", _client(GOOD, dpop=KEY)[0])
    _refused("token_type", _client(BOUND)[0])


async def test_a_nonce_is_asked_for_once() -> None:
    """RFC 9449 §8: for `use_dpop_nonce` the request is sent again, once, with the nonce; then it is remembered."""
    await _both(lambda: _client(WANTS_NONCE, BOUND, dpop=KEY), ASKED)
    client, endpoint = _client(WANTS_NONCE, BOUND, BOUND, dpop=KEY)
    client.exchange(ASKED)
    assert _nonces(endpoint) == [None, "nonce-1"]
    assert endpoint.fields(0) == endpoint.fields(1)
    client.exchange(ASKED)
    assert _nonces(endpoint) == [None, "nonce-1", "nonce-1"]


async def test_a_nonce_is_not_asked_for_twice() -> None:
    """RFC 9449 §8: a server that wants a nonce again after it got one is not asked a third time."""
    for nonce in ("nonce-1", "nonce-2"):
        again = answer(400, [("DPoP-Nonce", nonce)], error="use_dpop_nonce")
        client, endpoint = _client(WANTS_NONCE, again, BOUND, dpop=KEY)
        with pytest.raises(ExchangeDenied) as denied:
            client.exchange(ASKED)
        assert (denied.value.error, len(endpoint.requests)) == ("use_dpop_nonce", 2)
        client, endpoint = _client(WANTS_NONCE, again, BOUND, dpop=KEY)
        with pytest.raises(ExchangeDenied):
            await client.aexchange(ASKED)
        assert len(endpoint.requests) == 2


def test_each_answer_may_bring_a_nonce() -> None:
    """RFC 9449 §8.2: a nonce that comes with a token, or a refusal of another kind, is the next one to use."""
    fresh = answer(200, [("dpop-nonce", "nonce-2")], **granted(token_type="DPoP"))
    other = answer(400, [("DPoP-Nonce", "nonce-3")], error="invalid_target")
    client, endpoint = _client(fresh, other, BOUND, dpop=KEY)
    client.exchange(ASKED)
    with pytest.raises(ExchangeDenied, match="invalid_target"):
        client.exchange(ASKED)
    client.exchange(ASKED)
    assert _nonces(endpoint) == [None, "nonce-2", "nonce-3"]


def test_a_retry_brings_a_nonce_that_is_remembered() -> None:
    """RFC 9449 §8.2: the nonce of the answer to the second request replaces the one of the first."""
    fresh = answer(200, [("DPoP-Nonce", "nonce-2")], **granted(token_type="DPoP"))
    client, endpoint = _client(WANTS_NONCE, fresh, BOUND, dpop=KEY)
    client.exchange(ASKED)
    client.exchange(ASKED)
    assert _nonces(endpoint) == [None, "nonce-1", "nonce-2"]


@pytest.mark.parametrize(
    "headers",
    [[], [("DPoP-Nonce", "")], [("DPoP-Nonce", "a b")], [("DPoP-Nonce", 'a"')], [("DPoP-Nonce", "a" * 513)],
     [("DPoP-Nonce", "a\r\n")], [("DPoP-Nonce", "a"), ("dpop-nonce", "b")]],
)  # fmt: skip
def test_without_a_nonce_there_is_no_retry(headers: list[tuple[str, str]]) -> None:
    """RFC 9449 §8: a refusal that brings no nonce, a malformed one or two is final."""
    client, endpoint = _client(answer(400, headers, error="use_dpop_nonce"), BOUND, dpop=KEY)
    with pytest.raises(ExchangeDenied, match="use_dpop_nonce"):
        client.exchange(ASKED)
    assert len(endpoint.requests) == 1


def test_without_a_key_there_is_no_retry() -> None:
    """A client that has no key can't prove one: it doesn't ask again."""
    client, endpoint = _client(WANTS_NONCE, GOOD)
    with pytest.raises(ExchangeDenied, match="use_dpop_nonce"):
        client.exchange(ASKED)
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("error", ["invalid_request", "invalid_dpop_proof", "server_error", "temporarily_unavailable"])
def test_other_errors_are_not_retried(error: str) -> None:
    """Only `use_dpop_nonce` is asked again, whatever else an answer brings."""
    client, endpoint = _client(answer(400, [("DPoP-Nonce", "nonce-1")], error=error), BOUND, dpop=KEY)
    with pytest.raises(ExchangeDenied, match=error):
        client.exchange(ASKED)
    assert len(endpoint.requests) == 1


def test_a_retry_has_a_new_assertion() -> None:
    """RFC 7523 §3: the second request doesn't repeat the first one's assertion, which the server may have used up."""
    auth = PrivateKeyJwt("bot", SigningKey.generate(), ISSUER)
    client, endpoint = _client(WANTS_NONCE, BOUND, dpop=KEY, auth=auth)
    client.exchange(ASKED)
    first, second = (dict(endpoint.fields(index))["client_assertion"] for index in (0, 1))
    assert first != second


# ---- the result, verified


US = Issuer()
VERIFY = validator(US)
TARGET = TokenExchangeRequest("a", audience=["https://pay.example"], scope=["docs.read"])


def _issued(token: str, **changes: object) -> HttpResponse:
    return answer(**granted(access_token=token, **changes))


def _issuing(*, dpop: DpopKey | None = None, changes: Mapping[str, Any] | None = None, **claims: Any) -> Any:
    return _client(_issued(US.token(**claims), **(changes or {})), verify_with=VERIFY, dpop=dpop)[0]


async def test_a_genuine_token_is_told() -> None:
    """With a validator the result says what it says, for an audience that is not this service."""
    token = US.token(act={"sub": "bot", "iss": ISSUER})
    found = await _both(lambda: _client(_issued(token), verify_with=VERIFY), TARGET)
    assert found.verified is not None
    assert found.verified.subject.id == "maria"
    assert found.verified.actor.id == "bot"
    assert found.verified.audience == ("https://pay.example",)
    assert found.access_token == token


async def test_a_token_that_is_not_genuine() -> None:
    """A token by another key, of another issuer, expired or opaque is refused; the reason is the validator's."""
    stranger, other = Issuer(), Issuer("https://other.example")
    for reason, token in (
        ("unknown_key", stranger.token()),
        ("issuer", other.token()),
        ("expired", US.token(iat=1_000_000_000, exp=1_000_000_100)),
        ("malformed", "opaque-token"),
    ):
        client, _ = _client(_issued(token), _issued(token), verify_with=VERIFY)
        _refused(reason, client, TARGET)
        with pytest.raises(ExchangeProtocolError, match=reason):
            await client.aexchange(TARGET)


def test_a_type_that_can_not_be_verified() -> None:
    """A token whose type no validator knows is refused where it was to be verified."""
    asked = TokenExchangeRequest("a", requested_token_type=REFRESH_TOKEN)
    token = _issued("a", issued_token_type=REFRESH_TOKEN, token_type="N_A")
    _refused("unverifiable", _client(token, verify_with=VERIFY)[0], asked)


@pytest.mark.parametrize("aud", ["https://other.example", "https://pay.example/", ["https://pay.example.org"], "pay"])
def test_the_audience_covers_what_was_asked(aud: object) -> None:
    """R6, RFC 8707 §2: each audience and resource that was asked for is in the token, by exact comparison."""
    _refused("audience", _issuing(aud=aud), TARGET)
    both = TokenExchangeRequest("a", audience=["https://pay.example"], resource=["https://b.example"])
    _refused("audience", _issuing(), both)
    found = _issuing(aud=["https://b.example", "https://pay.example", "c"]).exchange(both)
    assert found.verified.audience[2] == "c"


def test_only_an_id_jag_names_its_resource_apart() -> None:
    """RFC 8707 §2: an access token is for its audience alone; a `resource` claim in it says nothing."""
    _refused("audience", _issuing(aud="https://other.example", resource="https://pay.example"), TARGET)


def test_the_token_s_own_scopes_count() -> None:
    """What a token holds is within what was asked and what the answer says; the answer alone is no proof."""
    _refused("wider_scope", _issuing(scope="docs.read admin"), TARGET)
    two = TokenExchangeRequest("a", scope=["docs.read", "docs.write"])
    _refused("wider_scope", _issuing(scope="docs.read docs.write"), two)  # the answer says `docs.read` only
    assert _issuing(scope="docs.read docs.write", changes={"scope": None}).exchange(two).scope == two.scope
    nothing = TokenExchangeRequest("a")
    _refused("wider_scope", _issuing(scope="admin"), nothing)
    _refused("wider_scope", _issuing(scope="admin", changes={"scope": ""}), nothing)


def test_the_token_s_own_details_count() -> None:
    """RFC 9396 §9: details in the token are within those asked, whatever the answer says."""
    detail = {"type": "payment", "actions": ["pay", "refund"]}
    asked = TokenExchangeRequest("a", scope=["docs.read"], authorization_details=[detail])
    changes = {"authorization_details": [detail]}
    less = [{"type": "payment", "actions": ["pay"]}]
    assert _issuing(authorization_details=less, changes=changes).exchange(asked).verified.authorization_details
    more = [{"type": "payment", "actions": ["pay", "close"]}]
    _refused("wider_details", _issuing(authorization_details=more, changes=changes), asked)


def test_the_subject_stays() -> None:
    """R13: a token of the same issuer speaks of the same subject; another issuer may name it otherwise."""
    asked = TokenExchangeRequest(US.verified(aud="bot"), scope=["docs.read"])
    assert _issuing().exchange(asked).verified.subject.id == "maria"
    _refused("subject", _issuing(sub="nina"), asked)
    foreign = TokenExchangeRequest(Issuer("https://other.example").verified(aud="bot"), scope=["docs.read"])
    assert _issuing(sub="maria-of-other").exchange(foreign).verified.subject.id == "maria-of-other"


def test_no_actor_is_left_out() -> None:
    """RFC 8693 §4.1: whoever acted before still shows, by issuer and name; a new actor goes on the outside."""
    before = {"sub": "orchestrator", "iss": ISSUER}
    asked = TokenExchangeRequest(US.verified(aud="bot", act=before), scope=["docs.read"])
    assert _issuing(act={"sub": "bot", "iss": ISSUER, "act": before}).exchange(asked).verified.chain.depth == 2
    assert _issuing(act=before).exchange(asked).verified.chain.depth == 1  # the same actor goes on
    _refused("chain", _issuing(), asked)
    _refused("chain", _issuing(act={"sub": "bot", "iss": ISSUER}), asked)
    _refused("chain", _issuing(act={"sub": "orchestrator", "iss": "https://other.example"}), asked)
    _refused("chain", _issuing(act={**before, "act": {"sub": "bot", "iss": ISSUER}}), asked)


def test_the_actor_shows() -> None:
    """R11: with an actor token the result shows an actor, and, where it is known, that one; it never impersonates."""
    plain = TokenExchangeRequest("a", actor_token="b", actor_token_type=ACCESS_TOKEN, scope=["docs.read"])
    act = {"sub": "bot", "iss": ISSUER}
    assert _issuing(act=act).exchange(plain).verified.actor.id == "bot"
    _refused("chain", _issuing(), plain)
    known = TokenExchangeRequest("a", actor_token=US.verified(sub="bot"), scope=["docs.read"])
    assert _issuing(act=act).exchange(known).verified.actor.id == "bot"
    crook = {"sub": "crook", "iss": ISSUER}
    assert _issuing(act={**act, "act": crook}).exchange(known).verified.actor.id == "bot"
    _refused("actor", _issuing(act=crook), known)
    _refused("actor", _issuing(act={**crook, "act": act}), known)  # who acted before doesn't act now: RFC 8693 §4.1
    _refused("actor", _issuing(act={"sub": "bot", "iss": "https://other.example"}), known)


def test_the_key_is_ours() -> None:
    """RFC 9449 §6.1: a bound token is bound to the key that was proven; a bearer token isn't secretly bound."""
    ours, theirs = {"jkt": KEY.thumbprint}, {"jkt": DpopKey(SigningKey.generate()).thumbprint}
    changes: dict[str, object] = {"token_type": "DPoP"}
    assert _issuing(dpop=KEY, changes=changes, cnf=ours).exchange(TARGET).verified.confirmation.jkt == KEY.thumbprint
    _refused("binding", _issuing(dpop=KEY, changes=changes, cnf=theirs), TARGET)
    _refused("binding", _issuing(dpop=KEY, changes=changes), TARGET)
    _refused("binding", _issuing(cnf=theirs), TARGET)


def test_an_id_jag_is_held_to_its_resource() -> None:
    """An ID-JAG's audience is the server that redeems it; the resource that was asked for is a claim of its own."""
    other = "https://other.example"
    asked = TokenExchangeRequest("a", audience=[other], resource=["https://pay.example"], requested_token_type=ID_JAG)

    def issuing(**claims: Any) -> Any:
        token = US.token("id-jag", **{"aud": other, "resource": "https://pay.example", **claims})
        changes = {"issued_token_type": ID_JAG, "token_type": "N_A"}
        return _client(_issued(token, **changes), verify_with=VERIFY)[0]

    assert issuing().exchange(asked).verified.kind == "id-jag"
    assert issuing(resource=["https://pay.example"]).exchange(asked).verified.audience == (other,)
    for resource in (None, "https://x.example", [7], 7, {"a": "https://pay.example"}):
        _refused("audience", issuing(resource=resource), asked)


# ---- over real HTTP


class _Hostile(BaseHTTPRequestHandler):
    """Answer `/redirect`, `/large` and `/page` as their names say, and anything else well; `seen` are the paths."""

    seen: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.seen.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        content = json.dumps(granted()).encode()
        content = {"/large": content.ljust(2**20), "/page": b"<html>"}.get(self.path, content)
        self.send_response(307 if self.path == "/redirect" else 200)
        self.send_header("Location", "/token")
        self.send_header("Content-Type", "text/html" if self.path == "/page" else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client hangs up on what is too large
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(("path", "reason"), [("redirect", "redirect"), ("large", "too_large"), ("page", "not_json")])
async def test_a_hostile_endpoint(path: str, reason: str) -> None:
    """Case 88, with the transport that comes with the library: no redirect is followed and no large body is read."""
    _Hostile.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hostile) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            base = f"http://127.0.0.1:{server.server_address[1]}"
            client = TokenExchangeClient(f"{base}/{path}", AUTH, loopback_http=True)
            _refused(reason, client)
            with pytest.raises(ExchangeProtocolError, match=reason):
                await client.aexchange(ASKED)
            assert _Hostile.seen == [f"/{path}"] * 2
            good = TokenExchangeClient(f"{base}/token", AUTH, loopback_http=True)
            assert good.exchange(ASKED).access_token == (await good.aexchange(ASKED)).access_token == "opaque-token"
        finally:
            server.shutdown()
            thread.join(10)


# ---- nothing shows


def test_a_short_secret_is_cut_out() -> None:
    """Case 89: a client's secret that the server repeats in its words isn't told, however short it is."""
    auth = ClientSecretPost("bot", "hunter2")
    client, _ = _client(answer(401, error="invalid_client", error_description="not hunter2, bot"), auth=auth)
    with pytest.raises(ExchangeDenied) as denied:
        client.exchange(ASKED)
    assert denied.value.description == "not …, bot"


def _everything(error: BaseException) -> str:
    """Return all that an error can tell: its text, repr, attributes and traceback, and those of what led to it."""
    found: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        found += [str(seen), repr(seen), repr(seen.args), repr(vars(seen))]
        seen = seen.__cause__ or seen.__context__
    return "".join([*found, *traceback.format_exception(error)])


@pytest.mark.parametrize(
    "response",
    [
        GOOD,
        OSError(CANARY),
        HttpResponse(200, (("Content-Type", "text/html"),), CANARY.encode()),
        HttpResponse(200, JSON, f'{{"access_token":"{CANARY}"'.encode()),
        HttpResponse(302, (("Location", f"https://x.example/{CANARY}"),), b""),
        answer(400, error=CANARY, error_description=f"token {CANARY}", error_uri=f"https://x.example/{CANARY}"),
        answer(**granted(access_token=CANARY, issued_token_type=None)),
        answer(**granted(access_token=CANARY, scope=CANARY)),
        answer(**granted(access_token=CANARY, token_type=CANARY)),
        answer(**granted(access_token=CANARY, expires_in=CANARY)),
        answer(**granted(access_token=CANARY, authorization_details=CANARY)),
        answer(**granted(access_token=CANARY, refresh_token=CANARY)),
        answer(**granted(access_token=CANARY)),
    ],
)
async def test_no_secret_shows(response: HttpResponse | Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Case 89: no token and no secret is in a repr, an error or whatever led to it, a traceback or a log line."""
    caplog.set_level(logging.DEBUG)
    client, endpoint = _client(response, response, dpop=KEY, verify_with=VERIFY)
    shown = [repr(client), str(client), repr(ASKED)]
    for way in ("exchange", "aexchange"):
        try:
            found = getattr(client, way)(ASKED)
            shown.append(repr(found if way == "exchange" else await found))
        except AgentAuthzError as error:
            shown.append(_everything(error))
    shown += [repr(endpoint.requests), caplog.text]
    assert len(endpoint.requests) == 2
    secrets = [CANARY, *AUTH.credentials().secrets, *(r.headers[-1][1] for r in endpoint.requests)]
    assert not [secret for secret in secrets if secret in "".join(shown)]
