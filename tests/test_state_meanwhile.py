"""What happens while a call is decided, while its store is away, or between its asking and its retry, counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from agentauthz import ReviewRequired
from agentauthz.state.memory import MemoryState
from agentauthz.state.sqlite import SqliteState
from tests.approving import LEAD, asked, close_all, codes, refund, shared, shop
from tests.recording import until
from tests.support import HELPER, Clock


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    yield
    close_all()


class Meanwhile:
    """Be a store in which something happens before each commit, as often as there is something."""

    blocking = False

    def __init__(self, *happens: Callable[[], object]) -> None:
        self.kept = MemoryState(clock=Clock())
        self.happens = list(happens)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kept, name)

    def commit(self, intent: Any) -> Any:
        if self.happens:
            self.happens.pop(0)()
        return self.kept.commit(intent)


SENDING: Final = """
permit all on t.* when true
mark secret on t.read
limit sends on t.send to count <= 1 per subject every 1d
forbid out on t.send when "secret" in session.marks
forbid hasty on t.send when began("t.delete", 1h)
forbid twice on t.send when done("t.post", 1h)
"""


@pytest.mark.parametrize(("action", "rule"), [("t.read", "out"), ("t.delete", "hasty"), ("t.post", "twice")])
@pytest.mark.parametrize("who", ["a sub-agent", "another handle", "another authorizer"])
def test_what_others_of_a_session_do_while_a_call_is_decided_counts(action: str, rule: str, who: str) -> None:
    """A mark or last-seen time that is set between the look and the commit stops the call, and nothing is spent."""
    store: Any = Meanwhile()
    made = shop(SENDING, state=store)
    session = made.session(id="s")
    other = {
        "a sub-agent": lambda: session.delegate(HELPER),
        "another handle": lambda: made.session(id="s"),
        "another authorizer": lambda: shop(SENDING, state=store).session(id="s"),
    }[who]()

    def act() -> None:
        with other.perform(action):
            pass

    assert session.preview("t.send").allowed
    store.happens.append(act)
    decision = session.decide("t.send")
    assert (decision.allowed, decision.rules) == (False, (rule,))
    assert made.session(id="another").decide("t.send").allowed, "the budget is as it was"


def test_a_call_is_not_decided_for_ever() -> None:
    """Where what was read has changed at three looks in a row, the call is denied, and the next one is decided anew."""
    store: Any = Meanwhile()
    made = shop(SENDING, state=store)
    session = made.session(id="s")
    store.happens += [lambda at=at: session.mark(f"m{at}") for at in range(3)]
    assert codes(session.decide("t.send")) == ["changed_meanwhile"]
    assert session.decide("t.send").allowed


def test_what_depends_on_no_state_goes_on_for_as_long_as_was_said(tmp_path: Path) -> None:
    """A file that is gone stops what needs it at once, and everything else once nobody knows what was revoked."""
    state = SqliteState(tmp_path / "state.db")
    made = shop(SENDING, state=state, revocation_max_age=2.0)
    session = made.session()
    assert session.decide("t.send").allowed
    (tmp_path / "state.db").rename(tmp_path / "away.db")
    lost = time.monotonic()
    assert codes(session.decide("t.read")) == ["state_failed"]
    assert session.decide("t.other").allowed
    until(lambda: codes(session.decide("t.other")) == ["revocations_outdated"], seconds=30)
    assert time.monotonic() - lost > 1.0
    (tmp_path / "away.db").rename(tmp_path / "state.db")
    until(lambda: session.decide("t.other").allowed, seconds=30)
    state.close()


def test_an_agent_that_makes_its_call_again_after_a_restart_finds_its_approval(tmp_path: Path) -> None:
    """Another process with the same key and store lets it happen once, though the new handles end at another time."""
    first = shop(state=shared(tmp_path / "state"))
    session = first.session(id="s", expires="1h")
    review = asked(session.delegate(HELPER, expires="30m"), "o-1", 600, card="4111")
    later = shop(state=shared(tmp_path / "state"))
    again = later.session(id="s", expires="2h").delegate(HELPER, expires="50m").bind(refund)
    with pytest.raises(ReviewRequired) as waits:
        again("o-1", 600, card="4111")
    assert waits.value.review is not None
    assert waits.value.review.id == review.id
    later.authorizer.approvals.approve(review.id, LEAD)
    assert again("o-1", 600, card="4111") == "refunded o-1 600"
    with pytest.raises(ReviewRequired) as anew:
        again("o-1", 600, card="4111")
    assert anew.value.review is not None
    assert anew.value.review.id != review.id
