"""Hold records to the JSON Schema that is shipped with the package."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator

from agentauthz.records import DecisionRecord, DelegationRecord, EffectRecord, EventRecord, PolicyRecord

SCHEMA: Final[dict[str, Any]] = json.loads((files("agentauthz.records") / "record.schema.json").read_bytes())
VALIDATOR: Final = Draft202012Validator(SCHEMA)
# what differs from one record of a kind to the next: of a thousand that say the same, one is looked at
_COUNTED: Final = re.compile(rb'"(?:id|of|ts|prev|args_digest)":"[^"]*"|"(?:seq|mono_ns|dur_us)":[0-9]+')


def problems(line: bytes) -> list[str]:
    """Return what the schema says against a line."""
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(json.loads(line))]


@contextmanager
def checked_lines() -> Iterator[None]:
    """Look at each line that becomes a record while the block runs, and hold them all to the schema at its end.

    Raises:
        AssertionError: a line isn't valid.
    """
    lines: dict[bytes, bytes] = {}
    with pytest.MonkeyPatch.context() as patch:
        for kind in (DecisionRecord, EffectRecord, DelegationRecord, PolicyRecord, EventRecord):
            patch.setattr(kind, "of_line", _watched(kind, lines))
        yield
    for line in lines.values():
        assert (found := problems(line)) == [], (line, found)


def _watched(kind: Any, lines: dict[bytes, bytes]) -> Any:
    make = kind.of_line

    def of_line(_: type, line: bytes, *more: Any) -> Any:
        lines[_COUNTED.sub(b"", line)] = line
        return make(line, *more)

    return classmethod(of_line)
