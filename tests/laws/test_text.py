"""The laws of text: the canonical form keeps the meaning, and the digest follows the meaning."""

from __future__ import annotations

import re
from typing import Final

from agentauthz.errors import PolicyError
from agentauthz.policy.evaluate import answer
from agentauthz.policy.format import format_statement
from agentauthz.policy.parse import parse
from agentauthz.policy.policyset import PolicySet
from agentauthz.policy.source import Source
from agentauthz.policy.syntax import Statement
from tests.laws.asking import account
from tests.laws.counting import TALLY, law
from tests.strategies.cases import Case, cases
from tests.strategies.choose import Choose

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z0-9_.*]+\??|[<>=!]=|\?\?|\S|\s+')
_STATEMENT: Final = re.compile(r"(permit|forbid|review|limit|mark|let|type|action)\b")
_EDITS: Final = (
    (r"\b5\b", "6"), (r"\b1\b", "2"), (r"\b2\b", "1"), (r"\band\b", "or"), (r"\bor\b", "and"),
    (r"<=", "<"), (r" < ", " <= "),
    (r"==", "!="), (r"!=", "=="), (r"\bnot ", ""), (r"\bany\b", "every"), (r"\bevery v", "any v"),
    (r"\bactor\b", "subject"),
    (r"\bsubject\b", "actor"), (r"^permit", "forbid"), (r"^forbid", "mark"), (r"on \*", "on pay.*"),
    (r"on pay\.refund", "on *"),
    (r"\b1h\b", "2h"), (r'"support"', '"ops"'), (r'"maria"', '"bob"'), (r"\btrue\b", "false"),
    (r"as secret", "as tainted"),
    (r"10\.0\.0\.0/8", "10.0.0.0/9"), (r"decimal", "int"), (r"level: 2", "level: 3"), (r"reason", "another reason"),
    (r"\bbegan\b", "done"), (r"permitted\(subject\)", "permitted(actor)"), (r"UTC", "Europe/Berlin"), (r" \+ ", " - "),
    (r"\btrust\b", "quota"), (r"\?: ", ": "), (r"\bstring\b", "[string]"), (r"> 1\b", "> 0"),
)  # fmt: skip


def _parsed(text: str) -> tuple[Statement, ...]:
    statements, problems = parse(Source("<law>", text))
    assert not problems
    return statements


@law(cases(requests=1), quick=100, each=1)
def test_format_then_parse_is_the_identity(shard: int, case: Case) -> None:
    """A statement's canonical form parses to the same statement, and is its own canonical form."""
    TALLY.pair(case.made.decide(case.plans[0].request()))
    TALLY.applied()
    statements = _parsed(case.policy.text)
    canonical = [format_statement(statement) for statement in statements]
    again = _parsed("\n".join(canonical))
    assert again == statements
    assert [format_statement(statement) for statement in again] == canonical


def _laid_out(choose: Choose, statement: str) -> str:
    """Return a statement with other white space, comments and line ends between its words."""
    found: list[str] = []
    for token in _TOKEN.findall(statement):
        if not token.isspace():
            if found and found[-1].endswith("\n") and _STATEMENT.match(token):
                found[-1] = "  "  # a line that begins so would begin a statement
            found.append(token)
        elif len(found) == 1:
            found.append(" ")  # what begins a statement says which on the same line
        else:
            found.append(choose.weighted(((6, " "), (1, "   "), (1, "\n  "), (1, " # and on\n"), (1, "\t"))))
    return "".join(found)


@law(cases())
def test_digest_never_changes_with_layout(shard: int, case: Case) -> None:
    """White space, comments, order and the canonical form leave digests and decisions as they are."""
    texts = [
        _laid_out(case.choose, text) if case.choose.chance(60) else format_statement(_parsed(text)[0])
        for text in case.choose.shuffled(case.policy.statements)
    ]
    other = PolicySet.parse("# laid out in another way\n" + "\n\n".join(texts), "other.authz")
    assert other.digest == case.made.digest
    assert {rule.name: rule.digest for rule in other.rules} == {rule.name: rule.digest for rule in case.made.rules}
    for plan in case.plans:
        decision = case.made.decide(plan.request())
        TALLY.pair(decision)
        TALLY.applied()
        assert account(other.decide(plan.request())) == account(decision)


def _edited(choose: Choose, case: Case) -> PolicySet | None:
    """Return the set with one of its statements edited, or None where that makes no valid set."""
    statements = list(case.policy.statements)
    at = choose.up_to(len(statements) - 1)
    edits = [edit for edit in _EDITS if re.search(edit[0], statements[at])]
    if edits and choose.chance(85):
        pattern, replacement = choose.one(edits)
        statements[at] = re.sub(pattern, replacement, statements[at], count=1)
    else:
        del statements[at]
    try:
        return PolicySet.parse("\n".join(statements))
    except PolicyError:
        return None


@law(cases(), quick=300)
def test_digest_changes_whenever_a_decision_could(shard: int, case: Case) -> None:
    """Two sets under one digest say the same of every request, and so do two rules under one digest."""
    other = _edited(case.choose, case)
    rules = {} if other is None else {rule.name: rule for rule in other.rules}
    for plan in case.plans:
        judged = case.made.explain(plan.request())
        TALLY.pair(judged.decision)
        if other is None:
            continue
        # the digest itself stands in a decision's account, so it is left out of the comparison
        if account(other.decide(plan.request()))[:-1] != account(judged.decision)[:-1]:
            TALLY.applied()
            assert other.digest != case.made.digest
        inputs = case.made.judge(plan.request())[1]
        for rule in case.made.rules:
            twin = rules.get(rule.name)
            if twin is not None and twin.digest == rule.digest:
                ours, theirs = answer(rule, inputs), answer(twin, inputs)
                assert (rule.effect, rule.mark, rule.patterns) == (twin.effect, twin.mark, twin.patterns)
                assert (ours and ours.answer) == (theirs and theirs.answer)
