"""Test what holds a SQLite file: for threads, signals, forks and later versions."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentauthz.database import Database
from agentauthz.errors import InvalidArgument, SinkError

SCHEMA = ("CREATE TABLE t (x INTEGER)",)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    held = Database(tmp_path / "x.db", SCHEMA, failure=SinkError, timeout=0.3)
    yield held
    held.close()


def _put(database: Database, x: int) -> None:
    with database.writing() as file:
        file.execute("INSERT INTO t VALUES (?)", (x,))


def _all(database: Database) -> list[int]:
    with database.reading() as file:
        return [x for (x,) in file.execute("SELECT x FROM t ORDER BY x")]


def test_what_raises_leaves_nothing(database: Database) -> None:
    """A block that raises is rolled back whole, and the next one goes on."""
    with pytest.raises(ZeroDivisionError), database.writing() as file:
        file.execute("INSERT INTO t VALUES (?)", (1 // len(file.execute("INSERT INTO t VALUES (1)").fetchall()),))
    _put(database, 2)
    assert _all(database) == [2]


def test_an_error_of_sqlite_is_the_failure_that_was_asked_for(database: Database) -> None:
    """It names the file and SQLite's code, and the next block has a connection that works."""
    with pytest.raises(SinkError, match=f"`{database.path}` can't be used: SQLITE_ERROR"), database.writing() as file:
        file.execute("INSERT INTO nowhere VALUES (1)")
    _put(database, 1)
    assert _all(database) == [1]


def test_a_reader_waits_for_no_writer(database: Database) -> None:
    """While a thread writes, others read what was committed before."""
    _put(database, 1)
    with database.writing() as file:
        file.execute("INSERT INTO t VALUES (2)")
        read: list[list[int]] = []
        thread = threading.Thread(target=lambda: read.append(_all(database)))
        thread.start()
        thread.join(5)
        assert read == [[1]]


@pytest.mark.parametrize("path", ["", ":memory:", b"x.db", None, 7])
def test_only_a_file_is_one(path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's name for a database in memory, which it would be nowhere else, makes no file of that name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument, match="`path` must be that of a file"):
        Database(path, SCHEMA, failure=SinkError)
    assert list(tmp_path.iterdir()) == []


def test_a_thread_waits_no_longer_than_the_time_out(database: Database) -> None:
    """A second writer of the same process fails in time."""
    failed: list[str] = []

    def work() -> None:
        try:
            _put(database, 2)
        except SinkError as error:
            failed.append(str(error))

    with database.writing():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(10)
    assert failed == [f"`{database.path}` is in use by another thread for longer than the time-out"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timers")
def test_an_interruption_keeps_nobody_else_out(tmp_path: Path) -> None:
    """Wherever a signal's handler raises, nothing is half done, and other threads get their turn."""

    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    database = Database(tmp_path / "x.db", SCHEMA, failure=SinkError, timeout=0.3)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(700):
            with contextlib.suppress(Interrupted):
                signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + number % 100))
                for _ in range(10_000):
                    with database.reading():
                        pass
        with contextlib.suppress(Interrupted):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            for _ in range(10_000):
                _put(database, 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    thread = threading.Thread(target=_put, args=(database, 2))
    thread.start()
    thread.join()
    assert _all(database)[-1] == 2
    database.close()


def _two(file: sqlite3.Connection) -> None:
    file.execute("INSERT INTO t VALUES (2)")


def test_a_block_inside_another_joins_it_or_fails(database: Database) -> None:
    """What joins is committed with the outer block; what doesn't may not come in the middle of it."""
    with database.writing() as file:
        file.execute("INSERT INTO t VALUES (1)")
        with database.writing(joins=_two) as same:
            _two(same)
        with pytest.raises(SinkError, match="is being written by what this was called from"), database.writing():
            pass
    assert _all(database) == [1, 2]


def test_what_joined_a_block_that_fails_is_done_by_itself(database: Database) -> None:
    """Who joined has left, and was answered: that the outer block is undone takes nothing back."""
    with contextlib.suppress(SystemExit), database.writing() as file:
        file.execute("INSERT INTO t VALUES (1)")
        with database.writing(joins=_two) as same:
            _two(same)
        raise SystemExit
    assert _all(database) == [2]
    with contextlib.suppress(SystemExit), database.writing():
        raise SystemExit
    assert _all(database) == [2]


def test_what_joined_and_cannot_be_done_again_is_told(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is there any more who could be told otherwise."""
    with contextlib.suppress(SystemExit), database.writing() as file:
        with database.writing(joins=lambda file: file.execute("SELECT * FROM nothing")):
            pass
        file.execute("INSERT INTO t VALUES (1)")
        raise SystemExit
    assert "is lost: OperationalError" in caplog.text
    assert _all(database) == []


def test_a_child_inherits_no_open_file(database: Database) -> None:
    """After a fork both open the file again: what the child writes survives that its parent closes the file first.

    SQLite's locks stay with the parent. A child that shared its memory of them would write to a log that is gone.
    """
    _put(database, 1)
    _all(database)
    closed, tell = os.pipe()
    ready, began = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _put(database, 2)
            os.write(began, b"x")
            os.read(closed, 1)
            _put(database, 3)
            status = 0
        finally:
            os._exit(status)  # as a process that is killed: nothing is tidied up
    os.read(ready, 1)
    assert _all(database) == [1, 2]
    database.close()
    os.write(tell, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    again = Database(database.path, SCHEMA, failure=SinkError)
    assert _all(again) == [1, 2, 3]
    again.close()
    for pipe in (closed, tell, ready, began):
        os.close(pipe)


def test_a_later_version_brings_a_file_up_to_date(database: Database) -> None:
    """Scripts that a file hasn't seen are run once; an older library refuses the file then."""
    _put(database, 1)
    newer = (*SCHEMA, "ALTER TABLE t ADD COLUMN y INTEGER DEFAULT 5; CREATE TABLE u (z)")
    for _ in "12":
        again = Database(database.path, newer, failure=SinkError)
        with again.reading() as file:
            assert file.execute("SELECT x, y FROM t").fetchall() == [(1, 5)]
        again.close()
    with pytest.raises(SinkError, match="was written by a newer version of this library"):
        Database(database.path, SCHEMA, failure=SinkError)


def test_a_migration_that_fails_changes_nothing(database: Database) -> None:
    """All scripts are run in one step, or none."""
    _put(database, 1)
    with pytest.raises(SinkError, match="can't be used: SQLITE_ERROR"):
        Database(database.path, (*SCHEMA, "CREATE TABLE u (z)", "CREATE TABLE t (x)"), failure=SinkError)
    other = sqlite3.connect(database.path)
    assert other.execute("PRAGMA user_version").fetchone() == (1,)
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]
    other.close()
