"""Say what a log proves: whether it was changed, what is missing, and what nobody can tell from it alone."""

from __future__ import annotations

import enum
import json
import os
from binascii import hexlify
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeAlias, cast, final

from attrs import evolve, frozen

from agentauthz.errors import InvalidArgument
from agentauthz.records.catalog import CHECKPOINTS, Claim, entries, leaves, read_catalog, segments, streams
from agentauthz.records.checkpoints import Checkpoint, Vkey, read_checkpoints, verified_by
from agentauthz.records.damage import Damage, Found, Kind, Line, diagnose, lines_of
from agentauthz.records.lines import MAX_LINE, NO_HASH, VERSION
from agentauthz.records.merkle import Tree, leaf_hash
from agentauthz.records.scan import head, lost_in

_TAMPERED: Final[frozenset[Kind]] = frozenset(
    {"edited", "deleted", "inserted", "reordered", "duplicated", "foreign", "inconsistent", "untrusted"}
)


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

    `verified_from` is the first record whose text is there; of those before it only hashes are. `lost` counts
    records that the log itself says it lacks. `live`: somebody writes it now. `exposed` counts the records after the
    last witnessed checkpoint, which could have been changed by whoever holds the key.
    """

    id: str
    size: int
    verified_from: int
    root: str | None
    signed: int
    witnessed: int
    lost: int
    live: bool

    @property
    def exposed(self) -> int:
        """Return how many records no witness has seen."""
        return max(0, self.size - self.witnessed)


@final
@frozen
class Report:
    """Be all that was found in a folder of streams."""

    verdict: Verdict
    damages: tuple[Damage, ...]
    streams: tuple[StreamReport, ...]

    @property
    def first(self) -> Damage | None:
        """Return the first thing that is wrong."""
        return self.damages[0] if self.damages else None


def verify(
    folder: str | os.PathLike[str],
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    keys: Iterable[str] = (),
) -> Report:
    """Return what the log in a folder proves. Nothing is changed, and a writer may go on meanwhile.

    `keys` are verifier keys, as `agentauthz.records.checkpoints.vkey` writes them; a key that is found in the log is
    never trusted. `checkpoint` holds checkpoints that were kept elsewhere: their text, or the path of a file.

    Raises:
        InvalidArgument: the folder isn't there, a key isn't one, or a checkpoint is signed by none of the keys.
    """
    return verified(folder, checkpoint, keys)[0]


def verified(
    folder: str | os.PathLike[str], checkpoint: str | os.PathLike[str] | None, keys: Iterable[str]
) -> tuple[Report, dict[str, Leaves]]:
    """Do as `verify`, and return the hashes of each stream's records too.

    Raises:
        InvalidArgument: as `verify`.
    """
    base = Path(folder)
    if not base.is_dir():
        raise InvalidArgument("folder", f"must be a folder of records, and `{base}` isn't there")
    trusted = [Vkey.of(key) for key in keys]
    work = _Verification(base, trusted, _witnessed(checkpoint, trusted))
    return work.report(), work.leaves


def _witnessed(given: str | os.PathLike[str] | None, trusted: Sequence[Vkey]) -> list[Checkpoint]:
    if given is None:
        return []
    try:
        text = given if isinstance(given, str) and "\n" in given else Path(given).read_text("utf-8")
    except (OSError, UnicodeError):
        raise InvalidArgument("checkpoint", "can't be read") from None
    found = [each for each in read_checkpoints(text) if verified_by(each, trusted) is not None]
    if not found:
        raise InvalidArgument("checkpoint", "holds none that one of `keys` signed")
    return found


@final
class _Verification:
    def __init__(self, base: Path, trusted: Sequence[Vkey], witnessed: Sequence[Checkpoint]) -> None:
        self._base = base
        self._trusted = trusted
        # what says how long a stream is, is read before the stream, which may grow meanwhile
        self._catalog = read_catalog(base)
        self._witnessed = witnessed
        self._signed = self._read_checkpoints()
        self._damages: list[Damage] = []
        self._ends: dict[str, tuple[int, str]] = {}
        self._listed: set[str] = set()
        self.leaves: dict[str, Leaves] = {}

    def report(self) -> Report:
        self._read_catalog()
        reports = [self._stream(path) for path in streams(self._base)]
        there = {report.id for report in reports}
        for stream in sorted((self._listed | {each.stream for each in self._witnessed}) - there):
            self._add("truncated", stream, "the whole stream is missing")
        for stream in sorted(there - self._listed):
            if any(report.id == stream and report.size > 1 for report in reports):
                self._add("truncated", stream, "the catalog doesn't list it: a part of the catalog is missing")
        return Report(self._verdict(reports), tuple(self._damages), tuple(reports))

    def _verdict(self, reports: Sequence[StreamReport]) -> Verdict:
        kinds = {damage.kind for damage in self._damages}
        if kinds & _TAMPERED:
            return Verdict.TAMPERED
        if "truncated" in kinds:
            return Verdict.INCOMPLETE
        if kinds or any(report.lost for report in reports):
            return Verdict.RECOVERED
        if reports and all(report.witnessed for report in reports):
            return Verdict.OK
        return Verdict.UNWITNESSED

    def _read_catalog(self) -> None:
        prev, fragment = NO_HASH, False
        for line, entry in entries(self._catalog):
            if entry is None:
                fragment = True  # what a dying process left is no link of the chain
                continue
            if entry["prev"] != prev and not fragment:
                self._add("edited", str(entry["stream"])[:26], "the catalog isn't what was written")
            prev, fragment = leaf_hash(line).hex(), False
            self._listed.add(str(entry["stream"]))
            size, last = entry.get("size"), entry.get("last")
            if entry["what"] in ("closed", "recovered") and type(size) is int and isinstance(last, str):
                self._ends[str(entry["stream"])] = (size, last)

    def _read_checkpoints(self) -> list[Checkpoint]:
        try:
            text = (self._base / CHECKPOINTS).read_text("utf-8", errors="replace")
        except OSError:
            return []
        return read_checkpoints(text)

    def _add(self, kind: Kind, stream: str, text: str, seq: int | None = None) -> None:
        self._damages.append(Damage(kind, stream, text, seq))

    # ---- one stream

    def _stream(self, path: Path) -> StreamReport:
        stream = path.name
        live = self._is_live(path)
        files = [file for _, file in segments(path)]
        kept = self._pruned(path, files)
        before = kept[-1].hex() if kept else NO_HASH
        found = self._scan(stream, _Files(files, live), len(kept), before, self._ends.get(stream))
        known: list[bytes | None] = [*kept, *found.leaves]
        self.leaves[stream] = known
        report = StreamReport(stream, len(known), len(kept), None, 0, 0, found.lost, live)
        return self._held(report, known, found)

    def _pruned(self, path: Path, files: Sequence[Path]) -> list[bytes]:
        """Return the hashes that are left of pruned segments, if they are those that the next segment goes on from."""
        there = {file.stem for file in files}
        kept: list[bytes] = []
        for first, file in leaves(path):
            if file.stem in there:  # the segment itself hasn't gone yet
                continue
            if first != len(kept):
                self._add("deleted", path.name, "the hashes of a pruned segment are missing", len(kept))
            data = file.read_bytes()
            kept += [data[i : i + 32] for i in range(0, len(data) - 31, 32)]
        if kept and files:
            told = _about(files[0]).get("tree")
            tree = Tree()
            tree.extend(kept)
            if told != [peak.hex() for peak in tree.peaks]:
                self._add("edited", path.name, "the hashes of pruned segments aren't what was written", 0)
        return kept

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
        beginning = f'{{"v":"{VERSION}","stream":"{stream}","seq":'.encode()
        for _, data in files:
            found.lost += lost_in(data)
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
        return found

    def _diagnosed(self, stream: str, files: _Files, start: int, before: str, end: tuple[int, str] | None) -> Found:
        lines: list[Line] = list(lines_of(files))
        found = diagnose(stream, lines, start, before, end)
        found.lost += sum(lost_in(data) for _, data in files)
        self._damages += found.damages
        return found

    # ---- what was signed

    def _held(self, report: StreamReport, known: Sequence[bytes | None], found: Found) -> StreamReport:
        """Hold a stream to its checkpoints: those that were kept elsewhere, and those beside the log."""
        mine = [each for each in self._signed if each.stream == report.id]
        beside = [each for each in mine if verified_by(each, self._trusted) is not None]
        if self._trusted and mine and not beside:
            self._add("untrusted", report.id, "every checkpoint is signed by a key that isn't trusted")
        elsewhere = [each for each in self._witnessed if each.stream == report.id]
        roots = _roots(known, {each.size for each in (*beside, *elsewhere)})
        signed = self._agreed(report, beside, roots, found)
        witnessed = self._agreed(report, elsewhere, roots, found)
        root = roots.get(len(known))
        return evolve(report, root=None if root is None else root.hex(), signed=signed, witnessed=witnessed)

    def _agreed(
        self, report: StreamReport, checkpoints: Sequence[Checkpoint], roots: dict[int, bytes], found: Found
    ) -> int:
        """Return how many records the checkpoints cover, all of which must agree with the log."""
        covered, said = 0, dict[int, bytes]()
        for each in sorted(checkpoints, key=lambda one: one.size):
            if said.setdefault(each.size, each.root) != each.root:
                self._add(
                    "inconsistent", report.id, "two signed checkpoints of one size have different roots", each.size
                )
            elif each.size > report.size:
                if not any(damage.kind == "truncated" for damage in found.damages):
                    self._add("truncated", report.id, f"a checkpoint says {each.size} records", report.size)
                    found.damages.append(self._damages[-1])
            elif roots.get(each.size) == each.root:
                covered = each.size
            elif not found.damages:
                # the lines follow each other: either the last was edited, or all of them were written anew
                self._add("edited", report.id, "isn't what was signed", each.size - 1 if covered + 1 >= each.size
                          or each.size == report.size else covered)  # fmt: skip
                found.damages.append(self._damages[-1])
        return covered


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


def _about(path: Path) -> dict[str, Any]:
    """Return what the first record of a segment tells; nothing, where it is damaged."""
    try:
        with path.open("rb") as file:
            about = json.loads(file.readline(MAX_LINE)).get("about", {})
    except (ValueError, AttributeError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def _roots(known: Sequence[bytes | None], sizes: set[int]) -> dict[int, bytes]:
    """Return the roots of the tree at those sizes, and at its full size; none behind a hash that isn't known."""
    tree, roots = Tree(), dict[int, bytes]()
    sound = next((i for i, leaf in enumerate(known) if leaf is None), len(known))
    for size in sorted({*sizes, len(known)}):
        if size <= sound:
            tree.extend(cast("Sequence[bytes]", known[tree.size : size]))
            roots[size] = tree.root()
    return roots
