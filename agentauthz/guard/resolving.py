"""Look up what a decision needs beside the arguments: `resource=`, `args=` and `context=` of a decorator."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast, final

from attrs import frozen

from agentauthz.errors import InvalidArgument
from agentauthz.obligations.handler import is_async
from agentauthz.values import copy_plain


@final
@frozen(eq=False)
class Resolver:
    """Be one look-up: a constant, an argument's name, or a function (or coroutine) of some arguments.

    A function gets copies of plain containers: what it does to them changes neither the decision nor the call.
    """

    name: str
    constant: object = None
    argument: str | None = None
    function: Callable[..., Any] | None = None
    takes: tuple[str, ...] | None = None  # None: all of them, as keywords

    @property
    def is_async(self) -> bool:
        """Say whether the look-up is a coroutine function."""
        return is_async(self.function)

    def resolve(self, values: Mapping[str, object]) -> object:
        """Return what the look-up gives for a call's values.

        Raises:
            InvalidArgument: a function that isn't a coroutine function returned an awaitable.
        """
        if self.function is None:
            return self.constant if self.argument is None else values[self.argument]
        found = self.function(**self._given(values))
        if inspect.isawaitable(found):
            if inspect.iscoroutine(found):
                found.close()
            raise InvalidArgument(self.name, "returned an awaitable: define it with `async def`")
        return found

    async def aresolve(self, values: Mapping[str, object]) -> object:
        """Do what `resolve` does, and await a coroutine function."""
        if not self.is_async:
            return self.resolve(values)
        function = cast(Callable[..., Awaitable[object]], self.function)
        return await function(**self._given(values))

    def _given(self, values: Mapping[str, object]) -> dict[str, object]:
        names = values.keys() if self.takes is None else self.takes
        return {name: copy_plain(values[name]) for name in names if name in values}


def resource_resolver(given: object, parameters: frozenset[str]) -> Resolver | None:
    """Return the look-up for `resource=`: an argument's name, a function of arguments, or a value.

    Raises:
        InvalidArgument: a name that is no parameter's.
    """
    if given is None:
        return None
    if isinstance(given, str):
        if given not in parameters:
            raise InvalidArgument("resource", f"names `{given}`, but the function has no such parameter")
        return Resolver("resource", argument=given)
    return _function_or_constant("resource", given, parameters)


def mapping_resolver(name: str, given: object, parameters: frozenset[str]) -> Resolver | None:
    """Return the look-up for `args=` or `context=`: a function of arguments that gives a mapping, or a mapping.

    Raises:
        InvalidArgument: something else.
    """
    if given is None:
        return None
    if not callable(given) and not isinstance(given, Mapping):
        raise InvalidArgument(name, "must be a mapping, or a function of arguments that returns one")
    return _function_or_constant(name, given, parameters)


def _function_or_constant(name: str, given: object, parameters: frozenset[str]) -> Resolver:
    if not inspect.isroutine(given) and not (callable(given) and not hasattr(type(given), "__agentauthz_value__")):
        return Resolver(name, constant=given)
    function = cast(Callable[..., Any], given)
    try:
        wanted = inspect.signature(function).parameters.values()
    except (ValueError, TypeError) as error:
        raise InvalidArgument(name, "is a function whose parameters can't be read: wrap it in a lambda") from error
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in wanted):
        return Resolver(name, function=function)
    needed = [p for p in wanted if p.name not in parameters and p.default is inspect.Parameter.empty]
    if needed or any(p.kind is inspect.Parameter.POSITIONAL_ONLY for p in wanted):
        wrong = needed[0].name if needed else next(iter(wanted)).name
        raise InvalidArgument(name, f"takes `{wrong}`, but the function has no such parameter to give it")
    return Resolver(name, function=function, takes=tuple(p.name for p in wanted if p.name in parameters))
