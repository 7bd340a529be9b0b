"""Hold the commands `state …`: prepare a database, look at it, and stop what uses a state store."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from agentauthz.authorizer.revocations import principal_name
from agentauthz.cli.command import Run, conclude, moment, write
from agentauthz.cli.stores import database, opened, state_option
from agentauthz.errors import InvalidArgument
from agentauthz.principals import Principal, PrincipalKind
from agentauthz.records.query import KINDS
from agentauthz.records.words import count
from agentauthz.state.store import Revocation

if TYPE_CHECKING:
    from agentauthz.state.postgres import PostgresState

_TOKEN: Final = re.compile(r"[0-9a-f]{64}")
_ENDS: Final = "exits with 0: done; 4: usage, or it failed"


def init(parser: argparse.ArgumentParser) -> Run:
    """Prepare a PostgreSQL database to keep state, or bring it to this version; what is there stays."""
    _store(parser)
    parser.add_argument("--grant", metavar="ROLE", action="append", default=[], help="a role that may use it")
    return _init


def show(parser: argparse.ArgumentParser) -> Run:
    """Tell how much is kept, and what was revoked."""
    _store(parser)
    return _show


def revoke(parser: argparse.ArgumentParser) -> Run:
    """Revoke a session, a principal or a token, for ever and for all who share the store."""
    _store(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--session", metavar="ID", help="the id of a session; what was delegated from it stops too")
    which.add_argument("--principal", metavar="NAME", help="a user's id, or `agent:bot`; every chain that runs through")
    which.add_argument("--token", metavar="HASH", type=_token, help="the `jti_hash` of a token, as records name it")
    parser.add_argument("--issuer", metavar="ISS", help="who vouches for the principal, if it isn't the host")
    _reason(parser)
    return _revoke


def halt(parser: argparse.ArgumentParser) -> Run:
    """Stop everything, for all who share the store, until `state resume`."""
    _store(parser)
    _reason(parser)
    return lambda arguments: _order(arguments, lifts=False)


def resume(parser: argparse.ArgumentParser) -> Run:
    """Let everything go on that `state halt` has stopped; what was revoked stays revoked."""
    _store(parser)
    _reason(parser)
    return lambda arguments: _order(arguments, lifts=True)


def prune(parser: argparse.ArgumentParser) -> Run:
    """Forget what can't matter any more, and requests and sessions that ended before a moment."""
    _store(parser)
    parser.add_argument("--before", metavar="TIME", type=moment, required=True, help="longer ago than sessions last")
    parser.add_argument(
        "--named", action="store_true", help="sessions too whose id the host chose: they lose their marks"
    )
    return _prune


def _store(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _ENDS
    state_option(parser)


def _reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="TEXT", required=True, help="why: denials tell it")


def _token(text: str) -> str:
    if not _TOKEN.fullmatch(text):  # a token itself, or its id, would revoke nothing
        raise argparse.ArgumentTypeError("must be the `jti_hash` of a token: 64 hexadecimal digits")
    return text


@contextlib.contextmanager
def _opened_database(arguments: argparse.Namespace) -> Iterator[PostgresState]:
    from agentauthz.state.postgres import PostgresState

    with contextlib.closing(PostgresState(database(arguments), connections=1, timeout=30.0)) as store:
        yield store


def _init(arguments: argparse.Namespace) -> int:
    from agentauthz.state.postgres import VERSION
    from agentauthz.state.postgres import init as prepare

    before = prepare(database(arguments), arguments.grant)
    if before == VERSION:
        return conclude(0, f"it is prepared already, version {VERSION}")
    return conclude(0, f"prepared, version {VERSION}" + (f"; it was {before}" if before else ""))


def _show(arguments: argparse.Namespace) -> int:
    with _opened_database(arguments) as store:
        shown, revoked = store.show(), store.revocations(0)
    write(
        f"version {shown.version}, {shown.now.isoformat(timespec='seconds')} by its clock",
        f"{count(shown.sessions, 'session')}, {count(shown.budgets, 'budget')}, {count(shown.once, 'used key')}",
        f"{count(shown.pending, 'request')} for approval pending",
    )
    if shown.ahead > dt.timedelta(seconds=1):
        write(f"its clock is {shown.ahead} ahead of the server's, and stands still until the server's gets there")
    for made in revoked:
        write(f"{made.number}  {made.at.isoformat(timespec='seconds')}  {_told(made)}: {made.reason}")
    return conclude(0, "halted" if _halted(list(revoked)) else "not halted")


def _halted(revoked: list[Revocation]) -> bool:
    orders = [made for made in revoked if made.kind == "everything"]
    return bool(orders) and not orders[-1].lifts


def _told(made: Revocation) -> str:
    if made.kind == "everything":
        return "resumed" if made.lifts else "halted"
    if made.kind == "principal":
        issuer, kind, own = json.loads(made.name)
        return f"principal {kind}:{own}" + (f" of {issuer}" if issuer else "")
    return f"{made.kind} {made.name}"


def _revoke(arguments: argparse.Namespace) -> int:
    if arguments.issuer is not None and arguments.principal is None:
        raise InvalidArgument("--issuer", "goes with --principal")
    with opened(arguments) as store:
        if arguments.session is not None:
            made = store.revoke("session", arguments.session, arguments.reason)
        elif arguments.token is not None:
            made = store.revoke("token", arguments.token, arguments.reason)
        else:
            made = store.revoke("principal", _principal(arguments), arguments.reason)
    return conclude(0, f"{made.number}  {_told(made)}: revoked")


def _principal(arguments: argparse.Namespace) -> str:
    """Return how a store names a principal: its issuer, kind and id, exactly."""
    kind, colon, own = arguments.principal.partition(":")
    known: PrincipalKind = "user"
    for each in KINDS:
        if colon and kind == each:
            known = each
    name = own if colon and kind in KINDS else arguments.principal
    return principal_name(Principal(known, name, arguments.issuer))


def _order(arguments: argparse.Namespace, *, lifts: bool) -> int:
    with opened(arguments) as store:
        made = store.revoke("everything", "", arguments.reason, lifts=lifts)
    return conclude(0, f"{made.number}  {_told(made)}")


def _prune(arguments: argparse.Namespace) -> int:
    with _opened_database(arguments) as store:
        gone = store.prune(arguments.before, named=arguments.named)
    return conclude(
        0,
        f"forgot {count(gone.sessions, 'session')}, {count(gone.budgets, 'budget')},"
        f" {count(gone.approvals, 'request')}, {count(gone.once, 'used key')}",
    )
