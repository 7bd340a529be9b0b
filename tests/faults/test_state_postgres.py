"""Let a PostgreSQL that keeps state not be as it should: away, late, locked, read-only, full."""

from __future__ import annotations

import contextlib
import errno
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Final, TypeAlias

import psycopg
import pytest

from agentauthz import Authorizer, PolicySet, Principal, Request
from agentauthz.decision import Basis
from agentauthz.errors import StateError
from agentauthz.records import MemorySink
from agentauthz.state.postgres import PostgresState
from agentauthz.state.store import Committed, Intent, Refused
from agentauthz.testing.trying import spend
from tests.faults.mounted import mounted
from tests.golden import ROOT
from tests.postgres import NO_SERVER, Postgres, binaries

FEW: Final = "permit all on * when true\nlimit few on shop.buy to count <= 2 per subject every 1h\n"


@pytest.fixture
def url(postgres: Postgres) -> str:
    """Return where a prepared database is that keeps nothing yet."""
    return postgres.prepared()


def spent(postgres: Postgres) -> dict[object, object]:
    """Return what is spent of each budget."""
    rows = postgres.rows("SELECT key, total FROM agentauthz.budgets")
    return {row[0]: row[1] for row in rows}


# ---- a server that isn't as it should be


def test_a_server_that_goes_and_comes_back(url: str, postgres: Postgres) -> None:
    """While it is away every operation fails at once; afterwards the same store goes on, and nothing is forgotten."""
    with closing(PostgresState(url, timeout=5.0)) as store:
        counted = Intent(None, spends=(spend("calls", bound="2"),))
        assert isinstance(store.commit(counted), Committed)
        postgres.stop()
        for _ in range(2):
            begun = time.monotonic()
            with pytest.raises(StateError, match=r"the connection to the database was lost|can't be reached"):
                store.commit(counted)
            assert time.monotonic() - begun < 5
        postgres.start()
        assert isinstance(store.commit(counted), Committed)
        assert isinstance(store.commit(counted), Refused)


def test_a_crash_of_the_server_in_the_middle(url: str, postgres: Postgres) -> None:
    """Whoever was granted something before a crash has it still; what failed is spent at most, never granted twice."""
    done: Counter[str] = Counter()
    enough = threading.Event()
    with closing(PostgresState(url, timeout=10.0, connections=8)) as store:

        def work() -> None:
            while not enough.is_set():
                try:
                    done[type(store.commit(Intent(None, spends=(spend("calls", bound="1E+9"),)))).__name__] += 1
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
        count = spent(postgres)["calls"]
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
    """A budget that another transaction holds is waited for no longer than the time-out, and is there afterwards.

    Who was told that it took too long may have spent all the same: the server may have got the lock just then.
    """
    with closing(PostgresState(url, timeout=0.5)) as store, psycopg.connect(url) as other:
        counted = Intent(None, spends=(spend("calls", bound="3"),))
        store.commit(counted)
        other.execute("SELECT 1 FROM agentauthz.budgets FOR UPDATE")
        begun = time.monotonic()
        with pytest.raises(StateError, match="the database didn't answer in time"):
            store.commit(counted)
        assert time.monotonic() - begun < 1.0
        other.rollback()
        time.sleep(0.1)
        granted = store.commit(counted)
        assert isinstance(granted, Committed)
        assert granted.budgets[0].used in (1, 2)


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
    policies = PolicySet.parse(FEW, name="shop.authz")
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


# ---- a server whose disk is full


Disk: TypeAlias = tuple[Postgres, Callable[[bool], None]]


@contextlib.contextmanager
def _really(programs: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """Run a server on a small file system, and give it with what fills that or makes room."""
    with (
        tempfile.TemporaryDirectory(prefix="agentauthz-pg-") as folder,
        mounted(Path(folder), "tmpfs", "size=96m") as place,
    ):
        filler = place / "filler"

        def fill(full: bool) -> None:
            if not full:
                filler.unlink()
                return
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
            assert shutil.disk_usage(place).free == 0

        (place / "server").mkdir()
        yield Postgres(place / "server", programs), fill


@contextlib.contextmanager
def _by_library(programs: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """Run a server whose files can't grow, on order, for who may not mount."""
    library = request.getfixturevalue("failing")
    place = Path(tempfile.mkdtemp(prefix="agentauthz-pg-"))
    try:
        given = {"LD_PRELOAD": str(shutil.copy(library, place)), "FAILING": str(place / "order")}

        def fill(full: bool) -> None:
            if full:
                (place / "order").write_text(f"grow {errno.ENOSPC}")
            else:
                (place / "order").unlink()

        yield Postgres(place, programs, environment=given), fill
    finally:
        shutil.rmtree(place)


@pytest.fixture(params=[_really, _by_library])
def disk(request: pytest.FixtureRequest) -> Iterator[Disk]:
    """Return a server, running, with what fills its disk or makes room."""
    if (programs := binaries()) is None:
        pytest.skip(NO_SERVER)
    with request.param(programs, request) as (server, fill):
        try:
            server.start()
            yield server, fill
        finally:
            server.stop()


def test_row_40_a_full_disk_under_postgres_denies_and_goes_on(disk: Disk) -> None:
    """While there is no room, what can't be kept is denied, in time; then all goes on, and no grant is forgotten."""
    server, fill = disk
    policies = PolicySet.parse(FEW, name="shop.authz")
    with (
        closing(PostgresState(server.prepared(), timeout=2.0)) as store,
        Authorizer(policies, state=store, sinks=[MemorySink()]) as made,
    ):

        def buys(name: str) -> tuple[bool, Basis, str]:
            begun = time.monotonic()
            decision = made.decide(Request("shop.buy", subject=Principal.user(name)))
            assert time.monotonic() - begun < 10
            return decision.allowed, decision.basis, decision.reasons[0].code

        assert buys("maria")[0]
        fill(True)
        granted: list[str] = []
        failed: list[str] = []
        while len(failed) < 20:
            name = f"user-{len(granted) + len(failed)}"
            allowed, *why = buys(name)
            (granted if allowed else failed).append(name)
            assert allowed or why == [Basis.ERROR, "state_failed"]
            assert len(granted) < 10_000, "the disk isn't full"
        assert made.decide(Request("shop.look", subject=Principal.user("maria"))).allowed
        if server.runs:
            with pytest.raises(StateError, match="has no space left"):
                store.commit(Intent(None, spends=tuple(spend(f"{number:09}" * 100) for number in range(100))))
        fill(False)
        if not server.runs:  # one that can't recover without room ends, and its operator starts it
            server.stop()
            server.start()
        ends = time.monotonic() + 20
        while buys("otto")[1] is Basis.ERROR:
            assert time.monotonic() < ends
        for name in ("maria", *granted):
            assert [buys(name)[0] for _ in range(2)] == [True, False], name
        for name in failed:  # what was never answered is spent at most
            assert sum(buys(name)[0] for _ in range(3)) in (1, 2), name
