"""Tell OpenTelemetry of each decision: a log event in the current span."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, final

from agentauthz.errors import SinkError
from agentauthz.records.record import Record
from agentauthz.records.sinks.extras import require
from agentauthz.records.sinks.sink import Guarantee, precious

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider

_SAME: Final = (
    "id",
    "stream",
    "seq",
    "outcome",
    "basis",
    "mode",
    "enforced",
    "rules",
    "undetermined",
    "route",
    "purpose",
)


@final
class OtelSink:
    """Emit each record as a log event, `agentauthz.decision` or `agentauthz.` with its type (extra `otel`).

    It stands in the span that is current when the call is decided, with the `gen_ai.*` attributes of a tool's
    execution; no argument and no input's value goes into it. Without `provider` the process's own is used, which does
    nothing unless an SDK was set up. Never the record of truth: exporters keep events in memory, and drop them.

    Raises:
        InvalidArgument: the API of OpenTelemetry is missing.
    """

    blocking: Final = False
    guarantees: Final = Guarantee("best_effort", ordered=True)

    def __init__(self, provider: LoggerProvider | None = None) -> None:
        require("opentelemetry", "otel")
        from opentelemetry._logs import get_logger

        self._logger = get_logger("agentauthz") if provider is None else provider.get_logger("agentauthz")
        self._closed = False

    def append(self, line: bytes, record: Record) -> None:
        """Emit the event.

        Raises:
            SinkError: the sink is closed. What the SDK raises, too.
        """
        from opentelemetry._logs import LogRecord, SeverityNumber

        if self._closed:
            raise SinkError("`OtelSink` takes no more records: it is closed")
        tree = json.loads(line)
        warns = precious(record)
        self._logger.emit(
            LogRecord(
                timestamp=int(record.ts.timestamp() * 1_000_000) * 1000,
                severity_number=SeverityNumber.WARN if warns else SeverityNumber.INFO,
                severity_text="WARN" if warns else "INFO",
                event_name=f"agentauthz.{tree['type']}",
                attributes=attributes(tree),
            )
        )

    def close(self) -> None:
        """Emit no more; the provider belongs to the host."""
        self._closed = True


def attributes(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's names and codes: what it decided about whom, not what it saw."""
    own, ctx = tree.get("effect") or tree, tree.get("ctx", {})
    action, call, actors = own.get("action"), ctx.get("call_id"), tree.get("actors", [])
    told: dict[str, Any] = {f"agentauthz.{name}": tree.get(name) for name in _SAME}
    told |= {
        "gen_ai.operation.name": "execute_tool" if action is not None else None,
        "gen_ai.tool.name": action.get("name") if isinstance(action, dict) else action,
        "gen_ai.tool.call.id": call,
        "agentauthz.parent": ctx.get("parent"),
        "agentauthz.request": ctx.get("request_id"),
        "agentauthz.turn": ctx.get("turn"),
        "gen_ai.agent.id": actors[-1]["sub"] if actors else None,
        "gen_ai.conversation.id": tree.get("session"),
        "agentauthz.subject": actors[0]["sub"] if actors else None,
        "agentauthz.policy.digest": tree.get("policy", {}).get("digest"),
        "agentauthz.reasons": [reason["code"] for reason in tree.get("reasons", [])] or None,
    }
    if (passed := tree.get("delegation")) is not None:
        told |= {
            "agentauthz.delegation.kind": passed.get("kind"),
            "agentauthz.outcome": passed.get("outcome"),
            "agentauthz.to": passed.get("to", {}).get("sub"),
            "agentauthz.reasons": [passed["reason"]["code"]] if "reason" in passed else None,
        }
    if own is not tree:
        told |= {
            "agentauthz.decision": own.get("of"),
            "agentauthz.status": own.get("status"),
            "error.type": own.get("error_type"),
        }
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in told.items() if value is not None
    }
