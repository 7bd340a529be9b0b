"""Write the lines of a log from a thread of its own: each into its segment, once, and what is lost is named."""

from __future__ import annotations

import errno
import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, final

from agentauthz.errors import SinkError
from agentauthz.records.lines import ALONE
from agentauthz.records.merkle import leaf_hash
from agentauthz.records.scan import head
from agentauthz.records.segment import Segment, reason
from agentauthz.records.sinks.background import Background, Limits, Rejected

_AT: Final = ALONE.index(b'"seq":') + len(b'"seq":')  # where a line's number begins
MAX_UNTOLD: Final = 65_536  # losses that the log hasn't told of yet; beyond them nothing is taken


@final
class Late:
    """Take a log's lines at once, and write them later. Only the log calls it, all but `flush` under its stream's lock.

    What a full or broken disk didn't take is tried again, in the order of the numbers. A line that is given up keeps
    its number: `take_lost` returns which, with their hashes.
    """

    __slots__ = ("_lost", "_queue", "_wire", "limits")

    def __init__(self, segment: Segment, limits: Limits, seq: int) -> None:
        self.limits: Final = limits
        self._lost: deque[tuple[int, bytes]] = deque()
        self._wire: Final = _Wire(segment, seq)
        self._queue: Final = Background("FileSink", lambda: self._wire, limits, lose=self._lose)

    def admit(self, line: bytes) -> OSError | None:
        """Make room for a line, as the limits say, and return why there is none; the stream's lock isn't held."""
        if len(self._lost) >= MAX_UNTOLD:
            return OSError(errno.ENOBUFS, "too many losses are untold")
        try:
            self._queue.admit(line)
        except SinkError:
            return OSError(errno.ENOBUFS, "no room in the queue")
        return None

    def write(self, line: bytes) -> None:
        """Take a line."""
        self._queue.add(line)

    def has(self, line: bytes) -> bool:
        """Say whether a line was taken whose taking was interrupted."""
        return self._queue.has(line)

    def turn(self, fresh: Segment) -> None:
        """Go on in another segment, from the next line on."""
        self._wire.segments.append(fresh)

    def take_lost(self, *, all_of_them: bool) -> list[tuple[int, bytes]]:
        """Return what was lost since, to be told; unless `all_of_them`, only where there is room to tell it."""
        if not self._lost or not (all_of_them or self._queue.waiting_bytes <= self.limits.room // 2):
            return []
        return sorted(self._lost.popleft() for _ in range(len(self._lost)))

    def flush(self, timeout: float) -> None:
        """Return once all that waits now is written.

        Raises:
            SinkError: it isn't within `timeout` seconds, or some of it was lost.
        """
        self._queue.flush(timeout)

    def drained(self) -> bool:
        """Wait for all that waits, as long as the limits say; false: some of it still does."""
        try:
            self._queue.flush(self.limits.timeout)
        except SinkError:
            return not self._queue.waiting
        return True

    def close(self, timeout: float | None) -> None:
        """Write what waits, and end.

        Raises:
            SinkError: some of it was left over, and is lost.
        """
        self._queue.close(timeout)

    def abandon(self) -> bool:
        """Let go of the files; false: the thread still runs."""
        if self._queue.running:
            return False
        for segment in self._wire.segments:
            segment.close()
        return True

    @property
    def next(self) -> int:
        """Return the number behind the last line that was written."""
        return self._wire.next

    @property
    def queue(self) -> Background:
        """Return the queue, to be measured."""
        return self._queue

    def _lose(self, line: bytes) -> None:
        place = head(line)
        assert place is not None  # the stream has just written it
        self._lost.append((place.seq, leaf_hash(line[:-1])))


@final
class _Wire:
    """Be the way into the segments, oldest first: a line goes into the last one that doesn't begin behind it."""

    __slots__ = ("_failing", "next", "segments")

    def __init__(self, segment: Segment, seq: int) -> None:
        self.segments: Final = deque([segment])
        self.next = seq  # no line before it is written again
        self._failing = False

    def send(self, lines: Sequence[bytes]) -> None:
        for segment, run, following in self._runs(lines):
            if segment.broken is not None:
                raise Rejected
            try:
                segment.write(b"".join(run))
            except OSError as cause:
                self._alarm(cause)
                if cause.errno != errno.EFBIG:
                    raise
                if len(lines) == 1:
                    segment.broken = reason(cause)  # this file may not grow, but another one may
                raise Rejected from cause
            self.next, self._failing = following, False

    def close(self) -> None:
        """Keep the files: they are let go of with the log."""

    def _runs(self, lines: Sequence[bytes]) -> Iterator[tuple[Segment, list[bytes], int]]:
        """Yield what goes into each segment, and the number behind it."""
        run: list[bytes] = []
        following = 0
        for line in lines:
            seq = _seq(line)
            if seq < self.next:
                continue
            if len(self.segments) > 1 and seq >= self.segments[1].first:
                if run:
                    yield self.segments[0], run, following
                    run = []
                while len(self.segments) > 1 and seq >= self.segments[1].first:
                    self.segments.popleft().close()
            run.append(line)
            following = seq + 1
        if run:
            yield self.segments[0], run, following

    def _alarm(self, cause: OSError) -> None:
        """Log the first failure after a success; a record of it would have to wait for the same disk."""
        if not self._failing:
            self._failing = True
            logging.getLogger("agentauthz.records").error("`FileSink` can't write: %s", reason(cause))


def _seq(line: bytes) -> int:
    return int(line[_AT : line.index(b",", _AT)])
