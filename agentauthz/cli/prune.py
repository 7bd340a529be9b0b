"""Hold the command `records prune`: letting go of old segments."""

from __future__ import annotations

import argparse
import datetime as dt
from pathlib import Path

from agentauthz.cli.command import Run, conclude, existing, moment, working
from agentauthz.cli.verify import witness
from agentauthz.errors import InvalidArgument
from agentauthz.records import FileSink, MemorySink, Shipper
from agentauthz.records.findings import place
from agentauthz.records.retention import candidates
from agentauthz.records.verify import verify
from agentauthz.records.words import count


def prune(parser: argparse.ArgumentParser) -> Run:
    """Let go of whole segments that ended before a moment, or have been shipped; the hashes of their records stay."""
    parser.epilog = "exits with 0: done; 1: damaged streams stayed as they are; 4: usage"
    parser.add_argument("dir", metavar="DIR", type=Path, help="a log's folder")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--before", metavar="TIME", type=moment, help="what ended before may go")
    which.add_argument("--shipped", metavar="STATE", type=Path, help="what a shipper has sent may go, by its file")
    parser.add_argument("--max-bytes", metavar="N", type=_size, help="of that only the oldest, until N bytes are left")
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    witness(parser)
    return _prune


def _prune(arguments: argparse.Namespace) -> int:
    folder = existing(arguments.dir)
    before = arguments.before or _shipped(folder, arguments.shipped)
    with working("verifying"):
        report = verify(folder, checkpoint=arguments.checkpoint, keys=arguments.key)
    old = candidates(folder, report, before, witnessed=arguments.checkpoint is not None, max_bytes=arguments.max_bytes)
    may = list(old)
    lines = [f"{stream}: {count(len(segs), 'segment')}, up to record {segs[-1].end - 1}" for stream, segs in may]
    lines += [f"stays, for it is damaged: {place(damage)}" for damage in report.damages]
    if arguments.dry_run:
        lines.append(f"{count(sum(len(segs) for _, segs in may), 'segment')} would go")
    else:
        lines.append(f"{count(_gone(folder, before, arguments) if may else 0, 'segment')} went")
    return conclude(1 if report.damages else 0, *lines)


def _size(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number of bytes, not `{text}`")
    return int(text)


def _shipped(folder: Path, state: Path) -> dt.datetime:
    """Return a moment before which everything has been shipped.

    Raises:
        InvalidArgument: the file isn't there, or no shipper wrote it.
    """
    if not state.is_file():
        raise InvalidArgument("--shipped", f"must be a file that a shipper wrote, and `{state}` isn't there")
    return Shipper(folder, MemorySink(), state).gone_before()  # nothing is sent: its place is all that is asked for


def _gone(folder: Path, before: dt.datetime, arguments: argparse.Namespace) -> int:
    sink = FileSink(folder)  # a stream of its own, which says what went
    try:
        return sink.prune(before, max_bytes=arguments.max_bytes, checkpoint=arguments.checkpoint, keys=arguments.key)
    finally:
        sink.close()
