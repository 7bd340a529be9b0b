"""Define the records beside decisions: effects, the text of policies, and what happened to the log itself."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, final

from attrs import asdict, field, fields, frozen
from attrs.converters import optional
from attrs.validators import in_

from agentauthz.canonical import quote, stamp, utf8
from agentauthz.principals import Principal
from agentauthz.records.lines import (
    ALONE,
    MAX_BODY,
    NO_HASH,
    NO_STREAM,
    NOTHING,
    compact,
    fill,
    finished,
    name,
    opening,
    place,
    quoted,
    still_mapping,
    utc,
    where,
)

Status: TypeAlias = Literal["done", "failed", "stopped", "not_run", "unknown"]
STATUSES: Final[tuple[Status, ...]] = ("done", "failed", "stopped", "not_run", "unknown")

# Of the log itself, and what other parts of the library tell; a newer minor version may know more
EVENTS: Final = (
    "stream.open", "stream.sealed", "stream.recovered", "stream.gap", "log.pruned", "sink.failed",
    "approval", "state", "erasure",
)  # fmt: skip
ALARMS: Final = frozenset({"stream.recovered", "stream.gap", "sink.failed"})

MAX_LEFT: Final = 16  # obligations, and limits, that one effect names

_CHUNK: Final = 30_000  # characters of a policy's text that one record tries to hold


def _names(given: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(name, given[:MAX_LEFT]))


@final
@frozen
class Ctx:
    """Place the record among others: a trace and a span of it (W3C), the host's request and turn, the framework's id
    of the tool's call, and the record that caused this one.
    """

    trace_id: str | None = None
    span_id: str | None = None
    request_id: str | None = None
    turn: int | None = None
    call_id: str | None = None
    parent: str | None = None


NO_CTX: Final = Ctx()


def ctx_member(ctx: Ctx | Mapping[str, object]) -> str:
    """Return the member `ctx` of a record, with its comma; nothing where nothing is known."""
    told = asdict(ctx) if isinstance(ctx, Ctx) else ctx
    texts = [
        f'"{name}":{quoted(value) if isinstance(value, str) else value}'
        for name, value in told.items()
        if value is not None
    ]
    return f',"ctx":{{{",".join(texts)}}}' if texts else ""


@final
@frozen(kw_only=True, eq=False, repr=False)
class EffectRecord:
    """Be the account of what came of a decision's call.

    `of` is the decision's id. `status`: it returned (done), raised (failed, with `error_type`), was cancelled
    or stopped (stopped), never began (not_run), or nobody knows. `dur_us` is in microseconds. `left` has the ids of
    the obligations whose handlers failed once it had begun. `spent` is what limits took in the end, by the rule's name
    and as tagged JSON, where the call said so or it came back. Of longer names the first 256 characters are kept.
    """

    id: str
    ts: dt.datetime = field(converter=utc)
    of: str = field(converter=name)
    status: Status = field(validator=in_(STATUSES))
    action: str | None = field(default=None, converter=optional(name))
    session: str | None = field(default=None, converter=optional(name))
    error_type: str | None = field(default=None, converter=optional(name))
    result_digest: str | None = field(default=None, converter=optional(name))
    dur_us: int | None = None
    left: tuple[str, ...] = field(default=(), converter=_names)
    spent: Mapping[str, object] = field(default=NOTHING, converter=still_mapping)
    ctx: Ctx = NO_CTX
    stream: str = NO_STREAM
    seq: int = 0
    prev: str = NO_HASH
    mono_ns: int = 0
    _line: bytes = b""

    def __attrs_post_init__(self) -> None:
        if not self._line:
            given = {each.name: getattr(self, each.name) for each in fields(EffectRecord) if each.init}
            del given["_line"]
            object.__setattr__(self, "_line", effect_line(**{**given, "ctx": ctx_member(self.ctx)}))

    @classmethod
    def of_line(cls, line: bytes) -> EffectRecord:
        """Return the record that the library has just written; its fields are read when first asked for."""
        record = cls.__new__(cls)
        object.__setattr__(record, "_line", line)
        return record

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any], line: bytes) -> EffectRecord:
        """Return the record of a line that this library wrote."""
        told = {"session": tree["session"]} if "session" in tree else {}
        return cls(**where(tree), **told, **tree["effect"], ctx=Ctx(**tree.get("ctx", {})), line=line)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            return fill(self, name, EffectRecord.of_tree)

    def line(self) -> bytes:
        """Return the record as one line of UTF-8 JSON with its line feed: always the same bytes."""
        return self._line

    def as_dict(self) -> dict[str, Any]:
        """Return the record as a new JSON tree, with what the line holds and this version doesn't know."""
        return cast("dict[str, Any]", json.loads(self._line))

    def __repr__(self) -> str:
        return f"EffectRecord({self.id!r}, of={self.of!r}, {self.status!r})"


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
    left: Sequence[str] = (),
    spent: Mapping[str, object] = NOTHING,
    ctx: str = "",
    stream: str = NO_STREAM,
    seq: int = 0,
    prev: str = NO_HASH,
    mono_ns: int = 0,
) -> bytes:
    """Return the line of an effect, whose fields are those of `EffectRecord`; `ctx` is what `ctx_member` gives."""
    begun = opening("effect", id, ts)
    if session is not None:
        begun += f',"session":{quoted(session)}'
    parts = [begun + ctx]
    parts.append(f'"effect":{{"of":{quoted(of)},"status":"{status}"')
    if action is not None:
        parts.append(f'"action":{quoted(action)}')
    if error_type is not None:
        parts.append(f'"error_type":{quoted(error_type)}')
    if result_digest is not None:
        parts.append(f'"result_digest":{quoted(result_digest)}')
    if dur_us is not None:
        parts.append(f'"dur_us":{dur_us}')
    if left:
        parts.append(f'"left":[{",".join(map(quoted, left[:MAX_LEFT]))}]')
    if spent:
        parts.append(f'"spent":{compact({name(rule): amount for rule, amount in [*spent.items()][:MAX_LEFT]})}')
    beginning = ALONE if stream is NO_STREAM and not seq else place(stream, seq, prev, mono_ns)
    return beginning + finished(",".join(parts) + "}}")


@final
@frozen(kw_only=True, eq=False, repr=False)
class PolicyRecord:
    """Be the text of a policy set, or a part of it: what the decisions under its digest are read by.

    Parts count from 1. `source` counts the files from 0, and `name` is the file's; a long file stands in several
    parts, whose texts belong behind each other.
    """

    id: str
    ts: dt.datetime
    digest: str
    part: int
    parts: int
    source: int
    name: str
    text: str
    stream: str = NO_STREAM
    seq: int = 0
    prev: str = NO_HASH
    mono_ns: int = 0
    _line: bytes

    @classmethod
    def of_line(cls, line: bytes) -> PolicyRecord:
        """Return the record that the library has just written; its fields are read when first asked for."""
        record = cls.__new__(cls)
        object.__setattr__(record, "_line", line)
        return record

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any], line: bytes) -> PolicyRecord:
        """Return the record of a line that this library wrote."""
        return cls(**where(tree), **tree["policy"], line=line)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            return fill(self, name, PolicyRecord.of_tree)

    def line(self) -> bytes:
        """Return the record as one line of UTF-8 JSON with its line feed: always the same bytes."""
        return self._line

    def as_dict(self) -> dict[str, Any]:
        """Return the record as a new JSON tree, with what the line holds and this version doesn't know."""
        return cast("dict[str, Any]", json.loads(self._line))

    def __repr__(self) -> str:
        return f"PolicyRecord({self.id!r}, {self.digest!r}, {self.part}/{self.parts})"


def policy_bodies(digest: str, sources: Sequence[tuple[str, str]]) -> list[str]:
    """Return the `policy` members of the records that hold the texts of `sources`, pairs of a name and a text."""
    chunks = [(i, called, chunk) for i, (called, text) in enumerate(sources) for chunk in _chunks(utf8(text))]
    return [
        f'"policy":{{"digest":{quote(digest)},"part":{number},"parts":{len(chunks)},"source":{i},'
        f'"name":{quoted(called)},"text":{quote(chunk)}}}'
        for number, (i, called, chunk) in enumerate(chunks, 1)
    ]


def _chunks(text: str) -> Iterator[str]:
    """Cut a text into pieces that fit into a line, however much of it has to be escaped."""
    at = 0
    while True:
        size = _CHUNK
        while len(finished(quote(text[at : at + size]))) > MAX_BODY - 2_048:  # beside the names, which are bounded
            size //= 2
        yield text[at : at + size]
        at += size
        if at >= len(text):
            return


@final
@frozen(kw_only=True, eq=False, repr=False)
class EventRecord:
    """Be the account of anything else: of the log itself (`stream.*`, `log.pruned`, `sink.failed`), of approvals and
    state, or of a type that this version doesn't know. `about` holds what the type tells.
    """

    id: str
    ts: dt.datetime
    type: str
    about: Mapping[str, object] = field(default=NOTHING, converter=still_mapping)
    session: str | None = field(default=None, converter=optional(name))
    ctx: Ctx = NO_CTX
    stream: str = NO_STREAM
    seq: int = 0
    prev: str = NO_HASH
    mono_ns: int = 0
    _line: bytes = b""

    def __attrs_post_init__(self) -> None:
        if not self._line:
            body = event_body(self.type, self.id, self.ts, self.about, self.session, ctx_member(self.ctx))
            object.__setattr__(self, "_line", ALONE + body)

    @classmethod
    def of_line(cls, line: bytes) -> EventRecord:
        """Return the record that the library has just written; its fields are read when first asked for."""
        record = cls.__new__(cls)
        object.__setattr__(record, "_line", line)
        return record

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any], line: bytes) -> EventRecord:
        """Return the record of a line that this library wrote."""
        told = {"session": tree["session"]} if "session" in tree else {}
        ctx = Ctx(**tree.get("ctx", {}))
        return cls(**where(tree), type=tree["type"], about=tree.get("about", {}), **told, ctx=ctx, line=line)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            return fill(self, name, EventRecord.of_tree)

    def line(self) -> bytes:
        """Return the record as one line of UTF-8 JSON with its line feed: always the same bytes."""
        return self._line

    def as_dict(self) -> dict[str, Any]:
        """Return the record as a new JSON tree, with what the line holds and this version doesn't know."""
        return cast("dict[str, Any]", json.loads(self._line))

    def __repr__(self) -> str:
        return f"EventRecord({self.id!r}, {self.type!r})"


def actor_about(who: Principal) -> dict[str, str]:
    """Return a party as records name it."""
    issuer = {} if who.issuer is None else {"iss": name(who.issuer)}
    return {"sub": name(who.id), "kind": who.kind, **issuer}


def approval_about(
    event: str, id: str, digest: str, until: dt.datetime, by: Principal | None = None, reason: str = ""
) -> dict[str, object]:
    """Return what an `approval` record tells: what became of a request for consent, who did it, and why."""
    about: dict[str, object] = {"kind": event, "id": name(id)}
    if by is not None:
        about["by"] = actor_about(by)
    if reason:
        about["reason"] = utf8(reason)
    return {**about, "digest": digest, "until": stamp(until)}


def event_body(
    kind: str, id: str, ts: dt.datetime, about: Mapping[str, object], session: str | None = None, ctx: str = ""
) -> bytes:
    """Return an event's line without its place; `ctx` is what `ctx_member` gives."""
    within = "" if session is None else f',"session":{quoted(session)}'
    told = f',"about":{compact(dict(about))}' if about else ""
    return finished(f"{opening(kind, id, ts)}{within}{ctx}{told}}}")
