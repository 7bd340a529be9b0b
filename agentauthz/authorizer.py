"""Hold `Authorizer`: policies, sessions' memory, sinks and a clock, put together to decide and record."""

from __future__ import annotations

import datetime as dt
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar, cast, final

from attrs import evolve, frozen

from agentauthz.decision import Basis, Decision, Outcome, Reason
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.keys import InstanceKey
from agentauthz.principals import Chain, Principal, zoned
from agentauthz.records import DecisionRecord, EffectRecord, RecordIds, Recorder, Sink, decision_record
from agentauthz.request import Request, Resource, SessionFacts, Unknown
from agentauthz.session import (
    Call,
    Expiry,
    Session,
    Status,
    Verdict,
    allowed,
    moment,
    new_session_id,
)
from agentauthz.state.memory import SessionMemory, State
from agentauthz.values import UNKNOWN, copy_plain, field_reader

if TYPE_CHECKING:
    from agentauthz.policy.explain import Explanation
    from agentauthz.policy.inputs import Inputs
    from agentauthz.policy.policyset import PolicySet

Policies: TypeAlias = "PolicySet | str | os.PathLike[str]"
Mode: TypeAlias = Literal["enforce", "observe"]
T = TypeVar("T")

MAX_ATTEMPTS: Final = 3  # how often a decision is taken afresh because what it read has changed
_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
_OBSERVED: Final = frozenset({Basis.DEFAULT, Basis.LIMIT, Basis.ERROR})  # denials that observe mode lets run


@final
class Authorizer:
    """Decide calls by a policy set, remember what sessions did, and record every decision.

    `policies` is a `PolicySet`, or the path of a file or folder; `digest` pins it. `sinks` None means
    the stdlib logger ``agentauthz.decisions``. `key` makes argument digests; without one, each process
    has its own. `mode` "observe" lets calls run that only lack a permit, a budget or an approval, or
    whose look-ups failed, until `observe_until`. `clock` returns a datetime with a zone.

    Raises:
        InvalidArgument: an argument of the wrong type, a policy set with another digest, "observe"
            without an end, or an end that is past.
        PolicyLoadError, PolicySyntaxError, PolicyCheckError: the policies can't be used.
    """

    def __init__(
        self,
        policies: Policies,
        *,
        sinks: Iterable[Sink] | None = None,
        key: InstanceKey | None = None,
        mode: Mode = "enforce",
        observe_until: dt.datetime | None = None,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        digest: str | None = None,
    ) -> None:
        self._clock: Final = clock
        if mode not in ("enforce", "observe"):
            raise InvalidArgument("mode", f'must be "enforce" or "observe", not {mode!r}')
        if (mode == "observe") != (observe_until is not None):
            raise InvalidArgument("observe_until", 'goes with mode="observe", which needs an end')
        if observe_until is not None and (not zoned(observe_until) or observe_until <= self.now()):
            raise InvalidArgument("observe_until", "must be a datetime with a time zone, in the future")
        if key is not None and type(key) is not InstanceKey:
            raise InvalidArgument("key", "must be an InstanceKey")
        self._observe_until: Final = observe_until
        self._policies = _policies(policies, digest)
        self._tracked: Mapping[str, dt.datetime] = {}
        self._key: Final = key or InstanceKey.random()
        self._recorder: Final = Recorder(sinks)
        self._ids: Final = RecordIds()
        self._memories: Final[dict[str, SessionMemory]] = {}
        self._adapters: Final[dict[type, Callable[..., Resource]]] = {}
        self._lock: Final = threading.Lock()

    # ---- set-up

    @property
    def policies(self) -> PolicySet:
        """Return the policy set in force."""
        return self._policies

    def replace(self, policies: Policies, *, digest: str | None = None) -> None:
        """Put another policy set in force, for every decision that begins after this; all of it or nothing.

        Raises:
            PolicyLoadError, PolicySyntaxError, PolicyCheckError, InvalidArgument: as when the authorizer
                was made; the old set then stays in force.
        """
        fresh = _policies(policies, digest)
        with self._lock:
            now = self.now()
            watched = {name: self._tracked[name] for name in fresh.tracked if name in self._tracked}
            new = {name: now for name in fresh.tracked - self._policies.tracked}
            # the times first: an action must never seem to have been watched before it was
            self._tracked = {**watched, **new}
            self._policies = fresh

    def adapt(self, cls: type[T], to_resource: Callable[[T], Resource]) -> None:
        """Teach the authorizer to make a `Resource` of objects of `cls` and its subclasses.

        Raises:
            InvalidArgument: `cls` is no class, or `to_resource` can't be called.
        """
        if not isinstance(cls, type):
            raise InvalidArgument("cls", "must be a class")
        if not callable(to_resource):
            raise InvalidArgument("to_resource", "must be a function from an object to a Resource")
        with self._lock:
            self._adapters[cls] = to_resource

    def session(
        self,
        subject: Principal | None = None,
        actor: Principal | None = None,
        *,
        id: str | None = None,
        chain: Chain | None = None,
        purpose: str | None = None,
        expires: Expiry | None = None,
        attributes: Mapping[str, object] = _NOTHING,
        context: Mapping[str, object] = _NOTHING,
        route: str | None = None,
    ) -> Session:
        """Return a session of `subject`, acting through `actor` or `chain`.

        The host chooses `id` (a conversation's, say): the same id resumes what was remembered, so that an
        agent can't lose its marks by starting over. `expires` is `"10m"`, a timedelta or a datetime.

        Raises:
            InvalidArgument: no subject, a chain that disagrees with it, or an argument of the wrong type.
        """
        if chain is None and subject is None:
            raise InvalidArgument("subject", "must be given: whose authority does the session use")
        now = self.now()
        # a request checks all of these; making one here reports a mistake now, not at the first call
        checked = Request(
            "session", subject=subject or cast(Chain, chain).subject, actor=actor, chain=chain, purpose=purpose,
            route=route, context=context, now=now,
        )  # fmt: skip
        if id is not None and (not isinstance(id, str) or not id):
            raise InvalidArgument("id", "must be a string that is not empty")
        if field_reader(attributes) is None:
            raise InvalidArgument("attributes", "must be a mapping of names to values")
        own = id or new_session_id()
        return Session(
            self, self._memory(own, now, keep=id is not None), checked.chain, id=own, purpose=purpose,
            expires=None if expires is None else moment(expires, now),
            attributes=cast(Mapping[str, object], copy_plain(dict(attributes))),
            context=cast(Mapping[str, object], copy_plain(dict(context))), route=route,
        )  # fmt: skip

    def _memory(self, id: str, now: dt.datetime, *, keep: bool) -> SessionMemory:
        if not keep:
            return SessionMemory(now)
        with self._lock:
            return self._memories.setdefault(id, SessionMemory(now))

    def now(self) -> dt.datetime:
        """Return the time by this authorizer's clock.

        Raises:
            InvalidArgument: the clock returned something other than a datetime with a zone.
        """
        now = self._clock()
        if type(now) is not dt.datetime or now.tzinfo is None:
            raise InvalidArgument("clock", "must return a datetime with a time zone")
        return now

    def close(self) -> None:
        """Close the sinks; every call after that is denied, because it can't be recorded."""
        self._recorder.close()

    def __enter__(self) -> Authorizer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- requests made by hand

    def decide(self, request: Request) -> Decision:
        """Decide a request and record it; a denial is returned, not raised.

        Marks are kept for the session that the request names.

        Raises:
            InvalidArgument: `request` is no Request.
        """
        return self._decide_request(request).decision

    def authorize(self, request: Request) -> Decision:
        """Decide a request, record it, and raise unless it may happen now.

        Raises:
            Denied, ReviewRequired: the call may not happen (yet).
            InvalidArgument: `request` is no Request.
        """
        return allowed(self._decide_request(request))

    async def adecide(self, request: Request) -> Decision:
        """Do what `decide` does without blocking the loop on a sink."""
        return (await self._adecide_request(request)).decision

    async def aauthorize(self, request: Request) -> Decision:
        """Do what `authorize` does without blocking the loop on a sink."""
        return allowed(await self._adecide_request(request))

    def preview(self, request: Request, *, state: State | None = None) -> Decision:
        """Decide a request; commit and record nothing. `state` stands for what its session remembers.

        Raises:
            InvalidArgument: `request` is no Request.
        """
        return self._preview(self._by_hand(request), state)

    async def apreview(self, request: Request, *, state: State | None = None) -> Decision:
        """Do what `preview` does, from a coroutine."""
        return self.preview(request, state=state)

    def explain(self, request: Request, *, state: State | None = None) -> Explanation:
        """Return the decision with every clause of every rule that matches; commit and record nothing.

        Raises:
            InvalidArgument: `request` is no Request.
        """
        case = self._by_hand(request)
        return self._policies.explain(case.request(case.memory.read() if state is None else state))

    # ---- sessions' calls

    def decide_call(self, session: Session, call: Call) -> Verdict:
        """Decide, commit and record one call of a session."""
        verdict, record = self._decide(self._of_session(session, call))
        return verdict if record is None else self._written(verdict, lambda: self._recorder.write(record))

    async def adecide_call(self, session: Session, call: Call) -> Verdict:
        """Decide, commit and record one call of a session, without blocking the loop on a sink."""
        return await self._awrite(*self._decide(self._of_session(session, call)))

    def preview_call(self, session: Session, call: Call, state: State | None) -> Decision:
        """Decide one call of a session; commit and record nothing."""
        return self._preview(self._of_session(session, call), state)

    def finish_call(self, session: Session, decision: Decision, status: Status, error: str | None, ns: int) -> None:
        """Remember and record how a call ended; a sink that fails now is logged, since the call has run."""
        record = self._effect(session, decision, status, error, ns)
        if record is not None:
            try:
                self._recorder.write(record)
            except SinkError:
                _log_lost(record)

    async def afinish_call(
        self, session: Session, decision: Decision, status: Status, error: str | None, ns: int
    ) -> None:
        """Do what `finish_call` does without blocking the loop on a sink."""
        record = self._effect(session, decision, status, error, ns)
        if record is not None:
            try:
                await self._recorder.awrite(record)
            except SinkError:
                _log_lost(record)

    # ---- one decision

    def _of_session(self, session: Session, call: Call) -> _Case:
        resource, call = self._resource_of(call)
        context = {**session.context, **call.context} if call.context else session.context
        now, tracked = self.now(), self._tracked

        def request(state: State) -> Request:
            facts = SessionFacts(
                session.id, session.memory.started, session.expires, session.attributes,
                state.marks, state.began, state.done, tracked,
            )  # fmt: skip
            return Request.trusted(
                call.action, session.chain, call.args, resource, call.route or session.route, session.purpose,
                facts, context, now,
            )  # fmt: skip

        return _Case(session.memory, call, request, now, session.closed)

    def _by_hand(self, request: Request) -> _Case:
        if type(request) is not Request:
            raise InvalidArgument("request", f"must be a Request, not {type(request).__name__}")
        facts = request.session
        if type(facts) is not SessionFacts:
            return _Case(SessionMemory(request.now), _call_of(request), lambda _: request, request.now)
        given = facts

        def merged(state: State) -> Request:
            marks = given.marks if given.marks is UNKNOWN else given.marks | state.marks
            began = given.began if given.began is UNKNOWN else {**given.began, **state.began}
            done = given.done if given.done is UNKNOWN else {**given.done, **state.done}
            session = evolve(given, marks=marks, began=began, done=done, tracked={**self._tracked, **given.tracked})
            return request.with_session(session)

        memory = self._memory(facts.id, facts.started, keep=True)
        return _Case(memory, _call_of(request), merged, request.now)

    def _decide_request(self, request: Request) -> Verdict:
        verdict, record = self._decide(self._by_hand(request))
        return verdict if record is None else self._written(verdict, lambda: self._recorder.write(record))

    async def _adecide_request(self, request: Request) -> Verdict:
        return await self._awrite(*self._decide(self._by_hand(request)))

    def _preview(self, case: _Case, state: State | None) -> Decision:
        if (stopped := self._refused(case)) is not None:
            return stopped
        request = case.request(case.memory.read() if state is None else state)
        return self._enforced(self._policies.judge(request)[0], case.now)

    def _decide(self, case: _Case) -> tuple[Verdict, DecisionRecord | None]:
        policies, mode = self._policies, "observe" if self._observing(case.now) else "enforce"
        decision, request, inputs, cause = self._judged(policies, case)
        decision = evolve(decision, record_id=self._ids.next(case.now))
        verdict = Verdict(decision, request.resource, cause)
        if self._recorder.writing() or not self._recorder.wants(decision):
            return verdict, None
        try:
            record = self._record(policies, case, request, decision, inputs, mode)
        except Exception as error:  # what can't be recorded must not happen
            return _unrecorded(verdict, error), None
        return verdict, record

    def _judged(
        self, policies: PolicySet, case: _Case
    ) -> tuple[Decision, Request, Inputs | None, BaseException | None]:
        """Return the decision, committed to the session's memory, with what it was made on."""
        request = case.request(state := case.memory.read())
        if (stopped := self._refused(case)) is not None:
            return stopped, request, None, case.call.cause
        try:
            for _ in range(MAX_ATTEMPTS):
                decision, inputs = policies.judge(request)
                decision = self._enforced(decision, case.now)
                if not decision.allowed or self._committed(policies, case, decision, state):
                    return decision, request, inputs, None
                request = case.request(state := case.memory.read())
        except Exception as error:  # a fault of the library's or the host's own: never an allow
            return _failed(policies, case, "evaluation_failed", "the policies couldn't be evaluated"), request, None, error
        return _failed(policies, case, "changed_meanwhile", "what the decision read kept changing"), request, inputs, None

    def _refused(self, case: _Case) -> Decision | None:
        """Return the denial of a call that no policy is asked about."""
        if case.closed:
            reason = Reason("session_closed", "the session was closed")
            return Decision(
                Outcome.DENY, Basis.AUTHORITY, case.call.action, reasons=(reason,), policy_digest=self._policies.digest
            )
        if self._recorder.writing():
            return _failed(self._policies, case, "inside_a_sink", "a sink may not ask for a decision")
        if case.call.problem is not None:
            denial = _failed(self._policies, case, case.call.problem.code, case.call.problem.text)
            return self._enforced(denial, case.now)
        return None

    def _committed(self, policies: PolicySet, case: _Case, decision: Decision, state: State) -> bool:
        began = decision.action if decision.action in policies.tracked else None
        return case.memory.commit(state, decision.marks, began, case.now)

    def _enforced(self, decision: Decision, now: dt.datetime) -> Decision:
        """Return the decision as this authorizer enforces it: obligations need handlers, observe mode lets run."""
        if decision.outcome is Outcome.ALLOW and decision.obligations:
            names = ", ".join(sorted({f"`{obligation.type}`" for obligation in decision.obligations}))
            reason = Reason("obligation_unsupported", f"nothing here can carry out the obligation {names}")
            decision = evolve(decision, outcome=Outcome.DENY, basis=Basis.ERROR, reasons=(reason,))
        lets_run = decision.outcome is Outcome.REVIEW or decision.basis in _OBSERVED
        if decision.outcome is not Outcome.ALLOW and lets_run and self._observing(now):
            return evolve(decision, enforced=False)
        return decision

    def _observing(self, now: dt.datetime) -> bool:
        return self._observe_until is not None and now < self._observe_until

    def _resource_of(self, call: Call) -> tuple[Resource | Unknown | None, Call]:
        given = call.resource
        if given is None or given is UNKNOWN or type(given) is Resource:
            return cast("Resource | Unknown | None", given), call
        try:
            return self._adapted(given), call
        except Exception as error:
            problem = Reason("resource_failed", "the resource couldn't be read")
            return UNKNOWN, call if call.problem else evolve(call, problem=problem, cause=error)

    def _adapted(self, given: object) -> Resource:
        for cls in type(given).__mro__:
            if cls in self._adapters:
                made = self._adapters[cls](given)
                if type(made) is not Resource:
                    raise InvalidArgument("to_resource", f"must return a Resource, not {type(made).__name__}")
                return evolve(made, original=given)
        read = field_reader(given)
        if read is None or isinstance(given, Mapping) or (id := read("id")) is None:
            raise InvalidArgument(
                "resource",
                f"must be a Resource or an object with an `id` field, not {type(given).__name__}; see Authorizer.adapt",
            )
        return Resource(type(given).__name__, str(id), given, given)

    # ---- records

    def _record(
        self,
        policies: PolicySet,
        case: _Case,
        request: Request,
        decision: Decision,
        inputs: Inputs | None,
        mode: str,
    ) -> DecisionRecord:
        denied = decision.outcome is not Outcome.ALLOW
        return decision_record(
            id=cast(str, decision.record_id),
            ts=case.now,
            request=request,
            args={} if request.args is UNKNOWN else request.args,
            decision=decision,
            seen=[] if inputs is None else policies.seen(inputs),
            explain=policies.clauses(decision, inputs) if denied and inputs is not None else None,
            sensitive=case.call.sensitive,
            key=self._key,
            mode=mode,
            call_id=None,
            parent=None,
        )

    def _written(self, verdict: Verdict, write: Callable[[], None]) -> Verdict:
        try:
            write()
        except SinkError as error:
            return _unrecorded(verdict, error)
        return verdict

    async def _awrite(self, verdict: Verdict, record: DecisionRecord | None) -> Verdict:
        if record is not None:
            try:
                await self._recorder.awrite(record)
            except SinkError as error:
                return _unrecorded(verdict, error)
        return verdict

    def _effect(
        self, session: Session, decision: Decision, status: Status, error: str | None, ns: int
    ) -> EffectRecord | None:
        now = self.now()
        if status == "done" and decision.action in self._policies.tracked:
            session.memory.finish(decision.action, now)
        if not self._recorder.wants(decision):
            return None
        return EffectRecord(
            id=self._ids.next(now), ts=now, of=cast(str, decision.record_id), status=status, error_type=error,
            dur_us=ns // 1000, session=session.id, action=decision.action,
        )  # fmt: skip


@final
@frozen(eq=False)
class _Case:
    """Be one call on its way to a decision; `request` makes what the policies are asked, from a state."""

    memory: SessionMemory
    call: Call
    request: Callable[[State], Request]
    now: dt.datetime
    closed: bool = False


def _call_of(request: Request) -> Call:
    return Call(request.action, request.args, request.resource)


def _failed(policies: PolicySet, case: _Case, code: str, text: str) -> Decision:
    reason = Reason(code, text)
    return Decision(Outcome.DENY, Basis.ERROR, case.call.action, reasons=(reason,), policy_digest=policies.digest)


def _unrecorded(verdict: Verdict, error: BaseException) -> Verdict:
    """Return the denial of a call whose record couldn't be kept; observe mode doesn't let it run either."""
    reasons = (Reason("not_recorded", "the decision couldn't be recorded"), *verdict.decision.reasons)
    denial = evolve(
        verdict.decision, outcome=Outcome.DENY, basis=Basis.ERROR, reasons=reasons, obligations=(), enforced=True
    )
    return Verdict(denial, verdict.resource, error)


def _log_lost(record: EffectRecord) -> None:
    logging.getLogger("agentauthz.records").error("the effect of decision %s couldn't be recorded", record.of)


def _policies(given: Policies, digest: str | None) -> PolicySet:
    from agentauthz.policy.policyset import PolicySet  # here: who is given a ready set never loads the parser

    policies = given if isinstance(given, PolicySet) else PolicySet.load(given)
    if digest is not None and policies.digest != digest:
        raise InvalidArgument("digest", f"is {digest}, but these policies have {policies.digest}")
    return policies
