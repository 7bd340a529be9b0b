"""The command `records verify`: exit codes, the first thing that is wrong, and what is proven."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests import logs
from tests.commands import ran, written
from tests.faults.logged import VKEY, run, sealed


def _kept(folder: Path, notes: list[str]) -> Path:
    path = folder / "witness.txt"
    path.write_text("\n".join(notes), encoding="utf-8")
    return path


def test_ok_needs_a_witness(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A clean log is `ok` with a witness's checkpoint only; without, it exits as one that may be incomplete."""
    notes = _kept(tmp_path, written(tmp_path / "log"))
    found = ran(capsys, "verify", tmp_path / "log", "--checkpoint", notes, "--key", VKEY)
    assert found.code == 0
    assert found.out.startswith("ok: every record up to the witnessed checkpoints")
    assert "exposed: 0 records that no witness has seen" in found.out
    found = ran(capsys, "verify", tmp_path / "log")
    assert found.code == 2
    assert found.out.startswith("unwitnessed: ")
    assert "nobody can tell whether the end is missing" in found.out
    size = len(logs.lines(tmp_path / "log"))
    assert f"signed: 0 of {size}; witnessed: 0 of {size}\n    exposed: {size} records" in found.out


def test_an_edited_record_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tampering exits with 1 and names the class, stream, number, file and offset of the first bad record."""
    notes = _kept(tmp_path, sealed(tmp_path / "log"))
    [path] = logs.segments(tmp_path / "log")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], lines[5].replace(b"allow", b"denys"), *lines[6:]]))
    found = ran(capsys, "verify", tmp_path / "log", "--checkpoint", notes, "--key", VKEY)
    assert found.code == 1
    offset = len(b"".join(lines[:5]))
    expected = f"first: edited: stream {path.parent.name}, record 5, at byte {offset} of {path.name}: "
    assert expected in found.out
    assert "; damaged\n" in found.out


def test_a_cut_log_is_incomplete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log whose end was cut off exits with 2, by what the witness kept."""
    notes = _kept(tmp_path, sealed(tmp_path / "log"))
    [path] = logs.segments(tmp_path / "log")
    (tmp_path / "log" / "catalog.ndjson").unlink()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))
    found = ran(capsys, "verify", tmp_path / "log", "--checkpoint", notes, "--key", VKEY)
    assert found.code == 2
    assert found.out.startswith("incomplete: ")
    assert "first: truncated: " in found.out


def test_a_crash_is_recovered_and_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a dying writer tore off exits with 3."""
    run(
        """
        import os, sys
        from tests.faults.logged import append
        from agentauthz.records import FileSink
        sink = FileSink(sys.argv[1])
        append(sink, "0" * 26)
        with open(sink.path, "ab") as file:
            file.write(b'{"v":"1.0","str')
        os._exit(0)
        """,
        tmp_path / "log",
    )
    found = ran(capsys, "verify", tmp_path / "log")
    assert found.code == 3
    assert "first: torn: " in found.out


def test_a_wrong_call_is_told_from_a_damaged_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that isn't there, a key that is none, and no arguments all exit with 4."""
    for argv in (("verify", tmp_path / "none"), ("verify", tmp_path, "--key", "x"), ("verify",)):
        assert ran(capsys, *argv).code == 4
    assert ran(capsys, "verify", tmp_path).out.splitlines()[-1] == "proven: nothing, for there is no stream"


def test_names_in_a_log_are_never_obeyed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What an attacker wrote into the catalog comes out as escapes."""
    sealed(tmp_path / "log", 1)
    hostile = {"prev": "0" * 64, "what": "opened", "stream": "\x1b[2J\nok: all is well\u202e"}
    with (tmp_path / "log" / "catalog.ndjson").open("a", encoding="utf-8") as file:
        file.write(json.dumps(hostile) + "\n")
    found = ran(capsys, "verify", tmp_path / "log")
    assert found.code == 1
    assert "\\u001b[2J\\u000aok: all is well\\u202e" in found.out
    shutil.rmtree(tmp_path / "log")
