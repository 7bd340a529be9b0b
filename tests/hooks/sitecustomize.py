"""Replay, in each process of an example, what it recorded; put on the path by `tests/test_examples.py`."""

from __future__ import annotations

import atexit
import os
from pathlib import Path

from agentauthz.authorizer.recording import Recording
from tests.replaying import Written

written = Written()
Recording._record = written.watch()  # type: ignore[method-assign]


def told() -> None:
    """Write down how many records there were, and what is wrong with them."""
    folder = Path(os.environ["AGENTAUTHZ_REPLAYED"])
    (folder / f"{os.getpid()}.txt").write_text("".join(f"{line!r}: {wrong}\n" for line, wrong in written.complaints()))


atexit.register(told)
