"""Build Python's own syntax tree: no policy's text ever becomes source text, and its values stay in globals."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from types import CodeType
from typing import Any, Final, final

from agentauthz.policy.source import Span

_LOAD: Final = ast.Load()
_STORE: Final = ast.Store()
_IS: Final = ast.Is()
_IS_NOT: Final = ast.IsNot()


@final
class Python:
    """Make nodes that carry the place of the policy that they come from, and the globals that they need."""

    def __init__(self) -> None:
        # SECURITY: generated code reaches what is put here, and no built-in function
        self.globals: dict[str, Any] = {"__builtins__": {}}
        self._names: dict[int, str] = {}
        self._locals = 0
        self._place: Any = {"lineno": 1, "col_offset": 0, "end_lineno": 1, "end_col_offset": 0}

    def at(self, span: Span) -> None:
        """Give the nodes from here on the place of `span`."""
        line, column = span.source.position(span.start)
        self._place = {"lineno": line, "col_offset": column - 1, "end_lineno": line, "end_col_offset": column - 1}

    # ---- names

    def use(self, thing: object) -> ast.expr:
        """Return the name of a global that holds `thing`."""
        name = self._names.get(id(thing))
        if name is None:
            name = self._names[id(thing)] = f"g{len(self._names)}"
            self.globals[name] = thing  # keeps it alive, so that its id stays its own
        return self.name(name)

    def fresh(self) -> str:
        """Return a local name that nothing else has."""
        self._locals += 1
        return f"t{self._locals}"

    def name(self, name: str) -> ast.expr:
        """Return the value of a local or global name."""
        return ast.Name(name, _LOAD, **self._place)

    def fixed(self, value: bool | int | None) -> ast.expr:
        """Return an answer, or the number of a rule: what no policy can choose."""
        return ast.Constant(value, **self._place)

    # ---- expressions

    def bind(self, name: str, value: ast.expr) -> ast.expr:
        """Return `(name := value)`."""
        return ast.NamedExpr(ast.Name(name, _STORE, **self._place), value, **self._place)

    def attribute(self, of: ast.expr, name: str) -> ast.expr:
        """Return `of.name`."""
        return ast.Attribute(of, name, _LOAD, **self._place)

    def item(self, of: ast.expr, key: ast.expr) -> ast.expr:
        """Return `of[key]`."""
        return ast.Subscript(of, key, _LOAD, **self._place)

    def call(self, function: ast.expr, *args: ast.expr) -> ast.expr:
        """Return `function(*args)`."""
        return ast.Call(function, list(args), [], **self._place)

    def compare(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> ast.expr:
        """Return `left operator right`."""
        return ast.Compare(left, [operator], [right], **self._place)

    def same(self, left: ast.expr, right: ast.expr) -> ast.expr:
        """Return `left is right`."""
        return self.compare(left, _IS, right)

    def other(self, left: ast.expr, right: ast.expr) -> ast.expr:
        """Return `left is not right`."""
        return self.compare(left, _IS_NOT, right)

    def both(self, parts: Sequence[ast.expr]) -> ast.expr:
        """Return `a and b and …`."""
        return parts[0] if len(parts) == 1 else ast.BoolOp(ast.And(), list(parts), **self._place)

    def either(self, parts: Sequence[ast.expr]) -> ast.expr:
        """Return `a or b or …`."""
        return parts[0] if len(parts) == 1 else ast.BoolOp(ast.Or(), list(parts), **self._place)

    def negated(self, test: ast.expr) -> ast.expr:
        """Return `not test`."""
        return ast.UnaryOp(ast.Not(), test, **self._place)

    def choose(self, test: ast.expr, then: ast.expr, otherwise: ast.expr) -> ast.expr:
        """Return `then if test else otherwise`."""
        return ast.IfExp(test, then, otherwise, **self._place)

    def several(self, items: Sequence[ast.expr]) -> ast.expr:
        """Return `(a, b)`."""
        return ast.Tuple(list(items), _LOAD, **self._place)

    def mapping(self, items: Sequence[tuple[ast.expr, ast.expr]]) -> ast.expr:
        """Return `{a: b}`."""
        return ast.Dict([key for key, _ in items], [value for _, value in items], **self._place)

    def type_of(self, value: ast.expr) -> ast.expr:
        """Return `type(value)`."""
        return self.call(self.use(type), value)

    def is_one_of(self, value: ast.expr, types: frozenset[type]) -> ast.expr:
        """Return whether the type of `value` is one of `types`."""
        kind = self.type_of(value)
        if len(types) == 1:
            return self.same(kind, self.use(next(iter(types))))
        return self.compare(kind, ast.In(), self.use(types))

    # ---- statements

    def assign(self, name: str, value: ast.expr) -> ast.stmt:
        """Return `name = value`."""
        return ast.Assign([ast.Name(name, _STORE, **self._place)], value, **self._place)

    def add(self, name: str, value: ast.expr) -> ast.stmt:
        """Return `name += value`."""
        return ast.AugAssign(ast.Name(name, _STORE, **self._place), ast.Add(), value, **self._place)

    def when(self, test: ast.expr, then: Sequence[ast.stmt], otherwise: Sequence[ast.stmt] = ()) -> ast.stmt:
        """Return `if test: then`, and `else: otherwise` where there is any."""
        return ast.If(test, list(then), list(otherwise), **self._place)

    def each(self, name: str, over: ast.expr, body: Sequence[ast.stmt]) -> ast.stmt:
        """Return `for name in over: body`."""
        return ast.For(ast.Name(name, _STORE, **self._place), over, list(body), [], **self._place)

    def attempt(self, body: Sequence[ast.stmt], failed: Sequence[ast.stmt]) -> ast.stmt:
        """Return `try: body`, and `failed` where anything was raised."""
        handler = ast.ExceptHandler(self.use(Exception), None, list(failed), **self._place)
        return ast.Try(list(body), [handler], [], [], **self._place)

    def give(self, value: ast.expr) -> ast.stmt:
        """Return `return value`."""
        return ast.Return(value, **self._place)

    def function(self, name: str, parameters: Sequence[str], body: Sequence[ast.stmt]) -> ast.stmt:
        """Return `def name(parameters): body`."""
        args = [ast.arg(parameter, **self._place) for parameter in parameters]
        arguments = ast.arguments(posonlyargs=[], args=args, kwonlyargs=[], kw_defaults=[], defaults=[])
        return ast.FunctionDef(name, arguments, list(body), [], **self._place)


def code_of(statements: Sequence[ast.stmt], filename: str) -> CodeType:
    """Return the code of a module that holds `statements`."""
    code: CodeType = compile(ast.Module(list(statements), []), filename, "exec", dont_inherit=True, optimize=2)
    return code
