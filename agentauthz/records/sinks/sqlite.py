"""Keep records in a SQLite file: an index to look things up in, and a small log that needs no server."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, final

from attrs import asdict

from agentauthz.canonical import stamp
from agentauthz.database import Database
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
        self._database: Final = Database(path, (_SCHEMA,), failure=SinkError, durable=durable, timeout=timeout)
        self.path: Final = self._database.path
        self.guarantees: Final = Guarantee("power_loss" if durable else "process_crash", True, True)
        self._durable: Final = durable

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
        rows = [row_of(line) for line in lines]
        with self._database.writing() as connection:
            for row in rows:
                _insert(connection, row)

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
        if unknown := columns.keys() - _EQUAL:
            raise InvalidArgument(min(unknown), f"is no column that can be asked for: {', '.join(sorted(_EQUAL))} are")
        asked: list[tuple[str, object]] = [(f"{name} = ?", value) for name, value in columns.items()]
        asked += [("ts >= ?", _moment("since", since))] if since is not None else []
        asked += [("ts < ?", _moment("until", until))] if until is not None else []
        asked += [("EXISTS (SELECT 1 FROM json_each(rules) WHERE value = ?)", rule)] if rule is not None else []
        where = " AND ".join(["1", *(condition for condition, _ in asked)])
        order = f"SELECT line FROM records WHERE {where} ORDER BY ts, stream, seq LIMIT ?"  # noqa: S608  (ours)
        with self._database.reading() as connection:
            found = connection.execute(order, [*(value for _, value in asked), limit]).fetchall()
        return [read_record(line.encode() + b"\n") for (line,) in found]

    def flush(self, durable: bool = False, timeout: float = 5.0) -> None:
        """Return at once: what was appended is committed; if `durable`, bring it to the disk first.

        Raises:
            SinkError: it can't be, or the sink is closed.
        """
        if durable and not self._durable:
            with self._database.reading() as connection:
                connection.execute("PRAGMA wal_checkpoint(FULL)")

    def close(self) -> None:
        """Close the file; doing it again does nothing."""
        self._database.close()


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
