"""Turn parsed statements into checked rules, and report everything that is wrong with them at once."""

from __future__ import annotations

from collections.abc import Sequence

from agentauthz.policy.check.checked import Checked
from agentauthz.policy.check.declare import declare, first_of
from agentauthz.policy.check.lets import check_lets
from agentauthz.policy.check.names import Names
from agentauthz.policy.check.report import Reporter
from agentauthz.policy.check.rules import RuleChecker
from agentauthz.policy.check.tools import ToolSignature, check_tools
from agentauthz.policy.format import Written
from agentauthz.policy.syntax import Let, Rule, Statement

__all__ = ["Checked", "ToolSignature", "check", "check_tools"]


def check(statements: Sequence[Statement], written: Written | None = None) -> Checked:
    """Return the checked rules of one policy set, with everything that is wrong or doubtful in it.

    `written` keeps the text of the statements for who asks for it again.
    """
    report = Reporter()
    world = declare(statements, report)
    lets = first_of((s for s in statements if isinstance(s, Let)), "let", report)
    names = Names(lets, report)
    for let in lets.values():
        names.given(let.name, let.name_span, "let")
    check_lets(names, report)
    first_of((s for s in statements if isinstance(s, Rule)), "rule", report)
    checker = RuleChecker(world, names, report, written or Written())
    rules = [checker.check(statement) for statement in statements if isinstance(statement, Rule)]
    for let in lets.values():
        if let.name not in names.used:
            report.warning("unused-let", f"the let `{let.name}` is never used", let.name_span, "use it, or remove it")
    if not report.errors:  # a rule with a mistake may be the one that means to read it
        _report_unread(statements, checker.marks_read, report)
    return Checked(
        tuple(sorted((rule for rule in rules if rule is not None), key=lambda rule: rule.name)),
        report.in_order(),
        world.actions,
        world.types,
        world.marks,
        frozenset(checker.tracked),
    )


def _report_unread(statements: Sequence[Statement], read: set[str], report: Reporter) -> None:
    """Report the marks that rules set and no rule reads."""
    for rule in statements:
        if isinstance(rule, Rule) and rule.effect == "mark" and (mark := rule.mark or rule.name) not in read:
            hint = f'read it in a rule: `"{mark}" in session.marks`; or keep it for the host, which sees it too'
            report.warning("unread-mark", f"no rule reads the mark `{mark}`", rule.mark_span or rule.name_span, hint)
