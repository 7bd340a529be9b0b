"""Give the assistant its tools: ordinary functions, each decided before it runs.

Names, parameters, defaults and docstrings are what the model sees; `resource=` looks up what the policy asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from bank import Transaction, own_bank

from agentauthz import Resource, authorize


def _payee(recipient: str) -> Resource:
    bank = own_bank()
    return Resource("Payee", recipient, {"known": recipient in bank.known_payees(), "funds": bank.funds()})


def _standing_order(id: int, recipient: str | None) -> Resource:
    """Look up the order as it is, and whether the payee that it would then have is known."""
    bank = own_bank()
    order = bank.standing_order(id)
    known = (recipient or order.recipient) in bank.known_payees()
    return Resource("StandingOrder", str(id), {"amount": order.amount, "payee_known": known})


def _history() -> Resource:
    bank = own_bank()
    return Resource("History", bank.iban, {"incoming": len(bank.incoming())})


@authorize("account.iban")
def get_iban() -> str:
    """Get the IBAN of the current bank account."""
    return own_bank().iban


@authorize("payments.send", resource=_payee)
def send_money(recipient: str, amount: float, subject: str, date: str) -> dict[str, str]:
    """Sends a transaction to the recipient.

    :param recipient: IBAN of the recipient
    :param amount: Amount of the transaction
    :param subject: Subject of the transaction
    :param date: Date of the transaction
    """
    bank = own_bank()
    bank.add(bank.transactions, recipient, amount, subject, date, recurring=False)
    return {"message": f"Transaction to {recipient} for {float(amount)} sent."}


@authorize("payments.schedule", resource=_payee)
def schedule_transaction(recipient: str, amount: float, subject: str, date: str, recurring: bool) -> dict[str, str]:
    """Schedule a transaction.

    :param recipient: IBAN of the recipient
    :param amount: Amount of the transaction
    :param subject: Subject of the transaction
    :param date: Next date of the transaction
    :param recurring: Is the transaction recurring
    """
    bank = own_bank()
    bank.add(bank.scheduled, recipient, amount, subject, date, recurring)
    return {"message": f"Transaction to {recipient} for {float(amount)} scheduled."}


@authorize("payments.change", resource=_standing_order)
def update_scheduled_transaction(
    id: int,
    recipient: str | None = None,
    amount: float | None = None,
    subject: str | None = None,
    date: str | None = None,
    recurring: bool | None = None,
) -> dict[str, str]:
    """Update a scheduled transaction.

    :param id: ID of the transaction (mandatory)
    :param recipient: IBAN of the recipient (optional)
    :param amount: Amount of the transaction (optional)
    :param subject: Subject of the transaction (optional)
    :param date: Next date of the transaction (optional)
    :param recurring: Is the transaction recurring (optional)
    """
    order = own_bank().standing_order(id)
    order.recipient = recipient or order.recipient
    order.amount = order.amount if amount is None else float(amount)
    order.subject = subject or order.subject
    order.date = date or order.date
    order.recurring = order.recurring if recurring is None else recurring
    return {"message": f"Transaction with ID {id} updated."}


@authorize("account.balance")
def get_balance() -> float:
    """Get the balance of the account."""
    return own_bank().balance


@authorize("history.read", resource=_history)
def get_most_recent_transactions(n: int = 100) -> list[Transaction]:
    """Get the list of the most recent transactions, e.g. to summarize the last n transactions.

    :param n: Number of transactions to return
    """
    return own_bank().transactions[-n:]


@authorize("schedule.read")
def get_scheduled_transactions() -> list[Transaction]:
    """Get the list of scheduled transactions."""
    return list(own_bank().scheduled)


@authorize("files.read")
def read_file(file_path: str) -> str:
    """Reads the contents of the file at the given path.

    :param file_path: The path to the file to read.
    """
    return own_bank().files.get(file_path, "")


@authorize("profile.read")
def get_user_info() -> dict[str, str]:
    """Get the user information."""
    return {name: value for name, value in own_bank().profile.items() if name != "password"}


@authorize("profile.password", sensitive=["password"])
def update_password(password: str) -> dict[str, str]:
    """Update the user password.

    :param password: New password for the user
    """
    own_bank().profile["password"] = password
    return {"message": "Password updated."}


@authorize("profile.change")
def update_user_info(
    first_name: str | None = None, last_name: str | None = None, street: str | None = None, city: str | None = None
) -> dict[str, str]:
    """Update the user information.

    :param first_name: First name of the user (optional)
    :param last_name: Last name of the user (optional)
    :param street: Street of the user (optional)
    :param city: City of the user (optional)
    """
    profile = own_bank().profile
    changes = {"first_name": first_name, "last_name": last_name, "street": street, "city": city}
    profile.update({name: value for name, value in changes.items() if value})
    return {name: value for name, value in profile.items() if name != "password"}


READING: Final[tuple[Callable[..., Any], ...]] = (
    get_iban, get_balance, get_most_recent_transactions, get_scheduled_transactions, read_file, get_user_info,
)  # fmt: skip
CHANGING: Final[tuple[Callable[..., Any], ...]] = (
    send_money, schedule_transaction, update_scheduled_transaction, update_password, update_user_info,
)  # fmt: skip
TOOLS: Final[Mapping[str, Callable[..., Any]]] = {tool.__name__: tool for tool in (*READING, *CHANGING)}
