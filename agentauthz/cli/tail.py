"""Hold the command `records tail`: the last records, and each new one."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from agentauthz.cli.command import Run, write
from agentauthz.records.follow import Follower
from agentauthz.records.reading import Reading
from agentauthz.records.words import count, record_line

_PAUSE: Final = 0.3  # seconds between two looks at the files


def tail(parser: argparse.ArgumentParser) -> Run:
    """Print the last records, and with `-f` each new one."""
    parser.epilog = "exits with 0: printed, or interrupted; 4: usage"
    parser.add_argument("path", metavar="PATH", type=Path, help="a log's folder, or a file of lines")
    parser.add_argument("-n", metavar="N", type=int, default=10, help="how many of the last records: 10")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with each new record, until interrupted")
    return _tail


def _tail(arguments: argparse.Namespace) -> int:
    follower = Follower(arguments.path)
    _print(follower.last(arguments.n))
    try:
        while arguments.follow:
            sys.stdout.flush()
            time.sleep(_PAUSE)
            _print(follower.new())
    except KeyboardInterrupt:
        pass
    return 0


def _print(lines: Iterable[bytes]) -> None:
    reading = Reading(lines)
    for record in reading:
        write(record_line(record))
    if reading.unreadable:
        write(f"({count(reading.unreadable, 'line')} that can't be read)")
