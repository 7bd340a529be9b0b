"""Write records in a process of its own: what the faults are put to. Each that is acknowledged is told on stdout.

usage: work.py PACKAGE FOLDER KEY (write PREFIX COUNT | forever PREFIX | fork COUNT | values | secret TEXT | order)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.faults.loggers import LOGGERS, Write

VALUES: Final[dict[str, Any]] = {
    "nan": float("nan"), "surrogate": "\ud800", "object": object(), "bytes": b"\xff", "set": {1}, "huge": 10**400,
}  # fmt: skip


def _tell(*words: str) -> None:
    os.write(1, (" ".join(words) + "\n").encode())  # in one piece, whoever else writes there


def _some(write: Write, prefix: str, count: int) -> None:
    for number in range(count):
        try:
            write(f"call.{prefix}x{number:06}", {"amount": number, "note": "x" * 200})
        except Exception as error:
            _tell("refused", type(error).__name__)
        else:
            _tell("acknowledged", f"call.{prefix}x{number:06}")


def _fork(write: Write, count: int) -> None:
    _some(write, "before", 1)
    if (child := os.fork()) == 0:
        _some(write, "child", count)
        os._exit(0)
    _some(write, "parent", count)
    os.waitpid(child, 0)


def _values(write: Write) -> None:
    for name, value in VALUES.items():
        try:
            write(f"call.{name}", {"value": value})
        except Exception as error:
            _tell(name, "refused", type(error).__name__)
        else:
            _tell(name, "acknowledged")


def _orders(write: Write) -> None:
    """Write as many records as each line of stdin says, and tell when it is done."""
    for line in sys.stdin:
        prefix, count = line.split()
        _some(write, prefix, int(count))
        _tell("done")


def main() -> None:
    """Do what the arguments say."""
    package, folder, key, what, *rest = sys.argv[1:]
    write = LOGGERS[package].open(Path(folder), bytes.fromhex(key))
    _tell("ready")
    works: dict[str, Callable[[], object]] = {
        "write": lambda: _some(write, rest[0], int(rest[1])),
        "forever": lambda: _some(write, rest[0], 1_000_000),
        "fork": lambda: _fork(write, int(rest[0])),
        "values": lambda: _values(write),
        "secret": lambda: write("call.ax000001", {"password": rest[0], "card": rest[0]}),
        "order": lambda: _orders(write),
    }
    works[what]()


if __name__ == "__main__":
    main()
