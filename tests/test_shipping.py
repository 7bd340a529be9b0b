"""Test how a log is sent on: in order, at least once, from where it stopped, while it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agentauthz import Authorizer, PolicySet, Request
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.records import FileSink, MemorySink, Record, Shipper, SqliteSink
from tests.recording import MARIA, append, decision, effect


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FileSink]:
    made = FileSink(tmp_path / "log", segment_size=4_000)
    yield made
    made.close()


class _Receiver:
    """Keep lines, and fail on demand: before, or after it has kept them."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.fails = ""

    def append(self, line: bytes, record: Record) -> None:
        raise NotImplementedError

    def append_many(self, lines: list[bytes]) -> None:
        if self.fails == "before":
            raise SinkError("away")
        self.lines += lines
        if self.fails == "after":
            raise SinkError("away")

    def close(self) -> None:
        pass


def _written(log: FileSink) -> list[bytes]:
    paths = sorted(log.folder.glob("*/*.ndjson"))
    return [line for path in paths for line in path.read_bytes().splitlines(keepends=True)]


def test_all_of_it_goes_in_order(log: FileSink, tmp_path: Path) -> None:
    """Every line of every segment goes, to the byte and in order, and nothing goes again."""
    receiver = _Receiver()
    shipper = Shipper(log.folder, receiver, tmp_path / "state", batch=3)
    append(log, *map(decision, range(20)))
    assert len(list(log.folder.glob("*/*.ndjson"))) > 1
    assert shipper.ship() == len(receiver.lines) > 20
    assert receiver.lines == _written(log)
    assert (shipper.ship(), shipper.lag()) == (0, 0)
    append(log, decision(20), effect(21))
    assert shipper.lag() > 0
    assert Shipper(log.folder, receiver, tmp_path / "state").ship() >= 2
    assert receiver.lines == _written(log)


def test_a_sink_that_only_appends(log: FileSink, tmp_path: Path) -> None:
    """A sink without `append_many` gets records one by one."""
    memory = MemorySink()
    append(log, decision(0))
    Shipper(log.folder, memory, tmp_path / "state").ship()
    assert [record.line() for record in memory.records] == _written(log)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_failure_stops_it_where_it_was(log: FileSink, tmp_path: Path, when: str) -> None:
    """After a failure it goes on with what wasn't acknowledged; a batch may come twice, and none is left out."""
    receiver = _Receiver()
    append(log, *map(decision, range(5)))
    Shipper(log.folder, receiver, tmp_path / "state").ship()
    append(log, *map(decision, range(5, 10)))
    receiver.fails = when
    shipper = Shipper(log.folder, receiver, tmp_path / "state")
    with pytest.raises(SinkError, match="away"):
        shipper.ship()
    assert shipper.lag() > 0
    receiver.fails = ""
    shipper.ship()
    assert list(dict.fromkeys(receiver.lines)) == _written(log)
    assert (len(receiver.lines) > len(_written(log))) is (when == "after")


def test_half_a_line_waits(log: FileSink, tmp_path: Path) -> None:
    """A line that is just being written isn't sent until it is whole."""
    receiver = _Receiver()
    append(log, decision(0))
    shipper = Shipper(log.folder, receiver, tmp_path / "state")
    shipper.ship()
    whole = decision(1).line()
    with log.path.open("ab") as file:
        file.write(whole[:50])
        file.flush()
        assert shipper.ship() == 0
        file.write(whole[50:])
    assert shipper.ship() == 1
    assert receiver.lines[-1] == whole


def test_a_line_that_becomes_whole_meanwhile(log: FileSink, tmp_path: Path) -> None:
    """Where the rest of a line comes while the lines before it are sent, the line goes whole."""
    append(log, decision(0))
    whole = decision(1).line()
    path, receiver = log.path, _Receiver()
    path.write_bytes(path.read_bytes() + whole[:50])

    class Slow(_Receiver):
        def append_many(self, lines: list[bytes]) -> None:
            receiver.append_many(lines)
            if len(receiver.lines) < 3:
                path.write_bytes(path.read_bytes() + whole[50:])

    Shipper(log.folder, Slow(), tmp_path / "state").ship()
    assert receiver.lines[-1] == whole


def test_only_what_has_gone_is_pruned(log: FileSink, tmp_path: Path) -> None:
    """Pruned up to that moment, a log loses segments that have gone and no other; sending goes on without them."""
    receiver = _Receiver()
    shipper = Shipper(log.folder, receiver, tmp_path / "state")
    _now(log, 20)
    there = _segments(log)
    assert log.prune(shipper.gone_before()) == 0
    shipper.ship()
    _now(log, 20)
    assert log.prune(shipper.gone_before()) >= len(there) - 2
    assert set(_segments(log)) & set(there) <= set(there[-2:])
    known = set(receiver.lines)
    assert shipper.ship() >= 20
    log.close()
    shipper.ship()
    assert known | set(_written(log)) == set(receiver.lines)
    assert shipper.lag() == 0


def _now(log: FileSink, count: int) -> None:
    authorizer = Authorizer(PolicySet.parse("permit all on * when true"), sinks=[log])
    for _ in range(count):
        authorizer.decide(Request("look", subject=MARIA))


def _segments(log: FileSink) -> list[Path]:
    return sorted(log.folder.glob("*/*.ndjson"))


def test_a_lost_state_costs_only_time(log: FileSink, tmp_path: Path) -> None:
    """Without its file it begins anew; what keeps each record once has them all once."""
    append(log, *map(decision, range(10)))
    with closing(SqliteSink(tmp_path / "index.db")) as index:
        for _ in range(2):
            Shipper(log.folder, index, tmp_path / "state").ship()
            (tmp_path / "state").unlink()
        assert [record.line() for record in index.query()] != []
        assert sorted(record.line() for record in index.query()) == sorted(_written(log))


def test_a_log_that_shrank_is_an_error(log: FileSink, tmp_path: Path) -> None:
    """A segment that has become shorter than what was sent of it isn't passed over."""
    append(log, decision(0), decision(1))
    shipper = Shipper(log.folder, _Receiver(), tmp_path / "state")
    shipper.ship()
    path = log.path
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SinkError, match="shorter than what was sent"):
        shipper.ship()


def test_nonsense_is_refused(tmp_path: Path) -> None:
    """What is no sink, no number, or no state of a shipper is an error that names the argument."""
    (tmp_path / "state").write_text("SECRET")
    makes: dict[str, Callable[[], Shipper]] = {
        "sinks": lambda: Shipper(tmp_path, "x", tmp_path / "new"),  # type: ignore[arg-type]
        "batch": lambda: Shipper(tmp_path, MemorySink(), tmp_path / "new", batch=0),
        "timeout": lambda: Shipper(tmp_path, MemorySink(), tmp_path / "new", timeout=0),
        "state": lambda: Shipper(tmp_path, MemorySink(), tmp_path / "state"),
    }
    for argument, make in makes.items():
        with pytest.raises(InvalidArgument, match=f"`{argument}`") as caught:
            make()
        assert "SECRET" not in str(caught.value)
