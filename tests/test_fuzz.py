"""No text, however broken or large, gets anything out of the policies' front door but statements and problems."""

from __future__ import annotations

import random
import sys
import unicodedata
from collections.abc import Callable
from typing import Final, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentauthz import PolicySet
from agentauthz.errors import PolicyError, PolicySyntaxError
from agentauthz.policy.builtins import KEYWORDS
from agentauthz.policy.format import format_statement
from agentauthz.policy.parse import decode, parse
from agentauthz.policy.source import Diagnostic, Source
from agentauthz.policy.syntax import Statement
from tests.strategies_syntax import statements

# What takes a text and returns its problems; it may raise PolicyError, which carries them, and nothing else.
Entry: TypeAlias = Callable[[str], tuple[Diagnostic, ...]]


def _parse(text: str) -> tuple[Diagnostic, ...]:
    found, problems = parse(Source("fuzz", text))
    assert all(statement.span.text for statement in found)
    return problems


def _policy_set(text: str) -> tuple[Diagnostic, ...]:
    return PolicySet.parse(text, "fuzz").warnings


# Each entry gets everything in this file; a further one is a line here.
ENTRIES: Final[dict[str, Entry]] = {"parse": _parse, "policy set": _policy_set}


@pytest.fixture(params=sorted(ENTRIES), scope="module")
def entry(request: pytest.FixtureRequest) -> Entry:
    """Return each way in, one after the other."""
    checked = ENTRIES[request.param]
    return lambda text: _problems(checked, text)


def _problems(entry: Entry, text: str) -> tuple[Diagnostic, ...]:
    try:
        problems = entry(text)
    except PolicyError as error:
        problems = error.diagnostics
    for problem in problems[:30]:
        assert 0 <= problem.span.start <= problem.span.end <= len(text)
        assert problem.message
        assert problem.code in problem.render()
    return problems


GOOD: Final = """type user { roles: [string] }
action payments.refund(order_id: string, amount: decimal, reason?: string) on Order
let trusted(p) = p is agent and p.trust >= 2 and not p.quarantined
permit small on payments.refund, email.*
  when subject is user and "support" in subject.roles and trusted(actor) and args["a b"] <= 500 ?? 2
  with notify(to: "x")
  because "Support may refund \\u{41}" # a comment
review large on "mcp.a/b" when any x in [1, 2]: x * -3 > 2.50 by approver != subject within 15m
limit daily on * to sum(args.amount) <= 2000 per subject every 1d
"""
_WORDS: Final = [
    *sorted(KEYWORDS), "(", ")", "[", "]", "{", "}", ",", ":", ".", "??", "?", "==", "<=", "<", "*", "-", "+", "=", "|",
    '"', '"a"', "1", "007", "1.5", "15m", "a", "b", "\n", "#", "_", "\\",
]  # fmt: skip
NESTING: Final = {
    "parentheses": "(", "lists": "[", "not": "not ", "minus": "-", "default": "a ?? ", "any": "any x in x: ",
    "every": "every x in x: ", "over": "any x in (", "calls": "f(", "named arguments": "f(a: ", "sums": "1 + ",
    "products": "2 * ", "differences": "1 - ", "comparisons": "(1 == ", "and": "(a and ", "or": "(a or ",
    "membership": "a in [", "chain": "a < ", "keys": "a[", "like": 'a like "',
}  # fmt: skip


@given(st.binary(max_size=200))
def test_bytes_are_a_source_or_a_syntax_error(data: bytes) -> None:
    """Random bytes are decoded, or refused with a place in the text."""
    try:
        source = decode(data, "fuzz")
    except PolicySyntaxError as error:
        (problem,) = error.diagnostics
        assert problem.render()
        assert problem.span.end <= len(problem.span.source.text)
    else:
        assert source.text.encode() == data


@given(st.text(max_size=200))
def test_any_text(entry: Entry, text: str) -> None:
    """Random characters, surrogates included, are answered with problems or statements."""
    entry(text)


@given(st.lists(st.sampled_from(_WORDS), max_size=60))
def test_any_words(entry: Entry, words: list[str]) -> None:
    """Random words of the language, in any order, are answered."""
    entry("permit a on b when " + " ".join(words))
    entry(" ".join(words))


@given(st.randoms(use_true_random=False))
def test_mutated_policies(entry: Entry, chance: random.Random) -> None:
    """A policy with pieces cut, doubled, swapped and replaced is answered."""
    text = GOOD
    for _ in range(chance.randint(1, 6)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice([0, 1, 1, 2, 5, 40]))
        piece = chance.choice(["", "", chance.choice(_WORDS), text[start:end] * 2, chr(chance.randrange(0x11_0000))])
        text = text[:start] + piece + text[end:]
    entry(text)


@given(statements())
def test_cut_statements(entry: Entry, statement: Statement) -> None:
    """A statement that ends too early, at any character, is answered."""
    text = format_statement(statement)
    for end in range(0, len(text), max(1, len(text) // 12)):
        entry(text[:end])


@pytest.mark.parametrize("closing", ["", ")", "]"])
@pytest.mark.parametrize("opening", NESTING.values(), ids=NESTING)
def test_deep_nesting(entry: Entry, opening: str, closing: str) -> None:
    """Each construct that nests is refused when it nests 100,000 deep, and just within a statement's size."""
    for depth in (100_000, 60_000 // len(opening)):
        text = f"permit a on b when {opening * depth}1{closing * min(depth, 100)}"
        assert entry(text), "a text without an end was taken"


@pytest.mark.parametrize("opening", ["[", "{ a: ", "[{ a?: "])
def test_deep_types(entry: Entry, opening: str) -> None:
    """Types that nest too deep are refused."""
    for depth in (100_000, 9_000):
        assert {"nesting", "statement-size"} & {problem.code for problem in entry(f"type t {{ a: {opening * depth}")}


@pytest.mark.parametrize("line", ["permit a onn b", "a b c", "(", '"', "x y ("])
def test_large_garbage(entry: Entry, line: str) -> None:
    """8 MiB of broken lines end in at most some hundred problems."""
    assert 1 <= len(entry(f"{line}\n" * (8 * 1024 * 1024 // (len(line) + 1)))) <= 250


@pytest.mark.parametrize("piece", ["a ", '"', "(", "#", "é", "\u202e", "\n", "# a\n"])
def test_one_large_statement(entry: Entry, piece: str) -> None:
    """A statement of 8 MiB, or 8 MiB of blank lines or comment after one, is answered."""
    entry("permit a on b when " + piece * (8 * 1024 * 1024 // len(piece.encode())))


@pytest.mark.parametrize("category", sorted({unicodedata.category(chr(code)) for code in range(sys.maxunicode + 1)}))
def test_each_unicode_category(entry: Entry, category: str) -> None:
    """Characters of each category are answered wherever they stand: bare, in names, strings and comments."""
    chars = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == category]
    for char in random.Random(category).sample(chars, min(40, len(chars))):
        for text in (char, f"permit a{char} on b", f'permit a on b because "{char}"', f"# {char}\nlet a = {char} 1"):
            entry(text)
