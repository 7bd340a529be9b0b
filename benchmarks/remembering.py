"""Measure what it costs a decision to remember, with `MemoryState`: `python -m benchmarks.remembering`.

One call of `session.decide`, which one of ten rules allows, without a sink; and the same with marks and limits added to
the policy. All are taken in turn, in seconds of the processor's time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from agentauthz import Authorizer, PolicySet, Principal
from benchmarks.report import Target, table
from benchmarks.timing import Clock, Figure, duration, loop, one_core

_RULES: Final = "".join(f"permit p{n} on tool.call{n} when args.amount <= 100\n" for n in range(10))
_MARK: Final = "mark seen on tool.call1 when true\n"
_COUNT: Final = "limit calls on tool.call1 to count <= 1000000000 per subject every 1d\n"
_SUM: Final = "limit money on tool.call1 to sum(args.amount) <= 1000000000 per subject every 1d\n"
_READS: Final = 'mark seen on tool.call1 when true\nforbid after on tool.call1 when "other" in session.marks\n'
_OTHER: Final = "mark other on tool.call2 when true\n"

NOTHING: Final = "nothing"
BOTH: Final = "a limit on a sum, and a mark"
ADDED: Final = {
    NOTHING: "",
    "a mark": _MARK,
    "a limit on a count": _COUNT,
    BOTH: _SUM + _MARK,
    "a mark, and a forbid that reads marks": _READS + _OTHER,
}
_CALLS: Final = 50


def measured(clock: Clock) -> dict[str, Figure]:
    """Return what one decision takes, by what is added to the policy."""
    logging.disable(logging.CRITICAL)  # the default sink then wants nothing
    try:
        runs = {name: loop(_asking(added), [{"amount": 1}] * _CALLS) for name, added in ADDED.items()}
        return clock.beside(runs, _CALLS)
    finally:
        logging.disable(logging.NOTSET)


def _asking(added: str) -> Callable[[dict[str, int]], object]:
    session = Authorizer(PolicySet.parse(_RULES + added)).session(Principal.user("mia"), Principal.agent("helper"))
    if not session.decide("tool.call1", args={"amount": 1}).allowed:
        raise AssertionError("what is measured must be allowed")
    return lambda args: session.decide("tool.call1", args=args)


def shown(found: Mapping[str, Figure]) -> str:
    """Return the table of what each adds."""
    least = found[NOTHING].best
    return table(
        "What it costs to remember, with MemoryState: `session.decide`, allowed by one of ten rules, without a sink",
        ["added", "a call takes", "so it adds"],
        [
            [name, duration(figure.best), "" if name == NOTHING else duration(figure.best - least)]
            for name, figure in found.items()
        ],
    )


def promise(found: Mapping[str, Figure]) -> Target:
    """Hold a limit and a mark to what they may add."""
    added = found[BOTH].best - found[NOTHING].best
    return Target("a limit and a mark, MemoryState", duration(added), "5 µs", added <= 5e-6)


if __name__ == "__main__":
    with one_core():
        print(shown(measured(Clock(samples=25))))
