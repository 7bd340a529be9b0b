"""Test disks that are full, slow to be believed, read-only or gone: rows 4 to 9, 43 and 44 of the table of faults."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from agentauthz.errors import SinkError
from agentauthz.records import EventRecord, FileSink, MemorySink, Recorder, read_record
from agentauthz.records import segment as segments
from agentauthz.records.verify import Verdict
from tests import logs
from tests.faults.logged import append, checked, record, run


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of 512 KiB."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small tmpfs")
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tmp_path)]
    if (done := subprocess.run(mount, capture_output=True, text=True, check=False)).returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def _events(folder: Path) -> list[EventRecord]:
    return [each for each in logs.records(folder) if isinstance(each, EventRecord)]


def _fill(folder: Path) -> Path:
    """Leave no room on a small file system."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1_000))
    assert shutil.disk_usage(folder).free == 0
    return filler


def test_04_a_full_disk_leaves_no_fragment_and_one_record_of_it(small: Path) -> None:
    """Records are refused whole; what was kept back lets one `sink.failed` out, and every line is whole."""
    sink = FileSink(small)
    append(sink, "before")
    _fill(small)
    refused: list[str] = []
    for number in range(20):
        try:
            append(sink, f"full-{number}", "x" * 1_500)
        except SinkError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert all("no space left" in text and "xxx" not in text for text in refused)
    assert all(line.endswith(b"}\n") for line in logs.lines(small))
    assert [event.type for event in _events(small)] == ["stream.open", "sink.failed"]


def test_05_when_space_returns_the_gap_is_told_first(small: Path) -> None:
    """Appending goes on by itself: first the gap, with how many were refused, then the record; the chain holds."""
    sink = FileSink(small)
    filler = _fill(small)
    refused = 0
    for number in range(30):
        try:
            append(sink, f"full-{number}", "x" * 1_500)
        except SinkError:
            refused += 1
    filler.unlink()
    append(sink, "after")
    sink.close()
    records = logs.records(small)
    at = next(i for i, each in enumerate(records) if each.id == "after")
    gap = records[at - 1]
    assert isinstance(gap, EventRecord)
    assert (gap.type, gap.about["count"]) == ("stream.gap", refused)
    assert [each.seq for each in records] == list(range(len(records)))
    assert checked(small).damages == ()


def test_05_what_other_sinks_have_is_told_by_its_hash(small: Path) -> None:
    """A record that only other sinks could keep has its number, and the file its hash: the chain can be proven."""
    sink, memory = FileSink(small), MemorySink()
    recorder = Recorder([sink, memory])
    filler = _fill(small)
    refused = 0
    for number in range(30):
        try:
            recorder.write(record(f"full-{number:02}", "x" * 1_500))
        except SinkError:
            refused += 1
    filler.unlink()
    recorder.write(record("after"))
    recorder.close()
    assert len(memory.decisions) == 31
    assert [each.seq for each in memory.records] == list(range(len(memory.records)))
    missing = {each.seq for each in memory.records} - {each.seq for each in logs.records(small)}
    assert len(missing) == refused
    report = checked(small)
    assert (report.verdict, report.damages) == (Verdict.RECOVERED, ())
    assert report.streams[0].lost == refused
    assert report.streams[0].root is not None
    by_number = {each.seq: each.line() for each in memory.records}
    assert all(by_number[each.seq] == each.line() for each in logs.records(small) if each.seq in by_number)


_UNPRIVILEGED: Final = """
    import os, pathlib, sys
    from agentauthz.errors import SinkError
    from agentauthz.records import FileSink
    from tests.faults.logged import append
    folder = pathlib.Path(sys.argv[1])
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        os.setuid(65534)  # modes mean nothing to root
"""


def _open_to_all(folder: Path) -> None:
    """Let another user reach a folder of the tests."""
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o711)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that an unprivileged user can reach."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_06_a_folder_that_may_not_be_written_is_refused_at_the_start(open_folder: Path) -> None:
    """A log that could not be written is an error when it is made, not at the first decision."""
    code = (
        _UNPRIVILEGED
        + """
    folder.chmod(0o555)
    try:
        FileSink(folder)
    except SinkError as error:
        assert "permission denied" in str(error), error
        print("refused")
    """
    )
    assert run(code, open_folder).stdout == "refused\n"


def test_06_a_folder_that_becomes_read_only_refuses_what_it_can_not_keep(open_folder: Path) -> None:
    """Where no segment can be begun the old one goes on; where that is gone too, records are refused."""
    code = (
        _UNPRIVILEGED
        + """
    sink = FileSink(folder, segment_size=1_000)
    append(sink, "1")
    sink.path.parent.chmod(0o555)
    append(sink, "2")
    append(sink, "3")  # the segment is full, and another can't be made
    sink.path.parent.chmod(0o755)
    sink.path.unlink()
    sink.path.parent.chmod(0o555)
    import time; time.sleep(0.15)
    try:
        append(sink, "4")
    except SinkError as error:
        assert "permission denied" in str(error), error
        print("refused")
    sink.path.parent.chmod(0o755)
    append(sink, "5")
    sink.close()
    """
    )
    assert run(code, open_folder).stdout == "refused\n"
    assert logs.ids(open_folder) == ["1", "2", "3", "5"]
    assert checked(open_folder).damages == ()


def test_07_a_sync_that_fails_is_never_believed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is refused, its file gets no more, and another one is begun that tells of it."""
    sink = FileSink(tmp_path, mode="fsync")
    append(sink, "before")
    first = sink.path
    calls = 0

    def fail(handle: int) -> None:
        nonlocal calls
        calls += 1
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(segments, "_sync", fail)
        with pytest.raises(SinkError, match="couldn't be synced: input/output error"):
            append(sink, "unsure")
    assert calls == 1
    append(sink, "after")
    assert sink.path != first
    sink.close()
    assert [event.type for event in _events(tmp_path)] == ["stream.open", "stream.open", "sink.failed", "stream.sealed"]
    assert logs.ids(tmp_path) == ["before", "unsure", "after"]
    assert checked(tmp_path).damages == ()


@pytest.mark.parametrize("how", ["deleted", "replaced", "cut"])
def test_08_a_file_that_was_deleted_or_replaced_is_noticed(tmp_path: Path, how: str) -> None:
    """Within a tenth of a second of writing it is noticed and told, and what was written is brought back."""
    sink = FileSink(tmp_path)
    append(sink, "1")
    path = sink.path
    written = path.read_bytes()
    if how == "cut":
        os.truncate(path, 10)
    else:
        path.unlink()
        if how == "replaced":
            path.write_bytes(b"")
    log = sink.stream.log
    assert log is not None
    log._look = 0  # as if a tenth of a second had passed
    append(sink, "2")
    sink.close()
    assert sink.path != path
    written_now = map(read_record, sink.path.read_bytes().splitlines())
    (event,) = [each for each in written_now if isinstance(each, EventRecord) and each.type == "stream.recovered"]
    assert event.about["kept"] == {"deleted": "in its place", "replaced": "in quarantine", "cut": "nowhere"}[how]
    if how == "deleted":
        assert path.read_bytes() == written
        assert checked(tmp_path).damages == ()
        assert logs.ids(tmp_path) == ["1", "2"]
    elif how == "replaced":
        assert [kept.read_bytes() for kept in (tmp_path / "quarantine").iterdir()] == [written]
    else:
        assert checked(tmp_path).verdict is Verdict.TAMPERED


def test_09_a_folder_that_is_gone_refuses_until_it_is_back(tmp_path: Path) -> None:
    """Without its folder the log refuses; when the folder is there again it goes on, with what it had written."""
    sink = FileSink(tmp_path / "log")
    append(sink, "1")
    folder = sink.path.parent
    shutil.rmtree(tmp_path / "log")
    log = sink.stream.log
    assert log is not None
    log._look = 0
    for _ in range(2):
        with pytest.raises(SinkError, match="no such file or directory"):
            append(sink, "2")
    folder.mkdir(parents=True)
    append(sink, "3")
    sink.close()
    assert logs.ids(tmp_path / "log") == ["1", "3"]
    assert "deleted" not in {damage.kind for damage in checked(tmp_path / "log").damages}


def test_43_a_log_in_memory_works(tmp_path: Path) -> None:
    """On a tmpfs, where a sync does nothing, both modes write a log that verifies."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        pytest.skip("there is no writable /dev/shm here")
    import tempfile

    with tempfile.TemporaryDirectory(dir=shared) as name:
        for mode in ("inline", "fsync"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # that a sync does nothing there
                sink = FileSink(Path(name) / mode, mode=mode)
            append(sink, "1")
            sink.close()
            assert checked(Path(name) / mode).damages == ()


def test_44_a_limit_on_the_size_of_files_refuses_whole_records(tmp_path: Path) -> None:
    """At RLIMIT_FSIZE a record is refused whole, and the next ones go into another file."""
    code = """
        import resource, sys
        from agentauthz.errors import SinkError
        from agentauthz.records import FileSink
        from tests.faults.logged import append
        sink = FileSink(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, resource.RLIM_INFINITY))
        for number in range(12):
            try:
                append(sink, str(number), "x" * 1_000)
            except SinkError as error:
                assert "xxx" not in str(error), error
                print("refused", number)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        append(sink, "again")
        sink.close()
    """
    refused = run(code, tmp_path).stdout.splitlines()
    assert 1 <= len(refused) <= 4
    assert len(logs.ids(tmp_path)) == 13 - len(refused)
    assert all(line.endswith(b"}\n") for line in logs.lines(tmp_path))
    assert checked(tmp_path).damages == ()


def test_44_without_free_handles_the_segment_goes_on(tmp_path: Path) -> None:
    """At the limit on open files no segment can be begun, and the old one takes what comes."""
    code = """
        import os, resource, sys
        from agentauthz.records import FileSink
        from tests.faults.logged import append
        sink = FileSink(sys.argv[1], segment_size=1_000)
        append(sink, "0")
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        held = []
        try:
            while True:
                held.append(os.dup(0))
        except OSError:
            pass
        before = sink.path
        for number in range(1, 5):
            append(sink, str(number))
        assert sink.path == before
        for handle in held:
            os.close(handle)
        sink.close()
    """
    run(code, tmp_path)
    assert logs.ids(tmp_path) == [str(number) for number in range(5)]
    assert checked(tmp_path).damages == ()
