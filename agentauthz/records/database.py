"""Hold a SQLite file for several threads, processes and forks at once."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from agentauthz.errors import InvalidArgument, SinkError

if TYPE_CHECKING:
    import sqlite3


@final
class Database:
    """Be the SQLite file `path`, made (mode 0600) with `schema` where it isn't there; `settings` are pragmas.

    What is committed survives the death of the process; with `durable`, a loss of power too. `timeout` is how many
    seconds to wait for another writer.

    Raises:
        SinkError: the file can't be made, or is no such database.
        InvalidArgument: a time-out that is no positive number.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: str,
        settings: tuple[str, ...] = (),
        *,
        durable: bool = False,
        timeout: float = 5.0,
    ) -> None:
        if not 0 < timeout < float("inf"):
            raise InvalidArgument("timeout", "must be a positive number of seconds")
        self.path: Final = Path(os.path.abspath(path))  # a later chdir must not move it
        self._schema: Final = schema
        self._settings: Final = (*settings, f"synchronous = {'FULL' if durable else 'NORMAL'}")
        self._timeout: Final = timeout
        self._closed = False
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._inherited: sqlite3.Connection | None = None  # held, for to be collected would close it
        self._connection: sqlite3.Connection | None = self._opened()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to the block, to no other thread meanwhile.

        Raises:
            SinkError: the file can't be used, or is closed.
        """
        import sqlite3

        self._own_process()
        with self._lock:
            try:
                yield self._open()
            except sqlite3.Error as cause:
                raise self.failed("can't be used", cause) from cause

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Do as `reading`, with what the block does committed at its end: all of it or, where it raises, none.

        Raises:
            SinkError: as `reading`.
        """
        with self.reading() as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file; doing it again does nothing."""
        self._own_process()
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def failed(self, what: str, cause: Exception) -> SinkError:
        """Return what tells that something failed."""
        why = cause.strerror if isinstance(cause, OSError) else getattr(cause, "sqlite_errorname", None)
        return SinkError(f"`{self.path}` {what}: {why or type(cause).__name__}")

    def _own_process(self) -> None:
        """Forget what belongs to the process that this one was forked from: SQLite forbids its use, and its end."""
        if self._process != os.getpid():
            self._lock = threading.RLock()  # a thread that isn't here may hold the parent's
            self._inherited, self._connection = self._connection, None
            self._process = os.getpid()

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise SinkError(f"`{self.path}` is closed")
        if self._connection is None:
            self._connection = self._opened()
        return self._connection

    def _opened(self) -> sqlite3.Connection:
        import sqlite3  # who keeps nothing in a database doesn't load it

        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
            connection = sqlite3.connect(
                self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as cause:
            raise self.failed("can't be opened", cause) from cause
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            for setting in self._settings:
                connection.execute(f"PRAGMA {setting}")
            connection.executescript(self._schema)
        except sqlite3.Error as cause:
            connection.close()
            raise self.failed("can't be used", cause) from cause
        return connection
