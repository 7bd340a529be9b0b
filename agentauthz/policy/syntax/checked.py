"""Define what the checker makes of a rule: lets expanded, clauses in their places."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import final

from attrs import field, frozen

from agentauthz.decision import Reason
from agentauthz.policy.source import Span
from agentauthz.policy.syntax.expressions import Expr, span_field
from agentauthz.policy.syntax.statements import Effect, Pattern


@final
@frozen
class CheckedObligation:
    """`with name(properties)`, its constants evaluated."""

    name: str
    properties: Mapping[str, object]
    span: Span = span_field()


@final
class Later:
    """Be a condition that is made when it is first asked for; making it twice, from two threads, does no harm."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Expr]) -> None:
        self._make: Callable[[], Expr] | None = make
        self._made: Expr | None = None

    def __call__(self) -> Expr:
        make = self._make
        if make is not None:
            self._made, self._make = make(), None
        assert self._made is not None
        return self._made


def _now(condition: Expr | Later | None) -> Expr | None:
    return condition() if isinstance(condition, Later) else condition


@final
@frozen
class CheckedRule:
    """Be a rule that passed the checker; `evaluate` defines what it means.

    `condition` is `when and not unless` (None: true); a mark's `mark` is never None.
    """

    effect: Effect
    name: str
    patterns: tuple[Pattern, ...]
    _condition: Expr | Later | None = field(alias="condition", eq=_now, repr=lambda condition: repr(_now(condition)))
    span: Span = span_field()
    because: str | None = None
    mark: str | None = None
    obligations: tuple[CheckedObligation, ...] = ()
    by: Expr | None = None
    within: dt.timedelta | None = None
    amount: Expr | None = None  # a limit's sum; None: it counts
    bound: Expr | None = None
    per: tuple[Expr, ...] = ()
    window: dt.timedelta | None = None
    digest: str = ""

    @property
    def condition(self) -> Expr | None:
        """Return what must hold."""
        return _now(self._condition)

    @cached_property
    def at(self) -> str:
        """Return the rule's place as `file:line:column`."""
        return str(self.span)

    @cached_property
    def permitted(self) -> Reason:
        """Return the reason that the rule gives for an allow; every decision that it permits shares it."""
        return Reason("permitted", self.because or f"permitted by `{self.name}`", self.name, self.at, self.because)
