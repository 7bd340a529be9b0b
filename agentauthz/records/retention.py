"""Let go of old records without letting go of the proof: whole segments go, and their hashes stay."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, cast, final

from attrs import frozen

from agentauthz.records.catalog import segments, used
from agentauthz.records.pruned import Prune, untold
from agentauthz.records.recovery import last_line
from agentauthz.records.verify import Leaves, Report

_OPEN: Final = 1 << 63  # the end of a segment that none follows


@final
@frozen
class Old:
    """Be a segment that may go: the numbers of its first record and of the one after its last, and its last moment."""

    first: int
    end: int
    path: Path
    ended: dt.datetime


def candidates(
    folder: Path,
    report: Report,
    before: dt.datetime,
    *,
    witnessed: bool,
    own: str | None = None,
    max_bytes: int | None = None,
) -> list[tuple[str, list[Old]]]:
    """Return the streams that segments may go of, each with those, as `prunable` tells.

    Those that are damaged stay, and those that somebody other than `own` writes. `witnessed`: only what a witness has
    seen may go. `max_bytes`: of all that may, only the oldest, until so much is left.
    """
    found = list(_may_go(folder, report, before, witnessed, own))
    return found if max_bytes is None else _oldest(found, used(folder) - max_bytes)


def _may_go(
    folder: Path, report: Report, before: dt.datetime, witnessed: bool, own: str | None
) -> Iterator[tuple[str, list[Old]]]:
    damaged = {damage.stream for damage in report.damages}
    for each in report.streams:
        if each.id in damaged or (each.live and each.id != own):
            continue
        if may := prunable(folder / each.id, before, each.witnessed if witnessed else each.size, each.live):
            yield each.id, may


def _oldest(found: list[tuple[str, list[Old]]], excess: int) -> list[tuple[str, list[Old]]]:
    """Return of each stream the oldest segments, as many as it takes to be rid of `excess` bytes."""
    left = {stream: deque(may) for stream, may in found}
    chosen: dict[str, list[Old]] = {}
    while excess > 0 and (waiting := [stream for stream, may in left.items() if may]):
        stream = min(waiting, key=lambda name: left[name][0].ended)  # in a stream one goes only after those before it
        chosen.setdefault(stream, []).append(gone := left[stream].popleft())
        excess -= gone.path.stat().st_size
    return list(chosen.items())


def prunable(stream: Path, before: dt.datetime, size: int, live: bool) -> list[Old]:
    """Return the segments of a stream that may go, from the oldest on.

    They end before `before`, and within the first `size` records; the one that is written now stays.
    """
    found = segments(stream)
    ends = [first for first, _ in found[1:]]
    if not live:
        ends.append(_OPEN)
    may: list[Old] = []
    for (first, path), end in zip(found, ends, strict=False):
        line = last_line(path)
        if line is None:
            break
        try:
            tree = json.loads(line)
            ended = dt.datetime.fromisoformat(tree["ts"])
            if ended >= before or tree["seq"] >= size:
                break
        except (ValueError, TypeError, LookupError, RecursionError):  # when it ended, nobody knows
            break
        may.append(Old(first, tree["seq"] + 1 if end == _OPEN else end, path, ended))
    return may


def tales(found: Sequence[tuple[str, list[Old]]], prunes: Iterable[Prune]) -> Iterator[Mapping[str, object]]:
    """Return what is to be told before segments go: that they do, and what was told in them of others before."""
    gone = {stream: range(may[0].first, may[-1].end) for stream, may in found}
    for stream, before in untold(prunes, gone):
        if stream not in gone:
            yield {"stream": stream, "from_seq": before, "segments": []}
    for stream, may in found:
        yield {"stream": stream, "from_seq": may[-1].end, "segments": [old.first for old in may[-1_000:]]}


def drop(leaves: Leaves, may: Sequence[Old]) -> None:
    """Replace segments by the hashes of their lines.

    Raises:
        OSError: the disk refuses; what went is proven all the same.
    """
    for old in may:
        path, hashes = old.path, b"".join(cast("list[bytes]", leaves[old.first : old.end]))
        kept = path.with_suffix(".leaves")
        fresh = path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(hashes)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, kept)
        path.unlink()  # whoever reads meanwhile finds the segment, and doesn't ask for its hashes
