"""Keep some room of the disk back, so that a log can still tell of itself when the disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final, final

RESERVE: Final = 64 * 1024  # bytes
QUOTA: Final = getattr(errno, "EDQUOT", errno.ENOSPC)
_NO_SPACE: Final = frozenset({errno.ENOSPC, QUOTA})


@final
class Reserve:
    """Be the file `reserve` in a stream's folder."""

    def __init__(self, folder: Path) -> None:
        self._path: Final = folder / "reserve"

    def keep(self) -> None:
        """Keep some room back; where there isn't twice as much, nothing else is begun either.

        Raises:
            OSError: there isn't, or the disk refuses for another reason.
        """
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                left = 2 * RESERVE
                while left:
                    left -= os.write(handle, bytes(left))
                os.ftruncate(handle, RESERVE)
            finally:
                os.close(handle)
        except OSError as cause:
            if cause.errno in _NO_SPACE:
                self.free()
            if cause.errno != errno.EFBIG:
                raise

    def free(self) -> None:
        """Give the room away, to what can't wait for other room."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)
