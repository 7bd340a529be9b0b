"""Attacks on logs, on those who read them, and on the promises of `verify`: each was once not noticed, or fatal."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentauthz.records.lines import NO_HASH
from agentauthz.records.merkle import leaf_hash
from agentauthz.records.verify import Verdict
from tests import logs
from tests.faults.logged import VKEY, checked, sealed

HASH = "ab" * 32


def rewritten(lines: list[bytes], edit: Callable[[bytes], bytes]) -> list[bytes]:
    """Return lines that were edited and chained anew, as by somebody who knows the form."""
    found, prev = [], NO_HASH
    for line in lines:
        made = re.sub(rb'"prev":"[0-9a-f]{64}"', f'"prev":"{prev}"'.encode(), edit(line), count=1)
        prev = leaf_hash(made).hex()
        found.append(made)
    return found


def left_open(folder: Path) -> Path:
    """Take back what the catalog says of a stream's end; return the stream's one file."""
    catalog = folder / "catalog.ndjson"
    catalog.write_bytes(catalog.read_bytes().splitlines(keepends=True)[0])
    [path] = logs.segments(folder)
    return path


def followed(path: Path, rest: str, seq: int | None = None) -> None:
    """Add a line that follows the last one of a file."""
    lines = path.read_bytes().splitlines()
    place = {"v": "1.0", "stream": path.parent.name, "seq": len(lines) if seq is None else seq}
    start = json.dumps({**place, "prev": leaf_hash(lines[-1]).hex(), "mono_ns": 1}, separators=(",", ":"))
    path.write_bytes(path.read_bytes() + f"{start[:-1]},{rest}\n".encode())


# ---- what verification says


def test_a_torn_end_hides_no_rewriting(tmp_path: Path) -> None:
    """A log that was written anew is tampered with, by its checkpoint, also where its end is torn."""
    notes = sealed(tmp_path)
    path = left_open(tmp_path)
    lines = rewritten(path.read_bytes().splitlines(), lambda line: line.replace(b'"allow"', b'"deny"'))
    path.write_bytes(b"\n".join(lines) + b'\n{"v":"1.0","str')
    report = checked(tmp_path, notes)
    assert report.verdict is Verdict.TAMPERED
    assert [damage.kind for damage in report.damages] == ["torn", "edited"]


@pytest.mark.parametrize(
    "rest",
    [
        '"type":"stream.gap" junk',
        '"type":"stream.gap"}',
        '"type":"stream.gap","about":5}',
        '"type":"stream.gap","about":{"first_seq":"x","hashes":[1]}}',
        '"type":"stream.gap","about":{"first_seq":-7,"hashes":["' + HASH + '"]}}',
        '"type":"stream.gap","about":{"first_seq":1,"hashes":["zz"]}}',
        '"type":"stream.gap","about":{"first_seq":1,"hashes":["00"]}}',
        '"type":"stream.gap","about":{"first_seq":1,"hashes":' + "[" * 100_000 + "}}",
        '"type":"stream.gap","about":{"first_seq":1000000000000,"hashes":["' + HASH + '"]}}',
    ],
)
def test_a_forged_gap_is_only_a_line(rest: str, tmp_path: Path) -> None:
    """A record of a gap that is damaged, or speaks of numbers to come, neither stops verification nor counts."""
    notes = sealed(tmp_path)
    path = left_open(tmp_path)
    followed(path, rest)
    path.write_bytes(path.read_bytes() + b"torn")
    [stream] = checked(tmp_path, notes).streams
    assert (stream.size, stream.lost) == (23, 0)


def test_a_broken_line_of_the_catalog_vouches_for_nothing(tmp_path: Path) -> None:
    """Behind a fragment the catalog still has to go on from what was there: a line that was broken on purpose shows."""
    sealed(tmp_path)
    catalog = tmp_path / "catalog.ndjson"
    opened, closed = catalog.read_bytes().splitlines(keepends=True)
    catalog.write_bytes(opened.replace(b"{", b"x", 1) + closed)
    assert [damage.kind for damage in checked(tmp_path).damages] == ["edited"]
    [path] = logs.segments(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)[:10]
    path.write_bytes(b"".join(lines))
    cut = {**json.loads(closed), "prev": HASH, "size": 10, "last": leaf_hash(lines[-1][:-1]).hex()}
    catalog.write_bytes(opened + b"junk\n" + json.dumps(cut).encode() + b"\n")
    first = checked(tmp_path).damages[0]
    assert (first.kind, first.text) == ("edited", "the catalog isn't what was written")


def test_a_fragment_in_the_catalog_is_none(tmp_path: Path) -> None:
    """What a dying writer leaves in the catalog is passed over, wherever it was torn off."""
    for fragment in (b'{"prev"', b'{"prev"\n', b"x\ny"):
        folder = tmp_path / str(len(fragment))
        sealed(folder, 1)
        with (folder / "catalog.ndjson").open("ab") as file:
            file.write(fragment)
        sealed(folder, 1)
        assert checked(folder).damages == ()


def test_a_file_of_another_name_is_found(tmp_path: Path) -> None:
    """A segment that was renamed is found, for pruning and shipping go by the names."""
    notes = sealed(tmp_path, 100, segment_size=8_000)
    path = logs.segments(tmp_path)[2]
    first = int(path.stem)
    path.rename(path.with_name(f"{first + 1:012}.ndjson"))
    report = checked(tmp_path, notes)
    assert [(damage.kind, damage.seq) for damage in report.damages] == [("edited", first)]
    assert report.verdict is Verdict.TAMPERED


def test_junk_behind_the_hashes_of_pruned_records_is_found(tmp_path: Path) -> None:
    """A file of hashes that isn't whole hashes was changed."""
    sealed(tmp_path, 100, segment_size=8_000)
    path = logs.segments(tmp_path)[0]
    hashes = b"".join(leaf_hash(line) for line in path.read_bytes().splitlines())
    path.with_suffix(".leaves").write_bytes(hashes + b"junk")
    path.unlink()
    assert [damage.kind for damage in checked(tmp_path).damages] == ["edited"]


def test_what_is_no_file_holds_no_records(tmp_path: Path) -> None:
    """A folder or a pipe with the name of a segment stops nobody."""
    notes = sealed(tmp_path)
    [path] = logs.segments(tmp_path)
    (path.parent / "000000000900.ndjson").mkdir()
    (path.parent / "000000000900.leaves").mkdir()
    os.mkfifo(path.parent / "000000000901.ndjson")
    assert checked(tmp_path, notes).verdict is Verdict.OK


def test_many_lines_of_one_number_take_no_longer(tmp_path: Path) -> None:
    """A log in which thousands of lines say the same number is judged in seconds, not hours."""
    sealed(tmp_path, 3)
    path = left_open(tmp_path)
    own = path.parent.name
    many = [
        f'{{"v":"1.0","stream":"{own}","seq":{seq},"prev":"{i:064x}","mono_ns":1}}'
        for seq in (6, 7)
        for i in range(20_000)
    ]
    path.write_bytes(path.read_bytes() + "\n".join(many).encode() + b"\n")
    began = time.monotonic()
    assert checked(tmp_path).verdict is Verdict.TAMPERED
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("given", ["a\0b", 5, b"x", ["x"]])
def test_a_checkpoint_that_is_none_is_told(given: object, tmp_path: Path) -> None:
    """Whatever is given as a checkpoint, the error is the library's own."""
    from agentauthz.errors import InvalidArgument
    from agentauthz.records.verify import verify

    with pytest.raises(InvalidArgument):
        verify(tmp_path, checkpoint=given, keys=[VKEY])  # type: ignore[arg-type]
