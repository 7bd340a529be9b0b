"""The decorator: what it binds, what it hides, and that what was decided is what runs."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Annotated, Any

import attrs
import pydantic
import pytest

from agentauthz import (
    Basis,
    Denied,
    Injected,
    InvalidArgument,
    NoSession,
    Resource,
    Sensitive,
    authorize,
    checkpoint,
    current,
)
from agentauthz.errors import Stopped
from tests.support import Recorded, Unreadable

SMALL = "permit small on t.pay when args.amount <= 10"


def one(function: Callable[..., Any], *args: Any, policy: str = SMALL, **kwargs: Any) -> Any:
    """Call a decorated function inside a session of `policy`."""
    with Recorded(policy).session():
        return function(*args, **kwargs)


@authorize("t.pay")
def pay(amount: Decimal, to: str = "anna", *, note: str = "") -> str:
    """Pay somebody."""
    return f"{amount} to {to}{note}"


# ---- binding


def test_a_permitted_call_runs_and_a_denied_one_does_not() -> None:
    """The decision is taken on the arguments, before the function runs."""
    assert one(pay, Decimal(10)) == "10 to anna"
    with pytest.raises(Denied) as denied:
        one(pay, Decimal(11))
    assert denied.value.decision is not None
    assert denied.value.decision.basis is Basis.DEFAULT


@pytest.mark.parametrize(
    "call", [lambda: pay(Decimal(11)), lambda: pay(amount=Decimal(11)), lambda: pay(Decimal(11), "bob")]
)
def test_positional_and_keyword_arguments_are_the_same_fact(call: Callable[[], str]) -> None:
    """How an argument was passed changes nothing."""
    with Recorded(SMALL).session(), pytest.raises(Denied):
        call()


def test_defaults_are_facts_too() -> None:
    """An omitted argument is what the function will use."""
    assert one(pay, Decimal(1), policy='permit p on t.pay when args.to == "anna"') == "1 to anna"
    with pytest.raises(Denied):
        one(pay, Decimal(1), policy='permit p on t.pay when args.to == "bob"')


def test_a_call_that_python_would_refuse_raises_the_same_type_error() -> None:
    """Binding speaks of the function by its own name."""
    with pytest.raises(TypeError, match=r"pay\(\) missing 1 required positional argument: 'amount'"):
        one(pay)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nope'"):
        one(pay, Decimal(1), nope=1)


def test_rest_arguments_are_facts() -> None:
    """`*args` is one list under its name, and each of `**kwargs` is an argument by its own name."""

    @authorize("t.many")
    def many(first: int, *rest: int, **more: int) -> tuple[int, tuple[int, ...], dict[str, int]]:
        return first, rest, more

    policy = "permit p on t.many when args.first == 1 and 3 in args.rest and args.extra == 4"
    assert one(many, 1, 2, 3, extra=4, policy=policy) == (1, (2, 3), {"extra": 4})
    with pytest.raises(Denied):
        one(many, 1, 2, extra=4, policy=policy)
    with pytest.raises(Denied):
        one(many, 1, 3, extra=5, policy=policy)


def test_a_further_argument_can_not_stand_in_for_a_parameter() -> None:
    """`**kwargs` may hold a positional-only parameter's name; then there is no telling, and the call is denied."""

    @authorize("t.clash")
    def clash(amount: int, /, **more: int) -> int:
        return amount

    policy = "permit p on t.clash when args.amount <= 10"
    assert one(clash, 5, policy=policy) == 5
    with pytest.raises(Denied) as denied:
        one(clash, 1000, amount=5, policy=policy)
    assert denied.value.decision is not None
    assert denied.value.decision.basis is Basis.ERROR


def test_an_argument_that_a_declared_action_does_not_have_is_denied() -> None:
    """A declaration closes the list of arguments."""

    @authorize("t.open")
    def opened(a: int, **more: int) -> int:
        return a

    policy = "action t.open(a: int)\npermit p on t.open when args.a == 1"
    assert one(opened, 1, policy=policy) == 1
    with pytest.raises(Denied):
        one(opened, 1, b=2, policy=policy)


def test_partial_objects_are_decided_on_all_arguments() -> None:
    """functools.partial of a decorated function hides nothing."""
    with Recorded(SMALL).session():
        assert functools.partial(pay, Decimal(3))() == "3 to anna"
        with pytest.raises(Denied):
            functools.partial(pay, amount=Decimal(300))()


def test_self_and_cls_are_no_arguments() -> None:
    """Methods of all kinds are guarded, and their receiver is invisible to policies."""

    class Till:
        limit = 5

        @authorize("t.m")
        def method(self, n: int) -> int:
            return n + self.limit

        @classmethod
        @authorize("t.c")
        def make(cls, n: int) -> int:
            return n + cls.limit

        @staticmethod
        @authorize("t.s")
        def plain(n: int) -> int:
            return n

    policy = "action t.m(n: int)\naction t.c(n: int)\naction t.s(n: int)\npermit p on t.* when args.n == 1"
    assert one(Till().method, 1, policy=policy) == 6
    assert one(Till.make, 1, policy=policy) == 6
    assert one(Till().plain, 1, policy=policy) == 1
    for tool in (Till().method, Till.make, Till.plain):
        with pytest.raises(Denied):
            one(tool, 2, policy=policy)


def test_injected_parameters_are_no_arguments() -> None:
    """What a framework fills in is neither a fact nor copied."""
    context: list[int] = []

    @authorize("t.i", injected=("ctx",))
    def by_name(ctx: list[int], n: int) -> bool:
        return ctx is context

    @authorize("t.i")
    def by_mark(n: int, ctx: Annotated[Any, Injected]) -> bool:
        return ctx is context

    policy = "action t.i(n: int)\npermit p on t.i when args.n == 1"
    assert one(by_name, context, 1, policy=policy)
    assert one(by_mark, 1, context, policy=policy)


# ---- what was decided is what runs


def test_the_function_gets_the_copy_that_was_decided() -> None:
    """A caller that changes its list after the decision changes nothing."""
    mine = ["a"]

    @authorize("t.l", resource=lambda: mine.append("evil"))  # a look-up that reaches the caller's own list
    def tool(names: list[str]) -> list[str]:
        return names

    got = one(tool, mine, policy="permit p on t.l when len(args.names) == 1")
    assert got == ["a"]
    assert got is not mine


def test_a_look_up_that_changes_its_argument_changes_neither_decision_nor_call() -> None:
    """Look-ups get copies of their own."""

    def evil(names: list[str]) -> Resource:
        names.clear()
        return Resource("T", "1")

    @authorize("t.l", resource=evil)
    def tool(names: list[str]) -> list[str]:
        return names

    assert one(tool, ["a"], policy='permit p on t.l when "a" in args.names') == ["a"]


def test_records_hold_what_was_decided() -> None:
    """A tool that changes its own argument doesn't change the record."""

    @authorize("t.l")
    def tool(names: list[str]) -> None:
        names.append("later")

    kept = Recorded('permit p on t.l when "a" in args.names')
    with kept.session():
        tool(["a"])
    assert "later" not in str(kept.decisions[0].as_dict())


class Liar:
    """Compare, hash and show itself as whatever helps."""

    def __eq__(self, other: object) -> bool:
        return True

    def __lt__(self, other: object) -> bool:
        return True

    def __le__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("anna")

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return str

    def __str__(self) -> str:
        raise RuntimeError("no")


class LyingText(str):
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("anna")


class OtherText(str):
    """Be equal to no text, its own included."""

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 7


def test_a_further_argument_that_denies_its_name_does_not_hide_a_parameter() -> None:
    """A name that is a text, and denies that it is this one, would be decided in the parameter's place."""
    paid: list[int] = []

    @authorize("t.pay")
    def pay(amount: int, **more: Any) -> None:
        paid.append(amount)

    with Recorded(SMALL).session():
        for more in ({OtherText("amount"): 1}, {OtherText("note"): 1, OtherText("note"): 2}):
            with pytest.raises(Denied, match="failed"):
                pay(1000 if "amount" in map(str.__str__, more) else 1, **more)
    assert not paid


class LyingNumber(int):
    def __le__(self, other: object) -> bool:
        return True

    def __lt__(self, other: object) -> bool:
        return True


@pytest.mark.parametrize(
    "value",
    [
        Liar(),
        float("nan"),
        float("inf"),
        Decimal("sNaN"),
        Decimal("NaN"),
        10**39,
        LyingNumber(11),
        "5",
        True,
        None,
        b"5",
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_lie_or_are_no_numbers_are_not_small(value: Any) -> None:
    """Comparison is by policy values, whatever an object says of itself."""
    with pytest.raises(Denied):
        one(pay, value)


def test_a_lying_string_counts_as_its_text() -> None:
    """A str subclass that equals everything is compared by its code points."""
    policy = 'permit p on t.pay when args.to == "anna"'
    assert one(pay, 1, LyingText("anna"), policy=policy)
    with pytest.raises(Denied):
        one(pay, 1, LyingText("eve"), policy=policy)


def test_only_data_can_be_reached() -> None:
    """Names with underscores, methods and properties that aren't fields don't exist for policies."""

    @attrs.frozen
    class Order:
        owner: str

        @property
        def secret(self) -> str:
            raise AssertionError("read")

    @authorize("t.o")
    def tool(order: Order) -> str:
        return order.owner

    assert one(tool, Order("anna"), policy='permit p on t.o when args.order.owner == "anna"')
    for path in ("args.order.secret", "args.order.evolve"):
        assert one(tool, Order("anna"), policy=f"permit p on t.o when true unless exists {path}")
    with pytest.raises(Denied):  # a string has no fields: this is of the wrong type, not absent
        one(tool, Order("anna"), policy="permit p on t.o when true unless exists args.order.owner.upper")


def test_too_deep_an_argument_is_denied_with_a_record() -> None:
    """Nesting has a bound, and going over it is no crash."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    kept = Recorded()
    with kept.session(), pytest.raises(Denied):
        pay(deep)  # type: ignore[arg-type]
    assert kept.decisions[0].outcome == "deny"
    while deep:  # taken apart by hand: deallocating it at once would go deep too
        deep = deep[0]


# ---- look-ups


def test_a_resource_is_named_or_made() -> None:
    """`resource=` is an argument's name, a function of some arguments, or a value."""

    @attrs.frozen
    class Order:
        id: int
        owner: str

    @authorize("t.r", resource="order")
    def named(order: Order) -> Any:
        return current().resource

    @authorize("t.r", resource=lambda order_id: Order(order_id, "anna"))
    def made(order_id: int) -> Any:
        return current().resource

    @authorize("t.r", resource=Resource("Order", "7", {"owner": "anna"}))
    def fixed() -> Any:
        return current().resource

    policy = 'permit p on t.r when resource.type == "Order" and resource.id == "7" and resource.owner == "anna"'
    order = Order(7, "anna")
    assert one(named, order, policy=policy) is order
    assert one(made, 7, policy=policy) == order
    assert one(fixed, policy=policy).id == "7"
    with pytest.raises(Denied):
        one(made, 8, policy=policy)


@pytest.mark.parametrize(
    "lookup",
    [lambda amount: 1 / 0, lambda amount: object(), lambda amount: "text", lambda amount: asyncio.sleep(0)],
    ids=["raises", "no resource", "text", "awaitable"],
)
def test_a_look_up_that_fails_denies_and_is_recorded(lookup: Callable[..., Any]) -> None:
    """The denial is chained to the cause, and its text tells nothing of it."""

    @authorize("t.pay", resource=lookup)
    def tool(amount: int) -> None:
        raise AssertionError("ran")

    kept = Recorded()
    with kept.session(), pytest.raises(Denied) as denied:
        tool(1)
    assert denied.value.__cause__ is not None
    assert str(denied.value.__cause__) not in str(denied.value)
    assert kept.decisions[0].basis == "error"


@pytest.mark.parametrize("name", ["args", "context"])
def test_facts_that_can_not_be_read_deny_and_are_recorded(name: str) -> None:
    """A look-up may give a mapping whose own code raises only when it is read."""

    lookup: dict[str, Any] = {name: lambda amount: Unreadable()}

    @authorize("t.pay", **lookup)
    def tool(amount: int) -> None:
        raise AssertionError("ran")

    kept = Recorded()
    with kept.session(), pytest.raises(Denied, match="lookup_failed") as denied:
        tool(1)
    assert isinstance(denied.value.__cause__, RuntimeError)
    assert [record.basis for record in kept.decisions] == ["error"]


def test_facts_are_added_and_never_replaced() -> None:
    """`args=` adds facts under new names; one that would hide a real argument denies the call."""

    @authorize("t.a", args=lambda body: {"amount": body["amount"]}, context={"desk": "night"})
    def tool(body: dict[str, int]) -> int:
        return body["amount"]

    @authorize("t.a", args=lambda amount: {"amount": 1})
    def hiding(amount: int) -> int:
        return amount

    policy = 'permit p on t.a when args.amount == 1 and (context.desk ?? "night") == "night"'
    assert one(tool, {"amount": 1}, policy=policy) == 1
    with pytest.raises(Denied):
        one(tool, {"amount": 2}, policy=policy)
    with pytest.raises(Denied):
        one(hiding, 1000, policy=policy)


async def test_async_look_ups_are_awaited() -> None:
    """A coroutine function may look up the resource of an async tool."""

    async def load(order_id: str) -> Resource:
        await asyncio.sleep(0)
        return Resource("Order", order_id)

    @authorize("t.r", resource=load)
    async def tool(order_id: str) -> str:
        return order_id

    async with Recorded('permit p on t.r when resource.id == "7"').session():
        assert await tool("7") == "7"
        with pytest.raises(Denied):
            await tool("8")


# ---- definition time


def test_mistakes_are_refused_when_the_function_is_defined() -> None:
    """A wrong name, an async look-up for a plain function, a tool object: told at once."""

    async def load(n: int) -> None: ...

    def plain(n: int) -> int:
        return n

    wrong: list[Callable[[], object]] = [
        lambda: authorize(""),
        lambda: authorize(plain),  # type: ignore[arg-type]
        lambda: authorize("a", sensitive="n"),
        lambda: authorize("a", sensitive=["m"])(plain),
        lambda: authorize("a", injected=["m"])(plain),
        lambda: authorize("a", resource="m")(plain),
        lambda: authorize("a", resource=lambda m: m)(plain),
        lambda: authorize("a", resource=load)(plain),
        lambda: authorize("a", context=3)(plain),  # type: ignore[arg-type]
        lambda: authorize()(plain),
        lambda: authorize("a")(functools.partial(plain, 1)),
        lambda: authorize("a")(classmethod(plain)),  # type: ignore[arg-type, type-var]
        lambda: authorize("a")(object()),  # type: ignore[type-var]
        lambda: authorize("a")(authorize("a")(plain)),
    ]
    for place, mistake in enumerate(wrong):
        with pytest.raises(InvalidArgument):
            pytest.fail(f"number {place} was taken: {mistake()}")


def test_a_decorator_that_decorates_nothing_closes_the_session() -> None:
    """`authorize("x")` inside a tool looks like a check: it warns, and nothing more may run."""
    kept = Recorded()
    with kept.session() as session:
        with pytest.warns(UserWarning, match="checked nothing"):
            authorize("t.pay")
        gc.collect()
        assert session.closed
        with pytest.raises(Denied):
            pay(1)  # type: ignore[arg-type]


def test_a_decorator_is_no_check() -> None:
    """`if authorize("x"):` raises instead of being true."""
    with pytest.raises(InvalidArgument):
        bool(authorize("t.pay"))


def test_a_subclass_can_not_override_a_guarded_method_unguarded() -> None:
    """The override would run undecided, so the class isn't made; a decorated override is fine."""

    class Base:
        @authorize("t.b")
        def act(self) -> str:
            return "base"

        @classmethod
        @authorize("t.k")
        def make(cls) -> str:
            return "base"

    with pytest.raises(InvalidArgument, match=r"Sub\.act"):

        class Sub(Base):
            def act(self) -> str:
                return "sub"

    with pytest.raises(InvalidArgument, match=r"Classy\.make"):

        class Classy(Base):
            @classmethod
            def make(cls) -> str:
                return "sub"

    class Mixin:
        def act(self) -> str:
            return "mixin"

    with pytest.raises(InvalidArgument, match=r"Mixed\.act"):

        class Mixed(Mixin, Base):
            pass

    class Good(Base):
        @authorize("t.b2")
        def act(self) -> str:
            return "good " + super().act()

    with pytest.raises(InvalidArgument, match=r"Deeper\.act"):

        class Deeper(Good):
            def act(self) -> str:
                return "deeper"

    assert one(Good().act, policy="permit p on t.b, t.b2 when true") == "good base"
    with pytest.raises(Denied):
        one(Good().act, policy="permit p on t.b2 when true")


def test_a_class_with_its_own_init_subclass_keeps_it() -> None:
    """Watching overrides doesn't take the place of the class's own hook."""
    made = []

    class Base:
        def __init_subclass__(cls, tag: str = "") -> None:
            made.append((cls.__name__, tag))

        @authorize("t.b")
        def act(self) -> None: ...

    class Sub(Base, tag="x"):
        pass

    assert made == [("Sub", "x")]


# ---- what survives


def test_name_signature_annotations_and_docstring_survive() -> None:
    """Tool frameworks read them; the JSON schema made from the wrapper is the function's."""

    def plain(amount: Decimal, to: str = "anna", *, note: str = "") -> str:
        """Pay somebody."""
        return ""

    wrapped = authorize("t.pay")(plain)
    assert inspect.signature(wrapped) == inspect.signature(plain)
    assert (wrapped.__name__, wrapped.__doc__) == (plain.__name__, plain.__doc__)
    assert wrapped.__annotations__ == plain.__annotations__
    functions: list[Any] = [wrapped, plain]
    schemas = [pydantic.TypeAdapter(function).json_schema() for function in functions]
    assert schemas[0] == schemas[1]


def test_the_kind_of_function_survives() -> None:
    """inspect tells coroutines and generators of both kinds as before."""

    @authorize("t.x")
    async def coroutine() -> None: ...

    @authorize("t.x")
    def generator() -> Iterator[int]:
        yield 1

    @authorize("t.x")
    async def async_generator() -> AsyncIterator[int]:
        yield 1

    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isasyncgenfunction(async_generator)
    assert inspect.isfunction(pay)


def test_pickling_and_copying_keep_the_guard() -> None:
    """A copy of a decorated function is the decorated function."""
    for again in (pickle.loads(pickle.dumps(pay)), copy.copy(pay), copy.deepcopy(pay)):
        assert again is pay


def test_the_wrapped_function_is_the_hosts_own_risk() -> None:
    """`__wrapped__` isn't guarded: code in the process can reach anything, and the docs say so."""
    assert pay.__wrapped__(Decimal(1000)) == "1000 to anna"  # type: ignore[attr-defined]


# ---- sensitive


def test_sensitive_arguments_never_appear() -> None:
    """Neither in records nor in messages, by mark or by name, in policies that read them or not."""

    @authorize("t.s", sensitive=("pin",))
    def tool(pin: str, card: Annotated[str, Sensitive], name: str) -> None: ...

    policy = (
        'permit p on t.s when args.name == "ok"\nforbid f on t.s when args.card == "CANARY-CARD-2" or args.pin == "x"'
    )
    kept = Recorded(policy)
    with kept.session():
        tool("CANARY-PIN", "CANARY-CARD", "ok")
        with pytest.raises(Denied) as denied:
            tool("CANARY-PIN", "CANARY-CARD-2", "ok")
    written = "".join(line.decode() for record in kept.decisions for line in [record.line()])
    assert len(kept.decisions) == 2
    for text in (written.replace('"CANARY-CARD-2"', ""), str(denied.value), repr(denied.value.decision)):
        assert "CANARY-PIN" not in text
        assert '"CANARY-CARD"' not in text


# ---- without a session


def test_without_a_session_nothing_runs(caplog: pytest.LogCaptureFixture) -> None:
    """NoSession is a denial, and is logged."""
    with pytest.raises(NoSession):
        pay(1)  # type: ignore[arg-type]
    assert "no_session" in caplog.text


def test_threads_have_no_session_of_their_own() -> None:
    """A new thread, and a pool's, are denied; a tool bound to a session runs there."""
    with Recorded(SMALL).session() as session, ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(pay, Decimal(1)).exception(), NoSession)
        seen: list[BaseException | None] = []
        thread = threading.Thread(target=lambda: seen.append(_caught(pay, Decimal(1))))
        thread.start()
        thread.join()
        assert isinstance(seen[0], NoSession)
        assert pool.submit(session.bind(pay), Decimal(1)).result() == "1 to anna"
        assert isinstance(pool.submit(session.bind(pay), Decimal(11)).exception(), Denied)


def _caught(function: Callable[..., Any], *args: Any) -> BaseException | None:
    try:
        function(*args)
    except BaseException as error:
        return error
    return None


async def test_a_task_that_outlives_its_session_is_denied() -> None:
    """The task still sees the session, which is closed."""
    async with Recorded(SMALL).session():
        leave = asyncio.Event()

        async def later() -> str:
            await leave.wait()
            return pay(Decimal(1))

        task = asyncio.create_task(later())
        await asyncio.sleep(0)
    leave.set()
    with pytest.raises(Denied) as denied:
        await task
    assert denied.value.decision is not None
    assert denied.value.decision.basis is Basis.AUTHORITY


def test_bound_tools_belong_to_their_session_only() -> None:
    """Inside another session, a bound tool still is its own session's; closed, it is denied."""
    generous, strict = Recorded(), Recorded("forbid all on * when true")
    session = generous.session()
    bound = session.bind([pay])[0]
    with strict.session():
        assert bound(Decimal(500)) == "500 to anna"
        with pytest.raises(Denied):
            pay(Decimal(1))
    session.close()
    with pytest.raises(Denied):
        bound(Decimal(1))
    with pytest.raises(InvalidArgument):
        session.bind(print)


def test_a_bound_method_keeps_its_object() -> None:
    """session.bind works on methods."""

    class Till:
        def __init__(self) -> None:
            self.total = 0

        @authorize("t.pay")
        def add(self, amount: int) -> int:
            self.total += amount
            return self.total

    till = Till()
    add = Recorded(SMALL).session().bind(till.add)
    assert (add(3), add(4), till.total) == (3, 7, 7)


# ---- coroutines and generators


@authorize("t.gen")
def numbers(n: int) -> Iterator[int]:
    for i in range(n):
        checkpoint()
        yield i


@authorize("t.agen")
async def anumbers(n: int) -> AsyncIterator[int]:
    for i in range(n):
        await asyncio.sleep(0)
        checkpoint()
        yield i


def test_a_generator_is_decided_at_its_first_step() -> None:
    """Making one decides nothing; consuming it does, under the session that is current then."""
    made = numbers(2)
    with pytest.raises(NoSession):
        next(iter(made))
    with Recorded("permit p on t.gen when args.n == 2").session():
        assert list(numbers(2)) == [0, 1]
        with pytest.raises(Denied):
            list(numbers(3))


def test_a_generator_stops_when_its_session_ends() -> None:
    """What is consumed after the session's end is stopped, and the effect says so."""
    kept = Recorded()
    with kept.session():
        steps = iter(numbers(5))
        assert next(steps) == 0
    with pytest.raises(Stopped):
        next(steps)
    assert [effect.status for effect in kept.effects] == ["stopped"]


def test_a_generator_keeps_its_own_session_between_sessions() -> None:
    """Each step runs under the generator's session; in between, the consumer's is current."""

    @authorize("t.who")
    def who() -> Iterator[str]:
        while True:
            yield current().session.id

    first, second = Recorded(), Recorded()
    a = iter(first.session(id="a").bind(who)())
    with second.session(id="b"):
        assert next(a) == "a"
        assert current().session.id == "b"
        assert next(a) == "a"
        b = iter(who())
        assert (next(b), next(a), next(b)) == ("b", "a", "b")
    a.close()


def test_values_sent_and_thrown_reach_the_generator() -> None:
    """The wrapper is transparent: send, throw, close and the return value."""
    closed = []

    @authorize("t.echo")
    def echo() -> Any:
        got = None
        try:
            while got != "end":
                try:
                    got = yield got
                except ValueError as error:
                    got = str(error)
        finally:
            closed.append(True)
        return "returned"

    kept = Recorded()
    with kept.session():
        talk = echo()
        assert next(talk) is None
        assert talk.send("x") == "x"
        assert talk.throw(ValueError("thrown")) == "thrown"
        with pytest.raises(StopIteration) as end:
            talk.send("end")
        assert end.value.value == "returned"
        other = echo()
        next(other)
        other.close()
    assert closed == [True, True]
    assert [effect.status for effect in kept.effects] == ["done", "stopped"]


async def test_async_generators_are_decided_stopped_and_closed() -> None:
    """The same holds for async generators, closed from another task too."""
    kept = Recorded("permit p on t.agen when args.n < 9")
    async with kept.session():
        assert [i async for i in anumbers(3)] == [0, 1, 2]
        with pytest.raises(Denied):
            [i async for i in anumbers(9)]
        half = anumbers(5)
        assert await anext(half) == 0
        await asyncio.create_task(half.aclose())  # type: ignore[attr-defined]
        assert current().session.closed is False
        late = anumbers(5)
        assert await anext(late) == 0
    with pytest.raises(Stopped):
        await anext(late)
    assert [effect.status for effect in kept.effects] == ["done", "stopped", "stopped"]


async def test_what_is_sent_and_thrown_reaches_an_async_generator() -> None:
    """asend and athrow go through, and no item is lost."""

    @authorize("t.echo")
    async def echo() -> Any:
        got = None
        while True:
            try:
                got = yield got
            except ValueError as error:
                got = str(error)

    async with Recorded().session():
        talk = echo()
        assert await talk.asend(None) is None
        assert await talk.asend("x") == "x"
        assert await talk.athrow(ValueError("thrown")) == "thrown"
        assert await talk.asend("y") == "y"
        await talk.aclose()


async def test_coroutines_keep_the_session_of_their_first_step() -> None:
    """Tasks of two sessions run side by side, each under its own."""

    @authorize("t.co")
    async def co() -> tuple[str, str]:
        before = current().session.id
        await asyncio.sleep(0.001)
        return before, current().session.id

    kept = Recorded()

    async def run(name: str) -> tuple[str, str]:
        async with kept.session(id=name):
            return await co()

    assert await asyncio.gather(*(run(f"s{i}") for i in range(20))) == [(f"s{i}", f"s{i}") for i in range(20)]


async def test_a_cancelled_coroutine_was_stopped() -> None:
    """Cancellation leaves an effect record of its own."""

    @authorize("t.co")
    async def forever() -> None:
        await asyncio.sleep(60)

    kept = Recorded()
    async with kept.session():
        task = asyncio.create_task(forever())
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [effect.status for effect in kept.effects] == ["stopped"]


def test_the_effect_says_how_the_call_ended() -> None:
    """Returned, raised: one effect record each, that names its decision and only the error's class."""

    @authorize("t.fail")
    def fail() -> None:
        raise ValueError("CANARY")

    kept = Recorded()
    with kept.session():
        pay(Decimal(1))
        with pytest.raises(ValueError, match="CANARY"):
            fail()
    assert [(e.status, e.error_type) for e in kept.effects] == [("done", None), ("failed", "ValueError")]
    assert [e.of for e in kept.effects] == [d.id for d in kept.decisions]
    assert b"CANARY" not in b"".join(e.line() for e in kept.effects)


def test_a_tool_that_calls_a_tool_is_decided_twice() -> None:
    """Re-entrancy: each call has its own decision, and `current()` is the inner one's inside it."""

    @authorize("t.outer")
    def outer() -> tuple[str, str]:
        mine = current().decision
        inner = pay(Decimal(1))
        assert current().decision is mine
        return "outer", inner

    kept = Recorded("permit p on t.outer, t.pay when true")
    with kept.session():
        assert outer() == ("outer", "1 to anna")
    assert [d.action.name for d in kept.decisions] == ["t.outer", "t.pay"]
