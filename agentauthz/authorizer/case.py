"""Be one call on its way to a decision."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, final

from attrs import define

from agentauthz.approvals.keeper import Keeper
from agentauthz.authorizer.handlers import NONE, Handlers
from agentauthz.authorizer.memory import Memory, since
from agentauthz.calls import Stop
from agentauthz.decision import Obligation, Reason
from agentauthz.obligations.handler import Reach
from agentauthz.policy.reads import Remembered, asks_for_handoff
from agentauthz.request import Request, SessionFacts
from agentauthz.state.store import State, StateStore

if TYPE_CHECKING:
    from agentauthz.authorizer.revocations import Revocations
    from agentauthz.policy.policyset import PolicySet
    from agentauthz.session import Session
    from agentauthz.tokens.verified import VerifiedToken


@final
@define(eq=False)  # made at every call: what is frozen costs three times as much
class Case:
    """Be one call on its way to a decision: what the policies are asked now, and what it was made from.

    `policies` are those in force when it began, to the end, and `watched` since when their actions are looked out for,
    where that wasn't from the start. `store` and `memory` are where its session is remembered
    (None: it belongs to none); `told` gives the session's facts (None: they stay as they are). `problem` and `cause`
    say that a look-up failed, `stopped` what stops the call before any policy is asked, and `observing` whether a
    lacking permit, budget or approval does. `carries_out` says whether who asks will see to an obligation; None: to
    none, so that `handlers` must, within the `reach` of the call and, if it `awaits`, in coroutines. `objects` is asked
    when all else allows the call, and returns what stops it still. `left` are the ids of the obligations that nothing
    carried out. `releasable` says that what the call spends may be given back. `revoked` says what was revoked, of
    which `known` is the number of the last one that `stopped` takes into account, and `token` is what the session
    rests on; `session` is the handle that the call was made through, if any. `keeper` seals what people are asked
    (None: nobody is), and `approval` is the one that the call is made with.
    """

    policies: PolicySet
    watched: Mapping[str, dt.datetime]
    store: StateStore
    memory: Memory | None
    told: Callable[[State, Mapping[str, dt.datetime]], SessionFacts] | None
    request: Request
    observing: bool
    closed: bool = False
    stopped: Stop | None = None
    sensitive: frozenset[str] = frozenset()
    problem: Reason | None = None
    cause: BaseException | None = None
    carries_out: Callable[[Obligation], bool] | None = None
    objects: Callable[[], Stop | None] | None = None
    left: frozenset[str] = frozenset()
    releasable: bool = False
    revoked: Revocations | None = None
    known: int | None = None
    token: VerifiedToken | None = None
    session: Session | None = None
    handlers: Handlers = NONE
    reach: Reach = Reach.BEFORE
    keeper: Keeper | None = None
    approval: str | None = None

    awaits: bool = False
    state: State | None = None

    def remembered(self) -> Remembered:
        """Return what the rules ask of the session's past, and whether the call may change it."""
        chain = self.request.chain
        return self.policies.remembered(self.request.action, handing=not chain.alone and asks_for_handoff(chain))

    def sees_to(self, obligation: Obligation) -> bool:
        """Say whether who asks carries an obligation out without any handler."""
        return self.carries_out is not None and self.carries_out(obligation) is True

    def lags(self) -> bool:
        """Say whether the session has still to be begun in the store."""
        return self.memory is not None and self.memory.lags(self.policies.tracked)

    def ask_of(self, state: State, tracked: Mapping[str, dt.datetime]) -> None:
        """Ask about the same call, with what the session remembers in `state`."""
        if self.told is not None:
            self.request = self.request.with_session(self.told(state, tracked))

    def renew(self, now: dt.datetime) -> None:
        """Ask about the same call at a later moment: who was asked about it may have taken long."""
        self.request = self.request.at(now)
        if self.revoked is not None:
            self.known = self.revoked.known()
            self.stopped = self.against(self.revoked)
        if self.session is not None:
            self.closed = self.session.closed
            self.stopped = self.session.token_fallen() if self.stopped is None else self.stopped

    def against(self, revoked: Revocations) -> Stop | None:
        """Return what of that which was revoked, as far as it is `known`, stops the call."""
        facts = self.request.session
        within = facts.id if isinstance(facts, SessionFacts) else facts
        return revoked.against(self.known, within, self.request.chain, self.token)

    def ask_now(self, state: State) -> None:
        """Ask about the same call, with what the store has just told of the session."""
        if self.memory is not None:
            self.state = state
            self.ask_of(state, since(self.policies, state, self.memory.started, self.request.now))
