"""Make the nodes of the tree while the grammar's rules are recognised: bottom-up, so that nothing recurses."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Final, TypeAlias, TypeVar, cast, final

from agentauthz.policy import syntax
from agentauthz.policy.parse.codes import MAX_ERRORS, MAX_NESTING, problem
from agentauthz.policy.parse.literals import BadLiteral, read_duration, read_number, read_pattern, read_string
from agentauthz.policy.source import Diagnostic, Source, Span
from agentauthz.policy.syntax import Expr

# What stands on the parser's stack for an expression: where it starts and ends (parentheses included, which
# its span leaves out), how deep it nests, and its node.
Part: TypeAlias = tuple[int, int, int, Expr]
# The children of a grammar rule: tokens, parts and nodes, in the order of the text.
Children: TypeAlias = list[Any]

T = TypeVar("T")

# what stands in for a literal that is wrong; its statement is never used
_ZERO: Final = dt.timedelta()
_NOUGHT: Final[int | Decimal] = 0
_NO_RUNS: Final[tuple[str, ...]] = ("",)


@final
class Token:
    """Be a run of characters with a meaning of its own: the name of its terminal, its text, its offsets."""

    __slots__ = ("end", "start", "text", "type")

    def __init__(self, type: str, text: str, start: int, end: int) -> None:
        self.type = type
        self.text = text
        self.start = start
        self.end = end


@final
class Builder:
    """Build one statement, and collect what is wrong with its literals and its nesting.

    A method is named as the rule or alias of the grammar whose children it gets.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Diagnostic] = []
        self.too_deep = False

    # ---- places and problems

    def span(self, start: int, end: int) -> Span:
        """Return the place between two offsets."""
        return Span(self.source, start, end)

    def token_span(self, token: Token) -> Span:
        """Return a token's place."""
        return Span(self.source, token.start, token.end)

    def report(self, code: str, message: str, start: int, end: int, tip: str | None = None) -> None:
        if len(self.problems) < MAX_ERRORS:
            self.problems.append(problem(code, message, self.source, start, end, tip))

    def read(self, token: Token, reader: Callable[[str], T], instead: T) -> T:
        """Decode a literal; one that is wrong is reported, and `instead` stands for it."""
        try:
            return reader(token.text)
        except BadLiteral as bad:
            end = token.end if bad.end is None else token.start + bad.end
            self.report(bad.code, bad.message, token.start + bad.start, end, bad.help)
            return instead

    def node(self, make: Callable[..., Expr], start: int, end: int, parts: Iterable[Part], *fields: object) -> Part:
        """Return a node over `parts`, unless it nests too deep: that is said once, and no deep tree is built."""
        depth = 1 + max([part[2] for part in parts], default=0)
        if depth > MAX_NESTING:
            self.report_nesting(start, end)
            return start, end, MAX_NESTING, syntax.Literal_(False, span=self.span(start, end))
        return start, end, depth, make(*fields, span=self.span(start, end))

    def report_nesting(self, start: int, end: int) -> None:
        if not self.too_deep:
            self.too_deep = True
            tip = f"expressions nest at most {MAX_NESTING} deep: name a part of it with `let`"
            self.report("nesting", "the expression nests too deep", start, end, tip)

    # ---- statements

    def statement(self, c: Children) -> syntax.Statement:
        return cast(syntax.Statement, c[0])

    def rule(self, c: Children) -> syntax.Rule:
        marked = c[2].type == "AS"
        nodes = c[5 if marked else 3 :]
        patterns = tuple(child for child in nodes if type(child) is syntax.Pattern)
        clauses = tuple(nodes[2 * len(patterns) - 1 :])
        return syntax.Rule(
            effect=c[0].text, name=c[1].text, mark=c[3].text if marked else None, patterns=patterns, clauses=clauses,
            span=Span(self.source, c[0].start, nodes[-1].span.end),
            name_span=self.token_span(c[1]), mark_span=self.token_span(c[3]) if marked else None,
        )  # fmt: skip

    def let(self, c: Children) -> syntax.Let:
        params = tuple(token.text for token in c[3:-3:2]) if c[2].type == "LPAR" else None
        body = c[-1]
        return syntax.Let(c[1].text, params, body[3], span=self.span(c[0].start, body[1]),
                          name_span=self.token_span(c[1]))  # fmt: skip

    def type_decl(self, c: Children) -> syntax.TypeDecl:
        return syntax.TypeDecl(c[1].text, _fields(c), span=self.span(c[0].start, c[-1].end),
                               name_span=self.token_span(c[1]))  # fmt: skip

    def action_decl(self, c: Children) -> syntax.ActionDecl:
        name, name_span = c[1]
        params = next((child for child in c[2:] if type(child) is list), None)
        on = c[-1] if len(c) > 3 and c[-2].type == "ON" else None
        end = c[-1].end if on is not None else params[-1].end if params else name_span.end
        return syntax.ActionDecl(
            name, _fields(params) if params else None, on.text if on is not None else None,
            span=Span(self.source, c[0].start, end),
            name_span=name_span, on_span=self.token_span(on) if on is not None else None,
        )  # fmt: skip

    def params(self, c: Children) -> Children:
        return c

    # ---- patterns and names of actions

    def everything(self, c: Children) -> syntax.Pattern:
        return syntax.Pattern("all", "", span=self.token_span(c[0]))

    def exact(self, c: Children) -> syntax.Pattern:
        return syntax.Pattern("exact", _dotted(c), span=self.span(c[0].start, c[-1].end))

    def prefix(self, c: Children) -> syntax.Pattern:
        return syntax.Pattern("prefix", _dotted(c[:-2]), span=self.span(c[0].start, c[-1].end))

    def quoted(self, c: Children) -> syntax.Pattern:
        return syntax.Pattern("exact", self.quoted_name(c[0]), span=self.token_span(c[0]))

    def pattern_name(self, c: Children) -> tuple[str, Span]:
        name = self.quoted_name(c[0]) if c[0].type == "STRING" else _dotted(c)
        return name, self.span(c[0].start, c[-1].end)

    def quoted_name(self, token: Token) -> str:
        name = self.read(token, read_string, "?")
        start, end = token.start, token.end
        if "*" in name:
            tip = "quotes name one action exactly: a star stands outside them, as in `payments.*`, or alone"
            self.report("quoted-star", "a quoted action holds a star", start, end, tip)
        if not name:
            self.report("empty-name", "an action has no empty name", start, end, "name the action, or write `*`")
        return name

    # ---- clauses

    def when(self, c: Children) -> syntax.When:
        return syntax.When(c[1][3], span=self.span(c[0].start, c[1][1]))

    def unless(self, c: Children) -> syntax.Unless:
        return syntax.Unless(c[1][3], span=self.span(c[0].start, c[1][1]))

    def by(self, c: Children) -> syntax.By:
        return syntax.By(c[1][3], span=self.span(c[0].start, c[1][1]))

    def with_(self, c: Children) -> syntax.With:
        values = (child for child in c if type(child) is tuple)
        names = (child.text for child in c[2:] if getattr(child, "type", None) == "NAME")
        bindings = tuple((name, value[3]) for name, value in zip(names, values, strict=True))
        return syntax.With(c[1].text, bindings, span=self.span(c[0].start, c[-1].end),
                           name_span=self.token_span(c[1]))  # fmt: skip

    def within(self, c: Children) -> syntax.Within:
        return syntax.Within(self.read(c[1], read_duration, _ZERO), span=self.span(c[0].start, c[1].end))

    def window(self, c: Children) -> syntax.Every:
        return syntax.Every(self.read(c[1], read_duration, _ZERO), span=self.span(c[0].start, c[1].end))

    def to_count(self, c: Children) -> syntax.ToCount:
        return syntax.ToCount(c[3][3], span=self.span(c[0].start, c[3][1]))

    def to_sum(self, c: Children) -> syntax.ToSum:
        return syntax.ToSum(c[3][3], c[6][3], span=self.span(c[0].start, c[6][1]))

    def per(self, c: Children) -> syntax.Per:
        return syntax.Per(tuple(part[3] for part in c[1::2]), span=self.span(c[0].start, c[-1][1]))

    def because(self, c: Children) -> syntax.Because:
        return syntax.Because(self.read(c[1], read_string, ""), span=self.span(c[0].start, c[1].end))

    # ---- types

    def field(self, c: Children) -> syntax.Field:
        return syntax.Field(
            c[0].text, c[1].type == "OPTIONAL", c[-1],
            span=Span(self.source, c[0].start, c[-1].span.end), name_span=self.token_span(c[0]),
        )  # fmt: skip

    def named(self, c: Children) -> syntax.NamedType:
        return syntax.NamedType(c[0].text, span=self.token_span(c[0]))

    def list_of(self, c: Children) -> syntax.ListType:
        return syntax.ListType(c[1], span=self.span(c[0].start, c[2].end))

    def enum(self, c: Children) -> syntax.EnumType:
        values = tuple(self.read(token, read_string, "") for token in c[::2])
        return syntax.EnumType(values, span=self.span(c[0].start, c[-1].end))

    def record(self, c: Children) -> syntax.RecordType:
        return syntax.RecordType(_fields(c), span=self.span(c[0].start, c[-1].end))

    # ---- conditions

    def or_(self, c: Children) -> Part:
        return self.joined(syntax.Or, c[::2])

    def and_(self, c: Children) -> Part:
        return self.joined(syntax.And, c[::2])

    def joined(self, make: Callable[..., Expr], parts: list[Part]) -> Part:
        return self.node(make, parts[0][0], parts[-1][1], parts, tuple(part[3] for part in parts))

    def not_(self, c: Children) -> Part:
        return self.node(syntax.Not, c[0].start, c[1][1], (c[1],), c[1][3])

    def quantifier(self, c: Children) -> Part:
        kind, variable, _, over, _, body = c

        def make(over: Expr, body: Expr, span: Span) -> Expr:
            return syntax.Quantifier(
                kind.text, variable.text, over, body, span=span, variable_span=self.token_span(variable)
            )

        return self.node(make, kind.start, body[1], (over, body), over[3], body[3])

    def compare(self, c: Children) -> Part:
        return self.binary(syntax.Compare, c[1].text, c[0], c[2])

    def not_in(self, c: Children) -> Part:
        return self.binary(syntax.Compare, "not in", c[0], c[3])

    def arithmetic(self, c: Children) -> Part:
        return self.binary(syntax.Arithmetic, c[1].text, c[0], c[2])

    def binary(self, make: Callable[..., Expr], operator: str, left: Part, right: Part) -> Part:
        return self.node(make, left[0], right[1], (left, right), operator, left[3], right[3])

    def like(self, c: Children) -> Part:
        return self.node(syntax.Like, c[0][0], c[2].end, (c[0],), c[0][3], self.read(c[2], read_pattern, _NO_RUNS))

    def is_(self, c: Children) -> Part:
        return self.node(syntax.Is, c[0][0], c[2].end, (c[0],), c[0][3], c[2].text)

    # ---- values

    def negative(self, c: Children) -> Part:
        return self.node(syntax.Negate, c[0].start, c[1][1], (c[1],), c[1][3])

    def default(self, c: Children) -> Part:
        return self.node(syntax.Default, c[0][0], c[2][1], (c[0], c[2]), c[0][3], c[2][3])

    def exists(self, c: Children) -> Part:
        return self.node(syntax.Exists, c[0].start, c[1][1], (c[1],), c[1][3])

    def call(self, c: Children) -> Part:
        args = [child for child in c if type(child) is tuple]
        named = [child for child in c if type(child) is list]
        if named and args and args[-1][0] > named[0][0].start:
            tip = "arguments by name come last"
            self.report("argument-order", "an argument by position follows one by name", args[-1][0], args[-1][1], tip)
        return self.node(
            syntax.Call, c[0].start, c[-1].end, (*args, *(name[2] for name in named)),
            c[0].text, tuple(part[3] for part in args), tuple((name[0].text, name[2][3]) for name in named),
        )  # fmt: skip

    def named_argument(self, c: Children) -> Children:
        return c

    def group(self, c: Children) -> Part:
        return c[0].start, c[2].end, c[1][2], c[1][3]

    def list_(self, c: Children) -> Part:
        parts = [child for child in c if type(child) is tuple]
        return self.node(syntax.ListOf, c[0].start, c[-1].end, parts, tuple(part[3] for part in parts))

    def path(self, c: Children) -> Part:
        start, end = c[0].start, c[-1].end
        steps = tuple(
            token.text if token.type == "NAME" else self.read(token, read_string, "")
            for token in c[1:]
            if token.type in ("NAME", "STRING")
        )
        return start, end, 1, syntax.Path(c[0].text, steps, span=self.span(start, end))

    def boolean(self, c: Children) -> Part:
        return self.literal(c[0], c[0].type == "TRUE")

    def integer(self, c: Children) -> Part:
        return self.literal(c[0], self.read(c[0], read_number, _NOUGHT))

    decimal = integer

    def duration(self, c: Children) -> Part:
        return self.literal(c[0], self.read(c[0], read_duration, _ZERO))

    def string(self, c: Children) -> Part:
        return self.literal(c[0], self.read(c[0], read_string, ""))

    def literal(self, token: Token, value: Any) -> Part:
        return token.start, token.end, 1, syntax.Literal_(value, span=self.token_span(token))


def _fields(children: Children) -> tuple[syntax.Field, ...]:
    return tuple(child for child in children if type(child) is syntax.Field)


def _dotted(tokens: list[Token]) -> str:
    return ".".join(token.text for token in tokens[::2])
