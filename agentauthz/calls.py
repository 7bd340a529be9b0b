"""Hold what sessions, guards and the authorizer hand each other: a call, its verdict, its effect."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, cast, final

from attrs import define

from agentauthz.decision import Basis, Decision, Obligation, Outcome, Reason
from agentauthz.errors import Denied, InvalidArgument, ReviewRequired, Stopped
from agentauthz.obligations.handler import Reach
from agentauthz.request import Request, Unknown
from agentauthz.settling import Settlement
from agentauthz.values import ATOMIC, UNKNOWN, copy_plain, utc

if TYPE_CHECKING:
    from agentauthz.approvals.heard import Heard
    from agentauthz.approvals.review import Review
    from agentauthz.authorizer.obliging import Carrying
    from agentauthz.policy.inputs import Inputs
    from agentauthz.principals import Chain, Principal
    from agentauthz.records.passing import Passing
    from agentauthz.session import Session
    from agentauthz.state.store import Reservation, State

Expiry: TypeAlias = str | dt.timedelta | dt.datetime
Status: TypeAlias = Literal["done", "failed", "stopped", "not_run"]
Stop: TypeAlias = tuple[Basis, Reason]  # what denies a call that no policy is asked about

NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@final
@define(eq=False, repr=False)  # these three are made at every call: what is frozen costs three times as much
class Call:
    """Be one call before its decision: bound arguments (own copies), and what was looked up for it.

    `problem` and `cause` say that a look-up failed, which denies the call. `releasable` says that what it spends comes
    back where it raises. `reach` is how much of the call is held in hand, and `carries_out` says which obligations
    whoever makes it sees to. `approval` is the id of the one that it is made with; None: of whichever fits.
    """

    action: str
    args: Mapping[str, object] | Unknown = NOTHING
    resource: object = None
    context: Mapping[str, object] | Unknown = NOTHING
    route: str | None = None
    sensitive: frozenset[str] = frozenset()
    problem: Reason | None = None
    cause: BaseException | None = None
    releasable: bool = False
    reach: Reach = Reach.BEFORE
    carries_out: Callable[[Obligation], bool] | None = None
    approval: str | None = None


@final
@define(eq=False)
class Verdict:
    """Be a decision with what it was made on, what made it fail, and what was reserved, if anything; `inputs` None: no
    policy was asked. `carrying` is what its obligations still ask for, if it has any and may run; `heard` is what
    people have said about it, where that was asked. `settlement` is what its call says that it took, where something
    was reserved; `veiled` names the limits whose amounts records don't show.
    """

    decision: Decision
    request: Request
    inputs: Inputs | None = None
    cause: BaseException | None = None
    reservation: Reservation | None = None
    carrying: Carrying | None = None
    heard: Heard | None = None
    settlement: Settlement | None = None
    veiled: frozenset[str] = frozenset()

    def begun(self) -> Settlement | None:
        """Return what the call may settle from now on; None: nothing was reserved for it."""
        if self.reservation is not None:
            self.settlement = Settlement(self.decision, self.veiled)
        return self.settlement

    def effect(self, error: BaseException | None, started: int, *, ran: bool = True) -> Effect:
        """Return how its call ended, as `effect_of` does; `ran` says whether it has begun at all."""
        effect = effect_of(self.decision, error, started, self.carrying)
        if not ran:
            effect.status = "not_run"
        effect.reservation, effect.settlement = self.reservation, self.settlement
        return effect

    @property
    def interrupt(self) -> BaseException | None:
        """Return what is raised once this is recorded: it came while the call was decided, or got ready to run."""
        return None if isinstance(self.cause, Exception) else self.cause

    @property
    def review(self) -> Review | None:
        """Return what a person is asked, or was."""
        return None if self.heard is None else self.heard.review


@final
@define(eq=False)
class Effect:
    """Be how an allowed call ended: it returned, raised `error`, was stopped, or never ran; after `ns` nanoseconds.

    `reservation` is what was reserved for it, and `settlement` what it says that it took. `left` has the ids of the
    obligations whose handlers failed once it had begun. `spent` is what limits took in the end, by the rule's name,
    where that was said or came back.
    """

    decision: Decision
    status: Status
    error: BaseException | None
    ns: int
    reservation: Reservation | None = None
    left: frozenset[str] = frozenset()
    settlement: Settlement | None = None
    spent: Mapping[str, Decimal] = MappingProxyType({})


class Deciding(Protocol):
    """Be what a session needs of its authorizer."""

    def now(self) -> dt.datetime:
        """Return the time by the authorizer's clock."""

    def decide_call(self, session: Session, call: Call) -> Verdict:
        """Decide, commit and record."""

    async def adecide_call(self, session: Session, call: Call) -> Verdict:
        """Decide, commit and record, without blocking the loop on a sink."""

    def against(self, session: Session, chain: Chain) -> Stop | None:
        """Say what stops a session, or one that goes on with `chain`: a halt, or something that was revoked."""

    def watch(self, running: object, look: Callable[[], None]) -> None:
        """Call `look` whenever something was revoked, or that can't be found out, until `unwatch`; in any thread."""

    def unwatch(self, running: object) -> None:
        """Call it no more."""

    def mark(self, session: Session, name: str, by: Principal | None) -> None:
        """Set a mark, and record it.

        Raises:
            StateError: the state store can't be asked.
            SinkError: it is set, but couldn't be recorded.
        """

    async def amark(self, session: Session, name: str, by: Principal | None) -> None:
        """Do what `mark` does without blocking the loop on a sink or the state store."""

    def unmark(self, session: Session, name: str, reason: str, by: Principal | None) -> bool:
        """Record that a mark is removed, and remove it; say whether it was there.

        Raises:
            SinkError: it couldn't be recorded, so nothing was done.
            StateError: the state store can't be asked.
        """

    async def aunmark(self, session: Session, name: str, reason: str, by: Principal | None) -> bool:
        """Do what `unmark` does without blocking the loop on a sink or the state store."""

    def pass_on(self, session: Session, passing: Passing) -> str | None:
        """Record an attempt to pass a session's authority on; return the record's id, if there is one.

        Raises:
            SinkError: it couldn't be recorded, so it must not go ahead.
        """

    async def apass_on(self, session: Session, passing: Passing) -> str | None:
        """Record an attempt to pass a session's authority on, without blocking the loop on a sink."""

    def preview_call(self, session: Session, call: Call, state: State | None) -> Decision:
        """Decide; commit and record nothing."""

    async def apreview_call(self, session: Session, call: Call, state: State | None) -> Decision:
        """Decide without blocking the loop on the state store; commit and record nothing."""

    def follows(self, verdict: Verdict, *, ran: bool = True) -> bool:
        """Say whether anybody asks how a call has ended, which may have begun: else it needn't be told."""

    def finish_call(self, session: Session, effect: Effect) -> None:
        """Remember and record how a call ended."""

    async def afinish_call(self, session: Session, effect: Effect) -> None:
        """Remember and record how a call ended, without blocking the loop on a sink."""


def inline(action: str, args: Mapping[str, object] | Unknown, resource: object, context: Mapping[str, object]) -> Call:
    """Return a call that was made by hand.

    Raises:
        InvalidArgument: an argument of the wrong type.
    """
    if not isinstance(action, str) or not action:
        raise InvalidArgument("action", "must be a string that is not empty")
    if args is not UNKNOWN and args is not NOTHING:
        args = own_names("args", args)
    if context is not NOTHING:
        context = own_names("context", context)
    return Call(str.__str__(action), args, resource, context)


def own_names(name: str, mapping: object) -> Mapping[str, object]:
    """Return an own copy of a mapping of names: what is decided is what is recorded, whoever changes it meanwhile.

    Raises:
        InvalidArgument: it is no mapping of names, or can't be read; `name` is what it was given as.
    """
    if type(mapping) is not dict and not isinstance(mapping, Mapping):
        raise InvalidArgument(name, "must be a mapping of names to values")
    try:
        own = dict(mapping)
    except Exception as error:
        raise InvalidArgument(name, "can't be read: its own code raised") from error
    deep = False
    for key, value in own.items():
        if not isinstance(key, str):
            raise InvalidArgument(name, "must have names that are strings")
        deep = deep or type(value) not in ATOMIC
    return cast(Mapping[str, object], copy_plain(own, name)) if deep else own


def effect_of(
    decision: Decision, error: BaseException | None, started: int, carrying: Carrying | None = None
) -> Effect:
    """Return the effect of a call that began at `started` (nanoseconds) and left with `error`.

    Cancelled and closed work was stopped; where obligations changed its result, `carrying` may know better.
    """
    ns = time.perf_counter_ns() - started
    status: Status = "done"
    if error is not None:  # by name: asyncio isn't loaded for its sake
        stopped = isinstance(error, Stopped | GeneratorExit) or type(error).__name__ == "CancelledError"
        status = "stopped" if stopped else "failed"
    if carrying is None:
        return Effect(decision, status, error, ns)
    if carrying.status is not None:
        status, error = carrying.status, None
    return Effect(decision, status, error, ns, left=carrying.left)


def repeatable(verdict: Verdict, again: Callable[[str], object]) -> Verdict:
    """Return the verdict, of which what a person is asked can make the call `again`, given the approval's id."""
    if verdict.heard is not None and verdict.heard.review is not None:
        verdict.heard.review = verdict.heard.review.repeated_by(again)
    return verdict


def allowed(verdict: Verdict) -> Decision:
    """Return the decision of a call that may happen, else raise.

    Raises:
        Denied, ReviewRequired: with the decision, chained to what made it fail.
    """
    decision = verdict.decision
    if decision.allowed:
        return decision
    text = refusal(decision)
    if decision.outcome is Outcome.REVIEW:
        raise ReviewRequired(text, decision, verdict.review)
    raise Denied(text, decision) from verdict.cause


_ADVICE: Final = {
    "review": "Wait: a person must approve this call first",
    "rule": "Don't try it again: find another way, or tell the user that it isn't allowed",
    "default": "Don't try it again: find another way, or tell the user that it isn't allowed",
    "authority": "This session doesn't hold the authority for it: ask the user to start one that does",
    "limit": "Don't try it again: the budget for it isn't there",
    "revoked": "Stop: this work may not go on",
    "undetermined": "It couldn't be established that this is allowed: tell the user that something is missing",
    "error": "Something failed while this was checked: report it to the user, and don't go on with it",
}

_APART: Final = {"no_budget_undetermined": "undetermined"}  # there may well be a budget

_LATER: Final = "Don't try it again before {:%Y-%m-%d %H:%M} UTC: until then there is no budget for it"


def refusal(decision: Decision) -> str:
    """Return what a model or a person is told: the action, a stable code, the policy's `because`, what to do."""
    reason = decision.reasons[0] if decision.reasons else Reason("denied", "")
    review = decision.outcome is Outcome.REVIEW
    because = next((found.because for found in decision.reasons if found.because), None)
    head = f"`{decision.action}` {'needs an approval' if review else 'is denied'} ({reason.code})"
    room = None if review else _room_at(decision)
    basis = "review" if review else _APART.get(reason.code, decision.basis.value)
    advice = _ADVICE[basis] if room is None else _LATER.format(room)
    return f"{head}{f': {because}' if because else ''}. {advice}."


def _room_at(decision: Decision) -> dt.datetime | None:
    """Return the minute in which all limits have room that had none; None: they never will, or that isn't the cause."""
    full = [budget.room_at for budget in decision.budgets if not budget.fits]
    known = [at for at in full if at is not None]
    if decision.basis is not Basis.LIMIT or not known or len(known) < len(full):
        return None
    return max(known).replace(second=0, microsecond=0) + dt.timedelta(minutes=1)


def moment(expires: Expiry, now: dt.datetime) -> dt.datetime:
    """Return a moment given as `"10m"`, a timedelta from now, or a datetime with a zone.

    Raises:
        InvalidArgument: another form, or a duration that is not positive.
    """
    if isinstance(expires, str):
        found = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h|d|w)", expires)
        if found is None:
            raise InvalidArgument("expires", f'must be a duration such as "10m", not {expires!r}')
        expires = dt.timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    if isinstance(expires, dt.timedelta):
        if expires <= dt.timedelta(0):
            raise InvalidArgument("expires", "must be a duration longer than nothing")
        try:
            return now + expires
        except OverflowError:
            raise InvalidArgument("expires", "must be a moment before the year 10000") from None
    if (ends := utc(expires)) is None:
        raise InvalidArgument("expires", "must be a duration, a timedelta, or a datetime with a time zone")
    return ends
