"""Attempts to run a call undecided, wider than was given, or other than it was decided."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
from collections.abc import Callable
from typing import Annotated, Any, NewType

import attrs
import pytest
from typing_extensions import TypeAliasType

from agentauthz import AgentAuthzError, Basis, Denied, InvalidArgument, NoSession, Sensitive, authorize
from tests.support import NOON, Recorded

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
