"""Cut a policy file into statements, and look over their tokens, before anything is parsed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, final

from attrs import Factory, define

from agentauthz.policy.builtins import KEYWORDS
from agentauthz.policy.parse.codes import MAX_NESTING, MAX_STATEMENT

STATEMENTS: Final = ("permit", "forbid", "review", "limit", "mark", "let", "type", "action")

_ANY_KEYWORD: Final = rf"(?:{'|'.join(sorted(KEYWORDS))})\b"
# A line starts a statement where a statement's word and a name begin it, or two words of which neither is a
# keyword: the language never has two names in a row, so that is a misspelt word and can't be anything else.
# INVARIANT: a string holds no line end, so that no line starts inside one.
_START: Final = re.compile(
    rf"^[ \t]*(?:(?:{'|'.join(STATEMENTS)})[ \t]+[\"\w]"
    rf"|(?!{_ANY_KEYWORD})[A-Za-z_]\w*[ \t]+(?!{_ANY_KEYWORD})[\"A-Za-z_])",
    re.MULTILINE,
)
_BLANK: Final = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+\Z")
_TOKEN: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"?|#[^\n]*|[A-Za-z_]\w*|[0-9][\w.]*|<=|>=|==|!=|\?\?|\S')
_PAIRS: Final = {")": "(", "]": "[", "}": "{"}


@final
@define
class Overview:
    """Be what a scan of a statement's tokens found: its last token's place, and the brackets left open."""

    last: tuple[int, int] | None = None
    opened: list[int] = Factory(list)  # offsets
    too_deep: int | None = None  # offset of the first bracket beyond the bound


def split(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each statement's text, with the comments and blank lines that follow it."""
    start = 0
    for found in _START.finditer(text):
        if found.start() > start and not is_blank(text[start : found.start()]):
            yield start, found.start()
        start = found.start()
    if not is_blank(text[start:]):
        yield start, len(text)


def is_blank(text: str) -> bool:
    """Say whether there are only spaces and comments."""
    return _BLANK.match(text) is not None


def too_large(text: str) -> bool:
    """Say whether a statement is larger than the bound, not counting comments and blank lines after it."""
    if len(text) * 4 <= MAX_STATEMENT:
        return False
    end = len(text.rstrip())
    while end > 0:
        start = text.rfind("\n", 0, end) + 1
        line = text[start:end].strip()
        if line and not line.startswith("#"):
            break
        end = start - 1
    return end > MAX_STATEMENT or len(text[: max(end, 0)].encode()) > MAX_STATEMENT


def too_deep(text: str) -> int | None:
    """Return the offset of the first bracket that nests deeper than the bound, or None."""
    if sum(map(text.count, "([{")) <= MAX_NESTING:
        return None
    return overview(text, len(text)).too_deep


def token_at(text: str, offset: int) -> str:
    """Return the characters of the token that starts at `offset`, as far as one can be made out."""
    found = _TOKEN.match(text, offset)
    return found[0] if found else ""


def overview(text: str, end: int) -> Overview:
    """Scan the tokens of `text` up to offset `end`."""
    seen = Overview()
    for found in _TOKEN.finditer(text, 0, end):
        piece = found[0]
        if piece[0] == "#":
            continue
        seen.last = found.span()
        if piece in ("(", "[", "{"):
            seen.opened.append(found.start())
            if len(seen.opened) > MAX_NESTING and seen.too_deep is None:
                seen.too_deep = found.start()
        elif piece in _PAIRS and seen.opened and text[seen.opened[-1]] == _PAIRS[piece]:
            seen.opened.pop()
    return seen
