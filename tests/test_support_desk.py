"""Test that the policy of `examples/support_desk` holds on other turns than those that its story tells."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentauthz import Authorizer, Denied, PolicySet, ReviewRequired
from tests.example_tools import load_example

_, desk, tools, shop = load_example("support_desk", "desk", "desk_tools", "shop")
RESEARCHER = desk.helper("researcher")


@pytest.fixture
def place(tmp_path: Path) -> Any:
    """Return a desk that is set up, and nothing refunded yet."""
    for order in shop.ORDERS.values():
        order.refunded = Decimal(0)
    made = desk.Desk(tmp_path / "desk")
    made.set_up()
    return made


@pytest.fixture
def authorizer(place: Any) -> Iterator[Authorizer]:
    """Return what decides at that desk."""
    with place.authorizer() as made:
        yield made


def reason(tool: Any, *args: object) -> str:
    """Make a call, and return the first rule or code that stopped it; empty: it ran."""
    try:
        tool(*args)
    except (Denied, ReviewRequired) as stopped:
        decision = stopped.decision
    else:
        return ""
    assert decision is not None
    return str(decision.reasons[0].rule or decision.reasons[0].code)


def test_policy_has_no_warning_against_its_tools() -> None:
    """The checker has nothing to say of the policy, alone and against the tools."""
    policies = PolicySet.load(desk.POLICY)
    assert policies.warnings == ()
    assert policies.check(tools=tools.TOOLS) == ()


def test_no_number_of_helpers_multiplies_a_budget(authorizer: Authorizer) -> None:
    """Helpers of helpers, and the sender after them, have the session's two refunds together."""
    with desk.ticket_session(authorizer, "ticket-3") as session:
        tools.check_identity("c-3")
        ran = []
        for number in range(4):
            with session.delegate(desk.helper(f"h-{number}")) as first, first.delegate(desk.helper(f"g-{number}")):
                ran.append(reason(tools.refund, "o-19", Decimal(1)))
        ran.append(reason(tools.refund, "o-19", Decimal(1)))
    assert ran == ["", "", "refunds_of_ticket", "refunds_of_ticket", "refunds_of_ticket"]


def test_a_day_has_one_budget_in_all_tickets_and_processes(place: Any) -> None:
    """Another authorizer on the same folder, as another process has, finds what was spent in another ticket."""
    with place.authorizer() as one, desk.ticket_session(one, "ticket-2"):
        tools.check_identity("c-2")
        assert [reason(tools.refund, "o-18", Decimal(200)) for _ in range(2)] == ["", ""]
    with place.authorizer() as other, desk.ticket_session(other, "ticket-3"):
        tools.check_identity("c-3")
        assert reason(tools.refund, "o-19", Decimal(180)) == ""
    with place.authorizer() as third, desk.ticket_session(third, "ticket-1"):
        tools.check_identity("c-1")
        assert reason(tools.refund, "o-17", Decimal("20.01")) == "refunds_of_day"
        assert reason(tools.refund, "o-17", Decimal(20)) == ""


def test_a_mark_outlasts_agent_session_and_process(place: Any) -> None:
    """Once a researcher has read a file, no agent of the ticket reaches the web, also where it is begun again."""
    with place.authorizer() as one, desk.ticket_session(one, "ticket-3") as session:
        assert reason(tools.fetch, "https://parcels.example/") == ""
        with session.delegate(RESEARCHER):
            assert tools.read_file("c-3")["card"] == "•••"
        assert reason(tools.fetch, "https://parcels.example/") == "leak_by_web"
    with place.authorizer() as other:
        with desk.ticket_session(other, "ticket-3") as again, again.delegate(desk.helper("clean")):
            assert reason(tools.fetch, "https://parcels.example/") == "leak_by_web"
            assert reason(tools.send_mail, "audit@cards.example", "x", "x") == "leak_by_mail"
            assert reason(tools.send_mail, shop.CUSTOMERS["c-3"].address, "x", "x") == ""
        with desk.ticket_session(other, "ticket-1"):
            assert reason(tools.fetch, "https://parcels.example/") == ""


def test_an_identity_counts_for_its_ticket_alone(authorizer: Authorizer) -> None:
    """A check in one ticket is none in another, and a ticket's agent can't check somebody else."""
    with desk.ticket_session(authorizer, "ticket-1"):
        tools.check_identity("c-1")
    with desk.ticket_session(authorizer, "ticket-4"):
        assert reason(tools.check_identity, "c-1") == "other_customers"
        assert reason(tools.refund, "o-20", Decimal(1)) == "unidentified"


@pytest.mark.parametrize("amount", [Decimal(0), Decimal(-5), Decimal("40.01")])
def test_odd_amounts_are_denied(authorizer: Authorizer, amount: Decimal) -> None:
    """Nothing goes back that isn't positive, or is more than was paid."""
    with desk.ticket_session(authorizer, "ticket-1"):
        tools.check_identity("c-1")
        assert reason(tools.refund, "o-17", amount) == "more_than_paid"


def test_a_large_refund_waits_and_takes_nothing(authorizer: Authorizer) -> None:
    """What waits for a finance lead has spent no budget; sent by a helper, it waits too."""
    with desk.ticket_session(authorizer, "ticket-2") as session:
        tools.check_identity("c-2")
        with session.delegate(desk.helper("helper-1")):
            assert reason(tools.refund, "o-18", Decimal(450)) == "large_refund"
        assert reason(tools.refund, "o-18", Decimal(450)) == "large_refund"
        ahead = session.preview("kyc.check", args={"customer": "c-2"})
        assert ahead.allowed
        assert [reason(tools.refund, "o-18", Decimal(200)) for _ in range(2)] == ["", ""]


def test_agents_of_others_get_nothing(authorizer: Authorizer) -> None:
    """An agent that isn't the desk's may not even read, also where the desk's own agent sends it."""
    stranger = desk.Principal.agent("desk-bot-2", team="marketing")
    with desk.ticket_session(authorizer, "ticket-1") as session, session.delegate(stranger):
        assert reason(tools.read_ticket, "ticket-1") == "not_permitted"


def test_no_card_and_no_mail_stands_in_the_folder(place: Any) -> None:
    """Neither what the masked file hides nor what a mail says gets into state or records."""
    card, body = shop.CUSTOMERS["c-3"].card, "a text that nobody else writes"
    with place.authorizer() as made, desk.ticket_session(made, "ticket-3") as session:
        with session.delegate(RESEARCHER):
            tools.read_file("c-3")
        tools.send_mail(shop.CUSTOMERS["c-3"].address, "Your parcel", body)
    kept = [path.read_bytes() for path in place.folder.rglob("*") if path.is_file()]
    assert len(kept) >= 3
    assert not any(text.encode() in content for content in kept for text in (card, body))
