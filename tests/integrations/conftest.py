"""Install the peers that run on Node, and run scripts with them."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

NODE: Final = Path(__file__).parent / "node"
NodeScript: TypeAlias = Callable[[str, object], Any]


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Return the folder of the peers' scripts, with the packages of its package.json installed.

    Workers of one run wait for each other; a run that finds them installed leaves them alone.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm: the peers of these tests run on Node")
    with (NODE / ".install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install()
    return NODE


def _install() -> None:
    wanted, done = (NODE / "package.json").read_text(), NODE / "node_modules" / ".installed.json"
    if done.is_file() and done.read_text() == wanted:
        return
    command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"]
    installed = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=300, check=False)
    assert installed.returncode == 0, f"npm can't install the peers: {installed.stderr[-2000:]}"
    done.write_text(wanted)


@pytest.fixture(scope="session")
def node_script(node_modules: Path) -> NodeScript:
    """Return what runs a script of the folder: it is given JSON on its standard input, and writes JSON back."""

    def run(name: str, given: object) -> Any:
        done = subprocess.run(
            ["node", name],
            cwd=node_modules,
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
