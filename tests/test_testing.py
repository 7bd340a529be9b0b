"""The helpers that users test their own tools with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentauthz import Denied, InvalidArgument, NoSession, PolicyError, Principal, authorize, current, testing
from tests.support import Recorded

pytest_plugins = ["pytester"]


@authorize("orders.refund")
def refund(amount: int) -> int:
    return amount


def test_allowing_allows_exactly_what_it_names() -> None:
    """Names, prefixes, everything, and names that need quotes in a policy."""
    with testing.allowing("orders.*") as session:
        assert refund(3) == 3
        assert session.decide("orders.a.b").allowed
        assert not session.decide("orders").allowed
        assert not session.decide("mail.send").allowed
    with testing.allowing("mcp.github/create-issue", "limit.x", 'a"b\\') as session:
        assert session.decide("mcp.github/create-issue").allowed
        assert session.decide("limit.x").allowed
        assert session.decide('a"b\\').allowed
        assert not session.decide("x").allowed
    with testing.allowing("*", subject=Principal.user("anna"), purpose="test") as session:
        assert (session.subject.id, session.purpose) == ("anna", "test")
        refund(1)
    with pytest.raises(NoSession):
        refund(1)


def test_wrong_patterns_are_refused() -> None:
    """Nothing named, or a star where none can be."""
    with pytest.raises(InvalidArgument), testing.allowing():
        pytest.fail("entered")
    for pattern in ("a*", "*.a", "", "a..b*"):
        with pytest.raises(PolicyError), testing.allowing(pattern):
            pytest.fail("entered")


def test_a_session_by_policy_text() -> None:
    """The rule under test, and nothing else."""
    with testing.session("permit p on orders.refund when args.amount <= 5"):
        assert refund(5) == 5
        with pytest.raises(Denied):
            refund(6)


def test_records_are_captured_for_a_while() -> None:
    """Beside what the authorizer's own sinks get, and only inside the block."""
    kept = Recorded()
    with kept.session():
        refund(1)
        with testing.capture_records(kept.authorizer) as captured:
            refund(2)
        refund(3)
    assert [record.action.name for record in captured.decisions] == ["orders.refund"]
    assert len(captured.effects) == 1
    assert len(kept.decisions) == 3


def test_the_fixtures(
    authz_allowing: Callable[..., Any], authz_session: Callable[..., Any], authz_records: Callable[..., Any]
) -> None:
    """They enter at once, and a test may use several, one after the other."""
    session = authz_allowing("orders.*")
    records = authz_records(session.authorizer)
    assert refund(7) == 7
    assert current().session is session
    assert len(records.decisions) == 1
    session.__exit__(None, None, None)
    authz_session("permit p on orders.refund when args.amount == 1")
    with pytest.raises(Denied):
        refund(2)


def test_fixtures_leave_with_their_test(pytester: pytest.Pytester) -> None:
    """The next test has no session."""
    pytester.makepyfile(
        """
        import pytest
        from agentauthz import NoSession, authorize

        @authorize("a.b")
        def tool():
            return 1

        def test_one(authz_allowing):
            authz_allowing("a.b")
            assert tool() == 1

        def test_two():
            with pytest.raises(NoSession):
                tool()
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=2)
