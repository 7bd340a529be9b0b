"""Exchange tokens at a token endpoint (RFC 8693), authenticated, bound to a key, and held to what was asked."""

from __future__ import annotations

import re
from typing import Final, Protocol, final
from urllib.parse import urlencode

from attrs import evolve

from agentauthz.errors import ExchangeDenied, ExchangeProtocolError, InvalidArgument, TokenError
from agentauthz.principals import Principal
from agentauthz.tokens.answer import ExchangedToken, parse_response, within_details
from agentauthz.tokens.client_auth import ClientAuth, Credentials
from agentauthz.tokens.dpop import DpopKey
from agentauthz.tokens.exchange import AnyRequest, JwtBearerRequest, TokenExchangeRequest
from agentauthz.tokens.transport import (
    AsyncTransport,
    HttpRequest,
    HttpResponse,
    HttpxTransport,
    Transport,
    check_transport,
    no_answer,
)
from agentauthz.tokens.types import KINDS
from agentauthz.tokens.verified import TokenKind, VerifiedToken
from agentauthz.urls import checked_url

_NONCE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,512}")  # RFC 9449 §8.1


class Verifier(Protocol):
    """Be what a `Validator` is to a client: it tells whether a token for somebody else is genuine."""

    def genuine(self, token: str, *, kind: TokenKind) -> VerifiedToken:
        """Return what a genuine token says, whoever it is for.

        Raises:
            TokenError: it isn't one.
        """

    async def agenuine(self, token: str, *, kind: TokenKind) -> VerifiedToken:
        """Do what `genuine` does without blocking the loop."""


@final
class TokenExchangeClient:
    """Ask one token endpoint for tokens: exchanges, and assertions redeemed. Safe for threads and loops.

    `transport` is for `exchange`, `async_transport` for `aexchange`; without either both go over httpx. With `dpop`
    each request proves that key, and the token must be bound to it. With `verify_with` the token must be genuine
    too, and say what was asked: at least the audience and resources, no other subject, the chain continued, no
    scope or detail more, and the key.

    Raises:
        InvalidArgument: an endpoint that isn't https, or http on loopback with `loopback_http`; httpx is missing; an
            argument that can't do its part.
    """

    def __init__(
        self,
        endpoint: str,
        auth: ClientAuth,
        *,
        transport: Transport | None = None,
        async_transport: AsyncTransport | None = None,
        dpop: DpopKey | None = None,
        verify_with: Verifier | None = None,
        loopback_http: bool = False,
    ) -> None:
        self.endpoint: Final = checked_url("endpoint", endpoint, loopback_http=loopback_http)
        if not callable(getattr(auth, "credentials", None)):
            raise InvalidArgument("auth", "must be a way to authenticate, such as `ClientSecretBasic`")
        _check_options(transport, async_transport, dpop, verify_with)
        if transport is None and async_transport is None:
            httpx = HttpxTransport(loopback_http=loopback_http)
            transport, async_transport = httpx, httpx.aio
        self._auth = auth
        self._transport = transport
        self._async_transport = async_transport
        self._dpop = dpop
        self._verifier = verify_with
        self._nonce: str | None = None  # the last one that the endpoint gave: RFC 9449 §8.2

    def exchange(self, request: AnyRequest) -> ExchangedToken:
        """Send a request and return the token.

        Raises:
            ExchangeDenied: the endpoint refused.
            ExchangeProtocolError: it can't be reached, or its answer isn't one that may be relied on.
            InvalidArgument: `request` is no request.
        """
        _check_request(request)
        credentials = self._auth.credentials()
        response = self._send(self._http_request(request, credentials))
        if self._wants_nonce(response, request, credentials):
            credentials = self._auth.credentials()  # an assertion is good once
            response = self._send(self._http_request(request, credentials))
        token = self._read(response, request, credentials)
        if self._verifier is None:
            return token
        try:
            verified = self._verifier.genuine(token.access_token, kind=_kind(token))
        except TokenError as cause:
            raise _not_genuine(cause) from None
        return self._held_to(request, token, verified)

    async def aexchange(self, request: AnyRequest) -> ExchangedToken:
        """Do what `exchange` does without blocking the loop."""
        _check_request(request)
        credentials = self._auth.credentials()
        response = await self._asend(self._http_request(request, credentials))
        if self._wants_nonce(response, request, credentials):
            credentials = self._auth.credentials()
            response = await self._asend(self._http_request(request, credentials))
        token = self._read(response, request, credentials)
        if self._verifier is None:
            return token
        try:
            verified = await self._verifier.agenuine(token.access_token, kind=_kind(token))
        except TokenError as cause:
            raise _not_genuine(cause) from None
        return self._held_to(request, token, verified)

    def _http_request(self, request: AnyRequest, credentials: Credentials) -> HttpRequest:
        proof = () if self._dpop is None else (("DPoP", self._dpop.proof("POST", self.endpoint, nonce=self._nonce)),)
        headers = (
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Accept", "application/json"),
            *credentials.headers,
            *proof,
        )
        body = urlencode([*request.build(), *credentials.fields]).encode("ascii")
        return HttpRequest("POST", self.endpoint, headers, body)

    def _send(self, request: HttpRequest) -> HttpResponse:
        if self._transport is None:
            raise InvalidArgument("transport", "must be given too for calls that don't await")
        try:
            return self._remembered(self._transport(request))
        except Exception as cause:  # its text may quote what was sent, so it isn't the context of what is raised
            failed = no_answer("the token endpoint", cause)
        raise failed

    async def _asend(self, request: HttpRequest) -> HttpResponse:
        if self._async_transport is None:
            raise InvalidArgument("async_transport", "must be given too for calls that await")
        try:
            return self._remembered(await self._async_transport(request))
        except Exception as cause:
            failed = no_answer("the token endpoint", cause)
        raise failed

    def _remembered(self, response: HttpResponse) -> HttpResponse:
        self._nonce = _nonce_of(response) or self._nonce
        return response

    def _wants_nonce(self, response: HttpResponse, request: AnyRequest, credentials: Credentials) -> bool:
        """Say whether an answer refuses for the lack of a nonce, and brings one (RFC 9449 §8)."""
        if self._dpop is None or _nonce_of(response) is None:
            return False
        try:
            self._read(response, request, credentials)
        except ExchangeDenied as denied:
            return denied.error == "use_dpop_nonce"
        except ExchangeProtocolError:
            pass  # raised where the answer is read for its token
        return False

    def _read(self, response: HttpResponse, request: AnyRequest, credentials: Credentials) -> ExchangedToken:
        return parse_response(
            response.status,
            response.headers,
            response.body,
            request,
            dpop=self._dpop is not None,
            secrets=credentials.secrets,
        )

    def _held_to(self, request: AnyRequest, token: ExchangedToken, verified: VerifiedToken) -> ExchangedToken:
        jkt = verified.confirmation.jkt if verified.confirmation is not None else None
        ours = self._dpop.thumbprint if self._dpop is not None else None
        if jkt != ours and (jkt is not None or token.token_type == "DPoP"):  # noqa: S105  (a type, no secret)
            raise ExchangeProtocolError("binding", "the issued token is bound to another key, or to none")
        _check_reach(request, token, verified)
        _check_parties(request, verified)
        return evolve(token, verified=verified)


def _check_options(transport: object, async_transport: object, dpop: object, verifier: object) -> None:
    """Refuse what would fail only once a token was asked for, or issued."""
    if transport is not None:
        check_transport("transport", transport, awaited=False)
    if async_transport is not None:
        check_transport("async_transport", async_transport, awaited=True)
    if dpop is not None and type(dpop) is not DpopKey:
        raise InvalidArgument("dpop", "must be a DpopKey")
    if verifier is not None and not all(callable(getattr(verifier, name, None)) for name in ("genuine", "agenuine")):
        raise InvalidArgument("verify_with", "must be what tells whether a token is genuine, such as a Validator")


def _check_request(request: object) -> None:
    if type(request) not in (TokenExchangeRequest, JwtBearerRequest):
        raise InvalidArgument("request", "must be a TokenExchangeRequest or a JwtBearerRequest")


def _nonce_of(response: HttpResponse) -> str | None:
    nonce = response.header("dpop-nonce")
    return nonce if nonce is not None and _NONCE.fullmatch(nonce) is not None else None


def _kind(token: ExchangedToken) -> TokenKind:
    kind = KINDS.get(token.issued_token_type)
    if kind is None:
        raise ExchangeProtocolError("unverifiable", "the issued token is of a type that can't be verified")
    return kind


def _check_reach(request: AnyRequest, token: ExchangedToken, verified: VerifiedToken) -> None:
    """Hold where a token is good for, and for what, against what was asked."""
    asked = {*request.resource, *(() if isinstance(request, JwtBearerRequest) else request.audience)}
    if not asked <= {*verified.audience, *_resources(verified)}:
        raise ExchangeProtocolError("audience", "the issued token isn't for every audience and resource asked for")
    if token.scope is not None and not set(verified.scopes or ()) <= set(token.scope):
        raise ExchangeProtocolError("wider_scope", "the issued token has a scope that nobody asked for")
    details = request.authorization_details
    if details is not None and not within_details(verified.authorization_details, details):
        raise ExchangeProtocolError("wider_details", "the issued token has details that nobody asked for")


def _resources(verified: VerifiedToken) -> tuple[str, ...]:
    """Return what an ID-JAG names as `resource`: its audience is the server that redeems it."""
    found = verified.claims.get("resource") if verified.kind == "id-jag" else None
    return tuple(one for one in (found if isinstance(found, list | tuple) else [found]) if isinstance(one, str))


def _check_parties(request: AnyRequest, verified: VerifiedToken) -> None:
    """Hold who a token speaks of against the tokens that it was made from, as far as those are known.

    Another issuer may name the subject otherwise, but no actor: those come with their issuer (RFC 8693 §4.1).
    """
    source = request.assertion if isinstance(request, JwtBearerRequest) else request.subject_token
    hops = [_pair(hop.to) for hop in verified.chain.delegations]
    if isinstance(source, VerifiedToken):
        if source.issuer == verified.issuer and _pair(source.subject) != _pair(verified.subject):
            raise ExchangeProtocolError("subject", "the issued token is of another subject than the one exchanged")
        known = [_pair(hop.to) for hop in source.chain.delegations]
        if hops[: len(known)] != known:
            raise ExchangeProtocolError("chain", "the issued token leaves out an actor of the one exchanged")
    actor = None if isinstance(request, JwtBearerRequest) else request.actor_token
    if actor is not None and not hops:
        raise ExchangeProtocolError("chain", "the issued token doesn't show that an actor uses it")
    if isinstance(actor, VerifiedToken) and hops[-1] != _pair(actor.subject):
        raise ExchangeProtocolError("actor", "the issued token shows another actor than the one that asked")


def _pair(principal: Principal) -> tuple[str | None, str]:
    return (principal.issuer, principal.id)


def _not_genuine(cause: TokenError) -> ExchangeProtocolError:
    return ExchangeProtocolError(cause.reason, "the issued token is not one that may be relied on")
