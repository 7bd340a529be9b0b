"""Test that a person can be erased from what is kept beside the records, which stay as they were: row 41."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from agentauthz import Authorizer, PolicySet, Principal, Resource
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.keys import InstanceKey
from agentauthz.keys.signing import SigningKey
from agentauthz.records import EventRecord, FileSink, MemorySink
from agentauthz.records.checkpoints import vkey
from agentauthz.records.erasure import erase
from agentauthz.records.openings import Openings
from agentauthz.records.redaction import Shred
from agentauthz.records.verify import Verdict, verify
from tests import logs
from tests.commands import decisions, ran
from tests.support import BOT, MARIA

SECRET: Final = bytes(range(32))
KEY: Final = InstanceKey.from_bytes(SECRET)
SIGNER: Final = SigningKey.generate("Ed25519")
MARKER: Final = "SSN-1234-5678"
POLICIES: Final = PolicySet.parse('permit look on person.look when resource.ssn like "SSN*" and args.email != "x"')


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "instance.key"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log with decisions on Maria's and Bob's data, and the openings beside it, in `openings.db`."""
    with closing(Openings(tmp_path / "openings.db", KEY)) as openings:
        authorizer = Authorizer(
            POLICIES, sinks=[FileSink(tmp_path / "log", key=SIGNER)], key=KEY, openings=openings,
            redact={"resource.ssn": "shred", "args.email": "correlate"},
        )  # fmt: skip
        with authorizer:
            for who in (MARIA, MARIA, Principal.user("bob")):
                session = authorizer.session(who, BOT, id=f"of-{who.id}")
                session.decide(
                    "person.look", args={"email": "m@a.example"}, resource=Resource("p", "1", {"ssn": MARKER})
                )
    return tmp_path / "log"


def witnessed(folder: Path) -> str:
    """Return the log's checkpoints, as a witness would have them."""
    return (folder / "checkpoints").read_text()


def verdict(folder: Path, notes: str) -> Verdict:
    return verify(folder, keys=[vkey(SIGNER, "local")], checkpoint=notes).verdict


def raw(path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in sorted(path.parent.glob(path.name + "*")))


def sealed(path: Path, who: Principal) -> list[bytes]:
    """Return what the store holds of a person: commitments, sealed values and the wrapped key."""
    import sqlite3

    with closing(Openings(path, KEY)) as store, closing(sqlite3.connect(path)) as database:
        of = [store.subject(who)]
        keys = database.execute("SELECT id, wrapped FROM keys WHERE subject = ?", of).fetchall()
        rows = [database.execute("SELECT commitment, sealed FROM openings WHERE key = ?", [own]) for own, _ in keys]
        return [wrapped for _, wrapped in keys] + [
            each for some in rows for row in some for each in (row[0].encode(), row[1])
        ]


def test_row_41_after_an_erasure_the_log_still_verifies(log: Path, tmp_path: Path) -> None:
    """Every listed store loses each byte of it, the log is as good as before, and its record names nobody."""
    notes, store, copy = witnessed(log), tmp_path / "openings.db", tmp_path / "replica.db"
    shutil.copy(store, copy)
    held, lines = sealed(store, MARIA), logs.lines(log)
    assert len(held) == 5
    assert verdict(log, notes) is Verdict.OK
    with closing(Openings(store, KEY)) as first, closing(Openings(copy, KEY)) as second, closing(FileSink(log)) as sink:
        done = erase(MARIA, [first, second], [sink])
        assert (done.count, [one.store for one in done.stores]) == (4, ["openings.db", "replica.db"])
    assert verdict(log, notes) in (Verdict.OK, Verdict.UNWITNESSED)
    assert not verify(log, keys=[vkey(SIGNER, "local")], checkpoint=notes).damages
    assert not [each for each in held for path in (store, copy) if each in raw(path)]
    assert set(lines) <= set(logs.lines(log))
    [told] = [each for each in logs.records(log) if isinstance(each, EventRecord) and each.type == "erasure"]
    about = told.as_dict()["about"]
    assert about["subject"] == done.subject == first.subject(MARIA)
    assert about["count"] == 4
    assert [one["store"] for one in about["stores"]] == ["openings.db", "replica.db"]
    assert b"maria" not in told.line()
    assert sealed(store, Principal.user("bob"))[1] in raw(store)


def test_it_is_recorded_only_when_it_is_done(log: Path, tmp_path: Path) -> None:
    """A dry run writes nothing; an erasure whose record can't be kept raises, and can be done again."""
    with closing(Openings(tmp_path / "openings.db", KEY)) as store:
        sink = MemorySink()
        assert erase(MARIA, [store], [sink], dry_run=True).count == 2
        assert not sink.records
        closed = FileSink(tmp_path / "other")
        closed.close()
        with pytest.raises(SinkError):
            erase(MARIA, [store], [closed])
        assert erase(MARIA, [store], [sink]).stores[0].before == 2
        assert [record.type for record in sink.records if isinstance(record, EventRecord)].count("erasure") == 1


def test_what_names_nobody_or_nothing_is_refused(tmp_path: Path) -> None:
    """No store, and somebody who is no principal, raise before anything is erased."""
    with pytest.raises(InvalidArgument, match="stores"):
        erase(MARIA, [])
    with closing(Openings(tmp_path / "a.db", KEY)) as store, pytest.raises(InvalidArgument, match="who"):
        erase("maria", [store])  # type: ignore[arg-type]


def test_the_command_erases_and_says_what(
    log: Path, tmp_path: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run counts; then it erases and records; then there is nothing left, and what went before is told."""
    store = ("--openings", tmp_path / "openings.db", "--instance-key", key_file)
    dry = ran(capsys, "erase", "user:maria", log, *store, "--dry-run")
    assert (dry.code, dry.out.splitlines()[-1]) == (1, "2 openings would be erased")
    done = ran(capsys, "erase", "maria", log, *store)
    assert done.code == 0
    assert "2 openings under 1 key" in done.out
    assert f"2 openings erased; recorded for {KEY.epoch}:" in done.out
    again = ran(capsys, "erase", "maria", log, *store)
    assert again.code == 0
    assert "0 openings under 0 keys; 2 openings before" in again.out
    assert ran(capsys, "verify", log).code in (0, 2)


def test_holders_of_the_key_see_values_until_they_are_erased(
    log: Path, tmp_path: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`show`, `explain` and `replay` need the store and its key; after the erasure they say that it was erased."""
    store = ("--openings", tmp_path / "openings.db", "--instance-key", key_file)
    policy = tmp_path / "new.authz"
    policy.write_text('permit look on person.look when resource.ssn like "SSN*"')
    own = next(each.id for each in decisions(log) if each.session == "of-maria")
    shown = [("show", "of-maria", log), ("replay", log, "--policy", policy)]
    for argv in shown:
        assert MARKER not in ran(capsys, *argv).out
    assert f'resource.ssn = "{MARKER}"' in ran(capsys, *shown[0], *store).out
    assert "not replayable" not in ran(capsys, *shown[1], *store).out
    without = ran(capsys, "explain", own, log, "--policy", policy)
    assert "can be shredded, and what opens it isn't here" in without.out
    assert MARKER in ran(capsys, "explain", own, log, "--policy", policy, *store).out
    ran(capsys, "erase", "maria", log, *store)
    assert "resource.ssn = (erased)" in ran(capsys, *shown[0], *store).out
    assert "`resource.ssn` was erased: 2" in ran(capsys, *shown[1], *store).out
    assert (
        "not replayable: `resource.ssn` was erased" in ran(capsys, "explain", own, log, "--policy", policy, *store).out
    )


def test_correlated_values_are_found_with_the_key(
    log: Path, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`query --holds` finds the decisions that hold a value, with the right key only."""
    found = ran(capsys, "query", log, "--holds", "m@a.example", "--instance-key", key_file)
    assert (found.code, len(found.out.splitlines())) == (0, 3)
    assert ran(capsys, "query", log, "--holds", "other", "--instance-key", key_file).code == 1
    other = tmp_path / "other.key"
    other.write_bytes(bytes(32))
    other.chmod(0o600)
    assert ran(capsys, "query", log, "--holds", "m@a.example", "--instance-key", other).code == 1
    assert ran(capsys, "query", log, "--holds", "m@a.example").code == 4


def test_the_command_refuses_what_isn_t_there(
    log: Path, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped store or key is no new one."""
    missing = tmp_path / "no.db"
    assert ran(capsys, "erase", "maria", log, "--openings", missing, "--instance-key", key_file).code == 4
    assert not missing.exists()
    assert (
        ran(capsys, "erase", "maria", log, "--openings", tmp_path / "openings.db", "--instance-key", missing).code == 4
    )
    assert ran(capsys, "show", "of-maria", log, "--openings", tmp_path / "openings.db").code == 4


def test_the_owner_of_a_resource_is_erased_apart(tmp_path: Path) -> None:
    """What a class says is another's, goes with the other."""
    with closing(Openings(tmp_path / "a.db", KEY)) as store:
        sink = MemorySink()
        authorizer = Authorizer(
            POLICIES, sinks=[sink], key=KEY, openings=store, redact={"resource.ssn": Shred("resource.owner")}
        )
        on = Resource("p", "1", {"ssn": MARKER, "owner": "olga"})
        authorizer.session(MARIA).decide("person.look", args={"email": "e"}, resource=on)
        held = json.loads(sink.decisions[0].line())["resource"]["attributes"]["ssn"]["$s"]
        erase(MARIA, [store])
        assert store.open(held).value == MARKER
        erase(Principal.user("olga"), [store])
        assert store.open(held).state == "erased"
