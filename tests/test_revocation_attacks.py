"""Work that would go on after it was revoked: by a child, an older token, a half-used generator, a pool, a process."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentauthz import (
    Authorizer,
    Basis,
    Denied,
    InvalidArgument,
    PolicySet,
    Principal,
    Stopped,
    authorize,
    checkpoint,
    current,
)
from agentauthz.errors import TokenError
from agentauthz.principals import Chain, Delegation
from agentauthz.records import MemorySink
from agentauthz.state.memory import MemoryState
from agentauthz.sts.standing import Standing
from agentauthz.tokens.revocation import LINEAGE, token_name
from agentauthz.tokens.validator import Validator
from tests.distant import DistantState, Line, Meeting, decide_until_denied
from tests.issuing import token, trusted, validator
from tests.recording import until
from tests.sts_service import DOCS, ORCHESTRATOR, PAY, STS, Service, granted, refusal
from tests.sts_service import token as token_of_service
from tests.sts_service import validator as service_validator
from tests.support import ANYTHING, BOT, HELPER, MARIA, Clock, Recorded
from tests.test_revoking import asked, code
from tests.test_token_sessions import Endpoint
from tests.test_token_sessions import Service as Resting

# ---- a child session


def test_a_child_does_not_outlive_its_tree() -> None:
    """A session delegated twice, bound tools and handles opened later by the same id all fall with the one id."""
    made = Recorded()
    root = made.session(id="tree")
    child = root.delegate(HELPER)
    grandchild = child.delegate(BOT)
    tool = grandchild.bind(read)
    assert tool() == "read"
    made.authorizer.revoke(session=child, reason="it went astray")
    for handle in (root, child, grandchild, made.session(id="tree")):
        assert code(handle.decide("t.read")) == ("session_revoked", Basis.REVOKED)
    with pytest.raises(Denied, match="session_revoked"):
        tool()


def test_closing_stops_a_branch_and_revoking_the_tree() -> None:
    """A closed child leaves its parent alone; a revoked one doesn't."""
    made = Recorded()
    root = made.session()
    first, second = root.delegate(HELPER), root.delegate(HELPER)
    first.close()
    assert code(first.decide("t.read")) == ("session_closed", Basis.AUTHORITY)
    assert root.decide("t.read").allowed
    assert second.decide("t.read").allowed
    made.authorizer.revoke(session=second, reason="r")
    assert not root.decide("t.read").allowed


@authorize("t.read")
def read() -> str:
    return "read"


# ---- a token that was minted, verified or cached before


def holder(**options: Any) -> tuple[Authorizer, Validator]:
    """Return an authorizer, and a validator that asks it."""
    clock = Clock()
    authorizer = Authorizer(PolicySet.parse(ANYTHING), sinks=[MemorySink()], clock=clock, **options)
    return authorizer, validator(trusted(), clock=clock, revocation=authorizer.revocation, cache=10)


def test_a_token_minted_before_is_refused_and_its_sessions_fall() -> None:
    """After `revoke(token=…)` the validator refuses its text, and sessions that rest on it, or on a child, stop."""
    authorizer, checks = holder()
    parent = checks.verify(token(jti="parent"))
    changes: dict[str, Any] = {LINEAGE: [token_name(parent)]}
    text = token(jti="child", **changes)
    session, other = authorizer.session(token=checks.verify(text)), authorizer.session(token=checks.verify(token()))
    delegated = session.delegate(HELPER)
    authorizer.revoke(token=parent, reason="stolen")
    with pytest.raises(TokenError, match="revoked"):
        checks.verify(text)
    for fallen in (session, delegated):
        assert code(fallen.decide("payments.read")) == ("token_revoked", Basis.REVOKED)
        with pytest.raises(Stopped, match="token_revoked"):
            fallen.ensure_running()
    assert other.decide("payments.read").allowed


@pytest.mark.parametrize("hooked", [False, True])
def test_a_cached_verified_token_does_not_help(hooked: bool) -> None:
    """A `VerifiedToken` that was kept, and the validator's cache of it, fall at the next use; sessions need no hook."""
    authorizer, asking = holder()
    checks = asking if hooked else validator(trusted(), clock=Clock(), cache=10)
    text = token(jti="kept")
    kept = checks.verify(text)
    assert checks.verify(text) is kept, "it comes from the cache"
    authorizer.revoke(token=token_name(kept), reason="stolen")
    assert code(authorizer.session(token=kept).decide("payments.read")) == ("token_revoked", Basis.REVOKED)
    if hooked:
        with pytest.raises(TokenError, match="revoked"):
            checks.verify(text)
        assert kept.revoked()


def test_a_token_of_a_revoked_principal_is_refused() -> None:
    """Whoever is in the chain of a token brings it down."""
    authorizer, checks = holder()
    verified = checks.verify(token())
    authorizer.revoke(principal=verified.subject, reason="left")
    with pytest.raises(TokenError, match="revoked"):
        checks.verify(token())


def test_while_all_is_halted_no_token_is_known_to_stand() -> None:
    """A halt doesn't revoke tokens: who asks about one is told that it can't be said, and later that it stands."""
    authorizer, checks = holder()
    verified = checks.verify(token())
    authorizer.halt("r")
    assert authorizer.revocation(verified) is None
    with pytest.raises(TokenError) as refused:
        checks.verify(token())
    assert refused.value.reason == "revocation_unavailable"
    authorizer.resume("r")
    assert authorizer.revocation(verified) is False
    assert checks.verify(token()) is not None


@pytest.mark.parametrize("lineage", ["text", [7], {"a": 1}])
def test_a_lineage_that_can_not_be_read_is_no_way_around(lineage: Any) -> None:
    """Once any token was revoked, one that doesn't say what it descends from is denied: nobody can tell."""
    authorizer, _ = holder()
    session = authorizer.session(token=validator(trusted(), clock=Clock()).verify(token(**{LINEAGE: lineage})))
    assert session.decide("payments.read").allowed
    authorizer.revoke(token="0" * 64, reason="r")
    assert code(session.decide("payments.read")) == ("revocation_unknown", Basis.ERROR)


def test_a_token_can_not_be_replayed_over_the_store() -> None:
    """A state store serves as what lets a token count once, for all who share it."""
    store = MemoryState(clock=Clock())
    first, second = (validator(trusted(), clock=Clock(), replay=store) for _ in range(2))
    text = token(jti="once")
    first.verify(text)
    for again in (first, second):
        with pytest.raises(TokenError) as refused:
            again.verify(text)
        assert refused.value.reason == "replayed"


async def test_a_revoked_sessions_token_is_not_exchanged() -> None:
    """The next hop is asked for nothing: no request leaves, and the refusal is recorded."""
    service, endpoint = Resting(), Endpoint()
    session = service.session()
    service.authorizer.revoke(session=session, reason="r")
    with pytest.raises(Denied, match="session_revoked"):
        session.exchange(endpoint.client(), audience=["payments"])
    with pytest.raises(Denied, match="session_revoked"):
        await session.aexchange(endpoint.client(), audience=["payments"])
    assert endpoint.asked == []
    refused = [record.as_dict() for record in service.sink.records if type(record).__name__ == "DelegationRecord"][-1]
    assert refused["delegation"]["reason"]["code"] == "session_revoked"


# ---- a generator, half consumed


@authorize("t.read")
def numbers() -> Iterator[int]:
    yield from range(10)


@authorize("t.read")
async def later_numbers() -> AsyncIterator[int]:
    for number in range(10):
        yield number


def test_a_generator_stops_at_its_next_step() -> None:
    """What was consumed stays; the next step raises, and the effect says `stopped`."""
    made = Recorded()
    with made.session(id="s"):
        half = numbers()
        assert [next(half), next(half)] == [0, 1]
        made.authorizer.revoke(session="s", reason="r")
        with pytest.raises(Stopped, match="session_revoked"):
            next(half)
        assert list(half) == []
    assert [effect.status for effect in made.effects] == ["stopped"]


async def test_an_async_generator_stops_at_its_next_step() -> None:
    """The same for asynchronous ones, also where everything is halted."""
    made = Recorded()
    async with made.session():
        half = later_numbers()
        assert await anext(half) == 0
        await made.authorizer.ahalt("r")
        with pytest.raises(Stopped, match="halted"):
            await anext(half)
    assert [effect.status for effect in made.effects] == ["stopped"]


def test_a_generator_that_was_not_begun_is_denied() -> None:
    """A generator made before, and first used after, is decided when it is used."""
    made = Recorded()
    with made.session(id="s"):
        waiting = numbers()
        made.authorizer.revoke(session="s", reason="r")
        with pytest.raises(Denied, match="session_revoked"):
            next(waiting)


# ---- a task in a thread pool


@authorize("t.work")
def work(begun: threading.Event, go_on: threading.Event) -> str:
    begun.set()
    assert go_on.wait(10)
    checkpoint()
    return "done"


def test_a_task_in_a_pool_stops_at_its_checkpoint() -> None:
    """A thread can't be stopped from outside; it stops where it asks, and its next call is denied."""
    made = Recorded()
    session = made.session(id="s")
    begun, go_on = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(session.bind(work), begun, go_on)
        assert begun.wait(10)
        made.authorizer.revoke(session="s", reason="r")
        go_on.set()
        with pytest.raises(Stopped, match="session_revoked"):
            running.result()
        with pytest.raises(Denied, match="session_revoked"):
            pool.submit(session.bind(work), begun, go_on).result()
    assert [effect.status for effect in made.effects] == ["stopped"]


# ---- a coroutine that waits


@authorize("t.wait", cancel_on_revoke=True)
async def wait(begun: asyncio.Event | None = None, seconds: float = 30.0) -> str:
    if begun is not None:
        begun.set()
    await asyncio.sleep(seconds)
    return "done"


async def running(made: Recorded, session: Any) -> asyncio.Task[str]:
    """Return a task that has begun to wait in a session."""
    begun = asyncio.Event()
    task: asyncio.Task[str] = asyncio.ensure_future(session.bind(wait)(begun))
    await begun.wait()
    return task


async def test_a_coroutine_is_cancelled_when_its_session_falls() -> None:
    """It ends at once with `Stopped`, the effect says so, and the task that awaited it isn't cancelled."""
    made = Recorded()
    session, other = made.session(), made.session()
    task, stays = await running(made, session), await running(made, other)
    await made.authorizer.arevoke(session=session, reason="r")
    with pytest.raises(Stopped, match="revoked while it ran"):
        await asyncio.wait_for(task, 5)
    assert not task.cancelled()
    assert task.cancelling() == 0
    await asyncio.sleep(0)
    assert not stays.done()
    assert [effect.status for effect in made.effects] == ["stopped"]
    made.authorizer.halt("in the loop's own thread, and for all")
    with pytest.raises(Stopped):
        await asyncio.wait_for(stays, 5)


async def test_who_awaits_it_can_go_on() -> None:
    """Its caller gets an error, as from `asyncio.timeout`, and may still clean up."""
    made = Recorded()
    done: list[str] = []

    async def agent() -> None:
        async with made.session() as session:
            asyncio.get_running_loop().call_later(0.01, lambda: made.authorizer.revoke(session=session, reason="r"))
            try:
                await wait()
            except Stopped:
                await asyncio.sleep(0)
                done.append("cleaned up")

    await asyncio.wait_for(agent(), 5)
    assert done == ["cleaned up"]


async def test_a_coroutine_inside_another_is_stopped_once() -> None:
    """Where both would be cancelled, one error reaches the caller, and nothing is left of the cancellation."""
    made = Recorded()

    @authorize("t.outer", cancel_on_revoke=True)
    async def outer() -> str:
        return await wait()

    async with made.session() as session:
        task = asyncio.ensure_future(session.bind(outer)())
        await asyncio.sleep(0.01)
        made.authorizer.revoke(session=session, reason="r")
        with pytest.raises(Stopped):
            await asyncio.wait_for(task, 5)
    assert task.cancelling() == 0
    assert sorted(effect.status for effect in made.effects) == ["stopped", "stopped"]


async def test_another_cancellation_stays_one() -> None:
    """A task that its owner cancels is cancelled, whatever is revoked at the same time."""
    made = Recorded()
    session = made.session()
    task = await running(made, session)
    task.cancel()
    made.authorizer.revoke(session=session, reason="r")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_coroutine_that_ends_in_time_is_left_alone() -> None:
    """One that has returned is not cancelled afterwards, and nobody looks after it any more."""
    made = Recorded()
    async with made.session() as session:
        assert await wait(seconds=0) == "done"
        made.authorizer.revoke(session=session, reason="r")
        await asyncio.sleep(0.01)
        assert made.authorizer._revoked._running == {}
    assert [effect.status for effect in made.effects] == ["done"]


async def test_a_coroutine_that_fell_before_it_ran_does_not_run() -> None:
    """Revoked between the decision and the first step: it never begins."""
    made = Recorded()
    begun: list[str] = []

    @authorize("t.first", cancel_on_revoke=True)
    async def first() -> None:
        begun.append("begun")

    async with made.session() as session:
        watch = made.authorizer.watch

        def revoked_first(running: object, look: Any) -> None:
            made.authorizer.revoke(session=session, reason="r")
            watch(running, look)

        authorizer: Any = made.authorizer
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(authorizer), "watch", lambda _, running, look: revoked_first(running, look))
            with pytest.raises(Stopped):
                await first()
    assert begun == []
    assert made.authorizer._revoked._running == {}


async def test_not_to_know_cancels_too() -> None:
    """Where the store hasn't answered for too long, what must not go on then doesn't."""
    store = DistantState()
    made = Recorded(state=store, revocation_max_age=0.3)
    task = await running(made, made.session())
    store.down = {"revocations"}
    with pytest.raises(Stopped):
        await asyncio.wait_for(task, 10)
    made.authorizer.close()


async def test_another_ones_authorizer_on_the_same_memory_cancels_too() -> None:
    """Two authorizers share a store in memory: what one revokes reaches what runs under the other within a second."""
    store = MemoryState()
    mine, other = Recorded(state=store), Recorded(state=store)
    task = await running(mine, mine.session(id="s"))
    other.authorizer.revoke(session="s", reason="r")
    with pytest.raises(Stopped):
        await asyncio.wait_for(task, 5)
    mine.authorizer.close()


@pytest.mark.parametrize("given", [1, None, "yes"])
def test_cancel_on_revoke_is_true_or_false(given: Any) -> None:
    """What isn't a bool is a mistake."""
    with pytest.raises(InvalidArgument, match="cancel_on_revoke"):
        authorize("t.x", cancel_on_revoke=given)


def test_only_coroutines_can_be_cancelled() -> None:
    """A function or a generator that asks for it would believe in what isn't there."""
    with pytest.raises(InvalidArgument, match="checkpoint"):
        authorize("t.x", cancel_on_revoke=True)(lambda: None)

    async def steps() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(InvalidArgument, match="checkpoint"):
        authorize("t.x", cancel_on_revoke=True)(steps)


def test_a_sync_tool_inside_the_loop_sees_it() -> None:
    """`checkpoint` in a plain function that a coroutine called finds what another thread revoked."""
    made = Recorded()

    @authorize("t.x")
    def tool() -> None:
        session = current().session
        thread = threading.Thread(target=lambda: made.authorizer.revoke(session=session, reason="r"))
        thread.start()
        thread.join()
        checkpoint()

    async def main() -> None:
        async with made.session():
            tool()

    with pytest.raises(Stopped):
        asyncio.run(main())


# ---- another process


def test_another_process_stops_soon() -> None:
    """A session that is revoked here is soon denied in another process, and its half-used generator stops there."""
    context = multiprocessing.get_context("spawn")
    with Meeting(authkey=b"k", ctx=context) as meeting:
        store: Any = DistantState(Line(meeting))
        authorizer = Recorded(state=store).authorizer
        results = context.Queue()
        other = context.Process(target=decide_until_denied, args=(meeting.address, b"k", results))
        other.start()
        assert results.get(timeout=120) == "begun"
        revoked_at = time.time()
        authorizer.revoke(session="s", reason="r")
        at, why, stopped = results.get(timeout=120)
        other.join()
        authorizer.close()
    assert why == "session_revoked"
    assert at - revoked_at < 5.0, "on a busy machine; the store is read twice a second"
    assert "session_revoked" in stopped


def test_a_stolen_clock_does_not_keep_a_process_alive() -> None:
    """A process whose clock stands still, or runs back, hears of a revocation like any other."""
    store = DistantState()
    made = Recorded(state=store)
    session = made.session(expires="1h")
    made.clock.forward(days=-400)
    store.near.revoke("session", session.id, "r")
    until(lambda: not session.decide("t.read").allowed, seconds=5)
    assert code(session.decide("t.read")) == ("session_revoked", Basis.REVOKED)
    made.authorizer.close()


def test_a_chain_made_by_hand_is_no_way_around() -> None:
    """Who names the parties itself, in a request or a session, is held to the same revocations."""
    made = Recorded()
    made.authorizer.revoke(principal=HELPER, reason="r")
    chain = Chain(MARIA, (Delegation(HELPER), Delegation(BOT)))
    assert code(made.authorizer.session(chain=chain).decide("t.read")) == ("principal_revoked", Basis.REVOKED)
    assert code(asked(made.authorizer, chain=chain, subject=MARIA, actor=None)) == ("principal_revoked", Basis.REVOKED)


# ---- the token service


def test_the_token_service_exchanges_nothing_while_all_is_halted() -> None:
    """An exchange is a decision: under a halt it is refused, afterwards granted."""
    service = Service()
    asked_for = {"subject_token": token_of_service(), "audience": DOCS, "scope": "read"}
    assert granted(service, **asked_for)
    service.authorizer.halt("r")
    assert refusal(service, **asked_for)[1] == "halted"
    service.authorizer.resume("r")
    assert granted(service, **asked_for)


def test_the_token_service_issues_nothing_to_a_revoked_principal() -> None:
    """Whether it is the subject or who would act: the chain of the new token runs through it."""
    for who in (Principal.user("alice", issuer=STS), Principal.agent("orchestrator", issuer=STS)):
        service = Service()
        service.authorizer.revoke(principal=who, reason="r")
        found = refusal(service, subject_token=token_of_service(), audience=DOCS, scope="read")
        assert found[1] == "principal_revoked"


def test_one_store_serves_validators_sessions_and_the_token_service() -> None:
    """`Authorizer.revocation` and `revoke` are what an endpoint needs: a token that its client takes back falls."""
    service = Service()
    authorizer = service.authorizer
    standing = Standing(
        STS, service.service.keys, revocation=authorizer.revocation, clock=service.clock,
        revoke=lambda token: authorizer.revoke(token=token, reason="its client took it back"),
    )  # fmt: skip
    text = token_of_service(aud=[PAY], client_id="orchestrator")
    checks = service_validator(service.clock, revocation=authorizer.revocation)
    session = authorizer.session(token=checks.verify(text))
    standing.revoke([("token", text)], ORCHESTRATOR)
    assert code(session.decide("pay")) == ("token_revoked", Basis.REVOKED)
    with pytest.raises(TokenError, match="revoked"):
        checks.verify(text)
