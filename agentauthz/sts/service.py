"""Hold `SecurityTokenService`: it exchanges a token for a narrower one, and every exchange is decided and recorded."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, cast, final
from urllib.parse import urlsplit

from attrs import evolve

from agentauthz.authorizer import Authorizer
from agentauthz.calls import Stop
from agentauthz.decision import Outcome
from agentauthz.errors import ExchangeRefused, InvalidArgument, SinkError, TokenError
from agentauthz.keys.base64url import to_base64url
from agentauthz.keys.signing import KeyRing, Signer
from agentauthz.obligations.expiring import shortens_life
from agentauthz.principals import NOBODY, Chain, Principal
from agentauthz.records.passing import Passing
from agentauthz.request import Request
from agentauthz.sts.attempt import Attempt, recorded, request
from agentauthz.sts.ceilings import StsLimits, Target
from agentauthz.sts.clients import Client, Clients
from agentauthz.sts.details import Comparator
from agentauthz.sts.issued import Issued
from agentauthz.sts.minting import HEADER_TYPES, RESERVED, Grant, claims_of, payload_of
from agentauthz.sts.narrowing import (
    Targets,
    expiry,
    granted_details,
    granted_scopes,
    granted_targets,
    shortened,
)
from agentauthz.sts.parameters import Asked, asked, grant_type, parameters
from agentauthz.sts.parties import (
    Presenter,
    SubjectMapper,
    Subjects,
    actor_of,
    check_assertion,
    check_client,
    check_impersonation,
    check_may_act,
    check_presenter,
    delegated,
    refused,
)
from agentauthz.tokens import jws
from agentauthz.tokens.confirmation import certificate_thumbprint
from agentauthz.tokens.dpop import DpopVerifier
from agentauthz.tokens.issuers import MAX_LEEWAY
from agentauthz.tokens.once import Once
from agentauthz.tokens.revocation import Revocation, jti_hash, token_name
from agentauthz.tokens.strict import Json
from agentauthz.tokens.types import ACCESS_TOKEN, ID_JAG, JWT_BEARER, KINDS
from agentauthz.tokens.validator import Validator
from agentauthz.tokens.verified import Confirmation, VerifiedToken
from agentauthz.values import copy_plain, told_by

# adds claims to what is issued, given the subject's token and the client
Customise: TypeAlias = Callable[[VerifiedToken, Client], Mapping[str, object]]

MAX_UNIQUE: Final = 16  # bytes of a `jti`


@final
class SecurityTokenService:
    """Exchange tokens for narrower ones (RFC 8693), and redeem identity assertions (RFC 7523). Safe for threads.

    `issuer` is the URL that tokens name as `iss`. `verifiers` are by the URI of the type of token that each takes,
    and trust `issuer` itself where its own tokens are to be exchanged further. `targets` are all that tokens can be
    for. `revoked` is asked about each token; `replay` holds what may be used once, and is needed for ID-JAG and
    `single_use`. `dpop` checks proofs of keys. `subject_mapper` names another issuer's subjects as ours;
    `comparators` are by type of authorization details, and a type without one is refused. `customise` adds claims,
    never reserved ones; `transcribed` are the subject token's claims that go on. `clock` is the authorizer's where
    none is given, `entropy` returns so many random bytes.

    Raises:
        InvalidArgument: an issuer that is no https URL (http only on loopback), a verifier for a type that isn't
            known, two targets of one name, reserved claims to transcribe, or no `replay` for what counts once.
    """

    def __init__(
        self,
        issuer: str,
        signer: Signer | KeyRing,
        verifiers: Mapping[str, Validator],
        clients: Clients,
        authorizer: Authorizer,
        *,
        targets: Iterable[Target],
        limits: StsLimits | None = None,
        revoked: Revocation | None = None,
        replay: Once | None = None,
        dpop: DpopVerifier | None = None,
        subject_mapper: SubjectMapper | None = None,
        comparators: Mapping[str, Comparator] = MappingProxyType({}),
        customise: Customise | None = None,
        transcribed: Iterable[str] = ("auth_time", "acr", "amr"),
        clock: Callable[[], dt.datetime] | None = None,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.issuer: Final = _issuer(issuer)
        self.keys: Final = signer if isinstance(signer, KeyRing) else KeyRing(signer)
        self.clients: Final = clients
        self.targets: Final = tuple(targets)
        self.limits: Final = StsLimits() if limits is None else limits
        self._targets: Final[Targets] = {(target.by, target.name): target for target in self.targets}
        self.verifiers: Final = dict(verifiers)
        self._authorizer: Final = authorizer
        self.revoked: Final = revoked
        self._replay: Final = replay
        self.dpop: Final = dpop
        self._subjects: Final = Subjects(self.issuer, subject_mapper, self.limits.mapped_subjects)
        self._comparators: Final = dict(comparators)
        self._customise: Final = customise
        self._transcribed: Final = tuple(transcribed)
        self.clock: Final = authorizer.now if clock is None else clock
        self._entropy: Final = entropy
        self._check_settings()

    def _check_settings(self) -> None:
        if len(self._targets) != len(self.targets):
            raise InvalidArgument("targets", "must each have a name of their own")
        if not self.verifiers.keys() <= KINDS.keys():
            raise InvalidArgument("verifiers", "must be by the URI of a type of token that can be verified")
        if self._replay is None and (ID_JAG in self.verifiers or self.limits.single_use != {"id-jag"}):
            raise InvalidArgument("replay", "must be given for what counts once, as an ID-JAG does")
        if not RESERVED.isdisjoint(self._transcribed):
            raise InvalidArgument("transcribed", "must not have claims that are this service's own")

    def exchange(
        self,
        pairs: Iterable[tuple[str, str]],
        client: Client,
        *,
        dpop: str | Sequence[str] | None = None,
        method: str = "POST",
        uri: str | None = None,
        peer_cert: bytes | None = None,
    ) -> Issued:
        """Return a token for what the parameters `pairs` ask for, on behalf of an authenticated `client`.

        `dpop` are the values of the request's `DPoP` headers, `uri` is the token endpoint's, which the proof names;
        `peer_cert` is the certificate that the host verified on this connection. One decision is recorded, whatever
        comes of it, and then one delegation: passed on, before the token is handed out, or refused.

        Raises:
            ExchangeRefused: no token is issued; its `record_id` is that of the decision.
        """
        asker = Presenter(client, self.issuer, client.principal(self.issuer))
        try:
            attempt = Attempt(asker, told_by(self.clock))
        except Exception as cause:
            clock = ExchangeRefused("server_error", "clock", status=500)
            raise self.refused(clock, client=asker.principal) from cause
        try:
            given = parameters(pairs)
            check_client(client, grant_type(given))
            wanted = attempt.asked = asked(given)
            grant = self._granted(attempt, wanted, dpop, method, uri, peer_cert)
            # made before the decision, so that what fails in it is a refusal on the record
            claims = self._claims(attempt, grant)
            payload = payload_of(claims)
            return self._issue(attempt, grant, claims, payload)
        except ExchangeRefused as refusal:
            raise self._recorded(attempt, refusal) from refusal.__cause__
        except Exception as cause:  # a store or a hook, or a fault of our own: never a token
            raise self._recorded(attempt, ExchangeRefused("server_error", "failed", status=500)) from cause

    def refused(
        self, refusal: ExchangeRefused, *, client: Principal | None = None, action: str = "token.exchange"
    ) -> ExchangeRefused:
        """Record what was refused before an exchange began, such as a client that isn't known; return it.

        `client` is who asked, where that was proven; `action` what for, if not for an exchange.
        """
        return self._write(request(action, Chain(client or NOBODY), self._authorizer.now()), refusal)

    # ---- the pipeline; the first check that fails decides what is answered

    def _granted(
        self,
        attempt: Attempt,
        wanted: Asked,
        dpop: str | Sequence[str] | None,
        method: str,
        uri: str | None,
        peer_cert: bytes | None,
    ) -> Grant:
        """Return what is granted, if the policy agrees."""
        token = attempt.token = self._verified(wanted.subject_token, wanted.subject_type, "subject_token")
        if (proven := self._proven(dpop, method, uri, peer_cert)) is not None:
            attempt.presenter = evolve(attempt.presenter, proven=proven)
        (check_assertion if wanted.grant_type == JWT_BEARER else check_presenter)(token, attempt.presenter)
        actor_token = None
        if wanted.actor_token is not None and wanted.actor_type is not None:
            actor_token = self._verified(wanted.actor_token, wanted.actor_type, "actor_token")
        attempt.actor = actor_of(actor_token, attempt.presenter)
        if wanted.impersonate:
            check_impersonation(token, attempt.presenter.client)
        check_may_act(token, attempt.actor, attempt.presenter, required=self.limits.require_may_act)
        return self._narrowed(attempt, wanted, token, attempt.actor, actor_token)

    def _narrowed(
        self,
        attempt: Attempt,
        wanted: Asked,
        token: VerifiedToken,
        actor: Principal,
        actor_token: VerifiedToken | None,
    ) -> Grant:
        presenter = attempt.presenter
        subject = self._subject(token)
        targets = granted_targets(wanted, token, presenter, self._targets)
        scopes = granted_scopes(wanted, token, presenter, targets)
        details = granted_details(wanted, token, presenter, targets, self._comparators)
        chain = attempt.chain = delegated(token, subject, actor, presenter, self.limits.depth)
        most = [presenter.client.max_lifetime, *(target.max_lifetime for target in targets)]
        expires = expiry(attempt.now, (token, actor_token), self.limits, most)
        return Grant(wanted.issued_type, token, chain, actor, wanted.impersonate, targets, scopes, details, expires)

    def _verified(self, raw: str, type_uri: str, what: str) -> VerifiedToken:
        """Return a token, verified as what it was declared to be, that is not revoked (RFC 8693 §2.1)."""
        verifier = self.verifiers.get(type_uri)
        if verifier is None:
            raise refused(f"{what}_type")
        try:
            token = verifier.genuine(raw, kind=KINDS[type_uri])
        except TokenError as error:
            if error.reason.endswith("_unavailable"):
                raise ExchangeRefused("temporarily_unavailable", f"{what}_{error.reason}", status=503) from None
            raise refused(f"{what}_{error.reason}") from None
        if self.revoked is not None:
            self._check_standing(token, self.revoked, what)
        return token

    def _check_standing(self, token: VerifiedToken, revoked: Revocation, what: str) -> None:
        try:
            answer = revoked(token)
        except Exception as cause:
            raise ExchangeRefused("temporarily_unavailable", f"{what}_revocation", status=503) from cause
        if answer is True:
            raise refused(f"{what}_revoked")
        if answer is not False:
            raise ExchangeRefused("temporarily_unavailable", f"{what}_revocation", status=503)

    def _proven(
        self, dpop: str | Sequence[str] | None, method: str, uri: str | None, peer_cert: bytes | None
    ) -> Confirmation | None:
        """Return the keys that the request proves: a proof that can't be checked is refused, never ignored."""
        try:
            certificate = None if peer_cert is None else certificate_thumbprint(peer_cert)
        except InvalidArgument:
            raise refused("certificate") from None
        if not dpop:
            return None if certificate is None else Confirmation(None, certificate)
        if self.dpop is None:
            raise ExchangeRefused("invalid_dpop_proof", "dpop_unsupported")
        if uri is None:
            raise ExchangeRefused("server_error", "dpop_uri", status=500)
        try:
            return Confirmation(self.dpop.check(dpop, method=method, uri=uri), certificate)
        except TokenError as error:
            name = "use_dpop_nonce" if error.reason == "dpop_nonce" else "invalid_dpop_proof"
            raise ExchangeRefused(name, error.reason) from None

    def _subject(self, token: VerifiedToken) -> Principal:
        subject = self._subjects.named(token)
        if token.kind == "txn" and token.issuer != self.issuer:  # its subject would be another
            raise refused("transaction_issuer")
        return subject

    def _claims(self, attempt: Attempt, grant: Grant) -> dict[str, Json]:
        """Return the claims to sign."""
        extra: Mapping[str, object] = {}
        if self._customise is not None:
            try:
                extra = self._customise(_copied(grant.token), attempt.presenter.client)
            except Exception as cause:
                raise ExchangeRefused("server_error", "customise", status=500) from cause
        return claims_of(
            grant,
            attempt.presenter,
            issued_at=int(attempt.now.timestamp()),
            unique=to_base64url(self._entropy(MAX_UNIQUE)),
            transcribed=self._transcribed,
            extra=extra,
            lineage=self.limits.lineage,
        )

    def _used(self, attempt: Attempt, token: VerifiedToken) -> Stop | None:
        """Take a token that counts once; last of all, so that what is refused for another reason isn't used up."""
        try:
            self._use_up(token)
        except ExchangeRefused as refusal:
            attempt.refusal = refusal
            return recorded(attempt.answered(refusal))
        return None

    def _use_up(self, token: VerifiedToken) -> None:
        if token.kind not in self.limits.single_use:
            return
        try:
            first = self._replay is not None and self._replay.once(
                f"exchange:{token_name(token)}", token.expires_at + MAX_LEEWAY
            )
        except Exception as cause:
            raise ExchangeRefused("server_error", "replay", status=500) from cause
        if first is not True:
            raise refused("replayed")

    # ---- deciding, signing and recording

    def _issue(self, attempt: Attempt, grant: Grant, claims: Mapping[str, Json], payload: bytes) -> Issued:
        decision = attempt.decision = self._authorizer.decide_verified(
            attempt.granted(grant), carries_out=shortens_life, objects=partial(self._used, attempt, grant.token)
        )
        if attempt.refusal is not None:
            raise attempt.refusal
        unpermitted = refused(f"policy_{decision.basis.value}")
        if not decision.allowed:
            raise unpermitted
        with self._authorizer.performing(decision):
            if decision.outcome is not Outcome.ALLOW:  # SECURITY: what observe mode lets run is no token
                raise unpermitted
            expires = shortened(grant.expires, attempt.now, decision.obligations)
            if expires != grant.expires:
                payload = payload_of({**claims, "exp": expires})
            access_token = jws.signed(payload, self.keys.signer, typ=HEADER_TYPES[grant.issued_type])
            self._pass_on(attempt, attempt.passing(grant, jti_hash(self.issuer, str(claims["jti"])), expires))
        return Issued(
            access_token,
            grant.issued_type,
            _token_type(grant, attempt.presenter),
            int(expires - attempt.now.timestamp()),
            tuple(grant.scopes),
            grant.details,
            decision.record_id,
        )

    def _pass_on(self, attempt: Attempt, passing: Passing) -> None:
        """Record what is handed out next; what can't be recorded isn't."""
        try:
            self._authorizer.record_passing(passing, attempt.now)
        except SinkError as cause:
            raise ExchangeRefused("server_error", "not_recorded", status=500) from cause

    def _recorded(self, attempt: Attempt, refusal: ExchangeRefused) -> ExchangeRefused:
        """Record a refusal, unless the policy has decided, and return it as it is answered."""
        answer = attempt.answered(refusal)
        if attempt.decision is None:
            answer = self._write(attempt.refused(), answer)
        self._authorizer.record_passing(attempt.not_passed(answer), attempt.now)
        return answer

    def _write(self, of: Request, refusal: ExchangeRefused) -> ExchangeRefused:
        basis, reason = recorded(refusal)
        decision = self._authorizer.refuse(of, reason, basis=basis)
        return ExchangeRefused(refusal.error, refusal.reason, status=refusal.status, record_id=decision.record_id)

    def __repr__(self) -> str:
        return f"SecurityTokenService({self.issuer!r})"


def _copied(token: VerifiedToken) -> VerifiedToken:
    """Return a token of a hook's own: what it changes within isn't issued, nor kept by a validator's cache."""
    details = tuple(cast(Mapping[str, object], copy_plain(dict(one))) for one in token.authorization_details)
    claims = cast(Mapping[str, object], copy_plain(dict(token.claims)))
    return evolve(token, claims=claims, authorization_details=details)


def _issuer(issuer: str) -> str:
    parts = urlsplit(issuer) if isinstance(issuer, str) else None
    loopback = parts is not None and parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts is None or not parts.hostname or parts.query or parts.fragment:
        raise InvalidArgument("issuer", "must be a URL without query and fragment (RFC 8414 §2)")
    if parts.scheme != "https" and not (loopback and parts.scheme == "http"):
        raise InvalidArgument("issuer", "must be an https URL, or http on loopback")
    return issuer


def _token_type(grant: Grant, presenter: Presenter) -> Literal["Bearer", "DPoP", "N_A"]:
    if grant.issued_type != ACCESS_TOKEN:
        return "N_A"  # RFC 8693 §2.2.1: what is no access token is not presented as one
    bound = presenter.proven
    return "Bearer" if bound is None or bound.jkt is None else "DPoP"
