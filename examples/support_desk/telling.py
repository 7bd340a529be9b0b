"""Tell the story: what agents ask for, what comes out and why, and what is done in the other terminal."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from desk import POLICY, Desk

from agentauthz import Basis, Denied, ReviewRequired, Stopped, current
from agentauthz.approvals.review import Review
from agentauthz.records import DecisionRecord, Record

INDENT: Final = 14
STOP: Final = Path(__file__).with_name("stop.py")
PLACE: Final = STOP.parent.parent.parent
LIBRARY: Final = ("-m", "agentauthz")
VARYING: Final = {  # ids, moments, durations and digests, and what stands in their place
    r"\b[0-9a-f]{32}\b": "ID",
    r"  [0-9A-Z]{26}\b": "",
    r"\b20[0-9]{2}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+(Z|\+00:00)": "TIME",
    r" in [0-9.]+ ms": "",
    r"sha256:[0-9a-f]{64}": "DIGEST",
}


def headline(text: str) -> None:
    """Print what comes next."""
    print(f"\n{textwrap.fill(text, 100)}\n", flush=True)


def tell(name: str, text: str) -> None:
    """Print who does or says something."""
    wide = textwrap.fill(text, 114, initial_indent=f"  {name:<{INDENT - 2}}", subsequent_indent=" " * INDENT)
    print(wide, flush=True)


def outcome(what: str, text: str) -> None:
    """Print what came of it."""
    print(textwrap.fill(f"{what:<8}{text}", 114, initial_indent=" " * INDENT, subsequent_indent=" " * (INDENT + 8)))


class Story:
    """Be a sink that prints decisions: what came out, by which rule and why, what is left, and what is remembered."""

    def append(self, line: bytes, record: Record) -> None:
        """Print a decision; all else is for the file alone."""
        if not isinstance(record, DecisionRecord):
            return
        told = [f"{each.rule or each.code}: {each.because or each.text}" for each in record.reasons]
        for head, text in zip([record.outcome.upper(), *[""] * len(told)], told, strict=False):
            outcome(head, text)
        for each in record.budgets:
            used, amount, bound = map(_number, (each.used, each.amount, each.bound))
            if each.granted:
                outcome("", f"{each.rule}: {used + amount} of {bound} used")
            elif used + amount > bound:
                outcome("", f"{each.rule}: {used} of {bound} used, so {amount} more is too much")
        for obliged in record.obligations:
            outcome("", f"with {obliged.type}")
        if record.marks and record.outcome == "allow":
            outcome("", f"the session is marked {', '.join(record.marks)}")

    def close(self) -> None:
        """Have nothing to close."""


def _number(tagged: Any) -> Decimal:
    """Return a number as records hold it."""
    return Decimal(tagged["$d"] if isinstance(tagged, Mapping) else tagged)


# ---- the agents' calls


def ask(tool: Callable[..., Any], **args: object) -> Review | None:
    """Make a call as the current session's agent, and tell what came of it; a review is returned, for who can wait."""
    shown = ", ".join(f"{name}={value if isinstance(value, Decimal) else repr(value)}" for name, value in args.items())
    tell(current().session.actor.id, f"{tool.__name__}({shown})")
    return heed(lambda: tool(**args))


def heed(call: Callable[[], object]) -> Review | None:
    """Make a call that may be refused or stopped; decisions are told by the sink."""
    try:
        outcome("->", str(call()))
    except Denied as denied:
        if denied.decision is not None and denied.decision.basis is Basis.ERROR:  # the sink that tells may have failed
            outcome("DENY", str(denied))
    except ReviewRequired as waiting:
        return waiting.review
    except Stopped as stopped:
        outcome("STOPPED", str(stopped))
    return None


# ---- the other terminal


class Terminal:
    """Be the other terminal: run its commands in processes of their own, or leave them to whoever sits there.

    `patience` is how long to wait for what they do, in seconds.
    """

    def __init__(self, desk: Desk, *, by_hand: bool) -> None:
        self._desk: Final = desk
        self._by_hand: Final = by_hand
        self.patience: Final = 900.0 if by_hand else 30.0

    def approvals(self, who: str, command: str, *given: str) -> None:
        """Have a command of `agentauthz approvals` given."""
        store = ("--state", str(self._desk.state), "--instance-key", str(self._desk.key))
        self._given(who, ("agentauthz", "approvals", command, *given, *store), LIBRARY)

    def approve(self, who: str, id: str, roles: str) -> None:
        """Have somebody approve a call; whoever sits there may as well reject it."""
        kept = ("--policies", str(POLICY), "--records", str(self._desk.records))
        self.approvals(who, "approve", id, "--as", who, "--attribute", f"roles={roles}", *kept)

    def stop(self, who: str, *order: str) -> None:
        """Have an order of the kill switch given."""
        self._given(who, ("python", str(STOP), str(self._desk.folder), *order), ())

    def records(self, who: str, command: str, *given: str) -> None:
        """Run a command of `agentauthz records`, in this terminal; of `verify`, the verdict is shown."""
        self._run(who, ("agentauthz", "records", command, *given), LIBRARY, most=1 if command == "verify" else None)

    def until(self, true: Callable[[], bool]) -> None:
        """Wait for what an order does: other processes learn of it within a second, and it may be given late."""
        ends = time.monotonic() + self.patience
        while not true():
            if time.monotonic() > ends:
                raise TimeoutError("nobody gave the order")
            time.sleep(0.05)

    def _given(self, who: str, command: tuple[str, ...], module: tuple[str, ...]) -> None:
        if self._by_hand:
            print(f"  {who:<{INDENT - 2}}$ {shlex.join(command)}", flush=True)
        else:
            self._run(who, command, module)

    def _run(self, who: str, command: tuple[str, ...], module: tuple[str, ...], most: int | None = None) -> None:
        print(f"  {who:<{INDENT - 2}}{self._steady(f'$ {shlex.join(command)}')}", flush=True)
        program = [sys.executable, *module, *command[1:]]
        done = subprocess.run(program, capture_output=True, encoding="utf-8", timeout=60, check=False)  # noqa: S603  (they are all ours)
        for line in self._steady(done.stdout + done.stderr).splitlines()[:most]:
            print(f"{'':<{INDENT}}{line}".rstrip(), flush=True)

    def _steady(self, text: str) -> str:
        """Return text without what differs from run to run, unless somebody has to read and type it."""
        if self._by_hand:
            return text
        text = text.replace(str(self._desk.folder), "DIR").replace(f"{PLACE}{os.sep}", "")
        for pattern, name in VARYING.items():
            text = re.sub(pattern, name, text)
        return text
