"""Compile the reading of paths, and keep what several rules read in local names."""

from __future__ import annotations

import ast
import enum
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, cast, final

from attrs import frozen

from agentauthz.policy.check.constants import NO_CONSTANT
from agentauthz.policy.compile.python import Python
from agentauthz.policy.compile.values import conforming, step, strings
from agentauthz.policy.inputs import declared_value
from agentauthz.policy.syntax import Expr, Path, children
from agentauthz.policy.types import CLASSES, STRING, Anything, Declared, Enumeration, Lacking, Scalar, Sequence, Type
from agentauthz.principals import KINDS
from agentauthz.values import INVALID, Entity, Record, Sentinel, Value

PRINCIPAL_ROOTS: Final = frozenset({"subject", "actor"})
_RECORD_ROOTS: Final = frozenset({"args", "context", "action", "chain"})  # they are records whatever the request holds
_CHEAP_ROOTS: Final = PRINCIPAL_ROOTS | {"args"}  # reading a part of these asks no code of the host's
_NO_VARIABLES: Final[Mapping[str, Value]] = MappingProxyType({})


class _Several(enum.Enum):
    SEVERAL = "it depends on the tag"


@final
@frozen(eq=False)
class Operand:
    """Be code that gives a value, and what is known of it.

    A value that is none of `types` (or, being a string, none of `words`) counts as INVALID; None: any will do.
    """

    code: ast.expr
    types: frozenset[type] | None = None
    words: frozenset[str] | None = None
    known: Value = NO_CONSTANT


@final
class Paths:
    """Compile paths for rules that are about `action` (None: about several); `uses` says what they read how often."""

    def __init__(self, python: Python, action: str | None, uses: Counter[tuple[str, ...]]) -> None:
        self.python = python
        self.prologue: list[ast.stmt] = []
        self.variables: dict[str, str] = {}  # of quantifiers, by their names in the policy
        self.looping = False
        self._action = action
        self._uses = uses
        self._held: dict[Hashable, str] = {}

    @property
    def inputs(self) -> ast.expr:
        """Return the name of the function's argument."""
        return self.python.name("inputs")

    def operand(self, path: Path) -> Operand:
        """Return the value at a path, as `Inputs.read` would."""
        python = self.python
        if path.root == "chain" and not path.steps:
            return Operand(python.attribute(self.inputs, "hops"))
        if path.root in self.variables:
            return Operand(self._of_variable(path))
        declared = None if path.declared is None else self._declared_type(path, path.declared)
        match declared:
            case None | Anything():
                return Operand(self._shared(path, None, lambda: self._raw(path)))
            case Scalar(name):
                return Operand(self._shared(path, None, lambda: self._raw(path)), frozenset(CLASSES[name]))
            case Enumeration(words):
                return Operand(self._shared(path, None, lambda: self._raw(path)), frozenset({str}), words)
            case _:
                return Operand(self._shared(path, path.declared, lambda: self._checked(path, declared)))

    def root(self, root: str) -> ast.expr:
        """Return the value of a root."""

        def read() -> ast.expr:
            return self.python.attribute(self.inputs, root)

        return self._held_or_read((root,), read) if root in _CHEAP_ROOTS or self._uses[(root,)] > 1 else read()

    def value(self, operand: Operand) -> ast.expr:
        """Return the operand's value, INVALID where it is none of its types."""
        if operand.types is None:
            return operand.code
        python = self.python
        test, again = self.bound(operand.code)
        right = python.is_one_of(test, operand.types | {Sentinel})
        if operand.words is None:
            return python.choose(right, again(), python.use(INVALID))
        known = python.either([
            python.same(python.type_of(again()), python.use(Sentinel)),
            python.compare(again(), ast.In(), python.use(operand.words)),
        ])  # fmt: skip
        return python.choose(python.both([right, known]), again(), python.use(INVALID))

    def guard(self, operand: Operand, types: frozenset[type]) -> tuple[ast.expr, Callable[[], ast.expr]]:
        """Return a test whether the operand's value is one of `types`, and what gives the value after it."""
        allowed = types if operand.types is None else types & operand.types
        test, again = self.bound(operand.code)
        guard = self._typed(test, allowed) if allowed else self.python.fixed(False)
        if operand.words is not None and allowed:
            guard = self.python.both([guard, self.python.compare(again(), ast.In(), self.python.use(operand.words))])
        return guard, again

    def bound(self, code: ast.expr) -> tuple[ast.expr, Callable[[], ast.expr]]:
        """Return code that keeps its value, and what gives the value after it."""
        if isinstance(code, ast.Name):
            name = code.id
            return code, lambda: self.python.name(name)
        name = self.python.fresh()
        return self.python.bind(name, code), lambda: self.python.name(name)

    # ---- what is read once

    def _typed(self, value: ast.expr, types: frozenset[type]) -> ast.expr:
        """Return whether the type of `value` is one of `types`; asked once of what is held, since every rule asks."""

        def ask() -> ast.expr:
            return self.python.is_one_of(value, types)

        held = isinstance(value, ast.Name) and value.id in self._held.values()
        return self._held_or_read((cast(ast.Name, value).id, types), ask) if held else ask()

    def _shared(self, path: Path, form: Declared | None, read: Callable[[], ast.expr]) -> ast.expr:
        cheap = path.root in _CHEAP_ROOTS and len(path.steps) == 1
        if not cheap or self._uses[(path.root, *path.steps)] < 2:
            return read()
        return self._held_or_read((path.root, path.steps, None if form is None else id(form)), read)

    def _held_or_read(self, key: Hashable, read: Callable[[], ast.expr]) -> ast.expr:
        if self.looping:  # a quantifier's function has no share in the names of the one around it
            return read()
        if key not in self._held:
            value = read()  # may itself need something that is held
            self._held[key] = self.python.fresh()
            self.prologue.append(self.python.assign(self._held[key], value))
        return self.python.name(self._held[key])

    # ---- steps

    def _raw(self, path: Path) -> ast.expr:
        code = self.root(path.root)
        if path.steps:
            code = self._first(path.root, code, path.steps[0])
        for name in path.steps[1:]:
            code = self.python.call(self.python.use(step), code, self.python.use(name))
        return code

    def _first(self, root: str, code: ast.expr, name: str) -> ast.expr:
        python = self.python
        if root in PRINCIPAL_ROOTS:
            return python.item(self._facts(root), python.use(name))
        if root in _RECORD_ROOTS:
            return python.item(code, python.use(name))
        if root in ("resource", "session"):  # where it isn't there, nothing of it is
            test, again = self.bound(code)
            there = python.is_one_of(test, frozenset({Entity if root == "resource" else Record}))
            return python.choose(there, python.item(again(), python.use(name)), again())
        return python.call(python.use(step), code, python.use(name))

    def _facts(self, root: str) -> ast.expr:
        return self._held_or_read((root, "facts"), lambda: self.python.attribute(self.root(root), "facts"))

    def _of_variable(self, path: Path) -> ast.expr:
        python = self.python
        code = python.name(self.variables[path.root])
        if path.declared is not None:
            scope = python.mapping([(python.use(path.root), code)])
            return python.call(python.attribute(self.inputs, "read"), python.use(path), scope)
        for name in path.steps:
            code = python.call(python.use(step), code, python.use(name))
        return code

    # ---- declared types

    def _declared_type(self, path: Path, declared: Declared) -> Type | _Several | None:
        """Return the type that the path's value must have, if it is the same whatever the path belongs to."""
        found = {declared.get(tag) if tag in declared else declared.get(None) for tag in self._tags(path, declared)}
        return found.pop() if len(found) == 1 else _Several.SEVERAL

    def _tags(self, path: Path, declared: Declared) -> Iterable[str | None]:
        if len(path.steps) < 2 and path.root not in _CHEAP_ROOTS | {"resource"}:
            return (None,)
        if len(path.steps) == 1 and path.root in PRINCIPAL_ROOTS:
            return KINDS
        if len(path.steps) == 1 and path.root == "args" and self._action is not None:
            return (self._action,)
        return {*declared, None}

    def _checked(self, path: Path, declared: Type | _Several) -> ast.expr:
        python = self.python
        if isinstance(declared, _Several):
            return self._by_tag(path)
        raw = self._raw(path)
        if isinstance(declared, Lacking):
            test, again = self.bound(raw)
            return python.choose(python.is_one_of(test, frozenset({Sentinel})), again(), python.use(INVALID))
        if declared == Sequence(STRING):
            return python.call(python.use(strings), raw)
        return python.call(python.use(conforming), raw, python.use(declared))

    def _by_tag(self, path: Path) -> ast.expr:
        python = self.python

        def check(value: ast.expr, tag: ast.expr) -> ast.expr:
            return python.call(python.use(declared_value), value, python.use(path), tag)

        if len(path.steps) != 1 or path.root not in _CHEAP_ROOTS | {"resource"}:
            return python.call(python.attribute(self.inputs, "read"), python.use(path), python.use(_NO_VARIABLES))
        if path.root in PRINCIPAL_ROOTS:
            return check(self._raw(path), python.attribute(self.root(path.root), "kind"))
        if path.root == "args":
            return check(self._raw(path), python.attribute(self.inputs, "name"))
        test, again = self.bound(self.root("resource"))
        there = python.is_one_of(test, frozenset({Entity}))
        value, tag = (python.item(again(), python.use(name)) for name in (path.steps[0], "type"))
        return python.choose(there, check(value, tag), again())


def count_uses(conditions: Iterable[Expr | None]) -> Counter[tuple[str, ...]]:
    """Return how often each root, and each path, is read."""
    uses: Counter[tuple[str, ...]] = Counter()
    waiting = [condition for condition in conditions if condition is not None]
    while waiting:
        expr = waiting.pop()
        if isinstance(expr, Path):
            uses[(expr.root,)] += 1
            if expr.steps:
                uses[(expr.root, *expr.steps)] += 1
        waiting += children(expr)
    return uses
