"""Do something in the middle of something else, as a signal's handler does, or the end of an object."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any


def interrupted(
    at: int, within: Iterable[ModuleType], work: Callable[[], object], handler: Callable[[], object]
) -> bool:
    """Do some work, and what a handler does before its line `at` in some modules; say whether it got so far."""
    lines, files = 0, {module.__file__ for module in within}

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in files:
            return None
        lines += event == "line"
        if event == "line" and lines == at:
            sys.settrace(None)
            handler()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines >= at
