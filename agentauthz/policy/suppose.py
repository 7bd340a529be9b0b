"""Suppose other facts: which value at a path would make a clause come out otherwise, and inputs that hold it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Final

from attrs import evolve, frozen

from agentauthz.policy.builtins import equal
from agentauthz.policy.evaluate import Clause
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.syntax import Compare, Default, Exists, Like, Path
from agentauthz.principals import Chain, Principal
from agentauthz.values import ABSENT, MAX_ELEMENTS, Record, Sentinel, Unordered, Value, number

_RECORDS: Final = frozenset({"args", "resource", "context", "session"})
_PARTIES: Final = frozenset({"subject", "actor"})
_NAMED: Final = frozenset({"kind", "id", "issuer"})  # who somebody is, isn't supposed to be otherwise
_TRIED: Final = 3  # elements of a collection
_OPPOSITE: Final[Mapping[str, str]] = {
    "==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">", "in": "not in", "not in": "in",
}  # fmt: skip
_MIRRORED: Final[Mapping[str, str]] = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_SECOND: Final = dt.timedelta(seconds=1)


@frozen(eq=False)
class Supposed:
    """Be a value that a fact would have. `told`: it says more than the clause itself does."""

    path: Path
    value: Value
    told: bool = True


def supposed(clause: Clause, wanted: bool) -> Iterator[Supposed]:
    """Return values of single facts with which a clause might answer `wanted`; whether it does is to be tried."""
    match clause.expr:
        case Path() | Default() as expr:
            yield Supposed(_path(expr), wanted)
        case Exists(path) if not wanted:
            yield Supposed(path, ABSENT, told=False)
        case Like(Path() | Default() as expr, parts):
            yield Supposed(_path(expr), "".join(parts) if wanted else "", told=wanted)
        case Compare(operator):
            yield from _compared(clause, operator if wanted else _OPPOSITE[operator])


def _path(expr: Path | Default) -> Path:
    return expr if isinstance(expr, Path) else expr.path


def _compared(clause: Clause, operator: str) -> Iterator[Supposed]:
    """Return values for either side with which a comparison would hold; the other side stays as it is."""
    left, right = clause.children
    if isinstance(left.expr, Path | Default):
        yield from (Supposed(_path(left.expr), value, told) for value, told in _beside(operator, right.value))
    if isinstance(right.expr, Path | Default):
        if operator in ("in", "not in"):
            yield from _collections(_path(right.expr), right.value, left.value, operator == "in")
        else:
            mirrored = _MIRRORED.get(operator, operator)
            yield from (Supposed(_path(right.expr), value, told) for value, told in _beside(mirrored, left.value))


def _beside(operator: str, value: Value) -> Iterator[tuple[Value, bool]]:
    """Return what stands in a relation to a value, and whether it is worth telling."""
    if isinstance(value, Sentinel):
        return
    match operator:
        case "==" | "<=" | ">=":
            yield value, True
        case "!=":
            yield from ((other, False) for other in _others(value))
        case "<" | ">":
            yield from ((other, True) for other in _steps(value, 1 if operator == ">" else -1))
        case "in" if isinstance(value, tuple):
            yield from ((each, True) for each in value[:_TRIED] if not isinstance(each, Sentinel))
        case "not in" if isinstance(value, tuple):
            texts = [each for each in value if type(each) is str]
            yield "".join(texts[:_TRIED]) + "?", False


def _others(value: Value) -> Iterator[Value]:
    if type(value) is str:
        yield value + "?"
    elif type(value) is bool:
        yield not value
    else:
        yield from _steps(value, 1)


def _steps(value: Value, step: int) -> Iterator[Value]:
    """Return the next larger or smaller value that people would name."""
    if type(value) is int or type(value) is Decimal:
        yield number(value + step)
    elif isinstance(value, dt.timedelta):
        yield value + step * _SECOND
    elif isinstance(value, dt.datetime):
        try:
            yield value + step * _SECOND
        except OverflowError:
            return


def _collections(path: Path, there: Value, member: Value, wanted: bool) -> Iterator[Supposed]:
    """Return a collection as it is, but with a member, or without it."""
    if isinstance(member, Sentinel):
        return
    held = there if isinstance(there, tuple) else ()
    left = (*held, member) if wanted else tuple(each for each in held if equal(each, member) is not True)
    if len(left) <= MAX_ELEMENTS:
        yield Supposed(path, Unordered(left) if type(there) is Unordered else left, told=False)


# ---- inputs that hold them


def settable(path: Path, inputs: Inputs) -> bool:
    """Say whether a fact can be supposed to be otherwise: one of the call, or of a party, but not who that is."""
    if path.root in _PARTIES:
        return inputs.delegations.alone and len(path.steps) == 1 and path.steps[0] not in _NAMED
    if path.root == "resource":
        return bool(path.steps) and path.steps[0] not in ("type", "id") and isinstance(inputs.resource, Record)
    if path.root == "session":
        return bool(path.steps) and path.steps[0] not in ("id", "started")
    return path.root in _RECORDS and bool(path.steps)


def with_facts(inputs: Inputs, facts: Mapping[Path, Value], over: Callable[[Inputs, Chain], Inputs]) -> Inputs | None:
    """Return the same call with other facts; None: there is no place for one of them. `over` copies the call."""
    chain = inputs.delegations
    for path, value in facts.items():
        if path.root in _PARTIES:
            chain = _with_party(chain, path, value)
    made = over(inputs, chain)
    for path, value in facts.items():
        if path.root not in _PARTIES:
            root = _with_step(getattr(made, path.root), path.steps, value)
            if root is None:
                return None
            setattr(made, path.root, root)
    return made


def _with_step(held: Value, steps: tuple[str, ...], value: Value) -> Record | None:
    """Return a record with another value at a place; None: something else than records leads there."""
    if not isinstance(held, Record):
        return None
    step, *rest = steps
    made = type(held)(held)
    if (reader := getattr(held, "reader", None)) is not None:
        made.reader = reader
    inner = _with_step(held[step], tuple(rest), value) if rest else value
    if inner is None:
        return None
    made[step] = inner
    return made


def _with_party(chain: Chain, path: Path, value: Value) -> Chain:
    """Return a chain of one hop at most, with an attribute of its subject or its actor changed."""
    if path.root == "subject" or not chain.delegations:
        return evolve(chain, subject=_with_attribute(chain.subject, path.steps[0], value))
    hop = chain.delegations[0]
    return evolve(chain, delegations=(evolve(hop, to=_with_attribute(hop.to, path.steps[0], value)),))


def _with_attribute(who: Principal, name: str, value: Value) -> Principal:
    made = Principal(who.kind, who.id, who.issuer)
    made.facts.update(who.facts)
    made.facts[name] = value
    if (reader := getattr(who.facts, "reader", None)) is not None:
        made.facts.reader = reader
    return made
