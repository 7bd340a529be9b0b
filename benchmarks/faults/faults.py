"""Hold the faults: each is put to one package, and tells whether its log held, and what was seen."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple, NoReturn, TypeAlias, cast

from benchmarks.faults.loggers import LOGGERS, SECRET, STRANGER, Logger

Held: TypeAlias = Literal["yes", "partly", "no", "-"]
KILLS: Final = 10
ROOT: Final = Path(__file__).resolve().parents[2]
_ACTION: Final = re.compile(r"call\.[a-z0-9]+x\d{6}")
_CANARY: Final = "CANARY-4111-1111"


class Cell(NamedTuple):
    """Be what came of one fault: whether the log held, and what was seen."""

    held: Held
    seen: str


class Fault(NamedTuple):
    """Be a fault: what it is called, what a log that holds does, and how it is put to one."""

    name: str
    wanted: str
    put: Callable[[Logger, Path], Cell]


# ---- what all of them do


def _command(logger: Logger, folder: Path, *order: object, key: bytes = SECRET) -> list[str]:
    program = [sys.executable, "-m", "benchmarks.faults.work"]
    return [*program, logger.package, str(folder), key.hex(), *map(str, order)]


def _work(logger: Logger, folder: Path, *order: object, key: bytes = SECRET) -> list[str]:
    """Run a writer to its end; return what it told."""
    done = subprocess.run(
        _command(logger, folder, *order, key=key), capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    return done.stdout.splitlines() + ([] if done.returncode == 0 else [f"died {_last(done.stderr)}"])


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["without a word"])[-1].partition(":")[0]


@contextlib.contextmanager
def _writer(logger: Logger, folder: Path) -> Iterator[Callable[[str], list[str]]]:
    """Run a writer that takes orders; what is given returns what it told of one."""
    process = subprocess.Popen(
        _command(logger, folder, "order"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, cwd=ROOT,
    )  # fmt: skip
    sent, told = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
    told.readline()

    def ordered(line: str) -> list[str]:
        sent.write(line + "\n")
        sent.flush()
        return list(iter(lambda: told.readline().strip(), "done"))

    try:
        yield ordered
    finally:
        sent.close()
        process.wait(60)
        told.close()


def _told(lines: list[str], what: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in lines if line.startswith(what + " ")]


def _strict(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and infinity are no JSON


def _lines(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in (".jsonl", ".ndjson", ".log"))


def _readable(folder: Path) -> set[str]:
    """Return the actions that stand in lines that are JSON, in whatever files the package writes."""
    found: set[str] = set()
    for path in _lines(folder):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                json.loads(line, parse_constant=_strict)
                found.update(_ACTION.findall(line.decode()))
    return found


def _log(folder: Path) -> Path:
    """Return the file that holds the records."""
    return next(path for path in _lines(folder) if _ACTION.search(path.read_text(errors="replace")))


def _verified(logger: Logger, folder: Path, kept: bool = False) -> tuple[str, str]:
    """Return the verdict, and what it says in some words; a verifier that crashes hasn't said that all is well."""
    try:
        verdict, text = logger.verify(folder, SECRET, kept)
    except Exception as error:
        return "bad", f"the verifier raised {type(error).__name__}"
    text = re.sub(r"\s+", " ", text.replace(f"{folder}/", "")).replace("|", "/").replace("`", "'")
    return verdict, text if len(text) <= 70 else text[:67] + "..."


def _whole(logger: Logger, folder: Path, acknowledged: list[str]) -> Cell:
    """Judge a log that nobody has tampered with: nothing acknowledged is missing, and nothing looks changed."""
    lost = set(acknowledged) - _readable(folder)
    verdict, text = _verified(logger, folder)
    held: Held = "no" if lost else {"bad": "no", "none": "partly"}.get(verdict, "yes")  # type: ignore[assignment]
    return Cell(held, f"{len(lost)} of {len(acknowledged)} acknowledged records lost; {text}")


def _written(logger: Logger, folder: Path, count: int = 20) -> Path:
    _work(logger, folder, "write", "a", count)
    logger.keep(folder, SECRET)
    return _log(folder)


# ---- crashes and disks


def killed(logger: Logger, folder: Path) -> Cell:
    """Kill writers at any moment, then write once more."""
    rng, acknowledged = random.Random(1), []
    for kill in range(KILLS):
        process = subprocess.Popen(
            _command(logger, folder, "forever", f"k{kill}"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
        )
        told = cast("IO[bytes]", process.stdout)
        told.readline()
        time.sleep(0.05 + rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        acknowledged += _told(told.read().decode().splitlines(), "acknowledged")
        told.close()
        process.wait()
    acknowledged += _told(_work(logger, folder, "write", "after", 1), "acknowledged")
    return _whole(logger, folder, acknowledged)


def torn(logger: Logger, folder: Path) -> Cell:
    """Add half a line, as a crash in the middle of the next write leaves it, then start again and write."""
    with _writer(logger, folder) as order:
        order("a 5")
        shutil.copytree(folder, folder.parent / "died")  # as it is while the writer lives
    folder = folder.parent / "died"
    path = _log(folder)
    data = path.read_bytes()
    start = data.rindex(b"\n", 0, -1) + 1
    path.write_bytes(data + data[start : start + (len(data) - start) // 2])
    told = _work(logger, folder, "write", "after", 3)
    if died := _told(told, "died"):
        return Cell("no", f"can't be opened any more: {died[0]}")
    lost = set(_told(told, "acknowledged")) - _readable(folder)
    refused = _told(told, "refused")
    verdict, text = _verified(logger, folder)
    if lost or refused:
        return Cell("no", f"of 3 new records {len(lost)} lost, {len(refused)} refused; {text}")
    return Cell("yes" if verdict in ("clean", "unsure") else "no", f"3 new records kept; {text}")


def full(logger: Logger, folder: Path) -> Cell:
    """Fill the disk, go on writing, make room, and write again."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return Cell("-", "not run: only root on Linux can mount a small disk")
    disk = folder.parent / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    try:
        log = disk / "log"
        with _writer(logger, log) as order:
            told = order("a 5")
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            told += order("full 40")
            filler.unlink()
            told += order("after 5")
        cell = _whole(logger, log, _told(told, "acknowledged"))
        return Cell(cell.held, f"{len(_told(told, 'refused'))} calls refused; {cell.seen}")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def unlinked(logger: Logger, folder: Path) -> Cell:
    """Delete the file while it is open; half a second later write on."""
    with _writer(logger, folder) as order:
        before = _told(order("a 5"), "acknowledged")
        _log(folder).unlink()
        time.sleep(0.5)
        after = order("b 5")
    acknowledged, there = _told(after, "acknowledged"), _readable(folder)
    new, old = len(set(acknowledged) & there), len(set(before) & there)
    verdict, text = _verified(logger, folder)
    held: Held = "no" if new < len(acknowledged) else "yes" if old == len(before) or verdict == "bad" else "partly"
    return Cell(
        held, f"{new} of {len(acknowledged)} later and {old} of {len(before)} earlier records are there; {text}"
    )


# ---- tampering


def _tampered(change: Callable[[list[bytes]], list[bytes]], kept: bool = False) -> Callable[[Logger, Path], Cell]:
    def put(logger: Logger, folder: Path) -> Cell:
        path = _written(logger, folder)
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
        verdict, text = _verified(logger, folder, kept)
        held: Held = "yes" if verdict == "bad" else "no"
        if verdict == "unsure":
            held = "partly"
        return Cell(held, text)

    return put


def _edited(lines: list[bytes]) -> list[bytes]:
    at = next(i for i, line in enumerate(lines) if b"call.ax000007" in line)
    return [*lines[:at], lines[at].replace(b"call.ax000007", b"call.ax000070"), *lines[at + 1 :]]


def _reordered(lines: list[bytes]) -> list[bytes]:
    return [*lines[:8], lines[9], lines[8], *lines[10:]]


def _cut(lines: list[bytes]) -> list[bytes]:
    at = next(i for i, line in enumerate(lines) if b"call.ax000017" in line)
    return lines[:at]


def rewritten(logger: Logger, folder: Path) -> Cell:
    """Write the whole log anew with other content, as somebody without the keys can."""
    _written(logger, folder)
    forged = folder.parent / "forged"
    forged.mkdir()
    _work(logger, forged / "log", "write", "b", 20, key=STRANGER)
    shutil.rmtree(folder)
    shutil.copytree(forged / "log", folder)
    verdict, text = _verified(logger, folder, kept=True)
    return Cell("yes" if verdict == "bad" else "no", text)


# ---- writers, values, secrets


def forked(logger: Logger, folder: Path) -> Cell:
    """Write from a parent and the child that it forked with the log open."""
    told = _work(logger, folder, "fork", 30)
    return _whole(logger, folder, _told(told, "acknowledged"))


def two(logger: Logger, folder: Path) -> Cell:
    """Write from two processes at the same time."""
    told: list[str] = []
    with _writer(logger, folder) as first, _writer(logger, folder) as second:
        told += first("first 1")
        others = threading.Thread(target=lambda: told.extend(second("q 100")))
        others.start()
        told += first("p 100")
        others.join()
    cell = _whole(logger, folder, _told(told, "acknowledged"))
    refused = _told(told, "refused")
    return Cell(cell.held, (f"{len(refused)} refused; " if refused else "") + cell.seen)


def values(logger: Logger, folder: Path) -> Cell:
    """Write arguments that JSON doesn't have."""
    told = [line.split() for line in _work(logger, folder, "values")]
    refused = [words[0] for words in told if words[1:2] == ["refused"]]
    invalid: set[str] = set()
    for path in _lines(folder):
        for line in path.read_bytes().splitlines():
            try:
                json.loads(line, parse_constant=_strict)
            except ValueError:
                invalid.update(re.findall(r"call\.([a-z]+)", line.decode(errors="replace")))
    verdict, text = _verified(logger, folder)
    held: Held = "no" if invalid or verdict == "bad" else "partly" if refused else "yes"
    said = [f"raises for {', '.join(refused)}"] if refused else []
    said += [f"no valid JSON for {', '.join(sorted(invalid))}"] if invalid else []
    return Cell(held, "; ".join([*(said or ["all recorded, as valid JSON"]), text]))


def secret(logger: Logger, folder: Path) -> Cell:
    """Pass a card's number and a password as arguments, and look for them."""
    _work(logger, folder, "secret", _CANARY)
    count = sum(path.read_bytes().count(_CANARY.encode()) for path in _lines(folder))
    return Cell("no" if count else "yes", f"found {count} times" if count else "not in the log, by default")


FAULTS: Final = (
    Fault("SIGKILL, ten times", "nothing acknowledged is lost, nothing looks changed", killed),
    Fault("half a line left by a crash", "it goes on, and doesn't look changed", torn),
    Fault("full disk, then room", "calls are refused, nothing acknowledged is lost, nothing looks changed", full),
    Fault("file deleted while it is open", "it is noticed, and later records are kept", unlinked),
    Fault("a line edited", "found", _tampered(_edited)),
    Fault("a line deleted", "found", _tampered(lambda lines: [*lines[:8], *lines[9:]])),
    Fault("two lines exchanged", "found", _tampered(_reordered)),
    Fault("the end cut off", "found, or said that nobody can tell", _tampered(_cut)),
    Fault("the end cut off, with what was kept elsewhere", "found", _tampered(_cut, kept=True)),
    Fault("written anew without the keys", "found", rewritten),
    Fault("fork with the log open", "nothing is lost, nothing looks changed", forked),
    Fault("two processes at once", "nothing is lost, nothing looks changed", two),
    Fault("NaN, surrogates, objects, bytes", "each is recorded as valid JSON", values),
    Fault("secrets in arguments", "they aren't in the log unless that was asked for", secret),
)


def put(fault: Fault, package: str) -> Cell:
    """Put one fault to one package, in a folder of its own."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "log"
        try:
            return fault.put(LOGGERS[package], folder)
        except Exception as error:
            return Cell("-", f"couldn't be run: {type(error).__name__}: {str(error)[:60]}")
