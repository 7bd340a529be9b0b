"""Race real processes for one PostgreSQL, kill them in the middle, and let the server not be as it should."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from typing import Final

import psycopg
import pytest

from agentauthz import Authorizer, PolicySet, Principal
from agentauthz.decision import Basis
from agentauthz.errors import StateError
from agentauthz.records import MemorySink
from agentauthz.state.postgres import PostgresState, init
from agentauthz.state.store import Approval, Committed, Intent, Refused
from tests.golden import ROOT
from tests.postgres import Postgres
from tests.state_racing import HOUR, counted

PROCESSES: Final = 16


@pytest.fixture
def url(postgres: Postgres) -> str:
    """Return where a prepared database is that keeps nothing yet."""
    postgres.run("DROP SCHEMA IF EXISTS agentauthz CASCADE")
    init(postgres.dsn)
    return postgres.dsn


@pytest.fixture
def store(url: str) -> Iterator[PostgresState]:
    """Return a store that keeps nothing yet."""
    with closing(PostgresState(url, timeout=20.0)) as made:
        yield made


@contextlib.contextmanager
def racing(url: str, what: str, many: int, processes: int, threads: int = 1) -> Iterator[list[subprocess.Popen[str]]]:
    """Run processes that begin at the same moment; those that still run at the end are killed."""
    command = [sys.executable, "-m", "tests.state_racing", url, what, str(many), str(threads)]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    try:
        for each in started:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in started:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        yield started
    finally:
        for each in started:
            each.kill()
            each.communicate()


def granted(url: str, what: str, many: int, processes: int, threads: int = 1) -> Counter[str]:
    """Return what all processes together were granted."""
    total: Counter[str] = Counter()
    with racing(url, what, many, processes, threads) as started:
        for each in started:
            out, _ = each.communicate(timeout=120)
            total.update(json.loads(out.splitlines()[-1]))
    return total


def spent(postgres: Postgres) -> dict[object, object]:
    """Return what is spent of each budget."""
    rows = postgres.rows("SELECT key, total FROM agentauthz.budgets")
    return {row[0]: row[1] for row in rows}


# ---- races


@pytest.mark.parametrize(("processes", "threads"), [(PROCESSES, 1), (2, 32)])
def test_budgets_are_granted_exactly(url: str, postgres: Postgres, processes: int, threads: int) -> None:
    """Sixteen processes, or two of thirty-two threads, get what there is of count and money, to the cent, no more."""
    done = granted(url, "spend", 100 if threads == 1 else 600, processes, threads)
    assert set(done) <= {"0.10", "2.35"}
    kept = sum((Decimal(amount) * count for amount, count in done.items()), Decimal(0))
    assert spent(postgres) == {"calls:all": Decimal(done.total()), "money:all": kept}
    assert Decimal("397.65") < kept <= Decimal("400.00")


@pytest.mark.parametrize(("processes", "threads"), [(PROCESSES, 1), (2, 32)])
def test_what_is_settled_for_less_is_what_was_taken(url: str, postgres: Postgres, processes: int, threads: int) -> None:
    """Whoever reserves and settles at the same time: in the end that is spent which all have said, and fits."""
    done = granted(url, "settle", 640 // processes, processes, threads)
    taken = sum((Decimal(amount) * count for amount, count in done.items()), Decimal(0))
    assert set(done) == {"0.5", "0.25", "0"}
    assert spent(postgres) == {"tokens:all": taken}
    assert taken <= 100


@pytest.mark.parametrize(("processes", "threads"), [(PROCESSES, 1), (2, 32)])
def test_a_thousand_are_a_thousand(url: str, store: PostgresState, processes: int, threads: int) -> None:
    """Of a budget of 1,000 exactly 1,000 are granted, and an approval, a key and a first mark once each."""
    now = store.now()
    store.ask(Approval("consent", "b", None, now, now + HOUR, "{}"))
    assert store.answer("consent", "approved", "{}")
    once = {f"key {number}": 1 for number in range(7)}
    assert granted(url, "single", 84, processes, threads) == {"used": 1, "first": 1, **once}
    assert granted(url, "count", 1_600 // processes, processes, threads) == {"counted": 1_000}


def test_kills_lose_nothing_that_was_granted(url: str, postgres: Postgres) -> None:
    """Processes that are killed while they spend leave at most one call each spent that nobody was told of."""
    told: Counter[str] = Counter()
    with racing(url, "spend", 10_000, PROCESSES) as started:
        for number, each in enumerate(started):
            time.sleep(0.05 if number % 2 else 0.15)
            os.kill(each.pid, signal.SIGKILL)
        for each in started:
            out, _ = each.communicate()
            told.update(line for line in out.splitlines() if line in ("0.10", "2.35"))
    _settled(postgres)
    count = spent(postgres)["calls:all"]
    assert isinstance(count, Decimal)
    assert told.total() <= count <= told.total() + PROCESSES
    assert count <= 1_000
    assert (
        postgres.rows("SELECT total FROM agentauthz.budgets WHERE total <> (SELECT sum(a) FROM unnest(amounts) a)")
        == []
    )


def _settled(postgres: Postgres) -> None:
    """Wait until the server has noticed who was killed."""
    ends = time.monotonic() + 20
    query = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'agentauthz' AND state <> 'idle'"
    while postgres.rows(query):
        assert time.monotonic() < ends
        time.sleep(0.02)


# ---- a server that isn't as it should be


def test_a_server_that_goes_and_comes_back(url: str, postgres: Postgres) -> None:
    """While it is away every operation fails at once; afterwards the same store goes on, and nothing is forgotten."""
    with closing(PostgresState(url, timeout=5.0)) as store:
        spend = Intent(None, spends=(counted(2),))
        assert isinstance(store.commit(spend), Committed)
        postgres.stop()
        for _ in range(2):
            begun = time.monotonic()
            with pytest.raises(StateError, match=r"the connection to the database was lost|can't be reached"):
                store.commit(spend)
            assert time.monotonic() - begun < 5
        postgres.start()
        assert isinstance(store.commit(spend), Committed)
        assert isinstance(store.commit(spend), Refused)


def test_a_crash_of_the_server_in_the_middle(url: str, postgres: Postgres) -> None:
    """Whoever was granted something before a crash has it still; what failed is spent at most, never granted twice."""
    done: Counter[str] = Counter()
    enough = threading.Event()
    with closing(PostgresState(url, timeout=10.0, connections=8)) as store:

        def work() -> None:
            while not enough.is_set():
                try:
                    done[type(store.commit(Intent(None, spends=(counted(10**9),)))).__name__] += 1
                except StateError:
                    done["failed"] += 1
                    time.sleep(0.05)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for each in threads:
            each.start()
        time.sleep(0.3)
        postgres.crash()
        time.sleep(0.3)
        postgres.start()
        time.sleep(0.3)
        enough.set()
        for each in threads:
            each.join()
        assert done["failed"] > 0
        count = spent(postgres)["calls:all"]
        assert isinstance(count, Decimal)
        assert done["Committed"] <= count <= done["Committed"] + done["failed"]


def test_a_server_that_stands_still(url: str, postgres: Postgres) -> None:
    """No operation takes longer than the time-out, though the server accepts connections and says nothing."""
    with closing(PostgresState(url, timeout=0.5)) as store:
        for stopped in (True, False):
            if stopped:
                postgres.pause()
            try:
                for _ in range(2):
                    begun = time.monotonic()
                    if stopped:
                        with pytest.raises(StateError, match="the database didn't answer in time"):
                            store.now()
                    else:
                        store.now()
                    assert time.monotonic() - begun < 1.0
            finally:
                postgres.resume()


def test_a_lock_that_somebody_holds(url: str, postgres: Postgres) -> None:
    """A budget that another transaction holds is waited for no longer than the time-out, and is there afterwards."""
    with closing(PostgresState(url, timeout=0.5)) as store, psycopg.connect(url) as other:
        spend = Intent(None, spends=(counted(2),))
        store.commit(spend)
        other.execute("SELECT 1 FROM agentauthz.budgets FOR UPDATE")
        begun = time.monotonic()
        with pytest.raises(StateError, match="the database didn't answer in time"):
            store.commit(spend)
        assert time.monotonic() - begun < 1.0
        other.rollback()
        time.sleep(0.1)
        assert isinstance(store.commit(spend), Committed)


def test_no_connection_is_free(url: str) -> None:
    """Who waits for a connection doesn't wait longer than the time-out either."""
    with closing(PostgresState(url, timeout=0.5, connections=1)) as store, psycopg.connect(url) as other:
        store.mark("s", "m")
        other.execute("SELECT 1 FROM agentauthz.sessions FOR UPDATE")
        failures: list[float] = []

        def work() -> None:
            begun = time.monotonic()
            with contextlib.suppress(StateError):
                store.mark("s", "n")
            failures.append(time.monotonic() - begun)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert max(failures) < 1.0


def test_a_database_that_is_read_only(url: str, postgres: Postgres) -> None:
    """What would be written is refused, and what is only read goes on."""
    with closing(PostgresState(url)) as store:
        store.mark("s", "m")
        postgres.run("ALTER DATABASE postgres SET default_transaction_read_only = on")
        try:
            with pytest.raises(StateError, match="can't be reached"):
                PostgresState(url)  # new connections want one that can be written
            postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'agentauthz'")
            with pytest.raises(StateError):
                store.mark("s", "n")
        finally:
            with psycopg.connect(url, autocommit=True, options="-c default_transaction_read_only=off") as operator:
                operator.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
        assert store.read("s").marks == {"m"}


def test_a_fork_has_its_own_connections(url: str) -> None:
    """A child uses none of its parent's connections, and its end doesn't close them."""
    with closing(PostgresState(url)) as store:
        store.mark("s", "parent")
        child = (
            "import os, sys\n"
            "from agentauthz.state.postgres import PostgresState\n"
            "store = PostgresState(sys.argv[1])\n"
            "store.mark('s', 'before')\n"
            "pid = os.fork()\n"
            "if pid == 0:\n"
            "    for number in range(20):\n"
            "        store.mark('s', f'child {number}')\n"
            "    store.close()\n"
            "    sys.exit()\n"
            "for number in range(20):\n"
            "    store.mark('s', f'parent {number}')\n"
            "assert os.waitpid(pid, 0)[1] == 0\n"
            "store.mark('s', 'after')\n"
            "store.close()\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", child, url], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert len(store.read("s").marks) == 43


def test_a_decision_is_denied_while_the_store_is_away(url: str, postgres: Postgres) -> None:
    """What a limit is on is denied with a reason; what needs no state goes on; both are recorded."""
    policies = PolicySet.parse(
        "permit all on * when true\nlimit few on shop.buy to count <= 5 per subject every 1h\n", name="shop.authz"
    )
    sink = MemorySink()
    with closing(PostgresState(url, timeout=2.0)) as store, Authorizer(policies, state=store, sinks=[sink]) as made:
        session = made.session(Principal.user("maria"))
        assert session.decide("shop.buy").allowed
        postgres.stop()
        denied = session.decide("shop.buy")
        assert not denied.allowed
        assert (denied.basis, denied.reasons[0].code) == (Basis.ERROR, "state_failed")
        assert session.decide("shop.look").allowed
        postgres.start()
        assert session.decide("shop.buy").allowed
    assert len(sink.records) >= 4
