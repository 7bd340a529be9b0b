"""Make the record of a decision: everything is written out at once.

Nothing in a record is a live reference, so what the host changes later doesn't change it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

from agentauthz.canonical import quote
from agentauthz.decision import Decision
from agentauthz.keys import InstanceKey
from agentauthz.principals import Principal
from agentauthz.records import parts
from agentauthz.records.draft import NO_SECRETS, Draft
from agentauthz.records.lines import opening
from agentauthz.records.record import Cause, DecisionRecord
from agentauthz.records.redaction import Held
from agentauthz.records.secrets import Secrets
from agentauthz.request import Request, SessionFacts
from agentauthz.values import Value


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
    draft = Draft(key, Secrets(sensitive, args, held) if sensitive or held is not None else NO_SECRETS, held)
    inputs, named = parts.inputs(draft, seen, {"args": args, "context": request.context}), draft.named
    facts, purpose, route = request.session, request.purpose, request.route
    draft.parts = [
        opening("decision", id, ts),
        f',"outcome":"{decision.outcome.value}","basis":"{decision.basis.value}","mode":{quote(mode)}',
        ',"enforced":true' if decision.enforced else ',"enforced":false',
        "" if cause is None else f',"cause":"{cause}"',
        f',"policy":{{"digest":{quote(decision.policy_digest)}',
        "" if policy_set is None else f',"set":{quote(policy_set)}',
        "}" if policy_version is None else f',"version":{quote(policy_version)}}}',
        parts.action(draft, decision.action, args),
        parts.resource(draft, request.resource),
        request.chain._written or parts.chain(draft, request.chain),
        named("session", facts.id if type(facts) is SessionFacts else None),
        parts.bounds(draft, facts) if type(facts) is SessionFacts else "",
        named("purpose", purpose if isinstance(purpose, str) else None),
        named("route", route if isinstance(route, str) else None),
        parts.grounds(draft, decision),
        parts.duties(draft, decision.obligations, left) if decision.obligations else "",
        parts.budgets(draft, decision.budgets, sealed, veiled) if decision.budgets else "",
        "" if approval is None else f',"approval":{quote(approval)}',
        parts.consents(draft, consents) if consents else "",
        inputs,
        "" if explain is None else parts.explanation(draft, explain),
        ctx,
    ]
    line = draft.line()
    if draft.sealing is not None:
        draft.sealing.keep()
    return DecisionRecord.of_line(line, decision.outcome.value)
