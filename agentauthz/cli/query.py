"""Hold the command `records query`: decisions that meet filters, one line each."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path

from agentauthz.cli.command import Run, moment, write
from agentauthz.cli.openings import instance_key, keys
from agentauthz.keys import InstanceKey
from agentauthz.records import DecisionRecord
from agentauthz.records.lines import finished
from agentauthz.records.query import OUTCOMES, Query
from agentauthz.records.query import query as found
from agentauthz.records.reading import log_lines
from agentauthz.records.redaction import correlation
from agentauthz.records.words import decision_line

_NONE = 1


def query(parser: argparse.ArgumentParser) -> Run:
    """Find decisions by outcome, action, party, session, rule or time."""
    parser.epilog = "exits with 0: found; 1: no decision meets all filters; 4: usage"
    parser.add_argument("path", metavar="PATH", type=Path, help="a log's folder, or a file of lines")
    parser.add_argument("--outcome", choices=OUTCOMES)
    parser.add_argument("--action", metavar="NAME", help="a name, or a pattern such as `payments.*`")
    parser.add_argument("--subject", metavar="ID", help="whose authority it was; `user:maria` says the kind too")
    parser.add_argument("--actor", metavar="ID", help="who made the call; `agent:bot` says the kind too")
    parser.add_argument("--session", metavar="ID")
    parser.add_argument("--rule", metavar="NAME", help="a rule that decided, or couldn't be decided")
    parser.add_argument("--since", metavar="TIME", type=moment, help="the first moment")
    parser.add_argument("--until", metavar="TIME", type=moment, help="the first moment that is too late")
    parser.add_argument("--holds", metavar="VALUE", help="a value that stands there as a keyed hash")
    instance_key(parser)
    parser.add_argument("--json", action="store_true", help="print the records themselves, one line each")
    return _query


def _query(arguments: argparse.Namespace) -> int:
    names = ("outcome", "action", "subject", "actor", "session", "rule", "since", "until")
    holds = () if arguments.holds is None else tuple(hashes(arguments.holds, keys(arguments)))
    wanted = Query(**{name: getattr(arguments, name) for name in names}, holds=holds)
    code = _NONE
    for record in found(log_lines(arguments.path), wanted):
        code = 0
        if arguments.json:
            sys.stdout.write(json_line(record))
        else:
            write(decision_line(record))
    return code


def hashes(text: str, known: Iterable[InstanceKey]) -> Iterator[str]:
    """Return what may stand for a value in a record: for text and, where it is one, for the number."""
    for key in known:
        yield correlation(text, key)
        with contextlib.suppress(ArithmeticError):
            yield from (correlation(number, key) for number in _numbers(Decimal(text)))


def _numbers(number: Decimal) -> list[Decimal | int]:
    return [number, int(number)] if number.is_finite() and number == int(number) else [number]


def json_line(record: DecisionRecord) -> str:
    """Return a record's own line; what a terminal could obey is escaped, as in each line that the library writes."""
    text = record.line().decode(errors="replace").strip()
    return finished(" ".join(text.splitlines())).decode()
