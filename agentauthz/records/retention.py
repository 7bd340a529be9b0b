"""Let go of old records without letting go of the proof: whole segments go, and their hashes stay."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, cast

from agentauthz.records.catalog import segments
from agentauthz.records.recovery import last_line
from agentauthz.records.verify import Leaves, Report

_OPEN: Final = 1 << 63  # the end of a segment that none follows


def candidates(
    folder: Path, report: Report, before: dt.datetime, *, witnessed: bool, own: str | None = None
) -> Iterator[tuple[str, list[tuple[int, int, Path]]]]:
    """Return the streams that segments may go of, each with those, as `prunable` tells.

    Those that are damaged stay, and those that somebody other than `own` writes. `witnessed`: only what a witness has
    seen may go.
    """
    damaged = {damage.stream for damage in report.damages}
    for each in report.streams:
        if each.id in damaged or (each.live and each.id != own):
            continue
        if may := prunable(folder / each.id, before, each.witnessed if witnessed else each.size, each.live):
            yield each.id, may


def prunable(stream: Path, before: dt.datetime, size: int, live: bool) -> list[tuple[int, int, Path]]:
    """Return the segments of a stream that may go, from the oldest on: number of the first record, end, file.

    They end before `before`, and within the first `size` records; the one that is written now stays.
    """
    found = segments(stream)
    ends = [first for first, _ in found[1:]]
    if not live:
        ends.append(_OPEN)
    may: list[tuple[int, int, Path]] = []
    for (first, path), end in zip(found, ends, strict=False):
        line = last_line(path)
        if line is None:
            break
        try:
            tree = json.loads(line)
            if dt.datetime.fromisoformat(tree["ts"]) >= before or tree["seq"] >= size:
                break
        except (ValueError, TypeError, LookupError, RecursionError):  # when it ended, nobody knows
            break
        may.append((first, tree["seq"] + 1 if end == _OPEN else end, path))
    return may


def drop(leaves: Leaves, may: Sequence[tuple[int, int, Path]]) -> None:
    """Replace segments by the hashes of their lines.

    Raises:
        OSError: the disk refuses; what went is proven all the same.
    """
    for first, end, path in may:
        hashes = b"".join(cast("list[bytes]", leaves[first:end]))
        kept = path.with_suffix(".leaves")
        fresh = path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(hashes)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, kept)
        path.unlink()  # whoever reads meanwhile finds the segment, and doesn't ask for its hashes
