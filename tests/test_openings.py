"""Test the store of what records only commit to: who can open it, until when, and what is left after that."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from agentauthz import Principal
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.keys import InstanceKey
from agentauthz.records.openings import Openings, opened
from tests.support import BOT, MARIA

KEY: Final = InstanceKey.from_bytes(bytes(range(32)))
MARKER: Final = "MARKER-of-maria"
FORK: Final = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "openings.db"


@pytest.fixture
def kept(path: Path) -> Iterator[Openings]:
    with closing(Openings(path, KEY)) as store:
        yield store


def commit(store: Openings, *values: Any, who: Principal = MARIA) -> list[str]:
    """Commit to values in one record."""
    sealing = store.sealing()
    made = [sealing.commit(who, value) for value in values]
    sealing.keep()
    return made


def raw(path: Path) -> bytes:
    """Return the bytes of a database and of its logs."""
    return b"".join(each.read_bytes() for each in sorted(path.parent.glob(path.name + "*")))


def test_what_is_kept_opens_again(kept: Openings) -> None:
    """Each kind of JSON comes back, from the commitment alone; one that nobody knows is missing."""
    values = [MARKER, 5, 1.5, True, None, {"$d": "5"}, [1, {"a": "b"}], ""]
    for value, made in zip(values, commit(kept, *values), strict=True):
        assert (kept.open(made).state, kept.open(made).value) == ("opened", value)
    for unknown in ("s0:00", "", "x", ":", commit(kept, 1)[0][:-1] + "g"):
        assert kept.open(unknown).state == "missing"


def test_nothing_of_it_can_be_read_in_the_file(kept: Openings, path: Path) -> None:
    """Neither values nor names of persons are in the file, which is its owner's alone."""
    commit(kept, MARKER)
    assert b"MARKER" not in raw(path)
    assert b"maria" not in raw(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_another_key_opens_nothing(kept: Openings, path: Path) -> None:
    """With another instance key the store says which key is missing; given as an older one, it opens."""
    [made] = commit(kept, MARKER)
    with closing(Openings(path, InstanceKey.random())) as other, pytest.raises(InvalidArgument, match="older"):
        other.open(made)
    with closing(Openings(path, InstanceKey.random(), older=[KEY])) as other:
        assert other.open(made).value == MARKER
        [fresh] = commit(other, MARKER)
        assert other.erase(MARIA).openings == 2
        assert {other.open(one).state for one in (made, fresh)} == {"erased"}


def test_nobody_is_erased_by_half(kept: Openings, path: Path) -> None:
    """Without the key that a part of the store names persons by, nothing is erased, and which is missing is said."""
    [made] = commit(kept, MARKER)
    with closing(Openings(path, InstanceKey.random(), older=[KEY])) as both:
        younger = both._key
        [fresh] = commit(both, MARKER)
    with closing(Openings(path, younger)) as half:
        for dry_run in (True, False):
            with pytest.raises(InvalidArgument, match=f"give `{KEY.epoch}` as `older`"):
                half.erase(MARIA, dry_run=dry_run)
    with closing(Openings(path, younger, older=[KEY])) as both:
        assert {both.open(one).state for one in (made, fresh)} == {"opened"}
        assert both.erase(MARIA).openings == 2
    with closing(Openings(path, younger)) as half:
        assert half.erase(MARIA).keys == 0  # nobody is left whom another key names


def test_what_was_exchanged_is_noticed(kept: Openings, path: Path) -> None:
    """An opening under another commitment, a sealed text that was changed or another's key raise, and say no value."""
    one, other = commit(kept, MARKER, "other")
    with closing(sqlite3.connect(path)) as database, database:
        sealed = database.execute("SELECT sealed FROM openings WHERE commitment = ?", [other]).fetchone()[0]
        database.execute("UPDATE openings SET sealed = ? WHERE commitment = ?", [sealed, one])
    with pytest.raises(InvalidArgument) as caught:
        kept.open(one)
    assert "MARKER" not in str(caught.value)


def test_erasing_leaves_no_byte(kept: Openings, path: Path) -> None:
    """After an erasure neither what was sealed nor the wrapped key is in any file; others' values stay."""
    mine, others = commit(kept, MARKER, "more"), commit(kept, "of bob", who=Principal.user("bob"))
    for _ in range(200):  # pages are full, and some have moved
        commit(kept, MARKER * 10)
    with closing(sqlite3.connect(path)) as database:
        own = mine[0].partition(":")[0]
        wrapped = database.execute("SELECT wrapped FROM keys WHERE id = ?", [own]).fetchone()[0]
        sealed = [row[0] for row in database.execute("SELECT sealed FROM openings WHERE key = ?", [own])]
    assert wrapped in raw(path)
    assert all(each in raw(path) for each in sealed)
    done = kept.erase(MARIA)
    assert (done.keys, done.openings, done.before) == (1, 202, 0)
    assert wrapped not in raw(path)
    assert not any(each in raw(path) for each in sealed)
    assert mine[0].encode() not in raw(path)
    assert {kept.open(one).state for one in mine} == {"erased"}
    assert kept.open(others[0]).value == "of bob"


def test_erasing_again_changes_nothing(kept: Openings) -> None:
    """It is idempotent: the second time there is nothing left, and what went before is told."""
    commit(kept, MARKER)
    kept.erase(MARIA)
    again = kept.erase(MARIA)
    assert (again.keys, again.openings, again.before) == (0, 0, 1)
    assert kept.erase(Principal.user("nobody")).keys == 0


def test_a_dry_run_erases_nothing(kept: Openings) -> None:
    """It counts, and everything opens as before."""
    [made] = commit(kept, MARKER)
    assert kept.erase(MARIA, dry_run=True).openings == 1
    assert kept.open(made).value == MARKER


def test_an_erased_key_never_comes_back(kept: Openings) -> None:
    """What is recorded of the person later has a new key, and nothing is kept under the old one."""
    late = kept.sealing()
    made = late.commit(MARIA, MARKER)
    kept.erase(MARIA)
    with pytest.raises(SinkError, match="erased"):
        late.keep()
    assert kept.open(made).state == "erased"
    [fresh] = commit(kept, MARKER)
    assert fresh.partition(":")[0] != made.partition(":")[0]
    assert kept.open(fresh).value == MARKER


def test_persons_are_told_apart_by_kind_and_issuer(kept: Openings) -> None:
    """A user, an agent of that id and another issuer's user are three."""
    for who in (MARIA, Principal.agent("maria"), Principal.user("maria", issuer="https://a.example")):
        commit(kept, MARKER, who=who)
    assert kept.erase(MARIA).openings == 1
    assert kept.erase(Principal.user("maria", issuer="https://a.example")).openings == 1


def _many(path: Path, number: int) -> None:
    store = Openings(path, KEY)
    for i in range(20):
        commit(store, f"{number}-{i}")
    store.close()


def test_processes_share_one_key_of_a_person(path: Path) -> None:
    """Processes that begin at once agree on the person's key, and none loses a row."""
    workers = [FORK.Process(target=_many, args=(path, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    with closing(Openings(path, KEY)) as store:
        done = store.erase(MARIA, dry_run=True)
        assert (done.keys, done.openings) == (1, 80)


def test_a_fork_has_a_connection_of_its_own(kept: Openings) -> None:
    """A child goes on with the parent's store, and so does the parent."""
    [before] = commit(kept, MARKER)
    child = os.fork()
    if child == 0:
        try:
            commit(kept, "of the child")
            os._exit(0 if kept.open(before).value == MARKER else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    commit(kept, "of the parent")
    assert kept.erase(MARIA, dry_run=True).openings == 3


def test_a_reader_that_stays_makes_the_erasure_raise(kept: Openings, path: Path) -> None:
    """Where another process reads old pages, erasing says so, and is complete when it is done again."""
    [made] = commit(kept, MARKER)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM openings").fetchall()
        quick = Openings(path, KEY, timeout=0.1)
        with closing(quick), pytest.raises(SinkError):
            quick.erase(MARIA)
    assert kept.open(made).state == "erased"
    assert kept.erase(MARIA).before == 1
    assert made.encode() not in raw(path)


def test_what_can_t_be_used_raises(tmp_path: Path, path: Path) -> None:
    """A folder that isn't there, a file that is no database, a key that is none, and a closed store."""
    with pytest.raises(SinkError, match="can't be made in a folder that is missing"):
        Openings(tmp_path / "no" / "folder.db", KEY)
    path.write_bytes(b"no database" * 100)
    with pytest.raises(SinkError, match="can't be used"):
        Openings(path, KEY)
    with pytest.raises(InvalidArgument, match="key"):
        Openings(tmp_path / "a.db", b"key")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="timeout"):
        Openings(tmp_path / "a.db", KEY, timeout=0)
    store = Openings(tmp_path / "a.db", KEY)
    store.close()
    store.close()
    with pytest.raises(SinkError, match="closed"):
        commit(store, 1)


def test_a_tree_is_opened_in_every_place(kept: Openings) -> None:
    """Every commitment in a record's JSON becomes its value; what is erased says so, what isn't there stays."""
    [mine], [bobs] = commit(kept, MARKER), commit(kept, "bob", who=BOT)
    kept.erase(BOT)
    tree = {"a": [{"$s": mine}, {"b": {"$s": bobs}}], "c": {"$s": "s0:00"}, "d": 1}
    told = {"a": [MARKER, {"b": {"$s": "erased"}}], "c": {"$s": "s0:00"}, "d": 1}
    assert opened(tree, kept) == told
    assert opened(tree, None) is tree
