"""Run coroutines from one thread that has no loop, each within a time of its own."""

from __future__ import annotations

import socket
from collections.abc import Coroutine
from typing import Any, Final, TypeVar, final

T = TypeVar("T")


@final
class Loop:
    """Be an event loop for the thread that makes it; between two runs it stands still."""

    def __init__(self, timeout: float) -> None:
        import asyncio  # programs without a loop don't pay for it

        self._timeout: Final = timeout
        self._loop: Final = asyncio.new_event_loop()
        # a loop looks names up in threads of an executor, which is gone when a program ends: records would be lost
        setattr(self._loop, "getaddrinfo", _found)  # noqa: B010  (it is a method, which mypy lets nobody set)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns.

        Raises:
            TimeoutError: it took longer than the time-out, however slowly it went on. What it raises itself, too.
        """
        import asyncio

        return self._loop.run_until_complete(asyncio.wait_for(work, self._timeout))

    def close(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a last coroutine, and end all that goes on in the loop."""
        import asyncio

        try:
            self.run(work)
        finally:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()


async def _found(host: str | bytes | None, port: str | int | None, **options: int) -> list[Any]:
    """Look a name up here: nothing else runs in this loop."""
    return socket.getaddrinfo(host, port, **options)
