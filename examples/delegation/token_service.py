"""Run the token service: it exchanges a token for the next hop's, which is narrower, if its policies agree."""

from __future__ import annotations

import datetime as dt
import json
import socket
from multiprocessing.synchronize import Barrier
from typing import Final

import uvicorn
from world import LOGIN, TOKENS, World, begin

from agentauthz.sts import (
    AssertionRules,
    Client,
    Clients,
    SecurityTokenService,
    StsLimits,
    Target,
    TokenApp,
    TokenEndpoint,
)
from agentauthz.tokens import (
    ACCESS_TOKEN,
    DpopVerifier,
    KeyRing,
    KeySet,
    MemoryOnce,
    RevokedTokens,
    RingKeys,
    TrustedIssuer,
    Validator,
)

NAME: Final = "token-service"
PAYING: Final = ("payments.read", "payments.send", "payments.refund")
TARGETS: Final = [  # what tokens can be for, and the most that they can be
    Target("sub-agent", scopes=PAYING, max_lifetime=dt.timedelta(minutes=5)),
    Target("payments", scopes=PAYING, max_lifetime=dt.timedelta(minutes=1)),
]


def clients(world: World, once: MemoryOnce) -> Clients:
    """Return who may ask: three agents, by their keys, and the payments service, which asks about tokens."""

    def agent(name: str, *audiences: str) -> Client:
        keys = KeySet.of_jwks(json.loads(world.public(name).read_bytes()))
        return Client(name, keys=keys, scopes=PAYING, audiences=audiences, serves=[name])

    return Clients(
        [
            agent("orchestrator", "sub-agent"),
            agent("sub-agent", "payments"),
            agent("newsletter", "sub-agent", "payments"),
            Client("payments", kind="service", secret=world.secret("payments"), grant_types=[], serves=["payments"]),
        ],
        AssertionRules([TOKENS], once),
    )


def main(world: World, listener: socket.socket, ready: Barrier) -> None:
    """Serve tokens on a socket."""
    ring, once, revoked = KeyRing(world.key(NAME)), MemoryOnce(), RevokedTokens()
    own = TrustedIssuer(TOKENS, RingKeys(ring))
    service = SecurityTokenService(
        TOKENS,
        ring,
        {ACCESS_TOKEN: Validator([own, world.login()])},
        clients(world, once),
        world.authorizer(NAME),
        targets=TARGETS,
        limits=StsLimits(depth=2),
        revoked=revoked,
        dpop=DpopVerifier(once),
        subject_mapper=lambda token: token.subject.id if token.issuer == LOGIN else None,
    )
    app = TokenApp(TokenEndpoint(service, base=world.addresses[NAME]))
    begin(ready)
    uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none")).run([listener])
