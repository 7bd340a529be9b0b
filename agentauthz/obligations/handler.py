"""Define handlers of obligations, what they are given, and how much of a call they need."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast, final

from attrs import evolve, field, frozen

from agentauthz.decision import Decision, Obligation
from agentauthz.errors import InvalidArgument
from agentauthz.request import Request
from agentauthz.values import UNKNOWN, copy_plain

Manager: TypeAlias = AbstractContextManager[object] | AbstractAsyncContextManager[object]


@final
class Reach(enum.IntEnum):
    """Tell how much of a call whoever has it decided holds in hand: each holds what those before it do."""

    BEFORE = 0  # an inline call: the decision, and nothing after it
    AROUND = 1  # `perform`: the work's beginning and end
    RESULT = 2  # the decorator: what the function returns, too
    SERVICE = 3  # nobody: only who asks for it itself, such as a token service


@final
@frozen(eq=False)
class Duty:
    """Be one obligation of one call, as its handler sees it, with the decision and the request.

    Plain containers in the request's arguments and context are copies: what a handler does to them changes neither
    the call nor its record. The decision isn't recorded yet, so it has no `record_id`.
    """

    obligation: Obligation
    decision: Decision
    request: Request

    @classmethod
    def of(cls, obligation: Obligation, decision: Decision, request: Request) -> Duty:
        """Return an obligation of a call, on copies of its own."""
        own = tuple(_still(one) for one in decision.obligations)
        asked = Request.trusted(
            request.action, request.chain, _copied(request.args), request.resource, request.route, request.purpose,
            request.session, _copied(request.context), request.now,
        )  # fmt: skip
        return cls(_still(obligation), evolve(decision, obligations=own), asked)

    @property
    def properties(self) -> Mapping[str, object]:
        """Return what the policy says in the obligation's parentheses."""
        return self.obligation.properties


def _still(obligation: Obligation) -> Obligation:
    """Return an obligation whose properties nobody changes: a later handler, and the record, hold to the same."""
    return evolve(obligation, properties=MappingProxyType(dict(obligation.properties)))


def _copied(facts: Any) -> Any:
    return facts if facts is UNKNOWN else copy_plain(dict(facts))


def _callable(_: object, attribute: Any, value: object) -> None:
    if value is not None and not callable(value):
        raise InvalidArgument(attribute.name, "must be a function, or None")


@final
@frozen(kw_only=True, eq=False)
class Handler:
    """Carry out one type of obligation: before the call, around it, on its result; each may be None.

    `before` is called, and may be a coroutine function for async calls; False from it is a failure, and so is what
    must still be run: a generator, an awaitable, a context that `contextlib` makes. `around` returns a context
    manager (for async calls also an async one), which is entered before the call and left after it; it can't swallow
    an error. `after` gets the result, of a generator each item, and returns what the caller gets instead; it may be a
    coroutine function too. What raises has failed: before the call that denies it, after it the result is withheld.
    `check` says what is wrong with the properties in a policy, in one sentence; None: nothing.

    Raises:
        InvalidArgument: a part that is no function.
    """

    before: Callable[[Duty], object] | None = field(default=None, validator=_callable)
    around: Callable[[Duty], Manager] | None = field(default=None, validator=_callable)
    after: Callable[[Duty, Any], object] | None = field(default=None, validator=_callable)
    check: Callable[[Mapping[str, object]], str | None] | None = field(default=None, validator=_callable)

    @property
    def reach(self) -> Reach:
        """Return how much of a call it needs."""
        if self.after is not None:
            return Reach.RESULT
        if self.around is not None:
            return Reach.AROUND
        return Reach.SERVICE if self.before is None else Reach.BEFORE

    @property
    def awaits(self) -> bool:
        """Say whether it is for async calls only."""
        return is_async(self.before) or is_async(self.after)


def is_async(function: object) -> bool:
    """Say whether a function is a coroutine function, or an object that is called like one."""
    call = getattr(function, "__call__", None)  # noqa: B004  (an object whose __call__ is a coroutine function)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


Given: TypeAlias = Mapping[str, Handler | Callable[[Duty], object]]
NONE_GIVEN: Final[Given] = MappingProxyType({})


def handler_of(name: str, given: object) -> Handler:
    """Return the handler that was given for a type: a function acts before the call.

    Raises:
        InvalidArgument: neither.
    """
    if type(given) is Handler:
        return given
    if not callable(given) or isinstance(given, type):
        raise InvalidArgument("obligations", f"must give a function or a Handler for `{name}`")
    return Handler(before=cast("Callable[[Duty], object]", given))
