"""Decide with vakt: rule-based policies, filtered in memory."""

from __future__ import annotations

from vakt import ALLOW_ACCESS, Guard, Inquiry, MemoryStorage, Policy, RulesChecker
from vakt.rules import AnyIn, Eq, LessOrEqual

from benchmarks.peers import Engine
from benchmarks.workload import Asked, Pair


def engine(rules: list[Pair], asked: list[Asked]) -> Engine:
    """Return vakt with one policy for each rule."""
    storage = MemoryStorage()
    for rule in rules:
        storage.add(
            Policy(
                rule.name,
                subjects=[{"roles": AnyIn(rule.role)}],
                actions=[Eq(rule.action)],
                resources=[{"sensitivity": Eq("normal")}],
                context={"amount": LessOrEqual(rule.limit)},
                effect=ALLOW_ACCESS,
            )
        )
    guard = Guard(storage, RulesChecker())
    inquiries = [
        Inquiry(
            subject={"roles": list(one.roles)},
            action=one.action,
            resource={"sensitivity": one.sensitivity},
            context={"amount": one.amount},
        )
        for one in asked
    ]
    return Engine("vakt", inquiries, guard.is_allowed_check)  # the one that writes no log
