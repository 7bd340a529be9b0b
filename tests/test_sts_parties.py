"""Who may present a token, who acts, and for whom: RFC 8693 §2.1, §4; the binding of tokens to keys."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from agentauthz.errors import ExchangeRefused
from agentauthz.keys.signing import SigningKey
from agentauthz.sts.clients import Client
from agentauthz.tokens import jws
from agentauthz.tokens.claims import ActLimits
from agentauthz.tokens.confirmation import certificate_thumbprint
from agentauthz.tokens.dpop import DpopKey, DpopVerifier, Nonces
from agentauthz.tokens.issuers import TokenLimits
from agentauthz.tokens.once import MemoryOnce
from agentauthz.tokens.revocation import RevokedTokens
from agentauthz.tokens.types import ACCESS_TOKEN, ID_JAG, ID_TOKEN, JWT
from tests.sts_service import (
    ENDPOINT,
    EVIL,
    HELPER,
    IDP,
    KEYS,
    ORCHESTRATOR,
    PAY,
    STRANGER,
    STS,
    Service,
    actor_token,
    claims_of,
    client,
    granted,
    later,
    refusal,
    token,
    validator,
)
from tests.support import NOON, Clock

GOOD = {"audience": "helper", "scope": "read"}


@pytest.fixture
def service() -> Service:
    return Service()


def with_dpop(**options: Any) -> tuple[Service, DpopKey, DpopKey]:
    """Return a service that checks proofs, and two keys."""
    clock = Clock()
    service = Service(dpop=DpopVerifier(MemoryOnce(clock=clock), clock=clock), **options)
    return service, key(service), key(service)


def key(service: Service) -> DpopKey:
    return DpopKey(SigningKey.generate("ES256"), clock=service.clock)


def proof(by: DpopKey) -> dict[str, Any]:
    return {"dpop": [by.proof("POST", ENDPOINT)], "uri": ENDPOINT}


# ---- what a token has to be


BAD_TOKENS = [
    ("expired", {"exp": later(seconds=-31), "iat": later(hours=-1)}, None),
    ("signature", {}, "other key"),
    ("issuer", {"iss": EVIL}, None),
    ("not_yet_valid", {"nbf": later(minutes=5)}, None),
    ("act", {"act": []}, None),
]


@pytest.mark.parametrize(("reason", "claims", "signed"), BAD_TOKENS)
def test_55_a_bad_subject_token_is_an_invalid_request(
    service: Service, reason: str, claims: dict[str, Any], signed: str | None
) -> None:
    """Case 55: expired, forged, from another issuer or malformed, the answer is the same, the record precise."""
    forger = SigningKey.generate(key_id=STS) if signed else None
    answer = refusal(service, subject_token=token(key=forger, **claims), **GOOD)
    assert answer == ("invalid_request", f"subject_token_{reason}", 400)
    assert granted(service, subject_token=token(), **GOOD)["sub"] == "alice"


@pytest.mark.parametrize(("reason", "claims", "signed"), BAD_TOKENS)
def test_55_a_bad_actor_token_is_an_invalid_request(
    service: Service, reason: str, claims: dict[str, Any], signed: str | None
) -> None:
    """Case 55: the actor's token is validated as strictly as the subject's (R1)."""
    forger = SigningKey.generate(key_id=STS) if signed else None
    bad = actor_token(key=forger, **claims)
    answer = refusal(service, subject_token=token(), actor_token=bad, **GOOD)
    assert answer == ("invalid_request", f"actor_token_{reason}", 400)
    assert granted(service, subject_token=token(), actor_token=actor_token(), **GOOD)["act"]["sub"] == "orchestrator"


def test_55_a_revoked_token_is_refused() -> None:
    """Case 55: revoked subject's and actor's tokens are refused, as is what was exchanged from a revoked one."""
    revoked = RevokedTokens()
    service = Service(revoked=revoked)
    subject, actor, parent = token(jti="s"), actor_token(jti="a"), token(jti="p")
    child = service.exchange(subject_token=parent, audience="helper").access_token
    assert granted(service, HELPER, subject_token=child, resource=PAY)["aud"] == PAY
    for one in (subject, actor, parent):
        revoked.revoke(service.validator.genuine(one, kind="access"))
    assert refusal(service, subject_token=subject, **GOOD)[:2] == ("invalid_request", "subject_token_revoked")
    given = {"subject_token": token(), "actor_token": actor, **GOOD}
    assert refusal(service, **given)[:2] == ("invalid_request", "actor_token_revoked")
    answer = refusal(service, HELPER, subject_token=child, resource=PAY)
    assert answer[:2] == ("invalid_request", "subject_token_revoked")


def test_55_what_is_not_known_to_stand_is_refused() -> None:
    """A revocation list that can't tell, or fails, lets nothing pass: the service is unavailable, and says so."""

    def failing(_: object) -> bool:
        raise RuntimeError("the store is down")

    for answer in (failing, lambda _: None, lambda _: 0):
        service = Service(revoked=answer)
        expected = ("temporarily_unavailable", "subject_token_revocation", 503)
        assert refusal(service, subject_token=token(), **GOOD) == expected
    service = Service()
    unknown = validator(service.clock, revocation=lambda _: None)
    service = Service(verifiers={ACCESS_TOKEN: unknown})
    expected = ("temporarily_unavailable", "subject_token_revocation_unavailable", 503)
    assert refusal(service, subject_token=token(), **GOOD) == expected


# ---- who presents it


def test_56_a_stolen_token_is_worth_nothing(service: Service) -> None:
    """Case 56: who is neither in `aud` nor its client, and proves no key, can't exchange it; the record shows them."""
    stolen = token(jti="stolen")
    assert refusal(service, STRANGER, subject_token=stolen, **GOOD)[:2] == ("invalid_request", "presenter")
    assert [actor.sub for actor in service.records[-1].actors] == ["alice", "stranger"]
    assert granted(service, subject_token=stolen, **GOOD)["act"]["sub"] == "orchestrator"


def test_56_the_audience_may_be_a_name_that_the_client_serves(service: Service) -> None:
    """A resource server is known by its URL in `aud`, which its registration ties to it."""
    given = {"subject_token": token(aud=["https://orchestrator.example", "x"]), **GOOD}
    assert granted(service, **given)["client_id"] == "orchestrator"
    assert refusal(service, STRANGER, **given)[1] == "presenter"


def test_56_the_client_that_a_token_was_issued_to_may_present_it(service: Service) -> None:
    """`client_id`, or `azp`, names the presenter; for a target that the token is for already."""
    given = {"subject_token": token(aud="helper", client_id="orchestrator"), **GOOD}
    assert granted(service, **given)["aud"] == "helper"


def test_56_the_same_name_at_another_issuer_is_another_client(service: Service) -> None:
    """A foreign issuer's `client_id` or `aud` isn't our client of that name (decision 3: pairs, not names)."""
    service = Service(subject_mapper=lambda token: f"idp-{token.subject.id}")
    foreign = token(iss=IDP, aud="orchestrator", client_id="orchestrator")
    assert refusal(service, subject_token=foreign, **GOOD)[1] == "presenter"
    known = token(iss=IDP, aud="orchestrator-at-idp")
    assert granted(service, subject_token=known, **GOOD)["sub"] == "idp-alice"


@pytest.mark.parametrize(
    "claims",
    [{"aud": "other"}, {"aud": ["orchestrator", "other"], "azp": "other"}, {"aud": "other", "azp": "orchestrator"}],
)
def test_57_an_id_token_is_for_its_client(service: Service, claims: dict[str, Any]) -> None:
    """Case 57: an ID token with another `aud` or `azp` isn't the presenter's (OpenID Connect Core §3.1.3.7)."""
    given = {"subject_token_type": ID_TOKEN, **GOOD}
    answer = refusal(service, subject_token=token(ID_TOKEN, **claims), **given)
    assert answer[:2] == ("invalid_request", "id_token_client")
    own = token(ID_TOKEN, aud=["orchestrator", "other"], azp="orchestrator")
    assert granted(service, subject_token=own, **given)["scope"] == "read"


# ---- who acts


def test_58_an_actor_token_is_the_clients_own(service: Service) -> None:
    """Case 58: another client's token doesn't make its owner the actor."""
    given = {"subject_token": token(), **GOOD}
    answer = refusal(service, **given, actor_token=actor_token("helper"))
    assert answer[:2] == ("invalid_request", "actor_token_presenter")
    assert granted(service, **given, actor_token=actor_token("orchestrator"))["act"]["sub"] == "orchestrator"


def test_58_subject_and_actor_cannot_be_swapped(service: Service) -> None:
    """Case 58: a person's token as the actor's, even one that was issued to this client, is refused."""
    alice = token(aud="orchestrator", client_id="orchestrator")
    agent = actor_token("orchestrator", aud="orchestrator", scope="read")
    answer = refusal(service, subject_token=agent, actor_token=alice, **GOOD)
    assert answer[:2] == ("invalid_request", "actor_is_person")
    assert granted(service, subject_token=alice, actor_token=agent, **GOOD)["act"]["sub"] == "orchestrator"


def test_58_an_instance_of_the_client_may_act(service: Service) -> None:
    """An actor token that was issued to the client names the actor, with its own issuer."""
    instance = actor_token("orchestrator", sub="run-7", sub_profile="ai_agent")
    claims = granted(service, subject_token=token(), actor_token=instance, **GOOD)
    assert claims["act"] == {"iss": STS, "sub": "run-7", "sub_profile": "ai_agent"}


def test_59_an_actor_token_with_actors_of_its_own_is_refused(service: Service) -> None:
    """Case 59, decision 1: only the subject's chain goes on, so an actor token has none."""
    chained = actor_token("orchestrator", act={"iss": STS, "sub": "helper"})
    answer = refusal(service, subject_token=token(), actor_token=chained, **GOOD)
    assert answer[:2] == ("invalid_request", "actor_token_act")


@pytest.mark.parametrize("type_uri", [ID_JAG, ID_TOKEN])
def test_59_an_assertion_of_identity_is_no_actor_token(service: Service, type_uri: str) -> None:
    """Case 59: an ID-JAG or an ID token as `actor_token` is refused, as what it is or passed off as another type."""
    wrong = token(type_uri, aud=STS, sub="orchestrator")
    given = {"subject_token": token(), "actor_token": wrong, **GOOD}
    assert refusal(service, **given, actor_token_type=type_uri)[1] == "actor_token_type"
    assert refusal(service, **given)[1] == "actor_token_typ"


def test_60_a_chain_is_not_spliced_with_anothers_actor(service: Service) -> None:
    """Case 60: Alice's chain with a valid token of agent N is refused, whichever of the two presents them."""
    chained = token(aud="orchestrator", act={"iss": STS, "sub": "desk"})
    of_n = actor_token("helper")
    answer = refusal(service, subject_token=chained, actor_token=of_n, **GOOD)
    assert answer[:2] == ("invalid_request", "actor_token_presenter")
    answer = refusal(service, HELPER, subject_token=chained, actor_token=of_n, **GOOD)
    assert answer[:2] == ("invalid_request", "presenter")
    claims = granted(service, subject_token=chained, actor_token=actor_token(), **GOOD)
    assert [claims["act"]["sub"], claims["act"]["act"]["sub"]] == ["orchestrator", "desk"]


@pytest.mark.parametrize("audience", ["https://other.example", f"{STS}/token", "orchestrator"])
def test_62_a_client_assertion_for_another_service_is_no_actor_token(service: Service, audience: str) -> None:
    """Case 62: a JWT as actor token is meant for this token service."""
    given = {"subject_token": token(), "actor_token_type": JWT, **GOOD}

    def assertion(aud: str) -> str:
        return token(JWT, sub="orchestrator", client_id="orchestrator", aud=aud, scope=None)

    answer = refusal(service, **given, actor_token=assertion(audience))
    assert answer[:2] == ("invalid_request", "actor_token_audience")
    assert granted(service, **given, actor_token=assertion(STS))["act"]["sub"] == "orchestrator"


# ---- keys


def bound(by: DpopKey, **claims: Any) -> str:
    return token(cnf={"jkt": by.thumbprint}, **claims)


def test_61_a_bound_token_needs_its_key() -> None:
    """Case 61: who a bound token was issued to proves its key; no proof, or one of another key, isn't enough."""
    service, own, other = with_dpop()
    given = {"subject_token": bound(own, aud="helper", client_id="orchestrator"), **GOOD}
    assert refusal(service, **given)[:2] == ("invalid_request", "subject_unproven")
    assert refusal(service, **given, **proof(other))[:2] == ("invalid_request", "subject_unproven")
    issued = service.exchange(**given, **proof(own))
    assert issued.token_type == "DPoP"
    assert claims_of(issued)["cnf"] == {"jkt": own.thumbprint}


def test_61_the_recipient_of_a_bound_token_binds_it_to_its_own_key() -> None:
    """Case 61: an audience of the token can't have the sender's key; what it gets is bound to its own."""
    service, senders, own = with_dpop()
    given = {"subject_token": bound(senders), **GOOD}
    claims = granted(service, **given, **proof(own))
    assert claims["cnf"] == {"jkt": own.thumbprint}


def test_61_who_proves_the_key_may_present_the_token() -> None:
    """A token that is bound to the presenter's key is its own, whatever else it says (decision 6)."""
    service, own, other = with_dpop()
    given = {"subject_token": bound(own, aud="helper"), **GOOD}
    assert granted(service, **given, **proof(own))["cnf"] == {"jkt": own.thumbprint}
    assert refusal(service, **given, **proof(other))[:2] == ("invalid_request", "presenter")


def test_83_a_bound_token_does_not_become_a_bearer_token() -> None:
    """Case 83: its recipient proves a key of its own, unless its registration allows to go without."""
    service, senders, own = with_dpop()
    given = {"subject_token": bound(senders), **GOOD}
    assert refusal(service, **given)[:2] == ("invalid_request", "unbinding")
    trusted = client("orchestrator", may_unbind=True)
    assert "cnf" not in granted(service, trusted, **given)
    assert granted(service, **given, **proof(own))["cnf"] == {"jkt": own.thumbprint}


def test_a_bound_actor_token_needs_its_key() -> None:
    """An actor token that is bound to a key is refused without proof of it, even from the client that it names."""
    service, own, other = with_dpop()
    bound_actor = actor_token("orchestrator", cnf={"jkt": own.thumbprint})
    given = {"subject_token": token(), "actor_token": bound_actor, **GOOD}
    assert refusal(service, **given)[1] == "actor_unproven"
    assert refusal(service, **given, **proof(other))[1] == "actor_unproven"
    assert granted(service, **given, **proof(own))["act"]["sub"] == "orchestrator"


def test_a_proof_that_cannot_be_checked_is_refused(service: Service) -> None:
    """A service without a verifier refuses a proof: ignoring it would hand out a bearer token."""
    given = {"subject_token": token(), **GOOD}
    answer = refusal(service, **given, **proof(key(service)))
    assert answer == ("invalid_dpop_proof", "dpop_unsupported", 400)
    with_it, own, _ = with_dpop()
    assert refusal(with_it, **given, dpop=["junk"], uri=ENDPOINT)[:2] == ("invalid_dpop_proof", "dpop_proof")
    assert refusal(with_it, **given, dpop=own.proof("POST", ENDPOINT)) == ("server_error", "dpop_uri", 500)
    used = proof(own)
    assert granted(with_it, **given, **used)["cnf"]
    assert refusal(with_it, **given, **used)[:2] == ("invalid_dpop_proof", "dpop_replayed")


def test_a_nonce_is_asked_for() -> None:
    """Where nonces are in use, a proof without one gets `use_dpop_nonce` (RFC 9449 §8)."""
    service = Service()
    nonces = Nonces(clock=service.clock)
    service = Service(dpop=DpopVerifier(MemoryOnce(clock=service.clock), nonces=nonces, clock=service.clock))
    own = key(service)
    given = {"subject_token": token(), **GOOD, "uri": ENDPOINT}
    assert refusal(service, **given, dpop=own.proof("POST", ENDPOINT))[:2] == ("use_dpop_nonce", "dpop_nonce")
    assert granted(service, **given, dpop=own.proof("POST", ENDPOINT, nonce=nonces.issue()))["cnf"]


def test_a_certificate_is_a_key_too(service: Service) -> None:
    """What is issued over mutual TLS is bound to the certificate (RFC 8705 §3), and needs it to be exchanged on."""
    one, other = certificate(), certificate()
    issued = service.exchange(subject_token=token(), audience="helper", peer_cert=one)
    assert (issued.token_type, set(claims_of(issued)["cnf"])) == ("Bearer", {"x5t#S256"})
    given = {"subject_token": token(aud="helper", client_id="orchestrator", cnf=claims_of(issued)["cnf"]), **GOOD}
    assert refusal(service, **given, peer_cert=other)[1] == "subject_unproven"
    assert granted(service, **given, peer_cert=one)["cnf"] == claims_of(issued)["cnf"]
    assert refusal(service, **given, peer_cert=b"junk")[1] == "certificate"


def certificate() -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    private = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "client")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
    made = made.serial_number(1).not_valid_before(NOON).not_valid_after(NOON + dt.timedelta(days=1))
    return made.sign(private, None).public_bytes(serialization.Encoding.DER)


def test_a_token_stays_bound_to_its_certificate_too() -> None:
    """A DPoP key beside the certificate that the token was bound to is a second one, not one for another."""
    service, own, _ = with_dpop()
    one = certificate()
    cnf = {"x5t#S256": certificate_thumbprint(one)}
    given = {"subject_token": token(aud="helper", client_id="orchestrator", cnf=cnf), "peer_cert": one, **GOOD}
    assert granted(service, **given, **proof(own))["cnf"] == {"jkt": own.thumbprint, **cnf}
    plain = {"subject_token": token(), "peer_cert": one, **GOOD}
    assert granted(service, **plain, **proof(own))["cnf"] == {"jkt": own.thumbprint}


def test_the_deepest_chain_that_can_be_verified_is_refused_and_recorded() -> None:
    """Sixteen actors leave no place for one more, in the result or in the record."""
    service = Service()
    act: dict[str, Any] = {"sub": "agent-0"}
    for number in range(1, 16):
        act = {"iss": STS, "sub": f"agent-{number}", "act": act}
    deep = validator(service.clock, limits=TokenLimits(act=ActLimits(depth=16)))
    service = Service(verifiers={ACCESS_TOKEN: deep})
    assert refusal(service, subject_token=token(act=act), **GOOD)[:2] == ("invalid_request", "depth")
    assert len(service.records[-1].actors) == 17


# ---- may_act


@pytest.mark.parametrize(
    "may_act",
    [
        {"iss": STS, "sub": "helper"}, {"iss": IDP, "sub": "orchestrator"}, {"sub": "orchestrator"}, {"iss": STS}, {},
        {"iss": 7, "sub": "orchestrator"}, {"iss": None, "sub": "orchestrator"}, {"iss": [STS], "sub": "orchestrator"},
        "orchestrator", None, True,
    ],
)  # fmt: skip
def test_63_a_may_act_that_names_another_refuses(service: Service, may_act: object) -> None:
    """Case 63, R13, R14: `may_act` names the actor by issuer and name, or nobody; there is no fallback."""
    raw = signed_with(may_act=may_act)
    assert refusal(service, subject_token=raw, **GOOD)[:2] == ("invalid_request", "may_act")
    named = token(may_act={"iss": STS, "sub": "orchestrator"})
    claims = granted(service, subject_token=named, **GOOD)
    assert claims["act"]["sub"] == "orchestrator"
    assert "may_act" not in claims


def test_63_may_act_may_name_the_client_as_its_issuer_knows_it() -> None:
    """R13: the client's registered name at another issuer is the client; the same name elsewhere isn't."""
    service = Service(subject_mapper=lambda token: "user-1")
    foreign: dict[str, Any] = {"iss": IDP, "aud": "orchestrator-at-idp"}
    known = token(**foreign, may_act={"iss": IDP, "sub": "orchestrator-at-idp"})
    assert granted(service, subject_token=known, **GOOD)["act"]["sub"] == "orchestrator"
    for iss, sub in ((STS, "orchestrator-at-idp"), (IDP, "orchestrator"), (EVIL, "orchestrator-at-idp")):
        other = token(**foreign, may_act={"iss": iss, "sub": sub})
        assert refusal(service, subject_token=other, **GOOD)[1] == "may_act"
    run = actor_token("orchestrator", sub="run-7", sub_profile="ai_agent")
    assert refusal(service, subject_token=known, actor_token=run, **GOOD)[1] == "may_act"


@pytest.mark.parametrize(
    "may_act",
    [[{"iss": STS, "sub": "orchestrator"}], {"iss": STS, "sub": "*"}, {"iss": "*", "sub": "orchestrator"}, "*"],
)
def test_66_a_may_act_has_no_lists_and_no_wildcards(service: Service, may_act: object) -> None:
    """Case 66: a list of the right parties, or a star, names nobody."""
    raw = signed_with(may_act=may_act)
    assert refusal(service, subject_token=raw, **GOOD)[:2] == ("invalid_request", "may_act")


def test_66_may_act_can_be_required() -> None:
    """`require_may_act` refuses a subject token that names nobody."""
    service = Service(limits={"require_may_act": True})
    assert refusal(service, subject_token=token(), **GOOD)[:2] == ("invalid_request", "may_act_missing")
    named = token(may_act={"iss": STS, "sub": "orchestrator"})
    assert granted(service, subject_token=named, **GOOD)["act"]["sub"] == "orchestrator"


def signed_with(**claims: Any) -> str:
    """Return a token with claims that may be None."""
    return jws.make({**claims_of(token()), **claims}, KEYS[STS], typ="at+jwt")


# ---- whose subject


def test_81_a_foreign_subject_needs_a_mapper(service: Service) -> None:
    """Case 81: another issuer's `sub` would be someone else's name here."""
    foreign = token(iss=IDP, aud="orchestrator-at-idp")
    assert refusal(service, subject_token=foreign, **GOOD)[:2] == ("invalid_request", "subject_foreign")
    mapped = Service(subject_mapper=lambda token: {"alice": "user-1"}.get(token.subject.id))
    claims = granted(mapped, subject_token=foreign, **GOOD)
    assert (claims["iss"], claims["sub"]) == (STS, "user-1")
    assert next((actor.sub, actor.iss) for actor in mapped.records[-1].actors) == ("user-1", STS)
    nobody = token(iss=IDP, aud="orchestrator-at-idp", sub="mallory")
    assert refusal(mapped, subject_token=nobody, **GOOD)[:2] == ("invalid_request", "subject_unmapped")


def test_81_a_mapper_that_gives_two_users_one_name_is_caught() -> None:
    """Case 81: the second user of a name is refused, the first one goes on."""
    service = Service(subject_mapper=lambda token: token.subject.id.lower())
    first, second = (token(iss=IDP, aud="orchestrator-at-idp", sub=sub) for sub in ("Alice", "ALICE"))
    assert granted(service, subject_token=first, **GOOD)["sub"] == "alice"
    assert refusal(service, subject_token=second, **GOOD)[:2] == ("invalid_request", "subject_collision")
    assert granted(service, subject_token=first, **GOOD)["sub"] == "alice"


def test_81_the_memory_of_what_was_mapped_is_bounded() -> None:
    """When it is full nobody new is taken: a collision would go unseen."""
    service = Service(subject_mapper=lambda token: token.subject.id, limits={"mapped_subjects": 1})
    foreign = {sub: token(iss=IDP, aud="orchestrator-at-idp", sub=sub) for sub in ("alice", "bob")}
    assert granted(service, subject_token=foreign["alice"], **GOOD)["sub"] == "alice"
    assert refusal(service, subject_token=foreign["bob"], **GOOD) == ("server_error", "subject_memory", 500)
    assert granted(service, subject_token=foreign["alice"], **GOOD)["sub"] == "alice"


@pytest.mark.parametrize("result", [7, "", b"alice", ["alice"], ValueError("hook")])
def test_67_a_mapper_that_fails_refuses(result: Any) -> None:
    """Case 67: a mapper that raises, or returns no name, issues nothing, and that is recorded."""

    def mapper(_: object) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    service = Service(subject_mapper=mapper)
    foreign = token(iss=IDP, aud="orchestrator-at-idp")
    assert refusal(service, subject_token=foreign, **GOOD) == ("server_error", "subject_mapper", 500)
    assert service.records[-1].basis == "error"


def test_a_client_of_another_issuer_acts_under_that_name() -> None:
    """The registered issuer of a client is whose name it bears: `act` shows the pair (decision 3)."""
    service = Service()
    partner: Client = client("orchestrator", issuer=IDP, client_ids={})
    assert granted(service, partner, subject_token=token(), **GOOD)["act"]["iss"] == IDP


@pytest.mark.parametrize("broken", [lambda: 1 / 0, lambda: None, lambda: NOON.replace(tzinfo=None)])
def test_a_clock_that_fails_refuses(broken: Any) -> None:
    """A clock that raises, or tells no time, issues nothing; the record has the authorizer's time."""
    assert refusal(Service(clock=broken), subject_token=token(), **GOOD) == ("server_error", "clock", 500)


def test_an_unforeseen_failure_refuses() -> None:
    """Whatever else fails, no token is issued, and the failure is recorded."""

    def failing(_: int) -> bytes:
        raise OSError("no entropy")

    service = Service(entropy=failing)
    assert refusal(service, subject_token=token(), **GOOD) == ("server_error", "failed", 500)
    with pytest.raises(ExchangeRefused) as raised:
        service.exchange(ORCHESTRATOR, subject_token=token(), **GOOD)
    assert isinstance(raised.value.__cause__, OSError)
