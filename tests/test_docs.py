"""Test that what the documentation shows is so: its code runs, its policies load, its links lead somewhere.

In README.md and docs/**/*.md, a fence's info string says what is done with it:

- ``python``: run, in the order of the page, all blocks of a page in one namespace, in an empty folder;
- ``text output``: must equal what was printed since the last ``text output``, or, right after an
  ``authz error``, the text of the error;
- ``authz``: a whole policy set, which must load;
- ``authz error``: a policy set that must be refused;
- ``text``, ``console``, ``toml``, ``json``: only shown.
"""

from __future__ import annotations

import contextlib
import contextvars
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agentauthz import PolicySet
from agentauthz.errors import PolicyError
from agentauthz.policy.builtins import FUNCTIONS, KEYWORDS, RESERVED
from agentauthz.policy.syntax import ROOTS
from tests.golden import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = {"text", "console", "toml", "json"}
EXECUTED = {"python", "text output", "authz", "authz error"}
_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`\n]*)$")
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


class Block(NamedTuple):
    """Be one fenced block: its info string, its text, and the line of its first line (from 1)."""

    info: str
    text: str
    line: int


def blocks(markdown: str) -> list[Block]:
    """Return the fenced blocks of a page, in order; an unclosed fence fails."""
    found: list[Block] = []
    lines = iter(enumerate(markdown.splitlines(), 1))
    for number, line in lines:
        if (opening := _FENCE.match(line)) is None:
            continue
        body: list[str] = []
        for _, inner in lines:
            if inner.strip() == opening["ticks"]:
                break
            body.append(inner.removeprefix(opening["indent"]))
        else:
            raise AssertionError(f"the fence on line {number} is never closed")
        found.append(Block(opening["info"].strip(), "\n".join(body) + "\n", number + 1))
    return found


def run_page(page: str, found: list[Block]) -> None:
    """Run the executed blocks of one page, in order, and compare what they print."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = io.StringIO()
    for block in found:
        if block.info == "python":
            # as many empty lines in front as the page has: a traceback then names the page's own lines
            code = compile("\n" * (block.line - 1) + block.text, page, "exec", dont_inherit=True)
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)
        elif block.info == "authz":
            PolicySet.parse(block.text, name=f"{page}:{block.line}")
        elif block.info == "authz error":
            printed = io.StringIO()
            with pytest.raises(PolicyError) as caught:
                PolicySet.parse(block.text, name="example.authz")
            print(caught.value, file=printed)
        elif block.info == "text output":
            assert printed.getvalue().rstrip() == block.text.rstrip(), f"{page}:{block.line}"
            printed = io.StringIO()


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_page_does_what_it_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of the page runs, loads or is refused as it says, and prints what it shows."""
    monkeypatch.chdir(tmp_path)
    found = blocks(page.read_text(encoding="utf-8"))
    contextvars.copy_context().run(run_page, _name(page), found)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_fence_says_what_it_is(page: Path) -> None:
    """No fence carries an unknown info string, with which it would silently be left out."""
    infos = {block.info for block in blocks(page.read_text(encoding="utf-8"))}
    assert infos <= SHOWN | EXECUTED


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of the page names a file or folder of the repository."""
    for link in _LINK.finditer(page.read_text(encoding="utf-8")):
        target = link["target"].partition("#")[0]
        if target and "://" not in target:
            assert (page.parent / target).exists(), f"{target} isn't there"


@pytest.mark.parametrize("word", sorted(FUNCTIONS.keys() | KEYWORDS | RESERVED | ROOTS))
def test_reference_holds_every_word_of_the_language(word: str) -> None:
    """Each function, keyword, root and reserved word stands as code in the reference page."""
    text = (ROOT / "docs" / "reference" / "language.md").read_text(encoding="utf-8")
    code = re.findall(r"`([^`\n]+)`", text)
    assert any(re.search(rf"\b{word}\b", span) for span in code)


@pytest.mark.parametrize(
    ("markdown", "error"),
    [
        ("```python\nprint(1)\n```\n\n```text output\n2\n```\n", AssertionError),
        ("```python\n1 / 0\n```\n", ZeroDivisionError),
        ("```python\nx = 1\n", AssertionError),
        ("```authz\nprmit a on b when true\n```\n", PolicyError),
        ("```authz error\npermit a on b when true\n```\n", pytest.fail.Exception),
    ],
    ids=["output", "exception", "unclosed", "policy", "no error"],
)
def test_a_wrong_page_fails(markdown: str, error: type[BaseException]) -> None:
    """Wrong output, a failing block, an open fence, a bad policy, an error that doesn't come: each is noticed."""
    with pytest.raises(error):
        run_page("page.md", blocks(markdown))
