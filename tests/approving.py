"""Offer what tests of approvals need: reviews that ask, and people who may answer."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from agentauthz import InstanceKey, Principal, ReviewRequired, authorize
from agentauthz.approvals import Review
from agentauthz.errors import SinkError
from agentauthz.state.sqlite import SqliteState
from tests.support import Clock, Recorded

POLICY: Final = """
permit refunds on shop.* when true
review big
  on shop.*
  when args.amount > 500
  by "lead" in approver.roles and approver != subject
  within 10m
  because "Finance looks at large refunds"
"""
KEY: Final = InstanceKey.from_bytes(b"an instance key for tests, 32 B.")
LEAD: Final = Principal.user("lena", roles=["lead"])
OTHER: Final = Principal.user("otto", roles=["lead"])


_OPEN: Final[list[Callable[[], None]]] = []


@authorize("shop.refund", sensitive=["card"])
def refund(order: str, amount: Decimal | int, note: str = "", card: str = "none") -> str:
    """Give money back."""
    return f"refunded {order} {amount}"


def asked(session: Any, *args: Any, **kwargs: Any) -> Review:
    """Return what a person is asked about a refund that is stopped."""
    with pytest.raises(ReviewRequired) as error:
        session.bind(refund)(*args, **kwargs)
    assert error.value.review is not None
    return error.value.review


def shop(policy: str = POLICY, **options: Any) -> Recorded:
    """Return an authorizer with the tests' key."""
    made = Recorded(policy, **{"key": KEY, **options})
    _OPEN.append(made.authorizer.close)
    return made


def shared(path: Path, clock: Callable[[], dt.datetime] | None = None) -> SqliteState:
    """Return a store that processes share, which `close_all` closes."""
    made = SqliteState(path, clock=Clock() if clock is None else clock)
    _OPEN.append(made.close)
    return made


def close_all() -> None:
    """Close what `shop` and `shared` have made, last first: an authorizer asks its store until then."""
    while _OPEN:
        with contextlib.suppress(SinkError):  # a sink that a test has made fail
            _OPEN.pop()()


def codes(decision: Any) -> list[str]:
    """Return the codes of a decision's reasons."""
    return [reason.code for reason in decision.reasons]
