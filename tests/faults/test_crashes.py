"""Test what is left of a log when its writer dies: rows 1 to 3, 18 and 32 of the table of faults."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Final

import pytest

from agentauthz.records import EventRecord, FileSink
from agentauthz.records import segment as segments
from agentauthz.records.verify import Verdict
from tests import logs
from tests.faults.logged import LONG, SIGNER, append, checked, run

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


def test_row_02_what_fsync_mode_answers_for_is_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a copy that has only what was synced, every record that was acknowledged is there."""
    synced: list[bytes] = []
    sync = segments._sync

    def watched(handle: int) -> None:
        sync(handle)
        synced.append(os.pread(handle, 1 << 20, 0))  # what a loss of power would leave

    monkeypatch.setattr(segments, "_sync", watched)
    sink = FileSink(tmp_path, mode="fsync")
    for number in range(5):
        append(sink, f"id-{number}")
        assert f'"id":"id-{number}"'.encode() in synced[-1]
        assert synced[-1] == sink.path.read_bytes()
    sink.close()
    assert sink.path.read_bytes() == synced[-1]


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
