"""Test the store for PostgreSQL against a real server, and against the store in memory, which is its definition."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from typing import Final, TypeAlias

import psycopg
import pytest
from attrs import evolve
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentauthz.decision import Reason, Spend
from agentauthz.errors import InvalidArgument, StateError
from agentauthz.state.memory import MemoryState
from agentauthz.state.postgres import PostgresState, Pruned, init, pool
from agentauthz.state.postgres.text import escape, unescape
from agentauthz.state.store import STALE, Answer, Approval, Committed, Intent, Refused, Reservation, Seen, StateStore
from agentauthz.state.windows import micros, width
from agentauthz.testing.trying import HOUR, spend
from tests.interrupting import interrupted
from tests.loopback import everything_told
from tests.postgres import Postgres

NOW: Final = dt.datetime(2026, 11, 23, 9, tzinfo=dt.UTC)
WHY: Final = Reason("no_budget", "there is no room")
SECOND: Final = dt.timedelta(seconds=1)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
_TABLES: Final = "sessions, budgets, reservations, once, revocations, approvals"


@pytest.fixture
def url(postgres: Postgres) -> str:
    """Return where a prepared database is that keeps nothing yet."""
    return postgres.prepared()


@pytest.fixture
def store(url: str) -> Iterator[PostgresState]:
    """Return a store that keeps nothing yet."""
    with closing(PostgresState(url, timeout=20.0)) as made:
        yield made


class Clock:
    """Be the time of both stores: of the one in memory, and of the server's."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True, options="-c synchronous_commit=off")
        self._connection.execute("CREATE TABLE agentauthz.test_time (at bigint NOT NULL)")
        self._connection.execute("INSERT INTO agentauthz.test_time VALUES (0)")
        self._connection.execute(
            "CREATE OR REPLACE FUNCTION agentauthz.server_time() RETURNS bigint LANGUAGE sql"
            " AS 'SELECT at FROM agentauthz.test_time'"
        )
        self.set(NOW)

    def set(self, now: dt.datetime) -> None:
        """Let it be now."""
        self.now = now
        self._connection.execute("UPDATE agentauthz.test_time SET at = %s", (micros(now),))

    def forget(self) -> None:
        """Empty the database, and begin anew."""
        self._connection.execute("SELECT setval('agentauthz.clock', 0)")
        for table in _TABLES.split(", "):
            self._connection.execute(f"DELETE FROM agentauthz.{table}".encode())
        self.set(NOW)

    def close(self) -> None:
        """Leave the server."""
        self._connection.close()


@pytest.fixture
def clock(url: str) -> Iterator[Clock]:
    """Return the clock of the server, which the test sets."""
    with closing(Clock(url)) as made:
        yield made


# ---- the same as in memory

Step: TypeAlias = tuple[str, tuple[object, ...]]
_ID: Final = st.sampled_from(["s-1", "s\0\\2", 'ш"{3}'])
_ACTION: Final = st.sampled_from(["shop.buy", 'shop.\x1a"', "a,b"])
_MARK: Final = st.sampled_from(["secret", "a\\b,{c}", "\ud800", ""])
_AMOUNT: Final = st.sampled_from([Decimal(0), Decimal(1), Decimal("0.10"), Decimal("2.350"), Decimal("1E+2")])
_SPEND: Final = st.builds(
    lambda name, amount, bound, window: Spend(name, f"{name}:{window}", amount, bound, window, WHY),
    st.sampled_from(["a", "b", "c"]),
    _AMOUNT,
    st.sampled_from([Decimal(0), Decimal(3), Decimal("3.3"), Decimal(250)]),
    st.sampled_from([None, _MICROSECOND, SECOND, HOUR, dt.timedelta(days=40), dt.timedelta.max]),
)
_SPENDS: Final = st.lists(_SPEND, max_size=3, unique_by=lambda spend: spend.key).map(tuple)
_PENDING: Final = st.sampled_from(["r-1", "r-2", "r-3"])
_STATUS: Final = st.sampled_from(["pending", "approved", "rejected", "used"])
_AHEAD: Final = st.sampled_from([-HOUR, 0 * SECOND, SECOND, 70 * SECOND, HOUR, 3 * HOUR])
_STEP: Final = st.one_of(
    st.tuples(st.just("tick"), st.tuples(_AHEAD)),
    st.tuples(st.just("now"), st.tuples()),
    st.tuples(st.just("begin"), st.tuples(_ID, _AHEAD, st.frozensets(_ACTION), st.booleans())),
    st.tuples(st.just("mark"), st.tuples(_ID, _MARK)),
    st.tuples(st.just("unmark"), st.tuples(_ID, _MARK)),
    st.tuples(st.just("finish"), st.tuples(_ID, _ACTION)),
    st.tuples(st.just("read"), st.tuples(_ID)),
    st.tuples(
        st.just("commit"),
        st.tuples(
            st.none() | _ID, st.booleans(), st.none() | _ACTION, st.lists(_MARK, max_size=2, unique=True).map(tuple),
            st.none() | _ACTION, _SPENDS, st.lists(_PENDING, max_size=2, unique=True).map(tuple),
            st.sampled_from([None, 0, 1, 2]), st.booleans(), st.booleans(),
        ),
    ),
    st.tuples(st.just("give_back"), st.tuples(st.integers(0, 5), st.none() | _AMOUNT)),
    st.tuples(st.just("once"), st.tuples(st.sampled_from(["k", "\0k"]), _AHEAD)),
    st.tuples(st.just("revoke"), st.tuples(st.sampled_from(["session", "everything"]), _ID, _MARK, st.booleans())),
    st.tuples(st.just("revocations"), st.tuples(st.integers(0, 2))),
    st.tuples(st.just("ask"), st.tuples(_PENDING, st.sampled_from(["x", "y"]), st.none() | _ID, _AHEAD)),
    st.tuples(st.just("answer"), st.tuples(_PENDING, st.sampled_from(["approved", "rejected"]))),
    st.tuples(st.just("approvals"), st.tuples(st.none() | _STATUS, st.none() | st.just("x"), st.none() | _ID)),
)  # fmt: skip

# most decisions spend of one budget, and do nothing else
_SMALL: Final = st.builds(
    lambda amount, window: Spend("a", f"a:{window}", amount, Decimal(3), window, WHY),
    st.sampled_from([Decimal(0), Decimal(1), Decimal("0.10")]),
    st.sampled_from([None, _MICROSECOND, HOUR]),
)
_SPENDING: Final = st.one_of(
    st.tuples(st.just("tick"), st.tuples(st.sampled_from([-HOUR, HOUR / 62, HOUR]))),
    *[st.tuples(st.just("spend"), st.tuples(st.none() | _ID, _SMALL, st.sampled_from([None, 0]), st.booleans()))] * 4,
    st.tuples(st.just("give_back"), st.tuples(st.integers(0, 2), st.none() | _AMOUNT)),
    st.tuples(st.just("revoke"), st.tuples(st.just("session"), _ID, _MARK, st.booleans())),
)


class Run:
    """Be one store in the middle of a story."""

    def __init__(self, store: StateStore) -> None:
        self.store = store
        self.held: list[object] = []
        self.reserved: list[Reservation] = []

    def take(self, step: Step) -> object:
        """Return what the store answers."""
        name, given = step
        return getattr(self if hasattr(self, name) else self.store, name)(*given)

    def begin(self, session: str, ago: dt.timedelta, watched: frozenset[str], keep: bool) -> object:
        """Begin a session, and hold on to it."""
        at = NOW + ago
        begun = self.store.begin(session, at, dict.fromkeys(sorted(watched), at), keep=keep)
        self.held.append(begun)
        return begun.started

    def commit(
        self, session: str | None, reads: bool, action: str | None, marks: tuple[str, ...], began: str | None,
        spends: tuple[Spend, ...], approvals: tuple[str, ...], revocations: int | None, reserve: bool, named: bool,
    ) -> object:  # fmt: skip
        """Commit what has read the session, or only believes to."""
        state = self.store.read(session or "s-1")
        times: tuple[tuple[Seen, str, dt.datetime | None], ...] = ()
        if action is not None and session is not None:
            times = (("began", action, state.began.get(action)),)
        intent = Intent(
            session, frozenset({"secret"}) if not reads and marks else state.marks if session else None,
            times if reads else (), marks if session else (), began if session else None, spends,
            approvals, revocations, reserve, named,
        )  # fmt: skip
        return self._committed(intent)

    def spend(self, session: str | None, spend: Spend, revocations: int | None, named: bool) -> object:
        """Commit what only spends of one budget, as most decisions do."""
        return self._committed(Intent(session, spends=(spend,), revocations=revocations, releasable=named))

    def _committed(self, intent: Intent) -> object:
        answer = self.store.commit(intent)
        if isinstance(answer, Committed) and answer.reservation is not None:
            if answer.reservation.id is None:
                return answer
            self.reserved.append(answer.reservation)
            return evolve(answer, reservation=evolve(answer.reservation, id="named"))
        return answer

    def give_back(self, which: int, actual: Decimal | None) -> None:
        """Settle or release something, perhaps for the second time."""
        if which >= len(self.reserved):
            return
        if actual is None:
            self.store.release(self.reserved[which])
        else:
            self.store.settle(self.reserved[which], {"a": actual})

    def once(self, key: str, ahead: dt.timedelta) -> object:
        """Use a key."""
        return self.store.once(key, NOW + ahead)

    def revoke(self, kind: str, name: str, reason: str, lifts: bool) -> object:
        """Revoke something."""
        return self.store.revoke(kind, name, reason, lifts=lifts)  # type: ignore[arg-type]

    def revocations(self, since: int) -> object:
        """Return the revocations as a list."""
        return list(self.store.revocations(since))

    def ask(self, id: str, binding: str, session: str | None, ahead: dt.timedelta) -> object:
        """Ask for consent, where the id is free."""
        if self.store.approval(id) is not None:
            return None
        return self.store.ask(Approval(id, binding, session, NOW, NOW + ahead, f"{{{binding}\0}}"))

    def answer(self, id: str, status: str) -> object:
        """Answer a request, and look at it."""
        return self.store.answer(id, status, "{\\}"), self.store.approval(id)  # type: ignore[arg-type]

    def approvals(self, status: str | None, binding: str | None, session: str | None) -> object:
        """List requests."""
        return list(self.store.approvals(status=status, binding=binding, session=session))  # type: ignore[arg-type]


def _in_one_bucket() -> list[Step]:
    """Return a story in which a bucket stops to count while the newest one is still that of the moment."""
    counts: Step = ("spend", (None, Spend("a", "a:63", Decimal(1), Decimal(3), 63 * _MICROSECOND, WHY), None, False))
    after = [1, 63, 1]  # microseconds; a bucket is two wide
    return [step for wait in after for step in (("tick", (wait * _MICROSECOND,)), counts)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@example(story=_in_one_bucket())
@given(story=st.lists(_STEP, min_size=5, max_size=40) | st.lists(_SPENDING, min_size=5, max_size=40))
def test_it_answers_as_the_store_in_memory(store: PostgresState, clock: Clock, story: list[Step]) -> None:
    """Whatever is asked in whatever order, the answers are the same to the last digit and microsecond."""
    clock.forget()
    memory = MemoryState(clock=lambda: clock.now)
    runs = (Run(memory), Run(store))
    for step in [("now", ()), *story]:
        if step[0] == "tick":
            clock.set(clock.now + step[1][0])  # type: ignore[operator]
            step = ("now", ())
        expected, found = (run.take(step) for run in runs)
        assert found == expected, step
    for session in ("s-1", "s\0\\2", 'ш"{3}'):
        assert store.read(session) == memory.read(session)


@given(text=st.text(st.characters(codec=None)))
def test_any_text_is_kept(text: str) -> None:
    """What PostgreSQL can't hold is escaped: no two texts become one, and each comes back."""
    kept = escape(text)
    assert "\0" not in kept
    kept.encode()
    assert unescape(kept) == text


# ---- a database that isn't prepared, and who may use it


def test_a_database_must_be_prepared(postgres: Postgres) -> None:
    """Without the schema, or with another version of it, there is no store, and the message says what to do."""
    postgres.run("DROP SCHEMA IF EXISTS agentauthz CASCADE")
    with pytest.raises(StateError, match="isn't prepared: `agentauthz state init` does that"):
        PostgresState(postgres.dsn)
    assert (init(postgres.dsn), init(postgres.dsn)) == (0, 1)
    PostgresState(postgres.dsn).close()
    postgres.run("UPDATE agentauthz.version SET number = 2")
    with pytest.raises(StateError, match="has version 2 of the schema `agentauthz`, not 1"):
        PostgresState(postgres.dsn)
    with pytest.raises(StateError, match="has version 2 of the schema `agentauthz`, and this is 1"):
        init(postgres.dsn)


def test_preparing_again_keeps_all(url: str) -> None:
    """A second `init` forgets nothing."""
    with closing(PostgresState(url)) as store:
        store.mark("s", "secret")
        init(url)
        assert store.read("s").marks == {"secret"}


def test_a_schema_of_somebody_else_stays_as_it_is(postgres: Postgres) -> None:
    """A schema of the same name that isn't ours is neither used nor changed."""
    postgres.run("DROP SCHEMA IF EXISTS agentauthz CASCADE; CREATE SCHEMA agentauthz; CREATE TABLE agentauthz.mine ()")
    with pytest.raises(StateError, match="somebody else's"):
        init(postgres.dsn)
    assert postgres.rows("SELECT relname::text FROM pg_class WHERE relnamespace = 'agentauthz'::regnamespace") == [
        ("mine",)
    ]


def test_a_role_may_only_call_functions(url: str, postgres: Postgres) -> None:
    """An application's role needs nothing but what `init` grants, and can neither read, change nor forget beside it."""
    postgres.run("DROP ROLE IF EXISTS app; CREATE ROLE app LOGIN")
    theirs = url.replace("tests:", "app:")
    with pytest.raises(StateError, match="may not use the schema `agentauthz`"):
        PostgresState(theirs)
    with pytest.raises(StateError, match="no such role"):
        init(url, ['nobody "here'])
    init(url, ["app"])
    with closing(PostgresState(theirs)) as store:
        assert isinstance(store.commit(Intent("s", marks=("m",), spends=(spend("calls", bound="1"),))), Committed)
        assert isinstance(store.commit(Intent("s", spends=(spend("calls", bound="1"),))), Refused)
        with pytest.raises(StateError, match="may not use"):
            store.prune(NOW)
    with psycopg.connect(theirs, autocommit=True) as connection:
        for statement in (
            "UPDATE agentauthz.budgets SET total = 0",
            "SELECT * FROM agentauthz.approvals",
            "DELETE FROM agentauthz.revocations",
            "SELECT setval('agentauthz.clock', 1)",
            "SELECT agentauthz.hold('s', true)",
            "CREATE FUNCTION agentauthz.server_time(int) RETURNS bigint LANGUAGE sql AS 'SELECT 1'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
    with pytest.raises(StateError, match="can't be prepared: the role may not"):
        init(theirs)
    postgres.run("DROP OWNED BY app; DROP ROLE app")


def test_it_commits_synchronously(url: str, postgres: Postgres) -> None:
    """A database that could forget what it has granted is refused."""
    postgres.run("ALTER DATABASE postgres SET synchronous_commit = off")
    try:
        with pytest.raises(StateError, match="`synchronous_commit` must be on"):
            PostgresState(url)
    finally:
        postgres.run("ALTER DATABASE postgres RESET synchronous_commit")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "postgresql://CANARY:CANARY@/x?CANARY=1"}, "`url` must be a connection string or URL"),
        ({"url": "nonsense CANARY"}, "`url` must be a connection string or URL"),
        ({"timeout": 0}, "`timeout` must be a positive number"),
        ({"timeout": float("nan")}, "`timeout` must be a positive number"),
        ({"connections": 0}, "`connections` must be a number above zero"),
    ],
)
def test_wrong_arguments(given: dict[str, object], said: str) -> None:
    """What can't be used is refused before anything is tried, and nothing of an address is told."""
    with pytest.raises(InvalidArgument, match=said) as error:
        PostgresState(**{"url": "postgresql:///", **given})  # type: ignore[arg-type]
    assert "CANARY" not in everything_told(error.value)


def test_a_password_is_never_told(postgres: Postgres) -> None:
    """Neither what can't be reached nor what refuses tells the address that it was given."""
    for url in ("postgresql://u:CANARY@127.0.0.1:1/x", postgres.dsn.replace("/postgres?", "/nowhere?")):
        with pytest.raises(StateError, match="the database can't be reached") as error:
            PostgresState(url, timeout=2.0)
        assert "CANARY" not in everything_told(error.value)


def test_what_is_closed_answers_nothing(url: str) -> None:
    """After `close` every operation raises; to close again does nothing."""
    store = PostgresState(url)
    store.close()
    store.close()
    with pytest.raises(StateError, match="the state store is closed"):
        store.now()


def test_a_signal_may_revoke_in_the_middle_of_anything(url: str, store: PostgresState) -> None:
    """Whatever a thread has in hand when a handler, or the end of an object, asks the store: nothing hangs."""
    revoked: list[int] = []

    def revoke() -> None:
        revoked.append(store.revoke("token", "t", "").number)

    def work() -> None:
        for line in itertools.count(1):
            if not interrupted(line, (pool, threading), store.now, revoke):
                return

    working = threading.Thread(target=work, daemon=True)
    working.start()
    working.join(60)
    assert not working.is_alive()
    assert revoked == list(range(1, len(revoked) + 1))
    assert len(revoked) > 10


# ---- time


def test_the_clock_never_steps_back(url: str, store: PostgresState, clock: Clock) -> None:
    """What one process was told stays the least that any process is told, whatever the server's clock does."""
    clock.set(NOW + HOUR)
    assert store.now() == NOW + HOUR
    clock.set(NOW)
    with closing(PostgresState(url, timeout=20.0)) as other:
        assert other.now() == NOW + HOUR
        assert other.show().ahead == HOUR
    clock.set(NOW + 2 * HOUR)
    assert store.now() == NOW + 2 * HOUR
    assert store.show().ahead == 0 * SECOND


@pytest.mark.parametrize("many", [1, 2])
def test_what_waits_for_a_budget_is_judged_after_the_wait(
    url: str, store: PostgresState, clock: Clock, many: int
) -> None:
    """Who had to wait spends when the wait ends, not before, and is stale by a revocation that came meanwhile."""
    budgets = tuple(spend(name, bound="3") for name in "ab"[:many])
    intent = Intent(None, spends=budgets, revocations=0)
    assert isinstance(store.commit(intent), Committed)
    answers: list[Answer] = []
    later: list[Callable[[], object]] = [lambda: clock.set(NOW + HOUR / 2), lambda: store.revoke("everything", "", "")]
    for happens in later:
        with psycopg.connect(url) as other:
            other.execute("SELECT 1 FROM agentauthz.budgets FOR UPDATE")
            waits = threading.Thread(target=lambda: answers.append(store.commit(intent)))
            waits.start()
            _until_somebody_waits(other)
            happens()
        waits.join()
    spent, stale = answers
    assert isinstance(spent, Committed)
    assert spent.reservation is not None
    assert {number for _, number in spent.reservation.parts} == {micros(NOW + HOUR / 2) // width(HOUR)}
    assert stale == STALE
    assert [each.used for each in store.commit(evolve(intent, revocations=1)).budgets] == [Decimal(2)] * many  # type: ignore[union-attr]


def _until_somebody_waits(other: psycopg.Connection) -> None:
    ends = time.monotonic() + 20
    while not other.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
        assert time.monotonic() < ends
        time.sleep(0.01)


# ---- what is forgotten


def test_pruning_forgets_what_cannot_matter(store: PostgresState, clock: Clock) -> None:
    """Used keys, budgets and requests go once they have ended, sessions once nobody uses them, named ones on demand."""
    for name, keep in (("made up", False), ("named", True), ("busy", False)):
        store.begin(name, NOW, {}, keep=keep)
        store.mark(name, "secret")
    store.once("k", NOW + SECOND)
    store.ask(Approval("i", "b", "named", NOW, NOW + SECOND, "{}"))
    hourly, own = spend("calls", bound="1"), Spend("own", "own:1", Decimal(1), Decimal(1), None, WHY)
    store.commit(Intent("made up", spends=(hourly, own), releasable=True))
    clock.set(NOW + 3 * HOUR)
    store.commit(Intent("busy", spends=(own,)))
    assert store.prune(NOW + HOUR) == Pruned(sessions=1, budgets=2, approvals=1, once=1)
    left = {name: sorted(store.read(name).marks) for name in ("made up", "named", "busy")}
    assert left == {"made up": [], "named": ["secret"], "busy": ["secret"]}
    assert isinstance(store.commit(Intent("busy", spends=(own,))), Refused)
    assert store.prune(NOW + HOUR, named=True) == Pruned(sessions=1, budgets=0, approvals=0, once=0)
    assert isinstance(store.commit(Intent("busy", spends=(own,))), Refused)


def test_a_replay_writes_nothing(store: PostgresState, url: str) -> None:
    """A key that was used, and a budget that is used up, can be asked for without end at no cost to the disk."""
    ends = store.now() + HOUR
    assert store.once("k", ends)
    full = Intent(None, spends=(spend("calls", bound="0"),))
    with psycopg.connect(url, autocommit=True) as connection:

        def written() -> int:
            [row] = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchall()
            return int(row[0])

        before = written()
        for _ in range(3):
            assert not store.once("k", ends)
            assert isinstance(store.commit(full), Refused)
        after = written()
    assert after == before + 1  # to ask for it takes one
