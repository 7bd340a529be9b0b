"""Replay records on Apache Spark: the kernel of the batches, run wherever the data are."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from agentauthz.errors import InvalidArgument
from agentauthz.policy.policyset import PolicySet
from agentauthz.replay.batches import Texts, replay_batch, replayer_of, texts_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_ANSWER: Final = "struct<outcome: string, basis: string, rules: array<string>, more: bigint>"
COLUMNS: Final = (
    "id string, ts string, action string, state string, kind string, rules array<string>, "
    f"before {_ANSWER}, after {_ANSWER}, why string"
)
_TEXTS: Final = ("binary", "string")


def replay(df: DataFrame, policies: PolicySet) -> DataFrame:
    """Return a data frame of what came of each decision, from one with a column `line`, which Spark works out lazily.

    Each worker needs this package and pyarrow. The columns are those of `agentauthz.replay.batches.ROWS_OUT`.

    Raises:
        InvalidArgument: `df` has no such column of bytes or text, or `policies` is no PolicySet.
    """
    texts = texts_of(policies)
    types = dict(getattr(df, "dtypes", ()))
    if "line" not in types:
        raise InvalidArgument("df", "must be a Spark data frame with a column `line`, which holds the lines of records")
    if types["line"] not in _TEXTS:
        raise InvalidArgument("df", f"must hold lines as bytes or text in its column `line`, not {types['line']}")
    return df.select("line").mapInArrow(functools.partial(_replayed, texts), COLUMNS)


def _replayed(texts: Texts, batches: Iterator[Any]) -> Iterator[Any]:
    replayer = replayer_of(texts)
    for batch in batches:
        yield replay_batch(batch, replayer)
