"""Make one sink of several, or of a part of what another gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, final

from agentauthz.canonical import class_name
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records.record import Record
from agentauthz.records.sinks.lanes import Ballot, Failures, Lane, append_all, append_to
from agentauthz.records.sinks.sink import (
    LEVELS,
    Guarantee,
    Metrics,
    Sink,
    guarantee_of,
    is_bounded,
    is_quick,
    joint_metrics,
    metrics_of,
    precious,
)
from agentauthz.records.writing import carried


def tee(*sinks: Sink) -> Tee:
    """Return a sink that gives each record to all of `sinks`, also where one fails; it fails if any of them does.

    Raises:
        InvalidArgument: no sink, or something that can't append.
    """
    return Tee(_checked(sinks))


def at_least(n: int, *sinks: Sink, timeout: float = 1.0) -> AtLeast:
    """Return a sink that keeps a record once `n` of `sinks` have, each asked in a thread of its own.

    One that hangs counts as failed for every record that it hasn't kept within `timeout` seconds, and holds up no
    other; what it still gets comes in order. `lost` counts what single sinks didn't keep, or not in time.

    Raises:
        InvalidArgument: fewer than `n` sinks, `n` below 1, something that can't append, or no positive time-out.
    """
    given = _checked(sinks)
    if type(n) is not int or not 1 <= n <= len(given):
        raise InvalidArgument("n", f"must be a number of sinks, 1 to {len(given)}")
    if not 0 < timeout < float("inf"):
        raise InvalidArgument("timeout", "must be a positive number of seconds")
    return AtLeast(n, given, timeout)


def only(when: Callable[[Record], bool], sink: Sink) -> Only:
    """Return a sink that passes those records to `sink` for which `when` says True.

    Denials, reviews and what tells of a loss are always passed, and so is a record for which `when` fails.

    Raises:
        InvalidArgument: `when` can't be called, or `sink` can't append.
    """
    if not callable(when):
        raise InvalidArgument("when", "must be a function of a record")
    return Only(when, _checked((sink,))[0])


def raise_failures(failures: Failures, asked: int) -> None:
    """Raise what `failures` of so many sinks amount to; without one, do nothing.

    Raises:
        SinkError: a sink failed; it is chained to the first cause. What isn't an Exception is raised as it is.
    """
    for _, cause in failures:
        if not isinstance(cause, Exception):
            raise cause
    if failures:
        # SECURITY: only the sinks' names; a foreign error's text may hold the record
        names = ", ".join(f"`{class_name(sink)}`" for sink, _ in failures)
        raise SinkError(f"{len(failures)} of {asked} sinks failed: {names}") from failures[0][1]


def close_all(sinks: Sequence[Sink], close: Callable[[Sink], None] = lambda sink: sink.close()) -> None:
    """Close every sink, also after one that fails to.

    Raises:
        SinkError: as `raise_failures`.
    """
    failures: Failures = []
    for sink in sinks:
        try:
            close(sink)
        except BaseException as cause:
            failures.append((sink, cause))
    raise_failures(failures, len(sinks))


def _checked(sinks: Sequence[Sink]) -> tuple[Sink, ...]:
    if not sinks:
        raise InvalidArgument("sinks", "must hold at least one sink")
    for sink in sinks:
        require_append(sink)
    return tuple(sinks)


def require_append(sink: object) -> None:
    """Refuse what is no sink.

    Raises:
        InvalidArgument: it can't append.
    """
    if isinstance(sink, type):
        raise InvalidArgument("sinks", f"must hold sinks, and `{sink.__name__}` is a class: make one of it")
    if not callable(getattr(sink, "append", None)):
        raise InvalidArgument("sinks", f"must hold sinks, and a `{class_name(sink)}` has no `append`")


def _joint(n: int, sinks: Sequence[Sink]) -> Guarantee:
    """Return what holds once any `n` of `sinks` have kept a record: the best of the weakest `n`."""
    each = [guarantee_of(sink) for sink in sinks]
    levels = sorted(LEVELS.index(one.survives) for one in each)
    return Guarantee(LEVELS[levels[n - 1]], all(one.ordered for one in each), all(one.deduplicates for one in each))


@final
class Tee:
    """Be what `tee` returns."""

    def __init__(self, sinks: tuple[Sink, ...]) -> None:
        self._sinks: Final = sinks
        self.blocking: Final = not all(map(is_quick, sinks))
        self.bounded: Final = all(is_quick(sink) or is_bounded(sink) for sink in sinks)
        self.guarantees: Final = _joint(len(sinks), sinks)

    def append(self, line: bytes, record: Record) -> None:
        """Give the record to each sink.

        Raises:
            SinkError: one of them failed. What isn't an Exception is raised as it is.
        """
        raise_failures(append_all(self._sinks, (record,)), len(self._sinks))

    def metrics(self) -> Metrics:
        """Return how the sinks fare together."""
        return joint_metrics(map(metrics_of, self._sinks))

    def close(self) -> None:
        """Close each sink.

        Raises:
            SinkError: one of them failed to.
        """
        close_all(self._sinks)


@final
class Only:
    """Be what `only` returns."""

    def __init__(self, when: Callable[[Record], bool], sink: Sink) -> None:
        self._when: Final = when
        self._sink: Final = sink
        self.blocking: Final = not is_quick(sink)
        self.bounded: Final = is_bounded(sink)
        passed = guarantee_of(sink)
        self.guarantees: Final = Guarantee("best_effort", passed.ordered, passed.deduplicates)  # not all is kept

    def append(self, line: bytes, record: Record) -> None:
        """Pass the record, if it is wanted or may not be left out; raise what the sink raises."""
        if precious(record) or self._wanted(record):
            append_to(self._sink, line, record)

    def _wanted(self, record: Record) -> bool:
        try:
            return bool(self._when(record))
        except Exception:  # a filter with a fault must lose nothing
            return True

    def metrics(self) -> Metrics:
        """Return how the sink fares."""
        return metrics_of(self._sink)

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()


@final
class AtLeast:
    """Be what `at_least` returns."""

    blocking: Final = True
    bounded: Final = True

    def __init__(self, n: int, sinks: tuple[Sink, ...], timeout: float) -> None:
        self._n: Final = n
        self._sinks: Final = sinks
        self._timeout: Final = timeout
        self._closed = False
        self._lanes: Final = tuple(map(Lane, sinks))
        self.guarantees: Final = _joint(n, sinks)

    @property
    def lost(self) -> int:
        """Return how many times this process's single sinks didn't keep a record, or not in time."""
        return sum(lane.lost for lane in self._lanes)

    def append(self, line: bytes, record: Record) -> None:
        """Return once enough sinks have the record.

        Raises:
            SinkError: too few have it in time; it is chained to the first failure.
        """
        if self._closed:
            raise SinkError("the sinks are closed")
        ballot = self._asked(lambda sink: carried(lambda: append_to(sink, line, record)))
        if not ballot.reaches(self._n, self._timeout):
            self._raise(ballot, self._n)

    def metrics(self) -> Metrics:
        """Return how the sinks fare together, with what single ones didn't keep, or not in time."""
        lanes = (lane.metrics() for lane in self._lanes)
        return joint_metrics((*map(metrics_of, self._sinks), *lanes))

    def close(self) -> None:
        """Close each sink after what it still has to keep; doing it again does nothing.

        Raises:
            SinkError: one of them failed to, or not in time.
        """
        if self._closed:
            return
        self._closed = True
        ballot = self._asked(lambda sink: sink.close, last=True)
        if not ballot.reaches(len(self._sinks), self._timeout):
            self._raise(ballot, len(self._sinks))

    def _asked(self, work: Callable[[Sink], Callable[[], object]], *, last: bool = False) -> Ballot:
        ballot = Ballot(len(self._sinks))
        for lane in self._lanes:
            lane.put(work(lane.sink), ballot, last=last)
        return ballot

    def _raise(self, ballot: Ballot, needed: int) -> None:
        causes = [cause for _, cause in ballot.failures]
        late = len(self._sinks) - ballot.done - len(causes)
        raise SinkError(
            f"{ballot.done} of {len(self._sinks)} sinks did it, not {needed}: {len(causes)} failed, {late} were late"
        ) from (causes[0] if causes else None)
