"""Test signed checkpoints: their exact form, an independent verification, and which signatures count."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agentauthz.errors import InvalidArgument
from agentauthz.keys.signing import SigningKey
from agentauthz.records.checkpoints import (
    Vkey,
    origin_of,
    read_checkpoint,
    read_checkpoints,
    signed_note,
    verified_by,
    vkey,
)

KEY: Final = SigningKey.generate("Ed25519")
STREAM: Final = "01JZ0000000000000000000000"
ROOT: Final = hashlib.sha256(b"root").digest()
NOTE: Final = signed_note(KEY, "acme", STREAM, 12, ROOT)

# C2SP signed-note, the example of its first section, and the key that it gives for it in "Verifier keys"
C2SP_TEXT: Final = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def independently_verified(note: str, verifier: str) -> tuple[str, int, bytes]:
    """Verify a checkpoint by the words of C2SP's two documents, with nothing of ours."""
    name, shown, encoded = verifier.split("+", 2)
    public = base64.b64decode(encoded)
    assert public[:1] == b"\x01"
    assert shown == hashlib.sha256(name.encode() + b"\n" + public).digest()[:4].hex()
    at = note.rindex("\n\n")
    text, signature_lines = note[: at + 1], note[at + 2 :]
    assert signature_lines.endswith("\n")
    for line in signature_lines[:-1].split("\n"):
        dash, signer, blob = line.split(" ")
        raw = base64.b64decode(blob)
        if (dash, signer, raw[:4].hex()) == ("\u2014", name, shown):
            Ed25519PublicKey.from_public_bytes(public[1:]).verify(raw[4:], text.encode())
            origin, size, root = text.split("\n")[:3]
            return origin, int(size), base64.b64decode(root)
    raise InvalidSignature


def test_an_independent_implementation_verifies_a_checkpoint() -> None:
    """Whoever reads C2SP's two documents can verify what is signed here."""
    assert independently_verified(NOTE, vkey(KEY, "acme")) == (f"agentauthz/acme/{STREAM}", 12, ROOT)
    with pytest.raises(InvalidSignature):
        independently_verified(NOTE.replace("\n12\n", "\n13\n"), vkey(KEY, "acme"))


def test_the_form_of_a_checkpoint() -> None:
    """A note is origin, size, root, an empty line and a signature's line, and reads back."""
    lines = NOTE.split("\n")
    assert lines[:4] == [f"agentauthz/acme/{STREAM}", "12", base64.b64encode(ROOT).decode(), ""]
    assert lines[4].startswith("\u2014 agentauthz/acme ")
    assert lines[5:] == [""]
    found = read_checkpoint(NOTE)
    assert (found.origin, found.stream, found.size, found.root) == (lines[0], STREAM, 12, ROOT)
    assert verified_by(found, [Vkey.of(vkey(KEY, "acme"))]) == "agentauthz/acme"


def test_only_trusted_keys_count() -> None:
    """A note signed by another key, under another name or changed afterwards is verified by none."""
    other = SigningKey.generate("Ed25519")
    trusted = [Vkey.of(vkey(KEY, "acme"))]
    for note in (
        signed_note(other, "acme", STREAM, 12, ROOT), signed_note(KEY, "evil", STREAM, 12, ROOT),
        NOTE.replace("\n12\n", "\n13\n"), NOTE.replace(STREAM, STREAM[:-1] + "1"),
    ):  # fmt: skip
        assert verified_by(read_checkpoint(note), trusted) is None
    assert verified_by(read_checkpoint(NOTE), []) is None


def test_cosignatures_are_allowed() -> None:
    """Further lines with signatures of others stop nobody from finding his own."""
    cosigned = NOTE + "\u2014 witness.example/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn=\n"
    other = NOTE + signed_note(SigningKey.generate("Ed25519"), "acme", STREAM, 12, ROOT).split("\n\n")[1]
    for note in (cosigned, other):
        assert verified_by(read_checkpoint(note), [Vkey.of(vkey(KEY, "acme"))]) == "agentauthz/acme"
    assert read_checkpoint(C2SP_TEXT + "\n\u2014 example.com/behind-the-sofa Az3g\n").size == 20852163


def test_a_file_of_checkpoints() -> None:
    """Notes that stand behind each other are read one by one; a torn one and remarks are passed over."""
    notes = [signed_note(KEY, "acme", STREAM, size, ROOT) for size in range(3)]
    text = "\n".join([notes[0], "a remark\n", notes[1], notes[2]])
    assert [found.size for found in read_checkpoints(text)] == [0, 1, 2]
    assert [found.note for found in read_checkpoints(text)] == notes
    for cut in range(1, len(notes[2])):
        found = read_checkpoints("\n".join(notes[:2]) + "\n" + notes[2][:cut])
        assert [each.size for each in found][:2] == [0, 1]
        whole = [each for each in found if verified_by(each, [Vkey.of(vkey(KEY, "acme"))])]
        assert len(whole) == (3 if cut == len(notes[2]) - 1 else 2)


@pytest.mark.parametrize(
    "bad", ["", "x", "a\n\n", "a\n-1\nAAAA\n\n", "a\n01\nAAAA\n\n", "a\n1\nAAAA\n\n", "a\n1\n\n", "\n\n\n"]
)
def test_what_is_no_checkpoint_is_refused(bad: str) -> None:
    """Text of another form gives one error."""
    with pytest.raises(InvalidArgument, match="signed note"):
        read_checkpoint(bad)


@pytest.mark.parametrize("bad", ["", "a", "a+b", "a+zz+AAAA", "a+00000000+AQ==", None])
def test_what_is_no_verifier_key_is_refused(bad: str) -> None:
    """A key whose text is damaged, or whose id isn't its own, is an error."""
    with pytest.raises(InvalidArgument, match="verifier keys"):
        Vkey.of(bad)
    name, shown, blob = vkey(KEY, "acme").split("+", 2)
    with pytest.raises(InvalidArgument, match="fits"):
        Vkey.of(f"{name}x+{shown}+{blob}")


def test_other_keys_and_names_are_refused() -> None:
    """A checkpoint is signed with Ed25519, for a name that can stand in it."""
    with pytest.raises(InvalidArgument, match="Ed25519"):
        vkey(SigningKey.generate("ES256"), "acme")
    for org in ("", "a b", "a/b", "a+b", "a\nb", "x" * 65):
        with pytest.raises(InvalidArgument, match="letters"):
            origin_of(org, STREAM)
