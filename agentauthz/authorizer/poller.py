"""Do something again and again in the background, in every process that this one forks into."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Final, final


@final
class Poller:
    """Call a method every `interval` seconds in a daemon thread, until `close`, or until its object is gone.

    `work` is a bound method that raises nothing; the thread doesn't keep its object alive. In the child of a fork the
    thread is begun again, after `forked` was called there.
    """

    def __init__(self, work: Callable[[], None], interval: float, forked: Callable[[], None]) -> None:
        self._work: Final = weakref.WeakMethod(work)
        self._forked: Final = weakref.WeakMethod(forked)
        self._interval: Final = interval
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self) -> None:
        """Begin, where it hasn't begun: it begins anew where the thread has died. What fails is tried again later."""
        if (thread := self._thread) is not None and thread.is_alive():
            return
        with self._lock:
            first = self._thread is None
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            thread = threading.Thread(
                target=_run, args=(self._work, self._ended, self._interval), name="agentauthz-revocations", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # no thread can be had: whoever finds nothing new asks for one again
                return
            self._thread = thread
        if first and hasattr(os, "register_at_fork"):  # where processes fork
            os.register_at_fork(after_in_child=functools.partial(_restart, weakref.ref(self)))

    def close(self) -> None:
        """End soon, and for good; what is waiting for the store is not waited for."""
        self._closed = True
        self._ended.set()

    def restart(self) -> None:
        """Begin again in the child of a fork, where no thread is but the one that forked, and locks may be held."""
        self._lock, self._ended = threading.RLock(), threading.Event()
        if (forked := self._forked()) is not None:
            forked()
            self.start()


def _run(work: weakref.WeakMethod[Callable[[], None]], ended: threading.Event, interval: float) -> None:
    while not ended.wait(interval):
        if (call := work()) is None:
            return
        call()
        del call  # while it waits, nothing is kept alive


def _restart(of: weakref.ref[Poller]) -> None:
    if (poller := of()) is not None:
        poller.restart()
