"""Test every store against a model of each operation that is a few lines long, with a clock that jumps both ways."""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from agentauthz.decision import Reason, Spend
from agentauthz.state.store import STALE, Approval, Committed, Intent, Refused, Reservation, Revocation, State
from agentauthz.state.windows import width
from tests.laws.counting import LONG
from tests.stores import START, WITH_CLOCK, Make

# each budget has one window and one bound: so its grants can be judged one by one
BUDGETS: Final[dict[str, tuple[dt.timedelta | None, Decimal]]] = {
    "minute": (dt.timedelta(minutes=1), Decimal(3)),
    "odd": (dt.timedelta(microseconds=100_003), Decimal("1.5")),
    "day": (dt.timedelta(days=1), Decimal(7)),
    "session": (None, Decimal(4)),
}
SESSIONS: Final = st.sampled_from(["s", "t\x00\ud800"])
NAMES: Final = st.sampled_from(["a", "b"])
AMOUNTS: Final = st.sampled_from([Decimal(0), Decimal("0.1"), Decimal("0.4"), Decimal(1), Decimal("2.5")])
JUMPS: Final = st.one_of(st.integers(-(10**12), 10**12), st.integers(-(10**5), 10**6))


class Model:
    """Remember everything, simply."""

    def __init__(self) -> None:
        self.now = START
        self.marks: dict[str, set[str]] = defaultdict(set)
        self.began: dict[str, dict[str, dt.datetime]] = defaultdict(dict)
        self.done: dict[str, dict[str, dt.datetime]] = defaultdict(dict)
        self.watched: dict[str, dict[str, dt.datetime]] = defaultdict(dict)
        self.known: set[str] = set()
        self.grants: dict[tuple[str, str], list[list[Any]]] = defaultdict(list)  # by owner and key: when, how much
        self.once: dict[str, dt.datetime] = {}
        self.revoked: list[Revocation] = []
        self.approvals: dict[str, list[Any]] = {}  # the request, its status, its answer

    def state(self, session: str) -> State:
        return State(
            self.marks[session], dict(self.began[session]), dict(self.done[session]), dict(self.watched[session])
        )

    def spent(self, spend: Spend, session: str, back: dt.timedelta) -> Decimal:
        """Return what was granted of a budget, and not given back, since `back` ago."""
        grants = self.grants[owner(spend, session), spend.key]
        return sum((amount for at, amount in grants if at >= self.now - back), Decimal(0))

    def usable(self, id: str) -> bool:
        one = self.approvals.get(id)
        return one is not None and one[1] == "approved" and one[0].expires > self.now


def owner(spend: Spend, session: str) -> str:
    return session if spend.window is None else ""


class Machine(RuleBasedStateMachine):
    """Do the same to a store and to the model, and compare what they answer."""

    make: Make

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = START
        self.model = Model()
        self.store = type(self).make(self.folder, self.time)
        self.persists = self.store.blocking
        self.others = [type(self).make(self.folder, self.time)] if self.persists else []
        self.held: list[Any] = []
        self.reserved: list[tuple[Reservation, list[list[Any]], bool]] = []
        self.numbers = 0
        assert self.store.now() == START

    def time(self) -> dt.datetime:
        return self.clock

    def teardown(self) -> None:
        for store in (self.store, *self.others):
            store.close()
        shutil.rmtree(self.folder)

    # ---- time, and who asks

    @rule(jump=JUMPS)
    def jumps(self, jump: int) -> None:
        self.clock += dt.timedelta(microseconds=jump)
        self.model.now = max(self.model.now, self.clock)
        assert self.store.now() == self.model.now

    @rule(data=st.data(), more=st.sampled_from([-1, 0, 1]))
    def jumps_to_where_something_ends(self, data: st.DataObject, more: int) -> None:
        model = self.model
        ends = {one[0].expires for one in model.approvals.values()} | {*model.once.values()}
        for (_, key), grants in model.grants.items():
            if window := BUDGETS[key][0]:
                part = dt.timedelta(microseconds=width(window))
                ends |= {at + window + part * number for at, _ in grants for number in (-1, 0, 1)}
        later = sorted(end for end in ends if end > self.clock)
        if later:
            self.clock = data.draw(st.sampled_from(later)) + dt.timedelta(microseconds=more)
            model.now = max(model.now, self.clock)
            assert self.store.now() == model.now

    @precondition(lambda self: self.persists)
    @rule()
    def another_asks(self) -> None:
        self.store, self.others = self.others[0], [*self.others[1:], self.store]

    @precondition(lambda self: self.persists)
    @rule()
    def starts_again(self) -> None:
        self.store.close()
        self.store = type(self).make(self.folder, self.time)

    # ---- sessions

    @rule(session=SESSIONS, watched=st.sets(NAMES))
    def begin(self, session: str, watched: set[str]) -> None:
        since = {name: START - dt.timedelta(days=1) for name in watched}
        begun = self.store.begin(session, START, since, keep=True)
        self.held.append(begun)
        before = self.model.watched[session]
        now = self.model.now if session in self.model.known else START - dt.timedelta(days=1)
        self.model.watched[session] = {name: before.get(name, now) for name in watched}
        self.model.known.add(session)

    @rule(session=SESSIONS, name=NAMES)
    def mark(self, session: str, name: str) -> None:
        self.store.mark(session, name)
        self.model.marks[session].add(name)
        self.model.known.add(session)

    @rule(session=SESSIONS, name=NAMES)
    def unmark(self, session: str, name: str) -> None:
        assert self.store.unmark(session, name) == (name in self.model.marks[session])
        self.model.marks[session].discard(name)
        self.model.known.add(session)

    @rule(session=SESSIONS, name=NAMES)
    def finish(self, session: str, name: str) -> None:
        self.store.finish(session, name)
        self.model.done[session][name] = self.model.now
        self.model.known.add(session)

    @invariant()
    def remembers(self) -> None:
        for session in ("s", "t\x00\ud800"):
            assert self.store.read(session) == self.model.state(session)

    # ---- one decision

    @rule(
        session=SESSIONS, amounts=st.dictionaries(st.sampled_from(sorted(BUDGETS)), AMOUNTS, max_size=3),
        marks=st.sets(NAMES), began=st.none() | NAMES, approval=st.sampled_from([*[None] * 16, *range(4)]),
        reserve=st.sampled_from([True, True, True, True, False]),
        stale=st.sampled_from([*[None] * 16, "marks", "began", "done", "revoked"]),
        releasable=st.booleans(),
    )  # fmt: skip
    def commit(
        self, session: str, amounts: dict[str, Decimal], marks: set[str], began: str | None, stale: str | None,
        approval: int | None, reserve: bool, releasable: bool,
    ) -> None:  # fmt: skip
        model = self.model
        spends = tuple(spend(key, amount) for key, amount in sorted(amounts.items()))
        used = () if approval is None else (f"p{approval}",)
        seen = frozenset(model.marks[session])
        times = (
            ("began", "a", None if stale == "began" else model.began[session].get("a")),
            ("done", "a", None if stale == "done" else model.done[session].get("a")),
        )
        answer = self.store.commit(
            Intent(
                session, seen ^ {"a"} if stale == "marks" else seen, times, tuple(sorted(marks)), began, spends,  # type: ignore[arg-type]
                used, len(model.revoked) - (stale == "revoked"), reserve, releasable,
            )
        )  # fmt: skip
        outdated = stale in ("marks", "revoked") or (
            stale in ("began", "done") and "a" in getattr(model, stale)[session]
        )
        if outdated:
            assert answer == STALE
        elif unfit := tuple(each for each in used if not model.usable(each)):
            assert answer == Refused(approvals=unfit)
        else:
            self._judge(session, spends, answer, reserve=reserve)
        if isinstance(answer, Committed) and reserve:
            self._done(session, answer, marks, began, used)
            assert (answer.reservation is not None) == bool(spends)
            assert answer.reservation is None or (answer.reservation.id is not None) == releasable

    def _judge(self, session: str, spends: tuple[Spend, ...], answer: object, *, reserve: bool) -> None:
        """Hold an answer to the grants: never too much in a window, and no less than two buckets' worth."""
        assert isinstance(answer, Committed | Refused)
        budgets = answer.budgets if isinstance(answer, Committed) else answer.full
        assert [budget.key for budget in budgets] == [each.key for each in spends]
        for each, budget in zip(spends, budgets, strict=True):
            slack = dt.timedelta(days=10**5) if each.window is None else each.window
            more = slack if each.window is None else slack + dt.timedelta(microseconds=2 * width(each.window))
            # a budget of a session counts all that it ever granted
            least, most = self.model.spent(each, session, slack), self.model.spent(each, session, more)
            assert least <= budget.used <= most
            assert budget.granted == (isinstance(answer, Committed) and reserve)
        assert isinstance(answer, Committed) == all(budget.fits for budget in budgets)

    def _done(self, session: str, answer: Committed, marks: set[str], began: str | None, used: tuple[str, ...]) -> None:
        model = self.model
        model.marks[session] |= marks
        if began is not None:
            model.began[session][began] = model.now
        for name in used:
            model.approvals[name][1] = "used"
        if marks or began or any(part[0].window is None for part in getattr(answer.reservation, "parts", ())):
            model.known.add(session)
        if answer.reservation is not None:
            made = []
            for each, _ in answer.reservation.parts:
                made.append([model.now, each.amount])
                model.grants[owner(each, session), each.key].append(made[-1])
            self.reserved.append((answer.reservation, made, False))

    @precondition(lambda self: self.reserved)
    @rule(data=st.data(), keeps=st.none() | AMOUNTS)
    def gives_back(self, data: st.DataObject, keeps: Decimal | None) -> None:
        index = data.draw(st.integers(0, len(self.reserved) - 1))
        made, grants, ended = self.reserved[index]
        if made.id is None and ended:  # one without is settled or released once
            return
        self.reserved[index] = (made, grants, True)
        if keeps is None:
            self.store.release(made)
        else:
            self.store.settle(made, {each.rule: keeps for each, _ in made.parts})
        for grant in grants if not ended else ():
            grant[1] = min(grant[1], keeps or Decimal(0))

    @invariant()
    def no_window_holds_more_than_its_bound(self) -> None:
        """By brute force: whichever grant a window ends with, all that it holds is within the bound."""
        for (_, key), grants in self.model.grants.items():
            window, bound = BUDGETS[key]
            for end, _ in grants:
                held = [amount for at, amount in grants if window is None or end - window <= at <= end]
                assert sum(held) <= bound

    # ---- the rest

    @rule(key=NAMES, lasts=st.integers(0, 10**8))
    def once(self, key: str, lasts: int) -> None:
        model = self.model
        expired = key in model.once and model.once[key] < model.now
        first = key not in model.once or expired
        expires = model.now + dt.timedelta(microseconds=lasts)
        assert self.store.once(key, expires) == first
        if first:
            model.once[key] = expires

    @rule(kind=st.sampled_from(["session", "principal", "token", "everything"]), name=SESSIONS, lifts=st.booleans())
    def revoke(self, kind: Any, name: str, lifts: bool) -> None:
        made = Revocation(len(self.model.revoked) + 1, kind, name, self.model.now, "why\x00", lifts)
        assert self.store.revoke(kind, name, "why\x00", lifts=lifts) == made
        self.model.revoked.append(made)

    @invariant()
    def all_that_was_revoked_is_known(self) -> None:
        known = self.model.revoked
        for since in {0, len(known) // 2, len(known)}:
            assert list(self.store.revocations(since)) == known[since:]

    @rule(session=st.none() | SESSIONS, binding=NAMES, lasts=st.integers(-1, 10**8))
    def ask(self, session: str | None, binding: str, lasts: int) -> None:
        model, name = self.model, f"p{self.numbers}"
        made = Approval(name, binding, session, model.now, model.now + dt.timedelta(microseconds=lasts), f"{name}\x00")
        is_open = [
            one[0].id
            for one in model.approvals.values()
            if one[0].binding == binding and one[1] in ("pending", "approved") and one[0].expires > model.now
        ]
        assert self.store.ask(made).id == (is_open or [name])[0]
        if not is_open:
            self.numbers += 1
            model.approvals[name] = [made, "pending", None]

    @rule(number=st.integers(0, 3))
    def uses(self, number: int) -> None:
        name = f"p{number}"
        answer = self.store.commit(Intent(None, approvals=(name,)))
        assert answer == (Committed() if self.model.usable(name) else Refused(approvals=(name,)))
        if self.model.usable(name):
            self.model.approvals[name][1] = "used"

    @rule(number=st.integers(0, 5), status=st.sampled_from(["approved", "rejected"]))
    def answer(self, number: int, status: Any) -> None:
        one = self.model.approvals.get(f"p{number}")
        can = one is not None and one[1] == "pending" and one[0].expires > self.model.now
        assert self.store.answer(f"p{number}", status, f"{status}!") == can
        if can and one is not None:
            one[1:] = status, f"{status}!"

    @invariant()
    def all_requests_are_known(self) -> None:
        expected = [
            Approval(one.id, one.binding, one.session, one.at, one.expires, one.request, status, answer)
            for one, status, answer in self.model.approvals.values()
        ]
        assert list(self.store.approvals()) == expected
        for status in ("pending", "used"):
            asked = self.store.approvals(status=status, binding="a", session="s")
            assert list(asked) == [
                one for one in expected if (one.status, one.binding, one.session) == (status, "a", "s")
            ]
        assert self.store.approval("p0") == (expected[0] if expected else None)


def spend(key: str, amount: Decimal) -> Spend:
    window, bound = BUDGETS[key]
    return Spend(f"rule-{key}", key, amount, bound, window, Reason("no_budget", "none"))


@pytest.mark.parametrize("name", sorted(WITH_CLOCK))
def test_a_store_does_what_the_model_does(name: str) -> None:
    """Whatever is asked in whatever order, and however the clock jumps, a store answers as the model does.

    In no window is more granted than its bound; and where a grant is refused, it didn't fit within two buckets more.
    """
    machine = type("Machine", (Machine,), {"make": staticmethod(WITH_CLOCK[name])})
    profile = settings(max_examples=2_000 if LONG else 60, stateful_step_count=60 if LONG else 40, deadline=None)
    run_state_machine_as_test(machine, settings=profile)
