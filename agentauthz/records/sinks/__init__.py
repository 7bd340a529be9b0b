"""Hold the places that records go to, each behind the one protocol `Sink`."""

from agentauthz.records.sinks.combine import at_least, only, tee
from agentauthz.records.sinks.http import HttpSink
from agentauthz.records.sinks.local import LoggingSink, MemorySink
from agentauthz.records.sinks.nats import NatsSink
from agentauthz.records.sinks.otel import OtelSink
from agentauthz.records.sinks.postgres import PostgresSink
from agentauthz.records.sinks.sink import Guarantee, Metrics, Sink
from agentauthz.records.sinks.sqlite import SqliteSink

__all__ = [
    "Guarantee",
    "HttpSink",
    "LoggingSink",
    "MemorySink",
    "Metrics",
    "NatsSink",
    "OtelSink",
    "PostgresSink",
    "Sink",
    "SqliteSink",
    "at_least",
    "only",
    "tee",
]
