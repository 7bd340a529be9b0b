"""Test the command line: what it prints, and the exit codes that scripts rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import agentauthz.replay
from agentauthz import Authorizer, Denied, PolicySet, Principal, ReviewRequired
from agentauthz.cli import GROUPS, main
from agentauthz.records import FileSink
from tests.approving import LEAD
from tests.support import BOT, MARIA, Recorded

POLICY = 'permit small on pay.refund when args.amount <= 100 because "Up to 100"\n'
REVIEWED = "permit p on t.x when true\nreview r on t.x when true by approver != subject"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the folder of a log with three decisions."""
    folder = tmp_path / "log"
    authorizer = Authorizer(PolicySet.parse(POLICY), sinks=[FileSink(folder)])
    for amount in (10, 99, 150):
        authorizer.session(MARIA, BOT).decide("pay.refund", args={"amount": amount, "to": "\x1b[31m"})
    authorizer.close()
    return folder


def run(*arguments: object) -> int:
    """Return the exit code of a command."""
    try:
        return main([str(one) for one in arguments])
    except SystemExit as left:
        return int(left.code or 0)


def policy(folder: Path, text: str) -> Path:
    """Return the path of a policy file."""
    path = folder / "new.authz"
    path.write_text(text)
    return path


def ids(log: Path) -> list[str]:
    """Return the ids of the decisions, in order."""
    lines = [json.loads(line) for file in sorted(log.glob("*/*.ndjson")) for line in file.read_bytes().splitlines()]
    return [tree["id"] for tree in lines if tree["type"] == "decision"]


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        (POLICY, 0, "the same: 3"),
        (POLICY.replace("100", "200"), 1, "newly allowed: 1"),
        ("forbid f on pay.refund\n" + POLICY, 1, "newly denied: 2"),
        ("permit p on pay.refund when context.x", 2, "`context.x` isn't in the record: 3"),
    ],
)
def test_replay_exits_by_what_it_found(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, told: str
) -> None:
    """0: all the same; 1: some change; 2: none does, but some can't be replayed."""
    assert run("records", "replay", "--policy", policy(tmp_path, text), log) == code
    assert told in capsys.readouterr().out


def test_replay_reads_and_writes_parquet(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log that was exported to Parquet tells the same as the log, from a file or a folder, in a pool too."""
    new = policy(tmp_path, POLICY.replace("100", "200"))
    (tmp_path / "lines").mkdir()
    exported = tmp_path / "lines" / "part.parquet"
    assert run("records", "export", log, "--format", "parquet", "--output", exported) == 0
    assert run("records", "replay", "--policy", new, log) == 1
    told = capsys.readouterr().out
    for path, options in (
        (log, ["--workers", 2]),
        (exported, []),
        (exported.parent, ["--output", tmp_path / "o.parquet"]),
    ):
        assert run("records", "replay", "--policy", new, path, *options) == 1
        assert capsys.readouterr().out == told
    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert [(row["state"], row["kind"], row["rules"]) for row in rows] == [
        ("same", None, None), ("same", None, None), ("changed", "newly allowed", ["small"]),
    ]  # fmt: skip


def test_without_pyarrow_the_extra_is_named(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines are replayed without it; Parquet and pools say what they need."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("batches", "parquet"):  # other tests may have loaded them
        monkeypatch.delitem(sys.modules, f"agentauthz.replay.{name}", raising=False)
        monkeypatch.delattr(agentauthz.replay, name, raising=False)
    new = policy(tmp_path, POLICY)
    assert run("records", "replay", "--policy", new, log) == 0
    (tmp_path / "x.parquet").write_bytes(b"")
    for path, options in ((log, ["--workers", 2]), (tmp_path / "x.parquet", []), (log, ["--output", tmp_path / "o"])):
        assert run("records", "replay", "--policy", new, path, *options) == 4
    assert run("records", "export", log, "--format", "parquet", "--output", tmp_path / "o") == 4
    assert "pyarrow" in capsys.readouterr().err


def test_explain_uses_the_recorded_text(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The clauses come from the policy text in the log, where the sink wrote it; `--policy` gives another one."""
    assert run("records", "explain", ids(log)[2], log) == 0
    shown = capsys.readouterr().out
    assert "false: args.amount <= 100   [args.amount = 150]" in shown
    assert 'user("maria") -> agent("bot")' in shown


def test_explain_tells_an_allow_too(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of an allow the record holds no clauses: they are derived from the recorded text, with what would deny it."""
    assert run("records", "explain", ids(log)[0], log) == 0
    shown = capsys.readouterr().out
    for told in (
        "recorded: allow (rule) under sha256:", "pay.refund: allow (rule)", "because Up to 100", "permit small: true",
        "true: args.amount <= 100   [args.amount = 10]",
        "it would be denied if `args.amount <= 100` were false, as with args.amount = 101",
    ):  # fmt: skip
        assert told in shown


def test_explain_tells_what_would_turn_a_denial(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The smallest change that would have allowed it, with the value that would have done it."""
    run("records", "explain", ids(log)[2], log)
    told = "it would be allowed if `args.amount <= 100` were true, as with args.amount = 100"
    assert told in capsys.readouterr().out


def test_explain_tells_what_the_policies_do_not_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That an approval was used already is a reason that no clause has: it is told as the record says it."""
    authorizer = Authorizer(PolicySet.parse(REVIEWED), sinks=[FileSink(tmp_path)])
    session = authorizer.session(MARIA, BOT)
    with pytest.raises(ReviewRequired) as asked:
        session.authorize("t.x")
    review = asked.value.review
    assert review is not None
    authorizer.approvals.approve(review.id, LEAD)
    review.retry()
    with pytest.raises(Denied):
        review.retry()
    authorizer.close()
    for one, told in zip(ids(tmp_path), ([], [], ["  it said: the approval was used already"]), strict=True):
        assert run("records", "explain", one, tmp_path) == 0
        assert [line for line in capsys.readouterr().out.splitlines() if "it said" in line] == told


def test_explain_does_not_explain_what_did_not_come(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record whose own policies come to something else than it says isn't explained by them."""
    [path] = log.glob("*/*.ndjson")
    path.write_bytes(
        path.read_bytes().replace(b'"outcome":"deny","basis":"default"', b'"outcome":"allow","basis":"rule"')
    )
    assert run("records", "explain", ids(log)[2], log) == 2
    shown = capsys.readouterr().out
    assert "not replayable: derived again, it comes out in another way" in shown
    assert "would be" not in shown


def test_explain_says_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the policy's text, only what the record says is told, with exit code 2; another text may be given."""
    kept = Recorded(POLICY)
    kept.session(actor=Principal.agent("b\x1b[31m")).decide("pay.refund", args={"amount": 500})
    (tmp_path / "some.jsonl").write_bytes(kept.decisions[0].line())
    assert run("records", "explain", kept.decisions[0].id, tmp_path) == 2
    shown = capsys.readouterr().out
    assert "isn't among the records" in shown
    assert "\x1b" not in shown
    path = policy(tmp_path, POLICY)
    assert run("records", "explain", kept.decisions[0].id, tmp_path / "some.jsonl", "--policy", path) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["records"],
        ["records", "replay", "PATH"],
        ["records", "replay", "--policy", "nowhere.authz", "PATH"],
        ["records", "replay", "--policy", "NEW", "EMPTY"],
        ["records", "replay", "--policy", "NEW", "nowhere"],
        ["records", "replay", "--policy", "NEW", "PARQUET"],
        ["records", "replay", "--policy", "NEW", "nowhere.parquet"],
        ["records", "export", "PATH", "--format", "parquet"],
        ["records", "export", "PATH", "--format", "ocsf", "--output", "x"],
        ["records", "explain", "no-such-id", "PATH"],
    ],
)
def test_a_wrong_call_exits_with_4(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """A missing argument, path, policy or record: one line on stderr, nothing on stdout but usage."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd.parquet").write_bytes(b"no Parquet")
    places = {
        "PARQUET": tmp_path / "odd.parquet",
        "PATH": log,
        "NEW": policy(tmp_path, POLICY),
        "EMPTY": tmp_path / "empty",
    }
    assert run(*(places.get(one, one) for one in arguments)) == 4
    assert capsys.readouterr().err.splitlines()[-1].startswith("agentauthz")


def test_a_line_that_is_still_being_written_is_none(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reader that comes while a writer appends sees whole lines only."""
    [file] = log.glob("*/*.ndjson")
    with file.open("ab") as lines:
        lines.write(b'{"v":"1.0","str')
    assert run("records", "replay", "--policy", policy(tmp_path, POLICY), log) == 0


def test_the_module_runs() -> None:
    """`python -m agentauthz` is the same command, and each command has a line of help."""
    for group, (_, commands) in GROUPS.items():
        done = subprocess.run([sys.executable, "-m", "agentauthz", group, "-h"], capture_output=True, check=True)
        for name, command in commands.items():
            assert command.__doc__
            assert name in done.stdout.decode()
