"""Verification from a moment on: it begins with a segment, says so, and is bound to what was signed."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from agentauthz.errors import InvalidArgument
from agentauthz.records import FileSink
from agentauthz.records.findings import told
from agentauthz.records.merkle import leaf_hash
from agentauthz.records.verify import Report, Verdict, verify
from tests import logs
from tests.faults.logged import NOW, SIGNER, VKEY, append


def _hours(count: int) -> dt.timedelta:
    return dt.timedelta(hours=count)


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, str]:
    """Return a log of several segments, an hour from record to record, and what a witness kept."""
    notes: list[str] = []
    moment = NOW

    def clock() -> dt.datetime:
        return moment

    sink = FileSink(tmp_path / "log", key=SIGNER, witness=notes.append, segment_size=2_000, clock=clock)
    for number in range(20):
        append(sink, f"{number:026}")
        moment += _hours(1)
    sink.close()
    assert len(logs.segments(tmp_path / "log")) > 3
    return tmp_path / "log", "\n".join(notes)


def _since(log: Path, moment: dt.datetime, notes: str | None = None) -> Report:
    return verify(log, since=moment, keys=[VKEY], checkpoint=notes)


def _rewritten(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def test_it_begins_with_the_segment_of_the_moment(kept: tuple[Path, str]) -> None:
    """The first record is that of the last segment that began by then; sizes and roots are those of the whole log."""
    log, notes = kept
    [whole] = verify(log, keys=[VKEY], checkpoint=notes).streams
    firsts = [(int(path.stem), json.loads(path.read_bytes().splitlines()[0])["ts"]) for path in logs.segments(log)]
    for number in range(21):
        report = _since(log, NOW + _hours(number), notes)
        expected = max(first for first, ts in firsts if dt.datetime.fromisoformat(ts) <= NOW + _hours(number))
        [found] = report.streams
        assert report.verdict is Verdict.OK
        assert (found.verified_from, found.skipped) == (expected, expected > 0)
        assert (found.size, found.root, found.signed, found.witnessed) == (
            whole.size, whole.root, whole.signed, whole.witnessed,
        )  # fmt: skip


def test_a_moment_before_the_log_is_all_of_it(kept: tuple[Path, str]) -> None:
    """Where nothing is before the moment, nothing is left out."""
    [found] = _since(kept[0], NOW - _hours(1), kept[1]).streams
    assert (found.verified_from, found.skipped) == (0, False)


def test_what_is_before_is_not_looked_at_and_that_is_said(kept: tuple[Path, str]) -> None:
    """An edit before the first record isn't found; the verdict and the stream's lines say what wasn't looked at."""
    log, notes = kept
    _rewritten(logs.segments(log)[0], b'"outcome":"allow"', b'"outcome":"ALLOW"')
    assert verify(log, keys=[VKEY], checkpoint=notes).verdict is Verdict.TAMPERED
    report = _since(log, NOW + _hours(19), notes)
    assert report.verdict is Verdict.OK
    lines = list(told(report))
    assert lines[0].startswith("ok since 2026-11-24T04:00:00+00:00: ")
    assert lines[0].endswith("; what is before was not looked at")
    first = report.streams[0].verified_from
    words = f"verified from record {first}: what is before was not looked at, and a checkpoint vouches for the state"
    assert any(words in line for line in lines)


def test_what_came_since_is_verified(kept: tuple[Path, str]) -> None:
    """An edit, a missing record and a missing end behind the moment are found as ever."""
    log, notes = kept
    path = logs.segments(log)[-1]
    before = path.read_bytes()
    lines = before.splitlines(keepends=True)
    for changed, verdict in (
        (before.replace(b'"outcome":"allow"', b'"outcome":"ALLOW"', 1), Verdict.TAMPERED),
        (b"".join([lines[0], *lines[2:]]), Verdict.TAMPERED),
        (b"".join(lines[:-1]), Verdict.INCOMPLETE),
    ):
        path.write_bytes(changed)
        assert _since(log, NOW + _hours(17), notes).verdict is verdict
    path.write_bytes(before)
    assert _since(log, NOW + _hours(17), notes).verdict is Verdict.OK


def test_the_state_that_a_segment_begins_with_must_be_what_was_signed(kept: tuple[Path, str]) -> None:
    """A segment that names another state before it, with every line behind it written anew, is found by a checkpoint.

    Without one nobody vouches for the state, and that is said.
    """
    log, notes = kept
    path = logs.segments(log)[-1]
    tree = json.loads(path.read_bytes().splitlines()[0])
    forged = tree["about"]["tree"][0][::-1]
    data = path.read_bytes().replace(tree["about"]["tree"][0].encode(), forged.encode(), 1)
    path.write_bytes(_rechained(data))
    (log / "catalog.ndjson").write_bytes(_without_ends(log))
    assert _since(log, NOW + _hours(19), notes).verdict is Verdict.TAMPERED
    (log / "checkpoints").unlink()
    report = _since(log, NOW + _hours(19))
    assert report.verdict is Verdict.UNWITNESSED
    assert any("and no checkpoint vouches for the state there" in line for line in told(report))


def _rechained(data: bytes) -> bytes:
    """Return lines with each made to follow the one before."""
    first, *rest = data.splitlines()
    made = [first]
    for line in rest:
        prev = json.loads(line)["prev"].encode()
        made.append(line.replace(prev, leaf_hash(made[-1]).hex().encode(), 1))
    return b"".join(line + b"\n" for line in made)


def _without_ends(log: Path) -> bytes:
    lines = (log / "catalog.ndjson").read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if b'"closed"' not in line)


@pytest.mark.parametrize("old", [b'"tree":["', b'"about":{', b'"ts":"2026'])
def test_a_segment_that_can_not_be_begun_with_is_not(kept: tuple[Path, str], old: bytes) -> None:
    """Where a segment's first record is damaged, verification begins with an earlier one, and finds the damage."""
    log, notes = kept
    _rewritten(logs.segments(log)[-1], old, old[:-1] + b"x")
    report = _since(log, NOW + _hours(19), notes)
    assert report.verdict is Verdict.TAMPERED
    assert report.streams[0].verified_from < int(logs.segments(log)[-1].stem)


def test_pruned_segments_need_no_look(kept: tuple[Path, str]) -> None:
    """Behind the moment it counts the same whether what is before was pruned."""
    log, notes = kept
    with_all = _since(log, NOW + _hours(19), notes).streams[0]
    pruner = FileSink(log)
    assert pruner.prune(NOW + _hours(6), checkpoint=notes, keys=[VKEY]) > 0
    pruner.close()
    found = next(each for each in _since(log, NOW + _hours(19), notes).streams if each.id == with_all.id)
    assert found == with_all


def test_only_a_moment_with_a_zone_is_taken(kept: tuple[Path, str]) -> None:
    """A moment without a zone could be any of several."""
    with pytest.raises(InvalidArgument, match="since"):
        verify(kept[0], since=NOW.replace(tzinfo=None))
