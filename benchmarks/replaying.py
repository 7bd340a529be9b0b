"""Measure a replay of many records under other policies: `python -m benchmarks.replaying`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Final

from agentauthz import Authorizer, PolicySet, Principal
from agentauthz.records import MemorySink
from agentauthz.replay import replay
from agentauthz.replay.batches import batches_of, replay_batches

TARGET: Final = 50_000  # records a second, on two cores

_OLD: Final = """
permit support_refunds on pay.refund when "support" in subject.roles and args.amount <= 500 and purpose == "refund"
permit reads on crm.* when actor.trust >= 2
forbid secrets on mail.send when "secret" in session.marks
permit mails on mail.send when args.to like "*@example.com"
mark secret on crm.read when resource.level == "secret"
"""
_NEW: Final = _OLD.replace("<= 500", "<= 300").replace(">= 2", ">= 1")


def lines(count: int) -> list[bytes]:
    """Return the lines of `count` decisions: many people, amounts and resources, as a log has them."""
    from agentauthz import Resource

    sink = MemorySink()
    authorizer = Authorizer(PolicySet.parse(_OLD), sinks=[sink])
    for turn in range(count // 4):
        who = Principal.user(f"u{turn % 997}", roles=["support"] if turn % 3 else ["sales"])
        session = authorizer.session(who, Principal.agent(f"bot-{turn % 7}", trust=turn % 4), purpose="refund")
        order = Resource("Order", f"o-{turn}", {"level": "secret" if turn % 11 == 0 else "low"})
        session.decide("pay.refund", args={"order_id": order.id, "amount": turn % 800}, resource=order)
        session.decide("crm.read", args={"path": f"/{turn}"}, resource=order)
        session.decide("mail.send", args={"to": f"p{turn % 50}@example.com", "body": "x" * 200})
        session.decide("crm.write", args={"path": f"/{turn}"}, resource=order)
    return [record.line() for record in sink.records]


def main() -> None:
    """Measure in this process and in a pool of two, and print records a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=400_000)
    count = parser.parse_args().records
    some = lines(min(count, 100_000))
    every = [line for _ in range(max(1, count // len(some))) for line in some]
    print(f"{len(every):,} records of {sum(map(len, some)) // len(some):,} bytes")
    policies = PolicySet.parse(_NEW)
    batches = list(batches_of(every))
    _told("lines, one process", len(every), lambda: replay(every, policies))
    _told("batches, one process", len(every), lambda: list(replay_batches(batches, policies)))
    pool = _told("batches, two processes", len(every), lambda: list(replay_batches(batches, policies, workers=2)))
    print(f"target {TARGET:,}: {'met' if pool >= TARGET else 'missed'}")


def _told(name: str, count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    rate = count / (time.perf_counter() - began)
    print(f"{name:24} {rate:>10,.0f} records/s", flush=True)
    return rate


if __name__ == "__main__":
    main()
