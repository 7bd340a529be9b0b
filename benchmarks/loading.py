"""Measure what is done once: parse, check, index, first compile; the cache; memory; import."""

from __future__ import annotations

import functools
import gc
import pathlib
import re
import subprocess
import sys
import tracemalloc

from agentauthz.policy.check import check
from agentauthz.policy.parse import parse
from agentauthz.policy.policyset import PolicySet
from agentauthz.policy.source import Source
from benchmarks import ours
from benchmarks.timing import Clock, Figure
from benchmarks.workload import pairs, requests


def stages(clock: Clock, size: int) -> tuple[PolicySet, dict[str, Figure]]:
    """Return a policy set of `size` rules, and how long each stage of making it took."""
    text = ours.policy(pairs(size))
    repeat = 5 if size <= 100 else 3 if size <= 1_000 else 1
    parsed, (statements, _) = clock.once(f"parse {size}", lambda: parse(Source("bench.authz", text)), repeat)
    checked, _ = clock.once(f"check {size}", functools.partial(check, statements), repeat)
    del statements
    whole, policies = clock.once(f"load {size}", lambda: PolicySet.parse(text, "bench.authz"), repeat)
    asked = [ours.request(one) for one in requests(size)]
    first, _ = clock.once(f"first {size}", lambda: policies.decide(asked[0]))
    return policies, {"parse": parsed, "check": checked, "load": whole, "first": first}


def warm(clock: Clock, size: int, folder: pathlib.Path) -> Figure:
    """Return how long `PolicySet.load` takes for a file that was loaded before; `folder` is for it and the cache."""
    folder.mkdir(parents=True, exist_ok=True)
    file, cache = folder / "bench.authz", folder / "checked"
    file.write_text(ours.policy(pairs(size)), encoding="utf-8")
    PolicySet.load(file, cache=cache)
    return clock.once(f"load again {size}", lambda: PolicySet.load(file, cache=cache), 3)[0]


def memory(size: int) -> tuple[float, float]:
    """Return the bytes that a rule of `size` takes once loaded, and once every rule was asked."""
    text = ours.policy(pairs(size))
    asked = [ours.request(one) for one in requests(size)]
    PolicySet.parse(ours.policy(pairs(1)))  # the parser's own tables are no rule's
    gc.collect()
    tracemalloc.start()
    try:
        policies = PolicySet.parse(text, "bench.authz")
        gc.collect()
        loaded = tracemalloc.get_traced_memory()[0]
        for request in asked:
            policies.decide(request)
        gc.collect()
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return loaded / size, used / size


def imports(clock: Clock, runs: int) -> Figure:
    """Return how long `import agentauthz` takes in a fresh interpreter, by `-X importtime`."""
    return clock.keep("import agentauthz", [_import() for _ in range(runs)])


def _import() -> float:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import agentauthz"], capture_output=True, text=True, check=True
    )
    found = re.search(r"\|\s*(\d+) \| agentauthz$", done.stderr, re.MULTILINE)
    assert found is not None, "the interpreter told nothing of agentauthz"
    return int(found[1]) * 1e-6
