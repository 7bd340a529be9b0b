"""Test obligations: who carries them out and when, what failing handlers do, and the handlers that are shipped."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from collections import OrderedDict, UserDict
from collections.abc import AsyncIterator, Awaitable, Generator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import pydantic
import pytest

from agentauthz import (
    Authorizer,
    Basis,
    Denied,
    InvalidArgument,
    Outcome,
    PolicyCheckError,
    PolicySet,
    Request,
    authorize,
    current,
)
from agentauthz.errors import SinkError
from agentauthz.obligations import Duty, Handler, Reach, expire, mask, notify
from agentauthz.records import DecisionRecord, Record
from agentauthz.testing import session as tried
from tests.support import BOT, MARIA, NOON, Recorded, Unreadable

TELL = "permit p on t.do when true with tell()"
MASK = 'permit p on t.do when true with mask(fields: ["ssn"])'


def left_in(record: DecisionRecord) -> list[str]:
    """Return the ids of the obligations that a record says weren't carried out."""
    return [duty.id for duty in record.obligations if duty.left]


def failing(_: Duty, *__: object) -> object:
    """Be a handler that fails, with a secret in its error."""
    raise ValueError("s3cret")


@authorize("t.do")
def do(value: Any = 1) -> Any:
    return value


@authorize("t.do")
async def ado(value: Any = 1) -> Any:
    await asyncio.sleep(0)
    return value


@authorize("t.do")
def steps(values: list[Any], last: Any = None) -> Generator[Any, Any, Any]:
    yield from values
    return last


@authorize("t.do")
async def asteps(values: list[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value


# ---- what is registered


def test_an_obligation_without_a_handler_is_found_when_the_authorizer_is_made() -> None:
    """The error names the obligation, the rule, the place, and what has a handler; nothing is left for a call."""
    with pytest.raises(PolicyCheckError) as raised:
        Authorizer(PolicySet.parse(TELL, "a.authz"), obligations={"log": print})
    text = str(raised.value)
    assert "the obligation `tell` of the rule `p` has no handler" in text
    assert "a.authz:1:28" in text
    assert "`expire`, `log`, `mask`" in text
    assert [found.code for found in raised.value.diagnostics] == ["unhandled-obligation"]


def test_every_obligation_without_a_handler_is_told_of() -> None:
    """All problems come at once, each at its own place."""
    policies = PolicySet.parse("permit a on t.a when true with x() with y()\npermit b on t.b when true with x()")
    with pytest.raises(PolicyCheckError) as raised:
        Authorizer(policies)
    assert [str(found.span) for found in raised.value.diagnostics] == [
        "<policy>:1:27",
        "<policy>:1:36",
        "<policy>:2:27",
    ]


def test_policies_that_oblige_to_more_are_not_put_in_force() -> None:
    """`replace` refuses them, and the old set stays."""
    kept = Recorded(TELL, obligations={"tell": lambda duty: None})
    old = kept.authorizer.policies
    with pytest.raises(PolicyCheckError, match="has no handler"):
        kept.authorizer.replace(PolicySet.parse("permit q on t.do when true with shout()"))
    assert kept.authorizer.policies is old
    assert kept.session().decide("t.do").allowed


def test_a_set_says_which_obligations_it_needs() -> None:
    """`PolicySet.obligations` lists the types, each once and sorted."""
    assert PolicySet.parse(f"{TELL} with a()\npermit q on t.x when true with a()").obligations == ("a", "tell")
    assert PolicySet.parse("permit p on t.do when true").obligations == ()


@pytest.mark.parametrize("wrong", [7, {"tell": 7}, {"": print}, {7: print}, {"tell": Handler}, [("tell", print)]])
def test_what_is_no_handler_is_refused(wrong: Any) -> None:
    """Only functions and handlers, by their names, can be registered."""
    with pytest.raises(InvalidArgument, match="obligations"):
        Authorizer(PolicySet.parse("permit p on t.do when true"), obligations=wrong)


def test_the_parts_of_a_handler_are_functions() -> None:
    """A handler is checked when it is made, and says how much of a call it needs."""
    for part in ("before", "around", "after", "check"):
        with pytest.raises(InvalidArgument, match=part):
            Handler(**{part: 7})  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="send"):
        notify(7)  # type: ignore[arg-type]
    handlers = [Handler(before=print), Handler(around=print), Handler(before=print, after=print), expire]  # type: ignore[arg-type]
    assert [handler.reach for handler in handlers] == [Reach.BEFORE, Reach.AROUND, Reach.RESULT, Reach.SERVICE]


def test_properties_are_checked_when_the_policies_are_loaded() -> None:
    """What the handler says of them is the error, at the obligation; a check that fails is one too."""

    def check(properties: Mapping[str, object]) -> str | None:
        return None if properties["to"] == "ops" else "`tell` takes no such `to`"

    given = {"tell": Handler(before=print, check=check)}
    Authorizer(PolicySet.parse('permit p on t.do when true with tell(to: "ops")'), obligations=given)
    with pytest.raises(PolicyCheckError, match="`tell` takes no such `to`, in the rule `p`"):
        Authorizer(PolicySet.parse('permit p on t.do when true with tell(to: "x")'), obligations=given)
    with pytest.raises(PolicyCheckError, match="can't check it: KeyError"):
        Authorizer(PolicySet.parse(TELL), obligations=given)


def test_a_host_may_put_its_own_handler_in_the_place_of_a_shipped_one() -> None:
    """What is given goes before what is there from the start."""
    kept = Recorded(MASK, obligations={"mask": Handler(after=lambda duty, result: "mine")})
    with kept.session():
        assert do() == "mine"


# ---- before the call


def test_a_function_is_called_before_the_call_with_what_it_is_about() -> None:
    """It gets the obligation, the decision and the request, and the call runs after it."""
    seen: list[Any] = []
    kept = Recorded('permit p on t.do when true with tell(to: "ops", after: 15m)', obligations={"tell": seen.append})

    @authorize("t.do")
    def work(value: int) -> None:
        seen.append("worked")

    with kept.session(purpose="tests"):
        work(5)
    duty, worked = seen
    assert worked == "worked"
    assert (duty.obligation.id, duty.obligation.type) == ("p.0", "tell")
    assert duty.properties == {"to": "ops", "after": dt.timedelta(minutes=15)}
    assert (duty.decision.outcome, duty.decision.rules) == (Outcome.ALLOW, ("p",))
    assert (duty.request.action, duty.request.args, duty.request.purpose) == ("t.do", {"value": 5}, "tests")
    assert (duty.request.subject, duty.request.actor) == (MARIA, BOT)
    assert left_in(kept.decisions[0]) == []


def test_what_is_undetermined_binds_too() -> None:
    """The obligations of a permit that can't be decided are carried out where another permit allows the call."""
    seen: list[str] = []
    policy = "permit p on t.do when true\npermit q on t.do when args.vip with tell()\n"
    policy += "permit r on t.do when args.n > 9 with tell()"
    kept = Recorded(policy, obligations={"tell": lambda duty: seen.append(duty.obligation.id)})
    kept.session().authorize("t.do", args={"n": 1})
    assert seen == ["q.0"]


@pytest.mark.parametrize("handler", [failing, lambda duty: False, lambda duty: asyncio.sleep(0)])
def test_a_handler_that_fails_before_the_call_denies_it(handler: Any) -> None:
    """What raises, says False, or returns a coroutine that nobody awaits is a denial; the record tells which it was."""
    kept = Recorded(TELL, obligations={"tell": handler})
    with kept.session(), pytest.raises(Denied) as denied:
        do(lambda: pytest.fail("it ran"))
    decision = denied.value.decision
    assert decision is not None
    assert (decision.outcome, decision.basis, decision.reasons[0].code) == (
        Outcome.DENY,
        Basis.ERROR,
        "obligation_failed",
    )
    assert denied.value.__cause__ is not None
    (record,) = kept.decisions
    assert (record.outcome, record.basis, left_in(record), decision.record_id) == ("deny", "error", ["p.0"], record.id)
    assert kept.effects == []
    assert b"s3cret" not in record.line()
    assert "s3cret" not in str(denied.value) + repr(denied.value) + repr(decision)


def _steps(duty: Duty) -> Iterator[None]:
    yield pytest.fail("nobody takes them")


async def _async_steps(duty: Duty) -> AsyncIterator[None]:
    yield pytest.fail("nobody takes them")


class _Later:
    def __await__(self) -> Generator[Any, Any, None]:
        yield pytest.fail("nobody awaits it")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    "handler",
    [_steps, _async_steps, contextmanager(_steps), asynccontextmanager(_async_steps), lambda duty: _Later()],
)
async def test_a_handler_that_returns_its_work_undone_denies_the_call(handler: Any, is_async: bool) -> None:
    """A generator, a context manager or an awaitable is nothing that was done, and counts as a failure."""
    session = Recorded(TELL, obligations={"tell": handler}).session()
    decision = await session.adecide("t.do") if is_async else session.decide("t.do")
    assert (decision.outcome, decision.reasons[0].code) == (Outcome.DENY, "obligation_failed")


def test_those_that_can_be_carried_out_still_are() -> None:
    """One that fails, or that nothing here can carry out, keeps the others from nothing."""
    seen: list[str] = []
    policy = 'permit p on t.do when true with bad() with tell() with mask(fields: ["ssn"]) with tell()'
    given = {"bad": failing, "tell": lambda duty: seen.append(f"{duty.obligation.id} {duty.decision.outcome.value}")}
    kept = Recorded(policy, obligations=given)
    assert not kept.session().decide("t.do").allowed
    assert seen == ["p.1 deny", "p.3 deny"]  # inline, the mask has no result
    (record,) = kept.decisions
    assert [reason.code for reason in record.reasons] == ["obligation_unsupported", "obligation_failed"]
    assert left_in(record) == ["p.0", "p.2"]


def test_what_a_failed_handler_denies_spends_nothing() -> None:
    """The reservation comes back, and the record doesn't say that it was granted; marks stay, as they only grow."""
    policy = f"{TELL}\nlimit l on t.do to count <= 1 per subject every 1d\nmark m on t.do"
    working = False
    kept = Recorded(policy, obligations={"tell": lambda duty: working})
    session = kept.session()
    assert not session.decide("t.do").allowed
    assert [budget.granted for budget in kept.decisions[0].budgets] == [False]
    assert session.marks == {"m"}
    working = True
    assert session.decide("t.do").allowed
    assert session.decide("t.do").basis is Basis.LIMIT


def test_a_call_that_is_denied_obliges_to_nothing() -> None:
    """No handler hears of a call without a permit, with a forbid, without a budget, or in a closed session."""
    policy = f"{TELL}\nforbid f on t.do when args.bad == true\nlimit l on t.do to sum(2) <= 1 per subject every 1d"
    kept = Recorded(policy, obligations={"tell": lambda duty: pytest.fail("it was asked")})
    session = kept.session()
    assert [session.decide("t.do", args={"bad": bad}).basis for bad in (True, False)] == [Basis.RULE, Basis.LIMIT]
    session.close()
    assert session.decide("t.do", args={"bad": False}).basis is Basis.AUTHORITY


def test_previews_and_explanations_run_no_handler() -> None:
    """They say what would come of the call, however it will be made: a mask is no reason to hide a tool from a list."""
    policy = f'{TELL} with around() with mask(fields: ["ssn"])'
    asked: list[Duty] = []
    given: dict[str, Any] = {"tell": asked.append, "around": Handler(around=failing)}  # type: ignore[arg-type]
    kept = Recorded(policy, obligations=given)
    assert kept.session().preview("t.do").allowed
    request = Request("t.do", subject=MARIA, actor=BOT)
    assert kept.authorizer.preview(request).allowed
    assert "allow" in kept.authorizer.explain(request).render()
    assert asked == []
    assert not kept.session().decide("t.do").allowed


def test_an_interrupt_in_a_handler_is_recorded_and_goes_on() -> None:
    """What is no `Exception` isn't swallowed: the call is denied, recorded, spends nothing, and it is raised."""
    policy = f"{TELL} with tell()\nlimit l on t.do to count <= 1 per subject every 1d"
    raising: list[type[BaseException]] = [KeyboardInterrupt]

    def tell(duty: Duty) -> None:
        if raising:
            raise raising.pop()

    kept = Recorded(policy, obligations={"tell": tell})
    session = kept.session()
    with pytest.raises(KeyboardInterrupt):
        session.decide("t.do")
    assert (kept.decisions[0].outcome, left_in(kept.decisions[0])) == ("deny", ["p.0"])
    assert session.decide("t.do").allowed


def test_a_handler_that_makes_the_same_call_ends_in_a_denial() -> None:
    """Recursion through handlers runs into Python's bound, which is a failed handler like any other."""
    kept: Recorded = Recorded(TELL, obligations={"tell": lambda duty: kept.authorizer.authorize(duty.request)})
    decision = kept.authorizer.decide(Request("t.do", subject=MARIA))
    assert (decision.outcome, decision.basis) == (Outcome.DENY, Basis.ERROR)


# ---- what handlers are given is theirs


def test_what_a_handler_does_to_its_duty_changes_neither_call_nor_record() -> None:
    """Arguments are copies, and properties can't be changed: what was decided is what runs and what is recorded."""

    def spoil(duty: Duty) -> None:
        duty.request.args["value"].append("spoiled")  # type: ignore[index,union-attr]
        with pytest.raises(TypeError):
            duty.properties["to"] = "spoiled"  # type: ignore[index]
        for one in duty.decision.obligations:
            with pytest.raises(TypeError):
                one.properties["to"] = "spoiled"  # type: ignore[index]

    policy = 'permit p on t.do when len(args.value) == 1 with spoil(to: "ops") with spoil(to: "ops")'
    kept = Recorded(policy, obligations={"spoil": spoil})
    with kept.session():
        assert do([1]) == [1]
    (record,) = kept.decisions
    assert b"spoiled" not in record.line()


def test_a_duty_that_cannot_be_copied_is_a_handler_that_failed() -> None:
    """Facts that raise when they are read deny the call, and it is recorded."""
    kept = Recorded(TELL, obligations={"tell": lambda duty: pytest.fail("it was asked")})
    decision = kept.authorizer.decide(Request("t.do", subject=MARIA, context=Unreadable()))
    assert (decision.outcome, decision.reasons[0].code) == (Outcome.DENY, "obligation_failed")
    assert left_in(kept.decisions[0]) == ["p.0"]


def test_places_of_obligations_outlast_the_cache(tmp_path: Path) -> None:
    """Policies that were kept checked are held to handlers as well, and the error shows the place."""
    (tmp_path / "a.authz").write_text(TELL, encoding="utf-8")
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    for _ in range(2):
        policies = PolicySet.load(tmp_path / "a.authz", cache=cache)
        with pytest.raises(PolicyCheckError, match=r"a\.authz:1:28"):
            Authorizer(policies)


# ---- what a call holds in hand


def entered(log: list[Any], *, fails: str = "") -> Handler:
    """Return a handler that acts around calls, and logs what it sees."""

    @contextmanager
    def around(duty: Duty) -> Iterator[None]:
        log.append("enter")
        if fails == "enter":
            raise ValueError("enter")
        try:
            yield
        except BaseException as error:
            log.append(type(error).__name__)
            raise
        else:
            log.append("leave")
        if fails == "leave":
            raise ValueError("leave")

    return Handler(around=around)


def test_inline_calls_run_only_what_acts_before() -> None:
    """What acts around a call or on its result makes an inline one a denial, whose reason says what to do."""
    kept = Recorded(
        'permit p on t.around when true with around()\npermit q on t.mask when true with mask(fields: ["x"])\n'
        "permit r on t.expire when true with expire(after: 5m)",
        obligations={"around": entered([])},
    )
    session = kept.session()
    texts = {action: session.decide(action).reasons[0].text for action in ("t.around", "t.mask", "t.expire")}
    assert "`around` acts around a call: make it with `perform`, or by a decorated function" in texts["t.around"]
    assert "`mask` acts on the result, which only a decorated function has" in texts["t.mask"]
    assert "`expire` is carried out by token services only" in texts["t.expire"]
    with session.perform("t.around") as decision:
        assert decision.allowed
    for action in ("t.mask", "t.expire"):
        with pytest.raises(Denied, match="obligation_unsupported"), session.perform(action):
            pytest.fail("it ran")


def test_perform_is_entered_and_left_by_what_acts_around() -> None:
    """The context is there during the work, sees its error, and can't swallow it."""
    log: list[Any] = []

    class Swallowing:
        def __enter__(self) -> None:
            log.append("enter")

        def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
            log.append(kind.__name__ if kind else "leave")
            return True

    given = {"around": entered(log), "swallow": Handler(around=lambda duty: Swallowing())}
    kept = Recorded("permit p on t.do when true with around() with swallow()", obligations=given)
    with kept.session() as session:
        with session.perform("t.do"):
            log.append("work")
        with pytest.raises(ZeroDivisionError), session.perform("t.do"):
            1 / 0
    assert log == [
        "enter",
        "enter",
        "work",
        "leave",
        "leave",
        "enter",
        "enter",
        "ZeroDivisionError",
        "ZeroDivisionError",
    ]
    assert [(effect.status, effect.left) for effect in kept.effects] == [("done", ()), ("failed", ())]


def test_a_context_that_cannot_be_entered_denies_and_those_before_it_are_left() -> None:
    """The function doesn't run, the decision's record says why, and no context stays open."""
    log: list[Any] = []
    policy = "permit p on t.do when true with good() with bad()"
    for fails in (entered(log, fails="enter"), Handler(around=failing), Handler(around=lambda duty: object())):  # type: ignore[arg-type,return-value]
        kept = Recorded(policy, obligations={"good": entered(log), "bad": fails})
        with kept.session(), pytest.raises(Denied, match="obligation_failed"):
            do(lambda: pytest.fail("it ran"))
        assert log[0] == "enter"
        assert len(log) in (2, 3)
        assert log[-1] in ("ValueError", "AttributeError")
        assert left_in(kept.decisions[0]) == ["p.1"]
        log.clear()


def test_a_context_that_fails_after_the_work_withholds_the_result() -> None:
    """The work was done, and is recorded so, with what was left; its caller gets a denial, and so does `perform`'s."""
    kept = Recorded("permit p on t.do when true with around()", obligations={"around": entered([], fails="leave")})
    with kept.session() as session:
        with pytest.raises(Denied, match="result_withheld"):
            do()
        with pytest.raises(Denied, match="result_withheld"), session.perform("t.do"):
            pass
    assert [(effect.status, effect.left) for effect in kept.effects] == [("done", ("p.0",))] * 2
    assert [record.outcome for record in kept.decisions] == ["allow", "allow"]


def test_a_call_that_cannot_be_recorded_leaves_its_contexts() -> None:
    """Where the record fails after the contexts were entered, the call is denied and they are left with the error."""

    class Full:
        def append(self, line: bytes, record: Record) -> None:
            raise SinkError("full")

        def close(self) -> None:
            """Close nothing."""

    log: list[Any] = []
    kept = Recorded("permit p on t.do when true with around()", sinks=[Full()], obligations={"around": entered(log)})
    with kept.session(), pytest.raises(Denied, match="not_recorded"):
        do()
    assert log == ["enter", "SinkError"]


def test_contexts_are_left_before_the_result_is_changed() -> None:
    """What is around the call is around the function alone; the last one entered is left first."""
    log: list[Any] = []
    given: dict[str, Any] = {
        "around": entered(log),
        "after": Handler(after=lambda duty, result: log.append("after")),
    }
    with Recorded("permit p on t.do when true with after() with around()", obligations=given).session():
        do()
    assert log == ["enter", "leave", "after"]


# ---- on the result


def test_a_result_is_masked_and_the_original_is_not() -> None:
    """The caller gets a copy; the function's own object stays as it is."""
    original = {"ssn": "123", "name": "x"}
    kept = Recorded(MASK)

    @authorize("t.do")
    def find() -> Any:
        return original

    with kept.session():
        assert find() == {"ssn": "•••", "name": "x"}
    assert original == {"ssn": "123", "name": "x"}
    assert [(effect.status, effect.left) for effect in kept.effects] == [("done", ())]


def test_handlers_of_the_result_get_it_one_after_the_other() -> None:
    """Each gets what the one before it returned, in the order of rules and places, with its session current."""
    given = {"add": Handler(after=lambda duty, result: f"{result}{duty.properties['it']}{current().session.id}")}
    policy = (
        'permit b on t.do when true with add(it: "3")\npermit a on t.do when true with add(it: "1") with add(it: "2")'
    )
    with Recorded(policy, obligations=given).session(id="s"):
        assert do("0") == "01s2s3s"


def test_a_result_whose_handler_fails_is_withheld() -> None:
    """The call has run, and that is what its effect and the denial say; nothing of the result comes out."""
    policy = f"{MASK}\nlimit l on t.do to count <= 1 per subject every 1d"
    kept = Recorded(policy)

    @authorize("t.do", release_on_error=True)
    def find() -> Any:
        return "the ssn is s3cret"

    with kept.session() as session:
        with pytest.raises(Denied) as denied:
            find()
        assert not session.decide("t.do").allowed  # what it spent is spent, since it ran
    decision = denied.value.decision
    assert decision is not None
    assert (decision.outcome, decision.basis, decision.allowed) == (Outcome.DENY, Basis.ERROR, False)
    assert decision.record_id == kept.decisions[0].id
    assert "has run, but its result is withheld (result_withheld)" in str(denied.value)
    (effect,) = kept.effects
    assert (effect.status, effect.left, effect.error_type) == ("done", ("p.0",), None)
    assert b"s3cret" not in effect.line()
    assert "s3cret" not in str(denied.value) + str(denied.value.__cause__)


def test_a_function_that_fails_needs_no_mask() -> None:
    """Its error goes on as it is, and its effect says that it failed; handlers of results aren't asked."""
    kept = Recorded(TELL, obligations={"tell": Handler(after=failing)})

    @authorize("t.do")
    def broken() -> None:
        raise LookupError("gone")

    with kept.session(), pytest.raises(LookupError):
        broken()
    assert [(effect.status, effect.left) for effect in kept.effects] == [("failed", ())]


def test_an_interrupt_in_a_handler_of_the_result_withholds_it_too() -> None:
    """It goes on as what it is; the effect says that the function was done and its obligation left."""

    def interrupt(duty: Duty, result: object) -> object:
        raise KeyboardInterrupt

    kept = Recorded(TELL, obligations={"tell": Handler(after=interrupt)})
    with kept.session(), pytest.raises(KeyboardInterrupt):
        do()
    assert [(effect.status, effect.left) for effect in kept.effects] == [("done", ("p.0",))]


def test_each_item_of_a_generator_is_masked() -> None:
    """So is what it returns at its end, and what is sent into it arrives."""
    kept = Recorded(MASK)
    got: list[Any] = []

    def outer() -> Iterator[Any]:
        got.append((yield from steps([{"ssn": 1}, {"ssn": 2, "a": 1}], {"ssn": 3})))

    with kept.session():
        items = list(outer())
    assert items == [{"ssn": "•••"}, {"ssn": "•••", "a": 1}]
    assert got == [{"ssn": "•••"}]
    assert [effect.status for effect in kept.effects] == ["done"]


def test_a_generator_ends_where_an_item_cannot_be_masked() -> None:
    """The item doesn't come out, the generator is closed, and its effect says that it was stopped."""
    closed: list[str] = []
    kept = Recorded(MASK)

    @authorize("t.do")
    def stream() -> Iterator[Any]:
        try:
            yield {"ssn": 1}
            yield "ssn 2"
            yield {"ssn": 3}
        finally:
            closed.append("closed")

    with kept.session():
        items = stream()
        assert next(items) == {"ssn": "•••"}
        with pytest.raises(Denied, match="result_withheld"):
            next(items)
        assert closed == ["closed"]
        assert list(items) == []
    assert [(effect.status, effect.left) for effect in kept.effects] == [("stopped", ("p.0",))]


def test_a_generator_that_is_closed_early_leaves_its_contexts() -> None:
    """The context is entered at the first step, there between steps, and left when the consumer stops."""
    log: list[Any] = []
    kept = Recorded("permit p on t.do when true with around()", obligations={"around": entered(log)})
    with kept.session():
        items = steps([1, 2, 3])
        assert log == []
        assert next(items) == 1
        items.close()
        assert list(steps([1])) == [1]
    assert log == ["enter", "GeneratorExit", "enter", "leave"]
    assert [effect.status for effect in kept.effects] == ["stopped", "done"]


# ---- async calls


def awaited(log: list[Any]) -> dict[str, Handler]:
    """Return handlers that are coroutine functions, and one that is an async context."""

    async def before(duty: Duty) -> None:
        await asyncio.sleep(0)
        log.append("before")

    async def after(duty: Duty, result: Any) -> Any:
        await asyncio.sleep(0)
        return [result]

    @asynccontextmanager
    async def around(duty: Duty) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        log.append("enter")
        try:
            yield
        finally:
            await asyncio.sleep(0)
            log.append("leave")

    return {"before": Handler(before=before), "after": Handler(after=after), "around": Handler(around=around)}


async def test_async_calls_await_their_handlers() -> None:
    """Coroutine functions and async contexts serve coroutines, async generators and async `perform`."""
    log: list[Any] = []
    policy = "permit p on t.do, t.work when true with before() with around()\npermit q on t.do when true with after()"
    kept = Recorded(policy, obligations=awaited(log))
    async with kept.session() as session:
        assert await ado(1) == [1]
        assert [item async for item in asteps([1, 2])] == [[1], [2]]
        async with session.perform("t.work"):
            log.append("work")
    once = ["before", "enter", "leave"]
    assert log == [*once, *once, "before", "enter", "work", "leave"]
    assert [effect.status for effect in kept.effects] == ["done"] * 3


def test_calls_that_are_not_async_are_denied_where_a_handler_is() -> None:
    """A handler that would have to be awaited is known not to fit before anything runs; a context, when it is met."""
    for name in ("before", "after"):
        kept = Recorded(f"permit p on t.do when true with {name}()", obligations=awaited([]))
        with kept.session(), pytest.raises(Denied, match="obligation_unsupported"):
            do()
        assert "is not async" in kept.decisions[0].reasons[0].text
    kept = Recorded("permit p on t.do when true with around()", obligations=awaited([]))
    with kept.session(), pytest.raises(Denied, match="obligation_failed"):
        do()


async def test_handlers_that_are_no_coroutines_serve_async_calls() -> None:
    """A function, a context and `mask` do in async calls what they do in others."""
    log: list[Any] = []
    policy = f"{MASK} with around() with tell()"
    kept = Recorded(policy, obligations={"around": entered(log), "tell": lambda duty: log.append("tell")})
    async with kept.session() as session:
        assert await ado({"ssn": 1}) == {"ssn": "•••"}
        assert [item async for item in asteps([{"ssn": 1}])] == [{"ssn": "•••"}]
        with pytest.raises(Denied, match="result_withheld"):
            await ado("ssn")
        with pytest.raises(Denied, match="result_withheld"):
            [item async for item in asteps([{"ssn": 1}, "ssn"])]
        assert not (await session.adecide("t.do")).allowed
    assert [(effect.status, effect.left) for effect in kept.effects] == [
        ("done", ()), ("done", ()), ("done", ("p.0",)), ("stopped", ("p.0",)),
    ]  # fmt: skip
    assert log == ["tell", "enter", "leave"] * 2 + ["tell", "enter", "leave", "tell", "enter", "Denied", "tell"]


async def test_a_function_that_returns_a_coroutine_has_what_comes_of_it_masked() -> None:
    """The result is what the coroutine returns, not the coroutine."""

    async def find() -> Any:
        return {"ssn": 1}

    @authorize("t.do")
    def later() -> Awaitable[Any]:
        return find()

    with Recorded(MASK).session():
        assert await later() == {"ssn": "•••"}


@pytest.mark.parametrize("when", ["before", "around", "after"])
async def test_a_call_that_is_cancelled_in_a_handler_lets_nothing_out(when: str) -> None:
    """Before the call that is a recorded denial which spends nothing; after it, the function was done."""

    async def hang(*_: object) -> None:
        await asyncio.sleep(3600)

    @asynccontextmanager
    async def hanging(duty: Duty) -> AsyncIterator[None]:
        await hang()
        yield

    handler = {"before": Handler(before=hang), "around": Handler(around=hanging), "after": Handler(after=hang)}[when]
    policy = f"{TELL}\nlimit l on t.do to count <= 1 per subject every 1d"
    kept = Recorded(policy, obligations={"tell": handler})
    with kept.session():
        task = asyncio.create_task(ado())
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (record,) = kept.decisions
    used = kept.authorizer.preview(Request("t.do", subject=MARIA, actor=BOT)).budgets[0].used
    if when == "after":
        assert (record.outcome, used) == ("allow", Decimal(1))
        assert [(effect.status, effect.left) for effect in kept.effects] == [("done", ("p.0",))]
    else:
        assert (record.outcome, left_in(record), used) == ("deny", ["p.0"], Decimal(0))
        assert kept.effects == []


async def test_a_coroutine_that_is_closed_in_a_handler_is_recorded() -> None:
    """What is being closed may not wait: its denial is written all the same, and its contexts are left."""
    log: list[Any] = []

    @asynccontextmanager
    async def hanging(duty: Duty) -> AsyncIterator[None]:
        await asyncio.sleep(3600)
        yield

    given = {"around": entered(log), "hang": Handler(around=hanging)}
    kept = Recorded("permit p on t.do when true with around() with hang()", obligations=given)
    with kept.session():
        running = ado()
        running.send(None)
        running.close()
    assert (kept.decisions[0].outcome, left_in(kept.decisions[0])) == ("deny", ["p.1"])
    assert log == ["enter", "GeneratorExit"]


# ---- observe mode, and where else calls come from


def observed(policy: str, **options: Any) -> Recorded:
    return Recorded(policy, mode="observe", observe_until=NOON + dt.timedelta(hours=1), **options)


def test_observe_mode_lets_calls_run_whose_obligations_fail_before_them() -> None:
    """It records the denial and lets the call run; what can be carried out still is."""
    policy = f"{MASK} with tell()"
    kept = observed(policy, obligations={"tell": failing})
    with kept.session() as session:
        assert do({"ssn": 1}) == {"ssn": "•••"}
        decision = session.decide("t.do")
    assert (decision.outcome, decision.allowed, decision.enforced) == (Outcome.DENY, True, False)
    assert [(record.outcome, record.enforced) for record in kept.decisions] == [("deny", False)] * 2
    assert [left_in(record) for record in kept.decisions] == [["p.1"], ["p.0", "p.1"]]


def test_observe_mode_withholds_what_a_handler_could_not_change() -> None:
    """A mask that fails is no missing permission: showing the result can't be taken back."""
    kept = observed(MASK)
    with kept.session(), pytest.raises(Denied, match="result_withheld"):
        do("ssn")


def test_an_interrupt_goes_on_in_observe_mode_too() -> None:
    """The call doesn't run."""

    def interrupt(duty: Duty) -> None:
        raise KeyboardInterrupt

    with observed(TELL, obligations={"tell": interrupt}).session(), pytest.raises(KeyboardInterrupt):
        do()


def test_handing_off_is_a_call_with_obligations_too() -> None:
    """A permit for `delegation.handoff` obliges as any other."""
    seen: list[str] = []
    policy = "permit p on delegation.handoff when true with tell()"
    kept = Recorded(policy, obligations={"tell": lambda duty: seen.append(duty.request.action)})
    kept.session().delegate(BOT, handoff=True)
    assert seen == ["delegation.handoff"]


def test_sessions_for_tests_take_handlers() -> None:
    """`testing.session` tries a policy with obligations out."""
    with tried(MASK, obligations={"mask": Handler(after=lambda duty, result: "x")}):
        assert do() == "x"


# ---- mask


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    number: str
    name: str = "x"


@attrs.frozen
class Account:
    ssn: int = attrs.field(validator=attrs.validators.instance_of(int))
    cards: list[Card] = attrs.field(factory=list)


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    ssn: int = pydantic.Field(alias="SSN")
    card: Card | None = None


class Point(NamedTuple):
    ssn: int


class Lying(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


def masked(result: Any, *fields: str, **more: Any) -> Any:
    """Return what `mask` makes of a result, by way of a guarded function."""
    listed = ", ".join(f'"{field}"' for field in fields)
    value = "".join(f", {name}: {constant}" for name, constant in more.items())
    with Recorded(f"permit p on t.give when true with mask(fields: [{listed}]{value})").session():

        @authorize("t.give")
        def give() -> Any:
            return result

        return give()


@pytest.mark.parametrize(
    ("result", "fields", "shown"),
    [
        ({"ssn": 1, "b": 2}, ["ssn"], {"ssn": "•••", "b": 2}),
        ({"ssn": None}, ["ssn"], {"ssn": "•••"}),
        ({"a": {"b": {"c": 1, "d": 2}}}, ["a.b.c"], {"a": {"b": {"c": "•••", "d": 2}}}),
        ({"a": {"b": 1, "c": 2}}, ["a.b", "a.c"], {"a": {"b": "•••", "c": "•••"}}),
        ({"a": {"b": 1}}, ["a.b", "a"], {"a": "•••"}),
        ([{"ssn": 1}, ({"ssn": 2},)], ["ssn"], [{"ssn": "•••"}, ({"ssn": "•••"},)]),
        ({"rows": [{"ssn": 1}, {"ssn": 2}]}, ["rows.ssn"], {"rows": [{"ssn": "•••"}, {"ssn": "•••"}]}),
        (OrderedDict(ssn=1), ["ssn"], {"ssn": "•••"}),
        (UserDict(ssn=1), ["ssn"], {"ssn": "•••"}),
        ({Lying("ssn"): 1}, ["ssn"], {"ssn": "•••"}),
        (Card("4711"), ["number"], Card("•••")),
        ([Account(1, [Card("4711")])], ["cards.number"], [Account(1, [Card("•••")])]),
        ({"a": 1}, ["ssn?", "b?.c"], {"a": 1}),
        ({"b": {"c": 1}}, ["b?.c"], {"b": {"c": "•••"}}),
        ({"b": None}, ["b.c"], {"b": None}),
        (None, ["ssn"], None),
        ([], ["ssn"], []),
        ([None, {"ssn": 1}], ["ssn"], [None, {"ssn": "•••"}]),
    ],
)  # fmt: skip
def test_fields_are_masked_wherever_their_path_leads(result: Any, fields: list[str], shown: Any) -> None:
    """Paths go through mappings, objects with fields, and each element of lists; None and nothing hold nothing."""
    before = repr(result)
    assert masked(result, *fields) == shown
    assert repr(result) == before


def test_objects_are_masked_without_their_validators() -> None:
    """The mask stands where a number stood; what was computed from the field is gone with it."""
    account = masked(Account(1), "ssn")
    assert (type(account), account.ssn, account.cards) == (Account, "•••", [])
    person = masked(Person(SSN=1, card=Card("4711"), other="o"), "ssn", "card.number", "other")  # type: ignore[call-arg]
    assert (type(person), person.ssn, person.card, person.other) == (Person, "•••", Card("•••"), "•••")
    cached = Card("4711")
    loose = dataclasses.make_dataclass("Loose", ["ssn"])(1)
    loose.also = "ssn 1"
    assert vars(masked(loose, "ssn")) == {"ssn": "•••"}
    assert cached == Card("4711")


def test_a_policy_says_what_stands_in_the_place_of_a_field() -> None:
    """`value` is any constant."""
    assert masked({"n": 7, "m": 1}, "n", value="0") == {"n": 0, "m": 1}


@pytest.mark.parametrize(
    "result",
    [
        "ssn: 1", b"ssn", 7, Decimal(7), object(), {1, 2}, Point(1), iter([{"ssn": 1}]),
        (item for item in [{"ssn": 1}]),
        {"SSN": 1}, {"other": 1}, Card("4711"), [{"ssn": 1}, {}], [{"ssn": 1}, "ssn"], {"ssn": 1, Lying("ssn"): 2},
        type("Rows", (list,), {})([{"ssn": 1}]), Card,
    ],
)  # fmt: skip
def test_what_has_another_shape_is_withheld(result: Any) -> None:
    """A text, an iterator, a class of its own, a field that isn't there: nobody knows what would be shown."""
    with pytest.raises(Denied, match="result_withheld"):
        masked(result, "ssn")


def test_a_result_that_lies_about_its_fields_shows_nothing() -> None:
    """What hides a field from its items loses it in the copy; what raises, or never ends, is withheld."""

    class Hiding(dict[str, object]):
        def items(self) -> Any:
            return [("ssn", 1)]

    shown = masked(Hiding(ssn=1, other="ssn 1"), "ssn")
    assert (type(shown), shown) == (dict, {"ssn": "•••"})

    class Raising(UserDict[str, object]):
        def items(self) -> Any:
            raise LookupError("ssn 1")

    endless: list[Any] = []
    endless.append(endless)
    for result in (Raising(ssn=1), endless):
        with pytest.raises(Denied, match="result_withheld"):
            masked(result, "ssn")


def test_large_results_are_masked_whole() -> None:
    """There is no bound on elements after which they would come out as they are."""
    assert {row["ssn"] for row in masked([{"ssn": n} for n in range(50_000)], "ssn")} == {"•••"}


@pytest.mark.parametrize(
    "given",
    ["", "fields: []", 'fields: "ssn"', "fields: [1]", 'fields: [""]', 'fields: ["a..b"]', 'fields: ["a.?"]',
     'field: ["ssn"]', 'fields: ["ssn"], with: 1'.replace("with", "by_")],
)  # fmt: skip
def test_masks_are_checked_when_policies_are_loaded(given: str) -> None:
    """A path that can't be one, and properties that there aren't, are found before any call."""
    with pytest.raises(PolicyCheckError, match="`mask` takes"):
        Authorizer(PolicySet.parse(f"permit p on t.do when true with mask({given})"))


# ---- notify


def test_notify_sends_a_line_without_arguments() -> None:
    """Who does what for whom, and how it was decided; control characters are shown, not obeyed."""
    sent: list[tuple[str, Mapping[str, object]]] = []
    policy = 'permit p on t.do when true with notify(channel: "#ops")'
    kept = Recorded(policy, obligations={"notify": notify(lambda text, properties: sent.append((text, properties)))})
    with kept.session(purpose="a\x1b[2J\u202eb"):
        do("s3cret")
    ((text, properties),) = sent
    assert text == '`t.do` by agent("bot") for user("maria"), purpose "a\\x1b[2J\\u202eb": allow'
    assert properties == {"channel": "#ops"}


async def test_notify_awaits_a_coroutine_function() -> None:
    """In async calls it may; what it raises denies."""
    sent: list[str] = []

    async def send(text: str, properties: Mapping[str, object]) -> None:
        await asyncio.sleep(0)
        sent.append(text)
        if len(sent) > 1:
            raise ConnectionError

    kept = Recorded("permit p on t.do when true with notify()", obligations={"notify": notify(send)})
    session = kept.session()
    assert [(await session.adecide("t.do")).allowed for _ in range(2)] == [True, False]
    assert len(sent) == 2


def test_what_is_shipped_is_what_is_said_to_be() -> None:
    """`mask` acts on results, and `expire` is for those who issue tokens."""
    assert (mask.reach, expire.reach, notify(print).reach) == (Reach.RESULT, Reach.SERVICE, Reach.BEFORE)


def test_calls_without_obligations_carry_nothing() -> None:
    """Nobody's result is touched where no permit says so."""
    kept, value = Recorded(obligations={"tell": failing}), object()
    with kept.session():
        assert do(value) is value
    assert kept.effects[0].left == ()
