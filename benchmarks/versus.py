"""Measure the other engines on the same rules and requests, once their verdicts were seen to be the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, final

from attrs import frozen

from benchmarks import peers
from benchmarks.timing import Clock, Figure, duration
from benchmarks.workload import expected, pairs, requests

_PATIENCE: Final = 150.0  # seconds that all 1,000 verdicts of one engine may take


class Disagreement(Exception):
    """Say that an engine decides otherwise, so the benchmark compares nothing."""


@final
@frozen
class Skipped:
    """Say why an engine wasn't measured."""

    why: str


def measured(clock: Clock, size: int, names: tuple[str, ...]) -> Iterator[tuple[str, Figure | Skipped]]:
    """Give the time from a request to a verdict for each engine.

    Raises:
        Disagreement: an engine gives another verdict on one of the 1,000 requests.
    """
    rules, asked = pairs(size), requests(size)
    wanted = expected(rules, asked)
    for name in names:
        try:
            engine = peers.load(name, rules, asked)
        except ImportError as error:
            yield name, Skipped(f"can't be imported here: {error}")
            continue
        begin = time.perf_counter()
        engine.verdict(engine.requests[0])
        needs = (time.perf_counter() - begin) * len(asked)
        if needs > _PATIENCE:
            yield (
                name,
                Skipped(f"its first verdict on {size:,} rules took {duration(needs / len(asked))}, and 1,000 are due"),
            )
            continue
        _agree(name, size, [engine.verdict(one) for one in engine.requests], wanted)
        yield name, clock.calls(f"{name} {size}", engine.verdict, engine.requests)
        del engine


def _agree(name: str, size: int, got: list[bool], wanted: list[bool]) -> None:
    wrong = [n for n, (one, other) in enumerate(zip(got, wanted, strict=True)) if one is not other]
    if wrong:
        raise Disagreement(f"{name} decides {len(wrong)} of {len(wanted)} requests on {size:,} rules otherwise")
