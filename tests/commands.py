"""Run commands of the command line in this process, on logs like those that services write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from agentauthz import Authorizer, PolicySet, Principal, Session, authorize
from agentauthz.cli import main
from agentauthz.errors import Denied, ReviewRequired
from agentauthz.records import FileSink, Record
from tests import logs
from tests.faults.logged import SIGNER

POLICY: Final = """
permit refunds on shop.refund when args.amount <= 1000 because "Up to 1000"
permit lookup on shop.find when true
forbid stranger on shop.refund when args.to == "mallory" because "Not to strangers"
review big on shop.refund when args.amount > 500 by approver != subject because "Somebody has to look"
"""
MARIA: Final = Principal.user("maria")
BOT: Final = Principal.agent("bot")


class Ran(NamedTuple):
    """Be what a command printed, and its exit code."""

    code: int
    out: str
    err: str


@authorize("shop.refund")
def refund(order: str, amount: int, to: str = "maria") -> str:
    """Give money back."""
    if order == "broken":
        raise LookupError(order)
    return "refunded"


def ran(capsys: pytest.CaptureFixture[str], *argv: object) -> Ran:
    """Run `agentauthz records …`; text that a terminal would obey must never come out."""
    try:
        code = main(["records", *map(str, argv)])
    except SystemExit as end:
        code = int(str(end.code))
    out, err = capsys.readouterr()
    assert all(c == "\n" or c.isprintable() for c in out + err)
    return Ran(code, out, err)


def written(folder: Path, session: str = "conversation-7") -> list[str]:
    """Write the log of a session: done, failed, denied, reviewed, inline, delegated; return a witness's checkpoints."""
    notes: list[str] = []
    sink = FileSink(folder, key=SIGNER, witness=notes.append)
    with Authorizer(PolicySet.parse(POLICY, name="shop.authz"), sinks=[sink]) as authorizer:
        with authorizer.session(MARIA, BOT, id=session) as held:
            work(held)
        with authorizer.session(Principal.user("otto"), BOT, id="conversation-8"):
            refund("o-9", 1)
    return notes


def work(session: Session) -> None:
    """Make the calls of a session."""
    refund("o-1", 5)
    with pytest.raises(LookupError):
        refund("broken", 6)
    for amount, to in ((7, "mallory"), (900, "maria")):
        with pytest.raises((Denied, ReviewRequired)):
            refund("o-2", amount, to)
    session.decide("shop.find", args={"what": "o-3"})
    with session.delegate(Principal.agent("finder"), actions=["shop.find"], purpose="search", expires="5m") as narrow:
        narrow.decide("shop.find", args={"what": "o-4"})
        with pytest.raises(Denied):
            refund("o-5", 8)


def decisions(folder: Path) -> list[Record]:
    """Return the decisions of a log."""
    return [record for record in logs.records(folder) if json.loads(record.line())["type"] == "decision"]
