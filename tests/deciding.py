"""Decide requests on the definition and on the compiled form; see the fixture `form`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from agentauthz import Decision, PolicySet, Principal, Request
from tests.support import BOT, MARIA, NOON

Form: TypeAlias = Callable[[PolicySet], PolicySet]

FORMS: Final[Mapping[str, Form]] = {"definition": PolicySet.on_definition, "compiled": lambda policies: policies}


def requested(action: str = "t.do", *, subject: Principal = MARIA, **given: Any) -> Request:
    """Return a request by Maria through the bot at noon, where nothing else is given."""
    acting = {} if "chain" in given else {"actor": BOT}
    return Request(action, subject=subject, **{**acting, "now": NOON, **given})


def decided(policies: PolicySet, request: Request) -> Decision:
    """Return the decision on a request that is met for the third time: by then all that will be compiled is.

    Raises:
        AssertionError: it came out differently before.
    """
    *early, last = (policies.decide(request) for _ in range(3))
    assert all(account(one) == account(last) for one in early)
    return last


def account(decision: Decision) -> tuple[object, ...]:
    """Return what a decision says, for comparison."""
    return (
        decision.outcome, decision.basis, decision.rules, decision.undetermined, decision.missing,
        decision.reasons, decision.obligations, decision.marks,
    )  # fmt: skip
