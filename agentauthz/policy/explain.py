"""Tell why a decision came out as it did: each rule's clauses, what each answered and what it saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

from attrs import frozen

from agentauthz.decision import Decision, Outcome
from agentauthz.policy.builtins import Answer
from agentauthz.policy.evaluate import STATES, Clause, Undetermined, answer, matching
from agentauthz.policy.format import format_expr, format_value
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.syntax import And, CheckedRule, Expr, Not, Or, Path
from agentauthz.principals import Principal
from agentauthz.values import Sentinel, Value


@final
@frozen(eq=False)
class ExplainedRule:
    """Be one rule that matches the action, and how its condition came out (`clause` None: it has none)."""

    rule: CheckedRule
    clause: Clause | None

    @property
    def answer(self) -> Answer:
        """Return the rule's answer."""
        return True if self.clause is None else self.clause.answer


@final
@frozen(eq=False)
class ExplainedCall:
    """Be one judged call: by whom, and all rules that match, in the order of their names."""

    actor: Principal
    depth: int
    rules: tuple[ExplainedRule, ...]


@final
@frozen(eq=False)
class Change:
    """Be a clause that would answer otherwise: `becomes`. `fact` is a path and a value with which it would."""

    expr: Expr
    becomes: bool
    fact: tuple[Path, Value] | None = None
    told: bool = True  # the value says more than the clause does

    def words(self) -> str:
        """Return the change in words."""
        clause = f"`{format_expr(self.expr)}` were {_word(self.becomes)}"
        if self.fact is None or not self.told:
            return clause
        path, value = self.fact
        return f"{clause}, as with {path} = {shown(value)}"


@final
@frozen(eq=False)
class Flip:
    """Be a smallest change that turns a decision, and the outcome that it would have."""

    outcome: Outcome
    changes: tuple[Change, ...]

    def words(self) -> str:
        """Return the flip in words."""
        verbs = {Outcome.ALLOW: "allowed", Outcome.DENY: "denied", Outcome.REVIEW: "reviewed"}
        return f"it would be {verbs[self.outcome]} if {', and '.join(change.words() for change in self.changes)}"


@final
@frozen(eq=False)
class Explanation:
    """Be a decision with its whole account. It shows values: it is for developers and auditors.

    `flips` are the smallest changes that would turn the decision, as far as they were asked for and some were found.
    """

    decision: Decision
    calls: tuple[ExplainedCall, ...]
    flips: tuple[Flip, ...] = ()

    def render(self) -> str:
        """Draw the explanation as text: rules, clauses, answers and the values seen."""
        lines = [f"{self.decision.action}: {self.decision.outcome.value} ({self.decision.basis.value})"]
        lines += [f"  because {reason.text}" for reason in self.decision.reasons]
        lines += [f"  missing: {', '.join(self.decision.missing)}"] if self.decision.missing else []
        lines += [f"  {flip.words()}" for flip in self.flips]
        for call in self.calls:
            lines.append(f"as {call.actor}, {_hops(call.depth)}:")
            for explained in call.rules:
                lines.append(f"  {explained.rule.effect} {explained.rule.name}: {_word(explained.answer)}")
                if explained.clause is not None:
                    lines += _drawn(explained.clause, 2)
        return "\n".join(lines)

    def clauses(self) -> list[dict[str, object]]:
        """Return all rules' clauses as plain data, for records: place, text, result, values seen."""
        return [
            {"rule": explained.rule.name, "actor": str(call.actor), "clauses": list(_data(explained.clause))}
            for call in self.calls
            for explained in call.rules
            if explained.clause is not None
        ]


def explain(rules: Sequence[CheckedRule], decision: Decision, calls: Sequence[Inputs]) -> Explanation:
    """Return the explanation of `decision` over the calls that were judged."""
    return Explanation(decision, tuple(_explained(rules, seen) for seen in reversed(calls)))


def _explained(rules: Sequence[CheckedRule], seen: Inputs) -> ExplainedCall:
    explained = tuple(ExplainedRule(rule, answer(rule, seen)) for rule in matching(rules, seen.name))
    return ExplainedCall(seen.actor, seen.delegations.depth, explained)


def _hops(depth: int) -> str:
    return "the subject itself" if depth == 0 else f"{depth} delegation{'s' if depth > 1 else ''} from the subject"


def shown(value: Value) -> str:
    """Return a value as a policy would write it, as far as there is a way; at most eight elements of a list."""
    if isinstance(value, Sentinel):
        return f"({STATES[value]})"
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value[:8]))}{', …' if len(value) > 8 else ''}]"
    if isinstance(value, Principal):
        return str(value)
    if isinstance(value, Undetermined):
        return "(undetermined)"
    return "{…}" if isinstance(value, dict) else format_value(value)


def _word(result: Answer) -> str:
    return {True: "true", False: "false", None: "undetermined"}[result]


def _drawn(clause: Clause, indent: int) -> Iterator[str]:
    saw = ", ".join(f"{path} = {shown(value)}" for path, value in _saw(clause).items())
    tail = f"   [{saw}]" if saw else ""
    if isinstance(clause.expr, And | Or | Not):
        yield f"{'  ' * indent}{_word(clause.answer)}: {type(clause.expr).__name__.lower()}"
        for child in clause.children:
            yield from _drawn(child, indent + 1)
    else:
        yield f"{'  ' * indent}{_word(clause.answer)}: {format_expr(clause.expr)}{tail}"


def _data(clause: Clause | None) -> Iterator[dict[str, object]]:
    if clause is None:
        return
    if isinstance(clause.expr, And | Or):
        for child in clause.children:
            yield from _data(child)
        return
    yield {
        "at": str(clause.expr.span),
        "expr": format_expr(clause.expr),
        "result": _word(clause.answer),
        "saw": _saw(clause),
    }


def _saw(clause: Clause) -> dict[str, Value]:
    """Return the values at the roots' paths below a clause; inside a quantifier, the first element's."""
    found: dict[str, Value] = {}
    waiting = [clause]
    while waiting:
        part = waiting.pop()
        if isinstance(part.expr, Path):
            found.setdefault(str(part.expr), part.value)
        waiting += reversed(part.children[:8])
    return found
