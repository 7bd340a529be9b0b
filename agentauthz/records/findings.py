"""Say in words what verification found: the verdict, what is wrong and where, what is proven, and what is exposed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from agentauthz.records.damage import Damage
from agentauthz.records.verify import Report, StreamReport, Verdict
from agentauthz.records.words import count

MEANINGS: Final[Mapping[Verdict, str]] = {
    Verdict.OK: "ok: every record up to the witnessed checkpoints is as it was written, and none is missing",
    Verdict.TAMPERED: "tampered: the log isn't as it was written",
    Verdict.INCOMPLETE: "incomplete: records are missing",
    Verdict.UNWITNESSED: "unwitnessed: what is there is as it was written, but without a checkpoint of each stream "
    "that was kept elsewhere nobody can tell whether the end is missing",
    Verdict.RECOVERED: "recovered: a crash or a full disk left its marks, and what is there is as it was written",
}
_SHOWN: Final = 20  # damages beside the first


def told(report: Report) -> Iterator[str]:
    """Return what verification found, as lines: the verdict, the first thing that is wrong, and what is proven."""
    yield meaning(report)
    if report.first is not None:
        yield f"first: {place(report.first)}"
        rest = report.damages[1:]
        yield from (f"  then: {place(damage)}" for damage in rest[:_SHOWN])
        if len(rest) > _SHOWN:
            yield f"  … and {len(rest) - _SHOWN} more"
    yield from proven(report)


def meaning(report: Report) -> str:
    """Return what a report comes to; where only a part was looked at, that is said with it."""
    whole = MEANINGS[report.verdict]
    if report.since is None:
        return whole
    verdict, _, words = whole.partition(": ")
    return f"{verdict} since {report.since.isoformat()}: {words}; what is before was not looked at"


def proven(report: Report) -> Iterator[str]:
    """Return what is proven of each stream, and what is exposed, as lines."""
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
    if stream.skipped:
        vouched = max(stream.signed, stream.witnessed) >= stream.verified_from
        words = "a checkpoint vouches for the state there" if vouched else "no checkpoint vouches for the state there"
        yield f"  verified from record {stream.verified_from}: what is before was not looked at, and {words}"
    elif stream.verified_from:
        yield f"  before record {stream.verified_from} only hashes are left: the text was pruned"
    if stream.lost:
        yield f"  the log itself says that it lacks {count(stream.lost, 'record')}"
    yield f"  signed: {stream.signed} of {stream.size}; witnessed: {stream.witnessed} of {stream.size}"
    if stream.cosigned is not None:
        yield f"  cosigned by a witness: {stream.cosigned} of {stream.size}"
    yield f"  exposed: {count(stream.exposed, 'record')} that no witness has seen"
    if stream.root is not None:
        yield f"  root: {stream.root}"
