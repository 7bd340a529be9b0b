"""Write logs for the tests of faults, and look at what became of them."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agentauthz.decision import Basis, Decision, Outcome
from agentauthz.keys import InstanceKey
from agentauthz.keys.signing import SigningKey
from agentauthz.principals import Principal
from agentauthz.records import DecisionRecord, FileSink, decision_record
from agentauthz.records.checkpoints import vkey
from agentauthz.records.verify import Report, verify
from agentauthz.request import Request
from tests.golden import ROOT

NOW: Final = dt.datetime(2026, 11, 23, 9, tzinfo=dt.UTC)
KEY: Final = InstanceKey.from_bytes(bytes(32))
SIGNER: Final = SigningKey.generate("Ed25519")
VKEY: Final = vkey(SIGNER, "local")
LONG: Final = os.environ.get("HYPOTHESIS_PROFILE") == "long"

NOTHING: Final[Mapping[str, str]] = {}

_ALLOW: Final = Decision(Outcome.ALLOW, Basis.RULE, "payments.refund", rules=("small_refund",))
_ASKED: Final = Request("payments.refund", subject=Principal.user("maria"))


def record(id: str, note: str = "") -> DecisionRecord:
    """Return the record of some decision."""
    return decision_record(id=id, ts=NOW, request=_ASKED, args={}, decision=_ALLOW, seen=[("args.note", note)], key=KEY)


def append(sink: FileSink, id: str, note: str = "") -> None:
    """Append a record to a file log."""
    made = record(id, note)
    sink.append(made.line(), made)


def sealed(folder: Path, count: int = 20, **options: object) -> list[str]:
    """Write a log of so many records, signed and sealed; return the checkpoints that a witness would have."""
    notes: list[str] = []
    sink = FileSink(folder, key=SIGNER, witness=notes.append, **options)  # type: ignore[arg-type]
    for number in range(count):
        append(sink, f"{number:026}")
    sink.close()
    return notes


def checked(folder: Path, notes: list[str] | None = None) -> Report:
    """Verify a log, with what a witness kept if there is one."""
    return verify(folder, keys=[VKEY], checkpoint="\n".join(notes) if notes else None)


def run(
    code: str, *args: object, check: bool = True, env: Mapping[str, str] = NOTHING, **options: object
) -> subprocess.CompletedProcess[str]:
    """Run Python code as another program would, with `env` added to the environment."""
    program = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), **env}
    options = {"timeout": 60, **options}
    done = subprocess.run(  # type: ignore[call-overload]
        program, capture_output=True, text=True, env=environment, check=False, **options
    )
    assert not check or done.returncode == 0, done.stderr
    return done  # type: ignore[no-any-return]
