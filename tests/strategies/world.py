"""Hold the small fixed vocabulary of the generated policies and requests, so that rules really meet what is asked."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, final

from attrs import frozen

from tests.strategies.choose import Choose

Kind: TypeAlias = Literal["number", "string", "bool", "time", "duration", "strings", "numbers", "records", "record"]
Status: TypeAlias = Literal["free", "required", "optional"]  # not declared; declared; declared with a question mark

NOW: Final = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
ROLES: Final = ("support", "admin", "ops")
LEVELS: Final = ("low", "secret")
NAMES: Final = ("maria", "bob", "x")
MAILS: Final = ("a@example.com", "b@Evil.test", "no mail", "x@mail.example.com")
URLS: Final = ("https://example.com/a", "http://10.0.0.1:80/", "https://evil.test@example.com/", "HTTPS://Example.com")
PATHS: Final = ("/srv/data/a", "/srv/data/../key", "/srv", "srv/data", "//srv/data")
IPS: Final = ("10.0.0.1", "192.168.1.9", "::1", "::ffff:10.0.0.1", "elsewhere")
TAGS: Final = ("red", "blue", "green")
PURPOSES: Final = ("support", "audit")
MARKS: Final = ("secret", "tainted")
HOST_MARKS: Final = ("vip", "checked")

ACTIONS: Final = ("pay.refund", "pay.send", "crm.read", "mail.send", "mcp/tool")
HANDOFF: Final = "delegation.handoff"

DOMAINS: Final[Mapping[str, tuple[object, ...]]] = {
    "roles": ROLES, "org": ("a", "b"), "team": ("red", "blue"), "level": LEVELS, "owner": NAMES, "extra": ("low", "x"),
    "labels": TAGS, "tags": TAGS, "to": MAILS, "note": ("", "hello world", "a*b"), "url": URLS, "path": PATHS,
    "env": ("prod", "test"), "ip": IPS, "host": ("example.com", "h"), "region": ("eu", "us"), "sku": TAGS,
    "b": ("x", "y"),
}  # fmt: skip


@final
@frozen
class Attribute:
    """Be one attribute of the vocabulary: its declaration, what kind of value it holds, whether it may be missing."""

    name: str
    declared: str
    kind: Kind
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.name}{'?' if self.optional else ''}: {self.declared}"


def _attributes(*rows: tuple[str, str, Kind]) -> tuple[Attribute, ...]:
    return tuple(Attribute(name.rstrip("?"), declared, kind, name.endswith("?")) for name, declared, kind in rows)


BASE: Final = _attributes(
    ("trust", "int", "number"), ("roles", "[string]", "strings"), ("org", '"a" | "b"', "string"),
    ("team?", "string", "string"), ("since", "time", "time"), ("ready", "bool", "bool"),
)  # fmt: skip
AGENT_ONLY: Final = _attributes(("quarantined", "bool", "bool"), ("quota", "decimal", "number"))
COMMON: Final = _attributes(
    ("level", '"low" | "secret"', "string"), ("owner", "string", "string"), ("labels", "[string]", "strings"),
    ("extra?", "string", "string"),
)  # fmt: skip
ORDER_ONLY: Final = _attributes(
    ("amount", "decimal", "number"), ("items", "[{ sku: string, n: int, b?: string }]", "records"),
    ("open", "bool", "bool"), ("counts", "[int]", "numbers"), ("meta", "{ n: int, b?: string }", "record"),
)  # fmt: skip
SESSION: Final = _attributes(("vip", "bool", "bool"), ("tier?", "int", "number"), ("region", "string", "string"))
CONTEXT: Final = _attributes(
    ("env", '"prod" | "test"', "string"), ("load", "decimal", "number"), ("ip", "string", "string"),
    ("host?", "string", "string"), ("at", "time", "time"), ("age", "duration", "duration"),
)  # fmt: skip
_AMOUNT, _TO, _TAGS, _NOTE, _URL, _PATH, _WAIT, _COUNT, _FORCE = _attributes(
    ("amount", "decimal", "number"), ("to", "string", "string"), ("tags", "[string]", "strings"),
    ("note?", "string", "string"), ("url", "string", "string"), ("path", "string", "string"),
    ("wait", "duration", "duration"), ("count?", "int", "number"), ("force", "bool", "bool"),
)  # fmt: skip
ARGUMENTS: Final[Mapping[str, tuple[Attribute, ...]]] = {
    "pay.refund": (_AMOUNT, _TO, _NOTE),
    "pay.send": (_AMOUNT, _TO, _TAGS, _FORCE),
    "crm.read": (_PATH, _COUNT, _NOTE),
    "mail.send": (_TO, _TAGS, _URL, _WAIT),
    "mcp/tool": (_AMOUNT, _PATH, _FORCE),
}
EVERY_ARGUMENT: Final = (_AMOUNT, _TO, _TAGS, _NOTE, _URL, _PATH, _WAIT, _COUNT, _FORCE)
RESOURCE_OF: Final[Mapping[str, str]] = {"pay.refund": "Order", "pay.send": "Order", "crm.read": "Doc"}
RESOURCES: Final[Mapping[str, tuple[Attribute, ...]]] = {"Order": (*COMMON, *ORDER_ONLY), "Doc": COMMON}
PRINCIPALS: Final[Mapping[str, tuple[Attribute, ...]]] = {"user": BASE, "agent": (*BASE, *AGENT_ONLY), "service": BASE}


@final
@frozen
class World:
    """Be what a generated policy set declares; an empty world declares nothing."""

    types: frozenset[str] = frozenset()
    actions: frozenset[str] = frozenset()

    def statements(self) -> list[str]:
        """Return the declarations as statements."""
        fields = {**PRINCIPALS, **RESOURCES, "session": SESSION, "context": CONTEXT}
        host = " | ".join(f'"{mark}"' for mark in HOST_MARKS)
        found = []
        for name in sorted(self.types):
            texts = [*map(str, fields[name]), *([f"marks: [{host}]"] if name == "session" else ())]
            found.append(f"type {name} {{ {', '.join(texts)} }}")
        for name in sorted(self.actions):
            shown = f'"{name}"' if "/" in name else name
            on = RESOURCE_OF.get(name)
            tail = f" on {on}" if on in self.types else ""
            found.append(f"action {shown}({', '.join(map(str, ARGUMENTS[name]))}){tail}")
        return found

    def marks(self) -> tuple[str, ...]:
        """Return the marks that the host sets."""
        return HOST_MARKS if "session" in self.types else ()


EVERY_TYPE: Final = ("user", "agent", "service", "Order", "Doc", "session", "context")


def world(choose: Choose) -> World:
    """Return a world: nothing declared, all of it, or a part."""
    how = choose.weighted(((4, "nothing"), (4, "everything"), (2, "part")))
    if how == "nothing":
        return World()
    if how == "everything":
        return World(frozenset(EVERY_TYPE), frozenset(ACTIONS))
    return World(frozenset(choose.some(EVERY_TYPE)), frozenset(choose.some(ACTIONS)))
