"""Hold `Authorizer`: policies, sessions' memory, sinks and a clock, put together to decide and record."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeAlias, TypeVar, Unpack, final

from attrs import evolve

from agentauthz.approvals.keeper import Keeper
from agentauthz.authorizer.approvals import Approvals, Notify
from agentauthz.authorizer.case import Case
from agentauthz.authorizer.cases import Cases
from agentauthz.authorizer.consulting import Approver, Consultation, Teller
from agentauthz.authorizer.deciding import ataken, previewed, taken
from agentauthz.authorizer.handlers import Handlers
from agentauthz.authorizer.in_force import InForce, Policies
from agentauthz.authorizer.orders import Orders
from agentauthz.authorizer.recording import OnFailure, Recording, regardless
from agentauthz.authorizer.revocations import MAX_AGE, Revocations
from agentauthz.authorizer.sessions import Asked, Sessions
from agentauthz.authorizer.taking import Taking
from agentauthz.calls import NOTHING, Call, Effect, Expiry, Stop, Verdict, allowed, effect_of, repeatable
from agentauthz.decision import Basis, Decision, Obligation, Reason
from agentauthz.delegating import brought
from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys import InstanceKey
from agentauthz.obligations.handler import NONE_GIVEN, Given
from agentauthz.policy.policyset import PolicySet
from agentauthz.principals import NOBODY, Chain, Principal
from agentauthz.records import Metrics, Recorder, Sink
from agentauthz.records.passing import Passing
from agentauthz.records.redaction import PUBLIC, Class, Redaction
from agentauthz.request import Request, Resource
from agentauthz.session import Session
from agentauthz.state.memory import MemoryState
from agentauthz.state.store import State, StateStore, require_store
from agentauthz.tracing import Ids, Tracer
from agentauthz.values import told_by, utc

if TYPE_CHECKING:
    from agentauthz.policy.explain import Explanation
    from agentauthz.policy.inputs import Inputs
    from agentauthz.records.openings import Openings
    from agentauthz.tokens.verified import VerifiedToken

Mode: TypeAlias = Literal["enforce", "observe"]
T = TypeVar("T")
P = ParamSpec("P")


@final
class Authorizer:
    """Decide calls by a policy set, remember what sessions did, and record every decision.

    `policies` is a `PolicySet`, or the path of a file or folder; `digest` pins it. Without `sinks`, records go to
    the stdlib logger ``agentauthz.decisions``. A decision counts as recorded once `required` of them have it (None:
    all), and what isn't recorded is denied, as where a sink that has no time-out of its own hangs for `sink_timeout`
    seconds; with `on_failure` "allow_and_alarm", or for the actions that it lists,
    the call goes ahead, and the log and the sinks that work are told. `key` makes argument digests; without
    one, each process has its own. `redact` gives a class to paths that records don't show as they are: "correlate",
    "secret", or "shred" or `Shred`, whose values `openings` keep until they are erased. `mode` "observe" lets calls
    run that only lack a permit, a budget or an approval, or whose look-ups failed, until `observe_until`. `clock`
    returns a datetime with a zone. `ctx` is asked at each decision for the ids of the trace, request, turn and tool
    call that its records name; see `agentauthz.tracing`. `state` keeps what sessions remember and spend; without one,
    it is this process's memory. What was revoked by others who share a store that may wait is read in the background;
    when that was last done more than `revocation_max_age` seconds ago, every call is denied. `obligations` are the
    handlers of what permits say `with`, by name: functions that are called before the call, or
    `agentauthz.obligations.Handler`; `mask` and `expire` are there from the start. Where a review stops a call,
    `approver` is asked first: a function, or for async calls a coroutine function, that gets the `Review` and returns
    an `Answer`, or None to leave it to `approvals`. `notify` is called in a thread with what happened ("requested",
    "approved", "rejected", "consumed" or "expired") and with the review. Other processes find an approval only with
    the same `key`.

    Raises:
        InvalidArgument: an argument of the wrong type, a policy set with another digest, "observe"
            without an end, an end that is past, no positive age, another `on_failure`, a path in `redact` that leads
            to no fact, or something to shred and no `openings`.
        PolicyLoadError, PolicySyntaxError, PolicyCheckError: the policies can't be used, or oblige to what has no
            handler, or not in this form.
    """

    def __init__(
        self,
        policies: Policies,
        *,
        sinks: Iterable[Sink] = (),
        state: StateStore | None = None,
        revocation_max_age: float = MAX_AGE,
        required: int | None = None,
        sink_timeout: float = 5.0,
        on_failure: OnFailure = "deny",
        key: InstanceKey | None = None,
        mode: Mode = "enforce",
        observe_until: dt.datetime | None = None,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        redact: Mapping[str, Class] = PUBLIC,
        openings: Openings | None = None,
        digest: str | None = None,
        ctx: Ids | None = None,
        obligations: Given = NONE_GIVEN,
        approver: Approver | None = None,
        notify: Notify | None = None,
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
        if state is not None:
            require_store(state)
        handlers = Handlers(obligations)
        self._in_force: Final = InForce(policies, digest, handlers, self.now)
        own = InstanceKey.random() if key is None else key
        self._recording: Final = Recording(
            Recorder(sinks, required, sink_timeout), own,
            regardless(on_failure), Tracer(ctx), Redaction(redact, openings) if redact else None,
        )  # fmt: skip
        self._state: Final[StateStore] = MemoryState(clock=clock) if state is None else state
        self._revoked: Final = Revocations(self._state, revocation_max_age)
        self._orders: Final = Orders(self._revoked, self._recording, self.now)
        self._sessions: Final = Sessions(self, self._state, self._in_force)
        for name, hook in (("approver", approver), ("notify", notify)):
            if hook is not None and not callable(hook):
                raise InvalidArgument(name, "must be a function")
        keeper = Keeper(own)
        self._cases: Final = Cases(
            self._in_force, self._state, self._sessions, self._revoked, handlers, keeper, self.now, ends
        )
        teller = Teller(self._recording, self.now, notify)
        self._approvals: Final = Approvals(self._state, keeper, lambda: self.policies, teller, self._sessions.reopened)
        self._consultation: Final = Consultation(
            self._approvals, teller, approver, self.now, forgetful=key is None and self._state.blocking
        )
        self._taking: Final = Taking(
            self._state, self._recording, self._consultation, lambda: self._in_force.policies, self.now
        )

    # ---- set-up

    @property
    def policies(self) -> PolicySet:
        """Return the policy set in force."""
        return self._in_force.policies

    @property
    def approvals(self) -> Approvals:
        """Return what lists, shows and answers the calls that wait for a person, and makes those that were approved."""
        return self._approvals

    @property
    def ctx_dropped(self) -> int:
        """Return how many ids that `ctx` or `tracing` gave were malformed, and so are in no record."""
        return self._recording.tracer.dropped

    def replace(self, policies: Policies, *, digest: str | None = None) -> None:
        """Put another policy set in force, for every decision that begins after this; all of it or nothing.

        Raises:
            PolicyLoadError, PolicySyntaxError, PolicyCheckError, InvalidArgument: as when the authorizer
                was made; the old set then stays in force.
        """
        self._in_force.replace(policies, digest)

    def adapt(self, cls: type[T], to_resource: Callable[[T], Resource]) -> None:
        """Teach the authorizer to make a `Resource` of objects of `cls` and its subclasses.

        Raises:
            InvalidArgument: `cls` is no class, or `to_resource` can't be called.
        """
        self._cases.resources.adapt(cls, to_resource)

    def add_sink(self, sink: Sink) -> None:
        """Send records to one more sink, from the next one on; it is required like the others.

        Raises:
            InvalidArgument: `sink` has no `append`.
        """
        self._recording.recorder.add(sink)

    def metrics(self) -> Metrics:
        """Return how the sinks fare together: what was lost, what waits, and how far the file log has come."""
        return self._recording.recorder.metrics()

    def remove_sink(self, sink: Sink) -> None:
        """Send no more records to a sink; it isn't closed. One that isn't there is ignored.

        Raises:
            InvalidArgument: fewer sinks would be left than are `required`.
        """
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

        A session of a token is recorded before it is handed out: authority is passed to it.

        Raises:
            InvalidArgument: no subject, a chain that disagrees with it, a token beside either, or an argument of the
                wrong type.
            SinkError: the delegation by a token couldn't be recorded, so there is no session.
        """
        made = self._sessions.new(
            subject, actor, id=id, chain=chain, token=token, purpose=purpose, expires=expires,
            attributes=attributes, context=context, route=route,
        )  # fmt: skip
        if token is not None:
            made.made_by = self.pass_on(made, brought(made))
        return made

    async def asession(
        self, subject: Principal | None = None, actor: Principal | None = None, **given: Unpack[Asked]
    ) -> Session:
        """Do what `session` does without blocking the loop on a sink; `given` are the same."""
        made = self._sessions.new(subject, actor, **given)
        if made.token is not None:
            made.made_by = await self.apass_on(made, brought(made))
        return made

    def now(self) -> dt.datetime:
        """Return the time by this authorizer's clock.

        Raises:
            InvalidArgument: the clock returned something other than a datetime with a zone.
        """
        return told_by(self._clock)

    def close(self) -> None:
        """Close the sinks; every call after that is denied, because it can't be recorded.

        A `state` that was given stays open: whoever made it closes it.
        """
        self._revoked.close()
        self._recording.recorder.close()

    def __enter__(self) -> Authorizer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- what must stop

    def revoke(
        self,
        *,
        session: str | Session | None = None,
        principal: Principal | None = None,
        token: VerifiedToken | str | None = None,
        reason: str,
        by: Principal | None = None,
    ) -> None:
        """Revoke a session, a principal or a token for ever, for all who share the state store.

        It holds at the next decision here, and within a second in other processes. A session falls with all that were
        delegated from it, a principal (this issuer, kind and id) with every chain that runs through it, a token (a
        verified one, or the `jti_hash` of one) with all that were exchanged from it. An id needn't be known yet. It is
        recorded after it has taken effect, with `reason` and who orders it, `by`.

        Raises:
            InvalidArgument: none or several of the three, one of the wrong type, or no reason.
            StateError: the store couldn't be asked: it holds in this process all the same, perhaps only there.
            SinkError: it holds, but couldn't be recorded.
        """
        self._orders.revoke(session, principal, token, reason, by)

    def halt(self, reason: str, *, by: Principal | None = None) -> None:
        """Stop everything that shares the state store, until `resume`; as `revoke` does.

        Raises:
            InvalidArgument, StateError, SinkError: as `revoke`.
        """
        self._orders.halt(reason, by)

    def resume(self, reason: str, *, by: Principal | None = None) -> None:
        """Let everything go on after a halt; what was revoked stays revoked.

        Raises:
            StateError: the store couldn't be asked: nobody knows whether the halt has ended.
            InvalidArgument, SinkError: as `revoke`.
        """
        self._orders.resume(reason, by)

    async def arevoke(
        self,
        *,
        session: str | Session | None = None,
        principal: Principal | None = None,
        token: VerifiedToken | str | None = None,
        reason: str,
        by: Principal | None = None,
    ) -> None:
        """Do what `revoke` does without blocking the loop."""
        await _in_thread(self._orders.revoke, session, principal, token, reason, by)

    async def ahalt(self, reason: str, *, by: Principal | None = None) -> None:
        """Do what `halt` does without blocking the loop."""
        await _in_thread(self._orders.halt, reason, by)

    async def aresume(self, reason: str, *, by: Principal | None = None) -> None:
        """Do what `resume` does without blocking the loop."""
        await _in_thread(self._orders.resume, reason, by)

    def revocation(self, token: VerifiedToken) -> bool | None:
        """Say whether a token, one that it descends from, or a party of its chain was revoked; for a `Validator`.

        None: that isn't known, or everything is halted. It never waits for the state store.
        """
        stop = self._revoked.against(self._revoked.known(), None, token.chain, token)
        return False if stop is None else True if stop[1].code != "halted" and stop[0] is Basis.REVOKED else None

    # ---- requests made by hand

    def decide(self, request: Request) -> Decision:
        """Decide a request and record it; a denial is returned, not raised.

        Marks are kept for the session that the request names.

        Raises:
            InvalidArgument: `request` is no Request.
        """
        return self._taking.taken(self._cases.by_hand(request)).decision

    def authorize(self, request: Request) -> Decision:
        """Decide a request, record it, and raise unless it may happen now.

        Raises:
            Denied, ReviewRequired: the call may not happen (yet).
            InvalidArgument: `request` is no Request.
        """
        return self._insist(request)

    def _insist(self, request: Request, approval: str | None = None) -> Decision:
        case = self._cases.by_hand(request)
        case.approval = approval
        return allowed(repeatable(self._taking.taken(case), lambda own: self._insist(request.at(self.now()), own)))

    def decide_verified(
        self,
        request: Request,
        *,
        carries_out: Callable[[Obligation], bool] | None = None,
        objects: Callable[[], Stop | None] | None = None,
    ) -> Decision:
        """Decide and record a request whose chain was verified: its hops count as made by a token or a session.

        For services that verified every hop themselves, such as `agentauthz.sts`; nobody is judged before the last
        hop that came by token. Give what others only said to `decide`. An obligation to which `carries_out` says True
        needs no handler; whoever says so has to do what it asks. `objects` is asked once, last, and only where the call
        may happen otherwise: the basis and reason that it returns deny, so that what it takes isn't taken in vain.

        Raises:
            InvalidArgument: `request` is no Request.
        """
        case = self._cases.of_request(request)
        case.carries_out, case.objects = carries_out, objects
        return self._taking.taken(case).decision

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
            self._recording.write_effect(None, effect, self._taking.finished(effect))

    def refuse(self, request: Request, reason: Reason, *, basis: Basis = Basis.AUTHORITY) -> Decision:
        """Record the denial of a request that no policy is asked about, and return it.

        Raises:
            InvalidArgument: `request` is no Request.
        """
        case = self._cases.of_request(request)
        case.stopped = (basis, reason)
        return self._taking.taken(case).decision

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
        return (await self._taking.ataken(self._cases.by_hand(request))).decision

    async def aauthorize(self, request: Request) -> Decision:
        """Do what `authorize` does without blocking the loop on a sink."""
        return await self._ainsist(request)

    async def _ainsist(self, request: Request, approval: str | None = None) -> Decision:
        case = self._cases.by_hand(request)
        case.approval = approval
        return allowed(
            repeatable(await self._taking.ataken(case), lambda own: self._ainsist(request.at(self.now()), own))
        )

    def preview(self, request: Request, *, state: State | None = None) -> Decision:
        """Decide a request; commit and record nothing. `state` stands for what its session remembers.

        Raises:
            InvalidArgument: `request` is no Request.
        """
        return taken(previewed(self._cases.by_hand(request), state))[0]

    async def apreview(self, request: Request, *, state: State | None = None) -> Decision:
        """Do what `preview` does without blocking the loop on the state store."""
        return (await ataken(previewed(self._cases.by_hand(request), state), self._state))[0]

    def explain(self, request: Request, *, state: State | None = None) -> Explanation:
        """Return the decision with every clause of every rule that matches; commit and record nothing.

        Raises:
            InvalidArgument: `request` is no Request.
        """
        case = self._cases.by_hand(request)
        return self._explained(case, *taken(previewed(case, state)))

    async def aexplain(self, request: Request, *, state: State | None = None) -> Explanation:
        """Do what `explain` does without blocking the loop on the state store."""
        case = self._cases.by_hand(request)
        return self._explained(case, *(await ataken(previewed(case, state), self._state)))

    def _explained(self, case: Case, decision: Decision, seen: Inputs | None) -> Explanation:
        inputs = case.policies.asked(case.request) if seen is None else seen
        return evolve(case.policies.explanation(decision, inputs), flips=case.policies.flips(decision, inputs))

    # ---- what sessions and guards ask

    def against(self, session: Session, chain: Chain) -> Stop | None:
        """Say what stops a session, or one that goes on with `chain`: a halt, or something that was revoked."""
        return self._revoked.against(self._revoked.known(), session.id, chain, session.token)

    def watch(self, running: object, look: Callable[[], None]) -> None:
        """Call `look` whenever something was revoked, or that can't be found out, until `unwatch`; in any thread."""
        self._revoked.watch(running, look)

    def unwatch(self, running: object) -> None:
        """Call it no more."""
        self._revoked.unwatch(running)

    def mark(self, session: Session, name: str, by: Principal | None) -> None:
        """Set a mark, and record it; see `Session.mark`."""
        self._orders.mark(session, name, by)

    async def amark(self, session: Session, name: str, by: Principal | None) -> None:
        """Do what `mark` does without blocking the loop on a sink or the state store."""
        await _in_thread(self._orders.mark, session, name, by)

    def unmark(self, session: Session, name: str, reason: str, by: Principal | None) -> bool:
        """Record that a mark is removed, and remove it; see `Session.unmark`."""
        return self._orders.unmark(session, name, reason, by)

    async def aunmark(self, session: Session, name: str, reason: str, by: Principal | None) -> bool:
        """Do what `unmark` does without blocking the loop on a sink or the state store."""
        return await _in_thread(self._orders.unmark, session, name, reason, by)

    def decide_call(self, session: Session, call: Call) -> Verdict:
        """Decide, commit and record one call of a session."""
        return self._taking.taken(self._cases.of_session(session, call))

    def adecide_call(self, session: Session, call: Call) -> Coroutine[Any, Any, Verdict]:
        """Decide, commit and record one call of a session, without blocking the loop on a sink."""
        return self._taking.ataken(self._cases.of_session(session, call))

    def pass_on(self, session: Session, passing: Passing) -> str | None:
        """Record an attempt to pass a session's authority on; return the record's id, None where no sink wants it.

        Raises:
            SinkError: it couldn't be recorded, so it must not go ahead.
        """
        return self._recording.write_passing(passing, session.id, self.now(), session.made_by)

    async def apass_on(self, session: Session, passing: Passing) -> str | None:
        """Record an attempt to pass a session's authority on, without blocking the loop on a sink."""
        return await self._recording.awrite_passing(passing, session.id, self.now(), session.made_by)

    def record_passing(self, passing: Passing, now: dt.datetime) -> str | None:
        """Record an attempt to pass authority on outside of any session, as `agentauthz.sts` does; return as `pass_on`.

        Raises:
            SinkError: it couldn't be recorded, so it must not go ahead.
        """
        return self._recording.write_passing(passing, None, now)

    def preview_call(self, session: Session, call: Call, state: State | None) -> Decision:
        """Decide one call of a session; commit and record nothing."""
        return taken(previewed(self._cases.of_session(session, call), state))[0]

    async def apreview_call(self, session: Session, call: Call, state: State | None) -> Decision:
        """Do what `preview_call` does without blocking the loop on the state store."""
        return (await ataken(previewed(self._cases.of_session(session, call), state), self._state))[0]

    def follows(self, verdict: Verdict, *, ran: bool = True) -> bool:
        """Say whether how a call ended is to be recorded, as its decision was, remembered or settled."""
        return self._taking.follows(verdict, ran=ran)

    def finish_call(self, session: Session, effect: Effect) -> None:
        """Remember and record how a call ended; a sink or store that fails now is logged, since the call has run."""
        self._taking.finish(session, effect)

    def afinish_call(self, session: Session, effect: Effect) -> Coroutine[Any, Any, None]:
        """Do what `finish_call` does without blocking the loop on a sink or the state store."""
        return self._taking.afinish(session, effect)


async def _in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    import asyncio  # programs without a loop don't pay for it

    return await asyncio.to_thread(work, *args, **kwargs)
