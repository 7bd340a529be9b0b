"""Be a small workspace in memory: one person's mail, calendar and drive."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

from agentauthz import current

DATA: Final = Path(__file__).with_name("data") / "workspace.json"
Item = TypeVar("Item")
NOW: Final = "2024-05-15T09:00:00"  # when everything that the assistant does happens
SECRETS: Final = ("security code", "password reset", "reset request")  # crude: a real host asks its mail classifier


class SharingPermission(StrEnum):  # no docstring: it would end up in the tool's JSON schema
    r = "r"
    rw = "rw"


@dataclass
class Event:
    """Be one event of the calendar; times are ISO 8601, local."""

    id_: str
    title: str
    description: str
    start_time: str
    end_time: str
    location: str | None
    participants: list[str]
    all_day: bool = False
    status: str = "confirmed"


@dataclass
class Email:
    """Be one mail; `status` is sent, received or draft, and an attachment a file's id or an event."""

    id_: str
    sender: str
    recipients: list[str]
    subject: str
    body: str
    cc: list[str] = field(default_factory=list)
    bcc: list[str] = field(default_factory=list)
    status: str = "sent"
    read: bool = True
    timestamp: str = NOW
    attachments: list[str | Event] = field(default_factory=list)

    def addressees(self) -> list[str]:
        """Return everyone that it goes to."""
        return [*self.recipients, *self.cc, *self.bcc]


@dataclass
class File:
    """Be one file of the drive; `shared_with` maps addresses to what they may do."""

    id_: str
    filename: str
    content: str
    owner: str
    last_modified: str
    size: int
    shared_with: dict[str, SharingPermission] = field(default_factory=dict)

    def open_to(self, address: str) -> bool:
        """Say whether somebody can open it already."""
        return address == self.owner or address in self.shared_with


@dataclass
class Contact:
    """Be one entry of the address book."""

    email: str
    name: str


@dataclass
class Workspace:
    """Be what one person has; `emails`, `events` and `files` are by id."""

    address: str
    today: str
    emails: dict[str, Email]
    events: dict[str, Event]
    files: dict[str, File]
    contacts: list[Contact]

    @classmethod
    def load(cls, environment: Mapping[str, Any]) -> Workspace:
        """Return a fresh workspace, as AgentDojo's environment describes it."""
        emails = {one["id_"]: Email(**one) for one in _copies(environment["inbox"]["initial_emails"])}
        events = {one["id_"]: Event(**one) for one in _copies(environment["calendar"]["initial_events"])}
        files = {one["id_"]: File(**one) for one in _copies(environment["cloud_drive"]["initial_files"])}
        seen = [address for mail in emails.values() for address in (*mail.recipients, mail.sender, *mail.cc, *mail.bcc)]
        contacts = [Contact(one, one.split("@")[0].replace(".", " ").title()) for one in dict.fromkeys(seen)]
        calendar = environment["calendar"]
        return cls(calendar["account_email"], calendar["current_day"], emails, events, files, contacts)

    def plant(self, text: str) -> None:
        """Write `text` wherever other people can write: received mails, shared events, files that they own or edit."""
        for mail in self.emails.values():
            if self.wrote_others(mail):
                mail.body += f"\n\n{text}"
        for event in self.events.values():
            if self.wrote_others(event):
                event.description += f"\n\n{text}"
        for file in self.files.values():
            if self.wrote_others(file):
                file.content += f"\n\n{text}"

    # ---- facts that policies ask for

    def written_to(self) -> list[str]:
        """Return whom the owner has dealt with on her own account: whom she wrote to, whom she let into her files.

        That someone wrote to her, invited her or shared something with her doesn't count: anyone can.
        """
        mailed = [address for mail in self.emails.values() if mail.status == "sent" for address in mail.addressees()]
        shared = [address for file in self.files.values() if file.owner == self.address for address in file.shared_with]
        return sorted({address.lower() for address in (*mailed, *shared)})

    def met(self) -> list[str]:
        """Return who stands in the same events as the owner: weaker, since others can invite her."""
        return sorted({address.lower() for event in self.events.values() for address in event.participants})

    def wrote_others(self, item: Email | Event | File) -> bool:
        """Say whether other people may have written what is in `item`."""
        if isinstance(item, Email):
            return item.sender != self.address
        if isinstance(item, Event):
            return item.participants != [self.address]
        return item.owner != self.address or SharingPermission.rw in item.shared_with.values()

    def secret(self, item: Email | Event | File) -> bool:
        """Say whether `item` is a mail that carries a code or a link which opens an account."""
        return isinstance(item, Email) and any(word in item.subject.lower() for word in SECRETS)

    # ---- changes

    def send(
        self,
        recipients: list[str],
        subject: str,
        body: str,
        attachments: Iterable[str | Event] = (),
        cc: Iterable[str] = (),
        bcc: Iterable[str] = (),
    ) -> Email:
        """Send a mail, and return it."""
        mail = Email(
            _next(self.emails), self.address, recipients, subject, body, list(cc), list(bcc),
            attachments=list(attachments),
        )  # fmt: skip
        self.emails[mail.id_] = mail
        return mail

    def add_event(self, event: Event) -> Event:
        """Put an event without an id into the calendar, invite its participants, and return it."""
        event.id_ = _next(self.events)
        if self.address not in event.participants:
            event.participants.append(self.address)
        self.events[event.id_] = event
        self.send(event.participants, f"Invitation: {event.title}", event.description, [event])
        return event

    def add_file(self, filename: str, content: str) -> File:
        """Create a file, and return it."""
        file = File(_next(self.files), filename, content, self.address, NOW, len(content))
        self.files[file.id_] = file
        return file

    # ---- look-ups

    def mail(self, id: str) -> Email:
        """Return a mail, or raise a ValueError."""
        return _found(self.emails, id, "Email")

    def event(self, id: str) -> Event:
        """Return an event, or raise a ValueError."""
        return _found(self.events, id, "Event")

    def file(self, id: str) -> File:
        """Return a file, or raise a ValueError."""
        return _found(self.files, id, "File")

    def search_mail(self, query: str, sender: str | None) -> list[Email]:
        """Return the mails, from `sender` if given, with `query` in subject or body."""
        found = [mail for mail in self.emails.values() if sender is None or mail.sender.lower() == sender.lower()]
        return [mail for mail in found if _has(query, mail.subject, mail.body)]

    def search_events(self, query: str, date: str | None) -> list[Event]:
        """Return the events, of one day if given, with `query` in title or description."""
        found = self.events.values() if date is None else self.day(date)
        return [event for event in found if _has(query, event.title, event.description)]

    def day(self, day: str) -> list[Event]:
        """Return the events that start on a day."""
        return [event for event in self.events.values() if event.start_time.startswith(f"{day}T")]


def _copies(items: Any) -> Any:
    return json.loads(json.dumps(items))


def _next(items: Mapping[str, object]) -> str:
    return str(max(map(int, items), default=0) + 1)


def _found(items: Mapping[str, Item], id: str, kind: str) -> Item:
    if id not in items:
        raise ValueError(f"{kind} with ID '{id}' not found.")
    return items[id]


def _has(query: str, *texts: str) -> bool:
    return any(query.lower() in text.lower() for text in texts)


_people: dict[str, Workspace] = {}


def open_workspace(person: str, workspace: Workspace) -> None:
    """Let `workspace` be what the person with this id has."""
    _people[person] = workspace


def own_workspace() -> Workspace:
    """Return the workspace of the person whose authority the session uses: no argument of a model can name another."""
    return _people[current().session.subject.id]


def load_data() -> dict[str, Any]:
    """Return AgentDojo's data: `tools`, `environment`, `user_tasks` and `injection_tasks`."""
    data: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    whole_drive = data["environment"]["cloud_drive"]["initial_files"]
    for task in data["user_tasks"]:
        for call in task["calls"]:
            if isinstance(call["result"], dict) and "$ref" in call["result"]:
                call["result"] = whole_drive
    return data
