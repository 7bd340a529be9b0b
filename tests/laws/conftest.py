"""Report at the end what each law tried: pairs of policy set and request, how many it applied to, and outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.laws.counting import LONG, TALLY


@pytest.fixture(autouse=True)
def _counted(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Count afresh, and hold each law to the number of pairs that it promises."""
    TALLY.clear()
    yield
    quota = getattr(request.function, "quota", None)
    if quota is None:
        return
    record_property("pairs", TALLY.pairs)
    record_property("live", TALLY.live)
    record_property("outcomes", dict(TALLY.outcomes))
    if LONG and request.node.stash.get(_PASSED, False):
        assert TALLY.pairs >= quota, f"only {TALLY.pairs} of {quota} pairs were tried"


_PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether the test itself passed."""
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts of each law, all its shards together."""
    counts: dict[str, Counter[str]] = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        known = dict(getattr(report, "user_properties", ()))
        if getattr(report, "when", "") != "teardown" or "pairs" not in known:
            continue
        found = counts.setdefault(report.nodeid.split("[")[0].rsplit("::")[-1], Counter())
        found.update({"pairs": known["pairs"], "live": known["live"], **known["outcomes"]})
    if counts:
        terminalreporter.section("laws: pairs of policy set and request, those that the law speaks of, outcomes")
    for name, found in sorted(counts.items()):
        rest = ", ".join(
            f"{key} {100 * number / max(1, found['pairs']):.0f}%"
            for key, number in found.most_common()
            if key not in ("pairs", "live")
        )
        terminalreporter.write_line(f"{found['pairs']:>8} {found['live']:>8}  {name}: {rest}")
