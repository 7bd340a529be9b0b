"""The canonical form: what is written parses back to the same tree, with no parenthesis too many."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given

from agentauthz.policy import syntax
from agentauthz.policy.format import format_expr, format_statement, format_statements, format_value
from agentauthz.policy.parse import parse
from agentauthz.policy.source import Source
from agentauthz.policy.syntax import Expr, Statement
from tests.strategies_syntax import NOWHERE, expressions, statements


def _parsed(text: str) -> tuple[Statement, ...]:
    found, problems = parse(Source("text", text))
    assert problems == ()
    return found


def _expr(text: str) -> Expr:
    (let,) = _parsed(f"let it = {text}")
    assert isinstance(let, syntax.Let)
    return let.body


@given(statements())
def test_statements_survive_the_round_trip(statement: Statement) -> None:
    """Parsing what the formatter writes gives the same tree, and the same text again."""
    text = format_statement(statement)
    (again,) = _parsed(text)
    assert again == statement
    assert format_statement(again) == text


@given(expressions())
def test_every_span_holds_its_own_expression(expr: Expr) -> None:
    """The characters under each node's span are that node."""
    below = [_expr(format_expr(expr))]
    while below:
        node = below.pop()
        assert _expr(node.span.text) == node
        below += syntax.children(node)


@pytest.mark.parametrize(
    "text",
    [
        "a or b and c", "(a or b) and c", "a and (b and c)", "(a and b) and c", "(a or b) or c", "not a and b",
        "not (a and b)", "not not a", "not a == b", "(not a) == b", "not a in b", "a not in b", "not a not in b",
        "any x in xs: x == 1", "any x in xs: (x == 1 or x == 2)", "any x in xs: not every y in ys: x == y",
        "any x in xs: x and b", "any x in a + b: x", "any x in (a == b): x",
        "(a == b) == c", "a == (b == c)", "(a < b) in c", "a is user", "(a is user) is user", "a + b is user",
        'a like "x*"', '(a like "x") == b', "(a or b) is user", "a + b - c", "a - (b + c)", "a - (b - c)", "a * b + c",
        "a * (b + c)", "(a + b) * c", "a * (b * c)", "a * b * c", "-a", "--a", "-(a + b)", "-a * b", "a * -b", "a - -b",
        "-(a * b)", "a ?? b", "a ?? b ?? c", "a ?? -b", "-a ?? b", "a ?? b * c", "a ?? (b * c)", "a ?? (b == c)",
        "exists a.b and c", "f(a or b, k: c or d)", "f()", "[a or b, c]", "[]", 'a["b c"].d', "a ?? [1]",
        "-1ms", "f(not a)", "not f(a)", "(not a) in b", "-(not a)", "a ?? (not b)", "a ?? exists b",
    ],
)  # fmt: skip
def test_parentheses_are_minimal(text: str) -> None:
    """A text with only the parentheses that it needs is its own canonical form."""
    assert format_expr(_expr(text)) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("((a))", "a"), ("(a and b) or c", "a and b or c"), ("not (a == b)", "not a == b"),
        ("(a + b) + c", "a + b + c"),
        ("(a * b) - c", "a * b - c"), ("a ?? (b ?? c)", "a ?? b ?? c"), ("(a ?? b) * c", "a ?? b * c"),
        ("(a + b) in c", "a + b in c"), ("(any x in xs: x) and b", "any x in xs: x and b"),
        ("any x in xs: (x == 1)", "any x in xs: x == 1"), ("2.50", "2.5"), ("2.0", "2"), ("60s", "1m"), ("90m", "90m"),
        ("168h", "1w"), ("0d", "0s"), ("1500ms", "1500ms"), ('"\\u{41}\\u{202E}"', '"A\\u{202e}"'),
        ('a["b"]', "a.b"), ('a["_b"]', 'a["_b"]'), ('"\u00e4"', '"\u00e4"'), ('"\u00a0\t"', '"\\u{a0}\\t"'),
    ],
)  # fmt: skip
def test_one_form_for_what_is_the_same(text: str, canonical: str) -> None:
    """Needless parentheses, zeros and escapes, and other units, are gone in the canonical form."""
    assert format_expr(_expr(text)) == canonical


def test_layout_of_a_rule() -> None:
    """A rule's head is one line, and each clause another one, indented by two spaces."""
    text = """limit daily as spent on "mcp.a/b", pay.*, *
  when a
  unless b
  with notify(to: "x", n: 3)
  by c
  within 15m
  to count <= 3
  to sum(args.amount) <= 2000
  per subject, a.b
  every 1d
  because "text"

let pair(a, b) = a == b

type Order {
  amount: decimal,
  tags?: [string],
  state: "low" | "high",
  inner: { a: int, b?: {} },
}

type Empty {}

action pay.refund(id: string, why?: string) on Order

action "mcp.a/b"()

action plain
"""
    assert format_statements(_parsed(text)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"), (-3, "-3"), (Decimal("-0.000000000000000001"), "-0.000000000000000001"),
        ('"\\\n\x00', '"\\"\\\\\\n\\u{0}"'),
        (dt.timedelta(microseconds=1500), "1ms * 1.5"), (dt.timedelta(milliseconds=-5), "-5ms"),
        (dt.datetime(2026, 11, 23, 1, 2, 3, 4, dt.UTC), 'time("2026-11-23T01:02:03.000004Z")'),
    ],
)  # fmt: skip
def test_values_of_checked_expressions(value: object, text: str) -> None:
    """Values that no literal can hold, but a checked expression may, are written as expressions."""
    assert format_value(value) == text
    assert format_expr(_expr(text)) == text


def test_computed_literals_keep_their_place() -> None:
    """A literal that is written as an expression stands in parentheses where it must."""
    odd = syntax.Literal_(dt.timedelta(microseconds=1500), span=NOWHERE)
    path = syntax.Path("a", span=NOWHERE)
    assert format_expr(syntax.Arithmetic("*", path, odd, span=NOWHERE)) == "a * (1ms * 1.5)"
    assert format_expr(syntax.Default(path, syntax.Literal_(-1, span=NOWHERE), span=NOWHERE)) == "a ?? -1"
