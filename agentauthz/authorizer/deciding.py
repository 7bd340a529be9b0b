"""Take one call to a decision: refuse it, or judge it, commit what it changes, and enforce the outcome."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from attrs import define, evolve

from agentauthz.calls import Call
from agentauthz.decision import Basis, Decision, Outcome, Reason
from agentauthz.request import Request
from agentauthz.state.memory import SessionMemory, State

if TYPE_CHECKING:
    from agentauthz.policy.inputs import Inputs
    from agentauthz.policy.policyset import PolicySet

MAX_ATTEMPTS: Final = 3  # how often a decision is taken afresh because what it read has changed
_OBSERVED: Final = frozenset({Basis.DEFAULT, Basis.LIMIT, Basis.ERROR})  # denials that observe mode lets run


@final
@define(eq=False)  # made at every call, like `Judged`: what is frozen costs three times as much
class Case:
    """Be one call on its way to a decision; `request` makes what the policies are asked, from a state.

    `policies` are those in force when it began, to the end; `observing` says whether a lacking permit,
    budget or approval stops it; `stopped` says what stops it before any policy is asked.
    """

    policies: PolicySet
    memory: SessionMemory
    call: Call
    request: Callable[[State], Request]
    now: dt.datetime
    observing: bool
    closed: bool = False
    stopped: tuple[Basis, Reason] | None = None


@final
@define(eq=False)
class Judged:
    """Be a decision with what it was made on; `inputs` None: no policy was asked."""

    decision: Decision
    request: Request
    inputs: Inputs | None = None
    cause: BaseException | None = None


def judged(case: Case) -> Judged:
    """Return the decision on a call, committed to its session's memory."""
    request = case.request(state := case.memory.read())
    if (stopped := refused(case)) is not None:
        return Judged(stopped, request, None, case.call.cause)
    try:
        for _ in range(MAX_ATTEMPTS):
            decision, inputs = _asked(case, request)
            if not decision.allowed or _committed(case, decision, state):
                return Judged(decision, request, inputs)
            request = case.request(state := case.memory.read())
    except Exception as error:  # a fault of the library's or the host's own: never an allow
        return Judged(failed(case, "evaluation_failed", "the policies couldn't be evaluated"), request, None, error)
    return Judged(failed(case, "changed_meanwhile", "what the decision read kept changing"), request, inputs)


def previewed(case: Case, state: State | None) -> Decision:
    """Return the decision on a call; nothing is committed. `state` stands for what its session remembers."""
    if (stopped := refused(case)) is not None:
        return stopped
    request = case.request(case.memory.read() if state is None else state)
    return _asked(case, request)[0]


def refused(case: Case) -> Decision | None:
    """Return the denial of a call that no policy is asked about."""
    if case.closed:
        return _denied(case, Basis.AUTHORITY, Reason("session_closed", "the session was closed"))
    if case.stopped is not None:
        return _denied(case, *case.stopped)
    if case.call.problem is not None and not case.observing:
        return _denied(case, Basis.ERROR, case.call.problem)
    return None


def _asked(case: Case, request: Request) -> tuple[Decision, Inputs]:
    """Return the decision of the policies as it is enforced, and what they saw."""
    if (problem := case.call.problem) is None:
        decision, inputs = case.policies.judge(request)
        if not case.observing or decision.basis is not Basis.ERROR:
            return enforced(case, decision), inputs
    else:
        decision = _denied(case, Basis.ERROR, problem)
    # SECURITY: what observe mode lets run in spite of an error must still pass authority and every forbid
    ruled, inputs = case.policies.judge(request, undeclared=True)
    if ruled.outcome is Outcome.DENY and ruled.basis not in _OBSERVED:
        return ruled, inputs
    return evolve(decision, marks=ruled.marks, enforced=False), inputs


def failed(case: Case, code: str, text: str) -> Decision:
    """Return the denial of a call that couldn't be decided; observe mode doesn't let it run."""
    return _denied(case, Basis.ERROR, Reason(code, text))


def enforced(case: Case, decision: Decision) -> Decision:
    """Return the decision as it is enforced: obligations need a handler, observe mode lets some calls run."""
    if decision.outcome is Outcome.ALLOW:
        if not decision.obligations:
            return decision
        names = ", ".join(sorted({f"`{obligation.type}`" for obligation in decision.obligations}))
        reason = Reason("obligation_unsupported", f"nothing here can carry out the obligation {names}")
        decision = evolve(decision, outcome=Outcome.DENY, basis=Basis.ERROR, reasons=(reason,), undetermined=())
    lets_run = decision.outcome is Outcome.REVIEW or decision.basis in _OBSERVED
    return evolve(decision, enforced=False) if case.observing and lets_run else decision


def _committed(case: Case, decision: Decision, state: State) -> bool:
    began = decision.action if decision.action in case.policies.tracked else None
    return case.memory.commit(state, decision.marks, began, case.now)


def _denied(case: Case, basis: Basis, reason: Reason) -> Decision:
    return Decision(Outcome.DENY, basis, case.call.action, reasons=(reason,), policy_digest=case.policies.digest)
