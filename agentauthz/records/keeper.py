"""Sign a stream's state every so many records and seconds, and hand it to a witness, apart from all calls."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from attrs import frozen

from agentauthz.canonical import class_name
from agentauthz.errors import SinkError
from agentauthz.records.catalog import CHECKPOINTS, NO_WAIT
from agentauthz.records.checkpoints import signed_note
from agentauthz.records.words import count

if TYPE_CHECKING:
    from agentauthz.keys.signing import Signer
    from agentauthz.records.stream import Stream

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | NO_WAIT  # a pipe fails


_FIRST_PAUSE: Final = 1.0  # seconds before a witness that failed is asked again
_LONGEST_PAUSE: Final = 300.0
_LAST: Final = 60.0  # seconds that closing waits for a checkpoint, at most


@final
@frozen
class Exposure:
    """Be what no witness has seen: so many `records`, written in the last so many `seconds`.

    They could still be changed by whoever holds the key. `failures` counts the attempts to hand over that failed.
    """

    records: int
    seconds: float
    failures: int


@final
class Keeper:
    """Sign in a thread of its own: what holds the key may be slow, and no call waits for it.

    Where signing or the witness fails, the records go on; the failure is logged and recorded once, and tried again,
    the witness after ever longer pauses. It is given the newest checkpoint only: that covers those that it missed.
    """

    def __init__(
        self,
        stream: Stream,
        folder: Path,
        key: Signer,
        org: str,
        *,
        every: int,
        idle: float,
        witness: Callable[[str], object] | None,
    ) -> None:
        self._stream = stream
        self._path = folder / CHECKPOINTS
        self._key = key
        self._org = org
        self._every = every
        self._idle = idle
        self._witness = witness
        self._lock = threading.Lock()  # held while one checkpoint is made
        self._signed = self.witnessed = 0  # records
        self._note = ""
        self._seen_at = time.monotonic()  # when the records that the witness has were all there were
        self._signed_at = self._seen_at
        self._failing: set[str] = set()
        self._failures = 0
        self._pauses = 0  # since the witness took one
        self._not_before = 0.0
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="agentauthz-checkpoints", daemon=True)
        self._thread.start()

    @property
    def exposure(self) -> Exposure:
        """Return what the witness hasn't seen."""
        left = self._stream.seq - self.witnessed
        return Exposure(max(0, left), time.monotonic() - self._seen_at if left > 0 else 0.0, self._failures)

    def counted(self, seq: int) -> None:
        """Wake the thread if so many records have come that they should be signed."""
        if seq - self._signed >= self._every:
            self._wake.set()

    def stop(self) -> None:
        """Sign what is left, hand it over, and end the thread.

        What holds the key, or the witness, may hang: closing waits for it so long, and no longer. The log is whole.
        """
        self._stopped = True
        self._wake.set()
        self._thread.join(_LAST)
        if self._thread.is_alive():
            words = "closing a log doesn't wait for what signs or keeps checkpoints any more: no witness has %s"
            logging.getLogger("agentauthz.records").error(words, count(self.exposure.records, "record"))

    def sign(self) -> None:
        """Sign the state of the stream and hand it to the witness, if there is anything new."""
        with self._lock:
            now = time.monotonic()
            size, root = self._stream.standing()
            if size > self._signed and self._tried("checkpoint", lambda: self._make(size, root)):
                self._signed, self._signed_at = size, now
            if self._witness is not None and self.witnessed < self._signed and now >= self._not_before:
                self._witness_signed()

    def _witness_signed(self) -> None:
        size, at = self._signed, self._signed_at
        if self._tried("witness", self._hand_over):
            if self._pauses:
                words = f"{count(self._pauses, 'attempt')} failed before"
                logging.getLogger("agentauthz.records").warning("the witness of a log took a checkpoint: %s", words)
            self.witnessed, self._seen_at, self._pauses = size, at, 0
        else:
            self._failures += 1
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._pauses, 20))
            self._pauses += 1
            self._not_before = time.monotonic() + pause

    def _make(self, size: int, root: bytes) -> None:
        note = signed_note(self._key, self._org, self._stream.id, size, root)
        handle = os.open(self._path, _FLAGS, 0o600)
        try:
            os.write(handle, f"{note}\n".encode())
        finally:
            os.close(handle)
        self._note = note

    def _hand_over(self) -> None:
        if self._witness is not None:
            self._witness(self._note)

    def _tried(self, what: str, attempt: Callable[[], None]) -> bool:
        """Say whether an attempt succeeded; the first failure after a success is logged and recorded."""
        try:
            attempt()
        except Exception as cause:  # a KMS, a disk, a network: whatever it is, the records go on
            if what not in self._failing:
                self._failing.add(what)
                error = class_name(cause)  # SECURITY: the text may hold what the key's service was asked
                logging.getLogger("agentauthz.records").error("the %s of a log failed: %s", what, error)
                told = {"exposed": self.exposure.records} if what == "witness" else {}
                with contextlib.suppress(OSError, SinkError):
                    self._stream.tell("sink.failed", {"sink": what, "error": error, **told})
            return False
        self._failing.discard(what)
        return True

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(self._idle)
            self._wake.clear()
            if not self._stopped:
                self.sign()
        self._not_before = 0.0  # there is no later
        self.sign()
