"""Compile the look-up of rules by what the inputs hold: one function for all slots of an index."""

from __future__ import annotations

import ast
from collections.abc import Callable, Hashable, Mapping
from typing import Final, TypeAlias, cast, final

from agentauthz.policy.compile.demands import Slot
from agentauthz.policy.compile.operands import PRINCIPAL_ROOTS, Operand, Paths, count_uses
from agentauthz.policy.compile.python import Python, code_of
from agentauthz.policy.compile.units import Codes, Node
from agentauthz.policy.compile.values import LISTS, distinct, type_name
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.syntax import Path
from agentauthz.principals import Principal
from agentauthz.values import INVALID

Table: TypeAlias = dict[Hashable, Node]  # by key; None: what is asked where the slot has none

_SHORT: Final = 8  # elements of a list that are looked up without asking first whether they differ
_FOUND: Final = "found"


@final
class _Lookups:
    """Be a node whose question is a compiled function."""

    __slots__ = ("ask",)

    def __init__(self, ask: Callable[[Inputs], Codes]) -> None:
        self.ask = ask


def lookups(
    tables: Mapping[Slot, Table],
    paths: Mapping[Slot, Path],
    rest: Node,
    action: str | None,
    otherwise: Callable[[Inputs], Codes],
) -> Node:
    """Return what asks `rest`, and what each slot's value leads to; `otherwise` answers where that can't be read.

    Raises:
        RecursionError: this is too deep a call for Python's compiler.
    """
    python = Python()
    code = _Lookup(Paths(python, action, count_uses(paths.values())))
    body = [python.assign(_FOUND, code.asked(python.use(rest)))]
    for slot, table in tables.items():
        body += code.slot(slot, paths[slot], table)
    body.append(python.give(python.name(_FOUND)))
    failed = python.give(python.call(python.use(otherwise), python.name("inputs")))
    function = python.function("index", ["inputs"], [python.attempt([*code.paths.prologue, *body], [failed])])
    exec(code_of([function], "<index>"), python.globals)  # noqa: S102  (a tree that we built: no text is run)
    return _Lookups(cast("Callable[[Inputs], Codes]", python.globals["index"]))


@final
class _Lookup:
    """Make the statements that look one slot up."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.python = paths.python

    def asked(self, node: ast.expr) -> ast.expr:
        """Return `node.ask(inputs)`."""
        return self.python.call(self.python.attribute(node, "ask"), self.python.name("inputs"))

    def slot(self, slot: Slot, path: Path, table: Table) -> list[ast.stmt]:
        """Return the statements for one slot."""
        python, paths = self.python, self.paths
        principal = path.root in PRINCIPAL_ROOTS and not path.steps
        if principal and slot.operator in ("is", "=="):
            name = "kind" if slot.operator == "is" else "identity"
            return [self._look_up(python.attribute(paths.root(path.root), name), table)]
        operand = paths.operand(path)
        if slot.operator == "is":
            test, again = paths.bound(python.call(python.use(type_name), paths.value(operand)))
            guard = python.other(test, python.use(INVALID))
            return [python.when(guard, [self._look_up(again(), table)], [self._without_key(table)])]
        if slot.operator == "holds":
            return self._each(operand, table)
        guard, again = paths.guard(operand, slot.types)
        key = python.attribute(again(), "identity") if Principal in slot.types else again()
        return [python.when(guard, [self._look_up(key, table)], [self._without_key(table)])]

    def _look_up(self, key: ast.expr, table: Table) -> ast.stmt:
        python = self.python
        name = python.fresh()
        node = python.bind(name, python.call(python.use(table.get), key))
        asked = python.add(_FOUND, self.asked(python.name(name)))
        return python.when(python.other(node, python.fixed(None)), [asked])

    def _without_key(self, table: Table) -> ast.stmt:
        python = self.python
        return python.add(_FOUND, self.asked(python.item(python.use(table), python.fixed(None))))

    def _each(self, operand: Operand, table: Table) -> list[ast.stmt]:
        """Look up each string of a list; where it holds anything else, what isn't found in it is undetermined."""
        python = self.python
        settled, element = python.fresh(), python.fresh()
        unsettle = python.assign(settled, python.fixed(False))
        guard, again = self.paths.guard(operand, LISTS)
        short = python.compare(python.call(python.use(len), again()), ast.LtE(), python.fixed(_SHORT))
        elements = python.choose(short, again(), python.call(python.use(distinct), again()))
        text = python.same(python.type_of(python.name(element)), python.use(str))
        each = python.each(
            element, elements, [python.when(text, [self._look_up(python.name(element), table)], [unsettle])]
        )
        return [
            python.assign(settled, python.fixed(True)),
            python.when(guard, [each], [unsettle]),
            python.when(python.negated(python.name(settled)), [self._without_key(table)]),
        ]
