"""Test the records of authority that is passed on: in sessions, by tokens, in exchanges, refused, and lost."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentauthz import Authorizer, Denied, PolicySet, Principal, Session, authorize
from agentauthz.canonical import stamp
from agentauthz.errors import SessionError, SinkError, WideningError
from agentauthz.records import DelegationRecord, FileSink, LoggingSink, MemorySink, Record, read_record
from agentauthz.records.delegations import delegations, walk
from agentauthz.records.events import Ctx
from agentauthz.records.record import Actor, Hop
from agentauthz.records.story import story
from agentauthz.tokens.client import TokenExchangeClient
from agentauthz.tokens.client_auth import ClientSecretBasic
from agentauthz.tokens.transport import HttpRequest, HttpResponse
from tests import logs
from tests.commands import ran
from tests.issuing import ACT, token, validator
from tests.support import BOT, HELPER, MARIA, NOON, Clock, Recorded

POLICY = """
permit working on docs.*, build.run when true
permit exchanging on token.exchange when "payments" in args.audience
permit handing on delegation.handoff when args.to == agent("helper")
"""
READER = Principal.agent("reader")


class Broken:
    """Be a sink that keeps nothing while it is broken."""

    def __init__(self) -> None:
        self.broken = False
        self.kept: list[Record] = []

    def append(self, line: bytes, record: Record) -> None:
        if self.broken:
            raise OSError("CANARY")
        self.kept.append(record)

    def close(self) -> None:
        pass


class OnlyOthers(Broken):
    """Be a sink that keeps all but delegations."""

    def append(self, line: bytes, record: Record) -> None:
        if isinstance(record, DelegationRecord):
            raise OSError("CANARY")


def passed(recorded: Any) -> list[DelegationRecord]:
    return [each for each in recorded.sink.records if isinstance(each, DelegationRecord)]


def made(**options: Any) -> Recorded:
    return Recorded(POLICY, **options)


def delegated(session: Any, asynchronously: bool, *given: Any, **options: Any) -> Any:
    if asynchronously:
        return asyncio.run(session.adelegate(*given, **options))
    return session.delegate(*given, **options)


BOTH = pytest.mark.parametrize("asynchronously", [False, True], ids=["delegate", "adelegate"])


@BOTH
def test_a_delegation_is_recorded_as_it_was_made(asynchronously: bool) -> None:
    """The record has who passes on, as a decision has them, who gets it, and what: the next decision shows that hop."""
    recorded = made()
    session = recorded.session(id="s-1")
    ends = NOON + dt.timedelta(minutes=10)
    narrower = delegated(session, asynchronously, READER, ["docs.*"], "search", "10m")
    [record] = passed(recorded)
    assert (record.kind, record.outcome, record.session, record.ts) == ("session", "passed", "s-1", NOON)
    assert [actor.sub for actor in record.actors] == ["maria", "bot"]
    assert record.depth == len(record.chain) == 1
    assert record.to == Actor("reader", "agent")
    assert record.hop == Hop('agent("reader")', ("docs.*",), "search", stamp(ends), via="host")
    assert (record.reason, record.token, record.ctx) == (None, None, Ctx())
    narrower.decide("docs.read")
    decision = recorded.sink.decisions[0]
    assert decision.chain == (*record.chain, record.hop)
    assert decision.actors == (*record.actors, record.to)


def test_what_is_left_out_is_recorded_as_it_holds() -> None:
    """None means as in the giver's session, and the record says what that is."""
    recorded = made()
    first = recorded.session().delegate(READER, ["docs.*", "build.run"], purpose="search", expires="10m")
    first.delegate(HELPER)
    assert passed(recorded)[1].hop == Hop(
        'agent("helper")', ("docs.*", "build.run"), "search", stamp(NOON + dt.timedelta(minutes=10)), via="host"
    )


def test_delegations_name_what_they_come_from() -> None:
    """A delegation's cause is the call inside of which it is made, else the delegation by which its giver came."""
    recorded = made()
    first = recorded.session().delegate(READER)
    second = first.delegate(HELPER)

    @authorize("docs.read")
    def read() -> None:
        second.delegate(Principal.agent("last"))

    first.bind(read)()
    records = passed(recorded)
    assert [each.ctx.parent for each in records] == [None, records[0].id, recorded.sink.decisions[0].id]


@BOTH
@pytest.mark.parametrize(
    ("options", "lost"),
    [
        ({"actions": ["build.run"]}, 'agent("reader")'), ({"actions": ["docs.read", "*"]}, 'agent("reader")'),
        ({"purpose": "other"}, None), ({"expires": "1h"}, 'agent("reader")'),
    ],
    ids=["actions", "star", "purpose", "expires"],
)  # fmt: skip
def test_widening_is_recorded_and_refused(options: dict[str, Any], lost: str | None, asynchronously: bool) -> None:
    """What asks for more than there is raises, and leaves a record of what was asked for, and why it was refused."""
    recorded = made()
    session = recorded.session(purpose="search").delegate(READER, ["docs.*"], expires="10m")
    with pytest.raises(WideningError) as caught:
        delegated(session, asynchronously, HELPER, **options)
    record = passed(recorded)[-1]
    assert (record.outcome, record.to, len(record.chain)) == ("refused", Actor("helper", "agent"), 2)
    assert record.reason is not None
    assert (record.reason.code, record.reason.text) == ("widening", str(caught.value))
    assert record.hop is not None
    assert record.hop.actions == tuple(options.get("actions", ["docs.*"]))
    told = story([each.line() for each in recorded.sink.records], session.id)
    reader = list(walk(delegations([], told.passed)))[-1][1]
    assert [None if each.at is None else each.at.to for each in reader.refused] == [lost]


def test_a_seventeenth_hop_is_recorded_as_refused() -> None:
    """Where the chain may not be longer, the record has all of its hops and the one that was asked for."""
    recorded = made()
    session = recorded.session()
    for number in range(15):
        session = session.delegate(Principal.agent(f"a{number}"))
    with pytest.raises(WideningError):
        session.delegate(HELPER)
    record = passed(recorded)[-1]
    assert (record.depth, record.to, record.outcome) == (16, Actor("helper", "agent"), "refused")


@BOTH
def test_a_hand_off_names_the_decision_that_allows_or_refuses_it(asynchronously: bool) -> None:
    """A hand-off's record has the id of its decision as parent, whatever that came to."""
    recorded = made()
    session = recorded.session()
    delegated(session, asynchronously, HELPER, handoff=True)
    with pytest.raises(Denied):
        delegated(session, asynchronously, READER, handoff=True)
    allowed, refused = passed(recorded)
    assert [allowed.ctx.parent, refused.ctx.parent] == [each.id for each in recorded.sink.decisions]
    assert allowed.hop is not None
    assert (allowed.hop.handoff, allowed.hop.via) == (True, "session")
    assert refused.outcome == "refused"
    assert refused.reason is not None
    assert refused.reason.code == "not_permitted"


def test_what_is_malformed_or_closed_is_no_attempt() -> None:
    """A mistake of the program, or a session that is over, leaves no record of a delegation."""
    recorded = made()
    session = recorded.session()
    session.close()
    with pytest.raises(SessionError):
        session.delegate(READER)
    assert passed(recorded) == []


@BOTH
def test_a_delegation_that_can_not_be_recorded_is_refused(
    asynchronously: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a required sink fails, nothing is passed on; what was refused anyway stays refused, and the log is told."""
    sink = Broken()
    recorded = Recorded(POLICY, sinks=[sink])
    session = recorded.session().delegate(READER, ["docs.*"])
    sink.broken = True
    with pytest.raises(SinkError, match="nothing is passed on") as caught:
        delegated(session, asynchronously, HELPER)
    assert "CANARY" not in str(caught.value)
    with pytest.raises(WideningError):
        delegated(session, asynchronously, HELPER, ["build.run"])
    assert "a refused delegation couldn't be recorded: SinkError" in caplog.text
    sink.broken = False
    assert delegated(session, asynchronously, HELPER).decide("docs.read").allowed


@pytest.mark.parametrize(
    ("on_failure", "passes"),
    [("deny", False), ("allow_and_alarm", True), (["docs.read"], False), (["delegation.pass"], True)],
)
def test_who_accepts_lost_records_may_delegate_without_one(on_failure: Any, passes: bool) -> None:
    """`on_failure` holds for delegations as for calls: they are `delegation.pass` in its list."""
    sink = Broken()
    recorded = Recorded(POLICY, sinks=[sink], on_failure=on_failure)
    sink.broken = True
    if passes:
        assert recorded.session().delegate(READER).actor == READER
    else:
        with pytest.raises(SinkError):
            recorded.session().delegate(READER)


def test_a_closed_authorizer_passes_nothing_on() -> None:
    """Once the sinks are closed, also those that only log, a delegation is refused."""
    for sinks in ([MemorySink()], [LoggingSink()]):
        recorded = Recorded(POLICY, sinks=sinks)
        recorded.authorizer.close()
        with pytest.raises(SinkError):
            recorded.session().delegate(READER)


def test_a_sink_can_not_pass_authority_on() -> None:
    """A sink that delegates while it appends is refused, and the record that it was given is kept."""
    found: list[type[Exception]] = []

    class Delegates:
        def append(self, line: bytes, record: Record) -> None:
            try:
                session.delegate(READER)
            except SinkError as error:
                found.append(type(error))

        def close(self) -> None:
            pass

    recorded = made()
    recorded.authorizer.add_sink(Delegates())
    session = recorded.session()
    session.decide("docs.read")
    assert found[0] is SinkError
    assert passed(recorded) == []


def test_a_session_that_passes_nothing_on_leaves_no_record() -> None:
    """Making a session, entering and leaving it writes nothing; one delegation writes one record."""
    recorded = made()
    with recorded.session() as session:
        assert not [*recorded.sink.records]
        with session.delegate(READER):
            pass
    assert [json.loads(each.line())["type"] for each in recorded.sink.records] == ["stream.open", "delegation"]


def test_logs_show_refusals_as_warnings(caplog: pytest.LogCaptureFixture) -> None:
    """With the standard library's logging, what is passed on is at INFO, what is refused at WARNING."""
    caplog.set_level("INFO", "agentauthz.decisions")
    session = Recorded(POLICY, sinks=[LoggingSink()]).session().delegate(READER, ["docs.*"])
    with pytest.raises(WideningError):
        session.delegate(HELPER, ["build.run"])
    found = [(each.levelname, each.getMessage().partition(",")[0]) for each in caplog.records]
    assert found == [("INFO", "delegation passed"), ("WARNING", "delegation refused")]
    caplog.clear()
    caplog.set_level("ERROR", "agentauthz.decisions")
    session.delegate(HELPER)
    assert caplog.records == []


def test_names_that_are_too_long_stay_within_a_line() -> None:
    """However many and long the actions are, the record fits into its line, and says what it lacks."""
    recorded = made()
    many = [f"docs.{number:03}{'x' * 300}" for number in range(300)]
    recorded.session(attributes={}).delegate(READER, many).delegate(HELPER, many)
    for record in passed(recorded):
        assert len(record.line()) <= 32 * 1024
        assert read_record(record.line()).line() == record.line()
        assert record.meta.oversized["/delegation/hop"]
        assert record.to is not None


def test_threads_delegate_at_the_same_time() -> None:
    """Each of many delegations at once has its own record, and its own session knows it."""
    recorded = made()
    session = recorded.session()
    sessions: list[Any] = []
    threads = [threading.Thread(target=lambda: sessions.append(session.delegate(READER))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.made_by for each in sessions) == sorted(each.id for each in passed(recorded))


# ---- tokens


class Tokens:
    """Be a service that makes sessions of tokens, and exchanges them."""

    def __init__(self, **options: Any) -> None:
        self.sink = MemorySink()
        clock = Clock()
        self.authorizer = Authorizer(PolicySet.parse(POLICY), **{"sinks": [self.sink], "clock": clock, **options})
        self.verified = validator(clock=clock).verify(token(act=ACT))


def _begun(service: Tokens, asynchronously: bool, **options: Any) -> Session:
    given = {"token": service.verified, **options}
    return asyncio.run(service.authorizer.asession(**given)) if asynchronously else service.authorizer.session(**given)


def _exchanged(session: Session, asynchronously: bool, client: TokenExchangeClient, **asked: Any) -> None:
    if asynchronously:
        asyncio.run(session.aexchange(client, **asked))
    else:
        session.exchange(client, **asked)


def _client(answer: Callable[[HttpRequest], HttpResponse]) -> TokenExchangeClient:
    async def aanswer(request: HttpRequest) -> HttpResponse:
        return answer(request)

    auth = ClientSecretBasic("worker", "a-long-secret-of-the-worker")
    return TokenExchangeClient("https://sts.example/token", auth, transport=answer, async_transport=aanswer)


@pytest.mark.parametrize("asynchronously", [False, True], ids=["session", "asession"])
def test_a_token_brings_its_chain_into_a_session(asynchronously: bool) -> None:
    """A session of a token begins with a record of all that the token says, and of the token a keyed digest only."""
    service = Tokens()
    session = _begun(service, asynchronously, id="s-1")
    [record] = passed(service)
    assert (record.kind, record.outcome, record.session) == ("token", "passed", "s-1")
    assert [actor.sub for actor in record.actors] == ["maria", "planner", "worker"]
    assert [hop.via for hop in record.chain] == ["token", "token"]
    assert record.scopes == ("payments.read", "payments.refund")
    assert record.token is not None
    assert record.token.startswith("k")
    assert service.verified.jti is not None
    assert service.verified.jti.encode() not in record.line()
    session.delegate(HELPER)
    assert passed(service)[1].ctx.parent == record.id == session.made_by


@pytest.mark.parametrize("asynchronously", [False, True], ids=["session", "asession"])
def test_a_tokens_session_that_can_not_be_recorded_is_not_had(asynchronously: bool) -> None:
    """Without the record of what a token brought there is no session; other sessions don't ask for one."""
    sink = Broken()
    service = Tokens(sinks=[sink])
    sink.broken = True
    with pytest.raises(SinkError):
        _begun(service, asynchronously)
    assert service.authorizer.session(MARIA, BOT).actor == BOT
    assert asyncio.run(service.authorizer.asession(MARIA, BOT)).actor == BOT


@pytest.mark.parametrize("asynchronously", [False, True], ids=["exchange", "aexchange"])
def test_an_exchange_is_recorded_before_it_is_sent(asynchronously: bool) -> None:
    """What goes to the token service is on record by then, with the decision that allows it as parent."""
    service = Tokens()
    seen: list[int] = []

    def answer(request: HttpRequest) -> HttpResponse:
        seen.append(len(passed(service)))
        body = (
            b'{"access_token":"next","issued_token_type":"urn:ietf:params:oauth:token-type:access_token",'
            b'"token_type":"Bearer","expires_in":60,"scope":"payments.read"}'
        )
        return HttpResponse(200, (("Content-Type", "application/json"), ("Cache-Control", "no-store")), body)

    session = service.authorizer.session(token=service.verified)
    client, asked = _client(answer), {"scope": ["payments.read"], "audience": ["payments"]}
    _exchanged(session, asynchronously, client, **asked)
    record = passed(service)[1]
    assert seen == [2]
    assert (record.kind, record.outcome, record.scopes, record.audience) == (
        "exchange", "passed", ("payments.read",), ("payments",),
    )  # fmt: skip
    assert record.ctx.parent == service.sink.decisions[0].id
    assert record.token == passed(service)[0].token


def _unused(request: HttpRequest) -> HttpResponse:
    raise AssertionError("this must not be sent")


@pytest.mark.parametrize("asynchronously", [False, True], ids=["exchange", "aexchange"])
@pytest.mark.parametrize(
    ("asked", "error", "code"),
    [
        ({"scope": ["payments.delete"], "audience": ["payments"]}, WideningError, "widening"),
        ({"audience": ["other"]}, Denied, "not_permitted"),
    ],
)
def test_a_refused_exchange_is_recorded_and_not_sent(
    asked: Any, error: type[Exception], code: str, asynchronously: bool
) -> None:
    """What the session doesn't cover, or no policy permits, leaves a record of the refusal."""
    service = Tokens()
    session = service.authorizer.session(token=service.verified)
    with pytest.raises(error):
        _exchanged(session, asynchronously, _client(_unused), **asked)
    record = passed(service)[-1]
    assert (record.kind, record.outcome) == ("exchange", "refused")
    assert record.reason is not None
    assert record.reason.code == code
    decided = [each.id for each in service.sink.decisions]
    assert record.ctx.parent == (decided[0] if decided else session.made_by)


@pytest.mark.parametrize("asynchronously", [False, True], ids=["exchange", "aexchange"])
def test_an_exchange_that_can_not_be_recorded_is_not_sent(asynchronously: bool) -> None:
    """Nothing is sent where its record can't be kept, though that of its decision was; the effect says so."""
    service = Tokens()
    session = service.authorizer.session(token=service.verified)
    service.authorizer.add_sink(OnlyOthers())
    with pytest.raises(SinkError, match="nothing is passed on"):
        _exchanged(session, asynchronously, _client(_unused), audience=["payments"])
    [effect] = service.sink.effects
    assert (effect.action, effect.status, effect.error_type) == ("token.exchange", "failed", "SinkError")


# ---- the account of a session


def test_show_tells_refusals_and_where_authority_was_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tree has who never acted, each refusal below who asked, and the hop that lacks what was asked for."""
    with Authorizer(PolicySet.parse(POLICY), sinks=[FileSink(tmp_path)]) as authorizer:
        session = authorizer.session(MARIA, BOT, id="s")
        first = session.delegate(Principal.agent("one"), ["docs.*"])
        second = first.delegate(Principal.agent("two"), ["docs.read"])
        with pytest.raises(WideningError) as widening:
            second.delegate(Principal.agent("three"), ["build.run"])
        with pytest.raises(Denied):
            second.delegate(Principal.agent("three"), handoff=True)
        second.decide("docs.read")
        session.delegate(Principal.agent("idle"), ["build.run"])
    found = ran(capsys, "show", "s", tmp_path)
    tree = found.out.partition("who acted for whom:\n")[2].partition("\n\n")[0].splitlines()
    lost = str(widening.value)
    assert tree == [
        "  user(maria)",
        "    agent(bot), with all of it",
        "      agent(one), only docs.*, of *",
        "        agent(two), only docs.read, of docs.*: 2 decisions",
        f'          refused to pass on to agent(three): widening: {lost}; lost at the hop to agent("one")',
        '          refused to pass on to agent(three): not_permitted: no permit allows this for agent("bot")',
        "      agent(idle), only build.run, of *",
    ]
    page = ran(capsys, "report", tmp_path, "--session", "s", "-o", tmp_path / "out.html")
    assert page.code == 0
    assert "lost at the hop to" in (tmp_path / "out.html").read_text()
    kinds = [json.loads(line)["type"] for line in logs.lines(tmp_path)]
    assert kinds.count("delegation") == 5


def test_a_session_with_delegations_only_is_told() -> None:
    """Where nothing was decided, the attempts to pass authority on are the account."""
    recorded = made()
    recorded.session(id="s").delegate(READER)
    told = story([each.line() for each in recorded.sink.records] * 2, "s")
    assert (len(told.passed), told.steps) == (1, ())
