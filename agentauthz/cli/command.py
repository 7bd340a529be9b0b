"""Hold what all commands share: their shape, exit codes, arguments, and text that a terminal doesn't obey."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn, TypeAlias, final

from agentauthz.errors import InvalidArgument
from agentauthz.records.words import one_line
from agentauthz.values import utc

USAGE: Final = 4  # the exit code of a wrong call; argparse's own, 2, means something else to these commands

Run: TypeAlias = Callable[[argparse.Namespace], int]
Command: TypeAlias = Callable[[argparse.ArgumentParser], Run]


@final
class Parser(argparse.ArgumentParser):
    """Parse arguments; a mistake in them exits with 4."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and leave."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {one_line(message)}\n")


def write(*lines: str) -> None:
    """Print lines. What stands in one, stays in one: a name can't begin another line."""
    sys.stdout.write("".join(f"{one_line(line)}\n" for line in lines))


def conclude(code: int, *lines: str) -> int:
    """Print the last lines, and return the exit code: what was found holds, also where nobody reads it to the end."""
    try:
        write(*lines)
        sys.stdout.flush()
    except BrokenPipeError:
        mute()
    return code


def mute() -> None:
    """Let what is still to be printed go nowhere: whoever read the lines has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def existing(folder: Path, name: str = "DIR", then: str = "") -> Path:
    """Return a folder that is there: a command must not make one by a mistyped name; `then` says what wasn't done.

    Raises:
        InvalidArgument: it isn't.
    """
    if not folder.is_dir():
        raise InvalidArgument(name, f"must be a log's folder, and `{folder}` isn't there{then}")
    return folder


def moment(text: str) -> dt.datetime:
    """Return the moment that an argument names.

    Raises:
        ArgumentTypeError: it names none, or has no time zone.
    """
    try:
        found = utc(dt.datetime.fromisoformat(text))
    except ValueError:
        found = None
    if found is None:  # or one that UTC doesn't have, at the ends of the calendar
        raise argparse.ArgumentTypeError(f"must be a moment with its zone, as 2026-11-23T09:00:00Z, not `{text}`")
    return found


@contextlib.contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Show that long work goes on: in a terminal, and where rich (the extra `cli`) is installed.

    What is given may be called with what to show from then on.
    """
    status = None
    if sys.stderr.isatty():
        with contextlib.suppress(ImportError):
            from rich.console import Console

            status = Console(stderr=True).status(what)
    with status or contextlib.nullcontext():
        yield (lambda told: None) if status is None else (lambda told: status.update(told))
