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
from typing import Any, Final, final

from attrs import frozen

from agentauthz.policy.cache.codec import Reader, Writer
from agentauthz.policy.cache.folder import default_folder, read_file, write_file
from agentauthz.policy.check import Checked
from agentauthz.policy.compile.demands import Demand, Slot, demands
from agentauthz.policy.source import Source
from agentauthz.policy.syntax import CheckedRule, Later

__all__ = ["Cached", "default_folder", "read", "write"]

_MAGIC: Final = b"agentauthz checked policies 1 "
_EAGER: Final = (
    "effect", "name", "patterns", "span", "because", "mark", "obligations", "by", "within", "amount", "bound", "per",
    "window", "digest",
)  # fmt: skip


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
    bodies: list[bytes] = []
    rules: list[Any] = []
    at = 0
    for rule in checked.rules:
        body = b"" if rule.condition is None else _compact(writer.write(rule.condition))
        found = [[slots.setdefault(d.slot, len(slots)), d.place, writer.write(d.keys)] for d in demands(rule)]
        rules.append([at, len(body), found, *(writer.write(getattr(rule, name)) for name in _EAGER)])
        bodies.append(body)
        at += len(body)
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
    return b"%b\n%b" % (_compact(head), b"".join(bodies))


def _compact(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _read(head: Any, bodies: bytes, sources: Sequence[Source]) -> Cached:
    reader = Reader(sources, head["mappings"])
    slots = [Slot.of(*reader.read(slot)) for slot in head["slots"]]
    rules = tuple([_rule(reader, bodies, row) for row in head["rules"]])
    kept = {rule.name: row[2] for rule, row in zip(rules, head["rules"], strict=True)}

    def demanded(rule: CheckedRule) -> tuple[Demand, ...]:
        return tuple(Demand(slots[slot], reader.read(keys), place) for slot, place, keys in kept[rule.name])

    checked = Checked(
        rules,
        reader.read(head["diagnostics"]),
        reader.read(head["actions"]),
        reader.read(head["types"]),
        frozenset(head["marks"]),
        frozenset(head["tracked"]),
    )
    return Cached(checked, head["digest"], demanded)


def _rule(reader: Reader, bodies: bytes, row: list[Any]) -> CheckedRule:
    start, length = row[0], row[1]
    condition = None
    if length:
        condition = Later(lambda: reader.read(json.loads(bodies[start : start + length])))
    values = dict(zip(_EAGER, map(reader.read, row[3:]), strict=True))
    return CheckedRule(condition=condition, **values)
