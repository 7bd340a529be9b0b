"""Keep checkpoints where the owner of a log can't change them: witnesses for `FileSink(…, witness=…)`.

Each raises where it can't keep one; the log then goes on, counts and records the failure, and asks again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from agentauthz.errors import InvalidArgument
from agentauthz.records.checkpoints import read_checkpoint
from agentauthz.records.sinks.extras import require
from agentauthz.records.sinks.postgres import TABLE, connecting
from agentauthz.urls import checked_url

if TYPE_CHECKING:
    import ssl

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_MAX_ANSWER: Final = 64 * 1024  # bytes
_CHECKPOINTS: Final = """
CREATE TABLE IF NOT EXISTS {table} (
    at timestamptz NOT NULL DEFAULT now(), origin text NOT NULL, size bigint NOT NULL, note text NOT NULL
)
"""


@final
class HttpWitness:
    """POST each checkpoint, the text of its signed note, to `url`, which belongs to somebody else (extra `http`).

    An answer 2xx says that it is kept; after any other, or none within `timeout` seconds, the newest checkpoint is
    sent later. Nothing is followed. `headers` may hold secrets, and are never shown. `tls` is for a private
    certificate authority or a client certificate.

    Raises:
        InvalidArgument: httpx is missing, an address that isn't https (with `loopback_http`, http on this machine),
            headers that can't be sent, a `tls` that verifies nothing, or a time-out that is no positive number.
    """

    __slots__ = ("_headers", "_timeout", "_tls", "_url")

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] = _NONE,
        timeout: float = 5.0,
        loopback_http: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        require("httpx", "http", "witness")
        self._url = checked_url("url", url, loopback_http=loopback_http)
        for name, value in headers.items():
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise InvalidArgument("headers", "must be of printable ASCII characters")
        self._timeout = _positive(timeout)
        if tls is not None and not (tls.check_hostname and tls.verify_mode.name == "CERT_REQUIRED"):
            raise InvalidArgument("tls", "must verify certificates and host names")
        self._headers = {**headers, "content-type": "text/plain; charset=utf-8"}
        self._tls = tls

    def __call__(self, note: str) -> None:
        """Return once the other side keeps a checkpoint.

        Raises:
            ConnectionError, TimeoutError, httpx.HTTPError: it doesn't.
        """
        from agentauthz.records.web import ask

        ask(
            "POST", self._url, body=note.encode(), headers=self._headers, timeout=self._timeout, limit=_MAX_ANSWER,
            tls=self._tls,
        )  # fmt: skip


@final
class FileWitness:
    """Add each checkpoint to the file at `path`, and have it on the device: on a volume of somebody else, say.

    `verify` takes the file as its `checkpoint`. A file in the log's own folder protects nothing.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(os.path.abspath(path))  # a later chdir must not move it

    def __call__(self, note: str) -> None:
        """Return once a checkpoint is kept.

        Raises:
            OSError: it can't be written.
        """
        handle = os.open(self._path, _FLAGS, 0o600)
        try:
            line = f"{note}\n".encode()
            if os.write(handle, line) != len(line):
                raise OSError("the device took a part of a checkpoint only")
            os.fsync(handle)
        finally:
            os.close(handle)


@final
class PostgresWitness:
    """Add each checkpoint to the table `table` of somebody else's PostgreSQL, made where it isn't there.

    The log's own user should have the right to insert there, and no other (extra `postgres`). `dsn` is a connection
    string or URL; its password is never shown. Nothing takes much longer than `timeout` seconds.

    Raises:
        InvalidArgument: psycopg is missing, no connection string, a table's name with other than lower-case letters,
            digits and `_`, or a time-out that is no positive number.
    """

    __slots__ = ("_options", "_table")

    def __init__(self, dsn: str, *, table: str = "agentauthz_checkpoints", timeout: float = 5.0) -> None:
        require("psycopg", "postgres", "witness")
        if not isinstance(table, str) or not TABLE.fullmatch(table):
            raise InvalidArgument("table", "must be a name of lower-case letters, digits and `_`")
        self._table = table
        self._options = connecting(dsn, _positive(timeout))

    def __call__(self, note: str) -> None:
        """Return once a checkpoint is committed.

        Raises:
            psycopg.Error: it isn't.
        """
        import psycopg

        said = read_checkpoint(note)
        with psycopg.connect(**self._options) as connection:
            found = connection.execute("SELECT to_regclass(%s)", (self._table,)).fetchone()
            if found is None or found[0] is None:
                connection.execute(_CHECKPOINTS.format(table=self._table))
            insert = f"INSERT INTO {self._table} (origin, size, note) VALUES (%s, %s, %s)"  # noqa: S608  (a checked name)
            connection.execute(insert, (said.origin, said.size, note))

    def notes(self) -> str:
        """Return all checkpoints that are kept, as `verify` takes them; it needs the right to read the table.

        Raises:
            psycopg.Error: they can't be read.
        """
        import psycopg

        with psycopg.connect(**self._options) as connection:
            rows = connection.execute(f"SELECT note FROM {self._table} ORDER BY origin, size").fetchall()  # noqa: S608
        return "".join(f"{note}\n" for (note,) in rows)


def _positive(timeout: object) -> float:
    if not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
        raise InvalidArgument("timeout", "must be a positive number")
    return float(timeout)
