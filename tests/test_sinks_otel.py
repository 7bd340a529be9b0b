"""Test the sink for OpenTelemetry with the real SDK and its exporter in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider

from agentauthz import Authorizer, PolicySet, Sensitive, authorize
from agentauthz.errors import SinkError
from agentauthz.records import OtelSink
from tests.recording import BOT, DENY, MARIA, NOW, STREAM, append, decision, effect, event


class _Exported:
    """Be a provider, and what came out of it."""

    def __init__(self) -> None:
        self.provider = LoggerProvider()
        self._exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self._exporter))

    @property
    def records(self) -> list[Any]:
        return [each.log_record for each in self._exporter.get_finished_logs()]

    @property
    def attributes(self) -> list[Mapping[str, Any]]:
        return [dict(each.attributes) for each in self.records]


@pytest.fixture
def exported() -> _Exported:
    return _Exported()


def test_a_decision_is_an_event(exported: _Exported) -> None:
    """It has the name, the moment and the attributes of a tool's execution, and the codes of the decision."""
    append(OtelSink(exported.provider), decision(0, note="VALUE"))
    [event] = exported.records
    assert event.event_name == "agentauthz.decision"
    assert event.timestamp == int(NOW.timestamp()) * 1_000_000_000
    assert event.severity_number == SeverityNumber.INFO
    assert {name: value for name, value in event.attributes.items() if "digest" not in name} == {
        "agentauthz.id": "D00000",
        "agentauthz.stream": STREAM,
        "agentauthz.seq": 0,
        "agentauthz.outcome": "allow",
        "agentauthz.basis": "rule",
        "agentauthz.mode": "enforce",
        "agentauthz.enforced": True,
        "agentauthz.rules": ("small_refund", "other"),
        "agentauthz.subject": "maria",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "payments.refund",
        "gen_ai.agent.id": "shop-bot",
        "gen_ai.conversation.id": "s-1",
    }


def test_other_records_are_events_too(exported: _Exported) -> None:
    """Denials, and what tells of a loss, are warnings; an effect tells whose it is, and how it ended."""
    append(OtelSink(exported.provider), decision(0, DENY), effect(1), event(2), event(3, "stream.open"))
    assert [(each.event_name, each.severity_number) for each in exported.records] == [
        ("agentauthz.decision", SeverityNumber.WARN),
        ("agentauthz.effect", SeverityNumber.INFO),
        ("agentauthz.stream.gap", SeverityNumber.WARN),
        ("agentauthz.stream.open", SeverityNumber.INFO),
    ]
    assert exported.attributes[0]["agentauthz.reasons"] == ("not_permitted",)
    told = exported.attributes[1]
    assert (told["agentauthz.decision"], told["agentauthz.status"]) == ("D00000", "done")
    assert (told["gen_ai.tool.name"], told["gen_ai.conversation.id"]) == ("payments.refund", "s-1")


async def test_the_event_stands_in_the_current_span(exported: _Exported) -> None:
    """What is decided inside a span is told in that span, from functions and from coroutines."""

    @authorize("shop.look")
    def look() -> str:
        return "seen"

    @authorize("shop.look")
    async def alook() -> str:
        return "seen"

    tracer = TracerProvider().get_tracer("tests")
    authorizer = Authorizer(PolicySet.parse("permit all on * when true"), sinks=[OtelSink(exported.provider)])
    with authorizer.session(MARIA, BOT), tracer.start_as_current_span("turn") as span:
        look()
        await alook()
    context = span.get_span_context()
    told = [each for each in exported.records if each.event_name == "agentauthz.decision"]
    assert [(each.trace_id, each.span_id) for each in told] == [(context.trace_id, context.span_id)] * 2


def test_no_value_is_told(exported: _Exported) -> None:
    """Neither arguments, secret or not, nor inputs are in an event."""

    @authorize("shop.pay", sensitive=["card"])
    def pay(note: str, card: str, pin: Annotated[str, Sensitive]) -> str:
        return "paid"

    policies = PolicySet.parse('permit all on shop.pay when args.note like "CANARY*" and args.card like "CANARY*"')
    with Authorizer(policies, sinks=[OtelSink(exported.provider)]) as authorizer, authorizer.session(MARIA, BOT):
        pay("CANARY-1", "CANARY-2", "CANARY-3")
    assert len(exported.records) >= 2
    assert "CANARY" not in "".join(repr(vars(each)) for each in exported.records) + repr(exported.attributes)


def test_without_an_sdk_nothing_happens() -> None:
    """With the API alone, and no provider set, appending is quiet and promises nothing."""
    sink = OtelSink()
    append(sink, decision(0))
    assert sink.guarantees.survives == "best_effort"


def test_a_closed_sink_takes_nothing(exported: _Exported) -> None:
    """Closing twice is nothing; appending afterwards fails."""
    sink = OtelSink(exported.provider)
    sink.close()
    sink.close()
    with pytest.raises(SinkError, match="closed"):
        append(sink, decision(0))
