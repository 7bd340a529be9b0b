"""Use a state store in several processes at once, and kill some of them: what the tests of races run.

`python -m tests.state_racing work KIND PLACE PROCESSES BOUND` prints what each process was granted, and `kill KIND
PLACE KILLS` what each child began, and was told that it is done. Processes are forked from one program, so that sixteen
interpreters needn't start.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Final, NoReturn, TypeAlias

from agentauthz.state.store import Committed, Intent, Reservation, StateStore
from agentauthz.testing.trying import FAR, request, spend, spending, taken
from tests.stores import SHARED

# ---- work


def work(kind: str, place: str, processes: str, bound: str) -> None:
    """Let processes that begin at the same moment take what there is."""
    waiting, go = os.pipe()
    for _ in range(int(processes)):
        if os.fork() == 0:
            os.close(go)
            os.read(waiting, 1)
            store = SHARED[kind](place)
            got = granted(store, 2 * int(bound) // int(processes), int(bound))
            os.write(1, (json.dumps(got) + "\n").encode())
            os._exit(0)
    os.close(waiting)
    os.close(go)
    for _ in range(int(processes)):
        os.wait()


def granted(store: StateStore, rounds: int, bound: int) -> Counter[str]:
    """Return how often a store has granted what it has `bound` of, or less."""
    got: Counter[str] = Counter()
    for number in range(rounds):
        got["count"] += taken(store.commit(spending(spend("count", bound=str(bound)))))
        got["once"] += store.once(f"key-{number}", store.now() + FAR)
        # of two budgets at once, one has less room
        amount = ("0.10", "2.35")[number % 2]
        money = spend("money", amount, str(Decimal(bound) / 2), None)
        both = store.commit(spending(spend("calls", bound=str(2 * bound)), money, releasable=number % 3 == 0))
        if isinstance(both, Committed) and both.reservation is not None and number % 9 == 0:
            store.release(both.reservation)
        else:
            got[amount] += taken(both)
        # who reserves five and settles for less, with an id or without one, leaves room for others
        most = spend("tokens", "5", str(bound / 10), FAR)
        reserved = store.commit(spending(most, releasable=number % 2 == 0))
        if isinstance(reserved, Committed) and reserved.reservation is not None:
            store.settle(reserved.reservation, {most.rule: Decimal("0.5")})
            got["settled"] += 1
        # the first to mark a session is who has seen it without marks
        if number % 8 == 0:
            seen = store.read("marked").marks
            marked = store.commit(Intent("marked", marks_seen=seen, marks=("taken",), began="shop.take"))
            got["first"] += taken(marked) and not seen
    got["approval"] += taken(store.commit(Intent(None, approvals=("approval",))))
    return got


# ---- kill

Step: TypeAlias = tuple[str, Callable[[], object]]
SPENT: Final = Decimal("0.1")
KEPT: Final = Decimal("0.04")  # of what is settled


def steps(store: StateStore, session: str, name: str) -> Iterator[Step]:
    """Yield each kind of step once: what it is called, and what does it."""
    money = spending(spend("money", str(SPENT), "1E+9", FAR), releasable=True)
    made: list[Reservation] = []

    def pay() -> None:
        answer = store.commit(money)
        assert isinstance(answer, Committed)
        assert answer.reservation is not None
        made.append(answer.reservation)

    # one of each kind, all or nothing
    one = Intent(session, marks=(f"used-{name}",), spends=(spend("used", bound="1E+9", window=FAR),), approvals=(name,))
    yield "spend", pay
    yield "release", lambda: store.release(made.pop())
    yield "spend", pay
    yield "settle", lambda: store.settle(made.pop(), {"rule-money": KEPT})
    yield "mark", lambda: store.mark(session, name)
    yield "once", lambda: store.once(name, store.now() + FAR)
    yield "revoke", lambda: store.revoke("token", name, "")
    yield "ask", lambda: store.ask(request(store, name))
    yield "answer", lambda: store.answer(name, "approved", "{}")
    yield "use", lambda: store.commit(one)


KINDS: Final = ("spend", "release", "settle", "mark", "once", "revoke", "ask", "answer", "use")


def kill(kind: str, place: str, kills: str) -> None:
    """Kill one child after the other, each soon after it has begun with a step of the kind whose turn it is."""
    rng = random.Random(kills)
    for number, target in zip(range(int(kills)), itertools.cycle(KINDS), strict=False):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _go_on(kind, place, f"s-{number // 50}", str(number), writing)
        os.close(writing)
        said = b""
        while f"begin {target} ".encode() not in said:
            ready, _, _ = select.select([reading], [], [], 60)
            said += os.read(reading, 65536) if ready else b""
            assert ready, "the child says nothing"
        time.sleep(rng.random() * 0.0005)  # a step takes about that long
        os.kill(child, signal.SIGKILL)
        with os.fdopen(reading, "rb") as pipe:
            said += pipe.read()
        os.waitpid(child, 0)
        sys.stdout.write(said.decode())


def _go_on(kind: str, place: str, session: str, name: str, writing: int) -> NoReturn:
    """Be a child: work until it is killed, and say of each step when it begins, and that it was answered."""
    store = SHARED[kind](place)
    for each in itertools.count():
        for what, do in steps(store, session, f"{name}-{each}"):
            os.write(writing, f"begin {what} {name}-{each}\n".encode())
            do()
            os.write(writing, f"done {what} {name}-{each}\n".encode())
    raise AssertionError("it works until it is killed")


if __name__ == "__main__":
    RUN: Final[dict[str, Callable[..., None]]] = {"work": work, "kill": kill}
    SHARED[sys.argv[2]](sys.argv[3]).close()  # so that no child has to load what it needs
    RUN[sys.argv[1]](*sys.argv[2:])
