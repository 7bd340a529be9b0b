"""Offer the helpers of `agentauthz.testing` as pytest fixtures; pytest finds this plugin by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest


@pytest.fixture
def authz_allowing() -> Iterator[Callable[..., Any]]:
    """Return `testing.allowing` as a function that enters the session at once; it is left when the test ends."""
    from agentauthz import testing  # here: other projects' tests don't pay for it

    with ExitStack() as stack:
        yield lambda *actions, **options: stack.enter_context(testing.allowing(*actions, **options))


@pytest.fixture
def authz_session() -> Iterator[Callable[..., Any]]:
    """Return `testing.session` as a function that enters the session at once; it is left when the test ends."""
    from agentauthz import testing

    with ExitStack() as stack:
        yield lambda policy, **options: stack.enter_context(testing.session(policy, **options))


@pytest.fixture
def authz_records() -> Iterator[Callable[..., Any]]:
    """Return `testing.capture_records` as a function of an authorizer; capturing ends when the test does."""
    from agentauthz import testing

    with ExitStack() as stack:
        yield lambda authorizer: stack.enter_context(testing.capture_records(authorizer))
