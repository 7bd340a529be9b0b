"""Find the smallest change that would turn a decision: which clauses would have to answer otherwise, and by what facts.

Each change that is returned was tried: the definition decided the question again with it, and otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice, product
from typing import Final, TypeAlias, final

from attrs import evolve

from agentauthz.decision import Basis, Decision, Outcome
from agentauthz.policy.decide import HANDOFF, Rules, decide, inputs_over, judged, without_budget
from agentauthz.policy.evaluate import Clause, answer, evaluate, matching
from agentauthz.policy.explain import Change, Flip
from agentauthz.policy.format import format_expr
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.suppose import Supposed, settable, supposed, with_facts
from agentauthz.policy.syntax import (
    ROOTS,
    And,
    Call,
    CheckedRule,
    Exists,
    Expr,
    Is,
    Literal_,
    Not,
    Or,
    Path,
    children,
)
from agentauthz.values import Value

MOST: Final = 3  # clauses that a flip may change
SHOWN: Final = 3  # flips of one decision
_WIDTH: Final = 8  # ways that are kept for one condition, the smallest
_TRIED: Final = 16  # sets of clauses that are tried, and for each of them, sets of facts
_MAX_RULES: Final = 100  # that match; where there are more, the decision isn't made again and again

_BASES: Final = frozenset({Basis.RULE, Basis.DEFAULT, Basis.LIMIT, Basis.UNDETERMINED})
_STOPPING: Final = frozenset({"forbid", "limit", "review"})

Literal: TypeAlias = tuple[Expr, bool]  # a clause, and what it would answer
Way: TypeAlias = frozenset[Literal]
Make: TypeAlias = Callable[[tuple[CheckedRule, ...]], Rules]


def flips(make: Make, rules: Sequence[CheckedRule], decision: Decision, inputs: Inputs) -> tuple[Flip, ...]:
    """Return the smallest changes that would turn `decision`, which `make(rules)` gives for `inputs`; at most 3.

    None is returned for what isn't the rules' to decide, or where none of 3 clauses or fewer is found.
    """
    found = tuple(matching(rules, inputs.name))
    if decision.basis not in _BASES or len(found) > _MAX_RULES:
        return ()
    handing = (rule for rule in matching(rules, HANDOFF) if rule not in found)
    # a budget that had room is taken to have it, also where another amount would be asked of it
    settle = without_budget if decision.basis is Basis.LIMIT else _as_it_is
    own = _Flips(make, (*found, *handing), found, inputs, settle)
    return tuple(own.found()) if own.before is decision.outcome else ()


def _as_it_is(decision: Decision) -> Decision:
    return decision


@final
class _Flips:
    def __init__(
        self,
        make: Make,
        rules: tuple[CheckedRule, ...],
        found: tuple[CheckedRule, ...],
        inputs: Inputs,
        settle: Callable[[Decision], Decision],
    ) -> None:
        self._settle = settle
        self._make = make
        self._rules = rules
        self._inputs = inputs
        whole = make(rules)
        self.before = settle(decide(whole, inputs.request, inputs_over(whole, inputs, inputs.delegations))).outcome
        seen = judged(whole, inputs)
        self._calls = [[(rule, answer(rule, call)) for rule in found] for call in seen]
        self._clauses: dict[Expr, Clause] = {}  # the first place where each is asked, by the last who is judged
        for call in reversed(self._calls):
            for _, clause in call:
                for literal in () if clause is None else _literals(clause):
                    self._clauses.setdefault(literal.expr, literal)

    def found(self) -> Iterator[Flip]:
        """Yield the smallest changes that turn the decision."""
        size, shown = MOST, 0
        ways = self._denying() if self.before is Outcome.ALLOW else self._allowing()
        for way in islice(_smallest(ways, _TRIED), _TRIED):
            if len(way) > size or shown == SHOWN:
                return
            if (flip := self._tried(way)) is not None:
                size, shown = len(way), shown + 1
                yield flip

    # ---- which clauses

    def _allowing(self) -> list[Way]:
        """Return ways in which every call is permitted, and nothing stops it."""
        ways: list[Way] = [frozenset()]
        for call in self._calls:
            permits = [way for rule, clause in call if rule.effect == "permit" for way in _rule_ways(clause, True)]
            ways = _both(ways, permits)
            for rule, clause in call:
                if rule.effect in _STOPPING:
                    ways = _both(ways, _rule_ways(clause, False))
        return ways

    def _denying(self) -> list[Way]:
        """Return ways in which something stops a call, or no permit holds for it."""
        found: list[Way] = []
        for call in self._calls:
            unpermitted: list[Way] = [frozenset()]
            for rule, clause in call:
                if rule.effect in _STOPPING:
                    found += _rule_ways(clause, True)
                elif rule.effect == "permit" and (clause is None or clause.answer is True):
                    unpermitted = _both(unpermitted, _rule_ways(clause, False))
            found += unpermitted
        return found

    # ---- whether they would do it

    def _tried(self, way: Way) -> Flip | None:
        """Return the flip of these clauses, if they turn the decision and no part of them does."""
        if not way or any(self._turned(part) for size in range(1, len(way)) for part in combinations(way, size)):
            return None
        return self._turned(sorted(way, key=lambda literal: format_expr(literal[0])))

    def _turned(self, literals: Iterable[Literal]) -> Flip | None:
        """Return the flip that other answers of these clauses make, by facts where there are such."""
        options = [self._options(expr, wanted) for expr, wanted in literals]
        for changes in islice(product(*options), _TRIED):
            outcome = self._outcome(changes)
            if outcome is not None and outcome is not self.before and Outcome.ALLOW in (outcome, self.before):
                return Flip(outcome, changes)
        return None

    def _options(self, expr: Expr, wanted: bool) -> list[Change]:
        """Return how a clause could come to answer otherwise: by a fact, or, where there is none, of itself."""
        facts = [one for one in supposed(self._clauses[expr], wanted) if settable(one.path, self._inputs)]
        if facts:
            return [_by_fact(expr, wanted, fact) for fact in facts]
        # SECURITY: of clauses that read the same, one may force the other, so only facts could tell
        return [Change(expr, wanted)] if self._alone(expr) else []

    def _alone(self, expr: Expr) -> bool:
        own = set(self._places(expr))
        others = (place for other in self._clauses if other != expr for place in self._places(other))
        return not any(_along(place, mine) for place in others for mine in own)

    def _places(self, expr: Expr) -> Iterator[tuple[str, ...]]:
        """Return what a clause reads; who passed nothing on is the subject itself."""
        for place in _places(expr):
            same = place[0] == "actor" and not self._inputs.delegations.delegations
            yield ("subject", *place[1:]) if same else place

    def _outcome(self, changes: Sequence[Change]) -> Outcome | None:
        """Return how the question is decided with changes; None: they can't all be."""
        facts: dict[Path, Value] = {}
        fixed: dict[Expr, bool] = {}
        for change in changes:
            if change.fact is None:
                fixed[change.expr] = change.becomes
            elif facts.setdefault(change.fact[0], change.fact[1]) != change.fact[1]:
                return None
        rules = self._make(_with_answers(self._rules, self._inputs.name, fixed) if fixed else self._rules)
        inputs = with_facts(self._inputs, facts, lambda inputs, chain: inputs_over(rules, inputs, chain))
        if inputs is None:
            return None
        told = (evaluate(change.expr, inputs).answer is change.becomes for change in changes if change.fact is not None)
        return self._settle(decide(rules, inputs.request, inputs)).outcome if all(told) else None


def _by_fact(expr: Expr, wanted: bool, fact: Supposed) -> Change:
    return Change(expr, wanted, (fact.path, fact.value), fact.told)


# ---- ways through a condition


def _literals(clause: Clause) -> Iterator[Clause]:
    """Return the clauses below `and`, `or` and `not`."""
    if isinstance(clause.expr, And | Or | Not):
        for child in clause.children:
            yield from _literals(child)
    else:
        yield clause


def _rule_ways(clause: Clause | None, wanted: bool) -> list[Way]:
    if clause is None:  # a rule without a condition is true, and nothing changes that
        return [frozenset()] if wanted else []
    return _ways(clause, wanted)


def _ways(clause: Clause, wanted: bool) -> list[Way]:
    """Return sets of other answers, small ones first, with which a clause would answer `wanted`."""
    if clause.answer is wanted:
        return [frozenset()]
    match clause.expr:
        case Not():
            return _ways(clause.children[0], not wanted)
        case And() | Or() as expr:
            if isinstance(expr, And) is wanted:
                ways: list[Way] = [frozenset()]
                for child in clause.children:
                    ways = _both(ways, _ways(child, wanted))
                return ways
            return list(_smallest([way for child in clause.children for way in _ways(child, wanted)], _WIDTH))
        case expr:
            return [frozenset({(expr, wanted)})] if any(True for _ in _places(expr)) else []


def _both(ones: Iterable[Way], others: Iterable[Way]) -> list[Way]:
    """Return what has a way of each, where the two don't contradict each other."""
    some = list(_smallest(others, _WIDTH))
    joined = (one | other for one in ones for other in some)
    return list(_smallest((way for way in joined if len({expr for expr, _ in way}) == len(way)), _WIDTH))


def _smallest(ways: Iterable[Way], most: int) -> Iterator[Way]:
    kept = {way: None for way in ways if len(way) <= MOST}  # in the order of the rules
    yield from sorted(kept, key=len)[:most]


def _places(expr: Expr) -> Iterator[tuple[str, ...]]:
    """Return the facts that a clause reads; none of the call's name, which is what is asked about."""
    match expr:
        case Literal_():
            return
        case Path(root, steps) | Exists(Path(root, steps)):
            if root in ROOTS and root != "action":
                yield root, *steps
        case Is(Path(root, steps)):
            yield root, *steps, "kind"
        case Call("permitted" | "began" | "done"):
            yield ("(", format_expr(expr))
        case _:
            for child in children(expr):
                yield from _places(child)


def _along(one: Sequence[str], other: Sequence[str]) -> bool:
    """Say whether one place is the other, above it or below it."""
    return all(ours == theirs for ours, theirs in zip(one, other, strict=False))


# ---- other answers in rules


def _with_answers(rules: tuple[CheckedRule, ...], action: str, fixed: Mapping[Expr, bool]) -> tuple[CheckedRule, ...]:
    """Return the rules with those clauses replaced by what they would answer, where they match the action."""
    asked = {rule.name for rule in matching(rules, action)}
    return tuple(
        evolve(rule, condition=_with_answer(rule.condition, fixed))
        if rule.name in asked and rule.condition is not None
        else rule
        for rule in rules
    )


def _with_answer(expr: Expr, fixed: Mapping[Expr, bool]) -> Expr:
    if expr in fixed:
        return Literal_(fixed[expr], span=expr.span)
    match expr:
        case And(operands) | Or(operands):
            return evolve(expr, operands=tuple(_with_answer(operand, fixed) for operand in operands))
        case Not(operand):
            return evolve(expr, operand=_with_answer(operand, fixed))
        case _:
            return expr
