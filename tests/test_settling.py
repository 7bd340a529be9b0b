"""Settling for less: what a running call says that it took, and what comes back; and calls that never ran."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentauthz import (
    InvalidArgument,
    NoSession,
    Principal,
    Stopped,
    authorize,
    current,
    settle,
)
from agentauthz.errors import SessionError
from agentauthz.records.words import effect_words
from agentauthz.replay import replay
from agentauthz.state.postgres import PostgresState, init
from agentauthz.state.sqlite import SqliteState
from tests.distant import DistantState
from tests.postgres import Postgres
from tests.recording import until
from tests.settling import TOKENS, WAYS, left, plain
from tests.support import HELPER, NOON, Recorded

BOTH: Final = TOKENS + "limit calls on llm.* to count <= 5 per session\n"

# ---- each kind of function, and each store


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_left_is_the_bound_less_what_was_taken(way: str) -> None:
    """In each kind of function, and in work that is performed, what was reserved beyond what was taken comes back."""
    made = Recorded(TOKENS)
    async with made.session() as session:
        await WAYS[way](600, took=12)
        assert left(session) == [("tokens", 988)]
        await WAYS[way](900, took=Decimal("0.25"))
        assert left(session) == [("tokens", Decimal("987.75"))]
    assert [(effect.status, effect.spent) for effect in made.effects] == [
        ("done", {"tokens": {"$d": "12"}}), ("done", {"tokens": {"$d": "0.25"}}),
    ]  # fmt: skip


def _used_up(store: Any, amount: int, took: int, *, fails: bool = False) -> list[tuple[str, Any]]:
    """Take from a budget with a window and from one of a session, on a store; return what is left of each."""
    policy = TOKENS + "limit here on llm.* to sum(args.most) <= 50 per session\n"
    made = Recorded(policy, state=store)

    @authorize("llm.ask", release_on_error=fails)
    def tool(most: int) -> None:
        settle(tokens=took, here=took)
        if fails:
            raise ValueError

    with made.session(id="s") as session:
        with suppress(ValueError):
            tool(amount)
        return left(session)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "distant"])
def test_each_store_gives_back_what_was_not_taken(kind: str, tmp_path: Path) -> None:
    """Budgets of a window and of a session get back what was reserved and not taken; all where the call raised."""
    makes: dict[str, Callable[[str], Any]] = {
        "memory": lambda name: None,
        "sqlite": lambda name: SqliteState(tmp_path / name),
        "distant": lambda name: DistantState(),
    }
    for name, fails, rest in (("one", False, [43, 993]), ("two", True, [50, 1000])):
        store = makes[kind](name)
        assert [amount for _, amount in _used_up(store, 40, 7, fails=fails)] == rest
        if store is not None:
            store.close()


def test_postgres_gives_back_what_was_not_taken(postgres: Postgres) -> None:
    """So it is in a database that machines share; a connection that was cut in between changes nothing of it."""
    postgres.run("DROP SCHEMA IF EXISTS agentauthz CASCADE")
    init(postgres.dsn)
    with closing(PostgresState(postgres.dsn)) as store:
        assert _used_up(store, 40, 7) == [("here", 43), ("tokens", 993)]
        made = Recorded(TOKENS, state=store)

        @authorize("llm.ask")
        def tool(most: int, how: str) -> None:
            settle(tokens=1)
            if how == "cut":
                before = [*store._pool._idle]
                postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
                until(lambda: not any(wire.quiet for wire in before))

        with made.session(id="s") as session:
            for how, rest in (("whole", 992), ("cut", 991)):
                tool(100, how)
                assert left(session) == [("tokens", rest)]


def test_amounts_of_all_digits_that_numbers_have_are_exact(tmp_path: Path) -> None:
    """What comes back is exact beyond the digits that decimals have by default."""
    huge = 123456789012345678901234567890123
    with closing(SqliteState(tmp_path / "state")) as file:
        for store in (None, file):
            made = Recorded(TOKENS.replace("1000", f"{huge}"), state=store)
            with made.session() as session:
                plain(huge, took=Decimal("1.000000000000000001"))
                [(_, rest)] = left(session)
                assert rest == Decimal("123456789012345678901234567890121.999999999999999999")


@pytest.mark.parametrize("took", ["399." + 397 * "9", "1E-19", "0." + 30 * "0" + "1", "1E-1000000"])
def test_no_amount_leaves_others_a_budget_that_can_not_be_counted(took: str) -> None:
    """An amount has no more digits than numbers have anywhere: sums of others' amounts stay exact, and go on."""
    made = Recorded(TOKENS)
    with made.session() as session:
        with pytest.raises(InvalidArgument, match="at most 38 digits, and 18 after the point"):
            plain(400, took=Decimal(took))
        assert plain(600, took=Decimal("0E-500")) == "done"
        assert left(session) == [("tokens", 600)]


@given(
    st.lists(
        st.tuples(st.decimals(0, 200, places=2), st.decimals(0, 200, places=2), st.booleans()), min_size=1, max_size=12
    )
)
def test_settling_never_grants_more_than_the_bound(calls: list[tuple[Decimal, Decimal, bool]]) -> None:
    """Whatever calls reserve and say that they took, a call is allowed as long as it fits beside what was taken."""
    made, taken = Recorded(TOKENS.replace("1000", "300")), Decimal(0)

    @authorize("llm.ask", release_on_error=True)
    def tool(most: Decimal, took: Decimal, fails: bool) -> None:
        settle(tokens=took)
        if fails:
            raise ValueError

    with made.session() as session:
        for most, part, fails in calls:
            took = min(most, part)
            assert session.preview("llm.ask", args={"most": most}).allowed is (taken + most <= 300)
            if taken + most <= 300:
                try:
                    tool(most, took, fails)
                except ValueError:
                    assert fails
                taken += 0 if fails else took
            assert left(session) == [("tokens", 300 - taken)]


# ---- when it takes effect


def test_the_last_word_counts_and_only_at_the_end() -> None:
    """While the call runs all that it reserved is held; what it said last is what it took."""
    made = Recorded(BOTH)

    @authorize("llm.ask")
    def tool(most: int) -> list[tuple[str, Any]]:
        settle(tokens=100, calls=0)
        settle(tokens=300)
        return left(current().session)

    with made.session() as session:
        assert tool(400) == [("calls", 4), ("tokens", 600)]
        assert left(session) == [("calls", 5), ("tokens", 700)]


def _raises(error: type[BaseException], *, release: bool) -> tuple[list[tuple[str, Any]], Recorded]:
    made = Recorded(TOKENS)

    @authorize("llm.ask", release_on_error=release)
    def tool(most: int) -> None:
        settle(tokens=100)
        raise error

    with made.session() as session:
        with pytest.raises(error):
            tool(400)
        return left(session), made


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stopped, asyncio.CancelledError])
def test_what_was_said_stands_however_the_call_ends(error: type[BaseException], release: bool) -> None:
    """Failed, stopped, interrupted calls have taken what they said; with `release_on_error` a failed one nothing."""
    rest, made = _raises(error, release=release)
    gives_all = release and error is ValueError
    assert rest == [("tokens", 1000 if gives_all else 900)]
    assert [effect.spent for effect in made.effects] == [{"tokens": {"$d": "0" if gives_all else "100"}}]


def test_a_generator_that_is_closed_has_taken_what_it_said() -> None:
    """What was said before the generator was closed, or collected, stands."""
    made = Recorded(TOKENS)

    @authorize("llm.ask")
    def tool(most: int) -> Iterator[int]:
        settle(tokens=100)
        yield 1
        settle(tokens=0)
        yield 2

    with made.session() as session:
        steps = tool(400)
        next(steps)
        with pytest.raises(SessionError):
            settle(tokens=1)
        assert left(session) == [("tokens", 600)]
        del steps
        gc.collect()
        assert left(session) == [("tokens", 900)]
    assert [effect.status for effect in made.effects] == ["stopped"]


def test_what_is_not_said_stays_taken() -> None:
    """A call that says nothing has taken what was reserved, and so its other limits."""
    made = Recorded(BOTH)
    with made.session() as session:
        plain(400, took=400)
        assert left(session) == [("calls", 4), ("tokens", 600)]
        session.authorize("llm.ask", args={"most": 100})
        assert left(session) == [("calls", 3), ("tokens", 500)]


# ---- whose budgets


def test_a_rule_with_several_budgets_settles_them_all() -> None:
    """Where authority was passed on, each agent's budget of a rule gets back what wasn't taken; a shared one once."""
    made = Recorded(
        "permit p on llm.* when true\nlimit tokens on llm.* to sum(args.most) <= 1000 per subject, actor every 1d\n"
        "limit all on llm.* to sum(args.most) <= 1000 per subject every 1d"
    )

    @authorize("llm.ask")
    def tool(most: int) -> None:
        settle(tokens=1, all=2)

    with made.session() as session:
        child = session.delegate(HELPER)
        child.bind(tool)(500)
        assert left(child) == [("all", 998), ("tokens", 999), ("tokens", 999)]
        assert left(session) == [("all", 998), ("tokens", 999)]


def test_of_several_budgets_the_smallest_amount_is_the_most() -> None:
    """Where budgets of one rule have reserved different amounts, a call can't have taken more than the smallest."""
    made = Recorded(
        "type agent { most: int }\npermit p on llm.* when true\n"
        "limit tokens on llm.* to sum(actor.most) <= 1000 per subject, actor every 1d"
    )

    @authorize("llm.ask")
    def tool(took: int) -> None:
        settle(tokens=took)

    with made.session(actor=Principal.agent("a", most=10)) as session:
        child = session.delegate(Principal.agent("b", most=4)).bind(tool)
        child(4)
        with pytest.raises(InvalidArgument, match="can't have taken more than was reserved"):
            child(5)


def test_the_innermost_call_is_the_one_that_settles() -> None:
    """A call inside of a call settles its own limits, and then the outer one its own."""
    made = Recorded(TOKENS)

    @authorize("llm.outer")
    def outer(most: int) -> None:
        plain(100, took=1)
        settle(tokens=2)

    with made.session() as session:
        outer(500)
        assert left(session) == [("tokens", 997)]


# ---- what is refused


@pytest.mark.parametrize("took", [1.0, True, "1", None, Decimal("NaN"), Decimal("Infinity"), -1, Decimal("-0.1")])
def test_only_an_exact_amount_is_taken(took: Any) -> None:
    """No float, bool or text, nothing that is no number, and nothing below zero; the reservation stays whole."""
    made = Recorded(TOKENS)
    with made.session() as session:
        with pytest.raises(InvalidArgument, match=r"^`tokens` "):
            plain(400, took=took)
        assert left(session) == [("tokens", 600)]


def test_more_than_was_reserved_can_not_be_taken() -> None:
    """The message names the rule and tells no amount; of several amounts none counts where one is refused."""
    made = Recorded(BOTH)

    @authorize("llm.ask")
    def tool(most: int) -> None:
        settle(calls=0, tokens=401)

    with made.session() as session:
        with pytest.raises(InvalidArgument, match=r"^`tokens` can't have taken more than was reserved for this call"):
            tool(400)
        assert left(session) == [("calls", 4), ("tokens", 600)]


def test_an_unknown_rule_is_refused() -> None:
    """The message names the limits that have reserved something; where none has, it says so."""
    made = Recorded(BOTH)

    @authorize("llm.ask")
    def tool(most: int) -> None:
        settle(token=1)

    @authorize("shop.ask")
    def free() -> None:
        settle(tokens=1)

    with made.session() as session, pytest.raises(InvalidArgument, match=r"these have: `calls`, `tokens`$"):
        session.bind(tool)(400)
    with Recorded().session(), pytest.raises(InvalidArgument, match=r"^`tokens` is no limit .*; none has$"):
        free()


def test_outside_of_a_call_there_is_nothing_to_settle() -> None:
    """Without a session, outside of any call, and before or after the work that is performed, an error says so."""
    with pytest.raises(NoSession):
        settle(tokens=1)
    made = Recorded(TOKENS)
    with made.session() as session:
        with pytest.raises(SessionError, match="no call is running here"):
            settle(tokens=1)
        work = session.perform("llm.ask", args={"most": 1})
        for _ in range(2):
            with pytest.raises(SessionError, match="isn't running"):
                work.settle(tokens=1)
            if work._call is not None:
                with work:
                    pass


def test_a_thread_that_outlives_its_call_settles_nothing() -> None:
    """What is said when the call has ended is refused, whoever says it."""
    made = Recorded(TOKENS)
    errors: list[BaseException] = []
    go = threading.Event()

    @authorize("llm.ask")
    def tool(most: int) -> threading.Thread:
        import contextvars

        here = contextvars.copy_context()

        def late() -> None:
            go.wait(10)
            try:
                settle(tokens=1)
            except SessionError as error:
                errors.append(error)

        thread = threading.Thread(target=here.run, args=(late,))
        thread.start()
        return thread

    with made.session() as session:
        thread = tool(400)
        go.set()
        thread.join()
        assert left(session) == [("tokens", 600)]
    assert len(errors) == 1


def test_in_observe_mode_nothing_is_reserved_and_nothing_refused() -> None:
    """A call that runs though no budget or no permit lets it may settle: exact amounts are still asked for."""
    import datetime as dt

    ends = NOON + dt.timedelta(days=1)
    for policy in (TOKENS, TOKENS.replace("permit p on llm.*", "permit p on other.*"), TOKENS.replace("1000", "1")):
        made = Recorded(policy, mode="observe", observe_until=ends)
        with made.session():
            assert plain(400, took=7) == "done"
            with pytest.raises(InvalidArgument):
                plain(400, took=7.0)
        assert [effect.spent for effect in made.effects] == [{}, {}]


# ---- once


def test_a_fork_settles_nothing(tmp_path: Path) -> None:
    """Where a function forks and both processes return from it, what wasn't taken comes back once."""
    store = SqliteState(tmp_path / "state")
    made = Recorded(TOKENS, state=store)

    @authorize("llm.ask")
    def tool(most: int) -> int:
        child = os.fork()
        settle(tokens=100)
        return child

    with made.session() as session:
        session.authorize("llm.ask", args={"most": 300})
        child = tool(400)
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        assert left(session) == [("tokens", 600)]
    store.close()


@pytest.mark.parametrize("error", [None, KeyError("in the parent")])
def test_a_fork_that_raises_gives_nothing_back(tmp_path: Path, error: Exception | None) -> None:
    """With `release_on_error`, too, only the process that was allowed says how its call ended."""
    store = SqliteState(tmp_path / "state")
    made = Recorded(TOKENS, state=store)
    children: list[int] = []

    @authorize("llm.ask", release_on_error=True)
    def tool(most: int) -> None:
        children.append(os.fork())
        if children[0] == 0:
            raise KeyError("in the child")
        os.waitpid(children[0], 0)
        settle(tokens=100)
        if error is not None:
            raise error

    with made.session() as session:
        with suppress(KeyError):
            try:
                tool(400)
            finally:
                if children[0] == 0:
                    os._exit(0)
        assert left(session) == [("tokens", 900 if error is None else 1000)]
    store.close()


def test_what_can_not_be_given_back_stays_taken(caplog: pytest.LogCaptureFixture) -> None:
    """A store that fails at the end costs the budget, not the result: it is logged, and the record claims nothing."""
    store = DistantState()
    made = Recorded(TOKENS, state=store)
    store.down = {"settle"}
    with made.session() as session:
        assert plain(400, took=1) == "done"
        store.down = set()
        assert left(session) == [("tokens", 600)]
    assert [effect.spent for effect in made.effects] == [{}]
    assert "couldn't be kept" in caplog.text
    assert store.asked["settle"] == 1


# ---- what is told


def test_a_hidden_amount_stays_hidden() -> None:
    """Where the decision's record only commits to an amount, its effect's does too."""
    made = Recorded(TOKENS.replace("1000", "10000"))

    @authorize("llm.ask", sensitive=["most"])
    def tool(most: int) -> None:
        settle(tokens=7321)

    with made.session():
        tool(9999)
    [effect] = made.effects
    assert list(effect.spent) == ["tokens"]
    assert set(effect.spent["tokens"]) == {"$c"}  # type: ignore[call-overload]
    assert b"7321" not in effect.line()
    assert "only a keyed hash" in effect_words(effect)


def test_what_was_settled_changes_no_replay() -> None:
    """A decision's record has how its budgets stood: replayed, each comes to the same, whatever was settled since."""
    made = Recorded(TOKENS)
    with made.session() as session:
        plain(900, took=400)
        plain(600, took=1)
        assert not session.decide("llm.ask", args={"most": 600}).allowed
    compared = replay((record.line() for record in made.sink.records), made.authorizer.policies)
    assert [budget.used for record in made.decisions for budget in record.budgets] == [
        {"$d": "0"}, {"$d": "400"}, {"$d": "401"},
    ]  # fmt: skip
    assert (compared.same, compared.changed, compared.not_replayable) == (3, [], {})


def test_people_are_told_what_was_spent() -> None:
    """The words for an effect name each limit that settled, and what it took."""
    made = Recorded(BOTH)

    @authorize("llm.ask")
    def tool(most: int) -> None:
        settle(calls=0, tokens=Decimal("8.10"))

    with made.session():
        tool(400)
    [effect] = made.effects
    assert effect_words(effect).endswith("; spent in the end: calls 0, tokens 8.1")
