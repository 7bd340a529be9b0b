"""Check the shape of a rule: which clauses it has, whether they fit its effect, and what its patterns cover."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final

from agentauthz.policy.check.declare import check_action_name
from agentauthz.policy.check.names import Names
from agentauthz.policy.check.report import Reporter, word_span
from agentauthz.policy.source import Span
from agentauthz.policy.syntax import (
    Because,
    By,
    Clause,
    Every,
    Path,
    Pattern,
    Per,
    Rule,
    ToCount,
    ToSum,
    Unless,
    When,
    With,
    Within,
)

Clauses = Mapping[str, Clause]  # the first of each, by keyword; obligations apart

_WORDS: Final[Mapping[type, str]] = {
    When: "when", Unless: "unless", With: "with", By: "by", Within: "within",
    ToCount: "to", ToSum: "to", Per: "per", Every: "every", Because: "because",
}  # fmt: skip
_COMMON: Final = frozenset({"when", "unless", "because"})
_FITTING: Final[Mapping[str, frozenset[str]]] = {
    "permit": _COMMON | {"with"},
    "forbid": _COMMON,
    "review": _COMMON | {"by", "within"},
    "limit": _COMMON | {"to", "per", "every"},
    "mark": _COMMON,
}
_OWNERS: Final = {"with": "a permit", "by": "a review", "within": "a review"} | dict.fromkeys(
    ("to", "per", "every"), "a limit"
)


def check_shape(rule: Rule, names: Names, report: Reporter) -> Clauses:
    """Return the rule's clauses by keyword, and report what is wrong with its head and its shape."""
    names.given(rule.name, rule.name_span, "rule")
    if rule.mark is not None and rule.mark_span is not None:
        if rule.effect == "mark":
            names.given(rule.mark, rule.mark_span, "mark")
        else:
            message = f"`as` names the mark that a rule sets, and a {rule.effect} sets none"
            report.error("misplaced-mark", message, rule.mark_span, "remove it, or make this a `mark`")
    _check_patterns(rule, report)
    clauses = _by_word(rule, report)
    _require(rule, clauses, report)
    _check_durations(clauses, report)
    return clauses


def _by_word(rule: Rule, report: Reporter) -> dict[str, Clause]:
    clauses: dict[str, Clause] = {}
    for clause in rule.clauses:
        word = _WORDS[type(clause)]
        if word not in _FITTING[rule.effect]:
            hint = f"it belongs to {_OWNERS[word]}"
            report.error("misplaced-clause", f"a {rule.effect} has no `{word}`", word_span(clause.span), hint)
        elif word in clauses and word != "with":
            hint = "join the conditions with `and`" if word in ("when", "unless") else "keep one of them"
            first = [("the first one is here", word_span(clauses[word].span))]
            report.error("repeated-clause", f"`{word}` stands twice in this rule", word_span(clause.span), hint, first)
        else:
            clauses.setdefault(word, clause)
    return clauses


def _require(rule: Rule, clauses: Clauses, report: Reporter) -> None:
    span = rule.name_span
    if rule.effect == "permit" and "when" not in clauses:
        message = f"the permit `{rule.name}` doesn't say when"
        report.error("missing-when", message, span, "add `when …`; `when true` permits every such call")
    if rule.effect == "review" and "by" not in clauses:
        hint = 'add who may approve: `by "reviewer" in approver.roles and approver != subject`'
        report.error("missing-by", f"the review `{rule.name}` doesn't say who approves", span, hint)
    if rule.effect == "limit":
        _require_of_limit(rule, clauses, report)


def _require_of_limit(rule: Rule, clauses: Clauses, report: Reporter) -> None:
    per = clauses.get("per")
    if "to" not in clauses:
        hint = "add `to count <= 10`, or `to sum(args.amount) <= 500`"
        report.error("missing-to", f"the limit `{rule.name}` doesn't say to how much", rule.name_span, hint)
    if per is None:
        hint = "add `per subject` and `every 1d`, or `per session`" if "every" not in clauses else "add `per subject`"
        report.error(
            "missing-per", f"the limit `{rule.name}` doesn't say for whom it counts", _after(rule, clauses), hint
        )
    elif isinstance(per, Per) and "every" not in clauses:
        if not any(isinstance(key, Path) and key.root == "session" and not key.steps for key in per.keys):
            message = f"the limit `{rule.name}` doesn't say in what time it counts"
            hint = "add `every 1d`; without it the time is the session, which must then be in `per`"
            report.error("missing-every", message, word_span(per.span), hint)


def _after(rule: Rule, clauses: Clauses) -> Span:
    return (
        word_span(clauses["to"].span)
        if "to" in clauses
        else rule.span
        if rule.span.text == ""
        else word_span(rule.span)
    )


def _check_durations(clauses: Clauses, report: Reporter) -> None:
    for word in ("within", "every"):
        clause = clauses.get(word)
        if isinstance(clause, Within | Every) and clause.duration <= dt.timedelta(0):
            report.error(
                "no-duration", f"`{word}` needs a time that is longer than nothing", clause.span, f"write `{word} 15m`"
            )


def _check_patterns(rule: Rule, report: Reporter) -> None:
    seen: dict[str, Pattern] = {}
    for pattern in rule.patterns:
        if pattern.kind == "exact" and not check_action_name(pattern.name, pattern.span, report):
            continue
        first = seen.setdefault(str(pattern), pattern)
        if first is not pattern:
            _covered(pattern, first, report)
    for pattern in seen.values() if len(seen) > 1 else ():
        covering = next((seen[text] for text in _wider(pattern) if text in seen), None)
        if covering is not None:
            _covered(pattern, covering, report)


def _wider(pattern: Pattern) -> list[str]:
    if pattern.kind == "all":
        return []
    parts = pattern.name.split(".")
    own = parts[0] in ("delegation", "token")
    return [*(".".join(parts[:length]) + ".*" for length in range(1, min(len(parts), 64))), *([] if own else ["*"])]


def _covered(pattern: Pattern, other: Pattern, report: Reporter) -> None:
    message = (
        f"`{pattern}` is already covered by `{other}`" if str(pattern) != str(other) else f"`{pattern}` stands twice"
    )
    report.warning("repeated-pattern", message, pattern.span, "remove it", [("covered here", other.span)])
