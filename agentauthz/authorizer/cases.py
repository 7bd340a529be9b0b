"""Make a `Case` of a call of a session, or of a request made by hand: what is decided, and by what."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Mapping
from typing import Final, final

from agentauthz.approvals.keeper import Keeper
from agentauthz.authorizer.case import Case
from agentauthz.authorizer.handlers import Handlers
from agentauthz.authorizer.in_force import InForce
from agentauthz.authorizer.memory import UNTRACKED
from agentauthz.authorizer.resources import Resources
from agentauthz.authorizer.revocations import Revocations
from agentauthz.authorizer.sessions import Sessions
from agentauthz.calls import Call
from agentauthz.decision import Reason
from agentauthz.errors import InvalidArgument
from agentauthz.request import Request, Resource, SessionFacts, Unknown
from agentauthz.session import Session
from agentauthz.state.store import NOTHING_YET, State, StateStore
from agentauthz.values import UNKNOWN


@final
class Cases:
    """Take what an authorizer holds at this moment into each case. Calls may run against a denial until `observing`."""

    def __init__(
        self,
        in_force: InForce,
        state: StateStore,
        sessions: Sessions,
        revoked: Revocations,
        handlers: Handlers,
        keeper: Keeper,
        now: Callable[[], dt.datetime],
        observing: dt.datetime | None,
    ) -> None:
        self.resources: Final = Resources()
        self._in_force: Final = in_force
        self._state: Final = state
        self._sessions: Final = sessions
        self._revoked: Final = revoked
        self._handlers: Final = handlers
        self._keeper: Final = keeper
        self._now: Final = now
        self._observe_until: Final = observing

    def of_session(self, session: Session, call: Call) -> Case:
        """Return the case of one call of a session."""
        problem, cause = call.problem, call.cause
        resource: Resource | Unknown | None = UNKNOWN
        try:
            resource = self.resources.of(call.resource)
        except Exception as error:  # the application's adapter, or an object that is no resource
            if problem is None:
                problem, cause = Reason("resource_failed", "the resource couldn't be read"), error
        context: Mapping[str, object] | Unknown = session.context
        if call.context is UNKNOWN:
            context = UNKNOWN
        elif call.context:
            context = {**session.context, **call.context}
        now = self._now()
        request = Request.trusted(
            call.action, session.chain, call.args, resource, session.route or call.route, session.purpose,
            session.facts(NOTHING_YET, UNTRACKED), context, now,
        )  # fmt: skip
        policies, since = self._in_force.both
        known = self._revoked.known()
        stopped = None
        if known is None or self._revoked.any:  # one call less where nothing was revoked
            stopped = self._revoked.against(known, session.id, session.chain, session.token)
        if stopped is None and session.token is not None:
            stopped = session.token_fallen()
        return Case(
            policies, since, self._state, session.memory, session.facts, request, self._observing(now), session.closed,
            stopped, call.sensitive, problem, cause, call.carries_out, releasable=call.releasable,
            handlers=self._handlers, reach=call.reach, revoked=self._revoked, known=known, token=session.token,
            session=session, keeper=self._keeper, approval=call.approval,
        )  # fmt: skip

    def by_hand(self, request: Request) -> Case:
        """Return the case of a request whose hops nobody has verified.

        Raises:
            InvalidArgument: `request` is no Request.
        """
        request = _checked(request)
        return self.of_request(request.by_hand() if request.chain.delegations else request)

    def of_request(self, request: Request) -> Case:
        """Return the case of a request whose hops count as it says.

        Raises:
            InvalidArgument: `request` is no Request.
        """
        given = _checked(request).session
        observing = self._observing(request.now)
        policies, since = self._in_force.both
        known, within = self._revoked.known(), given.id if type(given) is SessionFacts else given
        memory = self._sessions.memory(given.id, given.started, keep=True) if type(given) is SessionFacts else None
        told = functools.partial(_merged, given) if type(given) is SessionFacts else None
        return Case(
            policies, since, self._state, memory, told, request, observing,
            stopped=self._revoked.against(known, within, request.chain), handlers=self._handlers,
            revoked=self._revoked, known=known, keeper=self._keeper,
        )  # fmt: skip

    def _observing(self, now: dt.datetime) -> bool:
        return self._observe_until is not None and now < self._observe_until


def _checked(request: object) -> Request:
    if type(request) is not Request:
        raise InvalidArgument("request", f"must be a Request, not {type(request).__name__}")
    return request


def _merged(given: SessionFacts, state: State, tracked: Mapping[str, dt.datetime]) -> SessionFacts:
    """Return a session's facts as a caller gave them, with what this authorizer remembers of it."""
    return SessionFacts.trusted(
        given.id, given.started, given.expires, given.attributes,
        given.marks if given.marks is UNKNOWN else given.marks | state.marks,
        given.began if given.began is UNKNOWN else {**given.began, **state.began},
        given.done if given.done is UNKNOWN else {**given.done, **state.done},
        {**tracked, **given.tracked}, given.ceiling,
    )  # fmt: skip
