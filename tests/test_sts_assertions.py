"""Identity assertions redeemed for a token (RFC 7523, ID-JAG), and transaction tokens replaced."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentauthz.errors import ExchangeRefused
from agentauthz.keys.base64url import from_base64url, to_base64url
from agentauthz.keys.jwk import KeySet
from agentauthz.keys.signing import SigningKey
from agentauthz.sts.ceilings import Target
from agentauthz.sts.clients import Client
from agentauthz.tokens.dpop import DpopKey, DpopVerifier
from agentauthz.tokens.issuers import TrustedIssuer
from agentauthz.tokens.once import MemoryOnce
from agentauthz.tokens.revocation import RevokedTokens
from agentauthz.tokens.types import ID_JAG, ID_TOKEN, JWT_BEARER, TXN_TOKEN
from agentauthz.tokens.validator import Validator
from tests.sts_service import (
    DOCS,
    ENDPOINT,
    EVIL,
    IDP,
    PAY,
    STS,
    TARGETS,
    Service,
    claims_of,
    client,
    granted,
    later,
    refusal,
    token,
)
from tests.support import Clock

DOMAIN = "https://domain.example"


def mapper(token: Any) -> str:
    return f"idp-{token.subject.id}"


@pytest.fixture
def service() -> Service:
    return Service(subject_mapper=mapper)


def assertion(**claims: Any) -> dict[str, Any]:
    """Return the parameters that redeem an ID-JAG of the other issuer."""
    made = {"iss": IDP, "aud": STS, "client_id": "orchestrator", "scope": "read pay", **claims}
    return {"grant_type": JWT_BEARER, "assertion": token(ID_JAG, **made)}


def test_an_id_jag_is_redeemed_for_an_access_token(service: Service) -> None:
    """The client acts for the person, and gets no more than the assertion's scopes."""
    issued = service.exchange(**assertion(), audience="helper", scope="read")
    claims = claims_of(issued)
    assert (claims["iss"], claims["sub"], claims["aud"], claims["scope"]) == (STS, "idp-alice", "helper", "read")
    assert claims["act"]["sub"] == "orchestrator"
    assert issued.token_type == "Bearer"
    answer = refusal(service, **assertion(), audience="helper", scope="write")
    assert answer[:2] == ("invalid_scope", "scope_beyond_subject")
    assert refusal(service, **assertion(scope=None), audience="helper")[:2] == (
        "invalid_scope",
        "subject_without_scope",
    )


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": [STS, DOCS]}, "subject_token_aud"), ({"aud": DOCS}, "assertion_audience"),
        ({"aud": ENDPOINT}, "assertion_audience"), ({"iss": STS}, "assertion_issuer"),
        ({"client_id": "helper"}, "assertion_client"), ({"client_id": "orchestrator-at-idp"}, "assertion_client"),
        ({"client_id": None}, "subject_token_client_id"), ({"jti": None}, "subject_token_jti"),
        ({"exp": later(seconds=-31), "iat": later(hours=-1)}, "subject_token_expired"),
    ],
)  # fmt: skip
def test_84_an_id_jag_is_for_this_service_and_this_client(
    service: Service, claims: dict[str, Any], reason: str
) -> None:
    """Case 84: two audiences, another one, an assertion to oneself or for another client is `invalid_grant`."""
    assert refusal(service, **assertion(**claims), audience="helper") == ("invalid_grant", reason, 400)
    assert granted(service, **assertion(), audience="helper")["sub"] == "idp-alice"


def test_84_an_id_jag_is_redeemed_once(service: Service) -> None:
    """Case 84: the second time is refused; a refusal for another reason doesn't use it up."""
    once = assertion()
    assert refusal(service, **once, audience="unknown")[0] == "invalid_target"
    assert granted(service, **once, audience="helper")["aud"] == "helper"
    assert refusal(service, **once, audience="helper") == ("invalid_grant", "replayed", 400)


def test_84_a_refusal_by_the_policy_uses_nothing_up() -> None:
    """Case 84: an assertion that the policy refuses for one scope is still good for another; a replay is a denial."""
    service = Service('permit reading on token.exchange when args.scope == ["read"]', subject_mapper=mapper)
    once = assertion()
    assert refusal(service, **once, audience="helper")[:2] == ("invalid_grant", "not_permitted")
    assert granted(service, **once, audience="helper", scope="read")["scope"] == "read"
    assert refusal(service, **once, audience="helper", scope="read") == ("invalid_grant", "replayed", 400)


def test_84_one_of_many_threads_redeems_an_assertion() -> None:
    """Case 84: of 16 threads that redeem one assertion at once, one gets a token, and each leaves a record."""
    service, once, start = Service(subject_mapper=mapper), assertion(), threading.Barrier(16)

    def redeem(_: int) -> bool:
        start.wait()
        try:
            return bool(service.exchange(**once, audience="helper").access_token)
        except ExchangeRefused:
            return False

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(redeem, range(16))) == 1
    assert sorted(record.outcome for record in service.records) == ["allow", *["deny"] * 15]
    assert [effect.status for effect in service.sink.effects] == ["done"]


def test_what_counts_once_without_jti_counts_once() -> None:
    """A signature of ECDSA can be written in two ways; both are the same token, used or revoked."""
    clock, key = Clock(), SigningKey.generate("ES256", key_id="idp")
    trusted = TrustedIssuer(STS, KeySet([key.public_key()]), ["any"], token_kinds=["id"])
    checking, revoked = Validator([trusted], clock=clock), RevokedTokens(clock=clock)
    limits = {"single_use": ["id-jag", "id"]}
    service = Service(verifiers={ID_TOKEN: checking}, revoked=revoked, limits=limits)
    one, other = (token(ID_TOKEN, key=key, jti=None, sub=sub) for sub in ("alice", "bob"))
    given = {"subject_token_type": ID_TOKEN, "audience": DOCS}
    assert granted(service, subject_token=one, **given)["sub"] == "alice"
    assert refusal(service, subject_token=written_anew(one), **given)[1] == "replayed"
    revoked.revoke(checking.genuine(other, kind="id"))
    assert refusal(service, subject_token=written_anew(other), **given)[1] == "subject_token_revoked"
    assert checking.genuine(written_anew(other), kind="id").subject.id == "bob"


def written_anew(raw: str) -> str:
    """Return a token with the other one of the two signatures (r, s) and (r, -s) of P-256."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signed, _, signature = raw.rpartition(".")
    both = from_base64url(signature)
    assert both is not None
    s = order - int.from_bytes(both[32:])
    return f"{signed}.{to_base64url(both[:32] + s.to_bytes(32))}"


def test_84_a_store_that_fails_redeems_nothing() -> None:
    """A replay store that raises, or is full, isn't taken for "first time"."""

    class Failing:
        def once(self, key: str, expires: Any) -> bool:
            raise ConnectionError("store")

    service = Service(subject_mapper=mapper, replay=Failing())
    assert refusal(service, **assertion(), audience="helper") == ("server_error", "replay", 500)
    full = Service(subject_mapper=mapper, replay=MemoryOnce(1, clock=Clock()))
    assert granted(full, **assertion(), audience="helper")["aud"] == "helper"
    assert refusal(full, **assertion(), audience="helper") == ("server_error", "replay", 500)


def test_other_kinds_can_count_once_too() -> None:
    """`single_use` extends to other kinds of subject tokens."""
    service = Service(limits={"single_use": ["id-jag", "access"]})
    given = {"subject_token": token(), "audience": "helper"}
    assert granted(service, **given)["aud"] == "helper"
    assert refusal(service, **given)[:2] == ("invalid_request", "replayed")


def test_85_a_bound_id_jag_needs_its_key() -> None:
    """Case 85: an assertion that is bound to a key isn't redeemed without proof of it, nor bound anew."""
    clock = Clock()
    service = Service(subject_mapper=mapper, dpop=DpopVerifier(MemoryOnce(clock=clock), clock=clock))
    own, other = (DpopKey(SigningKey.generate("ES256"), clock=clock) for _ in range(2))
    bound = assertion(cnf={"jkt": own.thumbprint})
    assert refusal(service, **bound, audience="helper")[:2] == ("invalid_grant", "assertion_unproven")
    wrong = {"dpop": other.proof("POST", ENDPOINT), "uri": ENDPOINT}
    assert refusal(service, **bound, audience="helper", **wrong)[:2] == ("invalid_grant", "assertion_unproven")
    right = {"dpop": own.proof("POST", ENDPOINT), "uri": ENDPOINT}
    assert granted(service, **bound, audience="helper", **right)["cnf"] == {"jkt": own.thumbprint}


def test_an_id_jag_may_be_for_some_resources_only(service: Service) -> None:
    """A `resource` in the assertion is a ceiling, and what is meant where the request says nothing."""
    assert granted(service, **assertion(resource=PAY))["aud"] == PAY
    assert granted(service, **assertion(resource=[PAY, "helper"]), audience="helper")["aud"] == "helper"
    answer = refusal(service, **assertion(resource=PAY), audience="helper")
    assert answer[:2] == ("invalid_target", "target_beyond_subject")
    assert refusal(service, **assertion())[:2] == ("invalid_target", "target_missing")
    assert refusal(service, **assertion(resource=7), audience="helper")[:2] == ("invalid_grant", "assertion_resource")


def test_an_id_jag_goes_no_further_than_a_target_lets_it(service: Service) -> None:
    """`reached_from` holds for assertions too: this service's issuer is what they are for, unless they name it."""
    answer = refusal(service, **assertion(), audience="mail")
    assert answer[:2] == ("invalid_target", "target_beyond_subject")
    assert granted(service, **assertion(resource="mail"), audience="mail")["aud"] == "mail"
    for sources, reached in (([STS], True), (["orchestrator"], False)):
        open_to = Service(subject_mapper=mapper, targets=[Target("mail", scopes=["read"], reached_from=sources)])
        if reached:
            assert granted(open_to, **assertion(), audience="mail")["aud"] == "mail"
        else:
            assert refusal(open_to, **assertion(), audience="mail")[1] == "target_beyond_subject"


def test_the_two_grants_do_not_mix(service: Service) -> None:
    """An ID-JAG isn't exchanged, and the other grant takes none of the exchange's parameters."""
    jag = assertion()["assertion"]
    answer = refusal(service, subject_token=jag, subject_token_type=ID_JAG, audience="helper")
    assert answer[:2] == ("invalid_request", "subject_token_type")
    for name in ("subject_token", "actor_token", "requested_token_type", "impersonate"):
        answer = refusal(service, **{**assertion(), name: "true"}, audience="helper")
        assert answer[:2] == ("invalid_request", "parameter_of_another_grant")
    answer = refusal(service, grant_type=JWT_BEARER, audience="helper")
    assert answer[:2] == ("invalid_request", "assertion_missing")


def test_an_access_token_is_no_assertion(service: Service) -> None:
    """Only an ID-JAG is redeemed (decision 13), from an issuer that is trusted."""
    given = {"grant_type": JWT_BEARER, "audience": "helper"}
    assert refusal(service, **given, assertion=token(aud=STS))[:2] == ("invalid_grant", "subject_token_typ")
    assert refusal(service, **assertion(iss=EVIL), audience="helper")[:2] == ("invalid_grant", "subject_token_issuer")


def test_the_policy_decides_on_assertions_too() -> None:
    """A denial is `invalid_grant` here (RFC 7523 §3.1), and as generic."""
    service = Service("permit others on token.impersonate when true", subject_mapper=mapper)
    assert refusal(service, **assertion(), audience="helper")[0] == "invalid_grant"
    assert service.records[-1].action.name == "token.exchange"


def test_a_client_that_asserted_itself_continues() -> None:
    """An `act` that names the client by its name at the other issuer is the client: nothing is nested twice."""
    service = Service(subject_mapper=mapper)
    act = {"iss": IDP, "sub": "orchestrator-at-idp", "sub_profile": "ai_agent"}
    assert granted(service, **assertion(act=act), audience="helper")["act"] == act


# ---- transaction tokens


def domain_client(name: str) -> Client:
    return client(name, serves=[DOMAIN])


def replaced(service: Service, raw: str, **parameters: Any) -> dict[str, Any]:
    return granted(service, domain_client("helper"), subject_token=raw, subject_token_type=TXN_TOKEN, **parameters)


def txn(**claims: Any) -> str:
    made = {"aud": DOMAIN, "client_id": None, "scope": "read pay", "txn": "t-1", "tctx": {"order": 7}, **claims}
    return token(TXN_TOKEN, **made)


def test_86_a_replacement_keeps_its_transaction() -> None:
    """Case 86: a narrower replacement has the same `txn`, `sub`, `aud` and context, and one actor more."""
    claims = replaced(Service(), txn(act={"iss": STS, "sub": "desk"}), scope="read")
    assert (claims["txn"], claims["sub"], claims["aud"], claims["scope"]) == ("t-1", "alice", DOMAIN, "read")
    assert (claims["tctx"], claims["req_wl"]) == ({"order": 7}, "helper")
    assert claims["act"]["act"] == {"iss": STS, "sub": "desk"}
    assert claims["exp"] <= later(hours=1)


@pytest.mark.parametrize(
    ("claims", "parameters", "reason"),
    [
        ({}, {"scope": "read write"}, "scope_beyond_subject"),
        ({"scope": None}, {}, "subject_without_scope"),
        ({}, {"audience": "https://second.example"}, "transaction_audience"),
        ({}, {"audience": [DOMAIN, "https://second.example"]}, "transaction_audience"),
        ({}, {"audience": "helper"}, "target_token_type"),
        ({"aud": "https://other-domain.example"}, {"audience": DOMAIN}, "presenter"),
        ({"iss": IDP}, {}, "transaction_issuer"),
        ({"txn": None}, {}, "subject_token_txn"),
        ({"exp": later(seconds=-5), "iat": later(minutes=-5)}, {}, "no_life_left"),
        ({"exp": later(seconds=-31), "iat": later(minutes=-5)}, {}, "subject_token_expired"),
    ],
)  # fmt: skip
def test_86_a_replacement_never_widens_or_changes(
    claims: dict[str, Any], parameters: dict[str, Any], reason: str
) -> None:
    """Case 86: a wider scope, another `aud`, `sub` or `txn`, or an expired token is `invalid_request`."""
    second = Target("https://second.example", scopes=["read", "pay"], token_types=[TXN_TOKEN])
    service = Service(subject_mapper=mapper, targets=[*TARGETS, second])
    asker = client("helper", serves=[DOMAIN], audiences=[DOMAIN, "https://second.example", "helper"])
    given = {"subject_token": txn(**claims), "subject_token_type": TXN_TOKEN, **parameters}
    assert refusal(service, asker, **given) == ("invalid_request", reason, 400)
    assert replaced(service, txn(), scope="pay")["scope"] == "pay"
