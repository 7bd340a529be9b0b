"""Hold what a running call says that it took less of its limits than was reserved for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, cast, final

from agentauthz.decision import Decision
from agentauthz.errors import InvalidArgument, SessionError
from agentauthz.values import MAX_DIGITS, MAX_PLACES, number


@final
class Settlement:
    """Be what one call says that it took of each limit, by the rule's name: the last word counts.

    `veiled` names the rules whose amounts records don't show.
    """

    __slots__ = ("_decision", "_ended", "_process", "_said", "veiled")

    def __init__(self, decision: Decision, veiled: frozenset[str] = frozenset()) -> None:
        self.veiled: Final = veiled
        self._decision: Final = decision
        self._process: Final = os.getpid()
        self._said: Final[dict[str, Decimal]] = {}
        self._ended = False

    def reserved(self) -> Mapping[str, Decimal]:
        """Return what the decision reserved, by the rule's name: of several budgets of one rule, the smallest."""
        reserved: dict[str, Decimal] = {}
        for budget in self._decision.budgets:
            reserved[budget.rule] = min(budget.amount, reserved.get(budget.rule, budget.amount))
        return reserved

    def settle(self, amounts: Mapping[str, object]) -> None:
        """Keep what the call says that it took; all of it or nothing.

        Raises:
            InvalidArgument: a rule that reserved nothing for the call, or an amount that is no exact number, has more
                digits than numbers have, or is below zero or above what was reserved.
            SessionError: the call has ended.
        """
        if self._ended:
            raise SessionError("this call has ended, and what it took is settled: say it while the call runs")
        all_reserved = self.reserved()
        said = {rule: self._checked(rule, _exact(rule, amount), all_reserved) for rule, amount in amounts.items()}
        self._said.update(said)

    def _checked(self, rule: str, amount: Decimal, all_reserved: Mapping[str, Decimal]) -> Decimal:
        reserved = all_reserved.get(rule)
        if reserved is None:
            if not self._decision.enforced:  # observe mode lets calls run for which nothing is reserved
                return amount
            known = ", ".join(f"`{name}`" for name in all_reserved)
            what = f"these have: {known}" if known else "none has"
            raise InvalidArgument(rule, f"is no limit that has reserved anything for this call; {what}")
        if amount > reserved:
            # SECURITY: neither amount is told: it may be made of a sensitive argument
            raise InvalidArgument(rule, "can't have taken more than was reserved for this call, so reserve more")
        return amount

    def ended(self) -> Mapping[str, Decimal] | None:
        """End the call, and return what it said of its limits; None in a fork of the process that it began in.

        INVARIANT: what a limit took less is given back once at most, and by whom the call was allowed to. No store is
        asked to do it again, and where a function forks, two processes leave it.
        """
        self._ended = True
        return dict(self._said) if self._process == os.getpid() else None


def _exact(rule: str, amount: object) -> Decimal:
    if type(amount) is int:
        amount = Decimal(amount)
    if type(amount) is not Decimal or not amount.is_finite():
        raise InvalidArgument(rule, "must be an exact amount: an int or a finite Decimal")
    if amount < 0:
        raise InvalidArgument(rule, "can't have taken less than nothing: an amount is never below zero")
    # SECURITY: sums are exact up to some hundred digits, and what others spend of the same budget must still be counted
    if type(kept := number(amount)) not in (int, Decimal):
        raise InvalidArgument(rule, f"must have at most {MAX_DIGITS} digits, and {MAX_PLACES} after the point")
    return Decimal(cast("int | Decimal", kept))
