"""Open the state store that a command is told of: a SQLite file, or a PostgreSQL database."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

from agentauthz.errors import InvalidArgument
from agentauthz.state.store import StateStore

VARIABLE: Final = "AGENTAUTHZ_STATE"  # a password is better off here than in the list of processes

_URLS: Final = ("postgres://", "postgresql://")


def state_option(parser: argparse.ArgumentParser) -> None:
    """Let a command be told where the state store is."""
    text = f"the state store: a SQLite file, or a postgresql:// address; without it, what {VARIABLE} says"
    parser.add_argument("--state", metavar="STORE", help=text)


def address(arguments: argparse.Namespace) -> str:
    """Return where the state store is.

    Raises:
        InvalidArgument: nobody says it, or it is an address of something else.
    """
    told: str | None = arguments.state or os.environ.get(VARIABLE)
    if not told:
        raise InvalidArgument("--state", f"must say where the state store is, or {VARIABLE} must")
    if "://" in told and not is_database(told):
        # SECURITY: it isn't told: a password may be in it, and no file is called so
        raise InvalidArgument("--state", "must be a SQLite file, or an address that begins with `postgresql://`")
    return told


def database(arguments: argparse.Namespace) -> str:
    """Return the address of a PostgreSQL database.

    Raises:
        InvalidArgument: nobody says it, or it is a file.
    """
    told = address(arguments)
    if not is_database(told):
        raise InvalidArgument("--state", "must be the address of a PostgreSQL database, such as postgresql://…")
    return told


def is_database(told: str) -> bool:
    """Say whether an address is a PostgreSQL database's."""
    return told.startswith(_URLS) or "=" in told  # libpq's keywords; what holds a password is no file's name


@contextlib.contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[StateStore]:
    """Give the block the store, of a file only one that is there: a mistyped name must not make one.

    Raises:
        InvalidArgument: nobody says where it is, or it isn't there.
        StateError: it can't be used.
    """
    told = address(arguments)
    if is_database(told):
        module, name = "agentauthz.state.postgres", "PostgresState"
    else:
        module, name = "agentauthz.state.sqlite", "SqliteState"
        if not Path(told).is_file():
            raise InvalidArgument("--state", f"must be a state store, and `{told}` isn't there")
    with contextlib.closing(cast("StateStore", getattr(importlib.import_module(module), name)(told))) as store:
        yield store
