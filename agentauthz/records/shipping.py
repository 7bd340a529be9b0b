"""Send a log's records on to another sink, from where the last attempt stopped."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, final

from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records.catalog import segments, streams
from agentauthz.records.record import Record, read_record
from agentauthz.records.recovery import last_line
from agentauthz.records.sinks.combine import require_append
from agentauthz.records.sinks.lanes import append_to
from agentauthz.records.sinks.sink import Sink
from agentauthz.values import utc

_NOWHERE: Final = (-1, 0)


@final
class Shipper:
    """Send what a `FileSink`'s folder holds to `sink`: each stream in order, each record at least once.

    `state` is the file that says how far it is, one for each receiver; it is made where it isn't there. It is written
    once the sink has acknowledged a batch, so after a crash a batch may go twice: receivers tell by `stream` and `seq`.
    One process at a time may ship to one receiver; records are written meanwhile.

    Raises:
        InvalidArgument: `sink` can't append, `batch` is no number of records, no positive time-out, or the file `state`
            is none of ours.
    """

    def __init__(
        self, folder: str | Path, sink: Sink, state: str | Path, *, batch: int = 500, timeout: float = 30.0
    ) -> None:
        require_append(sink)
        if type(batch) is not int or batch < 1:
            raise InvalidArgument("batch", "must be a number of records, at least 1")
        if not 0 < timeout < float("inf"):
            raise InvalidArgument("timeout", "must be a positive number of seconds")
        self._folder: Final = Path(os.path.abspath(folder))
        self._state: Final = Path(os.path.abspath(state))
        self._sink: Final = sink
        self._batch: Final = batch
        self._timeout: Final = timeout
        # by stream: the number of the first record of the segment that it is in, and how many bytes of that have gone
        self._positions: Final = _read(self._state)

    def ship(self) -> int:
        """Send what is there now, up to the last whole line, and return how many records that were.

        Raises:
            SinkError: the sink fails; what it has acknowledged isn't sent again. Or a file can't be read, is shorter
                than what was sent of it, or holds a line that is no record.
        """
        sent = 0
        for stream in streams(self._folder):
            for first, path in self._left(stream):
                with _opened(path) as file:
                    self._seek(stream.name, first, file)
                    while lines := _lines(file, self._batch):
                        self._send(lines)
                        sent += len(lines)
                        self._advance(stream.name, first, sum(map(len, lines)))
        return sent

    def lag(self) -> int:
        """Return how many bytes of the log haven't been sent."""
        left = 0
        for stream in streams(self._folder):
            at, gone = self._positions.get(stream.name, _NOWHERE)
            left += sum(path.stat().st_size - (gone if first == at else 0) for first, path in self._left(stream))
        return left

    def gone_before(self) -> dt.datetime:
        """Return a moment such that every segment that ended before it has gone: `FileSink.prune` may be given it.

        Raises:
            SinkError: a file can't be read, or holds a line that is no record.
        """
        moments = [dt.datetime.now(dt.UTC)]
        for stream in streams(self._folder):
            for first, path in self._left(stream):
                with _opened(path) as file:
                    self._seek(stream.name, first, file)
                    if left := _lines(file, 1):
                        # both, for the clock may have been set back between them
                        moments += [_moment(line) for line in (left[0], last_line(path) or left[0])]
        return min(moments)

    def _left(self, stream: Path) -> list[tuple[int, Path]]:
        at, _ = self._positions.get(stream.name, _NOWHERE)
        return [(first, path) for first, path in segments(stream) if first >= at]

    def _seek(self, stream: str, first: int, file: BinaryIO) -> None:
        at, gone = self._positions.get(stream, _NOWHERE)
        offset = gone if first == at else 0
        if offset > os.fstat(file.fileno()).st_size:
            raise SinkError(f"segment {first} of stream `{stream}` is shorter than what was sent of it")
        file.seek(offset)

    def _send(self, lines: Sequence[bytes]) -> None:
        if callable(many := getattr(self._sink, "append_many", None)):
            many(lines)
        else:
            for line in lines:
                append_to(self._sink, line, _record(line))
        if callable(flush := getattr(self._sink, "flush", None)):
            flush(durable=True, timeout=self._timeout)

    def _advance(self, stream: str, first: int, size: int) -> None:
        at, gone = self._positions.get(stream, _NOWHERE)
        self._positions[stream] = (first, (gone if first == at else 0) + size)
        there = {name: place for name, place in self._positions.items() if (self._folder / name).is_dir()}
        fresh = self._state.with_name(f"{self._state.name}.new")
        try:
            with open(fresh, "w", encoding="utf-8") as file:
                json.dump(there, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self._state)
        except OSError as cause:
            raise SinkError(f"`{self._state}` can't be written: {(cause.strerror or 'error').lower()}") from cause


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = open(path, "rb")  # noqa: SIM115  (only opening it may fail so)
    except OSError as cause:
        raise SinkError(f"`{path}` can't be read: {(cause.strerror or 'error').lower()}") from cause
    with file:
        yield file


def _record(line: bytes) -> Record:
    try:
        return read_record(line)
    except InvalidArgument as cause:
        raise SinkError("the log holds a line that is no record: see `agentauthz records verify`") from cause


def _moment(line: bytes) -> dt.datetime:
    found = utc(_record(line).ts)
    if found is None:
        raise SinkError("the log holds a record whose moment has no zone: see `agentauthz records verify`")
    return found


def _lines(file: BinaryIO, count: int) -> list[bytes]:
    """Return the next whole lines; what is being written is left for the next time."""
    lines = list(islice(file, count))
    if lines and not lines[-1].endswith(b"\n"):
        file.seek(-len(lines.pop()), os.SEEK_CUR)
    return lines


def _read(state: Path) -> dict[str, tuple[int, int]]:
    try:
        tree = json.loads(state.read_bytes())
        return {str(stream): (int(first), int(gone)) for stream, (first, gone) in tree.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError):
        raise InvalidArgument("state", f"must be a file that a shipper wrote, and `{state}` is not") from None
