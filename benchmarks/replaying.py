"""Measure a replay of many records under other policies: `python -m benchmarks.replaying`, and in `make bench`."""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence
from typing import Final, final

from attrs import frozen

from agentauthz import Authorizer, PolicySet, Principal, Resource
from agentauthz.records import MemorySink
from agentauthz.replay import replay
from agentauthz.replay.batches import batches_of, compared, replay_batches
from benchmarks.report import table

TARGET: Final = 50_000  # records a second, on two cores
RECORDS: Final = 400_000
WORKERS: Final = 2

_OLD: Final = """
permit support_refunds on pay.refund when "support" in subject.roles and args.amount <= 500 and purpose == "refund"
permit reads on crm.* when actor.trust >= 2
forbid secrets on mail.send when "secret" in session.marks
permit mails on mail.send when args.to like "*@example.com"
mark secret on crm.read when resource.level == "secret"
"""
_NEW: Final = _OLD.replace("<= 500", "<= 300").replace(">= 2", ">= 1")


@final
@frozen
class Rate:
    """Be what one way of going through the records took, in seconds: by the clock, and of all processors' time."""

    name: str
    records: int
    clock: float
    processor: float

    @property
    def per_second(self) -> float:
        """Return records a second, by the clock."""
        return self.records / self.clock


def lines(count: int, *, alike: bool = True) -> list[bytes]:
    """Return the lines of `count` decisions: many people, sessions, amounts and resources, as a log has them.

    Where they aren't `alike`, no amount, address or path comes twice.
    """
    sink = MemorySink()
    authorizer = Authorizer(PolicySet.parse(_OLD), sinks=[sink])
    for turn in range(count // 4):
        who = Principal.user(f"u{turn % 997}", roles=["support"] if turn % 3 else ["sales"])
        session = authorizer.session(who, Principal.agent(f"bot-{turn % 7}", trust=turn % 4), purpose="refund")
        order = Resource("Order", f"o-{turn}", {"level": "secret" if turn % 11 == 0 else "low"})
        amount, to = (turn % 800, turn % 50) if alike else (turn, turn)
        session.decide("pay.refund", args={"order_id": order.id, "amount": amount}, resource=order)
        session.decide("crm.read", args={"path": f"/{turn}"}, resource=order)
        session.decide("mail.send", args={"to": f"p{to}@example.com", "body": "x" * 200})
        session.decide("crm.write", args={"path": f"/{turn}"}, resource=order)
    return [record.line() for record in sink.records]


def measured(count: int) -> list[Rate]:
    """Return the rates of each way: decoding alone first, which is what the others are held beside."""
    own = lines(min(count, 100_000))
    every = [line for _ in range(max(1, count // len(own))) for line in own]
    other = lines(min(count, 40_000), alike=False)
    policies = PolicySet.parse(_NEW)
    batches = list(batches_of(every))
    return [
        _rate("json.loads of each line", len(every), lambda: [json.loads(line) and None for line in every]),
        _rate("lines, one process", len(every), lambda: replay(every, policies)),
        _rate("batches, one process", len(every), lambda: compared(replay_batches(batches, policies), policies)),
        _rate(
            "batches, two processes", len(every),
            lambda: compared(replay_batches(batches, policies, workers=WORKERS), policies),
        ),
        _rate("lines of which half ask what none asked before", len(other), lambda: replay(other, policies)),
    ]  # fmt: skip


def shown(rates: Sequence[Rate]) -> str:
    """Return rates as a table."""
    decoding = rates[0].processor / rates[0].records
    rows = [
        (
            rate.name, f"{rate.per_second:,.0f}", f"{rate.processor / rate.records * 1e6:.1f} µs",
            f"{rate.processor / rate.records / decoding:.2f} x",
        )
        for rate in rates
    ]  # fmt: skip
    head = ("", "records/s", "processor time of one", "decoding")
    return table(f"Replaying {rates[0].records:,} records under other policies", head, rows)


def pool(rates: Sequence[Rate]) -> Rate:
    """Return the rate that the target is for."""
    return rates[3]


def _rate(name: str, count: int, work: Callable[[], object]) -> Rate:
    began, before = time.perf_counter(), _processor()
    work()
    return Rate(name, count, time.perf_counter() - began, _processor() - before)


def _processor() -> float:
    """Return the processor time of this process and of those that it ran and that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS)
    rates = measured(parser.parse_args().records)
    print(shown(rates))
    met = "met" if pool(rates).per_second >= TARGET else "missed"
    print(f"at least {TARGET:,} records/s in {WORKERS} processes: {met}")


if __name__ == "__main__":
    main()
