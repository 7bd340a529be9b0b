"""Account for each decision and its effect: records, and the sinks that they go to."""

from agentauthz.records.build import decision_record
from agentauthz.records.events import EffectRecord, EventRecord, PolicyRecord
from agentauthz.records.files import FileSink
from agentauthz.records.ids import RecordIds
from agentauthz.records.record import DecisionRecord, Record, read_record
from agentauthz.records.recorder import Recorder
from agentauthz.records.shipping import Shipper
from agentauthz.records.sinks import (
    Guarantee,
    HttpSink,
    LoggingSink,
    MemorySink,
    Metrics,
    NatsSink,
    OtelSink,
    PostgresSink,
    Sink,
    SqliteSink,
    at_least,
    only,
    tee,
)

__all__ = [
    "DecisionRecord",
    "EffectRecord",
    "EventRecord",
    "FileSink",
    "Guarantee",
    "HttpSink",
    "LoggingSink",
    "MemorySink",
    "Metrics",
    "NatsSink",
    "OtelSink",
    "PolicyRecord",
    "PostgresSink",
    "Record",
    "RecordIds",
    "Recorder",
    "Shipper",
    "Sink",
    "SqliteSink",
    "at_least",
    "decision_record",
    "only",
    "read_record",
    "tee",
]
