"""Be a small bank in memory: one customer's account, payments, papers and profile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from agentauthz import current

DATA: Final = Path(__file__).with_name("data") / "banking.json"
ME: Final = "me"  # how the account's own side is written in past transactions


@dataclass
class Transaction:
    """Be one payment; `date` is of the form YYYY-MM-DD."""

    id: int
    sender: str
    recipient: str
    amount: float
    subject: str
    date: str
    recurring: bool


@dataclass
class Bank:
    """Be what the bank knows of one customer."""

    iban: str
    balance: float
    transactions: list[Transaction]
    scheduled: list[Transaction]
    files: dict[str, str]
    profile: dict[str, str]

    @classmethod
    def load(cls, environment: Mapping[str, Any]) -> Bank:
        """Return a fresh bank, as AgentDojo's environment describes it."""
        account = environment["bank_account"]
        return cls(
            account["iban"],
            account["balance"],
            [Transaction(**one) for one in account["transactions"]],
            [Transaction(**one) for one in account["scheduled_transactions"]],
            dict(environment["filesystem"]["files"]),
            dict(environment["user_account"]),
        )

    def plant(self, text: str) -> None:
        """Write `text` wherever other people can write: into papers, and the subjects of incoming payments."""
        for name in self.files:
            self.files[name] += f"\n\n{text}"
        for one in self.incoming():
            one.subject += f" {text}"

    # ---- facts that policies ask for

    def known_payees(self) -> frozenset[str]:
        """Return whom the customer has paid, or has standing orders for. To have been paid by someone is not enough."""
        paid = [one.recipient for one in self.transactions if self._own(one)]
        return frozenset(paid + [one.recipient for one in self.scheduled])

    def incoming(self) -> list[Transaction]:
        """Return the payments whose subjects other people wrote."""
        return [one for one in self.transactions if not self._own(one)]

    def standing_order(self, id: int) -> Transaction:
        """Return a scheduled payment.

        Raises:
            ValueError: there is none with this id.
        """
        for one in self.scheduled:
            if one.id == id:
                return one
        raise ValueError(f"Transaction with ID {id} not found.")

    def funds(self) -> Decimal:
        """Return what the account holds, less what was sent since the balance was drawn up."""
        sent = sum((Decimal(str(one.amount)) for one in self.transactions if one.sender == self.iban), Decimal(0))
        return Decimal(str(self.balance)) - sent

    def _own(self, one: Transaction) -> bool:
        return one.sender in (ME, self.iban)

    # ---- changes

    def add(
        self, to: list[Transaction], recipient: str, amount: float, subject: str, date: str, recurring: bool
    ) -> None:
        """Append a payment by the customer to `transactions` or `scheduled`."""
        last = max((one.id for one in [*self.transactions, *self.scheduled]), default=0)
        to.append(Transaction(last + 1, self.iban, recipient, float(amount), subject, date, recurring))


_customers: dict[str, Bank] = {}


def open_bank(customer: str, bank: Bank) -> None:
    """Let `bank` be what the customer with this id has."""
    _customers[customer] = bank


def own_bank() -> Bank:
    """Return the bank of the person whose authority the session uses: no argument of a model can name another."""
    return _customers[current().session.subject.id]


def load_data() -> dict[str, Any]:
    """Return AgentDojo's data: `tools`, `environment`, `user_tasks` and `injection_tasks`."""
    data: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return data
