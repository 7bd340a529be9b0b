"""Write the record of authority that is passed on: by whom, to whom, how much of it, or why not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import final

from attrs import field, frozen

from agentauthz.decision import Reason
from agentauthz.keys import InstanceKey
from agentauthz.principals import Chain, Delegation, Principal
from agentauthz.records import parts
from agentauthz.records.draft import MAX_INPUTS, NO_SECRETS, Draft
from agentauthz.records.lines import opening
from agentauthz.records.record import DelegationRecord, Fate, Kind


@final
@frozen
class Passing:
    """Be one attempt to pass authority on; `reason` None: it goes ahead.

    `chain` is that of who passes it on, `to` who gets it, and `hop` what of it was asked for, as far as they are known.
    `scopes` and `audience` are what a token that is asked for, or issued, is good for. `token` and `issued` name the
    token that the authority came by, and the one that is made; only keyed digests of these names are recorded.
    `cause` is the id of the record that led to it.
    """

    kind: Kind
    chain: Chain
    to: Principal | None = None
    hop: Delegation | None = None
    scopes: Sequence[str] = ()
    audience: Sequence[str] = ()
    token: str | None = field(default=None, repr=False)
    issued: str | None = field(default=None, repr=False)
    reason: Reason | None = None
    cause: str | None = None

    @property
    def outcome(self) -> Fate:
        """Return what the record says of it."""
        return "passed" if self.reason is None else "refused"


def delegation_record(
    passing: Passing, *, id: str, ts: dt.datetime, session: str | None, key: InstanceKey, ctx: str = ""
) -> DelegationRecord:
    """Return the record of an attempt to pass authority on; `ctx` is what `ctx_member` gives."""
    draft = Draft(key, NO_SECRETS, None)
    draft.parts = [
        opening("delegation", id, ts),
        passing.chain._written or parts.chain(draft, passing.chain),
        draft.named("session", session),
        f',"delegation":{{"kind":"{passing.kind}","outcome":"{passing.outcome}"',
        *_told(draft, passing),
        "}",
        ctx,
    ]
    return DelegationRecord.of_line(draft.line(), id, passing.outcome)


def _told(draft: Draft, passing: Passing) -> Iterator[str]:
    if passing.to is not None:
        yield f',"to":{parts.actor(draft, passing.to, "/delegation/to")}'
    if passing.hop is not None:
        yield f',"hop":{parts.hop(draft, passing.hop, "/delegation/hop")}'
    for name, texts in (("scopes", passing.scopes), ("audience", passing.audience)):
        if texts:
            yield f',"{name}":{draft.names(texts, f"/delegation/{name}", MAX_INPUTS)}'
    for name, token in (("token", passing.token), ("issued", passing.issued)):
        if token is not None:
            yield f',"{name}":"{draft.key.digest("token", token.encode("utf-8", "surrogatepass"))}"'
    if passing.reason is not None:
        yield f',"reason":{parts.reason(draft, passing.reason, "/delegation/reason")}'
