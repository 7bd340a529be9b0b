"""Load the libraries that only some sinks need, and say which extra has them."""

from __future__ import annotations

import importlib.util

from agentauthz.errors import InvalidArgument


def require(library: str, extra: str, argument: str = "sink") -> None:
    """Make sure that a library is there, without loading it.

    Raises:
        InvalidArgument: it isn't; the message names the extra.
    """
    if importlib.util.find_spec(library) is None:
        raise InvalidArgument(argument, f"needs {library}: install `agentauthz[{extra}]`")
