"""Define every error that agentauthz raises; this tree is the manual of what can go wrong.

Nothing here derives from a second built-in class, so that a tool's own ``except ValueError`` or
``except PermissionError`` can never swallow a denial.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from agentauthz.approvals.review import Review
    from agentauthz.decision import Decision
    from agentauthz.policy.source import Diagnostic


class AgentAuthzError(Exception):
    """Be the root of the tree; ``code`` is stable and meant for programs."""

    code: ClassVar[str] = "error"


class InvalidArgument(AgentAuthzError):
    """Say that a public function was given something it can't take; ``argument`` names it."""

    code = "invalid_argument"

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(argument, message)
        self.argument = argument
        self.message = message

    def __str__(self) -> str:
        return f"`{self.argument}` {self.message}"


class PolicyError(AgentAuthzError):
    """Say that a policy set can't be used; ``diagnostics`` holds every problem found."""

    code = "policy"

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__(tuple(diagnostics))
        self.diagnostics = tuple(diagnostics)

    def __str__(self) -> str:
        return "\n\n".join(diagnostic.render() for diagnostic in self.diagnostics)


class PolicySyntaxError(PolicyError):
    """Say that some text is not in the policy language."""

    code = "policy_syntax"


class PolicyCheckError(PolicyError):
    """Say that a policy parses, but doesn't mean anything that can be relied on."""

    code = "policy_check"


class PolicyLoadError(AgentAuthzError):
    """Say that policies couldn't be read from ``path``: missing, unreadable or empty."""

    code = "policy_load"

    def __init__(self, path: str, message: str) -> None:
        super().__init__(path, message)
        self.path = path
        self.message = message

    def __str__(self) -> str:
        return f"`{self.path}`: {self.message}"


class Denied(AgentAuthzError):
    """Say that an action may not happen; ``decision`` holds the whole account.

    The text may reach a language model: it names the action, a stable code, the policy's ``because``
    and what to do, never conditions, values or other rules.
    """

    code = "denied"

    def __init__(self, message: str, decision: Decision | None = None) -> None:
        super().__init__(message, decision)
        self.message = message
        self.decision = decision

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"  # models may see this too


class NoSession(Denied):
    """Say that a guarded function was called outside any session; ``decision`` is None."""

    code = "no_session"


class ReviewRequired(AgentAuthzError):
    """Say that a person must approve the call first; not a denial, so it derives apart from ``Denied``.

    `review` is what the person is asked; None: nobody keeps approvals here.
    """

    code = "review_required"

    def __init__(self, message: str, decision: Decision, review: Review | None = None) -> None:
        super().__init__(message, decision, review)
        self.message = message
        self.decision = decision
        self.review = review

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"  # models may see this too


class ApprovalRefused(AgentAuthzError):
    """Say that somebody's answer to a review doesn't count; `reason` is a stable code, such as ``not_approver``."""

    code = "approval_refused"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})"


class Stopped(AgentAuthzError):
    """Say, from ``checkpoint()`` or a generator's next step, that running work must end now."""

    code = "stopped"


class SessionError(AgentAuthzError):
    """Say that a session was entered or used where it must not be."""

    code = "session"


class WideningError(AgentAuthzError):
    """Say that a delegation asked for more than its giver holds."""

    code = "widening"


class SinkError(AgentAuthzError):
    """Say that a sink couldn't keep a record; a required one turns an allow into a deny."""

    code = "sink"


class StateError(AgentAuthzError):
    """Say that a state store couldn't be asked, or didn't answer in time; what depends on it is denied."""

    code = "state"


class NotReplayable(AgentAuthzError):
    """Say that a record doesn't hold all that its decision rested on, and why: asking again would be a guess."""

    code = "not_replayable"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TokenError(AgentAuthzError):
    """Say that a token, a proof or the key for it can't be relied on; nothing of it is in the text.

    `reason` is a stable code, such as ``expired`` or ``signature``, for records and logs of the service: a caller
    is told no more than what `agentauthz.tokens.challenge` makes of it.
    """

    code = "token"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})"


class TransportError(AgentAuthzError):
    """Say that an HTTP request brought no answer within its bounds; nothing that was sent is in the text.

    `reason` is ``deadline``, ``too_large``, ``encoding`` or ``unreachable``.
    """

    code = "transport"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})"


class ExchangeRefused(AgentAuthzError):
    """Say, inside the token service, that it issues no token; `error` (RFC 6749 §5.2) and `status` go on the wire.

    `reason` is the precise code, and stays in the record that `record_id` names.
    """

    code = "exchange_refused"

    def __init__(self, error: str, reason: str, *, status: int = 400, record_id: str | None = None) -> None:
        super().__init__(error, reason)
        self.error = error
        self.reason = reason
        self.status = status
        self.record_id = record_id

    def __str__(self) -> str:
        return f"no token is issued: {self.error}"


class ExchangeDenied(AgentAuthzError):
    """Say that a token endpoint answered with an error (RFC 6749 §5.2); `description` and `uri` are its words."""

    code = "exchange_denied"

    def __init__(
        self, error: str, *, description: str | None = None, uri: str | None = None, status: int = 400
    ) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.uri = uri
        self.status = status

    def __str__(self) -> str:
        return f"the token endpoint refused: `{self.error}` (HTTP {self.status})"


class ExchangeProtocolError(AgentAuthzError):
    """Say that a token endpoint couldn't be reached, or its answer isn't one that may be relied on."""

    code = "exchange_protocol"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})"
