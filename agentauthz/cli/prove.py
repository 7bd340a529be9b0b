"""Hold the command `records prove`: the proof that one record is in a log."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from agentauthz.cli.command import Run, working, write
from agentauthz.cli.verify import witness
from agentauthz.records.proof import prove as proven
from agentauthz.records.words import printable


def prove(parser: argparse.ArgumentParser) -> Run:
    """Prove that one record is in the log of a signed checkpoint, without showing the others."""
    parser.epilog = "exits with 0: proven; 4: usage, or it can't be proven"
    parser.add_argument("id", metavar="ID", help="the record's id")
    parser.add_argument("dir", metavar="DIR", type=Path, help="a log's folder")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write the proof there, not to the terminal")
    parser.add_argument("--record", metavar="FILE", type=Path, help="write the record's line there")
    witness(parser)
    return _prove


def _prove(arguments: argparse.Namespace) -> int:
    with working("proving"):
        found = proven(arguments.dir, arguments.id, keys=arguments.key, checkpoint=arguments.checkpoint)
    if arguments.record is not None:
        arguments.record.write_bytes(found.line)
    if arguments.output is None:
        sys.stdout.write(printable(found.proof))
    else:
        arguments.output.write_text(found.proof, encoding="utf-8")
        write(f"wrote {arguments.output}")
    return 0
