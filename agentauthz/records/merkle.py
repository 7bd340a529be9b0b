"""Hash lines into a tree, and prove what is in it (RFC 6962 §2.1; verified as RFC 9162 §2.1.3 says)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Final, final

from agentauthz.errors import InvalidArgument

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
_LEAF: Final = hashlib.sha256(b"\0")

_BLOCK: Final = 1_024  # leaves that are hashed level by level, which takes two thirds of the time


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf; of a record, it is the line without its line feed."""
    whole = _LEAF.copy()  # sooner done than a copy of the data with a byte before it
    whole.update(data)
    return whole.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over two others."""
    return hashlib.sha256(b"\1" + left + right).digest()


@final
class Tree:
    """Be a tree that leaves are added to: it holds only the roots of its perfect parts, at most one for each bit.

    Raises:
        InvalidArgument: `peaks` aren't as many as a tree of `size` leaves has.
    """

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self.peaks = list(peaks)  # the largest part first
        if size < 0 or len(self.peaks) != size.bit_count() or any(len(peak) != 32 for peak in self.peaks):
            raise InvalidArgument("peaks", "must be one hash of 32 bytes for each bit of the size")

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add the hashes of leaves."""
        hashes = list(leaves)
        start = -self.size % _BLOCK
        stop = start + (len(hashes) - start) // _BLOCK * _BLOCK
        if stop <= start:
            self._add(hashes, 1)
            return
        self._add(hashes[:start], 1)
        self._add((_perfect(hashes[at : at + _BLOCK]) for at in range(start, stop, _BLOCK)), _BLOCK)
        self._add(hashes[stop:], 1)

    def _add(self, parts: Iterable[bytes], count: int) -> None:
        """Add the roots of perfect parts of `count` leaves each, which the size is a multiple of."""
        size, peaks, sha256 = self.size // count, self.peaks, hashlib.sha256
        for part in parts:
            below = size
            while below & 1:
                part = sha256(b"\1" + peaks.pop() + part).digest()
                below >>= 1
            peaks.append(part)
            size += 1
        self.size = size * count

    def root(self) -> bytes:
        """Return the root of all leaves so far."""
        if not self.peaks:
            return EMPTY_ROOT
        *left, root = self.peaks
        for peak in reversed(left):
            root = node_hash(peak, root)
        return root


def _perfect(hashes: list[bytes]) -> bytes:
    """Return the root over as many leaves as a power of two."""
    sha256 = hashlib.sha256
    while len(hashes) > 1:
        hashes = [sha256(b"\1" + left + right).digest() for left, right in zip(hashes[::2], hashes[1::2], strict=True)]
    return hashes[0]


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root over hashes of leaves."""
    tree = Tree()
    tree.extend(leaves)
    return tree.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the path from the leaf at `index` to the root over `leaves` (RFC 6962 §2.1.1).

    Raises:
        InvalidArgument: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise InvalidArgument("index", f"must be below {len(leaves)}, the number of leaves")
    if len(leaves) == 1:
        return []
    half = _half(len(leaves))
    if index < half:
        return [*inclusion_proof(leaves[:half], index), root_of(leaves[half:])]
    return [*inclusion_proof(leaves[half:], index - half), root_of(leaves[:half])]


def consistency_proof(leaves: Sequence[bytes], size: int) -> list[bytes]:
    """Return what shows that the tree over `leaves` only adds to that over the first `size` of them (RFC 6962 §2.1.2).

    Raises:
        InvalidArgument: `size` isn't between 1 and the number of leaves.
    """
    if not 0 < size <= len(leaves):
        raise InvalidArgument("size", f"must be from 1 to {len(leaves)}, the number of leaves")
    return _subproof(leaves, size, True)


def _subproof(leaves: Sequence[bytes], size: int, whole: bool) -> list[bytes]:
    if size == len(leaves):
        return [] if whole else [root_of(leaves)]
    half = _half(len(leaves))
    if size <= half:
        return [*_subproof(leaves[:half], size, whole), root_of(leaves[half:])]
    return [*_subproof(leaves[half:], size - half, False), root_of(leaves[:half])]


def _half(size: int) -> int:
    """Return the largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Return if `proof` shows that `leaf` is at `index` of the tree of that size and root (RFC 9162 §2.1.3.2).

    Raises:
        InvalidArgument: it doesn't.
    """
    if not 0 <= index < size:
        raise InvalidArgument("index", "must be below the size of the tree")
    left, last, found = index, size - 1, leaf
    for part in proof:
        if last == 0:
            raise InvalidArgument("proof", "is too long")
        if left & 1 or left == last:
            found = node_hash(part, found)
            while not left & 1 and left:
                left, last = left >> 1, last >> 1
        else:
            found = node_hash(found, part)
        left, last = left >> 1, last >> 1
    if last != 0 or len(leaf) != 32 or not hmac.compare_digest(found, root):
        raise InvalidArgument("proof", "doesn't lead to the root")


def verify_consistency(size1: int, size2: int, proof: Sequence[bytes], root1: bytes, root2: bytes) -> None:
    """Return if `proof` shows that the second tree only adds to the first (RFC 9162 §2.1.4.2).

    A tree without leaves is refused: it would show nothing.

    Raises:
        InvalidArgument: it doesn't.
    """
    if not 0 < size1 <= size2:
        raise InvalidArgument("size1", "must be from 1 to the second size")
    if size1 == size2:
        if proof or not hmac.compare_digest(root1, root2):
            raise InvalidArgument("proof", "must be empty, for the trees are of one size, and their roots the same")
        return
    path = list(proof)
    if size1.bit_count() == 1:  # then the first root is itself the first part
        path.insert(0, root1)
    if not path:
        raise InvalidArgument("proof", "is too short")
    left, last = size1 - 1, size2 - 1
    while left & 1:
        left, last = left >> 1, last >> 1
    old = new = path[0]
    for part in path[1:]:
        if last == 0:
            raise InvalidArgument("proof", "is too long")
        if left & 1 or left == last:
            old, new = node_hash(part, old), node_hash(part, new)
            while not left & 1 and left:
                left, last = left >> 1, last >> 1
        else:
            new = node_hash(new, part)
        left, last = left >> 1, last >> 1
    if last != 0 or not hmac.compare_digest(old, root1) or not hmac.compare_digest(new, root2):
        raise InvalidArgument("proof", "doesn't lead to the two roots")
