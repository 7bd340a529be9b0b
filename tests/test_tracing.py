"""Test where records belong: traces, requests, turns and tool calls as the host tells them, and the call around."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from agentauthz import Authorizer, Denied, InvalidArgument, PolicySet, authorize
from agentauthz.records import DecisionRecord, MemorySink
from agentauthz.records.events import Ctx
from agentauthz.tracing import otel_span, tracing
from tests.support import BOT, MARIA

POLICY = """
permit working on t.* when true
forbid no_such on t.never when true
"""
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Traced:
    """Be an authorizer with its records."""

    def __init__(self, ctx: Any = None) -> None:
        self.sink = MemorySink()
        self.authorizer = Authorizer(PolicySet.parse(POLICY), sinks=[self.sink], ctx=ctx)

    def decided(self) -> Ctx:
        self.authorizer.session(MARIA, BOT).decide("t.one")
        return self.sink.decisions[-1].ctx

    def named(self, action: str) -> DecisionRecord:
        [found] = [each for each in self.sink.decisions if each.action.name == action]
        return found


@authorize("t.inner")
def inner() -> str:
    return "done"


@authorize("t.ainner")
async def ainner() -> str:
    return "done"


def test_ids_of_the_host_are_in_decisions_and_effects() -> None:
    """What `ctx` returns at a decision stands in its record, and in that of its effect, though it says more by then."""
    turns = iter(range(7, 99))
    traced = Traced(lambda: {"trace_id": TRACE, "span_id": SPAN, "request_id": "r-1", "turn": next(turns)})
    with traced.authorizer.session(MARIA, BOT):
        inner()
    [decision], [effect] = traced.sink.decisions, traced.sink.effects
    assert decision.ctx == effect.ctx == Ctx(trace_id=TRACE, span_id=SPAN, request_id="r-1", turn=7)


def test_a_block_tells_the_ids_of_what_is_decided_in_it() -> None:
    """`tracing` wins over `ctx`, adds to the block around it, and ends with its block."""
    traced = Traced(lambda: {"turn": 1, "request_id": "outer"})
    with tracing(turn=2, call_id="call_1"), tracing(call_id="call_2"):
        assert traced.decided() == Ctx(request_id="outer", turn=2, call_id="call_2")
    assert traced.decided() == Ctx(request_id="outer", turn=1)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("trace_id", "0" * 32), ("trace_id", TRACE.upper()), ("trace_id", TRACE[1:]), ("trace_id", 7),
        ("trace_id", TRACE + "\n"), ("span_id", "0" * 16), ("span_id", TRACE), ("request_id", ""),
        ("request_id", "x" * 257), ("request_id", "\ud800"), ("request_id", b"r"), ("turn", -1), ("turn", True),
        ("turn", 2**53), ("turn", "1"), ("call_id", object()), ("parent", "forged"), ("other", "x"),
    ],
)  # fmt: skip
def test_what_is_no_id_is_left_out_and_counted(name: str, wrong: object, caplog: pytest.LogCaptureFixture) -> None:
    """A malformed id, or one of a name that nobody knows, is dropped: the call is decided, the rest is kept."""
    traced = Traced(lambda: {"request_id": "r-1", name: wrong} if name != "request_id" else {name: wrong})
    for _ in range(2):
        found = traced.decided()
        assert found == (Ctx() if name == "request_id" else Ctx(request_id="r-1"))
    assert traced.authorizer.ctx_dropped == 2
    assert [each.levelname for each in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("given", [lambda: 1 / 0, lambda: None, lambda: [("a", 1, 2)]], ids=["raises", "None", "list"])
def test_a_source_that_fails_stops_no_call(given: Callable[[], Mapping[str, object]]) -> None:
    """What the host's function raises, or returns that is no mapping, is counted; the call is allowed as before."""
    traced = Traced(given)
    assert traced.decided() == Ctx()
    assert traced.authorizer.ctx_dropped == 1
    assert traced.sink.decisions[0].outcome == "allow"


def test_only_a_function_can_be_asked() -> None:
    """Something else as `ctx` is refused at once."""
    with pytest.raises(InvalidArgument, match="ctx"):
        Traced({"turn": 1})


def test_the_current_span_of_opentelemetry() -> None:
    """Inside a span its ids are in the record; outside there are none, and nothing is counted."""
    traced = Traced(otel_span())
    assert traced.decided() == Ctx()
    with TracerProvider().get_tracer("t").start_as_current_span("tool") as span:
        found = traced.decided()
    assert found == Ctx(
        trace_id=f"{span.get_span_context().trace_id:032x}", span_id=f"{span.get_span_context().span_id:016x}"
    )
    assert traced.authorizer.ctx_dropped == 0


# ---- the call around


def _in_a_thread() -> None:
    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: context.run(inner))
    thread.start()
    thread.join()


def _in_a_pool() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(contextvars.copy_context().run, inner).result()


@pytest.mark.parametrize("work", [inner, _in_a_thread, _in_a_pool], ids=["here", "thread", "pool"])
def test_a_call_inside_a_call_names_it_as_its_parent(work: Callable[[], object]) -> None:
    """A guarded call within another has the outer decision's id as parent, also in a thread with its context."""
    traced = Traced()

    @authorize("t.outer")
    def outer() -> None:
        work()

    with traced.authorizer.session(MARIA, BOT):
        outer()
    outer_id = traced.named("t.outer").id
    assert traced.named("t.inner").ctx == Ctx(parent=outer_id)
    assert traced.named("t.outer").ctx == Ctx()
    effects = {effect.of: effect.ctx for effect in traced.sink.effects}
    assert effects == {outer_id: Ctx(), traced.named("t.inner").id: Ctx(parent=outer_id)}


def test_tasks_and_generators_carry_the_parent() -> None:
    """So it is for tasks that a coroutine starts, for the steps of generators, and for inline decisions."""
    traced = Traced()

    @authorize("t.aouter")
    async def aouter() -> None:
        await asyncio.gather(ainner(), asyncio.to_thread(inner))

    @authorize("t.stream")
    def stream() -> Iterator[int]:
        yield 1
        traced.authorizer.session(MARIA, BOT).decide("t.inline")
        yield 2

    @authorize("t.astream")
    async def astream() -> AsyncIterator[int]:
        yield 1
        await traced.authorizer.session(MARIA, BOT).adecide("t.ainline")

    async def run() -> None:
        await aouter()
        assert [one async for one in astream()] == [1]

    with traced.authorizer.session(MARIA, BOT) as session:
        asyncio.run(run())
        for _ in stream():
            session.decide("t.between")  # the generator isn't running here
            break
        list(stream())
    assert traced.named("t.ainner").ctx.parent == traced.named("t.inner").ctx.parent == traced.named("t.aouter").id
    assert traced.named("t.ainline").ctx.parent == traced.named("t.astream").id
    streams = [each.id for each in traced.sink.decisions if each.action.name == "t.stream"]
    assert traced.named("t.inline").ctx.parent == streams[1]
    assert traced.named("t.between").ctx == Ctx()


def test_a_denial_inside_a_call_has_its_parent_too() -> None:
    """What is refused names the call that asked for it."""
    traced = Traced()

    @authorize("t.outer")
    def outer() -> None:
        traced.authorizer.session(MARIA, BOT).authorize("t.never")

    with traced.authorizer.session(MARIA, BOT), pytest.raises(Denied):
        outer()
    assert traced.named("t.never").ctx.parent == traced.named("t.outer").id


def test_a_call_id_and_a_parent_stand_together() -> None:
    """Nested calls keep the framework's id of the call that they are part of."""
    traced = Traced()

    @authorize("t.outer")
    def outer() -> None:
        inner()

    with traced.authorizer.session(MARIA, BOT), tracing(call_id="call_1"):
        outer()
    assert traced.named("t.outer").ctx == Ctx(call_id="call_1")
    assert traced.named("t.inner").ctx == Ctx(call_id="call_1", parent=traced.named("t.outer").id)
