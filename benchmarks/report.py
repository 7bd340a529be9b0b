"""Print what was measured: tables of ratios, and each target with met or missed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

from attrs import frozen


@final
@frozen
class Target:
    """Be one promise: what was found (`value`, shown as `shown`) and the most that it may be."""

    name: str
    shown: str
    bound: str
    met: bool | None  # None: this run didn't measure it


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows under a head, in columns: the first to the left, the others to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    drawn = ["  ".join(_cell(text, widths[n], n) for n, text in enumerate(line)).rstrip() for line in lines]
    return "\n".join([f"\n{title}", drawn[0], "  ".join("-" * width for width in widths), *drawn[1:]])


def _cell(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def targets(found: Iterable[Target]) -> str:
    """Return the targets as a table; a missed one stays a sentence, never an exit status."""
    words = {True: "met", False: "MISSED", None: "not measured in this run"}
    rows = [(one.name, one.shown, one.bound, words[one.met]) for one in found]
    return table("Targets", ("", "measured", "at most", ""), rows)
