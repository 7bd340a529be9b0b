"""Answer for a policy set with Python functions that are compiled from its rules, as the definition would.

Rules are found by their action, then by what they demand; what is found is compiled when it is met again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, final

from agentauthz.policy.compile.demands import Demand, Entry, demands
from agentauthz.policy.compile.index import NOTHING, Builder
from agentauthz.policy.compile.measuring import Measuring
from agentauthz.policy.compile.units import Codes, Node, Question
from agentauthz.policy.evaluate import Verdict
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.spending import Meter
from agentauthz.policy.syntax import CheckedRule, Effect, Pattern
from agentauthz.principals import OWN_NAMESPACES

_MOST_PLANS: Final = 4096  # action names are the caller's, so what is kept for them is bounded
_MOST_VERDICTS: Final = 4096
_LONGEST_KEPT: Final = 32  # codes of a verdict that is kept
_MOST_NAMED: Final = 16  # undetermined permits that are told


@final
class Compiled:
    """Answer as the definition does, at a cost that follows the rules that could match.

    `rules` are in the order of their names; `arguments` are those of declared actions, `demanded` gives what a rule
    demands (which it tells itself, if at the cost of looking into it). Any number of threads
    may ask at once: what is built is published when it is ready, and building it twice does no harm.
    """

    def __init__(
        self,
        rules: Sequence[CheckedRule],
        arguments: Mapping[str, frozenset[str]],
        digest: str,
        demanded: Callable[[CheckedRule], tuple[Demand, ...]] = demands,
    ) -> None:
        self.digest = digest
        self.arguments = arguments
        self._rules = rules
        self._buckets = _Buckets(rules, demanded)
        self._plans: dict[str, tuple[Node, ...]] = {}
        self._verdicts: dict[Codes, Verdict] = {}
        self._meters: dict[str, Meter] = {}

    def verdict(self, inputs: Inputs) -> Verdict:
        """Return the rules that match and are true or undetermined."""
        codes: Codes = ()
        plan = self._plans.get(inputs.name)
        for node in self._plan(inputs.name) if plan is None else plan:
            codes += node.ask(inputs)
        return self._verdicts.get(codes) or self._make_verdict(codes)

    def matching(self, action: str) -> Iterable[CheckedRule]:
        """Return the rules that have a pattern for the action, in the order of their names."""
        numbers = {number for bucket in self._buckets.matching(action) for number in bucket.numbers()}
        return [self._rules[number] for number in sorted(numbers)]

    def undetermined_permits(self, inputs: Inputs) -> Sequence[CheckedRule]:
        """Return the first 16 permits, by name, that match and are undetermined."""
        codes = {code for bucket in self._buckets.matching(inputs.name) for code in bucket.unsure.ask(inputs)}
        return [self._rules[~code] for code in sorted(codes, reverse=True)[:_MOST_NAMED]]

    def meter(self, rule: CheckedRule) -> Meter:
        """Return what tells what a limit takes of a call."""
        return self._meters.get(rule.name) or self._meters.setdefault(rule.name, Meter(rule, Measuring(rule)))

    def _plan(self, action: str) -> tuple[Node, ...]:
        nodes = (bucket.outcome for bucket in self._buckets.matching(action))
        plan = tuple(node for node in nodes if node is not NOTHING)
        plans = self._plans if len(self._plans) < _MOST_PLANS else {}
        plans[action] = plan
        self._plans = plans
        return plan

    def _make_verdict(self, codes: Codes) -> Verdict:
        true: dict[Effect, list[CheckedRule]] = {}
        undetermined: dict[Effect, list[CheckedRule]] = {}
        # a rule with several patterns may have been asked twice
        for code in sorted(set(codes), key=lambda code: max(code, ~code)):
            rule = self._rules[max(code, ~code)]
            (true if code >= 0 else undetermined).setdefault(rule.effect, []).append(rule)
        verdict = Verdict({k: tuple(v) for k, v in true.items()}, {k: tuple(v) for k, v in undetermined.items()})
        if len(codes) <= _LONGEST_KEPT:
            verdicts: dict[Codes, Verdict] = self._verdicts if len(self._verdicts) < _MOST_VERDICTS else {}
            verdicts[codes] = verdict
            self._verdicts = verdicts
        return verdict


@final
class _Bucket:
    """Be the rules of one pattern, indexed when they are first asked."""

    __slots__ = ("_action", "_demanded", "_outcome", "_rules", "_unsure")

    def __init__(self, action: str | None, demanded: Callable[[CheckedRule], tuple[Demand, ...]]) -> None:
        self._action = action
        self._demanded = demanded
        self._rules: list[tuple[int, CheckedRule]] = []
        self._outcome: Node | None = None
        self._unsure: Node | None = None

    def add(self, number: int, rule: CheckedRule) -> None:
        """Add a rule, if it isn't the one that was added last."""
        if not self._rules or self._rules[-1][0] != number:
            self._rules.append((number, rule))

    def numbers(self) -> Iterator[int]:
        """Return the numbers of the rules."""
        return (number for number, _ in self._rules)

    @property
    def outcome(self) -> Node:
        """Return what tells the rules that aren't false."""
        if self._outcome is None:
            self._outcome = self._build(Question.OUTCOME, self._rules)
        return self._outcome

    @property
    def unsure(self) -> Node:
        """Return what tells the permits that are undetermined."""
        if self._unsure is None:
            permits = [numbered for numbered in self._rules if numbered[1].effect == "permit"]
            self._unsure = self._build(Question.UNSURE, permits)
        return self._unsure

    def _build(self, question: Question, rules: Sequence[tuple[int, CheckedRule]]) -> Node:
        entries = [Entry(number, rule, self._demanded(rule)) for number, rule in rules]
        return Builder(question, self._action).build(entries)


@final
class _Buckets:
    """Hold the rules by their patterns."""

    def __init__(self, rules: Sequence[CheckedRule], demanded: Callable[[CheckedRule], tuple[Demand, ...]]) -> None:
        self._demanded = demanded
        self._exact: dict[str, _Bucket] = {}
        self._prefixes: dict[str, _Bucket] = {}  # by the prefix with its dot
        self._all = _Bucket(None, demanded)
        for number, rule in enumerate(rules):
            for pattern in rule.patterns:
                self._of(pattern).add(number, rule)
        self._longest = max(map(len, self._prefixes), default=0)

    def _of(self, pattern: Pattern) -> _Bucket:
        if pattern.kind == "exact":
            return self._exact.setdefault(pattern.name, _Bucket(pattern.name, self._demanded))
        if pattern.kind == "all":
            return self._all
        return self._prefixes.setdefault(pattern.name + ".", _Bucket(None, self._demanded))

    def matching(self, action: str) -> Iterator[_Bucket]:
        """Return the buckets whose pattern covers an action's name."""
        if action in self._exact:
            yield self._exact[action]
        at = action.find(".")
        while 0 <= at < self._longest:
            if (below := action[: at + 1]) in self._prefixes:
                yield self._prefixes[below]
            at = action.find(".", at + 1)
        if not action.startswith(OWN_NAMESPACES):
            yield self._all
