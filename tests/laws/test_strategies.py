"""The laws are worth what their examples are: what is generated reaches every outcome, and rules really meet it."""

from __future__ import annotations

from collections import Counter
from typing import Final, final

import pytest
from attrs import define, field
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from agentauthz.decision import Basis, Outcome
from agentauthz.policy.builtins import FUNCTIONS
from tests.strategies.cases import Case, cases
from tests.strategies.choose import Choose
from tests.strategies.policies import statements
from tests.strategies.world import world

EVERYTHING: Final = (
    "and or not any every in like is exists == != < > >= ?? + - * let with unless because within chain.depth marks"
).split()


@final
@define
class Gathered:
    """Be what many examples held: outcomes, bases and answers and how many statements were refused."""

    counts: Counter[object] = field(factory=Counter)
    statements: int = 0
    dropped: int = 0

    def add(self, case: Case) -> None:
        """Count one example."""
        self.statements += len(case.policy.statements) + len(case.policy.dropped)
        self.dropped += len(case.policy.dropped)
        for plan in case.plans:
            explained = case.made.explain(plan.request())
            decision, several = explained.decision, len(explained.calls) > 1
            held = {
                "all": True,
                decision.outcome: True,
                decision.basis: True,
                "obligations": bool(decision.obligations),
                "marks": bool(decision.marks),
                "missing": bool(decision.missing),
                "several calls": several,
                "allowed for several": several and decision.outcome is Outcome.ALLOW,
            }
            self.counts.update(name for name, is_so in held.items() if is_so)
            self.counts.update((rule.rule.effect, rule.answer) for call in explained.calls for rule in call.rules)


def _fixed(examples: int) -> settings:
    """Return settings under which the same examples come each time."""
    return settings(
        max_examples=examples,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )


@pytest.fixture(scope="module")
def gathered() -> Gathered:
    """Return what some examples hold, the same ones each time."""
    found = Gathered()
    _fixed(300)(given(cases())(found.add))()
    return found


@st.composite
def _texts(draw: DrawFn) -> str:
    choose = Choose(draw)
    return "\n".join(statements(choose, world(choose))[0])


def test_what_is_generated_reaches_every_outcome_and_basis(gathered: Gathered) -> None:
    """At least a fifth of the requests is allowed, and every outcome, basis and answer of each effect occurs."""
    counts, asked = gathered.counts, gathered.counts["all"]
    assert counts[Outcome.ALLOW] >= asked / 5
    assert counts[Outcome.REVIEW] >= asked / 50
    for basis in Basis:
        assert counts[basis] >= asked / 400, basis
    for name in ("obligations", "marks", "missing", "several calls", "allowed for several"):
        assert counts[name] >= asked / 400, name
    for effect in ("permit", "forbid", "review", "limit", "mark"):
        for answer in (True, False, None):
            assert counts[effect, answer] >= asked / 400, (effect, answer)


def test_the_checker_takes_what_is_generated(gathered: Gathered) -> None:
    """Nearly every generated statement is valid as it was generated."""
    assert gathered.dropped <= gathered.statements / 50


def test_what_is_generated_uses_the_whole_language() -> None:
    """Every function and operator stands in some generated policy."""
    texts: list[str] = []
    _fixed(600)(given(_texts())(lambda text: texts.append(text)))()
    together = "\n".join(texts)
    for name in FUNCTIONS:
        assert f"{name}(" in together, name
    for word in EVERYTHING:
        assert word in together, word
