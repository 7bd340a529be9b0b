"""Tell what was done to a stream whose lines don't follow each other: what was edited, deleted, inserted, moved."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, TypeAlias, final

from attrs import define, field, frozen

from agentauthz.records.merkle import leaf_hash
from agentauthz.records.scan import Place, head

Kind: TypeAlias = Literal[
    "edited", "deleted", "inserted", "reordered", "duplicated", "foreign", "truncated", "torn", "inconsistent",
    "untrusted",
]  # fmt: skip

TAMPERED: Final[frozenset[Kind]] = frozenset(
    {"edited", "deleted", "inserted", "reordered", "duplicated", "foreign", "inconsistent", "untrusted"}
)
_MAX_AHEAD: Final = 1_000  # numbers by which a line that nothing vouches for may be ahead of the others


@final
@frozen
class Damage:
    """Be one thing that is wrong. `offset` counts bytes in `file`; `last` is the end of a run of numbers."""

    kind: Kind
    stream: str
    text: str
    seq: int | None = None
    last: int | None = None
    file: str | None = None
    offset: int | None = None


@final
@define(eq=False)
class Line:
    """Be one line of a stream as it is found; `whole` says whether a line feed ends it."""

    file: str
    offset: int
    leaf: bytes
    place: Place | None
    text: bytes
    whole: bool = True


@final
@define(eq=False)
class Found:
    """Be what can be relied on in a stream: hashes by number, those declared missing, and all that is wrong."""

    start: int
    leaves: list[bytes | None] = field(factory=list)
    lost: int = 0
    damages: list[Damage] = field(factory=list)


def lines_of(files: Iterable[tuple[str, bytes]]) -> Iterator[Line]:
    """Yield the lines of a stream's files, in order."""
    for name, data in files:
        at = 0
        while at < len(data):
            end = data.find(b"\n", at)
            stop = len(data) if end < 0 else end
            text = data[at:stop]
            yield Line(name, at, leaf_hash(text), head(text), text, end >= 0)
            at = stop + 1


def diagnose(stream: str, lines: Sequence[Line], start: int, before: str, end: tuple[int, str] | None) -> Found:
    """Return what holds in a stream whose lines are `lines`, and what was done to it.

    The first record should be number `start`, after the hash `before`; `end` says how many there were, and the
    last hash, where that is known.
    """
    return _Diagnosis(stream, lines, start, before, end).found()


@final
class _Diagnosis:
    def __init__(
        self, stream: str, lines: Sequence[Line], start: int, before: str, end: tuple[int, str] | None
    ) -> None:
        self._stream = stream
        self._lines = lines
        self._start = start
        self._before = before.encode()
        self._end = end
        self._at = {id(line): i for i, line in enumerate(lines)}
        self._own: dict[int, list[Line]] = {}
        for line in lines:
            if line.whole and line.place is not None and line.place.stream == stream.encode():
                self._own.setdefault(line.place.seq, []).append(line)
        self._known: dict[int, set[bytes]] = {}
        self._declared: dict[int, bytes] = {}
        self._good = self._vouched()
        self._result = Found(start)
        self._inserted = -2  # where the last line without a place stood that was never written

    def found(self) -> Found:
        good = {id(line) for line in self._good.values()}
        self._declared = dict(self._gaps())
        copies = {line.leaf for line in self._good.values()}
        run: list[Line] = []
        previous: Line | None = None
        highest = self._start - 1
        for line in self._lines:
            if id(line) not in good:
                run.append(line)
                continue
            seq = self._seq(line)
            if seq < highest:
                self._add("reordered", "stands behind a later one", seq, line)
            self._between(highest + 1, seq, run, line, copies)
            run, previous = [], line
            highest = max(highest, seq)
        self._tail(highest + 1, run, previous, copies)
        size = max(highest + 1, max(self._declared, default=-1) + 1)
        for seq in range(self._start, size):
            line_there = self._good.get(seq)
            self._result.leaves.append(self._declared.get(seq) if line_there is None else line_there.leaf)
        self._result.lost = sum(1 for seq in self._declared if seq not in self._good)
        return self._result

    # ---- which lines are what was written

    def _vouched(self) -> dict[int, Line]:
        """Return the lines that the chain vouches for: each one's hash is in the one behind it, so go backwards."""
        good: dict[int, Line] = {}
        wanted: bytes | None = None
        above: int | None = None  # the number that `wanted` belongs to
        if self._end is not None and self._end[0]:
            above, wanted = self._end[0] - 1, self._end[1].encode()
        for seq in sorted(self._own, reverse=True):
            chosen = self._choose(seq, wanted if above == seq else None, good)
            if chosen is not None and chosen.place is not None:
                good[seq] = chosen
                above, wanted = seq - 1, chosen.place.prev
        limit = len(self._lines) + _MAX_AHEAD
        return {seq: line for seq, line in good.items() if self._start <= seq < self._start + limit}

    def _choose(self, seq: int, wanted: bytes | None, good: dict[int, Line]) -> Line | None:
        lines = self._own[seq]
        if wanted is not None:
            same = [line for line in lines if line.leaf.hex().encode() == wanted]
            return max(same, key=self._neighbours, default=None)  # of copies, the one that stands in its place
        if self._end is not None and seq >= self._end[0]:
            return None  # behind the end
        linked = [line for line in lines if self._linked(line, seq)]
        if linked:
            return max(linked, key=self._neighbours)
        # nothing vouches for it: believe it where it stands in its place
        return next((line for line in lines if self._in_place(line)), None)

    def _linked(self, line: Line, seq: int) -> bool:
        assert line.place is not None
        if seq == self._start:
            return line.place.prev == self._before
        return line.place.prev in self._hashes(seq - 1)

    def _hashes(self, seq: int) -> set[bytes]:
        """Return the hashes of the lines that have a number."""
        found = self._known.get(seq)
        if found is None:
            found = self._known[seq] = {line.leaf.hex().encode() for line in self._own.get(seq, ())}
        return found

    def _in_place(self, line: Line) -> bool:
        return self._neighbours(line) > 0 or len(self._lines) == 1

    def _neighbours(self, line: Line) -> int:
        """Count the lines beside this one in the file that have the numbers before and after its own."""
        assert line.place is not None
        at, seq = self._at[id(line)], line.place.seq
        beside = ((i, number) for i, number in ((at - 1, seq - 1), (at + 1, seq + 1)) if 0 <= i < len(self._lines))
        places = ((self._lines[i].place, number) for i, number in beside)
        return sum(1 for place, number in places if place is not None and place.seq == number)

    def _gaps(self) -> Iterator[tuple[int, bytes]]:
        """Yield what the log itself says that it lacks, with the hashes."""
        for line in self._good.values():
            if b'"type":"stream.gap"' in line.text[:400]:
                yield from _missing(line.text, self._seq(line))

    # ---- what was done to the others

    def _between(self, first: int, stop: int, run: list[Line], line: Line, copies: set[bytes]) -> None:
        slots = [seq for seq in range(first, stop) if seq not in self._good and seq not in self._declared]
        rest = self._named(run, slots, copies)
        if rest:
            self._add("deleted", "isn't there", rest[0], line, rest[-1])

    def _tail(self, first: int, run: list[Line], previous: Line | None, copies: set[bytes]) -> None:
        stop = first if self._end is None else max(first, self._end[0])
        # SECURITY: a forged catalog may name any end; no more numbers are looked at than lines could have
        near = min(stop, first + len(self._lines) + _MAX_AHEAD)
        slots = [seq for seq in range(first, near) if seq not in self._declared]
        if run and not run[-1].whole and self._cut(run[-1], slots):
            if self._end is None:
                torn = run[-1]
                self._add("torn", "the last line isn't whole", None, torn)
            run = run[:-1]
        rest = self._named(run, slots, copies)
        if rest:
            last = rest[-1] if near == stop else stop - 1
            self._add("truncated", "the end is missing", rest[0], previous, last)

    def _cut(self, last: Line, slots: list[int]) -> bool:
        """Say whether a last line without its end was cut off, rather than edited or added."""
        if self._end is None:
            return True
        return bool(slots) and leaf_hash(last.text[:-1]).hex() != self._end[1]  # its line feed was edited

    def _named(self, run: list[Line], slots: list[int], copies: set[bytes]) -> list[int]:
        """Name what stands where nothing good does; return the numbers that nothing stands for."""
        left = _Left(slots)
        strange = [line for line in run if line.leaf not in copies]
        few = len(strange) <= len(slots)
        saying = {self._number(line): line for line in reversed(strange)}  # the first that says a number
        for line in run:
            if line.leaf in copies:
                self._add("duplicated", "is there twice", self._number(line), line)
            elif left and few:
                # as many lines as numbers, or fewer: those whose number is right stand for it
                own = self._number(line)
                seq = own if own is not None and own in left else left.first
                left.take(seq)
                self._add("edited", "isn't what was written", seq, line)
            elif left and line is saying.get(left.first, strange[0]):
                # too many lines: one that says the first number stands for it, else the first
                self._add("edited", "isn't what was written", left.first, line)
                left.take(left.first)
            elif line.place is not None and line.place.stream != self._stream.encode():
                self._add("foreign", "belongs to another stream", line.place.seq, line)
            elif line.place is not None or not self._goes_on(line):
                self._add("inserted", "was never written", self._number(line), line)
        return [seq for seq in slots if seq in left]

    def _goes_on(self, line: Line) -> bool:
        """Say whether a line without a place stands behind another that was told of: one of a run is enough."""
        at = self._at[id(line)]
        before = self._inserted
        self._inserted = at
        return before == at - 1

    @staticmethod
    def _number(line: Line) -> int | None:
        return None if line.place is None else line.place.seq

    @staticmethod
    def _seq(line: Line) -> int:
        assert line.place is not None
        return line.place.seq

    def _add(self, kind: Kind, text: str, seq: int | None, line: Line | None, last: int | None = None) -> None:
        file, offset = (None, None) if line is None else (line.file, line.offset)
        self._result.damages.append(Damage(kind, self._stream, text, seq, last, file, offset))


@final
class _Left:
    """Be the numbers, in order, that no line stands for yet."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._order = deque(numbers)
        self._there = set(self._order)

    def __len__(self) -> int:
        return len(self._there)

    def __contains__(self, number: int) -> bool:
        return number in self._there

    @property
    def first(self) -> int:
        while self._order[0] not in self._there:
            self._order.popleft()
        return self._order[0]

    def take(self, number: int) -> None:
        self._there.discard(number)


def _missing(text: bytes, before: int) -> Iterator[tuple[int, bytes]]:
    """Yield what the record of a gap, number `before`, says is missing before it; a damaged one says nothing."""
    try:
        about = json.loads(text)["about"]
        first, hashes = about["first_seq"], [bytes.fromhex(leaf) for leaf in about["hashes"]]
    except (ValueError, TypeError, LookupError, RecursionError):
        return
    if type(first) is int and first >= 0 and all(len(leaf) == 32 for leaf in hashes):
        yield from ((first + i, leaf) for i, leaf in enumerate(hashes) if first + i < before)
