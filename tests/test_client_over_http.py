"""Test our client against our own token service, over HTTP on loopback: from what is asked to who receives it."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from agentauthz import Authorizer, PolicySet
from agentauthz.errors import Denied, ExchangeDenied, TokenError, WideningError
from agentauthz.keys.signing import SigningKey
from agentauthz.records import MemorySink
from agentauthz.sts.asgi import TokenApp
from agentauthz.sts.ceilings import Target
from agentauthz.sts.clients import Client, Clients
from agentauthz.sts.endpoint import TokenEndpoint
from agentauthz.sts.service import SecurityTokenService
from agentauthz.tokens import jws
from agentauthz.tokens.client import TokenExchangeClient
from agentauthz.tokens.client_auth import ClientAuth, ClientSecretBasic, ClientSecretPost, PrivateKeyJwt
from agentauthz.tokens.discovery import discover
from agentauthz.tokens.dpop import DpopKey, DpopVerifier
from agentauthz.tokens.exchange import JwtBearerRequest, TokenExchangeRequest
from agentauthz.tokens.issuers import TrustedIssuer
from agentauthz.tokens.once import MemoryOnce
from agentauthz.tokens.sources import HttpKeys, StaticKeys
from agentauthz.tokens.transport import HttpRequest, HttpResponse, HttpxTransport
from agentauthz.tokens.types import ID_JAG, ID_TOKEN, TOKEN_EXCHANGE
from agentauthz.tokens.validator import Validator
from tests.exchanging import keys_of
from tests.serving import serving
from tests.token_service import PAYMENTS, PLANNER_KEY, SECRETS, Running, make, running

SERVICES = "permit work on docs.*, pay.* when actor is agent\npermit passing_on on token.exchange when subject is user"
IDP = "https://idp.example"
IDP_KEY = SigningKey.generate("ES256", key_id="idp-key")


class Counting:
    """Be the usual transport, and count what goes over it."""

    def __init__(self) -> None:
        self.sent: list[HttpRequest] = []
        self._transport = HttpxTransport(loopback_http=True)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        self.sent.append(request)
        return self._transport(request)


class Receiver:
    """Be a service that takes tokens for one audience, and decides what is done with them by its own policy."""

    def __init__(self, url: str, audience: str, **options: Any) -> None:
        self.sink = MemorySink()
        self.authorizer = Authorizer(PolicySet.parse(SERVICES), sinks=[self.sink])
        self.validator = Validator([TrustedIssuer(url, keys(url), [audience])], **options)

    def session(self, raw: str) -> Any:
        return self.authorizer.session(token=self.validator.verify(raw))


def keys(url: str) -> HttpKeys:
    """Return the keys that the service publishes, found by its metadata."""
    found = discover(url, HttpxTransport(loopback_http=True), loopback_http=True)
    assert found.jwks_uri is not None
    return HttpKeys(found.jwks_uri, loopback_http=True)


def client(url: str, name: str = "planner", auth: ClientAuth | None = None, **options: Any) -> TokenExchangeClient:
    """Return a client of the service, at the endpoint that its metadata names, which verifies what it gets."""
    found = discover(url, HttpxTransport(loopback_http=True), loopback_http=True)
    verifying = Validator([TrustedIssuer(url, keys(url), token_kinds=["access", "id-jag"])])
    auth = auth or ClientSecretBasic(name, SECRETS[name])
    return TokenExchangeClient(
        found.token_endpoint, auth, **{"verify_with": verifying, "loopback_http": True, **options}
    )


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with running() as found:
        yield found


@pytest.mark.parametrize("way", ["basic", "post", "key"])
async def test_a_token_is_exchanged_for_a_narrower_one(service: Running, way: str) -> None:
    """Each way to authenticate gives, sync and async, a token of the subject, for the audience, and of that scope."""
    ways: dict[str, ClientAuth] = {
        "basic": ClientSecretBasic("planner", SECRETS["planner"]),
        "post": ClientSecretPost("planner", SECRETS["planner"]),
        "key": PrivateKeyJwt("planner", PLANNER_KEY, service.url),
    }
    asking = client(service.url, auth=ways[way])
    asked = TokenExchangeRequest(service.token(), audience=["worker"], scope=["docs.read"])
    for issued in (asking.exchange(asked), await asking.aexchange(asked)):
        assert (issued.token_type, issued.scope) == ("Bearer", ("docs.read",))
        verified = issued.verified
        assert verified is not None
        assert (verified.subject.id, verified.audience, verified.scopes) == ("ana", ("worker",), ("docs.read",))
        assert [hop.to.id for hop in verified.chain.delegations] == ["planner"]


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"scope": ["docs.admin"]}, "invalid_scope"),
        ({"scope": ["docs.read"], "audience": ["payments"]}, "invalid_scope"),
        ({"audience": ["elsewhere"]}, "invalid_target"),
        ({"resource": ["https://elsewhere.example"]}, "invalid_target"),
        ({"authorization_details": [{"type": "payment", "amount": 5}]}, "invalid_authorization_details"),
        ({"subject_token": "stolen.token.text"}, "invalid_request"),
    ],
)
def test_a_refusal_arrives_without_its_reason(service: Running, changed: dict[str, Any], error: str) -> None:
    """What is wider is refused by the service with the RFCs' error, and no word of which check failed."""
    given: dict[str, Any] = {"subject_token": service.token(), "audience": ["worker"], **changed}
    with pytest.raises(ExchangeDenied) as denied:
        client(service.url).exchange(TokenExchangeRequest(**given))
    assert (denied.value.error, denied.value.status) == (error, 400)
    assert given["subject_token"] not in str(denied.value)


def test_a_wrong_secret_is_refused(service: Running) -> None:
    """A client that can't prove who it is gets `invalid_client`, and its secret isn't told."""
    asking = client(service.url, auth=ClientSecretBasic("planner", "another-secret-0123456789"))
    with pytest.raises(ExchangeDenied) as denied:
        asking.exchange(TokenExchangeRequest(service.token(), audience=["worker"]))
    assert (denied.value.error, denied.value.status) == ("invalid_client", 401)
    assert "another-secret" not in str(denied.value)


def test_a_proof_is_made_anew_with_the_nonce() -> None:
    """RFC 9449 §8: the service asks for a nonce once; the token is then bound to the key, and useless without it."""
    with running(nonces=True) as service:
        key, road = DpopKey(SigningKey.generate("ES256")), Counting()
        asking = client(service.url, dpop=key, transport=road)
        asked = TokenExchangeRequest(service.token(), audience=["worker"], scope=["docs.read"])
        issued = asking.exchange(asked)
        assert len(road.sent) == 2
        assert issued.verified is not None
        assert issued.verified.confirmation is not None
        assert (issued.token_type, issued.verified.confirmation.jkt) == ("DPoP", key.thumbprint)
        again = TokenExchangeRequest(service.token(), audience=["worker"], scope=["docs.read"])
        assert asking.exchange(again).token_type == "DPoP"
        assert len(road.sent) == 3
        _presented(Receiver(service.url, "worker", dpop=DpopVerifier(MemoryOnce())), issued, key)


def _presented(worker: Receiver, issued: Any, key: DpopKey) -> None:
    """Check that a bound token counts with a proof of its key, and neither as a bearer token nor with another's."""
    call: Any = {"method": "GET", "uri": "https://worker.example/docs"}

    def proof(by: DpopKey) -> tuple[str, str]:
        return ("DPoP", by.proof("GET", "https://worker.example/docs", access_token=issued.access_token))

    headers = [("Authorization", issued.authorization()), proof(key)]
    assert worker.validator.authenticate(headers, **call).subject.id == "ana"
    stolen = [("Authorization", issued.authorization()), proof(DpopKey(SigningKey.generate("ES256")))]
    for bad in (stolen, [("Authorization", f"Bearer {issued.access_token}")]):
        with pytest.raises(TokenError):
            worker.validator.authenticate(bad, **call)


async def test_the_chain_goes_on_from_service_to_service(service: Running) -> None:
    """`session.exchange` hands on a narrower token; who receives it continues the chain, and records show it whole."""
    planner, worker = Receiver(service.url, "planner"), Receiver(service.url, "worker")
    payments = Receiver(service.url, "payments")
    with planner.session(service.token()) as session:
        first = session.exchange(client(service.url), audience=["worker"], scope=["docs.read", "pay.small"])
    async with worker.session(first.access_token) as session:
        session.authorize("docs.read")
        with pytest.raises(Denied):
            session.authorize("docs.write")  # left behind at the first hop
        with pytest.raises(WideningError):
            session.exchange(client(service.url, "worker"), audience=["payments"], scope=["docs.write"])
        asking = client(service.url, "worker")
        second = await session.aexchange(asking, audience=["payments"], scope=["pay.small"])
    with payments.session(second.access_token) as session:
        session.authorize("pay.small")
        for gone in ("docs.read", "docs.write"):
            with pytest.raises(Denied):
                session.authorize(gone)
        assert session.expires <= first.verified.expires_at
    assert [actor.sub for actor in payments.sink.decisions[0].actors] == ["ana", "planner", "worker"]
    assert [record.action.name for record in worker.sink.decisions] == ["docs.read", "docs.write", "token.exchange"]
    for stolen in (worker, payments):
        with pytest.raises(TokenError, match="audience"):
            stolen.session(service.token())


def test_what_the_service_refuses_is_a_failed_exchange(service: Running) -> None:
    """Where the service refuses, the session's record of the exchange says that it was allowed, and failed."""
    planner = Receiver(service.url, "planner")
    with planner.session(service.token()) as session, pytest.raises(ExchangeDenied, match="invalid_target"):
        session.exchange(client(service.url), audience=["elsewhere"])
    (decision,), (effect,) = planner.sink.decisions, planner.sink.effects
    assert (decision.action.name, decision.outcome, effect.of) == ("token.exchange", "allow", decision.id)
    assert effect.status == "failed"
    assert effect.error_type is not None
    assert "ExchangeDenied" in effect.error_type
    line = decision.line() + effect.line()
    assert session.token.reveal().encode() not in line


# ---- an identity assertion, from one service to another


def _id_token() -> str:
    now = int(dt.datetime.now(dt.UTC).timestamp())
    claims = {"iss": IDP, "sub": "ana", "aud": "planner", "iat": now, "exp": now + 300, "jti": uuid.uuid4().hex}
    return jws.make(claims, IDP_KEY, typ="JWT")


def _identity_provider(partner: str) -> TokenEndpoint:
    """Return a token service of another issuer, which gives assertions for the service at `partner`."""
    own = Validator([TrustedIssuer(IDP, StaticKeys(keys_of(IDP_KEY)), token_kinds=["id"])])
    planner = Client(
        "planner", secret=SECRETS["planner"], grant_types=[TOKEN_EXCHANGE], audiences=[partner],
        scopes=["docs.read", "pay.small"], id_token_scopes=["docs.read", "pay.small"],
    )  # fmt: skip
    service = SecurityTokenService(
        IDP,
        IDP_KEY,
        {ID_TOKEN: own},
        Clients([planner]),
        Authorizer(PolicySet.parse("permit exchanging on token.exchange when actor is agent"), sinks=[MemorySink()]),
        targets=[Target(partner, scopes=["docs.read", "pay.small"], token_types=[ID_JAG],
                        client_ids={"planner": "planner"})],
    )  # fmt: skip
    return TokenEndpoint(service)


@pytest.fixture(scope="module")
def partner() -> Iterator[str]:
    """Run a service that redeems the other issuer's assertions."""

    def application(url: str) -> TokenApp:
        redeeming = Validator([TrustedIssuer(IDP, StaticKeys(keys_of(IDP_KEY)), [url], token_kinds=["id-jag"])])
        service, _ = make(url, redeeming=redeeming, subject_mapper=lambda token: f"idp-{token.subject.id}")
        return TokenApp(TokenEndpoint(service))

    with serving(application) as url:
        yield url


def test_an_id_jag_is_asked_for_and_redeemed(partner: str) -> None:
    """An ID token becomes an assertion at one service, and that an access token at the other, once and no wider."""
    verifying = Validator([TrustedIssuer(IDP, StaticKeys(keys_of(IDP_KEY)), token_kinds=["id", "id-jag"])])
    with serving(lambda _: TokenApp(_identity_provider(partner))) as url:
        asking = TokenExchangeClient(
            f"{url}/token", ClientSecretBasic("planner", SECRETS["planner"]), verify_with=verifying, loopback_http=True
        )
        identity = verifying.genuine(_id_token(), kind="id")
        assertion = asking.exchange(
            TokenExchangeRequest(identity, audience=[partner], scope=["pay.small"], requested_token_type=ID_JAG)
        )
    assert (assertion.token_type, assertion.issued_token_type) == ("N_A", ID_JAG)
    assert assertion.verified is not None
    assert assertion.verified.audience == (partner,)
    redeeming = client(partner)
    with pytest.raises(ExchangeDenied, match="invalid_scope"):
        redeeming.exchange(JwtBearerRequest(assertion.verified, resource=[PAYMENTS], scope=["docs.read"]))
    asked = JwtBearerRequest(assertion.verified, resource=[PAYMENTS], scope=["pay.small"])
    issued = redeeming.exchange(asked)
    assert issued.verified is not None
    assert (issued.token_type, issued.verified.issuer, issued.verified.audience) == ("Bearer", partner, (PAYMENTS,))
    assert (issued.verified.subject.id, issued.verified.scopes) == ("idp-ana", ("pay.small",))
    assert issued.verified.actor.id == "planner"
    with pytest.raises(ExchangeDenied, match="invalid_grant"):
        redeeming.exchange(asked)
