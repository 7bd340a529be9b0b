"""Test what is particular to state in a file: time, forgetting, signals, sessions with made-up ids, and its mode."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from attrs import evolve

from agentauthz.errors import InvalidArgument, StateError
from agentauthz.state import Committed, Intent, Refused, SqliteState, State
from agentauthz.testing.trying import FAR, HOUR, approved, request, spend, spending, taken, used
from tests.stores import START


class _Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def state(tmp_path: Path, clock: _Clock) -> Iterator[SqliteState]:
    store = SqliteState(tmp_path / "state.db", clock=clock)
    yield store
    store.close()


def _rows(state: SqliteState) -> dict[str, int]:
    connection = sqlite3.connect(state._file.path)
    tables = ("sessions", "budgets", "reservations", "once", "approvals")
    counts = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
    connection.close()
    return {table: count for table, count in counts.items() if count}


def test_time_is_never_read_lower_by_any_process(state: SqliteState, clock: _Clock) -> None:
    """The highest time that any store of the file has seen is the least that any other reads, also after a restart."""
    clock.now = START + HOUR
    assert state.now() == START + HOUR
    clock.now = START
    other = SqliteState(state._file.path, clock=lambda: START)
    assert other.now() == START + HOUR
    assert other.revoke("token", "t", "").at == START + HOUR
    other.close()


def test_a_clock_that_is_none_is_an_error(tmp_path: Path) -> None:
    """A time without a zone decides nothing."""
    state = SqliteState(tmp_path / "state.db", clock=lambda: dt.datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(StateError, match="time zone"):
        state.once("key", START)
    state.close()


def test_what_has_ended_goes_from_the_file(state: SqliteState, clock: _Clock) -> None:
    """Budgets, reservations, keys and requests are deleted while others are written, once nobody needs them."""
    for number in range(100):
        state.commit(spending(spend(f"k{number}"), releasable=True))
        state.once(f"key-{number}", clock.now + HOUR)
        state.ask(request(state, f"r{number}", lasts=HOUR))
    assert _rows(state) == {"budgets": 100, "reservations": 100, "once": 100, "approvals": 100}
    clock.now += dt.timedelta(days=1)
    for _ in range(64):
        state.commit(spending(spend("new")))
    assert _rows(state) == {"budgets": 1, "approvals": 100}
    clock.now += dt.timedelta(days=31)
    for _ in range(64):
        state.commit(spending(spend("new")))
    assert _rows(state) == {"budgets": 1}


def test_a_session_with_a_made_up_id_goes_with_its_last_holder(state: SqliteState, clock: _Clock) -> None:
    """It isn't even in the file before there is something to remember; what it spent goes with it."""
    mine = spend("own", window=None)
    held = [state.begin("made-up", START, {"a": START}, keep=False) for _ in range(2)]
    assert state.read("made-up") == State(watched={"a": START})
    assert _rows(state) == {}
    state.commit(Intent("made-up", marks=("m",), spends=(mine,), releasable=True))
    assert _rows(state) == {"sessions": 1, "budgets": 1, "reservations": 1}
    held.pop()
    _write_often(state)
    assert state.read("made-up").marks == {"m"}
    held.clear()
    gc.collect()
    _write_often(state)
    assert _rows(state) == {}


def test_a_session_that_somebody_may_resume_stays(state: SqliteState, clock: _Clock) -> None:
    """One whose id the host chose, or that a request for consent names, outlives its holders."""
    state.begin("chosen", START, {}, keep=True)
    held = [state.begin("asking", START, {}, keep=False)]
    state.mark("asking", "m")
    state.ask(request(state, "r", "asking"))
    held.clear()
    gc.collect()
    clock.now += dt.timedelta(days=90)
    _write_often(state)
    assert _rows(state)["sessions"] == 2
    assert state.read("asking").marks == {"m"}


def test_a_session_that_a_fork_holds_too_stays(state: SqliteState) -> None:
    """A parent that lets go of a session doesn't take its marks from the child that goes on with it."""
    held = [state.begin("made-up", START, {}, keep=False)]
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    state.mark("made-up", "m")
    held.clear()
    gc.collect()
    _write_often(state)
    assert state.read("made-up").marks == {"m"}


def test_a_session_that_is_gone_from_the_file_is_an_error(state: SqliteState) -> None:
    """A session that is held on to never begins anew without its marks."""
    held = state.begin("made-up", START, {}, keep=False)
    state.mark("made-up", "m")
    connection = sqlite3.connect(state._file.path)
    connection.execute("DELETE FROM sessions")
    connection.commit()
    connection.close()
    assert held.started == START
    with pytest.raises(StateError, match="gone"):
        state.read("made-up")
    with pytest.raises(StateError, match="gone"):
        state.commit(Intent("made-up", marks=("n",)))


def test_what_was_left_by_a_process_that_died_is_forgotten_after_a_month(state: SqliteState, clock: _Clock) -> None:
    """Nobody can ask for a session with a made-up id whose process is no more."""
    other = SqliteState(state._file.path, clock=clock)
    held = other.begin("made-up", START, {}, keep=False)
    other.mark("made-up", "m")
    assert held.started == START
    other.close()
    for days, left in ((29, {"sessions": 1}), (2, {})):
        clock.now += dt.timedelta(days=days)
        _write_often(state)
        assert _rows(state) == left


def test_a_signal_may_revoke_in_the_middle_of_anything(state: SqliteState) -> None:
    """A revocation inside of another operation is kept with it; a decision there is refused."""
    with state._file.writing():
        made = state.revoke("everything", "", "the red button")
        with pytest.raises(StateError):
            state.commit(spending(spend("key")))
    assert list(state.revocations(0)) == [made]
    assert taken(state.commit(spending(spend("key"))))


def test_a_signal_that_halts_and_ends_the_program_has_halted(tmp_path: Path, clock: _Clock) -> None:
    """What its handler raises undoes the operation that it came into, and not the halt: other processes hear of it."""

    def handler() -> dt.datetime:
        store._clock = clock  # type: ignore[misc]
        store.revoke("everything", "", "the program was told to end")
        raise SystemExit

    path = tmp_path / "state.db"
    with closing(SqliteState(path, clock=clock)) as store, closing(SqliteState(path, clock=clock)) as other:
        store._clock = handler  # type: ignore[misc]
        with pytest.raises(SystemExit):
            store.commit(spending(spend("key")))
        assert [(one.number, one.kind) for one in other.revocations(0)] == [(1, "everything")]
        assert used(other, spend("key")) == [0]
        with other._file.writing(), pytest.raises(StateError):
            other.once("key", other.now() + FAR)


def test_an_approval_ends_at_the_moment_it_says(state: SqliteState, clock: _Clock) -> None:
    """At that moment it can't be used any more, and a moment before it can."""
    for late in (True, False):
        made = approved(state, f"r{late}")
        clock.now = made.expires - (dt.timedelta(0) if late else dt.timedelta(microseconds=1))
        answer = state.commit(Intent(None, approvals=(made.id,)))
        assert isinstance(answer, Refused if late else Committed)
        clock.now = made.expires


def test_a_key_is_remembered_to_the_moment_it_expires(state: SqliteState, clock: _Clock) -> None:
    """It is free again only after that."""
    assert state.once("key", START + HOUR)
    clock.now = START + HOUR
    assert not state.once("key", START + FAR)
    clock.now += dt.timedelta(microseconds=1)
    assert state.once("key", START + FAR)


def test_what_one_releases_another_can_spend(state: SqliteState) -> None:
    """Reservations outlive the process: what is in the file is enough to give them back."""
    answer = state.commit(spending(spend("key", "3"), releasable=True))
    assert isinstance(answer, Committed)
    assert answer.reservation is not None
    other = SqliteState(state._file.path, clock=lambda: START)
    other.release(evolve(answer.reservation))
    state.release(answer.reservation)
    assert used(state, spend("key")) == [Decimal(0)]
    other.close()


def test_a_window_may_be_longer_than_a_file_can_tell(state: SqliteState) -> None:
    """What counts for longer than a number in the file can say counts as long as the file does."""
    longest = spend("key", bound="2", window=dt.timedelta.max)
    first, *more = (state.commit(spending(longest, releasable=True)) for _ in range(3))
    assert [taken(answer) for answer in more] == [True, False]
    assert isinstance(first, Committed)
    assert first.reservation is not None
    state.release(first.reservation)
    _write_often(state)
    assert used(state, longest) == [Decimal(1)]


_ASKED: dict[str, Callable[[SqliteState], object]] = {
    "now": lambda state: state.now(),
    "read": lambda state: state.read("s"),
    "mark": lambda state: state.mark("s", "other"),
    "commit": lambda state: state.commit(spending(spend("key"))),
    "revocations": lambda state: state.revocations(0),
    "approvals": lambda state: state.approvals(),
    "approval": lambda state: state.approval("one"),
}


@pytest.mark.parametrize(
    ("damage", "asked"),
    [
        *((damage, ["now", "mark", "commit"]) for damage in (
            "DELETE FROM clock", "UPDATE clock SET at = 'x'", "UPDATE clock SET at = 9223372036854775807",
        )),
        *((f"UPDATE sessions SET state = {state}", ["read", "mark"]) for state in (
            "x'ff'", "'{'", "'[]'", "'{}'", """'{"marks": 1, "began": {}, "done": {}, "watched": {}}'""", "7",
        )),
        *((f"UPDATE budgets SET spent = '{spent}'", ["commit"]) for spent in (
            "{", "[]", '{"0": 5}}', '{"x": "1"}', '{"0": "x"}', '{"0": []}',
        )),
        ("UPDATE revocations SET at = 9223372036854775807", ["revocations"]),
        ("UPDATE revocations SET name = x'ff'", ["revocations"]),
        ("UPDATE approvals SET request = 7", ["approvals", "approval"]),
        ("UPDATE approvals SET expires = 'never'", ["approvals", "approval"]),
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_an_error_of_the_store(state: SqliteState, damage: str, asked: list[str]) -> None:
    """Rows that nothing here has written make what needs them fail as the store does, and nothing else."""
    state.begin("s", START, {}, keep=True)
    state.mark("s", "m")
    state.commit(spending(spend("key")))
    state.revoke("session", "other", "why")
    approved(state, "one")
    connection = sqlite3.connect(state._file.path)
    connection.execute(damage)
    connection.commit()
    connection.close()
    for name, ask in _ASKED.items():
        with pytest.raises(StateError, match="can't be read") if name in asked else contextlib.nullcontext():
            ask(state)


def test_the_file_is_for_its_owner_alone(state: SqliteState) -> None:
    """The file and what SQLite puts beside it are of mode 0600."""
    state.once("key", START + HOUR)
    assert {path.stat().st_mode & 0o777 for path in state._file.path.parent.iterdir()} == {0o600}


def test_how_it_is_written(tmp_path: Path) -> None:
    """`durable` brings each answer to the device; without it, only the death of the process is survived."""
    for durable, level in ((False, 1), (True, 2)):
        state = SqliteState(tmp_path / f"{durable}.db", durable=durable)
        with state._file.writing() as file:
            assert file.execute("PRAGMA synchronous").fetchone() == (level,)
            assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        state.close()


def test_arguments_are_checked(tmp_path: Path) -> None:
    """A time-out is a positive number of seconds."""
    with pytest.raises(InvalidArgument, match="timeout"):
        SqliteState(tmp_path / "state.db", timeout=0)


def _write_often(state: SqliteState) -> None:
    for _ in range(64):
        state.commit(Intent(None, revocations=0))


def test_what_is_spent_in_a_window_begins_no_session(tmp_path: Path) -> None:
    """A session that begins after a call of its id has spent is a new one: its actions are watched since its start."""
    store = SqliteState(tmp_path / "state.db", clock=lambda: START)
    intent = evolve(spending(spend("day"), session="s"), marks_seen=frozenset())
    assert isinstance(store.commit(intent), Committed)
    began = START - dt.timedelta(hours=1)
    begun = store.begin("s", began, {"a": began}, keep=True)
    assert (begun.started, store.read("s").watched) == (began, {"a": began})
    store.close()
