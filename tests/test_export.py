"""Exports: records as OCSF, CloudEvents and OTLP, and the command that prints them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentauthz import Principal
from agentauthz.errors import InvalidArgument, WideningError
from agentauthz.records import DecisionRecord, DelegationRecord, EffectRecord, Record
from agentauthz.records.export import FORMS, export
from agentauthz.records.merkle import leaf_hash
from agentauthz.tracing import tracing
from tests import logs
from tests.commands import decisions, ran, written
from tests.support import HELPER, Recorded


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the log of two sessions."""
    folder = tmp_path_factory.mktemp("log") / "records"
    written(folder)
    return folder


def _made(log: Path, form: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in export(logs.lines(log), form)]


def _told(log: Path) -> list[Record]:
    kinds = DecisionRecord | EffectRecord | DelegationRecord
    return [record for record in logs.records(log) if isinstance(record, kinds)]


def test_ocsf_is_api_activity(log: Path) -> None:
    """Each decision and effect is API Activity with what the class and its profiles require."""
    events = _made(log, "ocsf")
    assert len(events) == len(_told(log))
    for event in events:
        assert (event["class_uid"], event["type_uid"], event["category_uid"]) == (6003, 600399, 6)
        assert {"actor", "api", "src_endpoint", "metadata", "time", "severity_id", "activity_id"} <= event.keys()
        assert event["metadata"]["version"] == "1.9.0"
        assert ("security_control" in event["metadata"]["profiles"]) == ("action_id" in event)
        assert event["actor"]
    allowed, denied = events[0], next(event for event in events if event.get("status_code") == "forbidden")
    assert (allowed["action_id"], allowed["disposition_id"], allowed["status_id"]) == (1, 1, 1)
    assert (denied["action_id"], denied["disposition_id"], denied["status_id"]) == (2, 2, 2)
    assert denied["status_detail"] == "Not to strangers"
    assert denied["actor"]["user"] == {"uid": "maria", "type_id": 1, "type": "User"}
    assert denied["ai_agent"] == {"uid": "bot", "instance_uid": "conversation-7"}
    assert denied["api"]["operation"] == "shop.refund"


def test_ocsf_carries_the_line_and_its_leaf(log: Path) -> None:
    """The record's exact line is there, with its hash in the log's tree; an effect points at its decision."""
    lines, records = logs.lines(log), {record.id: record for record in _told(log)}
    for event in _made(log, "ocsf"):
        raw = event["raw_data"].encode()
        assert raw + b"\n" in lines
        assert event["attestation"]["fingerprint"]["value"] == leaf_hash(raw).hex()
        record = records[event["metadata"]["uid"]]
        of = record.of if isinstance(record, EffectRecord) else record.id
        assert event["metadata"].get("correlation_uid") == (None if isinstance(record, DelegationRecord) else of)


def test_cloudevents_hold_every_record(log: Path) -> None:
    """Every record is one event; source and sequence are what receivers drop copies by."""
    events = _made(log, "cloudevents")
    assert [event["data"] for event in events] == [json.loads(line) for line in logs.lines(log)]
    for event in events:
        assert {"specversion", "id", "source", "type"} <= event.keys()
        assert all(name.isalnum() and name.islower() for name in event)  # names that every transport takes
    assert len({(event["source"], event["sequence"]) for event in events}) == len(events)
    assert [event["sequence"] for event in events] == sorted(event["sequence"] for event in events)


def test_otlp_has_the_names_of_generative_ai(log: Path) -> None:
    """A decision is one log record `agentauthz.decision`, with the attributes of a tool's execution and no value."""
    found = [each["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0] for each in _made(log, "otel")]
    assert len(found) == len(logs.lines(log))
    one = next(each for each in found if each["eventName"] == "agentauthz.decision")
    told = {each["key"]: each["value"] for each in one["attributes"]}
    assert told["gen_ai.operation.name"] == {"stringValue": "execute_tool"}
    assert told["gen_ai.tool.name"] == {"stringValue": "shop.refund"}
    assert told["gen_ai.agent.id"] == {"stringValue": "bot"}
    assert told["gen_ai.conversation.id"] == {"stringValue": "conversation-7"}
    assert one["timeUnixNano"] == str(int(decisions(log)[0].ts.timestamp() * 1_000_000) * 1000)
    assert "mallory" not in json.dumps(found)


# ---- delegations and traces

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def _traced() -> list[bytes]:
    """Return the lines of a traced session: passed on, refused, and decided with an effect."""
    recorded = Recorded("permit working on docs.* when true")
    session = recorded.session(id="s-1")
    with tracing(trace_id=TRACE, span_id=SPAN, turn=2, call_id="call_1"):
        narrower = session.delegate(HELPER, ["docs.*"], expires="10m")
        with pytest.raises(WideningError):
            narrower.delegate(Principal.agent("last"), ["build.run"])
        with narrower.perform("docs.read"):
            pass
    session.decide("docs.list")
    lines = [each.line() for each in recorded.sink.records]
    return [line for line in lines if json.loads(line)["type"] in ("decision", "effect", "delegation")]


def test_ocsf_has_delegations_and_traces() -> None:
    """What is passed on has the profile's `delegation`, what is refused its reason; the trace profile has the trace.

    The required attributes of the class, its profiles and their objects (OCSF 1.9.0) are there; a span has no times
    here, which its object would need.
    """
    events = [json.loads(text) for text in export(_traced(), "ocsf")]
    passed, refused, decided, done, untraced = events
    for event in events:
        assert {
            "activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid", "actor", "api",
            "src_endpoint",
        } <= event.keys()  # fmt: skip
        assert {"product", "version"} <= event["metadata"].keys()
        assert event["api"]["operation"]
        assert event["attestation"]["fingerprint"]["value"]
    for event in events[:4]:
        assert event["trace"] == {"uid": TRACE}
        assert "trace" in event["metadata"]["profiles"]
        assert event["unmapped"]["ctx"]["span_id"] == SPAN
        assert event["api"]["request"]["uid"] == "call_1"
    assert "trace" not in untraced
    assert "trace" not in untraced["metadata"]["profiles"]
    assert passed["delegation"] == {
        "uid": passed["metadata"]["uid"], "created_time": passed["time"], "scopes": ["docs.*"],
        "expiration_time": passed["time"] + 600_000,
    }  # fmt: skip
    assert passed["ai_agent"] == {"uid": "helper", "instance_uid": "s-1"}
    assert (passed["action_id"], passed["status_id"]) == (1, 1)
    assert (refused["action_id"], refused["status_id"], refused["status_code"]) == (2, 2, "widening")
    assert "delegation" not in refused
    assert (decided["activity_name"], done["activity_name"]) == ("decision", "effect")


def test_cloudevents_carry_the_trace() -> None:
    """The extension Distributed Tracing has the record's trace and span, where both are known (W3C §3.2)."""
    events = [json.loads(text) for text in export(_traced(), "cloudevents")]
    assert [event.get("traceparent") for event in events] == [*[f"00-{TRACE}-{SPAN}-00"] * 4, None]
    assert [event["type"] for event in events][:2] == ["agentauthz.delegation"] * 2


def test_otlp_carries_the_trace() -> None:
    """The log record stands in its trace and span; a refused delegation is a warning."""
    found = [json.loads(text)["resourceLogs"][0] for text in export(_traced(), "otel")]
    logged = [each["scopeLogs"][0]["logRecords"][0] for each in found]
    assert [(each.get("traceId"), each.get("spanId")) for each in logged] == [*[(TRACE, SPAN)] * 4, (None, None)]
    assert [each["severityText"] for each in logged] == ["INFO", "WARN", "INFO", "INFO", "INFO"]
    told = {each["key"]: each["value"] for each in logged[1]["attributes"]}
    assert told["agentauthz.outcome"] == {"stringValue": "refused"}
    assert told["agentauthz.to"] == {"stringValue": "last"}
    assert told["agentauthz.turn"] == {"intValue": "2"}
    assert told["gen_ai.tool.call.id"] == {"stringValue": "call_1"}


@pytest.mark.parametrize("form", FORMS)
def test_lines_of_any_shape_stop_nothing(form: str) -> None:
    """Damaged records are left out, and what comes out is ASCII."""
    shapes = [
        b"",
        b"[]",
        b"\xff\n",
        b'{"v":"1.0"}',
        b'{"v":"1.0","type":"decision"}',
        b'{"v":"1.0","type":"effect","effect":1}',
        b'{"v":"1.0","type":"delegation","delegation":1}',
        b'{"v":"1.0","type":"decision","ctx":3}',
    ]
    shapes.append(b'{"v":"1.0","type":"x","id":"i","ts":"2026-11-23T09:00:00Z","stream":"\\ud800","seq":1,"f":NaN}')
    shapes.append(b'{"v":"1.0","type":"effect","id":"i","ts":"2026-11-23T09:00:00Z","stream":"","seq":"a","effect":{}}')
    for text in export(shapes, form):
        assert text.isascii()
    with pytest.raises(InvalidArgument):
        list(export([], "xml"))


@pytest.mark.parametrize("form", FORMS)
def test_the_command_prints_one_line_each(form: str, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`records export` prints what `export` returns."""
    found = ran(capsys, "export", log, "--format", form)
    assert found.code == 0
    assert found.out.splitlines() == list(export(logs.lines(log), form))
    assert ran(capsys, "export", log).code == 4
