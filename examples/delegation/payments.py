"""Run the payments service: it sees who asks for whom, through whom, and decides by that."""

from __future__ import annotations

import datetime as dt
import socket
from multiprocessing.synchronize import Barrier
from typing import Final

from serving import Json, serve
from world import World, begin

from agentauthz import Session, authorize
from agentauthz.errors import TokenError
from agentauthz.tokens.dpop import DpopVerifier
from agentauthz.tokens.introspection import Introspector
from agentauthz.tokens.once import MemoryOnce
from agentauthz.tokens.validator import Validator
from agentauthz.tokens.verified import VerifiedToken

NAME: Final = "payments"


@authorize("payments.send")
def send(payee: str, amount: int) -> str:
    """Pay."""
    return f"paid {amount} to {payee}"


def main(world: World, listener: socket.socket, ready: Barrier) -> None:
    """Serve payments on a socket."""
    issuer = world.token_service(NAME)
    introspector = Introspector(
        f"{world.addresses['token-service']}/introspect",
        issuer,
        auth=(NAME, world.secret(NAME)),
        cache_ttl=dt.timedelta(0),
        loopback_http=True,
    )

    def revoked(token: VerifiedToken) -> bool:
        """Ask the token service: a token ends when one that it came from was revoked."""
        try:
            introspector.claims(token.reveal())
        except TokenError as error:
            if error.reason == "inactive":
                return True
            raise  # not known, which counts as revoked
        return False

    def pay(session: Session, body: Json) -> Json:
        return {"result": send(**body)}

    validator = Validator([issuer], revocation=revoked, dpop=DpopVerifier(MemoryOnce()), require_actor=True)
    begin(ready)
    serve(world, NAME, "payments.send", listener, validator, world.authorizer(NAME), pay)
