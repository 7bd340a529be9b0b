"""Test the helper that compares output with reviewed files: a golden test that can't fail would prove nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden import ACCEPT, check_golden


@pytest.fixture(autouse=True)
def _comparing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ACCEPT, raising=False)


def test_equal_text_passes(tmp_path: Path) -> None:
    """Output that equals the file, line ends included, passes."""
    (tmp_path / "a.txt").write_bytes("é\n".encode())
    check_golden(tmp_path / "a.txt", "é\n")


@pytest.mark.parametrize("content", [b"other\n", b"text\r\n", b"text", None])
def test_any_difference_fails(tmp_path: Path, content: bytes | None) -> None:
    """Another text, other line ends, a missing last line end or a missing file fails, naming `make accept`."""
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AssertionError, match="make accept"):
        check_golden(path, "text\n")


def test_accepting_writes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With AGENTAUTHZ_ACCEPT=1 the file is written, its folder made, and the next comparison passes."""
    path = tmp_path / "new" / "a.txt"
    monkeypatch.setenv(ACCEPT, "1")
    check_golden(path, "text\n")
    monkeypatch.delenv(ACCEPT)
    check_golden(path, "text\n")
