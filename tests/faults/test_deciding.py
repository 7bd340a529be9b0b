"""Test what happens around a decision: rows 17, 36 and 40 of the table of faults, each through a whole authorizer."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from agentauthz import UNKNOWN, Authorizer, Denied, PolicySet, Resource, Stopped, authorize, checkpoint
from agentauthz.records import DecisionRecord, EffectRecord, FileSink, MemorySink, PolicyRecord, Record
from agentauthz.tokens import HttpxTransport, Introspector
from tests import logs
from tests.commands import ran as command
from tests.faults.logged import checked, run
from tests.issuing import ACT, NOW, token, trusted, validator
from tests.loopback import Loopback, answer, never
from tests.support import ANYTHING, BOT, MARIA, NOON, Clock, Recorded

called: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_called() -> None:
    called.clear()


# ---- 17: stopped between decision and tool


class _Slow:
    """Be a sink that takes a record when it is let."""

    blocking = True

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()

    def append(self, line: bytes, record: Record) -> None:
        if isinstance(record, DecisionRecord):
            self.entered.set()
            assert self.go.wait(30)

    def close(self) -> None: ...


@authorize("t.tool")
async def tool() -> None:
    called.append("tool")
    await asyncio.sleep(30)


async def _entered(sink: _Slow) -> None:
    while not sink.entered.is_set():
        await asyncio.sleep(0.001)


async def _cancelled_early(authorizer: Authorizer, slow: _Slow) -> None:
    async with authorizer.session(MARIA, BOT, id="s-17"):
        task = asyncio.create_task(tool())
        await _entered(slow)
        task.cancel()
        await asyncio.sleep(0.02)
        slow.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_row_17_a_task_cancelled_before_its_tool_leaves_the_decision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cancelled while its record is written, a call never runs; the decision stays, and its effect says so."""
    slow = _Slow()
    with Authorizer(PolicySet.parse(ANYTHING), sinks=[FileSink(tmp_path), slow]) as authorizer:
        asyncio.run(_cancelled_early(authorizer, slow))
    assert called == []
    decision, effect = logs.told(tmp_path)
    assert isinstance(decision, DecisionRecord)
    assert isinstance(effect, EffectRecord)
    assert (decision.outcome, effect.of, effect.status) == ("allow", decision.id, "not_run")
    shown = command(capsys, "show", "s-17", tmp_path)
    assert shown.code == 0
    assert "-> never ran with CancelledError\n" in shown.out


@pytest.mark.parametrize("steps", range(12))
def test_row_17_a_task_cancelled_at_any_step_never_runs_undecided(steps: int, tmp_path: Path) -> None:
    """Wherever a task is cancelled: what ran has a decision before it; its effect says whether it did."""

    async def go() -> None:
        with Authorizer(PolicySet.parse(ANYTHING), sinks=[FileSink(tmp_path)]) as authorizer:
            async with authorizer.session(MARIA, BOT):
                task = asyncio.create_task(tool())
                for _ in range(steps):
                    await asyncio.sleep(0.0005)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

    asyncio.run(go())
    told = logs.told(tmp_path)
    assert len([record for record in told if isinstance(record, DecisionRecord)]) <= 1
    effects = [record for record in told if isinstance(record, EffectRecord)]
    assert len(effects) == len(told) / 2  # whatever was decided has told of its end
    assert all((effect.status, effect.of) == (("not_run", "stopped")[len(called)], told[0].id) for effect in effects)
    assert checked(tmp_path).damages == ()


def test_row_17_a_process_killed_before_its_tool_leaves_the_decision(tmp_path: Path) -> None:
    """Killed between the decision's record and the tool's first line, the decision is there, and no effect."""
    code = """
        import os, signal, sys
        from agentauthz import Authorizer, PolicySet, authorize
        from agentauthz.records import FileSink
        from tests.support import ANYTHING, BOT, MARIA

        class Killing:
            def append(self, line, record):
                if record.as_dict()["type"] == "decision":
                    os.kill(os.getpid(), signal.SIGKILL)
            def close(self): ...

        @authorize("t.tool")
        def tool():
            print("ran", flush=True)

        sinks = [FileSink(sys.argv[1]), Killing()]
        with Authorizer(PolicySet.parse(ANYTHING), sinks=sinks).session(MARIA, BOT):
            tool()
    """
    done = run(code, tmp_path, check=False)
    assert (done.returncode, done.stdout) == (-9, "")
    FileSink(tmp_path).close()
    [decision] = logs.told(tmp_path)
    assert isinstance(decision, DecisionRecord)
    assert checked(tmp_path).damages == ()


def test_row_17_work_that_is_never_begun_is_never_decided() -> None:
    """A coroutine that is dropped before its first step leaves no record: it was neither decided nor run."""
    recorded = Recorded()
    with recorded.session():
        tool().close()  # a coroutine, of which nothing has run
    assert (recorded.decisions, called) == ([], [])


# ---- 36: policies are replaced while one is asked


def _numbered(number: int) -> PolicySet:
    verdict = "permit" if number % 2 else "forbid"
    return PolicySet.parse(f"permit all on * when true\n{verdict} rule{number} on t.tool when context.n >= {number}")


def test_row_36_a_record_holds_the_digest_that_was_used() -> None:
    """While threads decide and another replaces policies, each record's digest, rules and outcome are of one set."""
    made = [_numbered(number) for number in range(8)]
    numbers = {policies.digest: number for number, policies in enumerate(made)}
    recorded = Recorded(clock=lambda: dt.datetime.now(dt.UTC))
    recorded.authorizer.replace(made[0])
    stop = threading.Event()

    def replace() -> None:
        for policies in itertools.cycle(made):
            if stop.is_set():
                return
            recorded.authorizer.replace(policies)

    def decide() -> None:
        session = recorded.session()
        for _ in range(150):
            session.decide("t.tool", context={"n": 100})

    threads = [threading.Thread(target=decide) for _ in range(4)]
    replacing = threading.Thread(target=replace)
    for thread in (replacing, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    replacing.join()
    assert len(recorded.decisions) == 600
    assert len({_digest(record) for record in recorded.decisions}) > 1
    for record in recorded.decisions:
        number = numbers[_digest(record)]
        assert record.outcome == ("allow" if number % 2 else "deny")
        assert f"rule{number}" in record.rules
    _text_comes_first(recorded.sink)


def _text_comes_first(sink: MemorySink) -> None:
    """Check that the text behind a digest stands before the first decision under it."""
    known: set[str] = set()
    for record in sink.records:
        if isinstance(record, PolicyRecord):
            known.add(_digest(record))
        elif isinstance(record, DecisionRecord):
            assert _digest(record) in known


def test_row_36_a_reload_in_the_middle_of_an_evaluation_changes_the_next_one() -> None:
    """A fact whose reading replaces the policies is decided by those that it began with, and the record says so."""
    old = PolicySet.parse('permit old on t.tool when resource.owner == "maria"')
    new = PolicySet.parse('forbid new on t.tool when resource.owner != "nobody"')
    memory, reads = MemorySink(), []
    authorizer = Authorizer(old, sinks=[memory])

    class Owned(Mapping[str, object]):
        """Be attributes that are read when a rule asks for one."""

        def __getitem__(self, name: str) -> object:
            reads.append(name)
            authorizer.replace(new)
            return "maria"

        def __iter__(self) -> Iterator[str]:
            return iter(["owner"])

        def __len__(self) -> int:
            return 1

    session = authorizer.session(MARIA, BOT)
    first, second = (session.decide("t.tool", resource=Resource("order", "o-1", Owned())) for _ in range(2))
    assert (first.policy_digest, first.allowed) == (old.digest, True)
    assert (second.policy_digest, second.allowed) == (new.digest, False)
    assert [(_digest(each), each.rules) for each in memory.decisions] == [
        (old.digest, ("old",)),
        (new.digest, ("new",)),
    ]
    assert "owner" in reads
    _text_comes_first(memory)


def _digest(record: Record) -> str:
    return str(record.as_dict()["policy"]["digest"])


# ---- 40: what a decision asks can't be reached, is slow, or has old data

RATED: Final = """
permit fresh on t.pay when context.rate <= 2 and now - context.read < 5m
forbid stale on t.pay when now - context.read >= 1h
"""


def _down() -> dict[str, object]:
    raise ConnectionError("CANARY: no route to the store")


def _late() -> dict[str, object]:
    raise TimeoutError("CANARY: the store took too long")


@pytest.mark.parametrize("look_up", [_down, _late], ids=["unreachable", "slow"])
@pytest.mark.parametrize("what", ["context", "resource", "args"])
def test_row_40_a_look_up_that_fails_denies(look_up: Callable[[], Any], what: str) -> None:
    """A source that is away, or gives up in time, denies the call; the record tells the problem, and no text of it."""
    given: dict[str, Any] = {what: lambda: look_up()}

    @authorize("t.pay", **given)
    def pay() -> None:
        called.append("pay")

    recorded = Recorded(ANYTHING)
    with recorded.session(), pytest.raises(Denied) as denied:
        pay()
    assert called == []
    [decision] = recorded.decisions
    assert (decision.outcome, decision.basis, decision.cause) == ("deny", "error", "problem")
    assert decision.reasons[0].code == "lookup_failed"
    assert "CANARY" not in str(denied.value) + decision.line().decode()


def test_row_40_a_source_that_hangs_is_left_in_time() -> None:
    """A look-up that doesn't answer is given up when its own time is over: denied, and the tool never ran."""

    async def hang() -> dict[str, object]:
        async with asyncio.timeout(0.05):
            await asyncio.sleep(60)
        return {}

    @authorize("t.pay", context=hang)
    async def pay() -> None:
        called.append("pay")

    async def go() -> None:
        async with recorded.session():
            with pytest.raises(Denied, match="lookup_failed"):
                await pay()

    recorded = Recorded(ANYTHING)
    began = time.monotonic()
    asyncio.run(go())
    assert time.monotonic() - began < 30
    assert (called, recorded.decisions[0].cause) == ([], "problem")


@pytest.mark.parametrize("facts", [{"rate": 1}, {"rate": UNKNOWN, "read": UNKNOWN}, {}])
def test_row_40_what_isnt_known_is_undetermined_and_denies(facts: dict[str, object]) -> None:
    """A fact that the host couldn't learn leaves its rules undetermined, which denies, and is named in the record."""
    recorded = Recorded(RATED)
    decision = recorded.session().decide("t.pay", context=facts)
    assert (decision.allowed, decision.basis.value) == (False, "undetermined")
    [record] = recorded.decisions
    assert "stale" in record.undetermined
    assert any(each.startswith("context.read (") for each in record.missing)


@pytest.mark.parametrize(
    ("minutes", "outcome", "basis"), [(0, "allow", "rule"), (7, "deny", "default"), (90, "deny", "rule")]
)
def test_row_40_how_old_an_answer_was_is_recorded(minutes: int, outcome: str, basis: str) -> None:
    """Where data says when it was read, rules refuse what is old, and the record has that moment beside its own."""
    recorded = Recorded(RATED)
    read = recorded.clock() - dt.timedelta(minutes=minutes)
    recorded.session().decide("t.pay", context={"rate": 1, "read": read})
    [record] = recorded.decisions
    assert (record.outcome, record.basis) == (outcome, basis)
    assert f'"name":"context.read","state":"value","value":{{"$t":"{read:%Y-%m-%dT%H:%M:%S}' in record.line().decode()
    assert record.ts - read == dt.timedelta(minutes=minutes)


def _said(active: bool) -> dict[str, object]:
    return {"active": active, "exp": NOW + 3_600} if active else {"active": False}


@pytest.mark.parametrize("how", ["unreachable", "slow", "nonsense"])
def test_row_40_a_revocation_that_cant_be_learned_denies(how: str) -> None:
    """Where the issuer can't be asked any more whether a token stands, an open session's next call is denied."""
    with Loopback(answer(_said(active=True))) as server:
        asked = Introspector(
            server.url.partition("?")[0], trusted(), auth=("a", "b"), cache_ttl=dt.timedelta(), clock=Clock(),
            transport=HttpxTransport(loopback_http=True, timeout=3), loopback_http=True,
        )  # fmt: skip
        recorded = Recorded(ANYTHING)
        verified = validator(revocation=asked.revoked, clock=recorded.clock).verify(token(act=ACT))
        session = recorded.authorizer.session(token=verified)
        assert session.decide("payments.read").allowed
        if how == "unreachable":
            server.stop()
        elif how == "slow":
            server.answer = never
        else:
            server.answer = answer({"active": "true"})
        with pytest.raises(Denied):
            session.authorize("payments.read")
        with pytest.raises(Stopped), session:
            checkpoint()
    assert [record.basis for record in recorded.decisions] == ["rule", "error"]
    assert recorded.decisions[1].reasons[0].code == "revocation_unknown"


def test_row_40_an_old_answer_is_believed_no_longer_than_was_said() -> None:
    """A revocation that happened meanwhile is learned when the kept answer is as old as it may be, not later."""
    clock = Clock()
    with Loopback(answer(_said(active=True))) as server:
        asked = Introspector(
            server.url.partition("?")[0], trusted(), auth=("a", "b"), cache_ttl=dt.timedelta(seconds=30), clock=clock,
            transport=HttpxTransport(loopback_http=True), loopback_http=True,
        )  # fmt: skip
        recorded = Recorded(ANYTHING, clock=clock)
        session = recorded.authorizer.session(
            token=validator(revocation=asked.revoked, clock=clock).verify(token(act=ACT))
        )
        server.answer = answer(_said(active=False))
        for second in (0, 29, 30, 31):
            clock.now = NOON + dt.timedelta(seconds=second)
            assert session.decide("payments.read").allowed is (second < 30)
    assert [record.basis for record in recorded.decisions] == ["rule", "rule", "revoked", "revoked"]
