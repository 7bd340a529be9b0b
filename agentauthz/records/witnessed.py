"""Read checkpoints that were kept elsewhere: text, files, and addresses."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from agentauthz.canonical import class_name
from agentauthz.errors import InvalidArgument
from agentauthz.records.checkpoints import Checkpoint, Vkey, read_checkpoints, signed_as, verified_by
from agentauthz.urls import checked_url

Source: TypeAlias = "str | os.PathLike[str]"
Kept: TypeAlias = "Source | Iterable[Source] | None"

MOST: Final = 64 * 1024 * 1024  # bytes that an address may answer with
TIMEOUT: Final = 30.0  # seconds that it may take


def texts(given: Kept) -> list[str]:
    """Return the texts of checkpoints that were kept elsewhere; what has several lines is the text itself.

    Raises:
        InvalidArgument: a file or an address can't be read.
    """
    if given is None:
        return []
    try:
        sources = [given] if isinstance(given, str | os.PathLike) else list(given)
    except TypeError:
        raise InvalidArgument("checkpoint", "must be a text, a path, an address, or a list of those") from None
    return [f"{_text(source)}\n" for source in sources]


def kept(given: Kept, trusted: Sequence[Vkey]) -> list[Checkpoint]:
    """Return the checkpoints that were kept elsewhere and that one of the keys signed.

    Raises:
        InvalidArgument: as `texts`, or the keys signed none of one text's.
    """
    found: list[Checkpoint] = []
    for text in texts(given):
        there = read_checkpoints(text)
        own = [each for each in there if verified_by(each, trusted) is not None]
        if not own:
            told = f"those here are signed as {signed_as(there)}" if there else "there are none here"
            raise InvalidArgument("checkpoint", f"holds none that one of `keys` signed under its name: {told}")
        found += own
    return found


def _text(source: Source) -> str:
    if isinstance(source, str):
        if "\n" in source:
            return source
        if source.lower().startswith(("http://", "https://")):
            return _fetched(source)
    try:
        return Path(source).read_text("utf-8")
    except (OSError, ValueError, TypeError) as cause:  # a ValueError: no text, or no path
        why = cause.strerror if isinstance(cause, OSError) else "it is no text, or no path"
        raise InvalidArgument("checkpoint", f"can't be read: {why}") from None


def _fetched(url: str) -> str:
    """Return what an address answers; http only on this machine, and nobody is followed elsewhere."""
    from agentauthz.records.sinks.extras import require
    from agentauthz.records.web import ask

    checked_url("checkpoint", url, loopback_http=True)
    require("httpx", "http", "checkpoint")
    try:
        return ask("GET", url, headers={}, timeout=TIMEOUT, limit=MOST).decode()
    except UnicodeError:
        why = "it is no text"
    except TimeoutError:
        why = f"it took longer than {TIMEOUT:.0f} seconds"
    except ConnectionError as cause:
        why = str(cause)
    except Exception as cause:  # SECURITY: httpx's texts may hold the address, and it a secret
        why = class_name(cause)
    raise InvalidArgument("checkpoint", f"can't be had from its address: {why}") from None
