"""Replay Arrow batches of lines: one kernel, in this process or in a pool of them; Parquet in, Parquet out."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final, TypeAlias

from agentauthz.errors import InvalidArgument
from agentauthz.policy.policyset import PolicySet
from agentauthz.replay.answer import Answer
from agentauthz.replay.compare import Comparison, Replayed
from agentauthz.replay.replayer import Came, Replayer, Result

try:
    import pyarrow as pa
    import pyarrow.compute as pc
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
_OF_RECORD: Final = (("id", pa.string()), ("ts", pa.string()))
_OF_RESULT: Final = (
    ("action", pa.string()),
    ("state", pa.string()),
    ("kind", pa.string()),  # of a change
    ("rules", pa.list_(pa.string())),  # which make the change
    ("before", _ANSWER),
    ("after", _ANSWER),
    ("why", pa.string()),
)
ROWS_OUT: Final = pa.schema([*_OF_RECORD, *_OF_RESULT])


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


# ---- the kernel


def replay_batch(batch: Any, replayer: Replayer) -> Any:
    """Return what came of each decision in a batch with a column `line`: the kernel, wherever it runs.

    A line that is null or no record comes out as not replayable.

    Raises:
        InvalidArgument: the batch has no such column, or it holds neither bytes nor text.
    """
    return _rows([came for line in _lines(batch) if (came := replayer.came(line)) is not None])


def texts_of(policies: PolicySet) -> Texts:
    """Return what `replayer_of` makes the same policies from, in any process.

    Raises:
        InvalidArgument: `policies` is no PolicySet.
    """
    if type(policies) is not PolicySet:
        raise InvalidArgument("policies", f"must be a PolicySet, not {type(policies).__name__}")
    return tuple((source.name, source.text) for source in policies.sources)


@functools.lru_cache(maxsize=1)
def replayer_of(texts: Texts) -> Replayer:
    """Return the replayer of this process: what it knows from one batch, it knows in the next."""
    return Replayer(PolicySet.of_texts(texts))


def _lines(batch: Any) -> Iterator[bytes]:
    if not isinstance(batch, pa.RecordBatch) or batch.schema.names.count("line") != 1:
        raise InvalidArgument(
            "batch", "must be a record batch with one column `line`, which holds the lines of records"
        )
    column = batch.column("line")
    held = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not any(holds(held) for holds in _TEXTS):
        raise InvalidArgument("batch", f"must hold lines as bytes or text in its column `line`, not {held}")
    lines = column.cast(held).cast(pa.large_binary()).fill_null(b"")
    _, offsets, data = lines.buffers()
    if data is None or offsets is None:  # nothing but empty lines
        return iter([b""] * len(lines))
    ends = memoryview(offsets).cast("q")[lines.offset : lines.offset + len(lines) + 1].tolist()
    whole = memoryview(data)
    return (bytes(whole[begin:end]) for begin, end in itertools.pairwise(ends))


_TEXTS: Final = (
    pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view,
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
)  # fmt: skip


def _rows(came: Sequence[Came]) -> Any:
    """Return what came of records as one batch: each result is written once, and taken for all of its records."""
    places: dict[Result, int] = {}
    taken = pa.array([places.setdefault(result, len(places)) for _, _, result in came], pa.int64())
    told = pa.RecordBatch.from_pylist([_told(result) for result in places], schema=pa.schema(_OF_RESULT)).take(taken)
    own = [pa.array([one[i] for one in came], kind) for i, (_, kind) in enumerate(_OF_RECORD)]
    return pa.record_batch([*own, *told.columns], schema=ROWS_OUT)


def _told(result: Result) -> dict[str, Any]:
    told: dict[str, Any] = {"action": result.action, "state": result.state, "why": result.why}
    told |= {"before": _told_answer(result.before), "after": _told_answer(result.after)}
    if result.state == "changed":
        change = Replayed.of("", "", result)
        told |= {"kind": change.kind, "rules": change.rules}
    return told


def _told_answer(answer: Answer | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    return {"outcome": answer.outcome, "basis": answer.basis, "rules": answer.rules, "more": answer.more}


# ---- many batches


def replay_batches(batches: Iterable[Any], policies: PolicySet, *, workers: int = 1) -> Iterator[Any]:
    """Return what came of each decision, batch by batch, in their order; with `workers` above 1, in a pool.

    Raises:
        InvalidArgument: as `replay_batch`, or `policies` is no PolicySet.
    """
    texts = texts_of(policies)
    if workers <= 1:
        replayer = Replayer(policies)
        return (replay_batch(batch, replayer) for batch in batches)
    return _pooled(batches, texts, workers)


def _pooled(batches: Iterable[Any], texts: Texts, workers: int) -> Iterator[Any]:
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


def _in_pool(batch: Any, texts: Texts) -> Any:
    return replay_batch(batch, replayer_of(texts))


def compared(batches: Iterable[Any], policies: PolicySet) -> Comparison:
    """Return the whole of what came, from the batches that any replay under `policies` made, in their order."""
    comparison = Comparison(policies.digest)
    for batch in batches:
        state = batch.column("state")
        unasked, same = (pc.sum(pc.equal(state, name)).as_py() or 0 for name in ("unasked", "same"))
        comparison.same += same + unasked
        comparison.unasked += unasked
        for row in batch.filter(pc.invert(pc.is_in(state, pa.array(["same", "unasked"])))).to_pylist():
            answers = _answer(row["before"]), _answer(row["after"])
            comparison.count(row["id"], row["ts"], Result(row["action"], row["state"], *answers, row["why"]))
    return comparison.settle()


def _answer(told: dict[str, Any] | None) -> Answer | None:
    return None if told is None else Answer(told["outcome"], told["basis"], tuple(told["rules"]), told["more"])
