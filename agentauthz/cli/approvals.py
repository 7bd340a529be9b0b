"""Hold the commands `approvals …`: what waits for a person, shown whole, and answered."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from agentauthz.approvals.keeper import Keeper
from agentauthz.approvals.review import Review
from agentauthz.approvals.view import lines
from agentauthz.authorizer.approvals import Approvals
from agentauthz.authorizer.consulting import Teller
from agentauthz.authorizer.recording import Recording, regardless
from agentauthz.cli.command import Run, existing, write
from agentauthz.cli.stores import opened, state_option
from agentauthz.errors import ApprovalRefused, InvalidArgument
from agentauthz.keys import InstanceKey
from agentauthz.policy.policyset import PolicySet
from agentauthz.principals import Principal
from agentauthz.records import FileSink, Recorder
from agentauthz.tracing import Tracer

_CODES: Final = {"approved": 0, "used": 0, "pending": 1, "rejected": 2, "expired": 3}


def listing(parser: argparse.ArgumentParser) -> Run:
    """List the calls that wait for a person, one line each."""
    parser.epilog = "exits with 0: listed, none too; 4: usage, or the store can't be asked"
    _stored(parser)
    parser.add_argument("--session", metavar="ID", help="only those of one session")
    parser.add_argument("--all", action="store_true", help="also those that are answered, used or expired")
    return _list


def show(parser: argparse.ArgumentParser) -> Run:
    """Show one call whole: every argument, untruncated, with what a terminal would obey as escapes."""
    parser.epilog = "exits with 0: shown; 4: usage, or there is none"
    _one(parser)
    return _show


def approve(parser: argparse.ArgumentParser) -> Run:
    """Approve one call, as somebody whom the review's `by` accepts."""
    parser.epilog = "exits with 0: approved; 1: somebody else has to approve too; 2: refused; 4: usage"
    _answered(parser)
    parser.add_argument("--policies", metavar="PATH", type=Path, required=True, help="the authorizer's policies")
    parser.add_argument(
        "--attribute", metavar="NAME=JSON", action="append", default=[], help='of who approves, as roles=["lead"]'
    )
    return _approve


def reject(parser: argparse.ArgumentParser) -> Run:
    """Reject one call: it is denied, until the request would have expired."""
    parser.epilog = "exits with 0: rejected; 2: refused; 4: usage"
    _answered(parser)
    return _reject


def wait(parser: argparse.ArgumentParser) -> Run:
    """Wait until one call is answered or expires."""
    parser.epilog = "exits with 0: approved (or used since); 1: still pending; 2: rejected; 3: expired; 4: usage"
    _one(parser)
    parser.add_argument("--timeout", metavar="SECONDS", type=float, help="how long; without it, until the end")
    return _wait


# ---- arguments


def _stored(parser: argparse.ArgumentParser) -> None:
    state_option(parser)
    parser.add_argument("--instance-key", metavar="FILE", required=True, help="the authorizer's key")


def _one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the request's id")
    _stored(parser)


def _answered(parser: argparse.ArgumentParser) -> None:
    _one(parser)
    parser.add_argument("--as", dest="who", metavar="USER", required=True, help="whose answer it is; you vouch for it")
    parser.add_argument("--issuer", metavar="ISS", help="who vouches for the person, if it isn't the host")
    parser.add_argument("--note", metavar="TEXT", default="", help="kept with the answer")
    parser.add_argument(
        "--records", metavar="DIR", type=Path, required=True, help="a log's folder, which gets a record"
    )


# ---- what is done


def _list(arguments: argparse.Namespace) -> int:
    with _opened(arguments) as approvals:
        for review in approvals.list(status=None if arguments.all else "pending", session=arguments.session):
            until = review.expires.isoformat(timespec="seconds")
            write(f"{review.id}  {review.standing:<8}  until {until}  {review.action} by {review.chain.actor}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    with _opened(arguments) as approvals:
        for line in lines(approvals.show(arguments.id)):
            write(line)
    return 0


def _approve(arguments: argparse.Namespace) -> int:
    attributes = dict(map(_attribute, arguments.attribute))
    who = Principal("user", arguments.who, arguments.issuer, attributes)
    policies = PolicySet.load(arguments.policies)
    return _answer(arguments, lambda asked: asked.approve(arguments.id, who, note=arguments.note), policies)


def _reject(arguments: argparse.Namespace) -> int:
    who = Principal("user", arguments.who, arguments.issuer)
    return _answer(arguments, lambda asked: asked.reject(arguments.id, who, note=arguments.note), None)


def _answer(arguments: argparse.Namespace, given: Callable[[Approvals], Review], policies: PolicySet | None) -> int:
    try:
        with _opened(arguments, policies) as approvals:
            review = given(approvals)
    except ApprovalRefused as refused:
        unsaid = refused.reason == "not_approver" and not arguments.attribute
        write(f"refused: {refused}" + ('; --attribute says what they are, as roles=["lead"]' if unsaid else ""))
        return 2
    write(f"{review.id}  {review.standing}")
    return 1 if review.standing == "pending" else 0


def _wait(arguments: argparse.Namespace) -> int:
    with _opened(arguments) as approvals:
        review = approvals.wait(arguments.id, arguments.timeout)
    write(f"{review.id}  {review.standing}")
    return _CODES[review.standing]


def _attribute(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    try:
        if not name or not equals:
            raise ValueError
        return name, json.loads(value)
    except ValueError:
        raise InvalidArgument("--attribute", f"must be a name, `=` and JSON, not `{text}`") from None


@contextlib.contextmanager
def _opened(arguments: argparse.Namespace, policies: PolicySet | None = None) -> Iterator[Approvals]:
    """Give the block what is asked for, with its log where answers are recorded."""
    key = InstanceKey.from_file(arguments.instance_key)
    with contextlib.ExitStack() as closing:
        store = closing.enter_context(opened(arguments))
        teller = None
        if (folder := getattr(arguments, "records", None)) is not None:
            # a stream of its own, which says who answered
            sink = FileSink(existing(folder, "--records", ": nothing was answered"))
            closing.callback(sink.close)
            recording = Recording(Recorder([sink]), key, regardless("deny"), Tracer(None))
            teller = Teller(recording, lambda: dt.datetime.now(dt.UTC), None)
        yield Approvals(store, Keeper(key), lambda: policies, teller)
