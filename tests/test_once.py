"""Test the memory of what was used: once each, bounded, and never forgotten before its time."""

from __future__ import annotations

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.tokens.once import MemoryOnce
from tests.support import NOON, Clock

SOON = NOON + dt.timedelta(seconds=10)


def test_a_key_is_granted_once() -> None:
    """The first time it is True, and from then on False, as long as the key hasn't expired."""
    clock = Clock()
    once = MemoryOnce(clock=clock)
    assert once.once("a", SOON) is True
    assert once.once("a", SOON) is False
    assert once.once("b", SOON) is True
    clock.now = SOON
    assert once.once("a", SOON) is False
    clock.forward(microseconds=1)
    assert once.once("a", SOON + dt.timedelta(seconds=10)) is True


def test_expired_keys_make_room() -> None:
    """However many keys come over time, no more are remembered than still count."""
    clock = Clock()
    once = MemoryOnce(10, clock=clock)
    for number in range(1000):
        assert once.once(f"key-{number}", clock() + dt.timedelta(seconds=5))
        clock.forward(seconds=1)
    assert len(once) <= 10


def test_a_full_memory_grants_nothing_and_forgets_nothing() -> None:
    """When it is full of keys that count, it raises for a new one and still knows the old ones."""
    once = MemoryOnce(2, clock=Clock())
    assert once.once("a", SOON)
    assert once.once("b", SOON)
    with pytest.raises(TokenError, match="replay_unavailable"):
        once.once("c", SOON)
    assert once.once("a", SOON) is False


def test_of_many_threads_one_is_granted() -> None:
    """Eight threads ask for the same keys at once: each key is granted to one of them."""
    once, start = MemoryOnce(clock=Clock()), threading.Barrier(8)

    def work(_: int) -> int:
        start.wait()
        return sum(once.once(f"key-{number}", SOON) for number in range(200))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 200


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None])
def test_a_memory_without_places_is_none(size: object) -> None:
    """`max_entries` must be a number above zero."""
    with pytest.raises(InvalidArgument):
        MemoryOnce(size)  # type: ignore[arg-type]
