"""Find out what the rules for an action read, and read all of it: what a record must hold to ask them again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, final

from attrs import evolve, field, frozen

from agentauthz.policy.evaluate import evaluate
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.syntax import ROOTS, Call, CheckedRule, Expr, Literal_, Path, Quantifier, children
from agentauthz.principals import Chain, Principal
from agentauthz.request import Request, SessionFacts
from agentauthz.values import ABSENT, INVALID, UNKNOWN, Value

_PARTY: Final = "party"  # in the place of `subject`, `actor` and a hop's `to`; no root is called so
_APART: Final = frozenset({"approver", "chain"})  # asked of a person; held by the record as it is
_OF_THE_CALL: Final = frozenset({"action", "args", "resource"})  # a hand-off that is asked about has its own


@final
@frozen
class Remembered:
    """Be what rules ask of a session's past: its marks, last-seen times; and whether a call may change any of it.

    `started` says that they ask when it began, which the store is asked for once, and `stateful` that there is anything
    at all for which a call needs a store.
    """

    marks: bool
    times: tuple[tuple[str, str], ...]
    writes: bool
    started: bool = False
    reads: bool = field(init=False)  # whether any marks or times are read
    stateful: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "reads", self.marks or len(self.times) > 0)
        object.__setattr__(self, "stateful", self.reads or self.writes or self.started)


@final
@frozen
class Reads:
    """Be all that some rules read: paths below a root, attributes of any party, quantifiers, last-seen times.

    `parties` are paths below `party`, which may be any principal of the chain where `widely` says that rules look at
    more than subject and actor. `approver` has the names of an
    approver's attributes. `instead` names the action that they are rules for where it isn't the call's own.
    """

    paths: tuple[tuple[str, Path], ...]
    parties: tuple[tuple[str, Path], ...]
    quantifiers: tuple[Quantifier, ...]
    times: tuple[tuple[str, str], ...]
    widely: bool
    approver: frozenset[str]
    instead: str | None = None

    @classmethod
    def of(cls, rules: Iterable[CheckedRule]) -> Reads:
        """Return what `rules` read."""
        expressions = [expr for rule in rules for expr in _expressions(rule)]
        calls = [each for expr in expressions for each in _every(expr) if isinstance(each, Call)]
        parties: dict[str, Path] = {}
        for root, path in ((path.root, path) for expr in expressions for path in _below_parties(expr, frozenset())):
            own = evolve(path, root=_PARTY)
            parties.setdefault(f"{root} {own}", own)
        # the checker has seen that the action of `began` and `done` is a literal
        times = {(call.name, str(call.args[0].value)): None for call in calls if _is_time(call)}  # type: ignore[union-attr]
        return cls(
            paths_of(expressions),
            tuple((str(path).removeprefix(_PARTY), path) for path in parties.values()),
            tuple(found for expr in expressions for found in _quantifiers(expr)),
            tuple(times),
            any(call.name == "permitted" for call in calls)
            or any(path.root == "chain" for path in _paths(expressions)),
            frozenset(path.steps[0] for path in _paths(expressions) if path.root == "approver" and path.steps),
        )

    @property
    def marks(self) -> bool:
        """Say whether a rule reads the session's marks."""
        return any(path.root == "session" and path.steps[:1] in ((), ("marks",)) for _, path in self.paths)

    @property
    def started(self) -> bool:
        """Say whether a rule reads when the session began."""
        return any(path.root == "session" and path.steps[:1] in ((), ("started",)) for _, path in self.paths)

    def seen(self, inputs: Inputs) -> dict[str, Value]:
        """Return what `inputs` holds at every place that is read, by the place's name.

        A value that breaks its declaration is returned as it is.
        """
        chain = inputs.delegations
        many = self._many(chain)
        for call in () if not self.quantifiers else _calls(inputs) if many else (inputs,):
            asked = call if self.instead is None else call.asking(self.instead, {})
            for quantifier in self.quantifiers:
                evaluate(quantifier, asked)  # records in lists are read when they are first asked for
        found = {text: _raw(inputs, path, {}) for text, path in self.paths}
        if self.times:
            _add_times(found, inputs.request.session, self.times)
        if many:
            for name, who in _named(chain):
                found.update((name + text, _raw(inputs, path, {_PARTY: who})) for text, path in self.parties)
        return found

    def _many(self, chain: Chain) -> bool:
        """Say whether rules look at more parties than subject and actor, or at either in the other's place."""
        return self.widely or not chain.alone

    def places(self, chain: Chain) -> Iterator[tuple[str, ...]]:
        """Return the places in a record, each as its root and the steps from there, that are read of a call."""
        yield from ((path.root, *path.steps) for _, path in self.paths if path.steps)
        for name, _ in _named(chain) if self._many(chain) else ():
            yield from ((name, *path.steps) for _, path in self.parties)

    def for_handoff(self, action: str) -> Reads:
        """Return what rules on a hand-off, which is `action`, read of the call that it is asked for.

        Its receiver is a party of that call, whose own arguments and resource they don't see.
        """
        paths = tuple((text, path) for text, path in self.paths if path.root not in _OF_THE_CALL)
        own = [path for _, path in self.paths if path.root == "args" and path.steps[:1] == ("to",)]
        receiver = [evolve(path, root=_PARTY, steps=path.steps[1:]) for path in own if len(path.steps) > 1]
        more = tuple((str(path).removeprefix(_PARTY), path) for path in receiver)
        return evolve(self, paths=paths, parties=(*self.parties, *more), widely=True, instead=action)


def asks_for_handoff(chain: Chain) -> bool:
    """Say whether a call through `chain` makes policies decide whether somebody may hand off."""
    for hop in chain.delegations:  # noqa: SIM110  (asked for every record, and a generator costs more than its answer)
        if hop.handoff and hop.via == "host":
            return True
    return False


def _calls(inputs: Inputs) -> Iterator[Inputs]:
    """Return the calls that may be judged: of all that passed authority on, and what `permitted` asks for each."""
    chain = inputs.delegations
    for depth in range(chain.depth + 1):
        yield inputs.through(chain.prefix(depth))
    for _, who in _named(chain):
        yield inputs.through(Chain(who))


def _named(chain: Chain) -> list[tuple[str, Principal]]:
    """Return the parties of a chain with their names in a record."""
    between = [(f"chain[{i}].to", hop.to) for i, hop in enumerate(chain.delegations[:-1])]
    last = [("actor", chain.actor)] if chain.delegations else []
    return [("subject", chain.subject), *between, *last]


def unknown_roots(request: Request) -> Iterator[str]:
    """Return the roots of which nothing is known."""
    if request.args is UNKNOWN:
        yield "args"
    if request.context is UNKNOWN:
        yield "context"
    if request.session is UNKNOWN:
        yield "session"
    if request.purpose is UNKNOWN:
        yield "purpose"
    if request.route is UNKNOWN:
        yield "route"


def paths_of(expressions: Iterable[Expr]) -> tuple[tuple[str, Path], ...]:
    """Return the paths below a root that expressions mention, each once, in the order of their text."""
    found: dict[str, Path] = {}
    for path in _paths(expressions):
        # a quote in a name would make its path's text look like another path's
        if path.root in ROOTS and path.root not in _APART and not any('"' in step for step in path.steps):
            found.setdefault(str(path), path)
    return tuple(sorted(found.items()))


def _expressions(rule: CheckedRule) -> Iterator[Expr]:
    # a limit's key `session` is its id, which every record has: nothing of it is read
    keys = [expr for expr in rule.per if not (isinstance(expr, Path) and expr.root == "session" and not expr.steps)]
    yield from (expr for expr in (rule.condition, rule.by, rule.amount, rule.bound, *keys) if expr is not None)


def _every(expr: Expr) -> Iterator[Expr]:
    yield expr
    for child in children(expr):
        yield from _every(child)


def _paths(expressions: Iterable[Expr]) -> Iterator[Path]:
    return (each for expr in expressions for each in _every(expr) if isinstance(each, Path))


def _below_parties(expr: Expr, hops: frozenset[str]) -> Iterator[Path]:
    """Return the paths below a principal of the chain; `hops` are the variables that stand for a hop."""
    if isinstance(expr, Path):
        if expr.root in ("subject", "actor") and expr.steps:
            yield expr
        elif expr.root in hops and expr.steps[:1] == ("to",) and len(expr.steps) > 1:
            yield evolve(expr, steps=expr.steps[1:])
    elif isinstance(expr, Quantifier) and isinstance(expr.over, Path) and expr.over.root == "chain":
        yield from _below_parties(expr.body, hops | {expr.variable})
    else:
        for child in children(expr):
            yield from _below_parties(child, hops)


def _quantifiers(expr: Expr) -> Iterator[Quantifier]:
    """Return the outermost quantifiers that look into what may be a record."""
    if isinstance(expr, Quantifier) and any(path.steps for path in _paths([expr.body]) if path.root not in ROOTS):
        over_hops = isinstance(expr.over, Path) and expr.over.root == "chain"
        if not over_hops or any(isinstance(each, Quantifier) for each in _every(expr.body)):
            yield expr  # a hop is no record that is read later, but what it leads to may be
            return
    for child in children(expr):
        yield from _quantifiers(child)


def _is_time(call: Call) -> bool:
    return call.name in ("began", "done") and isinstance(call.args[0], Literal_)


def _raw(inputs: Inputs, path: Path, variables: Mapping[str, Value]) -> Value:
    value = inputs.read(path, variables)  # which also reads what the declaration is held against
    return inputs.read(evolve(path, declared=None), variables) if value is INVALID else value


def _add_times(found: dict[str, Value], facts: object, times: Iterable[tuple[str, str]]) -> None:
    if type(facts) is not SessionFacts:
        return
    for state, action in times:
        seen = facts.began if state == "began" else facts.done
        found[f'{state}("{action}")'] = UNKNOWN if seen is UNKNOWN else seen.get(action, ABSENT)
        if action in facts.tracked:
            found[f'tracked("{action}")'] = facts.tracked[action]
            found["session.started"] = facts.started
