"""Say what becomes of a decision where it is enforced: refusals, unmet obligations, observe mode, faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from attrs import evolve

from agentauthz.authorizer.case import Case
from agentauthz.authorizer.handlers import required
from agentauthz.decision import Basis, Decision, Outcome, Reason
from agentauthz.request import Request

if TYPE_CHECKING:
    from agentauthz.policy.inputs import Inputs

_OBSERVED: Final = frozenset({Basis.DEFAULT, Basis.LIMIT, Basis.ERROR})  # denials that observe mode lets run


def refused(case: Case) -> Decision | None:
    """Return the denial of a call that no policy is asked about."""
    if case.stopped is not None:
        return denied(case, *case.stopped)
    if case.closed:
        return denied(case, Basis.AUTHORITY, Reason("session_closed", "the session was closed"))
    if case.problem is not None and not case.observing:
        return denied(case, Basis.ERROR, case.problem)
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
        decision = denied(case, Basis.ERROR, problem)
    # SECURITY: what observe mode lets run in spite of an error must still pass authority and every forbid
    ruled, inputs = judge(case.request, undeclared=True)
    if ruled.outcome is Outcome.DENY and ruled.basis not in _OBSERVED:
        return ruled, inputs
    return evolve(decision, marks=ruled.marks, enforced=False), inputs


def failed(case: Case, code: str, text: str) -> Decision:
    """Return the denial of a call that couldn't be decided; observe mode doesn't let it run."""
    return denied(case, Basis.ERROR, Reason(code, text))


def enforced(case: Case, decision: Decision) -> Decision:
    """Return the decision as it is enforced: obligations need a handler, observe mode lets some calls run."""
    if decision.outcome is Outcome.ALLOW:
        if not decision.obligations:
            return decision
        lacking = [(one, case.handlers.lacks(one, case.reach, awaits=case.awaits))
                   for one in decision.obligations if not case.sees_to(one)]  # fmt: skip
        left = [(one, why) for one, why in lacking if why is not None]
        case.left = frozenset(one.id for one, _ in left)
        if not left:
            return decision
        whys = "; ".join(dict.fromkeys(f"`{one.type}` {why}" for one, why in left))
        names = required(one for one, _ in left)
        text = f"nothing here can carry out the obligation {names}: {whys}"
        return unmet(case, decision, Reason("obligation_unsupported", text))
    lets_run = decision.outcome is Outcome.REVIEW or decision.basis in _OBSERVED
    return evolve(decision, enforced=False) if case.observing and lets_run else decision


def unmet(case: Case, decision: Decision, reason: Reason) -> Decision:
    """Return the denial of a call, one of whose obligations isn't carried out; observe mode lets it run."""
    earlier = () if decision.outcome is Outcome.ALLOW else decision.reasons
    return evolve(
        decision, outcome=Outcome.DENY, basis=Basis.ERROR, reasons=(*earlier, reason), undetermined=(),
        budgets=tuple(evolve(budget, granted=False) for budget in decision.budgets), enforced=not case.observing,
    )  # fmt: skip


def denied(case: Case, basis: Basis, reason: Reason) -> Decision:
    """Return the denial of a call for one reason that no rule gives."""
    return Decision(Outcome.DENY, basis, case.request.action, reasons=(reason,), policy_digest=case.policies.digest)
