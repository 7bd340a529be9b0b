"""The cache of checked policies: equal to a fresh load in everything, and never trusted where it might not be ours."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given, settings

from agentauthz import PolicySet, Principal
from agentauthz.errors import InvalidArgument, PolicyCheckError
from agentauthz.policy import cache, policyset
from agentauthz.policy.check import Checked, check
from agentauthz.policy.compile import Compiled
from agentauthz.policy.parse import parse
from agentauthz.policy.source import Source
from agentauthz.policy.syntax import CheckedRule, Expr, children
from agentauthz.request import Request
from tests.laws.asking import account
from tests.strategies.cases import Case, cases

TEXT: Final = """
type user { roles: [string], level?: "low" | "high" }
type Order { amount: decimal, items: [{ sku: string, n: int }], at: time }
action pay.refund(amount: decimal, wait?: duration) on Order
let large(n) = n > 500.50
permit small on pay.refund when "support" in subject.roles and not large(args.amount) because "ünïcode \\u{2028}"
permit watched on pay.* when actor == agent("bot", issuer: "https://id") with log(n: 1.5, to: ["a", 2h], x: user("x"))
forbid old on pay.refund when resource.at < time("2026-01-01T00:00:00Z") or any i in resource.items: i.n > 3
review big on pay.refund when large(args.amount) by approver != subject and "lead" in approver.roles within 5m
limit daily on pay.refund to sum(args.amount) <= 2000 per subject, resource.id every 1d
limit few on * to count <= 3 per session, subject
mark paid as money on pay.refund when true
forbid marked on mail.* when "money" in session.marks unless done("pay.refund", 1h)
"""
OTHER: Final = (
    'let shared = subject is user and args.amount ?? 0 > 1\npermit other on a, b.* when shared or args.x like "a*b"\n'
)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "deep" / "cache"


@pytest.fixture
def policies(tmp_path: pathlib.Path) -> pathlib.Path:
    place = tmp_path / "policies"
    place.mkdir()
    (place / "a.authz").write_text(TEXT.replace("args.amount ?? 0", "args.amount"))
    (place / "b.authz").write_text(OTHER.replace("args.amount ?? 0 > 1", 'purpose == "x"'))
    return place


def spans(rule: CheckedRule) -> list[str]:
    """Return the places of all that a rule is made of, with the text there."""
    found = [rule.span, *(pattern.span for pattern in rule.patterns)]
    waiting: list[Expr] = [e for e in (rule.condition, rule.by, rule.amount, rule.bound, *rule.per) if e is not None]
    while waiting:
        expr = waiting.pop()
        found.append(expr.span)
        waiting += children(expr)
    return [f"{span} {span.text}" for span in found]


def declared(rule: CheckedRule) -> list[object]:
    """Return the declared types of all paths of a rule's condition."""
    waiting: list[Expr] = [] if rule.condition is None else [rule.condition]
    found: list[object] = []
    while waiting:
        expr = waiting.pop()
        found.append(getattr(expr, "declared", None))
        waiting += children(expr)
    return found


def assert_same(kept: Checked, fresh: Checked) -> None:
    """Check that two checked sets are the same in all that anybody could see."""
    assert kept.rules == fresh.rules
    assert list(map(spans, kept.rules)) == list(map(spans, fresh.rules))
    assert list(map(declared, kept.rules)) == list(map(declared, fresh.rules))
    assert [rule.digest for rule in kept.rules] == [rule.digest for rule in fresh.rules]
    assert [found.render() for found in kept.diagnostics] == [found.render() for found in fresh.diagnostics]
    assert (kept.actions, kept.types) == (fresh.actions, fresh.types)
    assert (kept.marks, kept.tracked) == (fresh.marks, fresh.tracked)


def write(folder: pathlib.Path, source: Source) -> None:
    statements, problems = parse(source)
    checked = check(statements)
    assert not problems
    assert not [found for found in checked.diagnostics if found.severity == "error"]
    cache.write(folder, [source], checked, "sha256:0")


def only_file(folder: pathlib.Path) -> pathlib.Path:
    (found,) = folder.iterdir()
    return found


def was_parsed(monkeypatch: pytest.MonkeyPatch, load: Callable[[], PolicySet]) -> bool:
    """Say whether loading parses anything."""
    parsed: list[Source] = []

    def noted(source: Source) -> object:
        parsed.append(source)
        return parse(source)

    with monkeypatch.context() as patch:
        patch.setattr(policyset, "parse", noted)
        load()
    return bool(parsed)


def test_a_second_load_is_the_same_and_parses_nothing(
    policies: pathlib.Path, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules, digests, places, declared types, warnings and declarations come back as they were."""
    fresh = PolicySet.load(policies, cache=None)
    assert was_parsed(monkeypatch, lambda: PolicySet.load(policies, cache=folder))
    assert not was_parsed(monkeypatch, lambda: PolicySet.load(policies, cache=folder))
    kept = PolicySet.load(policies, cache=folder)
    assert (kept.digest, kept.rules) == (fresh.digest, fresh.rules)
    assert [str(found) for found in kept.warnings] == [str(found) for found in fresh.warnings]
    assert_same(kept._checked, fresh._checked)
    assert hash(kept.rules[0]) == hash(fresh.rules[0])
    assert repr(kept.rules[0]) == repr(fresh.rules[0])


@settings(max_examples=60)
@given(cases())
def test_a_kept_set_decides_as_a_fresh_one(case: Case) -> None:
    """What comes back from the cache decides as what was checked, for generated policies."""
    source = case.made.sources[0]
    with tempfile.TemporaryDirectory() as folder:
        cache.write(pathlib.Path(folder), [source], case.made._checked, case.made.digest)
        kept = cache.read(pathlib.Path(folder), [Source(source.name, source.text)])
    assert kept is not None
    assert kept.digest == case.made.digest
    assert_same(kept.checked, case.made._checked)
    decider = Compiled(kept.checked.rules, kept.checked.arguments, kept.digest, kept.demanded)
    made = PolicySet._make(kept.checked, kept.digest, (), (source,), decider)
    for plan in case.plans:
        for _ in range(3):
            assert account(made.decide(plan.request())) == account(case.made.decide(plan.request()))


def test_another_text_name_or_build_finds_nothing(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept for other policies, files of other names, or by other code, is not used."""
    source = Source("a.authz", TEXT)
    write(folder, source)
    assert cache.read(folder, [source]) is not None
    assert cache.read(folder, [Source("a.authz", TEXT + "\n")]) is None
    assert cache.read(folder, [Source("b.authz", TEXT)]) is None
    assert cache.read(folder, [source, Source("b.authz", "")]) is None
    monkeypatch.setattr(cache, "_build", lambda: "another")
    assert cache.read(folder, [source]) is None


def test_a_file_under_another_ones_name_is_ignored(folder: pathlib.Path) -> None:
    """What was kept for one set can't be moved into the place of another."""
    source, other = Source("a.authz", TEXT), Source("b.authz", OTHER.replace("?? 0 ", ""))
    write(folder, source)
    first = only_file(folder)
    content = first.read_bytes()
    first.unlink()
    write(folder, other)
    only_file(folder).write_bytes(content)
    assert cache.read(folder, [other]) is None


def damaged(data: bytes) -> list[bytes]:
    """Return ways in which a file may be damaged, or be another's."""
    head, _, rest = data.partition(b"\n")
    absurd = [b"", b"null", b"[]", b"{}", b"[" * 100_000, b'{"key": 1}', json.dumps({"rules": [[0] * 12]}).encode()]
    magic = b"agentauthz checked policies 1 "
    signed = [b"%b%b\n%b\n" % (magic, hashlib.sha256(a + b"\n").hexdigest().encode(), a) for a in absurd]
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    return [
        b"", head, data[:-1], data[: len(data) // 2], data + b" ", bytes(flipped), data.replace(b" 1 ", b" 2 ", 1),
        rest, b"\x00" * 100, *signed,
    ]  # fmt: skip


def test_whatever_is_damaged_is_ignored(policies: pathlib.Path, folder: pathlib.Path) -> None:
    """Truncated, changed, foreign and absurd files are as if they weren't there, and are replaced."""
    fresh = PolicySet.load(policies, cache=folder)
    file = only_file(folder)
    good = file.read_bytes()
    for data in damaged(good):
        file.write_bytes(data)
        assert PolicySet.load(policies, cache=folder).rules == fresh.rules
        assert file.read_bytes() == good


def test_what_others_can_write_is_never_used(folder: pathlib.Path) -> None:
    """Folders and files that the group or others may write, symbolic links, and other kinds of files are refused."""
    source = Source("a.authz", TEXT)
    write(folder, source)
    file = only_file(folder)
    for place in (file, folder):
        mode = place.stat().st_mode
        for bit in (0o020, 0o002):
            place.chmod(mode | bit)
            assert cache.read(folder, [source]) is None
        place.chmod(mode)
    assert cache.read(folder, [source]) is not None
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert cache.read(link, [source]) is None
    moved = folder.parent / "moved"
    file.rename(moved)
    file.symlink_to(moved)
    assert cache.read(folder, [source]) is None
    file.unlink()
    os.mkfifo(file, 0o600)
    assert cache.read(folder, [source]) is None


def test_what_another_user_owns_is_never_used(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder or file of another owner is refused."""
    source = Source("a.authz", TEXT)
    write(folder, source)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert cache.read(folder, [source]) is None


def test_nothing_is_written_where_others_could_change_it(policies: pathlib.Path, folder: pathlib.Path) -> None:
    """A folder that others can write is left alone, and the policies load all the same."""
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert PolicySet.load(policies, cache=folder).rules
    assert list(folder.iterdir()) == []
    assert PolicySet.load(policies, cache="/dev/null/nowhere").rules
    assert PolicySet.load(policies, cache="\0").rules


def test_files_are_for_this_user_alone(policies: pathlib.Path, folder: pathlib.Path) -> None:
    """Folder and file are made so that only this user can read and write them, and nothing else is left behind."""
    PolicySet.load(policies, cache=folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert only_file(folder).stat().st_mode & 0o777 == 0o600


def test_old_files_are_removed(tmp_path: pathlib.Path, folder: pathlib.Path) -> None:
    """Each edit of a policy leaves a file; only the last ones are kept."""
    file = tmp_path / "p.authz"
    for number in range(40):
        file.write_text(f"permit p on a when args.n == {number}")
        PolicySet.load(file, cache=folder)
    assert len(list(folder.iterdir())) == 32


def test_policies_with_errors_are_not_kept(tmp_path: pathlib.Path, folder: pathlib.Path) -> None:
    """What doesn't check is reported each time."""
    file = tmp_path / "p.authz"
    file.write_text("permit p on a when nothing")
    for _ in range(2):
        with pytest.raises(PolicyCheckError):
            PolicySet.load(file, cache=folder)
    assert not folder.exists()


def test_nothing_is_kept_unless_a_folder_is_given(
    policies: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a folder nothing is written anywhere."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cache, "write", lambda *_: pytest.fail("something was kept"))
    PolicySet.load(policies)
    assert not (tmp_path / "home").exists()


def test_a_cache_that_is_no_path_is_an_error(policies: pathlib.Path) -> None:
    """What can't be a folder's path is said so."""
    with pytest.raises(InvalidArgument, match="cache"):
        PolicySet.load(policies, cache=1)  # type: ignore[arg-type]


def test_conditions_are_read_when_they_are_asked(tmp_path: pathlib.Path, folder: pathlib.Path) -> None:
    """Of many rules, only those that a call looks up are taken out of the cache."""
    file = tmp_path / "p.authz"
    file.write_text("\n".join(f'permit p{n} on a when args.x == "x{n}"' for n in range(100)))
    PolicySet.load(file, cache=folder)
    made = PolicySet.load(file, cache=folder)
    asked = Request("a", subject=Principal.user("maria"), args={"x": "x7"})
    assert made.decide(asked).rules == ("p7",)
    read = [rule.name for rule in made.rules if getattr(rule._condition, "_make", None) is None]
    assert "p7" in read
    assert len(read) <= 2  # and the one that tells which path to look at
