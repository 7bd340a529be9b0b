"""Check each rule's expressions, and make the checked rule of it."""

from __future__ import annotations

from typing import Final, final

from attrs import evolve

from agentauthz.policy.check.clauses import Clauses, check_shape
from agentauthz.policy.check.constants import NO_CONSTANT, constant
from agentauthz.policy.check.digest import Declarations
from agentauthz.policy.check.infer import Typer
from agentauthz.policy.check.lets import Expander
from agentauthz.policy.check.meaning import annotated, check_meaning, check_types
from agentauthz.policy.check.names import Names, Size
from agentauthz.policy.check.report import Reporter, text_of
from agentauthz.policy.check.world import World
from agentauthz.policy.format import Written
from agentauthz.policy.syntax import (
    And,
    Because,
    By,
    CheckedObligation,
    CheckedRule,
    Clause,
    Every,
    Expr,
    Not,
    Per,
    Rule,
    ToCount,
    ToSum,
    Unless,
    When,
    With,
    Within,
)

MAX_NODES: Final = 10_000  # of one rule, lets expanded
MAX_SET_NODES: Final = 10_000_000
MAX_DEPTH: Final = 200


@final
class RuleChecker:
    """Check rule after rule, with what is declared around them."""

    def __init__(self, world: World, names: Names, report: Reporter, written: Written) -> None:
        self.world = world
        self.names = names
        self.report = report
        self.tracked: set[str] = set()
        self.marks_read: set[str] = set()
        self._expander = Expander(names, report)
        self._declarations = Declarations(world, written)
        self._nodes = 0

    def check(self, rule: Rule) -> CheckedRule | None:
        """Return the checked rule, or None where it is too large, or something in it can't be used."""
        errors = self.report.errors
        with self.report.within(rule):
            clauses = check_shape(rule, self.names, self.report)
            if not self._fits(rule):
                return None
            expanded = [self._expand(clause) for clause in rule.clauses]
            new = {id(old): clause for old, clause in zip(rule.clauses, expanded, strict=True)}
            same = all(a is b for a, b in zip(rule.clauses, expanded, strict=True))
            grown = rule if same else evolve(rule, clauses=tuple(expanded))
            checked = self._checked(grown, {word: new[id(clause)] for word, clause in clauses.items()})
        return checked if self.report.errors == errors else None

    # ---- bounds

    def _fits(self, rule: Rule) -> bool:
        sizes = [self.names.measure(expr) for clause in rule.clauses for expr in _expressions(clause)]
        nodes, depth = sum(size.nodes for size in sizes), max((size.depth for size in sizes), default=0)
        self._nodes += min(nodes, MAX_NODES)
        if nodes > MAX_NODES:
            self._too_large(rule, f"the rule `{rule.name}` has more than {MAX_NODES:,} parts", sizes)
        elif depth > MAX_DEPTH:
            self._too_large(rule, f"the rule `{rule.name}` nests deeper than {MAX_DEPTH} levels", sizes)
        elif self._nodes > MAX_SET_NODES:
            self._too_large(rule, f"with this rule the policies have more than {MAX_SET_NODES:,} parts", sizes)
        return nodes <= MAX_NODES and depth <= MAX_DEPTH and self._nodes <= MAX_SET_NODES

    def _too_large(self, rule: Rule, message: str, sizes: list[Size]) -> None:
        if any(size.uses & self.names.broken for size in sizes):
            return  # what a let in a circle would grow to means nothing
        grown = any(size.uses for size in sizes)
        hint = "the lets that it uses count as if they were written out" if grown else "split it into several rules"
        self.report.error("too-large", message, rule.name_span, hint)

    # ---- expressions

    def _expand(self, clause: Clause) -> Clause:
        expand = self._expander.expand
        match clause:
            case When(condition) | Unless(condition) | By(condition):
                expanded = expand(condition)
                return clause if expanded is condition else evolve(clause, condition=expanded)
            case With(_, bindings):
                return evolve(clause, bindings=tuple((name, expand(value)) for name, value in bindings))
            case ToCount(bound):
                return evolve(clause, bound=expand(bound))
            case ToSum(amount, bound):
                return evolve(clause, amount=expand(amount), bound=expand(bound))
            case Per(keys):
                return evolve(clause, keys=tuple(map(expand, keys)))
            case _:
                return clause

    def _checked(self, rule: Rule, clauses: Clauses) -> CheckedRule:
        obligations = tuple(self._obligation(clause) for clause in rule.clauses if isinstance(clause, With))
        checked = _put_together(rule, clauses, obligations)
        typer = Typer(self.world.select(rule.patterns), rule.effect, self.report)
        check_types(checked, typer)
        check_meaning(checked, typer)
        self.tracked |= typer.tracked
        self.marks_read |= typer.marks_read
        if typer.declared:
            checked = annotated(checked, typer.declared)
        return evolve(checked, digest=self._declarations.digest(rule, typer.roots))

    def _obligation(self, clause: With) -> CheckedObligation:
        properties: dict[str, object] = {}
        for name, value in clause.bindings:
            known = constant(value)
            if name in properties:
                message = f"`{name}` is given twice"
                self.report.error("duplicate-name", message, value.span, "keep one of them")
            elif known is NO_CONSTANT:
                message = f"`{name}` must be a constant, and {text_of(value)} isn't"
                self.report.error(
                    "not-constant", message, value.span, "an obligation's values are known when the policy is loaded"
                )
            properties[name] = known
        return CheckedObligation(clause.name, properties, span=clause.span)


def _expressions(clause: Clause) -> tuple[Expr, ...]:
    match clause:
        case When(condition) | Unless(condition) | By(condition):
            return (condition,)
        case With(_, bindings):
            return tuple(value for _, value in bindings)
        case ToCount(bound):
            return (bound,)
        case ToSum(amount, bound):
            return (amount, bound)
        case Per(keys):
            return keys
        case _:
            return ()


def _condition(when: Clause | None, unless: Clause | None) -> Expr | None:
    """Return `when and not (unless)`, its conjunctions joined."""
    parts: list[Expr] = []
    if isinstance(when, When):
        parts.extend(when.condition.operands if isinstance(when.condition, And) else (when.condition,))
    if isinstance(unless, Unless):
        parts.append(Not(unless.condition, span=unless.span))
    if len(parts) < 2:
        return parts[0] if parts else None
    span = when.condition.span if isinstance(when, When) else parts[0].span
    return And(tuple(parts), span=span)


def _put_together(rule: Rule, clauses: Clauses, obligations: tuple[CheckedObligation, ...]) -> CheckedRule:
    to, by, per, every = clauses.get("to"), clauses.get("by"), clauses.get("per"), clauses.get("every")
    within, because = clauses.get("within"), clauses.get("because")
    return CheckedRule(
        rule.effect,
        rule.name,
        rule.patterns,
        _condition(clauses.get("when"), clauses.get("unless")),
        span=rule.span,
        because=because.text if isinstance(because, Because) else None,
        mark=(rule.mark or rule.name) if rule.effect == "mark" else None,
        obligations=obligations,
        by=by.condition if isinstance(by, By) else None,
        within=within.duration if isinstance(within, Within) else None,
        amount=to.amount if isinstance(to, ToSum) else None,
        bound=to.bound if isinstance(to, ToSum | ToCount) else None,
        per=per.keys if isinstance(per, Per) else (),
        window=every.duration if isinstance(every, Every) else None,
    )
