"""Compile a few rules into one function, when they are met for the second time; the definition answers before.

A function returns a code for each of its rules that isn't false: the rule's number where it is true, and
``~number`` where it is undetermined.
"""

from __future__ import annotations

import ast
import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias, cast, final

from agentauthz.policy.compile.conditions import Conditions, Mode
from agentauthz.policy.compile.operands import Paths, count_uses
from agentauthz.policy.compile.python import Python, code_of
from agentauthz.policy.evaluate import answer, size
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.syntax import CheckedRule, Expr

Codes: TypeAlias = tuple[int, ...]

_MOST_RULES: Final = 32  # of one function
_MOST_NODES: Final = 3_000  # of one function, where it has more than one rule
_MOST_COMPILED: Final = 8  # functions of one leaf that one decision waits for


class Numbered(NamedTuple):
    """Be a rule with its number, and what of its condition is still to be asked (None: nothing)."""

    number: int
    rule: CheckedRule
    condition: Expr | None


class Question(enum.Enum):
    """Tell what is asked of rules."""

    OUTCOME = "which are true, and which undetermined ones count for the outcome"
    UNSURE = "which permits are undetermined"


class Node(Protocol):
    """Answer for some rules."""

    @property
    def ask(self) -> Callable[[Inputs], Codes]:
        """Return what gives the codes of the rules for one call's inputs."""


def counts(rule: CheckedRule) -> bool:
    """Say whether the rule matters for the outcome where it is undetermined."""
    return rule.effect != "permit" or bool(rule.obligations)


def defined(number: int, rule: CheckedRule, question: Question, inputs: Inputs) -> Codes:
    """Return the rule's code as the definition gives it."""
    clause = answer(rule, inputs)
    result = True if clause is None else clause.answer
    if question is Question.UNSURE:
        return (~number,) if result is None else ()
    if result is None:
        return (~number,) if counts(rule) else ()
    return (number,) if result else ()


def all_defined(rules: Iterable[tuple[int, CheckedRule]], question: Question, inputs: Inputs) -> Codes:
    """Return the codes of some rules, each with its number, as the definition gives them."""
    return tuple(code for number, rule in rules for code in defined(number, rule, question, inputs))


@final
class Unit:
    """Be some rules that are compiled together; `action` is the only one that they are asked about, or None.

    `ask` is first the definition's answer, and after `wait` calls the compiled function.
    """

    __slots__ = ("_action", "_question", "_rules", "_wait", "ask")

    def __init__(self, rules: Sequence[Numbered], question: Question, action: str | None, wait: int = 1) -> None:
        self._rules = rules
        self._question = question
        self._action = action
        self._wait = wait
        self.ask: Callable[[Inputs], Codes] = self._ask

    def _ask(self, inputs: Inputs) -> Codes:
        if self._wait > 0:
            self._wait -= 1
            return self._defined(inputs)
        try:
            self.ask = compiled(self._rules, self._question, self._action, self._defined)
        except Exception:  # too deep for Python's compiler, from where we were called: the definition goes on
            self.ask = self._defined
        return self.ask(inputs)

    def _defined(self, inputs: Inputs) -> Codes:
        return all_defined([(number, rule) for number, rule, _ in self._rules], self._question, inputs)


@final
class Leaf:
    """Be more rules than one function should have; `enough` is how many codes are asked for."""

    __slots__ = ("_enough", "_units", "ask")

    def __init__(self, units: Sequence[Unit], enough: int | None) -> None:
        self._units = units
        self._enough = enough
        self.ask: Callable[[Inputs], Codes] = self._ask

    def _ask(self, inputs: Inputs) -> Codes:
        codes: list[int] = []
        for unit in self._units:
            codes += unit.ask(inputs)
            if self._enough is not None and len(codes) >= self._enough:
                break
        return tuple(codes)


def leaf(rules: Sequence[Numbered], question: Question, action: str | None, enough: int | None) -> Node:
    """Return what asks all of `rules`, which are in the order of their numbers."""
    parts = list(_split(rules))
    if len(parts) == 1:
        return Unit(parts[0], question, action)
    # one decision compiles a few functions only: whoever meets thousands of rules doesn't wait for all of them
    units = [Unit(part, question, action, 1 + place // _MOST_COMPILED) for place, part in enumerate(parts)]
    return Leaf(units, enough)


def _split(rules: Sequence[Numbered]) -> Iterator[Sequence[Numbered]]:
    for start in range(0, len(rules), _MOST_RULES):
        part: list[Numbered] = []
        nodes = 0
        for numbered in rules[start : start + _MOST_RULES]:
            own = 1 if numbered.condition is None else size(numbered.condition)
            if part and nodes + own > _MOST_NODES:
                yield part
                part, nodes = [], 0
            part.append(numbered)
            nodes += own
        yield part


# ---- one function


def compiled(
    rules: Sequence[Numbered], question: Question, action: str | None, otherwise: Callable[[Inputs], Codes]
) -> Callable[[Inputs], Codes]:
    """Return the function that answers for `rules`; `otherwise` does where what they share can't be read.

    Raises:
        RecursionError: the rules are too deep for Python's compiler, from this depth of calls.
    """
    python = Python()
    paths = Paths(python, action, count_uses(numbered.condition for numbered in rules))
    conditions = Conditions(paths)
    found = "found"
    body = [statement for numbered in rules for statement in _rule(conditions, numbered, question, found)]
    start, end = python.assign(found, python.several([])), python.give(python.name(found))
    failed = python.give(python.call(python.use(otherwise), python.name("inputs")))
    shared = [python.attempt(paths.prologue, [failed])] if paths.prologue else []
    function = python.function("rules", ["inputs"], [start, *shared, *body, end])
    exec(code_of([*conditions.functions, function], _filename(rules)), python.globals)  # noqa: S102  (a tree: no text is run)
    return cast("Callable[[Inputs], Codes]", python.globals["rules"])


def _rule(conditions: Conditions, numbered: Numbered, question: Question, found: str) -> list[ast.stmt]:
    number, rule, condition = numbered
    python = conditions.python
    python.at(rule.span)
    true, undetermined = (python.add(found, python.several([python.fixed(code)])) for code in (number, ~number))
    if condition is None:
        return [] if question is Question.UNSURE else [true]
    if question is Question.OUTCOME and not counts(rule):
        tests = [python.when(conditions.condition(condition, Mode.TRUE), [true])]
    else:
        test, again = conditions.paths.bound(conditions.condition(condition, Mode.ANSWER))
        if question is Question.UNSURE:
            tests = [python.when(python.same(test, python.fixed(None)), [undetermined])]
        else:
            named = python.when(again(), [true], [undetermined])
            tests = [python.when(python.other(test, python.fixed(False)), [named])]
    ask = python.call(
        python.use(defined), python.fixed(number), python.use(rule), python.use(question), python.name("inputs")
    )
    return [python.attempt(tests, [python.add(found, ask)])]


def _filename(rules: Sequence[Numbered]) -> str:
    names = {rule.span.source.name for _, rule, _ in rules}
    return names.pop() if len(names) == 1 else "<policies>"
