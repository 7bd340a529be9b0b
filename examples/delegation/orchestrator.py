"""Run the orchestrator: it reads a person's invoice, and has the sub-agent pay it."""

from __future__ import annotations

import socket
from multiprocessing.synchronize import Barrier
from typing import Any, Final

from serving import Json, call, serve
from world import World

from agentauthz import Session, authorize
from agentauthz.tokens import Validator

NAME: Final = "orchestrator"
INVOICES: Final[dict[str, Json]] = {"2031": {"payee": "Harbour Rentals", "amount": 420}}


@authorize("invoices.read")
def read_invoice(number: str) -> dict[str, Any]:
    """Return who is to be paid how much."""
    return INVOICES[number]


def main(world: World, listener: socket.socket, ready: Barrier) -> None:
    """Serve people's requests on a socket."""
    validator = Validator([world.login(NAME)])
    client = world.token_client(NAME)

    def pay_invoice(session: Session, body: Json) -> Json:
        invoice = read_invoice(body["invoice"])
        token = session.exchange(client, audience=["sub-agent"], scope=["payments.read", "payments.send"])
        answer: Json = call(world.addresses["sub-agent"], token, invoice).raise_for_status().json()
        return answer

    serve(world, NAME, "invoices.pay", listener, ready, validator, pay_invoice)
