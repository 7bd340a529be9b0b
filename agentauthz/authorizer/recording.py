"""Turn decisions and effects into records, and a record that can't be kept into a denial."""

from __future__ import annotations

import datetime as dt
import functools
import json
import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Literal, TypeAlias, final

from attrs import evolve

from agentauthz.approvals.review import Review
from agentauthz.authorizer.case import Case
from agentauthz.calls import NOTHING, Effect, Verdict
from agentauthz.canonical import Json, class_name, encode, jsonable
from agentauthz.decision import Basis, Outcome, Reason
from agentauthz.delegating import PASSING
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.keys import InstanceKey
from agentauthz.policy.syntax import Path
from agentauthz.principals import Principal
from agentauthz.records import DecisionRecord, DelegationRecord, EffectRecord, Recorder, RecordIds, decision_record
from agentauthz.records.events import Ctx, EventRecord, actor_about, approval_about, effect_line, event_body
from agentauthz.records.lines import ALONE, name
from agentauthz.records.passing import Passing, delegation_record
from agentauthz.records.record import Cause
from agentauthz.records.redaction import Redaction
from agentauthz.records.writing import ended
from agentauthz.tracing import Tracer, around
from agentauthz.values import UNKNOWN

_NONE: Final[frozenset[str]] = frozenset()

OnFailure: TypeAlias = Literal["deny", "allow_and_alarm"] | Collection[str]


@final
class Recording:
    """Write what an authorizer decided to its sinks.

    A decision that can't be recorded is denied, unless `regardless` says that its action goes ahead where only sinks
    fail; an effect that can't be is logged, since the call has run.
    """

    def __init__(
        self,
        recorder: Recorder,
        key: InstanceKey,
        regardless: Callable[[str], bool],
        tracer: Tracer,
        redaction: Redaction | None = None,
    ) -> None:
        self.recorder: Final = recorder
        self.tracer: Final = tracer
        self._redaction: Final = redaction
        self._regardless: Final = regardless
        self._key: Final = key
        self._ids: Final = RecordIds()
        self._late: Final[deque[EffectRecord]] = deque()

    def write(self, case: Case, verdict: Verdict) -> Verdict:
        """Record a decision, and give it the record's id; what is returned is a denial where that fails."""
        try:
            if self.recorder.wants(verdict.decision):
                self.recorder.write(
                    self._record(case, verdict), case.policies, regardless=self._regardless(verdict.decision.action)
                )
        except Exception as error:  # what can't be recorded must not happen
            return _unrecorded(verdict, error)
        finally:
            if self._late:
                self._catch_up()
        return verdict

    async def awrite(self, case: Case, verdict: Verdict) -> Verdict:
        """Do what `write` does without blocking the loop on a sink, or on what keeps openings."""
        if self._redaction is not None and self._redaction.shreds:
            return await self._in_thread(case, verdict)
        try:
            if self.recorder.wants(verdict.decision):
                await self.recorder.awrite(
                    self._record(case, verdict), case.policies, regardless=self._regardless(verdict.decision.action)
                )
        except Exception as error:
            return _unrecorded(verdict, error)
        finally:
            if self._late:
                self._catch_up()
        return verdict

    async def _in_thread(self, case: Case, verdict: Verdict) -> Verdict:
        import asyncio  # programs without a loop don't pay for it

        task = asyncio.create_task(asyncio.to_thread(self.write, case, verdict))
        cancelled = await ended(task)
        if cancelled is not None:
            raise cancelled
        try:
            return task.result()
        except RuntimeError as error:  # no thread could be had
            return _unrecorded(verdict, error)

    def write_passing(
        self, passing: Passing, session: str | None, now: dt.datetime, before: str | None = None
    ) -> str | None:
        """Record an attempt to pass authority on; return the record's id, None where no sink wants it.

        `before` is its cause where it has none of its own and no call is running here. What was refused already is,
        though its record be lost: that is logged.

        Raises:
            SinkError: the record of what would go ahead couldn't be kept, so it must not.
        """
        try:
            if (record := self._passing(passing, session, now, before)) is not None:
                self.recorder.write(record, regardless=self._regardless(PASSING))
        except Exception as error:
            _unpassed(passing, error)
            return None
        return None if record is None else record.id

    async def awrite_passing(
        self, passing: Passing, session: str | None, now: dt.datetime, before: str | None = None
    ) -> str | None:
        """Do what `write_passing` does without blocking the loop on a sink."""
        try:
            if (record := self._passing(passing, session, now, before)) is not None:
                await self.recorder.awrite(record, regardless=self._regardless(PASSING))
        except Exception as error:
            _unpassed(passing, error)
            return None
        return None if record is None else record.id

    def write_state(
        self, about: Mapping[str, str], session: str | None, now: dt.datetime, by: Principal | None = None
    ) -> None:
        """Record what the host did to what sessions remember, or may do, on whose order.

        Raises:
            SinkError: it couldn't be recorded.
        """
        if self.recorder.writing():
            raise SinkError("a sink may not ask for this")
        told: dict[str, object] = {key: name(text) for key, text in about.items()}
        if by is not None:
            told["by"] = actor_about(by)
        body = event_body("state", self._ids.next(now), now, told, session, self.tracer.member(around()))
        self.recorder.write(EventRecord.of_line(ALONE + body))

    def write_approval(
        self, event: str, review: Review, now: dt.datetime, by: Principal | None = None, reason: str = ""
    ) -> None:
        """Record what became of a review, who did it, and why.

        Raises:
            SinkError: it couldn't be recorded.
        """
        if self.recorder.writing():
            raise SinkError("a sink may not answer a review")
        ctx = Ctx(**json.loads(f"{{{self.tracer.member()[1:]}}}").get("ctx", {}))
        about = approval_about(event, review.id, review.binding, review.expires, by, reason)
        self.recorder.write(
            EventRecord(id=self._ids.next(now), ts=now, type="approval", about=about, session=review.session, ctx=ctx)
        )

    def digest(self, purpose: str, name: str) -> str:
        """Return the keyed digest by which records name something."""
        return self._key.digest(purpose, name.encode("utf-8", "surrogatepass"))

    def write_effect(self, session: str | None, effect: Effect, now: dt.datetime) -> None:
        """Record how a call ended; `session` is the id of the one that it was made in."""
        if (record := self._effect(session, effect, now)) is not None:
            self._late.append(record)
            self._catch_up()

    async def awrite_effect(self, session: str | None, effect: Effect, now: dt.datetime) -> None:
        """Do what `write_effect` does without blocking the loop on a sink."""
        if (record := self._effect(session, effect, now)) is not None:
            try:
                await self.recorder.awrite(record)
            except Exception:  # the call has run: its result must not be lost for it
                _log_lost(record)
            self._catch_up()

    def _catch_up(self) -> None:
        """Write the effects that are waiting, unless a sink is at work here.

        A generator that nobody uses any more ends wherever Python collects it: also inside a sink, whose locks are
        taken then.
        """
        while self._late and not self.recorder.writing():
            try:
                record = self._late.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                self.recorder.write(record)
            except Exception:  # the call has run: its result must not be lost for it
                _log_lost(record)

    def _record(self, case: Case, verdict: Verdict) -> DecisionRecord:
        request, inputs = verdict.request, verdict.inputs
        own, ctx = self._ids.next(request.now), self.tracer.member()
        decision = verdict.decision  # not numbered yet: what calls share keeps what records write of it
        verdict.decision = decision._numbered(own, ctx)
        refused = decision.outcome is not Outcome.ALLOW
        sealed = veiled = _NONE
        if decision.budgets and (case.sensitive or self._redaction is not None):
            limits, hidden = [budget.rule for budget in decision.budgets], self._hides(case.sensitive)
            sealed, veiled = case.policies.keyed_by(limits, hidden), case.policies.measured_by(limits, hidden)
            verdict.veiled = veiled
        held = None
        if self._redaction is not None:
            asked = case.policies.asked(request) if inputs is None else inputs
            held = self._redaction.held(functools.partial(getattr, asked), request)
        return decision_record(
            id=own,
            ts=request.now,
            request=request,
            args={} if request.args is UNKNOWN else request.args,
            decision=decision,
            seen=[] if inputs is None else case.policies.seen(inputs),
            explain=case.policies.clauses(decision, inputs) if refused and inputs is not None else None,
            sensitive=case.sensitive,
            key=self._key,
            mode="observe" if case.observing else "enforce",
            cause=_cause(case, verdict),
            left=case.left,
            approval=verdict.decision.approval,
            consents=_consents(case, verdict),
            sealed=sealed,
            veiled=veiled,
            held=held,
            ctx=ctx,
        )

    def _hides(self, sensitive: frozenset[str]) -> Callable[[Path], bool]:
        """Return what says of a path that policies read whether records may not show what stands there."""

        def hides(path: Path) -> bool:
            if path.root == "args" and (not path.steps or path.steps[0] in sensitive):
                return True
            # a principal by itself is its identity, which records hold
            return self._redaction is not None and bool(path.steps) and not self._redaction.place(str(path)).open

        return hides

    def _passing(
        self, passing: Passing, session: str | None, now: dt.datetime, before: str | None
    ) -> DelegationRecord | None:
        if self.recorder.writing():
            raise SinkError("a sink may not pass authority on")
        if not self.recorder.wants_delegations():
            return None
        own, ctx = self._ids.next(now), self.tracer.member(passing.cause or around() or before)
        return delegation_record(passing, id=own, ts=now, session=session, key=self._key, ctx=ctx)

    def _effect(self, session: str | None, effect: Effect, now: dt.datetime) -> EffectRecord | None:
        if (of := effect.decision.record_id) is None or not self.recorder.wants_effects():
            return None  # what wasn't recorded has no effect to tell of
        line = effect_line(
            id=self._ids.next(now),
            ts=now,
            of=of,
            status=effect.status,
            action=effect.decision.action,
            session=session,
            error_type=None if effect.error is None else class_name(effect.error),
            dur_us=effect.ns // 1000,
            left=sorted(effect.left),
            spent=self._spent(effect) if effect.spent else NOTHING,
            ctx=effect.decision._ctx,
        )
        return EffectRecord.of_line(line)

    def _spent(self, effect: Effect) -> Mapping[str, Json]:
        """Return what limits took in the end, as records write it: where its decision commits to an amount, so."""
        veiled = _NONE if effect.settlement is None else effect.settlement.veiled
        told = {rule: jsonable(amount) for rule, amount in effect.spent.items()}
        return {
            rule: {"$c": self._key.digest("value", encode(amount))} if rule in veiled else amount
            for rule, amount in told.items()
        }


def regardless(on_failure: OnFailure) -> Callable[[str], bool]:
    """Return what says of an action whether it goes ahead where its record couldn't be kept.

    Raises:
        InvalidArgument: another word, or a list of something other than actions.
    """
    if isinstance(on_failure, str):
        if on_failure not in ("deny", "allow_and_alarm"):
            raise InvalidArgument("on_failure", 'must be "deny", "allow_and_alarm" or a list of actions')
        return lambda _: on_failure == "allow_and_alarm"
    if not isinstance(on_failure, Collection) or not all(isinstance(action, str) for action in on_failure):
        raise InvalidArgument("on_failure", 'must be "deny", "allow_and_alarm" or a list of actions')
    return frozenset(on_failure).__contains__


def _cause(case: Case, verdict: Verdict) -> Cause | None:
    """Return what decided apart from the policies."""
    if verdict.heard is not None and verdict.heard.refused:
        return "approval"
    if verdict.inputs is not None:
        return None if case.problem is None else "problem"
    if case.closed or case.stopped is not None:
        return "stopped"
    return "problem" if case.problem is not None and not case.observing else "failed"


def _consents(case: Case, verdict: Verdict) -> Sequence[tuple[Principal, frozenset[str]]]:
    """Return who consented, each with the names of the attributes that the policies ask of an approver."""
    if verdict.heard is None:
        return ()
    reads = case.policies.approver_reads(verdict.decision.action)
    return [(each.by, reads) for each in verdict.heard.consents]


def _unrecorded(verdict: Verdict, error: Exception) -> Verdict:
    """Return the denial of a call whose record couldn't be kept; observe mode doesn't let it run either."""
    reasons = (Reason("not_recorded", "the decision couldn't be recorded"), *verdict.decision.reasons)
    budgets = tuple(evolve(budget, granted=False) for budget in verdict.decision.budgets)  # all of it is given back
    denial = evolve(
        verdict.decision, outcome=Outcome.DENY, basis=Basis.ERROR, reasons=reasons, obligations=(), enforced=True,
        budgets=budgets,
    )  # fmt: skip
    return Verdict(denial, verdict.request, verdict.inputs, error, verdict.reservation, heard=verdict.heard)


def _unpassed(passing: Passing, error: Exception) -> None:
    """Refuse what can't be recorded; log it where it was refused already.

    Raises:
        SinkError: it would have gone ahead.
    """
    if passing.outcome == "passed":
        raise SinkError("the delegation couldn't be recorded, so nothing is passed on") from error
    logging.getLogger("agentauthz.records").error("a refused delegation couldn't be recorded: %s", class_name(error))


def _log_lost(record: EffectRecord) -> None:
    logging.getLogger("agentauthz.records").error("the effect of decision %s couldn't be recorded", record.of)
