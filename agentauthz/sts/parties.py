"""Say who takes part in an exchange: who presents the token, for whom, and who acts from then on.

RFC 8693 §1.1, §2.1 and §4; a party is always the pair of its issuer and its name there, never a bare name.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, final

from attrs import frozen

from agentauthz.errors import ExchangeRefused
from agentauthz.principals import Chain, Delegation, Principal
from agentauthz.sts.clients import Client
from agentauthz.tokens.claims import MAX_MEMBER, may_act_allows
from agentauthz.tokens.verified import Confirmation, VerifiedToken

SubjectMapper: TypeAlias = Callable[[VerifiedToken], str | None]


def refused(reason: str) -> ExchangeRefused:
    """Return the refusal of a token that isn't acceptable (RFC 8693 §2.2.2: always `invalid_request`)."""
    return ExchangeRefused("invalid_request", reason)


@final
@frozen
class Presenter:
    """Be the client that asks, at the token service whose issuer is `service`, and the keys that it has proven.

    `principal` is who the client is as an actor.
    """

    client: Client
    service: str
    principal: Principal
    proven: Confirmation | None = None

    def confirmation_for(self, token: VerifiedToken) -> Confirmation | None:
        """Return the key that what is issued for `token` is bound to: a DPoP key rather than a certificate.

        The certificate that `token` was bound to stays beside it.
        """
        proven, before = self.proven, token.confirmation
        if proven is None or proven.jkt is None or (before is not None and before.x5t_s256 == proven.x5t_s256):
            return proven
        return Confirmation(proven.jkt)

    def name_at(self, issuer: str | None) -> str | None:
        """Return the client's name at an issuer; one that has the same name elsewhere may be someone else."""
        if issuer is None:
            return None
        if issuer in (self.service, self.client.issuer):
            return self.client.id
        return self.client.client_ids.get(issuer)

    def named_by(self, may_act: object) -> bool:
        """Say whether a `may_act` claim names the client, under whichever of its names."""
        issuer = may_act.get("iss") if isinstance(may_act, Mapping) else None
        name = self.name_at(issuer) if isinstance(issuer, str) else None
        return name is not None and may_act_allows(may_act, Principal(self.client.kind, name, issuer))

    def is_self(self, principal: Principal) -> bool:
        """Say whether a principal is the client, under whichever of its names."""
        return self.name_at(principal.issuer) == principal.id

    def owns(self, token: VerifiedToken) -> bool:
        """Say whether the token was issued to the client (`client_id`; `azp` where there is none)."""
        name = self.name_at(token.issuer)
        return name is not None and name == (token.client_id or token.claims.get("azp"))

    def receives(self, token: VerifiedToken) -> bool:
        """Say whether the token is meant for the client (`aud`)."""
        return self.name_at(token.issuer) in token.audience or not self.client.serves.isdisjoint(token.audience)

    def proves(self, token: VerifiedToken) -> bool:
        """Say whether the token is bound to keys, all of which the client has proven to hold."""
        bound, proven = token.confirmation, self.proven
        if bound is None or proven is None:
            return False
        return bound.jkt in (None, proven.jkt) and bound.x5t_s256 in (None, proven.x5t_s256)


def check_client(client: Client, grant: str) -> None:
    """Check that a client may ask for tokens by this grant type at all.

    Raises:
        ExchangeRefused: `client_public` or `client_grant`.
    """
    if client.public:  # RFC 8693 §2.1: whoever has a leaked token could exchange it
        raise ExchangeRefused("unauthorized_client", "client_public")
    if grant not in client.grant_types:
        raise ExchangeRefused("unauthorized_client", "client_grant")


def check_impersonation(token: VerifiedToken, client: Client) -> None:
    """Check that a token without actors may be issued to a client that asks for it, and loses none.

    Raises:
        ExchangeRefused: `act_dropped` or `impersonation`.
    """
    if token.chain.delegations:
        raise refused("act_dropped")
    if not client.may_impersonate:
        raise refused("impersonation")


def check_presenter(token: VerifiedToken, presenter: Presenter) -> None:
    """Check that the client may present a subject token: it is meant for it, was issued to it, or bound to its key.

    A bound token needs its key; only who it is meant for may have it bound to a key of its own instead.

    Raises:
        ExchangeRefused: `presenter`, `id_token_client`, `subject_unproven` or `unbinding`.
    """
    receives = presenter.receives(token)
    if token.kind == "id" and not (receives and token.claims.get("azp") in (None, presenter.name_at(token.issuer))):
        raise refused("id_token_client")  # OpenID Connect Core §3.1.3.7
    if not (receives or presenter.owns(token) or presenter.proves(token)):
        raise refused("presenter")
    if token.confirmation is None or presenter.proves(token):
        return
    if not receives:
        raise refused("subject_unproven")
    if presenter.proven is None and not presenter.client.may_unbind:
        raise refused("unbinding")


def check_assertion(token: VerifiedToken, presenter: Presenter) -> None:
    """Check that an ID-JAG is another server's, for this service alone, and for this client, which proves its key.

    Raises:
        ExchangeRefused: `assertion_audience`, `assertion_issuer`, `assertion_client` or `assertion_unproven`.
    """
    if token.audience != (presenter.service,):
        raise refused("assertion_audience")
    if token.issuer == presenter.service:
        raise refused("assertion_issuer")
    if token.client_id != presenter.client.id:  # the client's name here, not where the assertion was issued
        raise refused("assertion_client")
    if token.confirmation is not None and not presenter.proves(token):
        raise refused("assertion_unproven")


def actor_of(token: VerifiedToken | None, presenter: Presenter) -> Principal:
    """Return who acts: whom the actor token names, or the client where there is none.

    The actor token is the client's own: its subject, issued to it, or bound to its key. People don't act for
    others here, so that subject and actor can't be swapped.

    Raises:
        ExchangeRefused: `actor_token_act`, `actor_token_audience`, `actor_token_presenter`, `actor_unproven` or
            `actor_is_person`.
    """
    if token is None:
        return presenter.principal
    if "act" in token.claims:  # whose authority would it be? only the subject token's chain goes on
        raise refused("actor_token_act")
    if token.kind == "jwt" and presenter.service not in token.audience:
        raise refused("actor_token_audience")
    named = presenter.is_self(token.subject)
    if not (named or presenter.owns(token) or presenter.proves(token)):
        raise refused("actor_token_presenter")
    if token.confirmation is not None and not presenter.proves(token):
        raise refused("actor_unproven")
    if token.subject.kind == "user" and not named:
        raise refused("actor_is_person")
    return presenter.principal if named else token.subject


def check_may_act(token: VerifiedToken, actor: Principal, presenter: Presenter, *, required: bool) -> None:
    """Check that a `may_act` (RFC 8693 §4.4) that is there names the actor; the policy must agree in any case.

    Raises:
        ExchangeRefused: `may_act` or `may_act_missing`.
    """
    if "may_act" not in token.claims:
        if required:
            raise refused("may_act_missing")
        return
    may_act = token.claims["may_act"]
    if not (may_act_allows(may_act, actor) or (presenter.is_self(actor) and presenter.named_by(may_act))):
        raise refused("may_act")


def delegated(token: VerifiedToken, subject: Principal, actor: Principal, presenter: Presenter, depth: int) -> Chain:
    """Return the chain of the result: the token's with the actor as one more hop, or its last where it acts already.

    SECURITY: the last is the actor as it was verified here: a token may name it, and what it is, in another way, and
    the policy would judge that.

    Raises:
        ExchangeRefused: `actor_is_subject`, `cycle` (one that acted before acts again) or `depth`.
    """

    def acts(party: Principal) -> bool:
        if _pair(party) == _pair(actor):
            return True
        return presenter.is_self(actor) and presenter.is_self(party)

    hops = token.chain.delegations
    if acts(subject) or acts(token.subject):
        raise refused("actor_is_subject")
    before = hops[:-1] if hops and acts(hops[-1].to) else hops
    if any(acts(hop.to) for hop in before):
        raise refused("cycle")
    hops = (*before, Delegation(actor, via="token"))
    if len(hops) > depth:
        raise refused("depth")
    return Chain(subject, hops)


def _pair(principal: Principal) -> tuple[str | None, str]:
    return (principal.issuer, principal.id)


@final
class Subjects:
    """Name the subjects of tokens as this service's issuer knows them.

    Another issuer's subject needs `mapper`, which returns its name here, or None where it has none. What it returned
    is remembered for `most` subjects, so that it can't give one name to two of them.
    """

    def __init__(self, issuer: str, mapper: SubjectMapper | None, most: int) -> None:
        self._issuer: Final = issuer
        self._mapper: Final = mapper
        self._most: Final = most
        self._origins: Final[dict[bytes, bytes]] = {}
        self._lock: Final = threading.Lock()

    def named(self, token: VerifiedToken) -> Principal:
        """Return the subject of a token.

        Raises:
            ExchangeRefused: `subject_foreign`, `subject_unmapped` or `subject_collision`; `server_error` where the
                mapper fails, or the memory is full.
        """
        subject = token.subject
        if token.issuer == self._issuer:
            return subject
        if self._mapper is None:
            raise refused("subject_foreign")
        try:
            name = self._mapper(token)
        except Exception as cause:
            raise ExchangeRefused("server_error", "subject_mapper", status=500) from cause
        if name is None:
            raise refused("subject_unmapped")
        if not isinstance(name, str) or not 0 < len(name) <= MAX_MEMBER:
            raise ExchangeRefused("server_error", "subject_mapper", status=500)
        self._remember(name, f"{len(token.issuer)}:{token.issuer}{subject.id}")
        return Principal(subject.kind, name, self._issuer, subject.attributes)

    def _remember(self, name: str, origin: str) -> None:
        key, value = _digest(name), _digest(origin)
        with self._lock:
            if key not in self._origins and len(self._origins) >= self._most:
                raise ExchangeRefused("server_error", "subject_memory", status=500)
            if self._origins.setdefault(key, value) != value:
                raise refused("subject_collision")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
