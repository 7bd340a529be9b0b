"""The index: only rules that could match are asked, and nothing that the definition would say is lost."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentauthz.policy import decide as deciding
from agentauthz.policy.compile import Compiled, units
from agentauthz.policy.compile.demands import demands
from agentauthz.policy.policyset import PolicySet
from agentauthz.policy.syntax import CheckedRule
from agentauthz.principals import Chain, Delegation, Principal
from agentauthz.request import Request, Resource, SessionFacts
from agentauthz.values import UNKNOWN

NOW: Final = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
PERMIT, BOUND, FORBID, REVIEW = "permit", "permit with", "forbid", "review"

# what may be demanded, with a key in place of `{}`; the last three demand nothing
DEMANDS: Final = (
    'actor == agent("{}")', 'subject == user("{}")', 'actor in [agent("{}"), agent("z")]', '"{}" in subject.roles',
    '"{}" in session.marks', '"{}" in args.tags', 'args.x == "{}"', "args.x == 1{}", "args.x == 1.5{}",
    '"{}" == purpose',
    'args.x in ["{}", "z"]', 'resource.type == "T{}"', "resource is T{}", 'resource.owner == "{}"', "actor is agent",
    'args.who == agent("{}")', '(args.x == "{}" or args.x == "z")', "args.who is user", "args.flag == true",
    'args.at == time("2026-11-2{}T00:00:00Z")', "args.wait == 1{}m", 'context.deep.x == "{}"', 'action.name == "a.{}"',
    'args.x != "{}"', 'not ("{}" in args.tags)', "args.n <= {}",
)  # fmt: skip
KEYS: Final = ("1", "2", "3", "4")
ACTIONS: Final = ("a.b", "a.c", "a.b.c", "b", "delegation.handoff")
PATTERNS: Final = ("a.b", "a.*", "*", "a.b.*", "a.b, a.*", "b", "delegation.handoff", "delegation.*")


def _rule(name: str, effect: str, pattern: str, conditions: list[str]) -> str:
    # marks and chains may only narrow permits
    kept = [c for c in conditions if effect not in (PERMIT, BOUND) or "marks" not in c] or ["args.m == 1"]
    text = f"{effect.split()[0]} {name} on {pattern} when {' and '.join(kept)}"
    return text + {BOUND: " with watch(level: 1)", REVIEW: " by approver != subject"}.get(effect, "")


_PLACE: Final = re.compile(r"actor|subject|purpose|action|context|session|args\.\w+|resource(?:\.owner)?")
_DECLARED: Final = (
    "type session { marks: ["
    + " | ".join(f'"{key}"' for key in KEYS)
    + "] }\n"
    + "".join(f"type T{key} {{ owner: string }}\n" for key in KEYS)
)
_conditions: Final = st.lists(
    st.tuples(st.sampled_from(DEMANDS), st.sampled_from(KEYS)).map(lambda found: found[0].replace("{}", found[1])),
    min_size=1,
    max_size=3,
    unique_by=lambda text: frozenset(_PLACE.findall(text)),  # two at one place may contradict each other
)
_effects: Final = st.sampled_from((PERMIT, PERMIT, BOUND, FORBID, REVIEW))
_rules: Final = st.lists(st.tuples(_effects, st.sampled_from(PATTERNS), _conditions), min_size=15, max_size=60)

_VALUE: Final = st.one_of(
    st.sampled_from([*KEYS, "z", 11, 1.51, True, None, UNKNOWN, object(), NOW, dt.timedelta(minutes=11), ["1"]]),
    st.sampled_from([Principal.agent("1"), Principal.user("2"), Resource("T1", "1"), {"x": "1"}]),
)
_LIST: Final = st.one_of(
    st.lists(st.sampled_from([*KEYS, *KEYS, UNKNOWN, None, 1, "z"]), max_size=20),
    st.sets(st.sampled_from(KEYS)),
    _VALUE,
)


@st.composite
def _requests(draw: st.DrawFn) -> Request:
    subject = Principal.user(draw(st.sampled_from(KEYS)), roles=draw(_LIST))
    actor = Principal(draw(st.sampled_from(("agent", "service"))), draw(st.sampled_from(KEYS)))
    names = ("x", "who", "flag", "at", "wait", "n")
    args: dict[str, object] = {name: draw(_VALUE) for name in names} | {"tags": draw(_LIST)}
    resource: object = draw(st.sampled_from((None, UNKNOWN, "there", "there", "there")))
    if resource == "there":
        resource = Resource(f"T{draw(st.sampled_from(KEYS))}", "1", {"owner": draw(_VALUE)})
    marks: object = draw(st.sampled_from((UNKNOWN, frozenset(), frozenset("1"), frozenset("234"))))
    return Request(
        draw(st.sampled_from(ACTIONS)),
        subject=subject,
        chain=Chain(subject, [Delegation(actor)]),
        args=draw(st.sampled_from((args, args, args, UNKNOWN))),
        resource=resource,  # type: ignore[arg-type]
        session=draw(st.sampled_from((SessionFacts("s", NOW, marks=marks), UNKNOWN, None))),  # type: ignore[arg-type]
        purpose=draw(st.sampled_from((*KEYS, None, UNKNOWN))),
        context=draw(st.sampled_from(({"deep": {"x": "1"}}, {"deep": UNKNOWN}, {}))),
        now=NOW,
    )


def _agree(made: PolicySet, asked: Request) -> None:
    """Check that both forms find the same rules, each time that they are asked."""
    slow = made.on_definition()._decider
    seen = deciding.inputs_of(slow, asked)
    right = slow.verdict(seen)
    unsure = list(slow.undetermined_permits(seen))
    assert list(made._decider.matching(asked.action)) == list(slow.matching(asked.action))
    for _ in range(3):
        fresh = deciding.inputs_of(made._decider, asked)
        found = made._decider.verdict(fresh)
        assert (found.true, found.undetermined) == (right.true, right.undetermined)
        assert list(made._decider.undetermined_permits(fresh)) == unsure


@settings(max_examples=40)
@given(_rules, st.lists(_requests(), min_size=3, max_size=3))
def test_a_look_up_loses_nothing(drawn: list[tuple[str, str, list[str]]], asked: list[Request]) -> None:
    """Rules of every effect that demand anything are found wherever the definition finds them."""
    text = "\n".join(_rule(f"r{n}", *parts) for n, parts in enumerate(drawn))
    made = PolicySet.parse(_DECLARED + text)
    for one in asked:
        _agree(made, one)


def _many(line: str, count: int = 50) -> PolicySet:
    line = f"type T{{}} {{ }}\n{line}" if "is T{}" in line else line
    return PolicySet.parse("\n".join(line.replace("{}", str(number)) for number in range(count)))


def _asked_rules(made: PolicySet, asked: Request, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the rules that the definition is asked about for a call that nobody made before."""
    names: list[str] = []
    define = units.defined

    def counted(number: int, rule: CheckedRule, *rest: object) -> units.Codes:
        names.append(rule.name)
        return define(number, rule, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(units, "defined", counted)
    made._decider.verdict(deciding.inputs_of(made._decider, asked))
    return names


MARIA: Final = Principal.user("maria", roles=["r7", "r8"], level="l7")
CASES: Final[Mapping[str, tuple[str, ...]]] = {
    'permit p{} on a when actor == agent("b{}")': ("p7",),
    'permit p{} on a when "r{}" in subject.roles': ("p7", "p8"),
    'permit p{} on a when args.x == "x{}"': ("p7",),
    "permit p{} on a when args.n == {}": ("p7",),
    "permit p{} on a when resource is T{}": ("p7",),
    'permit p{} on a when resource.type == "T{}" and actor is agent': ("p7",),
    'permit p{} on a when args.x in ["x{}", "y{}"]': ("p7",),
    'permit p{} on a when (args.x == "x{}" or args.x == "y{}")': ("p7",),
    'forbid p{} on * when purpose == "p{}"': ("p7",),
    'forbid p{} on a when actor is agent and subject.level == "l{}"': ("p7",),
    # the input is missing: permits needn't be asked, forbids must
    'permit p{} on a when args.absent == "x{}"': (),
    'permit p{} on a when "x{}" in args.absent': (),
    'permit p{} on a when args.n == "x{}"': (),
    'forbid p{} on a when args.absent == "x{}"': tuple(f"p{n}" for n in range(50)),
    'permit p{} on a when args.absent == "x{}" with watch()': tuple(f"p{n}" for n in range(50)),
    'forbid p{} on a when args.n == "x{}"': tuple(f"p{n}" for n in range(50)),
}


@pytest.mark.parametrize(("line", "asked"), CASES.items())
def test_only_rules_that_could_count_are_asked(
    line: str, asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a rule demands is looked up, so that the others are never asked."""
    made = _many(line)
    request = Request(
        "a",
        subject=MARIA,
        actor=Principal.agent("b7"),
        args={"x": "x7", "n": Decimal(7)},
        resource=Resource("T7", "1"),
        purpose="p7",
        now=NOW,
    )
    assert _asked_rules(made, request, monkeypatch) == sorted(
        asked, key=lambda name: int(name[1:]) if "x{}" not in line else sorted(asked).index(name)
    )
    monkeypatch.undo()
    _agree(made, request)


def test_a_second_demand_is_looked_up_below_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that share what they demand first are told apart by what they demand besides."""
    lines = [
        f'permit p{a}x{b} on a when actor == agent("b{a}") and args.x == "x{b}"' for a in range(40) for b in range(20)
    ]
    made = PolicySet.parse("\n".join(lines))
    asked = Request("a", subject=MARIA, actor=Principal.agent("b7"), args={"x": "x3"}, now=NOW)
    assert _asked_rules(made, asked, monkeypatch) == ["p7x3"]


def test_rules_that_demand_the_same_are_asked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a look-up leads to many rules that nothing tells apart, all of them are asked what is left."""
    made = _many(
        'permit p{} on a when actor == agent("b7") and args.n <= {}\npermit q{} on a when actor == agent("b7")'
    )
    for who in ("b7", "b8"):
        asked = Request("a", subject=MARIA, actor=Principal.agent(who), args={"n": 40}, now=NOW)
        _agree(made, asked)
        assert len(made.decide(asked).rules) == (60 if who == "b7" else 0)
        assert _asked_rules(made, asked, monkeypatch) == []  # all of them are compiled by now


def test_a_demand_counts_with_its_type() -> None:
    """The text `1`, the number 1, true and an agent of that name are four different keys."""
    lines = [f'permit t{n} on a when args.x == "{n}"\npermit n{n} on a when args.x == {n}' for n in range(20)]
    lines += [f'permit a{n} on a when args.x == agent("{n}")\npermit b{n} on a when args.x == true' for n in range(20)]
    made = PolicySet.parse("\n".join(lines))
    for value, rules in (("1", {"t1"}), (1, {"n1"}), (1.0, {"n1"}), (True, {f"b{n}" for n in range(20)})):
        asked = Request("a", subject=MARIA, args={"x": value}, now=NOW)
        for _ in range(2):
            assert set(made.decide(asked).rules) == rules
    asked = Request("a", subject=MARIA, args={"x": Principal.agent("1")}, now=NOW)
    assert made.decide(asked).rules == ("a1",)
    asked = Request("a", subject=MARIA, args={"x": Principal.agent("1", issuer="https://other")}, now=NOW)
    assert made.decide(asked).rules == ()


def test_the_first_sixteen_undetermined_permits_are_named() -> None:
    """A default deny names the inputs of the first permits by name, wherever the index keeps them."""
    made = _many('permit p{} on a when args.absent == "x{}" and args.other{} == 1', 100)
    asked = Request("a", subject=MARIA, now=NOW)
    expected = [f"p{n}" for n in sorted(map(str, range(100)))][:16]
    for _ in range(3):
        inputs = deciding.inputs_of(made._decider, asked)
        assert [rule.name for rule in made._decider.undetermined_permits(inputs)] == expected
    assert made.decide(asked).missing == made.on_definition().decide(asked).missing


def test_a_list_of_many_equal_elements_asks_a_rule_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeating a role in a list costs no further questions."""
    made = _many('permit p{} on a when "r{}" in subject.roles')
    subject = Principal.user("maria", roles=["r7"] * 5_000)
    assert _asked_rules(made, Request("a", subject=subject, now=NOW), monkeypatch) == ["p7"]


def test_thousands_of_rules_that_demand_nothing_are_not_compiled_in_one_decision() -> None:
    """The functions of a large leaf are compiled a few at a time, and all answers stay the same."""
    made = _many("permit p{} on a when args.n <= {}", 600)
    asked = Request("a", subject=MARIA, args={"n": 300}, now=NOW)
    right = made.on_definition().decide(asked).rules
    for _ in range(6):
        assert made.decide(asked).rules == right


def test_what_is_demanded_is_told_by_the_conjunction_alone() -> None:
    """Below `or`, `not` and loops nothing is demanded, except that one path has one of some values."""
    made = PolicySet.parse("""
        permit one on a when args.x == "1" and (args.y == "1" and "z" in args.l) and not (args.w == "1")
        permit two on a when args.x == "1" or args.y == "1"
        permit three on a when args.x == "1" or args.x in ["2", "3"]
        permit four on a when any e in args.l: e == "1"
        permit five on a when args.x in ["1", 2] or args.x == args.y
    """)
    found = {rule.name: [(d.slot.operator, d.slot.steps, d.keys) for d in demands(rule)] for rule in made.rules}
    assert found == {
        "one": [("==", ("x",), ("1",)), ("==", ("y",), ("1",)), ("holds", ("l",), ("z",))],
        "two": [],
        "three": [("==", ("x",), ("1", "2", "3"))],
        "four": [],
        "five": [],
    }


def test_action_names_find_their_patterns() -> None:
    """Exact names, prefixes at every depth and stars are found, and the library's own actions only by name."""
    made = PolicySet.parse("""
        permit exact on a.b when true
        permit prefix on a.* when true
        permit deep on a.b.* when true
        permit everything on * when true
        permit own on delegation.* when true
        permit odd on "a..b" when true
    """)
    assert isinstance(made._decider, Compiled)
    for action in (
        "a",
        "a.",
        "a.b",
        "a.b.",
        "a.b.c",
        "a.bc",
        "a..b",
        ".",
        "",
        "b",
        "delegation.x",
        "delegation",
        "token.x",
    ):
        if action:
            _agree(made, Request(action, subject=MARIA, now=NOW))
