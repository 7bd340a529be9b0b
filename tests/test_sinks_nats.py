"""Test the sink for NATS against a real server with JetStream, which is killed and started again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import TypeAlias

import pytest

from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records import NatsSink, Record
from tests.loopback import everything_told
from tests.nats_server import Nats
from tests.recording import STREAM, append, decision, effect, until

Make: TypeAlias = Callable[..., NatsSink]


@pytest.fixture
def make(nats_server: Nats) -> Iterator[Make]:
    """Return what makes sinks for the server, whose stream exists, closed at the end."""
    nats_server.make_stream()
    with ExitStack() as made:

        def sink(**options: object) -> NatsSink:
            given = {"options": nats_server.options, "timeout": 20.0, **options}
            return made.enter_context(closing(NatsSink(nats_server.url, **given)))  # type: ignore[arg-type]

        yield sink


def _lines(server: Nats) -> list[bytes]:
    return [message.data + b"\n" for message in server.kept()]


def test_a_record_is_a_cloud_event(make: Make, nats_server: Nats) -> None:
    """The message's body is the line to the byte; its headers are those of a CloudEvent in binary mode."""
    records: list[Record] = [decision(0, note="a\nb\u202e"), effect(1)]
    append(make(), *records)
    kept = nats_server.kept()
    assert [message.data + b"\n" for message in kept] == [record.line() for record in records]
    assert {message.subject for message in kept} == {"agentauthz.records"}
    assert kept[0].headers == {
        "Nats-Msg-Id": f"{STREAM}/0",
        "ce-specversion": "1.0",
        "ce-type": "agentauthz.decision",
        "ce-source": f"urn:agentauthz:{STREAM}",
        "ce-id": "D00000",
        "ce-time": "2026-11-23T09:00:00+00:00",
        "content-type": "application/json",
    }


def test_order_is_kept(make: Make, nats_server: Nats) -> None:
    """Many records at once arrive in the order in which they were appended."""
    sink = make(delivery="queued")
    append(sink, *map(decision, range(200)))
    sink.flush(timeout=20)
    assert _lines(nats_server) == [decision(number).line() for number in range(200)]


def test_threads_lose_nothing(make: Make, nats_server: Nats) -> None:
    """Eight threads append at once, and everything arrives."""
    sink = make()

    def work(thread: int) -> None:
        append(sink, *(decision(number, stream=f"{thread:026}") for number in range(10)))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(_lines(nats_server)) == 80


def test_a_record_that_comes_twice_is_kept_once(make: Make, nats_server: Nats) -> None:
    """Within the server's duplicate window, delivering a line again does nothing."""
    sink = make()
    append(sink, decision(0), decision(0), decision(1))
    assert _lines(nats_server) == [decision(0).line(), decision(1).line()]
    assert not sink.guarantees.deduplicates  # the window ends


def test_a_server_that_is_killed_and_comes_back(make: Make, nats_server: Nats) -> None:
    """While there is no server an append fails in time; after its return what it has kept is there, and it goes on."""
    sink = make(timeout=2.0)
    append(sink, decision(0))
    nats_server.stop()
    with pytest.raises(SinkError, match="`NatsSink` didn't keep a record in time"):
        append(sink, decision(1))
    nats_server.start()
    until(lambda: _taken(sink, 2))
    kept = _lines(nats_server)
    assert (kept[0], kept[-1]) == (decision(0).line(), decision(2).line())


def test_what_is_queued_survives_an_outage(make: Make, nats_server: Nats) -> None:
    """With "queued" records wait while there is no server, and all arrive after it."""
    sink = make(delivery="queued")
    nats_server.stop()
    append(sink, *map(decision, range(20)))
    nats_server.start()
    sink.flush(timeout=60)
    assert _lines(nats_server) == [decision(number).line() for number in range(20)]


def _taken(sink: NatsSink, number: int) -> bool:
    try:
        append(sink, decision(number))
    except SinkError:
        return False
    return True


def test_without_a_stream_nothing_is_taken(nats_server: Nats) -> None:
    """Where no stream keeps the subject an append fails: NATS alone would have thrown the record away."""
    with (
        closing(NatsSink(nats_server.url, options=nats_server.options, timeout=1.0)) as sink,
        pytest.raises(SinkError, match="didn't keep a record in time: NoStreamResponseError"),
    ):
        append(sink, decision(0))


def test_no_secret_is_told(make: Make, nats_server: Nats, caplog: pytest.LogCaptureFixture) -> None:
    """The password turns up in no repr, log or error."""
    caplog.set_level(logging.DEBUG)
    sink = make(timeout=2.0)
    append(sink, decision(0))
    nats_server.stop()
    with pytest.raises(SinkError) as caught:
        append(sink, decision(1))
    nats_server.start()
    stranger = NatsSink(nats_server.url, options={"user": "CANARY", "password": "x"}, timeout=1.0)
    with closing(stranger), pytest.raises(SinkError) as refused:
        append(stranger, decision(2))
    assert "CANARY" not in repr(sink) + everything_told(caught.value) + everything_told(refused.value) + caplog.text


@pytest.mark.parametrize("subject", ["", "a..b", "a.*", "a b", "a\r\nPUB b", ">", 3])
def test_a_bad_subject_is_refused(subject: str) -> None:
    """A subject that can't be published to is an error when the sink is made."""
    with pytest.raises(InvalidArgument, match="`subject`"):
        NatsSink("nats://localhost", subject=subject)
    with pytest.raises(InvalidArgument, match="`servers`"):
        NatsSink([])
