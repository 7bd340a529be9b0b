"""Decide with oso: one Polar rule for each rule, found by its index over the actions' names."""

from __future__ import annotations

from typing import final

from attrs import frozen
from oso import Oso

from benchmarks.peers import Engine
from benchmarks.workload import Asked, Pair


@final
@frozen
class User:
    """Be the actor, as an application's class would."""

    roles: list[str]


@final
@frozen
class Doc:
    """Be the resource, and what is asked of it."""

    sensitivity: str
    amount: int


def engine(rules: list[Pair], asked: list[Asked]) -> Engine:
    """Return oso with the rules loaded."""
    oso = Oso()
    oso.register_class(User)
    oso.register_class(Doc)
    oso.load_str("\n".join(map(_polar, rules)))

    def verdict(request: tuple[User, str, Doc]) -> bool:
        allowed: bool = oso.is_allowed(*request)
        return allowed

    made = [(User(list(one.roles)), one.action, Doc(one.sensitivity, one.amount)) for one in asked]
    return Engine("oso", made, verdict)


def _polar(rule: Pair) -> str:
    return (
        f'allow(user: User, "{rule.action}", doc: Doc) if '
        f'"{rule.role}" in user.roles and doc.sensitivity = "normal" and doc.amount <= {rule.limit};'
    )
