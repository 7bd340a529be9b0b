"""Be the tools of the desk's agents: ordinary functions, decided before they run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from decimal import Decimal
from itertools import count
from typing import cast

from shop import CUSTOMERS, ORDERS, TICKETS, Order

from agentauthz import authorize, current


@authorize("tickets.read")
def read_ticket(ticket: str) -> str:
    """Return what the customer has written."""
    return TICKETS[ticket].text


@authorize("kyc.check")
def check_identity(customer: str) -> str:
    """Ask the customer's bank whether it is them; here, it always says yes."""
    return f"{CUSTOMERS[customer].name} is who they say"


@authorize("customers.read")
def read_file(customer: str) -> dict[str, str]:
    """Return a customer's file."""
    return asdict(CUSTOMERS[customer])


def _order(order: str) -> Order:
    return ORDERS[order]


@authorize("payments.refund", resource=_order)
def refund(order: str, amount: Decimal) -> str:
    """Give money back for an order."""
    found = cast(Order, current().resource)  # the very object that was decided about
    found.refunded += amount
    return f"{amount} went back for {order}"


@authorize("mail.send", sensitive=["body"])  # rules see it, records don't show it
def send_mail(to: str, subject: str, body: str) -> str:
    """Write a mail."""
    return f"sent to {to}"


@authorize("web.fetch")
def fetch(url: str) -> str:
    """Return what is at an address; nothing really goes over the network here."""
    return "the parcel is on its way"


@authorize("archive.search")
def search_archive(words: str) -> Iterator[str]:
    """Yield what is found in old tickets, page by page. It never ends by itself."""
    for page in count(1):
        yield f"page {page}"
        time.sleep(0.05)


TOOLS = (read_ticket, check_identity, read_file, refund, send_mail, fetch, search_archive)
