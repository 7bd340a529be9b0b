"""Measure an exchange of tokens beside the verifications and the signature that it can't do without."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from typing import Final, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agentauthz import Authorizer, PolicySet
from agentauthz.sts import Client, Clients, SecurityTokenService, Target, new_secret
from agentauthz.tokens import ACCESS_TOKEN, KeyRing, SigningKey, TrustedIssuer, Validator
from agentauthz.tokens.jws import make
from agentauthz.tokens.types import TOKEN_EXCHANGE
from benchmarks.timing import Clock, Figure

ALLOWANCE: Final = 150e-6  # seconds beside the two verifications and the signature

_ISSUER: Final = "https://sts.example"
_CLIENT: Final = Client("planner", secret=new_secret(), scopes=["read", "pay"], audiences=["payments"])
_POLICY: Final = "permit agents_pass_on on token.exchange when subject is user and actor is agent"


def measured(clock: Clock) -> dict[str, Figure]:
    """Return the figures of an exchange with a subject's and an actor's token, and of what it is made of."""
    key = SigningKey.generate()
    public = cast(Ed25519PublicKey, key.public_key().key)
    text = b"x" * 700  # about what is signed of such a token
    signature = key.sign(text)
    logger = logging.getLogger("agentauthz.decisions")
    before, logger.disabled = logger.disabled, True
    try:
        return {
            "exchange": _alone(clock, "exchange", _exchange(key)),
            "verify": _alone(clock, "bare verification", lambda: public.verify(signature, text)),
            "sign": _alone(clock, "bare signature", lambda: key.sign(text)),
        }
    finally:
        logger.disabled = before


def bound(found: dict[str, Figure]) -> float:
    """Return how long an exchange may take at the most: two verifications, one signature, and 150 µs."""
    return 2 * found["verify"].best + found["sign"].best + ALLOWANCE


def _alone(clock: Clock, name: str, function: Callable[[], object]) -> Figure:
    return clock.calls(name, lambda _: function(), [None])


def _exchange(key: SigningKey) -> Callable[[], object]:
    trusted = Validator([TrustedIssuer(_ISSUER, KeyRing(key).key_set(), [_ISSUER])])
    service = SecurityTokenService(
        _ISSUER,
        key,
        {ACCESS_TOKEN: trusted},
        Clients([_CLIENT]),
        Authorizer(PolicySet.parse(_POLICY)),
        targets=[Target("payments", scopes=["read", "pay"])],
    )
    now = int(dt.datetime.now(dt.UTC).timestamp())
    times = {"iss": _ISSUER, "iat": now, "exp": now + 3600}
    subject = {**times, "sub": "maria", "aud": "planner", "client_id": "app", "scope": "read pay", "jti": "s"}
    actor = {**times, "sub": "planner", "aud": _ISSUER, "client_id": "planner", "jti": "a"}
    pairs = [
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", make(subject, key, typ="at+jwt")),
        ("subject_token_type", ACCESS_TOKEN),
        ("actor_token", make(actor, key, typ="at+jwt")),
        ("actor_token_type", ACCESS_TOKEN),
        ("audience", "payments"),
        ("scope", "read"),
    ]
    return lambda: service.exchange(pairs, _CLIENT)
