"""Hold the command `records export`: records in others' forms."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from agentauthz.cli.command import Run
from agentauthz.records.export import FORMS
from agentauthz.records.export import export as exported
from agentauthz.records.reading import log_lines


def export(parser: argparse.ArgumentParser) -> Run:
    """Print records as OCSF, CloudEvents or OTLP, one line of JSON each."""
    parser.epilog = "exits with 0: printed; 4: usage"
    parser.add_argument("path", metavar="PATH", type=Path, help="a log's folder, or a file of lines")
    parser.add_argument("--format", choices=list(FORMS), required=True)
    return _export


def _export(arguments: argparse.Namespace) -> int:
    for made in exported(log_lines(arguments.path), arguments.format):
        sys.stdout.write(f"{made}\n")
    return 0
