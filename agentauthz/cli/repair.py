"""Hold the command `records repair`: ending the streams of writers that died."""

from __future__ import annotations

import argparse
from pathlib import Path

from agentauthz.cli.command import Run, conclude, existing
from agentauthz.records import FileSink
from agentauthz.records.recovery import pending
from agentauthz.records.words import count


def repair(parser: argparse.ArgumentParser) -> Run:
    """End the streams of writers that died, and put what they tore off in quarantine; nothing else is changed."""
    parser.epilog = "exits with 0: nothing is left to do; 1: a dry run found something; 4: usage"
    parser.add_argument("dir", metavar="DIR", type=Path, help="a log's folder")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    return _repair


def _repair(arguments: argparse.Namespace) -> int:
    folder = existing(arguments.dir)
    found = list(pending(folder))
    lines = [
        f"{stream}: its writer died" + (f", and left {count(torn, 'byte')} of a torn line" if torn else "")
        for stream, torn in found
    ]
    if arguments.dry_run:
        return conclude(1 if found else 0, *lines, f"{count(len(found), 'stream')} would be ended")
    if found:
        FileSink(folder).close()  # beginning a stream is what recovers the others, and it is recorded there
    return conclude(0, *lines, f"{count(len(found), 'stream')} ended")
