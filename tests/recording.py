"""Make records for tests of sinks, each at its place in a stream, and wait for what happens in other threads."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Final, TypeVar

from agentauthz.decision import Basis, Decision, Outcome, Reason
from agentauthz.keys import InstanceKey
from agentauthz.principals import Chain, Delegation, Principal
from agentauthz.records import DecisionRecord, EffectRecord, Record, Sink, decision_record
from agentauthz.records.events import EventRecord
from agentauthz.records.lines import NO_HASH, place, placed
from agentauthz.records.record import of_line
from agentauthz.request import Request, SessionFacts

NOW: Final = dt.datetime(2026, 11, 23, 9, tzinfo=dt.UTC)
KEY: Final = InstanceKey.from_bytes(bytes(32))
STREAM: Final = "01KB0000000000000000000000"
ALLOW: Final = Decision(Outcome.ALLOW, Basis.RULE, "payments.refund", rules=("small_refund", "other"))
DENY: Final = Decision(Outcome.DENY, Basis.DEFAULT, "payments.refund", reasons=(Reason("not_permitted", "no permit"),))
REVIEW: Final = Decision(Outcome.REVIEW, Basis.RULE, "payments.refund", rules=("large_refund",))
R = TypeVar("R", bound=Record)
MARIA, BOT = Principal.user("maria"), Principal.agent("shop-bot")


def decision(
    seq: int = 0, what: Decision = ALLOW, *, note: str = "", stream: str = STREAM, session: str = "s-1"
) -> DecisionRecord:
    """Return the record of a decision; its id and its moment follow from its number."""
    ts = NOW + dt.timedelta(seconds=seq)
    request = Request(
        what.action,
        subject=MARIA,
        chain=Chain(MARIA, (Delegation(BOT),)),
        session=SessionFacts(id=session, started=NOW),
    )
    made = decision_record(
        id=f"D{seq:05}", ts=ts, request=request, args={"note": note}, decision=what, seen=[("args.note", note)], key=KEY
    )
    return at(made, seq, stream)


def effect(seq: int = 1, of: str = "D00000", *, stream: str = STREAM) -> EffectRecord:
    """Return the record of an effect."""
    ts = NOW + dt.timedelta(seconds=seq)
    made = EffectRecord(id=f"E{seq:05}", ts=ts, of=of, status="done", action="payments.refund", session="s-1", dur_us=3)
    return at(made, seq, stream)


def event(seq: int = 2, kind: str = "stream.gap", *, stream: str = STREAM) -> EventRecord:
    """Return the record of something that happened to the log."""
    about: dict[str, object] = {"count": 1, "reason": "overflow"} if kind == "stream.gap" else {"segment": 0}
    return at(EventRecord(id=f"V{seq:05}", ts=NOW + dt.timedelta(seconds=seq), type=kind, about=about), seq, stream)


def at(record: R, seq: int, stream: str) -> R:
    """Return a record at a place in a stream."""
    return of_line(placed(record.line(), place(stream, seq, NO_HASH, seq)), record)  # type: ignore[return-value]


def append(sink: Sink, *records: Record) -> None:
    """Append records, each with its line."""
    for record in records:
        sink.append(record.line(), record)


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something holds that another thread brings about."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it never came to hold"
        time.sleep(0.005)
