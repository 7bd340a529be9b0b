"""Hold `Authorizer`: policies, sessions' memory, sinks and a clock, put together to decide and record."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, cast, final

from attrs import evolve

from agentauthz.authorizer.deciding import Case, Stop, ajudged, ataken, failed, judged, previewed, taken
from agentauthz.authorizer.memory import UNTRACKED, Memory
from agentauthz.authorizer.recording import OnFailure, Recording, regardless
from agentauthz.authorizer.resources import Resources
from agentauthz.calls import NOTHING, Call, Effect, Expiry, Verdict, allowed, effect_of, moment, own_names
from agentauthz.canonical import class_name
from agentauthz.decision import Basis, Decision, Obligation, Reason
from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys import InstanceKey
from agentauthz.policy.policyset import PolicySet
from agentauthz.principals import NOBODY, Chain, Principal
from agentauthz.records import Recorder, Sink
from agentauthz.request import Request, Resource, SessionFacts, Unknown
from agentauthz.session import Session, new_session_id
from agentauthz.state.memory import MemoryState
from agentauthz.state.store import NOTHING_YET, Reservation, State, StateStore
from agentauthz.values import UNKNOWN, field_reader, utc

if TYPE_CHECKING:
    from agentauthz.policy.explain import Explanation
    from agentauthz.tokens.verified import VerifiedToken

Policies: TypeAlias = PolicySet | str | os.PathLike[str]
Mode: TypeAlias = Literal["enforce", "observe"]
T = TypeVar("T")


@final
class Authorizer:
    """Decide calls by a policy set, remember what sessions did, and record every decision.

    `policies` is a `PolicySet`, or the path of a file or folder; `digest` pins it. Without `sinks`, records go to
    the stdlib logger ``agentauthz.decisions``. A decision counts as recorded once `required` of them have it (None:
    all), and what isn't recorded is denied; with `on_failure` "allow_and_alarm", or for the actions that it lists,
    the call goes ahead, and the log and the sinks that work are told. `key` makes argument digests; without
    one, each process has its own. `mode` "observe" lets calls run that only lack a permit, a budget or an approval,
    or whose look-ups failed, until `observe_until`. `clock` returns a datetime with a zone. `state` keeps what sessions
    remember and spend; without one, it is this process's memory.

    Raises:
        InvalidArgument: an argument of the wrong type, a policy set with another digest, "observe"
            without an end, an end that is past, or another `on_failure`.
        PolicyLoadError, PolicySyntaxError, PolicyCheckError: the policies can't be used.
    """

    def __init__(
        self,
        policies: Policies,
        *,
        sinks: Iterable[Sink] = (),
        state: StateStore | None = None,
        required: int | None = None,
        on_failure: OnFailure = "deny",
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
        ends = utc(observe_until)
        if observe_until is not None and (ends is None or ends <= self.now()):
            raise InvalidArgument("observe_until", "must be a datetime with a time zone, in the future")
        if key is not None and type(key) is not InstanceKey:
            raise InvalidArgument("key", "must be an InstanceKey")
        self._observe_until: Final = ends
        # the policies, and since when their actions are watched, where that wasn't from the start: read together
        self._in_force: tuple[PolicySet, Mapping[str, dt.datetime]] = (_policies(policies, digest), UNTRACKED)
        self._recording: Final = Recording(
            Recorder(sinks, required), InstanceKey.random() if key is None else key, regardless(on_failure)
        )
        self._state: Final[StateStore] = MemoryState(clock=clock) if state is None else state
        self._memories: Final[weakref.WeakValueDictionary[str, Memory]] = weakref.WeakValueDictionary()
        self._resources: Final = Resources()
        self._lock: Final = threading.RLock()  # a signal's handler may replace the policies at any point

    # ---- set-up

    @property
    def policies(self) -> PolicySet:
        """Return the policy set in force."""
        return self._in_force[0]

    def replace(self, policies: Policies, *, digest: str | None = None) -> None:
        """Put another policy set in force, for every decision that begins after this; all of it or nothing.

        Raises:
            PolicyLoadError, PolicySyntaxError, PolicyCheckError, InvalidArgument: as when the authorizer
                was made; the old set then stays in force.
        """
        fresh = _policies(policies, digest)
        with self._lock:
            old, since = self._in_force
            watched = {name: since[name] for name in fresh.tracked if name in since}
            self._in_force = (fresh, {**watched, **dict.fromkeys(fresh.tracked - old.tracked, self.now())})

    def adapt(self, cls: type[T], to_resource: Callable[[T], Resource]) -> None:
        """Teach the authorizer to make a `Resource` of objects of `cls` and its subclasses.

        Raises:
            InvalidArgument: `cls` is no class, or `to_resource` can't be called.
        """
        self._resources.adapt(cls, to_resource)

    def add_sink(self, sink: Sink) -> None:
        """Send records to one more sink, from the next one on; it is required like the others.

        Raises:
            InvalidArgument: `sink` has no `append`.
        """
        self._recording.recorder.add(sink)

    def remove_sink(self, sink: Sink) -> None:
        """Send no more records to a sink; it isn't closed. One that isn't there is ignored."""
        self._recording.recorder.remove(sink)

    def session(
        self,
        subject: Principal | None = None,
        actor: Principal | None = None,
        *,
        id: str | None = None,
        chain: Chain | None = None,
        token: VerifiedToken | None = None,
        purpose: str | None = None,
        expires: Expiry | None = None,
        attributes: Mapping[str, object] = NOTHING,
        context: Mapping[str, object] = NOTHING,
        route: str | None = None,
    ) -> Session:
        """Return a session of `subject`, acting through `actor` or `chain`, or of what a verified `token` says.

        A token gives the whole chain. Its scopes are the most that the session may do, it ends no later than the
        token, and each decision asks again whether the token was revoked.

        The host chooses `id` (a conversation's, say): the same id resumes what was remembered, so that an agent
        can't lose its marks by starting over. `expires` is `"10m"`, a timedelta or a datetime.

        Raises:
            InvalidArgument: no subject, a chain that disagrees with it, a token beside either, or an argument of the
                wrong type.
        """
        if token is not None:
            if subject is not None or actor is not None or chain is not None:
                raise InvalidArgument("token", "says who acts for whom: leave out `subject`, `actor` and `chain`")
            chain = _chain_of(token)
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
        ends = None if expires is None else moment(expires, now)
        if token is not None:
            ends = token.expires_at if ends is None else min(ends, token.expires_at)
        return Session(
            self, self._memory(own, now, keep=id is not None),
            checked.chain.by_hand() if token is None else checked.chain, id=own, token=token,
            purpose=cast(str | None, checked.purpose),
            expires=ends,
            attributes=own_names("attributes", attributes),
            context=own_names("context", context),
            route=cast(str | None, checked.route),
        )  # fmt: skip

    def _memory(self, id: str, started: dt.datetime, *, keep: bool) -> Memory:
        with self._lock:
            found = self._memories.get(id)
            if found is None or (keep and not found.keep):
                found = self._memories[id] = Memory(self._state, lambda: self._in_force, id, started, keep=keep)
            return found

    def now(self) -> dt.datetime:
        """Return the time by this authorizer's clock.

        Raises:
            InvalidArgument: the clock returned something other than a datetime with a zone.
        """
        if (now := utc(self._clock())) is None:
            raise InvalidArgument("clock", "must return a datetime with a time zone")
        return now

    def close(self) -> None:
        """Close the sinks; every call after that is denied, because it can't be recorded."""
        self._recording.recorder.close()

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
        return self._taken(self._by_hand(request)).decision

    def authorize(self, request: Request) -> Decision:
        """Decide a request, record it, and raise unless it may happen now.

        Raises:
            Denied, ReviewRequired: the call may not happen (yet).
            InvalidArgument: `request` is no Request.
        """
        return allowed(self._taken(self._by_hand(request)))

    def decide_verified(
        self,
        request: Request,
        *,
        carries_out: Callable[[Obligation], bool] | None = None,
        objects: Callable[[], Stop | None] | None = None,
    ) -> Decision:
        """Decide and record a request whose chain was verified: its hops count as made by a token or a session.

        For services that verified every hop themselves, such as `agentauthz.sts`; nobody is judged before the last
        hop that came by token. Give what others only said to `decide`. An obligation denies unless `carries_out`
        says True to it; whoever says so has to do what it asks. `objects` is asked once, last, and only where the call
        may happen otherwise: the basis and reason that it returns deny, so that what it takes isn't taken in vain.

        Raises:
            InvalidArgument: `request` is no Request.
        """
        case = self._of_request(request)
        case.carries_out, case.objects = carries_out, objects
        return self._taken(case).decision

    @contextlib.contextmanager
    def performing(self, decision: Decision) -> Iterator[None]:
        """Record how the work ends that a decision of `decide_verified` allows: done, or failed by what it raises.

        A sink that fails now is logged, since the work is done.

        Raises:
            InvalidArgument: `decision` allows nothing.
        """
        if not decision.allowed:
            raise InvalidArgument("decision", "must be one that allows the work")
        error: BaseException | None = None
        started = time.perf_counter_ns()
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            effect = effect_of(decision, error, started)
            self._recording.write_effect(None, effect, self._finished(effect))

    def refuse(self, request: Request, reason: Reason, *, basis: Basis = Basis.AUTHORITY) -> Decision:
        """Record the denial of a request that no policy is asked about, and return it.

        Raises:
            InvalidArgument: `request` is no Request.
        """
        case = self._of_request(request)
        case.stopped = (basis, reason)
        return self._taken(case).decision

    def refuse_token(self, error: TokenError, *, action: str, route: str | None = None) -> Decision:
        """Record that a call of `action` was refused because of its token, in nobody's name; return the denial.

        Raises:
            InvalidArgument: `error` is no TokenError, or an argument of the wrong type.
        """
        if not isinstance(error, TokenError):
            raise InvalidArgument("error", "must be the TokenError that the validator raised")
        request = Request(action, subject=NOBODY, route=route, now=self.now())
        return self.refuse(request, Reason(error.reason, error.message))

    async def adecide(self, request: Request) -> Decision:
        """Do what `decide` does without blocking the loop on a sink."""
        return (await self._ataken(self._by_hand(request))).decision

    async def aauthorize(self, request: Request) -> Decision:
        """Do what `authorize` does without blocking the loop on a sink."""
        return allowed(await self._ataken(self._by_hand(request)))

    def preview(self, request: Request, *, state: State | None = None) -> Decision:
        """Decide a request; commit and record nothing. `state` stands for what its session remembers.

        Raises:
            InvalidArgument: `request` is no Request.
        """
        return taken(previewed(self._by_hand(request), state))[0]

    async def apreview(self, request: Request, *, state: State | None = None) -> Decision:
        """Do what `preview` does without blocking the loop on the state store."""
        return (await ataken(previewed(self._by_hand(request), state), self._state))[0]

    def explain(self, request: Request, *, state: State | None = None) -> Explanation:
        """Return the decision with every clause of every rule that matches; commit and record nothing.

        Raises:
            InvalidArgument: `request` is no Request.
        """
        case = self._by_hand(request)
        decision, inputs = taken(previewed(case, state))
        return case.policies.explanation(decision, case.policies.asked(case.request) if inputs is None else inputs)

    # ---- what sessions and guards ask

    def decide_call(self, session: Session, call: Call) -> Verdict:
        """Decide, commit and record one call of a session."""
        return self._taken(self._of_session(session, call))

    def adecide_call(self, session: Session, call: Call) -> Coroutine[Any, Any, Verdict]:
        """Decide, commit and record one call of a session, without blocking the loop on a sink."""
        return self._ataken(self._of_session(session, call))

    def preview_call(self, session: Session, call: Call, state: State | None) -> Decision:
        """Decide one call of a session; commit and record nothing."""
        return taken(previewed(self._of_session(session, call), state))[0]

    async def apreview_call(self, session: Session, call: Call, state: State | None) -> Decision:
        """Do what `preview_call` does without blocking the loop on the state store."""
        return (await ataken(previewed(self._of_session(session, call), state), self._state))[0]

    def follows(self, verdict: Verdict) -> bool:
        """Say whether how a call ended is to be recorded, as its decision was, remembered or settled."""
        return (
            verdict.decision.record_id is not None
            or verdict.decision.action in self.policies.tracked
            or (verdict.reservation is not None and verdict.reservation.id is not None)
        )

    def finish_call(self, session: Session, effect: Effect) -> None:
        """Remember and record how a call ended; a sink or store that fails now is logged, since the call has run."""
        self._recording.write_effect(session.id, effect, self._finished(effect, session))

    async def afinish_call(self, session: Session, effect: Effect) -> None:
        """Do what `finish_call` does without blocking the loop on a sink or the state store."""
        if self._state.blocking:
            import asyncio  # programs without a loop don't pay for it

            now = await asyncio.to_thread(self._finished, effect, session)
        else:
            now = self._finished(effect, session)
        await self._recording.awrite_effect(session.id, effect, now)

    def _finished(self, effect: Effect, session: Session | None = None) -> dt.datetime:
        if session is not None:
            self._remember(session, effect)
        try:
            return self.now()
        except Exception:  # the call has run: its result must not be lost for it
            logging.getLogger("agentauthz.records").error(
                "the clock failed when a call ended; its effect has the system's time"
            )
            return dt.datetime.now(dt.UTC)

    def _remember(self, session: Session, effect: Effect) -> None:
        """Remember that a call returned, and settle or give back what it has spent."""
        try:
            if effect.status == "done" and effect.decision.action in self.policies.tracked:
                self._state.finish(session.id, effect.decision.action)
            if effect.reservation is not None and effect.reservation.id is not None:
                # an interruption such as Ctrl-C isn't the function's word that nothing was done
                if effect.status == "failed" and isinstance(effect.error, Exception):
                    self._state.release(effect.reservation)
                else:
                    self._state.settle(effect.reservation, {})
        except Exception as error:  # the call has run: its result must not be lost for it
            logging.getLogger("agentauthz.state").error(
                "the end of decision %s couldn't be kept: %s", effect.decision.record_id, class_name(error)
            )

    # ---- one decision

    def _taken(self, case: Case) -> Verdict:
        if self._recording.recorder.writing():  # a sink that asks for decisions would be asked to record them
            return Verdict(failed(case, "inside_a_sink", "a sink may not ask for a decision"), case.request)
        verdict = self._recording.write(case, judged(case))
        if (back := _unused(verdict)) is not None:
            self._give_back(back)
        return verdict

    async def _ataken(self, case: Case) -> Verdict:
        if self._recording.recorder.writing():
            return Verdict(failed(case, "inside_a_sink", "a sink may not ask for a decision"), case.request)
        verdict = await self._recording.awrite(case, await ajudged(case))
        if (back := _unused(verdict)) is not None:
            import asyncio  # programs without a loop don't pay for it

            await asyncio.to_thread(self._give_back, back)
        return verdict

    def _give_back(self, reservation: Reservation) -> None:
        try:
            self._state.release(reservation)
        except Exception as error:  # it stays spent, which widens nothing
            logging.getLogger("agentauthz.state").error("a reservation couldn't be given back: %s", class_name(error))

    def _of_session(self, session: Session, call: Call) -> Case:
        problem, cause = call.problem, call.cause
        resource: Resource | Unknown | None = UNKNOWN
        try:
            resource = self._resources.of(call.resource)
        except Exception as error:  # the application's adapter, or an object that is no resource
            if problem is None:
                problem, cause = Reason("resource_failed", "the resource couldn't be read"), error
        context: Mapping[str, object] | Unknown = session.context
        if call.context is UNKNOWN:
            context = UNKNOWN
        elif call.context:
            context = {**session.context, **call.context}
        now = self.now()
        request = Request.trusted(
            call.action, session.chain, call.args, resource, session.route or call.route, session.purpose,
            session.facts(NOTHING_YET, UNTRACKED), context, now,
        )  # fmt: skip
        policies, since = self._in_force
        return Case(
            policies, since, self._state, session.memory, session.facts, request, self._observing(now), session.closed,
            session.fallen(), call.sensitive, problem, cause, releasable=call.releasable,
        )  # fmt: skip

    def _by_hand(self, request: Request) -> Case:
        if type(request) is not Request:
            raise InvalidArgument("request", f"must be a Request, not {type(request).__name__}")
        return self._of_request(request.by_hand() if request.chain.delegations else request)

    def _of_request(self, request: Request) -> Case:
        if type(request) is not Request:
            raise InvalidArgument("request", f"must be a Request, not {type(request).__name__}")
        given = request.session
        observing = self._observing(request.now)
        policies, since = self._in_force
        if type(given) is not SessionFacts:
            return Case(policies, since, self._state, None, None, request, observing)
        memory = self._memory(given.id, given.started, keep=True)
        return Case(policies, since, self._state, memory, functools.partial(_merged, given), request, observing)

    def _observing(self, now: dt.datetime) -> bool:
        return self._observe_until is not None and now < self._observe_until


def _unused(verdict: Verdict) -> Reservation | None:
    """Return what was reserved for a call that is denied after all."""
    return None if verdict.decision.allowed else verdict.reservation


def _merged(given: SessionFacts, state: State, tracked: Mapping[str, dt.datetime]) -> SessionFacts:
    """Return a session's facts as a caller gave them, with what this authorizer remembers of it."""
    return SessionFacts.trusted(
        given.id, given.started, given.expires, given.attributes,
        given.marks if given.marks is UNKNOWN else given.marks | state.marks,
        given.began if given.began is UNKNOWN else {**given.began, **state.began},
        given.done if given.done is UNKNOWN else {**given.done, **state.done},
        {**tracked, **given.tracked}, given.ceiling,
    )  # fmt: skip


def _chain_of(token: VerifiedToken) -> Chain:
    """Return a token's chain with what its scopes cover as its last hop's actions."""
    from agentauthz.tokens.verified import VerifiedToken  # who has no token doesn't load what verifies them

    if type(token) is not VerifiedToken:
        raise InvalidArgument("token", "must be a VerifiedToken: what `validator.verify(…)` returns")
    if not token.admitted:
        raise InvalidArgument("token", "must come from `verify` or `authenticate`, which check that it is meant for us")
    if token.kind == "id-jag":
        raise InvalidArgument("token", "is an identity assertion, which permits nothing here: it must be redeemed")
    hops = token.chain.delegations
    return Chain(token.subject, (*hops[:-1], evolve(hops[-1], actions=token.actions))) if hops else token.chain


def _policies(given: Policies, digest: str | None) -> PolicySet:
    policies = given if isinstance(given, PolicySet) else PolicySet.load(given)
    if digest is not None and policies.digest != digest:
        raise InvalidArgument("digest", f"is {digest}, but these policies have {policies.digest}")
    return policies
