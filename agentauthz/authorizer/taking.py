"""Take one decision to its end: obligations that act before the call, the record, people who are told, what is left."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NoReturn, final

from agentauthz.authorizer.case import Case
from agentauthz.authorizer.consulting import Consultation
from agentauthz.authorizer.deciding import ajudged, judged
from agentauthz.authorizer.enforcing import failed
from agentauthz.authorizer.obliging import abegun, begun, obliges, raise_interrupt
from agentauthz.authorizer.recording import Recording
from agentauthz.calls import Effect, Verdict
from agentauthz.canonical import class_name
from agentauthz.policy.policyset import PolicySet
from agentauthz.request import SessionFacts
from agentauthz.state.store import Reservation, StateStore

if TYPE_CHECKING:
    from agentauthz.session import Session


@final
class Taking:
    """Decide, commit, carry out and record calls; remember and record how they ended."""

    def __init__(
        self,
        state: StateStore,
        recording: Recording,
        consultation: Consultation,
        policies: Callable[[], PolicySet],
        now: Callable[[], dt.datetime],
    ) -> None:
        self._state: Final = state
        self._recording: Final = recording
        self._consultation: Final = consultation
        self._policies: Final = policies
        self._now: Final = now

    def taken(self, case: Case) -> Verdict:
        if self._recording.recorder.writing():  # a sink that asks for decisions would be asked to record them
            return Verdict(failed(case, "inside_a_sink", "a sink may not ask for a decision"), case.request)
        verdict = judged(case)
        about_people = self._consultation.concerns(verdict)
        if about_people:
            verdict = self._consultation.settled(case, verdict)
        if verdict.cause is not None and (interrupt := verdict.interrupt) is not None:  # `cause`: most have none
            self._given_up(case, verdict, interrupt)
        if verdict.decision.obligations and obliges(verdict.decision):
            verdict = self._obliged(case, begun(case, verdict))
        else:
            verdict = self._recorded(case, verdict)
        if about_people:
            self._consultation.recorded(verdict)
        return verdict

    def _recorded(self, case: Case, verdict: Verdict) -> Verdict:
        try:
            verdict = self._recording.write(case, verdict)
        except BaseException as error:  # an interrupt, which comes when the record is complete
            self._never_ran(case, verdict, error)
            raise
        if (back := _unused(verdict)) is not None:
            self._give_back(back)
        return verdict

    def _obliged(self, case: Case, begun: Verdict) -> Verdict:
        """Record a call whose obligations were carried out as far as they can be before it runs."""
        try:
            verdict = self._recorded(case, begun)
        except BaseException as error:
            if begun.carrying is not None:
                begun.carrying.ended(begun.decision, error)
            raise
        if begun.carrying is not None and not verdict.decision.allowed:
            begun.carrying.ended(verdict.decision, verdict.cause)
        raise_interrupt(begun)
        return verdict

    async def ataken(self, case: Case) -> Verdict:
        if self._recording.recorder.writing():
            return Verdict(failed(case, "inside_a_sink", "a sink may not ask for a decision"), case.request)
        case.awaits = True
        verdict = await ajudged(case)
        if about_people := self._consultation.concerns(verdict):
            verdict = await self._consultation.asettled(case, verdict)
        if verdict.cause is not None and (interrupt := verdict.interrupt) is not None:
            await self._agiven_up(case, verdict, interrupt)
        verdict = await self._akept(case, verdict)
        return await self._atold(case, verdict) if about_people else verdict

    async def _atold(self, case: Case, verdict: Verdict) -> Verdict:
        """Tell that a call has used up its approval, once its decision is recorded."""
        import asyncio  # programs without a loop don't pay for it

        try:
            await asyncio.to_thread(self._consultation.recorded, verdict)
        except BaseException as error:  # the call is cancelled, or no thread could be had: it never runs
            if verdict.carrying is not None:
                await verdict.carrying.aended(verdict.decision, error)
            await self._anever_ran(case, verdict, error)
            raise
        return verdict

    async def _akept(self, case: Case, verdict: Verdict) -> Verdict:
        """Carry out what a call obliges to before it runs, and record its decision."""
        if verdict.decision.obligations and obliges(verdict.decision):
            try:
                verdict = await abegun(case, verdict)
            except GeneratorExit:  # what is being closed may not wait: its denial is recorded, and this is raised again
                return self._obliged(case, verdict)
            return await self._aobliged(case, verdict)
        return await self._arecorded(case, verdict)

    async def _arecorded(self, case: Case, verdict: Verdict) -> Verdict:
        try:
            verdict = await self._recording.awrite(case, verdict)
        except BaseException as error:  # a cancellation, which comes when the record is complete
            await self._anever_ran(case, verdict, error)
            raise
        if (back := _unused(verdict)) is not None:
            import asyncio  # programs without a loop don't pay for it

            await asyncio.to_thread(self._give_back, back)
        return verdict

    async def _aobliged(self, case: Case, begun: Verdict) -> Verdict:
        try:
            verdict = await self._arecorded(case, begun)
        except BaseException as error:
            if begun.carrying is not None:
                await begun.carrying.aended(begun.decision, error)
            raise
        if begun.carrying is not None and not verdict.decision.allowed:
            await begun.carrying.aended(verdict.decision, verdict.cause)
        raise_interrupt(begun)
        return verdict

    def _give_back(self, reservation: Reservation) -> None:
        try:
            self._state.release(reservation)
        except Exception as error:  # it stays spent, which widens nothing
            logging.getLogger("agentauthz.state").error("a reservation couldn't be given back: %s", class_name(error))

    # ---- how a call ended

    def _given_up(self, case: Case, verdict: Verdict, interrupt: BaseException) -> NoReturn:
        """Record what was decided of a call that was given up meanwhile and never runs, and raise what came between."""
        verdict = self._recorded(case, verdict)
        self._consultation.recorded(verdict)
        self._never_ran(case, verdict, interrupt)
        raise interrupt

    async def _agiven_up(self, case: Case, verdict: Verdict, interrupt: BaseException) -> NoReturn:
        verdict = await self._arecorded(case, verdict)
        await self._atold(case, verdict)
        await self._anever_ran(case, verdict, interrupt)
        raise interrupt

    def _never_ran(self, case: Case, verdict: Verdict, error: BaseException) -> None:
        """Record that a call which was allowed was given up before it ran, and give back what was reserved for it."""
        if verdict.decision.allowed:
            session, effect = _session_of(case), verdict.effect(error, time.perf_counter_ns(), ran=False)
            self._recording.write_effect(session, effect, self._ended(effect, session))

    async def _anever_ran(self, case: Case, verdict: Verdict, error: BaseException) -> None:
        if verdict.decision.allowed:
            session, effect = _session_of(case), verdict.effect(error, time.perf_counter_ns(), ran=False)
            if isinstance(error, GeneratorExit):  # what is being closed may not wait
                self._recording.write_effect(session, effect, self._ended(effect, session))
            else:
                await self._aended(effect, session)

    def follows(self, verdict: Verdict, *, ran: bool = True) -> bool:
        """Say whether how a call ended is to be recorded, as its decision was, remembered or settled."""
        if verdict.decision.record_id is not None or verdict.decision.action in self._policies().tracked:
            return True
        if (reservation := verdict.reservation) is None:
            return False
        said = verdict.settlement is not None and verdict.settlement.ended()
        return reservation.id is not None or not ran or bool(said)

    def finish(self, session: Session, effect: Effect) -> None:
        """Remember and record how a call ended; a sink or store that fails now is logged, since the call has run."""
        self._recording.write_effect(session.id, effect, self.finished(effect, session))

    async def afinish(self, session: Session, effect: Effect) -> None:
        """Do what `finish` does without blocking the loop on a sink or the state store."""
        await self._aended(effect, session.id)

    def finished(self, effect: Effect, session: Session | None = None) -> dt.datetime:
        """Remember how a call ended, and return when."""
        return self._ended(effect, None if session is None else session.id)

    async def _aended(self, effect: Effect, session: str | None) -> None:
        if self._state.blocking:
            import asyncio  # programs without a loop don't pay for it

            now = await asyncio.to_thread(self._ended, effect, session)
        else:
            now = self._ended(effect, session)
        await self._recording.awrite_effect(session, effect, now)

    def _ended(self, effect: Effect, session: str | None) -> dt.datetime:
        self._remember(session, effect)
        try:
            return self._now()
        except Exception:  # the call has run: its result must not be lost for it
            logging.getLogger("agentauthz.records").error(
                "the clock failed when a call ended; its effect has the system's time"
            )
            return dt.datetime.now(dt.UTC)

    def _remember(self, session: str | None, effect: Effect) -> None:
        """Remember that a call returned, and settle or give back what it has reserved."""
        said = {} if effect.settlement is None else effect.settlement.ended()
        try:
            if effect.status == "done" and session is not None and effect.decision.action in self._policies().tracked:
                self._state.finish(session, effect.decision.action)
            if effect.reservation is not None and said is not None:
                effect.spent = self._settled(effect.reservation, effect, said)
        except Exception as error:  # the call has run: its result must not be lost for it
            logging.getLogger("agentauthz.state").error(
                "the end of decision %s couldn't be kept: %s", effect.decision.record_id, class_name(error)
            )

    def _settled(self, reservation: Reservation, effect: Effect, said: Mapping[str, Decimal]) -> Mapping[str, Decimal]:
        """Settle what was reserved, and return what the limits took, where it was said or comes back."""
        # an interruption such as Ctrl-C isn't the function's word that nothing was done
        undone = reservation.id is not None and effect.status == "failed" and isinstance(effect.error, Exception)
        if undone or effect.status == "not_run":
            self._state.release(reservation)
            return {spend.rule: Decimal(0) for spend, _ in reservation.parts}
        if said or reservation.id is not None:
            self._state.settle(reservation, said)
        return said


def _session_of(case: Case) -> str | None:
    facts = case.request.session
    return facts.id if isinstance(facts, SessionFacts) else None


def _unused(verdict: Verdict) -> Reservation | None:
    """Return what was reserved for a call that is denied after all."""
    return None if verdict.decision.allowed else verdict.reservation
