"""Hold the command `records erase`: shredding what is kept of one person."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import cast

from agentauthz.cli.command import Run, existing, write
from agentauthz.cli.openings import instance_key, keys, store
from agentauthz.principals import Principal, PrincipalKind
from agentauthz.records import FileSink
from agentauthz.records.erasure import Erasure
from agentauthz.records.erasure import erase as erased
from agentauthz.records.openings import Openings
from agentauthz.records.query import KINDS
from agentauthz.records.words import count


def erase(parser: argparse.ArgumentParser) -> Run:
    """Erase what records only commit to of one person, in every store that is listed, and record it."""
    parser.epilog = "exits with 0: erased, or erased before; 1: a dry run found something; 4: usage, or it failed"
    parser.add_argument("subject", metavar="SUBJECT", help="whose it is: a user's id, or `agent:bot`")
    parser.add_argument("dir", metavar="DIR", type=Path, help="the log's folder, which gets the record of it")
    parser.add_argument("--issuer", metavar="ISS", help="who vouches for the person, if it isn't the host")
    parser.add_argument(
        "--openings", metavar="FILE", type=Path, action="append", required=True, help="a store; list its copies too"
    )
    instance_key(parser, required=True)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be erased")
    return _erase


def _erase(arguments: argparse.Namespace) -> int:
    folder, known = existing(arguments.dir), keys(arguments)
    with contextlib.ExitStack() as closing:
        stores = [closing.enter_context(contextlib.closing(store(path, known))) for path in arguments.openings]
        done = _done(folder, _person(arguments), stores, dry_run=arguments.dry_run)
    for path, one in zip(arguments.openings, done.stores, strict=True):
        before = f"; {count(one.before, 'opening')} before" if one.before else ""
        write(f"{path}: {count(one.openings, 'opening')} under {count(one.keys, 'key')}{before}")
    if arguments.dry_run:
        write(f"{count(done.count, 'opening')} would be erased")
        return 1 if any(one.keys for one in done.stores) else 0
    write(f"{count(done.count, 'opening')} erased; recorded for {done.subject}")
    return 0


def _done(folder: Path, who: Principal, stores: list[Openings], *, dry_run: bool) -> Erasure:
    if dry_run:
        return erased(who, stores, dry_run=True)
    sink = FileSink(folder)  # a stream of its own, which says what was erased
    try:
        return erased(who, stores, [sink])
    finally:
        sink.close()


def _person(arguments: argparse.Namespace) -> Principal:
    kind, colon, own = arguments.subject.partition(":")
    if colon and kind in KINDS:
        return Principal(cast(PrincipalKind, kind), own, arguments.issuer)
    return Principal.user(arguments.subject, issuer=arguments.issuer)
