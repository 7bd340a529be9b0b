"""Run the sub-agent: it pays, with a token that is good for nothing else and in nobody else's hands."""

from __future__ import annotations

import socket
from multiprocessing.synchronize import Barrier
from typing import Final

from serving import Json, call, serve
from world import World

from agentauthz import Session
from agentauthz.tokens import DpopKey, SigningKey, Validator

NAME: Final = "sub-agent"


def main(world: World, listener: socket.socket, ready: Barrier) -> None:
    """Serve the orchestrator's requests on a socket."""
    validator = Validator([world.token_service(NAME)], require_actor=True)
    key = DpopKey(SigningKey.generate("ES256"))  # its tokens are bound to it, and it never leaves this process
    client = world.token_client(NAME, dpop=key)

    def pay(session: Session, body: Json) -> Json:
        token = session.exchange(client, audience=["payments"], scope=["payments.send"])
        answer: Json = call(world.addresses["payments"], token, body, key).raise_for_status().json()
        return answer

    serve(world, NAME, "invoices.pay", listener, ready, validator, pay)
