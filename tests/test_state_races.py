"""Test state stores with real processes and threads at once, and with processes that are killed in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from agentauthz.state.store import StateStore
from agentauthz.testing.trying import FAR, approved, spend, spending, taken, used
from tests.golden import ROOT
from tests.laws.counting import LONG
from tests.stores import SHARED

PROCESSES: Final = 16
THREADS: Final = 64
BOUND: Final = 1_000 if LONG else 160
KILLS: Final = 5_000 if LONG else 40

# what each of the processes does: it is forked from one program, so that sixteen interpreters needn't start
_WORKING: Final = """
    import json, os, sys
    from pathlib import Path
    from agentauthz.state.store import Intent
    from agentauthz.testing.trying import FAR, spend, spending, taken
    from tests.stores import SHARED

    kind, place, processes, bound = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    waiting, go = os.pipe()
    for process in range(processes):
        if os.fork() == 0:
            os.close(go)
            os.read(waiting, 1)
            store = SHARED[kind](place)
            got = {"count": 0, "money": 0, "once": 0, "approval": 0}
            for number in range(2 * bound // processes):
                got["count"] += taken(store.commit(spending(spend("count", bound=str(bound)))))
                got["money"] += taken(store.commit(spending(spend("money", "0.1", str(bound // 20)))))
                got["once"] += store.once(f"key-{number}", store.now() + FAR)
            got["approval"] += taken(store.commit(Intent(None, approvals=("approval",))))
            os.write(1, (json.dumps(got) + "\\n").encode())
            os._exit(0)
    os.close(waiting)
    os.close(go)
    for _ in range(processes):
        os.wait()
"""

# each of the processes reserves five of a budget, and settles for a half: with an id, or without one
_SETTLING: Final = """
    import os, sys
    from decimal import Decimal
    from pathlib import Path
    from agentauthz.testing.trying import spend, spending, taken
    from tests.stores import SHARED

    kind, place, processes, bound = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    for process in range(processes):
        if os.fork() == 0:
            store, most = SHARED[kind](place), spend("tokens", "5", bound)
            for number in range(12):
                answer = store.commit(spending(most, releasable=number % 2 == 0))
                if taken(answer):
                    store.settle(answer.reservation, {most.rule: Decimal("0.5")})
                    os.write(1, b"0.5\\n")
            os._exit(0)
    for _ in range(processes):
        os.wait()
"""

# each child works until it is killed, and says after each step that it was answered
_KILLING: Final = """
    import os, random, select, signal, sys, time
    from pathlib import Path
    from agentauthz.state.store import Intent
    from agentauthz.testing.trying import FAR, approved, request, spend, spending
    from tests.stores import SHARED

    kind, place, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(kills)
    for kill in range(kills):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            def say(what):
                os.write(writing, what.encode() + b"\\n")

            store = SHARED[kind](place)
            for number in range(1_000_000):
                name = f"{kill}-{number}"
                made = store.commit(spending(spend("money", "0.1", "1E+9"), releasable=True)).reservation
                say("spent")
                if number % 2:
                    store.release(made)
                    say("released")
                store.mark("session", name)
                say(f"mark {name}")
                store.once(name, store.now() + FAR)
                say(f"once {name}")
                store.revoke("token", name, "")
                say(f"revoked {name}")
                approved(store, name)
                say(f"approved {name}")
                store.commit(Intent(None, approvals=(name,)))
                say(f"used {name}")
        os.close(writing)
        select.select([reading], [], [], 60)  # it has begun
        time.sleep(rng.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        with os.fdopen(reading, "rb") as pipe:
            sys.stdout.write(pipe.read().decode())
        os.waitpid(child, 0)
"""


@pytest.fixture(params=sorted(SHARED))
def kind(request: pytest.FixtureRequest) -> str:
    """Return the name of a kind of store that processes share."""
    return str(request.param)


def _run(code: str, *argv: object, timeout: int = 300) -> list[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, argv)]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, timeout=timeout, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_what_sixteen_processes_settle_for_is_what_was_taken(kind: str, tmp_path: Path) -> None:
    """Whoever reserves and settles at the same time: in the end that is spent which all have said, and fits."""
    store = SHARED[kind](tmp_path)
    told = _run(_SETTLING, kind, tmp_path, PROCESSES, 60)
    assert len(told) > 100
    assert used(store, spend("tokens")) == [Decimal("0.5") * len(told)]
    assert len(told) / 2 <= 60
    store.close()


def test_sixteen_processes_get_exactly_what_there_is(kind: str, tmp_path: Path) -> None:
    """Budgets of count and of money are granted to the last unit and no further; a key and an approval once."""
    store = SHARED[kind](tmp_path)
    approved(store, "approval")
    told = [json.loads(line) for line in _run(_WORKING, kind, tmp_path, PROCESSES, BOUND, timeout=1_200)]
    got = {name: sum(each[name] for each in told) for name in told[0]}
    keys = 2 * BOUND // PROCESSES
    assert len(told) == PROCESSES
    assert got == {"count": BOUND, "money": BOUND // 2, "once": keys, "approval": 1}
    assert used(store, spend("count"), spend("money")) == [BOUND, Decimal(BOUND) / 20]
    store.close()


def test_sixty_four_threads_get_exactly_what_there_is(kind: str, tmp_path: Path) -> None:
    """The same for threads over two stores of one place."""
    stores = [SHARED[kind](tmp_path) for _ in range(2)]
    approved(stores[0], "approval")
    got: list[tuple[int, int, bool]] = []

    def work(store: StateStore, bound: str) -> None:
        count = sum(taken(store.commit(spending(spend("count", "0.1", bound)))) for _ in range(4))
        keys = sum(store.once(f"key-{number}", store.now() + FAR) for number in range(4))
        got.append((count, keys, taken(store.commit(spending(spend("one", bound="1"))))))

    threads = [threading.Thread(target=work, args=(stores[thread % 2], "12.8")) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tuple(map(sum, zip(*got, strict=True))) == (128, 4, 1)
    assert used(stores[0], spend("count")) == [Decimal("12.8")]
    for store in stores:
        store.close()


def test_a_kill_in_the_middle_loses_nothing_and_grants_nothing_twice(kind: str, tmp_path: Path) -> None:
    """Whatever step a process is killed in, what was answered is there; what wasn't is there whole or not at all."""
    SHARED[kind](tmp_path).close()
    said = [line.split() for line in _run(_KILLING, kind, tmp_path, KILLS, timeout=3_600 if LONG else 300)]

    def names(what: str) -> set[str]:
        return {word[1] for word in said if word[0] == what}

    spent, released = (sum(word[0] == what for word in said) for what in ("spent", "released"))
    store = SHARED[kind](tmp_path)
    [money] = used(store, spend("money", "0.1", "1E+9"))
    assert len(said) > KILLS
    assert spent - released - KILLS <= money * 10 <= spent - released + KILLS  # the step that each was killed in
    assert money * 10 % 1 == 0
    _within_one_step(names("mark"), set(store.read("session").marks))
    _within_one_step(names("revoked"), {each.name for each in store.revocations(0)})
    _within_one_step(names("used"), {each.id for each in store.approvals(status="used")})
    assert not any(store.once(name, store.now() + FAR) for name in list(names("once"))[:200])
    numbers = [each.number for each in store.revocations(0)]
    assert numbers == list(range(1, len(numbers) + 1))
    known: dict[str, Any] = {each.id: each.status for each in store.approvals()}
    assert {known[name] for name in names("approved")} <= {"approved", "used"}
    store.close()


def _within_one_step(answered: set[str], kept: set[str]) -> None:
    assert answered <= kept
    assert len(kept - answered) <= KILLS
