"""Know inside which writes the current code runs, so that a sink can't ask its own authorizer for decisions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar, Token, copy_context
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    import asyncio


@final
class Writing:
    """Mark what runs in the block, in its context, as inside a write of `writer`.

    Contexts that are copied meanwhile see when the write has ended.
    """

    __slots__ = ("active", "outer", "token", "writer")

    token: Token[Writing | None]

    def __init__(self, writer: object) -> None:
        self.writer = writer
        self.outer = _WRITING.get()
        self.active = True

    def __enter__(self) -> None:
        self.token = _WRITING.set(self)

    def __exit__(self, *_: object) -> None:
        self.active = False
        _WRITING.reset(self.token)


_WRITING: Final[ContextVar[Writing | None]] = ContextVar("agentauthz_writing", default=None)


def inside(writer: object) -> bool:
    """Say whether the caller runs inside a write of `writer`."""
    mark = _WRITING.get()
    while mark is not None:
        if mark.active and mark.writer is writer:
            return True
        mark = mark.outer
    return False


def carried(work: Callable[[], object]) -> Callable[[], object]:
    """Return `work` for another thread: it runs in this context, and inside the same writes, also after their end."""
    context = copy_context()
    writers, mark = [], _WRITING.get()
    while mark is not None:
        writers += [mark.writer] if mark.active else []
        mark = mark.outer

    def marked() -> object:
        with ExitStack() as marks:
            for writer in writers:
                marks.enter_context(Writing(writer))
            return work()

    return lambda: context.run(marked)


async def ended(task: asyncio.Task[Any]) -> asyncio.CancelledError | None:
    """Wait for the end of a task, also where the caller is cancelled meanwhile; return that cancellation."""
    import asyncio  # programs without a loop don't pay for it

    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as caught:
            cancelled = caught
    return cancelled
