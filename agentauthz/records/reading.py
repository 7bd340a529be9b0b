"""Read logs whatever is in them: the whole lines of their files, and the records among them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias, final

from agentauthz.errors import InvalidArgument
from agentauthz.records.catalog import CATALOG, segments, streams
from agentauthz.records.record import Record, read_record

LINES: Final = (".ndjson", ".jsonl")

Tree: TypeAlias = dict[str, Any]


def log_lines(path: Path) -> Iterator[bytes]:
    """Return the whole lines of a log's folder, of a folder of `.jsonl` or `.ndjson` files, or of one such file.

    What a writer is still adding to the end of a file isn't a line yet.

    Raises:
        InvalidArgument: there is nothing to read.
    """
    files = log_files(path)
    if not files:
        raise InvalidArgument("PATH", f"holds no records: `{path}` has no file of lines, and no stream")
    for file in files:
        with file.open("rb") as lines:
            yield from (line for line in lines if line.endswith(b"\n"))


def log_files(path: Path) -> list[Path]:
    """Return the files that hold records: those of each stream in the order in which they were written."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        return []
    own = [file for stream in streams(path) for _, file in segments(stream)]
    if own or (path / CATALOG).exists():
        return own  # SECURITY: what else lies in a log's folder is nothing that `verify` vouches for
    return sorted(file for file in path.iterdir() if file.suffix in LINES and file.is_file())


def tree_of(line: bytes) -> Tree | None:
    """Return the JSON tree of a record's line; None: the line is no record of this major version."""
    try:
        tree = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(tree, dict) or not isinstance(tree.get("type"), str):
        return None
    version = tree.get("v")
    return tree if isinstance(version, str) and version.startswith("1.") else None


@final
class Reading:
    """Be the records among lines, in their order; `unreadable` counts the lines that are none, as far as was read."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = lines
        self.unreadable = 0

    def __iter__(self) -> Iterator[Record]:
        for line in self._lines:
            try:
                yield read_record(line)
            except InvalidArgument:  # `verify` is what tells of damage
                self.unreadable += 1
