"""Decide with Cedar, by cedarpy: policies and the roles' entities are parsed beforehand."""

from __future__ import annotations

import json
from typing import Any

import cedarpy

from benchmarks.peers import Engine
from benchmarks.workload import Asked, Pair


def engine(rules: list[Pair], asked: list[Asked]) -> Engine:
    """Return Cedar with one policy for each rule; roles are the parents of users, as its users write them."""
    policies = cedarpy.PolicySet.from_str("\n".join(map(_policy, rules)))
    users = {one.user: one.roles for one in asked}
    documents = {(one.resource, one.sensitivity) for one in asked}
    entities = cedarpy.Entities.from_json_str(
        json.dumps(
            [_entity("User", user, {}, roles) for user, roles in users.items()]
            + [_entity("Doc", f"{name}-{kind}", {"sensitivity": kind}, ()) for name, kind in documents]
        )
    )

    def verdict(request: dict[str, Any]) -> bool:
        allowed: bool = cedarpy.is_authorized(request, policies, entities).allowed
        return allowed

    return Engine("cedarpy", list(map(_request, asked)), verdict)


def _policy(rule: Pair) -> str:
    return (
        f'permit (principal in Role::"{rule.role}", action == Action::"{rule.action}", resource) '
        f'when {{ resource.sensitivity == "normal" && context.amount <= {rule.limit} }};'
    )


def _entity(kind: str, id: str, attributes: dict[str, str], roles: tuple[str, ...]) -> dict[str, Any]:
    return {
        "uid": {"type": kind, "id": id},
        "attrs": attributes,
        "parents": [{"type": "Role", "id": role} for role in roles],
    }


def _request(one: Asked) -> dict[str, Any]:
    return {
        "principal": f'User::"{one.user}"',
        "action": f'Action::"{one.action}"',
        "resource": f'Doc::"{one.resource}-{one.sensitivity}"',
        "context": {"amount": one.amount},
    }
