"""Hold what is active here: the context variable that says which session is current, and what a tool may ask of it."""

from __future__ import annotations

from contextvars import ContextVar
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, final

from attrs import define, field, frozen

from agentauthz.errors import NoSession, SessionError
from agentauthz.settling import Settlement

if TYPE_CHECKING:
    from agentauthz.decision import Decision
    from agentauthz.session import Session


@define(eq=False)
class _Open:
    """Be what is current before it is sealed: setting a field of a frozen object costs three times as much."""

    session: Session
    decision: Decision | None = None
    resource: object = field(default=None, repr=False)
    _settlement: Settlement | None = field(default=None, repr=False)


@final
@frozen(eq=False)
class Current(_Open):
    """Be what a running tool may know: its session, the decision that let it run, and the resource's original.

    `resource` is the object that was looked up and checked: using it needs no second look-up.
    """

    @classmethod
    def inside(cls, session: Session, decision: Decision, resource: object, settlement: Settlement | None) -> Current:
        """Return what is current inside of a call: the same as from the class, at less cost."""
        made: Any = _Open(session, decision, resource, settlement)
        made.__class__ = cls  # both have the same slots, and from here on nothing can be set
        sealed: Current = made
        return sealed


ACTIVE: Final[ContextVar[Current | None]] = ContextVar("agentauthz.current", default=None)


def still_open(active: Current | None) -> Current | None:
    """Return `active`, or the first one around it whose session is still open."""
    while active is not None and active.session.closed:
        active = active.session.before
    return active


def current() -> Current:
    """Return the session that is current here, and inside a decorated function its decision and resource.

    Raises:
        NoSession: there is none.
    """
    found = ACTIVE.get()
    if found is None:
        raise NoSession("no session is active here: enter one with `with authorizer.session(…):`")
    return found


def checkpoint() -> None:
    """Let running work stop here if its session was closed, has expired or was revoked, or all was halted.

    Raises:
        Stopped: the work must end now.
        NoSession: no session is active here.
    """
    current().session.ensure_running()


def settle(**amounts: Decimal | int) -> None:
    """Say how much the running call has really taken of each limit, by the rule's name: `settle(tokens=812)`.

    The last word counts, and takes effect when the call ends, however it ends: what was reserved beyond it comes back.
    Only a function that raises with `release_on_error` gives all back. In a session of its own, a function has left its
    call: say it outside of that. For the work of `Session.perform`, see `Performing.settle`.

    Raises:
        InvalidArgument: a rule that has reserved nothing for the call, or an amount that is no int and no finite
            Decimal, has more than 38 digits, or 18 after the point, or is below zero or above what was reserved; then
            nothing of it counts.
        SessionError: no call is running here, or it has ended.
        NoSession: no session is active here.
    """
    here = current()
    if here.decision is None:
        raise SessionError("no call is running here: `settle` is for a function that is decorated with @authorize")
    settlement = Settlement(here.decision) if here._settlement is None else here._settlement
    settlement.settle(amounts)
