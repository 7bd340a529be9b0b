"""Make the workload's decisions with other policy engines, each in the form that its own documentation shows.

Each module has one function `engine(rules, asked)`, which loads the rules and returns an `Engine`. What an
engine lets its user prepare is prepared beforehand, so that only the way from a request to a verdict is timed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Final, final

from attrs import frozen

from benchmarks.workload import Asked, Pair

NAMES: Final = ("vakt", "cedarpy", "casbin", "regopy", "oso", "biscuit")


@final
@frozen
class Engine:
    """Be an engine with the rules loaded: `verdict` says of one of its own `requests` whether it is allowed."""

    name: str
    requests: Sequence[Any]
    verdict: Callable[[Any], bool]


def load(name: str, rules: list[Pair], asked: list[Asked]) -> Engine:
    """Return a peer with the rules loaded.

    Raises:
        ImportError: it isn't installed, or doesn't work on this Python.
    """
    module = importlib.import_module(f"benchmarks.peers.with_{name}")
    engine: Engine = module.engine(rules, asked)
    return engine
