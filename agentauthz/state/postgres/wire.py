"""Hold one connection to PostgreSQL, on which no statement takes longer than it may."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import selectors
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, final

from agentauthz.errors import InvalidArgument, StateError
from agentauthz.state.postgres.text import Value, parameter

if TYPE_CHECKING:
    import psycopg
    from psycopg.pq import abc

VERSION: Final = 1  # of the schema

_LATE: Final = frozenset({"57014", "55P03"})  # cancelled by its time-out; a lock wasn't to be had
_MISSING: Final = frozenset({"3F000", "42883", "42P01"})  # no such schema, function or table
_SAID: Final = {
    "42501": "may not use the schema `agentauthz`: `agentauthz state init --grant ROLE` allows it",
    "25006": "is read-only",
    "53100": "has no space left",
}
_UNKNOWN: Final = "isn't prepared: `agentauthz state init` does that"
_Selector: Final = getattr(selectors, "PollSelector", selectors.SelectSelector)  # neither holds anything over a fork
_DECODER: Final = json.JSONDecoder(parse_float=Decimal)


def options(url: str, timeout: float) -> dict[str, Any]:
    """Return what to connect with; the server ends what takes longer than the time-out.

    Raises:
        InvalidArgument: psycopg is missing, no connection string, or no positive time-out.
    """
    if importlib.util.find_spec("psycopg") is None:
        raise InvalidArgument("url", "needs psycopg: install `agentauthz[postgres]`")
    if not 0 < timeout < float("inf"):
        raise InvalidArgument("timeout", "must be a positive number of seconds")
    from psycopg.conninfo import conninfo_to_dict

    given: dict[str, Any] | None = None
    with contextlib.suppress(Exception):  # SECURITY: its text quotes the string: it must not be the context of ours
        given = conninfo_to_dict(url)
    if given is None:
        raise InvalidArgument("url", "must be a connection string or URL of PostgreSQL")
    millis = max(1, int(timeout * 1000))
    own = {
        "connect_timeout": max(2, int(timeout)),
        "tcp_user_timeout": millis,
        "target_session_attrs": "read-write",
        "application_name": "agentauthz",
    }
    bounds = {
        "statement_timeout": millis,
        "lock_timeout": millis,
        "idle_in_transaction_session_timeout": millis,
        "default_transaction_isolation": "read\\ committed",
    }
    settings = " ".join(f"-c {name}={value}" for name, value in bounds.items())
    settings = f"{given.get('options', '')} {settings}".strip()
    return {**own, **given, "options": settings, "client_encoding": "utf-8", "autocommit": True}


@final
class Wire:
    """Be one connection; after any error it must not be used again.

    Raises:
        StateError: the server can't be reached, or its schema isn't the one that is needed.
    """

    def __init__(self, options: dict[str, Any], timeout: float) -> None:
        self._connection: Final = connected(options)
        self._wire: Final[abc.PGconn] = self._connection.pgconn
        self._wire.nonblocking = 1
        self._selector: Final[selectors.BaseSelector] = _Selector()
        self._selector.register(self._wire.socket, selectors.EVENT_READ)
        self._prepared: Final[set[str]] = set()
        try:
            self._check(time.monotonic() + timeout)
        except BaseException:
            self.close()
            raise

    def _check(self, ends: float) -> None:
        number, synchronous, _ = self.ask("version", (), ends)
        if number != VERSION:
            raise StateError(f"the database has version {number} of the schema `agentauthz`, not {VERSION}")
        if synchronous in ("off", "local"):
            raise StateError("`synchronous_commit` must be on: what the database grants it could forget")

    @property
    def quiet(self) -> bool:
        """Say whether the server has said nothing unasked, such as that it ends the connection."""
        return not self._selector.select(0)

    def ask(self, function: str, values: Sequence[Value], ends: float) -> Any:
        """Return what a function of the schema answers, by a moment of the monotonic clock.

        Raises:
            StateError: it failed, or didn't answer in time.
        """
        from psycopg import OperationalError

        try:
            if function not in self._prepared:
                marks = ", ".join(f"${number + 1}" for number in range(len(values)))
                self._wire.send_prepare(function.encode(), f"SELECT agentauthz.{function}({marks})".encode())
                self._answered(ends)
                self._prepared.add(function)
            self._wire.send_query_prepared(function.encode(), [parameter(value) for value in values])
            result = self._answered(ends)
        except (OperationalError, OSError, ValueError):
            raise StateError("the connection to the database was lost") from None
        found = result.get_value(0, 0)
        return None if found is None else _DECODER.decode(found.decode())

    def _answered(self, ends: float) -> abc.PGresult:
        """Return the only result of what was sent."""
        while self._wire.flush() == 1:
            self._wait(ends, selectors.EVENT_READ | selectors.EVENT_WRITE)
            self._wire.consume_input()
        found: abc.PGresult | None = None
        while True:
            while self._wire.is_busy():
                self._wait(ends, selectors.EVENT_READ)
                self._wire.consume_input()
            if (result := self._wire.get_result()) is None:
                break
            found = result
        assert found is not None
        _heed(found)
        return found

    def _wait(self, ends: float, events: int) -> None:
        if events != selectors.EVENT_READ:
            self._selector.modify(self._wire.socket, events)
        ready = self._selector.select(max(0.0, ends - time.monotonic()))
        if events != selectors.EVENT_READ:
            self._selector.modify(self._wire.socket, selectors.EVENT_READ)
        if not ready:
            raise late()

    def disown(self) -> None:
        """Close this process's copy of a connection of its parent's, without a word to the server."""
        void = os.open(os.devnull, os.O_RDWR)
        os.dup2(void, self._wire.socket, inheritable=False)
        os.close(void)
        self.close()

    def close(self) -> None:
        """Leave the server."""
        self._selector.close()
        self._connection.close()


def late() -> StateError:
    """Return what tells that there was no answer in time."""
    return StateError("the database didn't answer in time")


def connected(options: dict[str, Any]) -> psycopg.Connection:
    """Return a connection.

    Raises:
        StateError: there is none to be had.
    """
    import psycopg

    why = ""
    try:
        return psycopg.connect(**options)
    except psycopg.Error as error:  # SECURITY: its text may quote what it was given: it must not be our context
        why = error.sqlstate or type(error).__name__
    raise StateError(f"the database can't be reached: {why}; `psql` with the same address says more")


def _heed(result: abc.PGresult) -> None:
    from psycopg.pq import DiagnosticField, ExecStatus

    if result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        return
    code = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
    if code in _LATE:
        raise late()
    said = _UNKNOWN if code in _MISSING else _SAID.get(code)
    raise StateError(f"the database {said}" if said else f"the database failed: {code or 'the connection was lost'}")
