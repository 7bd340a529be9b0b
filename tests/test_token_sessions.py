"""Test sessions that rest on a verified token: its chain, its scopes, its end, its revocation, and the next hop."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from agentauthz import Authorizer, Basis, Denied, InvalidArgument, Outcome, PolicySet, Principal, Request, Stopped
from agentauthz.decision import Reason
from agentauthz.errors import ExchangeProtocolError, SessionError, TokenError, WideningError
from agentauthz.guard import authorize
from agentauthz.principals import Chain, Delegation
from agentauthz.records import MemorySink
from agentauthz.request import SessionFacts
from agentauthz.tokens.claims import act_claim, chain_from_claims
from agentauthz.tokens.client import TokenExchangeClient
from agentauthz.tokens.client_auth import ClientSecretBasic
from agentauthz.tokens.next_hop import next_hop_request
from agentauthz.tokens.transport import HttpRequest, HttpResponse
from agentauthz.tokens.verified import VerifiedToken
from tests.issuing import ACT, GONE, ISSUER, OTHER_ISSUER, token, trusted, validator
from tests.support import NOON, Clock

POLICY = """
permit payments on payments.* when subject == user("maria", issuer: "https://issuer.example")
permit stars on star.* when actor is agent
permit exchanging on token.exchange when "payments" in args.audience
"""
WORKER = Principal.agent("worker", issuer=ISSUER)
HELPER = Principal.agent("helper", issuer=ISSUER)


class Service:
    """Be a service with a clock of its own, that decides calls made with tokens."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.sink = MemorySink()
        self.validator = validator(clock=self.clock, **options)
        self.authorizer = Authorizer(PolicySet.parse(POLICY), sinks=[self.sink], clock=self.clock)

    def verified(self, **changes: Any) -> VerifiedToken:
        return self.validator.verify(token(**{"act": ACT, **changes}))

    def session(self, **changes: Any) -> Any:
        return self.authorizer.session(token=self.verified(**changes))


def reason(call: Callable[[], object]) -> tuple[str, Basis]:
    """Return the code and the basis of a call that is denied."""
    with pytest.raises(Denied) as caught:
        call()
    assert caught.value.decision is not None
    return caught.value.decision.reasons[0].code, caught.value.decision.basis


def test_session_has_the_tokens_chain() -> None:
    """A session of a token is its subject's, through all its actors, and records show each of them."""
    service = Service()
    with service.session() as session:
        session.authorize("payments.read")
    assert [str(party) for party in (session.subject, *(hop.to for hop in session.chain.delegations))] == [
        'user("maria", issuer: "https://issuer.example")',
        'agent("planner", issuer: "https://issuer.example")',
        'agent("worker", issuer: "https://issuer.example")',
    ]
    record = service.sink.decisions[0]
    assert [actor.sub for actor in record.actors] == ["maria", "planner", "worker"]
    assert [hop.via for hop in record.chain] == ["token", "token"]


@pytest.mark.parametrize("act", [ACT, GONE], ids=["delegated", "the subject's own"])
def test_scopes_are_the_ceiling(act: Any) -> None:
    """What no scope names is denied for want of authority, whatever the policies permit; what one names is decided."""
    session = Service().session(act=act)
    assert session.decide("payments.read").allowed
    assert reason(lambda: session.authorize("payments.delete")) == ("action_not_covered", Basis.AUTHORITY)


@pytest.mark.parametrize("act", [ACT, GONE], ids=["delegated", "the subject's own"])
@pytest.mark.parametrize("scope", ["*", "payments.*", GONE])
def test_star_in_a_scope_is_a_character(scope: Any, act: Any) -> None:
    """A `*` in a scope grants nothing, nor does a token without scopes; and nothing can be passed on."""
    session = Service().session(scope=scope, act=act)
    assert reason(lambda: session.authorize("payments.read")) == ("action_not_covered", Basis.AUTHORITY)
    with pytest.raises(WideningError):
        session.delegate(HELPER)


def test_mapper_says_what_scopes_permit() -> None:
    """Where names differ, the issuer's mapper gives the action patterns of a scope."""
    service = Service()
    service.validator = validator(trusted(actions=lambda scope: ["payments.*"] if scope == "pay" else []))
    session = service.session(scope="pay")
    assert session.decide("payments.delete").allowed
    assert not service.session(scope="other").decide("payments.delete").allowed


def test_session_ends_with_its_token() -> None:
    """When the token has expired, the session has; an earlier end may be asked for, a later one is not had."""
    service = Service()
    session, shorter = service.session(), service.authorizer.session(token=service.verified(), expires="1m")
    longer = service.authorizer.session(token=service.verified(), expires="9h")
    assert session.expires == longer.expires == NOON + dt.timedelta(seconds=300)
    service.clock.forward(seconds=60)
    assert reason(lambda: shorter.authorize("payments.read")) == ("expired", Basis.REVOKED)
    session.authorize("payments.read")
    service.clock.forward(seconds=240)
    assert reason(lambda: session.authorize("payments.read")) == ("expired", Basis.REVOKED)


def test_revocation_is_asked_at_each_decision() -> None:
    """A token that is revoked while its session runs stops the next call, a delegate's too, and what is running."""
    revoked: list[bool] = []
    service = Service(revocation=lambda token: bool(revoked))
    session = service.session()
    with session, session.delegate(HELPER) as delegated:
        session.authorize("payments.read")
        delegated.authorize("payments.read")
        revoked.append(True)
        assert reason(lambda: session.authorize("payments.read")) == ("token_revoked", Basis.REVOKED)
        assert reason(lambda: delegated.authorize("payments.read")) == ("token_revoked", Basis.REVOKED)
        assert not session.preview("payments.read").allowed
        with pytest.raises(Stopped, match="token"):
            session.ensure_running()


@pytest.mark.parametrize("answer", [None, "no", RuntimeError("canary")])
def test_revocation_that_is_not_known_denies(answer: object) -> None:
    """A hook that fails, or can't say, denies the call, with basis `error` or `revoked`, and shows nothing of why."""
    answers: list[object] = [False]

    def hook(_: VerifiedToken) -> Any:
        if isinstance(answers[-1], Exception):
            raise answers[-1]
        return answers[-1]

    session = Service(revocation=hook).session()
    session.authorize("payments.read")
    answers.append(answer)
    with pytest.raises(Denied) as caught:
        session.authorize("payments.read")
    assert caught.value.decision is not None
    assert caught.value.decision.basis in (Basis.ERROR, Basis.REVOKED)
    assert "canary" not in str(caught.value)


def test_observe_mode_holds_to_the_token() -> None:
    """Observing lets run what lacks a permit, but nothing that the token doesn't cover, or once it is revoked."""
    revoked: list[bool] = []
    service = Service(revocation=lambda token: bool(revoked))
    observing = Authorizer(
        PolicySet.parse("permit none on nothing when true"), sinks=[service.sink], clock=service.clock,
        mode="observe", observe_until=NOON + dt.timedelta(days=1),
    )  # fmt: skip
    session = observing.session(token=service.verified())
    assert session.decide("payments.read").allowed
    assert not session.decide("payments.delete").allowed
    revoked.append(True)
    assert not session.decide("payments.read").allowed


def test_same_id_shares_what_was_done_and_no_authority() -> None:
    """Who resumes a session by another token finds its marks, and has what the new token covers, not the old one."""
    service = Service()
    policy = 'type session { marks: ["told"] }\nforbid told on payments.refund when "told" in session.marks\n'
    service.authorizer.replace(PolicySet.parse(policy + POLICY))
    wide = service.authorizer.session(token=service.verified(), id="talk")
    narrow = service.authorizer.session(token=service.verified(scope="payments.read", jti="token-2"), id="talk")
    assert wide.decide("payments.refund").allowed
    assert narrow.decide("payments.refund").basis is Basis.AUTHORITY
    narrow.mark("told")
    assert wide.decide("payments.refund").basis is Basis.RULE
    assert wide.decide("payments.read").allowed


def test_decorated_tool_is_held_to_the_token() -> None:
    """A guarded function called in a token's session is stopped by the scopes like an inline call."""

    @authorize("payments.refund")
    def refund(amount: int) -> int:
        return amount

    @authorize("payments.delete")
    def delete() -> None:
        raise AssertionError("must not run")

    with Service().session():
        assert refund(3) == 3
        assert reason(delete) == ("action_not_covered", Basis.AUTHORITY)


def test_earlier_actors_of_a_token_are_not_judged() -> None:
    """A rule that forbids an inner actor doesn't count (RFC 8693 §4.1); one that forbids the current actor does."""
    service = Service()
    inner = 'forbid planner on payments.* when actor == agent("planner", issuer: "https://issuer.example")\n'
    service.authorizer.replace(PolicySet.parse(POLICY + inner))
    assert service.session().decide("payments.read").allowed
    service.authorizer.replace(PolicySet.parse(POLICY + inner.replace("planner", "worker")))
    assert service.session().decide("payments.read").basis is Basis.RULE


def test_tokens_current_actor_is_judged_for_its_delegates() -> None:
    """Who gets authority in process from the token's actor gets no more than that actor has."""
    service = Service()
    policy = POLICY + 'forbid no_worker on payments.* when actor == agent("worker", issuer: "https://issuer.example")\n'
    with service.session() as session:
        child = session.delegate(HELPER)
        assert child.decide("payments.read").allowed
        service.authorizer.replace(PolicySet.parse(policy))
        assert child.decide("payments.read").outcome is Outcome.DENY


@pytest.mark.parametrize("act", [ACT, GONE], ids=["delegated", "the subject's own"])
def test_delegating_narrows_the_token(act: Any) -> None:
    """In process a token's session passes on its scopes at most, and by default all of them."""
    session = Service().session(act=act)
    child = session.delegate(HELPER)
    assert child.decide("payments.read").allowed
    assert not child.decide("payments.delete").allowed
    assert not session.delegate(HELPER, actions=["payments.read"]).decide("payments.refund").allowed
    for wider in ("payments.delete", "payments.*", "*"):
        with pytest.raises(WideningError):
            session.delegate(HELPER, actions=[wider])


def test_tokens_and_sessions_give_one_chain() -> None:
    """The parties that `session.delegate` puts in a chain come back from a token that is made of it."""
    maria = Principal.user("maria", issuer=ISSUER)
    authorizer = Service().authorizer
    with authorizer.session(subject=maria, actor=WORKER) as session:
        chain = session.delegate(HELPER).chain
    claim = act_claim(chain)
    read = chain_from_claims({"act": claim}, subject=maria)
    assert [hop.to for hop in read.delegations] == [hop.to for hop in chain.delegations] == [WORKER, HELPER]
    assert read.subject == chain.subject


def test_an_issuer_speaks_for_its_own_actors() -> None:
    """No issuer can say that another's agent is the current actor, unless it is trusted to; earlier ones may be."""
    service = Service()
    service.authorizer.replace(
        PolicySet.parse(f'permit w on payments.* when actor == agent("worker", issuer: "{ISSUER}")')
    )
    foreign = {"iss": OTHER_ISSUER, "act": {"sub": "worker", "iss": ISSUER}}
    service.validator = validator(trusted(), trusted(issuer=OTHER_ISSUER))
    with pytest.raises(TokenError, match="actor_issuer"):
        service.session(**foreign)
    inner = {"sub": "other", "iss": OTHER_ISSUER, "act": {"sub": "worker", "iss": ISSUER}}
    assert service.session(iss=OTHER_ISSUER, act=inner).decide("payments.read").basis is Basis.DEFAULT
    service.validator = validator(trusted(), trusted(issuer=OTHER_ISSUER, actor_issuers=[ISSUER]))
    assert service.session(**foreign).decide("payments.read").allowed


@pytest.mark.parametrize("more", [{"subject": WORKER}, {"actor": WORKER}, {"chain": Chain(WORKER)}])
def test_token_says_who_acts_alone(more: dict[str, Any]) -> None:
    """Nobody else can be named beside a token."""
    service = Service()
    with pytest.raises(InvalidArgument, match="token"):
        service.authorizer.session(token=service.verified(), **more)


@pytest.mark.parametrize("given", ["eyJhbGciOiJub25lIn0.e30.", {"sub": "maria"}, object()])
def test_only_a_verified_token_makes_a_session(given: Any) -> None:
    """A token's text, its claims or anything else is refused, and isn't shown."""
    with pytest.raises(InvalidArgument, match="must be a VerifiedToken") as caught:
        Service().authorizer.session(token=given)
    assert "eyJ" not in str(caught.value)


def test_ceiling_of_facts_given_by_hand() -> None:
    """A request with a session's facts is held to their ceiling, which doesn't stop the library's own actions."""
    authorizer = Authorizer(PolicySet.parse("permit all on * when true\npermit own on token.exchange when true"))
    facts = SessionFacts("s", NOON, ceiling=("docs.read",))
    subject = Principal.user("maria")
    assert authorizer.decide(Request("docs.read", subject=subject, session=facts, now=NOON)).allowed
    assert authorizer.decide(Request("token.exchange", subject=subject, session=facts, now=NOON)).allowed
    outside = Request("docs.write", subject=subject, session=facts, now=NOON)
    for decision in (authorizer.decide(outside), authorizer.preview(outside), authorizer.explain(outside).decision):
        assert (decision.outcome, decision.basis) == (Outcome.DENY, Basis.AUTHORITY)


def test_token_that_was_not_admitted_makes_no_session() -> None:
    """A genuine token of which nobody checked that it is for this service, and who presents it, carries no session."""
    service = Service()
    for name in ("genuine", "verify"):
        found = getattr(service.validator, name)(token(), kind="access")
        assert found.admitted is (name == "verify")
    with pytest.raises(InvalidArgument, match="meant for us"):
        service.authorizer.session(token=service.validator.genuine(token(aud="https://other.example"), kind="access"))
    kept = Service(cache=8)
    assert kept.verified().admitted
    assert not kept.validator.genuine(token(act=ACT), kind="access").admitted


# ---- what a token service asks of the authorizer


def test_chain_by_hand_counts_as_the_hosts_word_only_where_it_is() -> None:
    """`decide` judges each agent of a chain; `decide_verified` only from the last hop that came by token."""
    policy = POLICY + 'forbid p on payments.* when actor == agent("planner", issuer: "https://issuer.example")\n'
    authorizer = Authorizer(PolicySet.parse(policy))
    request = Request("payments.read", subject=Principal.user("maria", issuer=ISSUER), chain=Service().verified().chain)
    assert not authorizer.decide(request).allowed
    assert authorizer.decide_verified(request).allowed


def test_refusal_is_recorded_without_asking_a_policy() -> None:
    """`refuse` leaves a record with the reason and the parties, in observe mode too, and never allows."""
    sink = MemorySink()
    authorizer = Authorizer(
        PolicySet.parse("permit all on * when true"), sinks=[sink], clock=Clock(), mode="observe",
        observe_until=NOON + dt.timedelta(days=1),
    )  # fmt: skip
    request = Request("docs.read", subject=Principal.user("maria"), now=NOON)
    decision = authorizer.refuse(request, Reason("stolen", "somebody else's token"))
    assert (decision.outcome, decision.basis, decision.allowed) == (Outcome.DENY, Basis.AUTHORITY, False)
    assert sink.decisions[0].reasons[0].code == "stolen"


def test_performing_what_was_decided_leaves_its_effect() -> None:
    """`performing` records how the work ended that `decide_verified` allowed, and begins none that it denied."""
    sink = MemorySink()
    authorizer = Authorizer(PolicySet.parse("permit own on token.exchange when true"), sinks=[sink], clock=Clock())
    request = Request("token.exchange", subject=Principal.user("maria"), now=NOON)
    with authorizer.performing(authorizer.decide_verified(request)):
        assert not sink.effects
    with pytest.raises(OSError), authorizer.performing(authorizer.decide_verified(request)):
        raise OSError("canary of a token")
    told = [(effect.of, effect.action, effect.status, effect.error_type) for effect in sink.effects]
    first, second = sink.decisions
    assert told == [(first.id, "token.exchange", "done", None), (second.id, "token.exchange", "failed", "OSError")]
    assert b"canary" not in sink.effects[1].line()
    denied = authorizer.decide_verified(Request("token.impersonate", subject=Principal.user("maria"), now=NOON))
    with pytest.raises(InvalidArgument, match="decision"), authorizer.performing(denied):
        pytest.fail("it began")
    assert len(sink.effects) == 2


def test_an_effect_that_cannot_be_kept_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The work is done when its effect is recorded: a sink that fails then, or a clock, takes nothing back."""
    sink, clock = MemorySink(), Clock()
    authorizer = Authorizer(PolicySet.parse("permit own on token.exchange when true"), sinks=[sink], clock=clock)
    decision = authorizer.decide_verified(Request("token.exchange", subject=Principal.user("maria"), now=NOON))
    with authorizer.performing(decision):
        sink.close()
    assert str(decision.record_id) in caplog.text


def test_an_objection_is_asked_for_last_and_once() -> None:
    """`objects` isn't asked where the policies deny, its answer denies on the record, and a failure of it too."""
    asked: list[str] = []

    def objecting(answer: tuple[Basis, Reason] | None) -> Callable[[], tuple[Basis, Reason] | None]:
        def objects() -> tuple[Basis, Reason] | None:
            asked.append("asked")
            return answer

        return objects

    def failing() -> None:
        raise ConnectionError("store")

    sink = MemorySink()
    authorizer = Authorizer(PolicySet.parse("permit own on token.exchange when true"), sinks=[sink], clock=Clock())
    request = Request("token.exchange", subject=Principal.user("maria"), now=NOON)
    other = Request("token.impersonate", subject=Principal.user("maria"), now=NOON)
    used = (Basis.AUTHORITY, Reason("used", "it was used before"))
    assert not authorizer.decide_verified(other, objects=objecting(None)).allowed
    assert asked == []
    assert authorizer.decide_verified(request, objects=objecting(None)).allowed
    assert not authorizer.decide_verified(request, objects=objecting(used)).allowed
    assert not authorizer.decide_verified(request, objects=failing).allowed
    assert len(asked) == 2
    found = [(record.outcome, record.basis, record.reasons[0].code) for record in sink.decisions[2:]]
    assert found == [("deny", "authority", "used"), ("deny", "error", "evaluation_failed")]


def test_refused_token_is_recorded_in_nobodys_name() -> None:
    """What a validator refused leaves a record with the precise reason, for the action that it was presented for."""
    service = Service()
    with pytest.raises(TokenError) as caught:
        service.validator.verify(token(aud="https://elsewhere.example"))
    decision = service.authorizer.refuse_token(caught.value, action="payments.read", route="POST /payments")
    record = service.sink.decisions[0]
    assert not decision.allowed
    assert (record.action.name, record.route, record.reasons[0].code) == ("payments.read", "POST /payments", "audience")
    assert [(actor.kind, actor.sub, actor.iss) for actor in record.actors] == [("service", "nobody", None)]
    for wrong in (ValueError("x"), "expired", None):
        with pytest.raises(InvalidArgument, match="TokenError"):
            service.authorizer.refuse_token(wrong, action="payments.read")  # type: ignore[arg-type]


# ---- the next hop


class Endpoint:
    """Be a token endpoint's transport that keeps what it was asked, and answers with a token of its own."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.life = b'"expires_in":60,'

    def __call__(self, request: HttpRequest) -> HttpResponse:
        self.asked.append(request.body)
        body = (
            b'{"access_token":"next","issued_token_type":"urn:ietf:params:oauth:token-type:access_token",'
            b'"token_type":"Bearer",' + self.life + b'"scope":"payments.read"}'
        )
        return HttpResponse(200, (("Content-Type", "application/json"), ("Cache-Control", "no-store")), body)

    async def aio(self, request: HttpRequest) -> HttpResponse:
        return self(request)

    def client(self) -> TokenExchangeClient:
        auth = ClientSecretBasic("worker", "a-long-secret-of-the-worker")
        return TokenExchangeClient("https://sts.example/token", auth, transport=self, async_transport=self.aio)


def test_exchange_is_decided_recorded_and_sent() -> None:
    """`session.exchange` asks with the session's token, under a policy here, and its record shows no token."""
    service, endpoint = Service(), Endpoint()
    with service.session() as session:
        issued = session.exchange(endpoint.client(), audience=["payments"], scope=["payments.read"])
    assert issued.access_token == "next"
    assert b"scope=payments.read&" in endpoint.asked[0] + b"&"
    decision, effect = service.sink.decisions[0], service.sink.effects[0]
    assert (decision.action.name, decision.outcome, effect.status) == ("token.exchange", "allow", "done")
    assert session.token.reveal().encode() not in decision.line()


def test_exchange_from_a_coroutine() -> None:
    """`aexchange` does the same."""
    service, endpoint = Service(), Endpoint()

    async def main() -> str:
        async with service.session() as session:
            found = await session.aexchange(endpoint.client(), audience=["payments"], scope=["payments.read"])
        return str(found.access_token)

    assert asyncio.run(main()) == "next"
    assert [record.action.name for record in service.sink.decisions] == ["token.exchange"]


def test_exchange_that_no_policy_permits_is_not_sent() -> None:
    """Where the policies here deny the exchange, nothing leaves the process."""
    endpoint = Endpoint()
    session = Service().session()
    code, basis = reason(lambda: session.exchange(endpoint.client(), audience=["elsewhere"]))
    assert (code, basis) == ("not_permitted", Basis.DEFAULT)
    assert endpoint.asked == []


@pytest.mark.parametrize("stop", ["closed", "expired", "revoked"])
def test_exchange_in_a_session_that_is_over_is_not_sent(stop: str) -> None:
    """A session that was closed, has expired, or whose token was revoked passes nothing on."""
    revoked: list[bool] = []
    service, endpoint = Service(revocation=lambda token: bool(revoked)), Endpoint()
    session = service.session()
    if stop == "closed":
        session.close()
    elif stop == "expired":
        service.clock.forward(hours=1)
    else:
        revoked.append(True)
    with pytest.raises(Denied):
        session.exchange(endpoint.client(), audience=["payments"])
    assert endpoint.asked == []


def test_exchange_asks_for_what_the_session_covers() -> None:
    """Scopes that the session doesn't cover are refused here; left out, those that it covers are asked for."""
    verified = Service().verified()
    chain = verified.chain.extend(Delegation(HELPER, ["payments.read"]))
    helper = Service().verified(sub="helper", sub_profile="ai_agent", act=GONE)
    assert next_hop_request(verified, verified.chain).scope == ("payments.read", "payments.refund")
    assert next_hop_request(verified, chain, actor_token=helper).scope == ("payments.read",)
    for scope in (["payments.refund"], ["payments.*"], ["payments.read", "token.exchange"]):
        with pytest.raises(WideningError):
            next_hop_request(verified, chain, actor_token=helper, scope=scope)
    with pytest.raises(WideningError):
        next_hop_request(verified, verified.chain.extend(Delegation(HELPER, ["docs.*"])), actor_token=helper)
    empty: list[str] = []
    for bad in (empty, "payments.read"):
        with pytest.raises(InvalidArgument, match="scope"):
            next_hop_request(verified, verified.chain, scope=bad)


def test_no_hop_is_lost_in_an_exchange() -> None:
    """A delegation made in process is shown by its party's own token; without it, or with two, nothing is exchanged."""
    service = Service()
    verified = service.verified()
    once = verified.chain.extend(Delegation(HELPER))
    other = service.verified(sub="other", act=GONE)
    foreign = Principal.agent("helper", issuer="https://elsewhere.example")
    for chain, actor_token in (
        (once, None),
        (once, other),
        (once.extend(Delegation(WORKER)), service.verified(sub="worker", act=GONE)),
        (verified.chain.extend(Delegation(foreign)), service.verified(sub="helper", act=GONE)),
    ):
        with pytest.raises(SessionError):
            next_hop_request(verified, chain, actor_token=actor_token)
    assert (
        next_hop_request(verified, once, actor_token=service.verified(sub="helper", act=GONE)).actor_token is not None
    )


def test_session_without_a_token_has_nothing_to_exchange() -> None:
    """A session that rests on the host's word says what it lacks."""
    session = Service().authorizer.session(subject=WORKER)
    with pytest.raises(InvalidArgument, match="rests on no token"):
        session.exchange(Endpoint().client(), audience=["payments"])


def _narrowed(verified: VerifiedToken, *actions: str) -> Chain:
    """Return the chain of a token's session that was delegated in process."""
    return verified.chain.extend(Delegation(HELPER, actions or verified.actions))


def test_details_are_not_passed_on_by_who_was_narrowed() -> None:
    """RFC 9396: a service passes on all of a token's details where none are asked, so who got less asks for none."""
    service = Service()
    payment = {"type": "payment", "amount": 500}
    verified = service.verified(authorization_details=[payment])
    helper = service.verified(sub="helper", act=GONE)
    for details in (None, [payment], [{"type": "payment", "amount": 1}]):
        with pytest.raises(WideningError, match="authorization details"):
            next_hop_request(
                verified, _narrowed(verified, "payments.read"), actor_token=helper, authorization_details=details
            )
        assert next_hop_request(verified, verified.chain, authorization_details=details).scope == verified.scopes
        whole = next_hop_request(verified, _narrowed(verified), actor_token=helper, authorization_details=details)
        assert whole.scope == verified.scopes
    plain = service.verified()
    assert next_hop_request(plain, _narrowed(plain, "payments.read"), actor_token=helper).scope == ("payments.read",)


def test_a_scope_that_means_something_else_is_not_taken_for_an_action() -> None:
    """With a mapper a scope may have the name of an action and permit others: who was narrowed can't pass it on."""
    service = Service()
    names = {"a": ["b"], "b": ["payments.*"]}
    service.validator = validator(trusted(actions=lambda scope: names.get(scope, [])))
    verified = service.verified(scope="a b")
    helper = validator().verify(token(sub="helper"))
    for asked in (None, ["b"], ["a"]):
        with pytest.raises(WideningError):
            next_hop_request(verified, _narrowed(verified, "b"), actor_token=helper, scope=asked)
    assert next_hop_request(verified, _narrowed(verified), actor_token=helper).scope == ("a", "b")


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [("actor_token", "eyJ.eyJ.sig"), ("actor_token", 7), ("scope", 7), ("scope", [7]), ("scope", [["a"]]),
     ("audience", "payments"), ("audience", 7), ("audience", None), ("resource", 7), ("requested_token_type", 7),
     ("authorization_details", 7), ("authorization_details", [7])],
)  # fmt: skip
def test_wrong_arguments_of_an_exchange_are_named(argument: str, wrong: Any) -> None:
    """A malformed argument is refused by its name before anything is decided or sent, and a token isn't told."""
    service, endpoint = Service(), Endpoint()
    for session in (service.session(), service.session().delegate(HELPER)):
        helper = {} if session.chain.depth == 2 else {"actor_token": service.verified(sub="helper", act=GONE)}
        with pytest.raises(InvalidArgument, match=f"^`{argument}`") as caught:
            session.exchange(endpoint.client(), **{"audience": ["payments"], **helper, argument: wrong})
        assert "eyJ" not in str(caught.value)
    assert service.sink.decisions == ()
    assert endpoint.asked == []


def test_only_a_client_exchanges() -> None:
    """Something that isn't a client of a token service is refused before anything is decided."""
    service = Service()
    for wrong in (None, "https://sts.example/token", Endpoint()):
        with pytest.raises(InvalidArgument, match=r"^`client`"):
            service.session().exchange(wrong, audience=["payments"])
        with pytest.raises(InvalidArgument, match=r"^`client`"):
            asyncio.run(service.session().aexchange(wrong, audience=["payments"]))
    assert service.sink.decisions == ()


@pytest.mark.parametrize("ends", ["session", "delegation"])
def test_a_token_that_outlives_its_session_is_not_handed_out(ends: str) -> None:
    """A session that ends before its token gets no token that lives longer than it: nobody gains a second of life."""
    service, endpoint = Service(), Endpoint()  # which gives a minute
    helper = service.verified(sub="helper", act=GONE)

    def session(life: str) -> tuple[Any, dict[str, Any]]:
        if ends == "session":
            return service.authorizer.session(token=service.verified(), expires=life), {}
        return service.session().delegate(HELPER, expires=life), {"actor_token": helper}

    short, shown = session("59s")
    with pytest.raises(ExchangeProtocolError, match="outlives"):
        short.exchange(endpoint.client(), audience=["payments"], **shown)
    with pytest.raises(ExchangeProtocolError, match="outlives"):
        asyncio.run(short.aexchange(endpoint.client(), audience=["payments"], **shown))
    assert [effect.status for effect in service.sink.effects] == ["failed", "failed"]
    long, shown = session("60s")
    assert long.exchange(endpoint.client(), audience=["payments"], **shown).access_token == "next"
    endpoint.life = b""
    with pytest.raises(ExchangeProtocolError, match="outlives"):
        session("60s")[0].exchange(endpoint.client(), audience=["payments"], **shown)
    assert service.session().exchange(endpoint.client(), audience=["payments"]).expires_in is None


def test_an_obligation_holds_the_next_hops_token_to_a_shorter_life() -> None:
    """`expire` of the session's own permit on `token.exchange`: a token that lives longer isn't handed out."""
    for life, fits in (("59s", False), ("60s", True), ("3650d", True)):
        service, endpoint = Service(), Endpoint()  # which gives a minute
        policy = f"permit exchanging on token.exchange when true with expire(after: {life})"
        service.authorizer.replace(PolicySet.parse(policy))
        if fits:
            assert service.session().exchange(endpoint.client(), audience=["payments"]).access_token == "next"
            continue
        with pytest.raises(ExchangeProtocolError, match="outlives"):
            service.session().exchange(endpoint.client(), audience=["payments"])
        with pytest.raises(ExchangeProtocolError, match="outlives"):
            asyncio.run(service.session().aexchange(endpoint.client(), audience=["payments"]))
        assert [effect.status for effect in service.sink.effects] == ["failed", "failed"]


def test_an_identity_assertion_is_no_session() -> None:
    """An ID-JAG is redeemed at a token service; what it names as scopes permits nothing anywhere else."""
    service = Service()
    service.validator = validator(trusted(token_kinds=["id-jag", "id"]))
    assertion = service.validator.verify(token(typ="oauth-id-jag+jwt"), kind="id-jag")
    with pytest.raises(InvalidArgument, match="must be redeemed"):
        service.authorizer.session(token=assertion)
