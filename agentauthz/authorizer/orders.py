"""Carry out what the host orders beside decisions: revoke, halt, resume, remove a mark; each leaves a record."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from agentauthz.authorizer.recording import Recording
from agentauthz.authorizer.revocations import Revocations, principal_name
from agentauthz.canonical import class_name
from agentauthz.errors import InvalidArgument, SinkError, StateError
from agentauthz.principals import Principal
from agentauthz.session import Session
from agentauthz.state.store import Subject

if TYPE_CHECKING:
    from agentauthz.tokens.verified import VerifiedToken

MAX_REASON: Final = 1_000  # characters


@final
class Orders:
    """Revoke, halt and resume: first it takes effect, then it is recorded. A mark is removed the other way round."""

    def __init__(self, revoked: Revocations, recording: Recording, now: Callable[[], dt.datetime]) -> None:
        self._revoked: Final = revoked
        self._recording: Final = recording
        self._now: Final = now

    def revoke(
        self,
        session: str | Session | None,
        principal: Principal | None,
        token: VerifiedToken | str | None,
        reason: str,
    ) -> None:
        """Revoke one thing for ever; see `Authorizer.revoke`."""
        if sum(given is not None for given in (session, principal, token)) != 1:
            raise InvalidArgument("revoke", "takes exactly one of `session`, `principal` and `token`")
        if session is not None:
            own = session.id if isinstance(session, Session) else _text("session", session)
            self._ordered("revoke", "session", own, reason, {"of": "session"}, own)
        elif principal is not None:
            if type(principal) is not Principal:
                raise InvalidArgument("principal", "must be a Principal")
            about = {"of": "principal", "id": str(principal)}
            self._ordered("revoke", "principal", principal_name(principal), reason, about)
        elif token is not None:
            from agentauthz.tokens.revocation import named  # who has no token doesn't load what verifies them

            name = named(token)
            about = {"of": "token", "digest": self._recording.digest("token", name)}
            self._ordered("revoke", "token", name, reason, about)

    def halt(self, reason: str) -> None:
        """Stop everything; see `Authorizer.halt`."""
        self._ordered("halt", "everything", "", reason)

    def resume(self, reason: str) -> None:
        """Let everything go on; see `Authorizer.resume`."""
        self._ordered("resume", "everything", "", reason)

    def unmark(self, session: Session, name: str, reason: str) -> bool:
        """Record that a mark is removed, and remove it: where it can't be recorded, nothing is done."""
        about = {"kind": "unmark", "id": _text("name", name), "reason": _reason(reason)}
        try:
            self._recording.write_state(about, session.id, self._now())
        except Exception as error:
            raise SinkError("that the mark is removed couldn't be recorded, so it stays") from error
        return session.memory.unmark(str.__str__(name))

    def _ordered(
        self,
        kind: str,
        subject: Subject,
        name: str,
        reason: str,
        about: dict[str, str] | None = None,
        session: str | None = None,
    ) -> None:
        """Let an order take effect, and record it.

        Raises:
            StateError: it holds here only, or nobody knows.
            SinkError: it holds, but couldn't be recorded.
        """
        reason, failure = _reason(reason), None
        try:
            self._revoked.revoke(subject, name, reason, lifts=kind == "resume")
        except StateError as error:
            failure = error
        if failure is None or kind != "resume":  # what doesn't hold even here isn't told
            self._record(kind, {"kind": kind, **(about or {}), "reason": reason}, session)
        if failure is not None:
            raise failure

    def _record(self, kind: str, about: dict[str, str], session: str | None) -> None:
        try:
            self._recording.write_state(about, session, self._now())
        except Exception as error:
            logging.getLogger("agentauthz.records").error(
                "a %s holds, but couldn't be recorded: %s", kind, class_name(error)
            )
            raise SinkError(f"the {kind} holds, but couldn't be recorded") from error


def _text(argument: str, given: object) -> str:
    if not isinstance(given, str) or not given:
        raise InvalidArgument(argument, "must be a string that is not empty")
    return str.__str__(given)


def _reason(given: object) -> str:
    text = _text("reason", given)
    if len(text) > MAX_REASON:
        raise InvalidArgument("reason", f"must have at most {MAX_REASON:,} characters")
    return text
