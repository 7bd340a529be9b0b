"""Test our client against oidc-provider, a certified server on Node: exchange, DPoP, ID-JAG, discovery."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from attrs import define

from agentauthz.errors import ExchangeDenied, ExchangeProtocolError
from agentauthz.keys.jwk import KeySet
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens.client import TokenExchangeClient
from agentauthz.tokens.client_auth import ClientAuth, ClientSecretBasic, ClientSecretPost, PrivateKeyJwt
from agentauthz.tokens.discovery import ServerMetadata, adiscover, discover
from agentauthz.tokens.dpop import DpopKey
from agentauthz.tokens.exchange import JwtBearerRequest, TokenExchangeRequest
from agentauthz.tokens.issuers import TrustedIssuer
from agentauthz.tokens.sources import HttpKeys
from agentauthz.tokens.transport import HttpRequest, HttpxTransport
from agentauthz.tokens.types import ACCESS_TOKEN, ID_JAG
from agentauthz.tokens.validator import Validator
from tests.exchanging import KINDS, Issuer, keys_of

SECRET: Final = "s3cr:t %+/=&\"'~" + "a" * 32  # what RFC 6749 §2.3.1 has to encode
CLIENT_KEY: Final = SigningKey.generate("ES256")
SERVER_KEY: Final = SigningKey.generate("ES256", key_id="server")
SCOPES: Final = ["docs.read", "docs.write", "pay"]
PAY: Final = "https://pay.example"


@define(eq=False)
class Peer:
    """Be the server: where it is, and who is trusted by it."""

    metadata: ServerMetadata
    upstream: Issuer

    @property
    def issuer(self) -> str:
        return self.metadata.issuer

    def client(self, auth: ClientAuth | None = None, **options: Any) -> TokenExchangeClient:
        auth = auth or ClientSecretBasic("basic:bot", SECRET)
        return TokenExchangeClient(self.metadata.token_endpoint, auth, loopback_http=True, **options)

    def validator(self) -> Validator:
        assert self.metadata.jwks_uri is not None
        keys = HttpKeys(self.metadata.jwks_uri, loopback_http=True)
        return Validator([TrustedIssuer(self.issuer, keys, token_kinds=KINDS)])

    def subject(self, client: str = "basic:bot", **claims: Any) -> str:
        return self.upstream.token(**{"aud": client, "scope": "docs.read docs.write", **claims})


@pytest.fixture(scope="module")
def peer(node_modules: Path) -> Iterator[Peer]:
    """Start the server on a free port, and end it with the tests."""
    upstream = Issuer("https://upstream.example")
    given = {
        "clients": [
            {"client_id": "basic:bot", "client_secret": SECRET, "token_endpoint_auth_method": "client_secret_basic"},
            {"client_id": "post-bot", "client_secret": SECRET, "token_endpoint_auth_method": "client_secret_post"},
            {
                "client_id": "key-bot",
                "token_endpoint_auth_method": "private_key_jwt",
                "jwks": {"keys": [CLIENT_KEY.public_jwk()]},
            },
        ],
        "trusted": {"keys": [upstream.key.public_jwk()]},
        "keys": {"keys": [_private_jwk(SERVER_KEY)]},
        "algorithm": "ES256",
        "scopes": SCOPES,
    }
    command = ["node", "exchange_server.js"]
    with subprocess.Popen(
        command, cwd=node_modules, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            server.stdin.write(json.dumps(given) + "\n")
            server.stdin.flush()
            issuer = json.loads(next(line for line in server.stdout if line.startswith("{")))["issuer"]
            metadata = discover(issuer, HttpxTransport(loopback_http=True), loopback_http=True)
            yield Peer(metadata, upstream)
        finally:
            server.stdin.close()  # it ends by itself
            try:
                server.wait(10)
            finally:
                server.kill()


def _private_jwk(key: SigningKey) -> dict[str, str]:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from agentauthz.keys.base64url import to_base64url

    private = load_pem_private_key(key.to_pem(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return {**key.public_jwk(), "d": to_base64url(private.private_numbers().private_value.to_bytes(32))}


async def test_the_server_is_discovered(peer: Peer) -> None:
    """The server has OpenID's metadata only, at its own place; both ways of asking find it."""
    found = await adiscover(peer.issuer, HttpxTransport(loopback_http=True).aio, loopback_http=True)
    assert found.token_endpoint == peer.metadata.token_endpoint == f"{peer.issuer}/token"
    assert found.jwks_uri == f"{peer.issuer}/jwks"
    other = peer.issuer.replace("127.0.0.1", "localhost")  # the same server, and not the name that it has
    with pytest.raises(ExchangeProtocolError, match="another issuer"):
        discover(other, HttpxTransport(loopback_http=True), loopback_http=True)


async def test_a_token_is_exchanged(peer: Peer) -> None:
    """An exchange with two audiences: the answer is within what was asked, and so is the token, with its actor."""
    request = TokenExchangeRequest(peer.subject(), audience=[PAY, "ledger"], scope=["docs.read"])
    client = peer.client(verify_with=peer.validator())
    for token in (client.exchange(request), await client.aexchange(request)):
        assert (token.issued_token_type, token.token_type, token.scope) == (ACCESS_TOKEN, "Bearer", ("docs.read",))
        assert token.verified is not None
        assert token.verified.subject.id == "maria"
        assert (token.verified.actor.id, token.verified.actor.issuer) == ("basic:bot", peer.issuer)
        assert token.verified.audience == (PAY, "ledger")
        assert token.verified.client_id == "basic:bot"


@pytest.mark.parametrize(
    ("name", "auth"),
    [
        ("basic:bot", lambda issuer: ClientSecretBasic("basic:bot", SECRET)),
        ("post-bot", lambda issuer: ClientSecretPost("post-bot", SECRET)),
        ("key-bot", lambda issuer: PrivateKeyJwt("key-bot", CLIENT_KEY, issuer)),
    ],
)
def test_each_way_to_authenticate(peer: Peer, name: str, auth: Any) -> None:
    """Basic (form-encoded), fields, and a signed assertion all authenticate the client; each again and again."""
    client = peer.client(auth(peer.issuer), verify_with=peer.validator())
    for _ in range(2):
        request = TokenExchangeRequest(peer.subject(name), resource=[PAY], scope=["docs.read"])
        token = client.exchange(request)
        assert token.scope == ("docs.read",)
        assert token.verified is not None
        assert token.verified.audience == (PAY,)


@pytest.mark.parametrize(
    "auth",
    [
        lambda issuer: ClientSecretBasic("basic:bot", "wrong"),
        lambda issuer: ClientSecretPost("nobody", SECRET),
        lambda issuer: PrivateKeyJwt("key-bot", SigningKey.generate("ES256"), issuer),
        lambda issuer: PrivateKeyJwt("key-bot", CLIENT_KEY, "https://other.example"),
    ],
)
def test_a_wrong_credential_is_denied(peer: Peer, auth: Any) -> None:
    """A wrong secret, an unknown client, another key and an assertion for another server are `invalid_client`."""
    with pytest.raises(ExchangeDenied) as denied:
        peer.client(auth(peer.issuer)).exchange(TokenExchangeRequest(peer.subject(), resource=[PAY]))
    assert (denied.value.error, denied.value.status) == ("invalid_client", 401)


def test_the_server_s_refusals_are_told(peer: Peer) -> None:
    """A token that isn't genuine, a scope beyond the subject's and an unknown type keep the server's own errors."""
    client = peer.client()
    for error, request in (
        ("invalid_request", TokenExchangeRequest(Issuer("https://x.example").token(aud="basic:bot"), audience=[PAY])),
        ("invalid_request", TokenExchangeRequest(peer.subject("another-bot"), audience=[PAY])),
        ("invalid_scope", TokenExchangeRequest(peer.subject(), audience=[PAY], scope=["pay"])),
    ):
        with pytest.raises(ExchangeDenied) as denied:
            client.exchange(request)
        assert (denied.value.error, denied.value.status) == (error, 400)
        assert denied.value.description


async def test_a_bound_token(peer: Peer) -> None:
    """The server wants a nonce: our one retry brings it, the token is bound to our key, and the nonce is remembered."""
    key = DpopKey(SigningKey.generate("ES256"))
    sent: list[HttpRequest] = []
    http = HttpxTransport(loopback_http=True)

    def counted(request: HttpRequest) -> Any:
        sent.append(request)
        return http(request)

    client = peer.client(dpop=key, transport=counted, async_transport=http.aio, verify_with=peer.validator())
    request = TokenExchangeRequest(peer.subject(), audience=[PAY], scope=["docs.read"])
    token = client.exchange(request)
    assert len(sent) == 2
    assert token.token_type == "DPoP"
    assert token.verified is not None
    assert token.verified.confirmation is not None
    assert token.verified.confirmation.jkt == key.thumbprint
    client.exchange(request)
    assert len(sent) == 3
    assert (await client.aexchange(request)).token_type == "DPoP"


@pytest.mark.parametrize("algorithm", ["Ed25519", "EdDSA", "ES256", "PS256", "RS256"])
def test_proofs_of_every_algorithm(peer: Peer, algorithm: str) -> None:
    """The server takes our proofs in each algorithm that we sign with."""
    client = peer.client(dpop=DpopKey(SigningKey.generate(algorithm)))
    token = client.exchange(TokenExchangeRequest(peer.subject(), audience=[PAY], scope=["docs.read"]))
    assert token.token_type == "DPoP"


def test_hop_by_hop(peer: Peer) -> None:
    """A chain that was there is kept under the new actor: the verified subject token says what must stay."""
    first = {"iss": "https://upstream.example", "sub": "orchestrator"}
    subject = Validator([TrustedIssuer(peer.upstream.name, keys_of(peer.upstream.key))]).genuine(
        peer.subject(act=first), kind="access"
    )
    client = peer.client(verify_with=peer.validator())
    token = client.exchange(TokenExchangeRequest(subject, audience=[PAY], scope=["docs.read"]))
    assert token.verified is not None
    assert [hop.to.id for hop in token.verified.chain.delegations] == ["orchestrator", "basic:bot"]


def test_an_id_jag_is_got_and_redeemed(peer: Peer, node_modules: Path) -> None:
    """An ID-JAG is `N_A` and for the server that redeems it; redeeming one gives an access token of that server."""
    request = TokenExchangeRequest(
        peer.subject(), audience=["https://other.example"], resource=[PAY], scope=["docs.read"],
        requested_token_type=ID_JAG,
    )  # fmt: skip
    token = peer.client(verify_with=peer.validator()).exchange(request)
    assert (token.token_type, token.issued_token_type) == ("N_A", ID_JAG)
    assert token.verified is not None
    assert (token.verified.kind, token.verified.audience) == ("id-jag", ("https://other.example",))
    assertion = peer.upstream.token(
        "id-jag", aud=peer.issuer, client_id="basic:bot", resource=PAY, scope="docs.read docs.write"
    )
    client = peer.client(verify_with=peer.validator())
    redeemed = client.exchange(JwtBearerRequest(assertion, scope=["docs.read"], resource=[PAY]))
    assert redeemed.issued_token_type == ACCESS_TOKEN
    assert redeemed.verified is not None
    assert redeemed.verified.subject.id == "maria"
    with pytest.raises(ExchangeDenied, match="invalid_grant"):
        client.exchange(JwtBearerRequest(peer.upstream.token("id-jag", aud="https://x.example", client_id="basic:bot")))


def test_the_server_s_own_keys_verify(peer: Peer) -> None:
    """The server's published key is the one that it was given: what was verified above was verified with it."""
    assert peer.metadata.jwks_uri is not None
    found = HttpxTransport(loopback_http=True)(HttpRequest("GET", peer.metadata.jwks_uri))
    keys = KeySet.of_jwks(json.loads(found.body))
    assert [key.thumbprint for key in keys.keys] == [SERVER_KEY.public_key().thumbprint]
    assert urllib.parse.urlsplit(peer.metadata.jwks_uri).hostname == "127.0.0.1"
