"""Be a call that is made by hand around some work: decided before it, its effect recorded after it."""

from __future__ import annotations

import time
import warnings
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Final, final

from attrs import evolve

from agentauthz.calls import Call, Deciding, Verdict, allowed, repeatable
from agentauthz.decision import Decision
from agentauthz.errors import SessionError
from agentauthz.obligations.handler import Reach
from agentauthz.settling import Settlement

if TYPE_CHECKING:
    from agentauthz.session import Session


@final
class Performing:
    """Authorize on entry, and record on exit how the work ended. Made by `Session.perform`, used once."""

    def __init__(self, session: Session, authorizer: Deciding, call: Call) -> None:
        self._session = session
        self._authorizer = authorizer
        call.reach = Reach.AROUND
        self._call: Call | None = call
        self._made: Final = call
        self._started = 0
        self._ran = False
        self._verdict: Verdict | None = None

    def __del__(self) -> None:
        # SECURITY: `session.perform("x")` without `with` looks like a check, and would check nothing
        if getattr(self, "_call", None) is not None:
            self._session.close()
            warnings.warn(
                "perform(…) was called but never entered, so nothing was checked; the session is closed: "
                "write `with session.perform(…):`",
                stacklevel=2,
            )

    def __enter__(self) -> Decision:
        decision = self._begin(self._authorizer.decide_call(self._session, self._take()))
        try:
            self._begin_work(decision)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return decision

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        verdict = self._leave()
        try:
            if verdict.carrying is not None:
                verdict.carrying.ended(verdict.decision, error)
        finally:
            if self._authorizer.follows(verdict, ran=self._ran):
                self._authorizer.finish_call(self._session, verdict.effect(error, self._started, ran=self._ran))

    async def __aenter__(self) -> Decision:
        decision = self._begin(await self._authorizer.adecide_call(self._session, self._take()))
        try:
            self._begin_work(decision)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return decision

    def _begin_work(self, decision: Decision) -> None:
        """Let the work begin; raise where the session has fallen while what the decision obliges to was carried out."""
        if decision.obligations or self._session.closed:
            self._session.ensure_running()
        self._ran = True
        if self._verdict is not None:
            self._verdict.begun()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        verdict = self._leave()
        try:
            if verdict.carrying is not None:
                await verdict.carrying.aended(verdict.decision, error)
        finally:
            if self._authorizer.follows(verdict, ran=self._ran):
                await self._authorizer.afinish_call(self._session, verdict.effect(error, self._started, ran=self._ran))

    def settle(self, /, **amounts: Decimal | int) -> None:
        """Say how much the work has really taken of each limit, as the function `settle` does for a decorated one.

        Raises:
            InvalidArgument: as `settle`.
            SessionError: the work hasn't begun, or has ended.
        """
        if (verdict := self._verdict) is None:
            raise SessionError("the work isn't running: say what it took inside of the `with`")
        (Settlement(verdict.decision) if verdict.settlement is None else verdict.settlement).settle(amounts)

    def _take(self) -> Call:
        call, self._call = self._call, None
        if call is None:
            raise SessionError("`perform` is one call: ask for another to make it again")
        return call

    def _begin(self, verdict: Verdict) -> Decision:
        decision = allowed(repeatable(verdict, self._again))
        self._verdict = verdict
        self._started = time.perf_counter_ns()
        return decision

    def _again(self, approval: str) -> Performing:
        return Performing(self._session, self._authorizer, evolve(self._made, approval=approval))

    def _leave(self) -> Verdict:
        verdict, self._verdict = self._verdict, None
        if verdict is None:
            raise SessionError("`perform` is entered once and left once: ask for another to make the call again")
        return verdict
