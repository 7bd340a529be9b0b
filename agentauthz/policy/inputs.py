"""Hold what an expression sees: the inputs of one judged call, frozen when they are first read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Final, cast, final

from agentauthz.policy.builtins import Answer
from agentauthz.policy.syntax import Path
from agentauthz.policy.types import conforms
from agentauthz.principals import Chain, Delegation, Principal
from agentauthz.request import Request, Resource, SessionFacts
from agentauthz.values import (
    ABSENT,
    INVALID,
    UNKNOWN,
    Entity,
    Record,
    Sentinel,
    Unordered,
    Value,
    freeze,
    reader_of,
    reading,
    record_of,
)


@final
class Inputs:
    """Be what one judged call sees: the roots of the language, each a policy value or a sentinel.

    Each root is made, and kept, when it is first asked for; all who are judged for one call share them.
    `hops` is the chain as a list of records. `permitted_by` judges another principal's own call, and is
    None inside `permitted(…)`, where `permitted` is false.
    """

    __slots__ = (
        "_origin", "_permitted", "action", "actor", "approver", "args", "chain", "context", "delegations",
        "hops", "name", "now", "permitted_by", "purpose", "request", "resource", "route", "session", "subject",
    )  # fmt: skip

    action: Value
    approver: Value
    args: Value
    chain: Value
    context: Value
    hops: Value
    now: Value
    purpose: Value
    resource: Value
    route: Value
    session: Value

    def __init__(
        self,
        request: Request,
        chain: Chain,
        permitted_by: Callable[[Inputs], Answer] | None = None,
        origin: Inputs | None = None,
    ) -> None:
        """Hold `request`'s roots, or share those of `origin`, which may be of another action."""
        self.request = request
        self.delegations = chain
        self.subject = chain.subject
        self.actor = chain.actor
        self.permitted_by = permitted_by
        self._origin = origin
        self._permitted: dict[str, Answer] | None = None
        if origin is None:
            self.name = request.action
            # nearly every rule reads these two, and finding an empty slot first costs as much again
            self.args = _unknown() if request.args is UNKNOWN else record_of(request.args)
            resource = request.resource  # a `Resource` needs no search for what it is
            if type(resource) is Resource:
                self.resource = resource.__agentauthz_value__()
            else:
                self.resource = ABSENT if resource is None else freeze(resource)
        else:
            self.name = origin.name

    def __getattr__(self, root: str) -> Value:
        # called only for a slot that isn't filled yet
        value: Value
        if root == "chain":
            value = Record({"depth": self.delegations.depth})
        elif root == "hops":
            value = tuple(map(_hop_value, self.delegations.delegations))
        elif self._origin is not None:
            value = getattr(self._origin, root)
        else:
            value = _ROOTS[root](self.request)
        setattr(self, root, value)
        return value

    def through(self, chain: Chain) -> Inputs:
        """Return the same call as if `chain`'s actor made it in its place; what was read stays shared."""
        return Inputs(self.request, chain, self.permitted_by, self)

    def asking(self, action: str, args: Mapping[str, object]) -> Inputs:
        """Return another action of the same session, purpose and context, on no resource."""
        made = Inputs(self.request, self.delegations, self.permitted_by, self)
        made.name, made.action, made.args, made.resource = (
            action, Record({"name": action}), record_of(args), ABSENT,
        )  # fmt: skip
        return made

    def approved_by(self, approver: Principal) -> Inputs:
        """Return the same call with somebody who consented to it, for `by` to ask about."""
        made = self.through(self.delegations)
        made.approver = approver
        return made

    def permitted(self, who: str) -> Answer:
        """Answer `permitted(subject)` or `permitted(actor)`; asked once per judged call."""
        known = self._permitted
        if known is None:
            known = self._permitted = {}
        if who not in known:
            known[who] = self._ask_permitted(who)
        return known[who]

    def _ask_permitted(self, who: str) -> Answer:
        if self.permitted_by is None:
            return False
        alone = Chain(self.subject if who == "subject" else self.actor)
        return self.permitted_by(Inputs(self.request, alone, None, self))

    def seen_within(self, state: str, action: str, duration: dt.timedelta) -> Answer:
        """Answer `began(action, duration)` and `done(action, duration)`; both ends count, this call doesn't."""
        facts = self.request.session
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


def _unknown() -> Record:
    return reading(lambda _: UNKNOWN)


_ROOTS: Final[Mapping[str, Callable[[Request], Value]]] = {
    "action": lambda request: Record({"name": request.action}),
    "approver": lambda _: UNKNOWN,
    "route": lambda request: freeze(request.route),
    "purpose": lambda request: freeze(request.purpose),
    "session": lambda request: _session_value(request.session),
    "context": lambda request: _unknown() if request.context is UNKNOWN else reading(reader_of(request.context)),
    "now": lambda request: freeze(request.now),
}


def _hop_value(hop: Delegation) -> Value:
    known = {"to": hop.to, "actions": hop.actions, "purpose": freeze(hop.purpose), "expires": freeze(hop.expires)}
    return Record(known)


def _session_value(facts: SessionFacts | Sentinel | None) -> Value:
    if type(facts) is not SessionFacts:
        return UNKNOWN if facts is UNKNOWN else ABSENT
    marks: Value = UNKNOWN if facts.marks is UNKNOWN else Unordered(sorted(facts.marks))
    known = {"id": facts.id, "started": freeze(facts.started), "marks": marks}
    return reading(reader_of(facts.attributes), known)
