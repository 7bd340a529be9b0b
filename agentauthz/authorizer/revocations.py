"""Know what was revoked: what a store that never waits says at each decision, and what one that may was heard to say.

No decision waits for a store to learn what was revoked, and none is made on what is too old to be relied on.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, final

from agentauthz.authorizer.poller import Poller
from agentauthz.calls import Stop
from agentauthz.canonical import class_name
from agentauthz.decision import Basis, Reason
from agentauthz.errors import InvalidArgument, StateError
from agentauthz.principals import Chain, Principal
from agentauthz.request import Unknown
from agentauthz.state.store import Revocation, StateStore, Subject
from agentauthz.values import UNKNOWN

if TYPE_CHECKING:
    from agentauthz.tokens.verified import VerifiedToken

INTERVAL: Final = 0.5  # seconds between two readings of a store that may wait
MAX_AGE: Final = 10.0  # seconds for which what was read is relied on
_NEVER: Final = float("-inf")
# seconds that no clock's setting changes; where the system tells, those that it slept are among them
_BOOT: Final = getattr(time, "CLOCK_BOOTTIME", None)
_SECONDS: Final[Callable[[], float]] = time.monotonic if _BOOT is None else functools.partial(time.clock_gettime, _BOOT)

Identity: TypeAlias = tuple[str | None, str, str]  # of a principal

_OUTDATED: Final[Stop] = (
    Basis.ERROR,
    Reason("revocations_outdated", "it isn't known what was revoked: the state store hasn't answered for too long"),
)


@final
class Revocations:
    """Be what one authorizer knows of what was revoked, by all who share its store.

    A store that doesn't block is asked at each decision. Another one is read when this is made, and then every half
    second in the background; once the last good reading is older than `max_age` seconds, nothing stands any more.
    What was revoked here holds here at once. Without `follows`, one that may wait is read only by `refresh`. `number`
    is that of the last revocation that is known.

    Raises:
        InvalidArgument: `max_age` is no positive number.
    """

    def __init__(
        self,
        store: StateStore,
        max_age: float = MAX_AGE,
        clock: Callable[[], float] = _SECONDS,
        *,
        follows: bool = True,
    ) -> None:
        if not isinstance(max_age, int | float) or not 0 < max_age < float("inf"):
            raise InvalidArgument("revocation_max_age", "must be a positive number of seconds")
        self._store: Final = store
        self._at_once: Final = not store.blocking
        self._max_age: Final = max_age
        self._clock: Final = clock
        interval = min(INTERVAL, max_age / 3)
        self._late: Final = 2 * interval  # without a reading for so long, the thread may have died
        self._poller: Final = Poller(self.poll, interval, self._unlock)
        self._lock = threading.RLock()  # a signal's handler may revoke at any point
        self._sessions: Final[dict[str, str]] = {}  # why each was revoked
        self._principals: Final[dict[Identity, str]] = {}
        self._tokens: Final[dict[str, str]] = {}
        self._halt: Revocation | None = None
        self._halt_number = 0  # of the last halt or resume
        self._heeded: Final[set[Revocation]] = set()  # halts and resumes: told again, they change nothing
        self.any = False  # whether anything at all was revoked: if not, what is known stops nobody
        self._running: Final[dict[object, Callable[[], None]]] = {}
        self._read_at = _NEVER
        self._failing = False
        self._last: Revocation | None = None
        self.number = 0
        if follows and not self._at_once:
            self.poll()
            self._poller.start()

    @classmethod
    def read(cls, store: StateStore) -> Revocations:
        """Return what a store tells now, and read no more: for who asks once. It may wait for the store.

        Raises:
            StateError: the store can't be asked.
        """
        read = cls(store, follows=False)
        read.close()
        read.refresh()
        return read

    # ---- asking

    def known(self) -> int | None:
        """Return the number of the last revocation now; None: what is known is too old to be relied on.

        It never waits for a store.
        """
        if not self._at_once:
            return self.number if self._is_fresh() else None
        try:
            if fresh := self._store.revocations(self.number):
                self._take(fresh)
        except Exception:
            return None
        return self.number

    def _is_fresh(self) -> bool:
        now = self._clock()
        if now < self._read_at + self._late:
            return True
        self._poller.start()
        return now < self._read_at + self._max_age

    def against(
        self, known: int | None, session: str | Unknown | None, chain: Chain, token: VerifiedToken | None = None
    ) -> Stop | None:
        """Return what stops a call: a halt, or that its session, a party of its chain or its token was revoked.

        `known` is what `known` has just returned; where it is None, every call is stopped.
        """
        if self.any and (found := self._found(session, chain, token)) is not None:
            return found
        return _OUTDATED if known is None else None

    def _found(self, session: str | Unknown | None, chain: Chain, token: VerifiedToken | None) -> Stop | None:
        if (halt := self._halt) is not None:
            return Basis.REVOKED, Reason("halted", _text("everything was halted", halt.reason))
        if self._sessions and session is not None:
            if session is UNKNOWN:
                return _unsure("it isn't known which session this is, and some were revoked")
            if (why := self._sessions.get(session)) is not None:
                return Basis.REVOKED, Reason("session_revoked", _text("the session was revoked", why))
        if self._principals:
            for party in (chain.subject, *(hop.to for hop in chain.delegations)):
                if (why := self._principals.get(party.identity)) is not None:
                    return Basis.REVOKED, Reason("principal_revoked", _text(f"{party} was revoked", why))
        return self._fallen(token) if self._tokens and token is not None else None

    def _fallen(self, token: VerifiedToken) -> Stop | None:
        from agentauthz.tokens.revocation import lineage  # who has no token doesn't load what verifies them

        if (names := lineage(token)) is None:
            return _unsure("it isn't known which tokens this one descends from")
        if (name := next(filter(self._tokens.__contains__, names), None)) is None:
            return None
        return Basis.REVOKED, Reason("token_revoked", _text("the token was revoked", self._tokens[name]))

    # ---- revoking

    def revoke(self, kind: Subject, name: str, reason: str, *, lifts: bool = False) -> Revocation:
        """Revoke something, for all who share the store, and return it; here it holds at once. It may wait.

        Raises:
            StateError: the store couldn't be asked. It holds in this process all the same, until it ends (what lifts
                a halt doesn't); nobody knows whether it does in others.
        """
        try:
            made = self._store.revoke(kind, name, reason, lifts=lifts)
        except Exception as error:
            if not lifts:
                self._hold_here(Revocation(self.number, kind, name, dt.datetime.now(dt.UTC), reason))
            raise StateError(
                "the state store couldn't be asked, so this may not hold in other processes: try it again"
            ) from error
        with self._lock:
            self._keep(made)
        self._tell()
        self.poll()  # reads what others have revoked before, and so makes the number good
        return made

    def refresh(self) -> None:
        """Read what was revoked since; it may wait for the store.

        Raises:
            StateError: the store can't be asked.
        """
        asked, last = self._clock(), self._last  # an answer is as old as its question
        found = self._store.revocations(0 if last is None else last.number - 1)
        if last is not None and (not found or found[0] != last):
            self._begin_anew(self._store.revocations(0))
        self._take(found)
        self._read_at = max(self._read_at, asked)

    def poll(self) -> None:
        """Do what `refresh` does; that it fails is logged once, and what runs and must not is stopped."""
        try:
            self.refresh()
        except Exception as error:
            if not self._failing:
                logging.getLogger("agentauthz.state").error("what was revoked can't be read: %s", class_name(error))
            self._failing = True
            self._tell()
        else:
            self._failing = False

    def _hold_here(self, made: Revocation) -> None:
        """Let a revocation hold in this process, whatever the store has of it."""
        # SECURITY: who pulls the brake must at least stop what is in reach
        with self._lock:
            if made.kind == "everything":
                self._halt, self.any = made, True  # until a resume that the store tells of, or that is asked for here
            else:
                self._keep(made)
        self._tell()

    def _begin_anew(self, found: Sequence[Revocation]) -> None:
        """Go on with a store that has lost what it told before: it was restored, or replaced, and counts anew.

        SECURITY: what was revoked stays so, and a halt that it doesn't know of isn't lifted by a resume before it; what
        is revoked from now on, under numbers that were seen before, isn't missed.
        """
        logging.getLogger("agentauthz.state").error("the state store has lost revocations; here they hold on")
        with self._lock:
            self._halt_number = self.number = 0
            self._last = None
        self._take(found)

    def _take(self, fresh: Sequence[Revocation]) -> None:
        """Let all that a store has told hold here."""
        if not fresh:
            return
        with self._lock:
            for made in fresh:
                self._keep(made)
            if fresh[-1].number > self.number:
                self._last, self.number = fresh[-1], fresh[-1].number  # at last: who knows it knows what it counts
        self._tell()

    def _keep(self, made: Revocation) -> None:
        if made.kind == "everything":
            if made.number > self._halt_number and made not in self._heeded:
                self._halt = None if made.lifts else made
            self._halt_number = max(self._halt_number, made.number)
            self._heeded.add(made)
        elif made.kind == "session":
            self._sessions.setdefault(made.name, made.reason)
        elif made.kind == "token":
            self._tokens.setdefault(made.name, made.reason)
        else:
            self._principals.setdefault(_identity(made.name), made.reason)
        self.any = self.any or not made.lifts or made.kind != "everything"

    # ---- what is running

    def watch(self, running: object, look: Callable[[], None]) -> None:
        """Call `look` whenever something new was revoked, or can't be found out, until `unwatch`; in any thread."""
        self._poller.start()  # others who share the store may revoke too, and then nobody asks
        self._running[running] = look

    def unwatch(self, running: object) -> None:
        """Call it no more."""
        self._running.pop(running, None)

    def _tell(self) -> None:
        for look in tuple(self._running.values()):
            look()

    def close(self) -> None:
        """Read no more in the background."""
        self._poller.close()

    def _unlock(self) -> None:
        """Begin in the child of a fork, where nobody holds the lock any more, and nothing runs that was begun."""
        self._lock = threading.RLock()
        self._running.clear()


def principal_name(principal: Principal) -> str:
    """Return how a store names a principal: its issuer, kind and id, exactly."""
    return json.dumps(principal.identity)


def _identity(name: str) -> Identity:
    """Return whom a name stands for.

    Raises:
        StateError: nobody: then it isn't known who was revoked.
    """
    try:
        issuer, kind, own = json.loads(name)
    except (TypeError, ValueError):
        raise StateError("the state store holds a revocation of nobody that can be read") from None
    return issuer, kind, own


def _unsure(text: str) -> Stop:
    return Basis.ERROR, Reason("revocation_unknown", text)


def _text(what: str, why: str) -> str:
    return f"{what}: {why}" if why else what
