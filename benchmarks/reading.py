"""Measure what is done with a log that is there: going on after its writer was killed, and verifying it."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Final, final

from attrs import frozen

from agentauthz import Authorizer, Resource
from agentauthz.records import DecisionRecord, FileSink, MemorySink
from agentauthz.records.verify import Verdict, verify
from benchmarks import enforcing
from benchmarks.report import Target
from benchmarks.timing import duration

GIGABYTE: Final = 10**9
QUICK: Final = 10**8
_ROOT: Final = pathlib.Path(__file__).resolve().parent.parent

ORDER: Final = Resource("Order", "o-17", {"sensitivity": "normal"})
ALLOWED: Final = {"order_id": "o-17", "amount": 120, "reason": ""}


@final
@frozen
class Found:
    """Be a log of so many bytes and records, the seconds to open it again, and how many are verified in one."""

    size: int
    records: int
    opened: float
    rate: float


def measured(folder: pathlib.Path, size: int) -> Found:
    """Let another process write a log of so many bytes, and end as if killed; `folder` is removed afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        subprocess.run([sys.executable, "-m", "benchmarks.reading", str(folder), str(size)], check=True, cwd=_ROOT)
        whole = sum(path.stat().st_size for path in folder.glob("*/*.ndjson"))
        begin = time.perf_counter()
        sink = FileSink(folder)
        opened = time.perf_counter() - begin
        sink.close()
        begin = time.process_time()
        report = verify(folder)
        taken = time.process_time() - begin
        if report.verdict not in (Verdict.UNWITNESSED, Verdict.RECOVERED):
            raise AssertionError(f"the log of a killed writer verifies as {report.verdict}")
        records = sum(stream.size for stream in report.streams)
        return Found(whole, records, opened, records / taken)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def told(found: Found) -> str:
    """Return it as text."""
    return (
        f"\na log of {found.size / 1e6:,.0f} MB, {found.records:,} records, whose writer was killed: opened again in "
        f"{duration(found.opened)}, verified at {found.rate:,.0f} records a second of one core"
    )


def promises(found: Found) -> list[Target]:
    """Return what is promised, with what came out."""
    opened, rate = found.opened, found.rate
    return [
        Target(f"a log opened again, {found.size / 1e9:.1f} GB of 1 GB", duration(opened), "1.00 s", opened <= 1),
        Target("records verified a second, one core", f"{rate:,.0f}", "at least 200,000", rate >= 200_000),
    ]


def record() -> DecisionRecord:
    """Return one record, of an allowed call."""
    kept = MemorySink()
    with Authorizer(enforcing.policies(), sinks=[kept]) as authorizer:
        session = authorizer.session(enforcing.MARIA, enforcing.BOT)
        session.decide("payments.refund", args=ALLOWED, resource=ORDER)
    return kept.decisions[0]


def main() -> None:
    """Write a log of so many bytes, and end without closing it."""
    folder, size = sys.argv[1:]
    sink, one = FileSink(folder), record()
    line = one.line()
    for _ in range(int(size) // len(line)):
        sink.append(line, one)
    os._exit(0)


if __name__ == "__main__":
    main()
