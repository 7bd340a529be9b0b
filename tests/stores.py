"""Make state stores for tests: each kind in a place of its own, where processes share it if they can."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from agentauthz.state.memory import MemoryState
from agentauthz.state.postgres import PostgresState
from agentauthz.state.sqlite import SqliteState
from agentauthz.state.store import StateStore

Clock: TypeAlias = Callable[[], dt.datetime]
Make: TypeAlias = Callable[[Path, Clock], StateStore]
Shared: TypeAlias = Callable[[str], StateStore]

START: Final = dt.datetime(2026, 11, 23, 9, tzinfo=dt.UTC)


def system_time() -> dt.datetime:
    """Return the time."""
    return dt.datetime.now(dt.UTC)


def in_memory(place: Path, clock: Clock = system_time) -> StateStore:
    """Make a store that shares nothing."""
    return MemoryState(clock=clock)


def in_file(place: Path, clock: Clock = system_time) -> StateStore:
    """Make a store of the file in a folder."""
    return SqliteState(place / "state.db", clock=clock, timeout=60)


# stores with a clock that is given; SHARED are those that other processes can open too, by where they are
WITH_CLOCK: Final[dict[str, Make]] = {"memory": in_memory, "sqlite": in_file}
SHARED: Final[dict[str, Shared]] = {
    "sqlite": lambda folder: in_file(Path(folder)),
    "postgres": lambda url: PostgresState(url, timeout=60),
}
