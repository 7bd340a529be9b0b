"""Test a log that writes later, sinks that hang, and memory that looks like a disk: rows 1, 5, 8, 11 to 18 and 43."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import threading
import time
import warnings
from pathlib import Path
from typing import Any, Final

import pytest

from agentauthz import Authorizer, Denied, PolicySet, authorize
from agentauthz.errors import SinkError
from agentauthz.records import EventRecord, FileSink, MemorySink, Record, Sink, tee
from agentauthz.records.verify import Verdict
from tests import logs
from tests.faults.logged import LONG, append, checked, record, run
from tests.faults.mounted import mounted
from tests.recording import BOT, MARIA, until

POLICIES: Final = PolicySet.parse("permit all on * when true")
KILLS: Final = 1_000 if LONG else 60
ROOM: Final = 40_000

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


def _look(asynchronous: bool) -> str:
    return asyncio.run(alook()) if asynchronous else look()


def _events(folder: Path, kind: str) -> list[EventRecord]:
    return [each for each in logs.records(folder) if isinstance(each, EventRecord) and each.type == kind]


class _Hanging:
    """Be a sink that says nothing of itself, and hangs until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.kept: list[Record] = []
        self.closed = 0

    def append(self, line: bytes, record: Record) -> None:
        assert self.go.wait(60)
        self.kept.append(record)

    def close(self) -> None:
        self.closed += 1


# ---- 1: a kill

_KILLING: Final = """
    import os, random, select, signal, sys, time
    from agentauthz.records import FileSink
    from tests.faults.logged import record

    folder, kills, seed, room = sys.argv[1], *map(int, sys.argv[2:])
    rng = random.Random(seed)
    for kill in range(kills):
        acknowledged, told = os.pipe()
        child = os.fork()
        if child == 0:
            sink = FileSink(folder, mode="async", room=room, segment_size=100_000)
            for number in range(1_000_000):
                made = record(f"{kill:04}-{number:06}", "x" * rng.randrange(2_000))
                sink.append(made.line(), made)
                os.write(told, f"{made.id} {len(made.line())}\\n".encode())
        os.close(told)
        select.select([acknowledged], [], [], 30)  # it has begun
        time.sleep(rng.random() * 0.05)
        os.kill(child, signal.SIGKILL)
        with os.fdopen(acknowledged, "rb") as pipe:
            sys.stdout.write(pipe.read().decode())
        os.waitpid(child, 0)
"""


def test_row_01_a_kill_costs_no_more_than_the_queue(tmp_path: Path) -> None:
    """Of what was acknowledged only the end is lost, no more bytes than the queue holds, and nothing looks changed."""
    seed = random.randrange(2**32)
    lines = run(_KILLING, tmp_path, KILLS, seed, ROOM, timeout=1_200 if LONG else 120).stdout.splitlines()
    FileSink(tmp_path).close()  # puts right what they left
    kept = set(logs.ids(tmp_path))
    lost = dict[str, int]()
    runs = dict[str, list[bool]]()
    for line in lines:
        told, size = line.split(" ")
        kill = told[:4]
        runs.setdefault(kill, []).append(told in kept)
        lost[kill] = lost.get(kill, 0) + (int(size) if told not in kept else 0)
    assert len(runs) == KILLS
    assert any(lost.values()), "no kill met a queue with anything in it"
    assert max(lost.values()) <= ROOM, seed
    for each in runs.values():
        assert each == sorted(each, reverse=True), seed  # what is lost is the end
    report = checked(tmp_path)
    assert (report.damages, report.verdict) == ((), Verdict.UNWITNESSED)
    assert len(_events(tmp_path, "stream.recovered")) == KILLS


# ---- 4, 5: a full disk


def test_row_05_what_a_full_disk_refuses_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While the disk is full records wait, which is logged once; when space returns all are there, in order."""
    with mounted(tmp_path, "tmpfs", "size=512k") as small:
        sink = FileSink(small, mode="async")
        append(sink, "before")
        sink.flush(timeout=30)
        filler = small / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1_000))
        assert shutil.disk_usage(small).free == 0
        made = [record(f"full-{number:03}", "x" * 1_500) for number in range(60)]
        for each in made:
            sink.append(each.line(), each)
        until(lambda: sink._late is not None and sink._late.queue.failure is not None)
        with pytest.raises(SinkError, match="didn't keep a record in time: OSError"):
            sink.flush(timeout=0.5)
        assert all(line.endswith(b"}\n") for line in logs.lines(small))
        assert caplog.messages == ["`FileSink` can't write: no space left on device"]
        filler.unlink()
        sink.flush(timeout=30)
        assert logs.ids(small) == ["before", *(each.id for each in made)]
        sink.close()
        assert len(_events(small, "sink.failed")) == 1
        assert _events(small, "stream.gap") == []
        assert [each.seq for each in logs.records(small)] == list(range(len(logs.lines(small))))
        assert (checked(small).damages, sink.metrics().records_lost_total) == ((), 0)


# ---- 8: a deleted file


@pytest.mark.parametrize("how", ["deleted", "folder"])
def test_row_08_what_was_in_a_deleted_file_is_there_again(tmp_path: Path, how: str) -> None:
    """Where the file goes while the queue is written, it is put back or recorded, and what waits is written."""
    sink = FileSink(tmp_path / "log", mode="async")
    append(sink, "1")
    sink.flush(timeout=30)
    time.sleep(0.11)
    if how == "deleted":
        sink.path.unlink()
    else:
        shutil.rmtree(tmp_path / "log")
    append(sink, "2")
    if how == "folder":
        until(lambda: sink._late is not None and sink._late.queue.failure is not None)
        logged = tmp_path / "log" / sink.stream.id
        logged.mkdir(parents=True)
    sink.flush(timeout=30)
    sink.close()
    assert logs.ids(tmp_path / "log") == ["1", "2"]
    assert "deleted" not in {damage.kind for damage in checked(tmp_path / "log").damages}


# ---- 11: what hangs


@pytest.mark.parametrize("asynchronous", [False, True])
def test_row_11_a_sink_that_hangs_denies_in_time(asynchronous: bool, tmp_path: Path) -> None:
    """A sink that hangs has failed after the time-out: the call is denied, file and others have the record; the next
    calls don't wait for it, and it gets what it has missed.
    """
    hanging, memory = _Hanging(), MemorySink()
    sinks: list[Sink] = [FileSink(tmp_path), hanging, memory]
    authorizer = Authorizer(POLICIES, sinks=sinks, sink_timeout=0.3)
    took = []
    with authorizer.session(MARIA, BOT):
        for _ in range(5):
            began = time.monotonic()
            with pytest.raises(Denied) as caught:
                _look(asynchronous)
            took.append(time.monotonic() - began)
            assert caught.value.decision is not None
            assert caught.value.decision.reasons[0].code == "not_recorded"
            assert "1 of 3 sinks failed: `_Hanging`" in str(caught.value.__cause__)
    assert ran == []
    assert 0.3 <= took[0] < 20
    assert sum(took[1:]) < 4 * 0.3
    assert len(memory.decisions) == len(logs.ids(tmp_path)) == 5
    metrics = authorizer.metrics()
    assert (metrics.records_lost_total, metrics.waiting) == (5, 5)
    assert metrics.lag >= 0.3
    hanging.go.set()
    until(lambda: len(hanging.kept) == len(memory.records))
    assert [each.seq for each in hanging.kept] == list(range(len(memory.records)))
    with authorizer.session(MARIA, BOT):
        assert _look(asynchronous) == "seen"
    authorizer.close()
    assert hanging.closed == 1


def test_row_11_two_that_hang_cost_one_time_out() -> None:
    """Sinks that may hang are asked at the same time."""
    first, second = _Hanging(), _Hanging()
    authorizer = Authorizer(POLICIES, sinks=[first, second], sink_timeout=2.0, on_failure="allow_and_alarm")
    began = time.monotonic()
    with authorizer.session(MARIA, BOT) as session:
        assert session.decide("shop.look").allowed
    assert 2.0 <= time.monotonic() - began < 4.0
    first.go.set()
    second.go.set()
    authorizer.close()


def test_row_11_a_sink_that_hangs_inside_another_is_a_failure_too() -> None:
    """What is put together of sinks has a time-out where any of them needs one."""
    hanging = _Hanging()
    authorizer = Authorizer(POLICIES, sinks=[tee(MemorySink(), hanging)], sink_timeout=0.1)
    assert authorizer.session(MARIA, BOT).decide("shop.look").reasons[0].code == "not_recorded"
    hanging.go.set()
    authorizer.close()


def test_row_11_a_sink_that_hangs_at_the_end_holds_up_no_closing() -> None:
    """Closing ends in time, closes the others, and says which didn't."""
    hanging, memory = _Hanging(), MemorySink()
    authorizer = Authorizer(POLICIES, sinks=[hanging, memory], sink_timeout=0.1)
    authorizer.session(MARIA, BOT).decide("shop.look")
    with pytest.raises(SinkError, match="1 of 2 sinks failed: `_Hanging`"):
        authorizer.close()
    with pytest.raises(SinkError, match="closed"):
        append_to(memory)
    hanging.go.set()


def append_to(sink: MemorySink) -> None:
    made = record("late")
    sink.append(made.line(), made)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_row_11_a_disk_that_hangs_denies_in_time(asynchronous: bool, tmp_path: Path) -> None:
    """Where the disk takes nothing, calls go on until the queue is full, and are denied in time from then on."""
    sink, memory = FileSink(tmp_path, mode="async", room=10_000, timeout=0.2), MemorySink()
    authorizer = Authorizer(POLICIES, sinks=[sink, memory])
    seen = []
    with sink.stream.lock, authorizer.session(MARIA, BOT):  # the thread needs it to write
        for _ in range(50):
            began = time.monotonic()
            try:
                seen.append(_look(asynchronous))
            except Denied:
                break
        assert 0.2 <= time.monotonic() - began < 20
    assert 0 < len(seen) < 40
    assert len(memory.decisions) == len(seen) + 1
    authorizer.close()
    assert set(logs.ids(tmp_path)) <= {each.id for each in memory.records}
    assert (checked(tmp_path).damages, sink.metrics().records_lost_total) == ((), 0)


# ---- 12: what is slow


@pytest.mark.parametrize(("overflow", "denied"), [("block", True), ("drop_oldest", False), ("drop_allow_first", False)])
def test_row_12_back_pressure_of_a_file_is_as_asked_for(overflow: Any, denied: bool, tmp_path: Path) -> None:
    """Behind a slow disk calls wait and are denied; or records are given up and counted, and calls go on."""
    sink = FileSink(tmp_path, mode="async", room=10_000, timeout=0.05, overflow=overflow)
    authorizer = Authorizer(POLICIES, sinks=[sink])
    outcomes = []
    with sink.stream.lock, authorizer.session(MARIA, BOT) as session:
        for _ in range(60):
            outcomes.append(session.decide("shop.look").allowed)
            if not outcomes[-1]:
                break
    authorizer.close()
    assert (False in outcomes) is denied
    lost = sink.metrics().records_lost_total
    assert (lost > 0) is not denied
    assert sum(int(str(gap.about["count"])) for gap in _events(tmp_path, "stream.gap")) == lost
    assert len(logs.ids(tmp_path)) == outcomes.count(True) - lost
    report = checked(tmp_path)
    assert (report.damages, report.streams[0].lost) == ((), lost)


# ---- 14, 18: forks and ends


def test_row_14_a_fork_takes_nothing_of_the_queue_along(tmp_path: Path) -> None:
    """A child that is forked while records wait has an empty queue and its own stream: each record is there once."""
    code = """
        import os, signal, sys, threading, warnings
        from agentauthz.records import FileSink
        from tests.faults.logged import append
        warnings.simplefilter("ignore", DeprecationWarning)  # the fork is what is tested
        sink = FileSink(sys.argv[1], mode="async")
        stop = threading.Event()
        def work(name):
            number = 0
            while not stop.is_set():
                append(sink, f"{name}-{number:06}")
                number += 1
            sys.stdout.write(f"{name} {number}\\n")
        threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(4)]
        for thread in threads: thread.start()
        for child in range(10):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                assert sink.metrics().waiting == 0
                append(sink, f"child-{child}")
                sink.close()
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        stop.set()
        for thread in threads: thread.join()
        sink.close(30)
    """
    counts = dict(line.split() for line in run(code, tmp_path).stdout.splitlines())
    ids = logs.ids(tmp_path)
    wanted = {f"{name}-{number:06}" for name, count in counts.items() for number in range(int(count))}
    assert len(ids) == len(set(ids))
    assert set(ids) == wanted | {f"child-{child}" for child in range(10)}
    report = checked(tmp_path)
    assert (len(report.streams), report.damages) == (11, ())


def test_row_18_a_program_that_ends_writes_what_waits(tmp_path: Path) -> None:
    """At the end of the interpreter the queue is written and the stream sealed, though daemon threads go on."""
    code = """
        import sys, threading
        from agentauthz.errors import SinkError
        from agentauthz.records import FileSink
        from tests.faults.logged import append
        sink = FileSink(sys.argv[1], mode="async", timeout=30)
        for number in range(500):
            append(sink, f"{number:04}")
        def work():
            try:
                while True:
                    append(sink, "daemon")
            except SinkError:
                pass
        threading.Thread(target=work, daemon=True).start()
    """
    run(code, tmp_path)
    ids = logs.ids(tmp_path)
    assert [each for each in ids if each != "daemon"] == [f"{number:04}" for number in range(500)]
    assert _events(tmp_path, "stream.sealed")
    assert checked(tmp_path).damages == ()


def test_row_18_a_disk_that_hangs_holds_up_no_end(tmp_path: Path) -> None:
    """A program whose disk hangs ends in bounded time all the same."""
    code = """
        import sys, threading
        from agentauthz.records import FileSink
        from tests.faults.logged import append
        sink = FileSink(sys.argv[1], mode="async", timeout=0.5)
        held = threading.Event()
        def hold():
            with sink.stream.lock:
                held.set()
                threading.Event().wait()
        threading.Thread(target=hold, daemon=True).start()
        held.wait()
        append(sink, "1")
    """
    began = time.monotonic()
    run(code, tmp_path)
    assert time.monotonic() - began < 30
    FileSink(tmp_path).close()
    assert checked(tmp_path).damages == ()


# ---- 43: where a sync does nothing


def test_row_43_a_sync_that_does_nothing_is_warned_of(tmp_path: Path) -> None:
    """On a tmpfs "fsync" can't keep its promise, and says so; the other modes promise nothing of the kind."""
    with mounted(tmp_path, "tmpfs", "size=2m") as small:
        with pytest.warns(RuntimeWarning, match=r"is on a file system \(tmpfs\) where a sync does nothing"):
            sink = FileSink(small / "log", mode="fsync")
        append(sink, "1")
        sink.close()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for mode in ("inline", "async"):
                FileSink(small / mode, mode=mode).close()
        assert checked(small / "log").damages == ()


def test_row_43_an_overlay_in_memory_is_warned_of(tmp_path: Path) -> None:
    """An overlay whose upper folder is in memory keeps nothing either."""
    (tmp_path / "memory").mkdir()
    (tmp_path / "seen").mkdir()
    with mounted(tmp_path / "memory", "tmpfs", "size=2m") as memory:
        for name in ("lower", "upper", "work"):
            os.mkdir(memory / name)
        options = f"lowerdir={memory}/lower,upperdir={memory}/upper,workdir={memory}/work"
        with mounted(tmp_path / "seen", "overlay", options) as seen, pytest.warns(RuntimeWarning, match="overlay"):
            FileSink(seen / "log", mode="fsync").close()
