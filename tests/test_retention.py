"""Test that old segments can go, and that what is left is still proven."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from agentauthz.errors import InvalidArgument
from agentauthz.records import EventRecord, FileSink
from agentauthz.records.checkpoints import signed_note
from agentauthz.records.merkle import root_of
from agentauthz.records.verify import Verdict, verified
from tests import logs
from tests.faults.logged import NOW, SIGNER, VKEY, append, checked, sealed

AFTER = NOW + dt.timedelta(days=365 * 50)  # of the log's own records


def _written(folder: Path, notes: list[str]) -> FileSink:
    sink = FileSink(folder, key=SIGNER, witness=notes.append, segment_size=3_000)
    for number in range(30):
        append(sink, f"{number:02}")
    assert sink.stream.keeper is not None
    sink.stream.keeper.sign()
    return sink


def test_pruned_segments_leave_their_hashes(tmp_path: Path) -> None:
    """All segments but the one that is written go, it is recorded, and the checkpoints still hold."""
    notes: list[str] = []
    sink = _written(tmp_path, notes)
    before = logs.segments(tmp_path)
    assert sink.prune(AFTER) == len(before) - 1 >= 3
    append(sink, "later")
    sink.close()
    assert logs.segments(tmp_path)[0] == before[-1]
    report = checked(tmp_path, notes)
    assert (report.verdict, report.damages) == (Verdict.OK, ())
    (stream,) = report.streams
    assert stream.verified_from == logs.records(tmp_path)[0].seq > 20
    assert stream.witnessed == stream.size
    (event,) = [each for each in logs.records(tmp_path) if isinstance(each, EventRecord) and each.type == "log.pruned"]
    assert event.about["from_seq"] == stream.verified_from


def test_only_what_is_old_and_witnessed_goes(tmp_path: Path) -> None:
    """What ended later stays, and with a checkpoint whatever no witness has seen."""
    notes: list[str] = []
    sink = _written(tmp_path, [])
    kept = logs.segments(tmp_path)
    assert sink.prune(NOW) == 0
    assert logs.segments(tmp_path) == kept
    first = int(kept[2].stem)
    root = verified(tmp_path, None, ())[1][sink.stream.id][:first]
    notes.append(signed_note(SIGNER, "local", sink.stream.id, first, root_of([leaf for leaf in root if leaf])))
    assert sink.prune(AFTER, checkpoint=notes[0], keys=[VKEY]) == 2
    sink.close()
    assert logs.segments(tmp_path)[0] == kept[2]


def test_streams_that_ended_are_pruned_whole(tmp_path: Path) -> None:
    """Of a stream that nobody writes any more every segment can go; its checkpoints still hold."""
    notes = sealed(tmp_path, 20, segment_size=3_000)
    sink = FileSink(tmp_path, key=SIGNER, witness=notes.append)
    assert sink.prune(AFTER) > 3
    sink.close()
    report = checked(tmp_path, notes)
    assert (report.verdict, report.damages) == (Verdict.OK, ())
    assert [stream.verified_from for stream in report.streams] == [report.streams[0].size, 0]


def test_hashes_that_are_left_are_proven_too(tmp_path: Path) -> None:
    """A hash of a pruned record that is changed or taken away is found."""
    notes: list[str] = []
    sink = _written(tmp_path, notes)
    sink.prune(AFTER)
    sink.close()
    first, *_, last = sorted(tmp_path.glob("*/*.leaves"))
    data = first.read_bytes()
    first.write_bytes(b"x" * 32 + data[32:])
    assert checked(tmp_path).verdict is Verdict.TAMPERED
    first.unlink()
    assert checked(tmp_path).verdict is Verdict.TAMPERED
    first.write_bytes(data)
    assert checked(tmp_path, notes).verdict is Verdict.OK
    last.unlink()
    assert checked(tmp_path).verdict is Verdict.TAMPERED


def test_damaged_streams_stay(tmp_path: Path) -> None:
    """What might be evidence isn't pruned."""
    notes: list[str] = []
    sink = _written(tmp_path, notes)
    path = logs.segments(tmp_path)[0]
    path.write_bytes(path.read_bytes().replace(b"maria", b"mario"))
    kept = logs.segments(tmp_path)
    assert sink.prune(AFTER) == 0
    assert logs.segments(tmp_path) == kept
    with pytest.raises(InvalidArgument, match="before"):
        sink.prune(dt.datetime(2026, 1, 1))  # noqa: DTZ001  (that is what is refused)
    sink.close()
