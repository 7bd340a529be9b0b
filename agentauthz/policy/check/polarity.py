"""Check that no fact about delegation or about the session's past can widen where it must only narrow."""

from __future__ import annotations

from typing import Final

from agentauthz.policy.check.report import Reporter, text_of, word_span
from agentauthz.policy.syntax import (
    EFFECTS,
    And,
    Call,
    Compare,
    Effect,
    Exists,
    Expr,
    Literal_,
    Not,
    Or,
    Path,
    Quantifier,
    children,
)

_NARROWING: Final = {"<": True, "<=": True, ">": False, ">=": False}  # of `chain.depth`, on the left
_PLACES: Final = {effect: f"a {effect}" for effect in EFFECTS} | {"by": "`by`"}
_CHAIN_HELP: Final = "write `chain.depth <= 1`, or `every h in chain: …`"
_WIDER_HELP: Final = "write `chain.depth > 1`, or `any h in chain: …`"


def check_polarity(expr: Expr, place: str, report: Reporter) -> None:
    """Check a condition: permits and `by` are positive places, all other effects negative ones."""
    _Walk(place, report).condition(expr, place in ("permit", "by"))


def check_nowhere(expr: Expr, effect: Effect, report: Reporter) -> None:
    """Check an expression that is no condition: a key, an amount or a bound."""
    _Walk(effect, report).nowhere(expr)


class _Walk:
    """Walk one expression; `positive` says whether its truth can only help the call."""

    __slots__ = ("place", "report")

    def __init__(self, place: str, report: Reporter) -> None:
        self.place = place
        self.report = report

    def condition(self, expr: Expr, positive: bool) -> None:
        match expr:
            case Not(operand):
                self.condition(operand, not positive)
            case And(operands) | Or(operands):
                for operand in operands:
                    self.condition(operand, positive)
            case Quantifier():
                self._quantifier(expr, positive)
            case Compare():
                self._compare(expr, positive)
            case Call("permitted"):
                self._permitted(expr, positive)
            case _:
                self.nowhere(expr)

    def nowhere(self, expr: Expr) -> None:
        """Report every reading of the chain, the marks and `permitted` below `expr`."""
        match expr:
            case Path("chain", ()) | Path("chain", ("depth",)):
                hint = f"the chain is read in conditions only: {_WIDER_HELP if self._negative() else _CHAIN_HELP}"
                self.report.error("chain-place", f"{text_of(expr)} can't be read here", expr.span, hint)
            case Path("session", ("marks", *_)):
                self._marks_place(expr)
            case Exists(Path("session", ())):
                return  # it tells nothing about the marks
            case Path("session", ()):
                hint = "name the attribute that is meant: a session as a whole would bring its marks along"
                self.report.error("session-place", "`session` can't be read as a whole here", expr.span, hint)
            case Call("permitted"):
                self._permitted_place(expr)
            case _:
                for child in children(expr):
                    self.nowhere(child)

    def _negative(self) -> bool:
        return self.place not in ("permit", "by")

    def _quantifier(self, expr: Quantifier, positive: bool) -> None:
        over = expr.over
        if isinstance(over, Path) and over.root == "chain" and not over.steps:
            if (expr.kind == "every") is not positive:
                self._widens(expr, f"`{expr.kind}` over the chain", positive)
        elif isinstance(over, Path) and over.root == "session" and over.steps == ("marks",):
            if expr.kind == "every":
                self._marks_place(over)
            elif positive:
                self._mark_helps(expr)
        else:
            self.nowhere(over)
        self.condition(expr.body, positive)

    def _compare(self, expr: Compare, positive: bool) -> None:
        left, right = expr.left, expr.right
        if isinstance(left, Path) and left.root == "chain" and left.steps == ("depth",):
            self._depth(expr, right, _NARROWING.get(expr.operator), positive)
        elif isinstance(right, Path) and right.root == "chain" and right.steps == ("depth",):
            mirrored = _NARROWING.get(expr.operator)
            self._depth(expr, left, None if mirrored is None else not mirrored, positive)
        elif (
            expr.operator in ("in", "not in")
            and isinstance(right, Path)
            and right.root == "session"
            and right.steps == ("marks",)
        ):
            self._mark(expr, positive)
        else:
            self.nowhere(left)
            self.nowhere(right)

    def _depth(self, expr: Compare, other: Expr, narrows: bool | None, positive: bool) -> None:
        if narrows is None:
            hint = _CHAIN_HELP if positive else _WIDER_HELP
            self.report.error(
                "chain-place",
                f"the depth of the chain is compared by order only, not with `{expr.operator}`",
                expr.span,
                hint,
            )
        elif narrows is not positive:
            self._widens(expr, text_of(expr), positive)
        self.nowhere(other)

    def _widens(self, expr: Expr, what: str, positive: bool) -> None:
        effect = "escape" if self._negative() else "do more in"
        message = f"{what} would let a longer chain {effect} {_PLACES[self.place]}, and a delegation may never widen"
        self.report.error("chain-widens", message, expr.span, _CHAIN_HELP if positive else _WIDER_HELP)

    def _mark(self, expr: Compare, positive: bool) -> None:
        if not isinstance(expr.left, Literal_):
            self._marks_place(expr.right)
            self.nowhere(expr.left)
        elif (expr.operator == "in") is positive:
            self._mark_helps(expr)

    def _mark_helps(self, expr: Expr) -> None:
        verb = "helps the call" if not self._negative() else "lets the call pass"
        self.report.error(
            "mark-widens",
            f"here a mark {verb}, and one more mark may never widen",
            expr.span,
            "turn it round, or use an attribute of the session that the host sets, or `done(…)`",
        )

    def _marks_place(self, expr: Expr) -> None:
        hint = 'ask `"name" in session.marks`, or `any m in session.marks: …`'
        self.report.error("marks-place", f"{text_of(expr)} can't be read this way", expr.span, hint)

    def _permitted(self, expr: Call, positive: bool) -> None:
        if self.place != "permit":
            self._permitted_place(expr)
        elif not positive:
            message = "`permitted` can only help in a permit, so it can't stand below `not` or in `unless`"
            self.report.error("permitted-place", message, expr.span, "ask for what must be permitted")
        elif not (
            len(expr.args) == 1
            and isinstance(expr.args[0], Path)
            and expr.args[0].root in ("subject", "actor")
            and not expr.args[0].steps
        ):
            span = expr.args[0].span if expr.args else word_span(expr.span)
            self.report.error(
                "permitted-place", "`permitted` asks for `subject` or `actor` only", span, "write `permitted(subject)`"
            )

    def _permitted_place(self, expr: Expr) -> None:
        message = "`permitted` stands in the conditions of permits only, as a condition of its own"
        self.report.error("permitted-place", message, expr.span, "move it to a permit: `permitted(subject) and …`")
