"""Run the payments service: it sees who asks for whom, through whom, and decides by that."""

from __future__ import annotations

import datetime as dt
import socket
from multiprocessing.synchronize import Barrier
from typing import Final

from serving import Json, serve
from world import HTTP, World

from agentauthz import Session, authorize
from agentauthz.tokens import DpopVerifier, Introspector, MemoryOnce, Validator

NAME: Final = "payments"


@authorize("payments.send")
def send(payee: str, amount: int) -> str:
    """Pay."""
    return f"paid {amount} to {payee}"


def main(world: World, listener: socket.socket, ready: Barrier) -> None:
    """Serve payments on a socket."""
    issuer = world.token_service(NAME)
    introspector = Introspector(  # a token ends when one that it came from was revoked: the token service knows
        f"{world.addresses['token-service']}/introspect",
        issuer,
        auth=(NAME, world.secret(NAME)),
        transport=HTTP,
        cache_ttl=dt.timedelta(0),
        loopback_http=True,
    )

    validator = Validator(
        [issuer], revocation=introspector.revoked, dpop=DpopVerifier(MemoryOnce()), require_actor=True
    )

    def pay(session: Session, body: Json) -> Json:
        return {"result": send(**body)}

    serve(world, NAME, "payments.send", listener, ready, validator, pay)
