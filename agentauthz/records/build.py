"""Make records: everything is written out at once, secrets left out, and what is too big replaced by its digest.

Nothing in a record is a live reference, so what the host changes later doesn't change it.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from secrets import token_bytes
from typing import Final, TypeVar, final

from agentauthz.canonical import Json, bounded, canonical, encode, jsonable, plain, quote, stamp, utf8
from agentauthz.decision import Budget, Decision, Obligation, Reason
from agentauthz.keys import InstanceKey
from agentauthz.principals import Chain, Delegation, Principal
from agentauthz.records.lines import ALONE, MAX_BODY, MAX_NAME, compact, finished, opening
from agentauthz.records.record import Cause, DecisionRecord
from agentauthz.records.redaction import OPEN, Held, Place, escaped, masked
from agentauthz.records.secrets import Secrets, member
from agentauthz.request import Request, Resource, SessionFacts
from agentauthz.values import ABSENT, INVALID, UNKNOWN, Sentinel, Value

T = TypeVar("T")

MAX_PROSE: Final = 1000  # of a reason's text
MAX_VALUE: Final = 2048  # of one value, with at most 400 elements
MAX_LISTED: Final = 16  # rules, reasons, obligations, actions of a hop that one record names
MAX_INPUTS: Final = 256  # and clauses of one rule
MAX_OPENING: Final = 32 * 1024  # of one value that is shredded
MAX_CLAUSE: Final = 6  # lists and objects around the values of an explanation

_NO_SECRETS: Final = Secrets(frozenset(), {})
_MEMBERS: Final = {"args": "/action/args", "resource": "/resource/attributes"}

# What gives way first where a line would be too long; the identities go last
_DROPPED: Final = (
    "explain", "action/args", "resource/attributes", "inputs", "action/given", "missing", "undetermined",
    "obligations", "budgets", "consents", "marks", "reasons", "rules", "delegation/scopes", "delegation/audience",
    "delegation/hop", "chain", "actors",
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
    cause: Cause | None = None,
    left: frozenset[str] = frozenset(),
    sealed: frozenset[str] = frozenset(),
    veiled: frozenset[str] = frozenset(),
    approval: str | None = None,
    consents: Sequence[tuple[Principal, Iterable[str]]] = (),
    held: Held | None = None,
    ctx: str = "",
    policy_set: str | None = None,
    policy_version: str | None = None,
) -> DecisionRecord:
    """Return the account of `decision`, complete and with no tie to its inputs.

    `args` are the bound arguments; a keyed digest binds them all, and only those at the paths in `seen` are
    shown. The arguments named in `sensitive` are never shown: not as inputs, not in `explain`, nor where a
    text repeats them. `held` is what stands at the places with a class: what opens the shredded is kept before this
    returns. `ts` has a time zone. `cause` says that it weren't the policies alone that decided, and
    `left` has the ids of the obligations that nothing could carry out. `sealed` names the limits whose key holds
    something hidden: of its plain hash somebody could guess it; `veiled` those whose amount or bound is made of one,
    so that from what was used it could be told. `approval` is the id of the request for consent
    that the call waits for or was made with, `consents` are those who consented, with the attributes of theirs that the
    policies read. `ctx` is what `ctx_member` gives.

    Raises:
        SinkError: what opens the shredded values can't be kept.
    """
    draft = _Draft(key, Secrets(sensitive, args, held) if sensitive or held is not None else _NO_SECRETS, held)
    inputs, named = draft.inputs(seen, {"args": args, "context": request.context}), draft.named
    facts, purpose, route = request.session, request.purpose, request.route
    draft.parts = [
        opening("decision", id, ts),
        f',"outcome":"{decision.outcome.value}","basis":"{decision.basis.value}","mode":{quote(mode)}',
        ',"enforced":true' if decision.enforced else ',"enforced":false',
        "" if cause is None else f',"cause":"{cause}"',
        f',"policy":{{"digest":{quote(decision.policy_digest)}',
        "" if policy_set is None else f',"set":{quote(policy_set)}',
        "}" if policy_version is None else f',"version":{quote(policy_version)}}}',
        draft.action(decision.action, args),
        draft.resource(request.resource),
        request.chain._written or draft.chain(request.chain),
        named("session", facts.id if type(facts) is SessionFacts else None),
        draft.bounds(facts) if type(facts) is SessionFacts else "",
        named("purpose", purpose if isinstance(purpose, str) else None),
        named("route", route if isinstance(route, str) else None),
        draft.grounds(decision),
        draft.duties(decision.obligations, left) if decision.obligations else "",
        draft.budgets(decision.budgets, sealed, veiled) if decision.budgets else "",
        "" if approval is None else f',"approval":{quote(approval)}',
        draft.consents(consents) if consents else "",
        inputs,
        "" if explain is None else draft.explanation(explain),
        ctx,
    ]
    line = draft.line()
    if draft.sealing is not None:
        draft.sealing.keep()
    return DecisionRecord.of_line(line, decision.outcome.value)


@functools.lru_cache(maxsize=4096)
def _place(path: str) -> tuple[str, str, str]:
    """Return how an input at `path` begins, and the root and the name of the member that it is, if it is one."""
    opening = f'{{"name":{quote(path)},"state":'
    for root in ("args", "resource"):
        if (name := member(path, root)) is not None:
            return opening, root, name
    return opening, "", ""


def _given(path: str, given: Mapping[str, object]) -> object:
    """Return the member at a path of what the host gave; ABSENT: nobody can tell without asking an object again."""
    for root, members in given.items():
        if type(members) is dict and (name := member(path, root)) is not None:
            return members.get(name, ABSENT)
    return ABSENT


def _parties(chain: Chain) -> list[Principal]:
    return [chain.subject, *(hop.to for hop in chain.delegations)]


def _object(members: Mapping[str, str]) -> str:
    return "{" + ",".join([f"{quote(name)}:{text}" for name, text in members.items()]) + "}"


@final
class _Draft:
    """Collect what a record must tell about itself while its parts are written."""

    __slots__ = ("key", "members", "more", "oversized", "parts", "redacted", "sealing", "secrets")

    def __init__(self, key: InstanceKey, secrets: Secrets, held: Held | None) -> None:
        self.key = key
        self.secrets = secrets
        self.sealing = None if held is None else held.redaction.sealing()
        self.redacted = list(secrets.pointers)
        self.oversized: dict[str, str] = {}
        self.more: dict[str, int] = {}
        self.members: dict[str, dict[str, str]] = {"args": {}, "resource": {}}
        self.parts: list[str] = []

    # ---- pieces: each is JSON text

    def name(self, text: str, pointer: str, step: object = None) -> str:
        """Write a name or an id, which a secret argument can't hide."""
        if len(text) <= MAX_NAME and text.isascii():
            return quote(text)
        return quote(self._clipped(text, MAX_NAME, pointer if step is None else f"{pointer}/{step}"))

    def named(self, field: str, text: str | None) -> str:
        return "" if text is None else f',"{field}":{self.name(text, "", field)}'

    def listed(self, field: str, names: Sequence[str]) -> str:
        return f',"{field}":{self.names(names, "/" + field)}' if names else ""

    def names(self, names: Sequence[str], pointer: str, limit: int = MAX_LISTED) -> str:
        every = "".join(names)
        if len(every) <= MAX_NAME and every.isascii() and len(names) <= MAX_LISTED:
            return f"[{','.join(map(quote, names))}]"
        return f"[{','.join([self.name(text, pointer, i) for i, text in self.first(names, pointer, limit)])}]"

    def prose(self, text: str, pointer: str) -> str:
        if (place := self.secrets.hidden(text)) is not None:
            self.redacted.append(pointer)
            return quote(self._committed(text, place, pointer))
        return quote(text if len(text) <= MAX_PROSE and text.isascii() else self._clipped(text, MAX_PROSE, pointer))

    def _clipped(self, text: str, limit: int, pointer: str) -> str:
        written = utf8(text[:limit])
        if written != text:  # too long, or UTF-8 has no such text
            self.oversized[pointer] = self.key.digest("value", canonical(text))
        return written

    def value(self, value: object, pointer: str, place: Place = OPEN) -> Json:
        """Write a value by its class, or commit to it where it is too big or repeats a secret."""
        if place.open:
            tree, fits = bounded(value, 400, MAX_VALUE)
            if fits and self.secrets is _NO_SECRETS:
                return tree
            whole = tree if fits else jsonable(value)
        else:
            tree = masked(jsonable(value), place, pointer, self._classed)
            whole = tree
            fits = len(compact(tree)) <= MAX_VALUE
        hidden = self.secrets.hidden(whole)
        if hidden is not None and hidden.kind == "shred":
            return self._tagged(whole, hidden, pointer)
        if fits and hidden is None:
            return tree
        digest = self.key.digest("value", encode(whole))
        if not fits:
            self.oversized[pointer] = digest
        else:
            self.redacted.append(pointer)
        return {"$c": digest}

    def _veiled(self, value: object, pointer: str) -> Json:
        """Commit to a value without showing it."""
        self.redacted.append(pointer)
        return {"$c": self.key.digest("value", encode(jsonable(value)))}

    def _classed(self, tree: Json, place: Place, pointer: str) -> Json:
        """Return what stands in the place of something with a class."""
        if place.kind == "secret":
            self.redacted.append(pointer)
            return {"$u": "secret"}
        return self._tagged(tree, place, pointer)

    def _tagged(self, tree: Json, place: Place, pointer: str) -> Json:
        text = self._committed(tree, place, pointer)
        if pointer not in self.oversized:
            self.redacted.append(pointer)
        return {"$s" if text[:1] == "s" else "$c": text}

    def _committed(self, tree: Json, place: Place, pointer: str) -> str:
        """Return a commitment, which depends on the value alone unless it is to be shredded."""
        if place.kind != "shred":
            return self.key.digest("value", encode(tree))
        owner = self.secrets.owner(place)
        if owner is not None and len(compact(tree)) <= MAX_OPENING:
            assert self.sealing is not None  # a redaction that shreds has openings
            return self.sealing.commit(owner, tree)
        # nobody can open it again, and a digest of what it was could be guessed when it is to be gone
        digest = self.key.digest("value", token_bytes(32))
        if owner is not None:
            self.oversized[pointer] = digest
        return digest

    def first(self, items: Sequence[T], pointer: str, limit: int = MAX_LISTED) -> Iterable[tuple[int, T]]:
        """Return the first elements with their places, and count the rest."""
        if len(items) <= limit:
            return enumerate(items)
        self.more[pointer] = len(items) - limit
        return enumerate(items[:limit])

    # ---- parts: each a member of the record, with its comma

    def inputs(self, seen: Sequence[tuple[str, Value]], given: Mapping[str, object]) -> str:
        """Write what was seen; what rules can't read is shown as it was `given`, below roots that are mappings."""
        open_to_all = self.secrets is _NO_SECRETS
        texts = []
        for i, (path, value) in self.first(self.secrets.visible(seen), "/inputs", MAX_INPUTS):
            if len(path) > MAX_NAME or not path.isascii():
                path = self._clipped(path, MAX_NAME, f"/inputs/{i}/name")
            opening, root, name = _place(path)
            place = OPEN if open_to_all else self.secrets.place(path)
            if type(value) is Sentinel:
                raw = _given(path, given) if value is INVALID else ABSENT
                told = "" if raw is ABSENT else f',"value":{compact(self.value(raw, f"/inputs/{i}/value", place))}'
                texts.append(f'{opening}"{value.value}"{told}}}')
                continue
            text = plain(value) if open_to_all else None
            if text is None:
                text = compact(self.value(value, f"/inputs/{i}/value", place))
            if root and place.kind != "secret":
                self.members[root][name] = text
            elif root:
                self.redacted.append(f"{_MEMBERS[root]}/{escaped(name)}")
            texts.append(f'{opening}"value","value":{text}}}')
        return f',"inputs":[{",".join(texts)}]' if texts else ""

    def action(self, name: str, args: Mapping[str, object]) -> str:
        digest = self.key.digest("args", self.secrets.bound(args))
        shown = self.members["args"]
        end = f',"args":{_object(shown)}}}' if shown else "}"
        names = f',"given":{self.names(list(args), "/action/given", MAX_INPUTS)}' if args else ""
        return f',"action":{{"name":{self.name(name, "/action/name")},"args_digest":"{digest}"{names}{end}'

    def bounds(self, facts: SessionFacts) -> str:
        if facts.expires is None and facts.ceiling is None:
            return ""
        texts = [] if facts.expires is None else [f'"expires":"{stamp(facts.expires)}"']
        if facts.ceiling is not None:
            texts.append(f'"ceiling":{self.names(facts.ceiling, "/bounds/ceiling", MAX_INPUTS)}')
        return f',"bounds":{{{",".join(texts)}}}'

    def resource(self, resource: object) -> str:
        if type(resource) is not Resource:
            return ',"resource":{"state":"unknown"}' if resource is UNKNOWN else ""
        name = self._resource_id(resource.id)
        shown = self.members["resource"]
        shown.pop("type", None)
        shown.pop("id", None)
        end = f',"attributes":{_object(shown)}}}' if shown else "}"
        return f',"resource":{{"type":{self.name(resource.type, "/resource/type")},"id":{name}{end}'

    def _resource_id(self, id: str) -> str:
        if (place := self.secrets.hidden(id)) is not None:
            self.redacted.append("/resource/id")
            return quote(self._committed(id, place, "/resource/id"))
        return self.name(id, "/resource/id")

    def chain(self, chain: Chain) -> str:
        """Write the actors and the hops; the text is kept where it says all, so that it depends on the chain only."""
        before = len(self.oversized) + len(self.more)
        actors = [self._actor(who, f"/actors/{i}") for i, who in enumerate(_parties(chain))]
        hops = [self._hop(hop, f"/chain/{i}") for i, hop in enumerate(chain.delegations)]
        below = f',"chain":[{",".join(hops)}]' if hops else ""
        text = f',"actors":[{",".join(actors)}],"depth":{chain.depth}{below}'
        return chain._keep(text) if len(self.oversized) + len(self.more) == before else text

    def _actor(self, who: Principal, pointer: str) -> str:
        issuer = "" if who.issuer is None else f',"iss":{self.name(who.issuer, pointer, "iss")}'
        return f'{{"sub":{self.name(who.id, pointer, "sub")},"kind":"{who.kind}"{issuer}}}'

    def _hop(self, hop: Delegation, pointer: str) -> str:
        texts = [f'{{"to":{self.name(str(hop.to), pointer, "to")}']
        texts.append(f'"actions":{self.names(hop.actions, pointer + "/actions", MAX_INPUTS)}')
        if hop.purpose is not None:
            texts.append(f'"purpose":{self.name(hop.purpose, pointer, "purpose")}')
        if hop.expires is not None:
            texts.append(f'"expires":"{stamp(hop.expires.astimezone(dt.UTC))}"')
        if hop.handoff:
            texts.append('"handoff":true')
        return f'{",".join(texts)},"via":"{hop.via}"}}'

    def grounds(self, decision: Decision) -> str:
        """Write what decided, and why; the text is kept where it depends on the decision alone, which calls share."""
        plain = self.secrets is _NO_SECRETS
        if plain and decision._written is not None:
            return decision._written
        before = len(self.oversized) + len(self.more)
        names = [(field, getattr(decision, field)) for field in ("rules", "undetermined", "missing", "marks")]
        text = "".join([self.listed(field, each) for field, each in names if each]) + self.reasons(decision.reasons)
        return decision._keep(text) if plain and len(self.oversized) + len(self.more) == before else text

    def reasons(self, reasons: Sequence[Reason]) -> str:
        if not reasons:
            return ""
        plain = self.secrets is _NO_SECRETS
        texts = [
            (plain and reason._written) or self._reason(reason, f"/reasons/{i}")
            for i, reason in self.first(reasons, "/reasons")
        ]
        return f',"reasons":[{",".join(texts)}]'

    def _reason(self, reason: Reason, pointer: str) -> str:
        before = len(self.oversized) + len(self.redacted)
        text = f'{{"code":{quote(reason.code)},"text":{self.prose(reason.text, pointer + "/text")}'
        if reason.rule is not None:
            text += f',"rule":{self.name(reason.rule, pointer, "rule")}'
        if reason.at is not None:
            text += f',"at":{self.name(reason.at, pointer, "at")}'
        if reason.because is not None:
            text += f',"because":{self.prose(reason.because, pointer + "/because")}'
        text += "}"
        return reason._keep(text) if len(self.oversized) + len(self.redacted) == before else text

    def duties(self, duties: Sequence[Obligation], left: frozenset[str]) -> str:
        shown = self.first(duties, "/obligations")
        texts = [self._duty(duty, f"/obligations/{i}", duty.id in left) for i, duty in shown]
        return f',"obligations":[{",".join(texts)}]'

    def _duty(self, duty: Obligation, pointer: str, left: bool) -> str:
        properties = self.value(dict(duty.properties), f"{pointer}/properties")
        shown = f',"properties":{compact(properties)}' if properties else ""
        end = ',"left":true}' if left else "}"
        return f'{{"id":{self.name(duty.id, pointer, "id")},"type":{self.name(duty.type, pointer, "type")}{shown}{end}'

    def budgets(self, budgets: Sequence[Budget], sealed: frozenset[str], veiled: frozenset[str]) -> str:
        texts = [
            self._budget(budget, f"/budgets/{i}", sealed=budget.rule in sealed, veiled=budget.rule in veiled)
            for i, budget in self.first(budgets, "/budgets")
        ]
        return f',"budgets":[{",".join(texts)}]'

    def _budget(self, budget: Budget, pointer: str, *, sealed: bool, veiled: bool) -> str:
        key = budget.key
        if sealed:
            key = self.key.digest("value", canonical(key))
            self.redacted.append(f"{pointer}/key")
        amounts = {"amount": budget.amount, "bound": budget.bound, "used": budget.used}
        write = self._veiled if veiled else self.value
        texts = [f'"{name}":{compact(write(amount, f"{pointer}/{name}"))}' for name, amount in amounts.items()]
        room = "" if budget.room_at is None else f',"room_at":"{stamp(budget.room_at)}"'
        granted = "true" if budget.granted else "false"
        named = f'"rule":{self.name(budget.rule, pointer, "rule")},"key":{self.name(key, pointer, "key")}'
        return f'{{{named},{",".join(texts)},"granted":{granted}{room}}}'

    def consents(self, consents: Sequence[tuple[Principal, Iterable[str]]]) -> str:
        shown = self.first(consents, "/consents")
        texts = [self._consent(who, reads, f"/consents/{i}") for i, (who, reads) in shown]
        return f',"consents":[{",".join(texts)}]'

    def _consent(self, who: Principal, reads: Iterable[str], pointer: str) -> str:
        known = {
            name: compact(self.value(who.facts[name], f"{pointer}/attributes/{escaped(name)}"))
            for name in sorted(reads)
        }
        below = f',"attributes":{_object(known)}' if known else ""
        return f'{{"by":{self._actor(who, f"{pointer}/by")}{below}}}'

    def explanation(self, part: object) -> str:
        tree = self.explain(part)
        return "" if tree in (None, [], {}) else f',"explain":{compact(tree)}'

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
        return {
            utf8(path): self.value(value, f"{pointer}/{escaped(path)}", self.secrets.place(path))
            for path, value in self.secrets.shown(saw, expr).items()
        }

    # ---- the whole

    def line(self) -> bytes:
        """Return the line of the parts, at no place yet; where it is too long, parts give way until it fits."""
        meta = f',"meta":{compact(self._meta())}' if self.redacted or self.oversized or self.more else ""
        text = "".join(self.parts)
        line = finished(f"{text}{meta}}}")
        return ALONE + (line if len(line) <= MAX_BODY else self._shortened(json.loads(f"{{{text}}}")))

    def _meta(self) -> dict[str, Json]:
        redacted: list[Json] = [pointer for _, pointer in self.first(self.redacted, "/meta/redacted")]
        told: dict[str, Json] = {"redacted": redacted, "oversized": {**self.oversized}, "more": {**self.more}}
        return {name: value for name, value in told.items() if value}

    def _shortened(self, tree: dict[str, Json]) -> bytes:
        line = b""
        for path in _DROPPED:
            self._drop(tree, path)
            line = finished(compact({**tree, "meta": self._meta()})[1:])
            if len(line) <= MAX_BODY:
                break
        return line

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
