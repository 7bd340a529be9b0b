"""Proofs that one record is in a log, and the command that makes them."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from agentauthz.errors import InvalidArgument
from agentauthz.keys.signing import SigningKey
from agentauthz.records.checkpoints import signed_note, vkey
from agentauthz.records.merkle import leaf_hash, root_of
from agentauthz.records.proof import check_proof, prove
from tests import logs
from tests.commands import ran
from tests.faults.logged import SIGNER, VKEY, sealed


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return a sealed log, and what a witness kept."""
    folder = tmp_path_factory.mktemp("log") / "records"
    return folder, sealed(folder, 20, checkpoint_every=6)


def _root(line: bytes, proof: str) -> tuple[bytes, str]:
    """Follow a proof as its specification says, with nothing of the library; return the root, and the note's."""
    head, _, note = proof.partition("\n\n")
    _, index, *hashes = head.split("\n")
    number, size = int(index.removeprefix("index ")), int(note.split("\n")[1])
    found, last = hashlib.sha256(b"\0" + line).digest(), size - 1
    for part in map(base64.b64decode, hashes):
        if number % 2 or number == last:
            found = hashlib.sha256(b"\1" + part + found).digest()
            while number % 2 == 0 and number:
                number, last = number // 2, last // 2
        else:
            found = hashlib.sha256(b"\1" + found + part).digest()
        number, last = number // 2, last // 2
    return found, note.split("\n")[2]


def test_each_record_is_proven(log: tuple[Path, list[str]]) -> None:
    """Every record that a checkpoint covers has a proof which leads to the signed root."""
    for number in range(20):
        found = prove(log[0], f"{number:026}", keys=[VKEY])
        assert found.line in logs.lines(log[0])
        root, signed = _root(found.line[:-1], found.proof)
        assert base64.b64encode(root).decode() == signed
        assert check_proof(found.proof, found.line, [VKEY]).size == len(logs.lines(log[0]))


def test_a_witnesss_checkpoint_is_proven_against(log: tuple[Path, list[str]]) -> None:
    """With a checkpoint from elsewhere the proof is held to it, and a later record can't be proven by it."""
    leaves = [leaf_hash(line[:-1]) for line in logs.lines(log[0])]
    early = signed_note(SIGNER, "local", logs.segments(log[0])[0].parent.name, 5, root_of(leaves[:5]))
    found = prove(log[0], f"{1:026}", keys=[VKEY], checkpoint=early)
    assert early in found.proof
    with pytest.raises(InvalidArgument, match="none does"):
        prove(log[0], f"{19:026}", keys=[VKEY], checkpoint=early)


def test_a_proof_holds_for_one_line_and_one_key(log: tuple[Path, list[str]]) -> None:
    """Another line, another place, a shorter path, another key or a torn text is refused."""
    found = prove(log[0], f"{7:026}", keys=[VKEY])
    other = prove(log[0], f"{8:026}", keys=[VKEY])
    stranger = vkey(SigningKey.generate("Ed25519"), "local")
    head, _, note = found.proof.partition("\n\n")
    lines = head.split("\n")
    wrong = [
        (found.proof, other.line, VKEY),
        (other.proof, found.line, VKEY),
        (found.proof, found.line, stranger),
        ("\n".join(lines[:-1]) + "\n\n" + note, found.line, VKEY),
        (found.proof.replace("index ", "index 1"), found.line, VKEY),
        (found.proof.replace("index ", "index x"), found.line, VKEY),
        (found.proof.replace("@v1", "@v2"), found.line, VKEY),
        (head, found.line, VKEY),
        ("", found.line, VKEY),
        (found.proof.replace(lines[2], "%%%"), found.line, VKEY),
    ]
    for proof, line, key in wrong:
        with pytest.raises(InvalidArgument):
            check_proof(proof, line, [key])


def test_what_was_changed_is_not_proven(tmp_path: Path) -> None:
    """An edited record has no proof, nor has any record under a key that isn't trusted or isn't given."""
    sealed(tmp_path / "log")
    for keys in ([], [vkey(SigningKey.generate("Ed25519"), "local")]):
        with pytest.raises(InvalidArgument):
            prove(tmp_path / "log", f"{3:026}", keys=keys)
    [path] = logs.segments(tmp_path / "log")
    path.write_bytes(path.read_bytes().replace(b'"id":"' + f"{3:026}".encode(), b'"id":"' + b"x" * 26))
    with pytest.raises(InvalidArgument):
        prove(tmp_path / "log", "x" * 26, keys=[VKEY])


def test_the_command_writes_proof_and_record(
    log: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`records prove` prints or writes the proof, and the line that it is of; an unknown id exits with 4."""
    own, proof, line = f"{7:026}", tmp_path / "one.tlog-proof", tmp_path / "one.json"
    found = ran(capsys, "prove", own, log[0], "--key", VKEY)
    assert (found.code, found.out) == (0, prove(log[0], own, keys=[VKEY]).proof)
    assert ran(capsys, "prove", own, log[0], "--key", VKEY, "-o", proof, "--record", line).code == 0
    check_proof(proof.read_text("utf-8"), line.read_bytes(), [VKEY])
    assert ran(capsys, "prove", "none", log[0], "--key", VKEY).code == 4
    assert ran(capsys, "prove", own, log[0]).code == 4
