"""Hold which policies are in force, and since when the actions that their rules look back at are watched."""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, final

from agentauthz.authorizer.handlers import Handlers
from agentauthz.authorizer.memory import UNTRACKED
from agentauthz.errors import InvalidArgument
from agentauthz.policy.policyset import PolicySet

Policies: TypeAlias = PolicySet | str | os.PathLike[str]


@final
class InForce:
    """Be the policies that an authorizer decides by, each of whose obligations one of `handlers` carries out.

    Raises:
        PolicyLoadError, PolicySyntaxError, PolicyCheckError, InvalidArgument: as `Authorizer`.
    """

    def __init__(
        self, policies: Policies, digest: str | None, handlers: Handlers, now: Callable[[], dt.datetime]
    ) -> None:
        self._handlers: Final = handlers
        self._now: Final = now
        self._lock: Final = threading.RLock()  # a signal's handler may replace the policies at any point
        # the policies, and since when their actions are watched, where that wasn't from the start: read together
        self.both: tuple[PolicySet, Mapping[str, dt.datetime]] = (self._usable(policies, digest), UNTRACKED)

    @property
    def policies(self) -> PolicySet:
        """Return the policies alone."""
        return self.both[0]

    def replace(self, policies: Policies, digest: str | None) -> None:
        """Put another policy set in force, all of it or nothing; see `Authorizer.replace`."""
        fresh = self._usable(policies, digest)
        with self._lock:
            old, since = self.both
            watched = {name: since[name] for name in fresh.tracked if name in since}
            self.both = (fresh, {**watched, **dict.fromkeys(fresh.tracked - old.tracked, self._now())})

    def _usable(self, given: Policies, digest: str | None) -> PolicySet:
        policies = given if isinstance(given, PolicySet) else PolicySet.load(given)
        if digest is not None and policies.digest != digest:
            raise InvalidArgument("digest", f"is {digest}, but these policies have {policies.digest}")
        return self._handlers.checked(policies)
