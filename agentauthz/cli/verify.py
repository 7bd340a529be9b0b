"""Hold the command `records verify`: whether a log was changed, and what nobody can tell."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agentauthz.cli.command import Run, conclude, moment, working
from agentauthz.records.findings import told
from agentauthz.records.verify import Verdict
from agentauthz.records.verify import verify as verified

# Only what a witness has seen is complete: without one, a script must not take the log for it
CODES: Final[Mapping[Verdict, int]] = {
    Verdict.OK: 0,
    Verdict.TAMPERED: 1,
    Verdict.INCOMPLETE: 2,
    Verdict.UNWITNESSED: 2,
    Verdict.RECOVERED: 3,
}


def witness(parser: argparse.ArgumentParser) -> None:
    """Take what a log is held to: a checkpoint from elsewhere, and the keys that may have signed it."""
    parser.add_argument(
        "--checkpoint", metavar="FILE|URL", action="append", help="checkpoints kept elsewhere; may be repeated"
    )
    parser.add_argument(
        "--key", metavar="VKEY", action="append", default=[], help="a verifier key that is trusted; may be repeated"
    )


def verify(parser: argparse.ArgumentParser) -> Run:
    """Say whether a log was changed, what is missing, and what nobody can tell."""
    parser.epilog = (
        "exits with 0: ok; 1: tampered; 2: incomplete, or without a witness nobody can tell; "
        "3: recovered, and clean; 4: usage"
    )
    parser.add_argument("dir", metavar="DIR", type=Path, help="a log's folder")
    witness(parser)
    parser.add_argument("--since", metavar="TIME", type=moment, help="look only at what came since that moment")
    return _verify


def _verify(arguments: argparse.Namespace) -> int:
    with working("verifying"):
        report = verified(arguments.dir, checkpoint=arguments.checkpoint, keys=arguments.key, since=arguments.since)
    return conclude(CODES[report.verdict], *told(report))
