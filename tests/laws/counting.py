"""Count what the laws really tried: a law that holds over nothing proves nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, TypeVar, final

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis.strategies import SearchStrategy

from agentauthz.decision import Decision

Test = TypeVar("Test", bound=Callable[..., None])

LONG: Final = "long" in (os.environ.get("AGENTAUTHZ_LAWS"), os.environ.get("HYPOTHESIS_PROFILE"))
SHARDS: Final = int(os.environ.get("AGENTAUTHZ_LAWS_SHARDS", "8")) if LONG else 1
_SCALE: Final = float(os.environ.get("AGENTAUTHZ_LAWS_SCALE", "1"))


@final
class Tally:
    """Count the pairs of a policy set and a request that the running test has tried, and how they came out."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Count afresh."""
        self.pairs = 0
        self.live = 0
        self.outcomes: Counter[str] = Counter()

    def pair(self, decision: Decision) -> None:
        """Count one pair, by its decision."""
        self.pairs += 1
        self.outcomes[f"{decision.outcome.value}/{decision.basis.value}"] += 1
        event(f"{decision.outcome.value}/{decision.basis.value}")

    def applied(self, how_often: int = 1) -> None:
        """Count a pair where the law had something to say: its premise held."""
        self.live += how_often


TALLY: Final = Tally()


def law(
    strategy: SearchStrategy[Any], *, pairs: int = 20_000, quick: int = 120, each: int = 5
) -> Callable[[Test], Test]:
    """Make a property of a test: over `pairs` pairs in the long run, spread over the shards, and `quick` else.

    One example is a policy set with `each` requests, so it counts as that many pairs. Shards draw independently.
    """
    wanted = max(1, int((pairs if LONG else quick) * _SCALE / each / SHARDS + 0.999))

    def decorate(test: Test) -> Test:
        prop = settings(
            max_examples=wanted,
            deadline=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )(given(strategy)(test))
        prop.quota = wanted * each  # type: ignore[attr-defined]
        marked: Test = pytest.mark.parametrize("shard", range(SHARDS))(prop)
        return marked

    return decorate
