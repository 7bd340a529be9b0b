"""Keep all that a store keeps in this process's memory."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import heapq
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Concatenate, Final, Literal, ParamSpec, TypeAlias, TypeVar, final

from attrs import evolve

from agentauthz.decision import EXACT, Budget, Spend
from agentauthz.errors import InvalidArgument, StateError
from agentauthz.state.changes import after, finished, is_outdated, watching
from agentauthz.state.store import (
    DONE,
    NOTHING_YET,
    STALE,
    Answer,
    Approval,
    Committed,
    Intent,
    Refused,
    Reservation,
    Revocation,
    State,
    Status,
    Subject,
)
from agentauthz.state.windows import Buckets, micros
from agentauthz.values import utc

P = ParamSpec("P")
T = TypeVar("T")
_Taken: TypeAlias = tuple[Spend, Buckets, int]

_NO_BUDGETS: Final[Mapping[str, Buckets]] = MappingProxyType({})
_SWEEP: Final = 10_000  # budgets, or approvals, before those that ended are looked for
_REMEMBERED: Final = dt.timedelta(days=1)  # what became of an approval, after its end


def _whole(operation: Callable[Concatenate[MemoryState, P], T]) -> Callable[Concatenate[MemoryState, P], T]:
    """Have an operation done whole: the lock lets in again what a signal's handler, or an object's end, asks meanwhile.

    SECURITY: that would spend what is being spent, or be overwritten by what was read before.
    """

    @functools.wraps(operation)
    def alone(self: MemoryState, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._lock:
            inside = self._inside
            try:
                self._inside = True
                if inside:
                    raise _interrupting()
                return operation(self, *args, **kwargs)
            finally:
                self._inside = inside

    return alone


def _interrupting() -> StateError:
    return StateError("the state store is in the middle of another operation of this thread")


@final
class _Session:
    """Be one session's state; whoever began it holds on to it."""

    __slots__ = ("__weakref__", "budgets", "started", "state")

    def __init__(self, started: dt.datetime) -> None:
        self.started = started
        self.state = NOTHING_YET
        self.budgets: dict[str, Buckets] = {}


@final
class MemoryState:
    """Keep state in this process: the default; nothing outlasts the process, and no other one sees it.

    At most `max_entries` keys of `once` are kept while they are valid; beyond, it raises. `clock` returns a datetime
    with a zone.

    Raises:
        InvalidArgument: `max_entries` below 1.
    """

    blocking: Final = False

    def __init__(
        self,
        *,
        max_entries: int = 100_000,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        if type(max_entries) is not int or max_entries < 1:
            raise InvalidArgument("max_entries", "must be a number above zero")
        self._clock: Final = clock
        self._max: Final = max_entries
        self._lock: Final = threading.RLock()  # a signal's handler may revoke at any point
        self._latest = dt.datetime.min.replace(tzinfo=dt.UTC)
        self._known: Final[weakref.WeakValueDictionary[str, _Session]] = weakref.WeakValueDictionary()
        self._kept: Final[dict[str, _Session]] = {}
        self._budgets: Final[dict[str, Buckets]] = {}
        self._sweep_at = self._sweep_approvals_at = _SWEEP
        self._reserved: Final[set[str]] = set()
        self._once: Final[dict[str, dt.datetime]] = {}
        self._ends: Final[list[tuple[dt.datetime, str]]] = []  # a heap: what expires first is in front
        self._revoked: Final[list[Revocation]] = []
        self._approvals: Final[dict[str, Approval]] = {}
        self._asked: Final[set[str]] = set()  # sessions in which approvals were asked for
        self._inside = self._closed = False
        _OPEN.add(self)

    def now(self) -> dt.datetime:
        """Return the time by the store's clock, which never steps back.

        Raises:
            StateError: the clock returned something other than a datetime with a zone, or the store is closed.
        """
        with self._lock:
            return self._now()

    def _now(self) -> dt.datetime:
        """Return the time; who asks holds the lock."""
        self._check_open()
        now = utc(self._clock())
        if now is None:
            raise StateError("the clock of the state store must return a datetime with a time zone")
        if now > self._latest:
            self._latest = now
        return self._latest

    def _check_open(self) -> None:
        if self._closed:
            raise StateError("the state store is closed")

    # ---- sessions

    @_whole
    def begin(self, session: str, started: dt.datetime, watched: Mapping[str, dt.datetime], *, keep: bool) -> _Session:
        """Begin a session, or find it; see `StateStore.begin`."""
        self._check_open()
        found, known = self._known.get(session), True
        if found is None:
            found, known = self._known.setdefault(session, _Session(started)), False
        if keep or session in self._asked:
            self._kept[session] = found
        before = found.state.watched
        if before.keys() != watched.keys():
            now = self.now()
            found.state = evolve(found.state, watched=watching(before, watched, now) if known else dict(watched))
        return found

    def read(self, session: str) -> State:
        """Return what a session remembers."""
        self._check_open()
        found = self._known.get(session)
        return NOTHING_YET if found is None else found.state

    @_whole
    def mark(self, session: str, name: str) -> None:
        """Add a mark on the host's word."""
        self._check_open()
        found = self._session(session)
        found.state = evolve(found.state, marks=found.state.marks | {name})

    @_whole
    def unmark(self, session: str, name: str) -> bool:
        """Remove a mark on the host's word; say whether it was there."""
        self._check_open()
        found = self._session(session)
        there = name in found.state.marks
        found.state = evolve(found.state, marks=found.state.marks - {name})
        return there

    @_whole
    def finish(self, session: str, action: str) -> None:
        """Remember that an action was allowed, and has returned, now."""
        found = self._session(session)
        found.state = finished(found.state, action, self.now())

    def _session(self, session: str) -> _Session:
        found = self._known.get(session)
        if found is None:  # nobody holds on to it, and what is remembered must not be lost
            found = self._known[session] = self._kept[session] = _Session(self.now())
        return found

    # ---- one decision

    def commit(self, intent: Intent) -> Answer:
        """Do all that a decision changes, or nothing; see `StateStore.commit`."""
        with self._lock:  # as `_whole` does, at less cost
            inside = self._inside
            try:
                self._inside = True
                if inside:
                    raise _interrupting()
                return self._committed(intent)
            finally:
                self._inside = inside

    def _committed(self, intent: Intent) -> Answer:
        """Do what `commit` does, in the middle of nothing else."""
        now = self._now()
        if self._is_stale(intent):
            return STALE
        if intent.approvals and (unfit := tuple(filter(self._is_unfit, intent.approvals))):
            return Refused(approvals=unfit)
        taken = self._taken(intent, micros(now)) if intent.spends else ()
        fits = True
        for spend, kept, _ in taken:
            fits = fits and kept.has_room(spend)
        if fits and intent.reserve:
            return self._done(intent, taken, now)
        stand = tuple([kept.stands(spend, granted=False) for spend, kept, _ in taken])
        return Committed(stand) if fits else Refused(stand)

    def _done(self, intent: Intent, taken: Sequence[_Taken], now: dt.datetime) -> Committed:
        for used in intent.approvals:
            self._approvals[used] = evolve(self._approvals[used], status="used")
        if intent.session is not None and (intent.marks or intent.began is not None):
            found = self._session(intent.session)
            found.state = after(found.state, intent, now)
        if not taken:
            return DONE
        budgets, parts = [], []  # lists: generators cost more than so little
        for spend, kept, number in taken:
            budgets.append(Budget.trusted(spend, kept.total, True, None))
            if not kept.spent:  # it may be new
                session = None if spend.window is not None else intent.session
                (self._budgets if session is None else self._session(session).budgets)[spend.key] = kept
            parts.append((spend, kept.add(spend, number)))
        reservation = Reservation(tuple(parts), intent.session, secrets.token_hex(16) if intent.releasable else None)
        if reservation.id is not None:
            self._reserved.add(reservation.id)
        return Committed(tuple(budgets), reservation)

    def _is_stale(self, intent: Intent) -> bool:
        if intent.revocations is not None and intent.revocations != len(self._revoked):
            return True
        if intent.session is None or (intent.marks_seen is None and not intent.times_seen):
            return False
        return is_outdated(intent, self.read(intent.session))

    def _taken(self, intent: Intent, now: int) -> Sequence[_Taken]:
        if len(self._budgets) >= self._sweep_at:
            self._sweep(now)
        found: list[_Taken] = []
        for spend in intent.spends:
            kept = self._budgets_of(spend, intent.session).get(spend.key)
            if kept is None:
                kept = Buckets()
            found.append((spend, kept, kept.turn(spend, now)))
        return found

    def _budgets_of(self, spend: Spend, session: str | None) -> Mapping[str, Buckets]:
        """Return the budgets among which one is, if anything was spent of it; one without a window is its session's."""
        if spend.window is not None or session is None:
            return self._budgets
        found = self._known.get(session)
        return _NO_BUDGETS if found is None else found.budgets

    def _sweep(self, now: int) -> None:
        """Forget the budgets of which nothing counts any more: their keys are the callers'."""
        for key in [key for key, kept in self._budgets.items() if kept.ends <= now]:
            del self._budgets[key]
        self._sweep_at = max(_SWEEP, 2 * len(self._budgets))

    def settle(self, reservation: Reservation, actual: Mapping[str, Decimal]) -> None:
        """Keep what was spent, less what a rule took less; see `StateStore.settle`."""
        self._give_back(reservation, lambda spend: EXACT.subtract(spend.amount, actual.get(spend.rule, spend.amount)))

    def release(self, reservation: Reservation) -> None:
        """Give back what was spent; see `StateStore.release`."""
        self._give_back(reservation, lambda spend: spend.amount)

    @_whole
    def _give_back(self, reservation: Reservation, rest: Callable[[Spend], Decimal]) -> None:
        self._check_open()
        if reservation.id is not None and reservation.id not in self._reserved:
            return
        self._reserved.discard(reservation.id or "")
        for spend, number in reservation.parts:
            kept = self._budgets_of(spend, reservation.session).get(spend.key)
            if kept is not None:
                kept.give_back(number, min(max(rest(spend), Decimal(0)), spend.amount))

    # ---- what may be used once

    @_whole
    def once(self, key: str, expires: dt.datetime) -> bool:
        """Return True the first time that `key` is asked for, False as long as it is remembered.

        Raises:
            StateError: all places are taken by keys that haven't expired.
        """
        now = self.now()
        while self._ends and self._ends[0][0] < now:
            self._once.pop(heapq.heappop(self._ends)[1], None)
        if key in self._once:
            return False
        if len(self._once) >= self._max:
            raise StateError("the memory of what was used is full")
        self._once[key] = expires
        heapq.heappush(self._ends, (expires, key))
        return True

    # ---- revocations

    def revoke(self, kind: Subject, name: str, reason: str, *, lifts: bool = False) -> Revocation:
        """Revoke something; see `StateStore.revoke`."""
        now = self.now()
        made = Revocation(0, kind, name, now, reason, lifts)
        with self._lock:  # numbered by its place once it has one: a signal's handler may come first
            self._revoked.append(made)
            last = len(self._revoked)
            return evolve(made, number=next(at for at in range(last, 0, -1) if self._revoked[at - 1] is made))

    def revocations(self, since: int) -> Sequence[Revocation]:
        """Return those with a higher number than `since`, in order."""
        self._check_open()
        fresh = self._revoked[since:]
        return [evolve(one, number=since + at) for at, one in enumerate(fresh, 1)] if fresh else fresh

    # ---- approvals

    @_whole
    def ask(self, approval: Approval) -> Approval:
        """Keep a request for consent, or find the open one that is bound to the same call."""
        now = self.now()
        for known in self._approvals.values():
            if known.binding == approval.binding and known.status in ("pending", "approved") and known.expires > now:
                return known
        if len(self._approvals) >= self._sweep_approvals_at:
            self._forget_approvals(now)
        self._approvals[approval.id] = approval
        if approval.session is not None:  # what it remembers is needed again
            self._asked.add(approval.session)
            if (found := self._known.get(approval.session)) is not None:
                self._kept[approval.session] = found
        return approval

    def _forget_approvals(self, now: dt.datetime) -> None:
        """Forget the requests that ended long ago: calls make them, and nobody takes them away."""
        for old in [own for own, one in self._approvals.items() if one.expires <= now - _REMEMBERED]:
            del self._approvals[old]
        self._sweep_approvals_at = max(_SWEEP, 2 * len(self._approvals))
        self._asked.intersection_update([one.session for one in self._approvals.values() if one.session is not None])

    @_whole
    def answer(
        self, id: str, status: Literal["pending", "approved", "rejected"], answer: str, *, known: str | None = None
    ) -> bool:
        """Answer a pending request that hasn't expired, and whose answer so far is `known`; False for any other."""
        now = self.now()
        row = self._approvals.get(id)
        if row is None or row.status != "pending" or row.expires <= now or row.answer != known:
            return False
        self._approvals[id] = evolve(row, status=status, answer=answer)
        return True

    def approval(self, id: str) -> Approval | None:
        """Return a request; None: there is none with this id."""
        self._check_open()
        return self._approvals.get(id)

    def approvals(
        self, *, status: Status | None = None, binding: str | None = None, session: str | None = None
    ) -> Sequence[Approval]:
        """Return the requests of which all that is given holds, oldest first."""
        self._check_open()
        with self._lock:
            known = list(self._approvals.values())
        return [
            one
            for one in known
            if status in (None, one.status) and binding in (None, one.binding) and session in (None, one.session)
        ]

    def _is_unfit(self, id: str) -> bool:
        known = self._approvals.get(id)
        return known is None or known.status != "approved" or known.expires <= self.now()

    def close(self) -> None:
        """Answer nothing any more."""
        self._closed = True


# ---- a child inherits whole operations, and a lock that somebody releases

_OPEN: Final[weakref.WeakSet[MemoryState]] = weakref.WeakSet()


def _before_fork() -> None:
    for store in list(_OPEN):
        store._lock.acquire()


def _after_fork() -> None:
    for store in list(_OPEN):
        with contextlib.suppress(RuntimeError):  # one that was made meanwhile wasn't acquired
            store._lock.release()


if hasattr(os, "register_at_fork"):  # where processes fork
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork, after_in_parent=_after_fork)
