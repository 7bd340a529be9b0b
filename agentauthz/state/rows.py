"""Keep what a store keeps as rows of a SQLite file.

Text is kept as UTF-8 in BLOBs, since it may hold NUL and lone surrogates; times are microseconds since 1970, and
amounts are text, so that they stay exact.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, final

from attrs import frozen

from agentauthz.errors import StateError
from agentauthz.state.store import Approval, Revocation, State
from agentauthz.state.windows import Buckets, micros, moment

if TYPE_CHECKING:
    import sqlite3

P = ParamSpec("P")
T = TypeVar("T")

SCHEMA: Final = (
    """
    CREATE TABLE clock (at INTEGER NOT NULL);
    INSERT INTO clock VALUES (-62135596800000000);
    CREATE TABLE sessions (
        id BLOB PRIMARY KEY, started INTEGER NOT NULL, kept INTEGER NOT NULL, used INTEGER NOT NULL,
        state BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX sessions_left ON sessions (used) WHERE NOT kept;
    CREATE TABLE budgets (
        session BLOB NOT NULL, key BLOB NOT NULL, spent TEXT NOT NULL, ends INTEGER, PRIMARY KEY (session, key)
    ) WITHOUT ROWID;
    CREATE INDEX budgets_ended ON budgets (ends) WHERE ends IS NOT NULL;
    CREATE TABLE reservations (id BLOB PRIMARY KEY, session BLOB, ends INTEGER) WITHOUT ROWID;
    CREATE INDEX reservations_ended ON reservations (ends) WHERE ends IS NOT NULL;
    CREATE INDEX reservations_session ON reservations (session) WHERE ends IS NULL;
    CREATE TABLE once (key BLOB PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX once_ended ON once (expires);
    CREATE TABLE revocations (
        number INTEGER PRIMARY KEY, kind TEXT NOT NULL, name BLOB NOT NULL, at INTEGER NOT NULL, reason BLOB NOT NULL,
        lifts INTEGER NOT NULL
    );
    CREATE TABLE approvals (
        number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, binding BLOB NOT NULL, session BLOB, at INTEGER NOT NULL,
        expires INTEGER NOT NULL, request BLOB NOT NULL, status TEXT NOT NULL, answer BLOB
    );
    CREATE INDEX approvals_binding ON approvals (binding);
    CREATE INDEX approvals_expired ON approvals (expires)
    """,
)
NOBODY: Final = ""  # the session of budgets that belong to none

_encoded: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # made once: it takes its time
# to set when it ends would write its place in the index too, where nearly always nothing changes
_CHANGE_BUDGET: Final = "UPDATE budgets SET spent = ? WHERE session = ? AND key = ? AND ends IS ?"
_PUT_BUDGET: Final = "INSERT OR REPLACE INTO budgets (spent, session, key, ends) VALUES (?, ?, ?, ?)"

_LAST: Final = 2**63 - 1  # the last moment that a file can keep, in microseconds since 1970
_SOME: Final = 256  # rows of a kind that are deleted at once: it takes no time worth telling
_DAY: Final = 86_400 * 1_000_000  # in microseconds
_UNUSED: Final = 30 * _DAY  # until what ended, and somebody may still ask about, is forgotten


@final
@frozen
class Row:
    """Be one session; `kept` says that somebody has its id, and may ask for it at any time."""

    id: str
    started: dt.datetime
    kept: bool
    state: State


def blob(text: str) -> bytes:
    """Return any text as a file can keep it."""
    return text.encode("utf-8", "surrogatepass")


def told(kept: bytes) -> str:
    """Return the text again."""
    return kept.decode("utf-8", "surrogatepass")


def _legible(read: Callable[P, T]) -> Callable[P, T]:
    """Have it raise StateError where what the file holds is nothing that was written here."""

    @functools.wraps(read)
    def reading(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as cause:
            raise StateError("what the state store keeps can't be read") from cause

    return reading


@_legible
def time(file: sqlite3.Connection, told: int) -> dt.datetime:
    """Return the time that a clock has told, or a later one that was told before; it is kept."""
    if not file.execute("UPDATE clock SET at = ? WHERE at < ?", (told, told)).rowcount:
        [(told,)] = file.execute("SELECT at FROM clock")
    return moment(told)


# ---- sessions


@_legible
def session(file: sqlite3.Connection, id: str) -> Row | None:
    """Return a session; None: the file doesn't know it."""
    found = file.execute("SELECT started, kept, state FROM sessions WHERE id = ?", (blob(id),)).fetchone()
    return None if found is None else Row(id, moment(found[0]), bool(found[1]), _state(found[2]))


def put_session(file: sqlite3.Connection, row: Row, now: int) -> None:
    """Keep a session in place of what was kept of it."""
    values = (blob(row.id), micros(row.started), row.kept, now, _kept_state(row.state))
    file.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)", values)


def forget_session(file: sqlite3.Connection, id: str) -> None:
    """Delete a session that nobody can ask for, and its budgets; what waits for a person may be made in it yet."""
    key = (blob(id),)
    unasked = "NOT EXISTS (SELECT 1 FROM approvals WHERE approvals.session = sessions.id)"
    gone = f"DELETE FROM sessions WHERE id = ? AND NOT kept AND {unasked}"  # noqa: S608  (a condition of ours)
    if file.execute(gone, key).rowcount:
        file.execute("DELETE FROM budgets WHERE session = ?", key)
        file.execute("DELETE FROM reservations WHERE session = ? AND ends IS NULL", key)


def _kept_state(state: State) -> bytes:
    known = {
        "marks": sorted(state.marks),
        "began": {name: micros(at) for name, at in state.began.items()},
        "done": {name: micros(at) for name, at in state.done.items()},
        "watched": {name: micros(at) for name, at in state.watched.items()},
    }
    return blob(_encoded(known))


def _state(kept: bytes) -> State:
    known = json.loads(told(kept))
    return State(known["marks"], _times(known["began"]), _times(known["done"]), _times(known["watched"]))


def _times(known: Mapping[str, int]) -> dict[str, dt.datetime]:
    return {name: moment(at) for name, at in known.items()}


# ---- budgets


@_legible
def budget(file: sqlite3.Connection, session: str, key: str) -> Buckets | None:
    """Return a budget; None: nothing was spent of it."""
    asked = "SELECT spent, ends FROM budgets WHERE session = ? AND key = ?"
    found = file.execute(asked, (blob(session), blob(key))).fetchone()
    if found is None:
        return None
    kept = Buckets.of((int(number), Decimal(amount)) for number, amount in json.loads(found[0]).items())
    kept.ends = found[1] or 0
    return kept


def put_budget(file: sqlite3.Connection, session: str, key: str, kept: Buckets) -> None:
    """Keep a budget in place of what was kept of it."""
    spent = _encoded({number: str(amount) for number, amount in kept.spent.items()})
    values = (spent, blob(session), blob(key), min(kept.ends, _LAST) or None)
    if not file.execute(_CHANGE_BUDGET, values).rowcount:
        file.execute(_PUT_BUDGET, values)


def put_reservation(file: sqlite3.Connection, id: str, session: str | None, ends: int | None) -> None:
    """Remember that something can be given back; `ends` None: as long as its session is there."""
    values = (blob(id), None if session is None else blob(session), None if ends is None else min(ends, _LAST))
    file.execute("INSERT INTO reservations VALUES (?, ?, ?)", values)


def take_reservation(file: sqlite3.Connection, id: str) -> bool:
    """Forget that something can be given back; say whether it could."""
    return file.execute("DELETE FROM reservations WHERE id = ?", (blob(id),)).rowcount > 0


# ---- what may be used once


def once(file: sqlite3.Connection, key: str, expires: int, now: int) -> bool:
    """Keep a key until it expires; say whether it wasn't there."""
    kept = blob(key)
    file.execute("DELETE FROM once WHERE key = ? AND expires < ?", (kept, now))
    return file.execute("INSERT OR IGNORE INTO once VALUES (?, ?)", (kept, expires)).rowcount > 0


# ---- revocations


def revoked(file: sqlite3.Connection) -> int:
    """Return the number of the last revocation; 0: there is none."""
    [(number,)] = file.execute("SELECT coalesce(max(number), 0) FROM revocations")
    return int(number)


def put_revocation(file: sqlite3.Connection, made: Revocation) -> Revocation:
    """Keep a revocation; return it with its number."""
    values = (made.kind, blob(made.name), micros(made.at), blob(made.reason), made.lifts)
    number = file.execute(
        "INSERT INTO revocations (kind, name, at, reason, lifts) VALUES (?, ?, ?, ?, ?)", values
    ).lastrowid
    assert number is not None
    return Revocation(number, made.kind, made.name, made.at, made.reason, made.lifts)


@_legible
def revocations(file: sqlite3.Connection, since: int) -> Sequence[Revocation]:
    """Return those with a higher number, in order."""
    found = file.execute("SELECT * FROM revocations WHERE number > ? ORDER BY number", (since,))
    return [
        Revocation(number, kind, told(name), moment(at), told(reason), bool(lifts))
        for number, kind, name, at, reason, lifts in found
    ]


# ---- approvals

_APPROVAL: Final = "id, binding, session, at, expires, request, status, answer"


@_legible
def approvals(file: sqlite3.Connection, where: str, values: Sequence[object]) -> list[Approval]:
    """Return the approvals of which a condition holds, oldest first."""
    asked = f"SELECT {_APPROVAL} FROM approvals WHERE {where} ORDER BY number"  # noqa: S608  (conditions of ours)
    return [_approval(*row) for row in file.execute(asked, values)]


def put_approval(file: sqlite3.Connection, one: Approval) -> None:
    """Keep a request for consent."""
    values = (
        blob(one.id), blob(one.binding), None if one.session is None else blob(one.session), micros(one.at),
        micros(one.expires), blob(one.request), one.status, None if one.answer is None else blob(one.answer),
    )  # fmt: skip
    marks = ", ".join("?" * len(values))
    file.execute(f"INSERT INTO approvals ({_APPROVAL}) VALUES ({marks})", values)  # noqa: S608  (names of ours)


def is_usable(file: sqlite3.Connection, id: str, now: int) -> bool:
    """Say whether a person has approved, and nobody used it yet."""
    asked = "SELECT 1 FROM approvals WHERE id = ? AND status = 'approved' AND expires > ?"
    return file.execute(asked, (blob(id), now)).fetchone() is not None


def use(file: sqlite3.Connection, id: str) -> None:
    """Use an approval up."""
    file.execute("UPDATE approvals SET status = 'used' WHERE id = ?", (blob(id),))


def answer(file: sqlite3.Connection, id: str, status: str, text: str, known: str | None, now: int) -> bool:
    """Answer a pending request that hasn't expired, and whose answer is `known`; say whether there was one."""
    held = "id = ? AND status = 'pending' AND expires > ? AND answer IS ?"
    changed = f"UPDATE approvals SET status = ?, answer = ? WHERE {held}"  # noqa: S608  (both parts are constants)
    before = None if known is None else blob(known)
    return file.execute(changed, (status, blob(text), blob(id), now, before)).rowcount > 0


def _approval(
    id: bytes, binding: bytes, session: bytes | None, at: int, expires: int, request: bytes, status: Any,
    answer: bytes | None,
) -> Approval:  # fmt: skip
    return Approval(
        told(id), told(binding), None if session is None else told(session), moment(at), moment(expires),
        told(request), status, None if answer is None else told(answer),
    )  # fmt: skip


# ---- what ended


def forget_ended(file: sqlite3.Connection, now: int) -> None:
    """Delete some of what nobody needs any more, so that the file stays bounded."""
    _delete(file, "budgets", "(session, key)", "session, key", "ends <= ?", now)
    _delete(file, "reservations", "id", "id", "ends <= ?", now)
    _delete(file, "once", "key", "key", "expires < ?", now)
    _delete(file, "approvals", "number", "number", "expires <= ?", now - _UNUSED)
    left = "SELECT id FROM sessions WHERE NOT kept AND used <= ? LIMIT ?"
    for (unused,) in file.execute(left, (now - _UNUSED, _SOME)).fetchall():
        forget_session(file, told(unused))


def _delete(file: sqlite3.Connection, table: str, key: str, columns: str, ended: str, now: int) -> None:
    some = f"SELECT {columns} FROM {table} WHERE {ended} LIMIT ?"  # noqa: S608  (names of ours)
    file.execute(f"DELETE FROM {table} WHERE {key} IN ({some})", (now, _SOME))  # noqa: S608  (names of ours)
