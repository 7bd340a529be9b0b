"""Test the tree over a log's lines: roots, proofs of inclusion and of consistency, and that false ones are refused."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentauthz.errors import InvalidArgument
from agentauthz.records.merkle import (
    EMPTY_ROOT,
    Tree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from tests.golden import ROOT

VECTORS: Final = ROOT / "tests" / "vectors" / "merkle"
# the tree of RFC 6962's reference implementation: https://github.com/google/certificate-transparency
LEAVES: Final = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip


def _vectors(kind: str) -> list[Path]:
    return sorted((VECTORS / kind).rglob("*.json"))


def _hashes(texts: list[str] | None) -> list[bytes]:
    return [base64.b64decode(text) for text in texts or []]


def _holds(vector: dict[str, Any]) -> bool:
    hashes = {name: base64.b64decode(vector[name] or "") for name in vector if name.startswith(("root", "leafH"))}
    proof = _hashes(vector["proof"])
    try:
        if "leafIdx" in vector:
            verify_inclusion(hashes["leafHash"], vector["leafIdx"], vector["treeSize"], proof, hashes["root"])
        else:
            verify_consistency(vector["size1"], vector["size2"], proof, hashes["root1"], hashes["root2"])
    except InvalidArgument:
        return False
    return True


@pytest.mark.parametrize(
    "path", _vectors("inclusion") + _vectors("consistency"), ids=lambda path: path.parent.name + path.stem
)
def test_vectors(path: Path) -> None:
    """Each proof of the vectors holds, or is refused, as they say."""
    vector = json.loads(path.read_bytes())
    assert _holds(vector) is not vector["wantErr"], vector["desc"]


def test_all_vectors_are_there() -> None:
    """None of the 196 vectors is missing."""
    assert len(_vectors("inclusion") + _vectors("consistency")) == 196


def test_known_roots() -> None:
    """The roots of the empty tree, of one leaf and of eight are those that are published."""
    leaves = [leaf_hash(leaf) for leaf in LEAVES]
    assert root_of([]) == EMPTY_ROOT == hashlib.sha256().digest()
    assert root_of(leaves[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert root_of(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def _defined(leaves: list[bytes]) -> bytes:
    """Return the root by the words of RFC 6962 §2.1."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return node_hash(_defined(leaves[:half]), _defined(leaves[half:]))


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=70), st.data())
def test_proofs_hold_and_no_others(data: list[bytes], draw: st.DataObject) -> None:
    """The root is the definition's, every leaf and earlier size is proven, and what is changed is refused."""
    leaves = [leaf_hash(leaf) for leaf in data]
    root, size = root_of(leaves), len(leaves)
    assert root == _defined(leaves)
    index, earlier = (draw.draw(st.integers(0, size - 1)) for _ in range(2))
    proof = inclusion_proof(leaves, index)
    verify_inclusion(leaves[index], index, size, proof, root)
    before = root_of(leaves[: earlier + 1])
    consistent = consistency_proof(leaves, earlier + 1)
    verify_consistency(earlier + 1, size, consistent, before, root)
    wrong = leaf_hash(b"something else")
    for bad in ([*proof, wrong], [wrong, *proof], [wrong, *proof[1:]]):
        with pytest.raises(InvalidArgument):
            verify_inclusion(leaves[index], index, size, bad, root)
    with pytest.raises(InvalidArgument):
        verify_inclusion(wrong, index, size, proof, root)
    with pytest.raises(InvalidArgument):
        verify_consistency(earlier + 1, size, consistent, wrong, root)
    with pytest.raises(InvalidArgument):
        verify_consistency(earlier + 1, size, consistent, before, wrong)


@given(st.lists(st.binary(max_size=3), max_size=40), st.integers(0, 40))
def test_a_tree_goes_on_from_its_peaks(data: list[bytes], cut: int) -> None:
    """What a sealed segment keeps of the tree is enough to go on with it."""
    leaves = [leaf_hash(leaf) for leaf in data]
    first = Tree()
    first.extend(leaves[:cut])
    again = Tree(first.size, first.peaks)
    again.extend(leaves[cut:])
    assert again.root() == root_of(leaves)


@pytest.mark.parametrize("first", [0, 1, 1_023, 1_024, 1_500])
@pytest.mark.parametrize("more", [0, 1, 1_023, 1_024, 1_025, 2_048, 4_100])
def test_a_long_tree_is_the_same_however_it_grows(first: int, more: int) -> None:
    """Many leaves at once give the tree that the definition gives, whatever was there before."""
    leaves = [number.to_bytes(32) for number in range(first + more)]
    tree = Tree()
    tree.extend(leaves[:first])
    tree.extend(iter(leaves[first:]))
    assert (tree.size, len(tree.peaks)) == (first + more, (first + more).bit_count())
    assert tree.root() == (_defined(leaves) if leaves else EMPTY_ROOT)


def test_what_is_no_place_is_refused() -> None:
    """A leaf that isn't there, a size that isn't there, and peaks that don't fit a size are errors."""
    leaves = [leaf_hash(b"a"), leaf_hash(b"b")]
    for bad in (-1, 2):
        with pytest.raises(InvalidArgument, match="index"):
            inclusion_proof(leaves, bad)
    for bad in (0, 3):
        with pytest.raises(InvalidArgument, match="size"):
            consistency_proof(leaves, bad)
    for size, peaks in ((2, []), (1, [b"short"]), (-1, [])):
        with pytest.raises(InvalidArgument, match="peaks"):
            Tree(size, peaks)
