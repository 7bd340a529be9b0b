"""Make a session of what is asked for: who acts for whom, or what a verified token says, and within which bounds.

And find what a session remembers, by its id.
"""

from __future__ import annotations

import datetime as dt
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypedDict, cast, final

from attrs import evolve

from agentauthz.authorizer.in_force import InForce
from agentauthz.authorizer.memory import Memory
from agentauthz.calls import NOTHING, Deciding, Expiry, moment, own_names
from agentauthz.errors import InvalidArgument
from agentauthz.principals import Chain, Principal
from agentauthz.request import Request, SessionFacts
from agentauthz.session import Session, new_session_id
from agentauthz.state.store import StateStore
from agentauthz.values import field_reader

if TYPE_CHECKING:
    from agentauthz.approvals.review import Review
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


@final
class Sessions:
    """Make the sessions of `authorizer`, which share by their id what the store remembers of them."""

    def __init__(self, authorizer: Deciding, store: StateStore, in_force: InForce) -> None:
        self._authorizer: Final = authorizer
        self._store: Final = store
        self._in_force: Final = in_force
        self._memories: Final[weakref.WeakValueDictionary[str, Memory]] = weakref.WeakValueDictionary()
        self._lock: Final = threading.RLock()  # a signal's handler may ask for a session at any point

    def memory(self, id: str, started: dt.datetime, *, keep: bool) -> Memory:
        """Return what all handles on the session of an id share; `keep`: the host knows the id, and may resume it."""
        with self._lock:
            found = self._memories.get(id)
            if found is None or (keep and not found.keep):
                found = self._memories[id] = Memory(
                    self._store, lambda: self._in_force.both, id, started, keep=keep, before=found
                )
            return found

    def new(
        self,
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
        """Return a session of what is asked for; see `Authorizer.session`.

        Raises:
            InvalidArgument: as `Authorizer.session`.
        """
        if token is not None:
            if subject is not None or actor is not None or chain is not None:
                raise InvalidArgument("token", "says who acts for whom: leave out `subject`, `actor` and `chain`")
            chain = _chain_of(token)
        if chain is None and subject is None:
            raise InvalidArgument("subject", "must be given: whose authority does the session use")
        now = self._authorizer.now()
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
            self._authorizer, self.memory(own, now, keep=id is not None),
            checked.chain.by_hand() if token is None else checked.chain, id=own, token=token,
            purpose=cast(str | None, checked.purpose),
            expires=ends,
            attributes=own_names("attributes", attributes),
            context=own_names("context", context),
            route=cast(str | None, checked.route),
        )  # fmt: skip

    def reopened(self, review: Review) -> Session:
        """Return a handle on the session that a stored call was made in, as the call saw it."""
        request, facts = review.request, cast(SessionFacts, review.request.session)
        return Session(
            self._authorizer, self.memory(facts.id, facts.started, keep=True), request.chain, id=facts.id,
            purpose=cast("str | None", request.purpose), expires=facts.expires, attributes=facts.attributes,
            context=cast("Mapping[str, object]", request.context), route=cast("str | None", request.route),
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
