"""Test many writers, readers beside them, sinks that misbehave and clocks that jump: rows 10 to 16, 19 and 42."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import multiprocessing
import os
import signal
import textwrap
import threading
from pathlib import Path

import pytest

from agentauthz import Authorizer, Denied, PolicySet
from agentauthz.errors import SinkError
from agentauthz.records import DecisionRecord, EventRecord, FileSink, MemorySink, Record, Recorder
from agentauthz.records.catalog import Claim
from agentauthz.records.verify import Verdict
from tests import logs
from tests.faults.logged import append, checked, record, run
from tests.golden import ROOT
from tests.support import BOT, MARIA, Clock


class _Acting:
    """Do something with each record."""

    blocking = False

    def __init__(self, act: object) -> None:
        self.act = act

    def append(self, line: bytes, record: Record) -> None:
        self.act()  # type: ignore[operator]

    def close(self) -> None: ...


class _Final(BaseException):
    """Be what no `except Exception` catches."""


def test_row_10_whatever_another_sink_raises_the_file_has_the_record(tmp_path: Path) -> None:
    """The record is in the file, whole, before any other sink is asked; the cause comes out."""
    for number, error in enumerate((ValueError("x"), MemoryError(), _Final(), KeyboardInterrupt())):

        def fail(error: BaseException = error) -> None:
            raise error

        recorder = Recorder([_Acting(fail), FileSink(tmp_path / str(number))])
        with pytest.raises(SinkError if isinstance(error, Exception) else type(error)) as caught:
            recorder.write(record("kept"))
        assert error in (caught.value, caught.value.__cause__)
        assert logs.ids(tmp_path / str(number)) == ["kept"]


def test_row_11_a_sink_that_hangs_holds_up_no_other_writer_of_the_file(tmp_path: Path) -> None:
    """While one call waits for a sink that hangs, its record is in the file, and others' records too."""
    hangs, entered = threading.Event(), threading.Event()

    def hang() -> None:
        if not entered.is_set():
            entered.set()
            hangs.wait(30)

    file = FileSink(tmp_path)
    waiting = threading.Thread(target=Recorder([file, _Acting(hang)]).write, args=(record("hangs"),))
    waiting.start()
    assert entered.wait(30)
    Recorder([file]).write(record("goes on"))
    assert logs.ids(tmp_path) == ["hangs", "goes on"]
    hangs.set()
    waiting.join()


def test_row_12_a_slow_sink_delays_no_record_in_the_file(tmp_path: Path) -> None:
    """At the time that a slow sink is given a record, the file has it."""
    seen: list[list[str]] = []
    recorder = Recorder([_Acting(lambda: seen.append(logs.ids(tmp_path))), FileSink(tmp_path)])
    recorder.write(record("1"))
    assert seen[-1] == ["1"]


def test_row_13_a_sink_that_asks_for_decisions_is_refused(tmp_path: Path) -> None:
    """A sink that calls back is denied, once, and the file holds the one call and its denial's cause nowhere twice."""
    denied: list[str] = []

    def call_back() -> None:
        with authorizer.session(MARIA, BOT) as session:
            decision = session.decide("t.pay")
            denied.append(decision.reasons[0].code)

    authorizer = Authorizer(
        PolicySet.parse("permit anything on * when true"), sinks=[FileSink(tmp_path), _Acting(call_back)]
    )
    assert authorizer.session(MARIA, BOT).decide("t.pay").allowed
    assert set(denied) == {"inside_a_sink"}
    assert len(logs.ids(tmp_path)) == 1


def test_row_14_a_fork_with_threads_at_work_gives_two_streams(tmp_path: Path) -> None:
    """A child that is forked while threads append waits for no lock, and no number is used twice."""
    code = """
        import os, signal, sys, threading, warnings
        from agentauthz.records import FileSink
        from tests.faults.logged import append
        warnings.simplefilter("ignore", DeprecationWarning)  # the fork is what is tested
        sink = FileSink(sys.argv[1])
        stop = threading.Event()
        def work(name):
            number = 0
            while not stop.is_set():
                append(sink, f"{name}-{number}")
                number += 1
        threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(4)]
        for thread in threads: thread.start()
        for child in range(10):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                append(sink, f"child-{child}")
                sink.close()
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        stop.set()
        for thread in threads: thread.join()
        append(sink, "parent")
        sink.close()
    """
    run(code, tmp_path)
    ids = logs.ids(tmp_path)
    assert {f"child-{child}" for child in range(10)} | {"parent"} <= set(ids)
    report = checked(tmp_path)
    assert (len(report.streams), report.damages) == (11, ())
    numbers = [(each.stream, each.seq) for each in logs.records(tmp_path)]
    assert len(numbers) == len(set(numbers))


def _work(folder: str, name: str) -> None:
    sink = FileSink(folder)
    append(sink, name)
    sink.close()


def test_row_15_each_worker_of_a_pool_has_a_stream_that_the_catalog_lists(tmp_path: Path) -> None:
    """Workers that are spawned write one stream each, and the catalog has all of them, opened and closed."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(_work, [(str(tmp_path), f"w{number}") for number in range(4)], chunksize=2)
    report = checked(tmp_path)
    assert (len(report.streams), report.damages) == (4, ())
    catalog = [json.loads(line) for line in (tmp_path / "catalog.ndjson").read_bytes().splitlines()]
    for what in ("opened", "closed"):
        assert {entry["stream"] for entry in catalog if entry["what"] == what} == {each.id for each in report.streams}


def test_row_15_a_log_made_before_workers_are_forked_serves_each_of_them(tmp_path: Path) -> None:
    """With an application loaded before the fork, as gunicorn's preload does, each worker has its own stream."""
    code = """
        import os, sys
        from agentauthz.records import FileSink
        from tests.faults.logged import append
        sink = FileSink(sys.argv[1])  # in the master, which decides nothing
        for worker in range(3):
            pid = os.fork()
            if pid == 0:
                append(sink, f"worker-{worker}")
                sink.close()
                os._exit(0)
            os.waitpid(pid, 0)
    """
    run(code, tmp_path)
    assert sorted(logs.ids(tmp_path)) == ["worker-0", "worker-1", "worker-2"]
    report = checked(tmp_path)
    assert (len(report.streams), report.damages) == (4, ())


@pytest.mark.parametrize(
    ("method", "pool"), [("fork", "Pool"), ("spawn", "ProcessPoolExecutor"), ("forkserver", "Pool")]
)
def test_row_15_an_authorizer_of_a_module_serves_every_pool(tmp_path: Path, method: str, pool: str) -> None:
    """An authorizer that a module holds, made before the workers, records in each worker's own stream.

    It is the same for whatever forks such a module: gunicorn's preload, Celery's pool. Workers of `multiprocessing` end
    without running what was registered for the end, so whoever comes next ends their streams.
    """
    (tmp_path / "service.py").write_text(textwrap.dedent("""
        import os, sys
        from agentauthz import Authorizer, PolicySet, Principal
        from agentauthz.records import FileSink
        authorizer = Authorizer(PolicySet.parse("permit anything on * when true"), sinks=[FileSink(os.environ["LOG"])])
        def decide(number):
            authorizer.session(Principal.user("maria")).authorize(f"t.call{number}")
            return os.getpid()
    """), encoding="utf-8")  # fmt: skip
    code = """
        import multiprocessing, sys, warnings
        from concurrent.futures import ProcessPoolExecutor
        warnings.simplefilter("error")
        sys.path.insert(0, sys.argv[1])
        import service
        if __name__ == "__main__":
            service.decide(99)
            context = multiprocessing.get_context(sys.argv[2])
            if sys.argv[3] == "Pool":
                with context.Pool(2) as pool:
                    done = pool.map(service.decide, range(12), chunksize=1)
                    pool.close()
                    pool.join()
            else:
                with ProcessPoolExecutor(2, mp_context=context) as pool:
                    done = list(pool.map(service.decide, range(12)))
            print(len(set(done)))
    """
    log = tmp_path / "log"
    workers = int(run(code, tmp_path, method, pool, env={"LOG": str(log), "PYTHONPATH": f"{ROOT}:{tmp_path}"}).stdout)
    FileSink(log).close()
    report = checked(log)
    assert report.damages == ()
    wrote = {each.stream for each in logs.records(log) if isinstance(each, DecisionRecord)}
    assert len(wrote) == 1 + workers
    assert len([each for each in logs.records(log) if isinstance(each, DecisionRecord)]) == 13
    catalog = [json.loads(line) for line in (log / "catalog.ndjson").read_bytes().splitlines()]
    assert {entry["stream"] for entry in catalog if entry["what"] == "opened"} == {each.id for each in report.streams}
    assert {entry["stream"] for entry in catalog if entry["what"] != "opened"} == {each.id for each in report.streams}


def test_row_16_a_second_writer_of_a_stream_is_refused(tmp_path: Path) -> None:
    """A stream has one writer while it lives; whoever was killed holds nothing, and is taken over from."""
    sink = FileSink(tmp_path)
    folder = sink.path.parent
    with pytest.raises(BlockingIOError):
        Claim(folder)
    owner = json.loads((folder / "lock").read_bytes())
    assert owner["pid"] == os.getpid()
    FileSink(tmp_path).close()
    assert [each for each in logs.records(tmp_path) if getattr(each, "type", "") == "stream.recovered"] == []
    code = """
        import os, signal, sys
        from agentauthz.records import FileSink
        FileSink(sys.argv[1])
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(code, tmp_path, check=False).returncode == -signal.SIGKILL
    for _ in range(2):
        FileSink(tmp_path).close()
    recovered = [each for each in logs.records(tmp_path) if getattr(each, "type", "") == "stream.recovered"]
    assert len(recovered) == 1  # once, by the first that came
    sink.close()
    assert checked(tmp_path).damages == ()


def test_row_16_a_lock_that_names_a_living_process_is_stale_if_nobody_holds_it(tmp_path: Path) -> None:
    """It is the lock that counts, not the number in it: another process may have the dead writer's by now."""
    code = """
        import os, signal, sys
        from agentauthz.records import FileSink
        from tests.faults.logged import append
        append(FileSink(sys.argv[1]), "before")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    run(code, tmp_path, check=False)
    [lock] = tmp_path.glob("*/lock")
    lock.write_text(json.dumps({"host": "here", "pid": os.getpid(), "start": 1}), encoding="utf-8")
    FileSink(tmp_path).close()
    assert [each for each in logs.records(tmp_path) if getattr(each, "type", "") == "stream.recovered"] != []
    assert checked(tmp_path).damages == ()


def test_row_16_of_many_that_come_at_once_one_takes_over(tmp_path: Path) -> None:
    """Writers that start at the same moment end each dead writer's stream once, between them."""
    code = """
        import os, signal, sys
        from agentauthz.records import FileSink
        from tests.faults.logged import append
        for _ in range(6):
            if (child := os.fork()) == 0:
                sink = FileSink(sys.argv[1])
                append(sink, "died")
                os.write(os.open(sink.path, os.O_WRONLY | os.O_APPEND), b'{"torn')
                os.kill(os.getpid(), signal.SIGKILL)
            os.waitpid(child, 0)
        gate, opened = os.pipe()
        children = []
        for _ in range(6):
            if (child := os.fork()) == 0:
                os.close(opened)
                os.read(gate, 1)  # until the parent lets go
                for _ in range(5):
                    FileSink(sys.argv[1]).close()
                os._exit(0)
            children.append(child)
        os.close(opened)
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    """
    run(code, tmp_path)
    recovered = [each for each in logs.records(tmp_path) if getattr(each, "type", "") == "stream.recovered"]
    ended = [each.about["stream"] for each in recovered if isinstance(each, EventRecord)]
    assert len(ended) == len(set(ended)) == 6
    report = checked(tmp_path)
    assert (len(report.streams), report.damages) == (36, ())


def test_row_19_a_second_that_comes_twice(tmp_path: Path) -> None:
    """A leap second is a second that the clock shows twice, NTP steps back or stands: ids stay unique and ascend."""
    steps = [1.0] * 5 + [0.0] * 200 + [-1.0, 0.25, 0.25, 0.25, 0.25] * 20 + [-0.001] * 100 + [1e-6] * 100
    clock, memory = Clock(dt.datetime(2016, 12, 31, 23, 59, 55, tzinfo=dt.UTC)), MemorySink()
    authorizer = Authorizer(
        PolicySet.parse("permit anything on * when true"), sinks=[FileSink(tmp_path), memory], clock=clock
    )
    session = authorizer.session(MARIA, BOT)
    for step in steps:
        clock.forward(seconds=step)
        assert session.decide("t.pay").allowed
    authorizer.close()
    records = memory.decisions
    assert [each.seq for each in records] == sorted(each.seq for each in records)
    assert all(first.id < second.id for first, second in itertools.pairwise(records))
    assert all(first.mono_ns < second.mono_ns for first, second in itertools.pairwise(records))
    back = [second for first, second in itertools.pairwise(records) if second.ts < first.ts]
    assert len(back) == 120  # each step back is there to be seen
    assert checked(tmp_path).damages == ()


def test_row_19_a_clock_that_is_set_back_changes_no_order(tmp_path: Path) -> None:
    """Records are in order by number, ids ascend, and the monotonic clock shows that the other one jumped."""
    clock, memory = Clock(), MemorySink()
    authorizer = Authorizer(
        PolicySet.parse("permit anything on * when true"), sinks=[FileSink(tmp_path), memory], clock=clock
    )
    session = authorizer.session(MARIA, BOT)
    for hours in (0, -1, 2, -0.5):
        clock.forward(hours=hours)
        assert session.decide("t.pay").allowed
    first, second, third, fourth = memory.decisions
    assert second.ts < first.ts < fourth.ts < third.ts
    assert first.seq < second.seq < third.seq < fourth.seq
    assert first.mono_ns < second.mono_ns < third.mono_ns < fourth.mono_ns
    assert first.id < second.id < third.id < fourth.id
    authorizer.close()
    assert checked(tmp_path).damages == ()


def test_row_42_a_reader_beside_a_writer_sees_no_damage(tmp_path: Path) -> None:
    """Whoever verifies while records are appended sees whole lines, and raises no false alarm."""
    sink = FileSink(tmp_path, segment_size=10_000)
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            append(sink, f"{number:06}", "x" * 500)
            number += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(25):
            report = checked(tmp_path)
            assert (report.verdict, report.damages) == (Verdict.UNWITNESSED, ())
            assert report.streams[0].live
    finally:
        stop.set()
        thread.join()
    sink.close()


def test_a_closed_log_denies(tmp_path: Path) -> None:
    """What can't be recorded must not happen, and after the close nothing can."""
    file = FileSink(tmp_path)
    authorizer = Authorizer(PolicySet.parse("permit anything on * when true"), sinks=[file])
    file.close()
    with pytest.raises(Denied, match="not_recorded"):
        authorizer.session(MARIA, BOT).authorize("t.pay")


def test_many_callers_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fsync mode callers that come while a sync runs wait for one more together, and each record is confirmed."""
    from agentauthz.records import segment

    syncs = 0
    first, gate = threading.Event(), threading.Event()

    def slow(handle: int) -> None:
        nonlocal syncs
        syncs += 1
        first.set()
        gate.wait(30)
        os.fsync(handle)

    sink = FileSink(tmp_path, mode="fsync")
    monkeypatch.setattr(segment, "_sync", slow)
    threads = [threading.Thread(target=append, args=(sink, f"{number:02}")) for number in range(33)]
    threads[0].start()
    assert first.wait(30)
    for thread in threads[1:]:
        thread.start()
    while len(logs.ids(tmp_path)) < 33:  # all are written, and wait
        pass
    gate.set()
    for thread in threads:
        thread.join()
    assert syncs == 2
    sink.close()
    assert sorted(logs.ids(tmp_path)) == [f"{number:02}" for number in range(33)]


def test_row_14_a_child_that_lives_on_does_not_hold_its_parent_s_stream(tmp_path: Path) -> None:
    """When a writer is killed its stream can be ended, though a child that it had forked is alive."""
    code = """
        import os, signal, sys, time
        from agentauthz.records import FileSink
        sink = FileSink(sys.argv[1])
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(1); os.close(2)  # whoever reads this program's output doesn't wait for the child
            os.write(writing, b"x")
            time.sleep(20)
            os._exit(0)
        os.read(reading, 1)
        print(child, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    child = int(run(code, tmp_path, check=False).stdout)
    try:
        FileSink(tmp_path).close()
    finally:
        os.kill(child, signal.SIGKILL)
    recovered = [each for each in logs.records(tmp_path) if getattr(each, "type", "") == "stream.recovered"]
    assert len(recovered) == 1
