"""Say in words what a record tells, and show text of which nothing is obeyed."""

from __future__ import annotations

from collections.abc import Container, Mapping

from agentauthz.canonical import class_name
from agentauthz.records.delegations import Refused
from agentauthz.records.events import EffectRecord, EventRecord, PolicyRecord
from agentauthz.records.lines import compact
from agentauthz.records.record import Actor, DecisionRecord, DelegationRecord, Record


def record_line(record: Record) -> str:
    """Return what a record of any type tells."""
    if isinstance(record, DecisionRecord):
        return decision_line(record)
    if isinstance(record, EffectRecord):
        return f"{when(record)}  {'effect':<6}  {record.action or ''} of {record.of}: {effect_words(record)}"
    if isinstance(record, DelegationRecord):
        return delegation_line(record)
    if isinstance(record, PolicyRecord):
        return f"{when(record)}  {'policy':<6}  {record.name}, part {record.part} of {record.parts} of {record.digest}"
    return event_line(record)


def event_line(record: EventRecord, without: Container[str] = ()) -> str:
    """Return what a record of any other type tells, but for what `without` names."""
    told = ", ".join(
        f"{name}: {value}"
        for name, value in map(_named, record.about.items())
        if isinstance(value, str | int) and name not in without
    )
    return f"{when(record)}  {record.type}  {told}"


def _named(told: tuple[str, object]) -> tuple[str, object]:
    """Return what an event tells; of who did it, as policies name them."""
    name, value = told
    if name == "by" and isinstance(value, Mapping):
        sub, kind, issuer = map(value.get, ("sub", "kind", "iss"))
        if isinstance(sub, str) and isinstance(kind, str) and isinstance(issuer, str | None):
            return name, party(Actor(sub, kind, issuer))
    return told


def decision_line(record: DecisionRecord) -> str:
    """Return what a decision tells: when, what came out, of what, by whom, and why."""
    who = " -> ".join(map(party, record.actors)) or "nobody"
    observed = "" if record.enforced else " (observed, so it ran)"
    resource = record.resource
    on = "" if resource is None or resource.id is None else f" on {resource.type}:{resource.id}"
    return (
        f"{when(record)}  {record.outcome:<6}  {record.action.name}{on} by {who}: {why(record)}{observed}  {record.id}"
    )


def delegation_line(record: DelegationRecord) -> str:
    """Return what a delegation tells: when, by whom, to whom, and why not."""
    who = " -> ".join(map(party, record.actors)) or "nobody"
    to = "" if record.to is None else f" to {party(record.to)}"
    why = "" if record.reason is None else f": {record.reason.code}: {record.reason.text}"
    return f"{when(record)}  {record.outcome}  {record.kind} by {who}{to}{why}  {record.id}"


def refusal_words(refused: Refused) -> str:
    """Return what was not passed on, to whom and why, and at which hop the authority for it was lost."""
    record, at = refused.record, refused.at
    to = "" if record.to is None else f" to {party(record.to)}"
    why = "" if record.reason is None else f": {record.reason.code}: {record.reason.text}"
    lost = "" if at is None else f"; lost at the hop to {at.to}"
    return f"refused to pass on{to}{why}{lost}"


def when(record: Record) -> str:
    """Return the moment of a record, to the millisecond."""
    return record.ts.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")


def party(actor: Actor) -> str:
    """Return a party as a policy names it."""
    issuer = "" if actor.iss is None else f" of {actor.iss}"
    return f"{actor.kind}({actor.sub}){issuer}"


def why(record: DecisionRecord) -> str:
    """Return the rules of an allow, else the first reason."""
    if record.outcome == "allow" or not record.reasons:
        return ", ".join(record.rules) or record.basis
    more = f" (and {len(record.reasons) - 1} more)" if len(record.reasons) > 1 else ""
    return f"{record.basis}: {record.reasons[0].text}{more}"


def value_words(value: object) -> str:
    """Return a value that a record holds, or how it is held back."""
    if isinstance(value, Mapping) and len(value) == 1:
        [(tag, held)] = value.items()
        if tag == "$s":
            return "(erased)" if held == "erased" else "(kept apart, until it is shredded)"
        if tag == "$c":
            return f"(only a keyed hash: {held})"
        if tag == "$u":
            return "(secret)" if held == "secret" else f"(a {held})"
    return json_words(value)


def effect_words(record: EffectRecord) -> str:
    """Return what came of a call."""
    error = "" if record.error_type is None else f" with {record.error_type}"
    took = "" if record.dur_us is None else " in {}.{} ms".format(*divmod((record.dur_us + 50) // 100, 10))
    left = f"; the obligation {', '.join(record.left)} failed" if record.left else ""
    spent = [f"{rule} {_amount_words(amount)}" for rule, amount in record.spent.items()]
    settled = f"; spent in the end: {', '.join(spent)}" if spent else ""
    came = f"never ran{error}" if record.status == "not_run" else f"{record.status}{error}{took}"
    return f"{came}{left}{settled}"


def _amount_words(amount: object) -> str:
    """Return an amount that a record holds."""
    if isinstance(amount, Mapping) and len(amount) == 1 and isinstance(amount.get("$d"), str):
        return str(amount["$d"])
    return value_words(amount)


def json_words(value: object) -> str:
    """Return recorded JSON as text; what no record of ours holds (NaN, thousands of levels) isn't shown."""
    try:
        return compact(value)
    except (ValueError, TypeError, RecursionError):
        return f"(a {class_name(value)} that can't be shown)"


def count(number: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Return text of which a terminal shows every character and obeys none; line feeds stay."""
    return "".join(c if c == "\n" or c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def one_line(text: str) -> str:
    """Return text as a terminal shows it in one line."""
    return printable(text).replace("\n", "\\u000a")
