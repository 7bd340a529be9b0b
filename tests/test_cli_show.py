"""The command `records show`: the order of a session's decisions, what came of them, and who acted for whom."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from agentauthz import Authorizer, PolicySet, Principal, ReviewRequired
from agentauthz.errors import InvalidArgument
from agentauthz.records import DecisionRecord, EffectRecord, FileSink, MemorySink, read_record
from agentauthz.records.delegations import delegations, walk
from agentauthz.records.story import ordered, story
from tests import logs
from tests.commands import BOT, MARIA, POLICY, decisions, ran, refund, written
from tests.faults.logged import record


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the log of two sessions."""
    folder = tmp_path_factory.mktemp("log") / "records"
    written(folder)
    return folder


def _at(
    id: str, stream: str, seq: int, second: int, parent: str | None = None, trace: str | None = None
) -> DecisionRecord:
    tree: dict[str, Any] = json.loads(record(id).line())
    tree |= {"stream": stream * 26, "seq": seq, "ts": f"2026-11-23T09:00:{second:02}Z", "session": "s"}
    ctx = {"parent": parent, "trace_id": trace}
    tree["ctx"] = {name: value for name, value in ctx.items() if value is not None}
    made = read_record(json.dumps(tree).encode())
    assert isinstance(made, DecisionRecord)
    return made


def test_who_answered_and_ordered_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An approval, and a mark that the host took away, explain why a call was allowed: both say whose they were."""
    policies = PolicySet.parse("permit p on t.x when true\nreview r on t.x when true by approver != subject")
    lena, olga = Principal.user("lena"), Principal.user("olga")
    with Authorizer(policies, sinks=[FileSink(tmp_path)]) as authorizer:
        for name in ("one", "other"):
            session = authorizer.session(MARIA, BOT, id=name)
            with pytest.raises(ReviewRequired) as asked:
                session.authorize("t.x")
            assert asked.value.review is not None
            authorizer.approvals.approve(asked.value.review.id, lena, note="fine")
            session.mark("read", by=olga)
            session.unmark("read", "looked at it", by=olga)
        authorizer.revoke(session="one", reason="enough", by=olga)
    told = ran(capsys, "show", "one", tmp_path).out.partition("ordered by them:\n")[2].splitlines()
    assert [re.sub(r"^.*?Z  |id: \w+, ", "", line) for line in told] == [
        "approval  kind: requested, by: agent(bot)",
        "approval  kind: approved, by: user(lena), reason: fine",
        "state  kind: mark, by: user(olga)",
        "state  kind: unmark, reason: looked at it, by: user(olga)",
        "state  kind: revoke, of: session, reason: enough, by: user(olga)",
    ]


def test_a_session_is_told(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Decisions stand with their effects, inline ones apart, and each hop with what it took away."""
    found = ran(capsys, "show", "conversation-7", log)
    assert found.code == 0
    assert "session conversation-7: 7 decisions" in found.out
    tree = found.out.partition("who acted for whom:\n")[2].partition("\n\n")[0].splitlines()
    assert tree[:2] == ["  user(maria)", "    agent(bot), with all of it: 5 decisions"]
    assert tree[2].startswith("      agent(finder), only shop.find, of *; only for search; only until 20")
    assert tree[2].endswith(": 2 decisions; 1 call refused at this hop")
    happened, _, inline = found.out.partition("decided inline, where no effect is recorded:")
    assert happened.count("-> done in ") == happened.count("-> failed with LookupError in ") == 1
    assert "rule: Not to strangers" in happened
    assert '    it would be allowed if `args.to == "mallory"` were false\n' in happened
    assert "    it would be allowed if `args.amount > 500` were false, as with args.amount = 500\n" in happened
    assert "would be denied" not in happened
    assert "review  shop.refund" in happened
    assert inline.count("shop.find") == 2
    assert "conversation-8" not in found.out
    assert "unknown" not in found.out.lower()


def test_a_call_that_was_only_observed_may_have_run() -> None:
    """In observe mode, a denied call runs: without an effect nobody knows what came of it."""
    kept = MemorySink()
    end = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    policies = PolicySet.parse("permit other on shop.find when true")
    observer = Authorizer(policies, sinks=[kept], mode="observe", observe_until=end)
    with observer.session(MARIA, BOT, id="s"):
        refund("o-1", 5)
    told = story([each.line() for each in kept.records if not isinstance(each, EffectRecord)], "s")
    assert [step.fate for step in told.steps] == ["unknown"]


def test_causes_come_before_clocks() -> None:
    """Within a stream numbers count, between streams causes, then the clock; the last is marked."""
    one = [_at("a", "A", 1, 30), _at("b", "A", 2, 10), _at("c", "A", 3, 50)]
    two = [_at("d", "B", 1, 5, parent="b"), _at("e", "B", 2, 55)]
    mixed = [*one, *two]
    random.Random(7).shuffle(mixed)
    assert [each.id for each in ordered(mixed)] == ["a", "b", "d", "c", "e"]
    told = story([each.line() for each in mixed], "s")
    assert [(step.decision.id, step.by_clock) for step in told.steps] == [
        ("a", False), ("b", False), ("d", False), ("c", True), ("e", True),
    ]  # fmt: skip


def test_what_is_of_one_trace_is_told_together() -> None:
    """Between streams, records of the trace that is being told come before those of another, whatever clocks say."""
    mine, other = "1" * 32, "2" * 32
    one = [_at("a", "A", 1, 10, trace=mine), _at("b", "A", 2, 20, trace=other)]
    two = [_at("c", "B", 1, 30, trace=mine), _at("d", "B", 2, 40)]
    assert [each.id for each in ordered([*two, *one])] == ["a", "c", "b", "d"]


def test_causes_in_a_circle_stop_nothing() -> None:
    """Records whose parents go round in a circle, or are themselves, are all told."""
    circle = [_at("a", "A", 1, 2, parent="b"), _at("b", "B", 1, 1, parent="a"), _at("c", "C", 1, 3, parent="c")]
    assert sorted(each.id for each in ordered(circle)) == ["a", "b", "c"]


def test_what_is_delivered_twice_is_told_once() -> None:
    """The same line twice is one decision or one effect; an effect without its decision is told apart."""
    decided = _at("a", "A", 1, 1)
    now = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
    done = EffectRecord(id="x", ts=now, of="a", status="done", session="s")
    stray = EffectRecord(id="y", ts=now, of="gone", status="done", session="s")
    told = story([decided.line(), done.line(), decided.line(), done.line(), stray.line()], "s")
    assert [[each.id for each in step.effects] for step in told.steps] == [["x"]]
    assert [each.id for each in told.strays] == ["y"]


def test_a_session_that_is_in_no_record_is_usage(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Asking for another session exits with 4."""
    found = ran(capsys, "show", "conversation-9", log)
    assert (found.code, found.out) == (4, "")
    assert "`session` is in no record: `conversation-9`" in found.err
    with pytest.raises(InvalidArgument):
        story([], "s")


def test_the_tree_tells_where_authority_was_lost(tmp_path: Path) -> None:
    """The call is counted at the first hop that doesn't cover it, whoever made it."""
    with Authorizer(PolicySet.parse(POLICY), sinks=[FileSink(tmp_path)]) as authorizer:
        session = authorizer.session(MARIA, BOT, id="s")
        first = session.delegate(Principal.agent("one"), actions=["shop.find", "shop.list"])
        second = first.delegate(Principal.agent("two"), actions=["shop.find"])
        second.decide("shop.refund", args={"amount": 1, "to": "x"})
        second.decide("shop.list")
    found = [(depth, each.actor.sub, each.acted, len(each.lost), each.narrowing()) for depth, each in walk(
        delegations(each for each in decisions(tmp_path) if isinstance(each, DecisionRecord)))]  # fmt: skip
    assert found == [
        (0, "maria", 0, 0, []),
        (1, "bot", 0, 0, []),
        (2, "one", 0, 1, ["only shop.find, shop.list, of *"]),
        (3, "two", 2, 1, ["only shop.find, of shop.list"]),
    ]
    assert len(logs.records(tmp_path)) > 2
