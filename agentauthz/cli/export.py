"""Hold the command `records export`: records in others' forms."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from agentauthz.cli.command import Run, working
from agentauthz.errors import InvalidArgument
from agentauthz.records.export import FORMS
from agentauthz.records.export import export as exported
from agentauthz.records.reading import log_lines

_PARQUET: Final = "parquet"


def export(parser: argparse.ArgumentParser) -> Run:
    """Print records as OCSF, CloudEvents or OTLP, one line of JSON each, or write their lines to a Parquet file."""
    parser.epilog = "exits with 0: printed, or written; 4: usage"
    parser.add_argument("path", metavar="PATH", type=Path, help="a log's folder, or a file of lines")
    parser.add_argument("--format", choices=[*FORMS, _PARQUET], required=True)
    parser.add_argument("--output", metavar="FILE", type=Path, help="the Parquet file; other forms are printed")
    return _export


def _export(arguments: argparse.Namespace) -> int:
    if (arguments.format == _PARQUET) != (arguments.output is not None):
        raise InvalidArgument("--output", f"goes with `--format {_PARQUET}`, and it needs one")
    if arguments.format == _PARQUET:
        _write(arguments.path, arguments.output)
        return 0
    for made in exported(log_lines(arguments.path), arguments.format):
        sys.stdout.write(f"{made}\n")
    return 0


def _write(path: Path, output: Path) -> None:
    try:
        from agentauthz.replay.parquet import write_lines
    except ImportError as cause:
        raise InvalidArgument("--format", f"can't be {_PARQUET}: {cause}") from cause
    with working("writing"):
        write_lines(log_lines(path), output)
