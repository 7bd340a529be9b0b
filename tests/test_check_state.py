"""Test the contract test for state stores: ours pass it, and each way of breaking a promise is found."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from agentauthz.errors import InvalidArgument, StateError
from agentauthz.state.memory import MemoryState
from agentauthz.state.sqlite import SqliteState
from agentauthz.state.store import (
    Approval,
    Begun,
    Committed,
    Intent,
    Refused,
    Reservation,
    Revocation,
    State,
    StateStore,
)
from agentauthz.testing import check_state
from agentauthz.testing import state as checking

ALL = (
    "its time is in UTC, and never steps back",
    "of an unknown session nothing is remembered",
    "a session is found again by its id, as it was begun first",
    "an action that is newly watched is watched from then on",
    "a session is remembered as long as somebody holds on to it",
    "marks add up",
    "a mark that is removed is gone, and was there once",
    "an action is seen when it is allowed, and when it has returned",
    "any text can be a name",
    "a decision on marks that have changed is stale, and does nothing",
    "a decision on when an action was allowed is stale once that has changed",
    "a decision on when an action returned is stale once that has changed",
    "a decision that doesn't know the last revocation is stale",
    "no more is spent than the bound",
    "an answer says what was used before, what is left, and when there is room again",
    "sums of amounts are exact",
    "each session has budgets of its own where there is no window",
    "a decision is committed whole or not at all",
    "what is only tried changes nothing",
    "what was released can be spent again, but only once",
    "what a session spent can be released too",
    "what was settled stays spent as it was settled first, and never becomes more",
    "what has no id can be settled too",
    "what comes back is exact",
    "a key is granted once",
    "revocations are numbered from 1, without a gap, and stay",
    "a request for consent is kept as it is",
    "only one request for the same call is open",
    "a request is answered once",
    "an answer that knows what others have said adds to theirs, and no other does",
    "an approval is used once, and only if it was given",
    "what has expired can't be answered, and holds up nobody",
    "requests are listed oldest first, by all that is asked for",
    "threads get no more together than there is, and no less",
    "a forked process can use the store",
    "processes get no more together than there is, and no less",
    "what was answered outlives the process",
    "what can't be done raises `StateError`, in time",
    "it goes on once its place is in order",
    "closing it twice is nothing",
    "a closed store raises `StateError`",
)
_SHARED = ("processes get no more", "what was answered outlives")
_BROKEN = ("what can't be done", "it goes on")


@contextlib.contextmanager
def _away(path: Path) -> Iterator[None]:
    path.rename(path.with_name("away"))
    yield
    path.with_name("away").rename(path)


def test_what_keeps_all_is_told(tmp_path: Path) -> None:
    """Everything that could be looked at in a file is listed, and nothing else."""
    path = tmp_path / "state.db"
    report = check_state(lambda: SqliteState(path), breaking=_away(path))
    assert report.unknown == ()
    assert report.kept == ALL


def test_what_is_in_memory_keeps_all_but_what_needs_a_place(tmp_path: Path) -> None:
    """A store in memory shares nothing, which is told, and keeps the rest."""
    report = check_state(MemoryState, shared=False)
    assert report.kept == tuple(each for each in ALL if not each.startswith((*_SHARED, *_BROKEN)))
    assert [told.partition(":")[0] for told in report.unknown] == [
        "processes get no more together than there is, and no less",
        "what was answered outlives the process",
        "what can't be done raises, in time",
    ]


def test_a_place_may_be_tried_out_again(tmp_path: Path) -> None:
    """What an earlier run left behind doesn't matter."""
    assert all(len(check_state(lambda: SqliteState(tmp_path / "state.db")).kept) == len(ALL) - 2 for _ in "12")


def test_what_is_no_store_is_refused() -> None:
    """What lacks an operation is no store."""
    with pytest.raises(InvalidArgument, match="it has no now"):
        check_state(lambda: object())  # type: ignore[arg-type, return-value]


class _Faulty:
    """Be a store that may break its word in some way, and otherwise asks another one."""

    blocking = False

    def __init__(self, store: StateStore, fault: str) -> None:
        self._store = store
        self._fault = fault
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._waiting: list[Callable[[], object]] = []
        self._closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def now(self) -> dt.datetime:
        told = self._store.now()
        if self._fault == "without a zone":
            return told.replace(tzinfo=None)
        if self._fault == "steps back":
            self._fault = "" if self._closed else self._fault
            self._closed = True
            return told + dt.timedelta(days=1 if self._fault else 0)
        return told

    def begin(self, session: str, started: dt.datetime, watched: Mapping[str, dt.datetime], *, keep: bool) -> Any:
        begun: Begun = self._store.begin(session, started, watched, keep=keep)
        if self._fault == "begins anew":
            return type("Begun", (), {"started": started})
        if self._fault == "watches from the start" and isinstance(self._store, MemoryState):
            found = self._store._known[session]
            found.state = evolve(found.state, watched=dict(watched))
        return None if self._fault == "forgets" else begun

    def read(self, session: str) -> State:
        state = self._store.read(session)
        if self._fault == "invents" and state == State():
            return State({"m"})
        if self._fault == "forgets" and "m" in state.marks:
            return State()
        return state

    def commit(self, intent: Intent) -> Any:
        intent = self._changed(intent)
        if self._fault == "commits halves" and intent.session is not None:
            self._store.commit(Intent(intent.session, marks=intent.marks))
        if self._fault == "checks first" and intent.spends and intent.reserve:
            room = isinstance(self._store.commit(evolve(intent, reserve=False)), Committed)
            time.sleep(0.002)
            intent = evolve(intent, spends=tuple(evolve(each, bound=Decimal(10**9)) for each in intent.spends if room))
        if self._fault == "locks":
            with self._lock:
                time.sleep(0.02)  # so that a fork meets it held
                return self._store.commit(intent)
        answer = self._store.commit(intent)
        if self._fault == "tells what is used after" and isinstance(answer, Committed):
            return evolve(answer, budgets=tuple(evolve(each, used=each.used + 1) for each in answer.budgets))
        if self._fault == "uses approvals again" and isinstance(answer, Refused) and answer.approvals:
            used = [self._store.approval(each) for each in answer.approvals]
            return Committed() if all(each and each.status == "used" for each in used) else answer
        return answer

    def _changed(self, intent: Intent) -> Intent:
        changes: dict[str, Callable[[], Intent]] = {
            "loses marks": lambda: evolve(intent, marks=intent.marks[:1]),
            "doesn't look at marks": lambda: evolve(intent, marks_seen=None),
            "doesn't look at began": lambda: evolve(
                intent, times_seen=tuple(each for each in intent.times_seen if each[0] != "began")
            ),
            "doesn't look at done": lambda: evolve(
                intent, times_seen=tuple(each for each in intent.times_seen if each[0] != "done")
            ),
            "doesn't look at revocations": lambda: evolve(intent, revocations=None),
            "one too many": lambda: evolve(
                intent, spends=tuple(evolve(each, bound=each.bound + 1) for each in intent.spends)
            ),
            "floats": lambda: evolve(
                intent, spends=tuple(evolve(each, amount=Decimal(float(each.amount))) for each in intent.spends)
            ),
            "one budget for all": lambda: evolve(intent, session="all" if intent.spends else intent.session),
            "changes what it tries": lambda: evolve(intent, reserve=True),
        }
        return changes.get(self._fault, lambda: intent)()

    def release(self, reservation: Reservation) -> None:
        if self._fault == "releases twice":
            reservation = evolve(reservation, id=None)
        if self._fault == "doesn't release in sessions" and reservation.session is not None:
            return
        self._store.release(reservation)

    def settle(self, reservation: Reservation, actual: Mapping[str, Decimal]) -> None:
        if self._fault == "settles again":
            reservation = evolve(reservation, id=None)
        if self._fault == "settles by id only" and reservation.id is None:
            return
        if self._fault == "gives back floats":
            actual = {rule: Decimal(float(amount)) for rule, amount in actual.items()}
        self._store.settle(reservation, actual)

    def mark(self, session: str, name: str) -> None:
        if self._fault == "waits" and not self._closed:
            self._waiting.append(lambda: self._store.mark(session, name))
            return
        self._store.mark(session, name.replace("\0", "") if self._fault == "drops what it cannot hold" else name)

    def unmark(self, session: str, name: str) -> bool:
        return self._store.unmark(session, name) or self._fault == "was always there"

    def finish(self, session: str, action: str) -> None:
        if self._fault == "waits":
            self._waiting.append(lambda: self._store.finish(session, action))
        elif self._fault != "doesn't see the end":
            self._store.finish(session, action)

    def once(self, key: str, expires: dt.datetime) -> bool:
        if self._fault == "each process once":
            self._known, known = self._known | {key}, key in self._known
            return not known
        return self._store.once(key, expires) or self._fault == "again and again"

    def revocations(self, since: int) -> Sequence[Revocation]:
        found = self._store.revocations(since)
        return found[::-1] if self._fault == "newest first" else found

    def ask(self, approval: Approval) -> Approval:
        if self._fault == "changes requests":
            return self._store.ask(evolve(approval, request="{}"))
        if self._fault == "asks again":
            return self._store.ask(evolve(approval, binding=approval.binding + approval.id))
        if self._fault == "expired is open":
            for known in self._store.approvals(binding=approval.binding):
                return known
        return self._store.ask(approval)

    def answer(self, id: str, status: Any, answer: str, *, known: str | None = None) -> bool:
        if self._fault == "forgets who answered" and (there := self._store.approval(id)) is not None:
            known = there.answer
        done = self._store.answer(id, status, answer, known=known)
        row = self._store.approval(id)
        late = row is not None and row.expires <= self._store.now() and self._fault == "answers late"
        return done or late or (self._fault == "answers again" and row is not None)

    def approvals(self, **asked: Any) -> Sequence[Approval]:
        found = self._store.approvals(**asked)
        return found[::-1] if self._fault == "newest request first" else found

    def close(self) -> None:
        if self._closed and self._fault == "closes once":
            raise OSError("closed")
        self._closed = True
        if self._fault != "answers when closed":
            self._store.close()


_FAULTS = [
    ("steps back", "its time is in UTC"),
    ("without a zone", "its time is in UTC"),
    ("invents", "of an unknown session"),
    ("begins anew", "a session is found again"),
    ("watches from the start", "an action that is newly watched"),
    ("forgets", "a session is remembered as long"),
    ("loses marks", "marks add up"),
    ("was always there", "a mark that is removed"),
    ("doesn't see the end", "an action is seen"),
    ("drops what it cannot hold", "any text"),
    ("doesn't look at marks", "a decision on marks"),
    ("doesn't look at began", "a decision on when an action was allowed"),
    ("doesn't look at done", "a decision on when an action returned"),
    ("doesn't look at revocations", "a decision that doesn't know"),
    ("one too many", "no more is spent"),
    ("tells what is used after", "an answer says what was used before"),
    ("floats", "sums of amounts are exact"),
    ("one budget for all", "each session has budgets"),
    ("commits halves", "a decision is committed whole"),
    ("changes what it tries", "what is only tried"),
    ("releases twice", "what was released"),
    ("doesn't release in sessions", "what a session spent"),
    ("settles again", "what was settled"),
    ("settles by id only", "what has no id can be settled"),
    ("gives back floats", "what comes back is exact"),
    ("again and again", "a key is granted once"),
    ("newest first", "revocations are numbered"),
    ("changes requests", "a request for consent is kept"),
    ("asks again", "only one request"),
    ("answers again", "a request is answered once"),
    ("forgets who answered", "an answer that knows what others have said adds to theirs, and no other does"),
    ("uses approvals again", "an approval is used once"),
    ("expired is open", "only one request"),
    ("answers late", "what has expired"),
    ("newest request first", "requests are listed"),
    ("checks first", "threads get no more"),
    ("locks", "a forked process"),
    ("closes once", "closing it twice"),
    ("answers when closed", "a closed store"),
]


@pytest.mark.parametrize(("fault", "promise"), _FAULTS, ids=[fault for fault, _ in _FAULTS])
def test_each_broken_promise_is_found(fault: str, promise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does one thing wrong is refused, and what it breaks is named."""
    monkeypatch.setattr(checking, "_PATIENCE", 2)
    with pytest.raises(AssertionError, match=f"it isn't so that {promise}"):
        check_state(lambda: _Faulty(MemoryState(), fault), shared=False)


@pytest.mark.parametrize(
    ("fault", "promise"), [("each process once", "processes get no more"), ("waits", "what was answered outlives")]
)
def test_what_other_processes_do_not_see_is_found(fault: str, promise: str, tmp_path: Path) -> None:
    """A store that keeps something for itself that all share is refused."""
    with pytest.raises(AssertionError, match=f"it isn't so that {promise}"):
        check_state(lambda: _Faulty(SqliteState(tmp_path / "state.db"), fault))


def test_stores_that_share_nothing_are_found() -> None:
    """Stores that are said to have one place, and don't, are refused."""
    with pytest.raises(AssertionError, match="it isn't so that a session is found again"):
        check_state(MemoryState)


def test_what_is_silent_while_its_place_is_away_is_found(tmp_path: Path) -> None:
    """A store that swallows an error is refused, and so is one that never comes back."""
    path = tmp_path / "state.db"

    class Silent(_Faulty):
        def mark(self, session: str, name: str) -> None:
            with contextlib.suppress(StateError):
                self._store.mark(session, name)

    with pytest.raises(AssertionError, match=r"in time \(mark did not\)"):
        check_state(lambda: Silent(SqliteState(path), ""), breaking=_away(path))


def test_what_never_comes_back_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that stays out of order is refused."""
    monkeypatch.setattr(checking, "_PATIENCE", 2)
    path = tmp_path / "state.db"

    @contextlib.contextmanager
    def gone() -> Iterator[None]:
        path.unlink()
        yield

    with pytest.raises(AssertionError, match="it isn't so that it goes on"):
        check_state(lambda: SqliteState(path), breaking=gone())
