"""Keep state in a SQLite file: for processes on one machine, and what must outlast a restart."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import secrets
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

from attrs import define, evolve

from agentauthz.database import Database
from agentauthz.decision import EXACT, Spend
from agentauthz.errors import StateError
from agentauthz.state import rows
from agentauthz.state.changes import after, finished, is_outdated, watching
from agentauthz.state.rows import NOBODY, SCHEMA, Row
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

if TYPE_CHECKING:
    import sqlite3

_Taken: TypeAlias = tuple[Spend, Buckets, int]

# pages of the log, after which one of the writers brings them home and waits for the disk: two for each decision
_SETTINGS: Final = ("wal_autocheckpoint = 4000",)
_OFTEN: Final = 64  # writes, after which some of what ended is deleted


@final
@define(eq=False)
class _Begun:
    """Be a session that this process holds on to.

    One with an id that nobody has is written once there is something to remember, and goes with its last holder; where
    a fork has given it a second one (`forks` is how many there were before), it stays.
    """

    id: str
    started: dt.datetime
    watched: Mapping[str, dt.datetime]
    forks: int
    written: list[str]  # its id, once it is in the file: whoever looks after what is left holds on to this


@final
class SqliteState:
    """Keep state in the SQLite file `path`, made (mode 0600) where it isn't there, for several processes at once.

    What was answered survives the death of the process; with `durable`, a loss of power too, which else may take the
    last moments back, never halves of them. Nothing waits longer than `timeout` seconds for another thread or process.
    `clock` returns a datetime with a zone; what is kept in the file makes that it is never read lower than before.

    Every operation raises `StateError` where the file can't be used in time, was deleted or replaced, or is closed.

    Raises:
        StateError: the file can't be made or used, or a newer version of this library wrote it.
        InvalidArgument: no file's path, or a time-out that is no positive number.
    """

    blocking: Final = True  # a disk may be slow, and another process may be writing

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float = 5.0,
        durable: bool = False,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._clock: Final = clock
        self._file: Final = Database(path, SCHEMA, _SETTINGS, failure=StateError, durable=durable, timeout=timeout)
        self._held: Final[weakref.WeakValueDictionary[str, _Begun]] = weakref.WeakValueDictionary()
        self._left: Final[deque[tuple[list[str], int]]] = deque()
        self._writes = 0

    def now(self) -> dt.datetime:
        """Return the time by the store's clock, which never steps back, whichever process asks."""
        with self._file.writing(joins=self._time) as file:
            return self._time(file)

    def _time(self, file: sqlite3.Connection) -> dt.datetime:
        told = utc(self._clock())
        if told is None:
            raise StateError("the clock of the state store must return a datetime with a time zone")
        return rows.time(file, micros(told))

    @contextlib.contextmanager
    def _writing(
        self, *, joins: Callable[[sqlite3.Connection], object] | None = None
    ) -> Iterator[tuple[sqlite3.Connection, dt.datetime]]:
        """Give the file to the block, and the time; what the block does is done whole or not at all."""
        with self._file.writing(joins=joins) as file:
            now = self._time(file)
            yield file, now
            self._writes += 1
            if self._writes % _OFTEN == 0:
                rows.forget_ended(file, micros(now))
                self._forget_left(file)

    # ---- sessions

    def begin(self, session: str, started: dt.datetime, watched: Mapping[str, dt.datetime], *, keep: bool) -> _Begun:
        """Begin a session, or find it; see `StateStore.begin`."""
        begun = self._held.get(session) or self._held.setdefault(session, self._new(session, started, watched))
        with self._file.reading() as file:
            row = rows.session(file, session)
        if row is None and not keep and not begun.written:
            if begun.watched.keys() != watched.keys():
                begun.watched = watching(begun.watched, watched, self.now())
            return begun
        if row is None or row.state.watched.keys() != watched.keys() or (keep and not row.kept):
            with self._writing() as (file, now):
                row = self._session(file, session, now)
                since = watching(row.state.watched, watched, now)
                row = evolve(row, kept=row.kept or keep, state=evolve(row.state, watched=since))
                rows.put_session(file, row, micros(now))
        begun.started = row.started
        self._written(session)
        return begun

    def read(self, session: str) -> State:
        """Return what a session remembers."""
        with self._file.reading() as file:
            row = rows.session(file, session)
        if row is not None:
            self._written(session)
            return row.state
        return NOTHING_YET if (begun := self._unwritten(session)) is None else State(watched=begun.watched)

    def mark(self, session: str, name: str) -> None:
        """Add a mark on the host's word."""
        with self._writing() as (file, now):
            row = self._session(file, session, now)
            state = evolve(row.state, marks=row.state.marks | {name})
            rows.put_session(file, evolve(row, state=state), micros(now))
        self._written(session)

    def unmark(self, session: str, name: str) -> bool:
        """Remove a mark on the host's word; say whether it was there."""
        with self._writing() as (file, now):
            row = self._session(file, session, now)
            state = evolve(row.state, marks=row.state.marks - {name})
            rows.put_session(file, evolve(row, state=state), micros(now))
        self._written(session)
        return name in row.state.marks

    def finish(self, session: str, action: str) -> None:
        """Remember that an action was allowed, and has returned, now."""
        with self._writing() as (file, now):
            row = self._session(file, session, now)
            rows.put_session(file, evolve(row, state=finished(row.state, action, now)), micros(now))
        self._written(session)

    def _new(self, session: str, started: dt.datetime, watched: Mapping[str, dt.datetime]) -> _Begun:
        begun = _Begun(session, started, dict(watched), self._file.forks, [])
        ending = weakref.finalize(begun, self._left.append, (begun.written, begun.forks))
        ending.atexit = False
        return begun

    def _session(self, file: sqlite3.Connection, session: str, now: dt.datetime) -> Row:
        """Return what is to be kept of a session; one that nobody knew is kept, for somebody has its id."""
        if (row := rows.session(file, session)) is not None:
            return row
        if (begun := self._unwritten(session)) is not None:
            return Row(session, begun.started, False, State(watched=begun.watched))
        return Row(session, now, True, NOTHING_YET)

    def _is_begun(self, file: sqlite3.Connection, session: str) -> bool:
        return rows.session(file, session) is not None or self._unwritten(session) is not None

    def _unwritten(self, session: str) -> _Begun | None:
        """Return what isn't in the file, but begun here; None: it isn't.

        SECURITY: a session that was in the file, and is held on to, must not begin anew without its marks.
        """
        begun = self._held.get(session)
        if begun is not None and begun.written:
            raise StateError("what a session remembers is gone from the state store")
        return begun

    def _written(self, session: str) -> None:
        if (begun := self._held.get(session)) is not None and not begun.written:
            begun.written.append(session)

    def _forget_left(self, file: sqlite3.Connection) -> None:
        """Delete the sessions that nobody holds on to any more, and nobody can ask for."""
        while self._left:
            written, forks = self._left.popleft()
            if written and forks == self._file.forks and written[0] not in self._held:
                rows.forget_session(file, written[0])

    # ---- one decision

    def commit(self, intent: Intent) -> Answer:
        """Do all that a decision changes, or nothing; see `StateStore.commit`."""
        with self._writing() as (file, now):
            if intent.revocations is not None and intent.revocations != rows.revoked(file):
                return STALE
            row = self._session(file, intent.session, now) if intent.session is not None and _asks(intent) else None
            if row is not None and is_outdated(intent, row.state):
                return STALE
            if unfit := tuple(one for one in intent.approvals if not rows.is_usable(file, one, micros(now))):
                return Refused(approvals=unfit)
            taken = [_taken(file, intent.session, spend, micros(now)) for spend in intent.spends]
            if any(not kept.has_room(spend) for spend, kept, _ in taken):
                return Refused(tuple(kept.stands(spend, granted=False) for spend, kept, _ in taken))
            budgets = tuple(kept.stands(spend, granted=intent.reserve) for spend, kept, _ in taken)
            if not intent.reserve:
                return Committed(budgets)
            for used in intent.approvals:
                rows.use(file, used)
            lasting = any(spend.window is None for spend in intent.spends)  # what is spent for as long as the session
            if row is not None and ((state := after(row.state, intent, now)) is not row.state or lasting):
                rows.put_session(file, evolve(row, state=state), micros(now))
            reservation = _reserved(file, intent, taken) if taken else None
        if row is not None:
            self._written(row.id)
        return DONE if reservation is None else Committed(budgets, reservation)

    def settle(self, reservation: Reservation, actual: Mapping[str, Decimal]) -> None:
        """Keep what was spent, less what a rule took less; see `StateStore.settle`."""
        self._give_back(reservation, lambda spend: EXACT.subtract(spend.amount, actual.get(spend.rule, spend.amount)))

    def release(self, reservation: Reservation) -> None:
        """Give back what was spent; see `StateStore.release`."""
        self._give_back(reservation, lambda spend: spend.amount)

    def _give_back(self, reservation: Reservation, rest: Callable[[Spend], Decimal]) -> None:
        with self._writing() as (file, _):
            if reservation.id is not None and not rows.take_reservation(file, reservation.id):
                return
            for spend, number in reservation.parts:
                kept = rows.budget(file, _owner(spend, reservation.session), spend.key)
                back = min(max(rest(spend), Decimal(0)), spend.amount)
                if kept is not None and back:
                    kept.give_back(number, back)
                    rows.put_budget(file, _owner(spend, reservation.session), spend.key, kept)

    # ---- what may be used once, and what was revoked

    def once(self, key: str, expires: dt.datetime) -> bool:
        """Return True the first time that `key` is asked for, False as long as it is remembered."""
        with self._writing() as (file, now):
            return rows.once(file, key, micros(expires), micros(now))

    def revoke(self, kind: Subject, name: str, reason: str, *, lifts: bool = False) -> Revocation:
        """Revoke something; see `StateStore.revoke`. A signal's handler may, in the middle of another operation."""

        def put(file: sqlite3.Connection) -> Revocation:
            return rows.put_revocation(file, Revocation(0, kind, name, self._time(file), reason, lifts))

        with self._writing(joins=put) as (file, _):
            return put(file)

    def revocations(self, since: int) -> Sequence[Revocation]:
        """Return those with a higher number than `since`, in order."""
        with self._file.reading() as file:
            return rows.revocations(file, since)

    # ---- approvals

    def ask(self, approval: Approval) -> Approval:
        """Keep a request for consent, or find the open one that is bound to the same call."""
        with self._writing() as (file, now):
            is_open = "binding = ? AND status IN ('pending', 'approved') AND expires > ?"
            if known := rows.approvals(file, is_open, (rows.blob(approval.binding), micros(now))):
                return known[0]
            rows.put_approval(file, approval)
            begun = approval.session is not None and self._is_begun(file, approval.session)
            if approval.session is not None and begun:  # what it remembers is needed again
                rows.put_session(file, evolve(self._session(file, approval.session, now), kept=True), micros(now))
        if approval.session is not None and begun:
            self._written(approval.session)
        return approval

    def answer(
        self, id: str, status: Literal["pending", "approved", "rejected"], answer: str, *, known: str | None = None
    ) -> bool:
        """Answer a pending request that hasn't expired, and whose answer so far is `known`; False for any other."""
        with self._writing() as (file, now):
            return rows.answer(file, id, status, answer, known, micros(now))

    def approval(self, id: str) -> Approval | None:
        """Return a request; None: there is none with this id."""
        with self._file.reading() as file:
            return next(iter(rows.approvals(file, "id = ?", (rows.blob(id),))), None)

    def approvals(
        self, *, status: Status | None = None, binding: str | None = None, session: str | None = None
    ) -> Sequence[Approval]:
        """Return the requests of which all that is given holds, oldest first."""
        asked: dict[str, object] = {} if status is None else {"status = ?": status}
        asked |= {} if binding is None else {"binding = ?": rows.blob(binding)}
        asked |= {} if session is None else {"session = ?": rows.blob(session)}
        with self._file.reading() as file:
            return rows.approvals(file, " AND ".join(asked) or "TRUE", [*asked.values()])

    def close(self) -> None:
        """Close the file; what is asked afterwards raises. Doing it again does nothing."""
        self._file.close()


def _asks(intent: Intent) -> bool:
    """Say whether an intent has to do with what its session remembers."""
    return (
        intent.marks_seen is not None
        or len(intent.times_seen) > 0
        or len(intent.marks) > 0
        or intent.began is not None
        or any(spend.window is None for spend in intent.spends)
    )


def _owner(spend: Spend, session: str | None) -> str:
    """Return whose a budget is; one without a window ends with its session."""
    return NOBODY if spend.window is not None or session is None else session


def _taken(file: sqlite3.Connection, session: str | None, spend: Spend, now: int) -> _Taken:
    """Return a budget, and the bucket that something falls into that is spent of it now."""
    kept = rows.budget(file, _owner(spend, session), spend.key) or Buckets()
    return spend, kept, kept.turn(spend, now)


def _reserved(file: sqlite3.Connection, intent: Intent, taken: Sequence[_Taken]) -> Reservation:
    """Spend what there is room for."""
    parts = tuple((spend, kept.add(spend, number)) for spend, kept, number in taken)
    for spend, kept, _ in taken:
        rows.put_budget(file, _owner(spend, intent.session), spend.key, kept)
    reservation = Reservation(parts, intent.session, secrets.token_hex(16) if intent.releasable else None)
    if reservation.id is not None:
        ends = [kept.ends for _, kept, _ in taken]
        rows.put_reservation(file, reservation.id, intent.session, max(ends) if all(ends) else None)
    return reservation
