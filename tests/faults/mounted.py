"""Mount small file systems for the tests of faults, where that is permitted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, kind: str, options: str) -> Iterator[Path]:
    """Mount a file system at a folder for a while."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a file system")
    mount = ["mount", "-t", kind, "-o", options, kind, str(folder)]
    if (done := subprocess.run(mount, capture_output=True, text=True, check=False)).returncode != 0:
        pytest.skip(f"no {kind} can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
