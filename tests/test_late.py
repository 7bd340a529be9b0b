"""Test the file log that writes later: its queue, what a full one does, and that nothing is lost without a word."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentauthz import Authorizer, PolicySet
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.keys.signing import SigningKey
from agentauthz.records import EventRecord, FileSink, Guarantee, MemorySink, Metrics, PolicyRecord, Record
from agentauthz.records.sinks.waiting import OVERFLOWS
from agentauthz.records.verify import Verdict, verify
from tests import logs
from tests.faults.logged import checked, record
from tests.recording import ALLOW, DENY, REVIEW, append, decision, effect, event, until
from tests.support import ANYTHING, BOT, MARIA

ROOM: Final = 8_000  # bytes: some ten records


def _late(folder: Path, **options: Any) -> FileSink:
    return FileSink(folder, mode="async", **{"timeout": 0.2, **options})


@contextmanager
def _hanging(sink: FileSink) -> Iterator[None]:
    """Keep the thread of a sink from writing, with one record under way."""
    with sink.stream.lock:
        append(sink, record("under-way"))
        queue = sink._late.queue._queue  # type: ignore[union-attr]
        until(lambda: queue.flying == 1)
        yield


def _until_it_raises(sink: FileSink, kept: list[str], records: Iterable[Record]) -> None:
    for each in records:
        append(sink, each)
        kept.append(each.id)


def _gaps(folder: Path) -> list[EventRecord]:
    return [each for each in logs.records(folder) if isinstance(each, EventRecord) and each.type == "stream.gap"]


def test_records_are_written_later_in_order(tmp_path: Path) -> None:
    """What was appended is in the file after a flush: numbered, chained, in order, as it was when it was appended."""
    sink = _late(tmp_path)
    made = [record(f"{number:03}") for number in range(600)]
    append(sink, *made)
    sink.flush(timeout=30)
    assert logs.ids(tmp_path) == [each.id for each in made]
    sink.close()
    assert [each.seq for each in logs.records(tmp_path)] == list(range(602))
    assert (checked(tmp_path).verdict, checked(tmp_path).damages) == (Verdict.UNWITNESSED, ())
    assert sink.guarantees == Guarantee("best_effort", ordered=True)


def test_no_thread_runs_before_the_first_record(tmp_path: Path) -> None:
    """A program that forks its workers first has no thread by then."""
    sink = _late(tmp_path)
    assert "agentauthz-FileSink" not in {thread.name for thread in threading.enumerate()}
    append(sink, record("1"))
    assert "agentauthz-FileSink" in {thread.name for thread in threading.enumerate()}
    sink.close()
    assert "agentauthz-FileSink" not in {thread.name for thread in threading.enumerate()}


def test_segments_and_policies_are_as_in_other_modes(tmp_path: Path) -> None:
    """Each segment begins and ends with its own records, and has the text of the policies before the decisions."""
    with Authorizer(PolicySet.parse(ANYTHING), sinks=[sink := _late(tmp_path, segment_size=6_000)]) as authorizer:
        session = authorizer.session(MARIA, BOT)
        for _ in range(30):
            assert session.decide("t.pay").allowed
            sink.flush()
    paths = logs.segments(tmp_path)
    assert len(paths) > 2
    for path in paths:
        types = [json.loads(line)["type"] for line in path.read_bytes().splitlines()]
        assert (types[0], types[-1]) == ("stream.open", "stream.sealed")
        if "decision" in types:
            assert types.index("policy") < types.index("decision")
    assert checked(tmp_path).damages == ()


def test_a_full_queue_blocks_and_then_refuses(tmp_path: Path) -> None:
    """With "block" an append waits for room; where there is none in time it raises, and nothing else is lost."""
    sink = _late(tmp_path, room=ROOM)
    kept: list[str] = []
    with _hanging(sink):
        began = time.monotonic()
        with pytest.raises(SinkError, match="`FileSink` has no room for a record"):
            _until_it_raises(sink, kept, (record(f"{number:03}") for number in range(100)))
        assert time.monotonic() - began >= 0.2
        assert 5 < len(kept) < 20
        waiting = threading.Thread(target=append, args=(sink, record("waits")))
        waiting.start()
    waiting.join()
    sink.close()
    assert logs.ids(tmp_path) == ["under-way", *kept, "waits"]
    assert _gaps(tmp_path) == []
    assert sink.metrics().records_lost_total == 0


@pytest.mark.parametrize("denials", [False, True])
def test_a_full_queue_drops_the_oldest(tmp_path: Path, denials: bool) -> None:
    """With "drop_oldest" the newest stay, whatever their outcome; the gap before them counts the others."""
    sink = _late(tmp_path, room=ROOM, overflow="drop_oldest")
    made = [decision(number, DENY if denials and number < 15 else ALLOW) for number in range(40)]
    with _hanging(sink):
        append(sink, *made)
    sink.close()
    ids = logs.ids(tmp_path)
    assert ids == ["under-way", *[each.id for each in made][41 - len(ids) :]]
    [gap] = _gaps(tmp_path)
    lost = 41 - len(ids)
    assert lost > 20
    assert dict(gap.about) == {
        "count": lost, "reason": "lost_on_the_way", "stream": made[0].stream, "first_seq": 0, "last_seq": lost - 1,
    }  # fmt: skip
    assert logs.records(tmp_path)[gap.seq + 1].id == ids[1]
    assert sink.metrics().records_lost_total == lost


def test_a_full_queue_drops_allows_first(tmp_path: Path) -> None:
    """With "drop_allow_first" allows and effects go, oldest first; denials, reviews and alarms stay."""
    sink = _late(tmp_path, room=ROOM, overflow="drop_allow_first")
    first: list[Record] = [decision(0, DENY), decision(1, REVIEW), event(2), decision(3), effect(4), decision(5, DENY)]
    later = [decision(number) for number in range(6, 30)]
    with _hanging(sink):
        append(sink, *first, *later)
    sink.close()
    ids = [each.id for each in logs.records(tmp_path)]
    assert [each for each in ids if each in {"D00000", "D00001", "V00002", "D00005"}] == [
        "D00000", "D00001", "V00002", "D00005",
    ]  # fmt: skip
    assert {"D00003", "E00004"}.isdisjoint(ids)
    assert ids[-2] == "D00029"
    assert sum(gap.about["count"] for gap in _gaps(tmp_path) if gap.id != "V00002") == 30 - len(  # type: ignore[misc]
        {each.id for each in (*first, *later)} & set(ids)
    )


def test_denials_are_refused_where_only_denials_wait(tmp_path: Path) -> None:
    """A denial that finds no room raises, and an allow is given up for those that wait; neither pushes a denial out."""
    sink = _late(tmp_path, room=ROOM, overflow="drop_allow_first")
    kept: list[str] = []
    with _hanging(sink):
        with pytest.raises(SinkError, match="no room"):
            _until_it_raises(sink, kept, (decision(number, DENY) for number in range(100)))
        append(sink, decision(100))
    sink.close()
    assert logs.ids(tmp_path) == ["under-way", *kept]
    [gap] = _gaps(tmp_path)
    assert (gap.about["count"], gap.about["first_seq"]) == (1, 100)


def test_a_gap_without_a_stream_names_ids(tmp_path: Path) -> None:
    """Where the file alone has the records, what was lost had no number: the gap names the first and the last by id."""
    sink = _late(tmp_path, room=ROOM, overflow="drop_oldest")
    with _hanging(sink):
        append(sink, *(record(f"{number:02}") for number in range(30)))
    sink.close()
    [gap] = _gaps(tmp_path)
    assert (gap.about["first"], gap.about["last"]) == ("00", f"{gap.about['count'] - 1:02}")  # type: ignore[operator]
    assert [each.seq for each in logs.records(tmp_path)] == list(range(len(logs.lines(tmp_path))))


def test_verify_tells_of_the_loss_and_of_no_change(tmp_path: Path) -> None:
    """A log with such a gap is whole: what was lost is counted, and nothing looks changed."""
    key, notes = SigningKey.generate("Ed25519"), list[str]()
    sink = _late(tmp_path, room=ROOM, overflow="drop_oldest", key=key, witness=notes.append)
    with _hanging(sink):
        append(sink, *(record(f"{number:02}") for number in range(30)))
    sink.close()
    from agentauthz.records.checkpoints import vkey

    report = verify(tmp_path, keys=[vkey(key, "local")], checkpoint="\n".join(notes))
    [stream] = report.streams
    assert (report.verdict, report.damages) == (Verdict.RECOVERED, ())
    assert stream.lost == sink.metrics().records_lost_total > 10
    assert stream.size == stream.witnessed == len(logs.lines(tmp_path))


_KINDS: Final = {"allow": ALLOW, "deny": DENY, "review": REVIEW}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(_KINDS)), st.integers(0, 1_500)), min_size=5, max_size=60))
def test_no_denial_is_lost_while_an_allow_is_kept(
    tmp_path_factory: pytest.TempPathFactory, what: list[tuple[str, int]]
) -> None:
    """However allows and denials of any size come, a denial is kept, or refused aloud where no allow waits."""
    folder = tmp_path_factory.mktemp("log")
    sink = _late(folder, room=ROOM, overflow="drop_allow_first")
    queue = sink._late.queue._queue  # type: ignore[union-attr]
    promised: list[str] = []
    allows = 0
    with _hanging(sink):
        for number, (kind, size) in enumerate(what):
            made = decision(number, _KINDS[kind], note="x" * size)
            try:
                append(sink, made)
            except SinkError:
                assert kind != "allow"
                assert all(queue.is_precious(each) for each in list(queue.entries)[queue.flying :])
                continue
            allows += kind == "allow"
            promised += [made.id] if kind != "allow" else []
            assert queue.taken <= max(ROOM, len(made.line()) + len(queue.entries[0].line))
    sink.close()
    kept = logs.ids(folder)
    assert [each for each in kept if each in promised] == promised
    assert len(kept) - 1 - len(promised) == allows - sink.metrics().records_lost_total
    assert sum(gap.about["count"] for gap in _gaps(folder)) == sink.metrics().records_lost_total  # type: ignore[misc]


@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_threads_lose_nothing_uncounted(tmp_path: Path, overflow: str) -> None:
    """Of eight threads at once each record is in the file, once and in its thread's order, or counted as lost."""
    sink = _late(tmp_path, room=20_000, overflow=overflow, timeout=60)

    def work(name: int) -> None:
        for number in range(300):
            append(sink, record(f"{name}-{number:03}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close(60)
    ids = logs.ids(tmp_path)
    lost = sink.metrics().records_lost_total
    assert len(ids) == len(set(ids)) == 2_400 - lost
    assert overflow != "block" or lost == 0
    assert sum(gap.about["count"] for gap in _gaps(tmp_path)) == lost  # type: ignore[misc]
    for name in range(8):
        own = [each for each in ids if each.startswith(f"{name}-")]
        assert own == sorted(own)
    assert checked(tmp_path).damages == ()


def test_other_sinks_have_numbers_of_their_own(tmp_path: Path) -> None:
    """Beside other sinks the file numbers for itself, and they have a whole stream too; ids say what goes together."""
    memory = MemorySink()
    with Authorizer(PolicySet.parse(ANYTHING), sinks=[_late(tmp_path), memory]) as authorizer:
        session = authorizer.session(MARIA, BOT)
        for _ in range(3):
            session.decide("t.pay")
    assert [each.seq for each in memory.records] == list(range(len(memory.records)))
    assert logs.ids(tmp_path) == [each.id for each in memory.decisions]
    assert {each.stream for each in memory.records}.isdisjoint({each.stream for each in logs.records(tmp_path)})
    assert any(isinstance(each, PolicyRecord) for each in memory.records)
    assert checked(tmp_path).damages == ()


def test_after_closing_nothing_is_taken(tmp_path: Path) -> None:
    """A closed sink refuses, so that every call is denied; closing again does nothing."""
    sink = _late(tmp_path)
    authorizer = Authorizer(PolicySet.parse(ANYTHING), sinks=[sink])
    session = authorizer.session(MARIA, BOT)
    assert session.decide("t.pay").allowed
    sink.close()
    sink.close()
    assert session.decide("t.pay").reasons[0].code == "not_recorded"
    with pytest.raises(SinkError, match="closed"):
        append(sink, record("late"))
    assert len(logs.ids(tmp_path)) == 1


def test_closing_ends_in_time_and_says_what_is_left(tmp_path: Path) -> None:
    """Where the disk hangs, closing ends in time and counts what is lost; the file is left as by a kill."""
    sink = _late(tmp_path)
    with _hanging(sink):
        append(sink, *(record(str(number)) for number in range(5)))
        began = time.monotonic()
        with pytest.raises(SinkError, match="`FileSink` was closed before 6 records had arrived"):
            sink.close(0.1)
        assert time.monotonic() - began < 10
        assert sink.metrics().records_lost_total == 6
        with pytest.raises(SinkError, match="no more records"):
            append(sink, record("late"))
    until(lambda: sink._late is not None and sink._late.ended)
    sink.close()
    assert checked(tmp_path).damages == ()


def test_flush_ends_in_time(tmp_path: Path) -> None:
    """A flush that can't be done raises when its time is over."""
    sink = _late(tmp_path)
    with _hanging(sink):
        began = time.monotonic()
        with pytest.raises(SinkError, match="didn't keep a record in time"):
            sink.flush(timeout=0.1)
        assert time.monotonic() - began < 10
    sink.close()


@pytest.mark.parametrize("mode", ["inline", "fsync", "async"])
def test_metrics_tell_how_far_a_log_is(tmp_path: Path, mode: Any) -> None:
    """What is written, what is on the device and what a witness has seen are told apart."""
    key, notes = SigningKey.generate("Ed25519"), list[str]()
    sink = FileSink(tmp_path, mode=mode, segment_size=3_000, key=key, witness=notes.append, checkpoint_idle=60)
    append(sink, *(record(str(number)) for number in range(10)))
    sink.flush()
    there = len(logs.lines(tmp_path))
    assert sink.metrics() == Metrics(0, 0, 0.0, there - 1, there - 1 if mode == "fsync" else None, None)
    keeper = sink.stream.keeper
    assert keeper is not None
    keeper.sign()
    sink.flush(durable=True)
    assert sink.metrics() == Metrics(0, 0, 0.0, there - 1, there - 1, there - 1)
    sink.close()


def test_metrics_tell_what_waits(tmp_path: Path) -> None:
    """Depth and lag grow while the disk hangs, also as seen from the authorizer, and are nothing afterwards."""
    sink = _late(tmp_path)
    authorizer = Authorizer(PolicySet.parse(ANYTHING), sinks=[sink])
    with _hanging(sink):
        authorizer.session(MARIA, BOT).decide("t.pay")
        time.sleep(0.05)
        assert sink.metrics().waiting == authorizer.metrics().waiting == 2
        assert authorizer.metrics().lag >= 0.05
        assert authorizer.metrics().written_seq == 0
    sink.flush(timeout=30)
    assert (sink.metrics().waiting, sink.metrics().lag) == (0, 0.0)
    assert authorizer.metrics().written_seq == 3
    authorizer.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_replaced(tmp_path: Path) -> None:
    """Where the thread ends, what waits is written by the next one, once."""
    sink = _late(tmp_path)
    append(sink, record("1"))
    sink.flush(timeout=30)
    background = sink._late.queue  # type: ignore[union-attr]
    background._next = _dying  # type: ignore[method-assign]
    append(sink, record("2"))
    until(lambda: not background.running)
    del background._next
    append(sink, record("3"))
    sink.close()
    assert logs.ids(tmp_path) == ["1", "2", "3"]


def _dying(_: object) -> list[object]:
    raise SystemExit  # which ends a thread without a word


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"mode": "late"}, "mode"), ({"overflow": "block"}, "overflow"), ({"room": 1_000}, "room"),
        ({"timeout": 1.0}, "timeout"), ({"mode": "fsync", "room": 1_000}, "room"),
        ({"mode": "async", "overflow": "drop"}, "overflow"), ({"mode": "async", "room": 0}, "room"),
        ({"mode": "async", "timeout": "1"}, "timeout"),
    ],
)  # fmt: skip
def test_knobs_that_can_not_be_are_refused(tmp_path: Path, options: dict[str, Any], argument: str) -> None:
    """A knob that isn't one, or that the mode hasn't, is refused before anything is written."""
    with pytest.raises(InvalidArgument) as caught:
        FileSink(tmp_path / "log", **options)
    assert caught.value.argument == argument
    assert not (tmp_path / "log").exists()


def test_what_is_no_record_is_refused_at_once(tmp_path: Path) -> None:
    """A record that has no line of this library's fails where it is appended, not in the thread."""

    class Odd:
        def line(self) -> bytes:
            return b"{}\n"

    sink = _late(tmp_path)
    odd: Record = Odd()  # type: ignore[assignment]
    with pytest.raises(ValueError):
        sink.append(b"{}\n", odd)
    append(sink, record("1"))
    sink.close()
    assert logs.ids(tmp_path) == ["1"]
