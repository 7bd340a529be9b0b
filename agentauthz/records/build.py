"""Make records: everything is written out at once, secrets left out, and what is too big replaced by its digest.

Nothing in a record is a live reference, so what the host changes later doesn't change it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast, final

from agentauthz.canonical import Json, bounded, canonical, encode, stamp, utf8
from agentauthz.decision import Decision, Obligation, Reason
from agentauthz.keys import InstanceKey
from agentauthz.principals import Chain, Delegation, Principal
from agentauthz.records.record import (
    MAX_LINE,
    MAX_NAME,
    VERSION,
    Action,
    Actor,
    Ctx,
    DecisionRecord,
    Hop,
    Input,
    Meta,
    Obliged,
    PolicyRef,
    ResourceRef,
    dump,
)
from agentauthz.records.secrets import Secrets, escaped, member
from agentauthz.request import Request, Resource, SessionFacts
from agentauthz.values import UNKNOWN, Sentinel, Value

T = TypeVar("T")

MAX_PROSE: Final = 1000  # of a reason's text
MAX_VALUE: Final = 2048  # of one value, with at most 400 elements
MAX_LISTED: Final = 16  # rules, reasons, obligations, actions of a hop that one record names
MAX_INPUTS: Final = 256  # and clauses of one rule
MAX_CLAUSE: Final = 6  # lists and objects around the values of an explanation

# What gives way first where a line would be too long; the identities go last
_DROPPED: Final = (
    "explain", "action/args", "resource/attributes", "inputs", "missing", "undetermined", "obligations", "marks",
    "reasons", "rules", "chain", "actors",
)  # fmt: skip


def decision_record(
    *,
    id: str,
    ts: dt.datetime,
    request: Request,
    args: Mapping[str, object],
    decision: Decision,
    seen: Sequence[tuple[str, Value]] = (),
    explain: object = None,
    sensitive: frozenset[str] = frozenset(),
    key: InstanceKey,
    mode: str = "enforce",
    call_id: str | None = None,
    parent: str | None = None,
    mono_ns: int | None = None,
    policy_set: str | None = None,
    policy_version: str | None = None,
) -> DecisionRecord:
    """Return the account of `decision`, complete and with no tie to its inputs.

    `args` are the bound arguments; a keyed digest binds them all, and only those at the paths in `seen` are
    shown. The arguments named in `sensitive` are never shown: not as inputs, not in `explain`, nor where a
    text repeats them. `ts` has a time zone.
    """
    draft = _Draft(key, Secrets(sensitive, args))
    named, duties, inputs = draft.name, decision.obligations, draft.inputs(seen)
    tree: dict[str, Json] = {
        "v": VERSION,
        "type": "decision",
        "id": id,
        "ts": stamp(ts.astimezone(dt.UTC)),
        "mono_ns": mono_ns,
        "outcome": decision.outcome.value,
        "basis": decision.basis.value,
        "mode": mode,
        "enforced": decision.enforced,
        "policy": _full({"digest": decision.policy_digest, "set": policy_set, "version": policy_version}),
        "action": draft.action(decision.action, args, inputs),
        "resource": draft.resource(request.resource, inputs),
        "actors": [draft.actor(who, i) for i, who in enumerate(_parties(request.chain))],
        "depth": request.chain.depth,
        "chain": [draft.hop(hop, f"/chain/{i}") for i, hop in enumerate(request.chain.delegations)],
        "session": named(request.session.id, "/session") if type(request.session) is SessionFacts else None,
        "purpose": named(request.purpose, "/purpose") if isinstance(request.purpose, str) else None,
        "route": named(request.route, "/route") if isinstance(request.route, str) else None,
        "rules": draft.names(decision.rules, "/rules"),
        "undetermined": draft.names(decision.undetermined, "/undetermined"),
        "missing": draft.names(decision.missing, "/missing"),
        "marks": draft.names(decision.marks, "/marks"),
        "reasons": [draft.reason(each, f"/reasons/{i}") for i, each in draft.first(decision.reasons, "/reasons")],
        "obligations": [draft.duty(each, f"/obligations/{i}") for i, each in draft.first(duties, "/obligations")],
        "inputs": [*inputs],
        "explain": None if explain is None else draft.explain(explain),
        "ctx": draft.ctx(call_id, parent),
    }  # fmt: skip
    return _decision(tree, draft.line(tree), ts)


def _full(members: dict[str, Json]) -> dict[str, Json]:
    """Return what is there: nulls, and lists and objects without content, are left out."""
    return {name: value for name, value in members.items() if value is not None and value != [] and value != {}}


def _parties(chain: Chain) -> list[Principal]:
    return [chain.subject, *(hop.to for hop in chain.delegations)]


def _members(inputs: Iterable[dict[str, Json]], root: str) -> dict[str, Json]:
    """Return the members of `root` among the inputs, those that have a value."""
    return {
        name: entry["value"]
        for entry in inputs
        if "value" in entry and (name := member(cast(str, entry["name"]), root)) is not None
    }


@final
class _Draft:
    """Collect what a record must tell about itself while its parts are written."""

    __slots__ = ("key", "more", "oversized", "redacted", "secrets")

    def __init__(self, key: InstanceKey, secrets: Secrets) -> None:
        self.key = key
        self.secrets = secrets
        self.redacted = list(secrets.pointers)
        self.oversized: dict[str, str] = {}
        self.more: dict[str, int] = {}

    # ---- pieces

    def name(self, text: str, pointer: str) -> str:
        """Write a name or an id, which a secret argument can't hide."""
        return text if len(text) <= MAX_NAME and text.isascii() else self._clipped(text, MAX_NAME, pointer)

    def prose(self, text: str, pointer: str) -> str:
        if self.secrets.within(text):
            self.redacted.append(pointer)
            return self.key.digest("value", canonical(text))
        return text if len(text) <= MAX_PROSE and text.isascii() else self._clipped(text, MAX_PROSE, pointer)

    def _clipped(self, text: str, limit: int, pointer: str) -> str:
        if len(text) <= limit:
            return utf8(text)
        self.oversized[pointer] = self.key.digest("value", canonical(text))
        return utf8(text[:limit])

    def value(self, value: object, pointer: str) -> Json:
        """Write a value, or commit to it where it is too big or repeats a secret."""
        tree, fits = bounded(value, 400, MAX_VALUE)
        if fits and not self.secrets.within(tree):
            return tree
        digest = self.key.digest("value", canonical(value))
        if fits:
            self.redacted.append(pointer)
        else:
            self.oversized[pointer] = digest
        return {"$c": digest}

    def first(self, items: Sequence[T], pointer: str, limit: int = MAX_LISTED) -> Iterable[tuple[int, T]]:
        """Return the first elements with their places, and count the rest."""
        if len(items) > limit:
            self.more[pointer] = len(items) - limit
        return enumerate(items[:limit])

    def names(self, names: Sequence[str], pointer: str) -> list[Json]:
        return [self.name(text, f"{pointer}/{i}") for i, text in self.first(names, pointer)]

    # ---- parts

    def inputs(self, seen: Sequence[tuple[str, Value]]) -> list[dict[str, Json]]:
        shown = self.secrets.visible(seen)
        return [self._input(*pair, f"/inputs/{i}") for i, pair in self.first(shown, "/inputs", MAX_INPUTS)]

    def _input(self, path: str, value: Value, pointer: str) -> dict[str, Json]:
        name = self.name(path, f"{pointer}/name")
        if type(value) is Sentinel:
            return {"name": name, "state": value.value}
        return {"name": name, "state": "value", "value": self.value(value, f"{pointer}/value")}

    def action(self, name: str, args: Mapping[str, object], inputs: Sequence[dict[str, Json]]) -> dict[str, Json]:
        digest = self.key.digest("args", canonical(dict(args)))
        return _full({
            "name": self.name(name, "/action/name"), "args_digest": digest, "args": _members(inputs, "args"),
        })  # fmt: skip

    def resource(self, resource: object, inputs: Sequence[dict[str, Json]]) -> dict[str, Json] | None:
        if type(resource) is not Resource:
            return {"state": "unknown"} if resource is UNKNOWN else None
        found = self.value(resource.id, "/resource/id") if self.secrets.within(resource.id) else None
        name = found["$c"] if isinstance(found, dict) else self.name(resource.id, "/resource/id")
        attributes = _members(inputs, "resource")
        attributes.pop("type", None)
        attributes.pop("id", None)
        return _full({"type": self.name(resource.type, "/resource/type"), "id": name, "attributes": attributes})

    def actor(self, who: Principal, place: int) -> dict[str, Json]:
        pointer = f"/actors/{place}"
        issuer = None if who.issuer is None else self.name(who.issuer, f"{pointer}/iss")
        return _full({"sub": self.name(who.id, f"{pointer}/sub"), "kind": who.kind, "iss": issuer})

    def hop(self, hop: Delegation, pointer: str) -> dict[str, Json]:
        return _full({
            "to": self.name(str(hop.to), f"{pointer}/to"),
            "actions": self.names(hop.actions, f"{pointer}/actions"),
            "purpose": hop.purpose and self.name(hop.purpose, f"{pointer}/purpose"),
            "expires": None if hop.expires is None else stamp(hop.expires.astimezone(dt.UTC)),
            "handoff": hop.handoff or None,
            "via": hop.via,
        })  # fmt: skip

    def reason(self, reason: Reason, pointer: str) -> dict[str, Json]:
        return _full({
            "code": reason.code,
            "text": self.prose(reason.text, f"{pointer}/text"),
            "rule": reason.rule and self.name(reason.rule, f"{pointer}/rule"),
            "at": reason.at and self.name(reason.at, f"{pointer}/at"),
            "because": reason.because and self.prose(reason.because, f"{pointer}/because"),
        })  # fmt: skip

    def duty(self, duty: Obligation, pointer: str) -> dict[str, Json]:
        properties = self.value(dict(duty.properties), f"{pointer}/properties")
        return _full({
            "id": self.name(duty.id, f"{pointer}/id"), "type": self.name(duty.type, f"{pointer}/type"),
            "properties": properties,
        })  # fmt: skip

    def explain(self, part: object, pointer: str = "/explain", depth: int = 0) -> Json:
        """Write clauses: lists and objects as they are, each value in them as any other value."""
        if depth < MAX_CLAUSE and type(part) is list:
            items = self.first(part, pointer, MAX_INPUTS)
            return [self.explain(item, f"{pointer}/{i}", depth + 1) for i, item in items]
        if depth < MAX_CLAUSE and type(part) is dict:
            return {
                utf8(str(name)): self._saw(item, str(part.get("expr")), f"{pointer}/saw")
                if name == "saw" and type(item) is dict
                else self.explain(item, f"{pointer}/{escaped(str(name))}", depth + 1)
                for name, item in part.items()
            }
        return self.value(part, pointer)

    def _saw(self, saw: Mapping[str, object], expr: str, pointer: str) -> dict[str, Json]:
        shown = self.secrets.shown(saw, expr)
        return {utf8(path): self.value(value, f"{pointer}/{escaped(path)}") for path, value in shown.items()}

    def ctx(self, call_id: str | None, parent: str | None) -> dict[str, Json]:
        return _full({
            "call_id": call_id and self.name(call_id, "/ctx/call_id"),
            "parent": parent and self.name(parent, "/ctx/parent"),
        })  # fmt: skip

    # ---- the whole

    def line(self, tree: dict[str, Json]) -> bytes:
        """Finish the tree, in place, and return its line; parts give way until it fits."""
        self._finish(tree)
        line = dump(tree)
        for path in _DROPPED:
            if len(line) <= MAX_LINE:
                break
            self._drop(tree, path)
            self._finish(tree)
            line = dump(tree)
        return line

    def _finish(self, tree: dict[str, Json]) -> None:
        pointers: list[Json] = [pointer for _, pointer in self.first(self.redacted, "/meta/redacted")]
        tree["meta"] = _full({"redacted": pointers, "oversized": {**self.oversized}, "more": {**self.more}})
        for name in [name for name, value in tree.items() if value is None or value == [] or value == {}]:
            del tree[name]

    def _drop(self, tree: dict[str, Json], path: str) -> None:
        *outer, name = path.split("/")
        holder = tree.get(outer[0], {}) if outer else tree
        if not isinstance(holder, dict) or name not in holder:
            return
        below = f"/{path}/"
        # what was said about parts of it goes with it
        self.oversized = {
            pointer: digest for pointer, digest in self.oversized.items() if not pointer.startswith(below)
        }
        self.more = {pointer: count for pointer, count in self.more.items() if not pointer.startswith(below)}
        self.oversized[f"/{path}"] = self.key.digest("value", encode(holder.pop(name)))


def _decision(tree: dict[str, Json], line: bytes, ts: dt.datetime) -> DecisionRecord:
    """Return the record of a finished tree; its classes take over the tree's values and make them immutable."""
    whole = cast("dict[str, Any]", tree)

    def several(name: str, kind: Any) -> tuple[Any, ...]:
        return tuple(kind(**each) for each in whole.get(name, ()))

    return DecisionRecord(
        id=whole["id"],
        ts=ts.astimezone(dt.UTC),
        outcome=whole["outcome"],
        basis=whole["basis"],
        action=Action(**whole["action"]),
        policy=PolicyRef(**whole["policy"]),
        mode=whole["mode"],
        enforced=whole["enforced"],
        mono_ns=whole.get("mono_ns"),
        reasons=several("reasons", Reason),
        rules=tuple(whole.get("rules", ())),
        undetermined=tuple(whole.get("undetermined", ())),
        missing=tuple(whole.get("missing", ())),
        marks=tuple(whole.get("marks", ())),
        actors=several("actors", Actor),
        depth=whole["depth"],
        chain=tuple(Hop(**{**hop, "actions": tuple(hop.get("actions", ()))}) for hop in whole.get("chain", ())),
        resource=ResourceRef(**whole["resource"]) if "resource" in whole else None,
        session=whole.get("session"),
        purpose=whole.get("purpose"),
        route=whole.get("route"),
        inputs=several("inputs", Input),
        explain=whole.get("explain"),
        obligations=several("obligations", Obliged),
        ctx=Ctx(**whole.get("ctx", {})),
        meta=_meta(whole.get("meta", {})),
        line=line,
    )


def _meta(meta: dict[str, Any]) -> Meta:
    return Meta(tuple(meta.get("redacted", ())), meta.get("oversized", {}), meta.get("more", {}))
