"""Take one call to a decision: refuse it, or judge it, commit what it changes, and enforce the outcome."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Generator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar, cast, final

from attrs import define, evolve

from agentauthz.approvals.heard import Heard
from agentauthz.approvals.keeper import Keeper
from agentauthz.authorizer.handlers import NONE, Handlers, required
from agentauthz.authorizer.memory import Memory, since, unrecalled
from agentauthz.authorizer.reviewing import Consulting, over
from agentauthz.calls import Stop, Verdict
from agentauthz.decision import Basis, Budget, Decision, Obligation, Outcome, Reason
from agentauthz.errors import StateError
from agentauthz.obligations.handler import Reach
from agentauthz.policy.decide import denied_by_limits
from agentauthz.policy.reads import Remembered, asks_for_handoff
from agentauthz.request import Request, SessionFacts
from agentauthz.state.store import (
    DONE,
    NOTHING_YET,
    Answer,
    Committed,
    Intent,
    Refused,
    Seen,
    SeenAt,
    Stale,
    State,
    StateStore,
)

if TYPE_CHECKING:
    from agentauthz.authorizer.revocations import Revocations
    from agentauthz.policy.inputs import Inputs
    from agentauthz.policy.policyset import PolicySet
    from agentauthz.session import Session
    from agentauthz.tokens.verified import VerifiedToken

T = TypeVar("T")

NOTHING_TO_DO: Final = Intent(None)
_NOTHING_SEEN: Final = (None, ())
MAX_ATTEMPTS: Final = 3  # how often a decision is taken afresh because what it read has changed
_OBSERVED: Final = frozenset({Basis.DEFAULT, Basis.LIMIT, Basis.ERROR})  # denials that observe mode lets run


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


# What a decision asks of the state store: it may wait, and its answer is sent back into the decision
Steps: TypeAlias = Generator[Callable[[], object], Any, T]


def judged(case: Case) -> Verdict:
    """Return the decision on a call, and commit what it changes; it may wait for the state store."""
    settled = _settled(case)
    return settled if isinstance(settled, Verdict) else taken(_judging(case, settled))


async def ajudged(case: Case) -> Verdict:
    """Do what `judged` does without blocking the loop on the state store."""
    settled = _settled(case)
    return settled if isinstance(settled, Verdict) else await ataken(_judging(case, settled), case.store)


def taken(steps: Steps[T]) -> T:
    """Take each step, and return what they lead to."""
    try:
        step = next(steps)
        while True:
            try:
                answer = step()
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return cast(T, end.value)


async def ataken(steps: Steps[T], store: StateStore) -> T:
    """Do what `taken` does without blocking the loop on the state store."""
    if not store.blocking:
        return taken(steps)
    import asyncio  # programs without a loop don't pay for it

    try:
        step = next(steps)
        while True:
            try:
                answer = await asyncio.to_thread(step)
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return cast(T, end.value)


def _settled(case: Case) -> Verdict | Remembered:
    """Return the verdict on a call, where that needs no wait and one attempt will do: most calls. Else what it needs.

    It reads nothing of its session's past, and what it changes a store in this process keeps.
    """
    if (stopped := refused(case)) is not None:
        return Verdict(stopped, case.request, None, case.cause)
    try:
        remembered = case.remembered()
        if remembered.reads or (remembered.writes and (case.store.blocking or case.observing)):
            return remembered
        if (remembered.writes or remembered.started) and case.lags():
            return remembered
        decision, inputs = asked(case, case.policies.judge)
        if decision.outcome is Outcome.REVIEW and (remembered.writes or _consults(case, decision)):
            return remembered
        if not (remembered.writes and decision.allowed):
            return _unless_stopped(case, Verdict(decision, case.request, inputs))
        intent = _intent(case, remembered, decision)
        answer = DONE if intent is NOTHING_TO_DO else case.store.commit(intent)
        return remembered if isinstance(answer, Stale) else _answered(case, decision, inputs, answer)
    except StateError as error:
        return _unanswered(case, error)
    except Exception as error:  # a fault of the library's or the host's own: never an allow
        return _broken(case, error)


def _answered(case: Case, decision: Decision, inputs: Inputs, answer: Answer) -> Verdict:
    """Return the verdict on what was allowed, as the store answers to what it changes."""
    decision = _limited(case, decision, answer)
    reservation = answer.reservation if isinstance(answer, Committed) else None
    verdict = Verdict(decision, case.request, inputs, None, reservation)
    return _unless_stopped(case, verdict) if decision.allowed else verdict


def _unanswered(case: Case, error: StateError) -> Verdict:
    denial = failed(case, "state_failed", "the store that keeps what sessions remember couldn't be asked")
    return Verdict(denial, case.request, None, error)


def _judging(case: Case, remembered: Remembered) -> Steps[Verdict]:
    """Take a call to its verdict, with what its session remembers."""
    try:
        for _ in range(MAX_ATTEMPTS):
            if remembered.reads or case.lags():
                yield from _recalled(case, remembered)
            decision, inputs = asked(case, case.policies.judge)
            heard = yield from _heard(case, decision, inputs)
            decision = heard.decision
            if decision.outcome is Outcome.DENY and decision.enforced:
                return _with(heard, Verdict(decision, case.request, inputs))
            if decision.spends and (case.observing or not decision.allowed):  # nothing is reserved
                decision = _limited(case, decision, (yield _trial(case, decision)))
            if not decision.allowed:
                verdict = _with(heard, Verdict(decision, case.request, inputs))
                return (yield from _waiting(case, verdict, inputs, heard)) if _consults(case, decision) else verdict
            intent = _intent(case, remembered, decision)
            if heard.approval is not None:
                intent = evolve(intent, approvals=(heard.approval,), revocations=case.known)
            # nobody is asked about what is nothing
            answer = DONE if intent is NOTHING_TO_DO else (yield functools.partial(case.store.commit, intent))
            if isinstance(answer, Stale):
                if (stop := (yield from _revoked(case))) is not None:
                    case.stopped = stop
                    return Verdict(_denied(case, *stop), case.request)
                continue
            if isinstance(answer, Refused) and answer.approvals:
                continue
            heard.used = heard.approval is not None and isinstance(answer, Committed)
            return _with(heard, _answered(case, decision, inputs, answer))
    except StateError as error:
        return _unanswered(case, error)
    except Exception as error:  # a fault of the library's or the host's own: never an allow
        return _broken(case, error)
    return Verdict(failed(case, "changed_meanwhile", "what the decision read kept changing"), case.request)


# ---- people's consent


def _consults(case: Case, decision: Decision) -> bool:
    """Say whether people are asked about what comes out so."""
    return decision.outcome is Outcome.REVIEW and decision.enforced and case.keeper is not None


def _consulting(case: Case) -> Consulting:
    keeper = cast(Keeper, case.keeper)
    return Consulting(
        case.policies, case.store, keeper, case.request, case.sensitive, case.approval, case.revoked
    )  # fmt: skip


def _heard(case: Case, decision: Decision, inputs: Inputs) -> Steps[Heard]:
    """Return the decision with what people have said about the call, as it is enforced."""
    if not _consults(case, decision):
        return Heard(decision)
    heard = yield from _consulting(case).heard(decision, inputs)
    if heard.approval is not None:
        heard.decision = evolve(enforced(case, heard.decision), approval=heard.approval)
    return heard


def _with(heard: Heard, verdict: Verdict) -> Verdict:
    """Return the verdict with what people have said, where they were asked."""
    if heard.binding is not None or heard.review is not None or heard.refused:
        verdict.heard = heard
    return verdict


def _waiting(case: Case, verdict: Verdict, inputs: Inputs, heard: Heard) -> Steps[Verdict]:
    """Return the verdict on a call that waits for a person, who is asked now where nobody was before."""
    if heard.binding is None:
        return verdict
    waits = yield from _consulting(case).asked(verdict.decision, inputs, heard.binding, heard.outdated)
    if waits is None:
        denial = failed(case, "approval_forged", "what is stored of this call's approval isn't ours")
        return Verdict(denial, case.request)
    review, heard.fresh = waits
    if review.standing == "rejected":
        heard = over(verdict.decision, review)
        return _with(heard, Verdict(heard.decision, case.request, inputs))
    heard.review, verdict.decision = review, evolve(verdict.decision, approval=review.id)
    return verdict


def _broken(case: Case, error: Exception) -> Verdict:
    return Verdict(failed(case, "evaluation_failed", "the policies couldn't be evaluated"), case.request, None, error)


def _recalled(case: Case, remembered: Remembered) -> Steps[None]:
    """Ask what the session remembers; where the store can't say, what reads it is undetermined."""
    if (memory := case.memory) is None:
        return
    try:
        state = yield functools.partial(memory.recall, case.policies.tracked, case.watched, reads=remembered.reads)
        case.ask_now(state)
    except StateError:
        if remembered.started:  # it may have begun long before: there is no telling
            raise
        case.state = None
        case.request = case.request.with_session(unrecalled(case.request))


def _revoked(case: Case) -> Steps[Stop | None]:
    """Return what was revoked while the call was decided, and stops it."""
    if (revoked := case.revoked) is None:
        return None
    yield revoked.refresh
    case.known = revoked.known()
    return case.against(revoked)


def _intent(case: Case, remembered: Remembered, decision: Decision) -> Intent:
    """Return what an allow changes, and what it has read that must hold still."""
    spends = () if case.observing else decision.spends
    began = decision.action if decision.action in case.policies.tracked else None
    if (memory := case.memory) is None:
        if not spends:
            return NOTHING_TO_DO
        return Intent(None, spends=spends, releasable=case.releasable, revocations=case.known)
    if not (spends or decision.marks or began or remembered.reads):
        return NOTHING_TO_DO
    state = NOTHING_YET if case.state is None else case.state
    marks, times = _seen(remembered, state) if remembered.reads else _NOTHING_SEEN
    # what is marked, spent or seen here counts only where nothing was revoked since it was asked
    releasable = case.releasable and len(spends) > 0
    return Intent(memory.id, marks, times, decision.marks, began, spends, (), case.known, True, releasable)


def _seen(remembered: Remembered, state: State) -> tuple[frozenset[str] | None, tuple[SeenAt, ...]]:
    """Return what a decision has read of its session: its marks, if any rule reads them, and last-seen times."""
    times = tuple(
        (cast(Seen, kind), action, (state.began if kind == "began" else state.done).get(action))
        for kind, action in remembered.times
    )
    return state.marks if remembered.marks else None, times


def _trial(case: Case, decision: Decision) -> Callable[[], Answer]:
    """Return what only asks the store whether there is room."""
    session = None if case.memory is None else case.memory.id
    return functools.partial(case.store.commit, Intent(session, spends=decision.spends, reserve=False))


def _limited(case: Case, decision: Decision, answer: Answer) -> Decision:
    """Return the decision with how its budgets stand, or its denial where they have no room.

    Raises:
        StateError: the store gave another answer.
    """
    if isinstance(answer, Committed):
        return decision._budgeted(answer.budgets) if answer.budgets else decision
    if not isinstance(answer, Refused):  # what is only tried reads nothing that could be out of date
        raise StateError("the state store gave an answer that is none")
    full = {budget.key for budget in answer.full if not budget.fits}
    by_limits = [spend for spend in decision.spends if spend.key in full]
    return enforced(case, denied_by_limits(decision, by_limits, answer.full))


def previewed(case: Case, state: State | None) -> Steps[tuple[Decision, Inputs | None]]:
    """Find the decision on a call, and what it saw; nothing is committed. `state` stands for what is remembered."""
    case.reach, case.awaits = Reach.RESULT, True  # nobody knows yet how the call will be made
    if (stopped := refused(case)) is not None:
        return stopped, None
    inputs: Inputs | None = None
    try:
        if state is not None:
            case.ask_of(state, {})
        else:
            yield from _recalled(case, case.remembered())
        decision, inputs = asked(case, case.policies.judge)
        if state is None and _consults(case, decision):
            decision = (yield from _heard(case, decision, inputs)).decision
        if not decision.spends or decision.outcome is Outcome.DENY:
            return decision, inputs
        answer = (yield _trial(case, decision)) if state is None else _supposed(decision, state)
        return _limited(case, decision, answer), inputs
    except StateError:
        return failed(case, "state_failed", "the store that keeps what sessions remember couldn't be asked"), inputs


def _supposed(decision: Decision, state: State) -> Answer:
    """Return what a store would answer that holds what `state` says is used of each limit."""
    used = [(spend, state.used.get(spend.rule, Decimal(0))) for spend in decision.spends]
    budgets = tuple(Budget.trusted(spend, before, False, None) for spend, before in used)
    return Committed(budgets) if all(budget.fits for budget in budgets) else Refused(budgets)


def refused(case: Case) -> Decision | None:
    """Return the denial of a call that no policy is asked about."""
    if case.stopped is not None:
        return _denied(case, *case.stopped)
    if case.closed:
        return _denied(case, Basis.AUTHORITY, Reason("session_closed", "the session was closed"))
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


def _unless_stopped(case: Case, verdict: Verdict) -> Verdict:
    """Return what was decided, or the denial by what who asks still has against it."""
    if case.objects is None or not verdict.decision.allowed or (stop := case.objects()) is None:
        return verdict
    return Verdict(_denied(case, *stop), case.request, None, None, verdict.reservation, heard=verdict.heard)


def _denied(case: Case, basis: Basis, reason: Reason) -> Decision:
    return Decision(Outcome.DENY, basis, case.request.action, reasons=(reason,), policy_digest=case.policies.digest)
