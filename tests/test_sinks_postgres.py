"""Test the sink for PostgreSQL against a real server, which is stopped, held up and started again."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Final, TypeAlias

import psycopg
import pytest

from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records import PostgresSink, Record
from tests.golden import ROOT
from tests.loopback import everything_told
from tests.postgres import Postgres
from tests.recording import DENY, NOW, STREAM, append, at, decision, effect, event, until

Make: TypeAlias = Callable[..., PostgresSink]
LINES: Final = "SELECT line FROM agentauthz_records ORDER BY stream, seq"


@pytest.fixture
def make(postgres: Postgres) -> Iterator[Make]:
    """Return what makes sinks for the server, closed at the end."""
    with ExitStack() as made:
        yield lambda **options: made.enter_context(closing(PostgresSink(postgres.dsn, **{"timeout": 20.0, **options})))


def _lines(postgres: Postgres) -> list[bytes]:
    return [f"{line}\n".encode() for (line,) in postgres.rows(LINES)]


def test_every_record_is_a_row(make: Make, postgres: Postgres) -> None:
    """A record's row has its line to the byte, and its columns agree with it; the table is made at first."""
    records: list[Record] = [decision(0, note="a\nb\0\u202e\ud800"), effect(1), event(2), decision(3, DENY)]
    append(make(), *records)
    assert _lines(postgres) == [record.line() for record in records]
    assert postgres.rows(
        "SELECT stream, seq, id, ts, type, outcome, basis, action, session, subject, actor, decision, rules"
        " FROM agentauthz_records ORDER BY seq LIMIT 2"
    ) == [
        (STREAM, 0, "D00000", NOW, "decision", "allow", "rule", "payments.refund", "s-1", "maria", "shop-bot", None,
         ["small_refund", "other"]),
        (STREAM, 1, "E00001", NOW.replace(second=1), "effect", None, None, "payments.refund", "s-1", None, None,
         "D00000", []),
    ]  # fmt: skip


def test_a_record_that_comes_twice_is_kept_once(make: Make, postgres: Postgres) -> None:
    """Delivering the same line again, also within one batch, does nothing."""
    sink = make()
    append(sink, decision(0), decision(0))
    sink.append_many([decision(number).line() for number in (0, 1, 1, 0)])
    assert _lines(postgres) == [decision(0).line(), decision(1).line()]


def test_a_place_never_has_two_contents(make: Make, postgres: Postgres) -> None:
    """Another line at a place that is taken is an error; the first stays, and what came with it arrives."""
    sink = make()
    append(sink, decision(0))
    with pytest.raises(SinkError, match="can't keep a record: Rejected"):
        sink.append_many([decision(1).line(), decision(0, note="forged").line(), decision(2).line()])
    assert _lines(postgres) == [decision(number).line() for number in range(3)]


def test_records_without_a_stream_are_told_apart(make: Make, postgres: Postgres) -> None:
    """Records that belong to no stream have all the same place: their own ids keep them apart."""
    alone = [at(decision(number), 0, "0" * 26) for number in range(3)]
    append(make(), *alone, *alone)
    assert _lines(postgres) == [record.line() for record in alone]


def test_threads_and_sinks_share_a_table(make: Make, postgres: Postgres) -> None:
    """Eight threads over two sinks, which both find no table at first, lose nothing; transactions are shared."""
    sinks = [make() for _ in range(2)]

    def work(thread: int) -> None:
        for number in range(25):
            append(sinks[thread % 2], decision(number, stream=f"{thread:026}"))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(_lines(postgres)) == 200
    [(transactions,)] = postgres.rows("SELECT count(DISTINCT xmin::text) FROM agentauthz_records")
    assert isinstance(transactions, int)
    assert transactions < 200


def test_a_table_of_another_name(make: Make, postgres: Postgres) -> None:
    """The table may be named, and be there already; the sink then needs no right to make one."""
    postgres.run("DROP SCHEMA IF EXISTS audit CASCADE; CREATE SCHEMA audit")
    append(make(table="audit.decisions"), decision(0))
    assert len(postgres.rows("SELECT 1 FROM audit.decisions")) == 1
    postgres.run("DROP ROLE IF EXISTS writer; CREATE ROLE writer LOGIN; GRANT USAGE ON SCHEMA audit TO writer")
    postgres.run("GRANT INSERT, SELECT ON audit.decisions TO writer")
    with closing(PostgresSink(postgres.dsn.replace("tests:", "writer:"), table="audit.decisions")) as sink:
        append(sink, decision(1))
    assert len(postgres.rows("SELECT 1 FROM audit.decisions")) == 2
    # the server ends a connection, and drops its temporary table, a moment after the client has left
    until(lambda: not postgres.rows("SELECT 1 FROM pg_stat_activity WHERE usename = 'writer'"))
    postgres.run("DROP SCHEMA audit CASCADE; DROP ROLE writer")


def test_a_server_that_is_away_and_comes_back(make: Make, postgres: Postgres) -> None:
    """While there is no server an append fails in time; after its return the same sink goes on."""
    sink = make(timeout=2.0)
    append(sink, decision(0))
    postgres.stop()
    with pytest.raises(SinkError, match="`PostgresSink` didn't keep a record in time: OperationalError"):
        append(sink, decision(1))
    postgres.start()
    until(lambda: _taken(sink, 2))
    kept = _lines(postgres)
    assert kept[0] == decision(0).line()
    assert kept[-1] == decision(2).line()


def test_a_connection_that_is_cut_costs_nothing(make: Make, postgres: Postgres) -> None:
    """After an administrator has ended the connection, the next append succeeds on a new one."""
    sink = make()
    append(sink, decision(0))
    postgres.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'agentauthz'")
    append(sink, decision(1))
    assert len(_lines(postgres)) == 2


def test_what_is_queued_survives_an_outage(make: Make, postgres: Postgres) -> None:
    """With "queued" records wait while there is no server, and all arrive after it."""
    sink = make(delivery="queued")
    postgres.stop()
    append(sink, *map(decision, range(20)))
    assert sink.waiting == 20
    postgres.start()
    sink.flush(timeout=60)
    assert (len(_lines(postgres)), sink.lost) == (20, 0)


def test_a_server_that_hangs_fails_in_time(make: Make, postgres: Postgres) -> None:
    """While the server doesn't answer, an append fails after its time-out."""
    sink = make(timeout=2.0)
    append(sink, decision(0))
    [(backend,)] = postgres.rows("SELECT pid FROM pg_stat_activity WHERE application_name = 'agentauthz'")
    assert isinstance(backend, int)
    os.kill(backend, signal.SIGSTOP)
    try:
        with pytest.raises(SinkError, match="didn't keep a record in time"):
            append(sink, decision(1))
    finally:
        os.kill(backend, signal.SIGCONT)
    until(lambda: _taken(sink, 2))


def test_a_locked_table_fails_in_time(make: Make, postgres: Postgres) -> None:
    """While somebody has locked the table, an append fails in time; the server gives the statement up too."""
    sink = make(timeout=2.0)
    append(sink, decision(0))
    with psycopg.connect(postgres.dsn) as other:
        other.execute("LOCK TABLE agentauthz_records")
        with pytest.raises(SinkError, match="didn't keep a record in time"):
            append(sink, decision(1))
        until(lambda: sink._background._queue.failure is not None)
    until(lambda: _taken(sink, 2))


def _taken(sink: PostgresSink, number: int) -> bool:
    try:
        append(sink, decision(number))
    except SinkError:
        return False
    return True


def test_what_was_appended_survives_a_kill(postgres: Postgres) -> None:
    """A process that is killed right after an append has lost nothing of it."""
    code = (
        "import os, sys; from agentauthz.records import PostgresSink; from tests.recording import append, decision\n"
        "sink = PostgresSink(sys.argv[1]); append(sink, *map(decision, range(20))); os.kill(os.getpid(), 9)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, postgres.dsn], env=environment, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert len(_lines(postgres)) == 20


def test_a_forked_child_has_its_own_connection(make: Make, postgres: Postgres) -> None:
    """A child appends over a connection of its own, and what the parent has queued it doesn't send again."""
    sink = make()
    append(sink, decision(0))
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        status = 1
        try:
            append(sink, decision(1))
            sink.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    append(sink, decision(2))
    assert _lines(postgres) == [decision(number).line() for number in range(3)]


def test_no_secret_is_told(make: Make, postgres: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    """The password turns up in no repr, log or error, also where it is what makes the string a bad one."""
    caplog.set_level(logging.DEBUG)
    sink = make(timeout=2.0)
    append(sink, decision(0))
    postgres.stop()
    with pytest.raises(SinkError) as caught:
        append(sink, decision(1))
    told = repr(sink) + everything_told(caught.value) + caplog.text
    for bad in ("CANARY", "host=x password=CANARY nonsense", "postgresql://u:CANARY@[h/x", 3):
        with pytest.raises(InvalidArgument, match="`dsn` must be a connection string") as refused:
            PostgresSink(bad)  # type: ignore[arg-type]
        told += everything_told(refused.value)
    assert "CANARY" not in told


def test_guarantees(make: Make) -> None:
    """An acknowledged append is committed; what is queued promises nothing."""
    assert (make().guarantees.survives, make(delivery="queued").guarantees.survives) == ("power_loss", "best_effort")
    assert make().guarantees.deduplicates
    for table in ("a;b", 'a"b', "A", "", "a.b.c", 3):
        with pytest.raises(InvalidArgument, match="`table`"):
            make(table=table)


def test_options_of_the_string_are_kept(make: Make, postgres: Postgres) -> None:
    """What the string asks for holds: its bounds before ours, its options beside ours."""
    dsn = f"{postgres.dsn}&application_name=ours&options=-c%20work_mem%3D8MB"
    with closing(PostgresSink(dsn)) as sink:
        append(sink, decision(0))
        assert postgres.rows("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ours'") == [(1,)]
