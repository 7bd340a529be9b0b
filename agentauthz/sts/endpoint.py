"""Answer the requests of a token service, in whatever web framework they come: bytes in, bytes out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeAlias, final

from attrs import evolve

from agentauthz.errors import ExchangeRefused
from agentauthz.sts import answers
from agentauthz.sts.clients import Client
from agentauthz.sts.credentials import Pairs
from agentauthz.sts.forms import form_of, values
from agentauthz.sts.metadata import Addresses, metadata
from agentauthz.sts.service import SecurityTokenService
from agentauthz.sts.standing import MayRevoke, Revoke, Standing, issued_to
from agentauthz.tokens.revocation import RevokedTokens
from agentauthz.tokens.transport import Headers, HttpResponse
from agentauthz.tokens.types import ID_JAG

Form: TypeAlias = list[tuple[str, str]]
Work: TypeAlias = Callable[[Form, Client], HttpResponse]

LOGGER: Final = "agentauthz.sts"
EXCHANGE, INTROSPECT, REVOKE = "token.exchange", "token.introspect", "token.revoke"  # as what refusals are recorded


@final
class TokenEndpoint:
    """Be the HTTP side of a token service: `handle` for tokens, `introspect`, `revoke`, `jwks` and `metadata`.

    Each takes the method, the headers as they came, and the form: its bytes, or the pairs that a framework made of
    them, with those that come twice. `peer_cert` (DER or PEM) is the certificate that the TLS connection proved. An
    `HttpResponse` is returned whatever happens; write its status, its headers and its body out as they are.

    `base` is where clients reach the service, if not at its issuer's address; a proof of possession must name
    `base` + `/token`. `mutual_tls` says in the metadata that the host passes certificates on. `revoke` takes a token
    back; a service whose `revoked` is a `RevokedTokens` uses that. `may_revoke` says whether a client may revoke a
    token; by default its own.

    Raises:
        InvalidArgument: an issuer or base that isn't an https address (http only on loopback).
    """

    def __init__(
        self,
        service: SecurityTokenService,
        *,
        base: str | None = None,
        mutual_tls: bool = False,
        revoke: Revoke | None = None,
        may_revoke: MayRevoke = issued_to,
    ) -> None:
        if revoke is None and isinstance(service.revoked, RevokedTokens):
            revoke = service.revoked.revoke
        self.issuer: Final = service.issuer
        self.revokes: Final = revoke is not None
        self._service: Final = service
        self._addresses: Final = Addresses(issuer=service.issuer, base=base or service.issuer)
        self._mutual_tls: Final = mutual_tls
        self._standing: Final = Standing(
            service.issuer,
            service.keys,
            revocation=service.revoked,
            revoke=revoke,
            may_revoke=may_revoke,
            clock=service.clock,
        )

    def handle(
        self, method: str, headers: Pairs, body: bytes | Pairs, *, peer_cert: bytes | None = None
    ) -> HttpResponse:
        """Answer a request for a token: RFC 8693 §2.2, or RFC 7523 §2.1 with an identity assertion.

        Whatever comes of it is recorded, also where the client isn't known.
        """
        given = tuple(headers)
        proofs = values(given, "dpop")

        def exchanged(form: Form, client: Client) -> HttpResponse:
            issued = self._service.exchange(
                form, client, dpop=proofs, method=method, uri=self._addresses.at("/token"), peer_cert=peer_cert
            )
            return answers.answer(issued.body())

        found = self._answered(EXCHANGE, exchanged, method, given, body, peer_cert)
        return evolve(found, headers=(*found.headers, *self._nonce())) if proofs else found

    def introspect(
        self, method: str, headers: Pairs, body: bytes | Pairs, *, peer_cert: bytes | None = None
    ) -> HttpResponse:
        """Answer a resource server that asks about a token which it was given (RFC 7662).

        What is refused is recorded as `token.introspect`.
        """

        def described(form: Form, client: Client) -> HttpResponse:
            return answers.answer(self._standing.described(form, client))

        return self._answered(INTROSPECT, described, method, tuple(headers), body, peer_cert)

    def revoke(
        self, method: str, headers: Pairs, body: bytes | Pairs, *, peer_cert: bytes | None = None
    ) -> HttpResponse:
        """Answer a client that takes a token back (RFC 7009); what is refused is recorded as `token.revoke`."""

        def revoked(form: Form, client: Client) -> HttpResponse:
            self._standing.revoke(form, client)
            return answers.nothing()

        return self._answered(REVOKE, revoked, method, tuple(headers), body, peer_cert)

    def refuse(self, action: str, refused: ExchangeRefused, client: Client | None = None) -> HttpResponse:
        """Answer a request that isn't granted, and record it; `client` is who asked, where that was proven."""
        try:
            if refused.record_id is None:  # an exchange leaves a record of its own
                asker = None if client is None else client.principal(self.issuer)
                refused = self._service.refused(refused, client=asker, action=action)
        except Exception as cause:
            refused = _unforeseen(cause)
        return answers.error(refused)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the keys that the service's tokens are verified with (RFC 7517 §5)."""
        return self._service.keys.jwks()

    def metadata(self) -> dict[str, object]:
        """Return the service's metadata (RFC 8414 §2), to be served at `/.well-known/oauth-authorization-server`."""
        rules = self._service.clients.assertions
        return metadata(
            self._addresses,
            private_key_jwt=() if rules is None else rules.algorithms,
            mutual_tls=self._mutual_tls,
            dpop=() if self._service.dpop is None else self._service.dpop.algorithms,
            revocation=self.revokes,
            assertions=ID_JAG in self._service.verifiers,
        )

    def _answered(
        self,
        action: str,
        work: Work,
        method: str,
        headers: Headers,
        body: bytes | Pairs,
        peer_cert: bytes | None,
    ) -> HttpResponse:
        """Return what `work` makes of the form of an authenticated client; what is refused is recorded as `action`."""
        client: Client | None = None
        try:
            form, client = self._authenticated(method, headers, body, peer_cert)
            return work(form, client)
        except ExchangeRefused as refused:
            found = refused
        except Exception as cause:
            found = _unforeseen(cause)
        return self.refuse(action, found, client)

    def _authenticated(
        self, method: str, headers: Headers, body: bytes | Pairs, peer_cert: bytes | None
    ) -> tuple[Form, Client]:
        if method != "POST":  # RFC 6749 §3.2
            raise ExchangeRefused("invalid_request", "method", status=405)
        form = form_of(headers, body)
        client = self._service.clients.authenticate(form, headers, peer_cert)
        if client.public:
            raise ExchangeRefused("unauthorized_client", "client_public")
        return form, client

    def _nonce(self) -> Headers:
        """Return the header with the nonce for the client's next proof (RFC 9449 §8), where nonces are in use."""
        nonces = None if self._service.dpop is None else self._service.dpop.nonces
        try:
            return () if nonces is None else (("DPoP-Nonce", nonces.issue()),)
        except Exception as cause:  # a clock of the host's: the answer stands without it
            _unforeseen(cause)
            return ()


def _unforeseen(cause: Exception) -> ExchangeRefused:
    # SECURITY: the type alone; the text may hold what the request held
    logging.getLogger(LOGGER).error("a request failed with %s", type(cause).__qualname__)
    return ExchangeRefused("server_error", "unforeseen", status=500)
