"""Hold every message that a bad policy gives to a file that was reviewed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from agentauthz.policy.check import check
from agentauthz.policy.parse import parse
from agentauthz.policy.source import Diagnostic, Source
from tests.golden import check_golden

FOLDER: Final = Path(__file__).resolve().parent / "diagnostics"
POLICIES: Final = sorted(FOLDER.glob("*.authz"))


def problems(name: str, text: str) -> list[Diagnostic]:
    """Return the syntax problems, then those that the checker found."""
    statements, wrong = parse(Source(name, text))
    return [*wrong, *check(statements).diagnostics]


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_each_bad_policy_gives_exactly_these_messages(path: Path) -> None:
    """What a bad policy's author sees is the text beside it, down to the last caret."""
    found = problems(path.name, path.read_text(encoding="utf-8"))
    assert found
    check_golden(path.with_suffix(".txt"), "\n\n".join(diagnostic.render() for diagnostic in found) + "\n")


def test_there_are_many_bad_policies_and_no_text_without_one() -> None:
    """At least 80 bad policies are held to their messages, and no text is left over from one that is gone."""
    assert len(POLICIES) >= 80
    assert {path.stem for path in FOLDER.glob("*.txt")} == {path.stem for path in POLICIES}


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_messages_keep_to_the_style(path: Path) -> None:
    """A message is one sentence in lower case without a period, its code in kebab case, its caret inside the text."""
    text = path.read_text(encoding="utf-8")
    for found in problems(path.name, text):
        assert re.fullmatch("[a-z]+(-[a-z0-9]+)*", found.code)
        assert found.message[0] in "`+-" or not found.message[0].isupper()
        assert not found.message.endswith(".")
        assert "\n" not in found.message
        assert 0 <= found.span.start <= found.span.end <= len(text)
