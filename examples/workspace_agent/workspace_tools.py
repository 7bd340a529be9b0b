"""Give the assistant its tools: ordinary functions, each decided before it runs.

Names, parameters, defaults and docstrings are what the model sees; `resource=` looks up what the policy asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from workspace import Contact, Email, Event, File, SharingPermission, own_workspace

from agentauthz import Resource, authorize

Item = TypeVar("Item")

# ---- what policies ask for


def _found(kind: str, items: Iterable[Email | Event | File]) -> Resource:
    """Say of what a look-up is about to return how much was written by others, and how much is secret."""
    own, found = own_workspace(), list(items)
    by_others, secrets = sum(map(own.wrote_others, found)), sum(map(own.secret, found))
    return Resource("Found", kind, {"by_others": by_others, "secrets": secrets})


def _with_status(status: str) -> list[Email]:
    return [mail for mail in own_workspace().emails.values() if mail.status == status]


def _unread() -> list[Email]:
    return [mail for mail in own_workspace().emails.values() if not mail.read]


def _named(filename: str) -> list[File]:
    return [file for file in own_workspace().files.values() if filename.lower() in file.filename.lower()]


def _containing(query: str) -> list[File]:
    return [file for file in own_workspace().files.values() if query.lower() in file.content.lower()]


def _message(
    recipients: list[str], attachments: list[dict[str, Any]] | None, cc: list[str] | None, bcc: list[str] | None
) -> Resource:
    """Count the attached files that one of the addressees can't open today."""
    files = [own_workspace().file(str(one["file_id"])) for one in attachments or [] if "file_id" in one]
    addressees = [*recipients, *(cc or []), *(bcc or [])]
    opened = sum(not all(file.open_to(address) for address in addressees) for file in files)
    return Resource("Message", "new", {"opened": opened})


def _event(event_id: str) -> Resource:
    own = own_workspace()
    event = own.event(event_id)
    others = [one for one in event.participants if one != own.address]
    text = f"{event.title}\n{event.description}\n{event.location or ''}"
    return Resource("Event", event_id, {"others": len(others), "text": text})


def _file(file_id: str) -> Resource:
    own = own_workspace()
    file, home = own.file(file_id), own.address.split("@")[1]
    outside = [address for address in (file.owner, *file.shared_with) if address.split("@")[1] != home]
    return Resource("File", file_id, {"own": file.owner == own.address, "outside": len(outside)})


# ---- mail


@authorize("mail.send", resource=_message)
def send_email(
    recipients: list[str],
    subject: str,
    body: str,
    attachments: list[dict[str, Any]] | None = None,
    cc: list[str] | None = None,
    bcc: list[str] | None = None,
) -> Email:
    """Sends an email with the given `body` to the given `address`. Returns a dictionary with the email details.

    :param recipients: The list with the email addresses of the recipients.
    :param subject: The subject of the email.
    :param body: The body of the email.
    :param attachments: The list of attachments to include in the email. If `null`, no attachments are included.
        If the attachment has as "type" "file", then it is expected to have a field "file_id", with the ID of the file in the
        cloud drive. If the attachment has as "type" "event", then it is expected to be a calendar event in the field "event_details".
        A calendar event has the following fields: `title`, `description`, `start_time` (in ISO format), `end_time`
        (in ISO format), `location`, and participants (a list of emails).
    :param cc: The list of email addresses to include in the CC field. If `null`, no email addresses are included.
    :param bcc: The list of email addresses to include in the BCC field. If `null`, no email addresses are included.
    """  # noqa: E501  (the model's text, as it is in the data)
    attached = [_attached(one) for one in attachments or []]
    return own_workspace().send(recipients, subject, body, attached, cc or [], bcc or [])


def _attached(given: dict[str, Any]) -> str | Event:
    if "file_id" in given:
        return str(given["file_id"])
    if "event_details" not in given:
        raise ValueError("An attachment must have a 'file_id' or 'event_details' field.")
    return Event(id_="", **given["event_details"])


@authorize("mail.delete")
def delete_email(email_id: str) -> str:
    """Deletes the email with the given `email_id` from the inbox.

    :param email_id: The id of the email to delete.
    """
    del own_workspace().emails[own_workspace().mail(email_id).id_]
    return f"Email with id {email_id} deleted successfully."


@authorize("mail.unread", resource=lambda: _found("unread", _unread()))
def get_unread_emails() -> list[Email]:
    """Returns all the unread emails in the inbox. Each email has a sender, a subject, and a body.
    The emails are marked as read after this function is called.
    """
    unread = _unread()
    for mail in unread:
        mail.read = True
    return unread


@authorize("mail.sent", resource=lambda: _found("sent", _with_status("sent")))
def get_sent_emails() -> list[Email]:
    """Returns all the sent emails in the inbox. Each email has a recipient, a subject, and a body."""
    return _with_status("sent")


@authorize("mail.received", resource=lambda: _found("received", _with_status("received")))
def get_received_emails() -> list[Email]:
    """Returns all the received emails in the inbox. Each email has a sender, a subject, and a body."""
    return _with_status("received")


@authorize("mail.drafts", resource=lambda: _found("drafts", _with_status("draft")))
def get_draft_emails() -> list[Email]:
    """Returns all the draft emails in the inbox. Each email has a recipient, a subject, and a body."""
    return _with_status("draft")


@authorize("mail.search", resource=lambda query, sender: _found("mail", own_workspace().search_mail(query, sender)))
def search_emails(query: str, sender: str | None = None) -> list[Email]:
    """Searches for emails in the inbox that contain the given query in the subject or body. If `address` is provided,
    only emails from that address are searched.

    :param query: The query to search for in the email subject or body. If empty, all emails are returned.
    :param sender: The email address of the sender. If `null`, all emails are searched. Use `search_contacts_by_name`
        if the email address is unknown.
    """
    return _some(own_workspace().search_mail(query, sender), "No emails found. Try with a different query.")


@authorize("contacts.by_name")
def search_contacts_by_name(query: str) -> list[Contact]:
    """Finds contacts in the inbox's contact list by name.
    It returns a list of contacts that match the given name.

    :param query: The name of the contacts to search for.
    """
    found = [one for one in own_workspace().contacts if query.lower() in one.name.lower()]
    return _some(found, f"Contact with name '{query}' not found.")


@authorize("contacts.by_email")
def search_contacts_by_email(query: str) -> list[Contact]:
    """Finds contacts in the inbox's contact list by email.
    It returns a list of contacts that match the given email.

    :param query: The email of the contacts to search for.
    """
    found = [one for one in own_workspace().contacts if query.lower() in one.email.lower()]
    return _some(found, f"Contact with email '{query}' not found.")


# ---- calendar


@authorize("calendar.today")
def get_current_day() -> str:
    """Returns the current day in ISO format, e.g. '2022-01-01'.
    It is useful to know what the current day, year, or month is, as the assistant
    should not assume what the current date is.
    """
    return own_workspace().today


@authorize("calendar.search", resource=lambda query, date: _found("events", own_workspace().search_events(query, date)))
def search_calendar_events(query: str, date: str | None = None) -> list[Event]:
    """Searches calendar events that match the given query in the tile or the description. If provided, filters events by date.

    :param query: The query string to search for in event titles and descriptions.
    :param date: The date for which to search events. Must be in format YYYY-MM-DD. If `null`, searches all events.
    """  # noqa: E501  (the model's text, as it is in the data)
    return _some(own_workspace().search_events(query, date), "No events found. Try with a different query.")


@authorize("calendar.day", resource=lambda day: _found("events", own_workspace().day(day)))
def get_day_calendar_events(day: str) -> list[Event]:
    """Returns the appointments for the given `day`. Returns a list of dictionaries with informations about each meeting.

    :param day: The day for which to return the appointments. Must be in format YYYY-MM-DD.
    """  # noqa: E501  (the model's text, as it is in the data)
    return own_workspace().day(day)


@authorize("calendar.create")
def create_calendar_event(
    title: str,
    start_time: str,
    end_time: str,
    description: str = "",
    participants: list[str] | None = None,
    location: str | None = None,
) -> Event:
    """Creates a new calendar event with the given details and adds it to the calendar.
    It also sends an email to the participants with the event details.

    :param title: The title of the event.
    :param start_time: The start time of the event. Must be in format YYYY-MM-DD HH:MM.
    :param end_time: The end time of the event. Must be in format YYYY-MM-DD HH:MM.
    :param description: The description of the event.
    :param participants: The list of participants' email addresses. If `null`, no participants are set. The calendar owner's email address is always included..
    :param location: The location of the event. If `null`, no location is set.
    """  # noqa: E501  (the model's text, as it is in the data)
    guests = participants or []
    return own_workspace().add_event(
        Event("", title, description, _moment(start_time), _moment(end_time), location, guests)
    )


@authorize("calendar.cancel", resource=_event)
def cancel_calendar_event(event_id: str) -> str:
    """Cancels the event with the given `event_id`. The event will be marked as canceled and no longer appear in the calendar.
    It will also send an email to the participants notifying them of the cancellation.

    :param event_id: The ID of the event to cancel.
    """  # noqa: E501  (the model's text, as it is in the data)
    event = own_workspace().event(event_id)
    event.status = "canceled"
    own_workspace().send(event.participants, f"Canceled: {event.title}", "The event has been canceled.", [event])
    return f"Event with ID {event_id} has been canceled and participants have been notified."


@authorize("calendar.move", resource=_event)
def reschedule_calendar_event(event_id: str, new_start_time: str, new_end_time: str | None = None) -> Event:
    """Reschedules the event with the given `event_id` to the new start and end times.
    It will also send an email to the participants notifying them of the rescheduling.

    :param event_id: The ID of the event to reschedule.
    :param new_start_time: The new start time of the event. Must be in format YYYY-MM-DD HH:MM.
    :param new_end_time: The new end time of the event. Must be in format YYYY-MM-DD HH:MM.
        If `null`, the end time will be computed based on the new start time to keep the event duration the same.
    """
    event = own_workspace().event(event_id)
    lasts = datetime.fromisoformat(event.end_time) - datetime.fromisoformat(event.start_time)
    event.start_time = _moment(new_start_time)
    until = datetime.fromisoformat(event.start_time) + lasts
    event.end_time = until.isoformat() if new_end_time is None else _moment(new_end_time)
    body = f"The event will start on {event.start_time} and end on {event.end_time}."
    own_workspace().send(event.participants, f"Rescheduled: {event.title}", body, [event])
    return event


@authorize("calendar.invite", resource=_event)
def add_calendar_event_participants(event_id: str, participants: list[str]) -> Event:
    """Adds the given `participants` to the event with the given `event_id`.
    It will also email the new participants notifying them of the event.

    :param event_id: The ID of the event to add participants to.
    :param participants: The list of participants' email addresses to add to the event.
    """
    event = own_workspace().event(event_id)
    event.participants.extend(participants)
    own_workspace().send(participants, f"Invitation: {event.title}", event.description, [event])
    return event


# ---- drive


@authorize("files.append", resource=_file)
def append_to_file(file_id: str, content: str) -> File:
    """Append content to a file in the cloud drive.

    :param file_id: The ID of the file to append content to.
    :param content: The content to append to the file.
    """
    file = own_workspace().file(file_id)
    file.content += content
    file.size = len(file.content)
    return file


@authorize("files.by_name", resource=lambda filename: _found("files", _named(filename)))
def search_files_by_filename(filename: str) -> list[File]:
    """Get a file from a cloud drive by its filename. It returns a list of files.
    Each file contains the file id, the content, the file type, and the filename.

    :param filename: The name of the file to retrieve.
    """
    return _named(filename)


@authorize("files.create")
def create_file(filename: str, content: str) -> File:
    """Create a new file in the cloud drive.

    :param filename: The name of the file to create.
    :param content: The content of the file to create.
    """
    return own_workspace().add_file(filename, content)


@authorize("files.delete", resource=_file)
def delete_file(file_id: str) -> File:
    """Delete a file from the cloud drive by its filename.
    It returns the file that was deleted.

    :param file_id: The name of the file to delete.
    """
    own = own_workspace()
    return own.files.pop(own.file(file_id).id_)


@authorize("files.get", resource=lambda file_id: _found("files", [own_workspace().file(file_id)]))
def get_file_by_id(file_id: str) -> File:
    """Get a file from a cloud drive by its ID.

    :param file_id: The ID of the file to retrieve.
    """
    return own_workspace().file(file_id)


@authorize("files.list", resource=lambda: _found("files", own_workspace().files.values()))
def list_files() -> list[File]:
    """Retrieve all files in the cloud drive."""
    return list(own_workspace().files.values())


@authorize("files.share", resource=_file)
def share_file(file_id: str, email: str, permission: SharingPermission) -> File:
    """Share a file with a user.

    :param file_id: The ID of the file to share.
    :param email: The email of the user to share the file with.
    :param permission: The permission level to grant the user.
    """
    file = own_workspace().file(file_id)
    file.shared_with[email] = SharingPermission(permission)
    return file


@authorize("files.search", resource=lambda query: _found("files", _containing(query)))
def search_files(query: str) -> list[File]:
    """Search for files in the cloud drive by content.

    :param query: The string to search for in the files.
    """
    return _some(_containing(query), f"No files found with the given query ('{query}'). Try a different search term.")


def _some(found: list[Item], otherwise: str) -> list[Item]:
    if not found:
        raise ValueError(otherwise)
    return found


def _moment(time: str) -> str:
    return datetime.strptime(time, "%Y-%m-%d %H:%M").isoformat()  # noqa: DTZ007  (the calendar's own time)


READING: Final[tuple[Callable[..., Any], ...]] = (
    get_unread_emails, get_sent_emails, get_received_emails, get_draft_emails, search_emails, search_contacts_by_name,
    search_contacts_by_email, get_current_day, search_calendar_events, get_day_calendar_events, get_file_by_id,
    search_files_by_filename, list_files, search_files,
)  # fmt: skip
CHANGING: Final[tuple[Callable[..., Any], ...]] = (
    send_email, delete_email, create_calendar_event, cancel_calendar_event, reschedule_calendar_event,
    add_calendar_event_participants, append_to_file, create_file, delete_file, share_file,
)  # fmt: skip
TOOLS: Final[Mapping[str, Callable[..., Any]]] = {tool.__name__: tool for tool in (*READING, *CHANGING)}
