"""Write the pieces of a record, secrets left out, and what is too big replaced by its digest.

A draft collects what the record has to tell about itself meanwhile, and makes its line in the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from secrets import token_bytes
from typing import Final, TypeVar, final

from agentauthz.canonical import Json, bounded, canonical, encode, jsonable, quote, utf8
from agentauthz.keys import InstanceKey
from agentauthz.records.lines import ALONE, MAX_BODY, MAX_NAME, compact, finished
from agentauthz.records.redaction import OPEN, Held, Place, masked
from agentauthz.records.secrets import Secrets

T = TypeVar("T")

MAX_PROSE: Final = 1000  # of a reason's text
MAX_VALUE: Final = 2048  # of one value, with at most 400 elements
MAX_LISTED: Final = 16  # rules, reasons, obligations, actions of a hop that one record names
MAX_INPUTS: Final = 256  # and clauses of one rule
MAX_OPENING: Final = 32 * 1024  # of one value that is shredded

NO_SECRETS: Final = Secrets(frozenset(), {})

# What gives way first where a line would be too long; the identities go last
_DROPPED: Final = (
    "explain", "action/args", "resource/attributes", "inputs", "action/given", "missing", "undetermined",
    "obligations", "budgets", "consents", "marks", "reasons", "rules", "delegation/scopes", "delegation/audience",
    "delegation/hop", "chain", "actors",
)  # fmt: skip


@final
class Draft:
    """Collect what a record must tell about itself while its parts are written."""

    __slots__ = ("key", "members", "more", "oversized", "parts", "redacted", "sealing", "secrets")

    def __init__(self, key: InstanceKey, secrets: Secrets, held: Held | None) -> None:
        self.key = key
        self.secrets = secrets
        self.sealing = None if held is None else held.redaction.sealing()
        self.redacted = list(secrets.pointers)
        self.oversized: dict[str, str] = {}
        self.more: dict[str, int] = {}
        self.members: dict[str, dict[str, str]] = {"args": {}, "resource": {}}
        self.parts: list[str] = []

    # ---- pieces: each is JSON text

    def name(self, text: str, pointer: str, step: object = None) -> str:
        """Write a name or an id, which a secret argument can't hide."""
        if len(text) <= MAX_NAME and text.isascii():
            return quote(text)
        return quote(self.clipped(text, MAX_NAME, pointer if step is None else f"{pointer}/{step}"))

    def named(self, field: str, text: str | None) -> str:
        return "" if text is None else f',"{field}":{self.name(text, "", field)}'

    def listed(self, field: str, names: Sequence[str]) -> str:
        return f',"{field}":{self.names(names, "/" + field)}' if names else ""

    def names(self, names: Sequence[str], pointer: str, limit: int = MAX_LISTED) -> str:
        every = "".join(names)
        if len(every) <= MAX_NAME and every.isascii() and len(names) <= MAX_LISTED:
            return f"[{','.join(map(quote, names))}]"
        return f"[{','.join([self.name(text, pointer, i) for i, text in self.first(names, pointer, limit)])}]"

    def prose(self, text: str, pointer: str) -> str:
        if (place := self.secrets.hidden(text)) is not None:
            self.redacted.append(pointer)
            return quote(self.commit(text, place, pointer))
        return quote(text if len(text) <= MAX_PROSE and text.isascii() else self.clipped(text, MAX_PROSE, pointer))

    def clipped(self, text: str, limit: int, pointer: str) -> str:
        written = utf8(text[:limit])
        if written != text:  # too long, or UTF-8 has no such text
            self.oversized[pointer] = self.key.digest("value", canonical(text))
        return written

    def value(self, value: object, pointer: str, place: Place = OPEN) -> Json:
        """Write a value by its class, or commit to it where it is too big or repeats a secret."""
        if place.open:
            tree, fits = bounded(value, 400, MAX_VALUE)
            if fits and self.secrets is NO_SECRETS:
                return tree
            whole = tree if fits else jsonable(value)
        else:
            tree = masked(jsonable(value), place, pointer, self._classed)
            whole = tree
            fits = len(compact(tree)) <= MAX_VALUE
        hidden = self.secrets.hidden(whole)
        if hidden is not None and hidden.kind == "shred":
            return self._tagged(whole, hidden, pointer)
        if fits and hidden is None:
            return tree
        digest = self.key.digest("value", encode(whole))
        if not fits:
            self.oversized[pointer] = digest
        else:
            self.redacted.append(pointer)
        return {"$c": digest}

    def veiled(self, value: object, pointer: str) -> Json:
        """Commit to a value without showing it."""
        self.redacted.append(pointer)
        return {"$c": self.key.digest("value", encode(jsonable(value)))}

    def _classed(self, tree: Json, place: Place, pointer: str) -> Json:
        """Return what stands in the place of something with a class."""
        if place.kind == "secret":
            self.redacted.append(pointer)
            return {"$u": "secret"}
        return self._tagged(tree, place, pointer)

    def _tagged(self, tree: Json, place: Place, pointer: str) -> Json:
        text = self.commit(tree, place, pointer)
        if pointer not in self.oversized:
            self.redacted.append(pointer)
        return {"$s" if text[:1] == "s" else "$c": text}

    def commit(self, tree: Json, place: Place, pointer: str) -> str:
        """Return a commitment, which depends on the value alone unless it is to be shredded."""
        if place.kind != "shred":
            return self.key.digest("value", encode(tree))
        owner = self.secrets.owner(place)
        if owner is not None and len(compact(tree)) <= MAX_OPENING:
            assert self.sealing is not None  # a redaction that shreds has openings
            return self.sealing.commit(owner, tree)
        # nobody can open it again, and a digest of what it was could be guessed when it is to be gone
        digest = self.key.digest("value", token_bytes(32))
        if owner is not None:
            self.oversized[pointer] = digest
        return digest

    def first(self, items: Sequence[T], pointer: str, limit: int = MAX_LISTED) -> Iterable[tuple[int, T]]:
        """Return the first elements with their places, and count the rest."""
        if len(items) <= limit:
            return enumerate(items)
        self.more[pointer] = len(items) - limit
        return enumerate(items[:limit])

    # ---- the whole

    def line(self) -> bytes:
        """Return the line of the parts, at no place yet; where it is too long, parts give way until it fits."""
        meta = f',"meta":{compact(self._meta())}' if self.redacted or self.oversized or self.more else ""
        text = "".join(self.parts)
        line = finished(f"{text}{meta}}}")
        return ALONE + (line if len(line) <= MAX_BODY else self._shortened(json.loads(f"{{{text}}}")))

    def _meta(self) -> dict[str, Json]:
        redacted: list[Json] = [pointer for _, pointer in self.first(self.redacted, "/meta/redacted")]
        told: dict[str, Json] = {"redacted": redacted, "oversized": {**self.oversized}, "more": {**self.more}}
        return {name: value for name, value in told.items() if value}

    def _shortened(self, tree: dict[str, Json]) -> bytes:
        line = b""
        for path in _DROPPED:
            self._drop(tree, path)
            line = finished(compact({**tree, "meta": self._meta()})[1:])
            if len(line) <= MAX_BODY:
                break
        return line

    def _drop(self, tree: dict[str, Json], path: str) -> None:
        *outer, name = path.split("/")
        holder = tree.get(outer[0], {}) if outer else tree
        if not isinstance(holder, dict) or name not in holder:
            return
        below = f"/{path}/"
        # what was said about parts of it goes with it
        self.oversized = {
            pointer: digest for pointer, digest in self.oversized.items() if not pointer.startswith(below)
        }
        self.more = {pointer: count for pointer, count in self.more.items() if not pointer.startswith(below)}
        self.oversized[f"/{path}"] = self.key.digest("value", encode(holder.pop(name)))
