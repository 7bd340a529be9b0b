"""The command `records verify`: exit codes, the first thing that is wrong, and what is proven."""

from __future__ import annotations

import importlib
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agentauthz.records.checkpoints import vkey
from tests import logs
from tests.commands import ran, written
from tests.faults.logged import SIGNER, VKEY, run, sealed
from tests.golden import ROOT
from tests.loopback import Loopback, answer


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


def test_a_key_of_another_name_is_told_by_what_was_signed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever named the key in another way than the log does is told how the log is signed; so for a file in error."""
    notes = _kept(tmp_path, written(tmp_path / "log"))
    name, key = "agentauthz/local", vkey(SIGNER, "other")
    found = ran(capsys, "verify", tmp_path / "log", "--checkpoint", notes, "--key", key)
    assert (found.code, found.out) == (4, "")
    assert f"signed under its name: those here are signed as `{name}`" in found.err
    found = ran(capsys, "verify", tmp_path / "log", "--key", key)
    assert found.code == 1
    assert f"by a key that isn't trusted, as `{name}`" in found.out
    (tmp_path / "empty").write_text("")
    found = ran(capsys, "verify", tmp_path / "log", "--checkpoint", tmp_path / "empty", "--key", key)
    assert "there are none here" in found.err
    found = ran(capsys, "verify", tmp_path / "log", "--checkpoint", tmp_path / "none", "--key", key)
    assert "`checkpoint` can't be read: No such file" in found.err


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


def test_a_moment_that_utc_has_not_is_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At the ends of the calendar a moment can have no equal in UTC: that is a wrong call, and told as one."""
    sealed(tmp_path)
    for text in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        found = ran(capsys, "verify", tmp_path, "--since", text)
        assert found.code == 4
        assert f"not `{text}`" in found.err


def test_a_mistake_of_ours_is_no_tampering(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody expected ends with the code of a wrong call, and shows where it happened, without what is obeyed."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("\x1b[31m")

    monkeypatch.setattr(importlib.import_module("agentauthz.cli.verify"), "verified", broken)
    found = ran(capsys, "verify", tmp_path)
    assert (found.code, found.out) == (4, "")
    assert "Traceback" in found.err


def _command(*argv: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a script would."""
    command = [sys.executable, "-m", "agentauthz", "records", "verify", *map(str, argv)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, env=environment, check=False, text=True, cwd=ROOT, timeout=60)


def test_the_exit_codes_of_the_command_itself(tmp_path: Path) -> None:
    """A process that runs it ends with 0 ok, 1 tampered, 2 incomplete or unwitnessed, 3 recovered, 4 usage."""
    notes = _kept(tmp_path, sealed(tmp_path / "log"))
    held = ("--checkpoint", notes, "--key", VKEY)
    [path] = logs.segments(tmp_path / "log")
    whole = path.read_bytes()
    assert _command(tmp_path / "log", *held).returncode == 0
    assert _command(tmp_path / "log").returncode == 2
    path.write_bytes(whole.replace(b"allow", b"denys", 1))
    assert _command(tmp_path / "log", *held).returncode == 1
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert _command(tmp_path / "log", *held).returncode == 2
    (tmp_path / "log" / "catalog.ndjson").unlink()
    path.write_bytes(whole + b'{"v":"1.0","str')
    assert _command(tmp_path / "log", *held).stdout.startswith("incomplete: ")  # the catalog is missing
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
        tmp_path / "died",
    )
    assert _command(tmp_path / "died").returncode == 3
    for argv in ((tmp_path / "none",), (tmp_path / "log", "--key", "x"), (), (tmp_path / "log", "--since", "noon")):
        done = _command(*argv)
        assert done.returncode == 4
        assert "Traceback" not in done.stderr


def test_checkpoints_from_an_address(tmp_path: Path) -> None:
    """`--checkpoint` takes an address too, and may be repeated; one that can't be had is usage, told in a sentence."""
    notes = sealed(tmp_path / "log", checkpoint_every=5)
    with Loopback(answer("\n".join(notes).encode(), content_type="text/plain")) as server:
        first = _kept(tmp_path, notes[:1])
        held = ("--checkpoint", first, "--checkpoint", server.url, "--key", VKEY)
        assert _command(tmp_path / "log", *held).returncode == 0
        server.answer = answer({}, 302, location="https://elsewhere.example/")
        done = _command(tmp_path / "log", *held)
        assert done.returncode == 4
        assert done.stderr == "agentauthz: `checkpoint` can't be had from its address: it answered 302\n"
    assert _command(tmp_path / "log", "--checkpoint", "http://witness.example/", "--key", VKEY).returncode == 4


def test_since_says_what_was_not_looked_at(tmp_path: Path) -> None:
    """With `--since` the first line and the stream's own lines say plainly where verification began."""
    notes = _kept(tmp_path, sealed(tmp_path / "log", segment_size=2_000))
    last = logs.segments(tmp_path / "log")[-1]
    done = _command(tmp_path / "log", "--checkpoint", notes, "--key", VKEY, "--since", "2126-01-01T00:00:00Z")
    assert done.returncode == 0
    assert done.stdout.startswith("ok since 2126-01-01T00:00:00+00:00: ")
    assert f"verified from record {int(last.stem)}: what is before was not looked at, and a checkpoint" in done.stdout


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


@pytest.mark.parametrize("rich", [True, False])
def test_long_work_shows_itself_in_a_terminal_only(rich: bool, tmp_path: Path) -> None:
    """A terminal sees that work goes on, where rich is installed; what is printed is the same with and without."""
    sealed(tmp_path / "log", 1)
    ours, theirs = pty.openpty()
    hidden = "" if rich else "sys.modules['rich.console'] = None; "
    code = f"import sys; {hidden}from agentauthz.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "records", "verify", str(tmp_path / "log")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=environment, check=False, text=True)
    os.write(theirs, b".")  # so that there is something to read
    shown = os.read(ours, 65_536)
    os.close(ours)
    os.close(theirs)
    assert (b"verifying" in shown) == rich
    assert done.stdout.startswith("unwitnessed: ")
    assert done.returncode == 2
