"""Explanations: which rules were asked, what each clause answered, and what it saw."""

from __future__ import annotations

from typing import Any

import pytest

from agentauthz import UNKNOWN, Chain, Delegation, InvalidArgument, PolicySet
from agentauthz.policy.explain import Explanation
from agentauthz.policy.reads import Reads
from tests.deciding import Form, account, requested
from tests.support import BOT, HELPER, MARIA

POLICY = """
permit small on pay.* when "support" in subject.roles and (args.amount <= 500 or not args.urgent)
forbid night on pay.refund when context.night
review always on pay.refund by approver != subject
permit other on mail.send when true
"""


def explained(form: Form, text: str = POLICY, action: str = "pay.refund", **given: Any) -> Explanation:
    """Return an explanation."""
    return form(PolicySet.parse(text)).explain(requested(action, **given))


def test_an_explanation_holds_the_decision(form: Form) -> None:
    """It is the one that `decide` gives for the same request."""
    policies = form(PolicySet.parse(POLICY))
    for given in ({}, {"args": {"amount": 3}, "context": {"night": False}}, {"context": {"night": True}}):
        request = requested("pay.refund", **given)
        assert account(policies.explain(request).decision) == account(policies.decide(request))


def test_every_rule_that_matches_is_shown_and_no_other(form: Form) -> None:
    """In the order of names, with its answer: true, false, undetermined; a rule without condition is true."""
    [call] = explained(form, args={"amount": 700, "urgent": True}).calls
    assert [(one.rule.name, one.answer) for one in call.rules] == [("always", True), ("night", None), ("small", False)]
    assert (call.actor, call.depth) == (BOT, 1)


def test_the_drawing_shows_answers_and_values(form: Form) -> None:
    """Each clause stands with its answer, its text and the values at its paths, one below the other."""
    text = explained(form, args={"amount": 700, "urgent": True}, context={"night": False}).render()
    assert (
        text
        == """\
pay.refund: deny (default)
  because no permit allows this
as agent("bot"), 1 delegation from the subject:
  review always: true
  forbid night: false
    false: context.night   [context.night = false]
  permit small: false
    false: and
      true: "support" in subject.roles   [subject.roles = ["support"]]
      false: or
        false: args.amount <= 500   [args.amount = 700]
        false: not
          true: args.urgent   [args.urgent = true]"""
    )


def test_each_judged_call_is_shown_the_actors_first(form: Form) -> None:
    """Who passed on is explained too, with the answers for it."""
    chain = Chain(MARIA, (Delegation(BOT), Delegation(HELPER)))
    found = explained(form, "permit p on t.do when actor.trust >= 3", "t.do", chain=chain)
    assert [(call.actor, call.depth, call.rules[0].answer) for call in found.calls] == [
        (HELPER, 2, False), (BOT, 1, True),
    ]  # fmt: skip


def test_clauses_are_plain_data_with_their_places(form: Form) -> None:
    """Conjunctions are taken apart; each part has its place, canonical text, result and what it saw."""
    found = explained(form, "permit p on t.do when  args.a==1  and args.b > 2", "t.do", args={"a": 1, "b": UNKNOWN})
    [rule] = found.clauses()
    assert (rule["rule"], rule["actor"]) == ("p", 'agent("bot")')
    assert rule["clauses"] == [
        {"at": "<policy>:1:24", "expr": "args.a == 1", "result": "true", "saw": {"args.a": 1}},
        {"at": "<policy>:1:39", "expr": "args.b > 2", "result": "undetermined", "saw": {"args.b": UNKNOWN}},
    ]


def test_of_what_a_quantifier_saw_the_first_element_is_shown(form: Form) -> None:
    """A long list gives one clause, with the first element's values."""
    text = "permit p on t.do when any x in args.items: x.n == 1"
    found = explained(form, text, "t.do", args={"items": [{"n": number} for number in range(2, 1000)]})
    [rule] = found.clauses()
    [clause] = rule["clauses"]  # type: ignore[misc]
    assert clause["result"] == "false"  # type: ignore[has-type]
    assert clause["saw"]["x.n"] == 2  # type: ignore[has-type]


def test_a_rule_that_can_not_be_decided_says_so(form: Form) -> None:
    """What is absent, unknown or no value is drawn by its state."""
    text = explained(form, "forbid f on t.do when args.a == 1 or args.b == 1 or args.c == 1", "t.do",
                     args={"b": UNKNOWN, "c": object()}).render()  # fmt: skip
    for line in ("args.a = (absent)", "args.b = (unknown)", "args.c = (of the wrong type)", "deny (undetermined)"):
        assert line in text


def test_only_a_request_is_explained(form: Form) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidArgument):
        form(PolicySet.parse(POLICY)).explain("pay.refund")  # type: ignore[arg-type]


def test_paths_read_are_those_of_all_clauses() -> None:
    """Conditions, bounds, keys and amounts count; each path once, sorted; approver, chain and variables don't."""
    text = """
limit l on t.do when exists args.b and chain.depth > 1 to sum(args.a) <= context.most per subject, args.b every 1d
review r on t.do when any x in args.items: x.n == 1 by approver != subject and "lead" in approver.roles
"""
    read = Reads.of(PolicySet.parse(text).rules).paths
    assert [name for name, _ in read] == ["args.a", "args.b", "args.items", "context.most", "subject"]
