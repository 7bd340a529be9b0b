"""Hold policy text, places in it, and what is wrong at a place."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final, Literal, final

from attrs import define, field, frozen

# SECURITY: what a reader can't see, or what changes how the rest is seen: control, format, private and
# surrogate characters, noncharacters, and the line ends that editors show and this language doesn't have. The
# ranges are written out so that a policy's text and canonical form never depend on Python's Unicode version.
HIDDEN: Final = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\uf8ff\ufdd0-\ufdef\ufeff\ufff9-\ufffb\ufffe\uffff"
    r"\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e007f\U000f0000-\U0010ffff"
    + "".join(chr((plane << 16) + low) for plane in range(1, 15) for low in (0xFFFE, 0xFFFF))
    + r"]|\r(?!\n)"
)


@final
class Source:
    """Be one policy file's name and text."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text

    @cached_property
    def line_starts(self) -> list[int]:
        """Return the offset at which each line starts; lines end at a line feed only."""
        return [0, *(found.end() for found in re.finditer("\n", self.text))]

    def position(self, offset: int) -> tuple[int, int]:
        """Return line and column of `offset`, both from 1, columns in code points."""
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """Return the text of line `number` (from 1), without its end."""
        start = self.line_starts[number - 1]
        end = self.line_starts[number] - 1 if number < len(self.line_starts) else len(self.text)
        return self.text[start:end].rstrip("\r")


@final
@define(repr=False, unsafe_hash=True)  # each node has one, and what is frozen costs three times as much
class Span:
    """Be a run of characters in a source: offsets `start` (included) to `end` (excluded). Nobody changes it."""

    source: Source
    start: int
    end: int

    @property
    def text(self) -> str:
        """Return the characters themselves."""
        return self.source.text[self.start : self.end]

    def __str__(self) -> str:
        line, column = self.source.position(self.start)
        return f"{self.source.name}:{line}:{column}"

    __repr__ = __str__


def _notes(related: Iterable[tuple[str, Span]]) -> tuple[tuple[str, Span], ...]:
    return tuple(related)


@final
@frozen
class Diagnostic:
    """Be one thing wrong in a policy: a stable code, a sentence, the place, what to try, related places.

    `message` is one lower-case sentence without a final period, user input in backticks.
    """

    code: str
    message: str
    span: Span
    help: str | None = None
    severity: Literal["error", "warning"] = "error"
    related: Sequence[tuple[str, Span]] = field(default=(), converter=_notes)

    def render(self) -> str:
        """Draw the diagnostic with its line and a caret under the exact characters."""
        parts = [f"{self.severity}[{self.code}]: {self.message}", _excerpt(self.span)]
        parts += [f"note: {text}\n{_excerpt(span)}" for text, span in self.related]
        if self.help:
            parts.append(f"  = help: {self.help}")
        return "\n".join(parts)


_WIDEST = 160  # characters of a line shown around the caret


def _excerpt(span: Span) -> str:
    line, column = span.source.position(span.start)
    text = span.source.line(line)
    shift = max(0, column - 1 - _WIDEST // 2)
    shown = text[shift : shift + _WIDEST]
    lead = "".join("\t" if c == "\t" else " " for c in shown[: column - 1 - shift])
    width = max(1, min(span.end - span.start, len(shown) - len(lead)))
    gutter = " " * len(str(line))
    shown = "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in shown)
    return f"{gutter}--> {span}\n{gutter} |\n{line} | {shown}\n{gutter} | {lead}{'^' * width}"
