"""Write the members of a record that tell of a decision, or of a delegation: each with its comma, through a draft."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from agentauthz.canonical import Json, canonical, plain, quote, stamp, utf8
from agentauthz.decision import Budget, Decision, Obligation, Reason
from agentauthz.principals import Chain, Delegation, Principal
from agentauthz.records.draft import MAX_INPUTS, NO_SECRETS, Draft
from agentauthz.records.lines import MAX_NAME, compact
from agentauthz.records.redaction import OPEN, escaped
from agentauthz.records.secrets import member
from agentauthz.request import Resource, SessionFacts
from agentauthz.values import ABSENT, INVALID, UNKNOWN, Sentinel, Value

MAX_CLAUSE: Final = 6  # lists and objects around the values of an explanation

_MEMBERS: Final = {"args": "/action/args", "resource": "/resource/attributes"}


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


def inputs(draft: Draft, seen: Sequence[tuple[str, Value]], given: Mapping[str, object]) -> str:
    """Write what was seen; what rules can't read is shown as it was `given`, below roots that are mappings."""
    open_to_all = draft.secrets is NO_SECRETS
    texts = []
    for i, (path, value) in draft.first(draft.secrets.visible(seen), "/inputs", MAX_INPUTS):
        if len(path) > MAX_NAME or not path.isascii():
            path = draft.clipped(path, MAX_NAME, f"/inputs/{i}/name")
        opening, root, name = _place(path)
        place = OPEN if open_to_all else draft.secrets.place(path)
        if type(value) is Sentinel:
            raw = _given(path, given) if value is INVALID else ABSENT
            told = "" if raw is ABSENT else f',"value":{compact(draft.value(raw, f"/inputs/{i}/value", place))}'
            texts.append(f'{opening}"{value.value}"{told}}}')
            continue
        text = plain(value) if open_to_all else None
        if text is None:
            text = compact(draft.value(value, f"/inputs/{i}/value", place))
        if root and place.kind != "secret":
            draft.members[root][name] = text
        elif root:
            draft.redacted.append(f"{_MEMBERS[root]}/{escaped(name)}")
        texts.append(f'{opening}"value","value":{text}}}')
    return f',"inputs":[{",".join(texts)}]' if texts else ""


def action(draft: Draft, name: str, args: Mapping[str, object]) -> str:
    """Write the action, the arguments that rules have read, and what binds all of them."""
    digest = draft.key.digest("args", draft.secrets.bound(args))
    shown = draft.members["args"]
    end = f',"args":{_object(shown)}}}' if shown else "}"
    names = f',"given":{draft.names(list(args), "/action/given", MAX_INPUTS)}' if args else ""
    return f',"action":{{"name":{draft.name(name, "/action/name")},"args_digest":"{digest}"{names}{end}'


def bounds(draft: Draft, facts: SessionFacts) -> str:
    """Write when the session ends, and the most that it may do."""
    if facts.expires is None and facts.ceiling is None:
        return ""
    texts = [] if facts.expires is None else [f'"expires":"{stamp(facts.expires)}"']
    if facts.ceiling is not None:
        texts.append(f'"ceiling":{draft.names(facts.ceiling, "/bounds/ceiling", MAX_INPUTS)}')
    return f',"bounds":{{{",".join(texts)}}}'


def resource(draft: Draft, given: object) -> str:
    """Write what the action is done to, with the attributes that rules have read."""
    if type(given) is not Resource:
        return ',"resource":{"state":"unknown"}' if given is UNKNOWN else ""
    name = _resource_id(draft, given.id)
    shown = draft.members["resource"]
    shown.pop("type", None)
    shown.pop("id", None)
    end = f',"attributes":{_object(shown)}}}' if shown else "}"
    return f',"resource":{{"type":{draft.name(given.type, "/resource/type")},"id":{name}{end}'


def _resource_id(draft: Draft, id: str) -> str:
    if (place := draft.secrets.hidden(id)) is not None:
        draft.redacted.append("/resource/id")
        return quote(draft.commit(id, place, "/resource/id"))
    return draft.name(id, "/resource/id")


def chain(draft: Draft, whole: Chain) -> str:
    """Write the actors and the hops; the text is kept where it says all, so that it depends on the chain only."""
    before = len(draft.oversized) + len(draft.more)
    actors = [actor(draft, who, f"/actors/{i}") for i, who in enumerate(_parties(whole))]
    hops = [hop(draft, each, f"/chain/{i}") for i, each in enumerate(whole.delegations)]
    below = f',"chain":[{",".join(hops)}]' if hops else ""
    text = f',"actors":[{",".join(actors)}],"depth":{whole.depth}{below}'
    return whole._keep(text) if len(draft.oversized) + len(draft.more) == before else text


def actor(draft: Draft, who: Principal, pointer: str) -> str:
    """Write one principal."""
    issuer = "" if who.issuer is None else f',"iss":{draft.name(who.issuer, pointer, "iss")}'
    return f'{{"sub":{draft.name(who.id, pointer, "sub")},"kind":"{who.kind}"{issuer}}}'


def hop(draft: Draft, passed: Delegation, pointer: str) -> str:
    """Write one delegation."""
    texts = [f'{{"to":{draft.name(str(passed.to), pointer, "to")}']
    texts.append(f'"actions":{draft.names(passed.actions, pointer + "/actions", MAX_INPUTS)}')
    if passed.purpose is not None:
        texts.append(f'"purpose":{draft.name(passed.purpose, pointer, "purpose")}')
    if passed.expires is not None:
        texts.append(f'"expires":"{stamp(passed.expires.astimezone(dt.UTC))}"')
    if passed.handoff:
        texts.append('"handoff":true')
    return f'{",".join(texts)},"via":"{passed.via}"}}'


def grounds(draft: Draft, decision: Decision) -> str:
    """Write what decided, and why; the text is kept where it depends on the decision alone, which calls share."""
    open_to_all = draft.secrets is NO_SECRETS
    if open_to_all and decision._written is not None:
        return decision._written
    before = len(draft.oversized) + len(draft.more)
    names = [(field, getattr(decision, field)) for field in ("rules", "undetermined", "missing", "marks")]
    text = "".join([draft.listed(field, each) for field, each in names if each]) + reasons(draft, decision.reasons)
    return decision._keep(text) if open_to_all and len(draft.oversized) + len(draft.more) == before else text


def reasons(draft: Draft, given: Sequence[Reason]) -> str:
    """Write why; a reason's text is kept where it depends on the reason alone."""
    if not given:
        return ""
    open_to_all = draft.secrets is NO_SECRETS
    texts = [
        (open_to_all and each._written) or reason(draft, each, f"/reasons/{i}")
        for i, each in draft.first(given, "/reasons")
    ]
    return f',"reasons":[{",".join(texts)}]'


def reason(draft: Draft, given: Reason, pointer: str) -> str:
    """Write one reason."""
    before = len(draft.oversized) + len(draft.redacted)
    text = f'{{"code":{quote(given.code)},"text":{draft.prose(given.text, pointer + "/text")}'
    if given.rule is not None:
        text += f',"rule":{draft.name(given.rule, pointer, "rule")}'
    if given.at is not None:
        text += f',"at":{draft.name(given.at, pointer, "at")}'
    if given.because is not None:
        text += f',"because":{draft.prose(given.because, pointer + "/because")}'
    text += "}"
    return given._keep(text) if len(draft.oversized) + len(draft.redacted) == before else text


def duties(draft: Draft, obligations: Sequence[Obligation], left: frozenset[str]) -> str:
    """Write the obligations; those in `left` nothing could carry out."""
    shown = draft.first(obligations, "/obligations")
    texts = [_duty(draft, duty, f"/obligations/{i}", duty.id in left) for i, duty in shown]
    return f',"obligations":[{",".join(texts)}]'


def _duty(draft: Draft, duty: Obligation, pointer: str, left: bool) -> str:
    properties = draft.value(dict(duty.properties), f"{pointer}/properties")
    shown = f',"properties":{compact(properties)}' if properties else ""
    end = ',"left":true}' if left else "}"
    return f'{{"id":{draft.name(duty.id, pointer, "id")},"type":{draft.name(duty.type, pointer, "type")}{shown}{end}'


def budgets(draft: Draft, stood: Sequence[Budget], sealed: frozenset[str], veiled: frozenset[str]) -> str:
    """Write how the budgets stood."""
    texts = [
        _budget(draft, budget, f"/budgets/{i}", sealed=budget.rule in sealed, veiled=budget.rule in veiled)
        for i, budget in draft.first(stood, "/budgets")
    ]
    return f',"budgets":[{",".join(texts)}]'


def _budget(draft: Draft, budget: Budget, pointer: str, *, sealed: bool, veiled: bool) -> str:
    key = budget.key
    if sealed:
        key = draft.key.digest("value", canonical(key))
        draft.redacted.append(f"{pointer}/key")
    amounts = {"amount": budget.amount, "bound": budget.bound, "used": budget.used}
    write = draft.veiled if veiled else draft.value
    texts = [f'"{name}":{compact(write(amount, f"{pointer}/{name}"))}' for name, amount in amounts.items()]
    room = "" if budget.room_at is None else f',"room_at":"{stamp(budget.room_at)}"'
    granted = "true" if budget.granted else "false"
    named = f'"rule":{draft.name(budget.rule, pointer, "rule")},"key":{draft.name(key, pointer, "key")}'
    return f'{{{named},{",".join(texts)},"granted":{granted}{room}}}'


def consents(draft: Draft, given: Sequence[tuple[Principal, Iterable[str]]]) -> str:
    """Write who has consented, with what the policies have read of them."""
    shown = draft.first(given, "/consents")
    texts = [_consent(draft, who, reads, f"/consents/{i}") for i, (who, reads) in shown]
    return f',"consents":[{",".join(texts)}]'


def _consent(draft: Draft, who: Principal, reads: Iterable[str], pointer: str) -> str:
    known = {
        name: compact(draft.value(who.facts[name], f"{pointer}/attributes/{escaped(name)}")) for name in sorted(reads)
    }
    below = f',"attributes":{_object(known)}' if known else ""
    return f'{{"by":{actor(draft, who, f"{pointer}/by")}{below}}}'


def explanation(draft: Draft, part: object) -> str:
    """Write the clauses that were explained, if there are any."""
    tree = _explained(draft, part)
    return "" if tree in (None, [], {}) else f',"explain":{compact(tree)}'


def _explained(draft: Draft, part: object, pointer: str = "/explain", depth: int = 0) -> Json:
    """Write clauses: lists and objects as they are, each value in them as any other value."""
    if depth < MAX_CLAUSE and type(part) is list:
        items = draft.first(part, pointer, MAX_INPUTS)
        return [_explained(draft, item, f"{pointer}/{i}", depth + 1) for i, item in items]
    if depth < MAX_CLAUSE and type(part) is dict:
        return {
            utf8(str(name)): _saw(draft, item, str(part.get("expr")), f"{pointer}/saw")
            if name == "saw" and type(item) is dict
            else _explained(draft, item, f"{pointer}/{escaped(str(name))}", depth + 1)
            for name, item in part.items()
        }
    return draft.value(part, pointer)


def _saw(draft: Draft, saw: Mapping[str, object], expr: str, pointer: str) -> dict[str, Json]:
    return {
        utf8(path): draft.value(value, f"{pointer}/{escaped(path)}", draft.secrets.place(path))
        for path, value in draft.secrets.shown(saw, expr).items()
    }
