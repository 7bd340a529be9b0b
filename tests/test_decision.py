"""What comes out of a decision, as data."""

from __future__ import annotations

import pytest
from attrs import evolve, exceptions

from agentauthz import Basis, Decision, InvalidArgument, Outcome


def test_a_decision_has_no_truth_value() -> None:
    """`if authorizer.decide(…):` raises, whatever the outcome is, and `not` does too."""
    for outcome in Outcome:
        with pytest.raises(InvalidArgument, match="allowed"):
            bool(Decision(outcome, Basis.RULE, "a.b"))
        with pytest.raises(InvalidArgument):
            not Decision(outcome, Basis.RULE, "a.b")


@pytest.mark.parametrize(
    ("outcome", "enforced", "allowed"),
    [
        (Outcome.ALLOW, True, True), (Outcome.DENY, True, False), (Outcome.REVIEW, True, False),
        (Outcome.ALLOW, False, True), (Outcome.DENY, False, True), (Outcome.REVIEW, False, True),
    ],
)  # fmt: skip
def test_allowed_says_whether_the_call_may_run(outcome: Outcome, enforced: bool, allowed: bool) -> None:
    """Only an allow lets a call run, but for observe mode, which says so by `enforced`."""
    assert Decision(outcome, Basis.RULE, "a.b", enforced=enforced).allowed is allowed


def test_a_decision_does_not_change() -> None:
    """Who holds a decision can't turn it round; an evolved copy is another one."""
    decision = Decision(Outcome.DENY, Basis.DEFAULT, "a.b")
    with pytest.raises(exceptions.FrozenInstanceError):
        decision.outcome = Outcome.ALLOW  # type: ignore[misc]
    assert evolve(decision, outcome=Outcome.ALLOW).allowed
    assert not decision.allowed


def test_words_of_outcomes_and_bases_are_stable() -> None:
    """Records and tests of users hold these words."""
    assert [outcome.value for outcome in Outcome] == ["allow", "deny", "review"]
    assert [basis.value for basis in Basis] == [
        "rule", "default", "authority", "limit", "revoked", "undetermined", "error",
    ]  # fmt: skip
