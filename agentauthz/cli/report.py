"""Hold the command `records report`: one session as one page for a browser."""

from __future__ import annotations

import argparse
from pathlib import Path

from agentauthz.cli.command import Run, working, write
from agentauthz.cli.verify import witness
from agentauthz.replay.report import report as drawn


def report(parser: argparse.ArgumentParser) -> Run:
    """Draw one session as one self-contained HTML page."""
    parser.epilog = "exits with 0: written; 4: usage"
    parser.add_argument("dir", metavar="DIR", type=Path, help="a log's folder")
    parser.add_argument("--session", metavar="ID", required=True, help="the session's id")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="the page to write")
    witness(parser)
    return _report


def _report(arguments: argparse.Namespace) -> int:
    with working("reading and verifying"):
        page = drawn(arguments.dir, arguments.session, checkpoint=arguments.checkpoint, keys=arguments.key)
    arguments.output.write_text(page, encoding="utf-8")
    write(f"wrote {arguments.output}")
    return 0
