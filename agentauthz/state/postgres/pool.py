"""Keep a few connections to PostgreSQL for the threads of a process, and none of another process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from queue import Empty, SimpleQueue
from typing import Any, Final, final

from agentauthz.errors import StateError
from agentauthz.state.postgres.text import Value
from agentauthz.state.postgres.wire import Wire, late


@final
class Pool:
    """Ask a database, over at most `size` connections at the same time; `timeout` seconds are the most for one answer.

    Raises:
        StateError: there is no database, or it isn't prepared.
    """

    def __init__(self, options: dict[str, Any], size: int, timeout: float) -> None:
        self._options: Final = options
        self._size: Final = size
        self._timeout: Final = timeout
        self._closed = False
        self._begin()
        self.ask("version", ())

    def _begin(self) -> None:
        self._process = os.getpid()
        # both let in again what a signal's handler, or an object's end, asks while this thread has them in hand
        self._lock = threading.RLock()
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(self._size):
            self._free.put(None)
        self._idle: list[Wire] = []

    def _own_process(self) -> None:
        """Begin anew in the child of a fork."""
        if self._process != os.getpid():
            inherited = self._idle
            self._begin()
            for wire in inherited:
                wire.disown()

    def ask(self, function: str, values: Sequence[Value]) -> Any:
        """Return what a function of the schema answers; on another connection where one was cut while it was idle.

        Raises:
            StateError: it failed, or didn't answer in time, or the pool is closed.
        """
        self._own_process()
        ends = time.monotonic() + self._timeout
        free = self._free
        try:
            free.get(timeout=self._timeout)
        except Empty:
            raise late() from None
        try:
            wire = self._taken(ends)
            try:
                answer = wire.ask(function, values, ends)
            except BaseException:  # an interrupt too: its answer may still come, and must not be another's
                wire.close()
                raise
            self._put_back(wire)
            return answer
        finally:
            free.put(None)

    def _taken(self, ends: float) -> Wire:
        while True:
            with self._lock:
                if self._closed:
                    raise StateError("the state store is closed")
                wire = self._idle.pop() if self._idle else None
            if wire is None:
                return self._connected(ends)
            if wire.quiet:
                return wire
            wire.close()

    def _put_back(self, wire: Wire) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(wire)
                return
        wire.close()

    def _connected(self, ends: float) -> Wire:
        """Connect in a thread of its own: to find the server's address may take longer than anything else is let."""
        made: Future[Wire] = Future()

        def connect() -> None:
            try:
                made.set_result(Wire(self._options, self._timeout))
            except BaseException as error:
                made.set_exception(error)

        threading.Thread(target=connect, daemon=True, name="agentauthz-connecting").start()
        try:
            return made.result(max(0.0, ends - time.monotonic()))
        except Late:
            made.add_done_callback(_given_up)
            raise late() from None

    def close(self) -> None:
        """Leave the server; what is asked afterwards raises."""
        self._own_process()
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for wire in idle:
            wire.close()


def _given_up(made: Future[Wire]) -> None:
    """Close a connection that nobody waits for any more."""
    if made.exception() is None:
        made.result().close()
