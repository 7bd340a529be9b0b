"""Offer what tests of the exchange need: an endpoint that answers as it is told, and an issuer whose tokens verify."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from agentauthz.keys.signing import SigningKey
from agentauthz.tokens import jws
from agentauthz.tokens.issuers import TrustedIssuer
from agentauthz.tokens.transport import HttpRequest, HttpResponse
from agentauthz.tokens.types import ACCESS_TOKEN
from agentauthz.tokens.validator import Validator
from agentauthz.tokens.verified import TokenKind, VerifiedToken

ENDPOINT: Final = "https://as.example/token"
ISSUER: Final = "https://as.example"
KINDS: Final[Sequence[TokenKind]] = ("access", "id", "jwt", "id-jag", "txn")
TYP: Final = {"access": "at+jwt", "id": "JWT", "jwt": "JWT", "id-jag": "oauth-id-jag+jwt", "txn": "txntoken+jwt"}
JSON: Final = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))


def granted(**changes: object) -> dict[str, Any]:
    """Return the members of a good answer; a change to None leaves one out."""
    members = {
        "access_token": "opaque-token",
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 300,
        "scope": "docs.read",
        **changes,
    }
    return {name: value for name, value in members.items() if value is not None}


def answer(status: int = 200, headers: Iterable[tuple[str, str]] = (), **members: object) -> HttpResponse:
    """Return an answer in JSON."""
    return HttpResponse(status, (*JSON, *headers), json.dumps(members).encode())


class Endpoint:
    """Be a transport that gives the answers one after the other and keeps what was sent."""

    def __init__(self, *answers: HttpResponse | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[HttpRequest] = []

    def __call__(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def aio(self, request: HttpRequest) -> HttpResponse:
        return self(request)

    def fields(self, index: int = -1) -> list[tuple[str, str]]:
        return parse_qsl(self.requests[index].body.decode(), keep_blank_values=True, strict_parsing=True)

    def header(self, name: str, index: int = -1) -> str | None:
        return HttpResponse(0, self.requests[index].headers).header(name)


class Issuer:
    """Be an issuer: `token` signs claims, and `validator` trusts it."""

    def __init__(self, name: str = ISSUER) -> None:
        self.name = name
        self.key = SigningKey.generate()

    def token(self, kind: TokenKind = "access", **claims: Any) -> str:
        now = int(dt.datetime.now(dt.UTC).timestamp())
        usual = {"iss": self.name, "sub": "maria", "aud": "https://pay.example", "iat": now, "exp": now + 300}
        usual |= {"client_id": "bot", "jti": f"{len(claims)}-{now}", "scope": "docs.read"}
        members = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        return jws.make(members, self.key, typ=TYP[kind])

    def trusted(self) -> TrustedIssuer:
        others = ["https://other.example"]
        return TrustedIssuer(self.name, keys_of(self.key), token_kinds=KINDS, actor_issuers=others)

    def verified(self, kind: TokenKind = "access", **claims: Any) -> VerifiedToken:
        return validator(self).genuine(self.token(kind, **claims), kind=kind)


def validator(*issuers: Issuer) -> Validator:
    """Return a validator that trusts those issuers, for audiences of others."""
    return Validator([issuer.trusted() for issuer in issuers])


def keys_of(*keys: SigningKey) -> Any:
    from agentauthz.keys.jwk import KeySet

    return KeySet([key.public_key() for key in keys])
