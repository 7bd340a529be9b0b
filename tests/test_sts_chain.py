"""The chain that a token shows, and what else stands in it: RFC 8693 §4.1, RFC 9068 §2.2."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentauthz.sts.ceilings import Target
from agentauthz.sts.clients import Client, Clients
from agentauthz.sts.minting import RESERVED
from agentauthz.tokens.claims import chain_from_claims, inherited_act
from agentauthz.tokens.revocation import LINEAGE, jti_hash
from agentauthz.tokens.types import ACCESS_TOKEN, ID_JAG, ID_TOKEN, JWT, TXN_TOKEN
from agentauthz.tokens.verified import VerifiedToken
from tests.sts_service import (
    DESK,
    HELPER,
    IDP,
    ORCHESTRATOR,
    PAY,
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

GOOD = {"audience": "helper", "scope": "read"}


@pytest.fixture
def service() -> Service:
    return Service()


def act(*names: str, **innermost: Any) -> dict[str, Any]:
    """Return `act` for actors of the token service, the current one first."""
    found: dict[str, Any] | None = None
    for name in reversed(names):
        found = {"iss": STS, "sub": name, **(innermost if found is None else {"act": found})}
    assert found is not None
    return found


def actors(claims: Any) -> list[str]:
    found = []
    while "act" in claims:
        claims = claims["act"]
        found.append(claims["sub"])
    return found


@pytest.mark.parametrize("depth", [1, 4, 7])
def test_34_depth_is_counted_on_the_result(depth: int) -> None:
    """Case 34, decision 9: one actor more than the limit is refused, never cut off; a continuation adds none."""
    service = Service(limits={"depth": depth})
    full = token(act=act(*(f"agent-{number}" for number in range(depth))))
    assert refusal(service, subject_token=full, **GOOD)[:2] == ("invalid_request", "depth")
    almost = token(act=act(*(f"agent-{number}" for number in range(depth - 1)))) if depth > 1 else token()
    assert len(actors(granted(service, subject_token=almost, **GOOD))) == depth
    own = token(act=act("orchestrator", *(f"agent-{number}" for number in range(depth - 1))))
    assert len(actors(granted(service, subject_token=own, **GOOD))) == depth


def test_77_nobody_acts_for_itself(service: Service) -> None:
    """Case 77: an actor that is the subject is refused, under whichever name it has."""
    own = actor_token("orchestrator", scope="read", aud="orchestrator")
    assert refusal(service, subject_token=own, **GOOD)[:2] == ("invalid_request", "actor_is_subject")
    other = token(sub="helper", sub_profile="service")
    assert actors(granted(service, subject_token=other, **GOOD)) == ["orchestrator"]
    mapped = Service(subject_mapper=lambda token: "someone")
    alias = token(iss=IDP, sub="orchestrator-at-idp", aud="orchestrator-at-idp")
    assert refusal(mapped, subject_token=alias, **GOOD)[:2] == ("invalid_request", "actor_is_subject")


def test_77_a_cycle_is_refused(service: Service) -> None:
    """Case 77: A to B to A; by the pair of issuer and name, so the same name elsewhere is no cycle."""
    looped = token(act=act("helper", "orchestrator"))
    assert refusal(service, subject_token=looped, **GOOD)[:2] == ("invalid_request", "cycle")
    elsewhere = token(act={"iss": STS, "sub": "helper", "act": {"iss": "https://other.example", "sub": "orchestrator"}})
    assert actors(granted(service, subject_token=elsewhere, **GOOD)) == ["orchestrator", "helper", "orchestrator"]
    alias = token(act={"iss": STS, "sub": "helper", "act": {"iss": IDP, "sub": "orchestrator-at-idp"}})
    assert refusal(service, subject_token=alias, **GOOD)[:2] == ("invalid_request", "cycle")


def test_77_a_cycle_goes_by_the_pair_whatever_the_kind(service: Service) -> None:
    """Case 77, decision 3: an actor that was once called a service and is now an agent is still the same."""
    looped = token(act={"iss": STS, "sub": "helper", "act": {**act("orchestrator"), "sub_profile": "service"}})
    assert refusal(service, subject_token=looped, **GOOD)[:2] == ("invalid_request", "cycle")


def test_78_a_continuation_leaves_act_as_it_is(service: Service) -> None:
    """Case 78: the same actor that exchanges again, for less, isn't nested in itself."""
    first = service.exchange(subject_token=token(), audience="helper", scope="read write")
    own = token(aud="helper", client_id="orchestrator", scope="read write", act=claims_of(first)["act"])
    claims = granted(service, subject_token=own, audience="helper", scope="read")
    assert claims["act"] == claims_of(first)["act"]
    assert claims["scope"] == "read"
    with_actor = granted(service, subject_token=own, actor_token=actor_token(), **GOOD)
    assert with_actor["act"] == claims["act"]


def test_82_what_others_said_of_themselves_goes_on_as_it_was(service: Service) -> None:
    """Case 82, R11: unknown members of inherited actors are the same JSON values, at every level."""
    odd = {
        "model": "m-1", "n": 1.5, "big": 2**53, "none": None, "list": [1, {"é": "\u2028"}],
        "nested": {"act": "no chain"}, "yes": True, "empty": {},
    }  # fmt: skip
    inherited = {"iss": STS, "sub": "desk", **odd, "act": {"iss": IDP, "sub": "x", "sub_profile": "service", **odd}}
    claims = granted(service, subject_token=token(act=inherited), **GOOD)
    assert claims["act"]["act"] == inherited
    assert set(claims["act"]) == {"iss", "sub", "sub_profile", "act"}
    own = granted(service, DESK, subject_token=token(aud="helper", client_id="desk", act=inherited), **GOOD)
    assert own["act"] == inherited


def test_80_act_holds_nothing_but_who_acts(service: Service) -> None:
    """Cases 39, 80, R11: `exp`, `nbf`, `iat`, `aud` and `jti` in an inherited `act` mean nothing, and aren't issued."""
    timed = {
        "iss": STS,
        "sub": "desk",
        "exp": later(days=9),
        "aud": "x",
        "act": {"iss": STS, "sub": "x", "jti": "1", "nbf": 1},
    }
    claims = granted(service, subject_token=token(act=timed), **GOOD)
    assert claims["act"]["act"] == {"iss": STS, "sub": "desk", "act": {"iss": STS, "sub": "x"}}
    assert claims["exp"] == later(minutes=10)


def test_80_an_actor_without_issuer_is_given_the_one_it_had() -> None:
    """Decisions 3 and 11: a bare name of another issuer's token would become a name of ours."""
    service = Service(subject_mapper=lambda token: "user-1")
    foreign = token(iss=IDP, aud="orchestrator-at-idp", act={"sub": "helper", "act": {"sub": "x"}})
    claims = granted(service, subject_token=foreign, **GOOD)
    assert claims["act"]["act"] == {"iss": IDP, "sub": "helper", "act": {"iss": IDP, "sub": "x"}}


FOREIGN: dict[str, Any] = {
    "nonce": "n", "at_hash": "h", "sid": "s", "azp": "orchestrator", "roles": ["admin"], "email": "alice@example.org",
    "custom": {"x": 1}, "nbf": 1, "auth_time": 1_700_000_000, "acr": "urn:mfa", "amr": ["otp"],
}  # fmt: skip


@pytest.mark.parametrize("type_uri", ["urn:ietf:params:oauth:token-type:access_token", JWT])
def test_80_only_what_is_named_is_transcribed(service: Service, type_uri: str) -> None:
    """Case 80, R16, decision 10: of the subject's claims, only how the person signed in goes on."""
    raw = token(**FOREIGN, may_act={"iss": STS, "sub": "orchestrator"}, jti="parent")
    issued = service.exchange(subject_token=raw, **GOOD, requested_token_type=type_uri)
    claims = claims_of(issued)
    assert set(claims) == {
        "iss", "sub", "sub_profile", "aud", "exp", "iat", "jti", "client_id", "scope", "act", "auth_time", "acr", "amr",
        LINEAGE,
    }  # fmt: skip
    assert raw not in issued.access_token
    assert raw.split(".")[1] not in issued.access_token
    assert claims["jti"] != "parent"
    assert claims[LINEAGE] == [jti_hash(STS, "parent")]


def test_80_what_is_transcribed_can_be_chosen() -> None:
    """A host may pass on more, such as roles, or nothing."""
    given = {"subject_token": token(**FOREIGN), **GOOD}
    more = granted(Service(transcribed=["roles", "missing"]), **given)
    assert more["roles"] == ["admin"]
    assert "acr" not in more


def test_the_token_is_what_rfc_9068_asks_for(service: Service) -> None:
    """RFC 9068 §2.2: the required claims, and a validator of the target takes it, with the same chain."""
    claims_needed = {"iss", "exp", "aud", "sub", "client_id", "iat", "jti"}
    issued = service.exchange(subject_token=token(act=act("desk")), **GOOD)
    assert claims_needed <= claims_of(issued).keys()
    found = service.validator.verify(issued.access_token)
    assert [(hop.to.kind, hop.to.id, hop.via) for hop in found.chain.delegations] == [
        ("agent", "desk", "token"), ("agent", "orchestrator", "token"),
    ]  # fmt: skip
    assert (found.subject.kind, found.client_id, found.scopes) == ("user", "orchestrator", ("read",))


def test_a_subject_that_is_a_service_stays_one(service: Service) -> None:
    """The kind of the subject is told, since the result's `client_id` isn't its own any more."""
    raw = token(sub="batch", client_id="batch")
    issued = service.exchange(subject_token=raw, **GOOD)
    assert service.validator.verify(issued.access_token).subject.kind == "service"


# ---- the hook


def hook(**claims: Any) -> Any:
    def customise(token: VerifiedToken, client: Client) -> dict[str, Any]:
        return claims

    return customise


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_79_a_hook_cannot_set_what_is_the_services_own(name: str) -> None:
    """Case 79: `act`, `sub`, `aud`, `may_act` and all other reserved claims end the exchange, recorded, unsigned."""
    answer = refusal(Service(customise=hook(**{name: "x"})), subject_token=token(), **GOOD)
    assert answer == ("server_error", "reserved_claim", 500)


@pytest.mark.parametrize("claims", [{"x": object()}, {"x": float("nan")}, {7: "x"}, {"x": b"y"}])
def test_79_a_hook_returns_json(claims: dict[Any, Any]) -> None:
    """What is no JSON is refused before the decision, not after it."""
    service = Service(customise=lambda token, client: claims)
    assert refusal(service, subject_token=token(), **GOOD) == ("server_error", "customise", 500)


def test_79_a_hook_that_raises_refuses() -> None:
    """A hook's failure is a denial on the record."""

    def failing(token: VerifiedToken, client: Client) -> dict[str, Any]:
        raise LookupError("directory")

    service = Service(customise=failing)
    assert refusal(service, subject_token=token(), **GOOD) == ("server_error", "customise", 500)


def test_79_a_hook_cannot_change_what_it_is_shown() -> None:
    """Case 79: what a hook does to the claims that it reads is neither issued nor kept for the next exchange."""

    def changing(found: VerifiedToken, client: Client) -> dict[str, Any]:
        shown: dict[str, Any] = dict(found.claims)
        shown["act"]["sub"] = shown["act"]["more"][0] = "forged"
        shown["authorization_details"][0]["limit"] = 1000
        details: Any = found.authorization_details
        details[0]["limit"] = 1000
        assert found.reveal()
        return {}

    plain = Service()
    service = Service(customise=changing, verifiers={ACCESS_TOKEN: validator(plain.clock, cache=8)})
    detail, act = {"type": "payment", "limit": 1}, {"iss": STS, "sub": "desk", "more": ["x"]}
    raw = token(act=act, authorization_details=[detail])
    for _ in range(2):
        claims = granted(service, subject_token=raw, **GOOD)
        assert (claims["act"]["act"], claims["authorization_details"]) == (act, [detail])


def test_79_a_hook_adds_claims() -> None:
    """The positive twin: other claims are added, as they were when the hook returned."""
    assert (
        granted(Service(customise=hook(tenant="t-1", acr="own")), subject_token=token(acr="idp"), **GOOD)["acr"]
        == "own"
    )
    assert granted(Service(customise=hook(tenant="t-1")), subject_token=token(), **GOOD)["tenant"] == "t-1"


def test_what_would_make_too_large_a_token_is_refused() -> None:
    """A token that no validator takes isn't issued: too many claims, too long an `act`, half a character."""
    large = Service(customise=hook(text="x" * 11_000))
    assert refusal(large, subject_token=token(), **GOOD)[:2] == ("invalid_request", "token_too_large")
    service = Service()
    filled = {f"member-{number}": "x" * 1000 for number in range(7)}
    assert granted(service, subject_token=token(act={**act("desk"), **filled}), **GOOD)["act"]
    inherited = {**act("desk"), **filled, "last": ""}
    filled["last"] = "x" * (8150 - len(json.dumps(inherited)))
    answer = refusal(service, subject_token=token(act={**act("desk"), **filled}), **GOOD)
    assert answer[:2] == ("invalid_request", "act_too_large")
    half = Service(customise=hook(text="\ud800"))
    assert refusal(half, subject_token=token(), **GOOD)[:2] == ("invalid_request", "not_text")


# ---- ancestors


def test_the_lineage_names_every_ancestor_and_is_bounded() -> None:
    """Each exchange adds its subject token's hash in front; more ancestors than the limit are refused, not dropped."""
    service = Service(limits={"lineage": 2})
    first = service.exchange(subject_token=token(jti="root"), audience="helper")
    second = service.exchange(HELPER, subject_token=first.access_token, audience="helper")
    claims = claims_of(second)
    assert claims[LINEAGE] == [jti_hash(STS, claims_of(first)["jti"]), jti_hash(STS, "root")]
    answer = refusal(service, HELPER, subject_token=second.access_token, resource=PAY)
    assert answer[:2] == ("invalid_request", "lineage")
    text: dict[str, Any] = {LINEAGE: "text"}
    broken = token(**text)
    assert refusal(service, subject_token=broken, **GOOD)[:2] == ("invalid_request", "lineage")


# ---- properties

NAMES = st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
UNKNOWN = st.dictionaries(st.text(alphabet="abcxyz_", min_size=4, max_size=6), JSON, max_size=3)


@settings(max_examples=60, deadline=None)
@given(levels=st.lists(st.tuples(NAMES, st.sampled_from([STS, IDP, None]), UNKNOWN), min_size=1, max_size=3))
def test_what_is_inherited_parses_to_the_same_chain(levels: list[tuple[str, str | None, dict[str, Any]]]) -> None:
    """Over random chains the issued token's chain is the subject token's, and then the new actor."""
    found: dict[str, Any] | None = None
    for name, issuer, unknown in levels:
        named = {**unknown, "sub": name, **({} if issuer is None else {"iss": issuer})}
        found = named if found is None else {**named, "act": found}
    service = Service()
    issued = service.exchange(subject_token=token(act=found), **GOOD)
    chain = service.validator.verify(issued.access_token).chain
    pairs = [(hop.to.issuer, hop.to.id) for hop in chain.delegations]
    assert pairs == [*((issuer or STS, name) for name, issuer, _ in levels), (STS, "orchestrator")]
    inherited = claims_of(issued)["act"]["act"]
    for name, issuer, unknown in reversed(levels):
        within = inherited.pop("act", None)
        assert json.dumps(inherited, sort_keys=True) == json.dumps(
            {**unknown, "sub": name, "iss": issuer or STS}, sort_keys=True
        )
        inherited = within
    assert inherited is None


def test_inheriting_is_iterative() -> None:
    """A deep `act` that some other limit let pass isn't a RecursionError."""
    deep: Any = {"sub": "x"}
    for _ in range(5000):
        deep = {"sub": "x", "act": deep}
    found = inherited_act(deep, STS)
    levels = 0
    while "act" in found:
        found, levels = found["act"], levels + 1  # type: ignore[assignment]
    assert (levels, found) == (5000, {"sub": "x", "iss": STS})
    assert chain_from_claims({}, subject=ORCHESTRATOR.principal(STS)).depth == 0


# ---- ID-JAG and transaction tokens, as output


def test_an_id_jag_is_issued_for_another_server() -> None:
    """The draft of identity assertion grants: `aud` is that server, `client_id` the client's name there, `N_A`."""
    service = Service()
    given = {
        "subject_token": token(ID_TOKEN, acr="urn:mfa"),
        "subject_token_type": ID_TOKEN,
        "requested_token_type": ID_JAG,
    }
    issued = service.exchange(**given, audience="https://partner.example", scope="read")
    claims = claims_of(issued)
    assert (claims["aud"], claims["client_id"], claims["sub"]) == (
        "https://partner.example",
        "orch-at-partner",
        "alice",
    )
    assert (issued.issued_token_type, issued.token_type, claims["acr"]) == (ID_JAG, "N_A", "urn:mfa")
    assert service.validator.genuine(issued.access_token, kind="id-jag").client_id == "orch-at-partner"
    unknown_there = refusal(
        service, HELPER, **{**given, "subject_token": token(ID_TOKEN, aud="helper")}, audience="https://partner.example"
    )
    assert unknown_there[:2] == ("invalid_target", "assertion_client")
    assert refusal(service, **given, audience="helper")[:2] == ("invalid_target", "target_token_type")


def test_84_an_id_jag_has_one_audience_that_is_not_its_issuer() -> None:
    """Case 84, issuing: two audiences, none, or this service itself are refused."""
    targets = [
        Target(name, scopes=["read"], token_types=[ID_JAG], client_ids={"orchestrator": "o"})
        for name in ("https://one.example", "https://two.example", STS)
    ]
    service = Service(targets=targets)
    asker = client("orchestrator", audiences=["https://one.example", "https://two.example", STS])
    given = {"subject_token": token(ID_TOKEN), "subject_token_type": ID_TOKEN, "requested_token_type": ID_JAG}
    for audience in (["https://one.example", "https://two.example"], STS):
        assert refusal(service, asker, **given, audience=audience)[:2] == ("invalid_target", "assertion_audience")
    assert refusal(service, asker, **given)[0] == "invalid_target"
    assert granted(service, asker, **given, audience="https://one.example")["client_id"] == "o"


def test_a_transaction_token_begins_a_transaction() -> None:
    """The draft of transaction tokens: one trust domain, a `txn` of its own, who asked, and the chain."""
    service = Service()
    issued = service.exchange(
        subject_token=token(act=act("desk")),
        audience="https://domain.example",
        scope="read",
        requested_token_type=TXN_TOKEN,
    )
    claims = claims_of(issued)
    assert (claims["aud"], claims["req_wl"], issued.token_type) == ("https://domain.example", "orchestrator", "N_A")
    assert claims["txn"]
    assert actors(claims) == ["orchestrator", "desk"]
    assert service.validator.genuine(issued.access_token, kind="txn").scopes == ("read",)


def test_clients_are_who_the_endpoint_authenticates(service: Service) -> None:
    """The service shows its clients and keys to the endpoint."""
    assert isinstance(service.service.clients, Clients)
    assert service.service.keys.jwks()["keys"][0]["kid"] == STS
