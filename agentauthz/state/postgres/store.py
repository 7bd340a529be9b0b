"""Keep all that a store keeps in PostgreSQL: each operation is one call of a function there, and one transaction."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal, cast, final

from attrs import frozen

from agentauthz.decision import EXACT, Budget, Spend
from agentauthz.errors import InvalidArgument
from agentauthz.state.postgres.pool import Pool
from agentauthz.state.postgres.text import unescape
from agentauthz.state.postgres.wire import options
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
from agentauthz.state.windows import micros, moment, width

_MICROSECOND: Final = dt.timedelta(microseconds=1)
_LONGEST: Final = 2**61  # microseconds: a window that long reaches back to before 1970


@final
@frozen
class _Begun:
    """Be a session's place; the database needs nobody to hold on to it."""

    started: dt.datetime


@final
@frozen
class Shown:
    """Be what a database keeps, in numbers; `ahead` is how far the store's clock is ahead of the server's."""

    version: int
    now: dt.datetime
    ahead: dt.timedelta
    sessions: int
    budgets: int
    pending: int
    once: int
    revocations: int


@final
@frozen
class Pruned:
    """Be how much was forgotten."""

    sessions: int
    budgets: int
    approvals: int
    once: int


@final
class PostgresState:
    """Keep state in a PostgreSQL database, which `agentauthz state init` has prepared (extra `postgres`).

    `url` is a connection string or URL; its password is never shown. Processes and machines that use the same database
    share all that is kept. At most `connections` are open at a time, and no operation takes longer than `timeout`
    seconds. Time is the server's.

    Raises:
        InvalidArgument: psycopg is missing, no connection string, or a bound that is no positive number.
        StateError: the database can't be reached, isn't prepared, was prepared for another version, or doesn't commit
            synchronously.
    """

    blocking: Final = True

    def __init__(self, url: str, *, connections: int = 8, timeout: float = 5.0) -> None:
        if type(connections) is not int or connections < 1:
            raise InvalidArgument("connections", "must be a number above zero")
        self._pool: Final = Pool(options(url, timeout), connections, timeout)

    def now(self) -> dt.datetime:
        """Return the server's time; never one before a time that any process was given."""
        return moment(self._pool.ask("now", ()))

    # ---- sessions

    def begin(self, session: str, started: dt.datetime, watched: Mapping[str, dt.datetime], *, keep: bool) -> _Begun:
        """Begin a session, or find it; see `StateStore.begin`."""
        since = {action: micros(at) for action, at in watched.items()}
        return _Begun(moment(self._pool.ask("begin", (session, micros(started), since, keep))))

    def read(self, session: str) -> State:
        """Return what a session remembers."""
        found = self._pool.ask("read", (session,))
        if found is None:
            return NOTHING_YET
        marks, began, done, watched = found
        return State(frozenset(map(unescape, marks)), _times(began), _times(done), _times(watched))

    def mark(self, session: str, name: str) -> None:
        """Add a mark on the host's word."""
        self._pool.ask("mark", (session, name))

    def unmark(self, session: str, name: str) -> bool:
        """Remove a mark on the host's word; say whether it was there."""
        return self._pool.ask("unmark", (session, name)) is True

    def finish(self, session: str, action: str) -> None:
        """Remember that an action was allowed, and has returned, now."""
        self._pool.ask("finish", (session, action))

    # ---- one decision

    def commit(self, intent: Intent) -> Answer:
        """Do all that a decision changes, or nothing; see `StateStore.commit`."""
        spends = sorted(intent.spends, key=lambda spend: spend.key)  # INVARIANT: locks are taken in the keys' order
        named = secrets.token_hex(16) if intent.releasable and intent.reserve and spends else None
        answer, *told = self._asked(intent, spends, named)
        match answer:
            case "stale":
                return STALE
            case "unfit":
                return Refused(approvals=tuple(map(unescape, told[0])))
            case "full":
                return Refused(_stand(intent, spends, told[0], told[1], granted=False))
            case "done" if not intent.reserve:
                return Committed(_stand(intent, spends, told[0], None, granted=False))
        if not spends:
            return DONE
        places = {spend.key: place for spend, place in zip(spends, told[2], strict=True)}
        parts = tuple((spend, places[spend.key]) for spend in intent.spends)
        budgets = _stand(intent, spends, told[0], None, granted=True)
        return Committed(budgets, Reservation(parts, intent.session, named))

    def _asked(self, intent: Intent, spends: Sequence[Spend], named: str | None) -> Any:
        """Return what the database answers to an intent."""
        if len(spends) == 1 and _only_spends(intent):
            [spend] = spends
            return self._pool.ask("spend", (
                intent.session, spend.key, spend.amount, spend.bound, _length(spend), _width(spend), intent.revocations,
                named,
            ))  # fmt: skip
        reads = intent.session is not None
        seen = sorted(intent.marks_seen) if reads and intent.marks_seen is not None else None
        kinds, actions, ats = zip(*intent.times_seen, strict=True) if reads and intent.times_seen else ((), (), ())
        return self._pool.ask("commit", (
            intent.session, seen, kinds, actions, [None if at is None else micros(at) for at in ats], intent.marks,
            intent.began, [spend.key for spend in spends], [spend.amount for spend in spends],
            [spend.bound for spend in spends], [_length(spend) for spend in spends],
            [_width(spend) for spend in spends], intent.approvals, intent.revocations, intent.reserve, named,
        ))  # fmt: skip

    def settle(self, reservation: Reservation, actual: Mapping[str, Decimal]) -> None:
        """Keep what was spent, less what a rule took less; see `StateStore.settle`."""
        self._give_back(reservation, lambda spend: EXACT.subtract(spend.amount, actual.get(spend.rule, spend.amount)))

    def release(self, reservation: Reservation) -> None:
        """Give back what was spent; see `StateStore.release`."""
        self._give_back(reservation, lambda spend: spend.amount)

    def _give_back(self, reservation: Reservation, rest: Callable[[Spend], Decimal]) -> None:
        parts = sorted(reservation.parts, key=lambda part: part[0].key)
        session = reservation.session or ""
        self._pool.ask("give_back", (
            reservation.id, [session if spend.window is None else "" for spend, _ in parts],
            [spend.key for spend, _ in parts], [place for _, place in parts],
            [min(max(rest(spend), Decimal(0)), spend.amount) for spend, _ in parts],
        ))  # fmt: skip

    # ---- what may be used once

    def once(self, key: str, expires: dt.datetime) -> bool:
        """Return True the first time that `key` is asked for, by anyone, and False as long as it is remembered."""
        return self._pool.ask("once", (key, micros(expires))) is True

    # ---- revocations

    def revoke(self, kind: Subject, name: str, reason: str, *, lifts: bool = False) -> Revocation:
        """Revoke something; see `StateStore.revoke`."""
        return _revocation(self._pool.ask("revoke", (kind, name, reason, lifts)))

    def revocations(self, since: int) -> Sequence[Revocation]:
        """Return those with a higher number than `since`, in order."""
        return [_revocation(each) for each in self._pool.ask("revocations", (since,))]

    # ---- approvals

    def ask(self, approval: Approval) -> Approval:
        """Keep a request for consent, or find the open one that is bound to the same call."""
        return _approval(self._pool.ask("ask", (
            approval.id, approval.binding, approval.session, micros(approval.at), micros(approval.expires),
            approval.request, approval.status, approval.answer,
        )))  # fmt: skip

    def answer(
        self, id: str, status: Literal["pending", "approved", "rejected"], answer: str, *, known: str | None = None
    ) -> bool:
        """Answer a pending request that hasn't expired, and whose answer so far is `known`; False for any other."""
        return self._pool.ask("answer", (id, status, answer, known)) is True

    def approval(self, id: str) -> Approval | None:
        """Return a request; None: there is none with this id."""
        found = self._pool.ask("approval", (id,))
        return None if found is None else _approval(found)

    def approvals(
        self, *, status: Status | None = None, binding: str | None = None, session: str | None = None
    ) -> Sequence[Approval]:
        """Return the requests of which all that is given holds, oldest first."""
        return [_approval(each) for each in self._pool.ask("approvals", (status, binding, session))]

    # ---- for operators

    def show(self) -> Shown:
        """Return how much is kept, and what the clock does."""
        version, now, ahead, *counts = self._pool.ask("show", ())
        return Shown(version, moment(now), max(dt.timedelta(0), dt.timedelta(microseconds=ahead)), *counts)

    def prune(self, before: dt.datetime, *, named: bool = False) -> Pruned:
        """Forget what can't matter any more, and requests and sessions that ended, or were last used, before a moment.

        Sessions whose id the host chose stay unless `named`: who resumes one that was forgotten finds it without marks.
        """
        return Pruned(*self._pool.ask("prune", (micros(before), named)))

    def close(self) -> None:
        """Let go of the connections; what is asked afterwards raises."""
        self._pool.close()


def _only_spends(intent: Intent) -> bool:
    """Say whether an intent has to do with nothing but budgets and revocations."""
    reads = intent.session is not None and (intent.marks_seen is not None or len(intent.times_seen) > 0)
    return intent.reserve and not (reads or intent.marks or intent.began is not None or intent.approvals)


def _length(spend: Spend) -> int:
    return 0 if spend.window is None else min(spend.window // _MICROSECOND, _LONGEST)


def _width(spend: Spend) -> int:
    return 1 if spend.window is None else width(spend.window)


def _stand(
    intent: Intent, spends: Sequence[Spend], used: Sequence[Any], after: Sequence[int | None] | None, *, granted: bool
) -> tuple[Budget, ...]:
    """Return how the budgets stand, in the order in which they were asked for."""
    known = {
        spend.key: (Decimal(used[place]), None if after is None else _room_at(spend, after[place]))
        for place, spend in enumerate(spends)
    }
    return tuple(
        Budget(spend.rule, spend.key, spend.amount, spend.bound, known[spend.key][0], granted, known[spend.key][1])
        for spend in intent.spends
    )


def _room_at(spend: Spend, after: int | None) -> dt.datetime | None:
    if after is None or spend.window is None:
        return None
    try:
        return moment((after + 1) * width(spend.window)) + spend.window
    except OverflowError:  # after the year 9999
        return None


def _times(found: Mapping[str, int]) -> Mapping[str, dt.datetime]:
    return {unescape(action): moment(at) for action, at in found.items()}


def _revocation(found: Sequence[Any]) -> Revocation:
    number, kind, name, at, reason, lifts = found
    return Revocation(number, cast(Subject, kind), unescape(name), moment(at), unescape(reason), lifts)


def _approval(found: Sequence[Any]) -> Approval:
    own, binding, session, at, expires, request, status, answer = found
    return Approval(
        unescape(own), unescape(binding), None if session is None else unescape(session), moment(at), moment(expires),
        unescape(request), cast(Status, status), None if answer is None else unescape(answer),
    )  # fmt: skip
