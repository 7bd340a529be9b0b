"""What a request to the token service must look like, and what is answered: RFC 8693 §2.1, §2.2."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentauthz.errors import ExchangeRefused, InvalidArgument
from agentauthz.keys.signing import SigningKey
from agentauthz.sts.ceilings import StsLimits, Target
from agentauthz.sts.clients import Client, Clients
from agentauthz.sts.service import SecurityTokenService
from agentauthz.tokens.types import (
    ACCESS_TOKEN,
    ID_JAG,
    ID_TOKEN,
    JWT,
    JWT_BEARER,
    REFRESH_TOKEN,
    SAML1,
    SAML2,
    TOKEN_EXCHANGE,
    TXN_TOKEN,
)
from tests.sts_service import (
    DOCS,
    KEYS,
    ORCHESTRATOR,
    PAY,
    STS,
    TARGETS,
    Service,
    actor_token,
    client,
    granted,
    pairs,
    refusal,
    token,
)

GOOD = {"audience": "helper", "scope": "read"}


@pytest.fixture
def service() -> Service:
    return Service()


def refused_pairs(service: Service, given: list[tuple[Any, Any]]) -> tuple[str, str]:
    """Return the error and the recorded reason for raw parameters."""
    with pytest.raises(ExchangeRefused) as raised:
        service.service.exchange(given, ORCHESTRATOR)
    assert len(service.records) == 1
    return raised.value.error, service.records[0].reasons[0].code


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize("name", ["subject_token", "subject_token_type"])
def test_47_a_subject_token_and_its_type_are_needed(service: Service, name: str, value: str | None) -> None:
    """Case 47: without a subject token, or without its type, or with an empty one, the request is invalid."""
    good = {"subject_token": token(), "subject_token_type": ACCESS_TOKEN, **GOOD}
    assert refusal(service, **{**good, name: value}) == ("invalid_request", "subject_token_missing", 400)
    assert granted(service, **good)["sub"] == "alice"


def test_48_an_actor_token_goes_with_its_type(service: Service) -> None:
    """Case 48, R2: `actor_token` and `actor_token_type` come together or not at all (RFC 8693 §2.1)."""
    good = {"subject_token": token(), "actor_token": actor_token(), "actor_token_type": ACCESS_TOKEN, **GOOD}
    for name in ("actor_token", "actor_token_type"):
        for left_out in (None, ""):
            assert refusal(service, **{**good, name: left_out})[:2] == ("invalid_request", "actor_token_pairing")
    assert granted(service, **good)["act"]["sub"] == "orchestrator"


@pytest.mark.parametrize(
    "name",
    [
        "grant_type", "subject_token", "subject_token_type", "actor_token", "actor_token_type", "scope",
        "requested_token_type", "authorization_details", "impersonate", "client_id", "unknown",
    ],
)  # fmt: skip
def test_49_what_has_one_value_comes_once(service: Service, name: str) -> None:
    """Case 49: any parameter twice is an invalid request, even with the same value; only two may be repeated (R5)."""
    good = pairs(
        subject_token=token(), audience=[DOCS, "helper"], scope="read", **({name: "x"} if name == "unknown" else {})
    )
    twice = dict(good).get(name, "x")
    once = [pair for pair in good if pair[0] != name]
    assert refused_pairs(service, [*once, (name, twice), (name, twice)]) == ("invalid_request", "parameter_twice")
    assert service.service.exchange(good, ORCHESTRATOR).scopes == ("read",)


@pytest.mark.parametrize(
    "resource",
    [
        "/api",
        "pay.example/api",
        "https://pay.example/api#part",
        f"{PAY}#",
        "not a uri",
        "https:",
        "https://pay.example/\n",
    ],
)
def test_50_a_resource_is_an_absolute_uri_without_fragment(service: Service, resource: str) -> None:
    """Case 50, R4: a relative resource, one with a fragment, or no URI at all is an invalid target (RFC 8707 §2)."""
    good = {"subject_token": token(), "scope": "read"}
    assert refusal(service, **good, resource=resource)[:2] == ("invalid_target", "resource_malformed")
    assert granted(service, **good, resource=PAY)["aud"] == PAY


@pytest.mark.parametrize("type_uri", [REFRESH_TOKEN, SAML1, SAML2, ID_JAG, "urn:unknown", "access_token"])
def test_51_only_known_types_are_exchanged(service: Service, type_uri: str) -> None:
    """Case 51: a subject's or actor's token of a type that isn't taken is an invalid request."""
    given = {"subject_token": token(), "subject_token_type": type_uri, **GOOD}
    assert refusal(service, **given)[:2] == ("invalid_request", "subject_token_type")
    given = {"subject_token": token(), "actor_token": actor_token(), "actor_token_type": type_uri, **GOOD}
    assert refusal(service, **given)[:2] == ("invalid_request", "actor_token_type")


@pytest.mark.parametrize(
    ("declared", "really"),
    [
        (ACCESS_TOKEN, ID_TOKEN), (ACCESS_TOKEN, JWT), (ACCESS_TOKEN, ID_JAG), (ACCESS_TOKEN, TXN_TOKEN),
        (ID_TOKEN, ACCESS_TOKEN), (JWT, ACCESS_TOKEN), (JWT, ID_JAG), (TXN_TOKEN, ACCESS_TOKEN),
    ],
)  # fmt: skip
def test_51_a_token_is_what_it_is_declared_to_be(service: Service, declared: str, really: str) -> None:
    """Case 51, R1: each token is validated as the type that the request declares, and its `typ` must be of it."""
    given = {"subject_token": token(really), "subject_token_type": declared, "audience": "helper"}
    assert refusal(service, **given)[:2] == ("invalid_request", "subject_token_typ")
    if declared != TXN_TOKEN:
        assert granted(service, **{**given, "subject_token": token(declared)})["aud"] == "helper"


def test_51_a_refresh_token_passed_off_as_a_jwt_is_refused(service: Service) -> None:
    """Case 51: an opaque refresh token is no JWT, whatever is declared."""
    given = {"subject_token": "opaque-refresh-token", "subject_token_type": JWT, **GOOD}
    assert refusal(service, **given)[:2] == ("invalid_request", "subject_token_malformed")


def test_51_a_type_without_verifier_is_refused() -> None:
    """A known type for which the service has no verifier isn't taken."""
    service = Service()
    only = Service(verifiers={ACCESS_TOKEN: service.validator})
    given = {"subject_token": token(ID_TOKEN), "subject_token_type": ID_TOKEN, **GOOD}
    assert refusal(only, **given)[:2] == ("invalid_request", "subject_token_type")
    assert granted(only, subject_token=token(), **GOOD)["sub"] == "alice"


@pytest.mark.parametrize("type_uri", [REFRESH_TOKEN, SAML1, SAML2, ID_TOKEN, "urn:unknown"])
def test_52_only_known_types_are_issued(service: Service, type_uri: str) -> None:
    """Case 52: a refresh token, SAML or an unknown type is never issued; what is asked for is what is issued (R7)."""
    given = {"subject_token": token(), **GOOD}
    assert refusal(service, **given, requested_token_type=type_uri)[:2] == ("invalid_request", "requested_token_type")
    for good in (ACCESS_TOKEN, JWT):
        assert service.exchange(**given, requested_token_type=good).issued_token_type == good


def test_52_an_id_jag_is_issued_for_an_id_token_only(service: Service) -> None:
    """An access token doesn't become an assertion of identity, nor a transaction token an access token."""
    given = {"subject_token": token(), "audience": "helper", "requested_token_type": ID_JAG}
    assert refusal(service, **given)[:2] == ("invalid_request", "requested_token_type")
    given = {"subject_token": token(TXN_TOKEN), "subject_token_type": TXN_TOKEN, "requested_token_type": ACCESS_TOKEN}
    assert refusal(service, **given)[:2] == ("invalid_request", "requested_token_type")


def test_54_a_client_without_the_grant_is_refused_before_any_token_is_looked_at(service: Service) -> None:
    """Case 54: neither grant is had without registration for it, and the token isn't touched."""
    without = client("orchestrator", grant_types=())
    assert refusal(service, without, subject_token="junk", **GOOD)[:2] == ("unauthorized_client", "client_grant")
    only_exchange = client("orchestrator")
    assertion = {"grant_type": JWT_BEARER, "assertion": "junk"}
    assert refusal(service, only_exchange, **assertion)[:2] == ("unauthorized_client", "client_grant")
    assert granted(service, only_exchange, subject_token=token(), **GOOD)["sub"] == "alice"


def test_r3_a_public_client_is_never_granted_an_exchange(service: Service) -> None:
    """R3, case 53: whoever can't authenticate could trade a leaked token up (RFC 8693 §2.1, §5)."""
    public = Client("orchestrator", public=True, scopes=["read"], audiences=["helper"])
    answer = refusal(service, public, subject_token=token(), **GOOD)
    assert answer[:2] == ("unauthorized_client", "client_public")


def test_another_grant_is_not_supported(service: Service) -> None:
    """A grant that isn't one of the two gets its own error; none at all is an invalid request."""
    assert refusal(service, grant_type="client_credentials")[:2] == ("unsupported_grant_type", "grant_type")
    assert refusal(service, grant_type=None)[:2] == ("invalid_request", "grant_type_missing")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([("x" * 100, "y")] * 65, "parameter_twice"),
        ([(f"x{number}", "y") for number in range(65)], "request_too_large"),
        ([("x", "y" * 200_000)], "request_too_large"),
        ([("x", 7)], "parameter_type"),
        ([(b"x", "y")], "parameter_type"),
    ],
)
def test_a_request_has_bounds(service: Service, given: list[tuple[Any, Any]], reason: str) -> None:
    """Too many parameters, too much text, or something that is no text is refused before it is read."""
    assert refused_pairs(service, given) == ("invalid_request", reason)


def test_too_many_targets_are_refused(service: Service) -> None:
    """R10: more than 16 targets are an invalid target, not the first 16."""
    many = [f"target-{number}" for number in range(17)]
    assert refusal(service, subject_token=token(), audience=many)[:2] == ("invalid_target", "audience_malformed")


@pytest.mark.parametrize(
    "scope", ["read  write", " read", "read ", 're"ad', "re\\ad", "réad", "read\twrite", "x" * 5000]
)
def test_a_malformed_scope_is_refused(service: Service, scope: str) -> None:
    """A scope is names with one space between them, in the characters of RFC 6749 §3.3."""
    answer = refusal(service, subject_token=token(), audience="helper", scope=scope)
    assert answer[:2] == ("invalid_scope", "scope_malformed")


@pytest.mark.parametrize(
    "details",
    ["{}", "[]", "[1]", '[{"kind": "payment"}]', '[{"type": ""}]', '[{"type": 7}]', "[{]",
     '[{"type": "payment"}], "x": 1', '[{"type":"a","type":"b"}]',
     "[" * 50 + "]" * 50, json.dumps([{"type": "payment", "x": "y" * 20_000}])],
)  # fmt: skip
def test_malformed_authorization_details_are_refused(service: Service, details: str) -> None:
    """They are a JSON array, not empty, of objects that each have a `type` (RFC 9396 §2, §5)."""
    answer = refusal(service, subject_token=token(), audience="helper", authorization_details=details)
    assert answer[:2] == ("invalid_authorization_details", "authorization_details_malformed")


def test_r7_r8_r9_the_answer_says_what_was_issued(service: Service) -> None:
    """R7, R8, R9: type, presentation, life and scopes are always told; what is no access token is `N_A`."""
    body = service.exchange(subject_token=token(), audience="helper", scope="read pay").body()
    assert body.pop("access_token")
    assert body == {
        "issued_token_type": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 600, "scope": "read pay",
    }  # fmt: skip
    other = service.exchange(subject_token=token(), audience="helper", requested_token_type=JWT).body()
    assert (other["token_type"], other["scope"]) == ("N_A", "read write pay")
    assert "refresh_token" not in other


def test_r6_scopes_are_for_every_target(service: Service) -> None:
    """R6: a scope that one of the targets doesn't have is refused for all of them (RFC 8693 §2.1.1)."""
    given = {"subject_token": token(), "audience": [DOCS, "helper"]}
    assert refusal(service, **given, scope="read pay")[:2] == ("invalid_scope", "scope_beyond_target")
    claims = granted(service, **given)
    assert (claims["aud"], claims["scope"]) == ([DOCS, "helper"], "read write")


def test_r10_r14_what_is_not_acceptable_is_an_invalid_request(service: Service) -> None:
    """R10, R14: a token that isn't acceptable gives `invalid_request`, never `invalid_grant` (RFC 8693 §2.2.2)."""
    expired = token(exp=int(service.clock.now.timestamp()) - 31)
    assert refusal(service, subject_token=expired, **GOOD)[0] == "invalid_request"
    elsewhere = token(may_act={"iss": STS, "sub": "someone"})
    assert refusal(service, subject_token=elsewhere, **GOOD)[0] == "invalid_request"


def test_refused_before_it_began_is_recorded_too(service: Service) -> None:
    """What the endpoint refuses, such as an unknown client, leaves a record; who asked is nobody unless proven."""
    refused = service.service.refused(ExchangeRefused("invalid_client", "client_secret", status=401))
    (record,) = service.records
    assert (refused.error, refused.status, refused.record_id) == ("invalid_client", 401, record.id)
    assert [(actor.sub, actor.iss) for actor in record.actors] == [("nobody", None)]
    service.service.refused(refused, client=ORCHESTRATOR.principal(STS))
    assert [(actor.sub, actor.iss) for actor in service.records[1].actors] == [("orchestrator", STS)]


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"issuer": "http://sts.example"}, "issuer"), ({"issuer": "https://sts.example?x"}, "issuer"),
        ({"issuer": "sts"}, "issuer"), ({"targets": [*TARGETS, Target(DOCS)]}, "targets"),
        ({"verifiers": {REFRESH_TOKEN: None}}, "verifiers"), ({"verifiers": {ID_JAG: None}}, "replay"),
        ({"limits": StsLimits(single_use=["id-jag", "access"])}, "replay"),
        ({"transcribed": ["acr", "may_act"]}, "transcribed"), ({"transcribed": ["nonce"]}, "transcribed"),
    ],
)  # fmt: skip
def test_r16_a_service_that_would_not_be_safe_is_not_made(options: dict[str, Any], argument: str) -> None:
    """R16: plain http, two targets of one name, or claims that are the service's own are mistakes at the start."""
    given = {"issuer": STS, "verifiers": {}, "targets": TARGETS, **options}
    with pytest.raises(InvalidArgument) as raised:
        SecurityTokenService(
            given.pop("issuer"), KEYS[STS], given.pop("verifiers"), Clients([]), Service().authorizer, **given
        )
    assert raised.value.argument == argument


def test_plain_http_is_for_loopback(service: Service) -> None:
    """R16: http is taken where nobody listens in between."""
    made = SecurityTokenService(
        "http://127.0.0.1:8000", SigningKey.generate(), {}, Clients([]), service.authorizer, targets=[]
    )
    assert repr(made) == "SecurityTokenService('http://127.0.0.1:8000')"


@pytest.mark.parametrize("make", [
    lambda: Target(""), lambda: Target("x", by="scope"), lambda: Target("x", scopes="read"),  # type: ignore[arg-type]
    lambda: StsLimits(depth=0), lambda: StsLimits(depth=17), lambda: StsLimits(single_use=()),
])  # fmt: skip
def test_ceilings_are_well_formed(make: Any) -> None:
    """A target without a name, one text where a list is meant, or a limit that limits nothing is refused."""
    with pytest.raises(InvalidArgument):
        make()


def test_the_grant_type_is_exact(service: Service) -> None:
    """The grant is compared character by character."""
    assert refusal(service, grant_type=TOKEN_EXCHANGE.upper())[0] == "unsupported_grant_type"
