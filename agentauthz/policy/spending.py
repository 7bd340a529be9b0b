"""Find out what the limits that apply take of a call: from which budgets, how much, and up to which bound."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final, cast, final

from attrs import evolve, field, frozen

from agentauthz.canonical import canonical
from agentauthz.decision import Reason, Spend
from agentauthz.policy.evaluate import Clause, Verdict, evaluate, missing_inputs
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.syntax import CheckedRule, Expr, Path
from agentauthz.principals import Principal
from agentauthz.request import SessionFacts
from agentauthz.values import Value

_KEYS: Final = frozenset({str, int, bool, dt.datetime})
_ONE: Final = Decimal(1)

NO_ROOM: Final = "`{}` limits this, and there is no budget for it"


@final
@frozen
class Spending:
    """Be what the limits take together, or `unclear`: the limits that nobody can say it of, with what is missing."""

    spends: tuple[Spend, ...]
    unclear: Mapping[str, frozenset[str]] = field(factory=dict)


def spending(calls: Sequence[tuple[Inputs, Verdict]]) -> Spending:
    """Return what the limits take that are true or undetermined for any of the judged calls.

    Calls with equal keys spend once: the largest amount, up to the smallest bound.
    """
    spends: dict[str, Spend] = {}
    unclear: dict[str, frozenset[str]] = {}
    for inputs, found in calls:
        for rule in _limits(found):
            asked = _spend(rule, inputs)
            if isinstance(asked, Spend):
                known = spends.get(asked.key)
                spends[asked.key] = asked if known is None else _both(known, asked)
            else:
                unclear[rule.name] = unclear.get(rule.name, frozenset()) | asked
    return Spending(tuple(spends[key] for key in sorted(spends)), unclear)


def _limits(found: Verdict) -> Iterable[CheckedRule]:
    return (*found.true.get("limit", ()), *found.undetermined.get("limit", ()))


def _both(one: Spend, other: Spend) -> Spend:
    return evolve(one, amount=max(one.amount, other.amount), bound=min(one.bound, other.bound))


def _spend(rule: CheckedRule, inputs: Inputs) -> Spend | frozenset[str]:
    """Return what a limit takes of one judged call, or the inputs that it can't be told without."""
    bound = evaluate(cast(Expr, rule.bound), inputs)
    amount = None if rule.amount is None else evaluate(rule.amount, inputs)
    keys = [evaluate(expr, inputs) for expr in rule.per]
    most, much = _number(bound), _ONE if amount is None else _number(amount)
    parts = [_key(clause, inputs) for clause in keys]
    if most is None or much is None or None in parts or (rule.window is None and not _in_session(inputs)):
        clauses = (bound, *keys) if amount is None else (bound, amount, *keys)
        missing = frozenset[str]().union(*map(missing_inputs, clauses))
        return missing or frozenset({f"`{rule.name}` (a key, amount or bound that is none)"})
    return Spend(rule.name, _named(rule, parts), much, most, rule.window, no_room(rule))


def no_room(rule: CheckedRule) -> Reason:
    """Return the reason that is told where a limit has no room."""
    return Reason("no_budget", rule.because or NO_ROOM.format(rule.name), rule.name, rule.at, rule.because)


def _named(rule: CheckedRule, parts: Sequence[object]) -> str:
    """Return a budget's key: other values, another window, or another thing to count is another budget."""
    window = None if rule.window is None else rule.window // dt.timedelta(microseconds=1)
    what = "count" if rule.amount is None else "sum"
    hashed = hashlib.sha256(canonical([what, window, *parts])).hexdigest()[:32]
    return f"{rule.name}:{hashed}"


def _number(clause: Clause) -> Decimal | None:
    """Return an amount or a bound; None: it isn't determined, or below zero."""
    value = clause.value
    if type(value) is int or type(value) is Decimal:
        return Decimal(value) if value >= 0 else None
    return None


def _key(clause: Clause, inputs: Inputs) -> object:
    """Return a part of a budget's key with its type; None: it isn't determined."""
    if isinstance(clause.expr, Path) and clause.expr.root == "session" and not clause.expr.steps:
        return ["session", _session(inputs)] if _in_session(inputs) else None
    value: Value = clause.value
    if type(value) is Principal:
        return ["principal", value.issuer, value.kind, value.id]
    if type(value) is Decimal:  # a sum may be a whole number: one value is one key
        whole = int(value)
        return [whole if whole == value else value]
    return [value] if type(value) in _KEYS else None


def _in_session(inputs: Inputs) -> bool:
    return type(inputs.request.session) is SessionFacts


def _session(inputs: Inputs) -> str:
    return cast(SessionFacts, inputs.request.session).id
