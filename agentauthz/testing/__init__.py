"""Help users test their own tools: sessions without ceremony, and records to look at.

The same helpers are pytest fixtures: `authz_allowing`, `authz_session` and `authz_records`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from agentauthz.authorizer import Authorizer
from agentauthz.errors import InvalidArgument
from agentauthz.obligations.handler import NONE_GIVEN, Given
from agentauthz.policy.policyset import PolicySet
from agentauthz.principals import Principal
from agentauthz.records import MemorySink, Sink
from agentauthz.session import Session
from agentauthz.testing.sinks import SinkReport as SinkReport
from agentauthz.testing.sinks import check_sink as check_sink
from agentauthz.testing.state import StateReport as StateReport
from agentauthz.testing.state import check_state as check_state

USER = Principal.user("test-user")
AGENT = Principal.agent("test-agent")


@contextmanager
def allowing(*actions: str, subject: Principal = USER, actor: Principal = AGENT, **options: Any) -> Iterator[Session]:
    """Enter a session in which exactly these actions (`orders.refund`, `orders.*`, `*`) are allowed.

    `options` are those of `Authorizer.session`.

    Raises:
        InvalidArgument: no action.
        PolicyError: a pattern that isn't one.
    """
    if not actions:
        raise InvalidArgument("actions", "must name at least one action")
    patterns = ", ".join(action if _is_pattern(action) else _quoted(action) for action in actions)
    with session(f"permit allowed on {patterns} when true", subject=subject, actor=actor, **options) as entered:
        yield entered


@contextmanager
def session(
    policy: str,
    *,
    subject: Principal = USER,
    actor: Principal = AGENT,
    sinks: Iterable[Sink] = (),
    obligations: Given = NONE_GIVEN,
    **options: Any,
) -> Iterator[Session]:
    """Enter a session that is decided by the policy in `policy`; `options` are those of `Authorizer.session`.

    Raises:
        PolicyError: the text is no policy.
        InvalidArgument: an argument of the wrong type.
    """
    with (
        Authorizer(
            PolicySet.parse(policy, "<test>"), sinks=[*sinks, MemorySink()], obligations=obligations
        ) as authorizer,
        authorizer.session(subject, actor, **options) as entered,
    ):
        yield entered


@contextmanager
def capture_records(authorizer: Authorizer) -> Iterator[MemorySink]:
    """Keep what `authorizer` records while the block runs, beside what its own sinks get."""
    sink = MemorySink()
    authorizer.add_sink(sink)
    try:
        yield sink
    finally:
        authorizer.remove_sink(sink)


def _is_pattern(action: str) -> bool:
    """Say whether an action can stand in a policy without quotes."""
    stem = action.removesuffix("*").removesuffix(".") if action.endswith("*") else action
    return action == "*" or all(part.isidentifier() and part.isascii() for part in stem.split("."))


def _quoted(action: str) -> str:
    return '"' + action.replace("\\", "\\\\").replace('"', '\\"') + '"'
