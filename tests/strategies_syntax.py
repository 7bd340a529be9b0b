"""Generate syntax trees of every shape that the grammar can make, for round trips through text."""

from __future__ import annotations

import datetime as dt

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from agentauthz.policy import syntax
from agentauthz.policy.builtins import KEYWORDS
from agentauthz.policy.source import Source, Span
from agentauthz.policy.syntax import Clause, Expr, Statement, TypeExpr
from agentauthz.values import MAX_DIGITS, number

NOWHERE = Span(Source("generated", ""), 0, 0)
_BEGIN_A_VALUE = frozenset({"true", "false", "not", "any", "every", "exists"})

# where only a name fits, each keyword is one
names = st.sampled_from(sorted(KEYWORDS)) | st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,5}", fullmatch=True)
roots = names.filter(lambda name: name not in _BEGIN_A_VALUE)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.text('*"\\\n\t{}#u', max_size=6)
dotted = st.lists(names, min_size=1, max_size=3).map(".".join)
action_names = dotted | texts.filter(lambda text: text != "" and "*" not in text)
durations = st.integers(0, 999_999_999 * 86_400_000).map(lambda ms: dt.timedelta(milliseconds=ms)) | st.integers(
    0, 60
).map(lambda minutes: dt.timedelta(minutes=minutes))
_fractions = st.decimals(0, 10**12, allow_nan=False, places=6).map(number)
numbers = st.integers(0, 10**MAX_DIGITS - 1) | st.integers(0, 9) | _fractions
scalars = st.booleans() | numbers | texts | durations
literals = scalars.map(lambda value: syntax.Literal_(value, span=NOWHERE))  # type: ignore[arg-type]
paths = st.builds(
    lambda root, steps: syntax.Path(root, tuple(steps), span=NOWHERE), roots, st.lists(names | texts, max_size=3)
)
leaves: SearchStrategy[Expr] = paths | literals | paths.map(lambda path: syntax.Exists(path, span=NOWHERE))


def _several(inner: SearchStrategy[Expr]) -> SearchStrategy[tuple[Expr, ...]]:
    return st.lists(inner, max_size=3).map(tuple)


def _larger(inner: SearchStrategy[Expr]) -> SearchStrategy[Expr]:
    nowhere = st.just(NOWHERE)
    operands = st.lists(inner, min_size=2, max_size=3).map(tuple)
    named = st.lists(st.tuples(roots, inner), max_size=2).map(tuple)
    comparisons = st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "not in"])
    parts = st.lists(texts, min_size=1, max_size=3).map(tuple)
    return st.one_of(
        st.builds(syntax.ListOf, _several(inner), span=nowhere),
        st.builds(syntax.Default, paths, inner, span=nowhere),
        st.builds(syntax.Call, roots, _several(inner), named, span=nowhere),
        st.builds(syntax.Not, inner, span=nowhere),
        st.builds(syntax.And, operands, span=nowhere),
        st.builds(syntax.Or, operands, span=nowhere),
        st.builds(syntax.Quantifier, st.sampled_from(["any", "every"]), names, inner, inner, span=nowhere,
                  variable_span=nowhere),
        st.builds(syntax.Compare, comparisons, inner, inner, span=nowhere),
        st.builds(syntax.Like, inner, parts, span=nowhere),
        st.builds(syntax.Is, inner, names, span=nowhere),
        st.builds(syntax.Arithmetic, st.sampled_from(["+", "-", "*"]), inner, inner, span=nowhere),
        st.builds(syntax.Negate, inner, span=nowhere),
    )  # fmt: skip


def expressions() -> SearchStrategy[Expr]:
    """Generate expressions."""
    return st.recursive(leaves, _larger, max_leaves=12)


def _types() -> SearchStrategy[TypeExpr]:
    nowhere = st.just(NOWHERE)
    return st.recursive(
        st.builds(syntax.NamedType, names, span=nowhere)
        | st.builds(syntax.EnumType, st.lists(texts, min_size=1, max_size=3).map(tuple), span=nowhere),
        lambda inner: (
            st.builds(syntax.ListType, inner, span=nowhere) | st.builds(syntax.RecordType, _fields(inner), span=nowhere)
        ),
        max_leaves=4,
    )


def _fields(types: SearchStrategy[TypeExpr]) -> SearchStrategy[tuple[syntax.Field, ...]]:
    nowhere = st.just(NOWHERE)
    field = st.builds(syntax.Field, names, st.booleans(), types, span=nowhere, name_span=nowhere)
    return st.lists(field, max_size=3).map(tuple)


def clauses() -> SearchStrategy[Clause]:
    """Generate clauses of rules, whatever effect they are for."""
    nowhere, exprs = st.just(NOWHERE), expressions()
    bindings = st.lists(st.tuples(names, exprs), max_size=2).map(tuple)
    return st.one_of(
        st.builds(syntax.When, exprs, span=nowhere),
        st.builds(syntax.Unless, exprs, span=nowhere),
        st.builds(syntax.With, names, bindings, span=nowhere, name_span=nowhere),
        st.builds(syntax.By, exprs, span=nowhere),
        st.builds(syntax.Within, durations, span=nowhere),
        st.builds(syntax.ToCount, exprs, span=nowhere),
        st.builds(syntax.ToSum, exprs, exprs, span=nowhere),
        st.builds(syntax.Per, st.lists(exprs, min_size=1, max_size=2).map(tuple), span=nowhere),
        st.builds(syntax.Every, durations, span=nowhere),
        st.builds(syntax.Because, texts, span=nowhere),
    )


def patterns() -> SearchStrategy[syntax.Pattern]:
    """Generate patterns of actions."""
    return st.one_of(
        action_names.map(lambda name: syntax.Pattern("exact", name, span=NOWHERE)),
        dotted.map(lambda name: syntax.Pattern("prefix", name, span=NOWHERE)),
        st.just(syntax.Pattern("all", "", span=NOWHERE)),
    )


def statements() -> SearchStrategy[Statement]:
    """Generate statements of every kind."""
    nowhere = st.just(NOWHERE)
    rule = st.builds(
        syntax.Rule, st.sampled_from(syntax.EFFECTS), names, st.none() | names,
        st.lists(patterns(), min_size=1, max_size=3).map(tuple), st.lists(clauses(), max_size=3).map(tuple),
        span=nowhere, name_span=nowhere,
    )  # fmt: skip
    params = st.none() | st.lists(names, min_size=1, max_size=2).map(tuple)
    let = st.builds(syntax.Let, names, params, expressions(), span=nowhere, name_span=nowhere)
    declared = st.builds(syntax.TypeDecl, names, _fields(_types()), span=nowhere, name_span=nowhere)
    action = st.builds(
        syntax.ActionDecl, action_names, st.none() | _fields(_types()), st.none() | names, span=nowhere,
        name_span=nowhere,
    )  # fmt: skip
    return rule | let | declared | action
