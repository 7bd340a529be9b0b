"""Write the records of a file log later, from a thread of this process: they get their places where they are written.

So a number belongs to what is in the file, whatever was given up before, and a disk that refuses loses nothing: what
it didn't take has no number yet, and waits on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, final

from agentauthz.errors import SinkError
from agentauthz.records.record import Record
from agentauthz.records.segment import reason
from agentauthz.records.sinks.background import Background
from agentauthz.records.sinks.waiting import Limits
from agentauthz.records.stream import Policies, Stream, Waiting


@final
class Late:
    """Hold the queue before a file log; `stream` returns the stream that this process writes.

    The child of a fork has a queue of its own, which is empty: what waits is the parent's to write.
    """

    __slots__ = ("_failing", "_stream", "queue")

    def __init__(self, stream: Callable[[], Stream], limits: Limits) -> None:
        self._stream: Final = stream
        self._failing = False
        self.queue: Final = Background("FileSink", self._opened, limits)

    def put(self, record: Record, policies: Policies | None) -> None:
        """Take a record; its line was made at once, and is what will be written.

        Raises:
            SinkError: it found no room in time, or the sink is closed.
            ValueError: its line isn't one of this library's.
        """
        line = record.line()
        line.index(b'"type":"')  # what has no place to begin at must fail here, not in the thread
        self.queue.put_one(line, Waiting(line, policies))

    def close(self, timeout: float | None) -> SinkError | None:
        """Write what waits, and return what says that some of it was left over."""
        try:
            self.queue.close(timeout)
        except SinkError as left:
            return left
        return None

    @property
    def ended(self) -> bool:
        """Say whether the thread has ended: while it hangs in a write, nobody else may touch the file."""
        return not self.queue.running

    def _opened(self) -> _Wire:
        return _Wire(self._stream(), self._told)

    def _told(self, failure: OSError | None) -> None:
        """Log the first failure after a success: a record of it may have to wait for the same disk."""
        if failure is not None and not self._failing:
            logging.getLogger("agentauthz.records").error("`FileSink` can't write: %s", reason(failure))
        self._failing = failure is not None


@final
class _Wire:
    """Be the way into the file; `tell` is called with how each attempt ended."""

    __slots__ = ("_stream", "_tell")

    def __init__(self, stream: Stream, tell: Callable[[OSError | None], None]) -> None:
        self._stream = stream
        self._tell = tell

    def send(self, items: Sequence[Waiting | bytes]) -> None:
        try:
            # what tells of a loss comes as a line alone
            self._stream.take_all([Waiting(item, None) if isinstance(item, bytes) else item for item in items])
        except OSError as cause:
            self._tell(cause)
            raise
        self._tell(None)

    def close(self) -> None:
        """Do nothing: the stream is closed with its sink."""
