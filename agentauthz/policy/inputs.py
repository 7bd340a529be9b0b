"""Hold what an expression sees: the inputs of one judged call, frozen when they are first read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Final, cast, final

from agentauthz.policy.builtins import Answer
from agentauthz.policy.syntax import Path
from agentauthz.policy.types import conforms
from agentauthz.principals import Chain, Delegation, Principal
from agentauthz.request import Entity, Request, SessionFacts
from agentauthz.values import (
    ABSENT,
    INVALID,
    UNKNOWN,
    Record,
    Sentinel,
    Unordered,
    Value,
    field_reader,
    freeze,
    record_of,
)

_UNKNOWN_RECORD: Final = Record(lambda _: UNKNOWN)


@final
class Inputs:
    """Be the roots of the language for one judged call; each attribute is a policy value or a sentinel.

    `hops` is the chain as a list of records. `permitted_by` judges another principal's own call, and is
    None inside `permitted(…)`, where `permitted` is false.
    """

    __slots__ = (
        "_permitted", "action", "actor", "approver", "args", "chain", "context", "delegations", "facts",
        "hops", "name", "now", "permitted_by", "purpose", "resource", "route", "session", "subject",
    )  # fmt: skip

    def __init__(self, request: Request, permitted_by: Callable[[Inputs], Answer] | None = None) -> None:
        self.name = request.action
        self.subject = request.subject
        self.actor = request.actor
        self.delegations = request.chain
        self.action: Value = Record(None, {"name": request.action})
        self.args: Value = _UNKNOWN_RECORD if request.args is UNKNOWN else record_of(request.args)
        self.resource: Value = freeze(request.resource)
        self.route: Value = freeze(request.route)
        self.purpose: Value = freeze(request.purpose)
        self.facts = request.session
        self.session: Value = _session_value(request.session)
        self.context: Value = (
            _UNKNOWN_RECORD if request.context is UNKNOWN else Record(field_reader(request.context))
        )
        self.now: Value = freeze(request.now)
        self.approver: Value = UNKNOWN
        self.permitted_by = permitted_by
        self._see_chain(request.chain)

    def _see_chain(self, chain: Chain) -> None:
        self.delegations = chain
        self.actor = chain.actor
        self.chain: Value = Record(None, {"depth": chain.depth})
        self.hops: Value = tuple(map(_hop_value, chain.delegations))
        self._permitted: dict[str, Answer] = {}

    def through(self, chain: Chain) -> Inputs:
        """Return the same call as if `chain`'s actor made it in its place; what was read stays shared."""
        other = Inputs.__new__(Inputs)
        for slot in Inputs.__slots__:
            setattr(other, slot, getattr(self, slot))
        other.subject = chain.subject
        other._see_chain(chain)
        return other

    def asking(self, action: str, args: Mapping[str, object]) -> Inputs:
        """Return another action of the same session, purpose and context, on no resource."""
        other = self.through(self.delegations)
        other.name = action
        other.action = Record(None, {"name": action})
        other.args = record_of(args)
        other.resource = ABSENT
        return other

    def permitted(self, who: str) -> Answer:
        """Answer `permitted(subject)` or `permitted(actor)`; asked once per judged call."""
        if who not in self._permitted:
            self._permitted[who] = self._ask_permitted(who)
        return self._permitted[who]

    def _ask_permitted(self, who: str) -> Answer:
        if self.permitted_by is None:
            return False
        alone = self.through(Chain(self.subject if who == "subject" else self.actor))
        alone.permitted_by = None
        return self.permitted_by(alone)

    def seen_within(self, state: str, action: str, duration: dt.timedelta) -> Answer:
        """Answer `began(action, duration)` and `done(action, duration)`; both ends count, this call doesn't."""
        facts = self.facts
        if type(facts) is not SessionFacts:
            return None
        seen = facts.began if state == "began" else facts.done
        if seen is UNKNOWN:
            return None
        now = cast(dt.datetime, self.now)
        if action in seen and now - seen[action] <= duration:
            return True
        since = facts.tracked.get(action)
        # watched for a part of the time only: what came before nobody knows
        gap = since is not None and since > facts.started and now - since < duration
        return None if gap else False

    def read(self, path: Path, variables: Mapping[str, Value]) -> Value:
        """Return the value at `path`, INVALID where it breaks its declared type."""
        value: Value = variables[path.root] if path.root in variables else getattr(self, path.root)
        tag = self.name if path.root == "args" else None
        for step in path.steps:
            kind = type(value)
            if kind is Record:
                value = cast(Record, value)[step]
            elif kind is Principal:
                tag, value = cast(Principal, value).kind, cast(Principal, value).facts[step]
            elif kind is Entity:
                tag, value = cast(str, cast(Entity, value)["type"]), cast(Entity, value)[step]
            else:
                return value if kind is Sentinel else INVALID
        return value if path.declared is None else declared_value(value, path, tag)


def declared_value(value: Value, path: Path, tag: str | None) -> Value:
    """Return `value`, or INVALID where the type that is declared for it under `tag` says otherwise."""
    assert path.declared is not None
    declared = path.declared.get(tag) if tag in path.declared else path.declared.get(None)
    if declared is None or type(value) is Sentinel or conforms(value, declared):
        return value
    return INVALID


def _hop_value(hop: Delegation) -> Value:
    known = {"to": hop.to, "actions": hop.actions, "purpose": freeze(hop.purpose), "expires": freeze(hop.expires)}
    return Record(None, known)


def _session_value(facts: SessionFacts | Sentinel | None) -> Value:
    if type(facts) is not SessionFacts:
        return UNKNOWN if facts is UNKNOWN else ABSENT
    marks: Value = UNKNOWN if facts.marks is UNKNOWN else Unordered(sorted(facts.marks))
    known = {"id": facts.id, "started": freeze(facts.started), "marks": marks}
    return Record(field_reader(facts.attributes), known)
