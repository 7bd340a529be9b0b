"""Account for each decision and its effect: records, and the sinks that they go to."""

from agentauthz.records.build import decision_record
from agentauthz.records.erasure import erase
from agentauthz.records.events import EffectRecord, EventRecord, PolicyRecord
from agentauthz.records.files import FileSink
from agentauthz.records.ids import RecordIds
from agentauthz.records.openings import Openings
from agentauthz.records.record import DecisionRecord, DelegationRecord, Record, read_record
from agentauthz.records.recorder import Recorder
from agentauthz.records.redaction import Shred, correlation
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
    "DelegationRecord",
    "EffectRecord",
    "EventRecord",
    "FileSink",
    "Guarantee",
    "HttpSink",
    "LoggingSink",
    "MemorySink",
    "Metrics",
    "NatsSink",
    "Openings",
    "OtelSink",
    "PolicyRecord",
    "PostgresSink",
    "Record",
    "RecordIds",
    "Recorder",
    "Shipper",
    "Shred",
    "Sink",
    "SqliteSink",
    "at_least",
    "correlation",
    "decision_record",
    "erase",
    "only",
    "read_record",
    "tee",
]
