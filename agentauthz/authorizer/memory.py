"""Hold a session's place in the state store."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, final

from agentauthz.policy.policyset import PolicySet
from agentauthz.request import Request, SessionFacts
from agentauthz.state.store import NOTHING_YET, Begun, State, StateStore
from agentauthz.values import UNKNOWN

UNTRACKED: Final[Mapping[str, dt.datetime]] = MappingProxyType({})


@final
class Memory:
    """Be what an authorizer holds of one session, shared by all handles of its delegation tree.

    `keep` says that the host knows the session's id, and may resume it when nobody holds on to this any more. `before`
    is what was held of it until the host did: the store forgets nothing of that before it is told to keep it.
    """

    __slots__ = ("__weakref__", "_before", "_begun", "_in_force", "_watching", "id", "keep", "started", "store")

    def __init__(
        self,
        store: StateStore,
        in_force: Callable[[], tuple[PolicySet, Mapping[str, dt.datetime]]],
        id: str,
        started: dt.datetime,
        *,
        keep: bool,
        before: Memory | None = None,
    ) -> None:
        self._before: Final = before
        self._in_force: Final = in_force
        self.store: Final = store
        self.id: Final = id
        self.keep: Final = keep
        self.started = started
        self._begun: Begun | None = None
        self._watching: frozenset[str] | None = None

    def lags(self, tracked: frozenset[str]) -> bool:
        """Say whether the store hasn't been told yet to begin the session with these actions watched in it."""
        return self._watching is not tracked and self._watching != tracked

    def begin(self, tracked: frozenset[str], since: Mapping[str, dt.datetime]) -> None:
        """Begin the session in the store, with these actions watched in it; it may wait for the store.

        `since` says when that began here, where it wasn't from the session's start.

        Raises:
            StateError: the store can't be asked.
        """
        if self.lags(tracked):
            watched = {action: max(self.started, since.get(action, self.started)) for action in tracked}
            begun = self.store.begin(self.id, self.started, watched, keep=self.keep)
            self._begun, self.started, self._watching = begun, begun.started, tracked

    def marks(self) -> frozenset[str]:
        """Return the session's marks now; it may wait for the store.

        Raises:
            StateError: the store can't be asked.
        """
        self._begin_now()
        return self.store.read(self.id).marks

    def mark(self, name: str) -> None:
        """Add a mark on the host's word; it may wait for the store.

        Raises:
            StateError: the store can't be asked.
        """
        self._begin_now()
        self.store.mark(self.id, name)

    def unmark(self, name: str) -> bool:
        """Remove a mark on the host's word, and say whether it was there; it may wait for the store.

        Raises:
            StateError: the store can't be asked.
        """
        self._begin_now()
        return self.store.unmark(self.id, name)

    def _begin_now(self) -> None:
        policies, since = self._in_force()
        self.begin(policies.tracked, since)

    def recall(self, tracked: frozenset[str], since: Mapping[str, dt.datetime], *, reads: bool) -> State:
        """Return what the session remembers, where anybody reads it; it may wait for the store.

        Raises:
            StateError: the store can't be asked.
        """
        self.begin(tracked, since)
        return self.store.read(self.id) if reads else NOTHING_YET


def since(policies: PolicySet, state: State, started: dt.datetime, now: dt.datetime) -> Mapping[str, dt.datetime]:
    """Return since when those actions are watched in a session that weren't from its start."""
    if not policies.tracked:
        return UNTRACKED
    known = {action: state.watched.get(action, now) for action in policies.tracked}
    return {action: at for action, at in known.items() if at > started} or UNTRACKED


def unrecalled(request: Request) -> SessionFacts:
    """Return the facts of a request's session where the store can't say what it remembers."""
    known = request.session
    assert type(known) is SessionFacts
    return SessionFacts.trusted(
        known.id, known.started, known.expires, known.attributes, UNKNOWN, UNKNOWN, UNKNOWN, known.tracked,
        known.ceiling,
    )  # fmt: skip
