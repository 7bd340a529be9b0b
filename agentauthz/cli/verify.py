"""Hold the command `records verify`: whether a log was changed, and what nobody can tell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from agentauthz.cli.command import Run, working, write
from agentauthz.records.damage import Damage
from agentauthz.records.verify import Report, StreamReport, Verdict
from agentauthz.records.verify import verify as verified

# Only what a witness has seen is complete: without one, a script must not take the log for it
CODES: Final[Mapping[Verdict, int]] = {
    Verdict.OK: 0,
    Verdict.TAMPERED: 1,
    Verdict.INCOMPLETE: 2,
    Verdict.UNWITNESSED: 2,
    Verdict.RECOVERED: 3,
}
MEANINGS: Final[Mapping[Verdict, str]] = {
    Verdict.OK: "ok: every record up to the witnessed checkpoints is as it was written, and none is missing",
    Verdict.TAMPERED: "tampered: the log isn't as it was written",
    Verdict.INCOMPLETE: "incomplete: records are missing",
    Verdict.UNWITNESSED: "unwitnessed: what is there is as it was written, but without a checkpoint of each stream "
    "that was kept elsewhere nobody can tell whether the end is missing",
    Verdict.RECOVERED: "recovered: a crash or a full disk left its marks, and what is there is as it was written",
}
_SHOWN: Final = 20  # damages beside the first


def witness(parser: argparse.ArgumentParser) -> None:
    """Take what a log is held to: a checkpoint from elsewhere, and the keys that may have signed it."""
    parser.add_argument("--checkpoint", metavar="FILE", help="checkpoints that were kept elsewhere")
    parser.add_argument(
        "--key", metavar="VKEY", action="append", default=[], help="a verifier key that is trusted; may be repeated"
    )


def verify(parser: argparse.ArgumentParser) -> Run:
    """Say whether a log was changed, what is missing, and what nobody can tell."""
    parser.epilog = (
        "exits with 0: ok; 1: tampered; 2: incomplete, or without a witness nobody can tell; "
        "3: recovered, and clean; 4: usage"
    )
    parser.add_argument("dir", metavar="DIR", type=Path, help="a log's folder")
    witness(parser)
    return _verify


def _verify(arguments: argparse.Namespace) -> int:
    with working("verifying"):
        report = verified(arguments.dir, checkpoint=arguments.checkpoint, keys=arguments.key)
    write(*told(report))
    return CODES[report.verdict]


def told(report: Report) -> Iterator[str]:
    """Return what verification found, as lines: the verdict, the first thing that is wrong, and what is proven."""
    yield MEANINGS[report.verdict]
    if report.first is not None:
        yield f"first: {place(report.first)}"
        rest = report.damages[1:]
        yield from (f"  then: {place(damage)}" for damage in rest[:_SHOWN])
        if len(rest) > _SHOWN:
            yield f"  … and {len(rest) - _SHOWN} more"
    yield "proven:" if report.streams else "proven: nothing, for there is no stream"
    damaged = {damage.stream for damage in report.damages}
    for stream in report.streams:
        yield from (f"  {line}" for line in _proven(stream, stream.id in damaged))


def place(damage: Damage) -> str:
    """Return what is wrong, and where."""
    run = "" if damage.last is None or damage.last == damage.seq else f" to {damage.last}"
    number = "" if damage.seq is None else f", record {damage.seq}{run}"
    at = "" if damage.file is None else f", at byte {damage.offset} of {damage.file}"
    return f"{damage.kind}: stream {damage.stream}{number}{at}: {damage.text}"


def _proven(stream: StreamReport, damaged: bool) -> Iterator[str]:
    live = ", still written" if stream.live else ""
    sound = "damaged" if damaged else "each record follows the one before"
    yield f"stream {stream.id}: {count(stream.size, 'record')}{live}; {sound}"
    if stream.verified_from:
        yield f"  before record {stream.verified_from} only hashes are left: the text was pruned"
    if stream.lost:
        yield f"  the log itself says that it lacks {count(stream.lost, 'record')}"
    yield f"  signed: {stream.signed} of {stream.size}; witnessed: {stream.witnessed} of {stream.size}"
    yield f"  exposed: {count(stream.exposed, 'record')} that no witness has seen"
    if stream.root is not None:
        yield f"  root: {stream.root}"


def count(number: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{number} {what}{'' if number == 1 else 's'}"
