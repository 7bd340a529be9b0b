"""Keep checked policies on disk, so that a process that starts again needn't parse and check them again.

What is kept is data: JSON with a digest of its own, in a folder that only this user can write, under a key made
of the policies' text and of this library's own code. Whatever is damaged, another's, or of another version is
ignored. The digest finds damage, not malice: whoever can write this folder as this user can also change the
policies, the library and the process.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final, final

from attrs import frozen

from agentauthz.policy.cache.codec import Json, Reader, Writer
from agentauthz.policy.cache.folder import read_file, write_file
from agentauthz.policy.check import Checked
from agentauthz.policy.compile.demands import Demand, Slot, demands
from agentauthz.policy.source import Source
from agentauthz.policy.syntax import CheckedRule, Later, Pattern

__all__ = ["Cached", "read", "write"]

_MAGIC: Final = b"agentauthz checked policies 1 "
_SELDOM: Final = ("obligations", "by", "within", "amount", "bound", "per", "window")
_NO_CLAUSES: Final = [["l"], None, None, None, None, ["l"], None]


@final
@frozen(eq=False)
class Cached:
    """Be what was kept: the checked set, its digest, and what each rule demands."""

    checked: Checked
    digest: str
    demanded: Callable[[CheckedRule], tuple[Demand, ...]]


def read(folder: pathlib.Path, sources: Sequence[Source]) -> Cached | None:
    """Return what was kept for these sources, or None where nothing is that can be trusted."""
    key = _key(sources)
    content = read_file(folder, key, _MAGIC)
    if content is None:
        return None
    try:
        end = content.index(b"\n")
        head = json.loads(content[:end])
        return _read(head, content[end + 1 :], sources) if head["key"] == key else None
    except Exception:  # its digest is right, and yet it isn't ours
        return None


def write(folder: pathlib.Path, sources: Sequence[Source], checked: Checked, digest: str) -> None:
    """Keep a checked set without errors; where that fails, nothing is kept."""
    key = _key(sources)
    try:
        content = _content(key, sources, checked, digest)
    except (TypeError, RecursionError):
        return
    write_file(folder, key, _MAGIC, content)


def _key(sources: Sequence[Source]) -> str:
    hashed = hashlib.sha256(_build().encode())
    for source in sources:
        for text in (source.name, source.text):
            data = text.encode("utf-8", "surrogatepass")
            hashed.update(b"%d:%b" % (len(data), data))
    return hashed.hexdigest()


@functools.cache
def _build() -> str:
    """Return a digest of what parses and checks: our own code, and the Python that runs it."""
    hashed = hashlib.sha256(sys.version.encode())
    for file in sorted(_code(resources.files("agentauthz")), key=str):
        hashed.update(file.read_bytes())
    return hashed.hexdigest()


def _code(folder: Traversable) -> Iterator[Traversable]:
    """Return the files of the policy package, and those that it rests on."""
    for entry in folder.iterdir():
        if entry.is_file() and entry.name.endswith((".py", ".lark")):
            yield entry
        elif entry.is_dir() and (entry.name == "policy" or folder.name == "policy"):
            yield from _code(entry)


# ---- the content: a line of JSON, then the conditions, each found by its place


def _content(key: str, sources: Sequence[Source], checked: Checked, digest: str) -> bytes:
    writer = Writer(sources)
    slots: dict[Slot, int] = {}
    conditions: list[bytes] = []
    rules: list[Json] = []
    at = 0
    for rule in checked.rules:
        condition = b"" if rule.condition is None else _compact(writer.write(rule.condition))
        seldom = [writer.write(getattr(rule, name)) for name in _SELDOM]
        rules.append([
            at,
            len(condition),
            [[slots.setdefault(d.slot, len(slots)), d.place, *map(writer.write, d.keys)] for d in demands(rule)],
            rule.effect,
            rule.name,
            [part for pattern in rule.patterns for part in (pattern.kind, pattern.name, *writer.place(pattern.span))],
            *writer.place(rule.span),
            rule.because,
            rule.mark,
            rule.digest,
            None if seldom == _NO_CLAUSES else seldom,
        ])  # fmt: skip
        conditions.append(condition)
        at += len(condition)
    head = {
        "key": key,
        "digest": digest,
        "slots": [writer.write(slot.plain()) for slot in slots],
        "rules": rules,
        "diagnostics": writer.write(checked.diagnostics),
        "actions": writer.write(checked.actions),
        "types": writer.write(checked.types),
        "marks": sorted(checked.marks),
        "tracked": sorted(checked.tracked),
        "mappings": writer.mappings,
    }
    return b"%b\n%b" % (_compact(head), b"".join(conditions))


def _compact(data: Json) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _read(head: Json, conditions: bytes, sources: Sequence[Source]) -> Cached:
    reader = Reader(sources, head["mappings"])
    slots = [Slot.of(*reader.read(slot)) for slot in head["slots"]]
    rows = head["rules"]
    rules = tuple([_rule(reader, conditions, row) for row in rows])
    kept = {row[4]: row[2] for row in rows}

    def demanded(rule: CheckedRule) -> tuple[Demand, ...]:
        return tuple([Demand(slots[at], tuple(map(reader.read, keys)), place) for at, place, *keys in kept[rule.name]])

    checked = Checked(
        rules,
        reader.read(head["diagnostics"]),
        reader.read(head["actions"]),
        reader.read(head["types"]),
        frozenset(head["marks"]),
        frozenset(head["tracked"]),
    )
    return Cached(checked, head["digest"], demanded)


def _rule(reader: Reader, conditions: bytes, row: list[Json]) -> CheckedRule:
    at, size, _, effect, name, parts, start, length, because, mark, digest, seldom = row
    patterns = [
        Pattern(parts[i], parts[i + 1], span=reader.span(parts[i + 2], parts[i + 3])) for i in range(0, len(parts), 4)
    ]
    rest = {} if seldom is None else dict(zip(_SELDOM, map(reader.read, seldom), strict=True))
    condition = Later(lambda: reader.read(json.loads(conditions[at : at + size]))) if size else None
    span = reader.span(start, length)
    return CheckedRule(
        effect, name, tuple(patterns), condition, span=span, because=because, mark=mark, digest=digest, **rest
    )
