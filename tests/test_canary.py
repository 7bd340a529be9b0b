"""Test that no marker from a place that must be kept back comes out anywhere: sinks, pages, commands, errors, logs."""

from __future__ import annotations

import gzip
import io
import logging
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Final

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from agentauthz import Authorizer, Denied, PolicySet, Principal, Resource, Sensitive, authorize
from agentauthz.cli import main
from agentauthz.keys import InstanceKey
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
    tee,
)
from agentauthz.records.openings import Openings
from agentauthz.records.redaction import Class, Shred
from tests import logs
from tests.loopback import Loopback, answer
from tests.nats_server import Nats
from tests.postgres import Postgres

SECRET: Final = bytes(range(32))
# each with a marker of its own behind the name, so that a hit says where it comes from
POLICIES: Final = """
permit pay on shop.pay when args.amount <= 100 and args.note != args.card and args.email like "CANARY*"
    and resource.ssn like "CANARY*" and resource.iban != "x" and resource.pin != "x" and context.session_key != "x"
    and subject.badge like "CANARY*" and actor.badge != "x" and session.campaign != "x"
    and any item in args.items: item.code like "CANARY*"
forbid large on shop.pay when args.amount > 100 and resource.ssn like "CANARY*" and args.email like "CANARY*"
    and any item in args.items: item.code like "CANARY*" because "Too much"
review some on shop.pay when args.amount > 50 and context.session_key like "CANARY*" by approver != subject
"""
REDACT: Final[dict[str, Class]] = {
    "args.email": "correlate", "args.items.code": "shred", "resource.ssn": Shred("resource.owner"),
    "resource.iban": "shred", "resource.pin": "secret", "context.session_key": "secret",
    "context.authorization": "secret", "subject.badge": "shred", "session.campaign": "correlate",
}  # fmt: skip


GIVEN: Final[dict[str, Any]] = {
    "card": "CANARY-card", "pin": "CANARY-0000", "email": "CANARY-email", "items": [{"code": "CANARY-code"}],
}  # fmt: skip


def loaded(order: str) -> Resource:
    """Return a resource, or fail with a secret."""
    if order == "CANARY-order-broken":
        raise LookupError("CANARY-of-the-look-up")
    facts = {"ssn": "CANARY-ssn", "iban": "CANARY-iban", "pin": "CANARY-pin", "owner": "olga", "rest": "CANARY-rest"}
    return Resource("order", "o-1", facts)


@authorize("shop.pay", resource=lambda order: loaded(order), sensitive=["card"])
def pay(
    order: str, amount: int, card: str, pin: Annotated[str, Sensitive], note: str, email: str, items: list[Any]
) -> str:
    """Pay, or fail with a secret."""
    if amount == 7:
        raise ValueError("CANARY-of-the-tool")
    return "CANARY-of-the-result"


def called(amount: int, *, order: str = "CANARY-order", note: str = "fine") -> BaseException | None:
    """Make one call with every secret, and return what it raised."""
    try:
        pay(order, amount, note=note, **GIVEN)  # a traceback shows this line: no marker stands in it
    except BaseException as error:
        return error
    return None


@pytest.fixture
def printed() -> Iterator[io.StringIO]:
    """Return what `logging` writes, by a handler that writes all that a record has."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s %(args)s"))
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def torn(folder: Path) -> None:
    """Leave a torn line in the newest segment, as a killed writer does, and let the next writer quarantine it."""
    segment = logs.segments(folder)[-1]
    whole = segment.read_bytes()
    segment.write_bytes(whole + whole.splitlines()[-1][:-40])
    FileSink(folder).close()


def test_no_marker_comes_out_anywhere(
    tmp_path: Path, postgres: Postgres, nats_server: Nats, printed: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """Zero hits: every sink, the page, every command, exceptions with their tracebacks, and what is logged."""
    nats_server.make_stream()
    exporter, provider, memory = InMemoryLogRecordExporter(), LoggerProvider(), MemorySink()  # type: ignore[no-untyped-call]
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    folder, store, key = tmp_path / "log", tmp_path / "openings.db", tmp_path / "instance.key"
    key.write_bytes(SECRET)
    key.chmod(0o600)
    maria, bot = Principal.user("maria", badge="CANARY-badge"), Principal.agent("bot", badge="CANARY-robot")
    with Loopback(answer({})) as server, closing(Openings(store, InstanceKey.from_bytes(SECRET))) as openings:
        headers = {"Authorization": "Bearer CANARY-header"}
        sinks: list[Sink] = [
            FileSink(folder), SqliteSink(tmp_path / "index.db"), PostgresSink(postgres.dsn, timeout=20),
            HttpSink(server.url, headers=headers, loopback_http=True, timeout=20),
            tee(NatsSink(nats_server.url, options=nats_server.options, timeout=20), LoggingSink()),
            OtelSink(provider), memory,
        ]  # fmt: skip
        authorizer = Authorizer(
            PolicySet.parse(POLICIES), sinks=sinks, key=InstanceKey.from_bytes(SECRET), redact=REDACT, openings=openings
        )
        context = {"session_key": "CANARY-key", "authorization": "Bearer CANARY-token", "password": "CANARY-password"}
        with (
            authorizer,
            authorizer.session(
                maria, bot, id="conversation-7", context=context, attributes={"campaign": "CANARY-campaign"}
            ),
        ):
            raised = [
                called(5), called(7), called(500), called(60), called(5, order="CANARY-order-broken"),
                called(500, note="fine CANARY-card CANARY-ssn CANARY-key"), called(500, note="CANARY-iban"),
            ]  # fmt: skip
            with pytest.raises(Denied):
                authorizer.session(maria, bot).authorize("shop.pay", args={"email": "CANARY-email"})
        kept = {
            "files": b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()),
            "postgres": repr(postgres.rows("SELECT * FROM agentauthz_records")).encode(),
            "http": b"".join(gzip.decompress(seen.body) for seen in server.seen),
            "nats": b"".join(message.data + repr(message.headers).encode() for message in nats_server.kept()),
            "otel": repr([vars(each.log_record) for each in exporter.get_finished_logs()]).encode(),
            "memory": b"".join(record.line() for record in memory.records),
        }
    assert raised[0] is None
    assert isinstance(raised[1], ValueError)
    assert all(isinstance(error, Exception) for error in raised[2:])
    torn(folder)
    kept["quarantine"] = b"shop.pay" + b"".join(path.read_bytes() for path in (folder / "quarantine").rglob("*.*"))
    kept |= outputs(folder, tmp_path, store, key, memory, capsys)
    kept["errors"] = b"".join(map(spoken, raised[2:])) + b"shop.pay"
    kept["logging"] = printed.getvalue().encode()
    told = POLICIES.encode()
    for place, content in kept.items():
        assert b"shop.pay" in content, place
        assert b"CANARY" not in without(content, told), (place, hits(without(content, told)))
    for each in (*sinks, openings, authorizer, *memory.records):
        assert "CANARY" not in repr(each)


def outputs(
    folder: Path, tmp_path: Path, store: Path, key: Path, memory: MemorySink, capsys: pytest.CaptureFixture[str]
) -> dict[str, bytes]:
    """Return what each command says, without what only the store's holder may see."""
    policy = tmp_path / "new.authz"
    policy.write_text('permit pay on shop.pay when args.email == "x" and resource.ssn == "y"')
    commands: dict[str, list[object]] = {
        "show": ["show", "conversation-7", folder], "query": ["query", folder, "--json"],
        "words": ["query", folder], "tail": ["tail", folder],
        "explain": ["explain", memory.decisions[2].id, folder],
        "report": ["report", folder, "--session", "conversation-7", "-o", tmp_path / "page.html"],
        "replay": ["replay", folder, "--policy", policy],
        **{form: ["export", folder, "--format", form] for form in ("ocsf", "cloudevents", "otel")},
    }  # fmt: skip
    found: dict[str, bytes] = {}
    for name, argv in commands.items():
        main(["records", *map(str, argv)])
        out, err = capsys.readouterr()
        found[name] = (out + err).encode() + (b"shop.pay" if name in ("explain", "report", "replay") else b"")
    found["page"] = (tmp_path / "page.html").read_bytes()
    main(["records", "erase", "olga", str(folder), "--openings", str(store), "--instance-key", str(key)])
    found["erase"] = "".join(capsys.readouterr()).encode() + b"shop.pay"
    return found


def spoken(error: BaseException | None) -> bytes:
    """Return all that an error of the library says; the host's own, to which it may be chained, is the host's."""
    assert error is not None
    own = "".join(traceback.format_exception(type(error), error, error.__traceback__, chain=False))
    return f"{error!s}{error!r}{own}".encode()


def without(content: bytes, policies: bytes) -> bytes:
    """Return content without what the policy's own text says, which is in the log on purpose."""
    return content.replace(b"CANARY*", b"") if b"CANARY*" in policies else content


def hits(content: bytes) -> list[bytes]:
    """Return what was found, to say where it comes from."""
    return [content[at : at + 40] for at in range(len(content)) if content.startswith(b"CANARY", at)][:5]
