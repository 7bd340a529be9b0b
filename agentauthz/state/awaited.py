"""Let a store whose operations are coroutines serve everybody: in a loop of its own, in a thread of its own."""

from __future__ import annotations

import datetime as dt
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast, final

from attrs import define

from agentauthz.errors import InvalidArgument, StateError
from agentauthz.state.store import Answer, Approval, Begun, Intent, Reservation, Revocation, State, Status, Subject

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


@final
@define(eq=False)
class _Running:
    """Be a loop that runs in a thread, and the store that was made in it."""

    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    store: Any = None


@final
class AwaitedState:
    """Be a state store that asks one whose operations are coroutines, with the same names and arguments.

    `make` returns that store, or is a coroutine function that does. It is called in the loop that the store is used in,
    and again in a process that was forked. An operation that takes longer than `timeout` seconds is cancelled. What
    the store raises becomes a `StateError`, as everything that comes after `close`.

    Raises:
        InvalidArgument: a time-out that is no positive number.
    """

    blocking: Final = True  # coroutines ask it in a thread, so that their own loop goes on

    def __init__(self, make: Callable[[], Any], *, timeout: float = 5.0) -> None:
        if not 0 < timeout < float("inf"):
            raise InvalidArgument("timeout", "must be a positive number of seconds")
        self._make: Final = make
        self._timeout: Final = timeout
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._running: _Running | None = None
        self._closed = False

    def now(self) -> dt.datetime:
        """Return the store's time; see `StateStore` for this and the other operations."""
        return cast(dt.datetime, self._asked("now"))

    def begin(self, session: str, started: dt.datetime, watched: Mapping[str, dt.datetime], *, keep: bool) -> Begun:
        """Begin a session, or find it."""
        return cast(Begun, self._asked("begin", session, started, watched, keep=keep))

    def read(self, session: str) -> State:
        """Return what a session remembers."""
        return cast(State, self._asked("read", session))

    def commit(self, intent: Intent) -> Answer:
        """Do all that a decision changes, or nothing."""
        return cast(Answer, self._asked("commit", intent))

    def settle(self, reservation: Reservation, actual: Mapping[str, Decimal]) -> None:
        """Keep what was spent, less what a rule took less."""
        self._asked("settle", reservation, actual)

    def release(self, reservation: Reservation) -> None:
        """Give back what was spent."""
        self._asked("release", reservation)

    def mark(self, session: str, name: str) -> None:
        """Add a mark on the host's word."""
        self._asked("mark", session, name)

    def unmark(self, session: str, name: str) -> bool:
        """Remove a mark on the host's word; say whether it was there."""
        return cast(bool, self._asked("unmark", session, name))

    def finish(self, session: str, action: str) -> None:
        """Remember that an action was allowed, and has returned, now."""
        self._asked("finish", session, action)

    def once(self, key: str, expires: dt.datetime) -> bool:
        """Return True the first time that `key` is asked for."""
        return self._asked("once", key, expires) is True

    def revoke(self, kind: Subject, name: str, reason: str, *, lifts: bool = False) -> Revocation:
        """Revoke something."""
        return cast(Revocation, self._asked("revoke", kind, name, reason, lifts=lifts))

    def revocations(self, since: int) -> Sequence[Revocation]:
        """Return those with a higher number than `since`, in order."""
        return cast(Sequence[Revocation], self._asked("revocations", since))

    def ask(self, approval: Approval) -> Approval:
        """Keep a request for consent, or find the open one that is bound to the same call."""
        return cast(Approval, self._asked("ask", approval))

    def answer(
        self, id: str, status: Literal["pending", "approved", "rejected"], answer: str, *, known: str | None = None
    ) -> bool:
        """Answer a pending request that hasn't expired, and whose answer so far is `known`."""
        return cast(bool, self._asked("answer", id, status, answer, known=known))

    def approval(self, id: str) -> Approval | None:
        """Return a request; None: there is none with this id."""
        return cast("Approval | None", self._asked("approval", id))

    def approvals(
        self, *, status: Status | None = None, binding: str | None = None, session: str | None = None
    ) -> Sequence[Approval]:
        """Return the requests of which all that is given holds, oldest first."""
        return cast(Sequence[Approval], self._asked("approvals", status=status, binding=binding, session=session))

    def close(self) -> None:
        """Close the store, and end its thread; doing it again does nothing."""
        self._own_process()
        with self._lock:
            self._closed, running, self._running = True, self._running, None
        if running is not None:
            try:
                self._run(running, _called(running.store.close))
            finally:
                self._ended(running)

    # ---- one operation

    def _asked(self, operation: str, *args: object, **options: object) -> object:
        running = self._started()
        return self._run(running, _called(getattr(running.store, operation), *args, **options))

    def _run(self, running: _Running, work: Coroutine[Any, Any, T]) -> T:
        import asyncio

        future = asyncio.run_coroutine_threadsafe(work, running.loop)
        try:
            return future.result(self._timeout)
        except StateError:
            raise
        except TimeoutError as cause:
            future.cancel()
            raise StateError("the state store didn't answer in time") from cause
        except Exception as cause:
            raise StateError(f"the state store failed with {type(cause).__name__}") from cause

    def _started(self) -> _Running:
        self._own_process()
        if not self._lock.acquire(timeout=self._timeout):
            raise StateError("the state store wasn't made in time")
        try:
            if self._closed:
                raise StateError("the state store is closed")
            if self._running is None:
                import asyncio  # programs without a loop don't pay for it

                loop = asyncio.new_event_loop()
                running = _Running(loop, threading.Thread(target=_runs, args=(loop,), daemon=True))
                running.thread.start()
                self._running = self._made(running)
            return self._running
        finally:
            self._lock.release()

    def _made(self, running: _Running) -> _Running:
        try:
            running.store = self._run(running, _called(self._make))
        except BaseException:
            self._ended(running)
            raise
        return running

    def _ended(self, running: _Running) -> None:
        running.loop.call_soon_threadsafe(running.loop.stop)
        running.thread.join(self._timeout)

    def _own_process(self) -> None:
        """Leave to the parent what is its own: its thread isn't here."""
        if self._process != os.getpid():
            self._lock, self._running, self._process = threading.Lock(), None, os.getpid()


def _runs(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _called(function: Callable[..., Any], *args: object, **options: object) -> Any:
    found = function(*args, **options)
    return await found if inspect.isawaitable(found) else found
