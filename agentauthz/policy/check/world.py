"""Hold what is declared: types, actions, marks; and which of it the patterns of a rule select."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Final, final

from attrs import field, frozen

from agentauthz.policy.syntax import ActionDecl, Pattern, TypeDecl
from agentauthz.policy.types import Enumeration, Fields, Sequence
from agentauthz.principals import KINDS, OWN_NAMESPACES

ROOT_TYPES: Final = frozenset({*KINDS, "session", "context"})  # the types that describe roots, not resources


@final
@frozen
class Action:
    """Be a declared action, or a tool: its parameters and its resource's type, where they are known."""

    name: str
    params: Fields | None
    resource: str | None
    decl: ActionDecl | None = None
    open: bool = False  # it takes any other argument too


@final
class World:
    """Hold all declarations; `closed` says that there are no other actions than these."""

    def __init__(
        self,
        types: Mapping[str, Fields],
        actions: Mapping[str, Action],
        marks: frozenset[str],
        type_decls: Mapping[str, TypeDecl],
        *,
        closed: bool = False,
    ) -> None:
        self.types = types
        self.actions = actions
        self.marks = marks
        self.type_decls = type_decls
        self.closed = closed
        self.resources = {name: fields for name, fields in types.items() if name not in ROOT_TYPES}
        self.places: dict[tuple[str, ...], object] = {}  # paths looked up before
        self._selections: dict[tuple[bool, tuple[str, ...]], Selection] = {}
        self._matched: dict[str, tuple[Action, ...]] = {}

    @cached_property
    def attributes(self) -> frozenset[str]:
        """Return the names that the attributes of resources have."""
        return frozenset(name for fields in self.resources.values() for name in fields.fields)

    @cached_property
    def _names(self) -> list[str]:
        return sorted(self.actions)

    def select(self, patterns: Iterable[Pattern]) -> Selection:
        """Return what is known of the calls that a rule is about."""
        patterns = tuple(patterns)
        matching = {str(pattern): pattern for pattern in patterns if self.matched(pattern)}
        known = self.closed or all(pattern.kind == "exact" and pattern.name in self.actions for pattern in patterns)
        key = known and bool(matching), tuple(matching)
        found = self._selections.get(key)
        if found is None:
            actions = {action.name: action for pattern in matching.values() for action in self.matched(pattern)}
            found = self._selections[key] = Selection(self, tuple(actions.values()), key[0])
        return found

    def matched(self, pattern: Pattern) -> tuple[Action, ...]:
        """Return the known actions that a pattern covers."""
        if pattern.kind == "exact":
            action = self.actions.get(pattern.name)
            return () if action is None else (action,)
        text = str(pattern)
        if text not in self._matched:
            self._matched[text] = tuple(self.actions[name] for name in self._matching(pattern))
        return self._matched[text]

    def _matching(self, pattern: Pattern) -> list[str]:
        if pattern.kind == "all":
            return [name for name in self._names if not name.startswith(OWN_NAMESPACES)]
        below = pattern.name + "."
        start, end = bisect_left(self._names, below), bisect_left(self._names, pattern.name + "/")
        return [name for name in self._names[start:end] if name != below]


@final
@frozen(eq=False)
class Selection:
    """Be the known actions that a rule is about; `closed` says that it is about no others."""

    world: World
    actions: tuple[Action, ...]
    closed: bool
    places: dict[tuple[str, ...], object] = field(factory=dict, repr=False)  # paths looked up before

    @cached_property
    def resource_types(self) -> tuple[str, ...] | None:
        """Return the types that the resource may have, or None where nobody says."""
        if not self.closed or any(action.resource is None for action in self.actions):
            return None
        return tuple(sorted({action.resource for action in self.actions if action.resource is not None}))

    @cached_property
    def arguments(self) -> frozenset[str]:
        """Return the names that the arguments of these actions have."""
        return frozenset(name for action in self.actions if action.params for name in action.params.fields)

    @property
    def arguments_closed(self) -> bool:
        """Say whether the parameters of all actions are known."""
        return self.closed and all(action.params is not None and not action.open for action in self.actions)


def host_marks(types: Mapping[str, Fields]) -> frozenset[str]:
    """Return the marks that `type session { marks: ["vip"] }` says the host sets."""
    declared = types["session"].fields.get("marks") if "session" in types else None
    if declared is None or not isinstance(declared[0], Sequence) or not isinstance(declared[0].item, Enumeration):
        return frozenset()
    return declared[0].item.values
