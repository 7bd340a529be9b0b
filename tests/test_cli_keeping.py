"""The commands that watch and keep a log: `records tail`, `records prune` and `records repair`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentauthz.records import EventRecord, FileSink, read_record
from agentauthz.records.follow import Follower
from agentauthz.records.verify import Verdict
from agentauthz.records.words import record_line
from tests import logs
from tests.commands import ran, written
from tests.faults.logged import VKEY, append, checked, run, sealed
from tests.golden import ROOT


def test_tail_prints_the_last_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last N come out in the order of time, from all streams, and none with 0."""
    written(tmp_path / "log")
    written(tmp_path / "log", "later")
    found = ran(capsys, "tail", tmp_path / "log", "-n", 4)
    assert found.code == 0
    last = sorted(logs.records(tmp_path / "log"), key=lambda each: each.ts)[-4:]
    assert found.out.splitlines() == [record_line(each) for each in last]
    assert len(ran(capsys, "tail", tmp_path / "log").out.splitlines()) == 10
    assert ran(capsys, "tail", tmp_path / "log", "-n", 0).out == ""
    assert len(ran(capsys, "tail", tmp_path / "log", "-n", 1_000).out.splitlines()) == len(logs.lines(tmp_path / "log"))
    assert ran(capsys, "tail", tmp_path / "none").code == 4


def test_what_is_added_comes_out_once(tmp_path: Path) -> None:
    """New lines, segments and streams are noticed; a part of a line isn't returned before its end."""
    sink = FileSink(tmp_path, segment_size=2_000)
    follower = Follower(tmp_path)
    seen = follower.last(100)
    for number in range(12):
        append(sink, f"{number:026}")
        seen += follower.new()
    other = FileSink(tmp_path)
    seen += follower.new()
    path = other.path
    with path.open("ab") as file:
        file.write(b'{"half":')
        file.flush()
        assert follower.new() == []
        file.write(b"1}\n")
    seen += follower.new()
    assert follower.new() == []
    assert len(logs.segments(tmp_path)) > 3
    assert sorted(seen) == sorted(logs.lines(tmp_path))


def test_following_begins_near_the_end_of_a_long_log(tmp_path: Path) -> None:
    """The last lines of a long file are whole, and the rest isn't read."""
    path = tmp_path / "long.ndjson"
    path.write_bytes(b"".join(b'{"v":"1.0","ts":"%06d","pad":"%b"}\n' % (i, b"x" * 900) for i in range(500)))
    assert [line[17:23] for line in Follower(path).last(3)] == [b"000497", b"000498", b"000499"]


def test_tail_follows_until_it_is_interrupted(tmp_path: Path) -> None:
    """With -f each new record is printed while the writer goes on; an interrupt ends it with 0."""
    sink = FileSink(tmp_path)
    command = [sys.executable, "-m", "agentauthz", "records", "tail", str(tmp_path), "-f", "-n", "1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as tail:
        assert tail.stdout is not None
        assert "stream.open" in tail.stdout.readline()
        append(sink, f"{7:026}")
        assert f"{7:026}" in tail.stdout.readline()
        time.sleep(0.1)
        tail.send_signal(signal.SIGINT)
        assert tail.wait(30) == 0
    sink.close()


def test_prune_says_what_goes_and_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run changes nothing; then whole segments go, it is recorded, and the rest is still proven."""
    notes = sealed(tmp_path / "log", 40, segment_size=8_000)
    before = {path: path.read_bytes() for path in logs.segments(tmp_path / "log")}
    late = ("--before", "2100-01-01T00:00:00Z")
    found = ran(capsys, "prune", tmp_path / "log", *late, "--dry-run")
    assert (found.code, found.out.splitlines()[-1]) == (0, f"{len(before)} segments would go")
    assert {path: path.read_bytes() for path in logs.segments(tmp_path / "log")} == before
    assert ran(capsys, "prune", tmp_path / "log", "--before", "2000-01-01T00:00:00Z").out == "0 segments went\n"
    found = ran(capsys, "prune", tmp_path / "log", *late)
    assert (found.code, found.out.splitlines()[-1]) == (0, f"{len(before)} segments went")
    assert not any(path.exists() for path in before)
    records = [each for each in logs.records(tmp_path / "log") if isinstance(each, EventRecord)]
    assert "log.pruned" in {each.type for each in records}
    assert checked(tmp_path / "log", notes).verdict is Verdict.UNWITNESSED  # the stream that says so has no witness


def test_prune_keeps_what_is_damaged_or_unseen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a witness's checkpoint only what it covers goes; a damaged stream stays, and exits with 1."""
    sealed(tmp_path / "log", 40, segment_size=8_000)
    (tmp_path / "other").mkdir()
    (tmp_path / "witness").write_text("\n".join(sealed(tmp_path / "other")), encoding="utf-8")
    late = ("--before", "2100-01-01T00:00:00Z")
    kept = ("--checkpoint", tmp_path / "witness", "--key", VKEY)
    assert ran(capsys, "prune", tmp_path / "log", *late, *kept, "--dry-run").out.endswith("0 segments would go\n")
    path = logs.segments(tmp_path / "log")[0]
    path.write_bytes(path.read_bytes().replace(b"allow", b"denys", 1))
    found = ran(capsys, "prune", tmp_path / "log", *late)
    assert found.code == 1
    assert found.out.startswith("stays, for it is damaged: edited: ")
    assert path.exists()
    for argv in (("prune", tmp_path / "log"), ("prune", tmp_path / "none", *late), ("prune", path, "--before", "now")):
        assert ran(capsys, *argv).code == 4
    assert not (tmp_path / "none").exists()


def test_repair_ends_what_dead_writers_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run says what is torn and changes nothing; then the stream is ended, and nothing is left to do."""
    code = """
        import os, sys
        from tests.faults.logged import append
        from agentauthz.records import FileSink
        sink = FileSink(sys.argv[1])
        append(sink, "0" * 26)
        with open(sink.path, "ab") as file:
            file.write(b'{"v":"1.0","str')
        os._exit(0)
    """
    run(code, tmp_path)
    [path] = logs.segments(tmp_path)
    torn = path.read_bytes()
    found = ran(capsys, "repair", tmp_path, "--dry-run")
    assert found.code == 1
    assert (
        found.out == f"{path.parent.name}: its writer died, and left 15 bytes of a torn line\n1 stream would be ended\n"
    )
    assert path.read_bytes() == torn
    assert ran(capsys, "repair", tmp_path).out.endswith("1 stream ended\n")
    assert torn.startswith(path.read_bytes())
    assert path.read_bytes().endswith(b"\n")
    recovered = [
        each for each in logs.records(tmp_path) if isinstance(each, EventRecord) and each.type == "stream.recovered"
    ]
    assert [each.about["bytes"] for each in recovered] == [15]
    assert ran(capsys, "repair", tmp_path, "--dry-run").code == 0
    assert ran(capsys, "repair", tmp_path / "none").code == 4


def test_repair_leaves_living_writers_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stream that is written now isn't ended."""
    sink = FileSink(tmp_path)
    assert ran(capsys, "repair", tmp_path, "--dry-run") == (0, "0 streams would be ended\n", "")
    append(sink, f"{1:026}")
    sink.close()
    assert read_record(logs.lines(tmp_path)[-1]).seq == 2
