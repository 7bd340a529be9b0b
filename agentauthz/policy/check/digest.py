"""Compute a rule's own digest: over its canonical text, lets expanded, and the declarations that it rests on."""

from __future__ import annotations

import hashlib
from typing import Final, final

from agentauthz.policy.check.world import ROOT_TYPES, World
from agentauthz.policy.format import Written
from agentauthz.policy.syntax import Pattern, Rule
from agentauthz.principals import KINDS

_BY_ROOT: Final = {
    **dict.fromkeys(("subject", "actor", "approver", "chain"), KINDS),
    "session": ("session",),
    "context": ("context",),
}


@final
class Declarations:
    """Keep the canonical text of declarations, each group of them hashed once."""

    def __init__(self, world: World, written: Written) -> None:
        self._world = world
        self._written = written
        self._types: dict[tuple[str, ...], str] = {}
        self._actions: dict[str, str] = {}

    def digest(self, rule: Rule, roots: set[str]) -> str:
        """Return the rule's digest; `roots` are those that its expressions read."""
        parts = [self._written(rule)]
        if self._world.type_decls:
            groups = {self._names(root) for root in roots} - {()}
            parts += sorted(map(self._of_types, groups))
        if self._world.actions and roots & {"args", "resource"}:
            parts += [self._of_pattern(pattern) for pattern in rule.patterns]
        return _hash(parts)

    def _names(self, root: str) -> tuple[str, ...]:
        if root == "resource":
            return tuple(sorted(self._world.type_decls.keys() - ROOT_TYPES))
        return tuple(name for name in _BY_ROOT.get(root, ()) if name in self._world.type_decls)

    def _of_types(self, names: tuple[str, ...]) -> str:
        if names not in self._types:
            self._types[names] = _hash([self._written(self._world.type_decls[name]) for name in names])
        return self._types[names]

    def _of_pattern(self, pattern: Pattern) -> str:
        text = str(pattern)
        if text not in self._actions:
            decls = [action.decl for action in self._world.matched(pattern) if action.decl is not None]
            self._actions[text] = _hash([self._written(decl) for decl in decls])
        return self._actions[text]


def _hash(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
