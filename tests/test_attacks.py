"""Attempts to run a call undecided, wider than was given, or other than it was decided."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from agentauthz import Basis, Denied, authorize
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
