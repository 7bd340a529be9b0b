"""Offer what many tests need: principals, an authorizer that keeps its records, a clock that is set by hand."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from agentauthz import Authorizer, PolicySet, Principal
from agentauthz.records import DecisionRecord, EffectRecord, MemorySink

MARIA = Principal.user("maria", roles=["support"])
BOT = Principal.agent("bot", trust=3)
HELPER = Principal.agent("helper", trust=1)
NOON = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)

ANYTHING = "permit anything on * when true"


class Clock:
    """Be a clock that stands still until it is moved."""

    def __init__(self, now: dt.datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        return self.now

    def forward(self, **duration: float) -> None:
        self.now += dt.timedelta(**duration)


class Recorded:
    """Be an authorizer with a memory sink: `records` holds what was written."""

    def __init__(self, policy: str = ANYTHING, **options: Any) -> None:
        self.sink = MemorySink()
        self.clock = Clock()
        options = {"sinks": [self.sink], "clock": self.clock, **options}
        self.authorizer = Authorizer(PolicySet.parse(policy), **options)

    def session(self, **options: Any) -> Any:
        return self.authorizer.session(**{"subject": MARIA, "actor": BOT, **options})

    @property
    def decisions(self) -> list[DecisionRecord]:
        return list(self.sink.decisions)

    @property
    def effects(self) -> list[EffectRecord]:
        return list(self.sink.effects)


class Unreadable(Mapping[str, object]):
    """Be a mapping that has a name, and raises when its value is read."""

    def __repr__(self) -> str:
        return "Unreadable()"  # an address would give a test another name in each process

    def __iter__(self) -> Iterator[str]:
        return iter(["name"])

    def __len__(self) -> int:
        return 1

    def __getitem__(self, name: str) -> object:
        raise RuntimeError("can't be read")
