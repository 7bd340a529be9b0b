"""Keep records in PostgreSQL, in one table that several writers share."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, final

from attrs import astuple

from agentauthz.errors import InvalidArgument
from agentauthz.records.sinks.background import Rejected
from agentauthz.records.sinks.extras import require
from agentauthz.records.sinks.row import COLUMNS, row_of
from agentauthz.records.sinks.shipped import Shipped
from agentauthz.records.sinks.waiting import ROOM, Delivery, Limits

if TYPE_CHECKING:
    import psycopg

TABLE: Final = re.compile(r"(?:[a-z_][a-z0-9_]{0,40}\.)?[a-z_][a-z0-9_]{0,40}")  # so that it needs no quotes

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS {table} (
    stream text NOT NULL, seq bigint NOT NULL, id text NOT NULL, ts timestamptz NOT NULL, type text NOT NULL,
    outcome text, basis text, action text, session text, subject text, actor text, decision text,
    rules text[] NOT NULL, line text NOT NULL,
    PRIMARY KEY (stream, seq)
);
CREATE INDEX IF NOT EXISTS {name}_id ON {table} (id);
CREATE INDEX IF NOT EXISTS {name}_ts ON {table} (ts);
CREATE INDEX IF NOT EXISTS {name}_session ON {table} (session, ts);
CREATE INDEX IF NOT EXISTS {name}_decision ON {table} (decision);
"""
_MOVE: Final = (
    "INSERT INTO {table} ({columns}) SELECT {columns} FROM agentauthz_incoming ON CONFLICT (stream, seq) DO NOTHING"
)
_CLASH: Final = (
    "SELECT count(*) FROM {table} AS kept JOIN agentauthz_incoming AS new USING (stream, seq)"
    " WHERE kept.line <> new.line"
)


@final
class PostgresSink(Shipped):
    """Keep records in the table `table` of a PostgreSQL database, made where it isn't there (extra `postgres`).

    `dsn` is a connection string or URL; its password is never shown. Appends that wait at the same time share a
    transaction, whose lines go by COPY; a record that comes twice is kept once. With `delivery` "acknowledged" an
    append returns once its transaction is committed, or raises after `timeout` seconds; with "queued" once it is in the
    queue, which holds `room` bytes and where it is full lets wait; with "lossy" a full queue gives up the oldest
    allows and effects, counts them, and records a `stream.gap`.

    Raises:
        InvalidArgument: psycopg is missing, no connection string, a table's name with other than lower-case letters,
            digits and `_`, or a bound that is no positive number.
    """

    def __init__(
        self,
        dsn: str,
        *,
        table: str = "agentauthz_records",
        delivery: Delivery = "acknowledged",
        timeout: float = 5.0,
        room: int = ROOM,
        batch: int = 1000,
    ) -> None:
        require("psycopg", "postgres")
        if not isinstance(table, str) or not TABLE.fullmatch(table):
            raise InvalidArgument("table", "must be a name of lower-case letters, digits and `_`")
        limits = Limits(delivery, timeout, room, batch)
        options = connecting(dsn, timeout)
        super().__init__(lambda: _Wire(options, table), limits, "power_loss", deduplicates=True)


@final
class _Wire:
    """Be one connection, with a table of its own that COPY fills."""

    def __init__(self, options: dict[str, Any], table: str) -> None:
        import psycopg

        words = {"table": table, "name": table.rpartition(".")[2], "columns": ", ".join(COLUMNS)}
        self._move, self._clash = _MOVE.format(**words), _CLASH.format(**words)
        self._connection: psycopg.Connection = psycopg.connect(**options)
        try:
            self._prepare(table, _SCHEMA.format(**words))
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, table: str, schema: str) -> None:
        with self._connection.transaction():
            found = self._connection.execute("SELECT to_regclass(%s)", (table,)).fetchone()
            if found is None or found[0] is None:
                self._connection.execute("SELECT pg_advisory_xact_lock(7264091)")  # one at a time, or both fail
                self._connection.execute(schema)
            self._connection.execute(
                f"CREATE TEMPORARY TABLE agentauthz_incoming (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
            )

    def send(self, lines: Sequence[bytes]) -> None:
        rows = [astuple(row_of(line), recurse=False) for line in lines]
        columns = ", ".join(COLUMNS)
        with self._connection.transaction(), self._connection.cursor() as cursor:
            with cursor.copy(f"COPY agentauthz_incoming ({columns}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row([list(value) if isinstance(value, tuple) else value for value in row])
            cursor.execute(self._move)
            if cursor.rowcount != len(rows):
                clash = cursor.execute(self._clash).fetchone()
                if clash is not None and clash[0]:  # INVARIANT: a place in a stream never has two contents
                    raise Rejected("another record has that place in its stream")

    def close(self) -> None:
        self._connection.close()


def connecting(dsn: str, timeout: float) -> dict[str, Any]:
    """Return what to connect with; no attempt and no statement takes much longer than the time-out."""
    from psycopg.conninfo import conninfo_to_dict

    given: dict[str, Any] | None = None
    with contextlib.suppress(Exception):  # SECURITY: its text quotes the string: it must not be the context of ours
        given = conninfo_to_dict(dsn)
    if given is None:
        raise InvalidArgument("dsn", "must be a connection string or URL of PostgreSQL")
    millis = max(1, int(timeout * 1000))
    bounds = {"connect_timeout": max(2, int(timeout)), "tcp_user_timeout": millis, "application_name": "agentauthz"}
    options = f"{given.get('options', '')} -c statement_timeout={millis}".strip()
    return {**bounds, **given, "options": options, "autocommit": True}
