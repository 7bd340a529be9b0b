"""Tie an approval to exactly one call."""

from __future__ import annotations

from typing import Final, final

from agentauthz.canonical import Json, encode, jsonable
from agentauthz.principals import Chain, Principal
from agentauthz.request import Request, Resource, SessionFacts
from agentauthz.values import UNKNOWN

_NO_VALUE: Final = frozenset({"$u", "$x"})  # the tags of what isn't held, or isn't known


@final
class Unbindable(Exception):  # it never leaves this library: the call is denied
    """Say which part of a call is no value, so that nobody could tell whether another call is the same."""


def bound(request: Request, digest: str) -> bytes:
    """Return what an approval of a call holds good for, under the policies with `digest`: equal bytes, the same call.

    That is the subject, the chain (who, for which actions and purposes, handed off or passed on), the action, the bound
    arguments, the resource's type and id, the purpose and the session. When the chain ends, and attributes, aren't in
    it: a call that was approved is decided again.

    Raises:
        Unbindable: something in it is no value, or isn't known.
    """
    facts, resource = request.session, request.resource
    tree: dict[str, Json] = {
        "action": jsonable(request.action),
        "args": _whole("an argument", jsonable(UNKNOWN if request.args is UNKNOWN else dict(request.args))),
        "chain": _chain(request.chain),
        "policy": digest,
        "purpose": _whole("the purpose", jsonable(request.purpose)),
        "resource": _whole(
            "the resource",
            jsonable([resource.type, resource.id] if isinstance(resource, Resource) else resource),
        ),
        "session": _whole("the session", jsonable(facts.id if isinstance(facts, SessionFacts) else facts)),
    }
    return encode(tree)


def _chain(chain: Chain) -> Json:
    hops: list[Json] = [
        [_who(hop.to), jsonable(hop.actions), jsonable(hop.purpose), hop.handoff] for hop in chain.delegations
    ]
    return [_who(chain.subject), *hops]


def _who(who: Principal) -> Json:
    return jsonable([who.kind, who.id, who.issuer])


def _whole(what: str, tree: Json) -> Json:
    """Return a tree that holds all of what it was made of.

    Raises:
        Unbindable: some of it is only named.
    """
    if isinstance(tree, list):
        for item in tree:
            _whole(what, item)
    elif isinstance(tree, dict):
        if len(tree) == 1 and not _NO_VALUE.isdisjoint(tree):
            raise Unbindable(what)
        for item in tree.values():
            _whole(what, item)
    return tree
