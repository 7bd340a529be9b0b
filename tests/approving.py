"""Offer what tests of approvals need: reviews that ask, and people who may answer."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import pytest

from agentauthz import InstanceKey, Principal, ReviewRequired, authorize
from agentauthz.approvals import Review
from tests.support import Recorded

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
    return Recorded(policy, **{"key": KEY, **options})


def codes(decision: Any) -> list[str]:
    """Return the codes of a decision's reasons."""
    return [reason.code for reason in decision.reasons]
