"""Policy sets: from text and files, digests, warnings, and the check against tools."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import pytest

from agentauthz import Authorizer, Injected, InvalidArgument, PolicyCheckError, PolicySet, PolicySyntaxError, authorize
from agentauthz.errors import PolicyError, PolicyLoadError
from agentauthz.policy.source import Diagnostic
from tests.deciding import account, requested
from tests.support import Recorded

GOOD = "permit a on t.do when true"


def found(act: Callable[[], object], error: type[PolicyError] = PolicyCheckError) -> list[tuple[str, str]]:
    """Return the codes and marked texts of the errors that `act` raises."""
    with pytest.raises(error) as raised:
        act()
    return [(one.code, one.span.text) for one in raised.value.diagnostics if one.severity == "error"]


def _line(diagnostic: Diagnostic) -> int:
    return diagnostic.span.source.position(diagnostic.span.start)[0]


class Counted(tuple[Any, ...]):
    """Be rules that count how often somebody goes through all of them."""

    passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return super().__iter__()


def test_what_a_record_tells_costs_what_could_match() -> None:
    """Neither the inputs of an action that is met first nor the clauses of a denial walk through all rules."""
    made = PolicySet.parse("permit a on t.do when args.n > 0\nforbid b on t.do when args.n > 1\nforbid c on x")
    rules = Counted(made.rules)
    policies = PolicySet._make(attrs.evolve(made._checked, rules=rules), made.digest, (), made.sources)
    rules.passes = 0
    decision, inputs = policies.judge(requested(args={"n": 2}))
    assert [name for name, _ in policies.seen(inputs)] == ["args.n"]
    assert [one["rule"] for one in policies.clauses(decision, inputs)] == ["b"]
    assert rules.passes == 0


# ---- text


def test_rules_come_by_name_whatever_their_order() -> None:
    """`rules` is sorted, and holds what the text says."""
    policies = PolicySet.parse("forbid b on x\npermit a on x when true\nmark c on x")
    assert [(rule.effect, rule.name) for rule in policies.rules] == [("permit", "a"), ("forbid", "b"), ("mark", "c")]
    assert policies.tracked == frozenset()
    assert repr(policies).startswith("PolicySet(3 rules, digest='sha256:")


@pytest.mark.parametrize(
    ("given", "argument"), [((None,), "text"), ((b"permit",), "text"), ((GOOD, 7), "name"), ((GOOD, None), "name")]
)
def test_only_text_is_parsed(given: Any, argument: str) -> None:
    """Another type is refused, and the argument named."""
    with pytest.raises(InvalidArgument) as raised:
        PolicySet.parse(*given)
    assert raised.value.argument == argument


def test_every_problem_of_a_text_is_told_at_once() -> None:
    """Parsing goes on after each mistake, and what parses is checked as well."""
    text = "permit a on x when\nforbid b on x when args.a ==\npermit c on x\nforbid d on x when 1\nforbid d on y"
    assert found(lambda: PolicySet.parse(text), PolicySyntaxError) == [
        ("syntax", ""), ("syntax", ""), ("missing-when", "c"), ("not-a-condition", "1"), ("duplicate-name", "d"),
    ]  # fmt: skip


def test_what_seems_unknown_beside_a_syntax_error_is_not_told() -> None:
    """The let that a rule names may be the one that doesn't parse."""
    text = "let ok = subject.\nforbid a on x when ok"
    assert found(lambda: PolicySet.parse(text), PolicySyntaxError) == [("syntax", "")]


# ---- files


def written(folder: Path, **files: str) -> Path:
    """Write policies, and return their folder."""
    for name, text in files.items():
        path = folder / f"{name}.authz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def test_a_file_and_a_folder_are_loaded(tmp_path: Path) -> None:
    """All files that end in .authz count, at any depth; hidden ones and others don't."""
    written(tmp_path, **{"a": GOOD, "sub/deep/b": "forbid b on t.do", ".hidden": "nonsense", ".git/c": "nonsense"})
    (tmp_path / "notes.txt").write_text("nonsense")
    assert [rule.name for rule in PolicySet.load(tmp_path).rules] == ["a", "b"]
    assert [rule.name for rule in PolicySet.load(str(tmp_path / "a.authz")).rules] == ["a"]
    assert [Path(source.name).name for source in PolicySet.load(tmp_path).sources] == ["a.authz", "b.authz"]


def test_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    """Each in its own file, and a rule that two files have in common as well."""
    written(
        tmp_path, a="permit same on x when true\nforbid x on", b="forbid same on x", c="forbid y on x when subjct.a"
    )
    with pytest.raises(PolicySyntaxError) as raised:
        PolicySet.load(tmp_path)
    places = [(Path(one.span.source.name).name, _line(one)) for one in raised.value.diagnostics]
    assert ("a.authz", 2) in places
    assert any(name == "b.authz" for name, _ in places)
    assert places == sorted(places)


def test_a_let_and_a_type_serve_all_files(tmp_path: Path) -> None:
    """A policy set is one: statements see each other whatever file they stand in."""
    written(tmp_path, z="let ok = subject.level > 2", a="permit a on t.do when subject is user and ok")
    written(tmp_path, m="type user { level: int }")
    assert len(PolicySet.load(tmp_path).rules) == 1


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda folder: folder / "missing.authz", "can't be read"),
        (lambda folder: folder / "missing", "can't be read"),
        (lambda folder: folder, "holds no file"),
        (lambda folder: _other(folder), "ends in .authz"),
        (lambda folder: "a\0b.authz", "can't be read"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_named(tmp_path: Path, make: Callable[[Path], Any], word: str) -> None:
    """A missing path, a folder without policies, another kind of file: an error that names the path."""
    path = make(tmp_path)
    with pytest.raises(PolicyLoadError, match=word) as raised:
        PolicySet.load(path)
    assert raised.value.path == str(path)


def _other(folder: Path) -> Path:
    (folder / "policy.txt").write_text(GOOD)
    return folder / "policy.txt"


@pytest.mark.parametrize("path", [None, 7, b"a.authz", [GOOD], GOOD.encode()])
def test_only_a_path_is_loaded(path: Any) -> None:
    """Another type is refused."""
    with pytest.raises(InvalidArgument, match="path"):
        PolicySet.load(path)


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b'permit a on x when args.a == "\xe9"', b"\xef\xbb\xbf" + GOOD.encode(), b"\x00"]
)
def test_a_file_that_is_no_plain_text_is_a_problem_at_its_place(tmp_path: Path, data: bytes) -> None:
    """Bytes that are no UTF-8, a byte order mark and control characters are told as other problems are."""
    (tmp_path / "a.authz").write_bytes(data)
    assert found(lambda: PolicySet.load(tmp_path), PolicySyntaxError)


def test_a_link_into_nowhere_is_named(tmp_path: Path) -> None:
    """A file that can't be opened stops the loading of all: no policy is left out in silence."""
    written(tmp_path, a=GOOD)
    (tmp_path / "b.authz").symlink_to(tmp_path / "gone")
    with pytest.raises(PolicyLoadError, match="can't be read"):
        PolicySet.load(tmp_path)


# ---- digests

STATEMENTS = [
    "type user { roles: [string] }", "permit a on t.do when lead",
    "let lead = subject is user and \"lead\" in subject.roles",
    "forbid b on t.* when args.n > 3 because \"Too many\"", "mark c on t.do",
]  # fmt: skip


def test_layout_order_and_files_do_not_change_the_digest(tmp_path: Path) -> None:
    """Comments, spacing, order, file names and how many files: all the same."""
    digest = PolicySet.parse("\n".join(STATEMENTS)).digest
    assert digest.startswith("sha256:")
    assert len(digest) == 7 + 64
    shuffled = random.Random(7).sample(STATEMENTS, len(STATEMENTS))
    assert PolicySet.parse("\n\n# why\n".join(shuffled) + "  # end\n").digest == digest
    assert PolicySet.parse("\n".join(one.replace(" when ", "\n    when  ") for one in STATEMENTS)).digest == digest
    written(tmp_path, **{f"f{number}": text for number, text in enumerate(shuffled)})
    assert PolicySet.load(tmp_path).digest == digest
    assert PolicySet.load(tmp_path).on_definition().digest == digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("> 3", ">= 3"), ("> 3", "> 4"), ("forbid b", "forbid d"), ("Too many", "Too much"), ("t.*", "t.do"),
        ("mark c", "mark c as d"),
        ("[string]", "[string], age?: int"), ("\"lead\" in", "\"boss\" in"), ("forbid b", "mark b"),
    ],
)  # fmt: skip
def test_whatever_could_change_a_decision_changes_the_digest(old: str, new: str) -> None:
    """A word of a rule, a let or a declaration counts, and so does one statement more or less."""
    text = "\n".join(STATEMENTS)
    before = PolicySet.parse(text.replace(' because "Too many"', "") if new == "mark b" else text).digest
    changed = text.replace(' because "Too many"', "") if new == "mark b" else text
    assert PolicySet.parse(changed.replace(old, new, 1)).digest != before
    assert PolicySet.parse(text + "\nforbid more on t.do").digest != PolicySet.parse(text).digest


def test_each_rule_has_a_digest_of_its_own() -> None:
    """It rests on the rule, the lets that it expands and the declarations that it uses; not on other rules."""
    before, after = (
        {rule.name: rule.digest for rule in PolicySet.parse("\n".join(lines)).rules}
        for lines in (STATEMENTS, [one.replace('"lead" in', '"boss" in') for one in STATEMENTS])
    )
    assert set(before) == {"a", "b", "c"}
    assert before["a"] != after["a"]
    assert (before["b"], before["c"]) == (after["b"], after["c"])
    assert len(set(before.values())) == 3


# ---- warnings


def test_warnings_are_kept_and_stop_nothing() -> None:
    """An unused let is a warning with its place; a set without any has none."""
    policies = PolicySet.parse(f"let unused = subject.a\n{GOOD}")
    assert [(one.code, one.severity, _line(one)) for one in policies.warnings] == [("unused-let", "warning", 1)]
    assert PolicySet.parse(GOOD).warnings == ()


# ---- both forms


def test_the_definition_decides_as_the_set_does() -> None:
    """`on_definition` has the same rules, digest, warnings and decisions."""
    policies = PolicySet.parse("permit a on t.do when args.n < 3\nforbid b on t.do when args.n == 2\nlet u = subject.a")
    other = policies.on_definition()
    assert (other.rules, other.digest, other.warnings) == (policies.rules, policies.digest, policies.warnings)
    for n in (1, 2, 3, "x", None):
        request = requested(args={"n": n})
        assert account(policies.decide(request)) == account(other.decide(request))


# ---- the check against tools


@attrs.define
class Note:
    text: str


Speed = Literal["slow", "fast"]


@authorize("pay.refund")
def refund(
    order_id: str,
    amount: float,
    reason: str | None = None,
    *,
    speed: Literal["slow", "fast"] = "slow",
    note: Note | None = None,
) -> None: ...


@authorize("mail.send")
def send(to: list[str], subject: str, at: dt.datetime, web: Annotated[Any, Injected] = None, **more: Any) -> None: ...


class Desk:
    @authorize("desk.open")
    def open(self, number: int) -> None: ...

    @staticmethod
    @authorize("desk.close")
    def close(number: int) -> None: ...


TOOLS: list[object] = [refund, send, Desk.open, Desk.close]


def problems(text: str, tools: Iterable[object] = TOOLS) -> list[tuple[str, str]]:
    """Return what checking against the tools finds wrong with policies that are fine by themselves."""
    policies = PolicySet.parse(text)
    return found(lambda: policies.check(tools))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("forbid a on pay.refnd", ("unknown-action", "pay.refnd")),
        ("forbid a on pays.*", ("unknown-action", "pays.*")),
        ('forbid a on pay.refund when began("mail.sent", 1h)', ("unknown-action", '"mail.sent"')),
        ("forbid a on pay.refund when args.amout > 3", ("unknown-argument", "amout")),
        ("forbid a on desk.open when args.self == 3", ("unknown-argument", "self")),
        ('forbid a on pay.refund when args.amount == "3"', ("type-mismatch", 'args.amount == "3"')),
        ('forbid a on pay.refund when args.speed == "quick"', ("unknown-value", '"quick"')),
        ('forbid a on mail.send when args.to == "x"', ("type-mismatch", 'args.to == "x"')),
        ("forbid a on mail.send when args.at > 3", ("type-mismatch", "args.at > 3")),
        ('forbid a on pay.refund when args.reason == "x"', ("unguarded", "args.reason")),
        ("forbid a on desk.* when args.number == true", ("type-mismatch", "args.number == true")),
        ("action pay.refund(order_id: string)\nforbid a on pay.refund", ("signature-differs", "pay.refund")),
    ],
)  # fmt: skip
def test_what_no_tool_has_is_found(text: str, expected: tuple[str, str]) -> None:
    """Actions, arguments and types come from the decorated functions, and the place is marked."""
    assert problems(text) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        'forbid a on pay.refund when args.speed == "fast" and args.amount > 2.5',
        'forbid a on pay.refund when exists args.reason and args.reason != "x"',
        'forbid a on mail.send when any r in args.to: email_domain(r) != "example.com"',
        'forbid a on mail.send when exists args.other and args.other == 3',
        "forbid a on desk.open, desk.close when args.number > 3",
        'forbid a on mail.send when done("pay.refund", 1h)',
        'forbid a on pay.refund when exists args.note and args.note.text == "x"',
        "permit a on delegation.handoff when true",
        "action pay.refund\nforbid a on pay.refund when args.amount > 3",
    ],
)  # fmt: skip
def test_what_the_tools_have_is_fine(text: str) -> None:
    """Rules that fit the signatures pass, and nothing is warned of."""
    assert PolicySet.parse(text).check(TOOLS) == ()


def test_the_nearest_name_is_offered() -> None:
    """A misspelled action or argument comes with the one that was meant."""
    policies = PolicySet.parse("forbid a on pay.refnd\nforbid b on pay.refund when args.amout > 3")
    with pytest.raises(PolicyCheckError) as raised:
        policies.check(TOOLS)
    assert [one.help for one in raised.value.diagnostics] == ["did you mean `pay.refund`?", "did you mean `amount`?"]


def test_what_a_star_matches_is_told() -> None:
    """Checking returns warnings: each star with the actions that it covers today."""
    [warning] = PolicySet.parse("forbid a on desk.*").check(TOOLS)
    assert (warning.code, warning.severity) == ("star-matches", "warning")
    assert warning.message == "`desk.*` matches `desk.close`, `desk.open` today"


def test_two_tools_may_have_one_action() -> None:
    """An argument that only one of them takes may be absent, one of two types is anything; in any order."""

    @authorize("x.y")
    def one(a: int, both: int, odd: int) -> None: ...

    @authorize("x.y")
    def two(b: int, both: int, odd: str) -> None: ...

    for tools in ([one, two], [two, one]):
        fine = "forbid r on x.y when (args.a ?? 1) == 1 and exists args.b and args.b == 2"
        fine += ' and args.both == 3 and args.odd == "x"'
        assert PolicySet.parse(fine).check(tools) == ()
        assert problems("forbid r on x.y when args.a == 1", tools) == [("unguarded", "args.a")]
        assert problems("forbid r on x.y when args.c == 1", tools) == [("unknown-argument", "c")]
        assert problems('forbid r on x.y when args.both == "x"', tools) == [("type-mismatch", 'args.both == "x"')]


def test_an_injected_argument_is_no_argument() -> None:
    """Policies don't see what the framework fills in."""

    @authorize("x.y")
    def tool(a: int, client: Annotated[Any, Injected]) -> None: ...

    assert problems("forbid r on x.y when args.client == 3", [tool]) == [("unknown-argument", "client")]


@pytest.mark.parametrize("tool", [len, lambda: None, "refund", None, Desk])
def test_only_decorated_functions_are_tools(tool: object) -> None:
    """Anything else in the list is refused."""
    with pytest.raises(InvalidArgument, match="decorated"):
        PolicySet.parse(GOOD).check([tool])


# ---- replacing


def test_a_set_is_replaced_whole_and_a_bad_one_leaves_the_old(tmp_path: Path) -> None:
    """After `replace` the new rules decide; a set that fails to load changes nothing."""
    kept = Recorded(GOOD)
    request = requested()
    assert kept.authorizer.decide(request).allowed
    kept.authorizer.replace(PolicySet.parse("forbid a on t.do"))
    assert not kept.authorizer.decide(request).allowed
    written(tmp_path, bad="permit on")
    with pytest.raises(PolicySyntaxError):
        kept.authorizer.replace(tmp_path)
    assert kept.authorizer.decide(request).rules == ("a",)
    assert isinstance(kept.authorizer, Authorizer)
