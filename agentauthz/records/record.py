"""Define the account of one decision, immutable and one line of JSON, and read records of every type."""

from __future__ import annotations

import datetime as dt
import functools
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, final

from attrs import field, frozen

from agentauthz.canonical import class_name
from agentauthz.decision import Reason
from agentauthz.errors import InvalidArgument
from agentauthz.records.events import NO_CTX, Ctx, EffectRecord, EventRecord, PolicyRecord
from agentauthz.records.lines import NO_HASH, NO_STREAM, NOTHING, fill, still, still_mapping, where

if TYPE_CHECKING:
    from cattrs import Converter

State: TypeAlias = Literal["value", "absent", "unknown", "invalid"]
Cause: TypeAlias = Literal["stopped", "failed", "problem", "approval"]

# How authority is passed on: within this process, by a token that came, to get the next hop's token, by issuing one
Kind: TypeAlias = Literal["session", "token", "exchange", "issue"]
Fate: TypeAlias = Literal["passed", "refused"]


@final
@frozen
class PolicyRef:
    """Name the policies that decided; `digest` is theirs, empty where there were none."""

    digest: str
    set: str | None = None
    version: str | None = None


@final
@frozen
class Actor:
    """Be one party of the chain; `iss` None: the host vouches for it."""

    sub: str
    kind: str
    iss: str | None = None


@final
@frozen
class Hop:
    """Be one delegation: `to` is the receiver as a policy names it."""

    to: str
    actions: tuple[str, ...] = ()
    purpose: str | None = None
    expires: str | None = None
    handoff: bool | None = None
    via: str | None = None


@final
@frozen
class Action:
    """Be what was asked: `args_digest` is keyed and binds every argument, `args` has those that rules read, and
    `given` the names of all.
    """

    name: str
    args_digest: str
    given: tuple[str, ...] = ()
    args: Mapping[str, object] = field(default=NOTHING, converter=still_mapping)


@final
@frozen
class ResourceRef:
    """Be what it was asked for, with the attributes that rules read; `state` tells why there is no type and id."""

    type: str | None = None
    id: str | None = None
    attributes: Mapping[str, object] = field(default=NOTHING, converter=still_mapping)
    state: State | None = None


@final
@frozen
class Input:
    """Be what was seen at one path that the rules mention; `value` is tagged JSON."""

    name: str
    state: State = "value"
    value: object = field(default=None, converter=still)


@final
@frozen
class Obliged:
    """Be one obligation (AuthZEN Obligations profile's shape); `left`: nothing could carry it out."""

    id: str
    type: str
    properties: Mapping[str, object] = field(default=NOTHING, converter=still_mapping)
    left: bool = False


@final
@frozen
class Budgeted:
    """Be how one limit stood: `used` of `bound` by the calls before, and whether `amount` was `granted` too.

    `key` names the budget, and `room_at` says when a refused amount fits again. The numbers are tagged JSON.
    """

    rule: str
    key: str
    amount: object = field(converter=still)
    bound: object = field(converter=still)
    used: object = field(converter=still)
    granted: bool = False
    room_at: str | None = None


@final
@frozen
class Approved:
    """Be one person's consent that the decision rests on, with the attributes that the policies ask of an approver."""

    by: Actor
    attributes: Mapping[str, object] = field(default=NOTHING, converter=still_mapping)


@final
@frozen
class Bounds:
    """Be what the whole session may not exceed: when it ends, and the actions that its token covers."""

    expires: str | None = None
    ceiling: tuple[str, ...] | None = None


@final
@frozen
class Meta:
    """Tell what the record doesn't hold: JSON pointers to what was redacted; keyed digests of what was too big;
    how many more elements a list had.
    """

    redacted: tuple[str, ...] = ()
    oversized: Mapping[str, object] = field(default=NOTHING, converter=still_mapping)
    more: Mapping[str, object] = field(default=NOTHING, converter=still_mapping)


@final
@frozen(kw_only=True, eq=False, repr=False)
class DecisionRecord:
    """Be the account of one decision, with everything that it rested on. Values are tagged JSON, and immutable.

    `actors` goes from the subject to the actor; `chain` has the delegations between them. `missing` holds
    for a default deny. `cause` says that it weren't the policies alone that decided: what `stopped` the call before
    they were asked, a `problem` with a look-up, that asking them `failed`, or that a person's answer, or its lack, made
    of a review a denial (`approval`). `approval` is the id of the request for consent that the call waits for, or has
    used up, and `consents` are the answers that the decision rests on.
    """

    id: str
    ts: dt.datetime
    outcome: Literal["allow", "deny", "review"]
    basis: str
    action: Action
    policy: PolicyRef
    mode: str = "enforce"
    enforced: bool = True
    cause: Cause | None = None
    reasons: tuple[Reason, ...] = ()
    rules: tuple[str, ...] = ()
    undetermined: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    actors: tuple[Actor, ...] = ()
    depth: int = 0
    chain: tuple[Hop, ...] = ()
    resource: ResourceRef | None = None
    session: str | None = None
    bounds: Bounds | None = None
    purpose: str | None = None
    route: str | None = None
    inputs: tuple[Input, ...] = ()
    explain: object = field(default=None, converter=still)
    obligations: tuple[Obliged, ...] = ()
    budgets: tuple[Budgeted, ...] = ()
    approval: str | None = None
    consents: tuple[Approved, ...] = ()
    ctx: Ctx = NO_CTX
    meta: Meta = field(default=Meta())
    stream: str = NO_STREAM
    seq: int = 0
    prev: str = NO_HASH
    mono_ns: int = 0
    _line: bytes

    @classmethod
    def of_line(cls, line: bytes, outcome: str) -> DecisionRecord:
        """Return the record that the library has just written; its other fields are read when first asked for."""
        record = cls.__new__(cls)
        object.__setattr__(record, "_line", line)
        object.__setattr__(record, "outcome", outcome)  # a log asks for it to know its level
        return record

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            return fill(self, name, _decision)

    def line(self) -> bytes:
        """Return the record as one line of UTF-8 JSON, at most 32 KiB, with its line feed: always the same bytes."""
        return self._line

    def as_dict(self) -> dict[str, Any]:
        """Return the record as a new JSON tree, with what the line holds and this version doesn't know."""
        return cast("dict[str, Any]", json.loads(self._line))

    def __repr__(self) -> str:
        return f"DecisionRecord({self.id!r}, {self.outcome!r}, {self.action.name!r})"  # values stay out of tracebacks


@final
@frozen(kw_only=True, eq=False, repr=False)
class DelegationRecord:
    """Be the account of one attempt to pass authority on.

    `actors`, `depth` and `chain` are, as in a decision, those of who passes it on. `to` gets it, and `hop` is what was
    passed on, or refused for the `reason`. With tokens, `scopes` and `audience` are what the new one is good for, and
    `token` and `issued` keyed digests of the names of the old one and the new one.
    """

    id: str
    ts: dt.datetime
    kind: Kind
    outcome: Fate
    actors: tuple[Actor, ...] = ()
    depth: int = 0
    chain: tuple[Hop, ...] = ()
    to: Actor | None = None
    hop: Hop | None = None
    scopes: tuple[str, ...] = ()
    audience: tuple[str, ...] = ()
    token: str | None = None
    issued: str | None = None
    reason: Reason | None = None
    session: str | None = None
    ctx: Ctx = NO_CTX
    meta: Meta = field(default=Meta())
    stream: str = NO_STREAM
    seq: int = 0
    prev: str = NO_HASH
    mono_ns: int = 0
    _line: bytes

    @classmethod
    def of_line(cls, line: bytes, id: str, outcome: Fate) -> DelegationRecord:
        """Return the record that the library has just written; its other fields are read when first asked for."""
        record = cls.__new__(cls)
        object.__setattr__(record, "_line", line)
        object.__setattr__(record, "id", id)
        object.__setattr__(record, "outcome", outcome)
        return record

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            return fill(self, name, lambda tree, line: read_record(line))

    def line(self) -> bytes:
        """Return the record as one line of UTF-8 JSON with its line feed: always the same bytes."""
        return self._line

    def as_dict(self) -> dict[str, Any]:
        """Return the record as a new JSON tree, with what the line holds and this version doesn't know."""
        return cast("dict[str, Any]", json.loads(self._line))

    def __repr__(self) -> str:
        return f"DelegationRecord({self.id!r}, {self.kind!r}, {self.outcome!r})"


Record: TypeAlias = DecisionRecord | EffectRecord | DelegationRecord | PolicyRecord | EventRecord


def _decision(tree: dict[str, Any], line: bytes) -> DecisionRecord:
    def several(name: str, kind: Any) -> tuple[Any, ...]:
        return tuple(kind(**each) for each in tree.get(name, ()))

    meta = tree.get("meta", {})
    hops = (Hop(**{**hop, "actions": tuple(hop.get("actions", ()))}) for hop in tree.get("chain", ()))
    names: dict[str, Any] = {name: tuple(tree.get(name, ())) for name in ("rules", "undetermined", "missing", "marks")}
    bounds, ceiling = tree.get("bounds"), tree.get("bounds", {}).get("ceiling")
    same = ("outcome", "basis", "mode", "enforced", "cause", "depth", "session", "purpose", "route", "explain",
            "approval")  # fmt: skip
    return DecisionRecord(
        **names,
        **{name: tree[name] for name in same if name in tree},
        **where(tree),
        action=Action(**{**tree["action"], "given": tuple(tree["action"].get("given", ()))}),
        bounds=None if bounds is None else Bounds(bounds.get("expires"), None if ceiling is None else tuple(ceiling)),
        policy=PolicyRef(**tree["policy"]),
        reasons=several("reasons", Reason),
        actors=several("actors", Actor),
        chain=tuple(hops),
        resource=ResourceRef(**tree["resource"]) if "resource" in tree else None,
        inputs=several("inputs", Input),
        obligations=several("obligations", Obliged),
        budgets=several("budgets", Budgeted),
        consents=tuple(Approved(Actor(**each["by"]), each.get("attributes", {})) for each in tree.get("consents", ())),
        ctx=Ctx(**tree.get("ctx", {})),
        meta=Meta(tuple(meta.get("redacted", ())), meta.get("oversized", {}), meta.get("more", {})),
        line=line,
    )


# ---- reading lines that anybody may have written

_KINDS: Final[dict[str, type[Record]]] = {
    "decision": DecisionRecord,
    "effect": EffectRecord,
    "delegation": DelegationRecord,
    "policy": PolicyRecord,
}
_NESTED: Final = (EffectRecord, DelegationRecord, PolicyRecord)  # whose own fields stand below their type
_TYPE: Final = re.compile(r"[a-z][a-z_.]{0,63}")


def read_record(line: bytes) -> Record:
    """Return the record that a line holds; what this version doesn't know is kept in the line, and ignored.

    A type that this version doesn't know is an `EventRecord`.

    Raises:
        InvalidArgument: the line is no record, damaged, or of another major version.
    """
    try:
        tree = json.loads(line)
    except (ValueError, RecursionError) as cause:
        raise InvalidArgument("line", "is not JSON") from cause
    if not isinstance(tree, dict) or not isinstance(v := tree.get("v"), str) or not v.startswith("1."):
        raise InvalidArgument("line", "is not a record of version 1")
    if not isinstance(name := tree.get("type"), str) or _TYPE.fullmatch(name) is None:
        raise InvalidArgument("line", "has no type")
    kind: Any = _KINDS.get(name, EventRecord)
    own = tree.get(name) if kind in _NESTED else None
    flat = {**tree, **own} if isinstance(own, dict) else tree
    try:
        return cast("Record", _reader().structure({**flat, "line": line}, kind))
    except Exception as cause:  # cattrs's own errors hold the values: they must not reach a message
        raise InvalidArgument("line", f"is a damaged record ({class_name(cause)})") from None


def of_line(line: bytes, record: Record) -> Record:
    """Return a record at another place, whose line the library has just made of that of `record`."""
    if type(record) is DecisionRecord:
        return DecisionRecord.of_line(line, record.outcome)
    if type(record) is DelegationRecord:
        return DelegationRecord.of_line(line, record.id, record.outcome)
    return cast("Record", cast("Any", type(record)).of_line(line))


@functools.cache
def _reader() -> Converter:
    from cattrs import Converter  # who never reads a record never pays for it

    reader = Converter(use_alias=True)
    reader.register_structure_hook(dt.datetime, lambda text, _: dt.datetime.fromisoformat(text))
    reader.register_structure_hook(bytes, lambda line, _: line)
    return reader
