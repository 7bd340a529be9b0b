"""Test the public names: few, documented, and honest about what they raise."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import pytest

import agentauthz

NAMES = sorted(agentauthz.__all__)
CODE = [name for name in NAMES if isinstance(getattr(agentauthz, name), type | FunctionType)]


def _functions(name: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield what a public name offers to call: itself, or its public methods and how it is made."""
    thing = getattr(agentauthz, name)
    if isinstance(thing, FunctionType):
        yield name, thing
        return
    for attribute, member in vars(thing).items():
        made_here = attribute in ("__init__", "__attrs_post_init__")
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        function = member.fget if isinstance(member, property) else function
        if isinstance(function, FunctionType) and (made_here or not attribute.startswith("_")):
            yield f"{name}.{attribute}", function


FUNCTIONS = [pair for name in CODE for pair in _functions(name)]


def _tree(function: Callable[..., Any]) -> ast.AST | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    except OSError:  # attrs generated it
        return None


def _raised(function: Callable[..., Any], seen: frozenset[str] = frozenset()) -> set[type[BaseException]]:
    """Return the error classes that a function names in a `raise`, itself or in helpers of its own module."""
    tree = _tree(function)
    if tree is None:
        return set()
    module = sys.modules[function.__module__]
    raised: set[type[BaseException]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            target = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            error = getattr(module, target.id, None) if isinstance(target, ast.Name) else None
            if isinstance(error, type) and issubclass(error, agentauthz.AgentAuthzError):
                raised.add(error)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.startswith("_"):
            helper = vars(module).get(node.func.id)
            if isinstance(helper, FunctionType) and helper.__module__ == module.__name__ and node.func.id not in seen:
                raised |= _raised(helper, seen | {node.func.id})
    return raised


def _documentation(qualified: str, function: Callable[..., Any]) -> str:
    own = inspect.getdoc(function) or ""
    owner, _, method = qualified.partition(".")
    if method.startswith("__"):  # how it is made is told by the class
        return f"{own}\n{inspect.getdoc(getattr(agentauthz, owner)) or ''}"
    return own


def _told(documentation: str, error: type[BaseException]) -> bool:
    _, _, raises = documentation.partition("Raises:")
    return any(base.__name__ in raises for base in error.__mro__ if issubclass(base, agentauthz.AgentAuthzError))


def test_there_are_at_most_thirty_names() -> None:
    """The public names are at most thirty, sorted, without a double, and each is there."""
    assert 1 <= len(agentauthz.__all__) <= 30
    assert len(set(agentauthz.__all__)) == len(agentauthz.__all__)
    assert all(hasattr(agentauthz, name) for name in agentauthz.__all__)


def test_nothing_public_is_left_out() -> None:
    """What `agentauthz` holds beside its public names is private, or one of its modules."""
    others = {name for name in vars(agentauthz) if not name.startswith("_")} - set(NAMES)
    others -= {"annotations"}
    assert all(isinstance(getattr(agentauthz, name), ModuleType) for name in others), others


@pytest.mark.parametrize("name", CODE)
def test_every_name_is_documented(name: str) -> None:
    """Each public class and function has a docstring that begins with a sentence of its own."""
    documentation = inspect.getdoc(getattr(agentauthz, name))
    assert documentation
    assert documentation[0].isupper()


@pytest.mark.parametrize(("qualified", "function"), FUNCTIONS, ids=[qualified for qualified, _ in FUNCTIONS])
def test_every_method_is_documented(qualified: str, function: Callable[..., Any]) -> None:
    """Each public function and method has a docstring, and it names every error of ours that it raises."""
    documentation = _documentation(qualified, function)
    assert documentation.strip()
    untold = {error.__name__ for error in _raised(function) if not _told(documentation, error)}
    assert not untold, f"{qualified} raises {untold}, and its docstring doesn't say so"


def test_an_untold_error_is_noticed() -> None:
    """The search finds an error that is raised by a helper: it would be worth nothing otherwise."""
    raised = _raised(agentauthz.Resource.__attrs_post_init__)
    assert agentauthz.InvalidArgument in raised
    assert not _told("Do something.", agentauthz.InvalidArgument)
    assert _told("Do something.\n\nRaises:\n    AgentAuthzError: always.", agentauthz.InvalidArgument)
