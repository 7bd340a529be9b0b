"""Hold what is active here: the context variable that says which session is current, and what a tool may ask of it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, final

from attrs import define, field, frozen

from agentauthz.errors import NoSession

if TYPE_CHECKING:
    from agentauthz.decision import Decision
    from agentauthz.session import Session


@define(eq=False)
class _Open:
    """Be what is current before it is sealed: setting a field of a frozen object costs three times as much."""

    session: Session
    decision: Decision | None = None
    resource: object = field(default=None, repr=False)


@final
@frozen(eq=False)
class Current(_Open):
    """Be what a running tool may know: its session, the decision that let it run, and the resource's original.

    `resource` is the object that was looked up and checked: using it needs no second look-up.
    """

    @classmethod
    def inside(cls, session: Session, decision: Decision, resource: object) -> Current:
        """Return what is current inside of a call: the same as from the class, at less cost."""
        made: Any = _Open(session, decision, resource)
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
