"""Keep records in this process: in a list, or in the standard library's logging."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Final, final

from agentauthz.decision import Decision, Outcome
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records.events import EffectRecord, EventRecord, PolicyRecord
from agentauthz.records.record import DecisionRecord, DelegationRecord, Record
from agentauthz.records.sinks.sink import Guarantee, precious

LOGGER: Final = "agentauthz.decisions"


@final
class MemorySink:
    """Keep records in memory: all of them, or the newest `limit`.

    Raises:
        InvalidArgument: a limit below 1.
    """

    __slots__ = ("_closed", "_lock", "_records")

    blocking: Final = False
    guarantees: Final = Guarantee("best_effort", ordered=True)

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None and (type(limit) is not int or limit < 1):
            raise InvalidArgument("limit", "must be a number of records, at least 1, or None")
        self._records: deque[Record] = deque(maxlen=limit)
        self._lock = threading.RLock()  # a generator that is collected in here may end with a record of its own
        self._closed = False

    def append(self, line: bytes, record: Record) -> None:
        """Keep the record.

        Raises:
            SinkError: the sink is closed.
        """
        with self._lock:
            if self._closed:
                raise SinkError("the sink in memory is closed")
            self._records.append(record)

    def close(self) -> None:
        """Take no more records; those kept can still be read."""
        self._closed = True

    def clear(self) -> None:
        """Forget the records kept so far."""
        with self._lock:
            self._records.clear()

    @property
    def records(self) -> tuple[Record, ...]:
        """Return what is kept, oldest first."""
        with self._lock:
            return tuple(self._records.copy())

    @property
    def decisions(self) -> tuple[DecisionRecord, ...]:
        """Return the decisions among the records."""
        return tuple(record for record in self.records if isinstance(record, DecisionRecord))

    @property
    def effects(self) -> tuple[EffectRecord, ...]:
        """Return the effects among the records."""
        return tuple(record for record in self.records if isinstance(record, EffectRecord))


@final
class LoggingSink:
    """Log to `agentauthz.decisions`: denials, reviews and refused delegations at WARNING, allows and other delegations
    at INFO, all else at DEBUG.

    What tells of a loss, and what the host orders (`state`), is at WARNING too; that it sets a mark, at INFO. The
    message is one line without values; the whole record is the log record's `decision_record`, `effect_record`,
    `delegation_record`, `policy_record` or `event_record`, a dict, for handlers that write structure.
    """

    __slots__ = ("_logger",)

    blocking: Final = False
    guarantees: Final = Guarantee("best_effort", ordered=True)

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logging.getLogger(LOGGER) if logger is None else logger

    def append(self, line: bytes, record: Record) -> None:
        """Log the record, if its level is enabled."""
        level = _level(record)
        if not self._logger.isEnabledFor(level):
            return
        self._logger.log(level, "%s", _message(record), extra={_NAMES[type(record)]: record.as_dict()})

    def close(self) -> None:
        """Do nothing: handlers belong to the host."""

    def wants(self, decision: Decision) -> bool:
        """Say whether a record of `decision` would be logged."""
        return self._logger.isEnabledFor(logging.INFO if decision.outcome is Outcome.ALLOW else logging.WARNING)

    def wants_delegations(self) -> bool:
        """Say whether some record of a delegation would be logged."""
        return self._logger.isEnabledFor(logging.WARNING)

    def wants_effects(self) -> bool:
        """Say whether records of effects would be logged."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def warn_if_silent(self) -> None:
        """Log one warning where allowed calls would go unlogged."""
        if not self._logger.isEnabledFor(logging.INFO):
            self._logger.warning(
                "no sink was given and `%s` is not enabled for INFO: calls that are allowed leave no record",
                self._logger.name,
            )


_NAMES: Final[dict[type[Record], str]] = {
    DecisionRecord: "decision_record",
    EffectRecord: "effect_record",
    DelegationRecord: "delegation_record",
    PolicyRecord: "policy_record",
    EventRecord: "event_record",
}


def _level(record: Record) -> int:
    if isinstance(record, EventRecord) and record.type == "state" and record.about.get("kind") == "mark":
        return logging.INFO  # which hosts set in the course of their work
    if precious(record):
        return logging.WARNING
    return logging.INFO if isinstance(record, DecisionRecord | DelegationRecord) else logging.DEBUG


def _message(record: Record) -> str:
    if isinstance(record, DecisionRecord):
        rules = f", rules {', '.join(record.rules)}" if record.rules else ""
        observed = "" if record.enforced else ", not enforced"
        text = f"{record.outcome} {record.action.name}: basis {record.basis}{rules}{observed}, record {record.id}"
    elif isinstance(record, EffectRecord):
        text = f"effect of {record.of}: {record.status}"
    elif isinstance(record, DelegationRecord):
        text = f"delegation {record.outcome}, record {record.id}"
    elif isinstance(record, PolicyRecord):
        text = f"policy {record.digest}: part {record.part} of {record.parts}"
    else:
        text = f"{record.type}, record {record.id}"
    # names come from the host or a model: a log line must stay one line, and mean nothing to a terminal
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
