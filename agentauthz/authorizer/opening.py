"""Make a session of what is asked for: who acts for whom, or what a verified token says, and within which bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypedDict, cast

from attrs import evolve

from agentauthz.authorizer.memory import Memory
from agentauthz.calls import NOTHING, Deciding, Expiry, moment, own_names
from agentauthz.errors import InvalidArgument
from agentauthz.principals import Chain, Principal
from agentauthz.request import Request
from agentauthz.session import Session, new_session_id
from agentauthz.values import field_reader

if TYPE_CHECKING:
    from agentauthz.tokens.verified import VerifiedToken


class Asked(TypedDict, total=False):
    """Be what a session may be asked for beside who acts for whom; see `Authorizer.session`."""

    id: str | None
    chain: Chain | None
    token: VerifiedToken | None
    purpose: str | None
    expires: Expiry | None
    attributes: Mapping[str, object]
    context: Mapping[str, object]
    route: str | None


def new_session(
    authorizer: Deciding,
    memory: Callable[..., Memory],
    subject: Principal | None,
    actor: Principal | None,
    *,
    id: str | None = None,
    chain: Chain | None = None,
    token: VerifiedToken | None = None,
    purpose: str | None = None,
    expires: Expiry | None = None,
    attributes: Mapping[str, object] = NOTHING,
    context: Mapping[str, object] = NOTHING,
    route: str | None = None,
) -> Session:
    """Return a session of `authorizer`; `memory` gives what the session of an id remembers. See `Authorizer.session`.

    Raises:
        InvalidArgument: as `Authorizer.session`.
    """
    if token is not None:
        if subject is not None or actor is not None or chain is not None:
            raise InvalidArgument("token", "says who acts for whom: leave out `subject`, `actor` and `chain`")
        chain = _chain_of(token)
    if chain is None and subject is None:
        raise InvalidArgument("subject", "must be given: whose authority does the session use")
    now = authorizer.now()
    # a request checks all of these; making one here reports a mistake now, not at the first call
    checked = Request(
        "session", subject=subject or cast(Chain, chain).subject, actor=actor, chain=chain, purpose=purpose,
        route=route, context=context, now=now,
    )  # fmt: skip
    if id is not None and (not isinstance(id, str) or not id):
        raise InvalidArgument("id", "must be a string that is not empty")
    if field_reader(attributes) is None:
        raise InvalidArgument("attributes", "must be a mapping of names to values")
    own = str.__str__(id) if id else new_session_id()
    ends = None if expires is None else moment(expires, now)
    if token is not None:
        ends = token.expires_at if ends is None else min(ends, token.expires_at)
    return Session(
        authorizer, memory(own, now, keep=id is not None),
        checked.chain.by_hand() if token is None else checked.chain, id=own, token=token,
        purpose=cast(str | None, checked.purpose),
        expires=ends,
        attributes=own_names("attributes", attributes),
        context=own_names("context", context),
        route=cast(str | None, checked.route),
    )  # fmt: skip


def _chain_of(token: VerifiedToken) -> Chain:
    """Return a token's chain with what its scopes cover as its last hop's actions."""
    from agentauthz.tokens.verified import VerifiedToken  # who has no token doesn't load what verifies them

    if type(token) is not VerifiedToken:
        raise InvalidArgument("token", "must be a VerifiedToken: what `validator.verify(…)` returns")
    if not token.admitted:
        raise InvalidArgument("token", "must come from `verify` or `authenticate`, which check that it is meant for us")
    if token.kind == "id-jag":
        raise InvalidArgument("token", "is an identity assertion, which permits nothing here: it must be redeemed")
    hops = token.chain.delegations
    return Chain(token.subject, (*hops[:-1], evolve(hops[-1], actions=token.actions))) if hops else token.chain
