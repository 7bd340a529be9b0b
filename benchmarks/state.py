"""Measure what a limit costs with each state store: `python -m benchmarks.state`.

Four processes make decisions that one limit counts, on one hot key or over a hundred keys. Beside PostgreSQL stands the
least that any program would do there, in the same database at the same moment: a conditional `UPDATE` of one row,
committed.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from typing import Final

from agentauthz.decision import Reason, Spend
from agentauthz.state.memory import MemoryState
from agentauthz.state.sqlite import SqliteState
from agentauthz.state.store import Committed, Intent, StateStore
from benchmarks.report import Target, table, targets
from tests.postgres import Postgres, binaries

PROCESSES: Final = 4
KEYS: Final = (1, 100)
_SECONDS: Final = 2.0
_ROUNDS: Final = 5
_WHY: Final = Reason("no_budget", "there is no room")
_BARE: Final = (
    "UPDATE bare SET used = used + 1 WHERE key = %s AND used + 1 <= bound RETURNING used"  # what a limit is at least
)


def measured(rounds: int = _ROUNDS) -> dict[str, float]:
    """Return decisions per second, by what makes them and over how many keys; empty for what isn't here.

    `cost` is how many times as long as the bare `UPDATE` ours took, in the same round: the median of all.
    """
    found = {f"memory, {keys}": _alone(MemoryState(), keys) for keys in KEYS}
    with tempfile.TemporaryDirectory(prefix="agentauthz-sqlite-") as folder:
        for keys in KEYS:
            found[f"sqlite, {keys}"] = _together("sqlite", f"{folder}/{keys}.db", keys)
    if (server := _server()) is None:
        return found
    from agentauthz.state.postgres import init

    place, postgres = server
    try:
        postgres.start()
        init(postgres.dsn)
        postgres.run(
            "CREATE TABLE bare (key text PRIMARY KEY, used numeric NOT NULL, bound numeric NOT NULL)"
            " WITH (fillfactor = 50); INSERT INTO bare SELECT 'key:' || g, 0, 1000000000 FROM generate_series(0, 99) g"
        )
        costs: dict[int, list[float]] = {keys: [] for keys in KEYS}
        for _ in range(rounds):  # in turn, so that what else the machine does falls on both
            for keys in KEYS:
                rates = {what: _together(what, postgres.dsn, keys) for what in ("bare", "postgres")}
                costs[keys].append(rates["bare"] / rates["postgres"])
                found |= {f"{what}, {keys}": max(found.get(f"{what}, {keys}", 0.0), rates[what]) for what in rates}
        found |= {f"cost, {keys}": statistics.median(costs[keys]) for keys in KEYS}
    finally:
        postgres.stop()
        shutil.rmtree(place, ignore_errors=True)
    return found


def _server() -> tuple[pathlib.Path, Postgres] | None:
    """Return a folder on the disk and a server in it, which syncs what it commits; None: there is none here."""
    if (programs := binaries()) is None:
        return None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="agentauthz-pg-"))
    return folder, Postgres(folder, programs, settings=())


def _together(what: str, url: str, keys: int) -> float:
    command = [sys.executable, "-m", "benchmarks.state", what, url, str(keys)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    for each in started:
        assert each.stdout is not None
        each.stdout.readline()
    rates = []
    for each in started:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in started:
        out, _ = each.communicate()
        rates.append(float(json.loads(out)))
    return sum(rates)


def _alone(store: StateStore, keys: int) -> float:
    return _rate(_deciding(store), keys, 0, 0.5)


def _rate(decide: Callable[[str], object], keys: int, first: int, seconds: float) -> float:
    begin, count = time.perf_counter(), 0
    while (now := time.perf_counter()) < begin + seconds:
        decide(f"key:{(first + count) % keys}")
        count += 1
    return count / (now - begin)


def _deciding(store: StateStore) -> Callable[[str], object]:
    """Return what one decision of one limit asks of a store."""
    bound, one, window = Decimal(10**9), Decimal(1), dt.timedelta(hours=1)

    def decide(key: str) -> None:
        answer = store.commit(Intent("session", spends=(Spend("limit", key, one, bound, window, _WHY),)))
        assert isinstance(answer, Committed)

    return decide


def _work(what: str, url: str, keys: int) -> None:
    """Be one of the processes."""
    if what == "sqlite":
        with closing(SqliteState(url, timeout=30.0)) as file:
            _race(_deciding(file), keys)
        return
    import psycopg

    from agentauthz.state.postgres import PostgresState

    with psycopg.connect(url, autocommit=True) as connection, closing(PostgresState(url, timeout=30.0)) as store:
        decide = _deciding(store)
        if what == "bare":
            decide = lambda key: connection.execute(_BARE, (key,), prepare=True).fetchone()
        _race(decide, keys)


def _race(decide: Callable[[str], object], keys: int) -> None:
    """Warm up, wait for the others, and print the rate."""
    for number in range(20):
        decide(f"key:{number % keys}")
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(_rate(decide, keys, os.getpid() % keys, _SECONDS)))


def tables(found: dict[str, float]) -> str:
    """Return what was measured as a table."""
    names = {
        "memory": "MemoryState, one thread",
        "sqlite": f"SqliteState, {PROCESSES} processes",
        "bare": f"PostgreSQL, a conditional UPDATE, {PROCESSES} processes",
        "postgres": f"PostgresState, {PROCESSES} processes",
    }
    rows = [
        (text, *(f"{found[f'{name}, {keys}']:,.0f}/s" if f"{name}, {keys}" in found else "-" for keys in KEYS))
        for name, text in names.items()
    ]
    return table("Limited decisions, as a store is asked", ("", "one key", "100 keys"), rows)


def promises(found: dict[str, float]) -> list[Target]:
    """Return the promises with what was found."""
    rows = [
        Target(f"a limited decision, SqliteState, keys: {keys}", f"{1e6 / rate:,.0f} µs", "333 µs", rate >= 3_000)
        for keys in KEYS
        if (rate := found.get(f"sqlite, {keys}")) is not None
    ]
    for keys, least in zip(KEYS, (300, 1_000), strict=True):
        ours, cost = found.get(f"postgres, {keys}"), found.get(f"cost, {keys}")
        where = "one hot key" if keys == 1 else f"{keys} keys"
        shown = "-" if cost is None else f"{cost:.2f} x"
        rows.append(
            Target(
                f"PostgresState, {where}, beside a bare UPDATE", shown, "1.5 x", None if cost is None else cost <= 1.5
            )
        )
        shown = "-" if ours is None else f"{1e6 / ours:,.0f} µs"
        met = None if ours is None else ours >= least
        rows.append(Target(f"a limited decision, PostgresState, {where}", shown, f"{1e6 / least:,.0f} µs", met))
    return rows


if __name__ == "__main__":
    if len(sys.argv) == 4:
        _work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        figures = measured()
        print(tables(figures))
        print(targets(promises(figures)))
