"""Hold what all commands share: their shape, exit codes, reading logs, and text that a terminal doesn't obey."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn, TypeAlias, final

from agentauthz.errors import InvalidArgument
from agentauthz.records.catalog import segments, streams

USAGE: Final = 4  # the exit code of a wrong call; argparse's own, 2, means something else to these commands
LINES: Final = (".ndjson", ".jsonl")

Run: TypeAlias = Callable[[argparse.Namespace], int]
Command: TypeAlias = Callable[[argparse.ArgumentParser], Run]


@final
class Parser(argparse.ArgumentParser):
    """Parse arguments; a mistake in them exits with 4."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and leave."""
        self.print_usage()
        self.exit(USAGE, f"{self.prog}: {message}\n")


def log_lines(path: Path) -> Iterator[bytes]:
    """Return the whole lines of a log's folder, of a folder of `.jsonl` or `.ndjson` files, or of one such file.

    What a writer is still adding to the end of a file isn't a line yet.

    Raises:
        InvalidArgument: there is nothing to read.
    """
    files = _files(path)
    if not files:
        raise InvalidArgument("PATH", f"holds no records: `{path}` has no file of lines, and no stream")
    for file in files:
        with file.open("rb") as lines:
            yield from (line for line in lines if line.endswith(b"\n"))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        return []
    flat = sorted(file for file in path.iterdir() if file.suffix in LINES and file.stem != "catalog")
    return [*flat, *(file for stream in streams(path) for _, file in segments(stream))]


def printable(text: str) -> str:
    """Return text of which a terminal shows every character and obeys none; line feeds stay."""
    return "".join(c if c == "\n" or c.isprintable() else f"\\u{ord(c):04x}" for c in text)
