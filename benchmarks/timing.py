"""Take times: repeat, keep the best, show the median; pyperf holds the values and writes them down."""

from __future__ import annotations

import gc
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, final

import pyperf
from attrs import frozen

_SAMPLE: Final = 0.004  # seconds that one value takes at least: short, so that other work falls between some
_LONG: Final = 3.0  # seconds
_TURNS: Final = 4  # times as many samples of what is held beside other things: those ratios are small


@final
@frozen
class Figure:
    """Be one measured thing: `values` in seconds, each the mean of the calls of one sample."""

    name: str
    values: tuple[float, ...]

    @property
    def best(self) -> float:
        """Return the lowest value: other work on the machine only ever adds to it."""
        return min(self.values)

    @property
    def median(self) -> float:
        """Return the middle value."""
        return statistics.median(self.values)


@final
class Clock:
    """Measure, and keep every figure for the file of results. `samples` is the number of values of each."""

    def __init__(self, samples: int) -> None:
        self._samples: Final = samples
        self.figures: Final[list[Figure]] = []

    def calls(self, name: str, function: Callable[[Any], object], given: Sequence[Any]) -> Figure:
        """Return the time that `function` takes for one of `given`: a sample is all of them, once or more."""
        return self.rounds(name, loop(function, given, time.perf_counter), len(given))

    def rounds(self, name: str, run: Callable[[int], float], calls: int) -> Figure:
        """Return the time of one call, where `run(n)` makes `n * calls` of them and returns the seconds."""
        first = run(1)  # warms up, and tells how long one round is
        number = 1 if first >= _SAMPLE else max(1, round(_SAMPLE / first))
        gc.collect()
        if first > _LONG:  # not noisy enough to be worth another
            return self.keep(name, [first / calls])
        samples = self._samples if first < 0.1 else 3
        return self.keep(name, [run(number) / (number * calls) for _ in range(samples)])

    def beside(self, runs: Mapping[str, Callable[[int], float]], calls: int) -> dict[str, Figure]:
        """Return the time of one call of each of `runs`, which are as for `rounds`.

        Their samples are taken in turn, in seconds of the processor's time: other work on the machine neither counts,
        nor falls on one of them alone.
        """
        numbers = {name: max(1, round(_SAMPLE / run(1))) for name, run in runs.items()}  # warms up too
        gc.collect()
        values: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(self._samples * _TURNS):
            for name, run in runs.items():
                values[name].append(run(numbers[name]) / (numbers[name] * calls))
        return {name: self.keep(name, found) for name, found in values.items()}

    def once(self, name: str, function: Callable[[], Any], repeat: int = 1) -> tuple[Figure, Any]:
        """Return the time of something that is done once, and what it returned the last time."""
        values: list[float] = []
        result: Any = None
        for _ in range(repeat):
            result = None
            gc.collect()
            begin = time.perf_counter()
            result = function()
            values.append(time.perf_counter() - begin)
        return self.keep(name, values), result

    def keep(self, name: str, values: Sequence[float]) -> Figure:
        """Return the figure of values that were taken elsewhere."""
        figure = Figure(name, tuple(values))
        self.figures.append(figure)
        return figure

    def write(self, path: pathlib.Path) -> None:
        """Write all figures as a suite that `python -m pyperf show` and `compare_to` read."""
        path.parent.mkdir(parents=True, exist_ok=True)
        suite = pyperf.BenchmarkSuite([pyperf.Benchmark([_run(figure)]) for figure in self.figures])
        suite.dump(str(path), replace=True)


def loop(
    function: Callable[[Any], object], given: Sequence[Any], now: Callable[[], float] = time.process_time
) -> Callable[[int], float]:
    """Return what `Clock.rounds` and `Clock.beside` run: `function` with each of `given`, so many times over."""

    def run(rounds: int) -> float:
        begin = now()
        for _ in range(rounds):
            for one in given:
                function(one)
        return now() - begin

    return run


def _run(figure: Figure) -> pyperf.Run:
    return pyperf.Run(figure.values, metadata={"name": figure.name, "unit": "second"}, collect_metadata=False)


@contextmanager
def one_core() -> Iterator[str]:
    """Stay on one core for as long as this lasts, where the system lets us; give what to say of it."""
    if not hasattr(os, "sched_setaffinity"):
        yield "not bound to a core"
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield f"bound to one of {len(before)} cores"
    finally:
        os.sched_setaffinity(0, before)


def duration(seconds: float) -> str:
    """Return a time with three digits and a unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{_three(seconds / size)} {unit}"
    return f"{_three(seconds / 1e-9)} ns"


def _three(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
