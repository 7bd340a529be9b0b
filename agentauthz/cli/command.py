"""Hold what all commands share: their shape, exit codes, arguments, and text that a terminal doesn't obey."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import sys
from collections.abc import Callable, Iterator
from typing import Final, NoReturn, TypeAlias, final

USAGE: Final = 4  # the exit code of a wrong call; argparse's own, 2, means something else to these commands

Run: TypeAlias = Callable[[argparse.Namespace], int]
Command: TypeAlias = Callable[[argparse.ArgumentParser], Run]


@final
class Parser(argparse.ArgumentParser):
    """Parse arguments; a mistake in them exits with 4."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and leave."""
        self.print_usage()
        self.exit(USAGE, f"{self.prog}: {message}\n")


def printable(text: str) -> str:
    """Return text of which a terminal shows every character and obeys none; line feeds stay."""
    return "".join(c if c == "\n" or c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def write(*lines: str) -> None:
    """Print lines. What stands in one, stays in one: a name can't begin another line."""
    sys.stdout.write("".join(f"{one_line(line)}\n" for line in lines))


def one_line(text: str) -> str:
    """Return text as a terminal shows it in one line."""
    return printable(text).replace("\n", "\\u000a")


def moment(text: str) -> dt.datetime:
    """Return the moment that an argument names.

    Raises:
        ArgumentTypeError: it names none, or has no time zone.
    """
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"must be a moment with its zone, as 2026-11-23T09:00:00Z, not `{text}`")
    return found


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show that long work goes on: in a terminal, and where rich (the extra `cli`) is installed."""
    if not sys.stderr.isatty():
        yield
        return
    try:
        from rich.console import Console
    except ImportError:
        yield
        return
    with Console(stderr=True).status(what):
        yield
