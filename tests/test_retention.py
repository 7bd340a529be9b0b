"""Test that old segments can go, and that what is left is still proven."""

from __future__ import annotations

import contextlib
import datetime as dt
from pathlib import Path

import pytest

from agentauthz.errors import InvalidArgument
from agentauthz.records import EventRecord, FileSink
from agentauthz.records.catalog import used
from agentauthz.records.checkpoints import signed_note
from agentauthz.records.merkle import leaf_hash, root_of
from agentauthz.records.verify import Verdict, _Verification, verified, verify
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
    root = verified(tmp_path, None, ()).leaves[sink.stream.id][:first]
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


def _replaced_by_hashes(path: Path) -> None:
    """Put the hashes of a segment's lines in its place, as pruning does."""
    lines = path.read_bytes().splitlines()
    path.with_suffix(".leaves").write_bytes(b"".join(map(leaf_hash, lines)))
    path.unlink()


def test_text_that_is_taken_away_by_hand_is_missed(tmp_path: Path) -> None:
    """Hashes in the place of a segment prove nothing, with a witness and all, where no record says that it went."""
    notes = sealed(tmp_path, 20, segment_size=3_000)
    for path in logs.segments(tmp_path)[:2]:
        _replaced_by_hashes(path)
    report = checked(tmp_path, notes)
    assert report.verdict is Verdict.TAMPERED
    [damage] = report.damages
    assert (damage.kind, damage.seq, damage.last) == ("deleted", 0, report.streams[0].verified_from - 1)


def test_more_than_what_was_told_may_not_go(tmp_path: Path) -> None:
    """A record of pruning vouches for what it names, and for no segment behind that."""
    notes: list[str] = []
    sink = _written(tmp_path, notes)
    kept = logs.segments(tmp_path)
    assert sink.prune(AFTER, max_bytes=used(tmp_path) - 1) == 1
    sink.close()
    assert checked(tmp_path, notes).verdict is Verdict.OK
    _replaced_by_hashes(kept[1])
    assert checked(tmp_path, notes).verdict is Verdict.TAMPERED


def test_a_record_of_pruning_that_goes_itself_is_told_again(tmp_path: Path) -> None:
    """Who prunes the stream of who pruned before says first what that one said."""
    notes = sealed(tmp_path, 20, segment_size=3_000)
    for turn in range(3):
        sink = FileSink(tmp_path, key=SIGNER, witness=notes.append, segment_size=3_000)
        append(sink, f"{turn:02}")
        assert sink.prune(AFTER) >= 1
        sink.close()
        assert checked(tmp_path, notes).verdict is Verdict.OK
    told = [each for each in logs.records(tmp_path) if isinstance(each, EventRecord) and each.type == "log.pruned"]
    assert len(told) == 3  # the oldest two streams are told of again, and the one that told of them


def test_who_says_that_text_went_must_be_witnessed_too(tmp_path: Path) -> None:
    """A stream that anybody could have added vouches for nothing: nobody can tell then."""
    notes = sealed(tmp_path, 20, segment_size=3_000)
    with contextlib.closing(FileSink(tmp_path)) as sink:  # it has no key
        sink.prune(AFTER)
    assert checked(tmp_path, notes).verdict is Verdict.UNWITNESSED
    [stream, other] = verified(tmp_path, "\n".join(notes), [VKEY]).report.streams
    assert (stream.exposed, other.witnessed) == (0, 0)


@pytest.mark.parametrize("turn", range(2))
def test_who_looks_at_a_part_believes_what_is_said_of_pruning_before(tmp_path: Path, turn: int) -> None:
    """A record before the moment from which verification looks vouches too; without any, text is missed."""
    notes = sealed(tmp_path, 5, segment_size=3_000)
    sink = FileSink(tmp_path, key=SIGNER, witness=notes.append, segment_size=3_000)
    if turn:
        sink.prune(AFTER)
    else:
        for path in logs.segments(tmp_path)[:-1]:
            _replaced_by_hashes(path)
    for number in range(30):
        append(sink, f"{number:02}")
    sink.close()
    since = dt.datetime.now(dt.UTC)
    found = verify(tmp_path, since=since, keys=[VKEY], checkpoint=notes[-1])
    assert found.verdict is (Verdict.UNWITNESSED if turn else Verdict.TAMPERED)


def test_what_is_pruned_while_somebody_looks_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record that says that segments go is read again where it came after its stream had been looked at."""
    sink = FileSink(tmp_path, segment_size=3_000)
    notes = sealed(tmp_path, 20, segment_size=3_000)
    real = _Verification._start

    def pruning(self: _Verification, path: Path) -> object:
        if path.name != sink.stream.id:
            monkeypatch.setattr(_Verification, "_start", real)
            assert sink.prune(AFTER) > 3
        return real(self, path)

    monkeypatch.setattr(_Verification, "_start", pruning)
    report = checked(tmp_path, notes)
    assert (report.verdict, report.damages) == (Verdict.UNWITNESSED, ())
    sink.close()
