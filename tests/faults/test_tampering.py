"""Test what verification says of logs that were changed: rows 27 to 31, 33 and 35 of the table of faults."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from agentauthz.keys.signing import SigningKey
from agentauthz.records import EventRecord, FileSink, read_record
from agentauthz.records.checkpoints import signed_note, vkey
from agentauthz.records.verify import Report, Verdict, verify
from tests import logs
from tests.faults.logged import LONG, SIGNER, VKEY, append, checked, sealed

ROUNDS: Final = 10_000 if LONG else 300


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return a sealed log of one stream in several segments, and what a witness kept."""
    folder = tmp_path_factory.mktemp("log")
    return folder, sealed(folder, 40, segment_size=8_000, checkpoint_every=8)


def _copy(log: tuple[Path, list[str]], to: Path) -> Path:
    shutil.copytree(log[0], to / "copy")
    return to / "copy"


def _first(report: Report) -> tuple[str, int | None]:
    assert report.first is not None
    return report.first.kind, report.first.seq


def _seq(folder: Path, segment: int, line: int) -> int:
    return read_record(logs.segments(folder)[segment].read_bytes().splitlines()[line]).seq


def test_a_clean_log_is_proven(log: tuple[Path, list[str]]) -> None:
    """With a witness's checkpoint a clean log is `ok`, all of it; without one nobody can tell, and it says so."""
    report = checked(*log)
    assert (report.verdict, report.damages) == (Verdict.OK, ())
    (stream,) = report.streams
    assert len(logs.segments(log[0])) >= 3
    assert stream.size == stream.witnessed == stream.signed == len(logs.lines(log[0]))
    assert (stream.exposed, stream.verified_from, stream.live) == (0, 0, False)
    assert checked(log[0]).verdict is Verdict.UNWITNESSED


def test_row_27_an_edited_line_is_found(log: tuple[Path, list[str]], tmp_path: Path) -> None:
    """A byte that was flipped is found wherever it is, with the number of its record."""
    folder = _copy(log, tmp_path)
    for line in (0, 2, -1):
        seq = _seq(folder, 1, line)
        before = logs.segments(folder)[1].read_bytes()
        lines = before.splitlines(keepends=True)
        lines[line] = lines[line].replace(b'"v":"1.0"', b'"v":"1.1"')
        logs.segments(folder)[1].write_bytes(b"".join(lines))
        report = checked(folder, log[1])
        assert (report.verdict, _first(report)) == (Verdict.TAMPERED, ("edited", seq))
        logs.segments(folder)[1].write_bytes(before)
    assert checked(folder, log[1]).verdict is Verdict.OK


def _foreign(folder: Path) -> bytes:
    """Return a line of another stream of the same folder."""
    stream = logs.segments(folder)[0].parent.name
    return next(line for line in logs.lines(folder) if stream.encode() not in line)


@pytest.mark.parametrize("segment", [0, 1, -1], ids=["first", "middle", "last"])
@pytest.mark.parametrize("kind", ["deleted", "inserted", "reordered", "duplicated", "foreign"])
def test_row_28_what_was_done_to_lines_is_named(tmp_path: Path, kind: str, segment: int) -> None:
    """A line that is deleted, made up, moved, copied or taken from another stream is called that."""
    notes = sealed(tmp_path, 30, segment_size=8_000)
    notes += sealed(tmp_path, 5)
    mine = [path for path in logs.segments(tmp_path) if path.parent == logs.segments(tmp_path)[0].parent]
    path = mine[segment]
    lines = path.read_bytes().splitlines(keepends=True)
    strange = _foreign(tmp_path)
    if kind == "deleted":
        del lines[1]
    elif kind == "inserted":
        lines.insert(2, lines[1].replace(b'"ts":"2026', b'"ts":"2025'))
    elif kind == "reordered":
        lines[1], lines[2] = lines[2], lines[1]
    elif kind == "duplicated":
        lines.insert(3, lines[1])
    else:
        lines.insert(2, strange)
    path.write_bytes(b"".join(lines))
    report = checked(tmp_path, notes)
    assert report.verdict is Verdict.TAMPERED
    assert _first(report)[0] == kind


def _cut_line(folder: Path) -> None:
    path = logs.segments(folder)[-1]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def _cut_segment(folder: Path) -> None:
    logs.segments(folder)[-1].unlink()


def _cut_segments(folder: Path) -> None:
    for path in logs.segments(folder):
        path.unlink()


def _cut_stream(folder: Path) -> None:
    shutil.rmtree(logs.segments(folder)[0].parent)


@pytest.mark.parametrize("cut", [_cut_line, _cut_segment, _cut_segments, _cut_stream])
def test_row_29_a_cut_tail_is_incomplete(
    log: tuple[Path, list[str]], tmp_path: Path, cut: Callable[[Path], None]
) -> None:
    """A line, the newest segment, all segments or a stream that is gone: incomplete by witness, and by catalog."""
    folder = _copy(log, tmp_path)
    cut(folder)
    for notes in (log[1], None):
        report = checked(folder, notes)
        assert (report.verdict, _first(report)[0]) == (Verdict.INCOMPLETE, "truncated")


def test_row_29_an_emptied_folder_is_never_ok(log: tuple[Path, list[str]], tmp_path: Path) -> None:
    """With everything gone, a witness tells that it is incomplete; without one nobody can tell."""
    assert checked(tmp_path, log[1]).verdict is Verdict.INCOMPLETE
    assert checked(tmp_path).verdict is Verdict.UNWITNESSED
    folder = _copy(log, tmp_path)
    (folder / "catalog.ndjson").unlink()
    assert checked(folder, log[1]).verdict is Verdict.INCOMPLETE


def test_row_29_a_tail_cut_with_the_catalog_needs_a_witness(tmp_path: Path) -> None:
    """Whoever cuts log, catalog and checkpoints alike is seen by the witness only; alone it is never `ok`."""
    notes: list[str] = []
    sink = FileSink(tmp_path / "log")
    for number in range(3):
        append(sink, str(number))
    shutil.copytree(tmp_path / "log", tmp_path / "old")
    sink.close()
    notes = sealed(tmp_path / "log", 3)
    assert checked(tmp_path / "old").verdict is Verdict.UNWITNESSED
    assert checked(tmp_path / "old", notes).verdict is Verdict.INCOMPLETE


def test_row_30_a_log_written_anew_with_another_key_is_refused(tmp_path: Path) -> None:
    """A consistent log, signed with a key that isn't trusted, is tampering: no key in the folder counts."""
    stranger = SigningKey.generate("Ed25519")
    sink = FileSink(tmp_path, key=stranger)
    append(sink, "1")
    sink.close()
    report = checked(tmp_path)
    assert (report.verdict, _first(report)[0]) == (Verdict.TAMPERED, "untrusted")


def test_row_30_a_log_written_anew_without_a_key_has_nothing_signed(tmp_path: Path) -> None:
    """Whoever removes the checkpoints too leaves a log of which nothing is signed; a witness knows more."""
    notes = sealed(tmp_path / "log", 5)
    stream = logs.segments(tmp_path / "log")[0].parent.name
    shutil.rmtree(tmp_path / "log")
    forger = FileSink(tmp_path / "forged")
    append(forger, "1")
    forger.close()
    forged = logs.segments(tmp_path / "forged")[0].parent
    text = logs.segments(tmp_path / "forged")[0].read_bytes()
    (tmp_path / "log" / stream).mkdir(parents=True)
    (tmp_path / "log" / stream / "000000000000.ndjson").write_bytes(text.replace(forged.name.encode(), stream.encode()))
    report = checked(tmp_path / "log")
    assert report.verdict is not Verdict.OK
    assert [each.signed for each in report.streams] == [0]
    assert checked(tmp_path / "log", notes).verdict in (Verdict.TAMPERED, Verdict.INCOMPLETE)


def test_row_31_two_roots_of_one_size_are_inconsistent(log: tuple[Path, list[str]], tmp_path: Path) -> None:
    """A log that was signed in two versions is called inconsistent, though each signature is good."""
    folder = _copy(log, tmp_path)
    stream = logs.segments(folder)[0].parent.name
    forked = signed_note(SIGNER, "local", stream, 5, b"r" * 32)
    honest = signed_note(SIGNER, "local", stream, 5, b"s" * 32)
    report = checked(folder, [*log[1], honest, forked])
    assert report.verdict is Verdict.TAMPERED
    assert "inconsistent" in {damage.kind for damage in report.damages}


def test_row_33_an_old_copy_that_was_put_back_is_incomplete(tmp_path: Path) -> None:
    """The witness has seen more than an old copy holds; and whoever goes on writes a stream of its own."""
    notes: list[str] = []
    sink = FileSink(tmp_path / "log", key=SIGNER, witness=notes.append, checkpoint_every=1)
    append(sink, "before")
    shutil.copytree(tmp_path / "log", tmp_path / "backup")
    append(sink, "after")
    old = sink.stream.id
    sink.close()
    again = FileSink(tmp_path / "backup", key=SIGNER, witness=notes.append)
    append(again, "again")
    again.close()
    assert again.stream.id != old
    report = checked(tmp_path / "backup", notes)
    assert (report.verdict, _first(report)[0]) == (Verdict.INCOMPLETE, "truncated")
    numbers = [(each.stream, each.seq) for each in logs.records(tmp_path / "backup")]
    assert len(numbers) == len(set(numbers))


def test_row_34_a_key_that_fails_leaves_an_unsigned_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where signing fails the records go on; it is logged and recorded, and the report tells what is unsigned."""

    class Failing:
        works = True
        algorithm, key_id = SIGNER.algorithm, SIGNER.key_id

        def sign(self, data: bytes) -> bytes:
            if not self.works:
                raise OSError("the token says CANARY")
            return SIGNER.sign(data)

        def public_jwk(self) -> dict[str, str]:
            return SIGNER.public_jwk()

    key = Failing()
    sink = FileSink(tmp_path, key=key)
    append(sink, "1")
    keeper = sink.stream.keeper
    assert keeper is not None
    keeper.sign()
    key.works = False
    append(sink, "2")
    keeper.sign()
    keeper.sign()
    append(sink, "3")
    sink.close()
    (stream,) = checked(tmp_path).streams
    assert stream.signed == 2
    assert stream.size > 4
    events = [each for each in logs.records(tmp_path) if isinstance(each, EventRecord) and each.type == "sink.failed"]
    assert [each.about["sink"] for each in events] == ["checkpoint"]
    assert [each.levelname for each in caplog.records] == ["ERROR"]
    assert "CANARY" not in caplog.text + repr(logs.lines(tmp_path))


def test_row_34_a_key_that_comes_back_signs_what_was_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A key that can't be read leaves its interval unsigned while records go on; read again, it signs all of them."""
    secret = tmp_path / "key.pem"
    secret.write_bytes(SIGNER.to_pem())

    class FromFile:
        algorithm, key_id = SIGNER.algorithm, SIGNER.key_id

        def sign(self, data: bytes) -> bytes:
            return SigningKey.from_pem(secret.read_bytes(), key_id=SIGNER.key_id).sign(data)

        def public_jwk(self) -> dict[str, str]:
            return SIGNER.public_jwk()

    sink = FileSink(tmp_path / "log", key=FromFile())
    keeper = sink.stream.keeper
    assert keeper is not None
    append(sink, "1")
    keeper.sign()
    for fault in (lambda: secret.rename(tmp_path / "away"), lambda: secret.write_bytes(b"no key")):
        fault()
        append(sink, "2")
        keeper.sign()
    (stream,) = checked(tmp_path / "log").streams
    assert (stream.signed, stream.size) == (2, 5)  # the failure itself is told once
    secret.write_bytes(SIGNER.to_pem())
    keeper.sign()
    sink.close()
    (stream,) = checked(tmp_path / "log").streams
    assert stream.signed == stream.size
    assert [each.levelname for each in caplog.records] == ["ERROR"]


def test_row_34_a_key_that_was_rotated_is_trusted_beside_the_old_one(tmp_path: Path) -> None:
    """With both keys a log of both is proven; with one alone what the other signed is untrusted, and said so."""
    fresh = SigningKey.generate("Ed25519")
    notes: list[str] = []
    for key in (SIGNER, fresh):
        sink = FileSink(tmp_path, key=key, witness=notes.append)
        append(sink, key.key_id)
        sink.close()
    witnessed = "\n".join(notes)
    both = verify(tmp_path, keys=[VKEY, vkey(fresh, "local")], checkpoint=witnessed)
    assert (both.verdict, both.damages) == (Verdict.OK, ())
    for known in (VKEY, vkey(fresh, "local")):
        one = verify(tmp_path, keys=[known], checkpoint=witnessed)
        assert {damage.kind for damage in one.damages} == {"untrusted"}


def test_row_35_what_is_newer_is_read_and_damage_crashes_nobody(log: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Types of a newer minor version are read on; a segment in the middle that is noise is reported, not raised."""
    newer = b'{"v":"1.9","stream":"%b","seq":0,"prev":"%b","mono_ns":0,"type":"new.kind","id":"1",' % (
        b"0" * 26,
        b"0" * 64,
    )
    assert read_record(newer + b'"ts":"2026-11-23T09:00:00Z","more":1}\n').as_dict()["more"] == 1
    folder = _copy(log, tmp_path)
    logs.segments(folder)[1].write_bytes(random.Random(7).randbytes(5_000))
    report = checked(folder, log[1])
    assert report.verdict is Verdict.TAMPERED
    assert _first(report)[0] == "edited"


# ---- any edit of a sealed log


def _edit(rng: random.Random, folder: Path) -> tuple[set[str], Verdict]:
    """Do one of the things that can be done to lines; return what it may be called, and the verdict."""
    path = rng.choice(logs.segments(folder))
    lines = path.read_bytes().splitlines(keepends=True)
    at = rng.randrange(len(lines))
    what = rng.choice(["flip", "delete", "insert", "swap", "copy", "cut", "line"])
    if what == "flip":
        line, byte = lines[at], rng.randrange(len(lines[at]) - 1)
        flipped = rng.choice([b for b in range(32, 127) if b != line[byte]])
        lines[at] = line[:byte] + bytes([flipped]) + line[byte + 1 :]
        kinds = {"edited"}
    elif what == "delete":
        del lines[at]
        kinds = {"deleted"}
    elif what == "insert":
        made_up = lines[at][:-2] + b',"x":%d}\n' % rng.randrange(100)
        lines.insert(rng.randrange(len(lines) + 1), made_up)
        kinds = {"inserted"}
    elif what == "swap" and len(lines) > 1:
        other = rng.choice([i for i in range(len(lines)) if i != at])
        lines[at], lines[other] = lines[other], lines[at]
        kinds = {"reordered"}
    elif what == "copy":
        lines.insert(rng.randrange(len(lines) + 1), lines[at])
        kinds = {"duplicated"}
    elif what == "cut":
        path = logs.segments(folder)[-1]
        data = path.read_bytes()
        path.write_bytes(data[: rng.randrange(len(data))])
        return {"truncated"}, Verdict.INCOMPLETE
    else:
        lines[at] = rng.randbytes(rng.randrange(1, 300)).replace(b"\n", b" ") + b"\n"
        kinds = {"edited"}
    at_end = what == "delete" and path == logs.segments(folder)[-1] and at == len(lines)
    path.write_bytes(b"".join(lines))
    return ({"truncated"}, Verdict.INCOMPLETE) if at_end else (kinds, Verdict.TAMPERED)


def test_any_edit_of_a_sealed_log_is_detected(log: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Every edit is detected, at least 99 of 100 by the right name, and the log before it is never called damaged."""
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    folder = _copy(log, tmp_path)
    originals = {path: path.read_bytes() for path in logs.segments(folder)}
    right, wrong = 0, []
    for round_ in range(ROUNDS):
        kinds, verdict = _edit(rng, folder)
        report = checked(folder, log[1])
        assert report.damages, (seed, round_, kinds)
        assert report.verdict in (Verdict.TAMPERED, Verdict.INCOMPLETE), (seed, round_, kinds)
        good = _first(report)[0] in kinds and report.verdict is verdict
        right += good
        if not good:
            wrong.append((round_, kinds, report.verdict, _first(report)))
        for path, data in originals.items():
            path.write_bytes(data)
        if round_ % 50 == 0:
            assert checked(folder, log[1]).verdict is Verdict.OK
    assert right >= ROUNDS * 0.99, (seed, wrong)
