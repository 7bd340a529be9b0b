"""Run the four kinds of function (plain, coroutine, generator, async generator), each decided before it runs."""

from __future__ import annotations

import functools
import inspect
import time
import types
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final, final

from agentauthz.active import ACTIVE, Current
from agentauthz.calls import Effect, Verdict
from agentauthz.request import Resource
from agentauthz.session import Session

if TYPE_CHECKING:
    from agentauthz.guard import Guarded


def _here(session: Session, verdict: Verdict) -> Current:
    resource = verdict.request.resource
    original = resource.original if type(resource) is Resource and resource.original is not None else resource
    return Current.inside(session, verdict.decision, original, verdict.begun())


def _leave(mine: Current, before: Current | None) -> None:
    """Make `before` current again, unless another context, or work that is still inside, holds the place."""
    if ACTIVE.get() is mine:
        ACTIVE.set(before)


def _function(guarded: Guarded, bound: Session | None) -> Callable[..., Any]:
    binder, function = guarded.binder, guarded.function

    def call(*args: Any, **kwargs: Any) -> Any:
        values, asked = guarded.taken(binder.bind(*args, **kwargs))
        session = guarded.session_for(bound)
        if guarded.looks_up:
            asked = guarded.resolved(asked, values)
        verdict = session.authorizer.decide_call(session, asked)
        guarded.let(session, verdict, values)
        before, mine = ACTIVE.get(), _here(session, verdict)
        ACTIVE.set(mine)
        started, problem, ran, awaited = time.perf_counter_ns(), None, False, False
        try:
            if session.closed or verdict.decision.obligations:  # since it was decided, while those were carried out
                session.ensure_running()
            ran = True
            result = binder.call(function, values)
            if type(result) is types.CoroutineType:  # nothing of it has run yet
                awaited = True
                return _when_awaited(result, mine, verdict, started)
            return result if verdict.carrying is None else verdict.carrying.result(verdict.decision, result)
        except BaseException as error:
            problem = error
            if verdict.carrying is not None:
                verdict.carrying.ended(verdict.decision, error)
            raise
        finally:
            _leave(mine, before)
            if not awaited and session.authorizer.follows(verdict, ran=ran):
                session.authorizer.finish_call(session, verdict.effect(problem, started, ran=ran))

    return call


def _when_awaited(running: Coroutine[Any, Any, Any], mine: Current, verdict: Verdict, started: int) -> Any:
    """Return what runs the coroutine that a function returned; where nobody ever awaits that, the call was stopped."""
    later = _awaited(running, mine, verdict, later=True)
    weakref.finalize(later, _given_up, running, mine.session, verdict, started).atexit = False
    return later


def _given_up(running: Coroutine[Any, Any, Any], session: Session, verdict: Verdict, started: int) -> None:
    if not _is_unbegun(running):
        return
    running.close()
    error = GeneratorExit()  # as where one is closed that has begun
    try:
        if verdict.carrying is not None:
            verdict.carrying.ended(verdict.decision, error)
    finally:
        if session.authorizer.follows(verdict):
            session.authorizer.finish_call(session, verdict.effect(error, started))


def _is_unbegun(running: Coroutine[Any, Any, Any]) -> bool:
    return type(running) is types.CoroutineType and inspect.getcoroutinestate(running) == inspect.CORO_CREATED


def _coroutine(guarded: Guarded, bound: Session | None) -> Callable[..., Any]:
    binder, function = guarded.binder, guarded.function

    async def call(*args: Any, **kwargs: Any) -> Any:
        values, asked = guarded.taken(binder.bind(*args, **kwargs))
        session = guarded.session_for(bound)
        if guarded.looks_up:  # a coroutine costs something even where it has nothing to do
            asked = await guarded.aresolved(asked, values)
        verdict = await session.authorizer.adecide_call(session, asked)
        guarded.let(session, verdict, values)
        running = binder.call(function, values)
        return await _awaited(running, _here(session, verdict), verdict, cancelled=guarded.cancelled)

    return call


async def _until_it_falls(running: Coroutine[Any, Any, Any], session: Session) -> Any:
    from agentauthz.guard.cancelling import Cancelling  # programs without a loop don't pay for it

    with Cancelling(session):
        return await running


async def _awaited(
    running: Coroutine[Any, Any, Any], mine: Current, verdict: Verdict, *, later: bool = False, cancelled: bool = False
) -> Any:
    """Run a call's coroutine under its session, and tell how it ended.

    `later` says that it may have waited long, `cancelled` that it is cancelled when its session falls.
    """
    session, before = mine.session, ACTIVE.get()
    ACTIVE.set(mine)
    started, problem, ran = time.perf_counter_ns(), None, True
    try:
        if later or session.closed or verdict.decision.obligations:  # since it was decided
            session.ensure_running()
        result = await (_until_it_falls(running, session) if cancelled else running)
        return result if verdict.carrying is None else await verdict.carrying.aresult(verdict.decision, result)
    except BaseException as error:
        problem, ran = error, later or not _is_unbegun(running)
        running.close()  # where it hasn't begun, it never will
        if verdict.carrying is not None:
            await verdict.carrying.aended(verdict.decision, error)
        raise
    finally:
        _leave(mine, before)
        if session.authorizer.follows(verdict, ran=ran):
            await _afinish(session, verdict.effect(problem, started, ran=ran))


@final
class _Steps:
    """Run each step of a generator under its own session, and give the place back in between.

    `begun` says that the first one was taken.
    """

    def __init__(self, mine: Current) -> None:
        self.session: Final = mine.session
        self._inside: Current | None = mine
        self._outside: Current | None = None
        self.begun = False

    def __enter__(self) -> None:
        self._outside = ACTIVE.get()
        ACTIVE.set(self._inside)

    def __exit__(self, *_: object) -> None:
        # the generator may have entered a session of its own, which is still open at its next step
        self._inside = ACTIVE.get()
        ACTIVE.set(self._outside)


def _generator(guarded: Guarded, bound: Session | None) -> Callable[..., Any]:
    binder, function = guarded.binder, guarded.function

    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        values, asked = guarded.taken(binder.bind(*args, **kwargs))
        session = guarded.session_for(bound)
        if guarded.looks_up:
            asked = guarded.resolved(asked, values)
        verdict = session.authorizer.decide_call(session, asked)
        guarded.let(session, verdict, values)
        step = _Steps(_here(session, verdict))
        started, problem = time.perf_counter_ns(), None
        try:
            return (yield from _stepped(binder.call(function, values), step, verdict))
        except BaseException as error:
            problem = error
            if verdict.carrying is not None:
                verdict.carrying.ended(verdict.decision, error)
            raise
        finally:
            if session.authorizer.follows(verdict, ran=step.begun):
                session.authorizer.finish_call(session, verdict.effect(problem, started, ran=step.begun))

    return call


def _stepped(inner: Generator[Any, Any, Any], step: _Steps, verdict: Verdict) -> Generator[Any, Any, Any]:
    resume: Callable[[], Any] = functools.partial(next, inner)
    carrying, decision = verdict.carrying, verdict.decision
    try:
        while True:
            step.session.ensure_running()
            step.begun = True
            try:
                with step:
                    item = resume()
            except StopIteration as end:
                if carrying is not None and end.value is None:
                    carrying.ended(decision)
                return end.value if carrying is None or end.value is None else carrying.result(decision, end.value)
            if carrying is not None:
                item = carrying.item(decision, item)
            try:
                resume = functools.partial(inner.send, (yield item))
            except GeneratorExit:
                raise
            except BaseException as thrown:
                resume = functools.partial(inner.throw, thrown)
    finally:
        with step:
            inner.close()


def _async_generator(guarded: Guarded, bound: Session | None) -> Callable[..., Any]:
    binder, function = guarded.binder, guarded.function

    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        values, asked = guarded.taken(binder.bind(*args, **kwargs))
        session = guarded.session_for(bound)
        if guarded.looks_up:  # a coroutine costs something even where it has nothing to do
            asked = await guarded.aresolved(asked, values)
        verdict = await session.authorizer.adecide_call(session, asked)
        guarded.let(session, verdict, values)
        inner, step = binder.call(function, values), _Steps(_here(session, verdict))
        resume: Callable[[], Any] = functools.partial(inner.asend, None)
        started, problem = time.perf_counter_ns(), None
        try:
            while True:
                session.ensure_running()
                step.begun = True
                try:
                    with step:
                        item = await resume()
                except StopAsyncIteration:
                    if verdict.carrying is not None:
                        await verdict.carrying.aended(verdict.decision)
                    return
                if verdict.carrying is not None:
                    item = await verdict.carrying.aitem(verdict.decision, item)
                try:
                    resume = functools.partial(inner.asend, (yield item))
                except GeneratorExit:
                    raise
                except BaseException as thrown:
                    resume = functools.partial(inner.athrow, thrown)
        except BaseException as error:
            problem = error
            raise
        finally:
            try:
                with step:
                    await inner.aclose()
                if problem is not None and verdict.carrying is not None:
                    await verdict.carrying.aended(verdict.decision, problem)
            finally:
                if session.authorizer.follows(verdict, ran=step.begun):
                    await _afinish(session, verdict.effect(problem, started, ran=step.begun))

    return call


async def _afinish(session: Session, effect: Effect) -> None:
    if isinstance(effect.error, GeneratorExit):  # what is being closed may not wait
        session.authorizer.finish_call(session, effect)
    else:
        await session.authorizer.afinish_call(session, effect)


_KINDS: Final[tuple[tuple[Callable[[object], bool], Callable[..., Any]], ...]] = (
    (inspect.iscoroutinefunction, _coroutine),
    (inspect.isasyncgenfunction, _async_generator),
    (inspect.isgeneratorfunction, _generator),
)


def runner_of(function: Callable[..., Any]) -> Callable[[Guarded, Session | None], Callable[..., Any]]:
    """Return what makes the wrapper of a function of this kind, in a session or in the one that is current then."""
    return next((run for is_such, run in _KINDS if is_such(function)), _function)
