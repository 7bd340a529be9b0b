"""Prepare a database for `PostgresState`: its schema, brought from version to version."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import TYPE_CHECKING, Final

from agentauthz.errors import StateError
from agentauthz.state.postgres.wire import VERSION, connected, options

if TYPE_CHECKING:
    import psycopg

_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(7264091264000004)"
_FUNCTIONS: Final = "ALL FUNCTIONS IN SCHEMA agentauthz"


def init(url: str, grant: Iterable[str] = (), *, timeout: float = 30.0) -> int:
    """Prepare a database, or bring it to this version; return the version that it had, 0: none.

    What is there stays. `grant` are the roles that may use it: they may call its functions, and read or change
    nothing otherwise. Who calls this must be allowed to create a schema, or own it.

    Raises:
        InvalidArgument: psycopg is missing, no connection string, or no positive time-out.
        StateError: the database can't be reached or prepared, or has a newer version.
    """
    connection = connected(options(url, timeout))
    import psycopg

    why = ""
    try:
        with connection.transaction():
            return _prepared(connection, tuple(grant))
    except psycopg.errors.InsufficientPrivilege:
        why = "the role may not: let it create a schema in the database, or own the one that is there"
    except psycopg.errors.UndefinedObject:
        why = "there is no such role to grant it to"
    except psycopg.Error as error:
        why = error.sqlstate or type(error).__name__
    finally:
        connection.close()
    raise StateError(f"the database can't be prepared: {why}")


def _prepared(connection: psycopg.Connection, roles: tuple[str, ...]) -> int:
    from psycopg import sql

    connection.execute(_ONE_AT_A_TIME)
    known = _version(connection)
    for number in range(known + 1, VERSION + 1):
        connection.execute(resources.files(__package__).joinpath(f"{number:04}.sql").read_bytes())
    connection.execute("DELETE FROM agentauthz.version")
    connection.execute("INSERT INTO agentauthz.version VALUES (%s)", (VERSION,))
    connection.execute(f"REVOKE ALL ON {_FUNCTIONS} FROM PUBLIC")
    for role in roles:
        for right in ("USAGE ON SCHEMA agentauthz", f"EXECUTE ON {_FUNCTIONS}"):
            connection.execute(sql.SQL(f"GRANT {right} TO {{}}").format(sql.Identifier(role)))
        # what only forgets is for operators
        connection.execute(
            sql.SQL("REVOKE ALL ON FUNCTION agentauthz.prune(bigint, boolean) FROM {}").format(sql.Identifier(role))
        )
    return known


def _version(connection: psycopg.Connection) -> int:
    """Return the version that the database has; a schema is made where there is none.

    Raises:
        StateError: a newer one, somebody else's schema, or text that isn't stored as UTF-8.
    """
    found = connection.execute(
        "SELECT to_regnamespace('agentauthz') IS NOT NULL, to_regclass('agentauthz.version') IS NOT NULL,"
        " current_setting('server_encoding')"
    ).fetchone()
    assert found is not None
    schema, version, encoding = found
    if encoding != "UTF8":
        raise StateError(f"the database must store text as UTF8, not {encoding}: make another one")
    if not schema:
        connection.execute("CREATE SCHEMA agentauthz")
        return 0
    if not version:
        raise StateError("the database has a schema `agentauthz` that is somebody else's: use another database")
    number = connection.execute("SELECT number FROM agentauthz.version").fetchone()
    known: int = number[0] if number else 0
    if known > VERSION:
        raise StateError(f"the database has version {known} of the schema `agentauthz`, and this is {VERSION}")
    return known
