"""Try a promise out, and note whether it is kept; what both contract tests of state stores are made of."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable
from decimal import Decimal
from typing import Final, final

from agentauthz.canonical import class_name
from agentauthz.decision import Reason, Spend
from agentauthz.state.store import Answer, Approval, Committed, Intent, StateStore

FAR: Final = dt.timedelta(days=3650)  # nothing expires while it is tried out
HOUR: Final = dt.timedelta(hours=1)
_REASON: Final = Reason("no_budget", "there is none")


@final
class Trial:
    """Be what is known of the stores that `make` makes, all of one place where they are `shared`."""

    def __init__(self, make: Callable[[], StateStore], *, shared: bool) -> None:
        self.make: Final = make
        self.shared: Final = shared
        self.run: Final = secrets.token_hex(8)  # a place may have been tried out before
        self.names = 0
        self.problems: list[str] = []
        self.kept: list[str] = []
        self.unknown: list[str] = []

    def name(self, what: str = "check") -> str:
        """Return a name that nobody has used yet."""
        self.names += 1
        return f"{what}-{self.run}-{self.names}"

    def say(self, promise: str, holds: Callable[[], bool]) -> None:
        """Note whether a promise is kept; what raises isn't."""
        try:
            kept, why = holds(), ""
        except Exception as error:
            kept, why = False, f": {class_name(error)} is raised"
        (self.kept if kept else self.problems).append(promise if kept else f"it isn't so that {promise}{why}")


def spend(key: str, amount: str = "1", bound: str = "10", window: dt.timedelta | None = HOUR) -> Spend:
    """Return what takes `amount` of a budget."""
    return Spend(f"rule-{key}", key, Decimal(amount), Decimal(bound), window, _REASON)


def spending(*spends: Spend, session: str | None = None, releasable: bool = False) -> Intent:
    """Return an intent that only spends."""
    return Intent(session, spends=spends, releasable=releasable)


def taken(answer: Answer) -> bool:
    """Say whether all of an intent was done."""
    return isinstance(answer, Committed)


def used(store: StateStore, *spends: Spend, session: str | None = None) -> list[Decimal]:
    """Return what is used of budgets, found out without changing it."""
    tried = store.commit(Intent(session, spends=spends, reserve=False))
    budgets = tried.budgets if isinstance(tried, Committed) else getattr(tried, "full", ())
    return [budget.used for budget in budgets]


def request(store: StateStore, name: str, session: str | None = None, lasts: dt.timedelta = FAR) -> Approval:
    """Return a request for consent that nobody has stored yet."""
    now = store.now()
    return Approval(name, f"binding-{name}", session, now, now + lasts, '{"request": "\\u0000"}')


def approved(store: StateStore, name: str, session: str | None = None) -> Approval:
    """Return a request that is stored, and approved."""
    made = store.ask(request(store, name, session))
    if not store.answer(made.id, "approved", "{}"):
        raise AssertionError("a pending request can be answered")
    return made
