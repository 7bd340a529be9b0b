"""Test disks that are full, slow to be believed, read-only or gone: rows 4 to 9, 43 and 44 of the table of faults."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, cast

import pytest

from agentauthz.errors import SinkError
from agentauthz.records import EventRecord, FileSink, MemorySink, Recorder, read_record
from agentauthz.records import segment as segments
from agentauthz.records.verify import Verdict
from tests import logs
from tests.faults.logged import append, checked, record, run
from tests.golden import ROOT


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


def test_row_04_a_full_disk_leaves_no_fragment_and_one_record_of_it(small: Path) -> None:
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


def test_row_05_when_space_returns_the_gap_is_told_first(small: Path) -> None:
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


def test_row_05_what_other_sinks_have_is_told_by_its_hash(small: Path) -> None:
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


def test_row_06_a_folder_that_may_not_be_written_is_refused_at_the_start(open_folder: Path) -> None:
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


def test_row_06_a_folder_that_becomes_read_only_refuses_what_it_can_not_keep(open_folder: Path) -> None:
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


_FAILING: Final = """
    import errno, os, sys
    from pathlib import Path
    from agentauthz import Authorizer, Denied, PolicySet, Principal
    from agentauthz.errors import SinkError
    from agentauthz.records import FileSink, MemorySink
    from tests.faults.logged import append
    order = Path(os.environ["FAILING"])
    def fail(call, code):
        order.write_text(f"{call} {code}")
"""


def _run_failing(code: str, failing: Path, tmp_path: Path) -> str:
    given = {"LD_PRELOAD": str(failing), "FAILING": str(tmp_path / "order")}
    return run(_FAILING + code, tmp_path / "log", env=given).stdout


@pytest.mark.parametrize("name", ["EDQUOT", "EROFS", "EIO", "ENOSPC"])
def test_row_06_what_the_system_refuses_in_the_middle_is_denied_and_told(
    failing: Path, tmp_path: Path, name: str
) -> None:
    """A used-up quota, a file system that turned read-only: calls are denied, others are told, and it goes on later."""
    code = """
    memory = MemorySink()
    authorizer = Authorizer(PolicySet.parse("permit anything on * when true"), sinks=[FileSink(sys.argv[1]), memory])
    session = authorizer.session(Principal.user("maria"))
    session.authorize("t.before")
    fail("write", errno.%s)
    for _ in range(3):
        try:
            session.authorize("t.refused")
        except Denied as denied:
            print(denied.decision.reasons[0].code, str(denied.__cause__.__cause__ or denied.__cause__).lower())
    assert len(memory.decisions) == 4  # who investigates finds what was refused, where another sink has it
    order.unlink()
    session.authorize("t.after")
    authorizer.close()
    """
    told = _run_failing(code % name, failing, tmp_path).splitlines()
    assert len(told) == 3
    assert all(line.startswith("not_recorded ") and os.strerror(getattr(errno, name)).lower() in line for line in told)
    events = [event.type for event in _events(tmp_path / "log")]
    assert events == ["stream.open", "stream.gap", "stream.sealed"]
    report = checked(tmp_path / "log")
    assert (report.verdict, report.damages, report.streams[0].lost) == (Verdict.RECOVERED, (), 3)


def test_row_06_a_read_only_mount_is_refused_at_the_start(small: Path) -> None:
    """On a file system that is mounted read-only no log can be made, by root or anybody: an error at once."""
    (small / "log").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    with pytest.raises(SinkError, match="read-only file system"):
        FileSink(small / "log")
    with pytest.raises(SinkError, match="read-only file system"):
        FileSink(small / "other")


def test_row_07_a_device_that_fails_a_sync_is_not_asked_again(failing: Path, tmp_path: Path) -> None:
    """When fdatasync itself gives EIO the call is denied, the file gets no more, and the next one tells of it."""
    code = """
    sink = FileSink(sys.argv[1], mode="fsync")
    append(sink, "before")
    first = sink.path
    fail("fdatasync", errno.EIO)
    for _ in range(2):
        try:
            append(sink, "unsure")
        except SinkError as error:
            print(error)
    order.unlink()
    append(sink, "after")
    assert sink.path != first
    assert first.read_bytes().count(b"unsure") == 1
    sink.close()
    """
    told = _run_failing(code, failing, tmp_path).splitlines()
    assert len(told) == 2
    assert all("couldn't be synced: input/output error" in line for line in told)
    assert {"before", "after"} <= set(logs.ids(tmp_path / "log"))
    failed = [event for event in _events(tmp_path / "log") if event.type == "sink.failed"]
    assert [event.about["error"] for event in failed] == ["a sync failed", "a sync failed"]
    assert checked(tmp_path / "log").damages == ()


def test_row_07_a_sync_that_fails_is_never_believed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_row_08_a_file_that_was_deleted_or_replaced_is_noticed(tmp_path: Path, how: str) -> None:
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


def test_row_09_a_folder_that_is_gone_refuses_until_it_is_back(tmp_path: Path) -> None:
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


def test_row_09_a_folder_that_is_unmounted_and_mounted_again(
    small: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """While its file system is away the log refuses; mounted again it goes on, and nothing written before is lost."""
    (small / "log").mkdir()
    place = tmp_path_factory.mktemp("mounted")
    bind = ["mount", "--bind", str(small), str(place)]
    subprocess.run(bind, check=True)
    try:
        sink = FileSink(place / "log")
        append(sink, "1")
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        log = sink.stream.log
        assert log is not None
        log._look = 0  # as if a tenth of a second had passed
        for _ in range(3):
            with pytest.raises(SinkError, match="no such file or directory"):
                append(sink, "refused")
        assert list(place.iterdir()) == []  # and nothing is written to what lies below
        subprocess.run(bind, check=True)
        append(sink, "2")
        sink.close()
        assert logs.ids(place / "log") == ["1", "2"]
        assert checked(place / "log").damages == ()
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def test_row_43_a_log_in_memory_works_and_warns(small: Path) -> None:
    """On a tmpfs, where a sync does nothing, both modes write a log that verifies; the one that can't hold warns."""
    for mode, told in (("inline", []), ("fsync", ["tmpfs"])):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sink = FileSink(small / mode, mode=mode)  # type: ignore[arg-type]
            append(sink, "1")
            sink.close()
        assert checked(small / mode).damages == ()
        assert [word for each in caught for word in told if word in str(each.message)] == told
        assert len(caught) == len(told)


def test_row_43_writers_that_share_no_lock_write_side_by_side(tmp_path: Path) -> None:
    """Where locks mean nothing, as on some network file systems, one stream per writer needs none to stay whole."""
    code = """
        import sys
        from agentauthz.records import FileSink, catalog
        from tests.faults.logged import append
        catalog.fcntl = None
        for step in sys.stdin:
            if step == "open\\n":
                sink = FileSink(sys.argv[1])
            elif step == "write\\n":
                for number in range(100):
                    append(sink, f"{sys.argv[2]}-{number:02}")
            else:
                sink.close()
            print(step, end="", flush=True)
    """
    program = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(subprocess.Popen([*program, str(n)], **pipes)) for n in range(3)]
        for step, at_once in (("open", False), ("write", True), ("close", False)):
            for group in [writers] if at_once else [[writer] for writer in writers]:
                for writer in group:
                    cast("IO[str]", writer.stdin).write(f"{step}\n")
                    cast("IO[str]", writer.stdin).flush()
                told = [cast("IO[str]", writer.stdout).readline() for writer in group]
                assert told == [f"{step}\n"] * len(group)
        for writer in writers:
            cast("IO[str]", writer.stdin).close()
    assert len(logs.ids(tmp_path)) == 300
    report = checked(tmp_path)
    assert (len(report.streams), report.damages) == (3, ())


def test_row_44_a_limit_on_the_size_of_files_refuses_whole_records(tmp_path: Path) -> None:
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


def test_row_44_without_free_handles_the_segment_goes_on(tmp_path: Path) -> None:
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
