"""The exchange is decided by the policy: what it is asked, and that nothing but its permission issues a token."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from agentauthz import Authorizer, PolicyCheckError, PolicySet
from agentauthz.errors import ExchangeRefused
from agentauthz.obligations import notify
from agentauthz.records import DelegationRecord, MemorySink, Record
from agentauthz.sts.clients import Clients
from agentauthz.sts.service import SecurityTokenService
from agentauthz.testing import capture_records
from agentauthz.tokens.types import ACCESS_TOKEN, JWT
from tests.sts_service import (
    DESK,
    DOCS,
    HELPER,
    IDP,
    KEYS,
    ORCHESTRATOR,
    PAY,
    POLICY,
    REFUSED,
    STS,
    TARGETS,
    Service,
    actor_token,
    claims_of,
    granted,
    later,
    pairs,
    refusal,
    token,
)

GOOD = {"audience": "helper", "scope": "read"}


def test_64_may_act_and_the_policy_must_both_agree() -> None:
    """Case 64, decision 7: a matching `may_act` doesn't make up for the policy, nor the policy for `may_act`."""
    service = Service()
    named = token(aud="refused", may_act={"iss": STS, "sub": "refused"})
    assert refusal(service, REFUSED, subject_token=named, **GOOD)[:2] == ("invalid_request", "forbidden")
    other = token(may_act={"iss": STS, "sub": "helper"})
    assert refusal(service, subject_token=other, **GOOD)[:2] == ("invalid_request", "may_act")
    both = token(may_act={"iss": STS, "sub": "orchestrator"})
    assert granted(service, subject_token=both, **GOOD)["act"]["sub"] == "orchestrator"


def test_65_without_a_rule_nothing_is_exchanged() -> None:
    """Case 65: no `may_act` and no rule is a denial; `*` doesn't cover the library's own actions."""
    for policy in ("permit anything on * when true", "permit others on token.impersonate when true"):
        service = Service(policy)
        assert refusal(service, subject_token=token(), **GOOD)[0] == "invalid_request"
        assert service.records[-1].basis == "default"
    assert granted(Service("permit named on token.exchange when true"), subject_token=token(), **GOOD)["act"]


@pytest.mark.parametrize(
    "policy",
    [
        "permit broken on token.exchange when args.audience > 3",
        "permit all on token.exchange when true\nforbid broken on token.exchange when args.nothing == 3",
        "permit all on token.exchange when true with failing(channel: \"x\")",
        "permit all on token.exchange when true with mask(fields: [\"act\"])",
        'permit all on token.exchange when true\nreview r on token.exchange when true by approver != subject',
        "permit all on token.exchange when true\nlimit few on token.exchange to sum(2) <= 1 per subject every 1d",
        "permit all on token.exchange when true with expire(after: 5m) with failing(channel: 1)",
    ],
)  # fmt: skip
def test_67_anything_but_an_allow_issues_nothing(policy: str) -> None:
    """Case 67: what can't be decided, wants a person, a budget or an obligation is a denial, and recorded as such."""
    service = Service(policy, obligations={"failing": lambda duty: False})
    with pytest.raises(ExchangeRefused) as raised:
        service.exchange(subject_token=token(), **GOOD)
    (record,) = service.records
    assert record.outcome in ("deny", "review")
    assert (raised.value.error, raised.value.status) == ("invalid_request", 400)
    assert raised.value.record_id == record.id


def test_67_observe_mode_issues_nothing_that_is_not_permitted() -> None:
    """Observe mode lets calls run that lack a permit; a token that was issued couldn't be taken back."""
    service = Service()
    observing = Authorizer(
        PolicySet.parse("permit none on docs.read when true"), sinks=[service.sink], clock=service.clock,
        mode="observe", observe_until=service.clock.now + dt.timedelta(days=1),
    )  # fmt: skip
    made = SecurityTokenService(
        STS, KEYS[STS], {ACCESS_TOKEN: service.validator}, Clients([]), observing, targets=TARGETS
    )
    with pytest.raises(ExchangeRefused) as raised:
        made.exchange(pairs(subject_token=token(), **GOOD), ORCHESTRATOR)
    (record,), (effect,) = service.records, service.sink.effects
    assert (record.outcome, record.enforced, record.id) == ("deny", False, raised.value.record_id)
    assert (effect.of, effect.status) == (record.id, "failed")  # what could have run is told not to have


def test_67_what_cannot_be_recorded_is_not_issued() -> None:
    """A sink that fails turns the permission into a denial, and a refusal stays one."""
    service = Service()
    service.sink.close()
    for given in ({"subject_token": token(), **GOOD}, {"subject_token": "junk", **GOOD}):
        with pytest.raises(ExchangeRefused) as raised:
            service.exchange(**given)
        assert raised.value.error == "invalid_request"


def _passed(service: Service) -> list[DelegationRecord]:
    return [each for each in service.sink.records if isinstance(each, DelegationRecord)]


def test_what_is_issued_is_recorded_by_its_names_digest() -> None:
    """Each token that is handed out leaves one record: whose authority, to whom, for what; no token is in it."""
    service = Service()
    given, before = token(jti="subject-token"), len(service.sink.records)
    issued = service.exchange(subject_token=given, **GOOD)
    [record] = _passed(service)
    order = [type(each).__name__ for each in service.sink.records[before:]]
    assert [name for name in order if name != "PolicyRecord"][-3:] == [
        "DecisionRecord", "DelegationRecord", "EffectRecord",
    ]  # fmt: skip
    assert (record.kind, record.outcome, record.session) == ("issue", "passed", None)
    assert [actor.sub for actor in record.actors] == ["alice"]
    assert record.to is not None
    assert (record.to.sub, record.scopes, record.audience) == ("orchestrator", ("read",), ("helper",))
    assert record.hop is not None
    assert (record.hop.actions, record.hop.via) == (("read",), "token")
    assert record.ctx.parent == issued.record_id
    assert record.token != record.issued
    for secret in (given, issued.access_token, "subject-token", claims_of(issued)["jti"]):
        assert secret.encode() not in record.line()


def test_the_next_hop_has_the_name_of_the_token_that_it_came_by() -> None:
    """What one exchange issues, and the next one takes, has the same digest in both records; the chain grows."""
    service = Service()
    first = service.exchange(subject_token=token(), **GOOD)
    service.exchange(HELPER, subject_token=first.access_token, audience=DOCS, scope="read")
    one, two = _passed(service)
    assert two.token == one.issued
    assert [actor.sub for actor in two.actors] == ["alice", "orchestrator"]
    assert two.to is not None
    assert two.to.sub == "helper"


@pytest.mark.parametrize(
    ("given", "reason", "actors"),
    [
        ({"subject_token": "junk"}, "subject_token_", ["orchestrator"]),
        ({"subject_token": token(scope=None)}, "", ["alice"]),
        ({"subject_token": token(), "scope": "payroll"}, "", ["alice"]),
        ({"grant_type": "other"}, "grant_type", ["orchestrator"]),
    ],
    ids=["junk", "no scope", "wider", "grant"],
)
def test_what_is_refused_is_recorded_as_an_attempt(given: Any, reason: str, actors: list[str]) -> None:
    """A refusal has the reason of its decision, whose id is its parent, and nothing that wasn't verified."""
    service = Service()
    refusal(service, **{**GOOD, **given})
    [record], [decision] = _passed(service), service.records
    assert (record.kind, record.outcome, record.issued) == ("issue", "refused", None)
    assert record.ctx.parent == decision.id
    assert record.reason is not None
    assert record.reason.code == decision.reasons[0].code
    assert record.reason.code.startswith(reason)
    assert [actor.sub for actor in record.actors] == actors


def test_what_a_policy_refuses_is_recorded_as_an_attempt() -> None:
    """A denial by the policy is one decision and one refused delegation."""
    service = Service()
    refusal(service, REFUSED, subject_token=token(aud="refused"), **GOOD)
    [record], [decision] = _passed(service), service.records
    assert (record.outcome, record.ctx.parent, decision.outcome) == ("refused", decision.id, "deny")


class _NoDelegations:
    """Be a sink that keeps all but delegations."""

    def append(self, line: bytes, record: Record) -> None:
        if isinstance(record, DelegationRecord):
            raise OSError

    def close(self) -> None:
        pass


def test_a_token_whose_delegation_can_not_be_recorded_is_not_handed_out() -> None:
    """The exchange was allowed and signed, and ends with the server's error all the same; its effect says so."""
    service = Service()
    service.authorizer.add_sink(_NoDelegations())
    with pytest.raises(ExchangeRefused) as raised:
        service.exchange(subject_token=token(), **GOOD)
    assert (raised.value.error, raised.value.reason, raised.value.status) == ("server_error", "not_recorded", 500)
    [effect] = service.sink.effects
    assert effect.status == "failed"


def test_the_policy_sees_what_is_granted() -> None:
    """The arguments are lists of strings, as they will stand in the token: also where the request left them out."""
    policy = f"""
    permit exact on token.exchange
      when args.audience == ["docs"] and args.resource == ["{PAY}"] and args.scope == ["read", "write"]
       and args.requested_token_type == "{ACCESS_TOKEN}" and subject == user("alice", issuer: "{STS}")
       and actor == agent("orchestrator", issuer: "{STS}")
    permit typed on token.exchange
      when args.requested_token_type == "{JWT}" and actor == agent("orchestrator", issuer: "{STS}")
    """
    service = Service(policy)
    given = {"subject_token": token(scope="read write unknown"), "audience": DOCS, "resource": PAY}
    assert granted(service, **given)["scope"] == "read write"
    assert granted(service, **given, scope="read", requested_token_type=JWT)["scope"] == "read"
    assert refusal(service, **given, scope="read")[0] == "invalid_request"


def test_36_who_acted_before_is_history() -> None:
    """Case 36, R12: a forbid for an actor doesn't stop another one behind which it stands (RFC 8693 §4.1)."""
    service = Service()
    behind = token(aud="helper", act={"iss": STS, "sub": "refused"})
    assert granted(service, HELPER, subject_token=behind, resource=PAY, scope="pay")["act"]["sub"] == "helper"
    assert [actor.sub for actor in service.records[-1].actors] == ["alice", "refused", "helper"]
    own = token(aud="refused", act={"iss": STS, "sub": "helper"})
    assert refusal(service, REFUSED, subject_token=own, resource=PAY, scope="pay")[1] == "forbidden"


def test_who_goes_on_is_judged_as_who_it_is() -> None:
    """SECURITY: a token's `act` may name the client by another of its names, or as another kind: neither counts."""
    aliased = {"iss": IDP, "sub": "refused-at-idp", "sub_profile": "ai_agent"}
    service = Service(subject_mapper=lambda token: "user-1")
    foreign: dict[str, Any] = {"iss": IDP, "aud": ["refused-at-idp", "helper-at-idp"]}
    assert refusal(service, REFUSED, subject_token=token(**foreign, act=aliased), **GOOD)[1] == "forbidden"
    assert refusal(service, REFUSED, subject_token=token(aud="refused", act={"iss": STS, "sub": "refused",
                   "sub_profile": "service"}), **GOOD)[1] == "forbidden"  # fmt: skip
    own = {**aliased, "sub": "helper-at-idp"}
    assert granted(service, HELPER, subject_token=token(**foreign, act=own), resource=PAY, scope="pay")["act"] == own
    assert [(actor.sub, actor.iss) for actor in service.records[-1].actors] == [("user-1", STS), ("helper", STS)]


@pytest.mark.parametrize("given", ["seconds: 60", "after: 5m, unless: true", "after: 5", "after: 500ms", ""])
def test_an_obligation_on_life_is_checked_at_load(given: str) -> None:
    """A life that isn't one, or something beside it, is found when the authorizer is made."""
    with pytest.raises(PolicyCheckError, match="a duration of a second or more"):
        Service(f"permit all on token.exchange when true with expire({given})")


def test_what_is_obliged_to_is_done_before_a_token_is_issued() -> None:
    """A handler that acts before the call serves exchanges too, beside the life that the service itself shortens."""
    told: list[str] = []
    policy = "permit all on token.exchange when true with expire(after: 5m) with notify()"
    service = Service(policy, obligations={"notify": notify(lambda text, _: told.append(text))})
    assert service.exchange(subject_token=token(), audience="helper", scope="read").expires_in == 300
    assert [text.split()[0] for text in told] == ["`token.exchange`"]


def test_an_obligation_can_only_shorten_life() -> None:
    """`expire` caps what is issued, the shortest of several counts, and none makes it longer."""
    policy = """
    permit all on token.exchange when true with expire(after: 5m)
    permit pay on token.exchange when "pay" in args.scope with expire(after: 30s)
    permit long on token.exchange when true with expire(after: 10d)
    """
    service = Service(policy)
    issued = service.exchange(subject_token=token(), audience="helper", scope="read")
    assert (claims_of(issued)["exp"], issued.expires_in) == (later(minutes=5), 300)
    issued = service.exchange(subject_token=token(), audience="helper", scope="pay")
    assert (claims_of(issued)["exp"], issued.expires_in) == (later(seconds=30), 30)
    assert granted(service, subject_token=token(exp=later(seconds=20)), **GOOD)["exp"] == later(seconds=20)


def test_an_actor_that_an_actor_token_names_is_who_is_judged() -> None:
    """The actor of the decision is the actor of the result, not the client that asked for it."""
    service = Service('permit run on token.exchange when actor == agent("run-7", issuer: "https://sts.example")')
    given = {"subject_token": token(), **GOOD}
    instance = actor_token("orchestrator", sub="run-7", sub_profile="ai_agent")
    assert granted(service, **given, actor_token=instance)["act"]["sub"] == "run-7"
    assert refusal(service, **given)[0] == "invalid_request"


# ---- impersonation


def test_76_a_token_with_actors_never_comes_out_without_them() -> None:
    """Case 76, decision 8: impersonation with a subject token that has `act` would drop who acted."""
    service = Service()
    chained = token(aud="desk", act={"iss": STS, "sub": "helper"})
    answer = refusal(service, DESK, subject_token=chained, **GOOD, impersonate="true")
    assert answer[:2] == ("invalid_request", "act_dropped")
    plain = token(aud="desk")
    claims = granted(service, DESK, subject_token=plain, **GOOD, impersonate="true")
    assert "act" not in claims
    assert (claims["sub"], claims["client_id"]) == ("alice", "desk")
    assert granted(service, DESK, subject_token=chained, **GOOD)["act"]["act"]["sub"] == "helper"


def test_76_impersonation_is_asked_for_and_allowed_for_the_client_and_by_the_policy() -> None:
    """Decision 8: three things must agree, and a record of its own says that it was impersonation."""
    service = Service()
    answer = refusal(service, subject_token=token(), **GOOD, impersonate="true")
    assert answer[:2] == ("invalid_request", "impersonation")
    assert service.records[-1].action.name == "token.impersonate"
    strict = Service("permit only_exchange on token.exchange when true")
    asked = {"subject_token": token(aud="desk"), **GOOD}
    assert refusal(strict, DESK, **asked, impersonate="true")[0] == "invalid_request"
    assert granted(strict, DESK, **asked)["act"]["sub"] == "desk"
    granted(service, DESK, **asked, impersonate="true")
    assert service.records[-1].action.name == "token.impersonate"
    assert [actor.sub for actor in service.records[-1].actors] == ["alice", "desk"]


@pytest.mark.parametrize("more", [{}, {"impersonate": "false"}, {"actor_token": "own"}])
def test_76_a_missing_parameter_never_means_impersonation(more: dict[str, Any]) -> None:
    """Even a client that may impersonate acts visibly unless it asks not to."""
    given = {**more, **({"actor_token": actor_token("desk")} if "actor_token" in more else {})}
    assert granted(Service(), DESK, subject_token=token(aud="desk"), **GOOD, **given)["act"]["sub"] == "desk"


@pytest.mark.parametrize(
    "more", [{"impersonate": "1"}, {"impersonate": "TRUE"}, {"impersonate": "true", "actor_token": "x"}]
)
def test_76_impersonation_is_asked_for_plainly(more: dict[str, Any]) -> None:
    """Anything but `true`, and an actor token beside it, is an invalid request."""
    answer = refusal(Service(), DESK, subject_token=token(aud="desk"), **GOOD, **more)
    assert answer[:2] == ("invalid_request", "impersonate")


def test_76_impersonation_heeds_may_act() -> None:
    """A `may_act` that is there binds impersonation like delegation (RFC 8693 §4.4)."""
    named = token(aud="desk", may_act={"iss": STS, "sub": "helper"})
    assert refusal(Service(), DESK, subject_token=named, **GOOD, impersonate="true")[1] == "may_act"


def test_35_36_r12_only_the_current_actor_is_who_acts() -> None:
    """R12: a rule for an actor doesn't hold for an inner one; `act` of the token is history."""
    policy = """
    permit helper on token.exchange when actor == agent("helper", issuer: "https://sts.example")
    permit behind on token.exchange when actor == agent("desk", issuer: "https://sts.example")
    """
    service = Service(policy)
    inner = token(aud="orchestrator", act={"iss": STS, "sub": "helper"})
    assert refusal(service, subject_token=inner, **GOOD)[0] == "invalid_request"
    assert granted(service, HELPER, subject_token=token(aud="helper", act={"iss": STS, "sub": "desk"}), **GOOD)


def test_every_outcome_is_one_record_for_any_sink() -> None:
    """A refusal before the policy and a decision each leave one decision, with the parties that were verified."""
    service = Service()
    with capture_records(service.authorizer) as sink:
        refusal(service, subject_token="junk", **GOOD)
        refusal(service, subject_token=token(scope=None), **GOOD)
        granted(service, subject_token=token(), **GOOD)
    assert isinstance(sink, MemorySink)
    parties = [[(actor.kind, actor.sub) for actor in record.actors] for record in sink.decisions]
    alice, orchestrator = ("user", "alice"), ("agent", "orchestrator")
    assert parties == [[orchestrator], [alice, orchestrator], [alice, orchestrator]]
    assert [record.basis for record in sink.decisions] == ["authority", "authority", "rule"]
    assert POLICY
