"""Compare output with a file that was reviewed; `make accept` rewrites such files for the next review."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
ACCEPT: Final = "AGENTAUTHZ_ACCEPT"


def check_golden(path: Path, actual: str) -> None:
    """Compare `actual` with the text in `path`, or write it there where AGENTAUTHZ_ACCEPT is 1.

    Raises:
        AssertionError: they differ, or there is no such file yet.
    """
    if os.environ.get(ACCEPT) == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(actual, encoding="utf-8", newline="\n")
        return
    assert path.is_file(), f"{path} isn't there: run `make accept` and review what it wrote"
    expected = path.read_bytes().decode("utf-8")
    assert actual == expected, f"{path} says something else: if the change is meant, run `make accept` and review it"
