"""Know in which trace, request, turn and tool call something is decided, and which decision it is part of."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final, TypeAlias, final

from agentauthz.active import ACTIVE
from agentauthz.canonical import class_name, utf8
from agentauthz.errors import InvalidArgument
from agentauthz.records.events import ctx_member
from agentauthz.records.lines import MAX_NAME, NOTHING

Ids: TypeAlias = Callable[[], Mapping[str, object]]

_TRACED: Final[ContextVar[Mapping[str, object]]] = ContextVar("agentauthz.traced", default=NOTHING)
_TRACE: Final = re.compile(r"(?!0{32})[0-9a-f]{32}")  # W3C Trace Context §3.2.2: all zeros is no id
_SPAN: Final = re.compile(r"(?!0{16})[0-9a-f]{16}")
_MAX_TURN: Final = 2**53 - 1  # what every reader of JSON has exactly


@contextmanager
def tracing(
    *,
    trace_id: str | None = None,
    span_id: str | None = None,
    request_id: str | None = None,
    turn: int | None = None,
    call_id: str | None = None,
) -> Iterator[None]:
    """Let what is decided in the block carry these in its records, beside what a block around it gives.

    `trace_id` and `span_id` are W3C's, 32 and 16 lower-case hexadecimal digits; `request_id` is the host's; `turn`
    counts the turns of the conversation; `call_id` is the framework's id of the tool's call. What is malformed is left
    out, and counted in `Authorizer.ctx_dropped`: it stops no call.
    """
    given = {"trace_id": trace_id, "span_id": span_id, "request_id": request_id, "turn": turn, "call_id": call_id}
    before = _TRACED.set({**_TRACED.get(), **{name: one for name, one in given.items() if one is not None}})
    try:
        yield
    finally:
        with suppress(ValueError):  # it is left in another context than it was entered in
            _TRACED.reset(before)


def otel_span() -> Ids:
    """Return what tells an `Authorizer`, as its `ctx`, OpenTelemetry's current trace and span (extra `otel`).

    Raises:
        InvalidArgument: the API of OpenTelemetry is missing.
    """
    try:
        from opentelemetry.trace import get_current_span
    except ImportError as cause:
        raise InvalidArgument("ctx", "needs opentelemetry: install `agentauthz[otel]`") from cause

    def ids() -> Mapping[str, object]:
        span = get_current_span().get_span_context()
        return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"} if span.is_valid else NOTHING

    return ids


@final
class Tracer:
    """Write the member `ctx` of an authorizer's records; `source` is asked each time, and `dropped` counts what it or
    `tracing` gave in vain.

    Raises:
        InvalidArgument: `source` can't be called.
    """

    __slots__ = ("_lock", "_source", "dropped")

    def __init__(self, source: Ids | None) -> None:
        if source is not None and not callable(source):
            raise InvalidArgument("ctx", "must be a function that returns a mapping of ids")
        self._source = source
        self._lock = threading.Lock()
        self.dropped = 0

    def member(self, parent: str | None = None) -> str:
        """Return the member, with its comma; `parent` is the record's cause, by default the decision around it."""
        parent = parent or around()
        given = _TRACED.get()
        if self._source is None and given is NOTHING:
            return "" if parent is None else f',"ctx":{{"parent":"{parent}"}}'
        found = {**self._asked(), **given}
        kept = {name: _CHECKS[name](one) for name, one in found.items() if name in _CHECKS and one is not None}
        wrong = sum(1 for name, one in found.items() if one is not None and kept.get(name) is None)
        if wrong:
            self._drop(wrong, "what isn't an id")
        return ctx_member({**{name: kept.get(name) for name in _CHECKS}, "parent": parent})

    def _asked(self) -> Mapping[str, object]:
        if self._source is None:
            return NOTHING
        try:
            return dict(self._source())
        except Exception as error:  # the host's own code: it must not decide whether a call may happen
            self._drop(1, class_name(error))
            return NOTHING

    def _drop(self, number: int, what: str) -> None:
        with self._lock:
            first, self.dropped = self.dropped == 0, self.dropped + number
        if first:
            logging.getLogger("agentauthz.records").warning("ids for records are left out from here on: %s", what)


def around() -> str | None:
    """Return the id of the decision that let the call run inside of which this is asked."""
    active = ACTIVE.get()
    return None if active is None or active.decision is None else active.decision.record_id


def _hex(pattern: re.Pattern[str]) -> Callable[[object], object]:
    return lambda given: str.__str__(given) if isinstance(given, str) and pattern.fullmatch(given) else None


def _name(given: object) -> object:
    fits = isinstance(given, str) and 0 < len(given) <= MAX_NAME and utf8(given) == given
    return str.__str__(given) if isinstance(given, str) and fits else None


def _turn(given: object) -> object:
    return given if type(given) is int and 0 <= given <= _MAX_TURN else None


_CHECKS: Final[Mapping[str, Callable[[object], object]]] = {
    "trace_id": _hex(_TRACE),
    "span_id": _hex(_SPAN),
    "request_id": _name,
    "turn": _turn,
    "call_id": _name,
}
