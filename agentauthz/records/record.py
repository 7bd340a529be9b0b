"""Define the account of one decision, and that of its effect: immutable, and one line of JSON each."""

from __future__ import annotations

import datetime as dt
import functools
import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, final

from attrs import field, fields, frozen
from attrs.converters import optional
from attrs.validators import in_

from agentauthz.canonical import class_name, quote, stamp, utf8
from agentauthz.decision import Reason
from agentauthz.errors import InvalidArgument

if TYPE_CHECKING:
    from cattrs import Converter

VERSION: Final = "1.0"
MAX_LINE: Final = 32 * 1024  # bytes, with the line feed
MAX_NAME: Final = 256  # characters of a name or an id

State: TypeAlias = Literal["value", "absent", "unknown", "invalid"]
Status: TypeAlias = Literal["done", "failed", "stopped", "not_run", "unknown"]
STATUSES: Final[tuple[Status, ...]] = ("done", "failed", "stopped", "not_run", "unknown")

_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


def _still(value: object) -> object:
    """Return a JSON tree that nobody can change."""
    if isinstance(value, dict):
        return MappingProxyType({name: _still(item) for name, item in value.items()})
    return tuple(map(_still, value)) if isinstance(value, list) else value


def _still_mapping(value: Mapping[str, object]) -> Mapping[str, object]:
    return cast("Mapping[str, object]", _still(dict(value)))


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
    """Be what was asked: `args_digest` is keyed and binds every argument, `args` has those that rules read."""

    name: str
    args_digest: str
    args: Mapping[str, object] = field(default=_NOTHING, converter=_still_mapping)


@final
@frozen
class ResourceRef:
    """Be what it was asked for, with the attributes that rules read; `state` tells why there is no type and id."""

    type: str | None = None
    id: str | None = None
    attributes: Mapping[str, object] = field(default=_NOTHING, converter=_still_mapping)
    state: State | None = None


@final
@frozen
class Input:
    """Be what was seen at one path that the rules mention; `value` is tagged JSON."""

    name: str
    state: State = "value"
    value: object = field(default=None, converter=_still)


@final
@frozen
class Obliged:
    """Be one obligation (AuthZEN Obligations profile's shape)."""

    id: str
    type: str
    properties: Mapping[str, object] = field(default=_NOTHING, converter=_still_mapping)


@final
@frozen
class Ctx:
    """Place the record among others: the call, and the record that caused this one."""

    call_id: str | None = None
    parent: str | None = None


@final
@frozen
class Meta:
    """Tell what the record doesn't hold: JSON pointers to what was redacted; keyed digests of what was too big;
    how many more elements a list had.
    """

    redacted: tuple[str, ...] = ()
    oversized: Mapping[str, object] = field(default=_NOTHING, converter=_still_mapping)
    more: Mapping[str, object] = field(default=_NOTHING, converter=_still_mapping)


@final
@frozen(kw_only=True, eq=False, repr=False)
class DecisionRecord:
    """Be the account of one decision, with everything that it rested on. Values are tagged JSON, and immutable.

    `actors` goes from the subject to the actor; `chain` has the delegations between them. `missing` holds
    for a default deny.
    """

    id: str
    ts: dt.datetime
    outcome: Literal["allow", "deny", "review"]
    basis: str
    action: Action
    policy: PolicyRef
    mode: str = "enforce"
    enforced: bool = True
    mono_ns: int | None = None
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
    purpose: str | None = None
    route: str | None = None
    inputs: tuple[Input, ...] = ()
    explain: object = field(default=None, converter=_still)
    obligations: tuple[Obliged, ...] = ()
    ctx: Ctx = field(default=Ctx())
    meta: Meta = field(default=Meta())
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
            return _read_field(self, name)

    def line(self) -> bytes:
        """Return the record as one line of UTF-8 JSON, at most 32 KiB, with its line feed: always the same bytes."""
        return self._line

    def as_dict(self) -> dict[str, Any]:
        """Return the record as a new JSON tree, with what the line holds and this version doesn't know."""
        return cast("dict[str, Any]", json.loads(self._line))

    def __repr__(self) -> str:
        return f"DecisionRecord({self.id!r}, {self.outcome!r}, {self.action.name!r})"  # values stay out of tracebacks


def _utc(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC)


def _name(text: str) -> str:
    return utf8(text[:MAX_NAME])


@final
@frozen(kw_only=True, eq=False, repr=False)
class EffectRecord:
    """Be the account of what came of a decision's call.

    `of` is the decision's id. `status`: it returned (done), raised (failed, with `error_type`), was cancelled
    or stopped (stopped), never began (not_run), or nobody knows. `dur_us` is in microseconds. Of longer
    names the first 256 characters are kept.
    """

    id: str
    ts: dt.datetime = field(converter=_utc)
    of: str = field(converter=_name)
    status: Status = field(validator=in_(STATUSES))
    action: str | None = field(default=None, converter=optional(_name))
    session: str | None = field(default=None, converter=optional(_name))
    error_type: str | None = field(default=None, converter=optional(_name))
    result_digest: str | None = field(default=None, converter=optional(_name))
    dur_us: int | None = None
    mono_ns: int | None = None
    ctx: Ctx = field(default=Ctx())
    _line: bytes = b""

    def __attrs_post_init__(self) -> None:
        if not self._line:
            given = {each.name: getattr(self, each.name) for each in fields(EffectRecord) if each.init}
            del given["_line"]
            object.__setattr__(self, "_line", effect_line(**given))

    @classmethod
    def of_line(cls, line: bytes) -> EffectRecord:
        """Return the record that the library has just written; its fields are read when first asked for."""
        record = cls.__new__(cls)
        object.__setattr__(record, "_line", line)
        return record

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            return _read_field(self, name)

    def line(self) -> bytes:
        """Return the record as one line of UTF-8 JSON with its line feed: always the same bytes."""
        return self._line

    def as_dict(self) -> dict[str, Any]:
        """Return the record as a new JSON tree, with what the line holds and this version doesn't know."""
        return cast("dict[str, Any]", json.loads(self._line))

    def __repr__(self) -> str:
        return f"EffectRecord({self.id!r}, of={self.of!r}, {self.status!r})"


Record: TypeAlias = DecisionRecord | EffectRecord

# ---- to a line, and back

# A terminal that shows the line must not obey it: DEL, C1 controls, line separators, marks of direction
_UNSAFE: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_encoder: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
compact: Final[Callable[[object], str]] = _encoder.encode  # a JSON tree as text


def finished(text: str) -> bytes:
    """Return JSON text as one line; what a terminal could take for a command is escaped."""
    if not text.isascii() or "\x7f" in text:
        text = _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return text.encode() + b"\n"


def effect_line(
    *,
    id: str,
    ts: dt.datetime,
    of: str,
    status: Status,
    action: str | None = None,
    session: str | None = None,
    error_type: str | None = None,
    result_digest: str | None = None,
    dur_us: int | None = None,
    mono_ns: int | None = None,
    ctx: Ctx | None = None,
) -> bytes:
    """Return the line of an effect, whose fields are those of `EffectRecord`."""
    parts = [f'{{"v":"{VERSION}","type":"effect","id":{quote(id)},"ts":"{stamp(_utc(ts))}"']
    if mono_ns is not None:
        parts.append(f'"mono_ns":{mono_ns}')
    if session is not None:
        parts.append(f'"session":{_quoted(session)}')
    if ctx is not None and (ctx.call_id or ctx.parent):
        told = {"call_id": ctx.call_id, "parent": ctx.parent}
        parts.append(f'"ctx":{compact({name: text for name, text in told.items() if text})}')
    parts.append(f'"effect":{{"of":{_quoted(of)},"status":"{status}"')
    if action is not None:
        parts.append(f'"action":{_quoted(action)}')
    if error_type is not None:
        parts.append(f'"error_type":{_quoted(error_type)}')
    if result_digest is not None:
        parts.append(f'"result_digest":{_quoted(result_digest)}')
    if dur_us is not None:
        parts.append(f'"dur_us":{dur_us}')
    return finished(",".join(parts) + "}}")


def _quoted(text: str) -> str:
    return quote(text if len(text) <= MAX_NAME and text.isascii() else _name(text))


# ---- records that were just written: what a sink never reads isn't made


def _read_field(record: Record, name: str) -> object:
    """Read all fields of a record from its line, which was the account from the start, and return one."""
    kind: Any = type(record)
    if name == "_line" or name not in kind.__slots__ or name == "__weakref__":
        raise AttributeError(f"`{kind.__name__}` has no field `{name}`", name=name, obj=record)
    line = record.line()
    tree = json.loads(line)
    whole = _decision(tree, line) if kind is DecisionRecord else _effect(tree, line)
    for each in fields(kind):
        object.__setattr__(record, each.name, getattr(whole, each.name))
    return getattr(whole, name)


def _decision(tree: dict[str, Any], line: bytes) -> DecisionRecord:
    def several(name: str, kind: Any) -> tuple[Any, ...]:
        return tuple(kind(**each) for each in tree.get(name, ()))

    meta = tree.get("meta", {})
    hops = (Hop(**{**hop, "actions": tuple(hop.get("actions", ()))}) for hop in tree.get("chain", ()))
    names: dict[str, Any] = {name: tuple(tree.get(name, ())) for name in ("rules", "undetermined", "missing", "marks")}
    same = ("id", "outcome", "basis", "mode", "enforced", "depth", "mono_ns", "session", "purpose", "route", "explain")
    return DecisionRecord(
        **names,
        **{name: tree[name] for name in same if name in tree},
        ts=dt.datetime.fromisoformat(tree["ts"]),
        action=Action(**tree["action"]),
        policy=PolicyRef(**tree["policy"]),
        reasons=several("reasons", Reason),
        actors=several("actors", Actor),
        chain=tuple(hops),
        resource=ResourceRef(**tree["resource"]) if "resource" in tree else None,
        inputs=several("inputs", Input),
        obligations=several("obligations", Obliged),
        ctx=Ctx(**tree.get("ctx", {})),
        meta=Meta(tuple(meta.get("redacted", ())), meta.get("oversized", {}), meta.get("more", {})),
        line=line,
    )


def _effect(tree: dict[str, Any], line: bytes) -> EffectRecord:
    same = {name: tree[name] for name in ("id", "session", "mono_ns") if name in tree}
    ts = dt.datetime.fromisoformat(tree["ts"])
    return EffectRecord(**same, **tree["effect"], ts=ts, ctx=Ctx(**tree.get("ctx", {})), line=line)


def read_record(line: bytes) -> Record:
    """Return the record that a line holds; what this version doesn't know is kept in the line, and ignored.

    Raises:
        InvalidArgument: the line is no record of a decision or effect, or of another major version.
    """
    try:
        tree = json.loads(line)
    except (ValueError, RecursionError) as cause:
        raise InvalidArgument("line", "is not JSON") from cause
    if not isinstance(tree, dict) or not str(tree.get("v")).startswith("1."):
        raise InvalidArgument("line", "is not a record of version 1")
    kind: type[Record] | None = {"decision": DecisionRecord, "effect": EffectRecord}.get(str(tree.get("type")))
    if kind is None:
        raise InvalidArgument("line", "is neither a decision nor an effect")
    effect = tree.get("effect")
    flat = {**tree, **effect} if isinstance(effect, dict) else tree
    try:
        return _reader().structure({**flat, "line": line}, kind)
    except Exception as cause:  # cattrs's own errors hold the values: they must not reach a message
        raise InvalidArgument("line", f"is a damaged record ({class_name(cause)})") from None


@functools.cache
def _reader() -> Converter:
    from cattrs import Converter  # who never reads a record never pays for it

    reader = Converter(use_alias=True)
    reader.register_structure_hook(dt.datetime, lambda text, _: dt.datetime.fromisoformat(text))
    reader.register_structure_hook(bytes, lambda line, _: line)
    return reader
