"""Test where records go: memory, logs, files; and the recorder, which lets no failure pass and no sink call back."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from typing import Final

import attrs
import pytest

from agentauthz.decision import Basis, Decision, Outcome, Reason
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.keys import InstanceKey
from agentauthz.principals import Principal
from agentauthz.records import (
    DecisionRecord,
    EffectRecord,
    EventRecord,
    FileSink,
    LoggingSink,
    MemorySink,
    Record,
    Recorder,
    Sink,
    decision_record,
)
from agentauthz.request import Request
from tests import logs
from tests.golden import ROOT

NOW: Final = dt.datetime(2026, 11, 23, 9, tzinfo=dt.UTC)
KEY: Final = InstanceKey.from_bytes(bytes(32))
ALLOW: Final = Decision(Outcome.ALLOW, Basis.RULE, "payments.refund", rules=("small_refund",))
DENY: Final = Decision(Outcome.DENY, Basis.DEFAULT, "payments.refund", reasons=(Reason("not_permitted", "no permit"),))


def _record(decision: Decision = ALLOW, note: str = "", id: str = "01") -> DecisionRecord:
    request = Request(decision.action, subject=Principal.user("maria"))
    return decision_record(
        id=id, ts=NOW, request=request, args={"note": note}, decision=decision, seen=[("args.note", note)], key=KEY
    )


EFFECT: Final = EffectRecord(id="02", ts=NOW, of="01", status="done", dur_us=3)


def _append(sink: Sink, record: Record) -> None:
    sink.append(record.line(), record)


def _run(code: str, *args: object) -> str:
    """Run Python code, as another program would."""
    program = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- memory


def test_memory_keeps_records_in_order() -> None:
    """Records are kept in the order of appending, decisions and effects apart."""
    sink = MemorySink()
    record = _record()
    _append(sink, record)
    _append(sink, EFFECT)
    assert sink.records == (record, EFFECT)
    assert (sink.decisions, sink.effects) == ((record,), (EFFECT,))
    sink.clear()
    assert len(sink.records) == 0


def test_memory_can_be_bounded() -> None:
    """With a limit the newest records stay."""
    sink = MemorySink(limit=2)
    for number in range(5):
        _append(sink, _record(id=str(number)))
    assert [record.id for record in sink.records] == ["3", "4"]
    for limit in (0, -1, True, "3"):
        with pytest.raises(InvalidArgument, match=r"`limit` must be"):
            MemorySink(limit=limit)  # type: ignore[arg-type]


def test_closed_memory_takes_nothing() -> None:
    """After close an append fails, and what was kept stays readable."""
    sink = MemorySink()
    _append(sink, EFFECT)
    sink.close()
    sink.close()
    with pytest.raises(SinkError, match="closed"):
        _append(sink, EFFECT)
    assert sink.effects == (EFFECT,)


# ---- logging


def test_levels_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Denials and reviews are warnings, allows are information, effects are for debugging."""
    caplog.set_level(logging.DEBUG, "agentauthz.decisions")
    sink = LoggingSink()
    review = attrs.evolve(ALLOW, outcome=Outcome.REVIEW)
    for record in (_record(), _record(DENY), _record(review), EFFECT):
        _append(sink, record)
    assert [(record.levelname, record.name) for record in caplog.records] == [
        (level, "agentauthz.decisions") for level in ("INFO", "WARNING", "WARNING", "DEBUG")
    ]
    assert caplog.messages[0] == "allow payments.refund: basis rule, rules small_refund, record 01"
    assert caplog.messages[3] == "effect of 01: done"


def test_log_messages_are_one_line_without_values(caplog: pytest.LogCaptureFixture) -> None:
    """No value is in the message, no name breaks its line or is a format; the record is beside it as a dict."""
    caplog.set_level(logging.INFO, "agentauthz.decisions")
    decision = attrs.evolve(DENY, action="pay\nments\x1b[31m%s%d", rules=("a\u202eb",), enforced=False)
    record = _record(decision, note="VALUE")
    _append(LoggingSink(), record)
    message = caplog.messages[0]
    assert message.isprintable()
    assert "VALUE" not in message
    assert "not enforced" in message
    assert vars(caplog.records[0])["decision_record"] == record.as_dict()


def test_a_log_that_is_off_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Where a level is off, nothing is wanted and nothing is logged."""
    logger = logging.getLogger("agentauthz.test_sinks")
    logger.setLevel(logging.WARNING)
    sink = LoggingSink(logger)
    assert (sink.wants(ALLOW), sink.wants(DENY), sink.wants_effects()) == (False, True, False)
    _append(sink, _record())
    assert caplog.records == []


# ---- files


def test_a_file_has_one_line_for_each_record(tmp_path: Path) -> None:
    """The folder is made for its owner alone, and its file holds each record at its place in a stream."""
    sink = FileSink(tmp_path / "a" / "records")
    records: list[Record] = [_record(note="a\nb"), EFFECT]
    for record in records:
        _append(sink, record)
    sink.close()
    assert sink.folder.stat().st_mode & 0o777 == 0o700
    assert sink.path.stat().st_mode & 0o777 == 0o600
    assert logs.ids(sink.folder) == ["01", "02"]
    kept = logs.records(sink.folder)
    assert [record.seq for record in kept] == [0, 1, 2, 3]
    assert {record.stream for record in kept} == {sink.stream.id}
    assert [line.partition(b'"type":')[2] for line in logs.lines(sink.folder)[1:3]] == [
        record.line().partition(b'"type":')[2] for record in records
    ]


def test_each_opening_has_its_own_file(tmp_path: Path) -> None:
    """Two sinks of one folder never share a file, and an old file is never touched."""
    for number in range(3):
        sink = FileSink(str(tmp_path))
        _append(sink, _record(id=str(number)))
        sink.close()
    assert len(logs.segments(tmp_path)) == 3
    assert sorted(logs.ids(tmp_path)) == ["0", "1", "2"]


def test_a_closed_file_takes_nothing(tmp_path: Path) -> None:
    """Closing twice is nothing; appending afterwards fails."""
    sink = FileSink(tmp_path)
    sink.close()
    sink.close()
    with pytest.raises(SinkError, match="closed"):
        _append(sink, EFFECT)


def test_the_folder_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder means the one of the moment when the sink was made."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    sink = FileSink("records")
    monkeypatch.chdir(tmp_path / "elsewhere")
    _append(sink, EFFECT)
    sink.close()
    assert logs.ids(tmp_path / "records") == ["02"]


@pytest.mark.parametrize("bad", ["file", "file/below"])
def test_what_is_no_folder_is_refused_at_the_start(tmp_path: Path, bad: str) -> None:
    """A path that can't be a folder is an error that names it, when the sink is made."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=f"`{tmp_path / bad}` can't be made"):
        FileSink(tmp_path / bad)


def test_an_unwritable_folder_is_refused_at_the_start() -> None:
    """A folder that this user may not write is an error that names it, when the sink is made."""
    code = """
        import os, pathlib, sys, tempfile
        from agentauthz.errors import SinkError
        from agentauthz.records import FileSink
        folder = pathlib.Path(tempfile.mkdtemp())
        folder.chmod(0o555)
        if os.geteuid() == 0:
            os.setuid(65534)  # modes mean nothing to root
        try:
            FileSink(folder)
        except SinkError as error:
            assert str(folder) in str(error) and "permission denied" in str(error), error
            print("refused")
    """
    assert _run(code) == "refused\n"


def test_threads_never_mix_lines(tmp_path: Path) -> None:
    """Eight threads append at once: every line is whole, and each thread's own are in order."""
    sink = FileSink(tmp_path)

    def work(thread: int) -> None:
        for number in range(100):
            _append(sink, _record(note="x" * 1_500, id=f"{thread}-{number:03}"))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    sink.close()
    ids = logs.ids(tmp_path)
    assert len(ids) == len(set(ids)) == 800
    for thread in range(8):
        mine = [each for each in ids if each.startswith(f"{thread}-")]
        assert mine == sorted(mine)


def test_a_forked_child_writes_its_own_file(tmp_path: Path) -> None:
    """A fork, even while another thread holds the stream's lock, gives two streams; neither closes the other's."""
    sink = FileSink(tmp_path)
    _append(sink, _record(id="before"))
    ours = sink.path
    with sink.stream.lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a lock that nobody will release must fail the test, not hang it
            status = 1
            try:
                _append(sink, _record(id="child"))
                sink.close()
                status = 0
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    _append(sink, _record(id="after"))
    sink.close()
    assert [each.id for each in logs.told(tmp_path) if each.stream == ours.parent.name] == ["before", "after"]
    assert [each.id for each in logs.told(tmp_path) if each.stream != ours.parent.name] == ["child"]


# ---- the recorder


class _Failing:
    """Fail each append with what is given."""

    def __init__(self, cause: BaseException, blocking: bool = False) -> None:
        self.cause = cause
        self.blocking = blocking

    def append(self, line: bytes, record: Record) -> None:
        raise self.cause

    def close(self) -> None:
        raise self.cause


class _Calling:
    """Call a function with each record."""

    def __init__(self, call: Callable[[Record], object], blocking: bool = False) -> None:
        self.call = call
        self.blocking = blocking

    def append(self, line: bytes, record: Record) -> None:
        if not isinstance(record, EventRecord):
            self.call(record)

    def close(self) -> None:
        pass


def _write(recorder: Recorder, record: Record, asynchronous: bool) -> None:
    if asynchronous:
        asyncio.run(recorder.awrite(record))
    else:
        recorder.write(record)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def asynchronous(request: pytest.FixtureRequest) -> bool:
    """Give each test both ways to write."""
    return bool(request.param)


def test_every_sink_gets_the_record(asynchronous: bool) -> None:
    """All sinks are given the same record, blocking ones too."""
    first, second = MemorySink(), MemorySink()
    recorder = Recorder([first, _Calling(lambda record: second.append(record.line(), record), blocking=True)])
    _write(recorder, EFFECT, asynchronous)
    assert [record.line() for record in first.effects] == [record.line() for record in second.effects]
    assert [record.id for record in first.effects] == ["02"]


@pytest.mark.parametrize("blocking", [False, True])
def test_a_failing_sink_stops_no_other(asynchronous: bool, blocking: bool) -> None:
    """The sinks after a failing one are tried; the error names it, is chained to the cause, and quotes nothing."""
    cause = ValueError("CANARY in the record")
    memory = MemorySink()
    recorder = Recorder([_Failing(cause, blocking), memory, _Failing(KeyError("CANARY"), blocking)])
    with pytest.raises(SinkError) as caught:
        _write(recorder, _record(note="CANARY"), asynchronous)
    assert str(caught.value) == "2 of 3 sinks failed: `_Failing`, `_Failing`"
    assert caught.value.__cause__ is cause
    assert len(memory.decisions) == 1


@pytest.mark.parametrize("blocking", [False, True])
def test_an_interrupt_waits_for_the_other_sinks(blocking: bool) -> None:
    """KeyboardInterrupt and SystemExit out of a sink come out as they are, after every sink had the record."""
    for interrupt in (KeyboardInterrupt(), SystemExit(3)):
        memory = MemorySink()
        with pytest.raises(type(interrupt)) as caught:
            Recorder([_Failing(OSError()), _Failing(interrupt, blocking), memory]).write(EFFECT)
        assert caught.value is interrupt
        assert len(memory.effects) == 1


def test_an_interrupt_in_a_thread_comes_out() -> None:
    """The same holds where a coroutine wrote and the sink ran in a thread."""

    async def write() -> str:
        try:
            await Recorder([_Failing(GeneratorExit(), blocking=True)]).awrite(EFFECT)
        except GeneratorExit:
            return "came out"
        return "lost"

    assert asyncio.run(write()) == "came out"


def test_a_blocking_sink_never_blocks_the_loop() -> None:
    """While a blocking sink waits, the loop goes on: here it is the loop that lets the sink end."""
    goes_on = threading.Event()

    async def scenario() -> None:
        recorder = Recorder([_Calling(lambda _: goes_on.wait(30), blocking=True)])
        write = asyncio.create_task(recorder.awrite(EFFECT))
        await asyncio.sleep(0)
        assert not write.done()
        goes_on.set()
        await write

    asyncio.run(scenario())


def test_a_write_sees_one_list_of_sinks(asynchronous: bool) -> None:
    """Sinks that come or go while a record is written change the next write, not this one."""
    late, last = MemorySink(), MemorySink()
    blocking = _Calling(lambda record: last.append(b"", record), blocking=True)

    def change(_: Record) -> None:
        recorder.remove(blocking)
        recorder.remove(first)
        recorder.add(late)

    first = _Calling(change)
    recorder = Recorder([first, blocking])
    _write(recorder, EFFECT, asynchronous)
    assert (len(late.effects), len(last.effects)) == (0, 1)
    _write(recorder, EFFECT, asynchronous)
    assert (len(late.effects), len(last.effects)) == (1, 1)
    assert recorder.sinks == (late,)


def test_a_cancelled_write_is_ended_first() -> None:
    """Cancelling a coroutine that writes lets every sink have the record, then cancels it."""
    started, goes_on, memory = threading.Event(), threading.Event(), MemorySink()

    def slow(record: Record) -> None:
        started.set()
        goes_on.wait(30)
        memory.append(record.line(), record)

    async def scenario() -> None:
        write = asyncio.create_task(Recorder([_Calling(slow, blocking=True)]).awrite(EFFECT))
        while not started.is_set():
            await asyncio.sleep(0.001)
        write.cancel()
        await asyncio.sleep(0)
        write.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not write.done()
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await write

    asyncio.run(scenario())
    assert len(memory.effects) == 1


@pytest.mark.parametrize("blocking", [False, True])
def test_a_sink_that_calls_back_is_seen(asynchronous: bool, blocking: bool) -> None:
    """Inside a sink, and only there, `writing` is true, also in the thread of a blocking one."""
    seen: list[bool] = []
    recorder = Recorder([_Calling(lambda _: seen.append(recorder.writing()), blocking)])
    other = Recorder([_Calling(lambda _: seen.append(recorder.writing()))])
    assert not recorder.writing()
    _write(recorder, EFFECT, asynchronous)
    _write(other, EFFECT, asynchronous)
    assert seen == [True, False]
    assert not recorder.writing()


def test_writing_ends_when_the_write_ends() -> None:
    """A failing sink leaves no mark, nor does a context that was copied inside; other threads never have it."""
    copies = []
    threads: list[bool] = []

    def call(_: Record) -> None:
        copies.append(copy_context())
        thread = threading.Thread(target=lambda: threads.append(recorder.writing()))
        thread.start()
        thread.join()
        raise ValueError

    recorder = Recorder([_Calling(call)])
    with pytest.raises(SinkError):
        recorder.write(EFFECT)
    assert not recorder.writing()
    assert not copies[0].run(recorder.writing)
    assert threads == [False]


def test_a_recorder_inside_another_sees_both() -> None:
    """A sink that writes to another authorizer's recorder is inside both."""
    seen: list[tuple[bool, bool]] = []
    inner = Recorder([_Calling(lambda _: seen.append((inner.writing(), outer.writing())))])
    outer = Recorder([_Calling(inner.write)])
    outer.write(EFFECT)
    assert seen == [(True, True)]


def test_what_is_wanted() -> None:
    """A sink wants every record; logs alone want what their level lets through."""
    logger = logging.getLogger("agentauthz.decisions")
    before = logger.level
    try:
        for level, wants in ((logging.ERROR, (0, 0, 0)), (logging.WARNING, (0, 1, 0)), (logging.DEBUG, (1, 1, 1))):
            logger.setLevel(level)
            recorder = Recorder([LoggingSink()])
            assert (recorder.wants(ALLOW), recorder.wants(DENY), recorder.wants_effects()) == wants
        logger.setLevel(logging.ERROR)
        both = Recorder([LoggingSink(), MemorySink()])
        assert both.wants(ALLOW)
        assert both.wants_effects()
    finally:
        logger.setLevel(before)


def test_without_sinks_decisions_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With no sink given, records go to the log; where allows would be lost, one warning says so."""
    caplog.set_level(logging.WARNING, "agentauthz.decisions")
    recorder = Recorder()
    assert len(caplog.messages) == 1
    assert "calls that are allowed leave no record" in caplog.messages[0]
    recorder.write(_record())
    recorder.write(_record(DENY))
    assert caplog.messages[1:] == ["deny payments.refund: basis default, record 01"]
    caplog.clear()
    caplog.set_level(logging.INFO, "agentauthz.decisions")
    Recorder().write(_record())
    assert caplog.messages == ["allow payments.refund: basis rule, rules small_refund, record 01"]
    caplog.clear()
    Recorder([MemorySink()])
    assert caplog.messages == []


def test_closing_closes_every_sink() -> None:
    """Every sink is closed, also after one that fails to; the failure comes out."""
    memory = MemorySink()
    recorder = Recorder([_Failing(OSError("no")), memory])
    with pytest.raises(SinkError, match="1 of 2 sinks failed: `_Failing`"):
        recorder.close()
    with pytest.raises(SinkError):
        _append(memory, EFFECT)


def test_what_is_no_sink_is_refused() -> None:
    """Something without `append` is refused when the recorder is made."""
    with pytest.raises(InvalidArgument, match="`sinks` must hold sinks, and a `str` has no `append`"):
        Recorder(["records/"])  # type: ignore[list-item]
    with pytest.raises(InvalidArgument, match="`MemorySink` is a class: make one of it"):
        Recorder([MemorySink])  # type: ignore[list-item]


def test_importing_records_is_cheap() -> None:
    """The sinks load neither the converter nor asyncio."""
    code = "import sys, agentauthz.records.recorder as r; print({'cattrs', 'asyncio'} & set(sys.modules))"
    assert _run(code) == "set()\n"
