"""The laws of what is remembered: random calls of an agent tree against a recount of all that was granted."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Hashable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeAlias, cast, final

from attrs import define, field, frozen
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from agentauthz import Authorizer, Basis, Decision, Denied, Outcome, Principal, State
from agentauthz.records import MemorySink
from tests.laws.counting import TALLY, law
from tests.strategies.cases import Case, cases
from tests.strategies.choose import Choose
from tests.strategies.policies import rule_text, valid
from tests.support import Recorded

MINUTE: Final = dt.timedelta(minutes=1)
HOUR: Final = dt.timedelta(hours=1)
STEPS: Final = 14
PEOPLE: Final = ("maria", "bob")
# who is judged for a handle's calls: the agents of its chain
TREE: Final = (("bot",), ("bot", "x"), ("bot", "y"), ("bot", "x", "z"))
ACTIONS: Final = ("t.read", "t.check", "t.pay", "t.send")


@final
@frozen
class Step:
    """Be one call: after how many minutes, by which handle, and how it ends."""

    wait: int
    person: str
    agents: tuple[str, ...]
    action: str
    n: int
    k: str
    how: str

    @property
    def args(self) -> dict[str, object]:
        return {"n": self.n, "k": self.k}


Key: TypeAlias = Callable[[Step, str], Hashable]


@final
@frozen
class Limit:
    """Be a limit as a policy writes it, and as anybody would count it."""

    text: str
    actions: tuple[str, ...]
    amount: Callable[[Step], int]
    bound: int
    key: Key
    window: dt.timedelta | None


def _one(step: Step) -> int:
    return 1


def _person(step: Step, who: str) -> Hashable:
    return step.person


PAID: Final = ("t.pay",)
MOVED: Final = ("t.pay", "t.send")
LIMITS: Final = (
    Limit("on t.* to count <= 4 per session", ACTIONS, _one, 4, _person, None),
    Limit("on t.pay to sum(args.n) <= 3 per subject every 1h", PAID, lambda s: s.n, 3, _person, HOUR),
    Limit(
        "on t.pay, t.send to sum(args.n * 2) <= 5 per args.k every 1h",
        MOVED, lambda s: 2 * s.n, 5, lambda s, who: s.k, HOUR,
    ),
    Limit(
        "on t.* to count <= 2 per actor, subject every 1h", ACTIONS, _one, 2, lambda s, who: (who, s.person), HOUR
    ),
    Limit(
        'on t.read when args.k == "a" to count <= 1 + args.n per session, args.k',
        ("t.read",), _one, -1, _person, None,
    ),
)  # fmt: skip


@final
@define
class Remembered:
    """Be what one person's session has seen."""

    marks: set[str] = field(factory=set)
    began: dict[str, dt.datetime] = field(factory=dict)
    done: dict[str, dt.datetime] = field(factory=dict)


def _within(seen: Mapping[str, dt.datetime], action: str, now: dt.datetime, minutes: int) -> bool:
    return action in seen and now - seen[action] <= minutes * MINUTE


Stops: TypeAlias = Callable[[Remembered, Step, dt.datetime], bool]

FORBIDS: Final[tuple[tuple[str, Stops], ...]] = (
    (
        'forbid tainted on t.send when "m" in session.marks',
        lambda r, s, now: s.action == "t.send" and "m" in r.marks,
    ),
    (
        'forbid unchecked on t.pay unless done("t.check", 30m)',
        lambda r, s, now: s.action == "t.pay" and not _within(r.done, "t.check", now, 30),
    ),
    (
        'forbid hasty on t.* when began("t.pay", 10m) and args.n == 1',
        lambda r, s, now: _within(r.began, "t.pay", now, 10) and s.n == 1,
    ),
)
MARK: Final = "mark m on t.read when args.n >= 2"


@final
@define
class Model:
    """Recount what was granted, from the list of all that was."""

    limits: list[Limit]
    forbids: list[Stops]
    sessions: dict[str, Remembered] = field(factory=lambda: {person: Remembered() for person in PEOPLE})
    granted: list[tuple[dt.datetime, Limit, Hashable, int]] = field(factory=list)

    def expected(self, step: Step, now: dt.datetime) -> tuple[Outcome, Basis]:
        if any(stops(self.sessions[step.person], step, now) for stops in self.forbids):
            return Outcome.DENY, Basis.RULE
        full = [limit for limit, key, amount in self._asked(step) if not self._fits(limit, key, amount, step, now)]
        return (Outcome.DENY, Basis.LIMIT) if full else (Outcome.ALLOW, Basis.RULE)

    def _asked(self, step: Step) -> set[tuple[Limit, Hashable, int]]:
        found = [limit for limit in self.limits if step.action in limit.actions]
        if step.k != "a":
            found = [limit for limit in found if "args.k ==" not in limit.text]
        return {(limit, limit.key(step, who), limit.amount(step)) for limit in found for who in step.agents}

    def _fits(self, limit: Limit, key: Hashable, amount: int, step: Step, now: dt.datetime) -> bool:
        bound = 1 + step.n if limit.bound < 0 else limit.bound
        return self.used(limit, key, now) + amount <= bound

    def used(self, limit: Limit, key: Hashable, now: dt.datetime) -> int:
        return sum(
            amount
            for at, of, whose, amount in self.granted
            if of is limit and whose == key and (limit.window is None or now - at <= limit.window)
        )

    def grant(self, step: Step, now: dt.datetime) -> None:
        session = self.sessions[step.person]
        self.granted += [(now, limit, key, amount) for limit, key, amount in self._asked(step)]
        session.marks |= {"m"} if step.action == "t.read" and step.n >= 2 else set()
        session.began[step.action] = now


@final
@frozen
class Script:
    """Be a policy and the calls that are made under it."""

    limits: list[Limit]
    forbids: list[tuple[str, Stops]]
    steps: list[Step]
    releases: bool

    @property
    def policy(self) -> str:
        limits = [f"limit l{number} {limit.text}" for number, limit in enumerate(self.limits)]
        return "\n".join(["permit p on t.* when true", MARK, *limits, *(text for text, _ in self.forbids)])


@st.composite
def scripts(draw: DrawFn) -> Script:
    """Generate a policy and calls."""
    choose = Choose(draw)
    steps = [
        Step(
            choose.one((0, 0, 0, 1, 9, 10, 29, 31, 60, 61)),
            choose.one(PEOPLE),
            choose.one(TREE),
            choose.one(ACTIONS),
            choose.up_to(3),
            choose.one(("a", "b")),
            choose.one(("perform", "decide", "fail", "preview")),
        )
        for _ in range(STEPS)
    ]
    return Script(choose.some(LIMITS, 60), choose.some(FORBIDS, 40), steps, choose.chance(30))


class _Tree:
    """Be the handles of one person's session."""

    def __init__(self, kept: Recorded, person: str) -> None:
        bot, *rest = (Principal.agent(name) for name in ("bot", "x", "y", "z"))
        root = kept.authorizer.session(Principal.user(person), bot, id=person)
        x, y, z = rest
        child = root.delegate(x)
        self.handles: dict[tuple[str, ...], Any] = dict(
            zip(TREE, (root, child, root.delegate(y), child.delegate(z)), strict=True)
        )


def _made(session: Any, step: Step) -> Decision:
    """Make a call as the step says, and return its decision."""
    if step.how == "preview":
        previewed: Decision = session.preview(step.action, args=step.args)
        return previewed
    if step.how == "decide":
        decided: Decision = session.decide(step.action, args=step.args)
        return decided
    try:
        with session.perform(step.action, args=step.args) as decision:
            if step.how == "fail":
                raise KeyError
    except KeyError:
        pass
    except Denied as denied:
        return cast(Decision, denied.decision)
    return cast(Decision, decision)


@law(scripts(), pairs=50_000, quick=700, each=STEPS)
def test_what_is_granted_is_what_a_recount_grants(shard: int, script: Script) -> None:
    """Budgets, marks and sequences come out as by counting again all that was granted, whoever of the tree calls.

    So sub-agents multiply no budget, neither denials nor previews take anything, and sessions share only what they
    should.
    """
    kept = Recorded(script.policy)
    model = Model(script.limits, [stops for _, stops in script.forbids])
    trees = {person: _Tree(kept, person) for person in PEOPLE}
    for step in script.steps:
        kept.clock.forward(minutes=step.wait)
        now = kept.clock.now
        expected = model.expected(step, now)
        decision = _made(trees[step.person].handles[step.agents], step)
        TALLY.pair(decision)
        TALLY.applied(bool(decision.budgets))
        assert (decision.outcome, decision.basis) == expected, step
        for budget in decision.budgets:
            limit = script.limits[int(budget.rule[1:])]
            before = {model.used(limit, limit.key(step, who), now) for who in step.agents}
            assert budget.used in before
            assert budget.granted is (decision.allowed and step.how != "preview")
        if decision.allowed and step.how != "preview":
            model.grant(step, now)
            if step.how == "perform":
                model.sessions[step.person].done[step.action] = now
        assert trees[step.person].handles[("bot",)].marks == model.sessions[step.person].marks


@law(cases())
def test_a_limit_more_never_turns_deny_into_allow_whatever_was_used(shard: int, case: Case) -> None:
    """However the budgets stand: with one limit more, or more used of them, nothing is allowed that wasn't."""
    policy, choose = case.policy, case.choose
    more = rule_text(choose, "limit", 9, policy.world, policy.marks(), policy.functions)
    with_more = valid([*policy.statements, more], policy.world, policy.functions)[1]
    tell = {"tell": lambda duty: None}  # what generated permits oblige to
    plain, limited = (Authorizer(made, sinks=[MemorySink()], obligations=tell) for made in (case.made, with_more))
    names = [rule.name for rule in with_more.rules if rule.effect == "limit"]
    for plan in case.plans:
        request = plan.request()
        if not all(hop.actions for hop in request.chain.delegations):
            continue  # only a token's hop may cover nothing, and who asks by hand has none
        used = {name: Decimal(choose.one((0, 1, 9, 90, 499))) for name in names}
        decision = plain.preview(request, state=State(used=used))
        TALLY.pair(decision)
        if decision.outcome is not Outcome.ALLOW:
            TALLY.applied()
            assert limited.preview(request, state=State(used=used)).outcome is not Outcome.ALLOW
            still_more = State(used={name: amount + choose.up_to(9) for name, amount in used.items()})
            assert plain.preview(request, state=still_more).outcome is not Outcome.ALLOW
