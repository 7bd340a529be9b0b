"""Measure what a record adds to a decision: `python -m benchmarks.recording`.

One call is `session.decide`, allowed by one of ten rules, which leaves one record. What a record adds is the time with
a sink, without the time of the same calls with none: samples of all are taken in turn. Beside it stands the least that
any program would do, `json.dumps` of a like dict, a write and a flush.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import shutil
import statistics
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from types import ModuleType
from typing import Any, Final, cast, final

from attrs import define, field, frozen

from agentauthz import Authorizer
from agentauthz.canonical import quote
from agentauthz.errors import InvalidArgument
from agentauthz.records import FileSink, MemorySink, Sink
from agentauthz.records.lines import compact
from benchmarks import enforcing, reading
from benchmarks.reading import ALLOWED, ORDER
from benchmarks.report import Target, table, targets
from benchmarks.timing import Clock, duration, one_core

MODES: Final = ("inline", "fsync", "async")

_DENIED: Final = {**ALLOWED, "amount": 9_000}
_BATCH: Final = 200  # calls of one sample: short, so that other work falls between some
_KEPT: Final = 10_000  # records whose memory is looked at
_sync: Final = getattr(os, "fdatasync", os.fsync)


@final
@frozen
class Spread:
    """Be how long one call takes, in seconds: the middle one and the 99th of a hundred; `rate` is calls a second."""

    p50: float
    p99: float
    rate: float = 0.0


@final
@define(eq=False)
class Found:
    """Collect what was measured. `added` is in the processor's time of the caller, the rest in the clock's."""

    base: dict[str, Spread] = field(factory=dict)
    added: dict[str, Spread] = field(factory=dict)
    waited: dict[str, Spread] = field(factory=dict)
    crowd: dict[str, Spread] = field(factory=dict)
    encoder: dict[str, float] = field(factory=dict)
    left_out: list[str] = field(factory=list)
    sync: float = 0.0
    memory: float = 0.0


def measured(clock: Clock, folder: pathlib.Path, rounds: int = 40) -> Found:
    """Return what records cost; `folder` is written to, and removed."""
    found = Found()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with enforcing.quiet():
            _alone(clock, found, folder, rounds)
            _together(found, folder, rounds)
            found.memory = _memory(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


# ---- one thread


def _alone(clock: Clock, found: Found, folder: pathlib.Path, rounds: int) -> None:
    with ExitStack() as stack:
        calls = {"none": stack.enter_context(_calling(None)), "denied, none": stack.enter_context(_denying())}
        for mode in MODES:
            if (sink := _sink(folder / mode, mode)) is None:
                found.left_out.append(f"`FileSink` has no mode `{mode}`: that row is left out")
                continue
            calls[mode] = stack.enter_context(_calling(sink))
        calls["memory"] = stack.enter_context(_calling(MemorySink(limit=1_000)))
        calls["denied, inline"] = stack.enter_context(_calling(_sink(folder / "denied", "inline"), _DENIED))
        line = reading.record().line()
        calls["plain"] = stack.enter_context(_plainly(folder / "plain", line))
        calls["plain, fsync"] = stack.enter_context(_synced(folder / "synced", line))
        busy = {name: call for name, call in calls.items() if "fsync" not in name}  # the others wait
        of_processor = _in_turn(busy, time.thread_time, rounds)
        of_clock = _in_turn(calls, time.perf_counter, rounds)
    for name, spread in of_processor.items():
        clock.keep(f"a decision and its record, {name}", [spread.p50])
    found.base = of_processor
    found.added = {name: _less(spread, of_processor, name) for name, spread in of_processor.items()}
    found.waited = {name: _less(spread, of_clock, name) for name, spread in of_clock.items()}
    found.encoder = _encoders(folder / "encoder", rounds)


def _less(spread: Spread, base: dict[str, Spread], name: str) -> Spread:
    """Return what is left of a call when it is made without a record."""
    if name.startswith("plain"):
        return spread
    nothing = base["denied, none" if name.startswith("denied") else "none"].p50
    return Spread(spread.p50 - nothing, spread.p99 - nothing)


def _in_turn(calls: dict[str, Callable[[], object]], now: Callable[[], float], rounds: int) -> dict[str, Spread]:
    """Return the spread of each call: of its samples, the lowest middle and the lowest 99th of a hundred."""
    samples: dict[str, list[Spread]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            samples[name].append(_spread(_times(call, now, _BATCH // 4 if "fsync" in name else _BATCH)))
    return {name: Spread(min(s.p50 for s in each), min(s.p99 for s in each)) for name, each in samples.items()}


def _times(call: Callable[[], object], now: Callable[[], float], count: int) -> list[float]:
    times = []
    for _ in range(count):
        begin = now()
        call()
        times.append(now() - begin)
    return times


def _spread(times: Sequence[float], rate: float = 0.0) -> Spread:
    return Spread(statistics.median(times), sorted(times)[len(times) * 99 // 100], rate)


# ---- many threads


def _together(found: Found, folder: pathlib.Path, rounds: int) -> None:
    """Measure eight callers in each mode, and sixty-four of them in the mode that waits for the device."""
    crowds = [("none", 8, None), *((f"{mode}, 8", 8, mode) for mode in MODES), ("fsync, 64", 64, "fsync")]
    for name, threads, mode in crowds:
        sink = None if mode is None else _sink(folder / name, mode)
        if mode is None or sink is not None:
            count = 100 if mode == "fsync" else _BATCH
            found.crowd[name] = _best([_crowd(sink, threads, count) for _ in range(max(3, rounds // 10))])
        if sink is not None:
            sink.close()
    with _synced(folder / "device", reading.record().line()) as call:
        found.sync = min(statistics.median(_times(call, time.perf_counter, 50)) for _ in range(max(3, rounds // 10)))


def _best(runs: Sequence[Spread]) -> Spread:
    return Spread(min(r.p50 for r in runs), min(r.p99 for r in runs), max(r.rate for r in runs))


def _crowd(sink: Sink | None, threads: int, count: int) -> Spread:
    """Let so many threads decide at once, each in a session of its own."""
    authorizer = Authorizer(enforcing.policies(), sinks=() if sink is None else [sink])
    ready, times, ends = threading.Barrier(threads), list[float](), list[tuple[float, float]]()

    def work() -> None:
        decide = _decider(authorizer, ALLOWED)
        decide()
        ready.wait()
        begin = time.perf_counter()
        mine = _times(decide, time.perf_counter, count)
        ends.append((begin, time.perf_counter()))
        times.extend(mine)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return _spread(times, len(times) / (max(end for _, end in ends) - min(begin for begin, _ in ends)))


# ---- what a faster encoder would save


def _encoders(folder: pathlib.Path, rounds: int) -> dict[str, float]:
    """Return the time of calls with `json`'s encoder, and with orjson's in its place, where orjson is there."""
    if importlib.util.find_spec("orjson") is None:
        return {}
    dumps: Callable[[object], bytes] = importlib.import_module("orjson").dumps
    found: dict[str, float] = {}
    with ExitStack() as stack:
        calls = {
            kind: stack.enter_context(_calling(_sink(folder / kind, "inline"), args))
            for kind, args in (("allowed", ALLOWED), ("denied", _DENIED))
        }
        for _ in range(4 * rounds):
            for kind, call in calls.items():
                for name, encoding in (("json", nullcontext()), ("orjson", _encoding(dumps))):
                    with encoding:
                        taken = statistics.median(_times(call, time.thread_time, _BATCH // 4))
                    found[f"{kind}, {name}"] = min(taken, found.get(f"{kind}, {name}", taken))
    return found


@contextmanager
def _encoding(dumps: Callable[[object], bytes]) -> Iterator[None]:
    """Let records be encoded by `dumps` for as long as this lasts; only for what it encodes as `json` does."""
    changed: list[tuple[ModuleType, str, object]] = []
    for module in [module for name, module in sys.modules.items() if name.startswith("agentauthz.")]:
        for name, own in (("quote", quote), ("compact", compact)):
            if vars(module).get(name) is own:
                changed.append((module, name, own))
                setattr(module, name, lambda value: dumps(value).decode())
    try:
        yield
    finally:
        for module, name, before in changed:
            setattr(module, name, before)


# ---- memory


def _memory(folder: pathlib.Path) -> float:
    """Return the bytes that a log holds on to for each record that it has written."""
    with _calling(_sink(folder / "memory", "inline")) as call:
        for _ in range(1_000):
            call()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(_KEPT):
                call()
            return (tracemalloc.get_traced_memory()[0] - before) / _KEPT
        finally:
            tracemalloc.stop()


# ---- what is measured with


def _sink(folder: pathlib.Path, mode: str) -> FileSink | None:
    """Return a sink in a mode; None: `FileSink` has no such mode."""
    try:
        return FileSink(folder, mode=cast(Any, mode))
    except InvalidArgument:
        return None


@contextmanager
def _calling(sink: Sink | None, args: dict[str, object] = ALLOWED) -> Iterator[Callable[[], object]]:
    with Authorizer(enforcing.policies(), sinks=() if sink is None else [sink]) as authorizer:
        yield _decider(authorizer, args)


@contextmanager
def _denying() -> Iterator[Callable[[], object]]:
    """Only preview: a denial is recorded, in `logging`, also where no sink is given."""
    with Authorizer(enforcing.policies()) as authorizer:
        session = authorizer.session(enforcing.MARIA, enforcing.BOT)
        yield lambda: session.preview("payments.refund", args=_DENIED, resource=ORDER)


def _decider(authorizer: Authorizer, args: dict[str, object]) -> Callable[[], object]:
    session = authorizer.session(enforcing.MARIA, enforcing.BOT)
    return lambda: session.decide("payments.refund", args=args, resource=ORDER)


@contextmanager
def _plainly(path: pathlib.Path, line: bytes) -> Iterator[Callable[[], object]]:
    tree = json.loads(line)
    with path.open("a") as file:

        def write() -> None:
            file.write(json.dumps(tree) + "\n")
            file.flush()

        yield write


@contextmanager
def _synced(path: pathlib.Path, line: bytes) -> Iterator[Callable[[], object]]:
    with path.open("ab", buffering=0) as file:

        def write() -> None:
            file.write(line)
            _sync(file.fileno())

        yield write


# ---- what is printed


def tables(found: Found) -> str:
    """Return all of it as tables."""
    names = {
        "inline": "FileSink, inline",
        "async": "FileSink, async",
        "memory": "MemorySink",
        "denied, inline": "FileSink, inline, of a denied call",
        "fsync": "FileSink, fsync",
        "plain": "json.dumps, write and flush of a like dict",
        "plain, fsync": "write and fdatasync of a like line",
    }
    drawn = table(
        "What a record adds to a decision, one thread",
        ("", "p50", "p99", "p50 : json.dumps", "clock p50", "clock p99"),
        [_row(found, name, text) for name, text in names.items() if name in found.waited],
    )
    crowds = [(name, duration(s.p50), duration(s.p99), f"{s.rate:,.0f}") for name, s in found.crowd.items()]
    drawn += "\n" + table("Decisions and their records, callers at once", ("", "p50", "p99", "calls/s"), crowds)
    drawn += "".join(f"\n{why}" for why in found.left_out)
    drawn += f"\na write and fdatasync alone: {duration(found.sync)}, {1 / found.sync:,.0f} a second"
    drawn += f"\nmemory that a log holds for each record written: {found.memory:,.1f} bytes"
    for kind in ("allowed", "denied") if found.encoder else ():
        ours, other = found.encoder[f"{kind}, json"], found.encoder[f"{kind}, orjson"]
        drawn += f"\n{kind} call and its record: {duration(ours)}; with orjson for json's encoder: {duration(other)}"
    return drawn


def _row(found: Found, name: str, text: str) -> tuple[str, ...]:
    waited = found.waited[name]
    clock = (duration(waited.p50), duration(waited.p99))
    if name not in found.added:
        return (text, "", "", "", *clock)
    added = found.added[name]
    return (text, duration(added.p50), duration(added.p99), f"{added.p50 / found.added['plain'].p50:.1f} x", *clock)


def promises(found: Found) -> list[Target]:
    """Return what is promised of records, each with what came out."""
    inline, device = found.added["inline"], found.waited["plain, fsync"].p50
    return [
        _at_most("a record, inline, added to a decision: p50", inline.p50, 25e-6),
        _at_most("the same, p99", inline.p99, 100e-6),
        _at_most("a record, async: p50", found.added["async"].p50 if "async" in found.added else None, 5e-6),
        _at_most("a record, fsync: p50, against 1.5 x a write and fdatasync", found.waited["fsync"].p50, 1.5 * device),
        at_least("records a second, fsync, 64 callers", found.crowd["fsync, 64"].rate, 5_000),
    ]


def _at_most(name: str, seconds: float | None, bound: float) -> Target:
    if seconds is None:
        return Target(name, "", duration(bound), None)
    return Target(name, duration(seconds), duration(bound), seconds <= bound)


def at_least(name: str, rate: float, bound: float) -> Target:
    return Target(name, f"{rate:,.0f}", f"at least {bound:,.0f}", rate >= bound)


def main() -> None:
    """Parse the command line, measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recording", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, and a log of 100 MB in place of 1 GB")
    quick = parser.parse_args().quick
    folder = pathlib.Path(__file__).resolve().parent.parent / ".benchmarks" / "records"
    with one_core() as where:
        print(f"{where}; the best of repeats, p50 and p99 in the caller's processor time", flush=True)
        found = measured(Clock(9), folder, 15 if quick else 40)
        print(tables(found), flush=True)
        back = reading.measured(folder, reading.QUICK if quick else reading.GIGABYTE)
        print(reading.told(back))
    print(targets([*promises(found), *reading.promises(back)]))


if __name__ == "__main__":
    main()
