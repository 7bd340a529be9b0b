"""Turn a call that was asked about into JSON, and back into the same request: all that `by` and a repetition need."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, cast

from agentauthz.canonical import Json, jsonable, stamp
from agentauthz.canonical.restore import members, restored, survives
from agentauthz.principals import Chain, Delegation, Principal
from agentauthz.request import Request, Resource, SessionFacts
from agentauthz.values import UNKNOWN

Tree = Mapping[str, Any]


def stored(request: Request, seen: Mapping[str, object]) -> dict[str, Json]:
    """Return a call as JSON. `seen` has what the policies have read of `resource`, `context` and `session`."""
    chain, resource, facts = request.chain, request.resource, request.session
    args = cast("Mapping[str, object]", request.args)  # whoever's arguments aren't known can't be asked about
    return {
        "action": jsonable(request.action),
        "args": {name: jsonable(value) for name, value in args.items()},
        "exact": all(map(survives, args.values())),
        "subject": _party(chain.subject),
        "hops": [_hop(hop) for hop in chain.delegations],
        "resource": None if not isinstance(resource, Resource) else {
            "type": jsonable(resource.type), "id": jsonable(resource.id), "attributes": _read(seen["resource"]),
        },
        "route": jsonable(request.route),
        "purpose": jsonable(request.purpose),
        "session": None if not isinstance(facts, SessionFacts) else _session(facts, seen["session"]),
        "context": None if request.context is UNKNOWN else _read(seen["context"]),
        "now": stamp(request.now),
    }  # fmt: skip


def of_stored(tree: Tree) -> Request:
    """Return the call that `stored` made JSON of.

    Raises:
        LookupError, TypeError, ValueError, ArithmeticError, InvalidArgument: it is none.
    """
    session, resource = tree["session"], tree["resource"]
    route, purpose = _text(tree["route"]), _text(tree["purpose"])
    return Request.trusted(
        _text(tree["action"]),
        Chain(_principal(tree["subject"]), [_delegation(hop) for hop in tree["hops"]]),
        {name: restored(item) for name, item in tree["args"].items()},
        None if resource is None else Resource(
            _text(resource["type"]), _text(resource["id"]), members(resource["attributes"])
        ),
        route, purpose, None if session is None else _facts(session),
        UNKNOWN if tree["context"] is None else members(tree["context"]), dt.datetime.fromisoformat(tree["now"]),
    )  # fmt: skip


def _text(tree: Json) -> Any:
    """Return a text, which may hold what UTF-8 can't; UNKNOWN and None are themselves."""
    return restored(tree)


def _read(record: object) -> Json:
    """Return what was read of a record, whose own names may be tags."""
    known = record if isinstance(record, dict) else {}
    return jsonable({name: value for name, value in known.items() if name not in ("type", "id")})


def _party(who: Principal) -> Json:
    return {
        "kind": who.kind, "id": jsonable(who.id), "issuer": jsonable(who.issuer),
        "attributes": jsonable(dict(who.attributes)),
    }  # fmt: skip


def _principal(tree: Tree) -> Principal:
    return Principal(tree["kind"], _text(tree["id"]), _text(tree["issuer"]), members(tree["attributes"]))


def _hop(hop: Delegation) -> Json:
    return {
        "to": _party(hop.to), "actions": jsonable(hop.actions), "purpose": jsonable(hop.purpose),
        "expires": _stamp(hop.expires), "handoff": hop.handoff, "via": hop.via,
    }  # fmt: skip


def _delegation(tree: Tree) -> Delegation:
    return Delegation(
        _principal(tree["to"]), _text(tree["actions"]), _text(tree["purpose"]), _moment(tree["expires"]),
        tree["handoff"], tree["via"],
    )  # fmt: skip


def _session(facts: SessionFacts, read: object) -> Json:
    known = read if isinstance(read, dict) else {}
    own = {name: value for name, value in known.items() if name not in ("id", "started", "marks")}
    return {
        "id": jsonable(facts.id), "started": stamp(facts.started), "expires": _stamp(facts.expires),
        "attributes": jsonable(own),
        "marks": None if facts.marks is UNKNOWN else jsonable(sorted(facts.marks)),
        "began": _times(facts.began), "done": _times(facts.done), "tracked": _times(facts.tracked),
        "ceiling": jsonable(facts.ceiling),
    }  # fmt: skip


def _facts(tree: Tree) -> SessionFacts:
    ceiling = _text(tree["ceiling"])
    began, done = _seen(tree["began"]), _seen(tree["done"])
    return SessionFacts.trusted(
        _text(tree["id"]), dt.datetime.fromisoformat(tree["started"]), _moment(tree["expires"]),
        members(tree["attributes"]), UNKNOWN if tree["marks"] is None else frozenset(_text(tree["marks"])),
        UNKNOWN if began is None else began, UNKNOWN if done is None else done, _seen(tree["tracked"]) or {},
        None if ceiling is None else tuple(ceiling),
    )  # fmt: skip


def _times(times: object) -> Json:
    return (
        None
        if times is UNKNOWN
        else [[jsonable(k), stamp(at)] for k, at in cast("Mapping[str, dt.datetime]", times).items()]
    )


def _seen(pairs: Any) -> dict[str, dt.datetime] | None:
    return None if pairs is None else {_text(name): dt.datetime.fromisoformat(at) for name, at in pairs}


def _stamp(at: dt.datetime | None) -> Json:
    return None if at is None else stamp(at.astimezone(dt.UTC))


def _moment(text: str | None) -> dt.datetime | None:
    return None if text is None else dt.datetime.fromisoformat(text)
