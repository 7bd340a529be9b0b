"""Hold the commands `state …`: prepare a database, look at it, and stop what uses a state store."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentauthz.authorizer.orders import Orders
from agentauthz.authorizer.recording import Recording, regardless
from agentauthz.authorizer.revocations import Revocations
from agentauthz.cli.command import Run, conclude, existing, moment, write
from agentauthz.cli.stores import address, database, is_database, opened, state_option
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.keys import InstanceKey
from agentauthz.principals import Principal
from agentauthz.records import FileSink, MemorySink, Recorder, Sink
from agentauthz.records.query import KINDS
from agentauthz.records.words import count
from agentauthz.state.store import Revocation
from agentauthz.tracing import Tracer

if TYPE_CHECKING:
    from agentauthz.state.postgres import PostgresState, Shown

_TOKEN: Final = re.compile(r"[0-9a-f]{64}")
_ENDS: Final = "exits with 0: done; 4: usage, or it failed"


def init(parser: argparse.ArgumentParser) -> Run:
    """Prepare a PostgreSQL database to keep state, or bring it to this version; what is there stays."""
    _store(parser)
    parser.add_argument("--grant", metavar="ROLE", action="append", default=[], help="a role that may use it")
    return _init


def show(parser: argparse.ArgumentParser) -> Run:
    """Tell what was revoked, what waits for approval, and of a PostgreSQL database how much it keeps."""
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
    parser.add_argument("--instance-key", metavar="FILE", help="the authorizer's key, by which records name a token")
    _order(parser)
    return _revoke


def halt(parser: argparse.ArgumentParser) -> Run:
    """Stop everything, for all who share the store, until `state resume`."""
    _store(parser)
    _order(parser)
    return _halt


def resume(parser: argparse.ArgumentParser) -> Run:
    """Let everything go on that `state halt` has stopped; what was revoked stays revoked."""
    _store(parser)
    _order(parser)
    return _resume


def prune(parser: argparse.ArgumentParser) -> Run:
    """Forget in a PostgreSQL database what can't matter any more, and what ended before a moment."""
    _store(parser)
    parser.add_argument("--before", metavar="TIME", type=moment, required=True, help="longer ago than sessions last")
    parser.add_argument(
        "--named", action="store_true", help="sessions too whose id the host chose: they lose their marks"
    )
    return _prune


def _store(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _ENDS
    state_option(parser)


def _order(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="TEXT", required=True, help="why: denials tell it")
    parser.add_argument("--records", metavar="DIR", type=Path, help="a log's folder, which gets a record of the order")
    parser.add_argument(
        "--as", dest="who", metavar="NAME", help="whose order it is, as a record says; you vouch for it"
    )
    parser.add_argument("--as-issuer", metavar="ISS", help="who vouches for whose order it is, if it isn't the host")


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
    if is_database(address(arguments)):
        with _opened_database(arguments) as kept:
            lines, revoked = _kept(kept.show()), kept.revocations(0)
    else:
        with opened(arguments) as store:
            now, revoked = store.now(), store.revocations(0)
            pending = [each for each in store.approvals(status="pending") if each.expires > now]
            lines = [f"{now.isoformat(timespec='seconds')} by its clock", _waiting(len(pending))]
    write(*lines)
    for made in revoked:
        write(f"{made.number}  {made.at.isoformat(timespec='seconds')}  {_told(made)}: {made.reason}")
    return conclude(0, "halted" if _halted(list(revoked)) else "not halted")


def _kept(shown: Shown) -> list[str]:
    lines = [
        f"version {shown.version}, {shown.now.isoformat(timespec='seconds')} by its clock",
        f"{count(shown.sessions, 'session')}, {count(shown.budgets, 'budget')}, {count(shown.once, 'used key')}",
        _waiting(shown.pending),
    ]
    if shown.ahead > dt.timedelta(seconds=1):
        lines.append(
            f"its clock is {shown.ahead} ahead of the server's, and stands still until the server's gets there"
        )
    return lines


def _waiting(pending: int) -> str:
    return f"{count(pending, 'request')} for approval pending"


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
    if arguments.token is not None and arguments.records is not None and arguments.instance_key is None:
        raise InvalidArgument("--instance-key", "goes with --token and --records: by it records name tokens")
    key = None if arguments.instance_key is None else InstanceKey.from_file(arguments.instance_key)
    whom = None if arguments.principal is None else _principal(arguments.principal, arguments.issuer)
    made = _ordered(
        arguments, lambda orders, by: orders.revoke(arguments.session, whom, arguments.token, arguments.reason, by), key
    )
    return conclude(0, f"{made.number}  {_told(made)}: revoked", *_doubt(arguments.principal, whom))


def _doubt(name: str | None, whom: Principal | None) -> Iterator[str]:
    """Say what may be a slip of the pen: `bot:desk` stops no agent."""
    if name is not None and whom is not None and ":" in name and whom.id == name:
        yield f"`{name}` was taken for a user's whole id: a kind before the colon is one of {', '.join(KINDS)}"


def _halt(arguments: argparse.Namespace) -> int:
    made = _ordered(arguments, lambda orders, by: orders.halt(arguments.reason, by))
    return conclude(0, f"{made.number}  {_told(made)}")


def _resume(arguments: argparse.Namespace) -> int:
    made = _ordered(arguments, lambda orders, by: orders.resume(arguments.reason, by))
    return conclude(0, f"{made.number}  {_told(made)}")


def _principal(name: str, issuer: str | None) -> Principal:
    """Return whom a name stands for: a user, or what is said before a colon."""
    kind, colon, own = name.partition(":")
    for known in KINDS:
        if colon and kind == known:
            return Principal(known, own, issuer)
    return Principal("user", name, issuer)


def _ordered(
    arguments: argparse.Namespace,
    order: Callable[[Orders, Principal | None], Revocation],
    key: InstanceKey | None = None,
) -> Revocation:
    """Give an order, and record it where a log is named: in a stream of its own.

    Raises:
        SinkError: it holds, but couldn't be recorded.
    """
    by = None if arguments.who is None else _principal(arguments.who, arguments.as_issuer)
    if by is not None and arguments.records is None:
        raise InvalidArgument("--as", "goes with --records: nothing else tells whose order it was")
    if by is None and arguments.as_issuer is not None:
        raise InvalidArgument("--as-issuer", "goes with --as")
    log, failure = _log(arguments.records)
    with opened(arguments) as store, contextlib.closing(log):
        recording = Recording(Recorder([log]), key or InstanceKey.random(), regardless("deny"), Tracer(None))
        revoked = Revocations(store, follows=False)
        made = order(Orders(revoked, recording, lambda: dt.datetime.now(dt.UTC)), by)
    if failure is not None:
        raise SinkError("the order holds, but couldn't be recorded") from failure
    return made


def _log(folder: Path | None) -> tuple[Sink, SinkError | None]:
    """Return what keeps the record: the log; nothing where none was named, or where it fails, which stops no order."""
    if folder is None:
        return MemorySink(), None
    try:
        return FileSink(existing(folder, "--records", ": nothing was ordered")), None
    except SinkError as error:
        return MemorySink(), error


def _prune(arguments: argparse.Namespace) -> int:
    with _opened_database(arguments) as store:
        gone = store.prune(arguments.before, named=arguments.named)
    return conclude(
        0,
        f"forgot {count(gone.sessions, 'session')}, {count(gone.budgets, 'budget')},"
        f" {count(gone.approvals, 'request')}, {count(gone.once, 'used key')}",
    )
