"""The law of the two ways to a decision: without a wait, and in steps that may wait, a call comes out the same."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, final

from attrs import frozen
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from agentauthz import UNKNOWN, Decision, PolicySet, Principal, Request, SessionFacts
from agentauthz.approvals import Answer
from agentauthz.decision import Reason, Spend
from agentauthz.errors import StateError
from agentauthz.state.memory import MemoryState
from agentauthz.state.store import STALE, Committed, Refused
from tests.laws.counting import TALLY, law
from tests.strategies.choose import Choose
from tests.support import BOT, HELPER, MARIA, NOON, Recorded

STEPS: Final = 8
ACTIONS: Final = ("t.read", "t.check", "t.pay", "t.send")
PERMITS: Final = (
    "permit p on t.* when true",
    "permit p on t.* when args.n > 0\npermit q on t.read when true with tell(to: 1)",
    "permit p on t.read, t.check when true\npermit q on t.pay, t.send when true with tell(to: 1)",
)
MARK: Final = "mark m on t.read when args.n >= 2"
RULES: Final = (
    "limit a on t.* to count <= 4 per session",
    "limit b on t.pay to sum(args.n) <= 4 per subject every 1h",
    "limit c on t.pay, t.send to sum(args.n * 2) <= args.most per args.n every 1h",
    "limit d on t.* to count <= 2 per actor every 1h",
    'forbid e on t.send when "m" in session.marks',
    'forbid f on t.pay unless done("t.check", 30m)',
    'forbid g on t.* when began("t.pay", 10m) and args.n == 1',
    "forbid h on t.check when now - session.started > 1h",
    'review i on t.send when args.n >= 1 by "lead" in approver.roles and approver != subject',
    'review j on t.pay when "m" in session.marks by approver != subject',
    "review k on t.* when args.n == 2 by approver != subject",
)
LEAD: Final = Principal.user("lena", roles=["lead"])
SESSION: Final = "s"


@final
class Store:
    """Be a store in this process that may be said to block; `meanwhile` does something before, or instead of, a step.

    It returns what is answered instead; None: what the store answers.
    """

    def __init__(self) -> None:
        self.near: Final = MemoryState()
        self.blocking = False
        self.meanwhile: dict[str, Callable[[MemoryState], object]] = {}

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.near, name)

        def asked(*args: Any, **kwargs: Any) -> Any:
            if (done := self.meanwhile.get(name)) is not None and (answer := done(self.near)) is not None:
                return None if answer is _NOTHING else answer
            return operation(*args, **kwargs)

        return asked


_NOTHING: Final = object()
_OTHERS: Final = Spend("x", "x", Decimal(1), Decimal(0), None, Reason("no_budget", "none"))


def _fails(error: Exception) -> Callable[[MemoryState], object]:
    def fail(near: MemoryState) -> object:
        raise error

    return fail


def _once(change: Callable[[MemoryState], object]) -> Callable[[MemoryState], object]:
    """Return what changes something the first time only; the store's own answer stands."""
    left = [change]

    def first(near: MemoryState) -> None:
        if left:
            left.pop()(near)

    return first


Meanwhile = tuple[str, Callable[[], Callable[[MemoryState], object]]]

FAULTS: Final[tuple[Meanwhile, ...]] = (
    *((name, lambda: _fails(StateError("down"))) for name in ("commit", "read", "begin", "settle", "release", "ask")),
    *((name, lambda: _fails(KeyError("wrong"))) for name in ("commit", "read", "begin", "finish", "approvals")),
    *((name, lambda: lambda near: _NOTHING) for name in ("commit", "read", "begin", "ask", "approvals")),
    ("commit", lambda: lambda near: STALE),
    ("commit", lambda: lambda near: Refused()),
    ("commit", lambda: lambda near: Refused(approvals=("nobody's",))),
    ("commit", lambda: lambda near: Committed()),
    ("commit", lambda: _once(lambda near: near.mark(SESSION, "m"))),
    ("commit", lambda: _once(lambda near: near.unmark(SESSION, "m"))),
    ("commit", lambda: _once(lambda near: near.finish(SESSION, "t.check"))),
    ("commit", lambda: _once(lambda near: near.revoke("session", "another", "why"))),
    ("commit", lambda: _once(lambda near: near.revoke("session", SESSION, "why"))),
    ("commit", lambda: _once(lambda near: near.revoke("everything", "", "why"))),
    ("read", lambda: _once(lambda near: near.mark(SESSION, "m"))),
)


@final
@frozen
class Step:
    """Be one call, or something that the host does: after how many minutes, how, and what goes on meanwhile."""

    wait: int
    how: str
    action: str
    args: dict[str, object]
    deep: bool
    marks: object
    meanwhile: Meanwhile | None


@final
@frozen
class Script:
    """Be policies, one after the other, and what is done under them.

    `answer` is what people say, if they are there; `age` is for how many hours the store has known the session.
    """

    policies: list[str]
    steps: list[Step]
    observing: bool
    answer: bool | None
    age: int


@st.composite
def scripts(draw: DrawFn) -> Script:
    """Generate policies and steps."""
    choose = Choose(draw)
    policies = ["\n".join([MARK, choose.one(PERMITS), *choose.some(RULES, 40)]) for _ in range(2)]
    hows = ("perform", "decide", "fail", "hand", "preview", "adecide", "replace", "mark", "unmark", "resume")
    steps = [
        Step(
            choose.one((0, 0, 1, 9, 31, 61)),
            choose.one(hows),
            choose.one(ACTIONS),
            {"n": choose.one((0, 1, 2, 2, 3, UNKNOWN, "x")), "most": choose.one((4, 9, -1))},
            choose.chance(20),
            choose.one((frozenset(), frozenset({"m"}), UNKNOWN)),
            choose.one(FAULTS) if choose.chance(25) else None,
        )
        for _ in range(STEPS)
    ]
    return Script(policies, steps, choose.chance(15), choose.one((None, True, False)), choose.one((0, 2)))


@final
class Run:
    """Be one authorizer on its way through a script."""

    def __init__(self, script: Script, *, blocking: bool) -> None:
        self.store = Store()
        options: dict[str, Any] = {"state": self.store, "obligations": {"tell": self._told}}
        if script.observing:
            options |= {"mode": "observe", "observe_until": NOON + dt.timedelta(days=9)}
        if (answer := script.answer) is not None:
            options["approver"] = lambda review: Answer(LEAD, answer)
        self.kept = Recorded(script.policies[0], **options)
        self.store.near._clock = self.kept.clock  # type: ignore[misc]
        if script.age:
            self.begun = self.store.near.begin(SESSION, NOON - dt.timedelta(hours=script.age), {}, keep=True)
        self.store.blocking = blocking  # from here on: what was revoked is asked for as before
        self.other = PolicySet.parse(script.policies[1])
        self.session = self.kept.session(id=SESSION)
        self.below = self.session.delegate(HELPER)
        self.inner: list[object] = []

    def _told(self, duty: object) -> None:
        """Ask for another decision while one is carried out."""
        self.inner.append(_said(self.session.decide("t.check", args={"n": 1, "most": 4})))

    def take(self, step: Step) -> object:
        """Do one step, and return all that can be told of it."""
        self.kept.clock.forward(minutes=step.wait)
        self.store.meanwhile = {} if step.meanwhile is None else {step.meanwhile[0]: step.meanwhile[1]()}
        try:
            decision = self._done(step)
        except Exception as error:  # a preview tells what a broken store raises
            decision = getattr(error, "decision", type(error))
        self.store.meanwhile = {}
        if isinstance(decision, Decision):
            TALLY.pair(decision)
        near, self.inner, inner = self.store.near, [], self.inner
        kept = {key: dict(budget.spent) for key, budget in near._budgets.items() if budget.total}
        return _said(decision), inner, near.read(SESSION), kept, len(near._reserved), len(near._approvals)

    def _done(self, step: Step) -> object:
        session = self.below if step.deep else self.session
        if step.how == "preview":
            return session.preview(step.action, args=step.args)
        if step.how == "decide":
            return session.decide(step.action, args=step.args)
        if step.how == "adecide":
            return asyncio.run(session.adecide(step.action, args=step.args))
        if step.how == "hand":
            return self.kept.authorizer.decide(self._by_hand(step))
        if step.how in ("perform", "fail"):
            with contextlib.suppress(ZeroDivisionError), session.perform(step.action, args=step.args) as decision:
                if step.how == "fail":
                    raise ZeroDivisionError
            return decision
        if step.how == "replace":
            self.kept.authorizer.replace(self.other)
        if step.how == "resume":
            self.kept.authorizer.resume("on with it")
        if step.how not in ("mark", "unmark"):
            return None
        return self.session.mark("m") if step.how == "mark" else self.session.unmark("m", reason="why")

    def _by_hand(self, step: Step) -> Request:
        facts: Any = {0: UNKNOWN, 1: None}.get(step.wait, SessionFacts(SESSION, NOON, marks=step.marks))  # type: ignore[arg-type]
        return Request(step.action, subject=MARIA, actor=BOT, args=step.args, session=facts, now=self.kept.clock.now)


def _said(decision: object) -> object:
    """Return what is to be the same of a decision: all but what is random."""
    if not isinstance(decision, Decision):
        return decision
    return [
        decision.outcome, decision.basis, decision.rules, decision.undetermined, decision.missing, decision.reasons,
        decision.obligations, decision.marks, decision.spends, decision.budgets, decision.enforced,
        decision.approval is None, decision.record_id is None,
    ]  # fmt: skip


@law(scripts(), pairs=40_000, quick=1_200, each=2 * STEPS)
def test_a_call_comes_out_the_same_whether_its_store_may_wait_or_not(shard: int, script: Script) -> None:
    """Decisions, budgets, marks and what is kept are the same, whatever fails or changes meanwhile, in all modes."""
    at_once, in_steps = Run(script, blocking=False), Run(script, blocking=True)
    for step in script.steps:
        assert at_once.take(step) == in_steps.take(step), step
    for one, other in zip(at_once.kept.effects, in_steps.kept.effects, strict=True):
        assert (one.status, one.spent) == (other.status, other.spent)
        TALLY.applied()
