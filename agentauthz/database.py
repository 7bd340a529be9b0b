"""Hold a SQLite file for several threads, processes and forks at once."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from agentauthz.errors import AgentAuthzError, InvalidArgument

if TYPE_CHECKING:
    import sqlite3

_FIRST_WAIT: Final = 0.0001  # seconds, before the file is asked for again: SQLite's own waits are up to a tenth,
_LONGEST_WAIT: Final = 0.004  # with which some of many processes are never the one that finds it free


@final
class _Lane:
    """Be one connection, for one thread at a time."""

    __slots__ = ("connection", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a signal's handler may come in the middle
        self.connection: sqlite3.Connection | None = None

    def acquire(self, timeout: float) -> bool:
        """Take the lock, and say whether it could be had in time; where an interruption comes as it is had, let go."""
        owned = self._is_mine()
        try:
            return self.lock.acquire(timeout=timeout)
        except BaseException:
            if not owned and self._is_mine():
                self.lock.release()
            raise

    def _is_mine(self) -> bool:
        return bool(self.lock._is_owned())  # type: ignore[attr-defined]  # as threading.Condition asks it


@final
class Database:
    """Be the SQLite file `path`, made (mode 0600) where it isn't there; `settings` are pragmas.

    Each script of `schema` brings a file from the version before to the next. What is committed survives the death of
    the process; with `durable`, a loss of power too. Nothing waits longer than `timeout` seconds for another thread or
    process. A file that was deleted or replaced meanwhile is refused: what was in it is elsewhere. Whoever reads waits
    for nobody who writes. What fails is a `failure`.

    Raises:
        AgentAuthzError: a `failure`: the file can't be made, or is no such database.
        InvalidArgument: no file's path, or a time-out that is no positive number.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: Sequence[str],
        settings: tuple[str, ...] = (),
        *,
        failure: Callable[[str], AgentAuthzError],
        durable: bool = False,
        timeout: float = 5.0,
    ) -> None:
        if not 0 < timeout < float("inf"):
            raise InvalidArgument("timeout", "must be a positive number of seconds")
        if not isinstance(path, str | os.PathLike) or os.fspath(path) in ("", ":memory:"):
            raise InvalidArgument("path", "must be that of a file, which processes share and which stays")
        self.path: Final = Path(os.path.abspath(path))  # a later chdir must not move it
        self.forks = 0  # that happened in the life of this object, in this process and those it was forked from
        self._schema: Final = schema
        self._settings: Final = (*settings, f"synchronous = {'FULL' if durable else 'NORMAL'}")
        self._failure: Final = failure
        self._timeout: Final = timeout
        self._closed = False
        self._process = os.getpid()
        self._reading = _Lane()
        self._writing = _Lane()
        self._joined: Final[list[Callable[[sqlite3.Connection], object]]] = []
        self._at_fork: list[_Lane] = []
        self._inherited: list[sqlite3.Connection | None] = []  # held, for to be collected would close them
        self._inode = self._made()
        self._writing.connection = self._opened(waits=False)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise
        _OPEN.add(self)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a connection to the block, to no other thread meanwhile.

        Raises:
            AgentAuthzError: a `failure`: the file can't be used, or is closed.
        """
        with self._held(self._reading, waits=True) as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self, *, joins: Callable[[sqlite3.Connection], object] | None = None) -> Iterator[sqlite3.Connection]:
        """Do as `reading`, with what the block does committed at its end: all of it or, where it raises, none.

        Inside of another such block of the same thread, which a signal's handler may be, it fails; with `joins`, what
        the block does is committed with what the other one does, and if that fails, `joins` does it by itself.

        Raises:
            AgentAuthzError: as `reading`; and the file is being written for longer than the time-out.
        """
        ends = time.monotonic() + self._timeout
        with self._held(self._writing, waits=False) as connection:
            if not connection.in_transaction:
                try:
                    yield from self._committed(connection, ends)
                except BaseException:
                    self._do_joined(connection)
                    raise
                finally:
                    self._joined.clear()
            elif joins is not None:
                yield connection
                self._joined.append(joins)
            else:
                raise self._failure(f"`{self.path}` is being written by what this was called from")

    def close(self) -> None:
        """Close the file; doing it again does nothing."""
        self._own_process()
        self._closed = True
        for lane in (self._reading, self._writing):
            with lane.lock:
                connection, lane.connection = lane.connection, None
                if connection is not None:
                    connection.close()

    # ---- one connection

    @contextlib.contextmanager
    def _held(self, lane: _Lane, *, waits: bool) -> Iterator[sqlite3.Connection]:
        import sqlite3

        self._own_process()
        if not lane.acquire(self._timeout):
            raise self._failure(f"`{self.path}` is in use by another thread for longer than the time-out")
        try:
            if self._closed:
                raise self._failure(f"`{self.path}` is closed")
            if waits or lane.connection is None:  # who writes looks once no other process can
                self._same_file()
            if lane.connection is None:
                lane.connection = self._opened(waits=waits)
            yield lane.connection
        except sqlite3.Error as cause:
            self._give_up(lane, cause)
            raise self._failed("can't be used", cause) from cause
        finally:
            lane.lock.release()

    def _committed(self, connection: sqlite3.Connection, ends: float) -> Iterator[sqlite3.Connection]:
        try:
            self._begin(connection, ends)
            self._same_file()  # what is written to a file that nobody finds any more must not count
            yield connection
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _do_joined(self, connection: sqlite3.Connection) -> None:
        """Do what was joined with a block that failed: it was answered already, as a handler's that raises then."""
        if joined := tuple(self._joined):
            try:
                block = contextlib.contextmanager(self._committed)
                with block(connection, time.monotonic() + self._timeout):
                    for work in joined:
                        work(connection)
            except Exception as error:
                logging.getLogger("agentauthz.state").error(
                    "what a signal's handler wrote to `%s` is lost: %s", self.path, type(error).__name__
                )

    def _begin(self, connection: sqlite3.Connection, ends: float) -> None:
        """Begin to write once nobody else does."""
        import sqlite3

        wait = _FIRST_WAIT
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                left = ends - time.monotonic()
                if not _is_busy(error) or left <= 0:
                    raise
            time.sleep(min(left, wait * random.random()))  # noqa: S311  (so that processes don't wake together)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _same_file(self) -> None:
        try:
            found = os.stat(self.path)
        except OSError as cause:
            raise self._failed("can't be found any more", cause) from cause
        if (found.st_dev, found.st_ino) != self._inode:
            raise self._failure(f"`{self.path}` was replaced while it was open")

    def _give_up(self, lane: _Lane, cause: Exception) -> None:
        """Leave a connection that failed, for the next one may be better; nobody else's turn is no failure of it."""
        connection, lane.connection = lane.connection, None if not _is_busy(cause) else lane.connection
        if connection is not None and lane.connection is None:
            with contextlib.suppress(Exception):
                connection.close()

    def _failed(self, what: str, cause: Exception) -> AgentAuthzError:
        why = cause.strerror if isinstance(cause, OSError) else getattr(cause, "sqlite_errorname", None)
        return self._failure(f"`{self.path}` {what}: {why or type(cause).__name__}")

    # ---- forks

    def _before_fork(self) -> None:
        """Close all, since SQLite's locks aren't inherited, but a child's SQLite would take them for its own."""
        for lane in (self._reading, self._writing):
            if self._process == os.getpid() and lane.lock.acquire(timeout=self._timeout):
                self._at_fork.append(lane)
                if lane.connection is not None and not lane.connection.in_transaction:
                    lane.connection.close()
                    lane.connection = None

    def _after_fork(self) -> None:
        self.forks += 1
        self._own_process()
        while self._at_fork:
            self._at_fork.pop().lock.release()

    def _own_process(self) -> None:
        """Forget what belongs to the process that this one was forked from: SQLite forbids its use, and its end."""
        if self._process != os.getpid():
            self._inherited += [self._reading.connection, self._writing.connection]
            self._reading, self._writing = _Lane(), _Lane()  # threads that aren't here may hold the parent's
            self._at_fork.clear()
            self._process = os.getpid()

    # ---- opening

    def _made(self) -> tuple[int, int]:
        """Make the file where there is none; return which it is.

        SECURITY: one that is there is never opened and closed here: that would end SQLite's locks on it (POSIX).
        """
        try:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))
            found = os.stat(self.path)
        except OSError as cause:
            there = os.path.isdir(os.path.dirname(self.path))
            raise self._failed(
                f"can't be {'opened' if there else 'made in a folder that is missing'}", cause
            ) from cause
        return found.st_dev, found.st_ino

    def _opened(self, *, waits: bool) -> sqlite3.Connection:
        import sqlite3  # who keeps nothing in a database doesn't load it

        try:
            connection = sqlite3.connect(
                self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as cause:
            raise self._failed("can't be opened", cause) from cause
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            for setting in self._settings:
                connection.execute(f"PRAGMA {setting}")
            if not waits:
                connection.execute("PRAGMA busy_timeout = 0")
        except sqlite3.Error as cause:
            connection.close()
            raise self._failed("can't be used", cause) from cause
        return connection

    def _migrate(self) -> None:
        with self.reading() as connection:
            [(version,)] = connection.execute("PRAGMA user_version")
        if version > len(self._schema):
            raise self._failure(f"`{self.path}` was written by a newer version of this library")
        if version == len(self._schema):
            return
        with self.writing() as connection:
            [(version,)] = connection.execute("PRAGMA user_version")  # others may have been faster
            for script in self._schema[version:]:
                for statement in filter(str.strip, script.split(";")):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(self._schema)}")


def _is_busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED


# ---- a child must not inherit an open file

_OPEN: Final[weakref.WeakSet[Database]] = weakref.WeakSet()


def _before_fork() -> None:
    for database in list(_OPEN):
        database._before_fork()


def _after_fork() -> None:
    for database in list(_OPEN):
        database._after_fork()


if hasattr(os, "register_at_fork"):  # where processes fork
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork, after_in_parent=_after_fork)
