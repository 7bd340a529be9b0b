"""Hold a stream to the checkpoints that were signed over it: those beside the log, and those kept elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, cast, final

from attrs import frozen

from agentauthz.records.checkpoints import Checkpoint, Vkey, cosigned_by, signed_as, verified_by
from agentauthz.records.damage import TAMPERED, Damage, Kind
from agentauthz.records.merkle import Tree


@final
@frozen
class Stretch:
    """Be what was found of a stream: the hash of each record, by number (None: it isn't known), and what is wrong.

    `first` is the first record whose text was there. Where those before it were `skipped`, `before` is the tree that
    stands for them.
    """

    stream: str
    leaves: Sequence[bytes | None]
    first: int
    skipped: bool
    before: Tree
    damages: Sequence[Damage]


@final
@frozen
class Agreement:
    """Be how far a stream agrees with its checkpoints, in records that these cover, and where it doesn't.

    `cosigned` counts those that a trusted witness signed for; None: no witness's key was given. `root` is the tree's
    over all of the stream; None: a hash isn't known.
    """

    root: bytes | None
    signed: int
    witnessed: int
    cosigned: int | None
    damages: Sequence[Damage]


def agreement(
    stretch: Stretch, beside: Iterable[Checkpoint], elsewhere: Iterable[Checkpoint], trusted: Sequence[Vkey]
) -> Agreement:
    """Hold a stream to the checkpoints of a log, of which those count that a trusted key signed, and to those kept."""
    holding = _Holding(stretch)
    mine = [each for each in beside if each.stream == stretch.stream]
    signed = [each for each in mine if verified_by(each, trusted) is not None]
    if mine and not signed and not all(key.cosigns for key in trusted):
        told = f"every checkpoint is signed by a key that isn't trusted, as {signed_as(mine)}"
        holding.add("untrusted", told)
    kept = [each for each in elsewhere if each.stream == stretch.stream]
    roots = _roots(stretch.leaves, {each.size for each in (*signed, *kept)}, stretch.before)
    return Agreement(
        roots.get(len(stretch.leaves)),
        holding.covered(signed, roots),
        holding.covered(kept, roots),
        _cosigned((*signed, *kept), roots, trusted),
        holding.damages,
    )


@final
class _Holding:
    """Compare a stream with checkpoints, and tell of its end or its text only where nothing such is known of it."""

    def __init__(self, stretch: Stretch) -> None:
        self._stretch: Final = stretch
        self._known: Final[set[Kind]] = {damage.kind for damage in stretch.damages}
        self.damages: Final[list[Damage]] = []

    def covered(self, checkpoints: Iterable[Checkpoint], roots: Mapping[int, bytes]) -> int:
        """Return how many records the checkpoints cover, all of which must agree with the log."""
        stretch, covered, said = self._stretch, 0, dict[int, bytes]()
        for each in sorted(checkpoints, key=lambda one: one.size):
            if said.setdefault(each.size, each.root) != each.root:
                self.add("inconsistent", "two signed checkpoints of one size have different roots", each.size)
            elif each.size > (size := len(stretch.leaves)):
                if "truncated" not in self._known:
                    self._find("truncated", f"a checkpoint says {each.size} records", size)
            elif stretch.skipped and each.size < stretch.first:
                continue  # what it says of was not looked at
            elif roots.get(each.size) == each.root:
                covered = each.size
            elif not self._known & TAMPERED:
                # the lines follow each other: either the last was edited, or all of them were written anew
                last = covered + 1 >= each.size or each.size == size
                self._find("edited", "isn't what was signed", each.size - 1 if last else max(covered, stretch.first))
        return covered

    def _find(self, kind: Kind, text: str, seq: int) -> None:
        self._known.add(kind)
        self.add(kind, text, seq)

    def add(self, kind: Kind, text: str, seq: int | None = None) -> None:
        self.damages.append(Damage(kind, self._stretch.stream, text, seq))


def _cosigned(checkpoints: Iterable[Checkpoint], roots: Mapping[int, bytes], trusted: Sequence[Vkey]) -> int | None:
    """Return how many records those checkpoints cover that a trusted witness signed too."""
    if not any(key.cosigns for key in trusted):
        return None
    agreed = (each for each in checkpoints if roots.get(each.size) == each.root)
    return max((each.size for each in agreed if cosigned_by(each, trusted)), default=0)


def _roots(known: Sequence[bytes | None], sizes: set[int], tree: Tree) -> dict[int, bytes]:
    """Return the roots of the tree at those sizes, and at its full size; none behind a hash that isn't known.

    It grows from `tree`, the state before the first record that was looked at.
    """
    roots = dict[int, bytes]()
    try:
        sound = known.index(None, tree.size)
    except ValueError:
        sound = len(known)
    for size in sorted({*sizes, len(known)}):
        if tree.size <= size <= sound:
            tree.extend(cast("Sequence[bytes]", known[tree.size : size]))
            roots[size] = tree.root()
    return roots
