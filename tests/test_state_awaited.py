"""Test stores whose operations are coroutines: they serve threads, tasks and forks as any other store does."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentauthz import Authorizer, PolicySet, Principal
from agentauthz.errors import InvalidArgument, StateError
from agentauthz.records import MemorySink
from agentauthz.state.awaited import AwaitedState
from agentauthz.state.sqlite import SqliteState
from agentauthz.testing import check_state


class _Coroutines:
    """Be a store whose operations are coroutines, which a loop can only run where it was made."""

    def __init__(self, path: Path) -> None:
        self._store = SqliteState(path)
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def operation(*args: Any, **options: Any) -> Any:
            assert asyncio.get_running_loop() is self._loop
            await asyncio.sleep(0)
            return getattr(self._store, name)(*args, **options)

        return operation


def test_a_store_of_coroutines_keeps_what_every_store_must(tmp_path: Path) -> None:
    """It passes the contract test, whose threads and forks have no loop."""

    async def make() -> _Coroutines:
        return _Coroutines(tmp_path / "state.db")

    assert len(check_state(lambda: AwaitedState(make)).kept) == 39


async def test_tasks_are_served_while_their_loop_goes_on(tmp_path: Path) -> None:
    """Decisions of tasks count in one budget, exactly."""
    policies = PolicySet.parse("permit pays on pay when true\nlimit few on pay to count <= 3 per subject every 1h")
    state = AwaitedState(lambda: _Coroutines(tmp_path / "state.db"))
    with (
        Authorizer(policies, state=state, sinks=[MemorySink()]) as authorizer,
        authorizer.session(Principal.user("maria")) as session,
    ):
        decisions = await asyncio.gather(*(session.adecide("pay") for _ in range(8)))
    assert sum(decision.allowed for decision in decisions) == 3
    state.close()


def test_what_takes_too_long_or_fails_is_an_error_of_the_store() -> None:
    """A coroutine that hangs is cancelled in time; whatever else is raised is told by its class alone."""
    ended: list[str] = []

    class Hanging:
        async def now(self) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("cancelled")

        async def read(self, session: str) -> None:
            raise OSError("SECRET")

        async def close(self) -> None:
            ended.append("closed")

    store = AwaitedState(Hanging, timeout=0.2)
    began = time.monotonic()
    with pytest.raises(StateError, match="in time"):
        store.now()
    with pytest.raises(StateError, match="failed with OSError") as caught:
        store.read("s")
    assert "SECRET" not in str(caught.value)
    store.close()
    store.close()
    assert time.monotonic() - began < 10
    assert ended == ["cancelled", "closed"]


def test_a_store_that_cant_be_made_is_an_error_each_time() -> None:
    """Where `make` fails, every operation does, and a later one tries again."""
    made: list[int] = []

    def make() -> Any:
        made.append(1)
        raise OSError("down")

    store = AwaitedState(make, timeout=1)
    for _ in "12":
        with pytest.raises(StateError, match="OSError"):
            store.now()
    assert made == [1, 1]
    store.close()
    assert not inspect.iscoroutinefunction(store.now)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_is_a_positive_number(timeout: float) -> None:
    """Anything else is refused at once."""
    with pytest.raises(InvalidArgument, match="timeout"):
        AwaitedState(lambda: None, timeout=timeout)
