"""Test the sink for SQLite: an index that agrees with the lines, for threads, processes and forks."""

from __future__ import annotations

import datetime as dt
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeAlias

import pytest

from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records import Record, SqliteSink
from tests.golden import ROOT
from tests.recording import DENY, NOW, REVIEW, STREAM, append, at, decision, effect, event

Make: TypeAlias = Callable[..., SqliteSink]


@pytest.fixture
def make() -> Iterator[Make]:
    """Return what makes sinks that are closed at the end."""
    with ExitStack() as made:
        yield lambda *args, **options: made.enter_context(closing(SqliteSink(*args, **options)))


@pytest.fixture
def sink(make: Make, tmp_path: Path) -> SqliteSink:
    return make(tmp_path / "records.db")


def _lines(sink: SqliteSink, **columns: str) -> list[bytes]:
    return [record.line() for record in sink.query(**columns)]  # type: ignore[arg-type]


def test_every_record_is_a_row(sink: SqliteSink) -> None:
    """A record's row has its line to the byte, and its columns agree with it."""
    records: list[Record] = [decision(0, note="a\nb\0\u202e"), effect(1), event(2), decision(3, DENY)]
    append(sink, *records)
    assert _lines(sink) == [record.line() for record in records]
    connection = sqlite3.connect(sink.path)
    found = connection.execute(
        "SELECT stream, seq, id, ts, type, outcome, basis, action, session, subject, actor, decision, rules"
        " FROM records"
    )
    assert found.fetchall() == [
        (STREAM, 0, "D00000", "2026-11-23T09:00:00.000000Z", "decision", "allow", "rule", "payments.refund", "s-1",
         "maria", "shop-bot", None, '["small_refund", "other"]'),
        (STREAM, 1, "E00001", "2026-11-23T09:00:01.000000Z", "effect", None, None, "payments.refund", "s-1", None, None,
         "D00000", "[]"),
        (STREAM, 2, "V00002", "2026-11-23T09:00:02.000000Z", "stream.gap", *[None] * 7, "[]"),
        (STREAM, 3, "D00003", "2026-11-23T09:00:03.000000Z", "decision", "deny", "default", "payments.refund", "s-1",
         "maria", "shop-bot", None, "[]"),
    ]  # fmt: skip
    connection.close()


def test_records_are_found_by_their_columns(sink: SqliteSink) -> None:
    """Each filter finds what it says, all of them together narrow; `until` itself is left out."""
    records: list[Record] = [decision(0), effect(1), decision(2, DENY, session="s-2"), decision(3, REVIEW)]
    append(sink, *records)
    second = dt.timedelta(seconds=1)

    def found(**given: object) -> list[str]:
        return [record.id for record in sink.query(**given)]  # type: ignore[arg-type]

    assert found(type="decision") == ["D00000", "D00002", "D00003"]
    assert found(decision="D00000") == ["E00001"]
    assert found(outcome="deny") == found(session="s-2") == ["D00002"]
    assert found(rule="large_refund") == ["D00003"]
    assert found(rule="large") == []
    assert found(since=NOW + second, until=NOW + 3 * second) == ["E00001", "D00002"]
    assert found(since=(NOW + second).astimezone(dt.timezone(dt.timedelta(hours=5))), limit=1) == ["E00001"]
    assert found(stream=STREAM, seq=3, actor="shop-bot", subject="maria") == ["D00003"]
    assert found(outcome="deny", session="s-1") == []


@pytest.mark.parametrize("column", ["line", "rules", "1=1; --"])
def test_other_columns_are_refused(sink: SqliteSink, column: str) -> None:
    """A name that is no column is an error, and never part of a statement."""
    with pytest.raises(InvalidArgument, match="no column"):
        sink.query(**{column: "x"})  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="`since` must be a datetime with a time zone"):
        sink.query(since=dt.datetime(2026, 1, 1))  # noqa: DTZ001


def test_a_record_that_comes_twice_is_kept_once(sink: SqliteSink) -> None:
    """Delivering the same line again does nothing; another line at its place is an error, and the first stays."""
    append(sink, decision(0), decision(0))
    sink.append_many([decision(0).line(), decision(1).line()])
    with pytest.raises(SinkError, match=f"record 0 of stream `{STREAM}` is kept already, with another content"):
        append(sink, decision(0, note="forged"))
    assert _lines(sink) == [decision(0).line(), decision(1).line()]


def test_many_lines_are_kept_together_or_not_at_all(sink: SqliteSink) -> None:
    """Where one of several lines can't be kept, none of them is."""
    append(sink, decision(1))
    for bad in (b"{}\n", b"no json\n", b"[]\n", decision(1, note="forged").line()):
        with pytest.raises(SinkError):
            sink.append_many([decision(0).line(), bad])
    assert _lines(sink) == [decision(1).line()]


def test_records_without_a_stream_are_told_apart(sink: SqliteSink) -> None:
    """Records that belong to no stream have all the same place: their own ids keep them apart."""
    alone = [at(decision(number), 0, "0" * 26) for number in range(3)]
    append(sink, *alone, *alone)
    assert _lines(sink) == [record.line() for record in alone]


def test_threads_and_sinks_share_a_file(make: Make, tmp_path: Path) -> None:
    """Eight threads over two sinks of one file lose nothing."""
    sinks = [make(tmp_path / "records.db", timeout=60) for _ in range(2)]

    def work(thread: int) -> None:
        for number in range(25):
            append(sinks[thread % 2], decision(number, stream=f"{thread:026}"))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(sinks[0].query()) == 200
    sinks[0].close()
    assert len(sinks[1].query()) == 200


def test_a_forked_child_has_its_own_connection(sink: SqliteSink) -> None:
    """A fork, even while another thread holds the sink's lock, gives two writers of one file."""
    append(sink, decision(0))
    with sink._database._writing.lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a lock that nobody will release must fail the test, not hang it
            status = 1
            try:
                append(sink, decision(1))
                sink.close()
                status = 0
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    append(sink, decision(2))
    assert [record.id for record in sink.query()] == ["D00000", "D00001", "D00002"]


def test_what_was_appended_survives_a_kill(make: Make, tmp_path: Path) -> None:
    """A process that is killed right after an append has lost nothing of it."""
    code = (
        "import os, sys; from agentauthz.records import SqliteSink; from tests.recording import append, decision\n"
        "sink = SqliteSink(sys.argv[1]); append(sink, *map(decision, range(20))); os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "records.db"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, path], env=environment, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(make(path).query()) == 20


def test_the_file_is_for_its_owner_alone(sink: SqliteSink) -> None:
    """The file and what SQLite puts beside it are of mode 0600."""
    append(sink, decision(0))
    assert {path.stat().st_mode & 0o777 for path in sink.path.parent.iterdir()} == {0o600}


def test_guarantees(make: Make, tmp_path: Path) -> None:
    """What is promised follows from `durable`, and so does how SQLite is told to write."""
    for durable, survives, level in ((False, "process_crash", 1), (True, "power_loss", 2)):
        sink = make(tmp_path / f"{durable}.db", durable=durable)
        assert (sink.guarantees.survives, sink.guarantees.ordered, sink.guarantees.deduplicates) == (
            survives,
            True,
            True,
        )
        assert sink._database._writing.connection is not None
        assert sink._database._writing.connection.execute("PRAGMA synchronous").fetchone() == (level,)
        append(sink, decision(0))
        sink.flush(durable=True)


def test_a_closed_sink_takes_nothing(sink: SqliteSink) -> None:
    """Closing twice is nothing; appending and asking fail afterwards."""
    append(sink, decision(0))
    sink.close()
    sink.close()
    with pytest.raises(SinkError, match="closed"):
        append(sink, decision(1))
    with pytest.raises(SinkError, match="closed"):
        sink.query()


def test_what_is_no_database_is_refused_at_the_start(tmp_path: Path) -> None:
    """A folder, a missing folder and a file of something else are errors that name the path and quote nothing."""
    (tmp_path / "text").write_text("SECRET" * 1000)
    for bad in (tmp_path, tmp_path / "missing" / "x.db", tmp_path / "text"):
        with pytest.raises(SinkError, match=f"`{bad}` can't be") as caught:
            SqliteSink(bad)
        assert "SECRET" not in str(caught.value)


def test_a_locked_file_fails_in_time(make: Make, sink: SqliteSink) -> None:
    """While another program holds the file, an append waits so long and then fails; later ones go on."""
    waiting = make(sink.path, timeout=0.05)
    other = sqlite3.connect(sink.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(SinkError, match="can't be used: SQLITE_BUSY"):
        append(waiting, decision(0))
    other.execute("ROLLBACK")
    other.close()
    append(waiting, decision(0))
    assert len(waiting.query()) == 1
