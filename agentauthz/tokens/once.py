"""Grant each key once: what makes the replay of a token or a proof fail."""

from __future__ import annotations

import datetime as dt
from typing import Protocol


class Once(Protocol):
    """Be a store that grants a key once, until it expires; what it raises counts as not granted."""

    def once(self, key: str, expires: dt.datetime) -> bool:
        """Return True the first time that `key` is asked for, over all that share the store, and False ever after.

        After `expires`, which has a time zone, the key may be forgotten.
        """
