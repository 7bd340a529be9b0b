"""Put every fault to every package, print what was seen, and write it as docs/comparison/faults.md."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.faults.faults import FAULTS, ROOT, Cell, put
from benchmarks.faults.loggers import LOGGERS

PAGE = ROOT / "docs" / "comparison" / "faults.md"
HEAD = """# The same faults, put to several packages

What `make compare` saw; it writes this page. What the words mean, and what isn't fair about it, is [here](README.md).

"""


def _table(found: dict[tuple[str, str], Cell]) -> str:
    packages = list(LOGGERS)
    lines = [f"| fault | {' | '.join(packages)} |", f"|---|{'---|' * len(packages)}"]
    for fault in FAULTS:
        cells = [found[fault.name, package].held for package in packages]
        lines.append(f"| {fault.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _details(found: dict[tuple[str, str], Cell]) -> str:
    lines: list[str] = []
    for fault in FAULTS:
        lines += [
            "",
            f"### {fault.name}",
            "",
            f"A log holds if: {fault.wanted}.",
            "",
            "| package | | seen |",
            "|---|---|---|",
        ]
        for package in LOGGERS:
            cell = found[fault.name, package]
            lines.append(f"| {package} | {cell.held} | {cell.seen} |")
    return "\n".join(lines)


def main() -> None:
    """Run what the arguments name, or everything; only a whole run writes the page."""
    packages = [name for name in sys.argv[1:] if name in LOGGERS] or list(LOGGERS)
    found: dict[tuple[str, str], Cell] = {}
    for fault in FAULTS:
        print(f"\n{fault.name}: {fault.wanted}")
        for package in packages:
            cell = found[fault.name, package] = put(fault, package)
            print(f"  {package:30} {cell.held:7} {cell.seen}", flush=True)
    if len(packages) == len(LOGGERS):
        versions = ", ".join(f"{package} {version(package)}" for package in LOGGERS)
        where = f"Python {platform.python_version()} on {platform.system()}"
        text = f"{HEAD}{versions}; {where}.\n\n{_table(found)}\n\n## What was seen\n{_details(found)}\n"
        PAGE.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
