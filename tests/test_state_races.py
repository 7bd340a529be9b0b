"""Test state stores with real processes and threads at once, and with processes that are killed in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest

from agentauthz.state.store import StateStore
from agentauthz.testing.trying import FAR, approved, spend, used
from tests.golden import ROOT
from tests.laws.counting import LONG
from tests.postgres import Postgres
from tests.state_racing import KEPT, KINDS, SPENT, granted
from tests.stores import SHARED

PROCESSES: Final = 16
THREADS: Final = 64
BOUND: Final = 1_000 if LONG else 160
KILLS: Final = 5_000 if LONG else 40  # of each store


@pytest.fixture(params=sorted(SHARED))
def kind(request: pytest.FixtureRequest) -> str:
    """Return the name of a kind of store that processes share."""
    return str(request.param)


@pytest.fixture
def place(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return where such a store is, which keeps nothing yet."""
    if kind != "postgres":
        return str(tmp_path)
    server = request.getfixturevalue("postgres")
    assert isinstance(server, Postgres)
    return server.prepared()


def _run(*argv: object, timeout: int) -> list[str]:
    command = [sys.executable, "-m", "tests.state_racing", *map(str, argv)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=environment, cwd=ROOT, timeout=timeout, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def _is_exact(store: StateStore, got: Counter[str], rounds: int) -> None:
    """Hold what was granted to what there was, and to what the store says is used."""
    money = got["0.10"] * Decimal("0.10") + got["2.35"] * Decimal("2.35")
    bound = Decimal(BOUND) / 2
    assert (got["count"], got["once"], got["first"], got["approval"]) == (BOUND, rounds, 1, 1)
    calls = got["0.10"] + got["2.35"]
    assert used(store, spend("count"), spend("calls"), spend("money", window=None)) == [BOUND, calls, money]
    assert bound - Decimal("2.35") < money <= bound
    assert used(store, spend("tokens", window=FAR)) == [got["settled"] / Decimal(2)]
    assert 0 < got["settled"] / Decimal(2) <= bound / 5


def test_sixteen_processes_get_exactly_what_there_is(kind: str, place: str) -> None:
    """Budgets are granted to the last cent and no further, less what is settled; a key, a mark and an approval once."""
    store = SHARED[kind](place)
    approved(store, "approval")
    told = [json.loads(line) for line in _run("work", kind, place, PROCESSES, BOUND, timeout=1_800)]
    assert len(told) == PROCESSES
    got: Counter[str] = Counter()
    for each in told:
        got.update(each)
    _is_exact(store, got, 2 * BOUND // PROCESSES)
    store.close()


def test_sixty_four_threads_get_exactly_what_there_is(kind: str, place: str) -> None:
    """The same for threads over two stores of one place."""
    stores = [SHARED[kind](place) for _ in range(2)]
    approved(stores[0], "approval")
    got: Counter[str] = Counter()
    lock = threading.Lock()

    def work(store: StateStore) -> None:
        mine = granted(store, 2 * BOUND // THREADS, BOUND)
        with lock:
            got.update(mine)

    threads = [threading.Thread(target=work, args=(stores[thread % 2],)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _is_exact(stores[0], got, 2 * BOUND // THREADS)
    for store in stores:
        store.close()


def test_a_kill_in_the_middle_loses_nothing_and_grants_nothing_twice(
    kind: str, place: str, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    """Whatever step a process is killed in, what was answered is there; what wasn't is there whole or not at all."""
    done: defaultdict[str, list[str]] = defaultdict(list)
    begun: defaultdict[str, list[str]] = defaultdict(list)  # and never answered: the process was killed in its middle
    for word in map(str.split, _run("kill", kind, place, KILLS, timeout=3 * 3_600 if LONG else 300)):
        (begun if word[0] == "begin" else done)[word[1]].append(word[2])
    for what, names in done.items():
        for name in names:
            begun[what].remove(name)
    hit = {what: len(begun[what]) for what in KINDS}
    record_property("killed in", hit)
    assert 0 < sum(hit.values()) <= KILLS
    if LONG:
        assert min(hit.values()) >= KILLS / 100, hit
    store = SHARED[kind](place)
    if kind == "postgres":
        _settled(request.getfixturevalue("postgres"))

    # of money, the least and the most that can be spent
    [money, uses] = used(store, spend("money", window=FAR), spend("used", window=FAR))
    counted = {what: len(done[what]) for what in KINDS}
    assert money % Decimal("0.01") == 0
    least = counted["spend"] * SPENT - (counted["release"] + hit["release"]) * SPENT
    least -= (counted["settle"] + hit["settle"]) * (SPENT - KEPT)
    most = (counted["spend"] + hit["spend"]) * SPENT - counted["release"] * SPENT - counted["settle"] * (SPENT - KEPT)
    assert least <= money <= most

    # a decision with a mark, a budget and an approval is done whole or not at all
    marks = {mark for number in range(1 + KILLS // 50) for mark in store.read(f"s-{number}").marks}
    approvals = {one.id: one.status for one in store.approvals()}
    spent = {name for name, status in approvals.items() if status == "used"}
    assert {mark.removeprefix("used-") for mark in marks if mark.startswith("used-")} == spent
    assert uses == len(spent)

    given = {name for name, status in approvals.items() if status in ("approved", "used")}
    revoked = [each.name for each in store.revocations(0)]
    kept = {"mark": {mark for mark in marks if not mark.startswith("used-")}, "revoke": set(revoked)}
    kept |= {"ask": set(approvals), "answer": given, "use": spent}
    for what, there in kept.items():
        assert set(done[what]) <= there <= {*done[what], *begun[what]}, what
    assert [each.number for each in store.revocations(0)] == list(range(1, len(revoked) + 1))
    assert not any(store.once(name, store.now() + FAR) for name in done["once"])
    store.close()


def _settled(server: Postgres) -> None:
    """Wait until the server has noticed who was killed."""
    ends = time.monotonic() + 20
    query = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'agentauthz' AND state <> 'idle'"
    while server.rows(query):
        assert time.monotonic() < ends
        time.sleep(0.02)
