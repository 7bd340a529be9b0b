"""Define what a checked rule means: each expression's value, three answers, and what each clause saw.

This is the definition. It is short and slow; `compile` must equal it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Final, TypeAlias, cast, final

from attrs import define, field, frozen

from agentauthz.decision import Decision, Reason
from agentauthz.policy.builtins import (
    ARITHMETIC,
    COMPARISONS,
    FUNCTIONS,
    Answer,
    all_of,
    any_of,
    is_type,
    like,
    negate,
    negation,
)
from agentauthz.policy.format import format_expr
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.syntax import (
    And,
    Arithmetic,
    Call,
    CheckedRule,
    Compare,
    Default,
    Effect,
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
    Pattern,
    Quantifier,
    children,
)
from agentauthz.principals import OWN_NAMESPACES
from agentauthz.values import ABSENT, INVALID, UNKNOWN, Sentinel, Unordered, Value

MAX_LOOP: Final = 1_000_000  # nodes that one quantifier may visit, those around it multiplied in

MAX_TEXT: Final = 50_000_000  # code points that one function may read in all rounds of the quantifiers around it

STATES: Final = {ABSENT: "absent", UNKNOWN: "unknown", INVALID: "of the wrong type"}
Variables: TypeAlias = Mapping[str, Value]


@final
@frozen
class Undetermined:
    """Be the third answer: `missing` names the inputs that it hangs on, each with its state."""

    missing: frozenset[str] = frozenset()


@final
@frozen(eq=False)
class Clause:
    """Be one expression with the value that it had (a policy value, a sentinel, or `Undetermined`)."""

    expr: Expr
    value: Value
    children: tuple[Clause, ...] = ()

    @property
    def answer(self) -> Answer:
        """Return the value as a condition's answer."""
        return self.value if isinstance(self.value, bool) else None

    @property
    def missing(self) -> frozenset[str]:
        """Return the inputs that a condition's clause hangs on, where it is undetermined."""
        return frozenset() if self.answer is not None else missing_inputs(self) or _no_condition(self)


@final
@frozen
class _Scope:
    inputs: Inputs
    variables: Variables = field(factory=dict)
    rounds: int = 1  # how often the quantifiers around this place go round


def evaluate(expr: Expr, inputs: Inputs) -> Clause:
    """Return `expr`'s value for `inputs`, and those of all clauses below it."""
    return _evaluate(expr, _Scope(inputs))


def answer(rule: CheckedRule, inputs: Inputs) -> Clause | None:
    """Return what the rule's condition answers; None where it has none, which is true."""
    return None if rule.condition is None else evaluate(rule.condition, inputs)


def applies(pattern: Pattern, action: str) -> bool:
    """Say whether an action pattern covers an action's name; `*` never covers the library's own actions."""
    if pattern.kind == "all":
        return not action.startswith(OWN_NAMESPACES)
    return action == pattern.name if pattern.kind == "exact" else action.startswith(pattern.name + ".")


def matching(rules: Iterable[CheckedRule], action: str) -> Iterator[CheckedRule]:
    """Return the rules that have a pattern for the action."""
    return (rule for rule in rules if any(applies(pattern, action) for pattern in rule.patterns))


# ---- the verdict: which rules answer what


@final
@frozen
class Grants:
    """Be what an allow says: its rules and their reasons, undetermined rules, marks, and the limits that apply."""

    names: tuple[str, ...]
    reasons: tuple[Reason, ...]
    undetermined: tuple[str, ...]
    marks: tuple[str, ...]
    limits: tuple[CheckedRule, ...]


@final
@define(eq=False)
class Verdict:
    """Be the rules that match an action and aren't false: by effect, those true and those undetermined.

    Undetermined permits without obligations are left out: they don't count for the outcome.
    """

    true: Mapping[Effect, tuple[CheckedRule, ...]]
    undetermined: Mapping[Effect, tuple[CheckedRule, ...]]
    allow: Decision | None = None  # the decision that `grants` led to last; one for every action would have no bound

    @cached_property
    def grants(self) -> Grants | None:
        """Return what an allow says where permits without obligations, limits and marks are all there is; else None."""
        permits, unsure = self.true.get("permit", ()), self.undetermined
        stopping = not {"forbid", "review"}.isdisjoint((*self.true, *unsure)) or "permit" in unsure
        if not permits or stopping or any(rule.obligations for rule in permits):
            return None
        ordered = sorted(permits, key=lambda rule: rule.name)
        marking = (*self.true.get("mark", ()), *unsure.get("mark", ()))
        return Grants(
            tuple(rule.name for rule in ordered),
            tuple(rule.permitted for rule in ordered),
            tuple(sorted({rule.name for found in unsure.values() for rule in found})),
            tuple(sorted({cast(str, rule.mark) for rule in marking})),
            (*self.true.get("limit", ()), *unsure.get("limit", ())),
        )


def verdict(rules: Iterable[CheckedRule], inputs: Inputs) -> Verdict:
    """Return the definition's verdict; `rules` in the order of their names."""
    true: dict[Effect, list[CheckedRule]] = {}
    undetermined: dict[Effect, list[CheckedRule]] = {}
    for rule in matching(rules, inputs.name):
        clause = answer(rule, inputs)
        result = True if clause is None else clause.answer
        if result is True:
            true.setdefault(rule.effect, []).append(rule)
        elif result is None and (rule.effect != "permit" or rule.obligations):
            undetermined.setdefault(rule.effect, []).append(rule)
    return Verdict({k: tuple(v) for k, v in true.items()}, {k: tuple(v) for k, v in undetermined.items()})


# ---- expressions


def _evaluate(expr: Expr, scope: _Scope) -> Clause:
    return _EVALUATORS[type(expr)](expr, scope)


def _literal(expr: Literal_, _: _Scope) -> Clause:
    return Clause(expr, expr.value)


def _list(expr: ListOf, scope: _Scope) -> Clause:
    items = tuple(_evaluate(item, scope) for item in expr.items)
    # an element that can't be determined doesn't spoil the others: `in` and the quantifiers see it alone
    return Clause(expr, tuple(_value(item) for item in items), items)


def _path(expr: Path, scope: _Scope) -> Clause:
    if expr.root == "chain" and not expr.steps:
        return Clause(expr, scope.inputs.hops)
    return Clause(expr, scope.inputs.read(expr, scope.variables))


def _exists(expr: Exists, scope: _Scope) -> Clause:
    path = _path(expr.path, scope)
    if path.value is UNKNOWN or path.value is INVALID:
        return _undetermined(expr, (path,))
    return Clause(expr, path.value is not ABSENT, (path,))


def _default(expr: Default, scope: _Scope) -> Clause:
    path = _path(expr.path, scope)
    if path.value is not ABSENT:
        return Clause(expr, path.value, (path,))
    fallback = _evaluate(expr.fallback, scope)
    return Clause(expr, fallback.value, (path, fallback))


def _call(expr: Call, scope: _Scope) -> Clause:
    if expr.name == "permitted":
        who = cast(Path, expr.args[0]).root
        return _condition(expr, scope.inputs.permitted(who), (), f"permitted({who})")
    args = tuple(_evaluate(arg, scope) for arg in expr.args)
    if expr.name in ("began", "done"):
        name, duration = cast(str, args[0].value), cast(dt.timedelta, args[1].value)
        return _condition(expr, scope.inputs.seen_within(expr.name, name, duration), (), f'{expr.name}("{name}")')
    named = {name: _evaluate(value, scope) for name, value in expr.named}
    parts = (*args, *named.values())
    if too_long([part.value for part in parts], scope.rounds):
        return Clause(expr, Undetermined(frozenset({f"`{expr.name}(…)` (too long a text, too many rounds)"})), parts)
    result = FUNCTIONS[expr.name](tuple(map(_value, args)), {name: _value(c) for name, c in named.items()})
    return _undetermined(expr, parts) if result is INVALID else Clause(expr, result, parts)


def _not(expr: Not, scope: _Scope) -> Clause:
    operand = _evaluate(expr.operand, scope)
    return _combined(expr, negation(operand.answer), (operand,))


def _junction(combine: Callable[[Iterable[Answer]], Answer]) -> Callable[..., Clause]:
    def evaluator(expr: And | Or, scope: _Scope) -> Clause:
        operands = tuple(_evaluate(operand, scope) for operand in expr.operands)
        return _combined(expr, combine(operand.answer for operand in operands), operands)

    return evaluator


def _quantifier(expr: Quantifier, scope: _Scope) -> Clause:
    over = _evaluate(expr.over, scope)
    if type(over.value) is not tuple and type(over.value) is not Unordered:
        return _undetermined(expr, (over,))
    rounds = scope.rounds * len(over.value)
    if rounds * size(expr.body) > MAX_LOOP:
        return Clause(expr, Undetermined(frozenset({f"`{expr.kind} {expr.variable} in …` (too many rounds)"})), (over,))
    bodies = tuple(
        _evaluate(expr.body, _Scope(scope.inputs, {**scope.variables, expr.variable: element}, rounds))
        for element in over.value
    )
    combine = any_of if expr.kind == "any" else all_of
    return _combined(expr, combine(body.answer for body in bodies), bodies, (over,))


def _compare(expr: Compare, scope: _Scope) -> Clause:
    left, right = _evaluate(expr.left, scope), _evaluate(expr.right, scope)
    if too_many(expr.operator, left.value, right.value, scope.rounds):
        return Clause(expr, Undetermined(frozenset({f"`{expr.operator}` (too many rounds)"})), (left, right))
    return _condition(expr, COMPARISONS[expr.operator](_value(left), _value(right)), (left, right))


def too_many(operator: str, left: Value, right: Value, rounds: int) -> bool:
    """Say whether a comparison that is made `rounds` times would look at more elements in all than it may."""
    most = MAX_LOOP // rounds
    if not isinstance(right, tuple):
        return False
    if not isinstance(left, tuple):
        return operator in ("in", "not in") and len(right) > most
    if operator in ("in", "not in"):
        return _elements(right, most) > most
    # lists of different lengths are told apart at once, others at the latest where one of them ends
    return len(left) == len(right) and min(_elements(left, most), _elements(right, most)) > most


def too_long(values: Iterable[Value], rounds: int) -> bool:
    """Say whether what looks into these texts would read more code points in all than it may in `rounds` rounds."""
    return rounds > 1 and rounds * sum(len(value) for value in values if type(value) is str) > MAX_TEXT


def _elements(collection: tuple[Value, ...], most: int) -> int:
    """Return the number of elements, nested ones included; beyond `most` nobody counts."""
    count = len(collection)
    for element in collection:
        if count > most:
            break
        if isinstance(element, tuple):
            count += _elements(element, most - count)
    return count


def _like(expr: Like, scope: _Scope) -> Clause:
    operand = _evaluate(expr.operand, scope)
    if too_long([operand.value], scope.rounds):
        return Clause(expr, Undetermined(frozenset({"`like` (too long a text, too many rounds)"})), (operand,))
    return _condition(expr, like(_value(operand), expr.parts), (operand,))


def _is(expr: Is, scope: _Scope) -> Clause:
    operand = _evaluate(expr.operand, scope)
    return _condition(expr, is_type(_value(operand), expr.type_name), (operand,))


def _arithmetic(expr: Arithmetic, scope: _Scope) -> Clause:
    left, right = _evaluate(expr.left, scope), _evaluate(expr.right, scope)
    result = ARITHMETIC[expr.operator](_value(left), _value(right))
    return _undetermined(expr, (left, right)) if result is INVALID else Clause(expr, result, (left, right))


def _negate(expr: Negate, scope: _Scope) -> Clause:
    operand = _evaluate(expr.operand, scope)
    result = negate(_value(operand))
    return _undetermined(expr, (operand,)) if result is INVALID else Clause(expr, result, (operand,))


def _value(clause: Clause) -> Value:
    """Return the clause's value as an operand: what is undetermined is of no type."""
    return INVALID if isinstance(clause.value, Undetermined) else clause.value


def _combined(expr: Expr, result: Answer, operands: tuple[Clause, ...], others: tuple[Clause, ...] = ()) -> Clause:
    """Return the clause of a condition that is made of conditions, and hangs on those that are undetermined."""
    missing = frozenset[str]().union(*(operand.missing for operand in operands))
    return Clause(expr, Undetermined(missing) if result is None else result, (*others, *operands))


def _condition(expr: Expr, result: Answer, parts: tuple[Clause, ...], source: str | None = None) -> Clause:
    return _undetermined(expr, parts, source) if result is None else Clause(expr, result, parts)


def _undetermined(expr: Expr, parts: tuple[Clause, ...], source: str | None = None) -> Clause:
    missing = frozenset[str]().union(*(missing_inputs(part) for part in parts))
    if source is not None:
        missing |= {f"{source} (unknown)"}
    if not missing:  # every part has a value, but not one that this can work with
        missing = frozenset(f"{p.expr} (of the wrong type)" for p in parts if isinstance(p.expr, Path))
    return Clause(expr, Undetermined(missing or frozenset({f"`{format_expr(expr)}` (no result)"})), parts)


def missing_inputs(part: Clause) -> frozenset[str]:
    """Return the inputs without which the clause has no value, each with its state."""
    if isinstance(part.value, Undetermined):
        return part.value.missing
    if isinstance(part.value, Sentinel):
        return (
            frozenset({f"{part.expr} ({STATES[part.value]})"})
            if isinstance(part.expr, Path)
            else (frozenset[str]().union(*map(missing_inputs, part.children)))
        )
    return frozenset()


def _no_condition(clause: Clause) -> frozenset[str]:
    """Name the path whose value stands where a condition is asked for, and is none."""
    while clause.children:  # of `P ?? B` the last gave the value
        clause = clause.children[-1]
    return frozenset({f"{clause.expr} (of the wrong type)"})


def size(expr: Expr) -> int:
    """Return the number of nodes of an expression."""
    return 1 + sum(map(size, children(expr)))


_EVALUATORS: Final[Mapping[type, Callable[..., Clause]]] = {
    Literal_: _literal,
    ListOf: _list,
    Path: _path,
    Exists: _exists,
    Default: _default,
    Call: _call,
    Not: _not,
    And: _junction(all_of),
    Or: _junction(any_of),
    Quantifier: _quantifier,
    Compare: _compare,
    Like: _like,
    Is: _is,
    Arithmetic: _arithmetic,
    Negate: _negate,
}
