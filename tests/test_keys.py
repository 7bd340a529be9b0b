"""Test the instance key: its digests, where it is loaded from, and that it never shows."""

from __future__ import annotations

import copy
import hashlib
import hmac
import os
import pickle
import re
import stat
from pathlib import Path

import pytest

from agentauthz.errors import InvalidArgument
from agentauthz.keys import InstanceKey
from agentauthz.keys.instance import _check_private

SECRET = bytes(range(32))


def test_digests_are_keyed_and_kept_apart() -> None:
    """Equal data differs by purpose and by key, and is the same for the same key."""
    key = InstanceKey.from_bytes(SECRET)
    assert key.digest("args", b"x") == InstanceKey.from_bytes(SECRET).digest("args", b"x")
    others = {key.digest("value", b"x"), key.digest("args", b"y"), InstanceKey.random().digest("args", b"x")}
    assert key.digest("args", b"x") not in others
    assert len(others) == 3
    assert key.digest("a", b"bx") != key.digest("ab", b"x")


def test_the_digest_is_hmac_sha256() -> None:
    """The digest is HMAC-SHA256 under a key that is itself made from the secret and the purpose."""
    derived = hmac.new(SECRET, b"agentauthz/1/args", hashlib.sha256).digest()
    digest = InstanceKey.from_bytes(SECRET).digest("args", b"x")
    assert digest.partition(":")[2] == hmac.new(derived, b"x", hashlib.sha256).hexdigest()


def test_the_epoch_names_the_key() -> None:
    """Each digest begins with the key's epoch: the same for one key, another for another."""
    key = InstanceKey.from_bytes(SECRET)
    assert re.fullmatch(r"k[0-9a-f]{8}:[0-9a-f]{64}", key.digest("args", b""))
    assert key.digest("args", b"").startswith(f"{key.epoch}:")
    assert key.epoch == InstanceKey.from_bytes(SECRET).epoch != InstanceKey.random().epoch


def test_the_secret_never_shows() -> None:
    """Neither repr nor str nor format tells the secret, and the object can't be pickled or copied."""
    key = InstanceKey.from_bytes(b"SECRET-marker-SECRET-marker-SECRET")
    assert "marker" not in f"{key!r}{key}"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InvalidArgument, match="can't be pickled or copied"):
            leak(key)
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("secret", [b"", b"x" * 31, b"x" * 4097, "x" * 32, bytearray(32), None])
def test_bad_secrets_are_refused(secret: object) -> None:
    """A secret is 32 to 4096 bytes, and nothing else; the message doesn't repeat it."""
    with pytest.raises(InvalidArgument, match=r"^`key` must be 32 to 4096 bytes$"):
        InstanceKey.from_bytes(secret)  # type: ignore[arg-type]


def test_random_keys_differ() -> None:
    """Two random keys have nothing in common."""
    assert InstanceKey.random().digest("a", b"") != InstanceKey.random().digest("a", b"")


def _file(tmp_path: Path, content: bytes = SECRET, mode: int = 0o600) -> Path:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_is_a_key(tmp_path: Path, mode: int) -> None:
    """A file that only its owner may use gives the key of its whole content."""
    path = _file(tmp_path, mode=mode)
    assert InstanceKey.from_file(path).epoch == InstanceKey.from_bytes(SECRET).epoch
    assert InstanceKey.from_file(str(path)).epoch == InstanceKey.from_bytes(SECRET).epoch


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o610, 0o644, 0o777])
def test_a_file_for_others_is_refused(tmp_path: Path, mode: int) -> None:
    """A file that its group or others may read, write or run is refused, with the mode and what to do."""
    path = _file(tmp_path, mode=mode)
    with pytest.raises(InvalidArgument, match=rf"`{path}` may be used by others .*mode {mode:04o}.*chmod 600"):
        InstanceKey.from_file(path)


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """A file that belongs to neither this user nor root is refused."""
    path = _file(tmp_path)
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
        with pytest.raises(InvalidArgument, match="belongs to another user"):
            InstanceKey.from_file(path)
        return
    # only root can give a file away: seen by another user, root's own are taken, and anyone else's are not
    status = os.stat_result((stat.S_IFREG | 0o600, 0, 0, 1, os.geteuid() + 1, 0, 32, 0, 0, 0))
    with pytest.raises(InvalidArgument, match="belongs to another user"):
        _check_private(str(path), status)


def test_what_is_no_key_file_is_refused(tmp_path: Path) -> None:
    """A missing file, a folder, a pipe, a name with NUL and a wrong size each give an error that names the file."""
    with pytest.raises(
        InvalidArgument, match=r"`key` file `.*missing` can't be read: No such file .*openssl rand -out"
    ):
        InstanceKey.from_file(tmp_path / "missing")
    with pytest.raises(InvalidArgument, match="must be a regular file"):
        InstanceKey.from_file(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(InvalidArgument, match="must be a regular file"):
        InstanceKey.from_file(tmp_path / "pipe")
    with pytest.raises(InvalidArgument, match="no file can have such a name"):
        InstanceKey.from_file("a\0b")
    for content in (b"short", b"x" * 5000):
        with pytest.raises(InvalidArgument, match="must hold 32 to 4096 bytes"):
            InstanceKey.from_file(_file(tmp_path, content))
