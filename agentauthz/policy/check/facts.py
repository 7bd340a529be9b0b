"""Find what a condition makes certain for its neighbours: what exists, which kind it is, which list isn't empty.

In `A and B`, B only counts where A is true; in `A or B`, only where A is false. Answers combine in any
order, so a guard works on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias, final

from attrs import evolve, frozen

from agentauthz.policy.syntax import And, Call, Compare, Exists, Expr, Is, Literal_, Not, Or, Path
from agentauthz.principals import KINDS

Key: TypeAlias = tuple[str, ...]  # a path: its root and its steps

_EVERY_KIND: Final = frozenset(KINDS)
_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_OPPOSITE: Final = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


@final
@frozen
class Facts:
    """Be what is certain: paths that exist, the kinds or types that a path may be of, lists with elements."""

    exists: frozenset[Key] = frozenset()
    tags: Mapping[Key, frozenset[str]] = {}
    filled: frozenset[Key] = frozenset()

    def both(self, other: Facts) -> Facts:
        """Return what is certain where all of it holds."""
        if other is NONE or other is self:
            return self
        if self is NONE:
            return other
        tags = {**self.tags, **other.tags}
        for key in self.tags.keys() & other.tags.keys():
            tags[key] = self.tags[key] & other.tags[key]
        return Facts(self.exists | other.exists, tags, self.filled | other.filled)

    def either(self, other: Facts) -> Facts:
        """Return what is certain where one or the other holds."""
        if self is NONE or other is NONE:
            return NONE
        tags = {key: self.tags[key] | other.tags[key] for key in self.tags.keys() & other.tags.keys()}
        return Facts(self.exists & other.exists, tags, self.filled & other.filled)


NONE: Final = Facts()


@final
class Certainties:
    """Find the facts of the expressions of one rule, each once."""

    def __init__(self, resource_types: Iterable[str]) -> None:
        self._resource_types = frozenset(resource_types)
        self._known: dict[tuple[int, bool], Facts] = {}

    def where(self, expr: Expr, answer: bool) -> Facts:
        """Return what is certain where `expr` is `answer`."""
        key = (id(expr), answer)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._find(expr, answer)
        return found

    def _find(self, expr: Expr, answer: bool) -> Facts:
        match expr:
            case Not(operand):
                return self.where(operand, not answer)
            case And(operands):
                return self._together(operands, answer, all_hold=answer)
            case Or(operands):
                return self._together(operands, answer, all_hold=not answer)
            case Exists(path) if answer:
                return Facts(frozenset(_prefixes(path)))
            case Is(Path() as path, type_name):
                return self._tagged(path, type_name, answer)
            case Compare():
                return self._compared(expr, answer)
            case _:
                return NONE

    def _together(self, operands: tuple[Expr, ...], answer: bool, *, all_hold: bool) -> Facts:
        found = self.where(operands[0], answer)
        for operand in operands[1:]:
            other = self.where(operand, answer)
            found = found.both(other) if all_hold else found.either(other)
        return found

    def _tagged(self, path: Path, tag: str, answer: bool) -> Facts:
        # `subject is user` reads the principal itself, `subject.kind == "user"` one step more
        if answer:
            return Facts(tags={(path.root, *path.steps): frozenset({tag})})
        everything = self._resource_types if path.root == "resource" else _EVERY_KIND
        return Facts(tags={(path.root, *path.steps): everything - {tag}})

    def _compared(self, expr: Compare, answer: bool) -> Facts:
        if expr.operator in ("in", "not in"):
            filled = isinstance(expr.right, Path) and (expr.operator == "in") is answer
            return Facts(filled=frozenset({_key(expr.right)})) if filled and isinstance(expr.right, Path) else NONE
        left, operator, right = expr.left, str(expr.operator), expr.right
        if isinstance(left, Literal_):
            left, operator, right = right, _MIRRORED[operator], left
        if not isinstance(right, Literal_):
            return NONE
        operator = operator if answer else _OPPOSITE[operator]
        if isinstance(left, Path) and left.steps and left.steps[-1] in ("kind", "type") and operator in ("==", "!="):
            return self._tagged(evolve(left, steps=left.steps[:-1]), str(right.value), operator == "==")
        if isinstance(left, Call) and left.name == "len" and left.args and isinstance(left.args[0], Path):
            return Facts(filled=frozenset({_key(left.args[0])})) if _excludes_zero(operator, right.value) else NONE
        return NONE


def _excludes_zero(operator: str, bound: object) -> bool:
    """Say whether no length of 0 fits `length operator bound`."""
    if type(bound) is not int:
        return False
    return {"<": bound <= 0, "<=": bound < 0, ">": bound >= 0, ">=": bound > 0, "==": bound != 0, "!=": bound == 0}[
        operator
    ]


def _key(path: Path) -> Key:
    return (path.root, *path.steps)


def _prefixes(path: Path) -> Iterable[Key]:
    key = _key(path)
    return (key[:length] for length in range(1, len(key) + 1))
