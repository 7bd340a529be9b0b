"""Take one call to a decision: refuse it, or judge it, commit what it changes, and enforce the outcome."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, final

from attrs import define, evolve

from agentauthz.calls import Verdict
from agentauthz.decision import Basis, Decision, Obligation, Outcome, Reason
from agentauthz.request import Request, SessionFacts
from agentauthz.state.memory import Forgetful, SessionMemory, State

if TYPE_CHECKING:
    from agentauthz.policy.inputs import Inputs
    from agentauthz.policy.policyset import PolicySet

Stop: TypeAlias = tuple[Basis, Reason]  # what denies a call that no policy is asked about

MAX_ATTEMPTS: Final = 3  # how often a decision is taken afresh because what it read has changed
_OBSERVED: Final = frozenset({Basis.DEFAULT, Basis.LIMIT, Basis.ERROR})  # denials that observe mode lets run


@final
@define(eq=False)  # made at every call: what is frozen costs three times as much
class Case:
    """Be one call on its way to a decision: what the policies are asked now, and what it was made from.

    `policies` are those in force when it began, to the end, and `tracked` since when their actions are watched.
    `told` gives the session's facts (None: they stay as they are); `problem` and `cause` say that a look-up failed,
    `stopped` what stops the call before any policy is asked, and `observing` whether a lacking permit, budget or
    approval does. `carries_out` says whether who asks will see to an obligation; None: to none. `objects` is asked
    when all else allows the call, and returns what stops it still. `left` are the ids of
    the obligations that nothing could carry out.
    """

    policies: PolicySet
    tracked: Mapping[str, dt.datetime]
    memory: SessionMemory | Forgetful
    told: Callable[[State, Mapping[str, dt.datetime]], SessionFacts] | None
    state: State
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

    def ask_of(self, state: State) -> None:
        """Ask about the same call, with what the session remembers in `state`."""
        self.state = state
        if self.told is not None:
            self.request = self.request.with_session(self.told(state, self.tracked))


def judged(case: Case) -> Verdict:
    """Return the decision on a call, committed to its session's memory."""
    if (stopped := refused(case)) is not None:
        return Verdict(stopped, case.request, None, case.cause)
    try:
        for _ in range(MAX_ATTEMPTS):
            decision, inputs = asked(case, case.policies.judge)
            if not decision.allowed:
                return Verdict(decision, case.request, inputs)
            if _committed(case, decision):
                return _unless_stopped(case, Verdict(decision, case.request, inputs))
            case.ask_of(case.memory.read())
    except Exception as error:  # a fault of the library's or the host's own: never an allow
        denial = failed(case, "evaluation_failed", "the policies couldn't be evaluated")
        return Verdict(denial, case.request, None, error)
    return Verdict(failed(case, "changed_meanwhile", "what the decision read kept changing"), case.request)


def previewed(case: Case, state: State | None) -> Decision:
    """Return the decision on a call; nothing is committed. `state` stands for what its session remembers."""
    if (stopped := refused(case)) is not None:
        return stopped
    if state is not None:
        case.ask_of(state)
    return asked(case, case.policies.judge)[0]


def refused(case: Case) -> Decision | None:
    """Return the denial of a call that no policy is asked about."""
    if case.closed:
        return _denied(case, Basis.AUTHORITY, Reason("session_closed", "the session was closed"))
    if case.stopped is not None:
        return _denied(case, *case.stopped)
    if case.problem is not None and not case.observing:
        return _denied(case, Basis.ERROR, case.problem)
    return None


class Judge(Protocol):
    """Be what asks policies; see `PolicySet.judge`."""

    def __call__(self, request: Request, *, undeclared: bool = False) -> tuple[Decision, Inputs]:
        """Return the decision and the inputs that it saw."""


def asked(case: Case, judge: Judge) -> tuple[Decision, Inputs]:
    """Return the decision of the policies, whom `judge` asks, as it is enforced, and what they saw."""
    if (problem := case.problem) is None:
        decision, inputs = judge(case.request)
        if not case.observing or decision.basis is not Basis.ERROR:
            return enforced(case, decision), inputs
    else:
        decision = _denied(case, Basis.ERROR, problem)
    # SECURITY: what observe mode lets run in spite of an error must still pass authority and every forbid
    ruled, inputs = judge(case.request, undeclared=True)
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
        left = [one for one in decision.obligations if case.carries_out is None or case.carries_out(one) is not True]
        case.left = frozenset(one.id for one in left)
        if not left:
            return decision
        names = ", ".join(sorted({f"`{obligation.type}`" for obligation in left}))
        reason = Reason("obligation_unsupported", f"nothing here can carry out the obligation {names}")
        decision = evolve(decision, outcome=Outcome.DENY, basis=Basis.ERROR, reasons=(reason,), undetermined=())
    lets_run = decision.outcome is Outcome.REVIEW or decision.basis in _OBSERVED
    return evolve(decision, enforced=False) if case.observing and lets_run else decision


def _unless_stopped(case: Case, verdict: Verdict) -> Verdict:
    """Return what was decided, or the denial by what who asks still has against it."""
    if case.objects is None or (stop := case.objects()) is None:
        return verdict
    return Verdict(_denied(case, *stop), case.request)


def _committed(case: Case, decision: Decision) -> bool:
    began = decision.action if decision.action in case.policies.tracked else None
    return case.memory.commit(case.state, decision.marks, began, case.request.now)


def _denied(case: Case, basis: Basis, reason: Reason) -> Decision:
    return Decision(Outcome.DENY, basis, case.request.action, reasons=(reason,), policy_digest=case.policies.digest)
