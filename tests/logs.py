"""Look into the folder of a file log, as another program would."""

from __future__ import annotations

from pathlib import Path

from agentauthz.records import DecisionRecord, EffectRecord, Record, read_record


def segments(folder: Path) -> list[Path]:
    """Return the files that hold records, stream by stream."""
    return sorted(path for path in folder.glob("*/*.ndjson") if path.parent.name != "quarantine")


def lines(folder: Path) -> list[bytes]:
    """Return every line, with its line feed."""
    return [line for path in segments(folder) for line in path.read_bytes().splitlines(keepends=True)]


def records(folder: Path) -> list[Record]:
    """Return every record."""
    return [read_record(line) for line in lines(folder)]


def told(folder: Path) -> list[Record]:
    """Return the records of what was decided and done, without those of the log itself."""
    return [record for record in records(folder) if isinstance(record, DecisionRecord | EffectRecord)]


def ids(folder: Path) -> list[str]:
    """Return the ids of what was decided and done."""
    return [record.id for record in told(folder)]
