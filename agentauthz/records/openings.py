"""Keep what shredded values were apart from the records, under a key for each person, until that key is deleted."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, final

from attrs import frozen

from agentauthz.canonical import Json, canonical, encode
from agentauthz.database import Database
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.keys import InstanceKey
from agentauthz.principals import Principal

if TYPE_CHECKING:
    import sqlite3

State: TypeAlias = Literal["opened", "erased", "missing"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, subject TEXT NOT NULL, wrapped BLOB, openings INTEGER
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS keys_alive ON keys (subject) WHERE wrapped IS NOT NULL;
CREATE INDEX IF NOT EXISTS keys_subject ON keys (subject);
CREATE TABLE IF NOT EXISTS openings (
    commitment TEXT PRIMARY KEY, key TEXT NOT NULL, sealed BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS openings_key ON openings (key);
"""
_SETTINGS: Final = ("secure_delete = ON",)  # what is deleted is overwritten, from the first row on


@final
@frozen
class Opening:
    """Be what became of a commitment: its value as tagged JSON where it is "opened"."""

    state: State
    value: Json = None


@final
@frozen
class Erased:
    """Be what was erased of one person in one store: keys and openings, `before` those that were gone already."""

    store: str
    keys: int
    openings: int
    before: int


@final
class Openings:
    """Keep the openings of shredded values in the SQLite file `path`, for several processes at once.

    Each person's values are encrypted under a key of their own, which stands in the file wrapped under `key`; `older`
    are keys that it was used with before. Persons are named by a keyed digest only. What is kept survives the death of
    the process; with `durable`, a loss of power too. `timeout` is how many seconds to wait for another writer.

    Raises:
        SinkError: the file can't be made, or is no such database.
        InvalidArgument: a key that is none, or a time-out that is no positive number.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: InstanceKey,
        *,
        older: Sequence[InstanceKey] = (),
        durable: bool = False,
        timeout: float = 5.0,
    ) -> None:
        if any(type(one) is not InstanceKey for one in (key, *older)):
            raise InvalidArgument("key", "must be an InstanceKey")
        self._keys: Final = {one.epoch: one for one in (*older, key)}
        self._key: Final = key
        self._database: Final = Database(
            path, (_SCHEMA,), _SETTINGS, failure=SinkError, durable=durable, timeout=timeout
        )

    @property
    def name(self) -> str:
        """Return the file's name, without its folder."""
        return self._database.path.name

    def subject(self, who: Principal) -> str:
        """Return what stands for a person where nobody may read who it is: a keyed digest."""
        return self._key.digest("data subject", canonical(who))

    def sealing(self) -> Sealing:
        """Return what commits to the values of one record."""
        return Sealing(self)

    def key_of(self, who: Principal) -> tuple[str, bytes]:
        """Return the id of a person's key and the key; it is made where there is none that is alive.

        Raises:
            SinkError: the file can't be used.
            InvalidArgument: the key was wrapped under another instance key.
        """
        subject, alive = self.subject(who), "SELECT id, wrapped FROM keys WHERE subject = ? AND wrapped IS NOT NULL"
        with self._database.reading() as connection:
            found = connection.execute(alive, [subject]).fetchone()
        if found is None:
            from agentauthz.keys.sealing import KEY_BYTES, seal

            own = f"s{secrets.token_hex(8)}"
            wrapped = seal(self._key.derived("openings"), secrets.token_bytes(KEY_BYTES), own.encode())
            with self._database.writing() as connection:  # where another process was faster, its key is the one
                connection.execute("INSERT OR IGNORE INTO keys VALUES (?, ?, ?, NULL)", [own, subject, wrapped])
                found = connection.execute(alive, [subject]).fetchone()
        return found[0], self._unwrapped(found[0], found[1], subject)

    def keep(self, rows: Sequence[tuple[str, str, bytes]]) -> None:
        """Commit openings: a commitment, its key's id and what is sealed, each.

        Raises:
            SinkError: they can't be kept, or their key was erased meanwhile.
        """
        insert = (
            "INSERT INTO openings SELECT ?, ?, ? WHERE EXISTS (SELECT 1 FROM keys WHERE id = ? AND wrapped IS NOT NULL)"
        )
        with self._database.writing() as connection:
            for commitment, key, sealed in rows:
                # INVARIANT: nothing is kept under a key that was erased, or it would look erased and be there
                if connection.execute(insert, (commitment, key, sealed, key)).rowcount != 1:
                    raise SinkError(f"`{self.name}` no longer has the key of what is to be kept: it was erased")

    def open(self, commitment: str) -> Opening:
        """Return the value that a record commits to in `{"$s": commitment}`.

        Raises:
            SinkError: the file can't be read.
            InvalidArgument: it is another key's, or what is kept isn't what the record commits to.
        """
        own = commitment.partition(":")[0]
        with self._database.reading() as connection:
            key = connection.execute("SELECT subject, wrapped FROM keys WHERE id = ?", [own]).fetchone()
            found = connection.execute("SELECT sealed FROM openings WHERE commitment = ?", [commitment]).fetchone()
        if key is not None and key[1] is None:
            return Opening("erased")
        if key is None or found is None:
            return Opening("missing")
        from agentauthz.keys.sealing import unseal

        nonce, value = json.loads(unseal(self._unwrapped(own, key[1], key[0]), found[0], commitment.encode()))
        if not hmac.compare_digest(_commitment(own, bytes.fromhex(nonce), encode(value)), commitment):
            raise InvalidArgument("openings", "don't hold what the record commits to")
        return Opening("opened", value)

    def erase(self, who: Principal, *, dry_run: bool = False) -> Erased:
        """Delete a person's keys and all that was kept under them; doing it again changes nothing.

        What stays is that the keys were there. What is recorded of the person after that has a new key. With `dry_run`,
        only say what there is to erase.

        Raises:
            SinkError: the file can't be used, or another process kept its old pages: then do it again.
            InvalidArgument: it names persons by an instance key that isn't given: nothing is erased.
        """
        subjects = [one.digest("data subject", canonical(who)) for one in self._keys.values()]
        held = f"({', '.join('?' * len(subjects))})"
        with self._database.writing() as connection:
            self._require_all_keys(connection)
            mine = f"SELECT id, wrapped, openings FROM keys WHERE subject IN {held}"  # noqa: S608  (only marks)
            keys = connection.execute(mine, subjects).fetchall()
            gone = sum(count or 0 for _, _, count in keys)
            alive = [own for own, wrapped, _ in keys if wrapped is not None]
            count = 0
            for own in alive:
                counted = "SELECT count(*) FROM openings WHERE key = ?"
                number = connection.execute(counted, [own]).fetchone()[0]
                count += number
                if not dry_run:
                    connection.execute("DELETE FROM openings WHERE key = ?", [own])
                    connection.execute("UPDATE keys SET wrapped = NULL, openings = ? WHERE id = ?", [number, own])
        if not dry_run:
            self._scrub()
        return Erased(self.name, len(alive), count, gone)

    def close(self) -> None:
        """Close the file; doing it again does nothing."""
        self._database.close()

    def _scrub(self) -> None:
        """Leave no older copy of a page: not in the file, not in its log."""
        with self._database.reading() as connection:
            connection.execute("VACUUM")
            if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise SinkError(f"`{self.name}` is read by another process, which keeps what was erased: do it again")

    def _require_all_keys(self, connection: sqlite3.Connection) -> None:
        """Return if every person can be found: who is named by another instance key would seem erased, and be there.

        Raises:
            InvalidArgument: somebody can't.
        """
        epochs = "SELECT DISTINCT substr(subject, 1, instr(subject, ':') - 1) FROM keys WHERE wrapped IS NOT NULL"
        if missing := sorted({epoch for (epoch,) in connection.execute(epochs)} - self._keys.keys()):
            names = ", ".join(f"`{epoch}`" for epoch in missing)
            raise InvalidArgument("key", f"isn't all that `{self.name}` was written with: give {names} as `older`")

    def _unwrapped(self, own: str, wrapped: bytes, subject: str) -> bytes:
        from agentauthz.keys.sealing import unseal

        key = self._keys.get(subject.partition(":")[0])
        if key is None:
            raise InvalidArgument("key", f"isn't the one that `{self.name}` was written with: give it as `older`")
        return unseal(key.derived("openings"), wrapped, own.encode())


@final
class Sealing:
    """Commit to the values of one record, and keep what opens them before the record is written."""

    def __init__(self, openings: Openings) -> None:
        self._openings: Final = openings
        self._keys: Final[dict[bytes, tuple[str, bytes]]] = {}
        self._made: Final[dict[tuple[str, bytes], str]] = {}
        self._rows: Final[list[tuple[str, str, bytes]]] = []

    def commit(self, who: Principal, tree: Json) -> str:
        """Return a commitment to a value that belongs to `who`: one that nobody can guess, the same within the record.

        Raises:
            SinkError, InvalidArgument: as `Openings.key_of`.
        """
        from agentauthz.keys.sealing import seal

        person, content = canonical(who), encode(tree)
        if person not in self._keys:
            self._keys[person] = self._openings.key_of(who)
        own, key = self._keys[person]
        if (own, content) not in self._made:
            nonce = secrets.token_bytes(32)
            made = self._made[own, content] = _commitment(own, nonce, content)
            told = json.dumps([nonce.hex(), tree]).encode()
            self._rows.append((made, own, seal(key, told, made.encode())))
        return self._made[own, content]

    def keep(self) -> None:
        """Keep what opens the commitments.

        Raises:
            SinkError: it can't be kept.
        """
        if self._rows:
            self._openings.keep(self._rows)


def _commitment(own: str, nonce: bytes, content: bytes) -> str:
    return f"{own}:{hmac.new(nonce, b'agentauthz/1/shred' + content, hashlib.sha256).hexdigest()}"


def opened(tree: Mapping[str, Any], openings: Openings | None) -> Mapping[str, Any]:
    """Return a record's JSON with the values that it commits to; one that was erased is `{"$s": "erased"}` there.

    Raises:
        SinkError, InvalidArgument: as `Openings.open`.
    """
    return tree if openings is None else cast("Mapping[str, Any]", _opened(tree, openings))


def _opened(tree: Any, openings: Openings) -> Any:
    if isinstance(tree, list):
        return [_opened(item, openings) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.keys() == {"$s"} and isinstance(tree["$s"], str):
        found = openings.open(tree["$s"])
        return found.value if found.state == "opened" else {"$s": "erased"} if found.state == "erased" else tree
    return {name: _opened(item, openings) for name, item in tree.items()}
