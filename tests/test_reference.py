"""Test that the reference pages are complete: every public name, method, error, reason code and record field."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import FunctionType

import pytest
from attrs import fields

import agentauthz
from agentauthz import errors, records
from agentauthz.decision import Basis
from tests.golden import ROOT

REFERENCE = ROOT / "docs" / "reference"
CLASSES = ("Authorizer", "Session", "PolicySet")
ERRORS = sorted(
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, agentauthz.AgentAuthzError)
)
ENFORCING = ("session.py", "policy/decide.py", "policy/syntax", "authorizer", "guard")  # who gives reasons


def _code(page: Path) -> list[str]:
    """Return what stands as code on a page."""
    return re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))


def _stands(word: str, code: list[str]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", span) for span in code)


def _members(name: str) -> list[str]:
    """Return a class's public methods, properties and fields."""
    return sorted(member for member in vars(getattr(agentauthz, name)) if not member.startswith("_"))


def _files() -> list[Path]:
    places = [ROOT / "agentauthz" / name for name in ENFORCING]
    return [file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]


def _pattern(code: ast.expr) -> str | None:
    """Return the expression that a code in the source matches; None: it is told where it is made."""
    if isinstance(code, ast.Constant) and isinstance(code.value, str):
        return re.escape(code.value)
    if isinstance(code, ast.JoinedStr):
        return "".join(re.escape(str(part.value)) if isinstance(part, ast.Constant) else r"\w+" for part in code.values)
    return None


def reason_codes() -> set[str]:
    """Return expressions for the codes that the source gives: in calls, and as keys of the table of rules' texts."""
    given: list[ast.expr] = []
    for file in _files():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                place = {"Reason": 0, "_problem": 0, "failed": 1}.get(node.func.id)
                given += [] if place is None else node.args[place : place + 1]
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "_TEXTS":
                assert isinstance(node.value, ast.Dict)
                given += [key for key in node.value.keys if key is not None]
    # "denied" is what a decision without reasons would be called: there is none
    return {pattern for code in given if (pattern := _pattern(code)) is not None} - {"denied"}


@pytest.mark.parametrize("name", sorted(agentauthz.__all__))
def test_every_public_name_has_a_heading(name: str) -> None:
    """Each name of `agentauthz.__all__` has a heading of its own in the reference of the API."""
    headings = re.findall(r"^### (\w+)$", (REFERENCE / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings.count(name) == 1


def test_no_heading_names_what_is_not_there() -> None:
    """A name that was taken away is taken away from the reference too."""
    headings = re.findall(r"^### (\w+)$", (REFERENCE / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(headings) <= set(agentauthz.__all__)


@pytest.mark.parametrize("name", CLASSES)
def test_every_member_is_mentioned(name: str) -> None:
    """Each public method, property and field of the three main classes stands as code below its class's heading."""
    text = (REFERENCE / "api.md").read_text(encoding="utf-8")
    section = re.split(r"^##+ ", text.partition(f"\n### {name}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    code = re.findall(r"`([^`\n]+)`", section)
    assert [member for member in _members(name) if not _stands(member, code)] == []


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_in_the_tree_with_its_code(name: str) -> None:
    """Each error class stands in the drawn tree with its code, marked with a star where it is a public name."""
    text = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    star = r" \*" if name in agentauthz.__all__ else ""
    assert re.search(rf"^[│├└─ ]*{name}{star} +{getattr(errors, name).code}$", text, re.MULTILINE)


def test_every_reason_code_is_told() -> None:
    """Each code that the source gives to a reason has a row in the page on denials, and each row's code exists."""
    text = (ROOT / "docs" / "how-to" / "read-a-denial.md").read_text(encoding="utf-8")
    table = text.partition("## Codes")[2].partition("## Bases")[0]
    told = [*re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)]
    given = reason_codes() | {"no_session"}
    assert len(given) >= 18, "the search finds the codes"
    assert [code for code in told if not any(re.fullmatch(pattern, code) for pattern in given)] == []
    assert [pattern for pattern in given if not any(re.fullmatch(pattern, code) for code in told)] == []


def test_every_basis_is_told() -> None:
    """Each basis has a row in the page on denials."""
    text = (ROOT / "docs" / "how-to" / "read-a-denial.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \|", text.partition("## Bases")[2], re.MULTILINE)
    assert sorted(told) == sorted(basis.value for basis in Basis)


@pytest.mark.parametrize("record", [records.DecisionRecord, records.EffectRecord])
def test_every_field_of_a_record_is_told(record: type) -> None:
    """Each public field of the two records stands as code in the page on records."""
    code = _code(REFERENCE / "records.md")
    names = [field.name for field in fields(record) if not field.name.startswith("_")]
    assert [name for name in names if not _stands(name, code)] == []


def test_public_names_of_records_and_testing_are_told() -> None:
    """What `agentauthz.records` and `agentauthz.testing` offer stands as code in the reference of the API."""
    from agentauthz import testing

    code = _code(REFERENCE / "api.md")
    offered = [name for name, value in vars(testing).items() if isinstance(value, FunctionType) and name[0] != "_"]
    own = [name for name in offered if vars(testing)[name].__module__ == testing.__name__]
    assert [name for name in (*records.__all__, *own) if not _stands(name, code)] == []
