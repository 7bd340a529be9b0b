"""Put the desk together: who is there, where its state and records are, and what decides."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shop import CUSTOMERS, TICKETS

from agentauthz import Authorizer, InstanceKey, Principal, Session
from agentauthz.records import FileSink, Sink
from agentauthz.state.sqlite import SqliteState

POLICY: Final = Path(__file__).with_name("desk.authz")
MARIA: Final = Principal.user("maria", roles=["support"])
BOT: Final = Principal.agent("desk-bot", team="support-desk")


def helper(name: str) -> Principal:
    """Return an agent that this desk may send."""
    return Principal.agent(name, team="support-desk")


@dataclass(frozen=True)
class Desk:
    """Be the folder that all processes of the desk share."""

    folder: Path

    @property
    def state(self) -> Path:
        """Return the file of what sessions remember and spend, of approvals and of revocations."""
        return self.folder / "state.db"

    @property
    def key(self) -> Path:
        """Return the file of the key that seals what waits for a person: without it nobody can read or answer it."""
        return self.folder / "key"

    @property
    def records(self) -> Path:
        """Return the folder of records; each process writes a stream of its own."""
        return self.folder / "records"

    def set_up(self) -> None:
        """Make the folder and the key."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key.touch(mode=0o600)
        self.key.write_bytes(secrets.token_bytes(32))

    @contextmanager
    def authorizer(self, sinks: Iterable[Sink] = ()) -> Iterator[Authorizer]:
        """Give the block what decides in this process; all processes share policies, state and key."""
        key, kept = InstanceKey.from_file(self.key), [FileSink(self.records), *sinks]
        with closing(SqliteState(self.state)) as state, Authorizer(POLICY, state=state, key=key, sinks=kept) as made:
            yield made


def ticket_session(authorizer: Authorizer, ticket: str) -> Session:
    """Return the session of a ticket, in Maria's name: who its customer is, the shop knows and not the text."""
    customer = TICKETS[ticket].customer
    facts = {"customer": customer, "address": CUSTOMERS[customer].address}
    return authorizer.session(MARIA, BOT, id=ticket, attributes=facts)
