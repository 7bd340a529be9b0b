"""Run the tables that Lark makes of the grammar.

Lark's own driver costs several times as much: it makes a rich token of each word and calls a function for
each step through the levels of precedence. The tables, and so the language, are Lark's alone.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Set
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast, final

from attrs import frozen

from agentauthz.policy.parse.build import Builder, Children, Token
from agentauthz.policy.syntax import Statement

if TYPE_CHECKING:
    from lark import Lark
    from lark.grammar import Rule

END: Final = "$END"


@final
@frozen
class Reduction:
    """Be one rule of the grammar: how many symbols it takes, what they become, what is made of them.

    `build` None keeps the values, to be spliced into the parent's.
    """

    size: int
    becomes: str
    build: Callable[[Builder, Children], Any] | None
    splices: bool  # some of its symbols are lists to be spliced in


# A state is what to do by symbol: go on to a state, reduce, or (a name) let the last symbol become another while
# its value stays what it is, as where a level of precedence holds nothing but the next one.
State: TypeAlias = "dict[str, State | Reduction | str]"


@final
class Stuck(Exception):
    """Say where the grammar doesn't go on: the offset, the kind of token there (empty: none), what would fit."""

    def __init__(self, at: int, kind: str, expected: Set[str]) -> None:
        super().__init__(at, kind, expected)
        self.at, self.kind, self.expected = at, kind, expected


@final
@frozen(eq=False, repr=False)
class Tables:
    """Be the grammar, ready to run; the same for all threads, and never changed."""

    first: State
    last: State
    tokens: re.Pattern[str]
    keywords: Mapping[str, str]  # word -> terminal

    def parse(self, builder: Builder, text: str, start: int, end: int) -> Statement:
        """Return the one statement between two offsets of `text`, made by `builder`.

        Raises:
            Stuck: there is no statement, or something else.
        """
        states: list[State] = [self.first]
        values: list[Any] = []
        keywords, match = self.keywords, self.tokens.match
        at = start
        while True:
            state = states[-1]
            found = match(text, at, end)
            if found is None:
                raise _stuck(text, at, end, state)
            kind = found.lastgroup or ""
            if kind == "COMMENT":
                at = found.end()
                continue
            begin, at = found.span(kind)
            word = text[begin:at]
            if kind == "END":
                kind = END
            elif kind == "NAME" and word in keywords and (keywords[word] in state or "NAME" not in state):
                kind = keywords[word]
            step = state.get(kind)
            while type(step) is not dict and step is not None:
                if type(step) is str:
                    state = states[-1] = states[-2][step]  # type: ignore[assignment]  # after a symbol comes a state
                elif type(step) is Reduction:
                    state = _reduce(step, states, values, builder)
                step = state.get(kind)
            if kind == END and state is self.last:
                return cast(Statement, values[0])
            if step is None:
                raise Stuck(begin, kind, _terminals(state))
            states.append(step)
            values.append(Token(kind, word, begin, at))


def _reduce(step: Reduction, states: list[State], values: list[Any], builder: Builder) -> State:
    """Replace the symbols of a rule by the one that they become, and return the state that comes of it."""
    size = step.size
    children = values[-size:]
    del states[-size:], values[-size:]
    if step.splices:
        children = _spliced(children)
    values.append(step.build(builder, children) if step.build else _splice(children))
    state: State = states[-1][step.becomes]  # type: ignore[assignment]  # after a symbol comes a state
    states.append(state)
    return state


@final
class _Splice(list[Any]):
    """Be the values of a rule that has no node of its own: they belong to the parent's children."""


def _splice(children: Children) -> _Splice:
    return children if type(children) is _Splice else _Splice(children)


def _spliced(children: Children) -> Children:
    first = children[0]
    flat: Children = first if type(first) is _Splice else [first]  # a repetition grows in place, not by copies
    for child in children[1:]:
        if type(child) is _Splice:
            flat += child
        else:
            flat.append(child)
    return flat


def _terminals(row: Mapping[str, object]) -> Set[str]:
    return {name for name in row if name.isupper()}


def _stuck(text: str, at: int, end: int, row: Mapping[str, object]) -> Stuck:
    while at < end and text[at] in " \t\r\n":
        at += 1
    return Stuck(at, "", _terminals(row))


_lock: Final = threading.Lock()
_made: Final[list[Tables]] = []


def load_tables() -> Tables:
    """Return the tables, made when they are first asked for."""
    if not _made:
        with _lock:
            if not _made:
                _made.append(_make())
    return _made[0]


def grammar() -> str:
    """Return the grammar's text."""
    return resources.files("agentauthz.policy").joinpath("grammar.lark").read_text("utf-8")


def _make() -> Tables:
    from lark import Lark

    lark = Lark(grammar(), parser="lalr", lexer="contextual", start="statement", keep_all_tokens=True,
                maybe_placeholders=False)  # fmt: skip
    made = lark.parser.parser._parse_table
    reductions: dict[Rule, Reduction | str] = {}
    states: dict[int, State] = {number: {} for number in made.states}
    for number, row in made.states.items():
        for name, (_, arg) in row.items():
            states[number][name] = states[arg] if isinstance(arg, int) else _reduction(arg, reductions)
    first, last = made.start_states["statement"], made.end_states["statement"]
    return Tables(states[first], states[last], *_lexer(lark))


def _reduction(rule: Rule, known: dict[Rule, Reduction | str]) -> Reduction | str:
    if rule not in known:
        origin = str(rule.origin.name)
        passes = bool(len(rule.expansion) == 1 and rule.options.expand1 and not rule.alias)
        name = rule.alias or origin
        if passes:
            return known.setdefault(rule, origin)
        build = None if name.startswith("_") else getattr(Builder, name)
        splices = any(symbol.name.startswith("_") and not symbol.is_term for symbol in rule.expansion)
        known[rule] = Reduction(len(rule.expansion), origin, build, splices)
    return known[rule]


def _lexer(lark: Lark) -> tuple[re.Pattern[str], dict[str, str]]:
    keywords, others = {}, []
    for terminal in lark.terminals:
        pattern = terminal.pattern.to_regexp()
        if re.fullmatch(r"[a-z]+\\b", pattern):
            keywords[pattern.removesuffix(r"\b")] = terminal.name
        elif terminal.name != "WHITESPACE":
            others.append((-terminal.priority, -terminal.pattern.max_width, terminal.name, pattern))
    choices = [f"(?P<{name}>{pattern})" for _, _, name, pattern in sorted(others)]
    return re.compile(rf"[ \t\r\n]*+(?:{'|'.join(choices)}|(?P<END>\Z))"), keywords
