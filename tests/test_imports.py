"""Test the house: who may import whom, and what `import agentauthz` costs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.golden import ROOT

LAZY = ("lark", "cattrs", "jwt", "cryptography")


def _python(code: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_imports_run_downwards() -> None:
    """Every import contract in pyproject.toml holds."""
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize("module", LAZY)
def test_importing_the_package_does_not_load(module: str) -> None:
    """`import agentauthz` leaves the parser generator, the converter and all cryptography unloaded."""
    assert _python(f"import agentauthz, sys; print({module!r} in sys.modules)") == "False\n"
