"""Hold the instance key: the secret with which digests are keyed, so that nobody can guess what they stand for."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final, NoReturn, final

from agentauthz.errors import InvalidArgument

MIN_BYTES: Final = 32
MAX_BYTES: Final = 4096

_DOMAIN: Final = b"agentauthz/1/"
_MAKES: Final = "`(umask 077; openssl rand -out FILE 32)` makes one"
_FOR_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@final
class InstanceKey:
    """Be the secret of one installation; make it with `from_bytes`, `from_file` or `random`.

    `epoch` names the key in every digest without telling anything about it, so that digests made before and
    after a change of keys can be told apart. The secret is never shown, copied or pickled.

    Raises:
        InvalidArgument: the secret is no bytes, or not 32 to 4096 of them.
    """

    __slots__ = ("_purposes", "_secret", "epoch")

    epoch: str

    def __init__(self, secret: bytes) -> None:
        if type(secret) is not bytes or not MIN_BYTES <= len(secret) <= MAX_BYTES:
            raise InvalidArgument("key", f"must be {MIN_BYTES} to {MAX_BYTES} bytes")
        self._secret = secret
        self._purposes: dict[str, hmac.HMAC] = {}
        self.epoch = f"k{hmac.digest(secret, _DOMAIN + b'epoch', 'sha256').hex()[:8]}"

    @classmethod
    def from_bytes(cls, secret: bytes) -> InstanceKey:
        """Return the key made of `secret`, which must be random: 32 to 4096 bytes.

        Raises:
            InvalidArgument: no bytes, too few or too many.
        """
        return cls(secret)

    @classmethod
    def from_file(cls, path: str | Path) -> InstanceKey:
        """Return the key made of a file's whole content, 32 to 4096 random bytes.

        Raises:
            InvalidArgument: the file is missing or unreadable, not a regular file, belongs to another user
                (but root's is taken), may be used by its group or others, or has the wrong size.
        """
        try:
            content = read_private(os.fspath(path), MAX_BYTES)
        except InvalidArgument as refused:
            if isinstance(cause := refused.__cause__, FileNotFoundError):
                raise _refused(path, f"can't be read: {_why(cause)}; {_MAKES}, if there was none yet") from cause
            raise
        if not MIN_BYTES <= len(content) <= MAX_BYTES:
            raise _refused(path, f"must hold {MIN_BYTES} to {MAX_BYTES} bytes: {_MAKES}")
        return cls(content)

    @classmethod
    def random(cls) -> InstanceKey:
        """Return a key that nobody knows and that ends with the process: its digests match no other process's."""
        return cls(secrets.token_bytes(MIN_BYTES))

    def digest(self, purpose: str, data: bytes) -> str:
        """Return the keyed digest of `data`, `EPOCH:64 hex digits`; equal data under two purposes differ."""
        mac = (self._purposes.get(purpose) or self._keyed(purpose)).copy()
        mac.update(data)
        return f"{self.epoch}:{mac.hexdigest()}"

    def derived(self, purpose: str) -> bytes:
        """Return the 32 bytes of a purpose's own key, which tell nothing of another purpose's. Keep them secret."""
        return hmac.digest(self._secret, _DOMAIN + purpose.encode(), "sha256")

    def _keyed(self, purpose: str) -> hmac.HMAC:
        """Return the empty MAC under a purpose's own key, to be copied: keying one costs more than a short digest."""
        mac = hmac.new(self.derived(purpose), digestmod="sha256")
        self._purposes[purpose] = mac  # a purpose is a constant of the code, never data: the table stays small
        return mac

    def __repr__(self) -> str:
        return f"InstanceKey({self.epoch})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InvalidArgument("key", "can't be pickled or copied: load it again where it is needed")


def read_private(path: str, limit: int) -> bytes:
    """Return the first `limit` + 1 bytes of a file that only its owner, this user or root, may use.

    Raises:
        InvalidArgument: the file is missing, unreadable, not a regular file, or may be used by others.
    """
    try:
        # O_NONBLOCK: opening a pipe by mistake must fail below, not hang
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as cause:
        raise _refused(path, f"can't be read: {_why(cause)}") from cause
    try:
        _check_private(path, os.fstat(handle))
        return os.read(handle, limit + 1)
    except OSError as cause:
        raise _refused(path, f"can't be read: {_why(cause)}") from cause
    finally:
        os.close(handle)


def _check_private(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _refused(path, "must be a regular file")
    if os.name != "posix":  # elsewhere modes say nothing
        return
    if status.st_uid not in (0, os.geteuid()):
        raise _refused(path, f"belongs to another user (uid {status.st_uid}), who could change or read it")
    if status.st_mode & _FOR_OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        raise _refused(path, f"may be used by others than its owner (mode {mode:04o}): `chmod 600` it")


def _why(cause: Exception) -> str:
    return cause.strerror or "input/output error" if isinstance(cause, OSError) else "no file can have such a name"


def _refused(path: str | Path, message: str) -> InvalidArgument:
    return InvalidArgument("key", f"file `{os.fspath(path)}` {message}")
