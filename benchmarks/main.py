"""Run every stage on one core, and print ratios and targets; nothing here fails for being slow."""

from __future__ import annotations

import argparse
import gc
import os
import pathlib
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Final, final

from attrs import define, field

from benchmarks import (
    deciding,
    enforcing,
    loading,
    peers,
    reading,
    recording,
    remembering,
    replaying,
    state,
    tokens,
    versus,
)
from benchmarks.report import Target, table, targets
from benchmarks.timing import Clock, Figure, duration, one_core

RESULTS: Final = pathlib.Path(__file__).resolve().parent.parent / ".benchmarks"
SIZES: Final = (10, 100, 1_000, 10_000)
FULL: Final = 100_000
_MEMORY: Final = 1_000


@final
@define(eq=False)
class Found:
    """Collect the figures of a run; the keys are sizes."""

    stages: dict[int, dict[str, Figure]] = field(factory=dict)
    verdicts: dict[int, dict[str, Figure]] = field(factory=dict)
    explained: dict[int, Figure] = field(factory=dict)
    others: dict[int, dict[str, Figure | versus.Skipped]] = field(factory=dict)
    calls: dict[str, Figure] = field(factory=dict)
    tokens: dict[str, Figure] = field(factory=dict)


def main(arguments: Sequence[str]) -> None:
    """Parse the command line, measure, and print."""
    options = _options(arguments)
    clock, found = Clock(samples=9 if options.quick else 25), Found()
    with one_core() as where:
        python = f"{platform.python_implementation()} {platform.python_version()}"
        print(f"agentauthz {metadata.version('agentauthz')}, {python}, {platform.system()}")
        print(f"{_processor()}, {os.cpu_count()} cores, {where}")
        print("each figure is the best of its repeats, with the median in brackets where it is a time", flush=True)
        found.calls = enforcing.measured(clock, RESULTS / "records")
        _print_calls(found)
        records = recording.measured(clock, RESULTS / "records", 15 if options.quick else 40)
        print(recording.tables(records), flush=True)
        log = reading.measured(RESULTS / "records", reading.QUICK if options.quick else reading.GIGABYTE)
        print(reading.told(log), flush=True)
        remembered = remembering.measured(clock)
        print(remembering.shown(remembered), flush=True)
        found.tokens = tokens.measured(clock)
        _print_tokens(found.tokens)
        for size in options.sizes:
            _size(clock, found, size, options.peers)
        _print_sizes(found, options.peers)
        _print_memory(loading.memory(_MEMORY), loading.imports(clock, 3 if options.quick else 9))
        rows = [*_targets(found), *recording.promises(records), *reading.promises(log), remembering.promise(remembered)]
    rates = replaying.measured(replaying.RECORDS // 4 if options.quick else replaying.RECORDS)  # on all cores
    print(replaying.shown(rates))
    limited = state.measured(1 if options.quick else 3)
    print(state.tables(limited))
    print(targets([*rows, _replayed(rates), *state.promises(limited)]))
    clock.write(RESULTS / "agentauthz.json")
    print(f"\nall values: {RESULTS / 'agentauthz.json'} (python -m pyperf show)")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, and up to 1,000 rules")
    parser.add_argument("--full", action="store_true", help="100,000 rules too: some minutes, and some GiB")
    parser.add_argument("--sizes", type=_sizes, help="numbers of rules, such as 10,1000")
    parser.add_argument("--peers", type=_peers, default=peers.NAMES, help=f"of {', '.join(peers.NAMES)}, or none")
    options = parser.parse_args(arguments)
    if options.sizes is None:
        options.sizes = SIZES[:3] if options.quick else (*SIZES, FULL) if options.full else SIZES
    return options


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(sorted({int(part) for part in text.split(",")}))
    if not sizes or sizes[0] < 1:
        raise argparse.ArgumentTypeError("must be numbers of rules, from 1 on")
    return sizes


def _peers(text: str) -> tuple[str, ...]:
    names = () if text == "none" else tuple(text.split(","))
    if unknown := sorted(set(names) - set(peers.NAMES)):
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(peers.NAMES)}")
    return names


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _size(clock: Clock, found: Found, size: int, names: tuple[str, ...]) -> None:
    print(f"{size:,} rules: agentauthz", end="", flush=True)
    policies, found.stages[size] = loading.stages(clock, size)
    found.stages[size]["warm"] = loading.warm(clock, size, RESULTS / "cache")
    found.verdicts[size] = deciding.verdicts(clock, policies, size)
    found.explained[size] = deciding.explanation(clock, policies, size)
    del policies
    gc.collect()
    found.others[size] = {}
    for name, figure in versus.measured(clock, size, names):
        found.others[size][name] = figure
        print(f", {name}" if isinstance(figure, Figure) else f", {name} left out", end="", flush=True)
    print(flush=True)


# ---- what is printed


def _both(figure: Figure) -> str:
    return f"{duration(figure.best)} ({duration(figure.median)})"


def _print_calls(found: Found) -> None:
    names = {
        "plain": "the tool itself, without a check",
        "decide": "authorizer.decide(request), allowed, no sink",
        "session": "session.decide(action, ...), allowed, no sink",
        "sync": "a decorated call, no sink",
        "async": "a decorated coroutine, no sink",
        "refused": "a denied decorated call",
        **{f"remembers {what}": f"session.decide, {what} to remember, no sink" for what in enforcing.REMEMBERING},
        "memory": "a decorated call, MemorySink: two records",
        "file": "a decorated call, FileSink: two records",
        "file only": "FileSink.append, one record",
    }
    rows = [(text, _both(found.calls[name])) for name, text in names.items()]
    print(table("Calls, 10 rules", ("", "time"), rows), flush=True)


def _print_tokens(figures: dict[str, Figure]) -> None:
    names = {
        "bare verification": "the signature alone, with cryptography",
        "verify": "validator.verify(token)",
        "verify, cached": "validator.verify(token), verified before and kept",
        "joserfc": "joserfc, the same checks",
        "authlib": "Authlib, the same checks",
        "verify, DPoP": "validator.verify(token, dpop=proof)",
        "verify, DPoP, cached": "validator.verify(token, dpop=proof), verified before and kept",
        "bare signature": "a signature alone, with cryptography",
        "exchange": "service.exchange(...): two tokens in, one out, MemorySink",
        "exchange, cached": "service.exchange(...): the two verified before and kept",
        "act": "the chain of a verified `act`",
    }
    bare = figures["bare verification"]
    rows = [(text, _both(figures[name]), f"{figures[name].best / bare.best:.2f} x") for name, text in names.items()]
    print(table("Tokens, Ed25519, three actors", ("", "processor time", "the bare verification"), rows), flush=True)


def _print_sizes(found: Found, names: tuple[str, ...]) -> None:
    sizes = sorted(found.stages)
    head = ("", *(f"{size:,} rules" for size in sizes))
    stages = {
        "parse": "parse",
        "check": "check",
        "load": "parse, check, digest and index",
        "warm": "the same file loaded again",
        "first": "first decision",
    }
    rows = [(text, *(_both(found.stages[size][name]) for size in sizes)) for name, text in stages.items()]
    print(table("Loading", head, rows))
    verdicts = {
        "ready": "compiled verdict, ready request",
        "hand": "the same rules by hand, ready request",
        "verdict": "request to verdict",
        "decide": "request to Decision (policies.decide)",
    }
    rows = [(text, *(_both(found.verdicts[size][name]) for size in sizes)) for name, text in verdicts.items()]
    rows.append(("explain", *(_both(found.explained[size]) for size in sizes)))
    print(table("Deciding", head, rows))
    if names:
        print(
            table(
                "Request to verdict, times as long as agentauthz's (its own in the first line)",
                head,
                _ratios(found, names),
            )
        )
        for size in sizes:
            for name, other in found.others[size].items():
                if isinstance(other, versus.Skipped):
                    print(f"{name} at {size:,} rules is left out: {other.why}")


def _ratios(found: Found, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    sizes = sorted(found.others)
    rows = [("agentauthz", *(duration(found.verdicts[size]["verdict"].best) for size in sizes))]
    rows.append(("by hand", *(_times(found.verdicts[size]["hand"], found.verdicts[size]["verdict"]) for size in sizes)))
    for name in names:
        rows.append((name, *(_times(found.others[size][name], found.verdicts[size]["verdict"]) for size in sizes)))
    return rows


def _times(other: Figure | versus.Skipped, ours: Figure) -> str:
    return "-" if isinstance(other, versus.Skipped) else f"{other.best / ours.best:,.1f} x"


def _print_memory(memory: tuple[float, float], imported: Figure) -> None:
    loaded, asked = memory
    print(f"\nmemory of a rule, of {_MEMORY:,}: {loaded:,.0f} bytes loaded, {asked:,.0f} bytes once all were asked")
    print(f"import agentauthz: {_both(imported)}")


def _targets(found: Found) -> list[Target]:
    sizes, calls = sorted(found.verdicts), found.calls
    rows = [
        _at_most("authorizer.decide, no sink, INFO off", calls["decide"].best, 5e-6),
        _at_most("a decorated call, without function and sink", calls["sync"].best - calls["plain"].best, 8e-6),
        _at_most("a decorated coroutine, without function and sink", calls["async"].best - calls["plain"].best, 8e-6),
        _at_most("a record added to the file sink", calls["file only"].best, 25e-6),
        *_of_tokens(found.tokens),
    ]
    if 10 in sizes:
        ten = found.verdicts[10]
        rows.append(_ratio("verdict on a ready request, 10 rules : by hand", ten["ready"].best / ten["hand"].best, 2.5))
    if 10 in sizes and FULL in sizes:
        more = found.verdicts[FULL]["decide"].best / found.verdicts[10]["decide"].best
        rows.append(_ratio("a decision at 100,000 rules : at 10", more, 1.5))
    else:
        rows.append(Target("a decision at 100,000 rules : at 10", "", "1.5 x", None))
    if 10_000 in sizes:
        stages = found.stages[10_000]
        rows.append(_at_most("parse, check and index 10,000 rules, cold", stages["load"].best, 5.0))
        rows.append(_at_most("parse, check and index 10,000 rules, from the cache", stages["warm"].best, 0.5))
    return [*rows, *_against_peers(found)]


def _replayed(rates: Sequence[replaying.Rate]) -> Target:
    own = replaying.pool(rates)
    name = f"a record replayed, in {replaying.WORKERS} processes ({replaying.TARGET:,} records/s)"
    return _at_most(name, 1 / own.per_second, 1 / replaying.TARGET)


def _of_tokens(figures: dict[str, Figure]) -> list[Target]:
    best = {name: figure.best for name, figure in figures.items()}
    made_of = 2 * best["bare verification, exchange"] + best["bare signature"]
    return [
        _at_most(
            "validator.verify : 1.5 x the bare verification + 40 µs",
            best["verify"],
            1.5 * best["bare verification"] + 40e-6,
        ),
        *(_ratio(f"validator.verify : {peer}", best["verify"] / best[peer], 1.0) for peer in ("joserfc", "authlib")),
        _at_most("an exchange : two bare verifications, a signature + 150 µs", best["exchange"], made_of + 150e-6),
    ]


def _against_peers(found: Found) -> list[Target]:
    rows = []
    for size, others in sorted(found.others.items()):
        figures = {name: figure for name, figure in others.items() if isinstance(figure, Figure)}
        if figures:
            name = min(figures, key=lambda name: figures[name].best)
            share, decide = found.verdicts[size]["verdict"].best / figures[name].best, found.calls["decide"].best
            rows.append(_ratio(f"verdict at {size:,} rules : the fastest peer's ({name})", share, 0.1))
            rows.append(
                _ratio(f"authorizer.decide : that peer's bare verdict at {size:,}", decide / figures[name].best, 1.0)
            )
    return rows


def _at_most(name: str, seconds: float, bound: float) -> Target:
    return Target(name, duration(seconds), duration(bound), seconds <= bound)


def _ratio(name: str, value: float, bound: float) -> Target:
    return Target(name, f"{value:.2f} x", f"{bound:g} x", value <= bound)
