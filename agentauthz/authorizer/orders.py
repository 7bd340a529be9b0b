"""Carry out what the host orders beside decisions: revoke, halt, resume, mark, unmark; each leaves a record."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast, final

from agentauthz.authorizer.recording import Recording
from agentauthz.authorizer.revocations import Revocations, principal_name
from agentauthz.canonical import class_name
from agentauthz.errors import InvalidArgument, SinkError, StateError
from agentauthz.principals import Principal
from agentauthz.session import Session
from agentauthz.state.store import Revocation, Subject

if TYPE_CHECKING:
    from agentauthz.tokens.verified import VerifiedToken

MAX_REASON: Final = 1_000  # characters


@final
class Orders:
    """Revoke, halt, resume and mark: first it takes effect, then it is recorded. A mark is removed the other way round.

    `by` is whose order it is, as the host says.
    """

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
        by: Principal | None = None,
    ) -> Revocation:
        """Revoke one thing for ever; see `Authorizer.revoke`."""
        if sum(given is not None for given in (session, principal, token)) != 1:
            raise InvalidArgument("revoke", "takes exactly one of `session`, `principal` and `token`")
        if session is not None:
            own = session.id if isinstance(session, Session) else _text("session", session)
            return self._ordered("revoke", "session", own, reason, by, {"of": "session"}, own)
        if principal is not None:
            if type(principal) is not Principal:
                raise InvalidArgument("principal", "must be a Principal")
            about = {"of": "principal", "id": str(principal)}
            return self._ordered("revoke", "principal", principal_name(principal), reason, by, about)
        from agentauthz.tokens.revocation import named  # who has no token doesn't load what verifies them

        name = named(cast("VerifiedToken | str", token))
        about = {"of": "token", "digest": self._recording.digest("token", name)}
        return self._ordered("revoke", "token", name, reason, by, about)

    def halt(self, reason: str, by: Principal | None = None) -> Revocation:
        """Stop everything; see `Authorizer.halt`."""
        return self._ordered("halt", "everything", "", reason, by)

    def resume(self, reason: str, by: Principal | None = None) -> Revocation:
        """Let everything go on; see `Authorizer.resume`."""
        return self._ordered("resume", "everything", "", reason, by)

    def mark(self, session: Session, name: str, by: Principal | None = None) -> None:
        """Set a mark, and record it; see `Session.mark`."""
        about, by = {"kind": "mark", "id": _text("name", name)}, _somebody(by)
        session.memory.mark(about["id"])
        self._record("mark", about, session.id, by)

    def unmark(self, session: Session, name: str, reason: str, by: Principal | None = None) -> bool:
        """Record that a mark is removed, and remove it: where it can't be recorded, nothing is done."""
        about = {"kind": "unmark", "id": _text("name", name), "reason": _reason(reason)}
        by = _somebody(by)
        try:
            self._recording.write_state(about, session.id, self._now(), by)
        except Exception as error:
            raise SinkError("that the mark is removed couldn't be recorded, so it stays") from error
        return session.memory.unmark(about["id"])

    def _ordered(
        self,
        kind: str,
        subject: Subject,
        name: str,
        reason: str,
        by: Principal | None,
        about: dict[str, str] | None = None,
        session: str | None = None,
    ) -> Revocation:
        """Let an order take effect, record it, and return it as the store has it.

        Raises:
            StateError: it holds here only, or nobody knows.
            SinkError: it holds, but couldn't be recorded.
        """
        reason, by = _reason(reason), _somebody(by)
        made: Revocation | StateError
        try:
            made = self._revoked.revoke(subject, name, reason, lifts=kind == "resume")
        except StateError as error:
            made = error
        if isinstance(made, Revocation) or kind != "resume":  # what doesn't hold even here isn't told
            self._record(kind, {"kind": kind, **(about or {}), "reason": reason}, session, by)
        if isinstance(made, StateError):
            raise made
        return made

    def _record(self, kind: str, about: dict[str, str], session: str | None, by: Principal | None) -> None:
        try:
            self._recording.write_state(about, session, self._now(), by)
        except Exception as error:
            logging.getLogger("agentauthz.records").error(
                "a %s holds, but couldn't be recorded: %s", kind, class_name(error)
            )
            raise SinkError(f"the {kind} holds, but couldn't be recorded") from error


def _text(argument: str, given: object) -> str:
    if not isinstance(given, str) or not given:
        raise InvalidArgument(argument, "must be a string that is not empty")
    return str.__str__(given)


def _somebody(given: object) -> Principal | None:
    if given is not None and type(given) is not Principal:
        raise InvalidArgument("by", "must be a Principal: who orders it")
    return given


def _reason(given: object) -> str:
    text = _text("reason", given)
    if len(text) > MAX_REASON:
        raise InvalidArgument("reason", f"must have at most {MAX_REASON:,} characters")
    return text
