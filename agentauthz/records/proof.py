"""Prove that one record is in a log, without showing the others (C2SP tlog-proof)."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, cast, final

from attrs import frozen

from agentauthz.errors import InvalidArgument
from agentauthz.records.catalog import CHECKPOINTS
from agentauthz.records.checkpoints import Checkpoint, Vkey, read_checkpoint, read_checkpoints, verified_by
from agentauthz.records.merkle import inclusion_proof, leaf_hash, root_of, verify_inclusion
from agentauthz.records.reading import log_lines, tree_of
from agentauthz.records.verify import Leaves, verified
from agentauthz.records.witnessed import Kept, texts

_FIRST: Final = "c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})")


@final
@frozen
class Proven:
    """Be a record's line, and the text that proves that it is in the log of a signed checkpoint."""

    line: bytes
    proof: str


def prove(
    folder: str | os.PathLike[str],
    id: str,
    *,
    keys: Iterable[str],
    checkpoint: Kept = None,
) -> Proven:
    """Return the proof that the record of that id is in a log, up to a checkpoint that one of `keys` signed.

    It is the newest one that fits, of `checkpoint` (kept elsewhere, as for `verify`) or of those beside the log.

    Raises:
        InvalidArgument: there is no such record, or no such checkpoint covers it, or as for `verify`.
    """
    trusted = list(keys)
    line, stream, seq = _found(Path(folder), id)
    elsewhere = texts(checkpoint)
    leaves = verified(folder, elsewhere, trusted)[1].get(stream, [])
    if seq >= len(leaves) or leaves[seq] != leaf_hash(line.rstrip(b"\n")):
        raise InvalidArgument("id", "is of a record that isn't where it says: see `agentauthz records verify`")
    for each in _checkpoints(Path(folder), elsewhere, trusted, stream):
        if (below := _covered(leaves, each, seq)) is not None:
            hashes = inclusion_proof(below, seq)
            return Proven(line, "\n".join([_FIRST, f"index {seq}", *map(_base64, hashes), "", each.note]))
    raise InvalidArgument("checkpoint", "must cover the record, fit the log and be signed by one of `keys`: none does")


def check_proof(proof: str, line: bytes, keys: Iterable[str]) -> Checkpoint:
    """Return the checkpoint of a log that `line` is proven to be in.

    Raises:
        InvalidArgument: the text is no proof, proves another line, or none of `keys` signed its checkpoint.
    """
    head, _, note = proof.partition("\n\n")
    lines = head.split("\n")
    place = _INDEX.fullmatch(lines[1]) if len(lines) > 1 else None
    if lines[0] != _FIRST or place is None:
        raise InvalidArgument("proof", f"must begin with `{_FIRST}` and an index")
    try:
        path = [base64.b64decode(each, validate=True) for each in lines[2:]]
    except binascii.Error:
        raise InvalidArgument("proof", "must have hashes in base 64") from None
    checkpoint = read_checkpoint(note)
    if verified_by(checkpoint, [Vkey.of(key) for key in keys]) is None:
        raise InvalidArgument("proof", "has a checkpoint that none of `keys` signed")
    verify_inclusion(leaf_hash(line.rstrip(b"\n")), int(place[1]), checkpoint.size, path, checkpoint.root)
    return checkpoint


def _found(folder: Path, id: str) -> tuple[bytes, str, int]:
    wanted = id.encode(errors="replace")
    for line in log_lines(folder):
        if wanted in line and (tree := tree_of(line)) is not None and tree.get("id") == id:
            if isinstance(tree.get("stream"), str) and type(tree.get("seq")) is int and tree["seq"] >= 0:
                return line, tree["stream"], tree["seq"]
    raise InvalidArgument("id", f"is of no record in `{folder}`: {id}")


def _checkpoints(folder: Path, elsewhere: Sequence[str], keys: Sequence[str], stream: str) -> Iterator[Checkpoint]:
    """Return the checkpoints of a stream that a trusted key signed, the newest first."""
    trusted = [Vkey.of(key) for key in keys]
    path = folder / CHECKPOINTS
    given = elsewhere or ([path.read_text("utf-8", errors="replace")] if path.exists() else [])
    found = (each for text in given for each in read_checkpoints(text))
    own = [each for each in found if each.stream == stream and verified_by(each, trusted) is not None]
    yield from sorted(own, key=lambda each: -each.size)


def _covered(leaves: Leaves, checkpoint: Checkpoint, seq: int) -> Sequence[bytes] | None:
    """Return the hashes that a checkpoint covers, if it covers the record and they are what was signed."""
    below = leaves[: checkpoint.size]
    if seq >= checkpoint.size or len(below) < checkpoint.size or None in below:
        return None
    known = cast("Sequence[bytes]", below)
    return known if root_of(known) == checkpoint.root else None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
