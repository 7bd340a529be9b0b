"""Ask people while a call is decided: an `approver=` callback; and tell what becomes of reviews."""

from __future__ import annotations

import datetime as dt
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, cast, final

from agentauthz.approvals.review import Answer, Review
from agentauthz.authorizer.approvals import Approvals, Event, Notify
from agentauthz.authorizer.case import Case
from agentauthz.authorizer.deciding import ajudged, judged
from agentauthz.authorizer.recording import Recording
from agentauthz.calls import Verdict
from agentauthz.canonical import class_name
from agentauthz.decision import Outcome
from agentauthz.errors import ApprovalRefused
from agentauthz.principals import Principal

Approver: TypeAlias = Callable[[Review], Answer | Awaitable[Answer | None] | None]

MAX_PEOPLE: Final = 8  # answers that one decision asks for in the process itself
_MAX_TOLD: Final = 10_000  # ids of expired reviews, before all are forgotten
_log = logging.getLogger("agentauthz.approvals")


@final
class Teller:
    """Record what becomes of reviews, and notify whoever wants to know, each time in a thread of its own."""

    def __init__(self, recording: Recording, now: Callable[[], dt.datetime], notify: Notify | None) -> None:
        self._recording: Final = recording
        self._now: Final = now
        self._notify: Final = notify
        self._told: Final[dict[str, None]] = {}

    def record(self, event: Event, review: Review, by: Principal | None = None, reason: str = "") -> None:
        """Record what became of a review.

        Raises:
            SinkError: it couldn't be recorded.
        """
        self._recording.write_approval(event, review, self._now(), by, reason)

    def notify(self, event: Event, review: Review) -> None:
        """Tell those who want to know; what fails there is logged."""
        if self._notify is None:
            return
        try:
            threading.Thread(
                target=_notified, args=(self._notify, event, review), name="agentauthz-notify", daemon=True
            ).start()
        except Exception as error:  # no thread could be had, or the interpreter is ending
            _log.error("nobody was notified of `%s`: %s", event, class_name(error))

    def tell(self, event: Event, review: Review, by: Principal | None = None) -> None:
        """Record and notify, where failures change nothing any more: they are logged."""
        try:
            self.record(event, review, by)
        except Exception as error:
            _log.error("`%s` of approval %s couldn't be recorded: %s", event, review.id, class_name(error))
        self.notify(event, review)

    def tell_once(self, event: Event, review: Review) -> None:
        """Do what `tell` does, once for each review."""
        if review.id not in self._told:
            if len(self._told) >= _MAX_TOLD:
                self._told.clear()
            self._told[review.id] = None
            self.tell(event, review)


def _notified(notify: Notify, event: Event, review: Review) -> None:
    try:
        told = notify(event, review)
        if inspect.iscoroutine(told):
            import asyncio

            asyncio.run(told)
    except Exception as error:  # what a hook does decides nothing
        _log.error("notifying of `%s` failed: %s", event, class_name(error))


@final
class Consultation:
    """Take verdicts that wait for a person further: announce the request, and ask the `approver=` callback.

    `forgetful` says that the store outlasts the key, which is random: that is logged, once.
    """

    def __init__(
        self,
        approvals: Approvals,
        teller: Teller,
        approver: Approver | None,
        now: Callable[[], dt.datetime],
        *,
        forgetful: bool = False,
    ) -> None:
        self._forgetful = forgetful
        self._approvals: Final = approvals
        self._teller: Final = teller
        self._approver: Final = approver
        self._now: Final = now

    def settled(self, case: Case, verdict: Verdict) -> Verdict:
        """Return the verdict once everybody who can be asked here was; what came between is its `interrupt`."""
        try:
            for _ in range(MAX_PEOPLE):
                if (review := self._waiting(verdict)) is None or (approver := self._approver) is None:
                    break
                if not self._took(review, _answer(approver, review)):
                    break
                case.renew(self._now())
                verdict = judged(case)
        except (KeyboardInterrupt, SystemExit) as error:  # the request stands, and so must its record
            verdict.cause = error
        return verdict

    async def asettled(self, case: Case, verdict: Verdict) -> Verdict:
        """Do what `settled` does without blocking the loop on the callback, a sink or the state store."""
        import asyncio  # programs without a loop don't pay for it

        try:
            for _ in range(MAX_PEOPLE):
                # one that may run holds what it reserved: it waits for nothing in vain
                if verdict.interrupt is not None or not _is_told(verdict):
                    break
                review = await asyncio.to_thread(self._waiting, verdict)
                if review is None or (approver := self._approver) is None:
                    break
                answer = await _aanswer(approver, review)
                if not await asyncio.to_thread(self._took, review, answer):
                    break
                case.renew(self._now())
                verdict = await ajudged(case)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit) as error:
            verdict.cause = error
        return verdict

    def concerns(self, verdict: Verdict) -> bool:
        """Say whether a verdict has to do with people's consent."""
        return verdict.heard is not None

    def recorded(self, verdict: Verdict) -> None:
        """Tell that a call has used up its approval, once its decision is recorded; a denied call may have."""
        if verdict.heard is not None and verdict.heard.used and verdict.review is not None:
            self._teller.tell("consumed", verdict.review, verdict.request.actor)

    def _waiting(self, verdict: Verdict) -> Review | None:
        """Return what waits for a person, after telling what is new about it."""
        if (heard := verdict.heard) is None:
            return None
        if heard.lapsed is not None:
            self._teller.tell_once("expired", heard.lapsed)
        if verdict.decision.outcome is not Outcome.REVIEW or (review := heard.review) is None:
            return None
        if heard.fresh:
            heard.fresh = False
            self._teller.tell("requested", review, verdict.request.actor)
            self._warn_if_forgetful()
        return review

    def _warn_if_forgetful(self) -> None:
        if self._forgetful:
            self._forgetful = False
            _log.warning(
                "approvals are sealed with a random key, since no `key=` was given: no other process, and none after a "
                "restart, can show, answer or use them"
            )

    def _took(self, review: Review, answer: object) -> bool:
        """Give an answer to the store; say whether it counted."""
        if answer is None:
            return False
        if type(answer) is not Answer:
            _log.error("`approver` must return an Answer or None, not %s; nothing was answered", class_name(answer))
            return False
        try:
            if answer.approved:
                self._approvals.approve(review.id, answer.by, note=answer.note)
            else:
                self._approvals.reject(review.id, answer.by, note=answer.note)
        except ApprovalRefused as error:
            _log.warning("the answer of `approver` doesn't count: %s", error)
            return False
        except Exception as error:  # the call stays where it is
            _log.error("the answer of `approver` couldn't be kept: %s", class_name(error))
            return False
        return True


def _is_told(verdict: Verdict) -> bool:
    """Say whether there is anything that people are told of a verdict, or asked about it, before it is recorded."""
    heard = verdict.heard
    return heard is not None and (heard.lapsed is not None or verdict.decision.outcome is Outcome.REVIEW)


def _answer(approver: Approver, review: Review) -> object:
    try:
        answer: Any = approver(review)
    except Exception as error:
        _log.error("`approver` failed: %s", class_name(error))
        return None
    if inspect.iscoroutine(answer):
        answer.close()
        _log.error("`approver` is a coroutine function, and the call isn't: it wasn't asked")
        return None
    return answer


async def _aanswer(approver: Approver, review: Review) -> object:
    import asyncio

    try:
        if inspect.iscoroutinefunction(approver):
            return await cast("Awaitable[object]", approver(review))
        answer: Any = await asyncio.to_thread(approver, review)
        return await answer if inspect.isawaitable(answer) else answer
    except Exception as error:
        _log.error("`approver` failed: %s", class_name(error))
        return None
