"""The command `records query`, and the filters behind it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from agentauthz.errors import InvalidArgument
from agentauthz.records import DecisionRecord
from agentauthz.records.query import Query, query
from tests import logs
from tests.commands import decisions, ran, written


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the log of two sessions."""
    folder = tmp_path_factory.mktemp("log") / "records"
    written(folder)
    return folder


@pytest.mark.parametrize(
    ("argv", "count"),
    [
        ([], 8),
        (["--outcome", "deny"], 2),
        (["--outcome", "review"], 1),
        (["--action", "shop.find"], 2),
        (["--action", "shop.*", "--outcome", "allow"], 5),
        (["--subject", "maria"], 7),
        (["--subject", "user:otto"], 1),
        (["--subject", "agent:otto"], 0),
        (["--actor", "finder"], 2),
        (["--actor", "agent:bot"], 6),
        (["--session", "conversation-8"], 1),
        (["--rule", "stranger"], 1),
        (["--since", "2000-01-01T00:00:00Z", "--until", "2100-01-01T00:00:00+02:00"], 8),
        (["--until", "2000-01-01T00:00:00Z"], 0),
    ],
)
def test_filters(log: Path, argv: list[str], count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Each filter leaves what meets it, one line each; nothing found exits with 1."""
    found = ran(capsys, "query", log, *argv)
    assert len(found.out.splitlines()) == count
    assert found.code == (0 if count else 1)


def test_moments_begin_and_end(log: Path) -> None:
    """`since` is the first moment that counts, and `until` the first that doesn't."""
    lines = logs.lines(log)
    second = decisions(log)[1]
    found = [each.id for each in query(lines, Query(since=second.ts, until=second.ts + dt.timedelta(microseconds=1)))]
    assert found == [second.id]
    assert second.id not in [each.id for each in query(lines, Query(until=second.ts))]


def test_records_come_out_as_they_were_written(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints the records' own lines, byte for byte."""
    found = ran(capsys, "query", log, "--json", "--outcome", "deny")
    lines = found.out.encode().splitlines(keepends=True)
    assert set(lines) <= set(logs.lines(log))
    assert [json.loads(line)["outcome"] for line in lines] == ["deny", "deny"]


def test_wrong_filters_are_refused(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A moment without a zone, a malformed pattern and another outcome are usage, not an empty answer."""
    for argv in (["--since", "2026-11-23T09:00:00"], ["--action", "a*b"], ["--outcome", "allowed"], ["--rule"]):
        assert ran(capsys, "query", log, *argv).code == 4
    assert ran(capsys, "query", log / "nothing").code == 4
    with pytest.raises(InvalidArgument):
        Query(since=dt.datetime(2026, 11, 23))  # noqa: DTZ001
    with pytest.raises(InvalidArgument):
        Query(outcome="allowed")


def test_lines_of_any_shape_are_no_answer() -> None:
    """A line that is no decision, whatever it holds, meets no filter and stops nothing."""
    shapes = [b"", b"[]", b"{}", b"\xff\n", b'{"v":"1.0","type":"decision"}', b"[" * 100_000]
    shapes += [b'{"v":"1.7","type":"decision","actors":[],"action":{"name":1},"ts":1}']
    wanted = Query(action="a", subject="x", actor="y", since=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    assert list(query(shapes, wanted)) == []
    assert list(query(shapes, Query())) == []


def test_every_decision_is_found(log: Path) -> None:
    """Without a filter, all decisions come out in order, and nothing else."""
    found = list(query(logs.lines(log), Query()))
    assert all(type(each) is DecisionRecord for each in found)
    assert [each.id for each in found] == [each.id for each in decisions(log)]
