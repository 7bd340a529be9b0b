"""Hold the table of faults to its tests: each row has some, and the page in the reference names them."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

from tests.golden import ROOT, check_golden

ROWS: Final = range(1, 45)
PAGE: Final = ROOT / "docs" / "reference" / "faults.md"
_NAME: Final = re.compile(r"test_row_(\d\d)_\w+")
_ROW: Final = re.compile(r"^\| (\d+) \| ([^|\n]+) \| ([^|\n]+) \| ([^|\n]*)\|$", re.MULTILINE)


def _tests() -> dict[int, list[str]]:
    """Return the names of the tests of each row, in order."""
    found: dict[int, list[str]] = {row: [] for row in ROWS}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (named := _NAME.fullmatch(node.name)):
                found[int(named[1])].append(node.name)
    return found


def test_every_row_has_a_test() -> None:
    """None of the 44 rows is without a test; a name with a number begins as all do."""
    tests = _tests()
    assert set(tests) == set(ROWS)
    assert [row for row in ROWS if not tests[row]] == []
    assert len({name for names in tests.values() for name in names}) == sum(map(len, tests.values()))
    for path in Path(__file__).parent.glob("test_*.py"):
        assert re.findall(r"^(?:async )?def (test_\d\w*|test_row_(?!\d\d_)\w*)", path.read_text("utf-8"), re.M) == []


def test_the_page_names_the_tests_of_each_row() -> None:
    """The page has the 44 rows in order, each with its fault, what happens, and all of its tests."""
    tests, text = _tests(), PAGE.read_text("utf-8")
    rows = list(_ROW.finditer(text))
    assert [int(row[1]) for row in rows] == list(ROWS)

    def named(row: re.Match[str]) -> str:
        names = ", ".join(f"`{name}`" for name in tests[int(row[1])])
        return f"| {row[1]} | {row[2]} | {row[3]} | {names} |" if names else f"| {row[1]} | {row[2]} | {row[3]} | |"

    check_golden(PAGE, _ROW.sub(named, text))
