"""Test the contract test for sinks: ours pass it, and each way of breaking a promise is found."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentauthz import current
from agentauthz.errors import InvalidArgument
from agentauthz.records import (
    FileSink,
    Guarantee,
    HttpSink,
    LoggingSink,
    MemorySink,
    PostgresSink,
    Record,
    SqliteSink,
    at_least,
    tee,
)
from agentauthz.testing import check_sink
from tests.loopback import Loopback, answer
from tests.postgres import Postgres

BEST: Guarantee = Guarantee("process_crash", ordered=True, deduplicates=True)


class _Lines:
    """Be a sink that appends to a file, and may break its word in some way."""

    guarantees: object = BEST

    def __init__(self, path: Path, fault: str) -> None:
        self._path = path
        self._fault = fault
        self._closed = False
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []

    def append(self, line: bytes, record: Record) -> None:
        if self._closed and self._fault != "takes more":
            raise OSError("closed")
        if self._fault == "refuses" and b'"deny"' in line:
            raise OSError("refused")
        if self._fault == "calls":
            with contextlib.suppress(Exception):
                current().session.decide("allowed")
        with self._lock:
            if not self._path.parent.exists():
                if self._fault == "silent":
                    return
                raise OSError("away")
            self._keep(line)

    def _keep(self, line: bytes) -> None:
        kept = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        if line in kept and self._fault != "keeps twice":
            return
        if self._fault == "adds" and not kept:
            self._waiting.append(b'{"of":"its own"}\n')
        self._waiting.append(line[:-2] + b" }\n" if self._fault == "changes" else line)
        if self._fault == "buffers" and len(self._waiting) < 3:
            return
        if self._fault == "reorders":
            self._path.write_bytes(b"".join([*self._waiting, *kept]))
        elif self._fault != "loses" or len(kept) % 7 != 6:
            self._path.write_bytes(b"".join([*kept, *self._waiting]))
        self._waiting.clear()

    def close(self) -> None:
        if self._fault == "closes once" and self._closed:
            raise OSError("closed")
        if self._waiting:
            self._path.write_bytes(self._path.read_bytes() + b"".join(self._waiting))
        self._closed = True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "lines"


@contextlib.contextmanager
def _away(folder: Path) -> Iterator[None]:
    folder.rename(folder.with_name("away"))
    yield
    folder.with_name("away").rename(folder)


def _reading(path: Path) -> Callable[[], list[bytes]]:
    return lambda: path.read_bytes().splitlines(keepends=True)


def test_a_sink_that_keeps_its_word(path: Path) -> None:
    """Everything that could be looked at is listed, and nothing else."""
    report = check_sink(lambda: _Lines(path, ""), kept=_reading(path), breaking=_away(path.parent))
    assert report.promises == BEST
    assert report.unknown == ()
    assert report.kept == (
        "a record of each kind is kept, to the byte, and nothing else",
        "threads lose nothing",
        "what one thread appends stays in order",
        "a record that comes twice is kept once",
        "it makes no calls of its own while it appends",
        "what was appended outlives a process crash",
        "an append that isn't kept raises, in time",
        "after a failure it goes on",
        "a closed sink takes nothing",
    )


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("refuses", "append raises OSError"),
        ("changes", "a record of each kind is kept, to the byte"),
        ("adds", "a record of each kind is kept, to the byte, and nothing else"),
        ("loses", "threads lose nothing"),
        ("reorders", "what one thread appends stays in order"),
        ("keeps twice", "a record that comes twice is kept once"),
        ("calls", "it makes no calls of its own while it appends"),
        ("buffers", "what was appended outlives a process crash"),
        ("silent", "an append that isn't kept raises, in time"),
        ("closes once", "closing it, or closing it again, raises OSError"),
        ("takes more", "a closed sink takes nothing"),
    ],
)
def test_a_sink_that_breaks_its_word(path: Path, fault: str, problem: str) -> None:
    """Each fault is found, and told as what isn't so."""
    with pytest.raises(AssertionError, match=r"^_Lines:\n") as caught:
        check_sink(lambda: _Lines(path, fault), kept=_reading(path), breaking=_away(path.parent))
    assert problem in str(caught.value)


@pytest.mark.parametrize("where", ["make", "append", "flush", "close", "child"])
def test_a_sink_that_hangs(path: Path, where: str) -> None:
    """Whatever never returns is found after the time that a sink has for it, also in the process that is killed."""
    parent = os.getpid()

    class Hanging(_Lines):
        def append(self, line: bytes, record: Record) -> None:
            if where == "append" or (where == "child" and os.getpid() != parent):
                threading.Event().wait()
            super().append(line, record)

        def flush(self, durable: bool, timeout: float) -> None:
            if where == "flush":
                threading.Event().wait()

        def close(self) -> None:
            if where == "close":
                threading.Event().wait()
            super().close()

    def make() -> Hanging:
        if where == "make":
            threading.Event().wait()
        return Hanging(path, "")

    with pytest.raises(AssertionError, match="it hangs" if where != "child" else "outlives a process crash"):
        check_sink(make, kept=_reading(path), timeout=0.5)


def test_a_place_that_never_comes_back(path: Path) -> None:
    """A sink that hangs once its place was out of order doesn't go on."""
    there = threading.Event()

    class Stuck(_Lines):
        def append(self, line: bytes, record: Record) -> None:
            try:
                super().append(line, record)
            except OSError:
                there.set()
                raise
            if there.is_set():
                threading.Event().wait()

    with pytest.raises(AssertionError, match="it hangs"):
        check_sink(lambda: Stuck(path, ""), kept=_reading(path), breaking=_away(path.parent), timeout=0.5)


def test_what_can_not_be_looked_at_is_listed(path: Path) -> None:
    """Without `kept` and `breaking` the promises about them are unknown, never kept."""
    report = check_sink(lambda: _Lines(path, "loses"))
    assert report.kept == ("it makes no calls of its own while it appends", "a closed sink takes nothing")
    assert len(report.unknown) == 5
    assert all("give `kept`" in text or "give `breaking`" in text for text in report.unknown)


def test_promises_that_are_none(path: Path) -> None:
    """What stands in for promises but is none is a problem; what is no sink is refused."""

    class Odd(_LinesLike):
        guarantees = "process_crash"
        blocking = 1

    with pytest.raises(AssertionError) as caught:
        check_sink(Odd)
    assert "`guarantees` are no Guarantee" in str(caught.value)
    assert "`blocking` is no bool" in str(caught.value)
    with pytest.raises(InvalidArgument, match="`make_sink` must return a sink"):
        check_sink(lambda: "records")  # type: ignore[arg-type, return-value]


class _LinesLike:
    """Be a sink that keeps nothing."""

    def append(self, line: bytes, record: Record) -> None:
        raise OSError

    def close(self) -> None:
        pass


# ---- ours


def test_memory_and_logging() -> None:
    """The sinks that promise nothing pass; that of `logging` isn't one that can be closed."""
    check_sink(MemorySink)
    with pytest.raises(AssertionError, match="isn't so that a closed sink takes nothing"):
        check_sink(LoggingSink)


def test_sqlite(tmp_path: Path) -> None:
    """The sink for SQLite keeps its word."""
    path = tmp_path / "records.db"

    def kept() -> list[bytes]:
        connection = sqlite3.connect(path)
        try:
            return [
                line.encode() + b"\n" for (line,) in connection.execute("SELECT line FROM records ORDER BY stream, seq")
            ]
        finally:
            connection.close()

    @contextlib.contextmanager
    def locked() -> Iterator[None]:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
        other.close()

    report = check_sink(lambda: SqliteSink(path, timeout=1), kept=kept, breaking=locked())
    assert (report.promises.survives, report.unknown) == ("process_crash", ())


def test_postgres(postgres: Postgres) -> None:
    """The sink for PostgreSQL keeps its word; of a loss of power only the crash of a process is tried out."""

    def kept() -> list[bytes]:
        return [
            f"{line}\n".encode()
            for (line,) in postgres.rows("SELECT line FROM agentauthz_records ORDER BY stream, seq")
        ]

    @contextlib.contextmanager
    def stopped() -> Iterator[None]:
        postgres.stop()
        yield
        postgres.start()

    report = check_sink(lambda: PostgresSink(postgres.dsn, timeout=2), kept=kept, breaking=stopped())
    assert report.unknown == ("what was appended outlives a power loss: only a crash can be tried out",)
    assert "what was appended outlives a process crash" in report.kept


def test_http() -> None:
    """The sink for HTTP keeps its word."""
    import gzip
    import json

    with Loopback(answer({})) as server:

        def kept() -> list[bytes]:
            texts = [gzip.decompress(seen.body).decode() for seen in server.seen]
            return [line for text in texts for line in _lines(text)]

        def _lines(text: str) -> Iterator[bytes]:
            decoder, at = json.JSONDecoder(), 1
            while at < len(text):
                end = decoder.raw_decode(text, at)[1]
                yield text[at:end].encode() + b"\n"
                at = end + 1

        report = check_sink(lambda: HttpSink(server.url, loopback_http=True, timeout=2), kept=kept)
        assert report.unknown == ("a failure isn't kept silent: give `breaking`",)


def test_files_and_combinations(tmp_path: Path) -> None:
    """What is made of sinks passes too."""
    check_sink(lambda: tee(FileSink(tmp_path / "records"), MemorySink()))
    check_sink(lambda: at_least(1, MemorySink(), MemorySink()))
