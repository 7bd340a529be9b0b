"""Define the nodes of expressions."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Final, Literal, TypeAlias, final

from attrs import field, frozen

from agentauthz.policy.source import Span
from agentauthz.policy.types import Declared

ROOTS: Final = frozenset(
    {"subject", "actor", "chain", "action", "args", "resource", "route", "purpose", "session", "context", "now"}
    | {"approver"}
)


def span_field() -> Span:
    """Return the field that every node has: where it stands, which never counts."""
    span: Span = field(eq=False, repr=False, kw_only=True)
    return span


@final
@frozen
class Literal_:
    """`true`, `3`, `2.50`, `"text"`, `15m`: `value` is a policy value in canonical form."""

    value: bool | int | Decimal | str | dt.timedelta
    span: Span = span_field()


@final
@frozen
class ListOf:
    """`[a, b]`."""

    items: tuple[Expr, ...]
    span: Span = span_field()


@final
@frozen
class Path:
    """`root.step["other step"]`; the root is a root, a variable or a `let`.

    `declared`, set by the checker, is the declared type of the value by the tag of what it belongs to.
    """

    root: str
    steps: tuple[str, ...] = ()
    span: Span = span_field()
    declared: Declared | None = field(default=None, eq=False, repr=False, kw_only=True)

    def __str__(self) -> str:
        return self.root + "".join(f".{s}" if s.isidentifier() and s.isascii() else f'["{s}"]' for s in self.steps)


@final
@frozen
class Exists:
    """`exists P`."""

    path: Path
    span: Span = span_field()


@final
@frozen
class Default:
    """`P ?? B`."""

    path: Path
    fallback: Expr
    span: Span = span_field()


@final
@frozen
class Call:
    """`name(a, b, key: c)`: a function of the table, or a `let` with parameters (gone after checking)."""

    name: str
    args: tuple[Expr, ...]
    named: tuple[tuple[str, Expr], ...] = ()
    span: Span = span_field()


@final
@frozen
class Not:
    """`not C`."""

    operand: Expr
    span: Span = span_field()


@final
@frozen
class And:
    """`A and B and …`, at least two."""

    operands: tuple[Expr, ...]
    span: Span = span_field()


@final
@frozen
class Or:
    """`A or B or …`, at least two."""

    operands: tuple[Expr, ...]
    span: Span = span_field()


@final
@frozen
class Quantifier:
    """`any x in E: C` and `every x in E: C`."""

    kind: Literal["any", "every"]
    variable: str
    over: Expr
    body: Expr
    span: Span = span_field()
    variable_span: Span = span_field()


@final
@frozen
class Compare:
    """`A == B` and its kin, `in` and `not in` included."""

    operator: Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
    left: Expr
    right: Expr
    span: Span = span_field()


@final
@frozen
class Like:
    """`A like "glob*"`; the pattern keeps its `\\*` escapes as `parts`: the literal runs between stars."""

    operand: Expr
    parts: tuple[str, ...]
    span: Span = span_field()


@final
@frozen
class Is:
    """`P is TYPE`."""

    operand: Expr
    type_name: str
    span: Span = span_field()


@final
@frozen
class Arithmetic:
    """`A + B`, `A - B`, `A * B`."""

    operator: Literal["+", "-", "*"]
    left: Expr
    right: Expr
    span: Span = span_field()


@final
@frozen
class Negate:
    """`-A`."""

    operand: Expr
    span: Span = span_field()


Expr: TypeAlias = (
    Literal_ | ListOf | Path | Exists | Default | Call | Not | And | Or | Quantifier
    | Compare | Like | Is | Arithmetic | Negate
)  # fmt: skip


def children(expr: Expr) -> tuple[Expr, ...]:
    """Return the expressions right below `expr`, in the order of the text."""
    match expr:
        case Literal_() | Path():
            return ()
        case ListOf(items):
            return items
        case Exists(path):
            return (path,)
        case Default(path, fallback):
            return (path, fallback)
        case Call(_, args, named):
            return (*args, *(value for _, value in named))
        case And(operands) | Or(operands):
            return operands
        case Quantifier(_, _, over, body):
            return (over, body)
        case Compare(_, left, right) | Arithmetic(_, left, right):
            return (left, right)
        case Not(operand) | Negate(operand) | Like(operand) | Is(operand):
            return (operand,)
