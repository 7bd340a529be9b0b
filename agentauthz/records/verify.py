"""Say what a log proves: whether it was changed, what is missing, and what nobody can tell from it alone."""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import os
from binascii import hexlify
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, TypeAlias, final

from attrs import field, frozen

from agentauthz.errors import InvalidArgument
from agentauthz.records.agreement import Stretch, agreement
from agentauthz.records.catalog import (
    CHECKPOINTS,
    STREAM,
    Claim,
    entries,
    log_folder,
    read_catalog,
    segment_path,
    segments,
    streams,
)
from agentauthz.records.checkpoints import Checkpoint, Vkey, read_checkpoints
from agentauthz.records.damage import TAMPERED, Damage, Found, Kind, Line, diagnose, lines_of
from agentauthz.records.lines import NO_HASH, VERSION
from agentauthz.records.merkle import Tree, leaf_hash
from agentauthz.records.pruned import Prune, hashes_left, prunes_in, vouched
from agentauthz.records.scan import first_record, head, lost_in
from agentauthz.records.witnessed import Kept, kept
from agentauthz.values import utc


@final
class Verdict(enum.Enum):
    """Be what verification comes to. Only `OK` says that nothing was changed or cut off.

    `UNWITNESSED`: what is there is as it was written, but without a checkpoint from elsewhere nobody can tell whether
    the end is missing. `RECOVERED`: a crash or a full disk left its marks, and the rest is as it was written.
    """

    OK = "ok"
    TAMPERED = "tampered"
    INCOMPLETE = "incomplete"
    RECOVERED = "recovered"
    UNWITNESSED = "unwitnessed"

    def __bool__(self) -> bool:
        raise InvalidArgument("verdict", "has no truth value: compare it with `Verdict.OK`")


Leaves: TypeAlias = list[bytes | None]  # the hash of each record of a stream; None: it isn't known


@final
@frozen
class StreamReport:
    """Be what was found of one stream: so many records, the tree's root over them, and how many checkpoints cover.

    `verified_from` is the first record whose text was verified: of those before it only hashes are there or, where they
    are `skipped`, nothing was looked at. `cosigned` counts the records that checkpoints cover which a trusted witness's
    key signed too; None: no such key was given. `lost` counts records that the log itself says it lacks. `live`:
    somebody writes it now. `exposed` counts the records after the last witnessed checkpoint, which could have been
    changed by whoever holds the key.
    """

    id: str
    size: int
    verified_from: int
    root: str | None
    signed: int
    witnessed: int
    lost: int
    live: bool
    cosigned: int | None = None
    skipped: bool = False

    @property
    def exposed(self) -> int:
        """Return how many records no witness has seen."""
        return max(0, self.size - self.witnessed)


@final
@frozen
class Report:
    """Be all that was found in a folder of streams; with `since`, nothing was looked for before that moment."""

    verdict: Verdict
    damages: tuple[Damage, ...]
    streams: tuple[StreamReport, ...]
    since: dt.datetime | None = None

    @property
    def first(self) -> Damage | None:
        """Return the first thing that is wrong."""
        return self.damages[0] if self.damages else None


@final
class Verified(NamedTuple):
    """Be what was found, with what it was found by."""

    report: Report
    leaves: Mapping[str, Leaves]
    prunes: Sequence[Prune]


def verify(
    folder: str | os.PathLike[str],
    *,
    checkpoint: Kept = None,
    keys: Iterable[str] = (),
    since: dt.datetime | None = None,
) -> Report:
    """Return what the log in a folder proves. Nothing is changed, and a writer may go on meanwhile.

    `keys` are verifier keys, as `agentauthz.records.checkpoints.vkey` writes them, or those of witnesses that cosign;
    a key that is found in the log is never trusted. `checkpoint` holds checkpoints that were kept elsewhere: their
    text, the path or the address of a file, or several of these. With `since`, each stream is verified from the
    beginning of the segment in which that moment lies: the state before it is the one that the segment begins with,
    which checkpoints must agree with, and what is before isn't looked at.

    Raises:
        InvalidArgument: the folder isn't there, a key isn't one, a checkpoint can't be had or is signed by none of the
            keys, or `since` has no time zone.
    """
    return verified(folder, checkpoint, keys, since).report


def verified(
    folder: str | os.PathLike[str], checkpoint: Kept, keys: Iterable[str], since: dt.datetime | None = None
) -> Verified:
    """Do as `verify`, and return the hashes of each stream's records too, and what the log says of pruning.

    Raises:
        InvalidArgument: as `verify`.
    """
    base = log_folder(folder)
    if not base.is_dir():
        raise InvalidArgument("folder", f"must be a folder of records, and `{base}` isn't there")
    if since is not None and utc(since) is None:
        raise InvalidArgument("since", "must be a datetime with a time zone")
    trusted = [Vkey.of(key) for key in keys]
    work = _Verification(base, trusted, kept(checkpoint, trusted), since)
    return Verified(work.report(), work.leaves, work.prunes)


@final
@frozen
class _Start:
    """Be where the verification of a stream begins: behind records whose hashes are known, or which are `skipped`.

    Then `tree` is what the segment names as the state before it.
    """

    hashes: Sequence[bytes | None]
    before: str
    tree: Tree = field(factory=Tree)
    skipped: bool = False

    @classmethod
    def of_segment(cls, path: Path, first: int, since: dt.datetime) -> _Start | None:
        """Return the start that a segment names in its first record; None: it began later, or names none."""
        told = first_record(path)
        try:
            tree = Tree(first, map(bytes.fromhex, told["about"]["tree"]))
            if told["seq"] == first and dt.datetime.fromisoformat(told["ts"]) <= since:
                return cls([None] * first, str(told["prev"]), tree, skipped=True)
        except (LookupError, TypeError, ValueError, InvalidArgument):
            pass  # SECURITY: then more is looked at, never less
        return None


@final
class _Verification:
    def __init__(
        self, base: Path, trusted: Sequence[Vkey], witnessed: Sequence[Checkpoint], since: dt.datetime | None
    ) -> None:
        self._base = base
        self._since = since
        self._trusted = trusted
        # what says how long a stream is, is read before the stream, which may grow meanwhile
        self._catalog = read_catalog(base)
        self._witnessed = witnessed
        self._signed = self._read_checkpoints()
        self._damages: list[Damage] = []
        self._ends: dict[str, tuple[int, str]] = {}
        self._listed: set[str] = set()
        self._told: list[Prune] = []
        self._unseen = False  # what says that segments went, no witness has seen
        self.leaves: dict[str, Leaves] = {}

    def report(self) -> Report:
        self._read_catalog()
        reports = [self._stream(path) for path in streams(self._base)]
        self._let_go({report.id: report for report in reports})
        there = {report.id for report in reports}
        for stream in sorted((self._listed | {each.stream for each in self._witnessed}) - there):
            self._add("truncated", stream, "the whole stream is missing")
        for stream in sorted(there - self._listed):
            if any(report.id == stream and report.size > 1 for report in reports):
                self._add("truncated", stream, "the catalog doesn't list it: a part of the catalog is missing")
        return Report(self._verdict(reports), tuple(self._damages), tuple(reports), self._since)

    def _verdict(self, reports: Sequence[StreamReport]) -> Verdict:
        kinds = {damage.kind for damage in self._damages}
        if kinds & TAMPERED:
            return Verdict.TAMPERED
        if "truncated" in kinds:
            return Verdict.INCOMPLETE
        if kinds or any(report.lost for report in reports):
            return Verdict.RECOVERED
        if reports and all(report.witnessed for report in reports) and not self._unseen:
            return Verdict.OK
        return Verdict.UNWITNESSED

    # ---- what was let go of

    @property
    def prunes(self) -> list[Prune]:
        """Return what the log says of pruning, in records that are what was written, as far as it was looked at."""
        return [each for each in self._told if self._holds(each)]

    def _holds(self, prune: Prune) -> bool:
        known = self.leaves.get(prune.stream, [])
        return prune.seq < len(known) and known[prune.seq] == prune.leaf

    def _let_go(self, reports: Mapping[str, StreamReport]) -> None:
        """Hold hashes without their text to the records that say that it went.

        SECURITY: whoever may write the folder can put the hashes in the place of any segment.
        """
        left = {one.id: one.verified_from for one in reports.values() if one.verified_from and not one.skipped}
        told = vouched(left, self.prunes)
        if left.keys() - told.keys():
            told = vouched(left, self._further(reports))
        for stream, size in left.items():
            if stream not in told:
                self._add("deleted", stream, "the text was taken away: no record says that it was pruned", 0, size - 1)
            elif not any(each.seq < reports[each.stream].witnessed for each in told[stream]):
                self._unseen = True

    def _further(self, reports: Mapping[str, StreamReport]) -> Iterator[Prune]:
        """Yield what the log says of pruning also where it wasn't looked at: before a moment, or written meanwhile."""
        yield from self.prunes
        for path in streams(self._base):
            if (report := reports.get(path.name)) is None or not (report.live or report.skipped):
                continue
            for _, file in segments(path):
                with contextlib.suppress(FileNotFoundError):  # it has just been pruned
                    for each in prunes_in(file.read_bytes()):
                        before = report.skipped and each.seq < report.verified_from
                        if each.stream == report.id and (before or (report.live and each.seq >= report.size)):
                            yield each

    # ---- the catalog and the checkpoints

    def _read_catalog(self) -> None:
        before = {NO_HASH}
        found = list(entries(self._catalog))
        for line, entry in found:
            if entry is None:
                before.add(leaf_hash(line).hex())  # what a dying process left: the next one may have gone on from it
                continue
            if str(entry["prev"]) not in before:
                self._add("edited", str(entry["stream"])[:26], "the catalog isn't what was written")
            before = {leaf_hash(line).hex()}
            self._listed.add(str(entry["stream"]))
            size, last = entry.get("size"), entry.get("last")
            if entry["what"] in ("closed", "recovered") and type(size) is int and isinstance(last, str):
                self._ends[str(entry["stream"])] = (size, last)
        if found and found[-1][1] is None:  # such a fragment becomes a line with the next one only
            said = STREAM.search(found[-1][0].decode(errors="replace"))
            self._add("edited", said[0] if said else "unknown", "the catalog's last line isn't what was written")

    def _read_checkpoints(self) -> list[Checkpoint]:
        path = self._base / CHECKPOINTS
        try:
            return read_checkpoints(path.read_text("utf-8", errors="replace")) if path.is_file() else []
        except OSError:
            return []

    def _add(self, kind: Kind, stream: str, text: str, seq: int | None = None, last: int | None = None) -> None:
        self._damages.append(Damage(kind, stream, text, seq, last))

    # ---- one stream

    def _stream(self, path: Path) -> StreamReport:
        stream = path.name
        live = self._is_live(path)
        start, files = self._start(path)
        first = len(start.hashes)
        found = self._scan(stream, _Files(files, live), first, start.before, self._ends.get(stream))
        known: list[bytes | None] = [*start.hashes, *found.leaves]
        self.leaves[stream] = known
        stretch = Stretch(stream, known, first, start.skipped, start.tree, found.damages)
        held = agreement(stretch, self._signed, self._witnessed, self._trusted)
        self._damages += held.damages
        return StreamReport(
            stream, len(known), first, None if held.root is None else held.root.hex(), held.signed, held.witnessed,
            found.lost, live, held.cosigned, start.skipped,
        )  # fmt: skip

    def _start(self, path: Path) -> tuple[_Start, list[Path]]:
        """Return where to begin in a stream, and the segments from there on."""
        numbered = segments(path)
        files = [file for _, file in numbered]
        if self._since is not None:
            for place in range(len(files) - 1, 0, -1):
                start = _Start.of_segment(files[place], numbered[place][0], self._since)
                if start is not None:
                    return start, files[place:]
        pruned, wrong = hashes_left(path, files)
        self._damages += wrong
        return _Start(pruned, pruned[-1].hex() if pruned else NO_HASH), files

    def _is_live(self, path: Path) -> bool:
        if path.name in self._ends or not (path / "lock").exists():
            return False
        try:
            Claim.probe(path)
        except OSError:
            return True
        return False

    def _scan(self, stream: str, files: _Files, start: int, before: str, end: tuple[int, str] | None) -> Found:
        """Return what holds in the files; where every line follows the one before, that is quickly seen."""
        found = Found(start)
        hashes: list[bytes | None] = found.leaves
        seq, prev = start, before.encode()
        misnamed: list[int] = []
        told: list[Prune] = []
        beginning = f'{{"v":"{VERSION}","stream":"{stream}","seq":'.encode()
        for name, data in files:
            found.lost += lost_in(data)
            told += prunes_in(data)
            if data and name != segment_path(Path(), seq).name:
                misnamed.append(seq)
            *lines, rest = data.split(b"\n")
            for line in lines:
                if not line.startswith(b'%b%d,"prev":"%b",' % (beginning, seq, prev)):
                    if head(line) != (stream.encode(), seq, prev):
                        return self._diagnosed(stream, files, start, before, end)
                leaf = sha256(b"\0" + line).digest()
                hashes.append(leaf)
                seq, prev = seq + 1, hexlify(leaf)
            if rest:
                return self._diagnosed(stream, files, start, before, end)
        if end is not None and (seq, prev.decode()) != end:
            return self._diagnosed(stream, files, start, before, end)
        self._told += told
        for first in misnamed:  # pruning and shipping go by the names
            self._add("edited", stream, "a file isn't named after its first record", first)
        return found

    def _diagnosed(self, stream: str, files: _Files, start: int, before: str, end: tuple[int, str] | None) -> Found:
        lines: list[Line] = list(lines_of(files))
        found = diagnose(stream, lines, start, before, end)
        for _, data in files:
            found.lost += lost_in(data)
            self._told += prunes_in(data)
        self._damages += found.damages
        return found


@final
@frozen
class _Files:
    """Be the segments of a stream, read one at a time; while somebody writes, up to the last whole line."""

    paths: Sequence[Path]
    live: bool

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        for path in self.paths:
            data = path.read_bytes()
            if self.live and path is self.paths[-1]:
                data = data[: data.rfind(b"\n") + 1]
            yield path.name, data
