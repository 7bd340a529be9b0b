"""Offer a token service with its clients, targets and policy, the tokens that are exchanged at it, and its records."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Mapping
from typing import Any

import pytest

from agentauthz import Authorizer, PolicySet
from agentauthz.errors import ExchangeRefused
from agentauthz.keys.base64url import from_base64url
from agentauthz.keys.signing import KeyRing, SigningKey
from agentauthz.records import DecisionRecord, MemorySink
from agentauthz.sts.ceilings import StsLimits, Target
from agentauthz.sts.clients import Client, Clients, new_secret
from agentauthz.sts.details import within_common_fields
from agentauthz.sts.issued import Issued
from agentauthz.sts.service import SecurityTokenService
from agentauthz.tokens import jws
from agentauthz.tokens.issuers import TrustedIssuer
from agentauthz.tokens.once import MemoryOnce
from agentauthz.tokens.strict import json_object
from agentauthz.tokens.types import ACCESS_TOKEN, ID_JAG, ID_TOKEN, JWT, JWT_BEARER, TOKEN_EXCHANGE, TXN_TOKEN
from agentauthz.tokens.validator import Validator
from agentauthz.tokens.verified import TokenKind
from tests.support import NOON, Clock

STS = "https://sts.example"
IDP = "https://idp.example"  # another issuer, trusted, whose subjects are foreign
EVIL = "https://evil.test"
ENDPOINT = f"{STS}/token"
PAY = "https://pay.example/api"
DOCS = "docs"
PARTNER = "https://partner.example"  # another authorization server, which takes ID-JAGs
DOMAIN = "https://domain.example"  # a trust domain, of transaction tokens

KEYS = {name: SigningKey.generate(key_id=name) for name in (STS, IDP, EVIL)}
KINDS: tuple[TokenKind, ...] = ("access", "id", "jwt", "id-jag", "txn")
ERRORS = frozenset(  # RFC 6749 §5.2, RFC 8693 §2.2.2, RFC 8707 §2, RFC 9396 §5, RFC 9449 §5: nothing else is answered
    {
        "invalid_request", "invalid_target", "invalid_scope", "invalid_client", "unauthorized_client", "invalid_grant",
        "unsupported_grant_type", "invalid_authorization_details", "invalid_dpop_proof", "use_dpop_nonce",
        "server_error", "temporarily_unavailable",
    }
)  # fmt: skip
HEADER_TYPES = {
    ACCESS_TOKEN: "at+jwt", ID_TOKEN: "JWT", JWT: "JWT", ID_JAG: "oauth-id-jag+jwt", TXN_TOKEN: "txntoken+jwt",
}  # fmt: skip

POLICY = """
permit exchanging on token.exchange
  when actor is agent or actor is service
permit impersonating on token.impersonate
  when actor == agent("desk", issuer: "https://sts.example")
forbid never_payroll on token.exchange, token.impersonate
  when "payroll" in args.scope
forbid refused_agent on token.exchange
  when actor == agent("refused", issuer: "https://sts.example")
"""

SCOPES = ("pay", "read", "write", "payroll")
EVERYTHING = {
    "scopes": SCOPES, "audiences": (DOCS, "helper", "mail", PARTNER, DOMAIN), "resources": (PAY,),
    "detail_types": ("payment",), "id_token_scopes": ("read", "pay"),
}  # fmt: skip
TARGETS = (
    Target(PAY, by="resource", scopes=SCOPES, detail_types=("payment",)),
    Target(DOCS, scopes=("read", "write", "payroll"), detail_types=("payment",)),
    Target("helper", scopes=SCOPES, detail_types=("payment",)),
    Target("hidden", scopes=SCOPES),
    Target("mail", scopes=SCOPES, reached_from=(DOCS,)),
    Target(PARTNER, scopes=("read",), token_types=(ID_JAG,), client_ids={"orchestrator": "orch-at-partner"}),
    Target(DOMAIN, scopes=SCOPES, token_types=(TXN_TOKEN,)),
)


def client(name: str, **options: Any) -> Client:
    return Client(name, **{"secret": new_secret(), "client_ids": {IDP: f"{name}-at-idp"}, **EVERYTHING, **options})


ORCHESTRATOR = client(
    "orchestrator", serves=("https://orchestrator.example",), grant_types=(TOKEN_EXCHANGE, JWT_BEARER)
)
HELPER = client("helper")
DESK = client("desk", may_impersonate=True)
STRANGER = client("stranger")
REFUSED = client("refused")


class Service:
    """Be a token service on a clock that stands still, with what it recorded."""

    def __init__(
        self,
        policy: str = POLICY,
        *,
        limits: Mapping[str, Any] | None = None,
        obligations: Mapping[str, Any] = {},
        **options: Any,
    ) -> None:
        self.clock = Clock()
        self.sink = MemorySink()
        self.authorizer = Authorizer(
            PolicySet.parse(policy), sinks=[self.sink], clock=self.clock, obligations=obligations
        )
        self.validator = validator(self.clock)
        verifiers = dict.fromkeys((ACCESS_TOKEN, ID_TOKEN, JWT, ID_JAG, TXN_TOKEN), self.validator)
        settings: dict[str, Any] = {
            "targets": TARGETS, "replay": MemoryOnce(clock=self.clock), "limits": StsLimits(**(limits or {})),
            "comparators": {"payment": within_common_fields}, **options,
        }  # fmt: skip
        clients = settings.pop("clients", Clients([ORCHESTRATOR, HELPER, DESK, STRANGER, REFUSED]))
        self.service = SecurityTokenService(
            STS,
            settings.pop("signer", KEYS[STS]),
            settings.pop("verifiers", verifiers),
            clients,
            self.authorizer,
            **settings,
        )

    def exchange(self, asker: Client = ORCHESTRATOR, /, **parameters: Any) -> Issued:
        """Exchange with parameters given by name; those with lists are sent several times, None isn't sent."""
        more = {name: parameters.pop(name) for name in ("dpop", "peer_cert", "uri") if name in parameters}
        return self.service.exchange(pairs(**parameters), asker, **more)

    @property
    def records(self) -> list[DecisionRecord]:
        return list(self.sink.decisions)


def validator(clock: Clock, **options: Any) -> Validator:
    """Return what verifies the tokens of both trusted issuers."""
    issuers = [
        TrustedIssuer(
            name, KeyRing(KEYS[name]).key_set(), [PAY, DOCS, "helper"], token_kinds=KINDS, actor_issuers=(STS, IDP)
        )
        for name in (STS, IDP)
    ]
    return Validator(issuers, clock=clock, **options)


def pairs(**parameters: Any) -> list[tuple[str, str]]:
    """Return the parameters of an exchange; `subject_token` has its type, unless that is given."""
    given: dict[str, Any] = {"grant_type": TOKEN_EXCHANGE, **parameters}
    if "subject_token" in given:
        given.setdefault("subject_token_type", ACCESS_TOKEN)
    if "actor_token" in given:
        given.setdefault("actor_token_type", ACCESS_TOKEN)
    return [
        (name, one)
        for name, value in given.items()
        for one in (value if isinstance(value, list | tuple) else [value])
        if one is not None
    ]


def token(type_uri: str = ACCESS_TOKEN, /, *, key: SigningKey | None = None, **claims: Any) -> str:
    """Return a token of Alice's for the orchestrator; a claim given as None is left out."""
    now = int(NOON.timestamp())
    made: dict[str, Any] = {
        "iss": STS, "sub": "alice", "aud": "orchestrator", "iat": now - 5, "exp": now + 3600,
        "jti": secrets.token_hex(8), "client_id": "front-end", "scope": "read write pay", **claims,
    }  # fmt: skip
    if type_uri == ID_TOKEN:
        made = {name: value for name, value in made.items() if name not in ("client_id", "scope") or name in claims}
    if type_uri == TXN_TOKEN:
        made.setdefault("txn", "txn-1")
    kept = {name: value for name, value in made.items() if value is not None}
    return jws.make(kept, key or KEYS[made["iss"]], typ=HEADER_TYPES[type_uri])


def actor_token(name: str = "orchestrator", /, **claims: Any) -> str:
    """Return a token that a client got for itself."""
    return token(**{"sub": name, "client_id": name, "aud": STS, "scope": None, **claims})


def claims_of(issued: Issued | str) -> dict[str, Any]:
    """Return the claims of a token, unverified."""
    raw = issued if isinstance(issued, str) else issued.access_token
    payload = from_base64url(raw.split(".")[1])
    assert payload is not None
    return dict(json_object(payload))


def later(**duration: float) -> int:
    """Return a moment after noon, in seconds since 1970."""
    return int((NOON + dt.timedelta(**duration)).timestamp())


def refusal(service: Service, asker: Client = ORCHESTRATOR, /, **parameters: Any) -> tuple[str, str, int]:
    """Return the error, the recorded reason and the HTTP status of an exchange that must be refused.

    Exactly one record is left, a denial, and what is raised names it and tells nothing but the error.
    """
    before, effects = len(service.records), len(service.sink.effects)
    with pytest.raises(ExchangeRefused) as raised:
        service.exchange(asker, **parameters)
    refused = raised.value
    (record,) = service.records[before:]
    reason = record.reasons[0].code
    assert record.outcome == "deny"
    assert len(service.sink.effects) == effects
    assert refused.record_id == record.id
    assert str(refused) == f"no token is issued: {refused.error}"
    assert refused.error in ERRORS
    return refused.error, reason, refused.status


def granted(service: Service, asker: Client = ORCHESTRATOR, /, **parameters: Any) -> dict[str, Any]:
    """Return the claims of what an exchange issues; one record allows it, and one more says that it was done."""
    before = len(service.records)
    issued = service.exchange(asker, **parameters)
    (record,) = service.records[before:]
    assert (record.outcome, record.id) == ("allow", issued.record_id)
    effect = service.sink.effects[-1]
    assert (effect.of, effect.status, effect.action, effect.error_type) == (record.id, "done", record.action.name, None)
    return claims_of(issued)
