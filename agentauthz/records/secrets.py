"""Keep sensitive arguments out of what a record shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, final

from agentauthz.canonical import Json, bounded, encode, utf8
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


def escaped(name: str) -> str:
    """Return a name as a step of a JSON pointer (RFC 6901 §3), at most 64 characters of it."""
    return utf8(name[:64]).replace("~", "~0").replace("/", "~1")


@final
class Secrets:
    """Know the sensitive arguments of one call: by their paths, and by what they hold, wherever it turns up again.

    `pointers` are the places in the record where they would have been.
    """

    __slots__ = ("_numbers", "_paths", "_texts", "pointers")

    def __init__(self, sensitive: frozenset[str], args: Mapping[str, object]) -> None:
        names = sorted(sensitive & args.keys()) if sensitive else []
        self.pointers = [f"/action/args/{escaped(name)}" for name in names]
        self._paths = tuple(f"args.{n}" for n in names) + tuple(f'args["{n}"]' for n in names)
        self._texts: set[str] = set()
        self._numbers: set[int | float] = set()
        for name in names:
            self._learn(bounded(args[name], 10_000, 1_000_000)[0])

    def _learn(self, tree: Json) -> None:
        if isinstance(tree, str):
            if tree:
                self._texts.add(tree)
        elif isinstance(tree, dict):
            for tag, item in tree.items():
                if tag != "$u":
                    self._learn(tag)
                    self._learn(item)
        elif isinstance(tree, list):
            for item in tree:
                self._learn(item)
        elif isinstance(tree, int | float) and not isinstance(tree, bool):
            self._numbers.add(tree)
            self._texts.add(encode(tree).decode())

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

    def within(self, tree: Json) -> bool:
        """Say whether a tree repeats a secret: in a text, as a number, or as a name."""
        if not self._paths:
            return False
        if isinstance(tree, str):
            return tree in self._texts or any(len(text) >= _SHORTEST and text in tree for text in self._texts)
        if isinstance(tree, dict):
            return any(self.within(name) or self.within(item) for name, item in tree.items())
        if isinstance(tree, list):
            return any(map(self.within, tree))
        return isinstance(tree, int | float) and not isinstance(tree, bool) and tree in self._numbers

    def shown(self, saw: Mapping[str, object], expr: str) -> dict[str, object]:
        """Return what a clause saw, without secrets; where it reads one, its variables may hold parts of it."""
        reads = any(secret in expr for secret in self._paths)
        return {
            path: value
            for path, value in saw.items()
            if not self.hides(path) and (not reads or _ROOTS.match(path) is not None)
        }
