"""Hold the command `records prune`: letting go of old segments."""

from __future__ import annotations

import argparse
from pathlib import Path

from agentauthz.cli.command import Run, conclude, existing, moment, working
from agentauthz.cli.verify import witness
from agentauthz.records import FileSink
from agentauthz.records.findings import place
from agentauthz.records.retention import candidates
from agentauthz.records.verify import verify
from agentauthz.records.words import count


def prune(parser: argparse.ArgumentParser) -> Run:
    """Let go of whole segments that ended before a moment; the hashes of their records stay."""
    parser.epilog = "exits with 0: done; 1: damaged streams stayed as they are; 4: usage"
    parser.add_argument("dir", metavar="DIR", type=Path, help="a log's folder")
    parser.add_argument("--before", metavar="TIME", type=moment, required=True, help="what ended before may go")
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    witness(parser)
    return _prune


def _prune(arguments: argparse.Namespace) -> int:
    folder = existing(arguments.dir)
    with working("verifying"):
        report = verify(folder, checkpoint=arguments.checkpoint, keys=arguments.key)
    may = list(candidates(folder, report, arguments.before, witnessed=arguments.checkpoint is not None))
    lines = [f"{stream}: {count(len(segs), 'segment')}, up to record {segs[-1][1] - 1}" for stream, segs in may]
    lines += [f"stays, for it is damaged: {place(damage)}" for damage in report.damages]
    if arguments.dry_run:
        lines.append(f"{count(sum(len(segs) for _, segs in may), 'segment')} would go")
    else:
        lines.append(f"{count(_gone(folder, arguments) if may else 0, 'segment')} went")
    return conclude(1 if report.damages else 0, *lines)


def _gone(folder: Path, arguments: argparse.Namespace) -> int:
    sink = FileSink(folder)  # a stream of its own, which says what went
    try:
        return sink.prune(arguments.before, checkpoint=arguments.checkpoint, keys=arguments.key)
    finally:
        sink.close()
