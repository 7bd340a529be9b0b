"""Check what a rule as a whole means: its types, its polarity, whether it can match, what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from attrs import evolve

from agentauthz.policy.check.constants import NO_CONSTANT, constant, never
from agentauthz.policy.check.infer import Around, Typer
from agentauthz.policy.check.polarity import check_nowhere, check_polarity
from agentauthz.policy.check.report import Reporter, text_of
from agentauthz.policy.check.static import called, categories
from agentauthz.policy.syntax import (
    And,
    Arithmetic,
    Call,
    CheckedRule,
    Compare,
    Default,
    Exists,
    Expr,
    Is,
    Like,
    ListOf,
    Literal_,
    Negate,
    Not,
    Or,
    Path,
    Quantifier,
)
from agentauthz.policy.types import Declared

_KEYS: Final = frozenset({"string", "number", "bool", "time", "principal"})


# ---- types


def check_types(rule: CheckedRule, typer: Typer) -> None:
    """Infer the types in all expressions of a rule."""
    around = Around()
    if rule.condition is not None:
        typer.condition(rule.condition, around)
        # the other clauses only count where the condition isn't false
        around = Around(typer.certain.where(rule.condition, True))
    if rule.by is not None:
        typer.approver = True
        typer.condition(rule.by, around)
        typer.approver = False
    for expr, what in ((rule.amount, "sums"), (rule.bound, "is bounded by")):
        kinds = typer.infer(expr, around) if expr is not None else ()
        if expr is not None and kinds and "number" not in categories(kinds):
            message = f"a limit {what} a number, and {text_of(expr)} is {called(kinds)}"
            typer.report.error("type-mismatch", message, expr.span)
    for key in rule.per:
        _check_key(key, typer, around)


def _check_key(key: Expr, typer: Typer, around: Around) -> None:
    if isinstance(key, Path) and key.root == "session" and not key.steps:
        typer.roots.add("session")
        return
    kinds = typer.infer(key, around)
    if kinds and not categories(kinds) & _KEYS:
        message = f"a limit can't count per {text_of(key)}, which is {called(kinds)}"
        hint = "count per string, number, bool, time, principal or `session`"
        typer.report.error("bad-key", message, key.span, hint)


# ---- meaning


def check_meaning(rule: CheckedRule, typer: Typer) -> None:
    """Check polarity, what can never match, and the lints."""
    report = typer.report
    if typer.asks_permitted or typer.roots & {"chain", "session"}:
        _check_polarity(rule, report)
    if rule.condition is not None:
        _check_never(rule.condition, f"the {rule.effect} `{rule.name}` can never match", report)
    if rule.by is not None:
        _check_never(rule.by, f"nobody can ever approve for `{rule.name}`", report)
        _check_separation(rule.by, report)
    _check_bound(rule, report)
    _lint(rule, typer.roots, report)


def _check_polarity(rule: CheckedRule, report: Reporter) -> None:
    if rule.condition is not None:
        check_polarity(rule.condition, rule.effect, report)
    if rule.by is not None:
        check_polarity(rule.by, "by", report)
    for expr in (rule.amount, rule.bound, *rule.per):
        if expr is not None and not (isinstance(expr, Path) and expr.root == "session" and not expr.steps):
            check_nowhere(expr, rule.effect, report)


def _check_never(condition: Expr, consequence: str, report: Reporter) -> None:
    found = never(condition)
    if found is not None:
        why, span, related = found
        report.error("never-matches", f"{consequence}: {why}", span, "correct the condition, or remove it", related)


def _check_separation(by: Expr, report: Reporter) -> None:
    """Ask each review to say whether people may approve for themselves."""
    for conjunct in by.operands if isinstance(by, And) else (by,):
        inner = conjunct.operand if isinstance(conjunct, Not) else conjunct
        if isinstance(inner, Compare) and inner.operator in ("==", "!="):
            sides = [side.root for side in (inner.left, inner.right) if isinstance(side, Path) and not side.steps]
            if sorted(sides) == ["approver", "subject"]:
                return
    report.error(
        "own-approval",
        "this doesn't say whether the subject may approve for itself",
        by.span,
        "add `and approver != subject`, or `and approver == subject` if only the subject may",
    )


def _check_bound(rule: CheckedRule, report: Reporter) -> None:
    bound = NO_CONSTANT if rule.bound is None else constant(rule.bound)
    if rule.bound is None or not isinstance(bound, int | Decimal) or isinstance(bound, bool) or bound > 0:
        return
    message = f"no call fits into a limit of {bound}"
    report.error("no-room", message, rule.bound.span, "write a positive bound, or a `forbid`")


def _lint(rule: CheckedRule, roots: set[str], report: Reporter) -> None:
    if rule.effect == "permit" and rule.condition is not None and roots and roots <= {"args", "purpose"}:
        read = " and ".join(f"`{root}`" for root in sorted(roots))
        report.warning(
            "nobody-asked",
            f"this permit reads only {read}, which the caller chooses",
            rule.condition.span,
            "say who may: add a condition on `subject` or `actor`",
        )
    if len(rule.per) == 1 and isinstance(rule.per[0], Path) and rule.per[0].root == "actor":
        report.warning(
            "per-actor",
            "each agent that is delegated to gets a budget of its own",
            rule.per[0].span,
            "count per `subject` or `session`, or per both",
        )


# ---- what is declared


def annotated(rule: CheckedRule, declared: Mapping[int, Declared]) -> CheckedRule:
    """Return the rule with each path's declared types on it."""

    def note(expr: Expr | None) -> Expr | None:
        return None if expr is None else _note(expr, declared)

    return evolve(
        rule,
        condition=note(rule.condition),
        by=note(rule.by),
        amount=note(rule.amount),
        bound=note(rule.bound),
        per=tuple(_note(key, declared) for key in rule.per),
    )


def _note(expr: Expr, declared: Mapping[int, Declared]) -> Expr:
    # only what changes is made anew: most nodes have no declared path below them
    match expr:
        case Path():
            return _note_path(expr, declared)
        case Literal_():
            return expr
        case Compare(operator, left, right):
            return Compare(operator, _note(left, declared), _note(right, declared), span=expr.span)
        case And(operands):
            return And(tuple([_note(operand, declared) for operand in operands]), span=expr.span)
        case Is(operand, name):
            noted = _note(operand, declared)
            return expr if noted is operand else Is(noted, name, span=expr.span)
        case Call(name, args, named):
            pairs = tuple([(key, _note(value, declared)) for key, value in named])
            return Call(name, tuple([_note(arg, declared) for arg in args]), pairs, span=expr.span)
        case ListOf(items):
            return evolve(expr, items=tuple(_note(item, declared) for item in items))
        case Exists(path):
            return evolve(expr, path=_note_path(path, declared))
        case Default(path, fallback):
            return evolve(expr, path=_note_path(path, declared), fallback=_note(fallback, declared))
        case Or(operands):
            return evolve(expr, operands=tuple(_note(operand, declared) for operand in operands))
        case Quantifier(_, _, over, body):
            return evolve(expr, over=_note(over, declared), body=_note(body, declared))
        case Arithmetic(_, left, right):
            return evolve(expr, left=_note(left, declared), right=_note(right, declared))
        case Not(operand) | Negate(operand) | Like(operand):
            return evolve(expr, operand=_note(operand, declared))


def _note_path(path: Path, declared: Mapping[int, Declared]) -> Path:
    found = declared.get(id(path))
    return path if found is None else Path(path.root, path.steps, span=path.span, declared=found)
