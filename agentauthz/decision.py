"""Define what comes out of a decision: outcome, basis, reasons, obligations, what it spends. Pure data."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation
from typing import Any, Final, final

from attrs import define, field, frozen

from agentauthz.errors import InvalidArgument

EXACT: Final = Context(prec=400, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation])  # sums of amounts


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


@define
class _Spend:
    """Be a spend that isn't sealed yet: setting a field of a frozen object costs three times as much."""

    rule: str
    key: str
    amount: Decimal
    bound: Decimal
    window: dt.timedelta | None
    reason: Reason = field(eq=False)


@final
@frozen
class Spend(_Spend):
    """Be what one limit takes of a call: `amount` of what `bound` leaves, under `key`, in each `window`.

    `key` is the same for all calls that share a budget; it carries the rule's name and what `per` gave, hashed.
    `window` None: the session. `reason` says what is told where there is no room.
    """

    @classmethod
    def trusted(
        cls, rule: str, key: str, amount: Decimal, bound: Decimal, window: dt.timedelta | None, reason: Reason
    ) -> Spend:
        """Return the same as from the class, at less cost."""
        made: Any = _Spend(rule, key, amount, bound, window, reason)
        made.__class__ = cls  # both have the same slots, and from here on nothing can be set
        sealed: Spend = made
        return sealed


@define
class _Budget:
    """Be a budget that isn't sealed yet."""

    rule: str
    key: str
    amount: Decimal
    bound: Decimal
    used: Decimal
    granted: bool = False
    room_at: dt.datetime | None = None


@final
@frozen
class Budget(_Budget):
    """Be how one limit stood when a call was decided: `used` of its `bound` by the calls before, and what it asked for.

    `granted` says that the amount was taken too. `room_at` is when it fits, where it didn't; None: it did, or never
    will.
    """

    @classmethod
    def trusted(cls, spend: Spend, used: Decimal, granted: bool, room_at: dt.datetime | None) -> Budget:
        """Return how the budget of `spend` stands, at less cost than from the class."""
        made: Any = _Budget(spend.rule, spend.key, spend.amount, spend.bound, used, granted, room_at)
        made.__class__ = cls
        sealed: Budget = made
        return sealed

    @property
    def fits(self) -> bool:
        """Say whether the amount fits, beside what was used."""
        return EXACT.add(self.used, self.amount) <= self.bound

    @property
    def left(self) -> Decimal:
        """Return what is left after the decision; never below zero."""
        taken = EXACT.add(self.used, self.amount) if self.granted else self.used
        return max(Decimal(0), EXACT.subtract(self.bound, taken))


@define(eq=False)
class _Decision:
    """Be a decision that isn't sealed yet."""

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
    spends: tuple[Spend, ...] = ()
    budgets: tuple[Budget, ...] = ()
    approval: str | None = None
    # what records write of rules and reasons, kept by the first one
    _written: str | None = field(default=None, init=False, eq=False, repr=False)
    # as the record writes where it belongs: the record of the call's effect writes the same
    _ctx: str = field(default="", repr=False)


@final
@frozen(eq=False)
class Decision(_Decision):
    """Be the answer to one request, and why. It has no truth value: ask `.allowed`.

    `rules` are those that stood in the way (where allowed: the true permits), `undetermined` the forbids,
    reviews, limits, marks and permits with obligations whose condition could not be decided, `missing` the
    inputs that were absent, unknown or of the wrong type, `marks` what the session carries once the call
    runs, `spends` what the limits take for it, and `budgets` how those stand. `enforced` is False only where observe
    mode lets a call run against its outcome. Calls of one action that the same rules allow may share a decision, but
    one with a `record_id` is of one call alone.
    """

    @property
    def allowed(self) -> bool:
        """Say whether the call may run now."""
        return self.outcome is Outcome.ALLOW or not self.enforced

    @classmethod
    def granting(
        cls,
        action: str,
        rules: tuple[str, ...],
        undetermined: tuple[str, ...],
        reasons: tuple[Reason, ...],
        marks: tuple[str, ...],
        digest: str,
        spends: tuple[Spend, ...],
    ) -> Decision:
        """Return an allow by rules, at less cost than from the class."""
        return _sealed(
            _Decision(
                Outcome.ALLOW, Basis.RULE, action, rules, undetermined, (), reasons, (), marks, digest, None, True,
                spends,
            )
        )  # fmt: skip

    def _numbered(self, record_id: str, ctx: str) -> Decision:
        """Return the same decision with its record's id; calls that the same rules allow may share one without."""
        return self._with(record_id, self.budgets, ctx)

    def _budgeted(self, budgets: tuple[Budget, ...]) -> Decision:
        """Say how the budgets stand of a decision that spends, which is of one call alone and not yet given out."""
        object.__setattr__(self, "budgets", budgets)
        return self

    def _with(self, record_id: str | None, budgets: tuple[Budget, ...], ctx: str) -> Decision:
        return _sealed(
            _Decision(
                self.outcome, self.basis, self.action, self.rules, self.undetermined, self.missing, self.reasons,
                self.obligations, self.marks, self.policy_digest, record_id, self.enforced, self.spends, budgets,
                self.approval, ctx,
            )
        )  # fmt: skip

    def _keep(self, written: str) -> str:
        """Keep the text that records write of this decision's rules and reasons; it depends on nothing else."""
        object.__setattr__(self, "_written", written)
        return written

    def __bool__(self) -> bool:
        raise InvalidArgument("decision", "has no truth value: ask `decision.allowed`, or let `authorize` raise")


def _sealed(made: Any) -> Decision:
    made.__class__ = Decision  # both have the same slots, and from here on nothing can be set
    sealed: Decision = made
    return sealed
