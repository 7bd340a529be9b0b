"""Make the rules and the requests that every engine is given.

A rule is a pair: this role may take this action, on resources that are normal, up to this amount. There are
ten roles, and a tenth as many actions as rules; a request's subject has one or two of the roles. So every
action has ten rules, of which one or two could match a request, whatever the size of the set.
"""

from __future__ import annotations

import random
from typing import Final, final

from attrs import frozen

ROLES: Final = 10
REQUESTS: Final = 1_000
_SEED: Final = 20_231_123


@final
@frozen
class Pair:
    """Be one rule: `role` may take `action` on normal resources, up to `limit`."""

    name: str
    action: str
    role: str
    limit: int


@final
@frozen
class Asked:
    """Be one request, in plain values; each engine makes its own form of it."""

    user: str
    roles: tuple[str, ...]
    action: str
    amount: int
    resource: str
    sensitivity: str


def pairs(count: int) -> list[Pair]:
    """Return `count` rules; the limits differ between roles and actions."""
    return [
        Pair(f"rule_{n}", f"app.action_{n // ROLES}", f"role_{n % ROLES}", 100 + 271 * n % 900) for n in range(count)
    ]


def requests(count: int) -> list[Asked]:
    """Return the 1,000 requests for a set of `count` rules: the same ones every time.

    About half are allowed. One in twenty names an action that no rule has.
    """
    rng = random.Random(_SEED)
    actions = max(1, count // ROLES)
    return [_asked(rng, actions) for _ in range(REQUESTS)]


def _asked(rng: random.Random, actions: int) -> Asked:
    first, second = rng.randrange(ROLES), rng.randrange(ROLES)
    roles = tuple(f"role_{n}" for n in sorted({first, second}))
    known = rng.random() < 0.95
    return Asked(
        user="user_" + "_".join(str(n) for n in sorted({first, second})),
        roles=roles,
        action=f"app.action_{rng.randrange(actions)}" if known else "app.unheard_of",
        amount=rng.randrange(1_000),
        resource=f"doc_{rng.randrange(1_000)}",
        sensitivity="normal" if rng.random() < 0.9 else "secret",
    )


def expected(rules: list[Pair], asked: list[Asked]) -> list[bool]:
    """Return what each request must come out as, worked out from the pairs themselves."""
    limits = {(rule.action, rule.role): rule.limit for rule in rules}
    return [
        one.sensitivity == "normal" and any(one.amount <= limits.get((one.action, role), -1) for role in one.roles)
        for one in asked
    ]
