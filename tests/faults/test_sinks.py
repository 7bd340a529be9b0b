"""Survive what other systems do: rows 10 to 13, 38 and 39 of the table of faults, each through a whole authorizer."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from agentauthz import Authorizer, Denied, InvalidArgument, PolicySet, authorize, current
from agentauthz.errors import SinkError
from agentauthz.records import (
    EventRecord,
    FileSink,
    HttpSink,
    MemorySink,
    PostgresSink,
    Record,
    Shipper,
    Sink,
    SqliteSink,
    at_least,
    read_record,
)
from agentauthz.records.catalog import used
from agentauthz.records.verify import Verdict, verify
from tests.commands import ran as command
from tests.logs import lines as lines_of
from tests.loopback import Connection, Loopback, answer
from tests.postgres import Postgres
from tests.recording import BOT, MARIA, NOW, decision, until

POLICIES: Final = PolicySet.parse("permit all on * when true")


class _Calling:
    """Be a sink that calls a function."""

    def __init__(self, call: Callable[[Record], object], *, blocking: bool = False) -> None:
        self._call = call
        self.blocking = blocking

    def append(self, line: bytes, record: Record) -> None:
        self._call(record)

    def close(self) -> None:
        pass


def _raising(error: BaseException, blocking: bool = False) -> Sink:
    def fail(_: Record) -> None:
        raise error

    return _Calling(fail, blocking=blocking)


ran: list[str] = []


@authorize("shop.look")
def look() -> str:
    ran.append("look")
    return "seen"


@authorize("shop.look")
async def alook() -> str:
    ran.append("alook")
    return "seen"


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def _look(asynchronous: bool, *sinks: Sink, **options: Any) -> str:
    with Authorizer(POLICIES, sinks=sinks, **options) as authorizer, authorizer.session(MARIA, BOT):
        return asyncio.run(alook()) if asynchronous else look()


def _ids(sink: MemorySink) -> list[str]:
    return [record.as_dict()["type"] for record in sink.records]


def _alarms(sink: MemorySink) -> list[EventRecord]:
    return [record for record in sink.records if isinstance(record, EventRecord) and record.type == "sink.failed"]


# ---- 10: a sink raises anything

ERRORS: Final = (OSError("CANARY"), ValueError("CANARY"), RecursionError(), MemoryError(), SinkError("x"))


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_row_10_what_a_sink_raises_denies(asynchronous: bool, blocking: bool, error: Exception) -> None:
    """Whatever a sink raises, the call is denied and doesn't run, the cause is kept, and no text of it is told."""
    memory = MemorySink()
    with pytest.raises(Denied) as caught:
        _look(asynchronous, _raising(error, blocking), memory)
    assert ran == []
    assert caught.value.decision is not None
    assert caught.value.decision.basis.value == "error"
    assert caught.value.decision.reasons[0].code == "not_recorded"
    assert isinstance(caught.value.__cause__, SinkError)
    assert caught.value.__cause__.__cause__ is error
    assert "CANARY" not in str(caught.value) + str(caught.value.__cause__)
    assert "decision" in _ids(memory)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=lambda error: type(error).__name__)
def test_row_10_an_interrupt_comes_out_after_the_record_is_complete(error: BaseException, tmp_path: Path) -> None:
    """KeyboardInterrupt out of a sink comes out as it is, the call doesn't run, and the other sinks have the record."""
    memory = MemorySink()
    with pytest.raises(type(error)) as caught:
        _look(False, FileSink(tmp_path), _raising(error), memory, on_failure="allow_and_alarm")
    assert caught.value is error
    assert ran == []
    assert "decision" in _ids(memory)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("on_failure", ["allow_and_alarm", ["shop.look"]])
def test_row_10_an_action_may_go_ahead(
    asynchronous: bool, on_failure: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Where it was asked for, the call runs, the log says so, and so does a record in the sinks that work."""
    memory = MemorySink()
    got: list[Record] = []

    def fail(record: Record) -> None:
        got.append(record)
        raise OSError("CANARY")

    assert _look(asynchronous, FileSink(tmp_path), _Calling(fail), memory, on_failure=on_failure) == "seen"
    assert not any(isinstance(record, EventRecord) and record.type == "sink.failed" for record in got)
    failed = _alarms(memory)[0]
    assert dict(failed.about) == {
        "sink": "_Calling", "error": "OSError", "record": memory.decisions[0].id, "went_ahead": True,
    }  # fmt: skip
    assert failed.stream == memory.decisions[0].stream
    assert caplog.messages[0] == f"`_Calling` failed to keep record {memory.decisions[0].id}: OSError"
    assert "CANARY" not in caplog.text
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*.ndjson"))
    assert failed.line() in written


def test_row_10_other_actions_do_not() -> None:
    """What isn't listed is denied as ever."""
    with pytest.raises(Denied):
        _look(False, _raising(OSError()), on_failure=["shop.buy"])
    assert ran == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_row_10_enough_sinks_are_enough(asynchronous: bool) -> None:
    """With `required` so many sinks must have the record, and no more; what failed is told, and not as a danger."""
    memory = MemorySink()
    assert _look(asynchronous, _raising(OSError()), memory, required=1) == "seen"
    failed = next(
        record for record in memory.records if isinstance(record, EventRecord) and record.type == "sink.failed"
    )
    assert failed.about["went_ahead"] is False
    with pytest.raises(Denied):
        _look(asynchronous, _raising(OSError()), MemorySink(), required=2)
    assert _look(asynchronous, _raising(OSError()), required=0) == "seen"


def test_row_10_after_closing_nothing_goes_ahead() -> None:
    """Closed sinks deny, whatever is asked for where one fails."""
    authorizer = Authorizer(POLICIES, sinks=[MemorySink()], on_failure="allow_and_alarm", required=0)
    authorizer.close()
    with authorizer.session(MARIA, BOT), pytest.raises(Denied):
        look()


@pytest.mark.parametrize("options", [{"on_failure": "allow"}, {"on_failure": [1]}, {"on_failure": None}])
def test_row_10_another_word_is_refused(options: dict[str, Any]) -> None:
    """A word that isn't known, and a number of sinks that is none, are errors: they never mean "allow"."""
    with pytest.raises(InvalidArgument, match="`on_failure`"):
        Authorizer(POLICIES, sinks=[MemorySink()], **options)
    for required in (-1, True, "1", 2):
        with pytest.raises(InvalidArgument, match="`required`"):
            Authorizer(POLICIES, sinks=[MemorySink()], required=required)  # type: ignore[arg-type]


def test_row_10_more_than_there_are_are_never_required() -> None:
    """No record is ever in two places of one: such a number is refused, and so is taking away a sink that it needs."""
    first, second = MemorySink(), MemorySink()
    with pytest.raises(InvalidArgument, match="`required` is 1000, and there are no more sinks than 1"):
        Authorizer(POLICIES, required=1000)
    authorizer = Authorizer(POLICIES, sinks=[first], required=1)
    with pytest.raises(InvalidArgument, match="add another one first"):
        authorizer.remove_sink(first)
    authorizer.remove_sink(second)
    authorizer.add_sink(second)
    authorizer.remove_sink(first)
    with authorizer.session(MARIA, BOT):
        look()
    assert second.decisions
    assert not first.decisions


# ---- 11: a sink hangs


@pytest.mark.parametrize("asynchronous", [False, True])
def test_row_11_a_sink_that_hangs_is_a_failure_in_time(asynchronous: bool, tmp_path: Path) -> None:
    """Within its time-out a sink that hangs counts as failed: the call is denied, and the others have the record."""
    hang, memory = threading.Event(), MemorySink()
    hanging = at_least(1, _Calling(lambda _: hang.wait(60)), timeout=0.1)
    authorizer = Authorizer(POLICIES, sinks=[FileSink(tmp_path), hanging, memory])
    began = time.monotonic()
    with authorizer.session(MARIA, BOT), pytest.raises(Denied):
        _ = asyncio.run(alook()) if asynchronous else look()
    assert time.monotonic() - began < 30
    assert ran == []
    assert "decision" in _ids(memory)
    hang.set()
    authorizer.close()


def test_row_11_enough_others_and_it_holds_nobody_up() -> None:
    """Where enough others have the record, a sink that hangs neither denies nor delays."""
    hang, memory = threading.Event(), MemorySink()
    sinks = at_least(1, _Calling(lambda _: hang.wait(60)), memory, timeout=1)
    authorizer = Authorizer(POLICIES, sinks=[sinks])
    with authorizer.session(MARIA, BOT):
        for _ in range(20):
            look()
    assert len(memory.decisions) == 20
    hang.set()
    authorizer.close()


# ---- 12: a sink is slow


def test_row_12_a_slow_collector_delays_no_call_and_loses_nothing(tmp_path: Path) -> None:
    """Beside a file a collector may be slow: calls go on, and all its records arrive after all."""

    def slow(connection: Connection) -> None:
        time.sleep(0.2)
        answer({})(connection)

    with Loopback(slow) as server:
        shipped = HttpSink(server.url, delivery="queued", timeout=30, loopback_http=True)
        with Authorizer(POLICIES, sinks=[FileSink(tmp_path), shipped]) as authorizer:
            with authorizer.session(MARIA, BOT):
                for _ in range(50):
                    look()
                assert shipped.waiting > 0
            shipped.flush(timeout=60)
            assert (shipped.waiting, shipped.lost) == (0, 0)


def test_row_12_back_pressure_is_as_asked_for() -> None:
    """A full queue makes calls wait and then denies them; or it gives up allows, never denials, and goes on."""
    with Loopback(answer({}, 503)) as server:
        room = 20_000
        for delivery, denied in (("queued", True), ("lossy", False)):
            sink = HttpSink(server.url, delivery=delivery, timeout=0.2, room=room, loopback_http=True)  # type: ignore[arg-type]
            authorizer = Authorizer(POLICIES, sinks=[sink])
            outcomes = []
            with authorizer.session(MARIA, BOT):
                for _ in range(60):
                    try:
                        outcomes.append(look())
                    except Denied:
                        outcomes.append("denied")
                        break
            assert ("denied" in outcomes) is denied
            assert (sink.lost > 0) is not denied
            with pytest.raises(SinkError, match="sinks failed"):
                authorizer.close()


# ---- 13: a sink asks its own authorizer


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("how", ["quick", "blocking", "at_least"])
def test_row_13_a_sink_that_asks_is_refused(asynchronous: bool, how: str) -> None:
    """What a sink asks of its own authorizer is denied, recorded by nobody, and never goes round in a circle."""
    told: list[str] = []
    memory = MemorySink()

    def ask(record: Record) -> None:
        try:
            current().session.authorize("shop.look")
        except Denied as denied:
            told.append(str(denied))

    asking: Sink = _Calling(ask, blocking=how == "blocking")
    if how == "at_least":
        asking = at_least(1, asking, timeout=20)
    assert _look(asynchronous, asking, memory) == "seen"
    assert told
    assert all("inside_a_sink" in text or "a sink may not ask" in text for text in told), told
    assert len(memory.decisions) == 1


# ---- 38: the collector is down for a day


def test_row_38_what_a_collector_misses_waits_in_the_log(tmp_path: Path) -> None:
    """While it is down calls go on, the lag tells how much waits, and of the log only what went before may be pruned.

    When it is back it gets the rest, from where it stopped, and each record at least once.
    """
    log = FileSink(tmp_path / "log", segment_size=5_000)
    with Loopback(answer({})) as server, Authorizer(POLICIES, sinks=[log]) as authorizer:
        collector = HttpSink(server.url, timeout=0.3, loopback_http=True)
        shipper = Shipper(log.folder, collector, tmp_path / "shipped")
        with authorizer.session(MARIA, BOT):
            _looks(10)
            until(lambda: _ships(shipper))
            lag = shipper.lag()
            server.answer = answer({}, 503)
            for hour in range(24):
                _looks(3)
                with pytest.raises(SinkError):
                    shipper.ship()
                assert lag < (lag := shipper.lag())
                assert shipper.gone_before() < authorizer.now(), hour
            server.answer = answer({})
            server.seen.clear()
            segments = len(list(log.folder.glob("*/*.ndjson")))
            assert 0 < log.prune(shipper.gone_before()) < segments  # the disk may be short by now
            until(lambda: _ships(shipper))
        assert shipper.lag() == 0
        collector.close()
    got = [record for seen in server.seen for record in json.loads(gzip.decompress(seen.body))]
    places = [(record["stream"], record["seq"]) for record in got]
    seqs = sorted({seq for _, seq in places})
    assert seqs == list(range(seqs[0], seqs[-1] + 1))
    assert len([record for record in got if record["type"] == "decision"]) >= 72


def test_row_38_a_quota_bounds_the_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a quota a log that nobody takes over stops at it: calls are denied, nothing is overwritten, and it is told.

    Only the oldest of what has gone makes room, as much as is needed; then calls go on, and the gap is in the log.
    """
    quota = 60_000
    log = FileSink(tmp_path / "log", segment_size=5_000, quota=quota)
    state, collected = tmp_path / "shipped", MemorySink()
    shipper = Shipper(log.folder, collected, state)
    with Authorizer(POLICIES, sinks=[log]) as authorizer, authorizer.session(MARIA, BOT):
        _looks(10)
        shipper.ship()  # the last time for a day
        causes: list[BaseException | None] = []
        for _ in range(200):
            try:
                look()
            except Denied as refused:
                causes.append(refused.__cause__)
        assert len(causes) > 50
        assert all(isinstance(cause, SinkError) for cause in causes)
        assert all("the quota of the log is used up" in f"{cause} {cause and cause.__cause__}" for cause in causes)
        assert quota <= used(log.folder) < quota + 5_000
        before = lines_of(log.folder)
        assert len(ran) == len([record for record in before if b'"type":"effect"' in record])
        lag = shipper.lag()
        assert lag > quota / 2
        gone = command(capsys, "prune", log.folder, "--shipped", state, "--max-bytes", 0)
        assert gone.code == 0  # it is another process's: what is live stays as it is
        assert log.prune(shipper.gone_before(), max_bytes=quota - 2_000) == 1  # the oldest, and it has gone
        assert set(before) - set(lines_of(log.folder)) < {record.line() for record in collected.records}
        assert shipper.lag() > lag  # `log.pruned` waits too
        look()
    told = [record for record in map(read_record, lines_of(log.folder)) if isinstance(record, EventRecord)]
    kinds = [record.type for record in told if record.type in ("sink.failed", "stream.gap", "log.pruned")]
    assert kinds[:2] == ["sink.failed", "stream.gap"]
    assert kinds.count("log.pruned") == 1
    [gap, *_] = [record for record in told if record.type == "stream.gap"]
    assert gap.about["count"] == len(causes)
    assert [damage.kind for damage in verify(log.folder).damages] == []


def test_row_38_a_quota_bounds_what_is_written_later_too(tmp_path: Path) -> None:
    """In async mode a call is denied at once; what was queued before is written, and no more than the queue holds."""
    quota, room = 30_000, 8_000
    log = FileSink(tmp_path / "log", segment_size=5_000, quota=quota, mode="async", room=room)
    causes: list[BaseException | None] = []
    with Authorizer(POLICIES, sinks=[log]) as authorizer, authorizer.session(MARIA, BOT):
        for _ in range(200):
            try:
                look()
            except Denied as refused:
                causes.append(refused.__cause__)
            log.flush()
        assert len(causes) > 50
        assert all("the quota of the log is used up" in f"{cause} {cause and cause.__cause__}" for cause in causes)
        assert quota <= used(log.folder) < quota + room + 10_000
        assert log.prune(dt.datetime.now(dt.UTC), max_bytes=quota - 10_000) > 0
        look()
    assert verify(log.folder).verdict is Verdict.UNWITNESSED


def _worked(folder: Path) -> None:
    sinks = [FileSink(folder, segment_size=4_000)]
    with Authorizer(POLICIES, sinks=sinks) as authorizer, authorizer.session(MARIA, BOT):
        _looks(10)


def test_row_38_what_has_not_gone_is_never_pruned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pruning to a size takes the oldest of what was shipped, over all streams, and stops where nothing has gone."""
    folder, state = tmp_path / "log", tmp_path / "shipped"
    for _ in range(3):
        _worked(folder)
    sent = MemorySink()
    Shipper(folder, sent, state).ship()
    _worked(folder)
    there = lines_of(folder)
    shipped = {record.line() for record in sent.records}
    size, half = used(folder), used(folder) // 2
    for order in (["--max-bytes", size], ["--max-bytes", half, "--dry-run"]):
        command(capsys, "prune", folder, "--shipped", state, *order)
        assert used(folder) == size
    assert command(capsys, "prune", folder, "--shipped", state, "--max-bytes", half).code == 0
    assert half - 4_500 < used(folder) <= half + 2_000  # the record of it is new
    left = lines_of(folder)
    assert set(there) - set(left) < shipped
    command(capsys, "prune", folder, "--shipped", state, "--max-bytes", 0)
    assert set(there) - set(lines_of(folder)) == shipped
    assert verify(folder).damages == ()
    for wrong in (["--shipped", tmp_path / "none"], ["--shipped", state, "--max-bytes", "-1"], ["--max-bytes", 1]):
        assert command(capsys, "prune", folder, *wrong).code == 4


def test_row_38_a_quota_that_leaves_no_room_is_refused(tmp_path: Path) -> None:
    """A quota that the segment being written could use up by itself, or that is no number, is an error."""
    for quota in (0, -1, 5_000, 1.5, True):
        with pytest.raises(InvalidArgument, match="`quota`"):
            FileSink(tmp_path, segment_size=5_000, quota=quota)  # type: ignore[arg-type]
    log = FileSink(tmp_path)
    for size in (-1, 1.5, True):
        with pytest.raises(InvalidArgument, match="`max_bytes`"):
            log.prune(NOW, max_bytes=size)  # type: ignore[arg-type]
    log.close()


def _looks(count: int) -> None:
    for _ in range(count):
        look()


def _ships(shipper: Shipper) -> bool:
    try:
        shipper.ship()
    except SinkError:
        return False
    return True


# ---- 39: delivered twice


def test_row_39_what_is_delivered_twice_is_kept_once(tmp_path: Path, postgres: Postgres) -> None:
    """The lines of a log, delivered again from the beginning, change nothing in SQLite and PostgreSQL."""
    log = FileSink(tmp_path / "log")
    with Authorizer(POLICIES, sinks=[log]) as authorizer, authorizer.session(MARIA, BOT):
        for _ in range(10):
            look()
    [path] = (tmp_path / "log").glob("*/*.ndjson")
    lines = path.read_bytes().splitlines(keepends=True)
    with closing(SqliteSink(tmp_path / "index.db")) as index, closing(PostgresSink(postgres.dsn)) as database:
        for part in (lines[:7], lines, lines[5:], list(reversed(lines))):
            index.append_many(part)
            database.append_many(part)
        assert sorted(record.line() for record in index.query()) == sorted(lines)
        [(count,)] = postgres.rows("SELECT count(*) FROM agentauthz_records")
        assert count == len(lines)
        assert [read_record(line).id for line in lines] != []


def test_row_39_a_sender_that_dies_before_the_answer(postgres: Postgres) -> None:
    """Who took over from a killed process sends its last record again, and it's kept once."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            sink = PostgresSink(postgres.dsn)
            sink.append(decision(0).line(), decision(0))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with closing(PostgresSink(postgres.dsn)) as successor:
        successor.append(decision(0).line(), decision(0))
        successor.append(decision(1).line(), decision(1))
    assert postgres.rows("SELECT seq FROM agentauthz_records ORDER BY seq") == [(0,), (1,)]
