"""Carry out what a decision obliges to: before the call, around it, and on its result."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar, cast, final

from attrs import evolve, frozen

from agentauthz.authorizer.case import Case
from agentauthz.authorizer.enforcing import unmet
from agentauthz.authorizer.handlers import required
from agentauthz.calls import Status, Verdict
from agentauthz.canonical import class_name
from agentauthz.decision import Basis, Decision, Outcome, Reason
from agentauthz.errors import Denied, InvalidArgument
from agentauthz.obligations.handler import Duty, Handler, is_async

T = TypeVar("T")


@final
@frozen(eq=False)
class _Step:
    """Be one thing that a handler does; `awaits` says that what it returns must be awaited."""

    do: Callable[[], object]
    awaits: bool = False


_Steps: TypeAlias = Generator[_Step, Any, T]


@final
class _Closed(BaseException):
    """Stand for a GeneratorExit inside of steps: thrown into a generator, that closes those within it at once."""

    def __init__(self, error: GeneratorExit) -> None:
        super().__init__()
        self.error: Final = error


def _inside(error: BaseException) -> BaseException:
    return _Closed(error) if isinstance(error, GeneratorExit) else error


def _outside(error: BaseException) -> BaseException:
    return error.error if isinstance(error, _Closed) else error


def _taken(steps: _Steps[T]) -> T:
    """Take each step, and return what they lead to; one that must be awaited fails here."""
    return _driven(steps)


async def _ataken(steps: _Steps[T]) -> T:
    """Do what `_taken` does, and await the steps that ask for it."""
    try:
        step = next(steps)
        while True:
            try:
                answer = await cast("Awaitable[object]", step.do()) if step.awaits else _now(step)
            except GeneratorExit as error:  # what is being closed may not wait for anything more
                return _driven(steps, error)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return cast(T, end.value)
    except _Closed as closed:
        raise closed.error from None


def _driven(steps: _Steps[T], problem: BaseException | None = None) -> T:
    try:
        step = next(steps) if problem is None else steps.throw(_inside(problem))
        while True:
            try:
                answer = _now(step)
            except BaseException as error:
                step = steps.throw(_inside(error))
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return cast(T, end.value)
    except _Closed as closed:
        raise closed.error from None


def _now(step: _Step) -> object:
    if step.awaits:
        raise InvalidArgument("obligations", "has a handler that must be awaited, and this call can't wait")
    answer = step.do()
    if inspect.iscoroutine(answer):
        answer.close()
        raise InvalidArgument("obligations", "has a handler that returned a coroutine: define it with `async def`")
    return answer


@final
class Carrying:
    """Be what is still to be done for the obligations of one call: contexts to leave, a result to change.

    `left` has the ids of those whose handler failed then, and `status`, where it is known better than by an error, how
    the function itself ended.
    """

    def __init__(self) -> None:
        self.left: frozenset[str] = frozenset()
        self.status: Status | None = None
        self._entered: Final[list[tuple[Duty, Callable[[BaseException | None], _Step]]]] = []
        self._after: Final[list[tuple[Duty, Handler]]] = []

    # ---- before the call

    def begin(self, due: list[tuple[Duty, Handler]], *, awaits: bool) -> _Steps[None]:
        """Enter the contexts of a call that may run, and keep what its result is to be given to.

        Raises:
            BaseException: what a handler raised, once the contexts that were entered are left.
        """
        try:
            for duty, handler in due:
                if handler.around is not None:
                    yield from self._enter(duty, handler.around, awaits=awaits)
        except BaseException as error:
            yield from self._leaving(error)
            raise
        self._after.extend((duty, handler) for duty, handler in due if handler.after is not None)

    def _enter(self, duty: Duty, around: Callable[[Duty], Any], *, awaits: bool) -> _Steps[None]:
        try:
            manager: Any = yield _Step(lambda: around(duty))
            kind = type(manager)
            if awaits and hasattr(kind, "__aenter__"):
                yield _Step(lambda: kind.__aenter__(manager), awaits=True)
                leave = partial(_leave, kind.__aexit__, manager, awaits=True)
            else:
                yield _Step(lambda: _done(kind.__enter__(manager)))
                leave = partial(_leave, kind.__exit__, manager, awaits=False)
        except BaseException:
            self._fail(duty)
            raise
        self._entered.append((duty, leave))

    # ---- after it

    def ended(self, decision: Decision, error: BaseException | None = None) -> None:
        """Leave the contexts of a call that ended with `error`, or without one; doing it again changes nothing.

        Raises:
            Denied: it ended well, and a handler didn't.
        """
        _taken(self._ending(decision, error))

    async def aended(self, decision: Decision, error: BaseException | None = None) -> None:
        """Do what `ended` does, and await async contexts; what is being closed may not, so that those aren't left."""
        if isinstance(error, GeneratorExit):
            self.ended(decision, error)
        else:
            await _ataken(self._ending(decision, error))

    def result(self, decision: Decision, value: object) -> object:
        """Leave the contexts, and return what the caller gets instead of what the function returned.

        Raises:
            Denied: a handler failed, so the result is withheld.
        """
        return _taken(self._finishing(decision, value))

    async def aresult(self, decision: Decision, value: object) -> object:
        """Do what `result` does, and await handlers."""
        return await _ataken(self._finishing(decision, value))

    def item(self, decision: Decision, value: object) -> object:
        """Return what the caller gets instead of an item of a generator.

        Raises:
            Denied: a handler failed, so the item is withheld, and the generator must end.
        """
        return _taken(self._stepping(decision, value))

    async def aitem(self, decision: Decision, value: object) -> object:
        """Do what `item` does, and await handlers."""
        return await _ataken(self._stepping(decision, value))

    # ---- the same for both

    def _finishing(self, decision: Decision, value: object) -> _Steps[object]:
        yield from self._ending(decision, None)
        return (yield from self._changed(decision, value))

    def _stepping(self, decision: Decision, value: object) -> _Steps[object]:
        try:
            return (yield from self._changed(decision, value))
        except BaseException:
            self.status = "stopped"  # by its item being withheld
            raise

    def _changed(self, decision: Decision, value: object) -> _Steps[object]:
        for duty, handler in self._after:
            try:
                value = yield _Step(partial(cast("Callable[..., object]", handler.after), duty, value),
                                    is_async(handler.after))  # fmt: skip
            except BaseException as error:
                self._fail(duty)
                if isinstance(error, Exception):
                    raise _withheld(decision) from error
                raise
        return value

    def _ending(self, decision: Decision, error: BaseException | None) -> _Steps[None]:
        if error is None:
            self.status = "done"
        problem = yield from self._leaving(error)
        if error is None and problem is not None:
            if isinstance(problem, Exception):
                raise _withheld(decision) from problem
            raise problem

    def _leaving(self, error: BaseException | None) -> _Steps[BaseException | None]:
        """Leave every context, the last one first; return the first thing that one of them raised itself."""
        first: BaseException | None = None
        error = None if error is None else _outside(error)
        while self._entered:
            duty, leave = self._entered.pop()
            told = error if first is None else first
            try:
                yield leave(told)
            except BaseException as raised:
                problem = _outside(raised)
                if problem is told:
                    continue  # as a generator that is a context does
                self._fail(duty)
                _log(duty, problem)
                first = problem if first is None else first
        return first

    def _fail(self, duty: Duty) -> None:
        self.left |= {duty.obligation.id}


def _withheld(decision: Decision) -> Denied:
    """Return what says that a call has run, and that its result doesn't come out: an obligation failed after it."""
    reason = Reason("result_withheld", "an obligation failed once the call had begun, so its result is withheld")
    found = evolve(decision, outcome=Outcome.DENY, basis=Basis.ERROR, reasons=(reason,), enforced=True)
    return Denied(
        f"`{decision.action}` has run, but its result is withheld ({reason.code}). "
        "Don't call it again: report it to the user, and go on without the result.",
        found,
    )


def _leave(exit: Callable[..., object], manager: object, error: BaseException | None, *, awaits: bool) -> _Step:
    """Return what leaves a context; whether it would swallow the error isn't asked."""
    kind, trace = (None, None) if error is None else (type(error), error.__traceback__)
    return _Step(lambda: exit(manager, kind, error, trace), awaits)


def _done(_: object) -> None:
    """Forget what entering a context gave: nobody asks for it."""


def obliges(decision: Decision) -> bool:
    """Say whether anything is to be carried out: of a call that may run, or that an obligation itself denies."""
    return len(decision.obligations) > 0 and (decision.allowed or decision.basis is Basis.ERROR)


def begun(case: Case, verdict: Verdict) -> Verdict:
    """Carry out what the decision on a call obliges to before it runs; one that fails makes it a denial.

    What is raised that is no `Exception` is the cause of that denial, to be raised once it is recorded.
    """
    return _taken(_beginning(case, verdict))


async def abegun(case: Case, verdict: Verdict) -> Verdict:
    """Do what `begun` does, and await handlers."""
    return await _ataken(_beginning(case, verdict))


def _beginning(case: Case, verdict: Verdict) -> _Steps[Verdict]:
    due: list[tuple[Duty, Handler]] = []
    cause: BaseException | None = None
    for one in verdict.decision.obligations:
        if one.id not in case.left and (cause is None or isinstance(cause, Exception)):
            try:
                if not case.sees_to(one):
                    due.append((Duty.of(one, verdict.decision, case.request), case.handlers[one.type]))
                    yield from _before(*due[-1])
            except BaseException as error:
                case.left |= {one.id}
                cause = _outside(error)
    failed = verdict.decision if cause is None else _unmet(case, verdict.decision)
    carrying = Carrying()
    if failed.allowed and (cause is None or isinstance(cause, Exception)):
        try:
            yield from carrying.begin([one for one in due if one[0].obligation.id not in case.left], awaits=case.awaits)
        except BaseException as error:
            case.left |= carrying.left
            cause, failed, carrying = _outside(error), _unmet(case, verdict.decision), Carrying()
    verdict.decision, verdict.cause = failed, cause or verdict.cause
    verdict.carrying = carrying if failed.allowed else None
    return verdict


def _before(duty: Duty, handler: Handler) -> _Steps[None]:
    if handler.before is None:
        return
    answer = yield _Step(partial(handler.before, duty), is_async(handler.before))
    if answer is False:
        raise InvalidArgument("obligations", f"has a handler of `{duty.obligation.type}` that said False")
    if _has_only_begun(answer):
        raise InvalidArgument(
            "obligations",
            f"has a handler of `{duty.obligation.type}` that did nothing yet: its answer must be run first",
        )


def _has_only_begun(answer: object) -> bool:
    """Say whether what a handler returned is work that nobody does: a generator, a context, something to be awaited."""
    return (
        inspect.isgenerator(answer)
        or inspect.isasyncgen(answer)
        or inspect.isawaitable(answer)
        or isinstance(answer, contextlib.ContextDecorator | contextlib.AsyncContextDecorator)
    )


def _unmet(case: Case, decision: Decision) -> Decision:
    names = required(one for one in decision.obligations if one.id in case.left)
    return unmet(case, decision, Reason("obligation_failed", f"the handler of the obligation {names} failed"))


def raise_interrupt(verdict: Verdict) -> None:
    """Raise what a handler raised that is no `Exception`, now that the denial of its call is recorded."""
    if (interrupt := verdict.interrupt) is not None:
        raise interrupt


def _log(duty: Duty, problem: BaseException) -> None:
    logging.getLogger("agentauthz.obligations").error(
        "the obligation %s failed when its call had ended: %s", duty.obligation.id, class_name(problem)
    )
