"""Test what is left of a log when its writer dies: rows 1 to 3, 18 and 32 of the table of faults."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import threading
from pathlib import Path
from typing import Final

import pytest

from agentauthz.records import EventRecord, FileSink
from agentauthz.records import log as logs_of
from agentauthz.records import segment as segments
from agentauthz.records.verify import Verdict
from tests import logs
from tests.faults.logged import LONG, SIGNER, append, checked, record, run

KILLS: Final = 1_000 if LONG else 60

# one program forks each writer, so that a kill costs milliseconds: a thousand interpreters would take an hour
_KILLING: Final = """
    import os, random, select, signal, sys, time
    from pathlib import Path
    from agentauthz.records import FileSink
    from tests.faults.logged import append

    folder, kills, seed, mode = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    rng = random.Random(seed)
    for kill in range(kills):
        acknowledged, told = os.pipe()
        child = os.fork()
        if child == 0:
            sink = FileSink(folder, segment_size=20_000, mode=mode)
            for number in range(1_000_000):
                id = f"{kill:04}-{number:06}"
                append(sink, id, "x" * rng.randrange(2_000))
                os.write(told, id.encode() + b"\\n")
        os.close(told)
        select.select([acknowledged], [], [], 30)  # it has begun
        time.sleep(rng.random() * 0.03)
        os.kill(child, signal.SIGKILL)
        with os.fdopen(acknowledged, "rb") as pipe:
            sys.stdout.write(pipe.read().decode())
        os.waitpid(child, 0)
"""


@pytest.mark.parametrize("mode", ["inline", "fsync"])
def test_row_01_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path, mode: str) -> None:
    """Writers that are killed at any moment lose no record that they had answered for, and nothing looks changed."""
    kills = KILLS if mode == "inline" else KILLS // 6
    acknowledged = run(_KILLING, tmp_path, kills, kills, mode, timeout=1_200 if LONG else 120).stdout.split()
    FileSink(tmp_path).close()  # puts right what they left
    assert len(acknowledged) > kills
    assert set(acknowledged) <= set(logs.ids(tmp_path))
    report = checked(tmp_path)
    assert report.damages == ()
    assert report.verdict is Verdict.UNWITNESSED
    assert len(report.streams) == kills + 1
    recovered = [each for each in logs.records(tmp_path) if isinstance(each, EventRecord)]
    assert sum(each.type == "stream.recovered" for each in recovered) == kills


def test_row_01_a_tail_that_is_torn_at_any_byte_is_put_aside(tmp_path: Path) -> None:
    """Wherever the last line is cut, it goes to quarantine, and the whole lines before it stay."""
    sink = FileSink(tmp_path / "log")
    for number in range(3):
        append(sink, str(number))
    data, name = sink.path.read_bytes(), sink.path.relative_to(tmp_path / "log")
    shutil.copytree(tmp_path / "log", tmp_path / "died")  # a copy that nobody holds
    sink.close()
    start = data.rindex(b"\n", 0, -1) + 1
    for cut in (*range(start + 1, start + 40), (start + len(data)) // 2, len(data) - 1):
        folder = tmp_path / f"cut{cut}"
        shutil.copytree(tmp_path / "died", folder)
        (folder / name).write_bytes(data[:cut])
        assert [damage.kind for damage in checked(folder).damages] == ["torn"]
        again = FileSink(folder)
        again.close()
        (event,) = [each for each in logs.records(folder) if getattr(each, "type", "") == "stream.recovered"]
        assert isinstance(event, EventRecord)
        assert (event.about["bytes"], event.about["size"]) == (cut - start, 3)
        assert (folder / name).read_bytes() == data[:start]
        assert [path.read_bytes() for path in (folder / "quarantine").iterdir()] == [data[start:cut]]
        assert checked(folder).verdict is Verdict.UNWITNESSED


class _Device:
    """Be what is on the device: of each file and each folder what the last sync of it took."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.files: dict[int, bytes] = {}  # by inode
        self.folders: dict[Path, dict[str, int]] = {}
        sync, sync_folder = segments._sync, logs_of._sync_folder

        def synced(handle: int) -> None:
            sync(handle)
            self.files[os.fstat(handle).st_ino] = os.pread(handle, 1 << 22, 0)

        def synced_folder(folder: Path) -> None:
            sync_folder(folder)
            self.folders[folder] = {path.name: path.stat().st_ino for path in folder.iterdir()}

        patch.setattr(segments, "_sync", synced)
        patch.setattr(logs_of, "_sync_folder", synced_folder)

    def after(self, folder: Path, to: Path, rng: random.Random) -> None:
        """Make what a loss of power leaves of a folder: what was synced, and of other pages the first few, or none."""
        to.mkdir()
        for name, inode in self.folders.get(folder, {}).items():
            path = folder / name
            if path.is_dir():
                self.after(path, to / name, rng)
            elif inode in self.files or name.endswith(".ndjson"):
                kept = self.files.get(inode, b"")
                unsynced = path.read_bytes()[len(kept) :] if path.is_file() and path.stat().st_ino == inode else b""
                (to / name).write_bytes(kept + unsynced[: rng.randrange(len(unsynced) + 1)])


def test_row_02_what_fsync_mode_answers_for_survives_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each answer the power goes: whatever else is lost, each answered record is there, and nothing is damaged.

    The device is simulated: a file has what was synced of it, a folder the names that were there at its last sync.
    """
    rng, device = random.Random(2), _Device(monkeypatch)
    (tmp_path / "disk").mkdir()
    sink = FileSink(tmp_path / "disk" / "log", mode="fsync", segment_size=4_000)
    made: list[str] = []
    for number in range(30):
        made.append(f"{number:026}")
        append(sink, made[-1], "x" * rng.randrange(600))
        if number % 3 == 2:  # somebody else has written, and was told nothing yet
            waiting = record(f"{number:026}-unanswered")
            sink.stream.take(waiting, others=False)
            made.append(waiting.id)
        left = tmp_path / f"left{number}"
        with monkeypatch.context() as patch:
            patch.setattr(segments, "_sync", os.fsync)
            patch.setattr(logs_of, "_sync_folder", lambda _: None)
            device.after(tmp_path / "disk", left, rng)
            FileSink(left / "log", mode="fsync").close()
        answered, found = ([each for each in ids if "-" not in each] for ids in (made, logs.ids(left / "log")))
        assert found == answered
        report = checked(left / "log")
        assert (report.damages, report.verdict) == ((), Verdict.UNWITNESSED)
        assert len(list((left / "log").glob("quarantine/*"))) <= 1
        shutil.rmtree(left)
    assert len(logs.segments(tmp_path / "disk" / "log")) > 3
    sink.close()


def test_row_03_a_loss_of_power_in_inline_mode_is_incomplete(tmp_path: Path) -> None:
    """What the system hadn't written yet is missing: with a witness that is called incomplete, not tampered."""
    notes: list[str] = []
    sink = FileSink(tmp_path / "log", key=SIGNER, witness=notes.append, checkpoint_every=1)
    for number in range(5):
        append(sink, str(number))
    keeper = sink.stream.keeper
    assert keeper is not None
    keeper.sign()
    shutil.copytree(tmp_path / "log", tmp_path / "left")
    name = sink.path.relative_to(tmp_path / "log")
    sink.close()
    data = (tmp_path / "left" / name).read_bytes()
    (tmp_path / "left" / name).write_bytes(data[: len(data) * 2 // 3])
    report = checked(tmp_path / "left", notes)
    assert report.verdict is Verdict.INCOMPLETE
    assert {damage.kind for damage in report.damages} == {"torn", "truncated"}


def test_row_18_a_program_that_ends_without_closing_seals_its_log(tmp_path: Path) -> None:
    """At the end of the interpreter the stream is sealed; what daemon threads still try is refused."""
    code = """
        import sys, threading
        from agentauthz.errors import SinkError
        from agentauthz.records import FileSink
        from tests.faults.logged import append
        sink = FileSink(sys.argv[1])
        append(sink, "first")
        def work():
            number = 0
            try:
                while True:
                    append(sink, f"daemon-{number}")
                    number += 1
            except SinkError as error:
                assert "closed" in str(error)
        threading.Thread(target=work, daemon=True).start()
    """
    run(code, tmp_path)
    assert logs.ids(tmp_path)[0] == "first"
    last = logs.records(tmp_path)[-1]
    assert isinstance(last, EventRecord)
    assert (last.type, last.about["reason"]) == ("stream.sealed", "closed")
    assert checked(tmp_path).damages == ()
    catalog = [json.loads(line) for line in (tmp_path / "catalog.ndjson").read_bytes().splitlines()]
    assert [entry["what"] for entry in catalog] == ["opened", "closed"]


def test_row_18_what_ends_after_the_log_is_denied(tmp_path: Path) -> None:
    """Functions that run at exit are decided while the log is open; those that run after its close are denied."""
    code = """
        import atexit, sys
        from agentauthz import Authorizer, Denied, PolicySet, Principal
        from agentauthz.records import FileSink
        policies = PolicySet.parse("permit anything on * when true")
        def ask(action):
            try:
                authorizer.session(Principal.user("maria")).authorize(action)
                print(action, "allowed", flush=True)
            except Denied as denied:
                print(action, denied.decision.reasons[0].code, flush=True)
        atexit.register(ask, "t.last")  # those that were registered first run last
        authorizer = Authorizer(policies, sinks=[FileSink(sys.argv[1])], on_failure="deny")
        atexit.register(ask, "t.first")
    """
    assert run(code, tmp_path).stdout.splitlines() == ["t.first allowed", "t.last not_recorded"]
    assert len(logs.ids(tmp_path)) == 1
    assert getattr(logs.records(tmp_path)[-1], "type", "") == "stream.sealed"
    assert checked(tmp_path).damages == ()


_AT: Final = ["before the new file", "after the new file", "after the seal", "before the header"]


@pytest.mark.parametrize("at", _AT)
def test_row_32_a_crash_in_the_middle_of_a_rotation_leaves_no_hole(tmp_path: Path, at: str) -> None:
    """Wherever a writer dies between two segments, its records follow each other, and none is lost."""
    code = """
        import os, sys
        from agentauthz.records import FileSink, log
        from tests.faults.logged import append
        at = sys.argv[2]
        sink = FileSink(sys.argv[1], segment_size=2_000)
        make = log.Segment
        def dying(path, first):
            if first and at == "before the new file":
                os._exit(7)
            made = make(path, first)
            if first and at == "after the new file":
                os._exit(7)
            return made
        log.Segment = dying
        if at == "after the seal":
            log.Log._turn = lambda *_: os._exit(7)
        if at == "before the header":
            log.Log._head = lambda *_: os._exit(7)
        for number in range(100):
            append(sink, str(number))
            print(number, flush=True)
    """
    done = run(code, tmp_path, at, check=False)
    assert done.returncode == 7, done.stderr
    FileSink(tmp_path).close()
    assert logs.ids(tmp_path) == done.stdout.split()
    assert checked(tmp_path).damages == ()


def test_row_32_rotations_under_many_threads_leave_no_hole(tmp_path: Path) -> None:
    """Threads that append while segments turn over leave one row of numbers, over all segments."""
    sink = FileSink(tmp_path, segment_size=2_000)

    def work(name: int) -> None:
        for number in range(40):
            append(sink, f"{name}-{number:02}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    assert len(logs.segments(tmp_path)) > 40
    assert [each.seq for each in logs.records(tmp_path)] == list(range(len(logs.lines(tmp_path))))
    assert len(set(logs.ids(tmp_path))) == 240
    assert checked(tmp_path).damages == ()


def test_row_10_an_interrupt_leaves_the_record_whole_and_counted_once(tmp_path: Path) -> None:
    """A signal's handler that raises at any moment of a write breaks neither line nor numbering."""
    code = """
        import signal, sys
        from agentauthz.records import FileSink
        from tests.faults.logged import append
        class Stop(BaseException): ...
        def stop(*_):
            raise Stop
        sink = FileSink(sys.argv[1], segment_size=20_000)
        signal.signal(signal.SIGALRM, stop)
        stopped = number = 0
        while stopped < 300:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00002 + (number % 97) * 0.000003)
                for _ in range(3):
                    number += 1
                    append(sink, f"{number:026}")
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Stop:
                stopped += 1
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        sink.close()
    """
    run(code, tmp_path)
    assert checked(tmp_path).damages == ()
    numbers = [each.seq for each in logs.records(tmp_path)]
    assert numbers == list(range(len(numbers)))
    ids = logs.ids(tmp_path)
    assert all(first < second for first, second in itertools.pairwise(ids))
