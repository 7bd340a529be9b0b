"""Collect what is wrong: one diagnostic a mistake, at the exact characters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias, final

from agentauthz.policy.check.suggest import suggestion
from agentauthz.policy.source import Diagnostic, Span
from agentauthz.policy.syntax import Call, CheckedRule, Expr, Path, Rule

Related: TypeAlias = Sequence[tuple[str, Span]]

_BLANK: Final = r"(?:\s|#[^\n]*)*+"
_STEP: Final = re.compile(rf'{_BLANK}(?:\.{_BLANK}([A-Za-z][A-Za-z0-9_]*)|\[{_BLANK}("(?:[^"\\\n\r]|\\.)*"){_BLANK}\])')
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SUGGESTED: Final = 200  # errors, after which nobody looks for names that may have been meant
_LONGEST: Final = 60  # characters of an expression that a message repeats


@final
class Reporter:
    """Keep the first problem found at each place: what else is said about the same characters follows from it."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int, int], Diagnostic] = {}
        self._rule: Rule | CheckedRule | None = None
        self.errors = 0

    @contextmanager
    def within(self, rule: Rule | CheckedRule) -> Iterator[None]:
        """Say, for what is found outside the rule's own text, from which rule it was reached."""
        self._rule = rule
        try:
            yield
        finally:
            self._rule = None

    def error(self, code: str, message: str, span: Span, help: str | None = None, related: Related = ()) -> None:
        """Report what makes the policy unusable."""
        self._add(code, message, span, help, "error", related)

    def warning(self, code: str, message: str, span: Span, help: str | None = None, related: Related = ()) -> None:
        """Report what is likely not meant."""
        self._add(code, message, span, help, "warning", related)

    def _add(
        self,
        code: str,
        message: str,
        span: Span,
        help: str | None,
        severity: Literal["error", "warning"],
        related: Related,
    ) -> None:
        place = (id(span.source), span.start, span.end)
        known = self._found.get(place)
        if known is not None and (known.severity == "error" or severity == "warning"):
            return
        self.errors += severity == "error"
        self._found[place] = Diagnostic(code, message, span, help, severity, [*related, *self._reached_from(span)])

    def _reached_from(self, span: Span) -> Related:
        rule = self._rule
        if rule is None or (span.source is rule.span.source and rule.span.start <= span.start < rule.span.end):
            return ()
        at = rule.name_span if isinstance(rule, Rule) else word_span(rule.span)
        return ((f"the rule `{rule.name}` gets there", at),)

    def suggestion(self, name: str, known: Iterable[str], *, else_: str | None = None) -> str | None:
        """Return the help for an unknown name, among the first problems: looking for it takes time."""
        return else_ if self.errors > _SUGGESTED else suggestion(name, known, else_=else_)

    def in_order(self) -> tuple[Diagnostic, ...]:
        """Return what was found, by source name and place."""
        return tuple(
            sorted(self._found.values(), key=lambda found: (found.span.source.name, found.span.start, found.span.end))
        )


def step_span(path: Path, index: int) -> Span:
    """Return the place of step `index` of a path, or the whole path where its text holds no such step."""
    span = path.span
    found: list[tuple[int, int]] = []
    at = _NAME.match(span.source.text, span.start, span.end)
    while at is not None and (at := _STEP.match(span.source.text, at.end(), span.end)):
        found.append(at.span(1) if at[1] is not None else at.span(2))
    # an expanded path ends in what was written at the place that its span names
    place = index - len(path.steps) + len(found)
    return Span(span.source, *found[place]) if 0 <= place < len(found) else span


def word_span(span: Span) -> Span:
    """Return the first word of `span`: a clause's keyword, a function's name."""
    word = _NAME.match(span.source.text, span.start, span.end)
    return span if word is None else Span(span.source, span.start, word.end())


def named_span(call: Call, name: str, value: Expr) -> Span:
    """Return the place of `name` in `call(…, name: value)`."""
    at = call.span.source.text.rfind(name, call.span.start, value.span.start)
    return value.span if at < 0 else Span(call.span.source, at, at + len(name))


def text_of(expr: Expr) -> str:
    """Return an expression as a message shows it, in backticks."""
    text = str(expr) if isinstance(expr, Path) else " ".join(expr.span.text.split())
    return f"`{text if len(text) <= _LONGEST else text[: _LONGEST - 1] + '…'}`"
