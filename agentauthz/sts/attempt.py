"""Hold one exchange on its way: what is known of it, what the policy is asked, and how its end is answered."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import final

from attrs import define

from agentauthz.calls import Stop
from agentauthz.decision import Basis, Decision, Reason
from agentauthz.errors import ExchangeRefused
from agentauthz.principals import MAX_DEPTH, Chain, Delegation, Principal
from agentauthz.records.passing import Passing
from agentauthz.request import Request
from agentauthz.sts.minting import Grant
from agentauthz.sts.parameters import Asked
from agentauthz.sts.parties import Presenter
from agentauthz.tokens.revocation import token_name
from agentauthz.tokens.types import JWT_BEARER, TXN_TOKEN
from agentauthz.tokens.verified import VerifiedToken, actions_of


@final
@define(eq=False, repr=False)
class Attempt:
    """Be one exchange, with what is verified so far; `decision` is the policy's, which has a record already.

    `refusal` is what kept that from allowing the exchange, where it wasn't the policy.
    """

    presenter: Presenter
    now: dt.datetime
    asked: Asked | None = None
    token: VerifiedToken | None = None
    actor: Principal | None = None
    chain: Chain | None = None  # of the result
    decision: Decision | None = None
    refusal: ExchangeRefused | None = None

    def granted(self, grant: Grant) -> Request:
        """Return what the policy is asked: may this be issued, for the result's chain."""
        arguments = _arguments(
            grant.names("audience"), grant.names("resource"), grant.scopes, grant.issued_type, grant.details
        )
        return request(_action(grant.impersonated), grant.chain, self.now, arguments)

    def refused(self) -> Request:
        """Return what is recorded where the policy isn't asked: what was wanted, by those that are verified."""
        wanted = self.asked
        if wanted is None:
            return request(_action(False), self._parties(), self.now)
        arguments = _arguments(
            wanted.audience, wanted.resource, wanted.scopes or (), wanted.issued_type, wanted.details or ()
        )
        return request(_action(wanted.impersonate), self._parties(), self.now, arguments)

    def answered(self, refusal: ExchangeRefused) -> ExchangeRefused:
        """Return a refusal with the error that its grant has for it, and the policy's record if it has decided.

        An assertion that isn't acceptable is `invalid_grant` (RFC 7523 §3.1); whatever is wrong with a replacement of
        a transaction token is the request's.
        """
        error, wanted = refusal.error, self.asked
        if wanted is not None and wanted.grant_type == JWT_BEARER and error == "invalid_request":
            error = "invalid_grant"
        if wanted is not None and wanted.subject_type == TXN_TOKEN and error in ("invalid_scope", "invalid_target"):
            error = "invalid_request"
        record_id = None if self.decision is None else self.decision.record_id
        return ExchangeRefused(error, refusal.reason, status=refusal.status, record_id=record_id)

    def passing(self, grant: Grant, issued: str, expires: int) -> Passing:
        """Return what is recorded before a token is handed out, whose name is `issued` and which ends at `expires`."""
        hops = grant.chain.delegations
        giver = grant.chain if grant.is_continuation else grant.chain.prefix(len(hops) - 1)
        ends = dt.datetime.fromtimestamp(expires, dt.UTC)
        hop = Delegation(grant.actor, actions_of(tuple(grant.scopes)), expires=ends, via="token")
        return Passing(
            "issue", giver, grant.actor, hop, grant.scopes, [target.name for target in grant.targets],
            token_name(grant.token), issued, cause=None if self.decision is None else self.decision.record_id,
        )  # fmt: skip

    def not_passed(self, refusal: ExchangeRefused) -> Passing:
        """Return what is recorded of a token that isn't issued, as far as it was verified whose it would be."""
        wanted, token, to = self.asked, self.token, self.actor or self.presenter.principal
        return Passing(
            "issue", Chain(to) if token is None else token.chain, to,
            scopes=() if wanted is None or wanted.scopes is None else tuple(wanted.scopes),
            audience=() if wanted is None else (*wanted.audience, *wanted.resource),
            token=None if token is None else token_name(token), reason=recorded(refusal)[1], cause=refusal.record_id,
        )  # fmt: skip

    def _parties(self) -> Chain:
        """Return the parties that are verified: the token's, and who asks or acts."""
        actor = self.actor or self.presenter.principal
        if self.chain is not None or self.token is None:
            return self.chain or Chain(actor)
        chain = self.token.chain
        known = actor == chain.actor or chain.depth == MAX_DEPTH
        return chain if known else Chain(chain.subject, (*chain.delegations, Delegation(actor, via="token")))


def recorded(refusal: ExchangeRefused) -> Stop:
    """Return the basis and the reason that the record of a refusal has."""
    basis = Basis.ERROR if refusal.status >= 500 else Basis.AUTHORITY
    return basis, Reason(refusal.reason, f"no token is issued: {refusal.error}")


def request(action: str, chain: Chain, now: dt.datetime, arguments: Mapping[str, object] | None = None) -> Request:
    """Return a request for the decision, or the record, of an exchange."""
    return Request.trusted(action, chain, arguments or {}, None, None, None, None, {}, now)


def _action(impersonated: bool) -> str:
    return "token.impersonate" if impersonated else "token.exchange"


def _arguments(
    audience: Iterable[str], resource: Iterable[str], scope: Iterable[str], type_uri: str, details: Iterable[object]
) -> dict[str, object]:
    return {
        "audience": list(audience),
        "resource": list(resource),
        "scope": list(scope),
        "requested_token_type": type_uri,
        "authorization_details": list(details),
    }
