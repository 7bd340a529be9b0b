"""The authorizer: policies in force, sinks that fail, observe mode, requests by hand."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import threading
from pathlib import Path
from typing import Any

import attrs
import pytest

from agentauthz import (
    Authorizer,
    Basis,
    Denied,
    InvalidArgument,
    Outcome,
    PolicyCheckError,
    PolicySet,
    PolicySyntaxError,
    Request,
    Resource,
    ReviewRequired,
    SessionFacts,
    State,
    authorize,
    current,
)
from agentauthz.errors import AgentAuthzError, PolicyLoadError
from agentauthz.records import EffectRecord
from agentauthz.state import SqliteState
from agentauthz.values import UNKNOWN
from tests.support import ANYTHING, BOT, MARIA, NOON, Clock, Recorded

DENY = "forbid f on * when true\npermit p on * when true"


@authorize("t.run")
def run() -> str:
    return "ran"


def request(**options: Any) -> Request:
    return Request(**{"action": "t.run", "subject": MARIA, "actor": BOT, "now": NOON, **options})


# ---- policies in force


def test_policies_come_from_a_set_a_file_or_a_folder(tmp_path: Path) -> None:
    """A folder's files are one set; their order doesn't matter."""
    (tmp_path / "b").mkdir()
    (tmp_path / "a.authz").write_text("permit p on t.run when ok")
    (tmp_path / "b" / "c.authz").write_text("let ok = true and subject is user")
    (tmp_path / "notes.txt").write_text("not a policy")
    with Authorizer(tmp_path) as authorizer:
        assert authorizer.decide(request()).allowed
    with pytest.raises(PolicyCheckError):
        Authorizer(str(tmp_path / "a.authz"))


def test_policies_that_can_not_be_used_are_refused_at_once(tmp_path: Path) -> None:
    """Missing, empty, of another kind, not UTF-8, a duplicate over two files: each by its own clear error."""
    (empty := tmp_path / "empty").mkdir()
    (twice := tmp_path / "twice").mkdir()
    for name in ("a", "b"):
        (twice / f"{name}.authz").write_text("permit p on t.run when subject is user")
    (latin := tmp_path / "latin.authz").write_bytes(b'permit p on "\xff" when true')
    (other := tmp_path / "policy.txt").write_text("permit p on t.run when subject is user")
    wrong: list[tuple[Any, type[AgentAuthzError], str]] = [
        (tmp_path / "missing.authz", PolicyLoadError, "missing.authz"),
        (empty, PolicyLoadError, "holds no file"),
        (other, PolicyLoadError, "ends in .authz"),
        (latin, PolicySyntaxError, "latin.authz:1:14"),
        (twice, PolicyCheckError, "b.authz"),
        (3, InvalidArgument, "path"),
        (None, InvalidArgument, "path"),
        ("permit p on t.run\n  when subject is user", InvalidArgument, "`PolicySet.parse` takes that"),
    ]
    for given, error, text in wrong:
        with pytest.raises(error, match=text):
            Authorizer(given)


def test_a_digest_pins_the_policies() -> None:
    """Others are refused, when the authorizer is made and when they are replaced."""
    ours, theirs = PolicySet.parse(ANYTHING), PolicySet.parse(DENY)
    authorizer = Authorizer(ours, digest=ours.digest)
    with pytest.raises(InvalidArgument, match="digest"):
        Authorizer(theirs, digest=ours.digest)
    with pytest.raises(InvalidArgument, match="digest"):
        authorizer.replace(theirs, digest=ours.digest)
    assert authorizer.policies is ours


def test_a_set_that_fails_to_load_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    """replace is all or nothing."""
    (tmp_path / "p.authz").write_text("permit p on")
    kept = Recorded()
    with pytest.raises(PolicySyntaxError):
        kept.authorizer.replace(tmp_path)
    assert kept.authorizer.decide(request()).allowed


def test_replacing_while_calls_run_is_atomic() -> None:
    """Each decision is by one whole set: never by a mixture, never by none."""
    a = PolicySet.parse("permit a1 on t.run when true\npermit a2 on t.run when true")
    b = PolicySet.parse("permit b1 on t.run when true\nforbid b2 on t.run when true")
    kept = Recorded()
    kept.authorizer.replace(a)
    stop = threading.Event()

    def replace() -> None:
        while not stop.is_set():
            kept.authorizer.replace(b)
            kept.authorizer.replace(a)

    thread = threading.Thread(target=replace)
    thread.start()
    expected = {a.digest: ("a1", "a2"), b.digest: ("b2",)}
    seen = set()
    for _ in range(3000):
        decision = kept.authorizer.decide(request())
        assert decision.rules == expected[decision.policy_digest]
        seen.add(decision.policy_digest)
    stop.set()
    thread.join()
    assert len(seen) == 2


# ---- construction


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "audit"},
        {"mode": "observe"},
        {"observe_until": NOON + dt.timedelta(days=1)},
        {"mode": "observe", "observe_until": NOON},
        {"mode": "observe", "observe_until": dt.datetime(2030, 1, 1)},  # noqa: DTZ001
        {"key": b"secret"},
        {"sinks": [object()]},
        {"sinks": 3},
        {"clock": lambda: dt.datetime(2026, 1, 1), "mode": "observe", "observe_until": NOON},  # noqa: DTZ001
    ],
    ids=lambda options: ",".join(options),
)
def test_wrong_options_are_refused_at_once(options: dict[str, Any]) -> None:
    """Not at the first decision."""
    with pytest.raises(InvalidArgument):
        Recorded(**options)


# ---- sinks


class Failing:
    """Be a sink that can't keep anything."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def append(self, line: bytes, record: Any) -> None:
        raise self.error

    def close(self) -> None: ...


@pytest.mark.parametrize("error", [OSError("disk"), ValueError("x"), MemoryError()], ids=repr)
def test_a_failing_sink_turns_allow_into_deny(error: Exception) -> None:
    """The function doesn't run, and the cause is kept."""
    kept = Recorded(sinks=[Failing(error)])
    with kept.session(), pytest.raises(Denied) as denied:
        run()
    decision = denied.value.decision
    assert decision is not None
    assert (decision.basis, decision.reasons[0].code) == (Basis.ERROR, "not_recorded")
    assert denied.value.__cause__ is not None


async def test_a_failing_sink_denies_async_calls_too() -> None:
    """The async twin fails closed as well."""

    @authorize("t.run")
    async def arun() -> None:
        raise AssertionError("ran")

    async with Recorded(sinks=[Failing(OSError("disk"))]).session():
        with pytest.raises(Denied):
            await arun()


def test_an_interrupt_is_not_swallowed() -> None:
    """KeyboardInterrupt in a sink goes through, and the call doesn't run."""
    with Recorded(sinks=[Failing(KeyboardInterrupt())]).session(), pytest.raises(KeyboardInterrupt):
        run()


def test_a_sink_that_asks_for_a_decision_is_refused() -> None:
    """Neither recursion nor an allow comes of it."""
    kept = Recorded()
    asked = []

    class Asking:
        def append(self, line: bytes, record: Any) -> None:
            asked.append(kept.authorizer.decide(request()))

        def close(self) -> None: ...

    kept.authorizer.add_sink(Asking())
    with kept.session():
        run()
    assert {decision.reasons[0].code for decision in asked} == {"inside_a_sink"}
    assert not any(decision.allowed for decision in asked)


def test_an_effect_that_can_not_be_recorded_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The call has run: its result isn't lost for it."""
    kept = Recorded()

    class NoEffects:
        def append(self, line: bytes, record: Any) -> None:
            if isinstance(record, EffectRecord):
                raise OSError("disk")

        def close(self) -> None: ...

    kept.authorizer.add_sink(NoEffects())
    with kept.session():
        assert run() == "ran"
    assert "couldn't be recorded" in caplog.text


def test_after_close_everything_is_denied() -> None:
    """What can't be recorded must not happen."""
    kept = Recorded()
    session = kept.session()
    kept.authorizer.close()
    kept.authorizer.close()
    assert not session.decide("t.run").allowed


def test_without_sinks_decisions_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Denials at WARNING, allows at INFO, without values."""
    with caplog.at_level(logging.INFO, logger="agentauthz.decisions"):
        authorizer = Authorizer(PolicySet.parse("permit p on t.run when args.n == 1"))
        authorizer.decide(request(args={"n": 1}))
        authorizer.decide(request(args={"n": "CANARY"}))
    levels = [record.levelname for record in caplog.records if record.name == "agentauthz.decisions"]
    assert levels == ["INFO", "WARNING"]
    assert "CANARY" not in caplog.text


# ---- observe mode


def test_observe_mode_lets_run_what_only_lacks_something() -> None:
    """A permit, an approval, a budget; forbids, authority and expiry are enforced all the same."""
    policy = """
permit p on t.review, t.limit, t.forbid, t.unsure when true
review r on t.review when true by approver != subject
limit l on t.limit to sum(2) <= 1 per subject every 1d
forbid f on t.forbid when true
forbid u on t.unsure when args.missing == 1
"""
    kept = Recorded(policy, mode="observe", observe_until=NOON + dt.timedelta(days=1))
    with kept.session() as session:
        for action in ("t.other", "t.review", "t.limit"):
            decision = session.authorize(action)
            assert (decision.allowed, decision.enforced, decision.outcome is Outcome.ALLOW) == (True, False, False)
        for action in ("t.forbid", "t.unsure"):
            with pytest.raises(Denied):
                session.authorize(action)
        narrow = session.delegate(BOT, actions=["t.other"])
        with pytest.raises(Denied):
            narrow.authorize("t.review")
    assert {record.mode for record in kept.decisions} == {"observe"}
    with pytest.raises(Denied):
        session.authorize("t.other")


def test_observe_mode_ends() -> None:
    """At its end the same calls are denied."""
    kept = Recorded("permit p on t.x when true", mode="observe", observe_until=NOON + dt.timedelta(hours=1))
    with kept.session() as session:
        assert session.decide("t.run").allowed
        kept.clock.forward(hours=1)
        assert not session.decide("t.run").allowed


def test_observe_mode_sets_marks() -> None:
    """A call that is let run has touched what it has touched."""
    policy = 'mark m on t.run when true\nforbid f on t.send when "m" in session.marks'
    kept = Recorded(policy, mode="observe", observe_until=NOON + dt.timedelta(hours=1))
    with kept.session() as session:
        run()
        assert session.marks == {"m"}
        with pytest.raises(Denied):
            session.authorize("t.send")


def test_observe_mode_does_not_let_run_what_can_not_be_recorded() -> None:
    """Observing without a record would be letting run blindly."""
    kept = Recorded(mode="observe", observe_until=NOON + dt.timedelta(hours=1), sinks=[Failing(OSError())])
    with kept.session(), pytest.raises(Denied):
        run()


# ---- what waits for later


def test_limits_and_obligations_deny() -> None:
    """A budget without room and an obligation that nobody carries out are no reason to allow."""
    policy = """
permit p on t.limit, t.free when true
permit q on t.duty when true with mask(fields: ["ssn"])
limit l on t.limit to sum(args.amount) <= 100 per subject every 1d
"""
    kept = Recorded(policy)
    with kept.session() as session:
        assert session.decide("t.free").allowed
        assert session.decide("t.limit", args={"amount": 100}).allowed
        limited = session.decide("t.limit", args={"amount": 1})
        assert (limited.outcome, limited.basis, limited.rules) == (Outcome.DENY, Basis.LIMIT, ("l",))
        duty = session.decide("t.duty")
        assert (duty.outcome, duty.basis, duty.reasons[0].code) == (Outcome.DENY, Basis.ERROR, "obligation_unsupported")


# ---- resources


def test_adapters_make_resources() -> None:
    """For a class and its subclasses; what they raise or return wrongly denies."""

    class Row:
        def __init__(self, key: int, owner: str) -> None:
            self.key, self.owner = key, owner

    class SubRow(Row): ...

    kept = Recorded('permit p on t.run when resource.type == "row" and resource.owner == "anna"')
    kept.authorizer.adapt(Row, lambda row: Resource("row", str(row.key), {"owner": row.owner}))
    with kept.session() as session:
        assert session.decide("t.run", resource=SubRow(1, "anna")).allowed
        assert not session.decide("t.run", resource=Row(1, "eve")).allowed
        broken: Any = Row.__new__(Row)
        with pytest.raises(Denied) as denied:
            session.authorize("t.run", resource=broken)
        assert isinstance(denied.value.__cause__, AttributeError)
        assert session.decide("t.run", resource=object()).basis is Basis.ERROR
    for wrong in ((3, len), (Row, 3)):
        with pytest.raises(InvalidArgument):
            kept.authorizer.adapt(*wrong)


def test_the_tool_sees_the_object_that_was_checked() -> None:
    """current().resource is the original: no second look-up."""

    @attrs.define
    class Order:
        id: str

    order = Order("7")

    @authorize("t.run", resource=lambda: order)
    def tool() -> Any:
        return current().resource

    with Recorded().session():
        assert tool() is order


# ---- requests by hand


def test_requests_by_hand_are_decided_recorded_and_remembered() -> None:
    """Marks belong to the session that the request names."""
    kept = Recorded('mark m on t.run when true\npermit p on * when not ("m" in session.marks) or true')
    session = SessionFacts("s1", NOON)
    assert kept.authorizer.authorize(request(session=session)).record_id == kept.decisions[0].id
    assert kept.authorizer.session(MARIA, id="s1").marks == {"m"}
    with pytest.raises(InvalidArgument):
        kept.authorizer.decide("t.run")  # type: ignore[arg-type]


async def test_the_async_twins_of_the_authorizer() -> None:
    """They raise and return what their twins do."""
    kept = Recorded("permit p on t.run, t.rev when true\nreview r on t.rev when true by approver != subject")
    assert (await kept.authorizer.adecide(request())).allowed
    assert (await kept.authorizer.aauthorize(request())).allowed
    assert (await kept.authorizer.apreview(request())).allowed
    with pytest.raises(ReviewRequired):
        await kept.authorizer.aauthorize(request(action="t.rev"))
    with pytest.raises(Denied):
        await kept.authorizer.aauthorize(request(action="t.other"))


def test_preview_and_explain_take_a_state() -> None:
    """Instead of what the session remembers; nothing is recorded."""
    kept = Recorded("""
type session { marks: ["m"] }
permit p on t.run when true
forbid f on t.run when "m" in session.marks or began("t.x", 1h)
""")
    asked = request(session=SessionFacts("s1", NOON))
    assert kept.authorizer.preview(asked).allowed
    assert not kept.authorizer.preview(asked, state=State(marks={"m"})).allowed
    assert not kept.authorizer.preview(asked, state=State(began={"t.x": NOON})).allowed
    explained = kept.authorizer.explain(asked, state=State(marks={"m"}))
    assert explained.decision.outcome is Outcome.DENY
    assert '"m" in session.marks' in explained.render()
    assert kept.decisions == []


def test_unknown_inputs_never_allow() -> None:
    """Each input of a request may be UNKNOWN, and then decides nothing in favour."""
    policy = """
permit p on t.run when args.n == 1 and resource.id == "7" and purpose == "x" and route == "r"
  and context.c == 1 and session.id == "s"
"""
    whole: dict[str, Any] = {
        "args": {"n": 1}, "resource": Resource("T", "7"), "purpose": "x", "route": "r", "context": {"c": 1},
        "session": SessionFacts("s", NOON),
    }  # fmt: skip
    policies = PolicySet.parse(policy)
    assert policies.decide(request(**whole)).allowed
    for name in whole:
        decision = policies.decide(request(**{**whole, name: UNKNOWN}))
        assert decision.outcome is Outcome.DENY
        assert decision.missing, name


# ---- threads


def test_marks_are_set_once_under_contention() -> None:
    """Threads of one session: after the mark nobody is allowed, before it exactly those that came first."""
    policy = """
permit p on t.once when true
mark used on t.once when true
forbid f on t.once when "used" in session.marks
"""
    kept = Recorded(policy)
    session = kept.session()
    allowed: list[bool] = []
    start = threading.Barrier(8)

    def attempt() -> None:
        start.wait()
        allowed.append(session.decide("t.once").allowed)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert allowed.count(True) == 1


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("state.db", "such as `SqliteState\\(path\\)`, and a `str`"),
        (SqliteState, "`SqliteState` is a class: make one of it"),
    ],
)
def test_what_is_no_store_is_refused(state: Any, told: str) -> None:
    """A path or a class in the place of a store is named at once, and not by every call that it denies."""
    with pytest.raises(InvalidArgument, match=f"`state` must be a state store, .*{told}"):
        Authorizer(PolicySet.parse(ANYTHING), state=state)


def test_a_clock_that_lies_raises() -> None:
    """A clock without a zone can't decide what has expired."""
    clock = Clock()
    kept = Recorded(clock=clock)
    session = kept.session()
    clock.now = dt.datetime(2026, 1, 1)  # noqa: DTZ001
    with pytest.raises(InvalidArgument, match="clock"):
        session.decide("t.run")


def test_a_clock_that_fails_after_a_call_does_not_lose_its_result(caplog: pytest.LogCaptureFixture) -> None:
    """An agent that saw an error would make the payment again."""
    clock = Clock()
    kept = Recorded(clock=clock)

    @authorize("t.run")
    def breaks_the_clock() -> str:
        clock.now = dt.datetime(2026, 1, 1)  # noqa: DTZ001
        return "paid"

    with kept.session():
        assert breaks_the_clock() == "paid"
    assert [effect.status for effect in kept.effects] == ["done"]
    assert "the clock failed" in caplog.text


def test_decisions_run_side_by_side_in_one_loop() -> None:
    """A hundred tasks, one record each, none lost."""
    kept = Recorded()

    async def one(n: int) -> None:
        async with kept.session(id=f"s{n}") as session:
            await session.aauthorize("t.run", args={"n": n})

    async def many() -> None:
        await asyncio.gather(*(one(n) for n in range(100)))

    asyncio.run(many())
    assert len({record.id for record in kept.decisions}) == 100


def test_calls_that_share_an_allow_have_records_of_their_own() -> None:
    """A decision has the id of its own record, and one that wasn't recorded has none, before and after."""
    kept = Recorded()
    silent = Authorizer(kept.authorizer.policies)
    before = silent.decide(request())
    first, second = kept.authorizer.decide(request()), kept.authorizer.decide(request())
    after = silent.decide(request())
    assert [before.record_id, after.record_id] == [None, None]
    assert [first.record_id, second.record_id] == [record.id for record in kept.decisions]
    assert first.record_id != second.record_id
