"""Name every syntax problem that the parser reports, and say when it tries to help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentauthz.policy.source import Diagnostic, Source, Span

CODES: Final[Mapping[str, str]] = {
    "syntax": "something stands where it doesn't fit",
    "unknown-operator": "an operator of another language",
    "chained-comparison": "a comparison of a comparison",
    "second-statement": "a statement that doesn't begin on a line of its own",
    "reserved-word": "a word that the language keeps for later",
    "unclosed-string": "a quote without its partner on the same line",
    "unclosed-bracket": "an opening bracket without its partner",
    "unopened-bracket": "a closing bracket without its partner",
    "hidden-name": "a name that begins with an underscore",
    "bad-character": "a character that means nothing outside quotes",
    "control-character": "a character that can't be seen, or that changes how others are seen",
    "byte-order-mark": "a byte order mark at the start of a file",
    "not-utf8": "bytes that are not UTF-8",
    "bad-escape": "an escape that isn't known where it stands",
    "bad-number": "a number that can't be written so, or is too long",
    "bad-duration": "a duration that can't be written so, or is too long",
    "quoted-star": "a star in a quoted action",
    "empty-name": "an action without a name",
    "argument-order": "an argument by position after one by name",
    "nesting": "an expression or type that nests too deep",
    "statement-size": "a statement that is too large",
    "file-size": "a file that is too large",
    "too-many-errors": "the parser gave up, and didn't read the rest",
}

MAX_STATEMENT: Final = 64 * 1024  # bytes of UTF-8
MAX_FILE: Final = 64 * 1024 * 1024  # bytes of UTF-8
MAX_NESTING: Final = 200
MAX_ERRORS: Final = 100
MAX_HIDDEN: Final = 20  # places of control characters that are shown one by one


def problem(code: str, message: str, source: Source, start: int, end: int, tip: str | None = None) -> Diagnostic:
    """Return the problem `code` at `start` to `end` of `source`."""
    assert code in CODES, code
    return Diagnostic(code, message, Span(source, start, end), tip)


def quoted(text: str) -> str:
    """Return what the user wrote, shortened, between backticks."""
    return f"`{text if len(text) <= 40 else text[:37] + '...'}`"
