"""Test checkpoints and proofs across implementations: what verifies those of Rekor, sigstore's library, takes ours."""

from __future__ import annotations

import base64
from pathlib import Path

from agentauthz.keys.signing import SigningKey
from agentauthz.records.checkpoints import read_checkpoint, vkey
from agentauthz.records.proof import prove
from tests import logs
from tests.faults.logged import SIGNER, VKEY, sealed
from tests.integrations.conftest import NodeScript


def _asked(proof: str, line: bytes, key: str = VKEY) -> dict[str, str]:
    return {"proof": proof, "line": base64.b64encode(line.rstrip(b"\n")).decode(), "vkey": key}


def test_sigstore_verifies_our_checkpoints_and_proofs(node_script: NodeScript, tmp_path: Path) -> None:
    """Of logs of several sizes, records' proofs and signed checkpoints verify there, with the root of ours."""
    asked, roots = [], []
    for count in (0, 1, 2, 5, 12, 33):
        folder = tmp_path / str(count)
        sealed(folder, count, checkpoint_every=7)
        for record in logs.records(folder)[:: 1 + count // 8]:
            found = prove(folder, record.id, keys=[VKEY])
            asked.append(_asked(found.proof, found.line))
            note = read_checkpoint(found.proof.partition("\n\n")[2])
            root = base64.b64encode(note.root).decode()
            roots.append({"origin": note.origin, "size": note.size, "root": root})
    assert len(asked) == 30
    assert node_script("checkpoints.mjs", asked) == roots


def test_sigstore_refuses_what_was_changed(node_script: NodeScript, tmp_path: Path) -> None:
    """Another line, place, hash, size, root, origin or key is refused there, as it is here."""
    sealed(tmp_path, 12)
    found, other = (prove(tmp_path, f"{number:026}", keys=[VKEY]) for number in (3, 4))
    head, _, note = found.proof.partition("\n\n")
    size, root = note.split("\n")[1:3]
    stranger = SigningKey.generate("Ed25519")
    wrong = [
        _asked(found.proof, other.line),
        _asked(found.proof, found.line + b"x"),
        _asked(found.proof.replace("index 4", "index 5").replace("index 3", "index 5"), found.line),
        _asked("\n".join(head.split("\n")[:-1]) + "\n\n" + note, found.line),
        _asked(found.proof.replace(head.split("\n")[2], root), found.line),
        _asked(found.proof.replace(f"\n{size}\n", f"\n{int(size) + 1}\n"), found.line),
        _asked(found.proof.replace(root, base64.b64encode(bytes(32)).decode()), found.line),
        _asked(found.proof.replace("agentauthz/local/", "agentauthz/other/"), found.line),
        _asked(found.proof, found.line, vkey(stranger, "local")),
        _asked(found.proof, found.line, vkey(SIGNER, "other")),
    ]
    answers = node_script("checkpoints.mjs", [_asked(found.proof, found.line), *wrong])
    assert "origin" in answers[0]
    assert [answer.keys() for answer in answers[1:]] == [{"refused"}] * len(wrong)
