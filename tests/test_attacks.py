"""Attempts to run a call undecided, wider than was given, or other than it was decided."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import enum
import functools
import gc
import inspect
import sys
import threading
import types
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NewType

import attrs
import pytest
from typing_extensions import TypeAliasType

from agentauthz import (
    AgentAuthzError,
    Authorizer,
    Basis,
    Chain,
    Delegation,
    Denied,
    InvalidArgument,
    NoSession,
    PolicySet,
    Principal,
    Request,
    Resource,
    Sensitive,
    Session,
    State,
    authorize,
    current,
)
from agentauthz.errors import SessionError, Stopped, WideningError
from agentauthz.records import FileSink, MemorySink
from agentauthz.values import copy_plain
from tests.support import BOT, HELPER, MARIA, NOON, Recorded

OBSERVING: dict[str, Any] = {"mode": "observe", "observe_until": NOON + dt.timedelta(days=1)}


def failing(**_: object) -> Any:
    """Be a look-up that fails."""
    raise LookupError("nothing is there")


# ---- observe mode


FORBIDS = {
    "always": "when true",
    "by the resource": "when resource.secret",
    "by an added fact": "when (args.risk ?? 0) > 5",
    "by the context": 'when (context.region ?? "eu") == "us"',
}


@pytest.mark.parametrize("condition", FORBIDS.values(), ids=FORBIDS.keys())
def test_observe_mode_asks_every_forbid_where_a_look_up_failed(condition: str) -> None:
    """A caller can't get past a forbid by making the look-ups fail that it reads."""

    @authorize("t.pay", resource=failing, args=failing, context=failing)
    def pay(amount: int) -> str:
        return "paid"

    kept = Recorded(f"permit p on t.pay when true\nforbid f on t.pay {condition}", **OBSERVING)
    with kept.session(), pytest.raises(Denied) as denied:
        pay(1)
    assert denied.value.decision is not None
    assert denied.value.decision.rules == ("f",)


def test_observe_mode_stops_a_call_that_can_not_be_read_where_a_forbid_reads_it() -> None:
    """Arguments that are nested too deep are unknown, so a forbid on them stands."""

    @authorize("t.pay")
    def pay(tree: object) -> str:
        return "paid"

    tree: object = []
    for _ in range(300):
        tree = [tree]
    kept = Recorded("permit p on t.pay when true\nforbid f on t.pay when len(args.tree) > 5", **OBSERVING)
    with kept.session(), pytest.raises(Denied):
        pay(tree)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda kept: kept.clock.forward(hours=2), id="expired"),
        pytest.param(lambda kept: None, id="not covered"),
    ],
)
def test_observe_mode_keeps_authority_where_a_look_up_failed(spoil: Callable[[Recorded], None]) -> None:
    """Expired sessions and delegations that don't cover the action stop such a call too."""

    @authorize("t.pay", resource=failing)
    def pay() -> str:
        return "paid"

    kept = Recorded(**OBSERVING)
    with kept.session(expires="1h") as session:
        narrow = session.delegate(session.actor, actions=["docs.*"])
        spoil(kept)
        with pytest.raises(Denied) as denied:
            session.bind(pay)() if kept.clock.now > NOON else narrow.bind(pay)()
    assert denied.value.decision is not None
    assert denied.value.decision.basis in (Basis.REVOKED, Basis.AUTHORITY)


def test_observe_mode_asks_every_forbid_about_an_undeclared_argument() -> None:
    """A caller can't get past a forbid by adding an argument that the action doesn't have."""

    @authorize("t.pay")
    def pay(amount: int, **more: object) -> str:
        return "paid"

    policy = "action t.pay(amount: int)\npermit p on t.pay when true\nforbid f on t.pay when args.amount > 5"
    kept = Recorded(policy, **OBSERVING)
    with kept.session():
        assert pay(1, note="x") == "paid"
        assert (kept.decisions[-1].outcome, kept.decisions[-1].basis) == ("deny", "error")
        with pytest.raises(Denied) as denied:
            pay(10, note="x")
    assert denied.value.decision is not None
    assert denied.value.decision.rules == ("f",)


def test_observe_mode_sets_marks_where_a_look_up_failed() -> None:
    """A call that is let run in spite of an error has touched what it has touched."""

    @authorize("t.read", resource=failing)
    def read() -> str:
        return "secret"

    policy = (
        'permit p on t.* when true\nmark m on t.read when resource.secret\nforbid f on t.send when "m" in session.marks'
    )
    kept = Recorded(policy, **OBSERVING)
    with kept.session() as session:
        assert read() == "secret"
        assert session.marks == {"m"}
        assert not session.decide("t.send").allowed


# ---- overriding


def guarded_class() -> Any:
    class Bank:
        @authorize("t.pay")
        def pay(self) -> str:
            return "decided"

        @property
        @authorize("t.balance")
        def balance(self) -> str:
            return "decided"

        @functools.cached_property
        @authorize("t.history")
        def history(self) -> str:
            return "decided"

    return Bank


def test_wraps_does_not_pass_an_override_off_as_decorated() -> None:
    """`functools.wraps` copies the mark of a decorated method onto a function that decides nothing."""
    bank = guarded_class()

    @functools.wraps(bank.pay)
    def pay(self: Any) -> str:
        return "undecided"

    with pytest.raises(InvalidArgument, match=r"Sub\.pay"):
        type("Sub", (bank,), {"pay": pay})


def test_an_override_that_is_decorated_below_other_decorators_is_accepted() -> None:
    """What counts is that the override decides its own calls."""

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any) -> Any:
            return function(*args)

        return call

    @logged
    @authorize("t.pay")
    def pay(self: Any) -> str:
        return "decided"

    with pytest.raises(NoSession):
        type("Sub", (guarded_class(),), {"pay": pay})().pay()


def test_properties_are_watched_too() -> None:
    """A property whose getter is decorated can't be overridden by one that isn't."""
    for name in ("balance", "history"):
        with pytest.raises(InvalidArgument, match=name):
            type("Sub", (guarded_class(),), {name: property(lambda self: "undecided")})


def test_a_setter_that_is_decorated_stays_so() -> None:
    """Each function of a property counts for itself."""

    class Account:
        @authorize("t.set_limit")
        def set_limit(self, value: int) -> None:
            pass

        limit = property(lambda self: 1, set_limit)

    undecided = Account.limit.setter(lambda self, value: None)
    with pytest.raises(InvalidArgument, match="limit"):
        type("Sub", (Account,), {"limit": undecided})


def test_methods_decorated_through_a_helper_are_watched() -> None:
    """A decorator of the host's own may stand between @authorize and the class."""

    def tool(function: Callable[..., Any]) -> Callable[..., Any]:
        return authorize("t.pay")(function)

    class Bank:
        @tool
        def pay(self) -> str:
            return "decided"

    with pytest.raises(InvalidArgument, match=r"Sub\.pay"):

        class Sub(Bank):
            def pay(self) -> str:
                return "undecided"


@pytest.mark.parametrize("slotted", [attrs.define, attrs.frozen, dataclasses.dataclass(slots=True)])
@pytest.mark.parametrize("hook", [True, False])
def test_classes_with_slots_are_watched(slotted: Callable[[Any], Any], hook: bool) -> None:
    """Such classes are made twice; subclasses work, keep the class's own hook, and must decorate too."""
    seen: list[str] = []

    class Bank:
        name: str = "bank"

        if hook:

            def __init_subclass__(cls) -> None:
                seen.append(cls.__name__)

        @authorize("t.pay")
        def pay(self) -> str:
            return "decided"

    made = slotted(Bank)
    type("Plain", (made,), {})
    assert seen[-1:] == ["Plain"] * hook
    with pytest.raises(InvalidArgument, match=r"Sub\.pay"):
        type("Sub", (made,), {"pay": lambda self: "undecided"})


def test_the_hook_of_an_attrs_class_with_slots_may_call_super() -> None:
    """Attrs mends what `super()` refers to when it makes the class anew; watching it must not get in the way."""

    @attrs.define
    class Bank:
        def __init_subclass__(cls) -> None:
            super().__init_subclass__()

        @authorize("t.pay")
        def pay(self) -> str:
            return "decided"

    assert type("Plain", (Bank,), {}).__mro__[1] is Bank


# ---- secrets

Card = NewType("Card", Annotated[str, Sensitive])
Number = TypeAliasType("Number", Annotated[str, Sensitive])


@authorize("t.pay")
def with_new_type(card: Card) -> None:
    """Take a secret under a type's own name."""


@authorize("t.pay")
def with_alias(card: Number | None) -> None:
    """Take a secret under an alias."""


@authorize("t.pay")
def with_further(**more: Annotated[str, Sensitive]) -> None:
    """Take secrets by any name."""


@authorize("t.pay", sensitive=["cards"])
def with_further_named(**cards: str) -> None:
    """Take secrets by any name."""


@pytest.mark.parametrize("tool", [with_new_type, with_alias, with_further, with_further_named])
def test_a_sensitive_argument_is_kept_out_however_it_is_marked(tool: Callable[..., None]) -> None:
    """Aliases and new types carry their annotations; `**kwargs` that are sensitive are so each by its own name."""
    kept = Recorded('permit p on t.pay when args.card == "4111-1111"')
    with kept.session():
        tool(card="4111-1111")
    assert b"4111" not in kept.decisions[0].line()


def test_an_alias_that_names_itself_can_be_read() -> None:
    """Looking for marks ends."""

    class Alias:
        __value__: object

    endless = Alias()
    endless.__value__ = list[endless]  # type: ignore[valid-type]

    def pay(tree: Any) -> str:
        return "paid"

    pay.__annotations__["tree"] = endless
    with Recorded().session() as session:
        assert session.bind(authorize("t.pay")(pay))([]) == "paid"


def test_a_name_that_only_resembles_a_marker_hides_nothing() -> None:
    """An annotation that can't be resolved is searched for the marker's name, not for a part of another."""

    @authorize("t.pay")
    def pay(amount: InjectedAmount) -> str:  # type: ignore[name-defined]  # noqa: F821
        return "paid"

    with Recorded("permit p on t.pay when args.amount == 1").session():
        assert pay(1) == "paid"


# ---- what models and people are told


def test_the_repr_of_a_denial_tells_no_more_than_its_text() -> None:
    """Some frameworks show models the `repr` of an error: it names no rules, inputs or places in files."""
    policy = """
permit p on t.* when true
forbid hidden_rule on t.pay when args.a > 3
review r on t.ask when true by approver != subject
"""
    for action in ("t.pay", "t.ask"):
        with Recorded(policy).session() as session, pytest.raises(AgentAuthzError) as refused:
            session.authorize(action)
        assert repr(refused.value) == f"{type(refused.value).__name__}({str(refused.value)!r})"


# ---- time

NEW_YORK = zoneinfo.ZoneInfo("America/New_York")
SET_BACK = dt.datetime(2026, 11, 1, 6, 0, tzinfo=dt.UTC)  # 02:00 becomes 01:00 there


class Lying(dt.datetime):
    """Be a moment that is never past, and before every other."""

    def __gt__(self, other: object) -> bool:
        return False

    def __le__(self, other: object) -> bool:
        return False


def test_a_duration_is_not_lengthened_by_a_clock_that_is_set_back() -> None:
    """Ten minutes are ten minutes, whatever the zone in which the host's clock tells the time."""
    kept = Recorded()
    kept.clock.now = (SET_BACK - dt.timedelta(minutes=5)).astimezone(NEW_YORK)
    with kept.session(expires="10m") as session:
        kept.clock.now = (SET_BACK + dt.timedelta(minutes=6)).astimezone(NEW_YORK)
        assert session.decide("t.pay").basis is Basis.REVOKED


def test_an_hour_that_comes_twice_widens_no_delegation() -> None:
    """Two moments in one zone are compared as moments, not as wall clocks show them."""
    kept = Recorded()
    kept.clock.now = SET_BACK - dt.timedelta(days=1)
    with kept.session(expires=dt.datetime(2026, 11, 1, 1, 45, tzinfo=NEW_YORK)) as session:
        later = dt.datetime(2026, 11, 1, 1, 30, fold=1, tzinfo=NEW_YORK)
        with pytest.raises(WideningError):
            session.delegate(HELPER, expires=later)
        first = session.delegate(HELPER, expires=dt.datetime(2026, 11, 1, 1, 40, tzinfo=NEW_YORK))
        with pytest.raises(WideningError):
            first.delegate(HELPER, expires=later)


def test_a_moment_that_lies_about_its_order_counts_as_the_moment_it_is() -> None:
    """A subclass of datetime decides neither what is wider nor what is past."""
    never = Lying(2099, 1, 1, tzinfo=dt.UTC)
    past = Lying(2026, 1, 1, tzinfo=dt.UTC)
    kept = Recorded()
    with kept.session(expires="1h") as session, pytest.raises(WideningError):
        session.delegate(HELPER, expires=never)
    assert kept.session(expires=past).decide("t.pay").basis is Basis.REVOKED
    chain = Chain(MARIA, [Delegation(BOT, expires=past)])
    assert kept.authorizer.decide(Request("t.pay", subject=MARIA, chain=chain, now=NOON)).basis is Basis.REVOKED


# ---- names and facts


class Purpose(str, enum.Enum):  # noqa: UP042  (the older form is hashed and printed otherwise)
    REFUND = "refund"


def test_an_enum_stands_for_its_text() -> None:
    """Purposes and actions that are members of a string enum are what their text is."""

    @authorize(Purpose.REFUND)
    def refund() -> str:
        return "paid"

    kept = Recorded('permit p on refund when purpose == "refund"')
    with kept.session(purpose=Purpose.REFUND) as session:
        assert refund() == "paid"
        assert session.delegate(HELPER, purpose=Purpose.REFUND).bind(refund)() == "paid"
    with pytest.raises(NoSession, match="`refund` is denied"):
        refund()


def test_the_attributes_of_a_principal_are_frozen_all_the_way_down() -> None:
    """What the host changes in them after the principal was made is not seen."""
    profile = {"level": 1, "teams": ["a"]}
    someone = Principal.user("maria", profile=profile)
    profile["level"] = 9
    kept = Recorded("permit p on t.pay when subject.profile.level > 5")
    assert not kept.authorizer.session(someone).decide("t.pay").allowed


class Shifty(Mapping[str, object]):
    """Be arguments that are others each time they are read."""

    def __init__(self) -> None:
        self.reads = 0

    def __getitem__(self, name: str) -> object:
        self.reads += 1
        return self.reads

    def __iter__(self) -> Iterator[str]:
        return iter(["amount"])

    def __len__(self) -> int:
        return 1


def test_what_is_recorded_of_an_inline_call_is_what_was_decided() -> None:
    """Arguments that change when they are read again are read once."""
    kept = Recorded("permit p on t.pay when args.amount == 1")
    with kept.session() as session:
        assert session.decide("t.pay", args=Shifty()).allowed
        assert session.decide("t.pay", args={"amount": 1}).allowed
    assert kept.decisions[0].action.args_digest == kept.decisions[1].action.args_digest


# ---- policies that are replaced meanwhile


def test_replacing_policies_never_makes_an_action_look_watched_before_it_was() -> None:
    """At whatever point of a call they are replaced (by a signal's handler, say), what nobody watched is unknown."""
    old = PolicySet.parse("permit p on * when true")
    new = PolicySet.parse('permit p on * when true\nforbid f on t.send when began("t.read", 1h)')
    for by_hand in (False, True):
        for line in range(40):
            kept = Recorded()
            kept.authorizer.replace(old)
            with kept.session() as session:
                session.authorize("t.read")
                kept.clock.forward(minutes=1)
                facts = session.facts(State(), {})
                request = Request("t.send", subject=MARIA, session=facts, now=kept.clock.now)
                with at_line(line, lambda: kept.authorizer.replace(new), inspect.getfile(Authorizer)):  # noqa: B023
                    decision = kept.authorizer.decide(request) if by_hand else session.decide("t.send")
            assert decision.policy_digest == old.digest or not decision.allowed


@contextlib.contextmanager
def at_line(line: int, act: Callable[[], object], within: str) -> Iterator[None]:
    """Act before the so-manieth line that is run in files whose path holds `within`."""
    left = line

    def trace(frame: types.FrameType, event: str, _: object) -> Any:
        nonlocal left
        if within not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left == -1:
                sys.settrace(None)
                act()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


# ---- containers


def test_tuples_that_share_their_parts_are_copied_once() -> None:
    """A hundred tuples in each other, each twice, are a hundred tuples and no endless work."""
    tree: object = []
    for _ in range(100):
        tree = (tree, tree)

    def holds(value: object) -> str:
        return "held"

    copied = copy_plain(tree)
    assert isinstance(copied, tuple)
    assert copied[0] is copied[1]
    with Recorded("permit p on t.hold when true").session() as session:
        assert session.bind(authorize("t.hold")(holds))(tree) == "held"


# ---- perform


def test_perform_is_entered_and_left_once() -> None:
    """One decision has one effect, and none without a decision."""
    kept = Recorded()
    performing = kept.session().perform("t.pay")
    with pytest.raises(SessionError):
        performing.__exit__(None, None, None)
    with performing, pytest.raises(SessionError):
        performing.__enter__()
    with pytest.raises(SessionError):
        performing.__exit__(None, None, None)
    assert (len(kept.decisions), len(kept.effects)) == (1, 1)


# ---- what Python collects


@authorize("t.stream")
def stream() -> Iterator[int]:
    """Give numbers."""
    yield 1
    yield 2


LINES = 600  # more than such a call runs


class Abandoned:
    """Hold a generator, and itself: only the collector ends the two."""

    def __init__(self) -> None:
        self.numbers = stream()
        self.itself = self
        next(self.numbers)


def test_a_generator_that_is_collected_while_a_record_is_written_stops_nothing(tmp_path: Path) -> None:
    """Wherever in a call the collector ends it: its effect is recorded once, and no lock is waited for."""
    memory = MemorySink()
    kept = Recorded(sinks=[FileSink(tmp_path), memory])
    done: list[int] = []

    def calls() -> None:
        for line in range(LINES):
            memory.clear()
            with kept.session() as session:
                gc.disable()
                try:
                    Abandoned()
                    with at_line(line, lambda: gc.collect(0), "agentauthz"):
                        session.authorize("t.pay")
                        _ = memory.records
                finally:
                    gc.enable()
                    gc.collect(0)
            assert len({one.id for one in memory.decisions} | {one.id for one in memory.effects}) == 3
            assert [effect.status for effect in memory.effects] == ["stopped"]
            done.append(line)

    thread = threading.Thread(target=calls, daemon=True)
    thread.start()
    thread.join(60)
    assert len(done) == LINES


# ---- what is decorated is what runs


def outer(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function as most decorators do."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def test_bind_drops_no_decorator_that_is_above() -> None:
    """What another decorator adds above @authorize is part of the tool: it is refused rather than left out."""

    @authorize("t.pay")
    def pay() -> str:
        return "paid"

    class Bank:
        @outer
        @authorize("t.pay")
        def pay(self) -> str:
            return "paid"

    session = Recorded().session()
    assert session.bind(pay)() == "paid"
    for wrapped in (outer(pay), Bank().pay):
        with pytest.raises(InvalidArgument, match="another decorator"):
            session.bind(wrapped)


def test_a_signature_that_names_parameters_in_another_order_is_refused() -> None:
    """Values are decided under the names of the signature, and passed by place: both must mean the same."""

    def pay(amount: int, limit: int) -> str:
        return f"{amount} of {limit}"

    places = inspect.Parameter.POSITIONAL_OR_KEYWORD
    lie = inspect.Signature([inspect.Parameter(name, places) for name in ("limit", "amount")])
    pay.__signature__ = lie  # type: ignore[attr-defined]
    with pytest.raises(InvalidArgument, match="another order"):
        authorize("t.pay")(pay)


def test_the_librarys_own_actions_can_not_be_a_tools() -> None:
    """Every delegation passes those on, so a tool under such a name would be narrowed by none."""
    for name in ("token.mint", "delegation.handoff"):
        with pytest.raises(InvalidArgument, match="the library's own"):
            authorize(name)(outer)


async def test_a_coroutine_that_a_plain_function_returns_is_done_when_it_ends() -> None:
    """Its effect is that of the coroutine: a check that fails after its first step was not done."""

    @authorize("t.check")
    @outer
    async def check(good: bool) -> str:
        assert current().decision is not None
        await asyncio.sleep(0)
        if not good:
            raise ValueError
        return "good"

    kept = Recorded('permit p on * when true\nforbid f on t.pay unless done("t.check", 1h)')
    with kept.session() as session:
        with pytest.raises(ValueError):
            await check(False)
        assert not session.decide("t.pay").allowed
        running = check(True)
        assert not session.decide("t.pay").allowed
        assert await running == "good"
        assert session.decide("t.pay").allowed
        assert current().decision is None
    assert [effect.status for effect in kept.effects] == ["failed", "done"]


class Closing:
    """Be a sink while whose writing the session ends."""

    def __init__(self) -> None:
        self.session: Session | None = None

    def append(self, line: bytes, record: object) -> None:
        if self.session is not None:
            self.session.close()

    def close(self) -> None:
        pass


async def test_a_coroutine_does_not_begin_after_its_session_was_closed() -> None:
    """Between the decision and the first step others may run, and close the session."""
    ran: list[str] = []

    @authorize("t.pay")
    async def pay() -> None:
        ran.append("paid")

    sink = Closing()
    with Recorded(sinks=[sink]).session() as session:
        sink.session = session
        with pytest.raises(Stopped):
            await pay()
    assert not ran


async def test_a_coroutine_that_a_plain_function_returned_does_not_begin_after_its_session_has_expired() -> None:
    """It was decided when it was called, and may be awaited at any time after that."""
    ran: list[str] = []

    @authorize("t.pay")
    @outer
    async def pay() -> None:
        ran.append("paid")

    kept = Recorded()
    with kept.session(expires="1m"):
        running = pay()
        kept.clock.forward(minutes=1)
        with pytest.raises(Stopped, match="expired"):
            await running
    assert not ran
    assert [effect.status for effect in kept.effects] == ["stopped"]


def test_no_repr_shows_what_was_looked_up() -> None:
    """What a tool may print for debugging holds neither the resource's fields nor the host's attributes."""

    @authorize("t.pay", resource=lambda: Resource("order", "o-1", {"card": "4111"}, original={"card": "4111"}))
    def pay() -> str:
        here = current()
        return repr(here) + repr(here.session.facts(State(), {}))

    with Recorded().session(attributes={"card": "4111"}):
        assert "4111" not in pay()
