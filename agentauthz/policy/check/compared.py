"""Check the comparisons: what can't be equal, can't be ordered, or must not be compared this way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from agentauthz.policy.check.places import look_up
from agentauthz.policy.check.reading import principal_help
from agentauthz.policy.check.report import step_span, text_of
from agentauthz.policy.check.static import (
    KIND_NAMES,
    ORDERED,
    Kinds,
    allowed_words,
    called,
    categories,
    comparable,
    items,
)
from agentauthz.policy.source import Span
from agentauthz.policy.syntax import Compare, Default, Expr, ListOf, Literal_, Path
from agentauthz.policy.types import PRINCIPAL

if TYPE_CHECKING:
    from agentauthz.policy.check.infer import Around, Typer


def check(typer: Typer, expr: Compare, left: Kinds, right: Kinds, around: Around) -> None:
    """Report what is wrong between the two sides of a comparison."""
    if expr.operator in ("in", "not in"):
        _member(typer, expr, left, right, around)
    elif expr.operator in ("==", "!="):
        if _bare_ids(typer, expr, around):
            return
        _equality(typer, expr, left, right)
    else:
        _order(typer, expr, left, right)


def _equality(typer: Typer, expr: Compare, left: Kinds, right: Kinds) -> None:
    for side, kinds in ((expr.left, left), (expr.right, right)):
        if kinds and categories(kinds) == {"record"}:
            hint = "compare its attributes one by one"
            typer.report.error(
                "not-comparable", f"{text_of(side)} is a record, and records aren't compared", side.span, hint
            )
            return
    if not comparable(left, right):
        message = f"{text_of(expr.left)} is {called(left)}, and {text_of(expr.right)} is {called(right)}"
        typer.report.error("type-mismatch", message, expr.span, "they are never equal: compare values of one type")
        return
    _known_word(typer, expr.left, left, expr.right, right)


def _known_word(typer: Typer, left: Expr, left_kinds: Kinds, right: Expr, right_kinds: Kinds) -> None:
    """Report a literal that isn't among the values that the other side may have."""
    for side, literal, kinds in ((left, right, left_kinds), (right, left, right_kinds)):
        words = allowed_words(kinds)
        if words is None or not isinstance(literal, Literal_) or type(literal.value) is not str:
            continue
        if literal.value not in words:
            _report_word(typer, side, literal, literal.value, words, kinds)
        return
    ours, theirs = allowed_words(left_kinds), allowed_words(right_kinds)
    if ours and theirs and not ours & theirs:
        message = f"{text_of(left)} and {text_of(right)} have no value in common"
        typer.report.error("type-mismatch", message, left.span)


def _report_word(typer: Typer, side: Expr, literal: Literal_, value: str, words: frozenset[str], kinds: Kinds) -> None:
    hint = typer.report.suggestion(value, words)
    if kinds == (KIND_NAMES,):
        typer.report.error("unknown-kind", f"there is no kind of principal `{value}`", literal.span, hint)
    elif words == typer.selection.world.marks and isinstance(side, Path) and not side.steps:
        unknown_mark(typer, value, literal.span)
    else:
        typer.report.error("unknown-value", f"{text_of(side)} is never `{value}`", literal.span, hint)


def unknown_mark(typer: Typer, mark: str, span: Span) -> None:
    """Report a mark that nothing sets."""
    else_ = (
        f'let a rule set it: `mark {mark} on …`, or declare it as the host\'s: `type session {{ marks: ["{mark}"] }}`'
    )
    hint = typer.report.suggestion(mark, typer.selection.world.marks, else_=else_ if mark.isidentifier() else None)
    typer.report.error("unknown-mark", f"no rule sets the mark `{mark}`, and the host doesn't either", span, hint)


def _member(typer: Typer, expr: Compare, left: Kinds, right: Kinds, around: Around) -> None:
    if isinstance(expr.right, Path) and expr.right.root == "session" and expr.right.steps == ("marks",):
        if not isinstance(expr.left, Literal_) or type(expr.left.value) is not str:
            typer.marks_read |= typer.selection.world.marks  # it may be any of them
        elif expr.left.value in typer.selection.world.marks:
            typer.marks_read.add(expr.left.value)
        else:
            unknown_mark(typer, expr.left.value, expr.left.span)
            return
    if isinstance(expr.right, ListOf):
        _listed(typer, expr, expr.right, left, around)
        return
    elements = items(right) if right else ()
    if elements is None:
        strings = categories(right) == {"string"}
        hint = f"use `contains({_bare(expr.right)}, {_bare(expr.left)})` for a part of a string" if strings else None
        typer.report.error("not-a-list", f"{text_of(expr.right)} is {called(right)}, not a list", expr.right.span, hint)
    elif left and categories(left) == {"record"}:
        typer.report.error(
            "not-comparable", f"{text_of(expr.left)} is a record, and records aren't compared", expr.left.span
        )
    elif not comparable(left, elements):
        message = f"{text_of(expr.left)} is {called(left)}, and {text_of(expr.right)} holds {_plural(elements)}"
        typer.report.error("type-mismatch", message, expr.span, "ask for a value of the list's type")
    else:
        _known_word(typer, expr.left, left, expr.right, elements)


def _listed(typer: Typer, expr: Compare, listed: ListOf, left: Kinds, around: Around) -> None:
    literal = any(isinstance(item, Literal_) for item in listed.items)
    if no_bare_id(typer, expr.left, literal, around, expr.span):
        return
    if left and categories(left) == {"record"}:
        typer.report.error(
            "not-comparable", f"{text_of(expr.left)} is a record, and records aren't compared", expr.left.span
        )
        return
    for item in listed.items:
        kinds = typer.infer(item, around)
        if not comparable(left, kinds):
            message = f"{text_of(expr.left)} is {called(left)}, and {text_of(item)} is {called(kinds)}"
            typer.report.error("type-mismatch", message, item.span, "they are never equal: compare values of one type")
        else:
            _known_word(typer, expr.left, left, item, kinds)


def _order(typer: Typer, expr: Compare, left: Kinds, right: Kinds) -> None:
    for side, kinds in ((expr.left, left), (expr.right, right)):
        if kinds and not categories(kinds) & ORDERED:
            message = f"`{expr.operator}` orders numbers, times and durations, and {text_of(side)} is {called(kinds)}"
            typer.report.error("not-ordered", message, side.span)
            return
    if not comparable(left, right):
        message = f"{text_of(expr.left)} is {called(left)}, and {text_of(expr.right)} is {called(right)}"
        typer.report.error("type-mismatch", message, expr.span, "only values of one type have an order")


def _bare_ids(typer: Typer, expr: Compare, around: Around) -> bool:
    return no_bare_id(typer, expr.left, isinstance(expr.right, Literal_), around, expr.span) or no_bare_id(
        typer, expr.right, isinstance(expr.left, Literal_), around, expr.span
    )


def no_bare_id(typer: Typer, side: Expr, with_literal: bool, around: Around, whole: Span) -> bool:
    """Report a principal's bare id that is compared with a literal; say whether it was one."""
    side = side.path if isinstance(side, Default) else side
    if not with_literal or not isinstance(side, Path) or not side.steps or side.steps[-1] != "id":
        return False
    owner = evolve(side, steps=side.steps[:-1])
    place = look_up(typer.selection, (owner.root, *owner.steps), around.variables.get(owner.root))
    if place.reading(None).kinds != (PRINCIPAL,):
        return False
    typer.report.error(
        "bare-id",
        f"`{side}` alone doesn't say who vouches for it: any issuer could use the same id",
        step_span(side, len(side.steps) - 1),
        principal_help(owner, around.facts, _literal_in(whole)),
    )
    return True


def _literal_in(span: Span) -> str:
    start = span.text.find('"')
    end = span.text.find('"', start + 1)
    return span.text[start : end + 1] if 0 <= start < end and "*" not in span.text[start:end] else '"…"'


def _bare(expr: Expr) -> str:
    return text_of(expr).strip("`")


def _plural(kinds: Kinds) -> str:
    return " or ".join(f"{name}s" for name in sorted(categories(kinds)))
