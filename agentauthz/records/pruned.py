"""Hold what is left of pruned segments, the hashes of their records, to what the log says of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, final

from attrs import frozen

from agentauthz.records.catalog import leaves
from agentauthz.records.damage import Damage, Kind
from agentauthz.records.merkle import Tree, leaf_hash
from agentauthz.records.scan import first_record, head

_TOLD: Final = b'"type":"log.pruned"'


@final
@frozen
class Prune:
    """Be what a record, number `seq` of `stream`, says: of the stream `of` all before record `before` was let go of."""

    stream: str
    seq: int
    leaf: bytes
    of: str
    before: int


def prunes_in(data: bytes) -> Iterator[Prune]:
    """Yield what the records among some lines say of pruning; a damaged one says nothing."""
    if _TOLD in data:  # hardly ever, and quickly seen
        told = (_prune(line) for line in data.split(b"\n") if _TOLD in line)
        yield from (each for each in told if each is not None)


def _prune(line: bytes) -> Prune | None:
    try:
        tree = json.loads(line)
        of, before = (
            (tree["about"][name] for name in ("stream", "from_seq")) if tree["type"] == "log.pruned" else ("", 0)
        )
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    if (place := head(line)) is None or not isinstance(of, str) or type(before) is not int:
        return None
    return Prune(place.stream.decode(errors="replace"), place.seq, leaf_hash(line), of, before)


def vouched(left: Mapping[str, int], prunes: Iterable[Prune]) -> dict[str, list[Prune]]:
    """Return by stream what says that its text went, of all the records of which nothing but hashes is `left`."""
    found: dict[str, list[Prune]] = {}
    for each in prunes:
        if each.before >= left.get(each.of, each.before + 1):
            found.setdefault(each.of, []).append(each)
    return found


def untold(prunes: Iterable[Prune], gone: Mapping[str, range]) -> Iterator[tuple[str, int]]:
    """Return what nothing would say any more once the records numbered in `gone`, by stream, are let go of too."""
    kept: dict[str, int] = {}
    lost: dict[str, int] = {}
    for each in prunes:
        told = lost if each.seq in gone.get(each.stream, ()) else kept
        told[each.of] = max(told.get(each.of, 0), each.before)
    return ((of, before) for of, before in lost.items() if kept.get(of, 0) < before)


def hashes_left(stream: Path, files: Sequence[Path]) -> tuple[list[bytes], list[Damage]]:
    """Return the hashes that are left of a stream's pruned segments, and what is wrong with them.

    They must be those that the first of `files`, the segments that are there, goes on from.
    """
    there = {file.stem for file in files}
    kept: list[bytes] = []
    wrong: list[Damage] = []

    def add(kind: Kind, text: str, seq: int) -> None:
        wrong.append(Damage(kind, stream.name, text, seq))

    for first, file in leaves(stream):
        if file.stem in there:  # the segment itself hasn't gone yet
            continue
        if first != len(kept):
            add("deleted", "the hashes of a pruned segment are missing", len(kept))
        data = file.read_bytes()
        if len(data) % 32:
            add("edited", "the hashes of a pruned segment aren't what was written", first)
        kept += [data[i : i + 32] for i in range(0, len(data) - 31, 32)]
    if kept and files and _tree(files[0]) != _peaks(kept):
        add("edited", "the hashes of pruned segments aren't what was written", 0)
    return kept, wrong


def _tree(segment: Path) -> object:
    about = first_record(segment).get("about")
    return about.get("tree") if isinstance(about, dict) else None


def _peaks(hashes: Sequence[bytes]) -> list[str]:
    tree = Tree()
    tree.extend(hashes)
    return [peak.hex() for peak in tree.peaks]
