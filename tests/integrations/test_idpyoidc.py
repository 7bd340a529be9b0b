"""Test our client against idpyoidc's token exchange, served over HTTP by the standard library."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import pytest
from attrs import define
from idpyoidc.message.oidc import AuthorizationRequest
from idpyoidc.server import Server
from idpyoidc.server.authn_event import create_authn_event
from idpyoidc.server.authz import AuthzHandling
from idpyoidc.server.client_authn import verify_client
from idpyoidc.server.configure import ASConfiguration
from idpyoidc.server.user_authn.authn_context import INTERNETPROTOCOLPASSWORD
from idpyoidc.server.user_info import UserInfo
from idpyoidc.time_util import utc_time_sans_frac

from agentauthz.errors import ExchangeDenied, ExchangeProtocolError, InvalidArgument
from agentauthz.keys.jwk import KeySet
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens import jws
from agentauthz.tokens.answer import ExchangedToken
from agentauthz.tokens.client import TokenExchangeClient
from agentauthz.tokens.client_auth import ClientAuth, ClientSecretBasic, ClientSecretPost, PrivateKeyJwt
from agentauthz.tokens.dpop import DpopKey
from agentauthz.tokens.exchange import TokenExchangeRequest
from agentauthz.tokens.issuers import TrustedIssuer
from agentauthz.tokens.types import ACCESS_TOKEN, JWT, REFRESH_TOKEN
from agentauthz.tokens.validator import Validator

SECRET: Final = "hemligt-" + "b" * 32
CLIENT_KEY: Final = SigningKey.generate("ES256")
SCOPES: Final = ["openid", "profile", "offline_access"]
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
CRYPT: Final = {
    "kwargs": {
        "keys": {"key_defs": [{"type": "OCT", "use": ["enc"], "kid": kid} for kid in ("password", "salt")]},
        "iterations": 1,
    }
}


def _configuration(issuer: str, *, dpop: bool) -> dict[str, Any]:
    usage = {"supports_minting": ["access_token", "refresh_token"], "expires_in": 600}
    token = {
        "class": "idpyoidc.server.token.jwt_token.JWTToken",
        "kwargs": {"lifetime": 3600, "aud": ["https://first.example"]},
    }
    add_on = {
        "function": "idpyoidc.server.oauth2.add_on.dpop.add_support",
        "kwargs": {"dpop_signing_alg_values_supported": ["ES256"], "dpop_endpoints": ["token"]},
    }
    methods = ["client_secret_basic", "client_secret_post", "private_key_jwt"]
    return {
        "issuer": issuer,
        "httpc_params": {"verify": False, "timeout": 1},
        "keys": {"uri_path": "jwks.json", "key_defs": [{"type": "EC", "crv": "P-256", "use": ["sig"]}]},
        "endpoint": {
            "authorization": {
                "path": "authorization",
                "class": "idpyoidc.server.oauth2.authorization.Authorization",
                "kwargs": {},
            },
            "token": {
                "path": "token",
                "class": "idpyoidc.server.oidc.token.Token",
                "kwargs": {"client_authn_method": methods},
            },
        },
        "authentication": {
            "anon": {
                "acr": INTERNETPROTOCOLPASSWORD,
                "class": "idpyoidc.server.user_authn.user.NoAuthn",
                "kwargs": {"user": "diana"},
            }
        },
        "userinfo": {"class": UserInfo, "kwargs": {"db": {}}},
        "client_authn": verify_client,
        "authz": {
            "class": AuthzHandling,
            "kwargs": {
                "grant_config": {
                    "usage_rules": {"access_token": usage, "refresh_token": usage},
                    "expires_in": 43200,
                }
            },
        },
        "token_handler_args": {
            "key_conf": {"key_defs": [{"type": "EC", "crv": "P-256", "use": ["sig"]}]},
            "code": {"lifetime": 600, "kwargs": {"crypt_conf": CRYPT}},
            "token": token,
            "refresh": token,
        },
        "session_params": {"encrypter": CRYPT},
        "add_ons": {"dpop": add_on} if dpop else {},
    }


@define(eq=False)
class Peer:
    """Be the server: where it is, and tokens of its own to exchange."""

    server: Any
    issuer: str

    def client(self, auth: ClientAuth | None = None, **options: Any) -> TokenExchangeClient:
        auth = auth or ClientSecretBasic("bot", SECRET)
        return TokenExchangeClient(f"{self.issuer}/token", auth, loopback_http=True, **options)

    def subject(self, client_id: str = "bot") -> str:
        """Return an access token that the person Diana gave to a client."""
        manager, context = self.server.context.session_manager, self.server.context
        asked = AuthorizationRequest(
            client_id=client_id, redirect_uri="https://bot.example/cb", scope=SCOPES, state="s", response_type="code"
        )
        session = manager.create_session(create_authn_event("diana"), asked, "diana", client_id=client_id)
        grant = context.authz(session, asked)
        token = grant.mint_token(
            session_id=session,
            context=context,
            token_class="access_token",
            token_handler=manager.token_handler["access_token"],
            usage_rules=grant.usage_rules["access_token"],
            scope=SCOPES,
        )
        token.expires_at = utc_time_sans_frac() + 600
        return str(token.value)


def _handler(endpoint: Any, issuer: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                asked = endpoint.parse_request(body, {"headers": headers, "url": f"{issuer}/token", "method": "POST"})
                found = endpoint.process_request(asked)
                error = "error" in found
                answer = endpoint.do_response(request=asked, **found)
            except Exception as cause:  # it raises where a client is unknown: what to answer is left to its host
                error, answer = (
                    True,
                    {"response": json.dumps({"error": "invalid_client", "error_description": str(cause)})},
                )
            content = answer["response"].encode()
            self.send_response(400 if error else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def _served(*, dpop: bool = False) -> Iterator[Peer]:
    """Serve on a free port of the loopback, as long as the block runs."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    issuer = f"http://127.0.0.1:{http.server_address[1]}"
    server = Server(ASConfiguration(conf=_configuration(issuer, dpop=dpop), base_path="."), cwd=".")
    server.context.map_supported_to_preferred()
    for name in ("bot", "key-bot", "no-exchange"):
        server.context.cdb[name] = {
            "client_secret": SECRET,
            "redirect_uris": [("https://bot.example/cb", None)],
            "client_salt": "salted",
            "grant_types_supported": ["authorization_code"] if name == "no-exchange" else [EXCHANGE],
            "response_types": ["code"],
            "allowed_scopes": SCOPES,
        }
    server.keyjar.import_jwks({"keys": [CLIENT_KEY.public_jwk()]}, "key-bot")
    http.RequestHandlerClass = _handler(server.get_endpoint("token"), issuer)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield Peer(server, issuer)
    finally:
        http.shutdown()
        http.server_close()
        thread.join(10)


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with _served() as found:
        yield found


def _claims(token: ExchangedToken) -> dict[str, Any]:
    return jws.parse(token.access_token).claims()


async def test_a_token_is_exchanged(peer: Peer) -> None:
    """An exchange with two audiences: both are in the token, and the scope is the one asked for."""
    request = TokenExchangeRequest(
        peer.subject(), audience=["https://a.example", "https://b.example"], scope=["profile"]
    )
    client = peer.client()
    for token in (client.exchange(request), await client.aexchange(request)):
        assert (token.issued_token_type, token.token_type, token.scope) == (ACCESS_TOKEN, "Bearer", ("profile",))
        assert token.expires_in is not None
        assert 0 < token.expires_in <= 600
        assert sorted(_claims(token)["aud"]) == ["https://a.example", "https://b.example"]  # in any order


def test_each_way_to_authenticate(peer: Peer) -> None:
    """Basic, fields and a signed assertion authenticate; this server wants its endpoint as an assertion's audience."""
    key_bot = PrivateKeyJwt("key-bot", CLIENT_KEY, f"{peer.issuer}/token")
    for name, auth in (
        ("bot", ClientSecretBasic("bot", SECRET)),
        ("bot", ClientSecretPost("bot", SECRET)),
        ("key-bot", key_bot),
        ("key-bot", key_bot),
    ):
        token = peer.client(auth).exchange(TokenExchangeRequest(peer.subject(name), scope=["profile"]))
        assert _claims(token)["client_id"] == name
    with pytest.raises(ExchangeDenied, match="invalid_client"):
        peer.client(PrivateKeyJwt("key-bot", CLIENT_KEY, peer.issuer)).exchange(TokenExchangeRequest(peer.subject()))


def test_a_wrong_secret_is_denied(peer: Peer) -> None:
    """A wrong secret and an unknown client are refused, and nothing that was sent is in what is told."""
    for auth in (ClientSecretBasic("bot", "wrong"), ClientSecretPost("nobody", SECRET)):
        with pytest.raises(ExchangeDenied) as denied:
            peer.client(auth).exchange(TokenExchangeRequest(peer.subject()))
        assert denied.value.error == "invalid_client"
        assert SECRET not in f"{denied.value!r}{denied.value.description}"


def test_the_server_s_refusals_are_told(peer: Peer) -> None:
    """The server's own errors and words come through: types, targets, scopes, grants that it doesn't know."""
    client = peer.client()
    for error, words, request in (
        ("invalid_request", "Subject token invalid", TokenExchangeRequest("garbage")),
        ("invalid_request", "Unsupported requested token type",
         TokenExchangeRequest(peer.subject(), requested_token_type=JWT)),
        ("invalid_request", "Actor token not supported",
         TokenExchangeRequest(peer.subject(), actor_token=peer.subject(), actor_token_type=ACCESS_TOKEN)),
        ("invalid_target", "Unknown resource", TokenExchangeRequest(peer.subject(), resource=["https://a.example"])),
        ("invalid_scope", "Invalid requested scopes", TokenExchangeRequest(peer.subject(), scope=["email"])),
    ):  # fmt: skip
        with pytest.raises(ExchangeDenied) as denied:
            client.exchange(request)
        assert (denied.value.error, denied.value.description, denied.value.status) == (error, words, 400)
    with pytest.raises(ExchangeDenied, match="invalid_request"):
        peer.client(ClientSecretBasic("no-exchange", SECRET)).exchange(
            TokenExchangeRequest(peer.subject("no-exchange"))
        )


def test_a_scope_that_is_narrowed(peer: Peer) -> None:
    """The server leaves out scopes silently: what the token really has is what the result says."""
    token = peer.client().exchange(TokenExchangeRequest(peer.subject(), scope=["profile", "email"]))
    assert token.scope == ("profile",)
    everything = peer.client().exchange(TokenExchangeRequest(peer.subject()))
    assert set(everything.scope or ()) == set(SCOPES)


def test_another_type(peer: Peer) -> None:
    """A refresh token that was asked for comes as `N_A`, and can't be presented as an access token."""
    request = TokenExchangeRequest(peer.subject(), requested_token_type=REFRESH_TOKEN)
    token = peer.client().exchange(request)
    assert (token.issued_token_type, token.token_type) == (REFRESH_TOKEN, "N_A")
    with pytest.raises(InvalidArgument, match="no access token"):
        token.authorization()


def test_ignored_details_are_refused(peer: Peer) -> None:
    """The server ignores `authorization_details`: its token may do everything, so the client doesn't take it."""
    with pytest.raises(ExchangeProtocolError, match="authorization details"):
        peer.client().exchange(TokenExchangeRequest(peer.subject(), authorization_details=[{"type": "payment"}]))


@pytest.mark.parametrize("dpop", [False, True])
def test_an_unbound_token_is_refused(dpop: bool) -> None:
    """The server issues a bearer token though a key was proven, even where it checks the proof: it isn't taken."""
    key = DpopKey(SigningKey.generate("ES256"))
    with _served(dpop=dpop) as peer:
        with pytest.raises(ExchangeProtocolError, match="not_bound"):
            peer.client(dpop=key).exchange(TokenExchangeRequest(peer.subject()))
        if dpop:
            with pytest.raises(ExchangeDenied, match="invalid_client"):
                peer.client().exchange(TokenExchangeRequest(peer.subject()))


def test_a_token_without_a_type_is_not_verified(peer: Peer) -> None:
    """The server's access tokens have no `typ` (RFC 9068 §2.1), so a validator doesn't take them for ones."""
    keys = KeySet.of_jwks(peer.server.keyjar.export_jwks())
    trusting = Validator([TrustedIssuer(peer.issuer, keys)])
    with pytest.raises(ExchangeProtocolError, match="not one that may be relied on") as refused:
        peer.client(verify_with=trusting).exchange(TokenExchangeRequest(peer.subject()))
    assert refused.value.reason == "typ"
