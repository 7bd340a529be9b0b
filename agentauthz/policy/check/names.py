"""Check the names that policies give and use, and measure what expressions grow to when lets are expanded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, final

from attrs import define, field, frozen

from agentauthz.policy.builtins import FUNCTIONS, KEYWORDS, RESERVED
from agentauthz.policy.check.report import Reporter, named_span, word_span
from agentauthz.policy.check.suggest import FOREIGN, nearest
from agentauthz.policy.source import Span
from agentauthz.policy.syntax import ROOTS, Call, Expr, Let, Literal_, Path, Quantifier, children
from agentauthz.principals import KINDS

ENOUGH: Final = 10**9  # sizes are counted up to here: lets can double with every line
_MEANT: Final = 200  # errors, after which nobody looks for what was meant
_NO_NAMES: Final[frozenset[str]] = frozenset()


@final
@frozen
class LetSize:
    """Be what a let grows to: nodes (its parameters apart), depth, and how often and deep each parameter stands."""

    nodes: int
    depth: int
    params: tuple[tuple[int, int], ...] = ()


@final
@define
class Size:
    """Count the nodes and the depth of what is written, as if its lets were expanded."""

    nodes: int = 0
    depth: int = 0
    params: dict[str, tuple[int, int]] = field(factory=dict)
    uses: set[str] = field(factory=set)  # lets

    def add(self, nodes: int, depth: int) -> None:
        """Count nodes, of which the deepest stands at `depth`."""
        self.nodes = min(ENOUGH, self.nodes + nodes)
        if depth > self.depth:
            self.depth = depth


@final
class Names:
    """Know the lets, and check the names in expressions."""

    def __init__(self, lets: Mapping[str, Let], report: Reporter) -> None:
        self.lets = lets
        self.report = report
        self.sizes: dict[str, LetSize] = {}
        self.used: set[str] = set()
        self.broken: set[str] = set()  # lets that can't be expanded
        self._ended: set[str] = set()  # variables of the expression that is measured, beyond their quantifiers

    def given(self, name: str, span: Span, what: str, *, hides: bool = False) -> None:
        """Check a name that the policy gives; `hides` says that it already stands for something there."""
        if name in RESERVED:
            why = "is reserved for a later version of the language"
        elif name in KEYWORDS:
            why = "is a word of the language"
        elif name in ROOTS:
            why = "is what a request already brings along"
        elif name in FUNCTIONS:
            why = "is a function of the language"
        else:
            if hides:
                message = f"the {what} `{name}` hides another name that is known here"
                self.report.error("hidden-name", message, span, "choose another name")
            return
        self.report.error(
            "reserved-name", f"`{name}` can't be the name of a {what}: it {why}", span, "choose another name"
        )

    def measure(self, expr: Expr, params: frozenset[str] = _NO_NAMES, *, scope: frozenset[str] = _NO_NAMES) -> Size:
        """Check every name in `expr`, and return what it grows to."""
        size = Size()
        self._ended = set()
        self._walk(expr, scope | params, 1, 1, size, params)
        return size

    def _walk(
        self, expr: Expr, scope: frozenset[str], depth: int, times: int, size: Size, params: frozenset[str]
    ) -> None:
        if isinstance(expr, Path):
            self._path(expr, scope, depth, times, size, params)
            return
        if isinstance(expr, Call):
            self._call(expr, scope, depth, times, size, params)
            return
        size.add(times, depth)
        if isinstance(expr, Literal_):
            return
        if isinstance(expr, Quantifier):
            hides = expr.variable in scope or expr.variable in self.lets
            self.given(expr.variable, expr.variable_span, "variable", hides=hides)
            self._walk(expr.over, scope, depth + 1, times, size, params)
            self._walk(expr.body, scope | {expr.variable}, depth + 1, times, size, params - {expr.variable})
            self._ended.add(expr.variable)
            return
        for child in children(expr):
            self._walk(child, scope, depth + 1, times, size, params)

    def _path(
        self, expr: Path, scope: frozenset[str], depth: int, times: int, size: Size, params: frozenset[str]
    ) -> None:
        root = expr.root
        if root in params:
            count, deepest = size.params.get(root, (0, 0))
            size.params[root] = (min(ENOUGH, count + times), max(deepest, depth))
            size.depth = max(size.depth, depth)
            return
        size.add(times, depth)
        if root in ROOTS or root in scope:
            return
        let = self.lets.get(root)
        if let is None:
            self._unknown(expr, scope)
        elif let.params is not None:
            self._arity(let, 0, word_span(expr.span))
        else:
            self._use(let, (), scope, depth, times, size, params)

    def _unknown(self, expr: Path, scope: frozenset[str]) -> None:
        name, span = expr.root, word_span(expr.span)
        if name in FUNCTIONS:
            hint = (
                f'write `{name}("…")` for a principal, or `"{name}"` for text'
                if name in KINDS
                else f"write `{name}(…)`"
            )
            self.report.error("unknown-name", f"`{name}` is a function", span, hint)
            return
        # among very many errors nobody looks for what was meant
        if name in self._ended:
            hint = "its quantifier ends before this: put all that it is about in parentheses, `: (… and …)`"
            self.report.error("unknown-name", f"the variable `{name}` isn't known here", span, hint)
            return
        known = ROOTS | scope | self.lets.keys() if self.report.errors <= _MEANT else _NO_NAMES
        self._meant(name, known)
        found = FOREIGN.get(name) or self.report.suggestion(
            name, known, else_="if it is meant as text, put it in double quotes"
        )
        self.report.error("unknown-name", f"nothing here is called `{name}`", span, found)

    def _meant(self, name: str, known: Iterable[str]) -> None:
        """Count a misspelled let as used: that nobody uses it is the same mistake."""
        found = nearest(name, known) if self.lets and self.report.errors < _MEANT else None
        if found is not None:
            self.used.add(found)

    def _call(
        self, expr: Call, scope: frozenset[str], depth: int, times: int, size: Size, params: frozenset[str]
    ) -> None:
        let = self.lets.get(expr.name)
        if let is not None and expr.name not in FUNCTIONS:
            fits = let.params is not None and len(let.params) == len(expr.args) and not expr.named
            if fits:
                self._use(let, expr.args, scope, depth, times, size, params)
                return
            self._wrong_call(let, expr)
        else:
            self._function(expr)
        size.add(times, depth)
        for child in children(expr):
            self._walk(child, scope, depth + 1, times, size, params)

    def _use(
        self,
        let: Let,
        args: tuple[Expr, ...],
        scope: frozenset[str],
        depth: int,
        times: int,
        size: Size,
        params: frozenset[str],
    ) -> None:
        """Count a let's expression in the place of its name; every let on the way is a level of nesting."""
        size.uses.add(let.name)
        self.used.add(let.name)
        grown = self.sizes.get(let.name, LetSize(1, 1, ((0, 1),) * len(args)))
        size.add(times * grown.nodes, depth + grown.depth)
        for arg, (count, deepest) in zip(args, grown.params, strict=True):
            self._walk(arg, scope, depth + deepest, min(ENOUGH, times * count), size, params)

    def _wrong_call(self, let: Let, expr: Call) -> None:
        self.used.add(let.name)
        if let.params is None:
            hint = f"write `{let.name}` without parentheses"
            self.report.error(
                "wrong-arguments", f"`{let.name}` takes no arguments", word_span(expr.span), hint, _defined(let)
            )
        elif expr.named:
            name, value = expr.named[0]
            message = f"the let `{let.name}` takes its arguments by place, not by name"
            self.report.error("wrong-arguments", message, named_span(expr, name, value), None, _defined(let))
        else:
            self._arity(let, len(expr.args), word_span(expr.span))

    def _arity(self, let: Let, given: int, span: Span) -> None:
        self.used.add(let.name)
        wanted = let.params or ()
        hint = f"write `{let.name}({', '.join(wanted)})`"
        message = f"`{let.name}` takes {_count(len(wanted))}, and got {given or 'none'}"
        self.report.error("wrong-arguments", message, span, hint, _defined(let))

    def _function(self, expr: Call) -> None:
        function = FUNCTIONS.get(expr.name)
        if function is None:
            callable_ = (name for name, let in self.lets.items() if let.params is not None)
            known = [*FUNCTIONS, *callable_] if self.report.errors <= _MEANT else []
            self._meant(expr.name, known)
            hint = self.report.suggestion(expr.name, known, else_="a policy can't call the application")
            self.report.error("unknown-function", f"there is no function `{expr.name}`", word_span(expr.span), hint)
            return
        if len(expr.args) != len(function.params):
            message = f"`{expr.name}` takes {_count(len(function.params))}, and got {len(expr.args) or 'none'}"
            self.report.error("wrong-arguments", message, word_span(expr.span), f"it says {function.doc}")
        seen: set[str] = set()
        for name, value in expr.named:
            if name not in function.named or name in seen:
                message = (
                    f"`{name}` is given twice"
                    if name in seen
                    else f"`{expr.name}` has no argument that is called `{name}`"
                )
                closest = nearest(name, function.named)
                hint = f"did you mean `{closest}`?" if closest and name not in seen else None
                self.report.error("wrong-arguments", message, named_span(expr, name, value), hint)
            seen.add(name)


def _defined(let: Let) -> tuple[tuple[str, Span], ...]:
    return (("defined here", let.name_span),)


def _count(number: int) -> str:
    return "no arguments" if number == 0 else "1 argument" if number == 1 else f"{number} arguments"


def references(expr: Expr, lets: Mapping[str, Let]) -> dict[str, Span]:
    """Return the lets that `expr` names, each with the place of its first use."""
    found: dict[str, Span] = {}
    todo = [expr]
    while todo:
        node = todo.pop()
        if isinstance(node, Path) and node.root in lets:
            found.setdefault(node.root, word_span(node.span))
        elif isinstance(node, Call) and node.name in lets:
            found.setdefault(node.name, word_span(node.span))
        todo.extend(reversed(children(node)))
    return found
