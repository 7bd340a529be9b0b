"""Let other implementations exchange tokens at our token service over real HTTP, and verify what they get."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error
from requests_oauthlib import OAuth2Session

from agentauthz.sts import answers
from agentauthz.tokens.types import ACCESS_TOKEN, JWT, TOKEN_EXCHANGE
from tests.integrations.conftest import NodeScript
from tests.token_service import PLANNER_KEY, SECRETS, Running, running

SUBJECT: Final = {"subject_token_type": ACCESS_TOKEN, "audience": "worker"}
REFUSED: Final = {"error": "invalid_scope", "description": answers.DESCRIPTIONS["invalid_scope"], "status": 400}


@pytest.fixture(scope="module")
def sts() -> Iterator[Running]:
    """Return a token service on loopback."""
    with running() as found:
        yield found


@pytest.fixture
def loopback_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let oauthlib, and what is built on it, speak http, as these tests do on loopback."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def verified(sts: Running, token: str) -> dict[str, Any]:
    """Return the claims of a token that joserfc verifies with the keys at `/jwks`."""
    keys = KeySet.import_key_set(sts.http.get("/jwks").json())
    found = jwt.decode(token, keys, algorithms=["ES256"])
    assert found.header["typ"] == "at+jwt"
    jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": sts.url}, aud={"essential": True, "value": "worker"}, exp={"essential": True}
    ).validate(found.claims)
    return dict(found.claims)


def delegated(claims: dict[str, Any], sts: Running, scope: str) -> bool:
    """Say whether claims are those of ana's authority, delegated to the planner and narrowed to a scope."""
    assert claims["act"] == {"sub": "planner", "iss": sts.url, "sub_profile": "ai_agent"}
    return (claims["sub"], claims["client_id"], claims["scope"]) == ("ana", "planner", scope)


def exchanges(sts: Running) -> dict[str, list[tuple[str, str]]]:
    """Return what the peers on Node ask for: all there is, less, too much."""
    given = [*SUBJECT.items(), ("subject_token", sts.token())]
    return {
        "delegated": given,
        "narrowed": [*given, ("scope", "docs.read")],
        "widened": [*given, ("scope", "docs.read admin")],
    }


def asked(sts: Running, **more: Any) -> dict[str, Any]:
    """Return what a script on Node is given."""
    planner = {"client_id": "planner", "client_secret": SECRETS["planner"]}
    return {"issuer": sts.url, **planner, "exchanges": exchanges(sts), "audience": "worker", **more}


def test_oauth4webapi_exchanges_tokens_that_jose_verifies(sts: Running, node_script: NodeScript) -> None:
    """It finds the service by its metadata and gets a delegated token, a narrower one, and an error that it reads."""
    server = {"client_id": "worker", "client_secret": SECRETS["worker"]}
    given = asked(sts, server=server, pem=PLANNER_KEY.to_pem().decode(), key_id=PLANNER_KEY.key_id)
    given["exchanges"]["other"] = [*given["exchanges"]["delegated"], ("requested_token_type", JWT)]
    found = node_script("exchange_oauth4webapi.mjs", given)
    assert delegated(found["delegated"]["verified"]["payload"], sts, "docs.read docs.write pay.small")
    assert found["delegated"]["verified"]["protectedHeader"]["typ"] == "at+jwt"
    assert delegated(found["narrowed"]["verified"]["payload"], sts, "docs.read")
    assert found["narrowed"]["granted"]["scope"] == "docs.read"
    assert found["widened"] == REFUSED
    assert found["other"]["granted"]["token_type"] == "n_a"
    assert found["other"]["granted"]["issued_token_type"] == JWT
    assert found["keyed"]["granted"]["token_type"] == "bearer"
    assert found["before"]["active"] is True
    assert found["before"]["act"]["sub"] == "planner"
    assert found["after"] == {"active": False}


def test_oauth4webapi_binds_a_token_to_its_key_after_the_nonce(node_script: NodeScript) -> None:
    """Told `use_dpop_nonce`, it retries, and gets a token that is bound to its key."""
    with running(nonces=True) as sts:
        found = node_script("exchange_oauth4webapi.mjs", asked(sts, dpop=True))["bound"]
    assert found["retried"] is True
    assert found["granted"]["token_type"] == "dpop"
    assert found["verified"]["payload"]["cnf"].keys() == {"jkt"}


@pytest.mark.parametrize("nonces", [False, True])
def test_openid_client_exchanges_tokens(nonces: bool, node_script: NodeScript) -> None:
    """It gets a delegated token, a narrower one, an error, one bound to its key, with or without a nonce to fetch."""
    with running(nonces=nonces) as sts:
        found = node_script("exchange_openid_client.mjs", asked(sts, dpop=True))
        assert delegated(
            verified(sts, found["delegated"]["granted"]["access_token"]), sts, "docs.read docs.write pay.small"
        )
        assert delegated(verified(sts, found["narrowed"]["granted"]["access_token"]), sts, "docs.read")
        assert found["widened"] == REFUSED
        assert found["bound"]["granted"]["token_type"] == "dpop"
        assert verified(sts, found["bound"]["granted"]["access_token"])["cnf"].keys() == {"jkt"}
        assert found["after"] == {"active": False}


@pytest.mark.usefixtures("loopback_http")
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlib_exchanges_tokens(sts: Running, method: str) -> None:
    """Authlib, by either method: a delegated token, a narrower one, an error, revocation, introspection."""
    with _authlib("planner", SECRETS["planner"], method) as client:
        ask = {"url": f"{sts.url}/token", "grant_type": TOKEN_EXCHANGE, "subject_token": sts.token(), **SUBJECT}
        whole = client.fetch_token(**ask)
        assert delegated(verified(sts, whole["access_token"]), sts, "docs.read docs.write pay.small")
        narrow = client.fetch_token(**ask, scope="docs.read")
        assert delegated(verified(sts, narrow["access_token"]), sts, "docs.read")
        with pytest.raises(OAuthError) as caught:
            client.fetch_token(**ask, scope="admin")
        assert (caught.value.error, caught.value.description) == ("invalid_scope", REFUSED["description"])
        assert client.revoke_token(f"{sts.url}/revoke", token=narrow["access_token"]).status_code == 200
    with _authlib("worker", SECRETS["worker"], method) as worker:
        live, dead = (
            worker.introspect_token(f"{sts.url}/introspect", token=one["access_token"]).json()
            for one in (whole, narrow)
        )
    assert live["active"] is True
    assert dead == {"active": False}


@pytest.mark.usefixtures("loopback_http")
def test_authlib_authenticates_by_its_key(sts: Running) -> None:
    """Authlib, by `private_key_jwt`: its assertion of an hour is refused, one of a minute is taken."""
    ask = {"url": f"{sts.url}/token", "grant_type": TOKEN_EXCHANGE, "subject_token": sts.token(), **SUBJECT}
    key = ECKey.import_key(PLANNER_KEY.to_pem())
    with _authlib("planner", key, "private_key_jwt") as client:
        client.register_client_auth_method(PrivateKeyJWT(f"{sts.url}/token", alg="ES256"))
        with pytest.raises(OAuthError, match="invalid_client"):
            client.fetch_token(**ask)
    with _authlib("planner", key, "private_key_jwt") as client:
        claims = {"exp": int(time.time()) + 60}
        client.register_client_auth_method(PrivateKeyJWT(f"{sts.url}/token", claims, alg="ES256"))
        token = client.fetch_token(**ask, scope="docs.read")
    assert delegated(verified(sts, token["access_token"]), sts, "docs.read")


def _authlib(name: str, secret: object, method: str) -> AuthlibSession:
    session = AuthlibSession(name, secret, token_endpoint_auth_method=method)
    session.trust_env = False
    return session


@pytest.mark.usefixtures("loopback_http")
def test_requests_oauthlib_exchanges_tokens(sts: Running) -> None:
    """requests-oauthlib: a delegated token, a narrower one, and an error that it raises by its name."""
    everything = ["docs.read", "docs.write", "pay.small"]
    for scope, expected in [(everything, " ".join(everything)), (["docs.read"], "docs.read")]:
        token = _fetched(sts, scope)
        assert delegated(verified(sts, token["access_token"]), sts, expected)
        assert token["issued_token_type"] == ACCESS_TOKEN
    with pytest.raises(OAuth2Error) as caught:
        _fetched(sts, ["admin"])
    assert (caught.value.error, caught.value.description) == ("invalid_scope", REFUSED["description"])


def _fetched(sts: Running, scope: list[str]) -> dict[str, Any]:
    client = BackendApplicationClient("planner", scope=scope)
    client.grant_type = TOKEN_EXCHANGE
    with OAuth2Session(client=client) as session:
        session.trust_env = False
        found = session.fetch_token(
            f"{sts.url}/token", client_secret=SECRETS["planner"], subject_token=sts.token(), **SUBJECT
        )
        return dict(found)


def test_targets_that_come_several_times_are_all_granted(sts: Running) -> None:
    """RFC 8693 §2.1: repeated `audience` and `resource` are one request for all, which httpx sends as it should."""
    given: dict[str, Any] = {**SUBJECT, "grant_type": TOKEN_EXCHANGE, "subject_token": sts.token()}
    given |= {"scope": "pay.small", "audience": ["worker", "payments"], "resource": "https://payments.example"}
    response = httpx.post(f"{sts.url}/token", data=given, auth=("planner", SECRETS["planner"]), trust_env=False)
    keys = KeySet.import_key_set(sts.http.get("/jwks").json())
    claims = jwt.decode(response.json()["access_token"], keys, algorithms=["ES256"]).claims
    assert sorted(claims["aud"]) == ["https://payments.example", "payments", "worker"]
