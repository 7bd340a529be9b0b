"""Use a state store as one of several processes: `python -m tests.state_racing URL WHAT MANY THREADS`.

A line says that it is ready; it begins with a line of its input, and prints how often it was granted something.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from agentauthz.decision import Reason, Spend
from agentauthz.errors import StateError
from agentauthz.state.postgres import PostgresState
from agentauthz.state.store import Committed, Intent

HOUR: Final = dt.timedelta(hours=1)
WHY: Final = Reason("no_budget", "there is no room")


def counted(bound: int = 1_000) -> Spend:
    """Return one of `bound` calls an hour."""
    return Spend("calls", "calls:all", Decimal(1), Decimal(bound), HOUR, WHY)


def money(amount: str, bound: str) -> Spend:
    """Return an amount of the money of one session."""
    return Spend("money", "money:all", Decimal(amount), Decimal(bound), None, WHY)


def _spend(store: PostgresState, number: int) -> str | None:
    """Spend of two budgets at once, one of which has less room."""
    amount = ("0.10", "2.35")[number % 2]
    done = store.commit(Intent("shared", spends=(counted(), money(amount, "400.00")), releasable=number % 3 == 0))
    if isinstance(done, Committed) and done.reservation is not None and number % 9 == 0:
        store.release(done.reservation)
        return None
    return amount if isinstance(done, Committed) else None


def _settle(store: PostgresState, number: int) -> str | None:
    """Reserve five of 100, and settle for less: with an id, or without one."""
    most = Spend("tokens", "tokens:all", Decimal(5), Decimal(100), HOUR, WHY)
    done = store.commit(Intent(None, spends=(most,), releasable=number % 2 == 0))
    if not isinstance(done, Committed) or done.reservation is None:
        return None
    took = ("0.5", "0.25", "0")[number % 3]
    store.settle(done.reservation, {"tokens": Decimal(took)})
    return took


def _count(store: PostgresState, number: int) -> str | None:
    done = store.commit(Intent(None, spends=(counted(),)))
    return "counted" if isinstance(done, Committed) else None


def _use(store: PostgresState, number: int) -> str | None:
    return "used" if isinstance(store.commit(Intent(None, approvals=("consent",))), Committed) else None


def _once(store: PostgresState, number: int) -> str | None:
    return f"key {number % 7}" if store.once(f"key {number % 7}", store.now() + HOUR) else None


def _mark(store: PostgresState, number: int) -> str | None:
    """Mark the session as the first, which only one can be that has seen it without marks."""
    seen = store.read("marked").marks
    done = store.commit(Intent("marked", marks_seen=seen, marks=("taken",), began="shop.take"))
    return "first" if isinstance(done, Committed) and not seen else None


def _single(store: PostgresState, number: int) -> str | None:
    """Do one of those things of which each may happen once."""
    return (_use, _once, _mark)[number // 7 % 3](store, number)


WORK: Final[dict[str, Callable[[PostgresState, int], str | None]]] = {
    "spend": _spend,
    "settle": _settle,
    "count": _count,
    "single": _single,
}


def main(url: str, what: str, many: str, threads: str) -> None:
    """Do the work that many times over, in so many threads."""
    granted: Counter[str] = Counter()
    store = PostgresState(url, timeout=30.0, connections=4)
    print("ready", flush=True)
    sys.stdin.readline()

    def work(thread: int) -> None:
        for number in range(thread, int(many), int(threads)):
            try:
                got = WORK[what](store, number)
            except StateError as error:
                got = f"failed: {error}"
            if got is not None:
                granted[got] += 1
                if int(threads) == 1:
                    print(got, flush=True)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(int(threads))]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    store.close()
    print(json.dumps(granted), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
