"""Draw choices one by one: plain code over Hypothesis's draws, so that what is found shrinks to the first choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar, final

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

T = TypeVar("T")

# made once: making a strategy costs more than drawing from it
_UP_TO: Final[dict[int, SearchStrategy[int]]] = {}


@final
class Choose:
    """Make small choices; the first alternative is the simplest one, towards which examples shrink."""

    def __init__(self, draw: DrawFn) -> None:
        self.draw = draw

    def up_to(self, highest: int) -> int:
        """Return a number from 0 to `highest`."""
        strategy = _UP_TO.get(highest)
        if strategy is None:
            strategy = _UP_TO[highest] = st.integers(0, highest)
        return self.draw(strategy)

    def one(self, items: Sequence[T]) -> T:
        """Return one of `items`."""
        return items[self.up_to(len(items) - 1)] if len(items) > 1 else items[0]

    def chance(self, percent: int) -> bool:
        """Return True in about `percent` of 100 cases."""
        return self.up_to(99) >= 100 - percent

    def weighted(self, weights: Sequence[tuple[int, T]]) -> T:
        """Return one of the items, each as often as its weight says."""
        at = self.up_to(sum(weight for weight, _ in weights) - 1)
        for weight, item in weights:
            if at < weight:
                return item
            at -= weight
        raise AssertionError("the weights add up")

    def some(self, items: Sequence[T], percent: int = 50) -> list[T]:
        """Return those of `items` that are chosen, in their order."""
        return [item for item in items if self.chance(percent)]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return `items` in another order."""
        rest, found = list(items), []
        while rest:
            found.append(rest.pop(self.up_to(len(rest) - 1)))
        return found
