"""Define the nodes of statements as they are written: rules with their clauses, lets, types and actions."""

from __future__ import annotations

import datetime as dt
from typing import Final, Literal, TypeAlias, final

from attrs import field, frozen

from agentauthz.policy.source import Span
from agentauthz.policy.syntax.expressions import Expr, span_field

Effect: TypeAlias = Literal["permit", "forbid", "review", "limit", "mark"]
EFFECTS: Final[tuple[Effect, ...]] = ("permit", "forbid", "review", "limit", "mark")


# ---- clauses of a rule


@final
@frozen
class When:
    """`when E`."""

    condition: Expr
    span: Span = span_field()


@final
@frozen
class Unless:
    """`unless E`."""

    condition: Expr
    span: Span = span_field()


@final
@frozen
class With:
    """`with NAME(key: constant, …)`: an obligation."""

    name: str
    bindings: tuple[tuple[str, Expr], ...]
    span: Span = span_field()
    name_span: Span = span_field()


@final
@frozen
class By:
    """`by E`, over `approver`."""

    condition: Expr
    span: Span = span_field()


@final
@frozen
class Within:
    """`within 15m`."""

    duration: dt.timedelta
    span: Span = span_field()


@final
@frozen
class ToCount:
    """`to count <= E`."""

    bound: Expr
    span: Span = span_field()


@final
@frozen
class ToSum:
    """`to sum(E) <= E`."""

    amount: Expr
    bound: Expr
    span: Span = span_field()


@final
@frozen
class Per:
    """`per E, …`."""

    keys: tuple[Expr, ...]
    span: Span = span_field()


@final
@frozen
class Every:
    """`every 1d`: a limit's window."""

    duration: dt.timedelta
    span: Span = span_field()


@final
@frozen
class Because:
    """`because "text for people"`."""

    text: str
    span: Span = span_field()


Clause: TypeAlias = When | Unless | With | By | Within | ToCount | ToSum | Per | Every | Because


# ---- statements


@final
@frozen
class Pattern:
    """An action pattern: `name` exactly, every name below `name` (`kind` prefix), or all (`name` empty)."""

    kind: Literal["exact", "prefix", "all"]
    name: str
    span: Span = span_field()

    def __str__(self) -> str:
        return {"exact": self.name, "prefix": f"{self.name}.*", "all": "*"}[self.kind]


@final
@frozen
class Rule:
    """`EFFECT NAME [as MARK] on PATTERN, … clauses`, as written."""

    effect: Effect
    name: str
    mark: str | None
    patterns: tuple[Pattern, ...]
    clauses: tuple[Clause, ...]
    span: Span = span_field()
    name_span: Span = span_field()
    mark_span: Span | None = field(default=None, eq=False, repr=False, kw_only=True)


@final
@frozen
class Let:
    """`let name(params) = E`; `params` None means that there are no parentheses."""

    name: str
    params: tuple[str, ...] | None
    body: Expr
    span: Span = span_field()
    name_span: Span = span_field()


@final
@frozen
class NamedType:
    """`int`, `Order`: a built-in type or (refused by the checker) another."""

    name: str
    span: Span = span_field()


@final
@frozen
class ListType:
    """`[T]`."""

    item: TypeExpr
    span: Span = span_field()


@final
@frozen
class EnumType:
    """`"a" | "b"`."""

    values: tuple[str, ...]
    span: Span = span_field()


@final
@frozen
class RecordType:
    """`{ name: T, other?: T }`."""

    fields: tuple[Field, ...]
    span: Span = span_field()


TypeExpr: TypeAlias = NamedType | ListType | EnumType | RecordType


@final
@frozen
class Field:
    """`name: T` or `name?: T`, of a type, a record or an action's arguments."""

    name: str
    optional: bool
    type: TypeExpr
    span: Span = span_field()
    name_span: Span = span_field()


@final
@frozen
class TypeDecl:
    """`type NAME { fields }`."""

    name: str
    fields: tuple[Field, ...]
    span: Span = span_field()
    name_span: Span = span_field()


@final
@frozen
class ActionDecl:
    """`action dotted.name(args) on TYPE`; `params` None means that there are no parentheses."""

    name: str
    params: tuple[Field, ...] | None
    on: str | None
    span: Span = span_field()
    name_span: Span = span_field()
    on_span: Span | None = field(default=None, eq=False, repr=False, kw_only=True)


Statement: TypeAlias = Rule | Let | TypeDecl | ActionDecl
