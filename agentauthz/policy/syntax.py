"""Define the syntax tree of the policy language: what `parse` makes, `check` expands and `evaluate` walks.

Nodes compare by structure: a span never counts. Names and literals are already decoded.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cached_property
from typing import Final, Literal, TypeAlias, final

from attrs import field, frozen

from agentauthz.decision import Reason
from agentauthz.policy.source import Span
from agentauthz.policy.types import Declared

Effect: TypeAlias = Literal["permit", "forbid", "review", "limit", "mark"]
EFFECTS: Final[tuple[Effect, ...]] = ("permit", "forbid", "review", "limit", "mark")

ROOTS: Final = frozenset(
    {"subject", "actor", "chain", "action", "args", "resource", "route", "purpose", "session", "context", "now"}
    | {"approver"}
)


def _span() -> Span:
    span: Span = field(eq=False, repr=False, kw_only=True)
    return span


# ---- expressions


@final
@frozen
class Literal_:
    """`true`, `3`, `2.50`, `"text"`, `15m`: `value` is a policy value in canonical form."""

    value: bool | int | Decimal | str | dt.timedelta
    span: Span = _span()


@final
@frozen
class ListOf:
    """`[a, b]`."""

    items: tuple[Expr, ...]
    span: Span = _span()


@final
@frozen
class Path:
    """`root.step["other step"]`; the root is a root, a variable or a `let`.

    `declared`, set by the checker, is the declared type of the value by the tag of what it belongs to.
    """

    root: str
    steps: tuple[str, ...] = ()
    span: Span = _span()
    declared: Declared | None = field(default=None, eq=False, repr=False, kw_only=True)

    def __str__(self) -> str:
        return self.root + "".join(f".{s}" if s.isidentifier() and s.isascii() else f'["{s}"]' for s in self.steps)


@final
@frozen
class Exists:
    """`exists P`."""

    path: Path
    span: Span = _span()


@final
@frozen
class Default:
    """`P ?? B`."""

    path: Path
    fallback: Expr
    span: Span = _span()


@final
@frozen
class Call:
    """`name(a, b, key: c)`: a function of the table, or a `let` with parameters (gone after checking)."""

    name: str
    args: tuple[Expr, ...]
    named: tuple[tuple[str, Expr], ...] = ()
    span: Span = _span()


@final
@frozen
class Not:
    """`not C`."""

    operand: Expr
    span: Span = _span()


@final
@frozen
class And:
    """`A and B and …`, at least two."""

    operands: tuple[Expr, ...]
    span: Span = _span()


@final
@frozen
class Or:
    """`A or B or …`, at least two."""

    operands: tuple[Expr, ...]
    span: Span = _span()


@final
@frozen
class Quantifier:
    """`any x in E: C` and `every x in E: C`."""

    kind: Literal["any", "every"]
    variable: str
    over: Expr
    body: Expr
    span: Span = _span()
    variable_span: Span = _span()


@final
@frozen
class Compare:
    """`A == B` and its kin, `in` and `not in` included."""

    operator: Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
    left: Expr
    right: Expr
    span: Span = _span()


@final
@frozen
class Like:
    """`A like "glob*"`; the pattern keeps its `\\*` escapes as `parts`: the literal runs between stars."""

    operand: Expr
    parts: tuple[str, ...]
    span: Span = _span()


@final
@frozen
class Is:
    """`P is TYPE`."""

    operand: Expr
    type_name: str
    span: Span = _span()


@final
@frozen
class Arithmetic:
    """`A + B`, `A - B`, `A * B`."""

    operator: Literal["+", "-", "*"]
    left: Expr
    right: Expr
    span: Span = _span()


@final
@frozen
class Negate:
    """`-A`."""

    operand: Expr
    span: Span = _span()


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


# ---- clauses of a rule


@final
@frozen
class When:
    """`when E`."""

    condition: Expr
    span: Span = _span()


@final
@frozen
class Unless:
    """`unless E`."""

    condition: Expr
    span: Span = _span()


@final
@frozen
class With:
    """`with NAME(key: constant, …)`: an obligation."""

    name: str
    bindings: tuple[tuple[str, Expr], ...]
    span: Span = _span()
    name_span: Span = _span()


@final
@frozen
class By:
    """`by E`, over `approver`."""

    condition: Expr
    span: Span = _span()


@final
@frozen
class Within:
    """`within 15m`."""

    duration: dt.timedelta
    span: Span = _span()


@final
@frozen
class ToCount:
    """`to count <= E`."""

    bound: Expr
    span: Span = _span()


@final
@frozen
class ToSum:
    """`to sum(E) <= E`."""

    amount: Expr
    bound: Expr
    span: Span = _span()


@final
@frozen
class Per:
    """`per E, …`."""

    keys: tuple[Expr, ...]
    span: Span = _span()


@final
@frozen
class Every:
    """`every 1d`: a limit's window."""

    duration: dt.timedelta
    span: Span = _span()


@final
@frozen
class Because:
    """`because "text for people"`."""

    text: str
    span: Span = _span()


Clause: TypeAlias = When | Unless | With | By | Within | ToCount | ToSum | Per | Every | Because


# ---- statements


@final
@frozen
class Pattern:
    """An action pattern: `name` exactly, every name below `name` (`kind` prefix), or all (`name` empty)."""

    kind: Literal["exact", "prefix", "all"]
    name: str
    span: Span = _span()

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
    span: Span = _span()
    name_span: Span = _span()
    mark_span: Span | None = field(default=None, eq=False, repr=False, kw_only=True)


@final
@frozen
class Let:
    """`let name(params) = E`; `params` None means that there are no parentheses."""

    name: str
    params: tuple[str, ...] | None
    body: Expr
    span: Span = _span()
    name_span: Span = _span()


@final
@frozen
class NamedType:
    """`int`, `Order`: a built-in type or (refused by the checker) another."""

    name: str
    span: Span = _span()


@final
@frozen
class ListType:
    """`[T]`."""

    item: TypeExpr
    span: Span = _span()


@final
@frozen
class EnumType:
    """`"a" | "b"`."""

    values: tuple[str, ...]
    span: Span = _span()


@final
@frozen
class RecordType:
    """`{ name: T, other?: T }`."""

    fields: tuple[Field, ...]
    span: Span = _span()


TypeExpr: TypeAlias = NamedType | ListType | EnumType | RecordType


@final
@frozen
class Field:
    """`name: T` or `name?: T`, of a type, a record or an action's arguments."""

    name: str
    optional: bool
    type: TypeExpr
    span: Span = _span()
    name_span: Span = _span()


@final
@frozen
class TypeDecl:
    """`type NAME { fields }`."""

    name: str
    fields: tuple[Field, ...]
    span: Span = _span()
    name_span: Span = _span()


@final
@frozen
class ActionDecl:
    """`action dotted.name(args) on TYPE`; `params` None means that there are no parentheses."""

    name: str
    params: tuple[Field, ...] | None
    on: str | None
    span: Span = _span()
    name_span: Span = _span()
    on_span: Span | None = field(default=None, eq=False, repr=False, kw_only=True)


Statement: TypeAlias = Rule | Let | TypeDecl | ActionDecl


# ---- what the checker makes of a rule: lets expanded, clauses in their places


@final
@frozen
class CheckedObligation:
    """`with name(properties)`, its constants evaluated."""

    name: str
    properties: Mapping[str, object]


@final
class Later:
    """Be a condition that is made when it is first asked for; making it twice, from two threads, does no harm."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Expr]) -> None:
        self._make: Callable[[], Expr] | None = make
        self._made: Expr | None = None

    def __call__(self) -> Expr:
        make = self._make
        if make is not None:
            self._made, self._make = make(), None
        assert self._made is not None
        return self._made


def _now(condition: Expr | Later | None) -> Expr | None:
    return condition() if isinstance(condition, Later) else condition


@final
@frozen
class CheckedRule:
    """Be a rule that passed the checker; `evaluate` defines what it means.

    `condition` is `when and not unless` (None: true); a mark's `mark` is never None.
    """

    effect: Effect
    name: str
    patterns: tuple[Pattern, ...]
    _condition: Expr | Later | None = field(alias="condition", eq=_now, repr=lambda condition: repr(_now(condition)))
    span: Span = _span()
    because: str | None = None
    mark: str | None = None
    obligations: tuple[CheckedObligation, ...] = ()
    by: Expr | None = None
    within: dt.timedelta | None = None
    amount: Expr | None = None  # a limit's sum; None: it counts
    bound: Expr | None = None
    per: tuple[Expr, ...] = ()
    window: dt.timedelta | None = None
    digest: str = ""

    @property
    def condition(self) -> Expr | None:
        """Return what must hold."""
        return _now(self._condition)

    @cached_property
    def at(self) -> str:
        """Return the rule's place as `file:line:column`."""
        return str(self.span)

    @cached_property
    def permitted(self) -> Reason:
        """Return the reason that the rule gives for an allow; every decision that it permits shares it."""
        return Reason("permitted", self.because or f"permitted by `{self.name}`", self.name, self.at, self.because)
