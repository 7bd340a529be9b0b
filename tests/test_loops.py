"""Loops have bounds, the same in both forms: by the elements, the nodes and the texts that they would look at."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agentauthz import Outcome, PolicySet, Principal, Request
from tests.deciding import Form

ANNA = Principal.user("anna")


def _outcomes(form: Form, condition: str, args: Mapping[str, object]) -> set[tuple[Outcome, str]]:
    """Return what a permit under a condition comes to, met often enough to be compiled, with what was missing."""
    policies = form(PolicySet.parse(f"permit p on t.x when {condition}"))
    found = [policies.decide(Request("t.x", subject=ANNA, args=args)) for _ in range(3)]
    return {(decision.outcome, ", ".join(decision.missing)) for decision in found}


@pytest.mark.parametrize(
    "condition",
    [
        "any x in args.list: lower(args.text) == x",
        "any x in args.list: contains(args.text, x)",
        'any x in args.list: args.text like "a*b*c"',
        "any x in args.list: starts_with(args.text, x)",
    ],
)
def test_a_long_text_is_not_read_over_and_over(form: Form, condition: str) -> None:
    """Ten thousand rounds over a text of a million characters are undetermined: they would take minutes."""
    found = _outcomes(form, condition, {"list": [str(n) for n in range(10_000)], "text": "a" * 1_000_000})
    assert {outcome for outcome, _ in found} == {Outcome.DENY}
    assert all("too long a text" in missing for _, missing in found)


def test_a_long_text_is_read_where_no_loop_is(form: Form) -> None:
    """Outside of quantifiers, and in few rounds, the length of a text is no matter."""
    text = "a" * 1_000_000 + "B"
    assert _outcomes(form, 'contains(args.text, "B")', {"text": text}) == {(Outcome.ALLOW, "")}
    few = {"text": text, "list": ["x", "b"]}
    assert _outcomes(form, "any x in args.list: ends_with(lower(args.text), x)", few) == {(Outcome.ALLOW, "")}
