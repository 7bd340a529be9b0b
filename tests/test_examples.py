"""Test that each example runs from an empty folder and prints what was reviewed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden import ROOT, check_golden

EXAMPLES = ROOT / "examples"
RUNS = sorted(EXAMPLES.glob("*/run.py")) + sorted(EXAMPLES.glob("*.py"))


def _expected(script: Path) -> Path:
    return script.with_name("expected_output.txt") if script.name == "run.py" else script.with_suffix(".expected.txt")


@pytest.mark.parametrize("script", RUNS, ids=lambda script: str(script.relative_to(EXAMPLES)))
def test_example_prints_what_was_reviewed(script: Path, tmp_path: Path) -> None:
    """The example exits with 0, warns of nothing, its output equals the file beside it, and its records replay."""
    told = tmp_path.parent / f"{tmp_path.name}-replayed"  # the example's own folder must stay empty
    told.mkdir()
    environment = os.environ | {"PYTHONUTF8": "1", "PYTHONWARNINGS": "error", "NO_COLOR": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests/hooks"), str(ROOT)])
    environment["AGENTAUTHZ_REPLAYED"] = str(told)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, cwd=tmp_path, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert (wrong := [file.read_text() for file in told.iterdir()])
    assert "".join(wrong) == ""
    check_golden(_expected(script), done.stdout.decode("utf-8").replace("\r\n", "\n"))


def test_there_are_examples() -> None:
    """The search finds each of them: a moved folder must not empty this test."""
    names = {str(script.relative_to(EXAMPLES)) for script in RUNS}
    folders = ("banking_agent", "delegation", "support_desk", "workspace_agent")
    assert {"quickstart.py", *(f"{folder}/run.py" for folder in folders)} <= names
