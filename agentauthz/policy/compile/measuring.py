"""Compile what a limit measures of a call: one function for bound, amount and the parts of the key."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final, cast, final

from agentauthz.policy.compile.conditions import Conditions
from agentauthz.policy.compile.operands import Paths, count_uses
from agentauthz.policy.compile.python import Python, code_of
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.spending import Measured, Whole, defined, measures
from agentauthz.policy.syntax import CheckedRule


@final
class Measuring:
    """Measure calls for one limit: by the definition at first, and from the second call on by a compiled function."""

    __slots__ = ("_defined", "_met", "_rule", "ask")

    def __init__(self, rule: CheckedRule) -> None:
        self._rule: Final = rule
        self._defined: Final[Measured] = functools.partial(defined, rule)
        self._met = False
        self.ask: Measured = self._ask

    def __call__(self, inputs: Inputs) -> Sequence[object]:
        """Return the values of the limit's measures."""
        return self.ask(inputs)

    def _ask(self, inputs: Inputs) -> Sequence[object]:
        if not self._met:
            self._met = True
            return self._defined(inputs)
        try:
            self.ask = compiled_measures(self._rule, self._defined)
        except Exception:  # too deep for Python's compiler, from where we were called: the definition goes on
            self.ask = self._defined
        return self.ask(inputs)


def compiled_measures(rule: CheckedRule, otherwise: Measured) -> Measured:
    """Return the function that measures calls for `rule`; `otherwise` does where something raises.

    Raises:
        RecursionError: the rule is too deep for Python's compiler, from this depth of calls.
    """
    asked = measures(rule)
    python = Python()
    python.at(rule.span)
    paths = Paths(python, None, count_uses(each for each in asked if not isinstance(each, Decimal | Whole)))
    conditions = Conditions(paths)
    values = [
        python.use(each) if isinstance(each, Decimal | Whole) else conditions.value(each) for each in asked
    ]  # where a value isn't determined, it is a sentinel, as the definition's is none
    failed = python.give(python.call(python.use(otherwise), python.name("inputs")))
    body = [*paths.prologue, python.give(python.several(values))]
    function = python.function("measures", ["inputs"], [python.attempt(body, [failed])])
    exec(code_of([*conditions.functions, function], rule.span.source.name), python.globals)  # noqa: S102  (a tree: no text is run)
    return cast("Callable[[Inputs], Sequence[object]]", python.globals["measures"])
