"""What a token is for only narrows: targets, scopes, details and life, over one exchange and over many."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentauthz.errors import ExchangeRefused
from agentauthz.sts.ceilings import Target
from agentauthz.sts.clients import Clients
from agentauthz.sts.details import same, within_common_fields
from agentauthz.tokens.types import ACCESS_TOKEN, ID_TOKEN
from tests.sts_service import (
    DOCS,
    HELPER,
    ORCHESTRATOR,
    PAY,
    SCOPES,
    STS,
    TARGETS,
    Service,
    actor_token,
    claims_of,
    client,
    granted,
    later,
    refusal,
    token,
)

GOOD = {"audience": "helper", "scope": "read"}


@pytest.fixture
def service() -> Service:
    return Service()


# ---- scopes


@pytest.mark.parametrize(
    "scope", ["read payroll", "payroll", "Read", "READ", "rea", "read:all", "read.write", "*", "rea*"]
)
def test_68_a_scope_beyond_the_subjects_is_refused(service: Service, scope: str) -> None:
    """Case 68: one scope too many, another case, a prefix or a star is beyond the subject token's scopes."""
    answer = refusal(service, subject_token=token(), audience="helper", scope=scope)
    assert answer == ("invalid_scope", "scope_beyond_subject", 400)
    assert granted(service, subject_token=token(), audience="helper", scope="pay read")["scope"] == "pay read"


def test_68_a_scope_beyond_the_clients_is_refused(service: Service) -> None:
    """Case 68, decision 4: what the subject has and the client hasn't isn't granted."""
    reader = client("orchestrator", scopes=["read"])
    given = {"subject_token": token(), "audience": "helper"}
    assert refusal(service, reader, **given, scope="read pay")[:2] == ("invalid_scope", "scope_beyond_client")
    assert granted(service, reader, **given)["scope"] == "read"


def test_68_a_star_in_a_scope_is_a_character(service: Service) -> None:
    """Decision 13: a subject's `*` grants no other scope."""
    given = {"subject_token": token(scope="* docs.*"), "audience": "helper"}
    assert refusal(service, **given, scope="read")[:2] == ("invalid_scope", "scope_beyond_subject")


def test_69_a_subject_without_scope_has_none_to_give(service: Service) -> None:
    """Case 69, decision 4: an unknown ceiling is a denial, never "unlimited"."""
    for scope in (None, "read"):
        answer = refusal(service, subject_token=token(scope=None), audience="helper", scope=scope)
        assert answer[:2] == ("invalid_scope", "subject_without_scope")


def test_69_an_id_token_is_worth_the_scopes_registered_for_it(service: Service) -> None:
    """Decision 13: an ID token's ceiling is client ∩ target ∩ `id_token_scopes`, and nothing without them."""
    given = {"subject_token": token(ID_TOKEN), "subject_token_type": ID_TOKEN, "audience": DOCS}
    assert granted(service, **given)["scope"] == "read"  # `pay` isn't a scope of that target
    assert refusal(service, **given, scope="write")[:2] == ("invalid_scope", "scope_beyond_subject")
    without = client("orchestrator", id_token_scopes=())
    assert refusal(service, without, **given)[:2] == ("invalid_scope", "scope_empty")


def test_70_an_empty_intersection_is_refused(service: Service) -> None:
    """Case 70: where nothing is left, no token for nothing is issued."""
    answer = refusal(service, subject_token=token(scope="pay"), audience=DOCS)
    assert answer[:2] == ("invalid_scope", "scope_empty")
    assert granted(service, subject_token=token(scope="pay read"), audience=DOCS)["scope"] == "read"


# ---- targets


def test_71_an_unknown_target_is_refused(service: Service) -> None:
    """Case 71: a target is known under its exact name, sent the way it is registered."""
    for sent in (
        {"audience": "unknown"}, {"audience": "Helper"}, {"audience": PAY}, {"resource": "urn:helper"},
        {"resource": f"{PAY}/"}, {"resource": PAY.upper()},
    ):  # fmt: skip
        answer = refusal(service, subject_token=token(), scope="read", **sent)
        assert answer[:2] == ("invalid_target", "target_unknown")
    for good in ({"audience": "helper"}, {"resource": PAY}):
        assert granted(service, subject_token=token(), scope="read", **good)["scope"] == "read"


def test_71_a_target_that_is_registered_both_ways_is_two(service: Service) -> None:
    """Case 71: a client that may name it as `audience` may not so name it as `resource`, and the reverse."""
    both = Service(targets=[Target("urn:x", scopes=["read"]), Target("urn:x", by="resource", scopes=["read"])])
    by_audience = client("orchestrator", audiences=["urn:x"], resources=())
    by_resource = client("orchestrator", audiences=(), resources=["urn:x"])
    sent = {"subject_token": token()}
    assert granted(both, by_audience, **sent, audience="urn:x")["aud"] == "urn:x"
    assert refusal(both, by_audience, **sent, resource="urn:x")[:2] == ("invalid_target", "target_beyond_client")
    assert granted(both, by_resource, **sent, resource="urn:x")["aud"] == "urn:x"
    assert refusal(both, by_resource, **sent, audience="urn:x")[:2] == ("invalid_target", "target_beyond_client")
    assert refusal(service, subject_token=token(), audience="hidden")[:2] == ("invalid_target", "target_beyond_client")


def test_72_one_target_that_is_not_allowed_refuses_all(service: Service) -> None:
    """Case 72: never a token for the rest of the targets."""
    given = {"subject_token": token(), "scope": "read"}
    for audience in (["helper", "unknown"], ["hidden", "helper"]):
        assert refusal(service, **given, audience=audience)[0] == "invalid_target"
    assert granted(service, **given, audience=["helper", DOCS], resource=PAY)["aud"] == ["helper", DOCS, PAY]


def test_72_a_token_that_is_not_for_its_presenter_goes_nowhere_new(service: Service) -> None:
    """Decision 4: the client that a token was issued to may narrow it, not turn it towards another service."""
    own = {"subject_token": token(aud=["helper", DOCS], client_id="orchestrator"), "scope": "read"}
    assert granted(service, **own, audience="helper")["aud"] == "helper"
    assert refusal(service, **own, resource=PAY)[:2] == ("invalid_target", "target_beyond_subject")


def test_72_a_target_may_say_where_it_is_reached_from(service: Service) -> None:
    """`reached_from` replaces the rule for recipients: only tokens for those audiences lead there."""
    assert refusal(service, subject_token=token(), audience="mail")[:2] == ("invalid_target", "target_beyond_subject")
    from_docs = token(aud=DOCS, client_id="orchestrator")
    assert granted(service, subject_token=from_docs, audience="mail")["aud"] == "mail"


def test_72_a_target_takes_the_types_that_it_says(service: Service) -> None:
    """Another authorization server takes assertions only, and no access token is made for it."""
    answer = refusal(service, subject_token=token(), audience="https://partner.example", scope="read")
    assert answer[:2] == ("invalid_target", "target_token_type")


def test_without_target_the_token_stays_where_it_is_for(service: Service) -> None:
    """Where no target is asked for, they are the subject token's own, if each of them is one."""
    assert granted(service, subject_token=token(aud=["helper"], client_id="orchestrator"))["aud"] == "helper"
    for audience in ("orchestrator", ["helper", "elsewhere"]):
        own = token(aud=audience, client_id="orchestrator")
        assert refusal(service, subject_token=own)[:2] == ("invalid_target", "target_missing")


# ---- details


PAYMENT = {
    "type": "payment",
    "actions": ["initiate", "status"],
    "locations": [PAY],
    "identifier": "acc-1",
    "limit": 100,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"type": "other"}, "detail_type"), ({"type": "Payment"}, "detail_type"),
        ({"actions": ["initiate", "cancel"]}, "detail_beyond_subject"), ({"actions": []}, "detail_beyond_subject"),
        ({"actions": "initiate"}, "detail_beyond_subject"),
        ({"locations": [PAY, "https://pay.example"]}, "detail_beyond_subject"),
        ({"locations": ["https://pay.example"]}, "detail_beyond_subject"),
        ({"locations": None}, "detail_beyond_subject"), ({"limit": None}, "detail_beyond_subject"),
        ({"limit": 101}, "detail_beyond_subject"), ({"limit": True}, "detail_beyond_subject"),
        ({"identifier": "acc-2"}, "detail_beyond_subject"), ({"privileges": ["admin"]}, "detail_beyond_subject"),
    ],
)  # fmt: skip
def test_73_a_wider_detail_is_refused(service: Service, change: dict[str, Any], reason: str) -> None:
    """Case 73: an unknown type, an extra action, a wider location, or a restricting member that is missing."""
    wanted = {name: value for name, value in {**PAYMENT, **change}.items() if value is not None or name not in change}
    given = {"subject_token": token(authorization_details=[PAYMENT]), "audience": "helper"}
    answer = refusal(service, **given, authorization_details=json.dumps([wanted]))
    assert answer[:2] == ("invalid_authorization_details", reason)
    narrower = {**PAYMENT, "actions": ["status"]}
    claims = granted(service, **given, authorization_details=json.dumps([narrower]))
    assert claims["authorization_details"] == [narrower]


def test_73_a_type_needs_subject_client_target_and_comparator(service: Service) -> None:
    """Case 73, decision 4: a type that one of the four doesn't know is refused."""
    given = {
        "subject_token": token(authorization_details=[PAYMENT]), "audience": "helper",
        "authorization_details": json.dumps([PAYMENT]),
    }  # fmt: skip
    expected = ("invalid_authorization_details", "detail_type")
    assert refusal(service, client("orchestrator", detail_types=()), **given)[:2] == expected
    assert refusal(Service(comparators={}), **given)[:2] == expected
    bare = [Target("helper", scopes=SCOPES)]
    assert refusal(Service(targets=bare), **given)[:2] == expected
    without = {**given, "subject_token": token()}
    assert refusal(service, **without)[:2] == ("invalid_authorization_details", "detail_beyond_subject")
    assert granted(service, **given)["authorization_details"] == [PAYMENT]


def test_73_a_detail_that_is_granted_once_is_had_once(service: Service) -> None:
    """Case 73: who may pay once can't ask for two payments, the same or parts of it; the second needs its own."""
    given = {"audience": "helper", "subject_token": token(authorization_details=[PAYMENT])}
    part = {**PAYMENT, "actions": ["status"]}
    for wanted in ([PAYMENT, PAYMENT], [part, part], [part, PAYMENT]):
        answer = refusal(service, **given, authorization_details=json.dumps(wanted))
        assert answer[:2] == ("invalid_authorization_details", "detail_beyond_subject")
    other = {**PAYMENT, "identifier": "acc-2"}
    both = {**given, "subject_token": token(authorization_details=[PAYMENT, other])}
    assert granted(service, **both, authorization_details=json.dumps([other, part]))["authorization_details"] == [
        other, part,
    ]  # fmt: skip


def test_73_details_are_not_dropped_silently(service: Service) -> None:
    """A token with details keeps them where none are asked for: without them it might be worth more."""
    given = {"subject_token": token(authorization_details=[PAYMENT]), "audience": "helper"}
    issued = service.exchange(**given)
    assert claims_of(issued)["authorization_details"] == [PAYMENT]
    assert issued.body()["authorization_details"] == [PAYMENT]
    answer = refusal(service, client("orchestrator", detail_types=()), **given)
    assert answer[:2] == ("invalid_authorization_details", "detail_type")


def test_73_a_comparator_that_fails_refuses() -> None:
    """A comparator that raises, or returns something but True, grants nothing."""

    def failing(granted: object, asked: object) -> bool:
        raise KeyError("limit")

    given = {"subject_token": token(authorization_details=[PAYMENT]), "audience": "helper"}
    assert refusal(Service(comparators={"payment": failing}), **given) == ("server_error", "comparator", 500)
    truthy: Any = lambda granted, asked: 1
    answer = refusal(Service(comparators={"payment": truthy}), **given)
    assert answer[:2] == ("invalid_authorization_details", "detail_beyond_subject")


def test_73_same_compares_json() -> None:
    """`same` takes exactly what was granted, in any order of members; True isn't 1."""
    assert same({"type": "x", "n": 1}, {"n": 1, "type": "x"})
    assert not same({"type": "x", "n": 1}, {"n": True, "type": "x"})
    assert not same({"type": "x"}, {"type": "x", "n": None})
    assert within_common_fields({"type": "x", "actions": ["a"]}, {"type": "x", "actions": ["a"]})


# ---- life


def test_74_life_is_capped(service: Service) -> None:
    """Case 74, R15: the result ends with the subject's token, the actor's, and within every lifetime."""
    given = {"subject_token": token(exp=later(minutes=5)), **GOOD}
    assert granted(service, **given)["exp"] == later(minutes=5)
    assert granted(service, **given, actor_token=actor_token(exp=later(minutes=2)))["exp"] == later(minutes=2)
    assert granted(service, subject_token=token(), **GOOD)["exp"] == later(minutes=10)
    short = client("orchestrator", max_lifetime=dt.timedelta(minutes=1))
    assert granted(service, short, subject_token=token(), **GOOD)["exp"] == later(minutes=1)
    target = [Target("helper", scopes=SCOPES, max_lifetime=dt.timedelta(seconds=30))]
    issued = Service(targets=target).exchange(subject_token=token(), **GOOD)
    assert (claims_of(issued)["exp"], issued.expires_in) == (later(seconds=30), 30)


def test_74_leeway_is_no_life(service: Service) -> None:
    """A subject token that is only still valid by the leeway has no life left to give."""
    late = token(exp=later(seconds=-5), iat=later(minutes=-5))
    assert refusal(service, subject_token=late, **GOOD)[:2] == ("invalid_request", "no_life_left")
    fraction = token(exp=later(seconds=5) + 0.75)
    assert granted(service, subject_token=fraction, **GOOD)["exp"] == later(seconds=5)


def test_75_what_was_dropped_at_one_hop_is_gone_at_the_next(service: Service) -> None:
    """Case 75: a scope that the first hop gave up isn't had back by the second."""
    first = service.exchange(subject_token=token(), audience="helper", scope="read").access_token
    answer = refusal(service, HELPER, subject_token=first, resource=PAY, scope="read pay")
    assert answer[:2] == ("invalid_scope", "scope_beyond_subject")
    assert granted(service, HELPER, subject_token=first, resource=PAY)["scope"] == "read"


# ---- over many hops


NAMES = ("a", "b", "c", "d")
SOME = st.frozensets(st.sampled_from(SCOPES[:3]), min_size=2)
DETAIL_ACTIONS = ("initiate", "status", "cancel")
HOP = st.fixed_dictionaries(
    {
        "scope": st.none() | st.lists(st.sampled_from(SCOPES[:3]), min_size=1, max_size=2, unique=True).map(" ".join),
        "audience": st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True),
        "actions": st.none() | st.lists(st.sampled_from(DETAIL_ACTIONS), min_size=1, max_size=2, unique=True),
        "wait": st.integers(0, 30),
    }
)
CLIENT = st.tuples(SOME, st.frozensets(st.sampled_from(NAMES), min_size=3), st.integers(30, 1200))


@settings(max_examples=80, deadline=None)
@given(
    plan=st.lists(HOP, min_size=2, max_size=5),
    registered=st.fixed_dictionaries(dict.fromkeys(NAMES, CLIENT)),
    reached=st.fixed_dictionaries(dict.fromkeys(NAMES, st.frozensets(st.sampled_from(("start", *NAMES)), min_size=2))),
    life=st.integers(60, 3600),
)
def test_no_hop_ever_gains_anything(
    plan: list[dict[str, Any]], registered: dict[str, Any], reached: dict[str, frozenset[str]], life: int
) -> None:
    """Over random chains and narrowings no hop gains a scope, an audience, a detail or a second of life.

    An audience is gained where it can't be reached, by the targets' own edges, from what the token was for.
    """
    clients = {
        name: client(name, scopes=scopes, audiences=audiences, max_lifetime=dt.timedelta(seconds=seconds))
        for name, (scopes, audiences, seconds) in registered.items()
    }
    targets = [Target(name, scopes=SCOPES, detail_types=["payment"], reached_from=reached[name]) for name in NAMES]
    service = Service(
        "permit all on token.exchange when true", targets=targets, clients=Clients(list(clients.values()))
    )
    detail = {"type": "payment", "actions": ["initiate", "status"]}
    raw = token(
        aud=["start", *NAMES[:2]],
        client_id="a",
        scope="read write",
        exp=later(seconds=life),
        authorization_details=[detail],
    )
    for hop in plan:
        before = claims_of(raw)
        holder = clients[sorted(_names(before["aud"]) & clients.keys())[0]]
        details = None if hop["actions"] is None else json.dumps([{"type": "payment", "actions": hop["actions"]}])
        service.clock.forward(seconds=hop["wait"])
        try:
            issued = service.exchange(
                holder, subject_token=raw, scope=hop["scope"], audience=hop["audience"], authorization_details=details
            )
        except ExchangeRefused:
            continue
        after = claims_of(issued)
        assert set(after["scope"].split()) <= set(before["scope"].split()) & holder.scopes
        assert after["exp"] <= before["exp"]
        assert _reachable(after["aud"], reached) <= _reachable(before["aud"], reached)
        assert all(
            within_common_fields(before["authorization_details"][0], one) for one in after["authorization_details"]
        )
        assert _actors(after)[-len(_actors(before)) or len(_actors(after)) :] == _actors(before)
        assert (after["iss"], after["sub"]) == (STS, "alice")
        raw = issued.access_token


def _names(aud: str | list[str]) -> set[str]:
    return {aud} if isinstance(aud, str) else set(aud)


def _reachable(aud: str | list[str], reached: dict[str, frozenset[str]]) -> set[str]:
    found = _names(aud)
    while more := {name for name, sources in reached.items() if sources & found} - found:
        found |= more
    return found


def _actors(claims: dict[str, Any]) -> list[str]:
    """Return the actors of a token, the current one first."""
    found = []
    while "act" in claims:
        claims = claims["act"]
        found.append(claims["sub"])
    return found


def test_the_property_is_about_exchanges_that_happen(service: Service) -> None:
    """Three hops in a row are possible, and narrow each time: the property above isn't empty."""
    first = service.exchange(subject_token=token(), audience="helper", scope="read write").access_token
    second = service.exchange(HELPER, subject_token=first, audience=DOCS, scope="read")
    assert _actors(claims_of(second)) == ["helper", "orchestrator"]
    assert second.issued_token_type == ACCESS_TOKEN
    assert (ORCHESTRATOR.id, len(TARGETS)) == ("orchestrator", 7)
