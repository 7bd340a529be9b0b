"""Test replaying on Apache Spark, in local mode: `make test-spark`, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from agentauthz import InvalidArgument, PolicySet
from agentauthz.replay import replay as replayed
from agentauthz.replay.batches import ROWS_OUT, batches_of, compared, replay_batches
from agentauthz.replay.spark import replay
from tests import replay_lines
from tests.golden import ROOT

POLICIES = PolicySet.parse(replay_lines.NEW)


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """Run Spark on two threads of this machine."""
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        pytest.skip("pyspark isn't in this environment: `make test-spark` has it")
    java = subprocess.run([ROOT / ".ci" / "find_java.sh"], capture_output=True, text=True, check=False)
    if java.returncode:
        pytest.skip(f"Spark can't run here: {java.stdout.strip()}")
    os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    options = {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.sql.shuffle.partitions": "3"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Spark's own, of its own dependencies
        session = SparkSession.builder.master("local[2]").config(map=options).getOrCreate()
        yield session
        session.stop()


def table(lines: list[bytes | None], kind: pa.DataType | None = None) -> pa.Table:
    """Return lines as a table."""
    return pa.table({"line": pa.array(lines, kind or pa.binary())})


def on_spark(spark: Any, lines: list[bytes | None], partitions: int = 3) -> pa.Table:
    """Return what came of lines."""
    return replay(spark.createDataFrame(table(lines)).repartition(partitions), POLICIES).toArrow()


def ordered(rows: pa.Table) -> list[dict[str, Any]]:
    """Return rows in one order, whoever made them."""
    assert rows.schema.names == ROWS_OUT.names
    return sorted(rows.to_pylist(), key=repr)


def test_one_process_a_pool_and_spark_give_the_same(spark: Any) -> None:
    """Some thousand records of every kind, damaged and null lines among them, come out alike, row by row."""
    lines: list[bytes | None] = [*replay_lines.lines(250), None]
    assert len(lines) > 2500
    batches = table(lines).to_batches(max_chunksize=500)
    single = list(replay_batches(batches, POLICIES))
    pool = list(replay_batches(batches, POLICIES, workers=2))
    assert single == pool
    distributed = on_spark(spark, lines)
    assert ordered(distributed) == ordered(pa.Table.from_batches(single))
    alone = replayed([line or b"" for line in lines], POLICIES)
    assert compared(single, POLICIES) == alone
    there = compared(distributed.to_batches(), POLICIES)
    assert (there.total, there.same, there.unasked) == (alone.total, alone.same, alone.unasked)
    assert sorted(there.not_replayable) == sorted(alone.not_replayable)
    assert {rule: len(ones) for rule, ones in there.by_rule("newly allowed").items()} == {
        rule: len(ones) for rule, ones in alone.by_rule("newly allowed").items()
    }
    assert alone.changed
    assert len(alone.not_replayable) > 5


@pytest.mark.parametrize("lines", [[], [None], replay_lines.lines(1)[1:2], [b"{"]], ids=["none", "null", "one", "bad"])
def test_little_comes_out_alike_too(spark: Any, lines: list[bytes | None]) -> None:
    """No line, a null, one record, and one that is none: empty partitions and workers without work change nothing."""
    single = pa.Table.from_batches(replay_batches(table(lines).to_batches(), POLICIES), schema=ROWS_OUT)
    assert ordered(on_spark(spark, lines)) == ordered(single)


def test_spark_reads_folders_of_lines_and_parquet(spark: Any, tmp_path: Any) -> None:
    """Text files as a log has them and Parquet that Spark wrote come out as the lines themselves do."""
    lines = [line for line in replay_lines.lines(20) if line.startswith(b'{"v":"1.0"') and b"\\ud800" not in line]
    (tmp_path / "log.ndjson").write_bytes(b"".join(lines))
    text = spark.read.text(str(tmp_path / "log.ndjson"), lineSep="\n").toDF("line")
    text.write.parquet(str(tmp_path / "lines"))
    single = ordered(pa.Table.from_batches(replay_batches(batches_of(lines), POLICIES)))
    for df in (text, spark.read.parquet(str(tmp_path / "lines"))):
        assert ordered(replay(df, POLICIES).toArrow()) == single


def test_changes_are_grouped_where_they_are(spark: Any) -> None:
    """The kind of a change and the rules that make it are columns, so Spark itself counts by them."""
    lines = replay_lines.lines(50)
    rows = replay(spark.createDataFrame(table([*lines])), POLICIES)
    rows.createOrReplaceTempView("came")
    counted = spark.sql("SELECT kind, rule, count(*) AS n FROM came LATERAL VIEW explode(rules) AS rule GROUP BY 1, 2")
    found = {(row.kind, row.rule): row.n for row in counted.collect()}
    alone = replayed(lines, POLICIES)
    kinds = {one.kind for one in alone.changed}
    assert kinds == {"newly allowed", "newly denied", "other"}
    assert found == {(kind, rule): len(ones) for kind in kinds for rule, ones in alone.by_rule(kind).items()}


def test_a_wrong_frame_is_refused_at_once(spark: Any) -> None:
    """One without lines, one with numbers for lines, none at all, and no policies: nothing is run for them."""
    for df, told in (
        (spark.createDataFrame(pa.table({"text": ["{}"]})), "`line`"),
        (spark.createDataFrame(pa.table({"line": [1]})), "bigint"),
        (object(), "data frame"),
    ):
        with pytest.raises(InvalidArgument, match=told):
            replay(df, POLICIES)
    with pytest.raises(InvalidArgument, match="policies"):
        replay(spark.createDataFrame(table([b"{}"])), "p.authz")  # type: ignore[arg-type]
