"""Test that the reference pages are complete: every public name, method, error, reason code and record field."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from types import FunctionType

import pytest
from attrs import fields

import agentauthz
from agentauthz import errors, records, sts, tokens
from agentauthz.cli import GROUPS
from agentauthz.cli.command import Parser
from agentauthz.decision import Basis
from agentauthz.sts.answers import DESCRIPTIONS
from agentauthz.tokens.checks import REQUIRED
from tests.golden import ROOT

REFERENCE = ROOT / "docs" / "reference"
CLASSES = ("Authorizer", "Session", "PolicySet")
ERRORS = sorted(
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, agentauthz.AgentAuthzError)
)
ENFORCING = (
    "session.py",
    "policy/decide.py",
    "policy/spending.py",
    "policy/syntax",
    "authorizer",
    "guard",
)  # who gives reasons


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


@pytest.mark.parametrize("record", [records.DecisionRecord, records.DelegationRecord, records.EffectRecord])
def test_every_field_of_a_record_is_told(record: type) -> None:
    """Each public field of the three records stands as code in the page on records."""
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


# ---- tokens and the token service


@pytest.mark.parametrize(
    ("module", "page"), [("agentauthz.tokens", "tokens.md"), ("agentauthz.sts", "token-service.md")]
)
def test_every_public_name_of_tokens_and_their_service_is_told(module: str, page: str) -> None:
    """Each name that `agentauthz.tokens` and `agentauthz.sts` offer stands as code in the page about it."""
    code = _code(REFERENCE / page)
    assert [name for name in import_module(module).__all__ if not _stands(name, code)] == []


@pytest.mark.parametrize("made", [sts.Client, sts.Target, sts.StsLimits, sts.Issued, sts.AssertionRules])
def test_every_field_of_what_a_token_service_is_given_is_told(made: type) -> None:
    """Each public field of clients, targets, limits and answers stands as code in the page of the token service."""
    code = _code(REFERENCE / "token-service.md")
    assert [one.name for one in fields(made) if one.name[0] != "_" and not _stands(one.name, code)] == []


@pytest.mark.parametrize(
    "made", [tokens.VerifiedToken, tokens.TrustedIssuer, tokens.TokenLimits, tokens.ExchangedToken]
)
def test_every_field_of_what_tokens_are_made_with_is_told(made: type) -> None:
    """Each public field of verified and exchanged tokens, issuers and limits stands as code in the page on tokens."""
    code = _code(REFERENCE / "tokens.md")
    assert [one.name for one in fields(made) if one.name[0] != "_" and not _stands(one.name, code)] == []


def test_every_refusal_of_the_token_service_is_told() -> None:
    """Each reason that its source refuses with has a row with its error, and each row is one that the source has."""
    text = (REFERENCE / "token-service.md").read_text(encoding="utf-8").partition("\n## Refusals\n")[2]
    rows = re.findall(r"^\| ([^|]+) \| `(\w+)` \| ", text, re.MULTILINE)
    told = {(code, error) for codes, error in rows for code in re.findall(r"`([^`]+)`", codes)}
    given = Refusals(ROOT / "agentauthz" / "sts").found()
    assert len(given) >= 90, "the search finds the refusals"
    assert sorted(given - told) == []
    assert sorted(told - given) == []


def test_every_error_of_the_token_service_has_a_text() -> None:
    """Each error that a row names is one that the service answers with as it is, and not as `server_error`."""
    text = (REFERENCE / "token-service.md").read_text(encoding="utf-8").partition("\n## Refusals\n")[2]
    assert set(re.findall(r"^\| [^|]+ \| `(\w+)` \| ", text, re.MULTILINE)) <= DESCRIPTIONS.keys()


def _raised(error: str, *helpers: str) -> set[str]:
    """Return the codes, told as texts, with which an error is made in the package of tokens, or by a helper."""
    found: set[str] = set()
    for file in sorted((ROOT / "agentauthz" / "tokens").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                helper = node.func.id == error or (node.func.id in helpers and error in file.read_text("utf-8"))
                if helper and isinstance(node.args[0], ast.Constant):
                    found.add(str(node.args[0].value))
    return found


def _first_column(heading: str, end: str) -> set[str]:
    text = (REFERENCE / "tokens.md").read_text(encoding="utf-8").partition(heading)[2].partition(end)[0]
    return {
        code for cell in re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE) for code in re.findall(r"`(\w+)`", cell)
    }


def test_every_reason_of_the_client_is_told() -> None:
    """Each reason of an `ExchangeProtocolError` has a place in the table, and each one there exists."""
    told = _first_column("| `ExchangeProtocolError.reason` |", "\n## Discovery")
    given = _raised("ExchangeProtocolError", "_bad") | _raised("TransportError")
    assert len(given) >= 25, "the search finds the reasons"
    assert told == given


def test_every_reason_of_a_token_is_told() -> None:
    """Each reason of a `TokenError` has a place in the table, and each one there is a text of the source."""
    told = _first_column("\n## Reasons", "\n## What a resource says")
    # `type` of a proof becomes `dpop_proof`
    given = _raised("TokenError") - {"type"} | {
        "ambiguous_key",
        *(name for names in REQUIRED.values() for name in names),
    }
    assert sorted(given - told - {"iss"}) == []
    assert sorted(told - given - {"scope", "nbf"}) == []


class Refusals:
    """Find the pairs of reason and error that a package refuses with; `…` stands for what is known at run time only.

    Where a part of a reason is a parameter of the function around it, it is what the function is called with.
    """

    def __init__(self, package: Path) -> None:
        trees = [ast.parse(file.read_text(encoding="utf-8")) for file in sorted(package.rglob("*.py"))]
        self._functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        self._calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]

    def found(self) -> set[tuple[str, str]]:
        """Return every pair."""
        pairs: set[tuple[str, str]] = set()
        for call in self._calls:
            if not (isinstance(call.func, ast.Name) and call.func.id == "ExchangeRefused"):
                continue
            error, reason = call.args
            if _is_passed_on(reason):
                continue
            if isinstance(error, ast.Name):  # what becomes of a proof that `DpopVerifier.check` refuses
                pairs |= {("dpop_nonce", "use_dpop_nonce")}
                pairs |= {(code, "invalid_dpop_proof") for code in ("dpop_proof", "dpop_replayed")}
                continue
            assert isinstance(error, ast.Constant)
            pairs |= {(code, str(error.value)) for code in self._values(reason, call)}
        return pairs

    def _values(self, code: ast.expr, inside: ast.AST) -> set[str]:
        if isinstance(code, ast.Constant):
            return {str(code.value)}
        if isinstance(code, ast.JoinedStr):
            found = {""}
            for part in code.values:
                found = {before + value for before in found for value in self._values(part, inside)}
            return found
        if isinstance(code, ast.FormattedValue):
            return self._values(code.value, inside)
        if isinstance(code, ast.Attribute):
            return {"…"}
        assert isinstance(code, ast.Name), ast.unparse(code)
        return self._of_name(code.id, self._around(inside))

    def _around(self, node: ast.AST) -> ast.FunctionDef:
        """Return the innermost function that a node stands in."""
        return [one for one in self._functions if any(inner is node for inner in ast.walk(one))][-1]

    def _of_name(self, name: str, function: ast.FunctionDef) -> set[str]:
        names = [argument.arg for argument in function.args.args if argument.arg != "self"]
        if name not in names:  # of a loop over pairs
            first = [node.elts[0] for node in ast.walk(function) if isinstance(node, ast.Tuple)]
            return {str(one.value) for one in first if isinstance(one, ast.Constant)}
        place, found = names.index(name), set[str]()
        for call in self._calls:
            named = "attr" if function.args.args[0].arg == "self" else "id"
            called = getattr(call.func, named, None)
            if called == function.name and len(call.args) > place:
                found |= self._values(call.args[place], call)
        return found


def _is_passed_on(reason: ast.expr) -> bool:
    return isinstance(reason, ast.Attribute) and ast.unparse(reason) == "refusal.reason"


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in GROUPS[group][1]])
def test_every_command_and_option_is_told(group: str, name: str) -> None:
    """The page of the command line names each command, and each option that its help has."""
    code = _code(REFERENCE / "cli.md")
    parser = Parser()
    GROUPS[group][1][name](parser)
    options = [
        option for action in parser._actions for option in action.option_strings if option not in ("-h", "--help")
    ]
    assert [word for word in (name, *options) if not any(word in span for span in code)] == []
