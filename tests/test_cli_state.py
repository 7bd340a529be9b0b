"""The commands `state init`, `show`, `revoke`, `halt`, `resume` and `prune`, against a real server."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import pytest

from agentauthz import InstanceKey
from agentauthz.cli import main, state
from agentauthz.cli.stores import VARIABLE
from agentauthz.errors import SinkError
from agentauthz.records.verify import verify
from agentauthz.state import SqliteState
from agentauthz.state.postgres import PostgresState
from agentauthz.testing.trying import request
from tests.commands import Ran
from tests.logs import lines
from tests.postgres import Postgres

KEY = b"an instance key for tests, 32 B."
Run: TypeAlias = Callable[..., Ran]


@pytest.fixture
def run(postgres: Postgres, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs `agentauthz state …` on a database that isn't prepared; its password never comes out."""
    postgres.run("DROP SCHEMA IF EXISTS agentauthz CASCADE")
    monkeypatch.setenv(VARIABLE, postgres.dsn)

    def ran(*argv: str) -> Ran:
        try:
            code = main(["state", *argv])
        except SystemExit as end:
            code = int(str(end.code))
        out, err = capsys.readouterr()
        assert "CANARY" not in out + err
        return Ran(code, out, err)

    return ran


def test_a_database_is_prepared_once(run: Run, postgres: Postgres) -> None:
    """`init` prepares it, by an address or the environment; again, it says so; before, nothing else works."""
    found = run("show")
    assert (found.code, found.err) == (
        4,
        "agentauthz: the database isn't prepared: `agentauthz state init` does that\n",
    )
    assert run("init") == (0, "prepared, version 1\n", "")
    assert run("init", "--state", postgres.dsn) == (0, "it is prepared already, version 1\n", "")
    assert run("show").out.splitlines()[1:] == [
        "0 sessions, 0 budgets, 0 used keys", "0 requests for approval pending", "not halted",
    ]  # fmt: skip


def test_everything_is_halted_and_resumed(run: Run, postgres: Postgres) -> None:
    """A halt holds until it is resumed; what was revoked stays; every order has a number and tells why."""
    run("init")
    assert run("halt", "--reason", "an exfiltration").out == "1  halted\n"
    assert run("show").out.splitlines()[-1] == "halted"
    assert run("revoke", "--session", "s-1", "--reason", "stolen").out == "2  session s-1: revoked\n"
    assert run("revoke", "--principal", "agent:bot", "--reason", "odd").out == "3  principal agent:bot: revoked\n"
    found = run("revoke", "--principal", "maria", "--issuer", "https://idp.example", "--reason", "left")
    assert found.out == "4  principal user:maria of https://idp.example: revoked\n"
    assert run("revoke", "--token", "a" * 64, "--reason", "lost").out == f"5  token {'a' * 64}: revoked\n"
    assert run("resume", "--reason", "understood").out == "6  resumed\n"
    assert run("show").out.splitlines()[-1] == "not halted"
    with closing(PostgresState(postgres.dsn)) as store:
        assert [(made.kind, made.name, made.reason, made.lifts) for made in store.revocations(0)] == [
            ("everything", "", "an exfiltration", False),
            ("session", "s-1", "stolen", False),
            ("principal", '[null, "agent", "bot"]', "odd", False),
            ("principal", '["https://idp.example", "user", "maria"]', "left", False),
            ("token", "a" * 64, "lost", False),
            ("everything", "", "understood", True),
        ]


def test_old_state_is_pruned(run: Run, postgres: Postgres) -> None:
    """`prune` forgets what ended before a moment; named sessions only when that is asked for."""
    run("init")
    with closing(PostgresState(postgres.dsn)) as store:
        for name, keep in (("made up", False), ("named", True)):
            store.begin(name, store.now(), {}, keep=keep)
        later = (store.now() + dt.timedelta(seconds=1)).isoformat()
        gone = ", 0 budgets, 0 requests, 0 used keys\n"
        assert run("prune", "--before", later).out == f"forgot 1 session{gone}"
        assert run("prune", "--before", later, "--named").out == f"forgot 1 session{gone}"


@pytest.mark.parametrize(
    "argv",
    [
        ("prune", "--before", "2026-11-01", "--state", "nonsense CANARY"),
        ("show", "--state", "postgresql://u:CANARY@127.0.0.1:1/x"),
        ("revoke", "--session", "s", "--token", "a" * 64, "--reason", "r"),
        ("revoke", "--token", "CANARY", "--reason", "r"),
        ("revoke", "--session", "s"),
        ("revoke", "--session", "s", "--issuer", "i", "--reason", "r"),
        ("halt",),
        ("prune",),
    ],
)
def test_wrong_calls(run: Run, argv: tuple[str, ...]) -> None:
    """A wrong call exits with 4, does nothing, and tells neither a password nor a token."""
    assert run(*argv).code == 4
    run("init")
    assert run(*argv).code == 4
    assert run("show").out.splitlines()[-1] == "not halted"


def test_an_address_must_be_given(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address there is nothing to do."""
    monkeypatch.delenv(VARIABLE)
    assert run("show").err == f"agentauthz: `--state` must say where the state store is, or {VARIABLE} must\n"


@pytest.mark.parametrize("command", ["halt", "show"])
@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "POSTGRESQL", "mysql"])
def test_an_address_of_another_kind_is_not_told(
    scheme: str, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no store is behind may hold a password all the same; the message says what an address begins with."""
    monkeypatch.setenv(VARIABLE, f"{scheme}://app:CANARY@db.example/app")
    assert main(["state", command, *(["--reason", "r"] if command == "halt" else [])]) == 4
    said = capsys.readouterr()
    assert "CANARY" not in said.err + said.out
    assert "begins with `postgresql://`" in said.err


def test_an_order_leaves_a_record_in_the_log_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is in a stream of its own: what was ordered, why and by whom; the log verifies."""
    path, log, key = tmp_path / "state.db", tmp_path / "records", tmp_path / "key"
    SqliteState(path).close()
    log.mkdir()
    key.write_bytes(KEY)
    key.chmod(0o600)
    common = ["--state", str(path), "--records", str(log), "--reason", "an incident"]
    whose = ["--as", "olga", "--as-issuer", "https://id.example"]
    assert main(["state", "halt", *common, *whose]) == 0
    assert main(["state", "resume", *common]) == 0
    assert main(["state", "revoke", "--session", "s-1", *common, "--as", "service:watchdog"]) == 0
    assert main(["state", "revoke", "--principal", "agent:bot", *common]) == 0
    assert main(["state", "revoke", "--token", "a" * 64, "--instance-key", str(key), *common]) == 0
    trees = [json.loads(line) for line in lines(log)]
    told = [{**tree["about"], "in": tree.get("session")} for tree in trees if tree["type"] == "state"]
    digest = InstanceKey.from_bytes(KEY).digest("token", b"a" * 64)
    expected: list[dict[str, object]] = [
        {"kind": "halt", "by": {"sub": "olga", "kind": "user", "iss": "https://id.example"}},
        {"kind": "resume"},
        {"kind": "revoke", "of": "session", "in": "s-1", "by": {"sub": "watchdog", "kind": "service"}},
        {"kind": "revoke", "of": "principal", "id": 'agent("bot")'},
        {"kind": "revoke", "of": "token", "digest": digest},
    ]

    def order(each: dict[str, object]) -> str:
        return f"{each['kind']} {each.get('of')}"

    expected = [{"in": None, "reason": "an incident", **each} for each in expected]
    assert sorted(told, key=order) == sorted(expected, key=order)
    assert len({tree["stream"] for tree in trees if tree["type"] == "state"}) == 5
    report = verify(log)
    assert (report.verdict.value, len(report.damages)) == ("unwitnessed", 0)
    capsys.readouterr()


def test_a_log_that_fails_stops_no_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The brake works where the log can't be written: it holds, and the exit code and a message tell of the log."""
    path, log = tmp_path / "state.db", tmp_path / "records"
    store = SqliteState(path)
    log.mkdir()

    def full(folder: object) -> None:
        raise SinkError("the disk is full")

    monkeypatch.setattr(state, "FileSink", full)
    assert main(["state", "halt", "--state", str(path), "--records", str(log), "--reason", "r"]) == 4
    assert capsys.readouterr().err == "agentauthz: the order holds, but couldn't be recorded\n"
    assert [made.kind for made in store.revocations(0)] == ["everything"]
    store.close()


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (("halt", "--as", "olga"), "`--as` goes with --records"),
        (("halt", "--as-issuer", "i", "--records", "LOG"), "`--as-issuer` goes with --as"),
        (("halt", "--records", "NOWHERE"), "NOWHERE` isn't there: nothing was ordered"),
        (("revoke", "--token", "a" * 64, "--records", "LOG"), "`--instance-key` goes with"),
        (("revoke", "--principal", "agent:", "--records", "LOG"), "`id`"),
    ],
)
def test_a_wrong_call_orders_nothing(
    argv: tuple[str, ...], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can't be recorded as it was asked for isn't done; a folder that isn't there is never made."""
    store = SqliteState(tmp_path / "state.db")
    (tmp_path / "LOG").mkdir()
    given = [str(tmp_path / each) if each in ("LOG", "NOWHERE") else each for each in argv]
    assert main(["state", *given, "--state", str(tmp_path / "state.db"), "--reason", "r"]) == 4
    assert problem in capsys.readouterr().err
    assert list(store.revocations(0)) == []
    assert not (tmp_path / "NOWHERE").exists()
    store.close()


def test_a_file_is_halted_and_resumed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is stopped in a SQLite file stops whoever shares it; a file that isn't there is never made."""
    path = tmp_path / "state.db"
    store = SqliteState(path)
    for command in ("halt", "resume"):
        assert main(["state", command, "--state", str(path), "--reason", "a test"]) == 0
    assert main(["state", "revoke", "--state", str(path), "--principal", "agent:bot", "--reason", "a test"]) == 0
    told = [(each.kind, each.name, each.lifts) for each in store.revocations(0)]
    assert told == [("everything", "", False), ("everything", "", True), ("principal", '[null, "agent", "bot"]', False)]
    assert main(["state", "halt", "--state", str(tmp_path / "other.db"), "--reason", "a test"]) == 4
    assert main(["state", "show", "--state", str(tmp_path / "other.db")]) == 4
    assert not (tmp_path / "other.db").exists()
    assert capsys.readouterr().err.count("isn't there") == 2
    store.close()


def test_what_was_revoked_in_a_file_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who looks at a SQLite file sees whether all is halted, every order, and how many requests wait."""
    path = tmp_path / "state.db"
    for command in (["halt"], ["revoke", "--session", "s-1"]):
        with closing(SqliteState(path)) as store:
            store.ask(request(store, command[0]))
        assert main(["state", *command, "--state", str(path), "--reason", "a test"]) == 0
    capsys.readouterr()
    assert main(["state", "show", "--state", str(path)]) == 0
    clock, *told = capsys.readouterr().out.splitlines()
    assert clock.endswith(" by its clock")
    assert [line.split("  ")[-1] for line in told] == [
        "2 requests for approval pending", "halted: a test", "session s-1: a test", "halted",
    ]  # fmt: skip


def test_a_kind_that_is_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`bot:desk` revokes a user of that name: whoever meant an agent, which goes on, is told."""
    SqliteState(tmp_path / "state.db").close()
    common = ["--state", str(tmp_path / "state.db"), "--reason", "r"]
    for name, doubted in (("bot:desk", True), ("agent:desk", False), ("user:a:b", False), ("desk", False)):
        assert main(["state", "revoke", "--principal", name, *common]) == 0
        out = capsys.readouterr().out
        assert ("was taken for a user's whole id: a kind before the colon is one of" in out) is doubted
