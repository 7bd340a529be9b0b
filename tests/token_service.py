"""Run a token service on loopback for the tests of its HTTP side and of the peers that drive it."""

from __future__ import annotations

import base64
import datetime as dt
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, final

import httpx
from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from agentauthz import Authorizer, PolicySet
from agentauthz.keys.jwk import KeySet
from agentauthz.keys.signing import KeyRing, SigningKey
from agentauthz.records.sinks import MemorySink
from agentauthz.sts.asgi import TokenApp
from agentauthz.sts.assertions import AssertionRules
from agentauthz.sts.ceilings import StsLimits, Target
from agentauthz.sts.clients import Client, Clients
from agentauthz.sts.endpoint import TokenEndpoint
from agentauthz.sts.service import SecurityTokenService
from agentauthz.tokens import jws
from agentauthz.tokens.dpop import DpopVerifier, Nonces
from agentauthz.tokens.issuers import TrustedIssuer
from agentauthz.tokens.once import MemoryOnce
from agentauthz.tokens.revocation import RevokedTokens
from agentauthz.tokens.sources import RingKeys
from agentauthz.tokens.types import ACCESS_TOKEN, ID_JAG, JWT_BEARER, TOKEN_EXCHANGE
from agentauthz.tokens.validator import Validator
from tests.serving import serving

SECRETS: Final = {
    "planner": "canary-secret-of-planner-0123456789",
    "worker": "canary-secret-of-worker-0123456789",
    "plain": "canary-secret-of-plain-0123456789",
    "payments": "canary-secret-of-payments-0123456789",
}
PLANNER_KEY: Final = SigningKey.generate("ES256", key_id="planner-key")
SERVICE_KEY: Final = SigningKey.generate("ES256", key_id="service-key")
POLICY: Final = """
permit exchanging on token.exchange when subject is user and actor is agent
"""
PAYMENTS: Final = "https://payments.example"
SCOPES: Final = ("docs.read", "docs.write", "pay.small")


def basic(client: str, secret: str) -> dict[str, str]:
    """Return the header with a client's Basic credentials."""
    return {"Authorization": f"Basic {base64.b64encode(f'{client}:{secret}'.encode()).decode()}"}


def certificate() -> x509.Certificate:
    """Return a certificate that signs itself."""
    now = dt.datetime.now(dt.UTC)
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    return made.sign(key, hashes.SHA256())


def form(**named: Any) -> dict[str, Any]:
    """Return the parameters of an exchange, changed as said; None leaves one out."""
    given = {"grant_type": TOKEN_EXCHANGE, "subject_token_type": ACCESS_TOKEN, "audience": "worker", **named}
    return {name: value for name, value in given.items() if value is not None}


@final
@frozen(eq=False)
class Running:
    """Be a token service that runs at `url`, which is its issuer too."""

    url: str
    service: SecurityTokenService
    endpoint: TokenEndpoint
    sink: MemorySink
    http: httpx.Client = field()

    def token(self, *, typ: str = "at+jwt", key: SigningKey = SERVICE_KEY, **changed: Any) -> str:
        """Return an access token of the service: of `ana`, issued to the planner; None leaves a claim out."""
        now = int(dt.datetime.now(dt.UTC).timestamp())
        claims = {
            "iss": self.url,
            "sub": "ana",
            "aud": "planner",
            "client_id": "planner",
            "scope": " ".join(SCOPES),
            "iat": now,
            "exp": now + 300,
            "jti": uuid.uuid4().hex,
            **changed,
        }
        given = {name: value for name, value in claims.items() if value is not None}
        return jws.make(given, key, typ=typ)

    def post(self, path: str = "/token", client: str | None = "planner", **parameters: Any) -> httpx.Response:
        """Send a form as a client, by Basic; None: without authentication."""
        headers = {} if client is None else basic(client, SECRETS[client])
        return self.http.post(path, data=parameters, headers=headers)

    def exchange(self, client: str | None = "planner", **changed: Any) -> httpx.Response:
        """Ask to exchange a token, as a client."""
        given = form(**{"subject_token": self.token(), **changed})
        return self.post("/token", client, **given)


def clients(url: str, once: Any) -> Clients:
    """Return the clients: two agents, one without grants, one public, and a resource server."""
    ceilings: dict[str, Any] = {
        "scopes": SCOPES,
        "audiences": ["worker", "payments"],
        "resources": [PAYMENTS],
        "detail_types": ["payment"],
    }
    return Clients(
        [
            Client(
                "planner",
                secret=SECRETS["planner"],
                keys=KeySet([PLANNER_KEY.public_key()]),
                serves=["planner"],
                grant_types=[TOKEN_EXCHANGE, JWT_BEARER],
                **ceilings,
            ),
            Client("worker", secret=SECRETS["worker"], serves=["worker"], **ceilings),
            Client("plain", secret=SECRETS["plain"], grant_types=[]),
            Client("browser", public=True, **ceilings),
            Client(
                "payments",
                kind="service",
                secret=SECRETS["payments"],
                grant_types=[],
                serves=["payments", PAYMENTS],
            ),
        ],
        AssertionRules([url, f"{url}/token"], once),
    )


def make(
    url: str, *, nonces: bool = False, redeeming: Validator | None = None, **changed: Any
) -> tuple[SecurityTokenService, MemorySink]:
    """Return a token service whose issuer is `url`, and where its decisions go."""
    once, sink, revoked = MemoryOnce(), MemorySink(), RevokedTokens()
    ring = KeyRing(SERVICE_KEY)
    own = Validator([TrustedIssuer(url, RingKeys(ring), [url])], revocation=revoked)
    service = SecurityTokenService(
        url,
        ring,
        {ACCESS_TOKEN: own, **({} if redeeming is None else {ID_JAG: redeeming})},
        clients(url, once),
        Authorizer(PolicySet.parse(POLICY), sinks=[sink]),
        **{
            "targets": [
                Target("worker", scopes=SCOPES, detail_types=["payment"]),
                Target("payments", scopes=["pay.small"], reached_from=["planner", "worker"]),
                Target(PAYMENTS, by="resource", scopes=["pay.small"], reached_from=["planner", "worker"]),
            ],
            "limits": StsLimits(),
            "revoked": revoked,
            "replay": once,
            "dpop": DpopVerifier(once, nonces=Nonces() if nonces else None),
            **changed,
        },
    )
    return service, sink


@contextmanager
def running(**changed: Any) -> Iterator[Running]:
    """Run a token service on loopback until the end of the block."""
    made: list[Any] = []

    def application(url: str) -> TokenApp:
        service, sink = make(url, **changed)
        endpoint = TokenEndpoint(service)
        made.extend([service, endpoint, sink])
        return TokenApp(endpoint)

    with serving(application) as url, httpx.Client(base_url=url, timeout=10, trust_env=False) as http:
        service, endpoint, sink = made
        yield Running(url, service, endpoint, sink, http)
