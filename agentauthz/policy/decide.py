"""Go from rules to a decision: authority, forbids, permits, limits, reviews, over every call that is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias, cast

from attrs import evolve

from agentauthz.decision import Basis, Budget, Decision, Obligation, Outcome, Reason, Spend
from agentauthz.policy.builtins import Answer, all_of
from agentauthz.policy.evaluate import Grants, Verdict, answer, evaluate
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.spending import Meter, Unclear, spending
from agentauthz.policy.syntax import CheckedRule, Effect, Expr
from agentauthz.principals import Chain, Delegation, Principal, covered
from agentauthz.request import Request, SessionFacts
from agentauthz.values import UNKNOWN

Found: TypeAlias = Mapping[Effect, tuple[CheckedRule, ...]]

MAX_NAMED: Final = 16  # rules whose missing inputs a default deny names
HANDOFF: Final = "delegation.handoff"


class Rules(Protocol):
    """Answer for a policy set: on the definition, or compiled; both must give the same."""

    @property
    def digest(self) -> str:
        """Return the set's digest."""

    def verdict(self, inputs: Inputs) -> Verdict:
        """Return the rules that match and are true or undetermined."""

    def matching(self, action: str) -> Iterable[CheckedRule]:
        """Return the rules that have a pattern for the action, in the order of their names."""

    def undetermined_permits(self, inputs: Inputs) -> Sequence[CheckedRule]:
        """Return the first 16 permits, by name, that match and are undetermined."""

    def meter(self, rule: CheckedRule) -> Meter:
        """Return what tells what a limit takes of a call."""

    @property
    def arguments(self) -> Mapping[str, frozenset[str]]:
        """Return the arguments of the actions that are declared with a list of them."""


def inputs_of(rules: Rules, request: Request) -> Inputs:
    """Return what the rules see of `request`; attributes are frozen when a rule first reads them."""
    return Inputs(request, request.chain, lambda asked: _permitted(rules, asked))


def inputs_over(rules: Rules, inputs: Inputs, chain: Chain) -> Inputs:
    """Return the same call for other rules, or by another chain; what was read stays shared."""
    return Inputs(inputs.request, chain, lambda asked: _permitted(rules, asked), inputs)


def decide(
    rules: Rules,
    request: Request,
    inputs: Inputs,
    *,
    undeclared: bool = False,
    approvers: Sequence[Principal] = (),
) -> Decision:
    """Return the decision on `request`, whose inputs are `inputs`, as if every budget had room.

    Nothing is done: marks, and what limits take, are named in the decision. `approvers` are those who consented to the
    call: a review asks where `by` holds for none of them. With `undeclared`, arguments that the action isn't declared
    with stop nothing.
    """
    stopped = _stopped(rules, request, undeclared)
    if stopped is not None:
        basis, reason = stopped
        return Decision(Outcome.DENY, basis, request.action, reasons=(reason,), policy_digest=rules.digest)
    if request.chain.alone:
        found = rules.verdict(inputs)
        if (allow := found.allow) is not None and allow.action == request.action:
            return allow  # it says nothing of the call but its action, and nobody can change it
        if (grants := found.grants) is not None:  # most decisions: what `_combine` would give, without its search
            if len(grants.limits) == 1:  # what `spending` would give
                if (spend := rules.meter(grants.limits[0]).spend(inputs)) is not None:
                    return _granted(rules, request.action, grants, (spend,))
            elif grants.limits:
                spends = spending(rules.meter, ((inputs, found),))
                if not isinstance(spends, Unclear):
                    return _granted(rules, request.action, grants, spends)
            else:
                # returned as it was made: by now another thread may have kept the allow of another action
                found.allow = allow = _granted(rules, request.action, grants)
                return allow
        return _combine(rules, request.action, [(inputs, found)], approvers)
    return _combine(rules, request.action, [(one, rules.verdict(one)) for one in judged(rules, inputs)], approvers)


def _granted(rules: Rules, action: str, grants: Grants, spends: tuple[Spend, ...] = ()) -> Decision:
    return Decision.granting(
        action, grants.names, grants.undetermined, grants.reasons, grants.marks, rules.digest, spends
    )


def without_budget(decision: Decision) -> Decision:
    """Return the decision where nobody keeps budgets: what would take of one is denied."""
    return denied_by_limits(decision, decision.spends, ()) if decision.spends else decision


def denied_by_limits(decision: Decision, full: Sequence[Spend], budgets: tuple[Budget, ...]) -> Decision:
    """Return the denial of a call by the limits that have no room for it."""
    reasons = {spend.rule: spend.reason for spend in full}
    names = tuple(sorted(reasons))
    return evolve(
        decision, outcome=Outcome.DENY, basis=Basis.LIMIT, rules=names, missing=(),
        reasons=tuple(reasons[name] for name in names), budgets=budgets,
    )  # fmt: skip


# ---- steps 1 and 2: authority


def _stopped(rules: Rules, request: Request, undeclared: bool) -> tuple[Basis, Reason] | None:
    session = request.session
    bounded = type(session) is SessionFacts and (session.expires is not None or session.ceiling is not None)
    if bounded or request.chain.narrows:
        stopped = _expired(request) or _not_covered(request)
        if stopped is not None:
            return stopped
    declared = None if undeclared else rules.arguments.get(request.action)
    return None if declared is None else _unknown_argument(declared, request)


def _expired(request: Request) -> tuple[Basis, Reason] | None:
    session = request.session
    if type(session) is SessionFacts and session.expires is not None and session.expires <= request.now:
        return Basis.REVOKED, Reason("expired", "the session has expired")
    for place, hop in enumerate(request.chain.delegations, 1):
        if hop.expires is not None and hop.expires <= request.now:
            return Basis.REVOKED, Reason("expired", f"delegation {place}, to {hop.to}, has expired")
    return None


def _not_covered(request: Request) -> tuple[Basis, Reason] | None:
    session = request.session
    if type(session) is SessionFacts and session.ceiling is not None and not covered(session.ceiling, request.action):
        return Basis.AUTHORITY, Reason("action_not_covered", "the session's token doesn't cover this action")
    for place, hop in enumerate(request.chain.delegations, 1):
        if not hop.covers(request.action):
            return _outside("action", place, hop)
        if hop.purpose is not None and (type(request.purpose) is not str or request.purpose != hop.purpose):
            return _outside("purpose", place, hop)
    return None


def _outside(what: str, place: int, hop: Delegation) -> tuple[Basis, Reason]:
    text = f"delegation {place}, to {hop.to}, doesn't cover this {what}"
    return Basis.AUTHORITY, Reason(f"{what}_not_covered", text)


def _unknown_argument(declared: frozenset[str], request: Request) -> tuple[Basis, Reason] | None:
    if request.args is UNKNOWN or declared.issuperset(request.args):
        return None
    extra = sorted(set(request.args) - declared)
    return Basis.ERROR, Reason("unknown_argument", f"`{request.action}` is declared without the argument `{extra[0]}`")


# ---- which calls are judged


def judged(rules: Rules, inputs: Inputs) -> list[Inputs]:
    """Return the call of the actor, and those of the agents that passed their authority on to it."""
    chain = inputs.delegations
    if chain.alone:
        return [inputs]
    start = _last_barrier(rules, inputs)
    # the subject itself is judged only where it is an agent: a person's own right is what policies ask for
    first = start if start > 0 or chain.subject.kind == "agent" else 1
    return [*(inputs.through(chain.prefix(depth)) for depth in range(first, chain.depth)), inputs]


def _last_barrier(rules: Rules, inputs: Inputs) -> int:
    """Return the depth of the last hop that ends the judging of those before it; 0: there is none."""
    barrier = 0
    for depth, hop in enumerate(inputs.delegations.delegations, 1):
        if hop.via == "token" or (
            hop.handoff and (hop.via == "session" or _may_hand_off(rules, inputs, depth, barrier))
        ):
            barrier = depth
    return barrier


def _may_hand_off(rules: Rules, inputs: Inputs, depth: int, barrier: int) -> bool:
    """Say whether the giver of hop `depth` may hand off, judged with those before it since `barrier`."""
    chain = inputs.delegations
    hop = chain.delegations[depth - 1]
    asked = inputs.through(chain.prefix(depth - 1)).asking(HANDOFF, handoff_arguments(hop))
    first = barrier if barrier > 0 or chain.subject.kind == "agent" else min(1, depth - 1)
    seen = [asked.through(chain.prefix(before)) for before in range(first, depth)]
    found = without_budget(_combine(rules, HANDOFF, [(call, rules.verdict(call)) for call in seen]))
    # nobody carries out an obligation of a hand-off that is only asked about, nor keeps a budget for it
    return found.outcome is Outcome.ALLOW and not found.obligations


def handoff_arguments(hop: Delegation) -> dict[str, object]:
    """Return the arguments of the action `delegation.handoff` for a hop."""
    return {"to": hop.to, "actions": hop.actions, "purpose": hop.purpose}


def _permitted(rules: Rules, inputs: Inputs) -> Answer:
    """Answer `any(permits) and not any(forbids)`, by Kleene."""
    found = rules.verdict(inputs)
    permits: Answer = True if found.true.get("permit") else None if rules.undetermined_permits(inputs) else False
    forbids: Answer = True if found.true.get("forbid") else None if found.undetermined.get("forbid") else False
    return all_of((permits, None if forbids is None else not forbids))


# ---- steps 3 to 7


def _combine(
    rules: Rules, action: str, calls: Sequence[tuple[Inputs, Verdict]], approvers: Sequence[Principal] = ()
) -> Decision:
    calls = _approved(calls, approvers) if approvers else calls

    def names(effect: Effect) -> tuple[dict[str, CheckedRule], dict[str, CheckedRule]]:
        true = {rule.name: rule for _, found in calls for rule in found.true.get(effect, ())}
        undetermined = {rule.name: rule for _, found in calls for rule in found.undetermined.get(effect, ())}
        return true, undetermined

    unsure = tuple(sorted({rule.name for _, v in calls for found in v.undetermined.values() for rule in found}))
    marks = tuple(sorted({cast(str, rule.mark) for found in names("mark") for rule in found.values()}))

    spends: tuple[Spend, ...] = ()

    def decision(outcome: Outcome, basis: Basis, because: Iterable[Reason], **more: object) -> Decision:
        return Decision(
            outcome, basis, action, undetermined=unsure, reasons=tuple(because), marks=marks,
            policy_digest=rules.digest, spends=spends, **more,  # type: ignore[arg-type]  # each caller gives fields of a decision
        )  # fmt: skip

    def stopping(effect: Effect, outcome: Outcome, basis: Basis, code: str) -> Decision | None:
        true, undetermined = names(effect)
        stop = true or undetermined
        if not stop:
            return None
        settled = basis if true or effect != "forbid" else Basis.UNDETERMINED
        reasons = [_reason(code if true else f"{code}_undetermined", rule) for _, rule in sorted(stop.items())]
        missing = () if true else _missing_of(calls, stop)
        return decision(outcome, settled, reasons, rules=tuple(sorted(stop)), missing=missing)

    def unclear() -> Decision | None:
        nonlocal spends
        found = spending(rules.meter, calls)
        if not isinstance(found, Unclear):
            spends = found
            return None
        limits, missing = names("limit"), frozenset[str]().union(*found.missing.values())
        stop = {name: limits[0].get(name) or limits[1][name] for name in found.missing}
        reasons = [_reason("no_budget_undetermined", rule) for _, rule in sorted(stop.items())]
        return decision(Outcome.DENY, Basis.LIMIT, reasons, rules=tuple(sorted(stop)), missing=tuple(sorted(missing)))

    steps: tuple[Callable[[], Decision | None], ...] = (  # in order; a decision has no truth value for `or` to ask
        lambda: stopping("forbid", Outcome.DENY, Basis.RULE, "forbidden"),
        lambda: _default(rules, calls, decision),
        unclear,
        lambda: stopping("review", Outcome.REVIEW, Basis.RULE, "review"),
    )
    stopped = next((found for step in steps if (found := step()) is not None), None)
    return _allowed(names, decision) if stopped is None else stopped


def _approved(
    calls: Sequence[tuple[Inputs, Verdict]], approvers: Sequence[Principal]
) -> Sequence[tuple[Inputs, Verdict]]:
    """Return the calls without the reviews that an approver satisfies, each for the call that it asks about."""

    def asks(rule: CheckedRule, inputs: Inputs) -> bool:
        by = cast(Expr, rule.by)
        return not any(evaluate(by, inputs.approved_by(approver)).answer is True for approver in approvers)

    def left(
        found: Mapping[Effect, tuple[CheckedRule, ...]], inputs: Inputs
    ) -> Mapping[Effect, tuple[CheckedRule, ...]]:
        asking = tuple(rule for rule in found.get("review", ()) if asks(rule, inputs))
        others: dict[Effect, tuple[CheckedRule, ...]] = {key: kept for key, kept in found.items() if key != "review"}
        return {**others, "review": asking} if asking else others

    return [(inputs, Verdict(left(found.true, inputs), left(found.undetermined, inputs))) for inputs, found in calls]


def _default(
    rules: Rules, calls: Sequence[tuple[Inputs, Verdict]], decision: Callable[..., Decision]
) -> Decision | None:
    unpermitted = [seen for seen, found in calls if not found.true.get("permit")]
    if not unpermitted:
        return None
    missing: set[str] = set()
    for seen in unpermitted:
        for rule in rules.undetermined_permits(seen):
            missing |= _missing_in(rule, seen)
    who = "" if len(calls) == 1 else f" for {unpermitted[0].actor}"
    reason = Reason("not_permitted", f"no permit allows this{who}")
    return decision(Outcome.DENY, Basis.DEFAULT, [reason], missing=tuple(sorted(missing)))


def _allowed(
    names: Callable[[Effect], tuple[dict[str, CheckedRule], dict[str, CheckedRule]]], decision: Callable[..., Decision]
) -> Decision:
    permits, unsure = names("permit")
    binding = sorted({**permits, **unsure}.items())
    obligations = tuple(
        Obligation(f"{name}.{place}", obligation.name, dict(obligation.properties))  # whoever carries it out owns it
        for name, rule in binding
        for place, obligation in enumerate(rule.obligations)
    )
    reasons = [rule.permitted for _, rule in sorted(permits.items())]
    return decision(Outcome.ALLOW, Basis.RULE, reasons, rules=tuple(sorted(permits)), obligations=obligations)


_TEXTS: Final = {
    "forbidden": "forbidden by `{}`",
    "forbidden_undetermined": "`{}` forbids this unless it can be ruled out, and an input is missing",
    "no_budget_undetermined": "`{}` limits this, and it can't be told what this would take of which budget",
    "review": "`{}` asks for a person's approval",
    "review_undetermined": "`{}` asks for a person's approval unless it can be ruled out, and an input is missing",
}


def _reason(code: str, rule: CheckedRule) -> Reason:
    return Reason(code, rule.because or _TEXTS[code].format(rule.name), rule.name, rule.at, rule.because)


def _missing_of(calls: Sequence[tuple[Inputs, Verdict]], rules: dict[str, CheckedRule]) -> tuple[str, ...]:
    named = [rules[name] for name in sorted(rules)[:MAX_NAMED]]
    return tuple(sorted(frozenset[str]().union(*(_missing_in(rule, seen) for seen, _ in calls for rule in named))))


def _missing_in(rule: CheckedRule, inputs: Inputs) -> frozenset[str]:
    clause = answer(rule, inputs)
    return frozenset() if clause is None else clause.missing
