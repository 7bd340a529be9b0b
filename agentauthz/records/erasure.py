"""Erase what is kept of a person beside the records, and record that it was done."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import final

from attrs import asdict, frozen

from agentauthz.errors import InvalidArgument
from agentauthz.principals import Principal
from agentauthz.records.events import EventRecord
from agentauthz.records.ids import RecordIds
from agentauthz.records.openings import Erased, Openings
from agentauthz.records.recorder import Recorder
from agentauthz.records.sinks.sink import Sink


@final
@frozen
class Erasure:
    """Be what an erasure did in each store; `subject` stands for the person, by a keyed digest."""

    subject: str
    stores: tuple[Erased, ...]

    @property
    def count(self) -> int:
        """Return how many openings were erased, in all stores together."""
        return sum(each.openings for each in self.stores)


def erase(who: Principal, stores: Sequence[Openings], sinks: Iterable[Sink] = (), *, dry_run: bool = False) -> Erasure:
    """Erase a person in every store, the copies among them too, and write a record `erasure` to `sinks`.

    Doing it again changes nothing, and is recorded again. With `dry_run`, only say what there is to erase.

    Raises:
        SinkError: a store can't be used, or the record can't be kept: then do it again.
        InvalidArgument: no store, or `who` is no Principal.
    """
    if type(who) is not Principal:
        raise InvalidArgument("who", "must be a Principal")
    if not stores:
        raise InvalidArgument("stores", "must be listed: nothing would be erased")
    done = Erasure(stores[0].subject(who), tuple(each.erase(who, dry_run=dry_run) for each in stores))
    if given := () if dry_run else tuple(sinks):
        now = dt.datetime.now(dt.UTC)
        about: dict[str, object] = {
            "subject": done.subject, "count": done.count, "stores": [asdict(each) for each in done.stores],
        }  # fmt: skip
        Recorder(given).write(EventRecord(id=RecordIds().next(now), ts=now, type="erasure", about=about))
    return done
