"""Keep sensitive arguments out of what a record shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, final

from agentauthz.canonical import Json, bounded, canonical, encode, jsonable
from agentauthz.principals import Principal
from agentauthz.records.redaction import KINDS, OPEN, SECRET, Held, Place, escaped, masked
from agentauthz.values import UNKNOWN, Value

_SHORTEST: Final = 4  # characters: a shorter secret would be found in any text, so it must be the whole of it
_ROOTS: Final = re.compile(r"(?:subject|args|actor|chain|action|resource|route|purpose|session|context|now)(?:[.\[]|$)")
_MEMBER: Final = re.compile(r'(?:\.([A-Za-z_]\w*)|\["(.*)"\])\Z', re.DOTALL)


def member(path: str, root: str) -> str | None:
    """Return the name of the member of `root` at `path` (`args.amount`, `args["file-path"]`); None: no such path."""
    if not path.startswith(root):
        return None
    found = _MEMBER.match(path, len(root))
    return None if found is None or '"]' in (found[2] or "") else found[1] or found[2]


@final
class Secrets:
    """Know what one call must keep back: by its place, and by what it holds, wherever it turns up again.

    `sensitive` are arguments that are never shown, and `held` is what stands at the places with a class. `pointers`
    are the places in the record where the sensitive arguments would have been.
    """

    __slots__ = ("_held", "_named", "_numbers", "_paths", "_texts", "pointers")

    def __init__(self, sensitive: frozenset[str], args: Mapping[str, object], held: Held | None = None) -> None:
        names = sorted(sensitive & args.keys()) if sensitive else []
        self.pointers = [f"/action/args/{escaped(name)}" for name in names]
        self._held = held
        self._paths = tuple(f"args.{n}" for n in names) + tuple(f'args["{n}"]' for n in names)
        self._named = self._paths + (() if held is None else held.redaction.texts)
        self._texts: dict[str, Place] = {}
        self._numbers: dict[int | float, Place] = {}
        for place, value in () if held is None else held.values:
            self._learn(bounded(value, 10_000, 1_000_000)[0], place, _SHORTEST)
        for name in names:
            self._learn(bounded(args[name], 10_000, 1_000_000)[0], SECRET, 1)

    def _learn(self, tree: Json, place: Place, shortest: int) -> None:
        if place.kind == "public":
            return
        if isinstance(tree, str):
            if len(tree) >= shortest:
                self._know(self._texts, tree, place)
        elif isinstance(tree, dict):
            for tag, item in tree.items():
                if tag[:1] != "$" or tag[:2] == "$$":
                    self._learn(tag, place, shortest)
                if tag not in ("$u", "$x"):  # a principal's kind is no secret
                    self._learn(
                        item[1:] if tag == "$p" and isinstance(item, list) else item,
                        place.below.get(tag, place),
                        shortest,
                    )
        elif isinstance(tree, list):
            for item in tree:
                self._learn(item, place, shortest)
        elif isinstance(tree, int | float) and not isinstance(tree, bool):
            text = encode(tree).decode()
            if len(text) >= shortest:
                self._know(self._numbers, tree, place)
                self._know(self._texts, text, place)

    def _know(self, known: dict[Any, Place], what: object, place: Place) -> None:
        known[what] = max(place, known.get(what, place), key=lambda one: KINDS.index(one.kind))

    def place(self, path: str) -> Place:
        """Return the place that a path leads to, with its class."""
        return OPEN if self._held is None else self._held.redaction.place(path)

    def owner(self, place: Place) -> Principal | None:
        """Return whose it is, what stands at a place to shred; None: nobody can tell."""
        return None if self._held is None else self._held.subjects.get(place.subject)

    def bound(self, args: Mapping[str, object]) -> bytes:
        """Return what a digest of the arguments is made of: all but the shredded, which nobody may guess later."""
        place = self.place("args")
        if place.open:
            return canonical(dict(args))
        return encode(masked(jsonable(dict(args)), place, "", _without_shreds))

    def hides(self, path: str) -> bool:
        """Say whether a path leads to a sensitive argument, or to all arguments at once."""
        return path == "args" or any(
            path.startswith(secret) and path[len(secret) : len(secret) + 1] in ("", ".", "[") for secret in self._paths
        )

    def visible(self, seen: Iterable[tuple[str, Value]]) -> list[tuple[str, Value]]:
        """Return what was seen at other paths."""
        if not self._paths:
            return [(path, value) for path, value in seen if path != "args" or value is UNKNOWN]
        return [(path, value) for path, value in seen if not self.hides(path)]

    def hidden(self, tree: Json) -> Place | None:
        """Return the strictest place whose content a tree repeats: in a text, as a number, or as a name."""
        if not self._texts:
            return None
        return max(self._repeated(tree), key=lambda one: KINDS.index(one.kind), default=None)

    def _repeated(self, tree: Json) -> Iterator[Place]:
        if isinstance(tree, str):
            for text, place in self._texts.items():
                if tree == text or (len(text) >= _SHORTEST and text in tree):
                    yield place
        elif isinstance(tree, dict):
            for name, item in tree.items():
                yield from self._repeated(name)
                yield from self._repeated(item)
        elif isinstance(tree, list):
            for item in tree:
                yield from self._repeated(item)
        elif isinstance(tree, int | float) and not isinstance(tree, bool) and tree in self._numbers:
            yield self._numbers[tree]

    def shown(self, saw: Mapping[str, object], expr: str) -> dict[str, object]:
        """Return what a clause saw, without secrets; where it reads one, its variables may hold parts of it."""
        reads = any(secret in expr for secret in self._named)
        return {
            path: value
            for path, value in saw.items()
            if not self.hides(path) and (not reads or _ROOTS.match(path) is not None)
        }


def _without_shreds(tree: Json, place: Place, _: str) -> Json:
    return {"$s": ""} if place.kind == "shred" else tree
