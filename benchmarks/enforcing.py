"""Measure what an application calls: `Authorizer.decide`, `Session.decide`, and decorated functions with sinks."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from agentauthz import Authorizer, Denied, PolicySet, Principal, authorize
from agentauthz.records import FileSink, MemorySink, Sink
from benchmarks import ours
from benchmarks.timing import Clock, Figure
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
