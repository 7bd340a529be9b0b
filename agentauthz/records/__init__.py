"""Account for each decision and its effect: records, and the sinks that they go to."""

from agentauthz.records.build import decision_record
from agentauthz.records.events import EffectRecord, EventRecord, PolicyRecord
from agentauthz.records.files import FileSink
from agentauthz.records.ids import RecordIds
from agentauthz.records.record import DecisionRecord, Record, read_record
from agentauthz.records.recorder import Recorder
from agentauthz.records.sinks import LoggingSink, MemorySink, Sink

__all__ = [
    "DecisionRecord",
    "EffectRecord",
    "EventRecord",
    "FileSink",
    "LoggingSink",
    "MemorySink",
    "PolicyRecord",
    "Record",
    "RecordIds",
    "Recorder",
    "Sink",
    "decision_record",
    "read_record",
]
