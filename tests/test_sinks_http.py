"""Test the sink that sends to a collector, with a real server that fails, stalls, rejects and recovers."""

from __future__ import annotations

import gzip
import json
import logging
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any, TypeAlias

import pytest

from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records import HttpSink, Record, read_record
from tests.golden import ROOT
from tests.loopback import HOSTILE, Answer, Connection, Loopback, answer, everything_told, never
from tests.recording import DENY, STREAM, append, decision, effect, until

Make: TypeAlias = Callable[..., HttpSink]
OK: Answer = answer({})


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(OK) as running:
        yield running


@pytest.fixture
def make(server: Loopback) -> Iterator[Make]:
    """Return what makes sinks for the server, closed at the end when nothing waits any more."""
    with ExitStack() as made:

        def sink(**options: Any) -> HttpSink:
            given = {"headers": {"Authorization": "Bearer CANARY"}, "loopback_http": True, **options}
            return made.enter_context(closing(HttpSink(server.url, **given)))

        yield sink


def _bodies(server: Loopback) -> list[list[dict[str, Any]]]:
    return [json.loads(gzip.decompress(seen.body)) for seen in server.seen]


def _sent(server: Loopback) -> list[dict[str, Any]]:
    return [record for body in _bodies(server) for record in body]


def test_what_is_sent(make: Make, server: Loopback) -> None:
    """An append returns when the collector has a compressed JSON array, in which the line stands to the byte."""
    records: list[Record] = [decision(0, note="a\nb\u202e"), effect(1)]
    append(make(), *records)
    assert [gzip.decompress(seen.body) for seen in server.seen] == [
        b"[" + record.line().rstrip(b"\n") + b"]" for record in records
    ]
    seen = server.seen[0]
    headers = {name.lower(): value for name, value in seen.headers.items()}
    assert seen.method == "POST"
    assert headers["content-type"] == "application/json"
    assert headers["content-encoding"] == "gzip"
    assert headers["authorization"] == "Bearer CANARY"


def test_many_appends_share_a_request(make: Make, server: Loopback) -> None:
    """What waits goes in one array, in the order of appending, and at most `batch` at once."""
    go = threading.Event()

    def slow(connection: Connection) -> None:
        go.wait(20)
        OK(connection)

    server.answer = slow
    sink = make(delivery="queued", batch=10)
    append(sink, *map(decision, range(25)))
    until(lambda: len(server.seen) == 1)
    go.set()
    sink.flush(timeout=20)
    assert [record["seq"] for record in _sent(server)] == list(range(25))
    assert max(map(len, _bodies(server))) == 10
    assert sink.waiting == 0


def test_records_wait_for_others(make: Make, server: Loopback) -> None:
    """With `linger` a record waits until there are as many as go at once, or the time is over."""
    sink = make(delivery="queued", batch=3, linger=30.0)
    append(sink, decision(0), decision(1))
    assert server.seen == []
    append(sink, decision(2))
    until(lambda: len(server.seen) == 1)
    until(lambda: sink.waiting == 0)
    assert [len(body) for body in _bodies(server)] == [3]
    hurried = make(delivery="queued", linger=0.05)
    append(hurried, decision(3))
    until(lambda: hurried.waiting == 0)


def test_many_lines_at_once(make: Make, server: Loopback) -> None:
    """`append_many` returns when all lines have arrived."""
    make().append_many([decision(number).line() for number in range(5)])
    assert [record["seq"] for record in _sent(server)] == list(range(5))


@pytest.mark.parametrize("status", [301, 401, 404, 429, 500, 503])
def test_it_is_sent_again_until_it_is_taken(make: Make, server: Loopback, status: int) -> None:
    """After an answer that time may cure the same lines are sent again, and the append succeeds in the end."""
    attempts = 0

    def failing(connection: Connection) -> None:
        nonlocal attempts
        attempts += 1
        answer({}, status if attempts < 4 else 204, location="/elsewhere")(connection)

    server.answer = failing
    append(make(timeout=20), decision(0))
    assert [record["seq"] for record in _sent(server)] == [0, 0, 0, 0]
    assert {seen.path for seen in server.seen} == {"/jwks?tenant=CANARY"}


def test_a_collector_that_is_down_and_comes_back(make: Make, server: Loopback) -> None:
    """While nobody takes it an append fails in time, and takes its record back; later ones go on."""
    sink = make(timeout=0.5)
    server.answer = answer({}, 503)
    with pytest.raises(SinkError, match="`HttpSink` didn't keep a record in time: ConnectionError"):
        append(sink, decision(0))
    until(lambda: sink.waiting == 0)
    server.answer = OK
    until(lambda: _taken(sink))
    assert _sent(server)[-1]["seq"] == 1


BODIES = ("drips its body", "drips chunks", "breaks off", "sends for ever", "sends chunks for ever", "is a bomb")
STALLS = sorted(name for name, (_, reason) in HOSTILE.items() if reason in ("deadline", "unreachable"))


@pytest.mark.parametrize("how", BODIES)
def test_the_rest_of_an_answer_is_of_no_interest(make: Make, server: Loopback, how: str) -> None:
    """Once the status says that it has the records, the append returns, whatever follows it."""
    server.answer = HOSTILE[how][0]
    sink = make(timeout=5)
    append(sink, decision(0))
    server.answer = OK
    append(sink, decision(1))
    assert [record["seq"] for record in _sent(server)] == [0, 1]


@pytest.mark.parametrize("how", [name for name in STALLS if name not in BODIES])
def test_a_collector_that_misbehaves(make: Make, server: Loopback, how: str) -> None:
    """However the collector stalls or breaks off, the append fails in time, and the next one is taken."""
    sink = make(timeout=0.4)
    server.answer = HOSTILE[how][0]
    with pytest.raises(SinkError, match="didn't keep a record in time"):
        append(sink, decision(0))
    server.answer = OK
    until(lambda: _taken(sink))
    assert _sent(server)[-1]["seq"] == 1


def _taken(sink: HttpSink) -> bool:
    try:
        append(sink, decision(1))
    except SinkError:
        return False
    return True


def test_one_record_that_is_rejected(make: Make, server: Loopback) -> None:
    """Where the collector rejects an array, the one record that it won't take is found; the others arrive."""

    def picky(connection: Connection) -> None:
        bad = any(record["seq"] == 5 for record in _bodies(server)[-1])
        answer({}, 422 if bad else 200)(connection)

    server.answer = picky
    sink = make(delivery="queued", linger=0.05)
    append(sink, *map(decision, range(8)))
    until(lambda: sink.waiting == 0)
    assert sink.lost == 1
    append(sink, decision(8))
    until(lambda: sink.waiting == 0)
    gap = next(record for record in _sent(server) if record["type"] == "stream.gap")
    assert gap["about"] == {"count": 1, "reason": "lost_on_the_way", "stream": STREAM, "first_seq": 5, "last_seq": 5}
    with pytest.raises(SinkError, match="`HttpSink` can't keep a record: Rejected"):
        append(make(), decision(5))


def test_a_full_queue_lets_wait_and_then_fails(make: Make, server: Loopback) -> None:
    """With "queued" nothing is lost: an append that finds no room in time fails, and its record isn't taken."""
    server.answer = never
    room = 3 * len(decision(0).line()) + 50
    sink = make(delivery="queued", timeout=0.3, room=room)
    append(sink, *map(decision, range(3)))
    with pytest.raises(SinkError, match="`HttpSink` has no room for a record"):
        append(sink, decision(3))
    assert (sink.waiting, sink.lost) == (3, 0)
    server.answer = OK
    sink.flush(timeout=20)
    assert {record["seq"] for record in _sent(server)} == {0, 1, 2}


def test_a_full_queue_gives_up_allows_first(make: Make, server: Loopback) -> None:
    """With "lossy" the oldest allows and effects give way, never a denial; what was given up is counted and told."""
    server.answer = answer({}, 503)
    room = 5 * len(decision(0, DENY).line()) + 50
    sink = make(delivery="lossy", timeout=0.3, room=room, batch=100)
    append(sink, decision(0, DENY))
    until(lambda: len(server.seen) >= 4)  # it pauses now, and nothing is under way
    append(sink, decision(1), effect(2), decision(3), decision(4, DENY), decision(5, DENY), decision(6, DENY))
    append(sink, decision(7), effect(8))
    assert sink.lost >= 3
    append(sink, decision(9, DENY))
    with pytest.raises(SinkError, match="no room"):
        append(sink, *(decision(number, DENY) for number in range(10, 16)))
    server.answer = OK
    server.seen.clear()
    sink.flush(timeout=60)
    sent = _sent(server)
    assert [record["type"] for record in sent].count("stream.gap") == 1
    [gap] = [record["about"] for record in sent if record["type"] == "stream.gap"]
    assert gap["count"] == sink.lost
    assert {0, 4, 5, 6, 9} <= {record["seq"] for record in sent if record.get("outcome") == "deny"}
    read_record(json.dumps(sent[0]).encode())


def test_closing_sends_what_waits(make: Make, server: Loopback) -> None:
    """Closing waits for what is queued; a closed sink takes nothing, and closing again does nothing."""
    sink = make(delivery="queued", linger=30.0)
    append(sink, *map(decision, range(3)))
    sink.close()
    sink.close()
    assert [record["seq"] for record in _sent(server)] == [0, 1, 2]
    with pytest.raises(SinkError, match="`HttpSink` takes no more records: it is closed"):
        append(sink, decision(3))


def test_closing_tells_what_is_left_over(server: Loopback) -> None:
    """Where nobody takes what waits, closing ends in time, and says how much is lost."""
    server.answer = answer({}, 503)
    sink = HttpSink(server.url, delivery="queued", timeout=0.3, loopback_http=True)
    append(sink, *map(decision, range(3)))
    with pytest.raises(SinkError, match="`HttpSink` was closed before 3 records had arrived: ConnectionError"):
        sink.close()
    assert sink.lost == 3
    until(lambda: not any(thread.name == "agentauthz-HttpSink" for thread in threading.enumerate()))


def test_what_is_queued_is_sent_at_the_end(server: Loopback) -> None:
    """A sink that nobody closes sends what waits when nobody has it any more."""
    sink = HttpSink(server.url, delivery="queued", linger=30.0, loopback_http=True)
    append(sink, decision(0))
    del sink
    until(lambda: len(server.seen) == 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_what_is_queued_is_sent_when_the_program_ends(server: Loopback, host: str) -> None:
    """A program that ends without closing anything sends what waits."""
    code = (
        "import sys; from agentauthz.records import HttpSink; from tests.recording import append, decision\n"
        "sink = HttpSink(sys.argv[1], delivery='queued', linger=30.0, timeout=20.0, loopback_http=True)\n"
        "append(sink, decision(0), decision(1))"
    )
    url = server.url.replace("127.0.0.1", host)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, url], env=environment, cwd=ROOT, capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert [record["seq"] for record in _sent(server)] == [0, 1]


def test_what_it_promises(make: Make) -> None:
    """Only an acknowledged append promises anything about a crash."""
    assert make().guarantees.survives == "process_crash"
    assert make(delivery="queued").guarantees.survives == make(delivery="lossy").guarantees.survives == "best_effort"
    assert make().guarantees.ordered
    assert not make().guarantees.deduplicates


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"url": "http://example.com/"}, "url"),
        ({"url": "https://user:CANARY@example.com/"}, "url"),
        ({"headers": {"a": "CANARY\r\nb: c"}}, "headers"),
        ({"headers": {"a b": "CANARY"}}, "headers"),
        ({"delivery": "maybe"}, "delivery"),
        ({"timeout": 0}, "timeout"),
        ({"room": -1}, "room"),
        ({"linger": -1}, "linger"),
        ({"tls": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}, "tls"),
    ],
)
def test_what_can_not_work_is_refused_at_the_start(options: dict[str, Any], argument: str) -> None:
    """A bad address, header, bound or TLS context is an error that names the argument and quotes nothing."""
    if "tls" in options:
        options["tls"].check_hostname = False
    with pytest.raises(InvalidArgument, match=f"`{argument}`") as caught:
        HttpSink(**{"url": "https://example.com/", **options})
    assert "CANARY" not in everything_told(caught.value)


def test_no_secret_is_told(make: Make, server: Loopback, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the headers nor the address's query turn up in a repr, a log or an error."""
    caplog.set_level(logging.DEBUG)
    sink = make(timeout=2)
    append(sink, decision(0))
    server.answer = answer({}, 401)
    with pytest.raises(SinkError) as caught:
        append(sink, decision(1))
    assert "CANARY" not in repr(sink) + everything_told(caught.value) + caplog.text


def test_a_line_that_is_no_record_is_refused(make: Make, server: Loopback) -> None:
    """What is no record fails where it is appended, and nothing is sent."""
    with pytest.raises(SinkError, match="no record"):
        make().append(b"{}\n", decision(0))
    with pytest.raises(SinkError, match="no record"):
        make().append_many([decision(0).line(), b"[]\n"])
    assert server.seen == []
