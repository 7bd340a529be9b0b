"""Take one call to a decision: refuse it, or judge it, commit what it changes, and enforce the outcome."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from attrs import evolve

from agentauthz.approvals.heard import Heard
from agentauthz.approvals.keeper import Keeper
from agentauthz.authorizer.case import Case
from agentauthz.authorizer.enforcing import asked, denied, enforced, failed, refused
from agentauthz.authorizer.memory import unrecalled
from agentauthz.authorizer.reviewing import Consulting, over
from agentauthz.calls import Stop, Verdict
from agentauthz.decision import Budget, Decision, Outcome
from agentauthz.errors import StateError
from agentauthz.obligations.handler import Reach
from agentauthz.policy.decide import denied_by_limits
from agentauthz.policy.reads import Remembered
from agentauthz.records.writing import ended
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
    import asyncio

    from agentauthz.policy.inputs import Inputs

T = TypeVar("T")

NOTHING_TO_DO: Final = Intent(None)
_NOTHING_SEEN: Final = (None, ())
MAX_ATTEMPTS: Final = 3  # how often a decision is taken afresh because what it read has changed


# What a decision asks of the state store: it may wait, and its answer is sent back into the decision
Steps: TypeAlias = Generator[Callable[[], object], Any, T]


def judged(case: Case) -> Verdict:
    """Return the decision on a call, and commit what it changes; it may wait for the state store."""
    settled = _settled(case)
    return settled if isinstance(settled, Verdict) else taken(_judging(case, settled))


async def ajudged(case: Case) -> Verdict:
    """Do what `judged` does without blocking the loop on the state store.

    Where who waits is cancelled meanwhile, that is the verdict's `interrupt`, if the store has come to one.
    """
    settled = _settled(case)
    if isinstance(settled, Verdict):
        return settled
    verdict, cancelled = await _waited(_judging(case, settled), case.store)
    verdict.cause = cancelled or verdict.cause
    return verdict


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
    found, cancelled = await _waited(steps, store)
    if cancelled is not None:
        raise cancelled
    return found


async def _waited(steps: Steps[T], store: StateStore) -> tuple[T, asyncio.CancelledError | None]:
    """Return what the steps lead to, and what cancelled who waits while the last of them was taken, if anything did.

    INVARIANT: a step that was begun is waited for: what a store has done for a call must be known to somebody.
    """
    if not store.blocking:
        return taken(steps), None
    import asyncio  # programs without a loop don't pay for it

    cancelled: asyncio.CancelledError | None = None
    try:
        step = next(steps)
        while cancelled is None:
            asked = asyncio.create_task(asyncio.to_thread(step))
            cancelled = await ended(asked)
            try:
                answer = asked.result()
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return cast(T, end.value), cancelled
    steps.close()
    raise cancelled


def _settled(case: Case) -> Verdict | Remembered:
    """Return the verdict on a call, where that needs no wait and one attempt will do: most. Else what it needs."""
    if (stopped := refused(case)) is not None:
        return Verdict(stopped, case.request, None, case.cause)
    try:
        remembered = case.remembered()
        if remembered.stateful and not _at_hand(case, remembered):
            return remembered
        decision, inputs = asked(case, case.policies.judge)
        if decision.outcome is Outcome.REVIEW and (decision.spends or _consults(case, decision)):
            return remembered
        if not (decision.allowed and (remembered.writes or remembered.reads)):
            return _unless_stopped(case, Verdict(decision, case.request, inputs))
        intent = _intent(case, remembered, decision)
        answer = DONE if intent is NOTHING_TO_DO else case.store.commit(intent)
        return remembered if isinstance(answer, Stale) else _answered(case, decision, inputs, answer)
    except StateError as error:
        return _unanswered(case, error)
    except Exception as error:  # a fault of the library's or the host's own: never an allow
        return _broken(case, error)


def _at_hand(case: Case, remembered: Remembered) -> bool:
    """Say whether what a call asks of its session's past can be had without waiting, and ask about the call with it."""
    if remembered.reads or remembered.writes:
        if case.store.blocking or case.observing or case.lags():
            return False
    elif remembered.started and case.lags():
        return False
    if remembered.reads and case.memory is not None:
        try:
            case.ask_now(case.store.read(case.memory.id))
        except StateError:  # there is more to it
            return False
    return True


def _answered(case: Case, decision: Decision, inputs: Inputs, answer: Answer) -> Verdict:
    """Return the verdict on what was allowed, as the store answers to what it changes."""
    decision = _limited(case, decision, answer)
    reservation = answer.reservation if isinstance(answer, Committed) else None
    verdict = Verdict(decision, case.request, inputs, None, reservation)
    return _unless_stopped(case, verdict) if decision.allowed else verdict


def _unless_stopped(case: Case, verdict: Verdict) -> Verdict:
    """Return what was decided, or the denial by what who asks still has against it."""
    if case.objects is None or not verdict.decision.allowed or (stop := case.objects()) is None:
        return verdict
    return Verdict(denied(case, *stop), case.request, None, None, verdict.reservation, heard=verdict.heard)


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
                    return Verdict(denied(case, *stop), case.request)
                continue
            if isinstance(answer, Refused) and answer.approvals and intent.approvals:
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
        if not decision.spends:  # many calls may share it
            return decision
        if answer.budgets:
            return decision._budgeted(answer.budgets)
        if decision.budgets:  # where nothing is reserved, it was tried before
            return decision
    told = answer.full if isinstance(answer, Refused) else ()  # what is only tried can't be out of date
    full = {budget.key for budget in told if not budget.fits}
    by_limits = [spend for spend in decision.spends if spend.key in full]
    if not by_limits:
        raise StateError("the state store gave an answer that is none")
    return enforced(case, denied_by_limits(decision, by_limits, told))


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
