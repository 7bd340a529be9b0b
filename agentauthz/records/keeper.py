"""Sign a stream's state every so many records and seconds, and hand it to a witness, apart from all calls."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from agentauthz.canonical import class_name
from agentauthz.errors import SinkError
from agentauthz.records.catalog import CHECKPOINTS
from agentauthz.records.checkpoints import signed_note

if TYPE_CHECKING:
    from agentauthz.keys.signing import Signer
    from agentauthz.records.stream import Stream

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)


@final
class Keeper:
    """Sign in a thread of its own: what holds the key may be slow, and no call waits for it.

    Where signing or the witness fails, the records go on; the failure is logged and recorded once, and tried again.
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
        self._failing: set[str] = set()
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="agentauthz-checkpoints", daemon=True)
        self._thread.start()

    def counted(self, seq: int) -> None:
        """Wake the thread if so many records have come that they should be signed."""
        if seq - self._signed >= self._every:
            self._wake.set()

    def stop(self) -> None:
        """Sign what is left, and end the thread."""
        self._stopped = True
        self._wake.set()
        self._thread.join()
        self.sign()

    def sign(self) -> None:
        """Sign the state of the stream and hand it to the witness, if there is anything new."""
        with self._lock:
            size, root = self._stream.standing()
            if size > self._signed and self._tried("checkpoint", lambda: self._make(size, root)):
                self._signed = size
            if self._witness is not None and self.witnessed < self._signed:
                if self._tried("witness", self._hand_over):
                    self.witnessed = self._signed

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
                with contextlib.suppress(OSError, SinkError):
                    self._stream.tell("sink.failed", {"sink": what, "error": error})
            return False
        self._failing.discard(what)
        return True

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(self._idle)
            self._wake.clear()
            if not self._stopped:
                self.sign()
