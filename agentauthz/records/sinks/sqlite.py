"""Keep records in a SQLite file: an index to look things up in, and a small log that needs no server."""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from attrs import asdict

from agentauthz.canonical import stamp
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records.lines import utc
from agentauthz.records.record import Record, read_record
from agentauthz.records.sinks.row import COLUMNS, Row, row_of
from agentauthz.records.sinks.sink import Guarantee

if TYPE_CHECKING:
    import sqlite3

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (
    stream TEXT NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL, ts TEXT NOT NULL, type TEXT NOT NULL,
    outcome TEXT, basis TEXT, action TEXT, session TEXT, subject TEXT, actor TEXT, decision TEXT,
    rules TEXT NOT NULL, line TEXT NOT NULL,
    PRIMARY KEY (stream, seq)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_id ON records (id);
CREATE INDEX IF NOT EXISTS records_ts ON records (ts);
CREATE INDEX IF NOT EXISTS records_session ON records (session, ts);
CREATE INDEX IF NOT EXISTS records_decision ON records (decision);
"""
_INSERT: Final = (
    f"INSERT INTO records ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608  (names of ours)
    " ON CONFLICT (stream, seq) DO NOTHING"
)
_EQUAL: Final = frozenset(COLUMNS) - {"ts", "rules", "line"}  # what `query` compares


@final
class SqliteSink:
    """Keep records in the SQLite file `path`, made (mode 0600) where it isn't there, for several processes at once.

    A record is committed before `append` returns, and survives the death of the process; with `durable`, a loss of
    power too. One that comes twice is kept once. `timeout` is how many seconds to wait for another writer.

    Raises:
        SinkError: the file can't be made, or is no such database.
        InvalidArgument: a time-out that is no positive number.
    """

    blocking: Final = True  # a disk may be slow, and another process may be writing
    bounded: Final = True

    def __init__(self, path: str | os.PathLike[str], *, durable: bool = False, timeout: float = 5.0) -> None:
        if not 0 < timeout < float("inf"):
            raise InvalidArgument("timeout", "must be a positive number of seconds")
        self.path: Final = Path(os.path.abspath(path))  # a later chdir must not move the records
        self.guarantees: Final = Guarantee("power_loss" if durable else "process_crash", True, True)
        self._durable = durable
        self._timeout = timeout
        self._closed = False
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._inherited: sqlite3.Connection | None = None  # held, for to be collected would close it
        self._connection: sqlite3.Connection | None = self._opened()

    def append(self, line: bytes, record: Record) -> None:
        """Commit the record.

        Raises:
            SinkError: it can't be kept, another one has its place in the stream, or the sink is closed.
        """
        self.append_many((line,))

    def append_many(self, lines: Sequence[bytes]) -> None:
        """Commit some lines at once: all of them or, where it raises, none.

        Raises:
            SinkError: as `append`.
        """
        import sqlite3

        rows = [row_of(line) for line in lines]
        self._own_process()
        with self._lock:
            connection = self._open()
            try:
                connection.execute("BEGIN IMMEDIATE")
                for row in rows:
                    _insert(connection, row)
                connection.execute("COMMIT")
            except sqlite3.Error as cause:
                raise self._failed("can't be written", cause) from cause
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def query(
        self,
        *,
        rule: str | None = None,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
        limit: int = 1000,
        **columns: str | int,
    ) -> list[Record]:
        """Return the oldest `limit` records that agree with all that is given, by time.

        `columns` are `id`, `stream`, `seq`, `type`, `outcome`, `basis`, `action`, `session`, `subject`, `actor` and
        `decision` (the id of the decision whose effect is meant); `since` is included, `until` is not.

        Raises:
            InvalidArgument: another column, a moment without a zone, or a kept line that is no record.
            SinkError: the file can't be read, or the sink is closed.
        """
        import sqlite3

        if unknown := columns.keys() - _EQUAL:
            raise InvalidArgument(min(unknown), f"is no column that can be asked for: {', '.join(sorted(_EQUAL))} are")
        asked: list[tuple[str, object]] = [(f"{name} = ?", value) for name, value in columns.items()]
        asked += [("ts >= ?", _moment("since", since))] if since is not None else []
        asked += [("ts < ?", _moment("until", until))] if until is not None else []
        asked += [("EXISTS (SELECT 1 FROM json_each(rules) WHERE value = ?)", rule)] if rule is not None else []
        where = " AND ".join(["1", *(condition for condition, _ in asked)])
        order = f"SELECT line FROM records WHERE {where} ORDER BY ts, stream, seq LIMIT ?"  # noqa: S608  (ours)
        self._own_process()
        with self._lock:
            try:
                found = self._open().execute(order, [*(value for _, value in asked), limit]).fetchall()
            except sqlite3.Error as cause:
                raise self._failed("can't be read", cause) from cause
        return [read_record(line.encode() + b"\n") for (line,) in found]

    def flush(self, durable: bool = False, timeout: float = 5.0) -> None:
        """Return at once: what was appended is committed; if `durable`, bring it to the disk first.

        Raises:
            SinkError: it can't be, or the sink is closed.
        """
        import sqlite3

        if durable and not self._durable:
            self._own_process()
            with self._lock:
                try:
                    self._open().execute("PRAGMA wal_checkpoint(FULL)")
                except sqlite3.Error as cause:
                    raise self._failed("can't be brought to the disk", cause) from cause

    def close(self) -> None:
        """Close the file; doing it again does nothing."""
        self._own_process()
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _own_process(self) -> None:
        """Forget what belongs to the process that this one was forked from: SQLite forbids its use, and its end."""
        if self._process != os.getpid():
            self._lock = threading.RLock()  # a thread that isn't here may hold the parent's
            self._inherited, self._connection = self._connection, None
            self._process = os.getpid()

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise SinkError(f"`{self.path}` takes no more records: the sink is closed")
        if self._connection is None:
            self._connection = self._opened()
        return self._connection

    def _opened(self) -> sqlite3.Connection:
        import sqlite3  # who keeps records elsewhere doesn't load it

        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
            connection = sqlite3.connect(
                self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as cause:
            raise self._failed("can't be opened", cause) from cause
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
            connection.executescript(_SCHEMA)
        except sqlite3.Error as cause:
            connection.close()
            raise self._failed("can't be used", cause) from cause
        return connection

    def _failed(self, what: str, cause: Exception) -> SinkError:
        why = cause.strerror if isinstance(cause, OSError) else getattr(cause, "sqlite_errorname", None)
        return SinkError(f"`{self.path}` {what}: {why or type(cause).__name__}")


def _insert(connection: sqlite3.Connection, row: Row) -> None:
    values = {**asdict(row, recurse=False), "ts": stamp(utc(row.ts)), "rules": json.dumps(row.rules)}
    if connection.execute(_INSERT, [values[name] for name in COLUMNS]).rowcount:
        return
    place = (row.stream, row.seq)
    (kept,) = connection.execute("SELECT line FROM records WHERE stream = ? AND seq = ?", place).fetchone()
    if kept != row.line:  # INVARIANT: a place in a stream never has two contents
        raise SinkError(f"record {row.seq} of stream `{row.stream}` is kept already, with another content")


def _moment(name: str, given: dt.datetime) -> str:
    if not isinstance(given, dt.datetime) or given.tzinfo is None:
        raise InvalidArgument(name, "must be a datetime with a time zone")
    return stamp(utc(given))
