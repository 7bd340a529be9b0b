"""Define what a sink is, and what it may promise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, Protocol, TypeAlias, final

from attrs import frozen

from agentauthz.records.events import ALARMS, EventRecord
from agentauthz.records.record import DecisionRecord, DelegationRecord, Record

Survives: TypeAlias = Literal["best_effort", "process_crash", "power_loss"]
LEVELS: Final[tuple[Survives, ...]] = ("best_effort", "process_crash", "power_loss")  # from the least to the most


@final
@frozen
class Guarantee:
    """Say what holds for a record once `append` has returned.

    `survives` is the worst that it outlives. `ordered`: what one thread appended stays in that order. `deduplicates`: a
    record that comes twice, with the same stream and number, is kept once.
    """

    survives: Survives = "best_effort"
    ordered: bool = False
    deduplicates: bool = False


BEST_EFFORT: Final = Guarantee()


@final
@frozen
class Metrics:
    """Say how a sink fares at one moment, in this process.

    `records_lost_total` counts what was taken and isn't kept, or not in time; `waiting` is how many records are in a
    queue, and `lag` how many seconds the oldest of them waits. `written_seq` is the number of the last record that has
    arrived: in the operating system, or at the other side; `durable_seq` of the last that is known to survive a loss of
    power; `witnessed_seq` of the last that a witness has a checkpoint of. None: there is none, or nobody can tell.
    """

    records_lost_total: int = 0
    waiting: int = 0
    lag: float = 0.0
    written_seq: int | None = None
    durable_seq: int | None = None
    witnessed_seq: int | None = None


_NONE: Final = Metrics()


def metrics_of(sink: Sink) -> Metrics:
    """Return how a sink says that it fares; one that says nothing has lost nothing that anybody knows of."""
    ask = getattr(sink, "metrics", None)
    told = ask() if callable(ask) else None
    return told if isinstance(told, Metrics) else _NONE


def joint_metrics(each: Iterable[Metrics], lost: int = 0) -> Metrics:
    """Return how several sinks fare together, and `lost` more; numbers are only those of one that numbers records."""
    found = tuple(each)
    return Metrics(
        lost + sum(one.records_lost_total for one in found),
        sum(one.waiting for one in found),
        max((one.lag for one in found), default=0.0),
    )


class Sink(Protocol):
    """Keep records. Appending may happen from several threads at once; a sink must not call its authorizer.

    A sink may also have

    - `blocking = False`: it is quick, and is called in whatever thread or event loop the caller runs in. Others are
      called from a thread of their own, one record after the other, and count as failed after a time-out;
    - `bounded = True`: it keeps a time-out of its own, and is called from the callers' threads, at the same time;
    - `guarantees: Guarantee`: what it promises; without it, nothing;
    - `append_many(lines: Sequence[bytes]) -> None`: keep some lines, all of them or raise;
    - `metrics() -> Metrics`: how it fares;
    - `flush(durable: bool, timeout: float) -> None`: return once what was appended before is kept, if `durable`
      also from a loss of power, or raise after so many seconds.
    """

    def append(self, line: bytes, record: Record) -> None:
        """Keep the record, whose bytes are `line`, before returning; raise whatever says that it isn't kept."""

    def close(self) -> None:
        """Let go of what the sink holds; doing it again does nothing."""


def is_quick(sink: Sink) -> bool:
    """Say whether a sink says that it never holds anybody up."""
    return getattr(sink, "blocking", None) is False


def is_bounded(sink: Sink) -> bool:
    """Say whether a sink says that it keeps a time-out of its own."""
    return getattr(sink, "bounded", None) is True


def guarantee_of(sink: Sink) -> Guarantee:
    """Return what a sink promises; one that says nothing promises nothing."""
    told = getattr(sink, "guarantees", None)
    return told if isinstance(told, Guarantee) else BEST_EFFORT


def precious(record: Record) -> bool:
    """Say whether a record may never be given up for others: a denial, a review, an order, or what tells of a loss."""
    if isinstance(record, DecisionRecord):
        return record.outcome != "allow"
    if isinstance(record, DelegationRecord):
        return record.outcome == "refused"
    return isinstance(record, EventRecord) and (record.type in ALARMS or record.type == "state")
