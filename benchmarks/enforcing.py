"""Measure what an application calls: `Authorizer.decide`, `Session.decide`, and decorated functions with sinks."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from agentauthz import Authorizer, Denied, PolicySet, Principal, authorize
from agentauthz.records import FileSink, MemorySink, Sink
from benchmarks import ours
from benchmarks.timing import Clock, Figure, loop
from benchmarks.workload import expected, pairs, requests

MARIA: Final = Principal.user("maria", roles=["role_3"])
BOT: Final = Principal.agent("shop-bot")
_SIZE: Final = 10
_CALLS: Final = [("o-17", 120), ("o-18", 7), ("o-19", 99), ("o-20", 100)]

_POLICY: Final = """
permit small_refund
  on payments.refund
  when "role_3" in subject.roles and actor == agent("shop-bot") and args.amount <= 500
"""

# added to the ten rules, each for itself: what it costs to remember
_LIMIT: Final = "limit daily on payments.refund to sum(args.amount) <= 99999999999 per subject every 1d\n"
_MARK: Final = "mark refunded on payments.refund\n"
REMEMBERING: Final = {
    "nothing": "",
    "a limit": _LIMIT,
    "a mark": _MARK,
    "a limit and a mark": _LIMIT + _MARK,
    "marks that are read": 'forbid leak on payments.refund when "other" in session.marks\nmark other on other.action\n',
}


@authorize("payments.refund")
def refund(order_id: str, amount: int, reason: str = "") -> str:
    """Be a tool that does nothing, so that only the check is left to measure."""
    return order_id


@authorize("payments.refund")
async def arefund(order_id: str, amount: int, reason: str = "") -> str:
    """Be the same as a coroutine function."""
    return order_id


def plain(order_id: str, amount: int, reason: str = "") -> str:
    """Be the same without a check."""
    return order_id


def policies() -> PolicySet:
    """Return ten rules: the tool's own, and nine of the workload."""
    return PolicySet.parse(_POLICY + ours.policy(pairs(_SIZE - 1)))


def measured(clock: Clock, folder: pathlib.Path) -> dict[str, Figure]:
    """Return the figures of all that an application calls; `folder` is for the file sink, and is removed."""
    with quiet():
        found = _decisions(clock)
        found["plain"] = clock.calls("plain call", lambda given: plain(*given), _CALLS)
        found["refused"] = _refused(clock)
        found.update(_remembering(clock))
        found["sync"] = _called(clock, "call", None)
        found["async"] = _awaited(clock, "async call", None)
        found["memory"] = _called(clock, "call, MemorySink", MemorySink(limit=1_000))
        try:
            found["file"] = _called(clock, "call, FileSink", FileSink(folder))
            found["file only"] = _appended(clock, FileSink(folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return found


def _decisions(clock: Clock) -> dict[str, Figure]:
    """Measure decisions on the requests that ten rules of the workload allow: allows are silent without INFO."""
    rules, asked = pairs(_SIZE), requests(_SIZE)
    allowed = [one for one, yes in zip(asked, expected(rules, asked), strict=True) if yes]
    authorizer = Authorizer(PolicySet.parse(ours.policy(rules)))
    session = authorizer.session(MARIA, BOT)
    mine = [one for one in allowed if "role_3" in one.roles]
    resources = [ours.request(one).resource for one in mine]
    given = [(one.action, {"amount": one.amount}, resource) for one, resource in zip(mine, resources, strict=True)]
    return {
        "decide": clock.calls("authorizer.decide", authorizer.decide, [ours.request(one) for one in allowed]),
        "session": clock.calls(
            "session.decide", lambda one: session.decide(one[0], args=one[1], resource=one[2]), given
        ),
    }


def _called(clock: Clock, name: str, sink: Sink | None) -> Figure:
    authorizer = Authorizer(policies(), sinks=() if sink is None else [sink])
    with authorizer, authorizer.session(MARIA, BOT):
        return clock.calls(name, lambda given: refund(*given), _CALLS)


def _remembering(clock: Clock) -> dict[str, Figure]:
    """Measure inline calls under ten rules, and those that make the state store remember something, in turn."""
    given = [{"order_id": order, "amount": amount} for order, amount in _CALLS]

    def asking(rules: str) -> Callable[[Mapping[str, object]], object]:
        session = Authorizer(PolicySet.parse(f"{_POLICY}{ours.policy(pairs(_SIZE - 1))}\n{rules}")).session(MARIA, BOT)
        return lambda args: session.decide("payments.refund", args=args)

    runs = {f"remembers {name}": loop(asking(rules), given) for name, rules in REMEMBERING.items()}
    return clock.beside(runs, len(given))


def _awaited(clock: Clock, name: str, sink: Sink | None) -> Figure:
    authorizer = Authorizer(policies(), sinks=() if sink is None else [sink])

    async def rounds(count: int) -> float:
        async with authorizer.session(MARIA, BOT):
            begin = time.perf_counter()
            for _ in range(count):
                for given in _CALLS:
                    await arefund(*given)
            return time.perf_counter() - begin

    with authorizer:
        return clock.rounds(name, lambda count: asyncio.run(rounds(count)), len(_CALLS))


def _refused(clock: Clock) -> Figure:
    def call(given: tuple[str, int]) -> None:
        try:
            refund(*given)
        except Denied:
            return
        raise AssertionError("a refund of 9,000 was allowed")

    authorizer = Authorizer(policies())
    with authorizer, authorizer.session(MARIA, BOT):
        return clock.calls("denied call", call, [("o-17", 9_000)])


def _appended(clock: Clock, sink: FileSink) -> Figure:
    """Measure the sink alone: a record's line is written, and the operating system has it."""
    kept = MemorySink()
    authorizer = Authorizer(policies(), sinks=[kept])
    with authorizer, authorizer.session(MARIA, BOT):
        refund("o-17", 120)
    records = kept.decisions
    try:
        return clock.calls("FileSink.append", lambda record: sink.append(record.line(), record), records * 100)
    finally:
        sink.close()


@contextmanager
def quiet() -> Iterator[None]:
    """Log denials to nowhere, with INFO off, as in a program that has set up nothing."""
    logger = logging.getLogger("agentauthz")
    before, nowhere = logger.propagate, logging.NullHandler()
    logger.propagate = False
    logger.addHandler(nowhere)
    try:
        yield
    finally:
        logger.removeHandler(nowhere)
        logger.propagate = before
