"""Test how the recorder asks sinks: which get a thread and a time-out, and which are called where the caller is."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentauthz import Authorizer, PolicySet
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records import (
    DecisionRecord,
    FileSink,
    MemorySink,
    OtelSink,
    Record,
    Recorder,
    SqliteSink,
    at_least,
    only,
    tee,
)
from agentauthz.records.sinks.sink import is_bounded, is_quick
from tests.recording import decision, until
from tests.support import ANYTHING


class _Calling:
    """Call a function for each record, and say nothing of how long that takes."""

    def __init__(self, call: Callable[[Record], object]) -> None:
        self.call = call

    def append(self, line: bytes, record: Record) -> None:
        if isinstance(record, DecisionRecord):  # a stream begins with a record of its own
            self.call(record)

    def close(self) -> None: ...


class _Quick(_Calling):
    blocking = False


class _Bounded(_Calling):
    bounded = True


def test_who_is_called_where() -> None:
    """A quick sink and one that bounds itself run in the caller's thread, every other in one of its own."""
    seen: dict[str, int] = {}

    def called(name: str) -> Callable[[Record], object]:
        return lambda _: seen.update({name: threading.get_ident()})

    recorder = Recorder([_Quick(called("quick")), _Bounded(called("bounded")), _Calling(called("other"))])
    recorder.write(decision(0))
    own = threading.get_ident()
    assert {name: thread == own for name, thread in seen.items()} == {"quick": True, "bounded": True, "other": False}


def test_one_that_bounds_itself_is_called_by_many() -> None:
    """Callers don't wait for each other where the sink says that it keeps its time."""
    together = threading.Barrier(3, timeout=20)
    recorder = Recorder([_Bounded(lambda _: together.wait())])
    threads = [threading.Thread(target=recorder.write, args=(decision(n),)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not together.broken
    assert recorder.metrics().records_lost_total == 0


def test_others_get_records_one_after_the_other() -> None:
    """A sink that says nothing is never called by two at once, and gets one thread's records in order."""
    at_work, kept = threading.Lock(), []

    def keep(record: Record) -> None:
        assert at_work.acquire(blocking=False)
        kept.append(record.id)
        at_work.release()

    recorder = Recorder([_Calling(keep)])

    def work(n: int) -> None:
        for i in range(50):
            recorder.write(decision(n * 100 + i))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 200
    for n in range(4):
        assert [each for each in kept if each[3] == str(n)] == [f"D{n * 100 + i:05}" for i in range(50)]
    recorder.close()


@pytest.mark.parametrize("error", [OSError("CANARY"), KeyboardInterrupt()])
def test_what_it_raises_comes_out(error: BaseException) -> None:
    """An error in a sink's own thread is as one in the caller's: chained, and an interrupt as it is."""

    def fail(_: Record) -> None:
        raise error

    memory = MemorySink()
    with pytest.raises(SinkError if isinstance(error, Exception) else KeyboardInterrupt) as caught:
        Recorder([_Calling(fail), memory]).write(decision(0))
    assert error in (caught.value, caught.value.__cause__)
    assert len(memory.decisions) == 1


def test_a_sink_that_was_removed_has_no_thread() -> None:
    """Its thread ends once it has what it still had to keep."""
    threads: list[threading.Thread] = []
    sink = _Calling(lambda _: threads.append(threading.current_thread()))
    recorder = Recorder([MemorySink(), sink])
    recorder.write(decision(0))
    assert [thread.is_alive() for thread in threads] == [True]
    recorder.remove(sink)
    until(lambda: not threads[0].is_alive())
    recorder.write(decision(1))
    assert len(threads) == 1


def test_a_forked_child_has_threads_of_its_own() -> None:
    """In the child of a fork a record reaches the sink, though the parent's thread isn't there."""
    kept: list[str] = []
    recorder = Recorder([_Calling(lambda record: kept.append(record.id))], timeout=10)
    recorder.write(decision(0))
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        status = 1
        try:
            recorder.write(decision(1))
            status = len(kept) - 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    recorder.close()


def test_what_the_librarys_own_say(tmp_path: Path) -> None:
    """No sink of the library is asked through a thread that it doesn't need, also not inside another."""
    late, sqlite = FileSink(tmp_path / "log", mode="async"), SqliteSink(tmp_path / "records.db")
    assert is_quick(MemorySink())
    assert is_quick(OtelSink())
    assert is_quick(tee(MemorySink(), only(lambda _: True, MemorySink())))
    for sink in (late, sqlite, tee(MemorySink(), sqlite), only(lambda _: True, late), at_least(1, _Calling(print))):
        assert is_bounded(sink)
        assert not is_quick(sink)
    for sink in (tee(MemorySink(), _Calling(print)), only(lambda _: True, _Calling(print)), FileSink(tmp_path / "2")):
        assert not is_bounded(sink)
        assert not is_quick(sink)
    for opened in (late, sqlite):
        opened.close()


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), "5", None])
def test_a_time_out_that_is_none_is_refused(timeout: Any) -> None:
    """Without a time nothing would be bounded."""
    with pytest.raises(InvalidArgument, match="`sink_timeout`"):
        Authorizer(PolicySet.parse(ANYTHING), sinks=[MemorySink()], sink_timeout=timeout)
