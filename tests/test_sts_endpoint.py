"""Test a token service over real HTTP: RFC 6749 §3.2, §5.1, §5.2, RFC 8693 §2.2, RFC 7009, RFC 7662, RFC 8414."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from agentauthz.errors import ExchangeRefused, InvalidArgument, TokenError
from agentauthz.keys.signing import KeyRing, SigningKey
from agentauthz.sts import answers
from agentauthz.sts.asgi import TokenApp
from agentauthz.sts.endpoint import TokenEndpoint
from agentauthz.sts.forms import MAX_BODY
from agentauthz.tokens import jws
from agentauthz.tokens.confirmation import certificate_thumbprint
from agentauthz.tokens.dpop import DpopKey, DpopVerifier, Nonces
from agentauthz.tokens.issuers import TrustedIssuer
from agentauthz.tokens.once import MemoryOnce
from agentauthz.tokens.types import ACCESS_TOKEN, JWT_BEARER, REFRESH_TOKEN, TOKEN_EXCHANGE
from agentauthz.tokens.validator import Validator
from agentauthz.tokens.verified import TokenKind
from tests.token_service import PAYMENTS, SECRETS, Running, basic, certificate, form, make, running

FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def sts() -> Iterator[Running]:
    """Return a token service on loopback, the same for all tests of this module."""
    with running() as found:
        yield found


def refused(response: httpx.Response, error: str, status: int = 400) -> None:
    """Check an error: its code and status, that nobody stores it, and that its text is only the one of its code."""
    assert (response.status_code, response.json().get("error")) == (status, error)
    assert response.json() == {"error": error, "error_description": answers.DESCRIPTIONS[error]}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in response.headers) == (status == 401)


# ---- RFC 6749 §5.1, RFC 8693 §2.2.1: what is granted


def test_a_delegated_token_is_answered_as_the_rfc_wants(sts: Running) -> None:
    """§5.1, RFC 8693 §2.2.1: 200, JSON, not stored, with every member, and without a refresh token."""
    response = sts.exchange(scope="docs.read")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["pragma"] == "no-cache"
    body = response.json()
    assert body.keys() == {"access_token", "issued_token_type", "token_type", "expires_in", "scope"}
    assert (body["issued_token_type"], body["token_type"], body["scope"]) == (ACCESS_TOKEN, "Bearer", "docs.read")
    assert 0 < body["expires_in"] <= 300


# ---- table: situation -> error, status (RFC 6749 §5.2, RFC 8693 §2.2.2)


@pytest.mark.parametrize(
    ("error", "changed"),
    [
        ("invalid_request", {"subject_token": None}),
        ("invalid_request", {"subject_token_type": None}),
        ("invalid_request", {"subject_token": ""}),
        ("invalid_request", {"subject_token": "not.a.token"}),
        ("invalid_request", {"subject_token_type": REFRESH_TOKEN}),
        ("invalid_request", {"requested_token_type": REFRESH_TOKEN}),
        ("invalid_request", {"actor_token_type": ACCESS_TOKEN}),
        ("invalid_request", {"grant_type": None}),
        ("invalid_request", {"grant_type": [TOKEN_EXCHANGE, TOKEN_EXCHANGE]}),
        ("invalid_request", {"scope": ["docs.read", "docs.read"]}),
        ("invalid_target", {"audience": "unknown"}),
        ("invalid_target", {"audience": ["worker", "unknown"]}),
        ("invalid_target", {"resource": "not-absolute"}),
        ("invalid_target", {"audience": PAYMENTS}),
        ("invalid_scope", {"scope": "admin"}),
        ("invalid_scope", {"scope": "docs.read  docs.write"}),
        ("invalid_scope", {"scope": 'docs."read"'}),
        ("unsupported_grant_type", {"grant_type": "client_credentials"}),
        ("unsupported_grant_type", {"grant_type": "authorization_code"}),
        ("invalid_authorization_details", {"authorization_details": "{}"}),
        ("invalid_authorization_details", {"authorization_details": '[{"type":"unknown"}]'}),
    ],
)
def test_each_situation_has_its_error(sts: Running, error: str, changed: dict[str, Any]) -> None:
    """Each row of the table of errors that depends on the request alone; the test above is their twin."""
    refused(sts.exchange(**changed), error)


@pytest.mark.parametrize(
    "claims",
    [{"exp": 1}, {"iss": "https://other.example"}, {"aud": "somebody", "client_id": "somebody"}, {"typ": "JWT"}],
)
def test_an_unacceptable_subject_token_is_an_invalid_request(sts: Running, claims: dict[str, Any]) -> None:
    """RFC 8693 §2.2.2: a token that is invalid for any reason, or not acceptable, is `invalid_request`."""
    refused(sts.exchange(subject_token=sts.token(**claims)), "invalid_request")
    refused(
        sts.exchange(subject_token=sts.token(key=SigningKey.generate("ES256", key_id="service-key"))), "invalid_request"
    )


def test_case_53_who_does_not_authenticate_gets_no_token(sts: Running) -> None:
    """Case 53: no authentication, a wrong secret and an unknown client: 401 `invalid_client` (§5.2)."""
    token = sts.token()
    for headers in ({}, basic("planner", SECRETS["planner"][:-1]), basic("nobody", SECRETS["planner"])):
        response = sts.http.post("/token", data=form(subject_token=token), headers=headers)
        refused(response, "invalid_client", 401)
        assert response.headers["www-authenticate"].startswith("Basic ")
    assert sts.exchange(subject_token=token).status_code == 200


def test_case_53_a_public_client_gets_no_token(sts: Running) -> None:
    """Case 53: a public client, which is registered as one, is `unauthorized_client`."""
    refused(sts.http.post("/token", data=form(subject_token=sts.token(), client_id="browser")), "unauthorized_client")


def test_a_client_without_the_grant_is_unauthorized(sts: Running) -> None:
    """A client that authenticates but wasn't given the grant is `unauthorized_client`, whatever it sends."""
    refused(sts.exchange("plain"), "unauthorized_client")
    refused(sts.exchange("plain", subject_token="garbage"), "unauthorized_client")


def test_a_bad_proof_is_invalid_dpop_proof(sts: Running) -> None:
    """RFC 9449 §5: a proof that doesn't hold is `invalid_dpop_proof` with 400, and a good one binds the token."""
    key = DpopKey(SigningKey.generate("ES256"))
    for proof in ("x", key.proof("GET", f"{sts.url}/token"), key.proof("POST", f"{sts.url}/other")):
        refused(
            sts.http.post("/token", data=form(subject_token=sts.token()), auth=_planner(), headers={"DPoP": proof}),
            "invalid_dpop_proof",
        )
    good = {"DPoP": key.proof("POST", f"{sts.url}/token")}
    response = sts.http.post("/token", data=form(subject_token=sts.token()), auth=_planner(), headers=good)
    assert response.json().get("token_type") == "DPoP", response.text
    refused(
        sts.http.post("/token", data=form(subject_token=sts.token()), auth=_planner(), headers=good),
        "invalid_dpop_proof",
    )


def test_a_proof_without_nonce_is_told_one() -> None:
    """RFC 9449 §8: `use_dpop_nonce` with a `DPoP-Nonce`, with which the same request passes."""
    key = DpopKey(SigningKey.generate("ES256"))
    with running(nonces=True) as sts:
        data = form(subject_token=sts.token())
        proof = key.proof("POST", f"{sts.url}/token")
        first = sts.http.post("/token", data=data, auth=_planner(), headers={"DPoP": proof})
        refused(first, "use_dpop_nonce")
        again = key.proof("POST", f"{sts.url}/token", nonce=first.headers["dpop-nonce"])
        second = sts.http.post("/token", data=data, auth=_planner(), headers={"DPoP": again})
        assert second.status_code == 200, second.text
        assert second.headers["dpop-nonce"]


def test_a_store_or_hook_that_fails_is_the_servers_error(sts: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that raises is 500 `server_error`; what is unforeseen is too, and its text stays inside."""

    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(sts.service, "exchange", failing, raising=True)
    refused(sts.exchange(), "server_error", 500)


@pytest.mark.parametrize("answer", [None, OSError()])
def test_a_revocation_store_that_can_not_tell_means_later(answer: Any) -> None:
    """A store that raises or doesn't know is 503 `temporarily_unavailable` with `Retry-After`, never a token."""

    def store(_: object) -> None:
        if answer is not None:
            raise answer

    with running(revoked=store) as sts:
        response = sts.exchange()
    refused(response, "temporarily_unavailable", 503)
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("error", sorted(answers.DESCRIPTIONS))
def test_each_code_has_one_text(error: str) -> None:
    """Whatever the reason, a code is answered with the one description of it."""
    one, other = (json.loads(answers.error(ExchangeRefused(error, reason)).body) for reason in ("this", "that"))
    assert one == other == {"error": error, "error_description": answers.DESCRIPTIONS[error]}


def test_a_certificate_of_the_connection_binds_the_token(sts: Running) -> None:
    """RFC 8705 §3: what is exchanged over a connection with a client's certificate is bound to that."""
    cert = certificate().public_bytes(Encoding.DER)
    headers = [*FORM.items(), *basic("planner", SECRETS["planner"]).items()]
    found = sts.endpoint.handle("POST", headers, [*form(subject_token=sts.token()).items()], peer_cert=cert)
    assert found.status == 200
    claims = jws.parse(json.loads(found.body)["access_token"]).claims()
    assert claims["cnf"] == {"x5t#S256": certificate_thumbprint(cert)}


def test_pairs_of_a_framework_do_as_well_as_bytes(sts: Running) -> None:
    """A form that a framework has parsed counts like its bytes, those that come twice and the bounds included."""
    headers = [*FORM.items(), *basic("planner", SECRETS["planner"]).items()]
    pairs = [*form(subject_token=sts.token()).items()]
    assert sts.endpoint.handle("POST", headers, pairs).status == 200
    for wrong in (
        [*pairs, ("scope", "docs.read"), ("scope", "docs.read")],
        [*pairs, *[("filler", "x")] * 101],
        [*pairs, ("filler", "x" * MAX_BODY)],
    ):
        assert sts.endpoint.handle("POST", headers, wrong).status in (400, 413)
    assert sts.endpoint.handle("POST", headers[1:], pairs).status == 400


# ---- RFC 7523 §2.1, with an identity assertion


def test_an_identity_assertion_is_redeemed_once() -> None:
    """Cases 84, 85 over HTTP: an ID-JAG for this service and client gives a token; all else is `invalid_grant`."""
    idp = SigningKey.generate("ES256", key_id="idp")
    name = "https://idp.example"
    trusted = TrustedIssuer(name, KeyRing(idp).key_set(), token_kinds=["id-jag"])

    def assertion(service: Running, **changed: Any) -> dict[str, Any]:
        claims = {"iss": name, "sub": "ana", "aud": service.url, "client_id": "planner", **changed}
        text = service.token(typ="oauth-id-jag+jwt", key=idp, **claims)
        return {"grant_type": JWT_BEARER, "assertion": text, "audience": "worker"}

    with running(redeeming=Validator([trusted]), subject_mapper=lambda token: token.subject.id) as service:
        assert service.endpoint.metadata()["grant_types_supported"] == [TOKEN_EXCHANGE, JWT_BEARER]
        given = assertion(service, scope="docs.read")
        response = service.post(**given)
        assert response.status_code == 200, response.text
        assert response.json()["token_type"] == "Bearer"
        refused(service.post(**given), "invalid_grant")
        for changed in (
            {"aud": "https://other.example"},
            {"client_id": "worker"},
            {"exp": 1},
            {"iss": "https://x.example"},
        ):
            refused(service.post(**assertion(service, **changed)), "invalid_grant")
        refused(service.post(client="worker", **assertion(service, client_id="worker")), "unauthorized_client")


def _planner() -> tuple[str, str]:
    return ("planner", SECRETS["planner"])


# ---- RFC 6749 §3.2: the request


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
def test_only_post_asks_for_a_token(sts: Running, method: str) -> None:
    """§3.2: the client must use POST; another method is 405 and says which is allowed."""
    response = sts.http.request(method, "/token", params=form(subject_token=sts.token()), auth=_planner())
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


def test_parameters_in_the_url_count_for_nothing(sts: Running) -> None:
    """§2.3.1, §3.2: what is in the request URI is no parameter, credentials least of all."""
    given = form(subject_token=sts.token())
    secret = {"client_id": "planner", "client_secret": SECRETS["planner"]}
    refused(sts.http.post("/token", params=secret, data=given), "invalid_client", 401)
    refused(sts.http.post("/token", params=given, auth=_planner(), headers=FORM), "invalid_request")


def test_unknown_parameters_are_ignored(sts: Running) -> None:
    """§3.2: a parameter that isn't recognised changes nothing."""
    assert sts.exchange(something="else").status_code == 200


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/x-www-form-urlencoded", 200),
        ("Application/X-WWW-Form-URLEncoded; charset=UTF-8", 200),
        ("application/x-www-form-urlencoded; charset=utf-16", 400),
        ("application/json", 400),
        ("text/plain", 400),
        ("multipart/form-data; boundary=x", 400),
        ("", 400),
    ],
)
def test_the_body_must_be_a_form_in_utf_8(sts: Running, kind: str, status: int) -> None:
    """RFC 8693 §2.1, RFC 6749 appendix B: another content type is `invalid_request`."""
    body = urlencode(form(subject_token=sts.token())).encode()
    response = sts.http.post("/token", content=body, auth=_planner(), headers={"Content-Type": kind})
    assert response.status_code == status, response.text


@pytest.mark.parametrize(
    "more", [b"%", b"a=%zz", b"a=%ff", b"a\xff=b", b"a", b"&".join([b"a=b"] * 100), b"a=\x00", b"a=b c"]
)
def test_a_malformed_form_is_an_invalid_request(sts: Running, more: bytes) -> None:
    """A form with broken encoding, bytes that aren't UTF-8, or too many parameters is `invalid_request`."""
    good = urlencode(form(subject_token=sts.token())).encode()
    for body, status in ((good, 200), (good + b"&" + more, 400)):
        assert sts.http.post("/token", content=body, auth=_planner(), headers=FORM).status_code == status


def test_a_coded_body_is_an_invalid_request(sts: Running) -> None:
    """A body that says it is compressed isn't unpacked, nor taken as it is; `identity` says that it isn't."""
    body = urlencode(form(subject_token=sts.token())).encode()
    for coding, status in (("identity", 200), ("gzip", 400), ("identity, gzip", 400)):
        headers = {**FORM, "Content-Encoding": coding}
        assert sts.http.post("/token", content=body, auth=_planner(), headers=headers).status_code == status


def test_a_body_that_is_too_large_is_not_read(sts: Running) -> None:
    """A body over the cap is 413, announced or sent in pieces, while one just below is read."""
    filler = {"filler": "x" * (MAX_BODY - 4000)}
    assert sts.exchange(**filler).status_code == 200
    refused(sts.http.post("/token", content=b"a" * (MAX_BODY + 1), headers=FORM), "invalid_request", 413)
    pieces = (b"a" * 4096 for _ in range(100))
    refused(sts.http.post("/token", content=pieces, headers=FORM), "invalid_request", 413)


def test_a_client_that_leaves_leaves_the_service_running(sts: Running) -> None:
    """A connection that ends amid the body gets no answer, and the next request is served."""
    address = urlsplit(sts.url)
    for sent in (b"", b"grant_type"):
        with socket.create_connection((address.hostname, address.port)) as connection:
            head = "POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            connection.sendall(f"{head}Content-Length: 100\r\n\r\n".encode() + sent)
    assert sts.exchange().status_code == 200


def test_the_answer_never_says_the_reason(sts: Running) -> None:
    """Requests that fail for different reasons of one code get the same bytes."""
    tokens = ["x.y.z", sts.token(exp=1), sts.token(iss="https://other.example"), sts.token(aud="x", client_id="x")]
    assert len({sts.exchange(subject_token=token).content for token in tokens}) == 1
    unknown = sts.http.post("/token", data=form(), auth=("nobody", "x" * 30))
    wrong = sts.http.post("/token", data=form(), auth=("planner", "x" * 30))
    assert (unknown.content, unknown.headers["www-authenticate"]) == (wrong.content, wrong.headers["www-authenticate"])


def test_every_description_keeps_to_the_characters_of_the_rfc() -> None:
    """§5.2: `error_description` has printable ASCII without quotes and backslashes."""
    for text in answers.DESCRIPTIONS.values():
        assert all(" " <= letter <= "~" and letter not in '"\\' for letter in text)


def test_an_error_that_is_not_known_says_nothing() -> None:
    """A code or status outside of the table is answered as `server_error`."""
    for refusal in (ExchangeRefused("secret_code", "x"), ExchangeRefused("invalid_request", "x", status=200)):
        assert answers.error(refusal).status == 500
        assert json.loads(answers.error(refusal).body)["error"] == "server_error"


def test_a_refusal_is_recorded_with_its_reason(sts: Running) -> None:
    """What the answer keeps back is in the decision's record: also for a client that isn't known."""
    sts.sink.clear()
    sts.exchange(scope="admin")
    sts.http.post("/token", data=form(subject_token=sts.token()), auth=("planner", "x" * 30))
    assert len(sts.sink.decisions) == 2
    assert sts.exchange().status_code == 200
    assert len(sts.sink.decisions) == 3


@pytest.mark.parametrize("path", ["/token", "/introspect", "/revoke"])
def test_who_guesses_secrets_leaves_a_record_wherever(sts: Running, path: str) -> None:
    """A secret is guessed at any endpoint that takes it, so each failure is recorded, under the endpoint's action."""
    action = {"/token": "token.exchange", "/introspect": "token.introspect", "/revoke": "token.revoke"}[path]
    before = len(sts.sink.decisions)
    answer = sts.http.post(path, data={"token": "x"}, headers=basic("planner", "guessed-secret-0123456789"))
    (record,) = sts.sink.decisions[before:]
    assert (answer.status_code, record.action.name, record.reasons[0].code) == (401, action, "client_secret")
    assert [actor.sub for actor in record.actors] == ["nobody"]


def test_what_is_refused_after_that_is_recorded_with_who_asked(sts: Running) -> None:
    """A client that takes back another's token, or names none, is on the record; one that is answered isn't."""
    before = len(sts.sink.decisions)
    own = sts.token(client_id="worker")
    assert sts.post("/revoke", "planner", token=own).status_code == 400
    assert sts.post("/introspect", "planner", token="").status_code == 400
    assert sts.post("/introspect", "planner", token=own).status_code == 200
    assert sts.post("/revoke", "worker", token=own).status_code == 200
    records = sts.sink.decisions[before:]
    found = [(record.action.name, record.reasons[0].code, record.actors[0].sub) for record in records]
    assert found == [("token.revoke", "token_of_another", "planner"), ("token.introspect", "token_missing", "planner")]


def test_what_is_unforeseen_is_recorded_too(sts: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails before the exchange begins leaves one record: a framework's odd pairs, a clock of the clients."""
    headers = [("Content-Type", "application/x-www-form-urlencoded"), *basic("planner", SECRETS["planner"]).items()]
    odd: Any = [[("audience", None)], "text", 7]
    for body in odd:
        before = len(sts.sink.decisions)
        assert sts.endpoint.handle("POST", headers, body).status == 500
        (record,) = sts.sink.decisions[before:]
        assert (record.outcome, record.basis, record.reasons[0].code) == ("deny", "error", "unforeseen")


def test_nonces_that_fail_take_no_answer_away() -> None:
    """A clock of the nonces that fails costs the header, not the answer, which a record says was given."""
    clock: Any = lambda: 1 / 0
    with running(dpop=DpopVerifier(MemoryOnce(), nonces=Nonces(clock=clock))) as sts:
        answer = sts.http.post("/token", data=form(subject_token=sts.token()),
                               headers={**basic("planner", SECRETS["planner"]), "DPoP": "x"})  # fmt: skip
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
        assert "DPoP-Nonce" not in answer.headers


def test_no_secret_reaches_a_record_or_a_log(sts: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Neither records nor logs hold a client's secret or a token, whether granted or refused."""
    caplog.set_level(0)
    token = sts.token()
    granted = sts.exchange(subject_token=token).json()["access_token"]
    sts.exchange(subject_token=token, scope="admin")
    sts.http.post("/token", data={**form(subject_token=token), "client_secret": SECRETS["planner"], "client_id": "x"})
    shown = repr(sts.sink.records) + caplog.text + repr([record.__dict__ for record in caplog.records])
    for secret in (SECRETS["planner"], token, granted, token.rpartition(".")[2]):
        assert secret not in shown


# ---- RFC 7662


def test_a_resource_server_is_told_what_its_token_says(sts: Running) -> None:
    """§2.2, RFC 8693 §4.1: an active token's claims come back, `act` with them; nobody stores the answer."""
    act = {"sub": "planner", "iss": sts.url, "sub_profile": "ai_agent"}
    token = sts.token(aud=[PAYMENTS], act=act, scope="pay.small", may_act={"sub": "x", "iss": sts.url})
    response = sts.post("/introspect", "payments", token=token, token_type_hint="access_token")
    body = response.json()
    assert response.headers["cache-control"] == "no-store"
    assert body["active"] is True
    assert (body["act"], body["sub"], body["scope"], body["token_type"]) == (act, "ana", "pay.small", "Bearer")
    assert body["may_act"] == {"sub": "x", "iss": sts.url}
    assert {"iss", "aud", "client_id", "exp", "iat", "jti"} <= body.keys()


def test_a_token_of_any_depth_that_is_issued_is_known(sts: Running) -> None:
    """A chain as deep as a service may issue is described, however little a validator takes by default."""
    act: dict[str, Any] = {"sub": "agent-0", "iss": sts.url}
    for number in range(1, 16):
        act = {"sub": f"agent-{number}", "iss": sts.url, "act": act}
    found = sts.post("/introspect", "payments", token=sts.token(aud="payments", act=act)).json()
    assert found["act"] == act


def test_the_services_clock_says_what_has_ended() -> None:
    """A service on a clock of its own tells a token's end by that clock."""
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    with running(clock=lambda: later) as sts:
        now = int(later.timestamp())
        assert sts.post("/introspect", "payments", token=sts.token(aud="payments")).json() == {"active": False}
        token = sts.token(aud="payments", iat=now, exp=now + 60)
        assert sts.post("/introspect", "payments", token=token).json()["active"] is True


def test_anything_else_is_not_active(sts: Running) -> None:
    """§2.2, §4: a token for another audience, expired, forged, of another kind or unknown is just `active: false`."""
    good: dict[str, Any] = {"aud": "payments"}
    tokens = [
        sts.token(aud="worker"),
        sts.token(**good, exp=1),
        sts.token(**good, iss="https://other.example"),
        sts.token(**good, typ="JWT"),
        sts.token(**good, key=SigningKey.generate("ES256", key_id="service-key")),
        "unknown",
    ]
    for token in tokens:
        response = sts.post("/introspect", "payments", token=token)
        assert (response.status_code, response.json()) == (200, {"active": False})
    assert sts.post("/introspect", "payments", token=sts.token(**good)).json()["active"] is True
    assert sts.post("/introspect", "plain", token=sts.token(**good)).json() == {"active": False}


def test_only_who_authenticates_may_ask_about_tokens(sts: Running) -> None:
    """§2.1, §2.3: without credentials 401; a public client, no token, or two of them are refused."""
    token = sts.token(aud="payments")
    refused(sts.post("/introspect", None, token=token), "invalid_client", 401)
    refused(sts.post("/introspect", None, token=token, client_id="browser"), "unauthorized_client")
    refused(sts.post("/introspect", "payments"), "invalid_request")
    refused(sts.post("/introspect", "payments", token=[token, token]), "invalid_request")
    assert sts.http.get("/introspect", params={"token": token}).status_code == 405


# ---- RFC 7009


def test_a_client_revokes_its_own_token(sts: Running) -> None:
    """§2.1, §2.2: 200 with nothing in it; the token isn't active from then on, nor exchanged; twice is fine."""
    token = sts.token(aud=["planner", "payments"])
    assert sts.post("/introspect", "payments", token=token).json()["active"] is True
    for _ in range(2):
        response = sts.post("/revoke", "planner", token=token, token_type_hint="access_token")
        assert (response.status_code, response.content) == (200, b"")
    assert sts.post("/introspect", "payments", token=token).json() == {"active": False}
    refused(sts.exchange(subject_token=token), "invalid_request")


def test_revoking_a_token_revokes_what_was_exchanged_from_it(sts: Running) -> None:
    """Lineage: what descends from a revoked token, two exchanges on, isn't active any more."""
    token = sts.token()
    first = sts.exchange(subject_token=token).json()["access_token"]
    second = sts.exchange("worker", subject_token=first, audience="payments", scope="pay.small").json()["access_token"]
    assert sts.post("/introspect", "payments", token=second).json()["active"] is True
    assert sts.post("/revoke", token=token).status_code == 200
    assert sts.post("/introspect", "payments", token=second).json() == {"active": False}
    assert sts.post("/introspect", "worker", token=first).json() == {"active": False}


@pytest.mark.parametrize(
    ("kind", "typ"), [("access", "at+jwt"), ("jwt", "JWT"), ("txn", "txntoken+jwt"), ("id-jag", "oauth-id-jag+jwt")]
)
def test_every_kind_that_is_issued_can_be_taken_back(sts: Running, kind: TokenKind, typ: str) -> None:
    """§2.1: whatever the service issues is revoked, so that who verifies it with the same store refuses it."""
    issuer = TrustedIssuer(sts.url, sts.service.keys.key_set(), token_kinds=[kind])
    verifier = Validator([issuer], revocation=sts.service.revoked)
    act = {"iss": sts.url, "sub": "planner", "sub_profile": "ai_agent"}
    token = sts.token(typ=typ, txn="t-1", aud="https://other.example", act=act)
    assert verifier.genuine(token, kind=kind).client_id == "planner"
    assert sts.post("/revoke", token=token).status_code == 200
    with pytest.raises(TokenError, match="revoked"):
        verifier.genuine(token, kind=kind)


@pytest.mark.parametrize("token", ["unknown", "x.y.z", ""])
def test_an_unknown_token_is_no_error(sts: Running, token: str) -> None:
    """§2.2: what isn't a token of ours is answered with 200; only a missing one is an error."""
    response = sts.post("/revoke", token=token)
    if token:
        assert response.status_code == 200
    else:
        refused(response, "invalid_request")


def test_another_clients_token_is_not_revoked(sts: Running) -> None:
    """§2.1: the request is refused, and the token stands; `may_revoke` can say otherwise, and failing means no."""
    token = sts.token(aud="payments")
    refused(sts.post("/revoke", "worker", token=token), "unauthorized_client")
    assert sts.post("/introspect", "payments", token=token).json()["active"] is True
    refused(sts.post("/revoke", None, token=token), "invalid_client", 401)
    refused(sts.post("/revoke", None, token=token, client_id="browser"), "unauthorized_client")


def test_an_assertion_is_revoked_by_who_got_it(sts: Running) -> None:
    """The `client_id` of an ID-JAG is the client's name at another server, which may be another client's here."""
    act = {"iss": sts.url, "sub": "planner", "sub_profile": "ai_agent"}
    token = sts.token(typ="oauth-id-jag+jwt", aud="https://other.example", client_id="worker", act=act)
    refused(sts.post("/revoke", "worker", token=token), "unauthorized_client")
    assert sts.post("/revoke", "planner", token=token).status_code == 200
    assert sts.sink.decisions[-1].reasons[0].code == "token_of_another"


def test_a_policy_may_let_others_revoke(sts: Running) -> None:
    """`may_revoke` decides who may take a token back; one that raises is `server_error`, and nothing is revoked."""
    token, auth = sts.token(aud="payments"), {"client_id": "worker", "client_secret": SECRETS["worker"]}
    body, headers = [*auth.items(), ("token", token)], FORM.items()

    def raising(*_: object) -> bool:
        raise RuntimeError

    failing = TokenEndpoint(sts.service, may_revoke=raising)
    assert failing.revoke("POST", headers, body).status == 500
    assert sts.post("/introspect", "payments", token=token).json()["active"] is True
    open_to_all = TokenEndpoint(sts.service, may_revoke=lambda *_: True)
    assert open_to_all.revoke("POST", headers, body).status == 200
    assert sts.post("/introspect", "payments", token=token).json() == {"active": False}


def test_what_can_not_be_revoked_now_may_be_tried_again(sts: Running) -> None:
    """§2.2.1: where the store fails the answer is 503 with `Retry-After`, and the token stands."""

    def failing(_: object) -> None:
        raise OSError

    auth = {"client_id": "planner", "client_secret": SECRETS["planner"]}
    body = [*auth.items(), ("token", sts.token())]
    found = TokenEndpoint(sts.service, revoke=failing).revoke("POST", FORM.items(), body)
    assert (found.status, found.header("Retry-After")) == (503, "1")
    assert json.loads(found.body)["error"] == "temporarily_unavailable"


# ---- RFC 8414 and the keys


def test_the_metadata_says_where_the_service_is(sts: Running) -> None:
    """§2, §3: the issuer is the very one, every address is below it, and each method that is there is named."""
    response = sts.http.get("/.well-known/oauth-authorization-server")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    found = response.json()
    assert found["issuer"] == sts.url
    for name, path in [("token", "token"), ("introspection", "introspect"), ("revocation", "revoke")]:
        assert found[f"{name}_endpoint"] == f"{sts.url}/{path}"
        methods = ["client_secret_basic", "client_secret_post", "private_key_jwt"]
        assert found[f"{name}_endpoint_auth_methods_supported"] == methods
        assert "ES256" in found[f"{name}_endpoint_auth_signing_alg_values_supported"]
    assert found["jwks_uri"] == f"{sts.url}/jwks"
    assert found["grant_types_supported"] == [TOKEN_EXCHANGE]
    assert found["response_types_supported"] == []
    assert {"ES256", "Ed25519"} <= set(found["dpop_signing_alg_values_supported"])
    assert "none" not in json.dumps(found)
    assert not [name for name, value in found.items() if value in ([], None) and name != "response_types_supported"]


def test_what_is_not_there_is_not_in_the_metadata() -> None:
    """§2, §3.2: without DPoP, keys of clients or revocation there is no word of them, and no `/revoke`."""
    service, _ = make("https://sts.example/tenant", dpop=None, revoked=None)
    endpoint = TokenEndpoint(service, mutual_tls=True)
    found = endpoint.metadata()
    body = urlencode({"token": "x", "client_id": "planner", "client_secret": SECRETS["planner"]}).encode()
    assert b"unsupported_token_type" in endpoint.revoke("POST", FORM.items(), body).body
    assert not [name for name in found if "dpop" in name or "revocation" in name]
    assert found["token_endpoint"] == "https://sts.example/tenant/token"
    assert found["tls_client_certificate_bound_access_tokens"] is True


def test_the_metadata_is_found_where_the_issuers_path_puts_it() -> None:
    """§3.1: for an issuer with a path, the well-known part comes between host and path."""
    service, _ = make("https://sts.example/tenant")
    app = httpx.ASGITransport(TokenApp(TokenEndpoint(service)))
    import asyncio

    async def asked() -> list[int]:
        async with httpx.AsyncClient(transport=app, base_url="https://sts.example") as http:
            paths = ["/.well-known/oauth-authorization-server/tenant", "/.well-known/oauth-authorization-server/other"]
            return [(await http.get(path)).status_code for path in paths]

    assert asyncio.run(asked()) == [200, 404]


@pytest.mark.parametrize(
    "address",
    [
        "http://sts.example",
        "https://sts.example?x=1",
        "https://sts.example?",
        "https://sts.example#x",
        "https://u@sts.example",
        "sts",
        "https://",
        "https://sts.example:x",
        "file:///sts",
        "https://st\u00e4.example",
    ],
)
def test_an_address_must_be_https_without_query_or_fragment(address: str) -> None:
    """§2: issuer and endpoints are https URLs without query and fragment; http is for loopback only."""
    service, _ = make("http://127.0.0.1:8000")
    found = TokenEndpoint(service, base="https://sts.example/base/").metadata()
    assert found["jwks_uri"] == "https://sts.example/base/jwks"
    with pytest.raises(InvalidArgument):
        TokenEndpoint(service, base=address)
    with pytest.raises(InvalidArgument):
        TokenEndpoint(make(address)[0])


def test_the_keys_are_public_and_may_be_kept_a_while(sts: Running) -> None:
    """RFC 7517 §5: `/jwks` holds public members only, and says how long it may be cached."""
    response = sts.http.get("/jwks")
    assert response.headers["cache-control"] == "public, max-age=300"
    (key,) = response.json()["keys"]
    assert (key["kid"], key["alg"], key["use"]) == ("service-key", "ES256", "sig")
    assert not {"d", "p", "q", "k"} & key.keys()


def test_a_key_counts_from_when_it_is_announced_until_it_is_retired() -> None:
    """A key that is rotated in is published and signs at once; tokens of the old one stand until it is retired."""
    with running() as sts:
        old = sts.token(aud="payments")
        new = SigningKey.generate("ES256", key_id="next")
        sts.service.keys.rotate(new)
        assert [key["kid"] for key in sts.http.get("/jwks").json()["keys"]] == ["next", "service-key"]
        tokens = (old, sts.token(aud="payments", key=new))
        assert [sts.post("/introspect", "payments", token=one).json()["active"] for one in tokens] == [True, True]
        assert sts.exchange().status_code == 200
        sts.service.keys.retire("service-key")
        assert [sts.post("/introspect", "payments", token=one).json()["active"] for one in tokens] == [False, True]
        refused(sts.exchange(), "invalid_request")


# ---- HTTP itself


def test_head_and_options_are_sane(sts: Running) -> None:
    """RFC 9110 §9.3.2, §9.3.7: HEAD is GET without the body, OPTIONS says what is allowed, and paths are exact."""
    got, head = sts.http.get("/jwks"), sts.http.head("/jwks")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(got.content))
    assert sts.http.options("/jwks").headers["allow"] == "GET, HEAD, OPTIONS"
    assert sts.http.options("/token").headers["allow"] == "POST, OPTIONS"
    assert sts.http.options("/token").status_code == 204
    assert sts.http.post("/jwks").status_code == 405
    for path in ("/", "/token/", "/TOKEN", "/tokens", "/../token%00"):
        assert sts.http.get(path).status_code == 404


def test_one_connection_serves_many_requests(sts: Running) -> None:
    """A refused request leaves the connection usable, so that nothing of one request is read as the next."""
    address = urlsplit(sts.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    for _ in range(3):
        connection.request("POST", "/token", body="a=b", headers=FORM)
        response = connection.getresponse()
        assert response.status == 401
        response.read()
    connection.close()


def test_the_loop_is_not_blocked_by_exchanges(monkeypatch: pytest.MonkeyPatch) -> None:
    """While an exchange waits for something slow, other requests are answered."""
    import threading

    with running() as sts:
        started, go_on = threading.Event(), threading.Event()
        exchange = sts.service.exchange

        def slow(*given: Any, **more: Any) -> Any:
            started.set()
            assert go_on.wait(10)
            return exchange(*given, **more)

        monkeypatch.setattr(sts.service, "exchange", slow)
        answered: list[int] = []
        token = sts.token()
        asking = threading.Thread(target=lambda: answered.append(_own_exchange(sts, token)))
        asking.start()
        assert started.wait(10)
        assert sts.http.get("/jwks").status_code == 200
        assert not answered
        go_on.set()
        asking.join(10)
        assert answered == [200]


def _own_exchange(sts: Running, token: str) -> int:
    with httpx.Client(base_url=sts.url, trust_env=False) as client:
        return client.post("/token", data=form(subject_token=token), auth=_planner()).status_code
