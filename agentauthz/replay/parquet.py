"""Keep lines of records, and what came of them, in Parquet files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from agentauthz.errors import InvalidArgument
from agentauthz.policy.policyset import PolicySet
from agentauthz.replay.batches import LINES, ROWS, ROWS_OUT, batches_of, compared, replay_batches
from agentauthz.replay.compare import Comparison

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as cause:  # pragma: no cover  (who has no pyarrow can't run what covers this)
    raise ImportError("Parquet needs pyarrow: install `agentauthz[replay]`") from cause

SUFFIX: Final = ".parquet"


def parquet_batches(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Return the column `line` of a Parquet file, or of all in a folder in the order of their names, in batches.

    Raises:
        InvalidArgument: there is none, or a file isn't Parquet.
        OSError: a file can't be read.
    """
    own = Path(path)
    files = sorted(own.glob(f"*{SUFFIX}")) if own.is_dir() else [own]
    if not files:
        raise InvalidArgument("PATH", f"holds no records: `{own}` has no Parquet file")
    for file in files:
        try:
            yield from pq.ParquetFile(file).iter_batches(ROWS, columns=["line"])
        except pa.ArrowInvalid:
            raise InvalidArgument("PATH", f"must hold Parquet, and `{file}` can't be read as that") from None


def write_lines(lines: Iterable[bytes], target: str | os.PathLike[str]) -> None:
    """Write the lines of a log to a Parquet file with one column, `line`.

    Raises:
        OSError: the file can't be written.
    """
    with _whole(target, LINES) as writer:
        for batch in batches_of(lines):
            writer.write_batch(batch)


def write_rows(batches: Iterable[Any], target: str | os.PathLike[str]) -> Iterator[Any]:
    """Write the batches that a replay made to a Parquet file, and return each once it is written.

    Raises:
        OSError: the file can't be written.
    """
    with _whole(target, ROWS_OUT) as writer:
        for batch in batches:
            writer.write_batch(batch)
            yield batch


def replay_parquet(
    source: str | os.PathLike[str], target: str | os.PathLike[str], policies: PolicySet, *, workers: int | None = None
) -> Comparison:
    """Replay Parquet with a column `line`, write what came of each decision to another file, and return the whole.

    `source` is a file, or a folder of them. `workers` None: one for each processor.

    Raises:
        InvalidArgument: as `parquet_batches` and `replay_batch`.
        OSError: a file can't be read or written.
    """
    many = os.cpu_count() or 1 if workers is None else workers
    return compared(write_rows(replay_batches(parquet_batches(source), policies, workers=many), target), policies)


@contextmanager
def _whole(target: str | os.PathLike[str], schema: Any) -> Iterator[Any]:
    """Write a file that is there only once it is whole: half of a replay must not pass for one."""
    path = Path(target)
    part = path.with_name(f"{path.name}.part")
    try:
        with pq.ParquetWriter(part, schema) as writer:
            yield writer
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
