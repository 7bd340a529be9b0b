"""Find out what the limits that apply take of a call: from which budgets, how much, and up to which bound."""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final, TypeAlias, final

from attrs import evolve, frozen

from agentauthz.canonical import canonical
from agentauthz.decision import Reason, Spend
from agentauthz.policy.evaluate import Verdict, evaluate, missing_inputs
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.syntax import CheckedRule, Expr, Literal_, Path
from agentauthz.principals import Principal
from agentauthz.request import SessionFacts

_KEYS: Final = frozenset({str, int, bool, Decimal, dt.datetime})
_ONE: Final = Decimal(1)
_MOST_KEYS: Final = 4096  # of one limit whose names are kept: they are the callers'
_LONGEST_KEY: Final = 1024  # bytes of what makes a key, if its name is kept

NO_ROOM: Final = "`{}` limits this, and there is no budget for it"


@final
class Whole(enum.Enum):
    """Stand for what is taken without looking into it: the session itself, as a key."""

    SESSION = "session"


# A limit's bound, its amount, and what its key is made of
Measures: TypeAlias = tuple[Expr | Decimal | Whole, ...]
Measured: TypeAlias = Callable[[Inputs], Sequence[object]]  # the values of measures; anything else where undetermined


def measures(rule: CheckedRule) -> Measures:
    """Return what has to be known of a call to say what a limit takes of it."""
    assert rule.bound is not None
    keys = [Whole.SESSION if _is_session(expr) else expr for expr in rule.per]
    return (rule.bound, _ONE if rule.amount is None else rule.amount, *keys)


def defined(rule: CheckedRule, inputs: Inputs) -> Sequence[object]:
    """Return the values of a limit's measures, by the definition."""
    return [each if isinstance(each, Decimal | Whole) else evaluate(each, inputs).value for each in measures(rule)]


def _is_session(expr: Expr) -> bool:
    return isinstance(expr, Path) and expr.root == "session" and not expr.steps


@final
class Meter:
    """Tell what one limit takes of a call, from what `measured` says of it."""

    __slots__ = ("_known", "_measured", "_reason", "_rule", "_same")

    def __init__(self, rule: CheckedRule, measured: Measured) -> None:
        self._rule: Final = rule
        self._measured: Final = measured
        because = rule.because or NO_ROOM.format(rule.name)
        self._reason: Final = Reason("no_budget", because, rule.name, rule.at, rule.because)
        self._same: Final = isinstance(rule.bound, Literal_) and rule.amount is None  # for all calls with one key
        self._known: dict[tuple[object, ...], Spend] = {}

    def spend(self, inputs: Inputs) -> Spend | None:
        """Return what the limit takes of one judged call; None: a key, the amount or the bound is none."""
        values = self._measured(inputs)
        if (whose := _whose(values, inputs)) is None:
            return None
        known = self._known.get(whose)
        if known is not None and self._same:
            return known
        most, much = values[0], values[1]
        if type(most) is not Decimal or type(much) is not Decimal or most < 0 or much < 0:
            most, much = _number(most), _number(much)
        if most is None or much is None:
            return None
        if known is not None:
            return Spend.trusted(self._rule.name, known.key, much, most, self._rule.window, self._reason)
        text = self._text(whose)
        key = f"{self._rule.name}:{hashlib.sha256(text).hexdigest()[:32]}"
        made = Spend.trusted(self._rule.name, key, much, most, self._rule.window, self._reason)
        if len(text) <= _LONGEST_KEY:
            self._keep(whose, made)
        return made

    def _keep(self, whose: tuple[object, ...], made: Spend) -> None:
        known = self._known if len(self._known) < _MOST_KEYS else {}
        known[whose] = made
        self._known = known

    def _text(self, whose: tuple[object, ...]) -> bytes:
        """Return what names a budget: other values, another window, or another thing to count is another one."""
        rule = self._rule
        window = None if rule.window is None else rule.window // dt.timedelta(microseconds=1)
        parts = [_named(kind, value) for kind, value in zip(whose[::2], whose[1::2], strict=True)]
        what = "count" if rule.amount is None else "sum"
        return canonical([what, window, *parts])

    def missing(self, inputs: Inputs) -> frozenset[str]:
        """Return the inputs that it can't be told without what the limit takes."""
        clauses = [evaluate(each, inputs) for each in measures(self._rule) if not isinstance(each, Decimal | Whole)]
        missing = frozenset[str]().union(*map(missing_inputs, clauses))
        return missing or frozenset({f"`{self._rule.name}` ({self._odd(inputs)})"})

    def _odd(self, inputs: Inputs) -> str:
        """Return what the limit can't count by, though nothing is missing; a value isn't shown."""
        for what, value in zip(("bound", "amount"), defined(self._rule, inputs), strict=False):
            if _number(value) is None:
                return f"its {what} is {'below zero' if type(value) in (int, Decimal) else 'no number'}"
        if Whole.SESSION in measures(self._rule) and type(inputs.request.session) is not SessionFacts:
            return "there is no session to count in"
        return "its key is no text, number, bool, time or principal"


def _whose(values: Sequence[object], inputs: Inputs) -> tuple[object, ...] | None:
    """Return what makes a budget's key, with the types of its parts; None: one of them can't be told."""
    parts: list[object] = []
    for value in values[2:]:
        kind = type(value)
        if isinstance(value, Principal):
            parts += (kind, value.identity)
        elif kind in _KEYS:
            parts += (kind, value)
        elif kind is Whole and type(session := inputs.request.session) is SessionFacts:
            parts += (kind, session.id)
        else:
            return None
    return tuple(parts)


def _named(kind: object, value: object) -> list[object]:
    if kind is Principal:
        assert isinstance(value, tuple)
        return ["principal", *value]
    return ["session", value] if kind is Whole else [value]


def _number(value: object) -> Decimal | None:
    """Return an amount or a bound; None: it isn't determined, or below zero."""
    if type(value) is int:
        return Decimal(value) if value >= 0 else None
    return value if type(value) is Decimal and value >= 0 else None


@final
@frozen
class Unclear:
    """Be the limits of which nobody can say what they take, each with the inputs that are missing."""

    missing: Mapping[str, frozenset[str]]


def spending(
    meter: Callable[[CheckedRule], Meter], calls: Sequence[tuple[Inputs, Verdict]]
) -> tuple[Spend, ...] | Unclear:
    """Return what the limits take that are true or undetermined for any of the judged calls, in the order of the keys.

    Calls with equal keys spend once: the largest amount, up to the smallest bound.
    """
    spends: dict[str, Spend] = {}
    unclear: dict[str, frozenset[str]] = {}
    for inputs, found in calls:
        for rule in found.true.get("limit", ()) + found.undetermined.get("limit", ()):
            asked = meter(rule).spend(inputs)
            if asked is None:
                unclear[rule.name] = unclear.get(rule.name, frozenset()) | meter(rule).missing(inputs)
            else:
                known = spends.get(asked.key)
                spends[asked.key] = asked if known is None else _both(known, asked)
    if unclear:
        return Unclear(unclear)
    return tuple(spends.values()) if len(spends) == 1 else tuple(spends[key] for key in sorted(spends))


def _both(one: Spend, other: Spend) -> Spend:
    return evolve(one, amount=max(one.amount, other.amount), bound=min(one.bound, other.bound))
