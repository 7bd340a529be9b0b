"""Attacks on logs, on those who read them, and on the promises of `verify`: each was once not noticed, or fatal."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from agentauthz import Authorizer, PolicySet
from agentauthz.decision import Basis
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records import DecisionRecord, FileSink, MemorySink, Record, at_least, only, read_record, tee
from agentauthz.records.lines import NO_HASH
from agentauthz.records.merkle import leaf_hash
from agentauthz.records.shipping import Shipper
from agentauthz.records.story import ordered
from agentauthz.records.verify import Verdict, verify
from agentauthz.replay.report import report
from agentauthz.testing import check_sink
from tests import logs
from tests.commands import BOT, MARIA, POLICY, ran, written
from tests.faults.logged import SIGNER, VKEY, checked, record, sealed
from tests.golden import ROOT
from tests.recording import decision

HASH = "ab" * 32
LINE = record("0" * 26)


def rewritten(lines: list[bytes], edit: Callable[[bytes], bytes]) -> list[bytes]:
    """Return lines that were edited and chained anew, as by somebody who knows the form."""
    found, prev = [], NO_HASH
    for line in lines:
        made = re.sub(rb'"prev":"[0-9a-f]{64}"', f'"prev":"{prev}"'.encode(), edit(line), count=1)
        prev = leaf_hash(made).hex()
        found.append(made)
    return found


def left_open(folder: Path) -> Path:
    """Take back what the catalog says of a stream's end; return the stream's one file."""
    catalog = folder / "catalog.ndjson"
    catalog.write_bytes(catalog.read_bytes().splitlines(keepends=True)[0])
    [path] = logs.segments(folder)
    return path


def followed(path: Path, rest: str, seq: int | None = None) -> None:
    """Add a line that follows the last one of a file."""
    lines = path.read_bytes().splitlines()
    place = {"v": "1.0", "stream": path.parent.name, "seq": len(lines) if seq is None else seq}
    start = json.dumps({**place, "prev": leaf_hash(lines[-1]).hex(), "mono_ns": 1}, separators=(",", ":"))
    path.write_bytes(path.read_bytes() + f"{start[:-1]},{rest}\n".encode())


# ---- what verification says


def test_a_torn_end_hides_no_rewriting(tmp_path: Path) -> None:
    """A log that was written anew is tampered with, by its checkpoint, also where its end is torn."""
    notes = sealed(tmp_path)
    path = left_open(tmp_path)
    lines = rewritten(path.read_bytes().splitlines(), lambda line: line.replace(b'"allow"', b'"deny"'))
    path.write_bytes(b"\n".join(lines) + b'\n{"v":"1.0","str')
    found = checked(tmp_path, notes)
    assert found.verdict is Verdict.TAMPERED
    assert [damage.kind for damage in found.damages] == ["torn", "edited"]


@pytest.mark.parametrize(
    "rest",
    [
        '"type":"stream.gap" junk',
        '"type":"stream.gap"}',
        '"type":"stream.gap","about":5}',
        '"type":"stream.gap","about":{"first_seq":"x","hashes":[1]}}',
        '"type":"stream.gap","about":{"first_seq":-7,"hashes":["' + HASH + '"]}}',
        '"type":"stream.gap","about":{"first_seq":1,"hashes":["zz"]}}',
        '"type":"stream.gap","about":{"first_seq":1,"hashes":["00"]}}',
        '"type":"stream.gap","about":{"first_seq":1,"hashes":' + "[" * 100_000 + "}}",
        '"type":"stream.gap","about":{"first_seq":1000000000000,"hashes":["' + HASH + '"]}}',
    ],
)
def test_a_forged_gap_is_only_a_line(rest: str, tmp_path: Path) -> None:
    """A record of a gap that is damaged, or speaks of numbers to come, neither stops verification nor counts."""
    notes = sealed(tmp_path)
    path = left_open(tmp_path)
    followed(path, rest)
    path.write_bytes(path.read_bytes() + b"torn")
    [stream] = checked(tmp_path, notes).streams
    assert (stream.size, stream.lost) == (23, 0)


def test_a_broken_line_of_the_catalog_vouches_for_nothing(tmp_path: Path) -> None:
    """Behind a fragment the catalog still has to go on from what was there: a line that was broken on purpose shows."""
    sealed(tmp_path)
    catalog = tmp_path / "catalog.ndjson"
    opened, closed = catalog.read_bytes().splitlines(keepends=True)
    catalog.write_bytes(opened.replace(b"{", b"x", 1) + closed)
    assert [damage.kind for damage in checked(tmp_path).damages] == ["edited"]
    [path] = logs.segments(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)[:10]
    path.write_bytes(b"".join(lines))
    cut = {**json.loads(closed), "prev": HASH, "size": 10, "last": leaf_hash(lines[-1][:-1]).hex()}
    catalog.write_bytes(opened + b"junk\n" + json.dumps(cut).encode() + b"\n")
    first = checked(tmp_path).damages[0]
    assert (first.kind, first.text) == ("edited", "the catalog isn't what was written")


def test_a_fragment_in_the_catalog_is_none(tmp_path: Path) -> None:
    """What a dying writer leaves in the catalog is passed over, wherever it was torn off."""
    for fragment in (b'{"prev"', b'{"prev"\n', b"x\ny"):
        folder = tmp_path / str(len(fragment))
        sealed(folder, 1)
        with (folder / "catalog.ndjson").open("ab") as file:
            file.write(fragment)
        sealed(folder, 1)
        assert checked(folder).damages == ()


def test_the_last_line_of_the_catalog_is_held_to_its_form(tmp_path: Path) -> None:
    """A whole last line that is no entry was broken on purpose: it would hide where a stream ended."""
    notes = sealed(tmp_path)
    catalog = tmp_path / "catalog.ndjson"
    opened, closed = catalog.read_bytes().splitlines(keepends=True)
    for broken in (closed[1:], b"\n", closed.replace(b'"what"', b'"that"')):
        catalog.write_bytes(opened + broken)
        report = checked(tmp_path, notes)
        assert report.verdict is Verdict.TAMPERED
        assert [(damage.kind, damage.text.partition("'")[0]) for damage in report.damages] == [
            ("edited", "the catalog")
        ]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("name", ["catalog.ndjson", "checkpoints", "lock"])
def test_pipes_and_folders_in_the_place_of_files_stop_nobody(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    """`verify` takes a catalog and checkpoints that are no files for none, and ends; a writer is refused or goes on."""
    notes = sealed(tmp_path)
    path = logs.segments(tmp_path)[0].with_name(name) if name == "lock" else tmp_path / name
    catalog = (tmp_path / "catalog.ndjson").read_bytes()
    if name == "lock":
        (tmp_path / "catalog.ndjson").write_bytes(catalog.splitlines(keepends=True)[0])
    path.unlink()
    make(path)
    report = checked(tmp_path, notes)
    assert report.verdict is (Verdict.OK if name != "catalog.ndjson" else Verdict.INCOMPLETE)
    if name == "catalog.ndjson":
        with pytest.raises(SinkError, match=r"catalog is no file|is a directory"):
            FileSink(tmp_path)
    else:
        sealed(tmp_path)  # where no checkpoint can be kept beside the log, that is recorded
        assert checked(tmp_path, notes).verdict is Verdict.UNWITNESSED


@pytest.mark.parametrize("given", ["a\0b", 5, b"x", None])
def test_a_folder_that_is_none_is_told(given: Any) -> None:
    """Whatever is given as a folder, the error is the library's own."""
    for use in (FileSink, verify):
        with pytest.raises(InvalidArgument, match="`folder`"):
            use(given)


def test_a_file_of_another_name_is_found(tmp_path: Path) -> None:
    """A segment that was renamed is found, for pruning and shipping go by the names."""
    notes = sealed(tmp_path, 100, segment_size=8_000)
    path = logs.segments(tmp_path)[2]
    first = int(path.stem)
    path.rename(path.with_name(f"{first + 1:012}.ndjson"))
    found = checked(tmp_path, notes)
    assert [(damage.kind, damage.seq) for damage in found.damages] == [("edited", first)]
    assert found.verdict is Verdict.TAMPERED


def test_junk_behind_the_hashes_of_pruned_records_is_found(tmp_path: Path) -> None:
    """A file of hashes that isn't whole hashes was changed."""
    sealed(tmp_path, 100, segment_size=8_000)
    path = logs.segments(tmp_path)[0]
    hashes = b"".join(leaf_hash(line) for line in path.read_bytes().splitlines())
    path.with_suffix(".leaves").write_bytes(hashes + b"junk")
    path.unlink()
    edited, _ = checked(tmp_path).damages  # and nobody says that it was pruned
    assert (edited.kind, edited.text) == ("edited", "the hashes of a pruned segment aren't what was written")


def test_what_is_no_file_holds_no_records(tmp_path: Path) -> None:
    """A folder or a pipe with the name of a segment stops nobody."""
    notes = sealed(tmp_path)
    [path] = logs.segments(tmp_path)
    (path.parent / "000000000900.ndjson").mkdir()
    (path.parent / "000000000900.leaves").mkdir()
    os.mkfifo(path.parent / "000000000901.ndjson")
    assert checked(tmp_path, notes).verdict is Verdict.OK


def test_many_lines_of_one_number_take_no_longer(tmp_path: Path) -> None:
    """A log in which thousands of lines say the same number is judged in seconds, not hours."""
    sealed(tmp_path, 3)
    path = left_open(tmp_path)
    own = path.parent.name
    many = [
        f'{{"v":"1.0","stream":"{own}","seq":{seq},"prev":"{i:064x}","mono_ns":1}}'
        for seq in (6, 7)
        for i in range(20_000)
    ]
    path.write_bytes(path.read_bytes() + "\n".join(many).encode() + b"\n")
    began = time.monotonic()
    assert checked(tmp_path).verdict is Verdict.TAMPERED
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("junk", "kinds"),
    [(b"x\n" * 60_000, ["deleted", "edited", "inserted"]), (b"\n" * 200_000, ["deleted", "edited", "inserted"])],
)
def test_junk_in_the_place_of_records_takes_no_longer(junk: bytes, kinds: list[str], tmp_path: Path) -> None:
    """Lines that are no records, however many, are told of in seconds: a run of them once."""
    sealed(tmp_path, 20)
    [path] = logs.segments(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + junk + b"".join(lines[20:]))
    began = time.monotonic()
    assert sorted(damage.kind for damage in checked(tmp_path).damages) == kinds
    assert time.monotonic() - began < 20


def test_many_lines_without_their_text_take_no_longer(tmp_path: Path) -> None:
    """As many lines of junk as there were records are each told of, in seconds."""
    sink = FileSink(tmp_path)
    for _ in range(20_000):
        sink.append(LINE.line(), LINE)
    sink.close()
    [path] = logs.segments(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"x\n" * 20_000 + lines[-1])
    began = time.monotonic()
    assert [damage.kind for damage in checked(tmp_path).damages] == ["edited"] * 20_000
    assert time.monotonic() - began < 20


def test_a_catalog_that_names_a_far_end_takes_no_longer(tmp_path: Path) -> None:
    """A catalog that was made to say a million million records is disbelieved without counting them."""
    sealed(tmp_path, 3)
    catalog = tmp_path / "catalog.ndjson"
    opened, closed = catalog.read_bytes().splitlines(keepends=True)
    catalog.write_bytes(opened + json.dumps({**json.loads(closed), "size": 10**12}).encode() + b"\n")
    [damage] = checked(tmp_path).damages
    assert (damage.kind, damage.seq, damage.last) == ("truncated", 5, 10**12 - 1)


@pytest.mark.parametrize("given", ["a\0b", 5, b"x", ["x"]])
def test_a_checkpoint_that_is_none_is_told(given: object, tmp_path: Path) -> None:
    """Whatever is given as a checkpoint, the error is the library's own."""
    with pytest.raises(InvalidArgument):
        verify(tmp_path, checkpoint=given, keys=[VKEY])  # type: ignore[arg-type]


# ---- what readers show


def one(path: Path, tree: dict[str, Any]) -> Path:
    """Write one record as a file of lines."""
    path.write_text(json.dumps(tree) + "\n", encoding="utf-8")
    return path


def first(folder: Path, kind: str) -> dict[str, Any]:
    """Return the tree of the first record of a type, which must be of a session."""
    trees = (json.loads(line) for line in logs.lines(folder))
    return next(tree for tree in trees if tree["type"] == kind)


def test_files_beside_the_streams_are_no_part_of_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What somebody lays into a log's folder is shown by nobody: `verify` doesn't vouch for it."""
    notes = written(tmp_path / "log")
    forged = first(tmp_path / "log", "decision") | {"id": "FORGED", "outcome": "deny"}
    one(tmp_path / "log" / "a.ndjson", forged)
    (tmp_path / "log" / "b.jsonl").mkdir()
    assert checked(tmp_path / "log", notes).verdict is Verdict.OK
    for argv in (("show", "conversation-7"), ("query",), ("tail", "-n", 99)):
        assert "FORGED" not in ran(capsys, *argv, tmp_path / "log").out
    assert "FORGED" not in report(tmp_path / "log", "conversation-7", checkpoint="\n".join(notes), keys=[VKEY])


def nested(levels: int) -> object:
    """Return lists in lists."""
    found: object = 1
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        ("decision", ("type",), []),
        ("decision", ("v",), [[]]),
        ("decision", ("inputs", 0, "value"), float("nan")),
        ("decision", ("inputs", 0, "value"), nested(400)),
        ("decision", ("inputs", 0, "value"), nested(900)),
        ("decision", ("explain",), [{"rule": "refunds", "clauses": [{"saw": {"x": float("inf")}}]}]),
        ("decision", ("rules",), [1, {}]),
        ("decision", ("outcome",), {}),
        ("decision", ("obligations",), [{"id": "x"}]),
        ("decision", ("obligations",), [7]),
        ("decision", ("meta",), {"more": {"/rules": "x"}}),
        ("effect", ("effect", "dur_us"), 10**400),
        ("effect", ("effect", "dur_us"), -1),
        ("effect", ("type",), {}),
    ],
)
def test_a_hostile_record_stops_no_reader(
    kind: str, place: tuple[str | int, ...], value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a record holds where another type belongs, no command ends in a traceback."""
    written(tmp_path / "log")
    tree = first(tmp_path / "log", kind)
    own = tree
    for step in place[:-1]:
        own = own[step]  # type: ignore[index]
    own[place[-1]] = value  # type: ignore[index]
    path = one(tmp_path / "one.jsonl", tree)
    (tmp_path / "new.authz").write_text('permit refunds on shop.refund when args.amount <= 5 and args.order == "x"\n')
    assert all(
        ran(capsys, *argv).code in range(5)
        for argv in (
            ("show", "conversation-7", path),
            ("query", path),
            ("tail", path),
            ("export", path, "--format", "ocsf"),
            ("explain", tree["id"], path, "--policy", tmp_path / "new.authz"),
            ("explain", tree["id"], path),
            ("replay", path, "--policy", tmp_path / "new.authz"),
        )
    )
    [stream] = [each for each in (tmp_path / "log").iterdir() if each.is_dir()]
    one(stream / "000000000000.ndjson", tree)
    with contextlib.suppress(InvalidArgument):  # there may be nothing of the session
        assert report(tmp_path / "log", "conversation-7").startswith("<!doctype html>")


def test_an_input_that_comes_twice_is_no_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that gives one place two values isn't replayable: nobody knows which one the decision saw."""
    written(tmp_path / "log")
    tree = first(tmp_path / "log", "decision")
    (tmp_path / "same.authz").write_text(POLICY)
    assert ran(capsys, "replay", one(tmp_path / "a.jsonl", tree), "--policy", tmp_path / "same.authz").code == 0
    tree["inputs"].append({"name": "args.amount", "state": "value", "value": 5})
    found = ran(capsys, "replay", one(tmp_path / "a.jsonl", tree), "--policy", tmp_path / "same.authz")
    assert (found.code, "not replayable: 1" in found.out) == (2, True)


def test_a_report_shows_no_text_that_is_not_of_the_digest(tmp_path: Path) -> None:
    """A page shows the text of policies only if it has the digest that decided."""
    written(tmp_path / "log")
    assert "permit refunds" in report(tmp_path / "log", "conversation-7")
    [path] = logs.segments(tmp_path / "log")
    path.write_bytes(path.read_bytes().replace(b"args.amount <= 1000 because", b"args.amount <= 9999 because"))
    page = report(tmp_path / "log", "conversation-7")
    assert "args.amount &lt;= 9999 because" not in page
    assert "The text of P1 can&#x27;t be shown: the recorded text of the policies" in page


# ---- what commands come to


def shell(line: str, *argv: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell's line, in which `$@` is the command."""
    program = ["bash", "-c", f"set -o pipefail; {line}", "bash", sys.executable, "-m", "agentauthz", "records"]
    own = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run([*program, *map(str, argv)], capture_output=True, env=own, check=False, timeout=60)


def test_a_report_reads_so_much_policy_text_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log with policies of any number and size costs bounded time; what isn't read is said, and not shown."""
    written(tmp_path / "log")
    [path] = logs.segments(tmp_path / "log")
    policy, decided = first(tmp_path / "log", "policy"), first(tmp_path / "log", "decision")
    forged = []
    monkeypatch.setattr("agentauthz.replay.clauses.MAX_TEXT", 50_000)
    for number in range(10):
        digest = f"sha256:{number:064x}"
        text = "".join(f"permit a{i} on shop.x{number}.a{i} when args.amount <= {i}\n" for i in range(500))
        forged.append(
            {**policy, "policy": {"digest": digest, "source": 0, "name": "a", "part": 1, "parts": 1, "text": text}}
        )
        forged.append({**decided, "id": f"{number:026}", "policy": {**decided["policy"], "digest": digest}})
    path.write_bytes(b"".join(json.dumps(each).encode() + b"\n" for each in forged))
    found = report(tmp_path / "log", "conversation-7")
    assert found.count("more than 50,000 characters") == 2 * 9  # told of each policy set, and of each decision


def test_nobody_reading_makes_no_ok(tmp_path: Path) -> None:
    """A tampered log exits with 1 whether or not somebody reads what is said, and with outputs that are closed."""
    sealed(tmp_path, 3)
    [path] = logs.segments(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"allow"', b'"denys"'))
    for line in ('"$@" | true', '"$@" >&-', '"$@" 2>&-', '"$@" >&- 2>&-'):
        found = shell(line, "verify", tmp_path)
        assert (found.returncode, found.stderr) == (1, b""), line
    assert shell('"$@" 2>&-', "verify", tmp_path / "none").returncode == 4


def test_an_encoding_without_a_character_gets_its_escape(tmp_path: Path) -> None:
    """A terminal that isn't of UTF-8 gets escapes for what it lacks, and the exit code stays."""
    written(tmp_path / "log")
    (tmp_path / "new.authz").write_text("permit refunds on shop.refund when args.amount > 999\n")
    found = shell(
        '"$@"', "replay", tmp_path / "log", "--policy", tmp_path / "new.authz", "--show", 1, PYTHONIOENCODING="ascii"
    )
    assert (found.returncode, found.stderr) == (1, b"")
    assert b"\\u2026 and 1 more" in found.stdout


def test_mistakes_are_told_on_the_error_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed for others to read holds no usage, and an argument that isn't UTF-8 is no crash."""
    found = ran(capsys, "export", tmp_path, "--format", "x")
    assert (found.code, found.out) == (4, "")
    written(tmp_path / "log")
    found = ran(capsys, "explain", "\udcff", tmp_path / "log")
    assert (found.code, found.err) == (4, f"agentauthz: `ID` is of no decision in `{tmp_path / 'log'}`: \\udcff\n")


def test_explaining_tells_a_lie_from_an_account(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A decision that its own policies would not have made isn't explained, nor one of two with the same id."""
    written(tmp_path / "log")
    tree = first(tmp_path / "log", "decision")
    assert ran(capsys, "explain", tree["id"], tmp_path / "log").code == 0
    [path] = logs.segments(tmp_path / "log")
    lines = path.read_bytes()
    honest = next(line for line in lines.splitlines(keepends=True) if tree["id"].encode() in line)
    lie = honest.replace(b'"outcome":"allow"', b'"outcome":"deny"')
    path.write_bytes(lines.replace(honest, lie))
    found = ran(capsys, "explain", tree["id"], tmp_path / "log")
    assert (found.code, "not replayable: derived again, it comes out in another way" in found.out) == (2, True)
    path.write_bytes(lines + lie)
    found = ran(capsys, "explain", tree["id"], tmp_path / "log")
    assert (found.code, "several decisions" in found.err) == (4, True)
    path.write_bytes(lines + honest)
    assert ran(capsys, "explain", tree["id"], tmp_path / "log").code == 0


# ---- sinks that lie, and logs that stop those who keep them


class Waiting:
    """Be a sink that somebody wrote for an event loop: its `append` does nothing before it is awaited."""

    async def append(self, line: bytes, record: Record) -> None:
        """Never get here."""

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("put", [lambda one: one, tee, lambda one: at_least(1, one), lambda one: only(bool, one)])
def test_an_append_that_must_be_awaited_keeps_nothing(put: Callable[[Any], Any]) -> None:
    """A sink whose `append` is a coroutine function keeps no record, so the call is denied, wherever it stands."""
    policies = PolicySet.parse("permit a on x when true")
    with Authorizer(policies, sinks=[put(Waiting())]) as authorizer, authorizer.session(MARIA, BOT) as session:
        assert session.decide("x").basis is Basis.ERROR


def test_checking_a_sink_finds_an_append_that_must_be_awaited() -> None:
    """`check_sink` names what such a sink, or one that ends the program, does."""
    with pytest.raises(AssertionError, match="append raises SinkError"):
        check_sink(Waiting)  # type: ignore[arg-type]

    class Leaving(Waiting):
        def append(self, line: bytes, record: Record) -> None:  # type: ignore[override]
            raise SystemExit

    with pytest.raises(AssertionError, match="append raises SystemExit"):
        check_sink(Leaving)


@pytest.mark.parametrize("idle", [float("inf"), 1e12, float("nan"), 0])
def test_a_time_that_no_clock_has_is_refused(idle: float, tmp_path: Path) -> None:
    """Seconds that a thread can't wait for are refused at once, rather than ending the thread that signs."""
    with pytest.raises(InvalidArgument, match="checkpoint_idle"):
        FileSink(tmp_path, key=SIGNER, checkpoint_idle=idle)


@pytest.mark.parametrize("rest", ['"type":"x" junk', '"type":"x","id":"i","ts":"2026-01-01T00:00:00"}'])
def test_a_line_that_is_no_record_keeps_its_segment(rest: str, tmp_path: Path) -> None:
    """Pruning and shipping stop at a chained line that is no record, with an error of the library's own at most."""
    sealed(tmp_path, 3)
    followed(left_open(tmp_path), rest)
    later = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
    assert ran_prune(tmp_path, later) == 0
    shipper = Shipper(tmp_path, MemorySink(), tmp_path / "state", batch=1)
    with pytest.raises(SinkError, match="see `agentauthz records verify`"):
        shipper.gone_before()


def ran_prune(folder: Path, before: dt.datetime) -> int:
    """Prune a log by a sink of its own."""
    sink = FileSink(folder)
    try:
        return sink.prune(before)
    finally:
        sink.close()


@pytest.mark.parametrize("caused", [False, True])
def test_many_streams_are_put_in_order_in_seconds(caused: bool) -> None:
    """Thousands of streams of one record, whose causes even go round in a circle, are put in order quickly."""
    count, base = 6_000, decision().as_dict()
    some = []
    for i in range(count):
        own = {"id": f"D{i:05}", "stream": f"S{i:025}", "ctx": {"parent": f"D{(i + 1) % count:05}"} if caused else {}}
        some.append(cast("DecisionRecord", read_record(json.dumps({**base, **own}).encode())))
    began = time.monotonic()
    found = [record.id for record in ordered(some)]
    assert time.monotonic() - began < 15
    ids = [f"D{i:05}" for i in range(count)]
    # a circle is broken at its earliest record, which everything else then leads to
    assert found == ([ids[0], *reversed(ids[1:])] if caused else ids)
