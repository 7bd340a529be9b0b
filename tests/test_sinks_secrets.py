"""Test that no secret gets into any sink, whatever way it comes."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path
from typing import Annotated

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from agentauthz import Authorizer, Denied, PolicySet, Sensitive, authorize
from agentauthz.records import (
    FileSink,
    HttpSink,
    LoggingSink,
    MemorySink,
    NatsSink,
    OtelSink,
    PostgresSink,
    Sink,
    SqliteSink,
    at_least,
    only,
    tee,
)
from tests.loopback import Loopback, answer
from tests.nats_server import Nats
from tests.postgres import Postgres
from tests.recording import BOT, MARIA

POLICIES = """
permit pay on shop.pay when args.note != args.card and not (args.pin like "x*")
forbid large on shop.pay when args.amount > 100
"""


@authorize("shop.pay", sensitive=["card"])
def pay(amount: int, card: str, pin: Annotated[str, Sensitive], note: str) -> str:
    if amount == 7:
        raise ValueError("CANARY-of-the-tool")
    return "CANARY-of-the-result"


def test_no_secret_is_in_any_sink(
    tmp_path: Path, postgres: Postgres, nats_server: Nats, caplog: pytest.LogCaptureFixture
) -> None:
    """Sensitive arguments, also where another one repeats them, results, errors' texts and credentials are nowhere."""
    caplog.set_level(logging.DEBUG)
    nats_server.make_stream()
    exporter, provider, memory = InMemoryLogRecordExporter(), LoggerProvider(), MemorySink()  # type: ignore[no-untyped-call]
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    with Loopback(answer({})) as server:
        sinks: list[Sink] = [
            FileSink(tmp_path / "log"),
            SqliteSink(tmp_path / "index.db"),
            PostgresSink(postgres.dsn, timeout=20),
            HttpSink(server.url, headers={"Authorization": "Bearer CANARY"}, loopback_http=True, timeout=20),
            tee(NatsSink(nats_server.url, options=nats_server.options, timeout=20), LoggingSink()),
            at_least(1, OtelSink(provider), timeout=20),
            only(lambda _: True, memory),
        ]
        with Authorizer(PolicySet.parse(POLICIES), sinks=sinks) as authorizer, authorizer.session(MARIA, BOT):
            pay(5, card="CANARY-4111", pin="CANARY-0000", note="fine CANARY-4111")
            with pytest.raises(ValueError, match="of-the-tool"):
                pay(7, card="CANARY-4111", pin="CANARY-0000", note="fine")
            with pytest.raises(Denied):
                pay(500, card="CANARY-4111", pin="CANARY-0000", note="CANARY-0000")
        kept = {
            "files": b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()),
            "postgres": repr(postgres.rows("SELECT * FROM agentauthz_records")).encode(),
            "http": b"".join(gzip.decompress(seen.body) for seen in server.seen),
            "nats": b"".join(message.data + repr(message.headers).encode() for message in nats_server.kept()),
            "otel": repr([vars(each.log_record) for each in exporter.get_finished_logs()]).encode(),
            "memory": b"".join(record.line() for record in memory.records),
            "logs": "".join(repr(vars(record)) for record in caplog.records).encode(),
        }
    for place, content in kept.items():
        assert content.count(b"shop.pay") >= 3, place
        assert b"CANARY" not in content, place
    for sink in sinks:
        assert "CANARY" not in repr(sink)
