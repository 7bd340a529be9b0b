"""Facts about the checker that no single message shows."""

from __future__ import annotations

import datetime as dt

import pytest

from agentauthz.policy.check import Checked, ToolSignature, check, check_tools
from agentauthz.policy.format import format_expr
from agentauthz.policy.parse import parse
from agentauthz.policy.source import Diagnostic, Source
from agentauthz.policy.syntax import CheckedRule, Expr, Path, children
from agentauthz.policy.types import DECIMAL, INT, LACKING, STRING, Enumeration
from agentauthz.policy.types import Sequence as ListOf
from agentauthz.principals import Principal

DECLARED = """
type user { roles: [string], team?: string }
type agent { trust: int }
type Order { amount: decimal, owner: { name: string, email?: string } }
type Ticket { title: string }
action payments.refund(order_id: string, amount: decimal, reason?: string) on Order
"""


def checked(text: str) -> Checked:
    """Return the checked policies of a text that parses."""
    statements, wrong = parse(Source("p.authz", text))
    assert not wrong, [diagnostic.render() for diagnostic in wrong]
    return check(statements)


def good(text: str) -> Checked:
    """Return the checked policies of a text without errors."""
    found = checked(text)
    errors = [diagnostic.render() for diagnostic in found.diagnostics if diagnostic.severity == "error"]
    assert not errors, "\n".join(errors)
    return found


def codes(text: str) -> list[str]:
    """Return the codes of all that the checker finds."""
    return [diagnostic.code for diagnostic in checked(text).diagnostics]


def rule(text: str, name: str = "a") -> CheckedRule:
    """Return one rule of policies without errors."""
    return next(rule for rule in good(text).rules if rule.name == name)


def condition(text: str) -> str:
    """Return the canonical text of rule `a`'s condition."""
    found = rule(text).condition
    assert found is not None
    return format_expr(found)


def paths(expr: Expr | None) -> dict[str, Path]:
    """Return the paths below an expression by their text."""
    if expr is None:
        return {}
    found = {str(expr): expr} if isinstance(expr, Path) else {}
    for child in children(expr):
        found |= paths(child)
    return found


# ---- what becomes of a rule


def test_the_condition_is_when_and_not_unless() -> None:
    """`when A and B unless C` becomes one conjunction."""
    assert condition("forbid a on x when subject.p and (subject.q and subject.r) unless subject.s") == (
        "subject.p and subject.q and subject.r and not subject.s"
    )


def test_a_rule_without_conditions_has_none() -> None:
    """A forbid without `when` and `unless` applies to every call."""
    assert rule("forbid a on x").condition is None


def test_lets_are_expanded_where_they_are_named() -> None:
    """A let without parameters, and one with them, leave no trace."""
    text = """
let lead = "lead" in subject.roles
let order = resource.order
let trusted(p, n) = p.trust >= n and lead
permit a on x when trusted(actor, order.level + 1)
"""
    assert condition(text) == 'actor.trust >= resource.order.level + 1 and "lead" in subject.roles'


def test_expansion_captures_no_variable() -> None:
    """A let's own variable stays apart from one of the same name in its argument."""
    text = """
let known(p) = any x in context.known: x == p
permit a on y when subject.ok and any x in args.people: known(x)
"""
    assert condition(text) == "subject.ok and any x in args.people: any x_2 in context.known: x_2 == x"


def test_a_let_without_parameters_captures_no_variable() -> None:
    """A shared let's variable is renamed where it stands below one of the same name."""
    text = """
let open = any x in context.gates: x == "open"
permit a on y when subject.ok and any x in args.people: x.ok and open
"""
    with pytest.raises(AssertionError):
        condition(text.replace("x.ok and open", "(x.ok and opn)"))
    assert condition(text.replace("x.ok and open", "(x.ok and open)")) == (
        'subject.ok and any x in args.people: (x.ok and any x_2 in context.gates: x_2 == "open")'
    )


def test_obligations_are_evaluated() -> None:
    """An obligation's constants are values, whatever way they are written."""
    text = """
let team = ["ops", "sec"]
permit a on x when subject.ok with notify(to: team, after: 15m, level: 1 + 2, who: agent("bot")) with log()
"""
    notify, log = rule(text).obligations
    assert notify.properties == {
        "to": ("ops", "sec"), "after": dt.timedelta(minutes=15), "level": 3, "who": Principal.agent("bot"),
    }  # fmt: skip
    assert (log.name, log.properties) == ("log", {})


def test_the_clauses_of_reviews_and_limits_are_kept() -> None:
    """Approvers, windows, sums, bounds and keys find their places."""
    found = good(
        'review a on x by "lead" in approver.roles and approver != subject within 5m because "why"\n'
        "limit b on x to sum(args.amount) <= 10 * 2 per subject, session every 1d\n"
        "limit c on x to count <= 3 per session"
    )
    a, b, c = found.rules
    assert a.by is not None
    assert (a.within, a.because) == (dt.timedelta(minutes=5), "why")
    assert b.amount is not None
    assert (str(b.amount), str(b.per[0]), str(b.per[1]), b.window) == (
        "args.amount", "subject", "session", dt.timedelta(days=1),
    )  # fmt: skip
    assert c.amount is None
    assert c.bound is not None
    assert c.window is None


def test_a_mark_is_called_like_its_rule_or_as_it_says() -> None:
    """`as` names the mark; without it the rule's name does."""
    found = good('mark a on x\nmark b as secret on x\ntype session { marks: ["vip"] }')
    assert [rule.mark for rule in found.rules] == ["a", "secret"]
    assert found.marks == {"a", "secret", "vip"}


def test_rules_are_sorted_and_what_is_tracked_is_known() -> None:
    """Rules come by name; the actions of `began` and `done` are collected."""
    found = good('forbid b on x when began("crm.read", 1h)\nforbid a on x when not done("kyc.check", 1d)')
    assert [rule.name for rule in found.rules] == ["a", "b"]
    assert found.tracked == {"crm.read", "kyc.check"}


def test_declared_actions_know_their_arguments() -> None:
    """With parentheses the arguments are known, without them nobody says, and elsewhere neither."""
    found = good("action a.b(x: int, y?: string)\naction c.d")
    assert found.arguments == {"a.b": frozenset({"x", "y"})}


# ---- digests


def digest(text: str) -> str:
    """Return rule `a`'s digest."""
    return rule(text).digest


def test_a_digest_is_about_what_is_meant() -> None:
    """Layout, other rules and the names of lets don't count."""
    plain = digest("permit a on x when subject.ok and subject.level > 3")
    assert plain == digest("# why\npermit a\n  on x\n  when (subject.ok)\n  and subject.level > 3\nforbid b on y")
    assert plain == digest("let high(p) = p.level > 3\npermit a on x when subject.ok and high(subject)")


@pytest.mark.parametrize(
    "other",
    [
        "permit a on x when subject.ok and subject.level > 4",
        "forbid a on x when subject.ok and subject.level > 3",
        "permit a on x, y when subject.ok and subject.level > 3",
        'permit a on x when subject.ok and subject.level > 3 because "so"',
        "type user { ok: bool, level: int }\npermit a on x when subject.ok and subject.level > 3",
    ],
)
def test_a_digest_changes_with_the_rule_and_its_declarations(other: str) -> None:
    """Whatever could change what the rule does changes its digest."""
    assert digest("permit a on x when subject.ok and subject.level > 3") != digest(other)


def test_a_digest_does_not_rest_on_declarations_that_the_rule_never_reads() -> None:
    """A type of resources means nothing to a rule about subjects."""
    text = "permit a on x when subject.ok"
    assert digest(text) == digest(text + "\ntype Order { amount: decimal }\ntype context { region: string }")


# ---- declared types on paths


def test_paths_carry_the_declared_types_of_each_kind() -> None:
    """An attribute's type is noted for each declared kind, its lack too; built-in names carry none."""
    found = paths(
        rule(
            DECLARED + 'permit a on x when subject is user and "x" in subject.roles and subject.id != actor.id'
        ).condition
    )
    assert found["subject.roles"].declared == {"user": ListOf(STRING), "agent": LACKING}
    assert found["subject.id"].declared is None
    assert found["subject"].declared is None


def test_paths_into_resources_and_arguments_carry_their_types() -> None:
    """Resources are told apart by type, arguments by action, whatever the rule's actions are declared for."""
    text = DECLARED + "forbid a on payments.* when args.amount > 3 and resource is Order and resource.amount > 3"
    found = paths(rule(text).condition)
    assert found["args.amount"].declared == {"payments.refund": DECIMAL}
    assert found["resource.amount"].declared == {"Order": DECIMAL, "Ticket": LACKING}


def test_names_that_nobody_declares_share_what_is_declared_of_them() -> None:
    """What thousands of actions say of thousands of unknown names is worked out once, and for known ones apart."""
    actions = "action a.b(n: int)\naction c.d(m: int)\ntype Doc { n: int }\n"
    noted = paths(rule(actions + "forbid a on * when args.x == 1 or args.y.z == 1 or args.n == 1").condition)
    assert noted["args.x"].declared == {"a.b": LACKING, "c.d": LACKING}
    assert noted["args.x"].declared is noted["args.y.z"].declared
    assert noted["args.n"].declared == {"a.b": INT, "c.d": LACKING}
    noted = paths(rule(actions + "forbid a on * when resource.x == 1 or resource.y == 1 or resource.n == 1").condition)
    assert noted["resource.x"].declared == {"Doc": LACKING}
    assert noted["resource.x"].declared is noted["resource.y"].declared
    assert noted["resource.n"].declared == {"Doc": INT}


def test_elements_of_declared_lists_carry_their_types() -> None:
    """A variable's attributes have the types of the list's elements."""
    text = "action x(items: [{ price: int }])\nforbid a on x when any i in args.items: i.price > 3"
    assert paths(rule(text).condition)["i.price"].declared == {None: INT}


def test_hops_are_told_apart_by_their_receiver() -> None:
    """`h.to` is a principal: its attributes are those of its kind."""
    text = "type agent { trust: int }\npermit a on x when subject.ok and every h in chain: h.to.trust > 3"
    with pytest.raises(AssertionError):
        rule(text)
    text = text.replace("subject.ok", "subject is user").replace("type agent", "type user { ok: bool }\ntype agent")
    found = paths(rule(text.replace("h.to.trust > 3", "(h.to is agent and h.to.trust > 3)")).condition)
    assert found["h.to.trust"].declared == {"agent": INT, "user": LACKING}


def test_nothing_is_noted_where_nothing_is_declared() -> None:
    """Without declarations a path's values are met as they are."""
    found = paths(rule('permit a on x when subject.ok and args.amount > 3 and resource.tag == "x"').condition)
    assert [path.declared for path in found.values()] == [None, None, None]


# ---- what is fine


@pytest.mark.parametrize(
    "text",
    [
        "exists args.reason and args.reason like \"x*\"",
        "args.reason like \"x*\" and exists args.reason",
        "(not exists args.reason or args.reason like \"x*\")",
        "not (not exists args.reason or args.reason == \"x\")",
        "(args.reason ?? \"none\") == \"x\"",
        "subject is user and \"x\" in subject.roles",
        "subject.kind == \"user\" and \"x\" in subject.roles",
        "not (subject is agent or subject is service) and \"x\" in subject.roles",
        "((subject is user and \"x\" in subject.roles) or (subject is agent and subject.trust > 3))",
        "exists subject.roles and \"x\" in subject.roles",
        "subject is user and exists subject.team and subject.team == \"x\"",
        "exists resource.owner.email and contains(resource.owner.email, \"@\")",
        "chain.depth <= 2 and every h in chain: h.to is agent",
        "not (chain.depth > 2 or any h in chain: h.purpose == \"x\")",
        "2 > chain.depth",
        "permitted(subject) and (permitted(actor) or subject == actor)",
        "\"seen\" not in session.marks and not any m in session.marks: m like \"s*\"",
        "now - session.started < 5m and now < time(\"2030-01-01T00:00:00Z\") + 2 * 1d",
        "actor == agent(\"bot\", issuer: \"https://id.example\")",
        "subject.id == args.order_id",
        "weekday(now, \"UTC\") in [\"mon\", \"tue\"] and time_of_day(now, \"UTC\") < 18h",
        "len(subject.kind) > 3 and 2.50 * args.amount <= -1 + 10",
        "true",
    ],
)  # fmt: skip
def test_what_is_guarded_and_fits_is_accepted(text: str) -> None:
    """Guards work on either side and through `not`; narrowing forms stand where they narrow."""
    good(DECLARED + f"mark seen on crm.read\npermit a on payments.refund when {text}")


@pytest.mark.parametrize(
    "text",
    [
        "forbid a on x when chain.depth > 2",
        "forbid a on x unless chain.depth <= 2 and every h in chain: h.to is agent",
        "review a on x when 2 < chain.depth by approver != subject and chain.depth <= 5",
        'mark m on x when any h in chain: h.purpose == "x"',
        'mark m on x when "m" in session.marks',
        "limit a on x when any h in chain: h.to is user to count <= 3 per subject every 1d",
    ],
)
def test_widening_forms_stand_in_negative_places(text: str) -> None:
    """What stops calls may ask for long chains and for marks."""
    good(text)


def test_a_guard_of_the_condition_holds_for_the_rest_of_a_limit() -> None:
    """A limit's amount is only asked for where its condition isn't false."""
    text = "action x(n?: int)\nlimit a on x {} to sum(args.n) <= 3 per subject every 1d"
    good(text.format("when exists args.n"))
    assert codes(text.format("")) == ["unguarded"]


def test_an_error_in_a_let_is_reported_once() -> None:
    """However many rules use it, a let's mistake is one mistake."""
    text = 'let bad = 1 < "x"\n' + "\n".join(f"forbid r{n} on x when bad" for n in range(50))
    assert codes(text) == ["not-ordered"]


def test_rules_with_errors_are_left_out_and_the_others_stay() -> None:
    """The checked rules are those that can be used."""
    found = checked("forbid a on x when subjct.ok\nforbid b on x")
    assert [rule.name for rule in found.rules] == ["b"]


# ---- bounds


def test_lets_that_double_do_not_explode() -> None:
    """A tower of lets is measured before it is expanded."""
    lines = ["let l0(x) = x == 1", *(f"let l{n}(x) = l{n - 1}(x) == l{n - 1}(x)" for n in range(1, 3000))]
    assert codes("\n".join([*lines, "forbid a on x when l2999(subject.n)"])) == ["too-large"]


def test_a_long_row_of_lets_is_no_recursion() -> None:
    """Lets may stand on one another in any number; a rule that nests beyond the bound is refused."""
    lines = ["let l0 = subject.ok", *(f"let l{n} = l{n - 1}" for n in range(1, 20_000))]
    assert codes("\n".join([*lines, "forbid a on x when l19999"])) == ["too-large"]
    good("\n".join([*lines[:150], "forbid a on x when l149"]).replace("\nforbid", "\nforbid"))


def test_a_circle_of_many_lets_is_found() -> None:
    """A circle is reported once, however long it is."""
    lines = [f"let l{n} = l{(n + 1) % 5000}" for n in range(5000)]
    assert codes("\n".join([*lines, "forbid a on x when l7"])) == ["recursive-let"]


# ---- tools


REFUND = ToolSignature(
    "payments.refund", {"order_id": (STRING, False), "amount": (DECIMAL, False), "reason": (STRING, True)}
)


def tool_problems(text: str, *tools: ToolSignature) -> list[Diagnostic]:
    """Return what `check_tools` finds with policies that are fine by themselves."""
    return list(check_tools(good(text), tools))


def test_actions_are_unknown_where_no_tool_has_them() -> None:
    """Patterns, declarations and last-seen times must name a tool's action; the library's own are known."""
    text = """
action payments.refnd(order_id: string)
forbid a on payments.refnud, delegation.handoff
forbid b on payment.*
forbid c on payments.refund when began("payments.refundd", 1h)
"""
    found = tool_problems(text, REFUND)
    assert [(d.code, d.span.text) for d in found] == [
        ("unknown-action", "payments.refnd"),
        ("unknown-action", "payments.refnud"),
        ("unknown-action", "payment.*"),
        ("unknown-action", '"payments.refundd"'),
    ]
    assert found[1].help == "did you mean `payments.refund`?"
    assert found[2].help == "did you mean `payments`?"


def test_each_star_says_what_it_matches_today() -> None:
    """A star's actions are listed as a warning, some of them where there are many."""
    tools = [ToolSignature(f"files.read{n}", {}) for n in range(7)]
    found = tool_problems("forbid a on files.*", *tools)
    assert [(d.code, d.severity) for d in found] == [("star-matches", "warning")]
    assert found[0].message == (
        "`files.*` matches `files.read0`, `files.read1`, `files.read2`, `files.read3`, `files.read4` and 2 more today"
    )


def test_arguments_and_their_types_come_from_signatures() -> None:
    """Without a declaration the tool says which arguments there are, of which types, and which may be absent."""
    text = """
forbid a on payments.refund when args.amout > 3
forbid b on payments.refund when args.amount == "3"
forbid c on payments.refund when args.reason == "x"
"""
    found = tool_problems(text, REFUND)
    assert [(d.code, d.span.text) for d in found] == [
        ("unknown-argument", "amout"), ("type-mismatch", 'args.amount == "3"'), ("unguarded", "args.reason"),
    ]  # fmt: skip


def test_a_tool_that_takes_any_argument_hides_no_name() -> None:
    """With `**kwargs` an argument that the signature doesn't name may be there."""
    assert not tool_problems("forbid a on x when args.other > 3", ToolSignature("x", {"n": (INT, False)}, open=True))


def test_declarations_must_agree_with_the_tool() -> None:
    """Names, types, and what may be absent: each disagreement is shown in the declaration."""
    text = """
type Order { a: int }
type Ticket { a: int }
action payments.refund(order_id: int, amount?: decimal, reason: string, other: int) on Ticket
forbid a on payments.refund
"""
    tool = ToolSignature(REFUND.action, {**REFUND.params, "more": (INT, False)}, resource_type="Order")
    assert [(d.code, d.span.text) for d in tool_problems(text, tool)] == [
        ("signature-differs", "payments.refund"),
        ("signature-differs", "int"),
        ("signature-differs", "amount"),
        ("signature-differs", "reason"),
        ("unknown-argument", "other"),
        ("signature-differs", "Ticket"),
    ]


def test_a_declaration_may_say_more_than_the_signature() -> None:
    """A string of the tool's may be declared as an enumeration, and then counts as one."""
    text = 'action x(level: "low" | "high")\nforbid a on x when args.level == "low"'
    assert not tool_problems(text, ToolSignature("x", {"level": (STRING, False)}))
    assert not tool_problems(text, ToolSignature("x", {"level": (Enumeration(frozenset({"low"})), False)}))


def test_the_resource_of_a_tool_says_which_type_is_meant() -> None:
    """A tool's resource type, where it is declared, is what the rule's resource is."""
    text = 'type Order { amount: decimal }\ntype Ticket { title: string }\nforbid a on x when resource.title == "t"'
    assert not tool_problems(text, ToolSignature("x", {}))
    found = tool_problems(text, ToolSignature("x", {}, resource_type="Order"))
    assert [(d.code, d.span.text) for d in found] == [("unknown-attribute", "title")]


# ---- names that were meant


def test_the_nearest_name_is_found_among_many() -> None:
    """Among thousands of names a misspelled one finds its neighbour."""
    lets = "\n".join(f"let name{number} = subject.a{number}" for number in range(2000))
    found = [d for d in checked(f"{lets}\nforbid a on x when nmae1234").diagnostics if d.severity == "error"]
    assert [d.message for d in found] == ["nothing here is called `nmae1234`"]
    found = [d for d in checked(f"{lets}\nforbid a on x when name1234x").diagnostics if d.severity == "error"]
    assert [d.help for d in found] == ["did you mean `name1234`?"]


def test_broken_policies_never_raise() -> None:
    """Whatever is cut out of a policy, the checker reports and goes on."""
    text = (
        DECLARED
        + 'let ok(p) = p is user and "x" in p.roles\nmark m on x\n'
        + (
            "review a on payments.* when ok(subject) and any h in chain: (h.to is agent and h.to.trust > 3)\n"
            '  by approver != subject and (approver.team ?? "none") == "x" within 5m\n'
            'limit b on x when "m" in session.marks to sum(args.n) <= 2 * 3 per subject every 1d\n'
            'permit c on x when permitted(subject) and weekday(now, "UTC") != "sun" with log(level: 1)\n'
        )
    )
    words = text.split(" ")
    for left_out in range(len(words)):
        statements, _ = parse(Source("p.authz", " ".join(words[:left_out] + words[left_out + 1 :])))
        for found in check(statements).diagnostics:
            assert found.render()
