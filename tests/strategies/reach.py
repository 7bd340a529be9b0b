"""Say which paths a rule may read: what its patterns select of what is declared, and how each path is guarded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

from attrs import define, field, frozen

from tests.strategies.world import (
    ACTIONS,
    AGENT_ONLY,
    ARGUMENTS,
    BASE,
    COMMON,
    CONTEXT,
    EVERY_ARGUMENT,
    HANDOFF,
    ORDER_ONLY,
    RESOURCE_OF,
    SESSION,
    Attribute,
    Kind,
    Status,
    World,
)


@final
@frozen
class Place:
    """Be one path that may be read: `guard` is what must be true beside it, `name` the attribute that it ends in."""

    text: str
    kind: Kind
    status: Status = "free"
    guard: str | None = None
    name: str = ""


@final
@define
class Reach:
    """Hold what one rule may read, by kind of value."""

    places: dict[Kind, list[Place]]
    types: tuple[str, ...]  # resource types that `resource is …` may ask for
    marks: tuple[str, ...]
    variables: dict[Kind, list[Place]] = field(factory=dict)

    def of(self, kind: Kind) -> list[Place]:
        """Return the places that hold values of a kind."""
        return self.places.get(kind, []) + self.variables.get(kind, [])


def reach(world: World, patterns: Sequence[str], marks: tuple[str, ...]) -> Reach:
    """Return what a rule on `patterns` may read."""
    found: dict[Kind, list[Place]] = {}
    for place in (*_arguments(world, patterns), *_resource(world, patterns), *_principals(world), *_roots(world)):
        found.setdefault(place.kind, []).append(place)
    return Reach(found, _types(world, patterns), marks)


def everywhere(world: World) -> Reach:
    """Return what a `let` may read wherever it is used."""
    found: dict[Kind, list[Place]] = {}
    for place in (*_principals(world), *_roots(world)):
        found.setdefault(place.kind, []).append(place)
    return Reach(found, (), ())


def matched(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the actions that some of the patterns cover."""
    return [name for name in names if any(_covers(pattern, name) for pattern in patterns)]


def _covers(pattern: str, name: str) -> bool:
    bare = pattern.strip('"')
    if bare == "*":
        return not name.startswith("delegation.")
    return name.startswith(bare[:-1]) if bare.endswith(".*") else bare == name


def _status(attribute: Attribute, declared: bool) -> Status:
    return "free" if not declared else "optional" if attribute.optional else "required"


def _principals(world: World) -> Iterator[Place]:
    declared = world.types & {"user", "agent", "service"}
    for root in ("actor", "subject"):
        for attribute in BASE:
            yield Place(
                f"{root}.{attribute.name}", attribute.kind, _status(attribute, bool(declared)), name=attribute.name
            )
        for attribute in AGENT_ONLY:
            if not declared or "agent" in declared:
                guard = f"{root} is agent" if declared else None
                yield Place(
                    f"{root}.{attribute.name}",
                    attribute.kind,
                    _status(attribute, bool(declared)),
                    guard,
                    attribute.name,
                )


def _roots(world: World) -> Iterator[Place]:
    for root, attributes in (("session", SESSION), ("context", CONTEXT)):
        for attribute in attributes:
            yield Place(
                f"{root}.{attribute.name}", attribute.kind, _status(attribute, root in world.types), name=attribute.name
            )
    yield Place("purpose", "string", "required", name="purpose")
    yield Place("route", "string", "required", name="route")
    yield Place("now", "time", "required", name="now")
    yield Place("session.started", "time", "required", name="started")
    yield Place("action.name", "string", "required", name="action")


def _arguments(world: World, patterns: Sequence[str]) -> Iterator[Place]:
    known = matched(patterns, sorted(world.actions))
    closed = all(pattern.strip('"') in world.actions for pattern in patterns)
    for argument in _asked(patterns):
        having = [name for name in known if argument in ARGUMENTS[name]]
        if known and not having:
            continue
        lacks = closed and len(having) < len(known)
        optional = bool(having) and (argument.optional or lacks)
        status: Status = "optional" if optional else "required" if having else "free"
        yield Place(f"args.{argument.name}", argument.kind, status, name=argument.name)


def _asked(patterns: Sequence[str]) -> list[Attribute]:
    """Return the arguments that the calls which the patterns cover are likely to have."""
    calls = matched(patterns, ACTIONS)
    likely = [a for a in EVERY_ARGUMENT if all(a in ARGUMENTS[name] for name in calls)]
    return likely or list(EVERY_ARGUMENT if HANDOFF not in patterns else ())


def _types(world: World, patterns: Sequence[str]) -> tuple[str, ...]:
    declared = tuple(sorted(world.types & {"Order", "Doc"}))
    possible = _possible(world, patterns)
    return declared if possible is None else possible if len(possible) > 1 else ()


def _possible(world: World, patterns: Sequence[str]) -> tuple[str, ...] | None:
    names = [pattern.strip('"') for pattern in patterns]
    types = {RESOURCE_OF.get(name, "") for name in names}
    if not all(name in world.actions for name in names) or not types <= world.types:
        return None
    return tuple(sorted(types))


def _resource(world: World, patterns: Sequence[str]) -> Iterator[Place]:
    declared = world.types & {"Order", "Doc"}
    possible = _possible(world, patterns)
    for attribute in COMMON:
        yield Place(
            f"resource.{attribute.name}", attribute.kind, _status(attribute, bool(declared)), name=attribute.name
        )
    if declared and "Order" not in (declared if possible is None else possible):
        return
    guard = "resource is Order" if possible is not None and len(possible) > 1 else None
    for attribute in ORDER_ONLY:
        yield Place(
            f"resource.{attribute.name}", attribute.kind, _status(attribute, bool(declared)), guard, attribute.name
        )
    yield Place("resource.meta.n", "number", "required" if declared else "free", guard, "n")
    yield Place("resource.meta.b", "string", "optional" if declared else "free", guard, "b")
