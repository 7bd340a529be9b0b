"""Decide two calls with the installed wheel: run by wheel_test.sh, in an environment that holds nothing else."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

import agentauthz
from agentauthz import Authorizer, Denied, Outcome, PolicySet, Principal, Request, authorize

POLICIES = """
permit small_refund on payments.refund when args.amount <= 500 and actor == agent("bot")
forbid frozen_order on payments.refund when args.order_id == "o-13"
"""


@authorize("payments.refund")
def refund(order_id: str, amount: int) -> str:
    return f"refunded {amount} for {order_id}"


def main(checkout: Path) -> None:
    package = Path(agentauthz.__file__).resolve().parent
    assert not package.is_relative_to(checkout), f"{package} is the checkout, not the wheel"
    assert files("agentauthz").joinpath("py.typed").is_file()

    maria, bot = Principal.user("maria"), Principal.agent("bot")
    authorizer = Authorizer(PolicySet.parse(POLICIES))

    def outcome(order_id: str) -> Outcome:
        args = {"order_id": order_id, "amount": 120}
        return authorizer.decide(Request("payments.refund", subject=maria, actor=bot, args=args)).outcome

    assert outcome("o-17") is Outcome.ALLOW
    assert outcome("o-13") is Outcome.DENY
    with authorizer.session(subject=maria, actor=bot):
        assert refund("o-17", 120) == "refunded 120 for o-17"
        try:
            refund("o-13", 120)
        except Denied:
            print("the wheel works: one call allowed, one denied")
        else:
            raise AssertionError("a forbidden call ran")


main(Path(sys.argv[1]))
