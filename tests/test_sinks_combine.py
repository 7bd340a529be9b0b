"""Test what makes one sink of several, or of a part of what another gets."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records import Guarantee, MemorySink, Record, Recorder, at_least, only, tee
from tests.recording import DENY, REVIEW, append, decision, effect, event, until


class _Calling:
    """Call a function for each record; `close` too."""

    def __init__(self, call: Callable[[Record], object], guarantees: object = None, *, blocking: bool = False) -> None:
        self._call = call
        self.guarantees = guarantees
        self.blocking = blocking
        self.closed = 0

    def append(self, line: bytes, record: Record) -> None:
        assert line == record.line()
        self._call(record)

    def close(self) -> None:
        self.closed += 1


def _failing(error: BaseException | None = None) -> _Calling:
    def fail(_: Record) -> None:
        raise OSError("CANARY") if error is None else error

    return _Calling(fail)


# ---- tee


def test_tee_gives_to_all() -> None:
    """Each sink gets each record, also after one that fails; the failure comes out, and so does an interrupt."""
    first, last = MemorySink(), MemorySink()
    append(tee(first, last), decision(0))
    with pytest.raises(SinkError, match="1 of 3 sinks failed: `_Calling`") as caught:
        append(tee(first, _failing(), last), decision(1))
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(KeyboardInterrupt):
        append(tee(first, _failing(KeyboardInterrupt()), last), decision(2))
    assert (
        [record.id for record in first.records]
        == [record.id for record in last.records]
        == ["D00000", "D00001", "D00002"]
    )


def test_tee_blocks_if_one_does() -> None:
    """It is for a thread if one of its sinks is."""
    assert tee(MemorySink(), _Calling(print, blocking=True)).blocking
    assert not tee(MemorySink()).blocking


# ---- at_least


def test_enough_is_enough() -> None:
    """A record is kept once so many sinks have it: others may fail or hang, and hold nobody up."""
    hang, memory = threading.Event(), MemorySink()
    sink = at_least(1, _failing(), _Calling(lambda _: hang.wait(30)), memory, timeout=20)
    began = time.monotonic()
    append(sink, *map(decision, range(5)))
    assert time.monotonic() - began < 15
    assert [record.id for record in memory.records] == [f"D{number:05}" for number in range(5)]
    hang.set()
    sink.close()


def test_too_few_is_a_failure() -> None:
    """Where fewer keep it, the append fails, as soon as that is certain; the error is chained and quotes nothing."""
    memory = MemorySink()

    def fail(_: Record) -> None:
        until(lambda: len(memory.records) == 1)
        time.sleep(0.05)  # so that it has been counted
        raise OSError("CANARY")

    sink = at_least(2, memory, _Calling(fail), _Calling(fail), timeout=20)
    began = time.monotonic()
    with pytest.raises(SinkError, match="1 of 3 sinks did it, not 2: 2 failed, 0 were late") as caught:
        append(sink, decision(0))
    assert time.monotonic() - began < 15
    assert isinstance(caught.value.__cause__, OSError)
    assert "CANARY" not in str(caught.value)
    until(lambda: sink.lost == 2)
    sink.close()


def test_a_hanging_sink_is_a_failure_in_time() -> None:
    """A sink that doesn't answer counts as failed; once it answers it gets what it has missed, in order."""
    hang, kept = threading.Event(), MemorySink()

    def slow(record: Record) -> None:
        hang.wait(30)
        kept.append(record.line(), record)

    sink = at_least(2, MemorySink(), _Calling(slow), timeout=0.1)
    for number in range(3):
        with pytest.raises(SinkError, match="1 of 2 sinks did it, not 2: 0 failed, 1 were late"):
            append(sink, decision(number))
    hang.set()
    until(lambda: len(kept.records) == 3)
    assert [record.id for record in kept.records] == ["D00000", "D00001", "D00002"]
    sink.close()


def test_a_sink_that_hangs_for_ever_takes_no_memory_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many records wait for one sink, and no more: those after them it has failed to keep at once."""
    monkeypatch.setattr("agentauthz.records.sinks.lanes.ROOM", 3)
    hang, memory = threading.Event(), MemorySink()
    began = threading.Event()

    def wait(_: Record) -> None:
        began.set()
        hang.wait(30)

    sink = at_least(1, _Calling(wait), memory)
    append(sink, decision(0))
    began.wait(20)
    append(sink, *map(decision, range(1, 11)))
    assert len(memory.records) == 11
    assert sink.lost == 7
    hang.set()
    sink.close()


def test_a_late_sink_can_not_ask_for_decisions() -> None:
    """What a sink asks of its authorizer is seen as coming from inside a sink, also when the write has long ended."""
    hang = threading.Event()
    seen: list[list[bool]] = []
    recorders: list[Recorder] = []

    def ask(_: Record) -> None:
        hang.wait(30)
        seen.append([recorder.writing() for recorder in recorders])

    recorders += [Recorder([at_least(1, MemorySink(), _Calling(ask))]), Recorder([MemorySink()])]
    recorders[0].write(decision(0))
    assert not recorders[0].writing()
    hang.set()
    until(lambda: bool(seen))
    assert seen[0] == [True, False]


def test_a_closed_sink_takes_nothing() -> None:
    """Each sink is closed once, after what it still has to keep; appending then fails."""
    sinks = [_Calling(lambda _: time.sleep(0.01)) for _ in range(2)]
    sink = at_least(1, *sinks, timeout=20)
    append(sink, *map(decision, range(5)))
    sink.close()
    sink.close()
    assert [each.closed for each in sinks] == [1, 1]
    with pytest.raises(SinkError, match="closed"):
        append(sink, decision(6))


def test_a_sink_that_hangs_holds_up_no_closing() -> None:
    """Closing ends in time, and says that a sink didn't."""
    hang = threading.Event()
    sink = at_least(1, MemorySink(), _Calling(lambda _: hang.wait(30)), timeout=0.1)
    append(sink, decision(0))
    with pytest.raises(SinkError, match="1 of 2 sinks did it, not 2: 0 failed, 1 were late"):
        sink.close()
    hang.set()


def test_a_forked_child_has_its_own_threads() -> None:
    """In the child of a fork an append reaches the sinks, though the parent's threads aren't there."""
    memory = MemorySink()
    sink = at_least(1, memory, timeout=10)
    append(sink, decision(0))
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        status = 1
        try:
            append(sink, decision(1))
            status = len(memory.records) - 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sink.close()


# ---- only


def test_denials_are_never_left_out() -> None:
    """What the filter doesn't want is left out, but never a denial, a review, or what tells of a loss."""
    memory = MemorySink()
    sink = only(lambda record: record.id == "E00001", memory)
    append(
        sink,
        decision(0),
        effect(1),
        decision(2, DENY),
        decision(3, REVIEW),
        event(4),
        effect(5),
        event(6, "stream.open"),
    )
    assert [record.id for record in memory.records] == ["E00001", "D00002", "D00003", "V00004"]


def test_a_filter_with_a_fault_leaves_nothing_out() -> None:
    """Where the filter fails, the record is passed."""
    memory = MemorySink()
    append(only(lambda record: record.nonsense, memory), decision(0))  # type: ignore[union-attr]
    assert len(memory.records) == 1


def test_only_closes_its_sink() -> None:
    """Closing goes through, and so does the wish for a thread."""
    inner = _Calling(print, blocking=True)
    sink = only(lambda _: False, inner)
    assert sink.blocking
    sink.close()
    assert inner.closed == 1


# ---- all of them


def test_what_several_promise_together() -> None:
    """All of them: the best of them. Any n: the best of the weakest n. A filter keeps not everything."""
    power, crash, nothing = (
        _Calling(print, Guarantee("power_loss", ordered=True, deduplicates=True)),
        _Calling(print, Guarantee("process_crash", ordered=True)),
        _Calling(print),
    )

    assert tee(nothing, power, crash).guarantees == Guarantee("power_loss", ordered=False)
    assert tee(power, crash).guarantees.ordered
    assert at_least(1, power, crash).guarantees.survives == "process_crash"
    assert at_least(2, power, crash, nothing).guarantees.survives == "process_crash"
    assert at_least(1, power, crash, nothing).guarantees.survives == "best_effort"
    assert only(lambda _: True, power).guarantees == Guarantee("best_effort", ordered=True, deduplicates=True)


def test_nonsense_is_refused() -> None:
    """No sinks, what isn't one, too many of them and no time are errors that name the argument."""
    memory = MemorySink()
    for make in (tee, lambda *sinks: at_least(1, *sinks)):
        with pytest.raises(InvalidArgument, match=r"`(sinks|n)`"):
            make()
        with pytest.raises(InvalidArgument, match="a `str` has no `append`"):
            make("records/")  # type: ignore[arg-type]
    for n in (0, 2, True, "1"):
        with pytest.raises(InvalidArgument, match="`n` must be a number of sinks, 1 to 1"):
            at_least(n, memory)  # type: ignore[arg-type]
    for timeout in (0, -1, float("inf"), float("nan")):
        with pytest.raises(InvalidArgument, match="`timeout`"):
            at_least(1, memory, timeout=timeout)
    with pytest.raises(InvalidArgument, match="`when` must be a function"):
        only("deny", memory)  # type: ignore[arg-type]
