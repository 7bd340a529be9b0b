"""Hold what sinks that send over a network have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from agentauthz.records.lines import NO_STREAM
from agentauthz.records.record import Record
from agentauthz.records.sinks.background import Background, Wire
from agentauthz.records.sinks.row import row_of
from agentauthz.records.sinks.sink import Guarantee, Metrics, Survives, precious
from agentauthz.records.sinks.waiting import Limits


class Shipped:
    """Be a sink over the wire that `open_wire` opens, which `survives` what it says once it has acknowledged a line.

    Nothing outside this package derives from it: users write a `Sink`.
    """

    blocking: Final = True
    bounded: Final = True

    def __init__(
        self, open_wire: Callable[[], Wire], limits: Limits, survives: Survives, *, deduplicates: bool = False
    ) -> None:
        promised: Survives = survives if limits.delivery == "acknowledged" else "best_effort"
        self.guarantees: Final = Guarantee(promised, ordered=True, deduplicates=deduplicates)
        self._survives: Final = survives
        self._background: Final = Background(type(self).__name__, open_wire, limits)
        self._background.close_with(self)

    @property
    def lost(self) -> int:
        """Return how many records this process has lost: given up, rejected, or left over at the end."""
        return self._background.lost

    @property
    def waiting(self) -> int:
        """Return how many records wait to be sent."""
        return self._background.waiting

    def metrics(self) -> Metrics:
        """Return how the sink fares now."""
        arrived = self._background.arrived
        row = None if arrived is None else row_of(arrived)
        seq = None if row is None or row.stream == NO_STREAM else row.seq
        durable = seq if self._survives == "power_loss" else None
        return Metrics(self.lost, self.waiting, self._background.lag, seq, durable)

    def append(self, line: bytes, record: Record) -> None:
        """Keep the record, or queue it.

        Raises:
            SinkError: it didn't arrive, or find room, in time; the other side rejects it; or the sink is closed.
        """
        row_of(line)  # what is no record must fail here, not in the thread
        self._background.put((line,), precious(record))

    def append_many(self, lines: Sequence[bytes]) -> None:
        """Keep some lines, or queue them; none of them is given up for others.

        Raises:
            SinkError: as `append`; some of them may be kept then.
        """
        for line in lines:
            row_of(line)
        self._background.put(lines, precious=True)

    def flush(self, durable: bool = False, timeout: float = 5.0) -> None:
        """Return once the other side has acknowledged all that waits now; `durable` asks for no more than that.

        Raises:
            SinkError: it hasn't within `timeout` seconds, or has rejected a record.
        """
        self._background.flush(timeout)

    def close(self) -> None:
        """Send what waits, and let go of the connection; doing it again does nothing.

        Raises:
            SinkError: records were left over after the time-out; they count as lost.
        """
        self._background.close()
