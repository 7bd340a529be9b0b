"""Put the lets in order, and expand them without capture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

from attrs import evolve

from agentauthz.policy.builtins import FUNCTIONS
from agentauthz.policy.check.names import LetSize, Names, references
from agentauthz.policy.check.report import Reporter, text_of
from agentauthz.policy.source import Span
from agentauthz.policy.syntax import (
    ROOTS,
    And,
    Arithmetic,
    Call,
    Compare,
    Default,
    Exists,
    Expr,
    Is,
    Let,
    Like,
    ListOf,
    Literal_,
    Negate,
    Not,
    Or,
    Path,
    Quantifier,
)

_SHOWN: Final = 5  # lets of a circle that a message names


def check_lets(names: Names, report: Reporter) -> None:
    """Check each let, those that it uses before it, so that its size is known."""
    uses = {name: references(let.body, names.lets) for name, let in names.lets.items()}
    done: set[str] = set()
    for name in names.lets:
        _visit(name, uses, done, names, report)


def _visit(start: str, uses: Mapping[str, Mapping[str, Span]], done: set[str], names: Names, report: Reporter) -> None:
    trail: dict[str, list[str]] = {} if start in done else {start: list(uses[start])}
    while trail:
        name = next(reversed(trail))
        if not trail[name]:
            trail.pop(name)
            done.add(name)
            _check_let(names.lets[name], uses[name], names)
            continue
        used = trail[name].pop()
        if used in trail:
            _circle(list(trail)[list(trail).index(used) :], uses, names, report)
        elif used not in done:
            trail[used] = list(uses[used])


def _circle(circle: list[str], uses: Mapping[str, Mapping[str, Span]], names: Names, report: Reporter) -> None:
    names.broken.update(circle)
    names.used.update(circle)
    first, last = circle[0], circle[-1]
    shown = [*circle[:_SHOWN], *(["…"] if len(circle) > _SHOWN else []), first]
    through = " → ".join(f"`{name}`" if name != "…" else name for name in shown)
    report.error(
        "recursive-let",
        f"the let `{first}` is defined by itself: {through}",
        names.lets[first].name_span,
        "a let only gives a name to an expression: write it out",
        [("it is used here", uses[last][first])],
    )


def _check_let(let: Let, uses: Mapping[str, Span], names: Names) -> None:
    params = let.params or ()
    for place, param in enumerate(params):
        hides = param in names.lets or param in params[:place]
        names.given(param, _param_span(let, place), "parameter", hides=hides)
    size = names.measure(let.body, frozenset(params))
    if names.broken & uses.keys():
        names.broken.add(let.name)
    names.sizes[let.name] = LetSize(size.nodes, size.depth, tuple(size.params.get(param, (0, 1)) for param in params))


def _param_span(let: Let, place: int) -> Span:
    """Return where the parameter stands: the text between the let's name and its body has nothing else in it."""
    source, at = let.span.source, let.name_span.end
    for param in (let.params or ())[: place + 1]:
        at = source.text.find(param, at, let.body.span.start)
        if at < 0:
            return let.name_span
        at += len(param)
    return evolve(let.name_span, start=at - len((let.params or ())[place]), end=at)


# ---- expansion


@final
class Expander:
    """Expand lets; also joins `and` in `and`, and `or` in `or`."""

    def __init__(self, names: Names, report: Reporter) -> None:
        self._names = names
        self._report = report
        self._bodies: dict[str, Expr] = {}  # of lets without parameters, shared by all their uses
        self._taken = ROOTS | FUNCTIONS.keys() | names.lets.keys()

    def expand(self, expr: Expr) -> Expr:
        """Return `expr` without lets; what can't be expanded is a path that nobody knows."""
        return self._expand(expr, {}, frozenset())

    def _expand(self, expr: Expr, known: Mapping[str, Expr], variables: frozenset[str]) -> Expr:
        return _EXPAND[type(expr)](self, expr, known, variables)

    def _leaf(self, expr: Expr, known: Mapping[str, Expr], variables: frozenset[str]) -> Expr:
        return expr

    def _path(self, expr: Path, known: Mapping[str, Expr], variables: frozenset[str]) -> Expr:
        if expr.root in known:
            return self._attach(known[expr.root], expr)
        if expr.root in ROOTS or expr.root in variables:
            return expr
        let = self._names.lets.get(expr.root)
        if let is None or let.params is not None or let.name in self._names.broken:
            return _unknown(expr)
        body = self._bodies.get(let.name)
        if body is None:
            # the variables of this place mean nothing to the let; its own are renamed where they meet
            body = self._bodies[let.name] = self._expand(let.body, {}, frozenset())
        if variables and not isinstance(body, Path):
            body = self._expand(body, {}, variables)
        return self._attach(body, expr)

    def _attach(self, value: Expr, expr: Path) -> Expr:
        """Return `value` in the place of the name that `expr` begins with."""
        if isinstance(value, Path):
            return Path(value.root, (*value.steps, *expr.steps), span=expr.span)
        if not expr.steps:
            return value
        message = f"`{expr.root}` stands for {text_of(value)}, which has no attributes"
        self._report.error("not-a-path", message, expr.span, "only a path can be followed")
        return _unknown(expr)

    def _only_path(self, path: Path, known: Mapping[str, Expr], variables: frozenset[str], asked: str) -> Path:
        found = self._expand(path, known, variables)
        if isinstance(found, Path):
            return found
        message = f"{asked} asks about a path, and `{path}` stands for {text_of(found)}"
        self._report.error("not-a-path", message, path.span, "name the path itself")
        return _unknown(path)

    def _exists(self, expr: Exists, known: Mapping[str, Expr], variables: frozenset[str]) -> Expr:
        path = self._only_path(expr.path, known, variables, "`exists`")
        return expr if path is expr.path else evolve(expr, path=path)

    def _default(self, expr: Default, known: Mapping[str, Expr], variables: frozenset[str]) -> Expr:
        path = self._only_path(expr.path, known, variables, "`??`")
        fallback = self._expand(expr.fallback, known, variables)
        return expr if path is expr.path and fallback is expr.fallback else evolve(expr, path=path, fallback=fallback)

    def _call(self, expr: Call, known: Mapping[str, Expr], variables: frozenset[str]) -> Expr:
        args = tuple([self._expand(arg, known, variables) for arg in expr.args])
        let = None if expr.name in FUNCTIONS else self._names.lets.get(expr.name)
        if let is None:
            if not expr.named and all(a is b for a, b in zip(args, expr.args, strict=True)):
                return expr
            named = tuple([(name, self._expand(value, known, variables)) for name, value in expr.named])
            return evolve(expr, args=args, named=named)
        if let.params is None or len(let.params) != len(args) or expr.named or let.name in self._names.broken:
            return Path("", span=expr.span)
        return self._expand(let.body, dict(zip(let.params, args, strict=True)), variables)

    def _not(self, expr: Not | Negate, known: Mapping[str, Expr], variables: frozenset[str]) -> Expr:
        operand = self._expand(expr.operand, known, variables)
        return expr if operand is expr.operand else evolve(expr, operand=operand)

    def _junction(self, expr: And | Or, known: Mapping[str, Expr], variables: frozenset[str]) -> Expr:
        operands: list[Expr] = []
        for operand in expr.operands:
            expanded = self._expand(operand, known, variables)
            if type(expanded) is type(expr):
                operands.extend(expanded.operands)
            else:
                operands.append(expanded)
        same = len(operands) == len(expr.operands) and all(a is b for a, b in zip(operands, expr.operands, strict=True))
        return expr if same else evolve(expr, operands=tuple(operands))

    def _quantifier(self, expr: Quantifier, known: Mapping[str, Expr], variables: frozenset[str]) -> Expr:
        over = self._expand(expr.over, known, variables)
        name, number = expr.variable, 2
        while name in variables or (name != expr.variable and name in self._taken):
            name, number = f"{expr.variable}_{number}", number + 1
        inner: Mapping[str, Expr] = known
        if name != expr.variable:
            inner = {**known, expr.variable: Path(name, span=expr.variable_span)}
        elif name in known:
            inner = {key: value for key, value in known.items() if key != name}
        body = self._expand(expr.body, inner, variables | {name})
        if over is expr.over and body is expr.body:
            return expr
        return evolve(expr, variable=name, over=over, body=body)

    def _pair(self, expr: Compare | Arithmetic, known: Mapping[str, Expr], variables: frozenset[str]) -> Expr:
        left, right = self._expand(expr.left, known, variables), self._expand(expr.right, known, variables)
        return expr if left is expr.left and right is expr.right else evolve(expr, left=left, right=right)

    def _list(self, expr: ListOf, known: Mapping[str, Expr], variables: frozenset[str]) -> Expr:
        items = tuple([self._expand(item, known, variables) for item in expr.items])
        same = all(a is b for a, b in zip(items, expr.items, strict=True))
        return expr if same else evolve(expr, items=items)


def _unknown(path: Path) -> Path:
    return Path("", span=path.span)


_EXPAND: Final[Mapping[type, Callable[..., Expr]]] = {
    Literal_: Expander._leaf,
    ListOf: Expander._list,
    Path: Expander._path,
    Exists: Expander._exists,
    Default: Expander._default,
    Call: Expander._call,
    Not: Expander._not,
    Negate: Expander._not,
    Like: Expander._not,
    Is: Expander._not,
    And: Expander._junction,
    Or: Expander._junction,
    Quantifier: Expander._quantifier,
    Compare: Expander._pair,
    Arithmetic: Expander._pair,
}
