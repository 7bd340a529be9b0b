"""Sign the state of a log, and check such signatures (C2SP signed-note and tlog-checkpoint, Ed25519)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, cast, final

from attrs import field, frozen

from agentauthz.canonical import class_name
from agentauthz.errors import InvalidArgument
from agentauthz.keys.base64url import from_base64url, to_base64url

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from agentauthz.keys.signing import Signer

_ED25519: Final = b"\x01"  # the type of signature (signed-note, "Signature types")
_COSIGNATURE: Final = b"\x04"  # a witness's, over the moment and the note (tlog-cosignature, "Format")
_ORG: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAME: Final = re.compile(r"[^\s+]+")
_SIGNATURE: Final = re.compile(r"\u2014 ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_LONGEST: Final = 100  # characters of a name in a message
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


@final
@frozen
class Checkpoint:
    """Be what a signed note says of a log: at `size` records the tree had this root. `note` is the whole text.

    Nothing of it counts before `verified_by` has said that a trusted key signed it.
    """

    origin: str
    size: int
    root: bytes
    note: str = field(repr=False)

    @property
    def stream(self) -> str:
        """Return the id of the stream, the last part of the origin."""
        return self.origin.rpartition("/")[2]


def origin_of(org: str, stream: str) -> str:
    """Return how a stream of an organisation is named in its checkpoints.

    Raises:
        InvalidArgument: the organisation's name has other characters than letters, digits, `.`, `_` and `-`.
    """
    if not isinstance(org, str) or _ORG.fullmatch(org) is None:
        raise InvalidArgument("org", "must be 1 to 64 letters, digits, dots, underscores or hyphens")
    return f"agentauthz/{org}/{stream}"


def vkey(signer: Signer, org: str) -> str:
    """Return the text with which others verify what `signer` signs for `org`: hand it out apart from the log.

    Raises:
        InvalidArgument: the key isn't Ed25519, or `org` is no name.
    """
    name, public = _named(org), _raw(signer.public_jwk())
    return f"{name}+{_key_id(name, _ED25519 + public).hex()}+{base64.b64encode(_ED25519 + public).decode()}"


def signed_note(signer: Signer, org: str, stream: str, size: int, root: bytes) -> str:
    """Return a checkpoint, signed.

    Raises:
        InvalidArgument: the key isn't Ed25519. What the signer itself raises comes out as it is.
    """
    text = f"{origin_of(org, stream)}\n{size}\n{base64.b64encode(root).decode()}\n"
    name, public = _named(org), _raw(signer.public_jwk())
    signature = base64.b64encode(_key_id(name, _ED25519 + public) + signer.sign(text.encode())).decode()
    return f"{text}\n\u2014 {name} {signature}\n"


def read_checkpoint(note: str) -> Checkpoint:
    """Return what a note says, whoever may have signed it.

    Raises:
        InvalidArgument: it is no checkpoint.
    """
    text, _, _ = note.rpartition("\n\n")
    origin, *rest = text.split("\n")
    try:
        if _SIZE.fullmatch(rest[0]) is None:
            raise ValueError
        root = base64.b64decode(rest[1], validate=True)
    except (IndexError, ValueError, binascii.Error):
        raise InvalidArgument("checkpoint", "is no signed note of a size and a root") from None
    if len(root) != 32 or not origin:
        raise InvalidArgument("checkpoint", "is no signed note of a size and a root")
    return Checkpoint(origin, int(rest[0]), root, note)


def read_checkpoints(text: str) -> list[Checkpoint]:
    """Return every checkpoint of a text that holds some, one after the other; what is none is left out."""
    found = []
    for note in re.split(r"(?<=\n)\n(?!\u2014 )", text):
        try:
            found.append(read_checkpoint(note if note.endswith("\n") else note + "\n"))
        except InvalidArgument:  # a torn one, or somebody's remark
            continue
    return found


def signed_as(checkpoints: Iterable[Checkpoint]) -> str:
    """Return, for a message, the names under which some notes say that they are signed; nobody has verified them."""
    lines = (line for each in checkpoints for line in each.note.rpartition("\n\n")[2].splitlines())
    names = {named[1][:_LONGEST] for line in lines if (named := _SIGNATURE.fullmatch(line))}
    return ", ".join(f"`{name}`" for name in sorted(names)[:3]) or "nobody"


def verified_by(checkpoint: Checkpoint, keys: Iterable[Vkey]) -> str | None:
    """Return the name of the first of `keys` that signed a checkpoint; None: none of them did.

    A note with a line that names one of the keys, and isn't its signature, is verified by none (signed-note).
    SECURITY: keys come from whoever asks, never from the log.
    """
    return next((key.name for key in _signers(checkpoint, keys)), None)


def cosigned_by(checkpoint: Checkpoint, keys: Iterable[Vkey]) -> bool:
    """Say whether a witness whose key is among `keys` signed a checkpoint too (tlog-cosignature)."""
    return any(key.cosigns for key in _signers(checkpoint, keys))


def _signers(checkpoint: Checkpoint, keys: Iterable[Vkey]) -> list[Vkey]:
    """Return those of `keys` that signed; none, where a line says that one did which didn't."""
    text, _, signatures = checkpoint.note.rpartition("\n\n")
    signed, known = (text + "\n").encode(), list(keys)
    found: list[Vkey] = []
    for line in signatures.splitlines():
        if (named := _SIGNATURE.fullmatch(line)) is None:
            continue
        try:
            blob = base64.b64decode(named[2])
        except binascii.Error:
            continue
        for key in known:
            if key.name == named[1] and key.key_id == blob[:4]:
                if not key.verifies(blob[4:], signed):
                    return []
                found.append(key)
    return found


@final
@frozen
class Vkey:
    """Be a key that checkpoints are verified with: a log's, or that of a witness, which `cosigns`."""

    name: str
    key_id: bytes
    cosigns: bool
    _public: Ed25519PublicKey = field(repr=False)

    @classmethod
    def of(cls, text: str) -> Vkey:
        """Return the key that `vkey` wrote, or that a witness gave out.

        Raises:
            InvalidArgument: it is no verifier key for Ed25519.
        """
        from agentauthz.keys.jwk import verification_key  # only who verifies loads cryptography

        try:
            name, shown, blob = text.split("+", 2)
            raw = base64.b64decode(blob, validate=True)
            key_id = bytes.fromhex(shown)
        except (AttributeError, ValueError, binascii.Error):
            raise InvalidArgument("keys", "must be verifier keys: `<name>+<id>+<key>`, as `vkey` writes them") from None
        known = raw[:1] in (_ED25519, _COSIGNATURE) and len(raw) == 33
        if not known or _NAME.fullmatch(name) is None or key_id != _key_id(name, raw):
            raise InvalidArgument("keys", "must be verifier keys for Ed25519, whose id fits the name and the key")
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": to_base64url(raw[1:])}
        return cls(name, key_id, raw[:1] == _COSIGNATURE, cast("Ed25519PublicKey", verification_key(jwk).key))

    def verifies(self, signature: bytes, signed: bytes) -> bool:
        """Say whether the key made a signature."""
        if self.cosigns:
            moment, signature = int.from_bytes(signature[:8]), signature[8:]
            signed = f"cosignature/v1\ntime {moment}\n".encode() + signed
        try:
            self._public.verify(signature, signed)
        except Exception:  # cryptography isn't imported here, so its error has no name
            return False
        return True


def require_ed25519(signer: object) -> None:
    """Return if `signer` can sign checkpoints.

    Raises:
        InvalidArgument: it can't.
    """
    if not callable(getattr(signer, "sign", None)) or not callable(getattr(signer, "public_jwk", None)):
        raise InvalidArgument("key", f"must be a signer, and a `{class_name(signer)}` can't sign")
    _raw(cast("Signer", signer).public_jwk())


def _named(org: str) -> str:
    return origin_of(org, "").rstrip("/")


def _key_id(name: str, key: bytes) -> bytes:
    """Return the id of a key, which begins with the byte of its type."""
    return hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]


def _raw(jwk: Mapping[str, str]) -> bytes:
    public = from_base64url(jwk.get("x", "")) if jwk.get("crv") == "Ed25519" else None
    if public is None or len(public) != 32:
        raise InvalidArgument("key", "must be an Ed25519 key: checkpoints have no other signature")
    return public
