"""Define what comes out of a decision: `Outcome`, `Basis`, `Reason`, `Obligation`, `Decision`. Pure data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import final

from attrs import field, frozen

from agentauthz.errors import InvalidArgument


@final
class Outcome(enum.Enum):
    """Be the answer to a request."""

    ALLOW = "allow"
    DENY = "deny"
    REVIEW = "review"


@final
class Basis(enum.Enum):
    """Tell what an outcome rests on: a policy's own "no" apart from "could not decide"."""

    RULE = "rule"
    DEFAULT = "default"
    AUTHORITY = "authority"
    LIMIT = "limit"
    REVOKED = "revoked"
    UNDETERMINED = "undetermined"
    ERROR = "error"


@final
@frozen
class Reason:
    """Be one reason: a stable `code`, text for people, the rule and its place (`file:line:column`) if any.

    `because` is what the policy's author wrote for the people and models that are refused.
    """

    code: str
    text: str
    rule: str | None = None
    at: str | None = None
    because: str | None = None
    # as records write it, kept by the first one: a rule gives the same reason to all that it permits
    _written: str | None = field(default=None, init=False, eq=False, repr=False)

    def _keep(self, written: str) -> str:
        """Keep the text that records write for this reason; it depends on nothing else."""
        object.__setattr__(self, "_written", written)
        return written


@final
@frozen
class Obligation:
    """Be what must also be done, or the decision is a deny (AuthZEN Obligations profile's shape)."""

    id: str
    type: str
    properties: Mapping[str, object]


@final
@frozen(eq=False)
class Decision:
    """Be the answer to one request, and why. It has no truth value: ask `.allowed`.

    `rules` are those that stood in the way (where allowed: the true permits), `undetermined` the forbids,
    reviews, limits, marks and permits with obligations whose condition could not be decided, `missing` the
    inputs that were absent, unknown or of the wrong type, `marks` what the session carries once the call
    runs. `enforced` is False only where observe mode lets a call run against its outcome. Calls of one action that the
    same rules allow may share a decision, but one with a `record_id` is of one call alone.
    """

    outcome: Outcome
    basis: Basis
    action: str
    rules: tuple[str, ...] = ()
    undetermined: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    marks: tuple[str, ...] = ()
    policy_digest: str = ""
    record_id: str | None = None
    enforced: bool = True
    # what records write of rules and reasons, kept by the first one
    _written: str | None = field(default=None, init=False, eq=False, repr=False)
    # as the record writes where it belongs: the record of the call's effect writes the same
    _ctx: str = field(default="", repr=False)

    @property
    def allowed(self) -> bool:
        """Say whether the call may run now."""
        return self.outcome is Outcome.ALLOW or not self.enforced

    def _numbered(self, record_id: str, ctx: str) -> Decision:
        """Return the same decision with its record's id; calls that the same rules allow may share one without."""
        return Decision(
            self.outcome, self.basis, self.action, self.rules, self.undetermined, self.missing, self.reasons,
            self.obligations, self.marks, self.policy_digest, record_id, self.enforced, ctx,
        )  # fmt: skip

    def _keep(self, written: str) -> str:
        """Keep the text that records write of this decision's rules and reasons; it depends on nothing else."""
        object.__setattr__(self, "_written", written)
        return written

    def __bool__(self) -> bool:
        raise InvalidArgument("decision", "has no truth value: ask `decision.allowed`, or let `authorize` raise")
