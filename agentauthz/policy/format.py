"""Write statements and expressions in their one canonical form: what parses back to the same tree."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Final, final

from agentauthz.policy import syntax
from agentauthz.policy.source import HIDDEN
from agentauthz.policy.syntax import Clause, Expr, Statement, TypeExpr
from agentauthz.values import number

# How tightly an expression binds, by the grammar's levels; an operand that binds looser than its place asks for
# stands in parentheses.
_OR, _AND, _NEG, _COMPARISON, _SUM, _PRODUCT, _UNARY, _PRIMARY = range(8)

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_DOTTED: Final = re.compile(rf"{_NAME.pattern}(?:\.{_NAME.pattern})*")
# spaces that look like the ordinary one, besides what may not stand in a policy at all
_SPACE: Final = re.compile("[\r\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_PLAIN: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
_UNITS: Final = (("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))
_MILLISECOND: Final = dt.timedelta(milliseconds=1)


def format_statements(statements: Iterable[Statement]) -> str:
    """Return the statements in the order given, with an empty line between two."""
    return "\n\n".join(map(format_statement, statements)) + "\n"


def format_statement(statement: Statement) -> str:
    """Return a statement: a rule's head on a line, then each clause on its own; no line end at the end."""
    match statement:
        case syntax.Rule():
            return "\n".join((_head(statement), *(f"  {_clause(clause)}" for clause in statement.clauses)))
        case syntax.Let(name, params, body):
            return f"let {name}{'' if params is None else f'({_joined(params)})'} = {format_expr(body)}"
        case syntax.TypeDecl(name, fields):
            lines = "".join(f"\n  {_field(field)}," for field in fields)
            return f"type {name} {{{lines}\n}}" if fields else f"type {name} {{}}"
        case syntax.ActionDecl(name, params, on):
            listed = "" if params is None else f"({_joined(map(_field, params))})"
            return f"action {_action(name)}{listed}{'' if on is None else f' on {on}'}"


@final
class Written:
    """Format statements, each once: a rule's text is in its own digest and in that of its set."""

    def __init__(self) -> None:
        self._texts: dict[int, tuple[Statement, str]] = {}  # what is kept keeps its id

    def __call__(self, statement: Statement) -> str:
        """Return what `format_statement` does."""
        known = self._texts.get(id(statement))
        if known is None:
            known = self._texts[id(statement)] = statement, format_statement(statement)
        return known[1]


def format_expr(expr: Expr) -> str:
    """Return an expression, with parentheses only where the tree needs them."""
    return _at(expr, _OR)


def format_value(value: object) -> str:
    """Return the literal of a bool, number, string, duration or time (a time is a call of `time`)."""
    match value:
        case bool():
            return "true" if value else "false"
        case Decimal():
            return format(value, "f")
        case str():
            return _string(value)
        case dt.timedelta():
            return _duration(value)
        case dt.datetime():
            return f'time("{value.astimezone(dt.UTC).replace(tzinfo=None).isoformat()}Z")'
        case _:
            return str(value)


def _head(rule: syntax.Rule) -> str:
    mark = "" if rule.mark is None else f" as {rule.mark}"
    return f"{rule.effect} {rule.name}{mark} on {_joined(map(_pattern, rule.patterns))}"


def _joined(items: Iterable[str]) -> str:
    return ", ".join(items)


def _pattern(pattern: syntax.Pattern) -> str:
    return _action(pattern.name) if pattern.kind == "exact" else str(pattern)


def _action(name: str) -> str:
    return name if _DOTTED.fullmatch(name) else _string(name)


def _clause(clause: Clause) -> str:
    match clause:
        case syntax.When(condition):
            return f"when {format_expr(condition)}"
        case syntax.Unless(condition):
            return f"unless {format_expr(condition)}"
        case syntax.By(condition):
            return f"by {format_expr(condition)}"
        case syntax.With(name, bindings):
            return f"with {name}({_named(bindings)})"
        case syntax.Within(duration):
            return f"within {_duration(duration)}"
        case syntax.Every(duration):
            return f"every {_duration(duration)}"
        case syntax.ToCount(bound):
            return f"to count <= {_at(bound, _SUM)}"
        case syntax.ToSum(amount, bound):
            return f"to sum({format_expr(amount)}) <= {_at(bound, _SUM)}"
        case syntax.Per(keys):
            return f"per {_joined(map(format_expr, keys))}"
        case syntax.Because(text):
            return f"because {_string(text)}"


def _named(bindings: Iterable[tuple[str, Expr]]) -> str:
    return _joined(f"{name}: {format_expr(value)}" for name, value in bindings)


def _field(field: syntax.Field) -> str:
    return f"{field.name}{'?' if field.optional else ''}: {_type(field.type)}"


def _type(type: TypeExpr) -> str:
    match type:
        case syntax.NamedType(name):
            return name
        case syntax.ListType(item):
            return f"[{_type(item)}]"
        case syntax.EnumType(values):
            return " | ".join(map(_string, values))
        case syntax.RecordType(fields):
            return f"{{ {_joined(map(_field, fields))} }}" if fields else "{}"


# ---- expressions


def _at(expr: Expr, place: int) -> str:
    level, text = _expression(expr)
    return text if level >= place else f"({text})"


def _expression(expr: Expr) -> tuple[int, str]:
    """Return how tightly the expression binds, and its text."""
    match expr:
        case syntax.Path():  # first, since most are
            return _PRIMARY, _primary(expr)
        case syntax.Or(operands):
            return _OR, " or ".join(_at(operand, _AND) for operand in operands)
        case syntax.And(operands):
            return _AND, " and ".join(_at(operand, _NEG) for operand in operands)
        case syntax.Not(operand):
            return _NEG, f"not {_at(operand, _NEG)}"
        case syntax.Quantifier(kind, variable, over, body):
            return _NEG, f"{kind} {variable} in {_at(over, _SUM)}: {_at(body, _NEG)}"
        case syntax.Compare(operator, left, right):
            return _COMPARISON, f"{_at(left, _SUM)} {operator} {_at(right, _SUM)}"
        case syntax.Like(operand, parts):
            return _COMPARISON, f"{_at(operand, _SUM)} like {_like(parts)}"
        case syntax.Is(operand, type_name):
            return _COMPARISON, f"{_at(operand, _SUM)} is {type_name}"
        case syntax.Arithmetic("*", left, right):
            return _PRODUCT, f"{_at(left, _PRODUCT)} * {_at(right, _UNARY)}"
        case syntax.Arithmetic(operator, left, right):
            return _SUM, f"{_at(left, _SUM)} {operator} {_at(right, _PRODUCT)}"
        case syntax.Negate(operand):
            return _UNARY, f"-{_at(operand, _UNARY)}"
        case syntax.Literal_(value):
            text = format_value(value)
            return _PRODUCT if "*" in text and not isinstance(value, str) else _literal_level(text), text
        case _:
            return _PRIMARY, _primary(expr)


def _literal_level(text: str) -> int:
    return _UNARY if text.startswith("-") else _PRIMARY


def _primary(expr: syntax.Path | syntax.Exists | syntax.Default | syntax.Call | syntax.ListOf) -> str:
    match expr:
        case syntax.Path(root, steps):
            return root + "".join(f".{step}" if _NAME.fullmatch(step) else f"[{_string(step)}]" for step in steps)
        case syntax.Exists(path):
            return f"exists {_primary(path)}"
        case syntax.Default(path, fallback):
            return f"{_primary(path)} ?? {_at(fallback, _UNARY)}"
        case syntax.Call(name, args, named):
            texts = [format_expr(arg) for arg in args] + ([_named(named)] if named else [])
            return f"{name}({_joined(texts)})"
        case syntax.ListOf(items):
            return f"[{_joined(map(format_expr, items))}]"


# ---- literals


def _string(text: str) -> str:
    return f'"{_escaped(text)}"'


def _like(parts: tuple[str, ...]) -> str:
    return '"' + "*".join(_escaped(part).replace("*", "\\*") for part in parts) + '"'


def _escaped(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text  # as most are
    text = "".join(_PLAIN.get(char, char) for char in text)
    return _SPACE.sub(_code, HIDDEN.sub(_code, text))


def _code(found: re.Match[str]) -> str:
    return f"\\u{{{ord(found[0]):x}}}"


def _duration(duration: dt.timedelta) -> str:
    milliseconds, rest = divmod(abs(duration), _MILLISECOND)
    sign = "-" if duration < dt.timedelta() else ""
    if rest:  # no literal has parts of a millisecond, but a computed duration may
        thousandths = Decimal(abs(duration) // dt.timedelta(microseconds=1))
        return f"{sign}1ms * {format_value(number(thousandths.scaleb(-3)))}"
    if not milliseconds:
        return "0s"
    name, unit = next((name, unit) for name, unit in _UNITS if milliseconds % unit == 0)
    return f"{sign}{milliseconds // unit}{name}"
