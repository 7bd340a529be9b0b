"""Bind a call's arguments as Python would, by code that is generated once for each function."""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Callable, Collection, Mapping
from inspect import Parameter
from typing import Any, Final, cast, final

from attrs import field, frozen

from agentauthz.errors import InvalidArgument
from agentauthz.values import ATOMIC, copy_plain

_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


@final
@frozen(eq=False)
class Binder:
    """Bind and replay the calls of one function.

    `bind(*args, **kwargs)` returns one value for each of `names`, defaults applied, and raises the
    TypeError that the function itself would; `call(function, values)` makes the call from them.
    """

    signature: inspect.Signature
    bind: Callable[..., tuple[Any, ...]]
    call: Callable[[Callable[..., Any], tuple[Any, ...]], Any]
    named: Callable[[tuple[Any, ...]], dict[str, Any]]  # the values by `names`
    names: tuple[str, ...]
    rest: int | None = field(default=None)  # where `*args` stands in the values
    named_rest: int | None = field(default=None)  # where `**kwargs` stands

    def copied(self, values: tuple[Any, ...], hidden: frozenset[str]) -> tuple[Any, ...]:
        """Return the values with plain containers copied, but for those of hidden parameters.

        Raises:
            InvalidArgument: the nesting is deeper than 200.
        """
        for value in values:
            if type(value) not in ATOMIC:
                pairs = zip(self.names, values, strict=True)
                return tuple([value if name in hidden else copy_plain(value) for name, value in pairs])
        return values  # nothing in them could change

    def again(
        self,
        function: Callable[..., Any],
        facts: Mapping[str, object],
        injected: Mapping[str, object],
        hidden: frozenset[str],
        *,
        left_out: Collection[str] = (),
    ) -> Any:
        """Call `function` with what `facts` returned, and `injected` for hidden parameters; those `left_out` it has.

        Raises:
            InvalidArgument: a hidden parameter without a default isn't injected, or `injected` has another.
        """
        if unknown := sorted(injected.keys() - hidden):
            raise InvalidArgument(unknown[0], "is no injected parameter of this function")
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for name, parameter in self.signature.parameters.items():
            if name in left_out:
                continue
            if parameter.kind is Parameter.VAR_KEYWORD:
                rest = {other: value for other, value in facts.items() if other not in self.names}
                named.update(cast("dict[str, Any]", injected.get(name, {})) if name in hidden else rest)
                continue
            given: Any = injected.get(name, parameter.default) if name in hidden else facts[name]
            if parameter.kind is Parameter.VAR_POSITIONAL:
                positional.extend(() if given is Parameter.empty else given)
            elif given is Parameter.empty:
                raise InvalidArgument(name, "must be injected: it wasn't stored")
            elif parameter.kind in _POSITIONAL:
                positional.append(given)
            else:
                named[name] = given
        return function(*positional, **named)

    def facts(self, values: tuple[Any, ...], hidden: frozenset[str]) -> dict[str, object]:
        """Return the arguments by name: those of `**kwargs` by their own, those of `*args` as one list.

        Raises:
            InvalidArgument: `**kwargs` holds the name of another parameter.
        """
        facts = self.named(values)
        for name in hidden:
            facts.pop(name, None)
        if self.rest is not None and self.names[self.rest] not in hidden:
            facts[self.names[self.rest]] = list(values[self.rest])
        if self.named_rest is not None and self.names[self.named_rest] not in hidden:
            extra: Mapping[str, object] = facts.pop(self.names[self.named_rest])
            if clash := sorted(set(extra) & set(self.names)):
                raise InvalidArgument(clash[0], "is a parameter's name, so it can't be one of the further arguments")
            facts.update(extra)
        return facts


def binder(function: Callable[..., Any]) -> Binder:
    """Return the binder of a function.

    Raises:
        InvalidArgument: the function has no signature that can be read, or one that was set by hand and
            has its parameters in another order.
    """
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError) as error:
        raise InvalidArgument("function", "has no signature that can be read") from error
    parameters = list(signature.parameters.values())
    names = tuple(parameter.name for parameter in parameters)
    _require_order(function, names)
    kinds = [parameter.kind for parameter in parameters]
    return Binder(
        signature,
        _binding(function, parameters),
        _calling(parameters),
        _naming(names),
        names,
        kinds.index(Parameter.VAR_POSITIONAL) if Parameter.VAR_POSITIONAL in kinds else None,
        kinds.index(Parameter.VAR_KEYWORD) if Parameter.VAR_KEYWORD in kinds else None,
    )


def _require_order(function: Callable[..., Any], names: tuple[str, ...]) -> None:
    """Refuse a signature by which a value would be decided under one name and arrive under another."""
    code = getattr(function, "__code__", None)
    own = () if code is None else code.co_varnames[: code.co_argcount]
    if any(mine != name and mine in names for mine, name in zip(own, names, strict=False)):
        raise InvalidArgument("function", "has a `__signature__` that names its parameters in another order")


def _binding(function: Callable[..., Any], parameters: list[Parameter]) -> Callable[..., tuple[Any, ...]]:
    """Return ``def f(a, b=…, *args, c, **kwargs): return (a, b, args, c, kwargs)``."""
    defaults = {f"d{i}": p.default for i, p in enumerate(parameters) if p.default is not Parameter.empty}

    def default(parameter: Parameter) -> ast.expr | None:
        place = f"d{parameters.index(parameter)}"
        return _name(place) if place in defaults else None

    positional = [p for p in parameters if p.kind in _POSITIONAL]
    keyword_only = [p for p in parameters if p.kind is Parameter.KEYWORD_ONLY]
    rest = next((p for p in parameters if p.kind is Parameter.VAR_POSITIONAL), None)
    named_rest = next((p for p in parameters if p.kind is Parameter.VAR_KEYWORD), None)
    arguments = ast.arguments(
        posonlyargs=[ast.arg(p.name) for p in positional if p.kind is Parameter.POSITIONAL_ONLY],
        args=[ast.arg(p.name) for p in positional if p.kind is not Parameter.POSITIONAL_ONLY],
        vararg=ast.arg(rest.name) if rest else None,
        kwonlyargs=[ast.arg(p.name) for p in keyword_only],
        kw_defaults=[default(p) for p in keyword_only],
        kwarg=ast.arg(named_rest.name) if named_rest else None,
        defaults=[value for p in positional if (value := default(p)) is not None],
    )
    body = ast.Return(ast.Tuple([_name(p.name) for p in parameters], ast.Load()))
    made = _define(arguments, body, defaults)
    made.__name__ = getattr(function, "__name__", "function")
    made.__qualname__ = getattr(function, "__qualname__", made.__name__)
    return made


def _calling(parameters: list[Parameter]) -> Callable[[Callable[..., Any], tuple[Any, ...]], Any]:
    """Return ``def f(function, values): return function(values[0], *values[1], c=values[2], **values[3])``."""
    positional: list[ast.expr] = []
    keywords: list[ast.keyword] = []
    for place, parameter in enumerate(parameters):
        value = ast.Subscript(_name("values"), ast.Constant(place), ast.Load())
        if parameter.kind in _POSITIONAL:
            positional.append(value)
        elif parameter.kind is Parameter.VAR_POSITIONAL:
            positional.append(ast.Starred(value, ast.Load()))
        else:
            keywords.append(ast.keyword(parameter.name if parameter.kind is Parameter.KEYWORD_ONLY else None, value))
    arguments = ast.arguments(
        posonlyargs=[], args=[ast.arg("function"), ast.arg("values")], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    return _define(arguments, ast.Return(ast.Call(_name("function"), positional, keywords)), {})


def _naming(names: tuple[str, ...]) -> Callable[[tuple[Any, ...]], dict[str, Any]]:
    """Return ``def f(values): return {"a": values[0], "b": values[1]}``."""
    items = [ast.Subscript(_name("values"), ast.Constant(place), ast.Load()) for place in range(len(names))]
    arguments = ast.arguments(posonlyargs=[], args=[ast.arg("values")], kwonlyargs=[], kw_defaults=[], defaults=[])
    return _define(arguments, ast.Return(ast.Dict([ast.Constant(name) for name in names], [*items])), {})


def _define(arguments: ast.arguments, body: ast.stmt, names: dict[str, Any]) -> types.FunctionType:
    definition = ast.FunctionDef(name="f", args=arguments, body=[body], decorator_list=[])
    if "type_params" in ast.FunctionDef._fields:  # from Python 3.12 on
        setattr(definition, "type_params", [])  # noqa: B010  (typeshed of 3.11 lacks it)
    module = ast.fix_missing_locations(ast.Module([definition], []))
    scope = {"__builtins__": {}, **names}
    exec(compile(module, "<agentauthz binder>", "exec"), scope)  # noqa: S102  (a tree of names: no text is run)
    made: types.FunctionType = scope["f"]
    return made


def _name(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())
