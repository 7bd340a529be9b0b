"""Test what is known of file systems on which a sync does nothing."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from agentauthz.records import FileSink, mounts
from agentauthz.records.mounts import unsynced


def _told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *systems: str) -> str | None:
    """Return what is found where a table of mounts says that of the device of a folder."""
    there = os.stat(tmp_path).st_dev
    device = f"{os.major(there)}:{os.minor(there)}"
    table = tmp_path / "mountinfo"
    table.write_text("".join(f"36 35 {device} / /mnt\\040a rw shared:1 - {system}\n" for system in systems))
    monkeypatch.setattr(mounts, "_MOUNTS", table)
    return unsynced(tmp_path)


@pytest.mark.parametrize(
    ("system", "found"),
    [
        ("tmpfs tmpfs rw,size=512k", "tmpfs"), ("ramfs none rw", "ramfs"), ("ext4 /dev/vda rw", None),
        ("nfs4 server:/export rw,vers=4.2", None), ("fuse.what what rw", None), ("9p host rw", None),
        ("overlay overlay rw,lowerdir=/a,upperdir=/nowhere/upper,workdir=/w", None),
        ("overlay overlay rw,lowerdir=/a,upperdir=/nowhere/upper,workdir=/w,volatile", "overlay"),
    ],
)  # fmt: skip
def test_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, found: str | None) -> None:
    """Only what is known to lose everything is told of; of what isn't known nothing is said."""
    assert _told(tmp_path, monkeypatch, system) == found


def test_the_mount_on_top_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several entries for a device the last one is in force."""
    assert _told(tmp_path, monkeypatch, "tmpfs tmpfs rw", "ext4 /dev/vda rw") is None


@pytest.mark.parametrize("text", ["", "nonsense\n", "1 2 - tmpfs\n", "36 35 x / / rw - tmpfs tmpfs rw\n"])
def test_what_can_not_be_read_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A table of another form, one that names no such device, and none at all are no reason to warn."""
    table = tmp_path / "mountinfo"
    table.write_text(text)
    monkeypatch.setattr(mounts, "_MOUNTS", table)
    assert unsynced(tmp_path) is None
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "missing")
    assert unsynced(tmp_path) is None
    assert unsynced(tmp_path / "missing") is None


def test_a_disk_is_no_reason_to_warn(tmp_path: Path) -> None:
    """Where a sync works, as for these tests' own folder, nothing is said."""
    if unsynced(tmp_path) is not None:
        pytest.skip("the folder for tests is in memory here")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FileSink(tmp_path / "log", mode="fsync").close()
