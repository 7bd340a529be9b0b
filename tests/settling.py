"""Offer what tests of settling need: each kind of call, which says how many tokens it took."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from agentauthz import authorize, current, settle

TOKENS: Final = """
permit p on llm.* when true
limit tokens on llm.* to sum(args.most) <= 1000 per subject every 1d
"""


def left(session: Any, most: int = 0) -> list[tuple[str, Any]]:
    """Return what is left of each budget."""
    return [(budget.rule, budget.left) for budget in session.preview("llm.ask", args={"most": most}).budgets]


@authorize("llm.ask")
def plain(most: int, took: Any = None) -> str:
    """Take some of what is reserved."""
    settle(tokens=took)
    return "done"


@authorize("llm.ask")
async def coroutine(most: int, took: Any = None) -> str:
    """Take some of what is reserved."""
    await asyncio.sleep(0)
    settle(tokens=took)
    await asyncio.sleep(0)
    return "done"


@authorize("llm.ask")
def generator(most: int, took: Any = None) -> Iterator[str]:
    """Take some of what is reserved, a step at a time."""
    yield "begun"
    settle(tokens=took)
    yield "done"


@authorize("llm.ask")
async def async_generator(most: int, took: Any = None) -> AsyncIterator[str]:
    """Take some of what is reserved, a step at a time."""
    yield "begun"
    settle(tokens=took)
    yield "done"


@authorize("llm.ask")
def later(most: int, took: Any = None) -> Any:
    """Return a coroutine, which takes some of what is reserved."""

    async def work() -> str:
        settle(tokens=took)
        return "done"

    return work()


async def _plain(most: int, took: Any) -> None:
    plain(most, took=took)


async def _generator(most: int, took: Any) -> None:
    assert list(generator(most, took=took)) == ["begun", "done"]


async def _async_generator(most: int, took: Any) -> None:
    assert [step async for step in async_generator(most, took=took)] == ["begun", "done"]


async def _performed(most: int, took: Any) -> None:
    work = current().session.perform("llm.ask", args={"most": most})
    with work:
        work.settle(tokens=took)


async def _aperformed(most: int, took: Any) -> None:
    work = current().session.perform("llm.ask", args={"most": most})
    async with work:
        work.settle(tokens=took)


WAYS: Final[dict[str, Any]] = {
    "plain": _plain, "coroutine": coroutine, "generator": _generator, "async generator": _async_generator,
    "a coroutine that a function returned": later, "perform": _performed, "async perform": _aperformed,
}  # fmt: skip
