"""Replay Arrow batches of lines: one kernel, in this process or in a pool of them; Parquet in, Parquet out."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final, TypeAlias

from agentauthz.errors import InvalidArgument
from agentauthz.policy.policyset import PolicySet
from agentauthz.replay.answer import Answer, Asker
from agentauthz.replay.compare import Comparison, Replayed, replayed

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as cause:  # pragma: no cover  (who has no pyarrow can't run what covers this)
    raise ImportError("replaying batches needs pyarrow: install `agentauthz[replay]`") from cause

Texts: TypeAlias = tuple[tuple[str, str], ...]  # the files of a policy set, which travel between processes

ROWS: Final = 20_000  # lines of one batch
_ANSWER: Final = pa.struct(
    [
        ("outcome", pa.string()),
        ("basis", pa.string()),
        ("rules", pa.list_(pa.string())),
        ("more", pa.int64()),
    ]
)
LINES: Final = pa.schema([("line", pa.binary())])
ROWS_OUT: Final = pa.schema(
    [
        ("id", pa.string()),
        ("ts", pa.string()),
        ("action", pa.string()),
        ("state", pa.string()),
        ("before", _ANSWER),
        ("after", _ANSWER),
        ("why", pa.string()),
    ]
)


def batches_of(lines: Iterable[bytes], rows: int = ROWS) -> Iterator[Any]:
    """Return the lines of a log as Arrow batches with one column, `line`."""
    waiting: list[bytes] = []
    for line in lines:
        waiting.append(line)
        if len(waiting) == rows:
            yield pa.record_batch([pa.array(waiting, pa.binary())], schema=LINES)
            waiting = []
    if waiting:
        yield pa.record_batch([pa.array(waiting, pa.binary())], schema=LINES)


def replay_batch(batch: Any, asker: Asker) -> Any:
    """Return what came of each decision in a batch with a column `line`: the kernel, wherever it runs.

    Raises:
        InvalidArgument: the batch has no such column.
    """
    if "line" not in batch.schema.names:
        raise InvalidArgument("batch", "must have a column `line`, which holds the lines of records")
    found = replayed(map(_bytes, batch.column("line").to_pylist()), asker)
    rows = [{**_named(one), "before": _told(one.before), "after": _told(one.after)} for one in found]
    return pa.RecordBatch.from_pylist(rows, schema=ROWS_OUT)


def replay_batches(batches: Iterable[Any], policies: PolicySet, *, workers: int = 1) -> Iterator[Any]:
    """Return what came of each decision, batch by batch, in their order; with `workers` above 1, in a pool.

    Raises:
        InvalidArgument: as `replay_batch`.
    """
    if workers <= 1:
        asker = Asker(policies)
        yield from (replay_batch(batch, asker) for batch in batches)
        return
    texts = tuple((source.name, source.text) for source in policies.sources)
    # spawned, not forked: threads of the host may hold locks
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) as pool:
        waiting: list[Any] = []
        for batch in batches:
            waiting.append(pool.submit(_in_pool, batch, texts))
            if len(waiting) > 2 * workers:  # a log may be longer than memory
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def replay_parquet(
    source: str | os.PathLike[str], target: str | os.PathLike[str], policies: PolicySet, *, workers: int | None = None
) -> Comparison:
    """Replay a Parquet file with a column `line`, write what came of each decision to another, and return the whole.

    `workers` None: one for each processor.

    Raises:
        InvalidArgument: as `replay_batch`.
        OSError: a file can't be read or written.
    """
    comparison = Comparison(policies.digest)
    lines = pq.ParquetFile(source).iter_batches(ROWS, columns=["line"])
    with pq.ParquetWriter(target, ROWS_OUT) as writer:
        for batch in replay_batches(lines, policies, workers=os.cpu_count() or 1 if workers is None else workers):
            writer.write_batch(batch)
            for one in replayed_rows(batch):
                comparison.add(one)
    return comparison.settle()


def replayed_rows(batch: Any) -> Iterator[Replayed]:
    """Return the rows of a batch that `replay_batch` made."""
    for row in batch.to_pylist():
        before, after = _answer(row.pop("before")), _answer(row.pop("after"))
        yield Replayed(before=before, after=after, **row)


@functools.lru_cache(maxsize=1)
def _asker(texts: Texts) -> Asker:
    return Asker(PolicySet.of_texts(texts))


def _in_pool(batch: Any, texts: Texts) -> Any:
    return replay_batch(batch, _asker(texts))


def _bytes(line: Any) -> bytes:
    return line if isinstance(line, bytes) else str(line or "").encode(errors="replace")


def _named(one: Replayed) -> dict[str, Any]:
    return {"id": one.id, "ts": one.ts, "action": one.action, "state": one.state, "why": one.why}


def _told(answer: Answer | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    return {"outcome": answer.outcome, "basis": answer.basis, "rules": answer.rules, "more": answer.more}


def _answer(told: dict[str, Any] | None) -> Answer | None:
    return None if told is None else Answer(told["outcome"], told["basis"], tuple(told["rules"]), told["more"])
