"""Hold `Approvals`: what people are asked, their answers, and the calls that these let happen."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, final

from agentauthz.approvals.keeper import Answered, Keeper
from agentauthz.approvals.review import Answer, Consent, Review, Standing
from agentauthz.authorizer.reviewing import asking, fitting, may_consent
from agentauthz.authorizer.revocations import Revocations
from agentauthz.decision import Decision, Outcome
from agentauthz.errors import ApprovalRefused, InvalidArgument
from agentauthz.policy.policyset import PolicySet
from agentauthz.principals import Chain, Principal
from agentauthz.state.store import Approval, StateStore

if TYPE_CHECKING:
    from agentauthz.session import Session

Event: TypeAlias = Literal["requested", "approved", "rejected", "consumed", "expired"]
Notify: TypeAlias = Callable[[Event, Review], object]

_FIRST: Final = 0.02  # seconds between two looks at what is waited for; they double
_LONGEST: Final = 0.5


class Telling(Protocol):
    """Record and make known what becomes of reviews."""

    def record(self, event: Event, review: Review, by: Principal | None = None, reason: str = "") -> None:
        """Record what became of a review, who did it, and why.

        Raises:
            SinkError: it couldn't be recorded.
        """

    def notify(self, event: Event, review: Review) -> None:
        """Tell those who want to know; what fails there is logged."""


class Repeating(Protocol):
    """Be what a decorated function carries as `__agentauthz__`."""

    action: str

    def repeat(
        self, tool: object, session: Session, approval: str, args: Mapping[str, object], injected: Mapping[str, object]
    ) -> Any:
        """Make a call again in `session`, with the approval of that id."""


@final
class Approvals:
    """List, show and answer what people are asked, wait for answers, and make the calls that they let happen.

    Made by an authorizer, as `authorizer.approvals`. Each method may wait for the state store and the sinks;
    coroutines call them in a thread, and `awaited` and `acall` by themselves. All of them raise StateError where the
    store can't be asked.
    """

    def __init__(
        self,
        store: StateStore,
        keeper: Keeper,
        policies: Callable[[], PolicySet | None],
        telling: Telling | None,
        reopened: Callable[[Review], Session] | None = None,
    ) -> None:
        self._store: Final = store
        self._keeper: Final = keeper
        self._policies: Final = policies
        self._telling: Final = telling
        self._reopened: Final = reopened

    # ---- looking

    def list(self, *, status: Standing | None = "pending", session: str | None = None) -> tuple[Review, ...]:
        """Return the reviews that stand so (None: in any way), oldest first; those of one session, where it is given.

        What was sealed under another key, or changed since, isn't there; how many such there are is logged.
        """
        now, rows = self._store.now(), self._store.approvals(session=session)
        found = [opened for row in rows if (opened := self._keeper.opened(row)) is not None]
        if len(found) < len(rows):
            foreign = sum(not self._keeper.knows(row) for row in rows)
            logging.getLogger("agentauthz.approvals").warning(
                "%d requests can't be read: %d are sealed with another key, and %d aren't as they were sealed",
                len(rows) - len(found), foreign, len(rows) - len(found) - foreign,
            )  # fmt: skip
        standing = [review.at_moment(now) for review in found]
        return tuple(review for review in standing if status in (None, review.standing))

    def show(self, id: str) -> Review:
        """Return a review; `str(review)` shows it whole.

        Raises:
            InvalidArgument: there is none with this id that was sealed under this key.
        """
        return self._known(id)[1]

    def wait(self, id: str, timeout: float | None = None) -> Review:
        """Return a review once it isn't pending any more, or after `timeout` seconds as it then is.

        Raises:
            InvalidArgument: as `show`.
        """
        for pause in _pauses(timeout):
            review = self.show(id)
            if review.standing != "pending" or pause is None:
                return review
            time.sleep(pause)
        return self.show(id)

    async def awaited(self, id: str, timeout: float | None = None) -> Review:
        """Do what `wait` does without blocking the loop."""
        import asyncio  # programs without a loop don't pay for it

        for pause in _pauses(timeout):
            review = await asyncio.to_thread(self.show, id)
            if review.standing != "pending" or pause is None:
                return review
            await asyncio.sleep(pause)
        return await asyncio.to_thread(self.show, id)

    # ---- answering

    def approve(self, id: str, approver: Principal, *, note: str = "") -> Review:
        """Consent to a call as `approver`, who must be vouched for by whoever calls this; return the review then.

        It stays "pending" where other people have to consent too. The answer is recorded first: what can't be
        recorded doesn't count.

        Raises:
            ApprovalRefused: the approver may not, or it is too late.
            SinkError: it couldn't be recorded.
            InvalidArgument: as `show`, `approver` is no Principal, or `note` no text of at most 1,000 characters.
        """
        return self._answered(id, Answer(approver, True, note))

    def reject(self, id: str, by: Principal, *, note: str = "") -> Review:
        """Say no to a call, which then is denied until the request would have expired; anybody may.

        Raises:
            ApprovalRefused: it is too late.
            SinkError: it couldn't be recorded.
            InvalidArgument: as `approve`.
        """
        return self._answered(id, Answer(by, False, note))

    def _answered(self, id: str, answer: Answer) -> Review:
        if (telling := self._telling) is None:
            raise InvalidArgument("approvals", "must have where to record answers")
        row, review = self._known(id)
        if review.standing != "pending":
            code = {"used": "approval_used", "expired": "approval_expired"}.get(review.standing, "approval_answered")
            raise ApprovalRefused(code, f"this request isn't pending any more: it is {review.standing}")
        said = Consent(answer.by, self._store.now(), answer.note)
        status: Answered = self._granted(review, said) if answer.approved else "rejected"
        event: Event = "approved" if answer.approved else "rejected"
        telling.record(event, review, answer.by, answer.note)
        content = self._keeper.answer(row, status, (*review.consents, said))
        if not self._store.answer(id, status, content, known=row.answer):
            raise ApprovalRefused("approval_answered", "somebody else has answered meanwhile, or it has just expired")
        now = self.show(id)
        telling.notify(event, now)
        return now

    def _granted(self, review: Review, said: Consent) -> Answered:
        """Return how a review stands with one more consent.

        Raises:
            ApprovalRefused: it doesn't count.
        """
        who, policies = said.by, self._policies()
        if policies is None:
            raise InvalidArgument("policies", "must be given: they say who may approve")
        if review.policy_digest != policies.digest:
            raise ApprovalRefused(
                "approval_void", "other policies are in force by now: the call must be asked for again"
            )
        revoked = Revocations.read(self._store)
        for chain in (review.chain, Chain(who)):  # who was revoked can't be helped, and can't help
            if (stop := revoked.against(revoked.known(), review.session, chain)) is not None:
                raise ApprovalRefused(stop[1].code, "this call, or who answers, may not go on: nothing can be approved")
        if not may_consent(review.chain, who):
            code, why = (
                ("not_user", "isn't a person") if who.kind != "user" else ("in_chain", "acts in this call itself")
            )
            raise ApprovalRefused(code, f"{who} {why}, so may not approve it")
        standing = [each for each in review.consents if revoked.against(revoked.known(), None, Chain(each.by)) is None]
        before = _judged(policies, review, standing)
        after = _judged(policies, review, (*standing, said))
        if after.outcome is Outcome.DENY:
            raise ApprovalRefused("not_decidable", "what was stored of this call isn't all that the policies ask for")
        left = _asking(policies, after)
        if left and left == _asking(policies, before):
            asked = "; ".join(f"`{each.rule}` asks for {each.by}" for each in review.asking if each.rule in left)
            raise ApprovalRefused("not_approver", f"{who} isn't who may approve this: {asked}")
        return "pending" if left else "approved"

    # ---- making the call

    def call(self, id: str, tool: Callable[..., Any], *, session: Session | None = None, **injected: object) -> Any:
        """Make exactly the call that was approved, with the decorated function `tool`; return what that returns.

        It is decided from the start, and uses the approval up. The session is the one that was stored, or `session`,
        which must be given where it rests on a token. `injected` are arguments that policies don't see. An async tool
        gives a coroutine; `acall` awaits it.

        Raises:
            Denied: it may not happen; the decision's reasons say what became of the approval.
            ReviewRequired: nobody has approved it yet.
            ApprovalRefused: other policies are in force by now, so that what was stored may not be all they ask for.
            InvalidArgument: as `show`; `tool` isn't decorated, or is for another action; the session must be given; or
                an argument can't be given back as it was: `review.retry()` can, in the process that has asked.
        """
        return self._repeated(self.show(id), tool, session, injected)

    async def acall(
        self, id: str, tool: Callable[..., Any], *, session: Session | None = None, **injected: object
    ) -> Any:
        """Do what `call` does without blocking the loop on the state store, and await what an async tool gives."""
        import asyncio
        import inspect

        made = self._repeated(await asyncio.to_thread(self.show, id), tool, session, injected)
        return await made if inspect.isawaitable(made) else made

    def _repeated(self, review: Review, tool: object, session: Session | None, injected: Mapping[str, object]) -> Any:
        guarded: Repeating | None = getattr(tool, "__agentauthz__", None)
        if guarded is None:
            raise InvalidArgument("tool", "must be a function that is decorated with @authorize")
        if guarded.action != review.action:
            raise InvalidArgument("tool", f"is for `{guarded.action}`, and this approval for `{review.action}`")
        if not review.exact:
            raise InvalidArgument(
                "id", "is of a call with an argument that can't be given back as it was: use `retry()`"
            )
        if session is None:
            session = self._session(review)
        args: Any = review.request.args  # whoever's aren't known can't be asked about
        return guarded.repeat(tool, session, review.id, args, injected)

    def _session(self, review: Review) -> Session:
        policies = self._policies()
        if self._reopened is None or policies is None:
            raise InvalidArgument("approvals", "must be an authorizer's, to make calls")
        if review.session is None or review.by_token:
            raise InvalidArgument("session", "must be given: the call's own rests on a token, or there was none")
        if review.policy_digest != policies.digest:
            raise ApprovalRefused(
                "approval_void", "other policies are in force by now: the call must be asked for again"
            )
        return self._reopened(review)

    # ---- rows

    def _known(self, id: str) -> tuple[Approval, Review]:
        if not isinstance(id, str):
            raise InvalidArgument("id", "must be a string: a review's id")
        row = self._store.approval(str.__str__(id))
        review = self._keeper.opened(row)
        if row is None or row.id != id:  # who has read one request must not answer another
            raise InvalidArgument("id", "is no request's in this store")
        if review is None and not self._keeper.knows(row):
            raise InvalidArgument(
                "id", "is of a request that another key has sealed: give all processes the same `key=` (--instance-key)"
            )
        if review is None:
            raise InvalidArgument("id", "is of a request that isn't as it was sealed, so it counts as none")
        return row, review.at_moment(self._store.now())


def _judged(policies: PolicySet, review: Review, consents: Sequence[Consent]) -> Decision:
    """Return the decision on a call as it was asked about, had these consented."""
    inputs = policies.asked(review.request)
    approvers = [consent.by for consent in fitting(review.chain, consents)]
    return policies.judge_inputs(inputs, approvers=approvers)


def _asking(policies: PolicySet, decision: Decision) -> tuple[str, ...]:
    """Return the names of the reviews that still ask."""
    if decision.outcome is not Outcome.REVIEW:
        return ()
    return tuple(rule.name for rule in asking(policies, decision))


def _pauses(timeout: float | None) -> Iterator[float | None]:
    """Return how long to wait between looks; None: the time is over, so that this look is the last."""
    if timeout is not None and (type(timeout) not in (int, float) or not timeout >= 0):
        raise InvalidArgument("timeout", "must be a number of seconds, not below zero")
    ends, pause = None if timeout is None else time.monotonic() + timeout, _FIRST
    while ends is None or (left := ends - time.monotonic()) > 0:
        yield pause if ends is None else min(pause, left)
        pause = min(2 * pause, _LONGEST)
    yield None
