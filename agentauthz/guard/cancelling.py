"""Cancel a coroutine that is running when its session falls."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, final

from agentauthz.errors import Stopped
from agentauthz.session import Session


@final
class Cancelling:
    """Cancel what runs inside of it once its session falls, and raise `Stopped` in place of the cancellation.

    As `asyncio.timeout` does: who waits for the coroutine isn't cancelled with it. It is entered in the coroutine's
    task, and at once raises where the session has fallen already.
    """

    def __init__(self, session: Session) -> None:
        task = asyncio.current_task()
        assert task is not None  # it is made inside of a coroutine
        self._session: Final = session
        self._task: Final = task
        self._loop: Final = asyncio.get_running_loop()
        self._before: Final = task.cancelling()
        self._left = self._cancelled = False

    def __enter__(self) -> None:
        self._session.authorizer.watch(self, self.look)
        try:
            self._session.ensure_running()
        except BaseException:
            self._leave()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if not self._cancelled:
            return
        if self._task.uncancel() <= self._before and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise Stopped("this work was revoked while it ran: stop here") from error

    def look(self) -> None:
        """Have the coroutine cancelled if its session has fallen; it may be called in any thread."""
        if self._session.fallen() is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:  # the loop has been closed, and nothing runs in it
            self._leave()

    def _cancel(self) -> None:
        if not (self._left or self._cancelled):  # else it ended on its own, or was told more than once
            self._cancelled = True
            self._task.cancel()

    def _leave(self) -> None:
        self._left = True
        self._session.authorizer.unwatch(self)
