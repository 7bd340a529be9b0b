"""Look up paths: what is declared at a place, by the kind, type or action that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias, cast, final

from attrs import field, frozen

from agentauthz.policy.check.static import CHAIN, HOP, KIND_NAMES, RESOURCE, Kinds, unite
from agentauthz.policy.check.world import Selection
from agentauthz.policy.types import (
    ANYTHING,
    INT,
    LACKING,
    PRINCIPAL,
    STRING,
    TIME,
    Anything,
    Declared,
    Fields,
    Lacking,
    Type,
)
from agentauthz.policy.types import Sequence as ListOfType
from agentauthz.principals import KINDS

Owner: TypeAlias = Literal["principal", "resource", "args"]  # what an attribute's declaration hangs on

PRINCIPALS: Final = frozenset({"subject", "actor", "approver"})
_PRINCIPAL_PARTS: Final[Mapping[str, Type]] = {"id": STRING, "kind": KIND_NAMES, "issuer": STRING}
_RESOURCE_PARTS: Final[Mapping[str, Type]] = {"id": STRING, "type": STRING}
_UNDECLARED: Final = ""  # stands for any name that nobody declares: no declared one is empty
_SESSION_PARTS: Final[Mapping[str, Type]] = {"id": STRING, "started": TIME, "marks": ListOfType(STRING)}
_PARTS: Final[Mapping[str, Mapping[str, Type]]] = {
    "principal": _PRINCIPAL_PARTS,
    "resource": _RESOURCE_PARTS,
    "args": {},
    "session": _SESSION_PARTS,
    "chain": {"depth": INT},
    "action": {"name": STRING},
}


@final
@frozen
class Branch:
    """Be what one kind, type or action says of a path; `optional` and `lacks` are lengths of its prefixes."""

    tag: str | None
    type: Type
    optional: tuple[int, ...] = ()
    lacks: int | None = None  # the prefix that this tag's declaration doesn't have
    through: Type | None = None  # a value without attributes, where it was asked for one


@final
@frozen
class Reading:
    """Be what a path may hold, once the tags that are ruled out are left aside."""

    kinds: Kinds
    optional: frozenset[int] = frozenset()  # lengths of the prefixes that may be absent
    lacking: tuple[Branch, ...] = ()  # first those that have the longest prefix
    unknown: bool = False  # nothing that may be meant has it


@final
@frozen
class Place:
    """Be what is declared of a path; without branches, nothing is."""

    branches: tuple[Branch, ...] = ()
    owner: Owner | None = None
    prefix: int = 0  # the length of the path of the principal, resource or arguments
    closed: bool = True  # no other tags than these are possible
    known: frozenset[str] = frozenset()  # names that could stand where the first unknown one does
    declared: Declared | None = None
    _read: dict[object, Reading] = field(factory=dict, eq=False, repr=False)

    def reading(self, tags: frozenset[str] | None) -> Reading:
        """Return what the path holds where its owner is one of `tags` (None: any)."""
        found = self._read.get(tags)
        if found is None:
            found = self._read[tags] = self._reading(tags)
        return found

    def _reading(self, tags: frozenset[str] | None) -> Reading:
        possible = [b for b in self.branches if tags is None or b.tag is None or b.tag in tags]
        having = [b for b in possible if b.type != LACKING]
        lacking = tuple(sorted((b for b in possible if b.type == LACKING), key=lambda b: -(b.lacks or 0)))
        if not having:
            return Reading((), lacking=lacking, unknown=bool(lacking))
        optional = {length for b in having for length in b.optional}
        if self.closed:
            optional |= {b.lacks for b in lacking if b.lacks is not None}
        kinds = unite(*((b.type,) for b in having))
        return Reading(kinds, frozenset(optional), lacking if self.closed else ())


def look_up(selection: Selection, path: tuple[str, ...], variable: Kinds | None) -> Place:
    """Return what is declared of a path; `variable` has the types of its root where that is one."""
    if variable is not None:
        return _follow(selection, tuple(Branch(None, kind) for kind in variable), path, 1)
    # who acts and when is the same for every rule; only arguments and resources hang on its actions
    known = selection.places if path[0] in ("args", "resource") else selection.world.places
    found = known.get(path)
    if found is None:
        same = _representative(selection, path)
        found = known.get(same) or _from_root(selection, same)
        known[path] = known[same] = found
    return cast(Place, found)


def _representative(selection: Selection, path: tuple[str, ...]) -> tuple[str, ...]:
    """Return a path with the same place; it is one for all names that no action, or no resource type, declares.

    A place is as large as the declarations are many, so that it must not be made anew for each such name.
    """
    if len(path) == 1 or path[0] not in ("args", "resource"):
        return path
    if path[0] == "args":
        return path if path[1] in selection.arguments else (path[0], _UNDECLARED)
    known = path[1] in _RESOURCE_PARTS or path[1] in selection.world.attributes
    return path if known else (path[0], _UNDECLARED)


def _from_root(selection: Selection, path: tuple[str, ...]) -> Place:
    root = path[0]
    if root in PRINCIPALS:
        return _of_principal(selection, path, 1)
    if root in ("purpose", "route"):
        return _follow(selection, (Branch(None, STRING),), path, 1)
    if root == "now":
        return _follow(selection, (Branch(None, TIME),), path, 1)
    if root in ("resource", "args"):
        return _of_resource(selection, path) if root == "resource" else _of_args(selection, path)
    if root == "chain" and len(path) == 1:
        return Place((Branch(None, CHAIN),))
    return _of_parts(selection, path) if root in ("session", "context", "action", "chain") else Place()


def _of_parts(selection: Selection, path: tuple[str, ...]) -> Place:
    """Follow a root that is a record with built-in names, and declared ones besides."""
    root, parts = path[0], _PARTS.get(path[0], {})
    declared = selection.world.types.get(root)
    if len(path) == 1:
        return Place((Branch(None, declared or Fields({}, root)),))
    if path[1] in parts:
        return _follow(selection, (Branch(None, parts[path[1]]),), path, 2)
    if root in ("action", "chain"):
        declared = Fields({}, root)
    if declared is None:
        return Place()
    only: dict[str | None, Fields] = {None: declared}
    return _by_tag(selection, only, path, 1, None, closed=True, parts=parts)


def _of_principal(selection: Selection, path: tuple[str, ...], prefix: int) -> Place:
    if len(path) == prefix:
        return Place((Branch(None, PRINCIPAL),), owner="principal", prefix=prefix)
    if path[prefix] in _PRINCIPAL_PARTS:
        return _follow(selection, (Branch(None, _PRINCIPAL_PARTS[path[prefix]]),), path, prefix + 1)
    types = selection.world.types
    declared: dict[str | None, Fields] = {kind: types[kind] for kind in KINDS if kind in types}
    # an approver is a person in all but odd cases: what only users have needs no guard in `by`
    closed = path[0] != "approver"
    return _by_tag(selection, declared, path, prefix, "principal", closed=closed, parts=_PRINCIPAL_PARTS)


def _of_resource(selection: Selection, path: tuple[str, ...]) -> Place:
    if len(path) == 1:
        return Place((Branch(None, RESOURCE),), owner="resource", prefix=1)
    if path[1] in _RESOURCE_PARTS:
        return _follow(selection, (Branch(None, _RESOURCE_PARTS[path[1]]),), path, 2)
    world, possible = selection.world, selection.resource_types
    every = world.places.get(path)
    if every is None:  # it is the same for all rules
        every = world.places[path] = _of_types(selection, world.resources, path, closed=False)
    if possible is None:
        return cast(Place, every)
    declared = {name: world.resources[name] for name in possible if name in world.resources}
    place = _of_types(selection, declared, path, closed=True)
    # at run time the resource may be of another type all the same, and is then judged by that one's declaration
    return Place(place.branches, "resource", 1, True, place.known, cast(Place, every).declared)


def _of_types(selection: Selection, types: Mapping[str, Fields], path: tuple[str, ...], *, closed: bool) -> Place:
    by_tag: dict[str | None, Fields] = dict(types.items())
    return _by_tag(selection, by_tag, path, 1, "resource", closed=closed, parts=_RESOURCE_PARTS)


def _of_args(selection: Selection, path: tuple[str, ...]) -> Place:
    if len(path) == 1:
        return Place((Branch(None, Fields({}, "args")),))
    declared: dict[str | None, Fields] = {}
    for action in selection.actions:
        if action.params is not None and (path[1] in action.params.fields or not action.open):
            declared[action.name] = action.params
    return _by_tag(selection, declared, path, 1, "args", closed=selection.arguments_closed, parts={})


def _by_tag(
    selection: Selection,
    declared: Mapping[str | None, Fields],
    path: tuple[str, ...],
    prefix: int,
    owner: Owner | None,
    *,
    closed: bool,
    parts: Mapping[str, Type],
) -> Place:
    branches = [_step(Branch(tag, fields), path[prefix], prefix + 1) for tag, fields in declared.items()]
    place = _follow(selection, branches, path, prefix + 1)
    known = place.known
    if all(branch.type == LACKING for branch in branches):
        known = frozenset({*parts, *(name for fields in declared.values() for name in fields.fields)})
    types = {branch.tag: branch.type for branch in place.branches if branch.type != ANYTHING}
    return Place(place.branches, owner, prefix, closed, known, Declared(types) if types else None)


def _follow(selection: Selection, branches: Iterable[Branch], path: tuple[str, ...], length: int) -> Place:
    """Follow the rest of a path, from where its first `length` names led."""
    branches = tuple(branches)
    known: frozenset[str] = frozenset()
    # an element of a declared list of records; what a hop has is the library's own word
    declarable = length == 1 and all(branch.type != HOP for branch in branches)
    for at in range(length, len(path)):
        if any(branch.type == PRINCIPAL for branch in branches):
            return _of_principal(selection, path, at)
        owners = [branch.type for branch in branches if isinstance(branch.type, Fields)]
        branches = tuple(_step(branch, path[at], at + 1) for branch in branches)
        if not known and all(branch.type == LACKING for branch in branches):
            known = frozenset(name for owner in owners for name in owner.fields)
    declared: Declared | None = None
    if declarable and len(path) > 1 and len(branches) == 1 and not isinstance(branches[0].type, Anything):
        declared = Declared({None: branches[0].type})
    return Place(branches, known=known, declared=declared)


def _step(branch: Branch, name: str, length: int) -> Branch:
    match branch.type:
        case Anything() | Lacking():
            return branch
        case Fields(fields) if name in fields:
            kind, optional = fields[name]
            return Branch(branch.tag, kind, (*branch.optional, length) if optional else branch.optional)
        case Fields():
            return Branch(branch.tag, LACKING, branch.optional, lacks=length)
        case other:
            return Branch(branch.tag, LACKING, branch.optional, lacks=length, through=other)
