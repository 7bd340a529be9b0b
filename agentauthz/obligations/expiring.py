"""Shorten a token's life: `expire(after: 5m)`, which whoever issues or exchanges tokens carries out itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Final, cast

from agentauthz.decision import Obligation
from agentauthz.obligations.handler import Handler

NEVER: Final = dt.datetime.max.replace(tzinfo=dt.UTC)
_LEAST: Final = dt.timedelta(seconds=1)


def _wrong(properties: Mapping[str, object]) -> str | None:
    after = properties.get("after")
    if properties.keys() == {"after"} and isinstance(after, dt.timedelta) and after >= _LEAST:
        return None
    return "`expire` takes `after`, a duration of a second or more, and nothing else"


expire: Final = Handler(check=_wrong)


def shortens_life(obligation: Obligation) -> bool:
    """Say whether an obligation is `expire(after: …)`, which holds a token to a shorter life."""
    return obligation.type == "expire" and _wrong(obligation.properties) is None


def shortest(ends: dt.datetime, now: dt.datetime, obligations: Iterable[Obligation]) -> dt.datetime:
    """Return when a token ends at the latest that would end at `ends`, by the obligations that shorten its life."""
    lives = [cast(dt.timedelta, one.properties["after"]) for one in obligations if shortens_life(one)]
    # a life that begins now and is longer than the rest of this one shortens nothing, however long it is
    return min([ends, *(now + life for life in lives if life < ends - now)])
