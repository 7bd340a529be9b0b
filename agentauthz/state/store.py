"""Define what a state store does: its operations, what must hold of each, and the data that they exchange.

All times are the store's own, `now`: expiry is judged by one clock for all that share the store, and that clock is
never read lower than before.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Final, Literal, Protocol, TypeAlias, final

from attrs import define, field, frozen

from agentauthz.canonical import class_name
from agentauthz.decision import Budget, Spend
from agentauthz.errors import InvalidArgument

_NO_TIMES: Final[Mapping[str, dt.datetime]] = MappingProxyType({})


def _set(marks: Iterable[str]) -> frozenset[str]:
    return frozenset(marks)


@final
@frozen
class State:
    """Be what a session remembers at one moment: marks, and when actions were last allowed and last returned.

    `watched` says since when an action has been looked out for; of others nothing is kept. `used` is what is used of
    each limit, by the rule's name: stores leave it empty, and who asks "what if" fills it in.
    """

    marks: frozenset[str] = field(default=frozenset(), converter=_set)
    began: Mapping[str, dt.datetime] = _NO_TIMES
    done: Mapping[str, dt.datetime] = _NO_TIMES
    watched: Mapping[str, dt.datetime] = _NO_TIMES
    used: Mapping[str, Decimal] = MappingProxyType({})


NOTHING_YET: Final = State()

Seen: TypeAlias = Literal["began", "done"]
SeenAt: TypeAlias = tuple[Seen, str, dt.datetime | None]


@final
@define  # these three are made at every call: what is frozen costs three times as much
class Intent:
    """Be all that one decision changes, to be done in one step or not at all.

    `marks_seen` and `times_seen` (last-seen times of actions) are what was read of the session and must hold still,
    `revocations` the number of the last revocation that the decision knows; None: it was not read. `approvals` are used
    up. With `reserve` False nothing is changed: it is only tried. `releasable` asks for a reservation with an id.
    """

    session: str | None
    marks_seen: frozenset[str] | None = None
    times_seen: tuple[SeenAt, ...] = ()
    marks: tuple[str, ...] = ()
    began: str | None = None
    spends: tuple[Spend, ...] = ()
    approvals: tuple[str, ...] = ()
    revocations: int | None = None
    reserve: bool = True
    releasable: bool = False


@final
@define
class Reservation:
    """Be what was spent, in which bucket of which budget; with an `id`, giving it back twice does nothing."""

    parts: tuple[tuple[Spend, int], ...]
    session: str | None
    id: str | None = None


@final
@define
class Committed:
    """Say that all of an intent was done, how its budgets stand, and what can be given back."""

    budgets: tuple[Budget, ...] = ()
    reservation: Reservation | None = None


@final
@frozen
class Refused:
    """Say that nothing was done: budgets without room, with how they stand, or approvals that can't be used."""

    full: tuple[Budget, ...] = ()
    approvals: tuple[str, ...] = ()


@final
@frozen
class Stale:
    """Say that nothing was done, because what the decision was made on has changed: it must be taken afresh."""


DONE: Final = Committed()
STALE: Final = Stale()
Answer: TypeAlias = Committed | Refused | Stale

Status: TypeAlias = Literal["pending", "approved", "rejected", "used"]


@final
@frozen
class Approval:
    """Be a request for a person's consent to one call, as it is stored.

    `binding` is the digest that ties it to the call. `request` and `answer` are JSON, each sealed by a MAC that the
    store can't make: what is read from a store proves nothing without it. `answer` holds who approved or rejected.
    `at` is when it was asked for; after `expires` it can be neither given nor used.
    """

    id: str
    binding: str
    session: str | None
    at: dt.datetime
    expires: dt.datetime
    request: str = field(repr=False)
    status: Status = "pending"
    answer: str | None = field(default=None, repr=False)


Subject: TypeAlias = Literal["session", "principal", "token", "everything"]


@final
@frozen
class Revocation:
    """Be one thing that was revoked: its kind, its name (of everything: empty), when and why; numbered from 1.

    A halt is the revocation of everything, until one that `lifts` it.
    """

    number: int
    kind: Subject
    name: str
    at: dt.datetime
    reason: str = ""
    lifts: bool = False


class Begun(Protocol):
    """Be a session's place in a store, for as long as anybody holds on to it; see `StateStore.begin`."""

    @property
    def started(self) -> dt.datetime:
        """Return when the session began, which the first who asked for its id did."""


class StateStore(Protocol):
    """Keep what sessions remember, budgets, approvals, revocations and what may be used once.

    Safe for threads and forks. Each operation either takes effect whole or raises `StateError`, and none takes longer
    than the store's time-out. Where it raises, nobody knows whether it took effect: what depends on it is denied.
    `blocking` says that operations may wait for a disk or a network: then coroutines make them in a thread.
    """

    @property
    def blocking(self) -> bool:
        """Say whether an operation may wait for a disk or a network."""

    def now(self) -> dt.datetime:
        """Return the store's time, which never steps back."""

    def begin(self, session: str, started: dt.datetime, watched: Mapping[str, dt.datetime], *, keep: bool) -> Begun:
        """Begin a session where the store doesn't know it, and from now on watch these actions in it, and no others.

        In a new session an action is watched since the moment that is given, in a known one from now on; one that was
        watched before keeps the time since when. Without `keep`, the session may be forgotten when nobody holds on to
        what is returned: its id was made up, and nobody has it.
        """

    def read(self, session: str) -> State:
        """Return what a session remembers; of an unknown one, nothing."""

    def commit(self, intent: Intent) -> Answer:
        """Do all that a decision changes in one step: spend, use approvals up, set marks and a last-seen time.

        `Refused` where a budget has no room or an approval isn't approved, unused and unexpired. `STALE` where what
        the decision has read of the session, or the number of revocations, has changed; a budget is never stale: it is
        tried. Of one window no more than its bound is ever spent.
        """

    def settle(self, reservation: Reservation, actual: Mapping[str, Decimal]) -> None:
        """Keep what was spent, but give back what a rule took less by `actual` (by the rule's name).

        Idempotent where the reservation has an id: what was settled or released is left alone. One without is settled
        or released once at most, and where that raises, not again: a store must not repeat it by itself.
        """

    def release(self, reservation: Reservation) -> None:
        """Give back what was spent; as idempotent as `settle`."""

    def mark(self, session: str, name: str) -> None:
        """Add a mark on the host's word."""

    def unmark(self, session: str, name: str) -> bool:
        """Remove a mark on the host's word; say whether it was there."""

    def finish(self, session: str, action: str) -> None:
        """Remember that an action was allowed, and has returned, now."""

    def once(self, key: str, expires: dt.datetime) -> bool:
        """Return True the first time that a key is asked for, by anyone, and False ever after, until it expires."""

    def revoke(self, kind: Subject, name: str, reason: str, *, lifts: bool = False) -> Revocation:
        """Revoke something for ever; of everything, until it is lifted."""

    def revocations(self, since: int) -> Sequence[Revocation]:
        """Return those with a higher number than `since`, in order.

        Nobody ever sees a number before the one below it: who has read up to a number misses none by asking on from it.
        """

    def ask(self, approval: Approval) -> Approval:
        """Keep a request for consent, and return it; where an open one is bound to the same call, return that."""

    def answer(
        self, id: str, status: Literal["pending", "approved", "rejected"], answer: str, *, known: str | None = None
    ) -> bool:
        """Answer a pending request that hasn't expired, and whose answer so far is `known`.

        False, and nothing done, for any other. One that stays "pending" waits for more people.
        """

    def approval(self, id: str) -> Approval | None:
        """Return a request; None: there is none with this id."""

    def approvals(
        self, *, status: Status | None = None, binding: str | None = None, session: str | None = None
    ) -> Sequence[Approval]:
        """Return the requests of which all that is given holds, oldest first."""

    def close(self) -> None:
        """Let go of files and connections; what is asked afterwards raises."""


def require_store(state: object) -> None:
    """Refuse what is no store: a path, say, or a class.

    Raises:
        InvalidArgument: it doesn't say whether it may wait, as every store does.
    """
    if isinstance(state, type):
        raise InvalidArgument("state", f"must be a state store, and `{state.__name__}` is a class: make one of it")
    if not hasattr(state, "blocking"):
        told = f"must be a state store, such as `SqliteState(path)`, and a `{class_name(state)}` is none"
        raise InvalidArgument("state", told)
