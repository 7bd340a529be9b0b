"""Tell somebody of a call before it runs: `notify(…)`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import cast

from agentauthz.errors import InvalidArgument
from agentauthz.obligations.handler import Duty, Handler, is_async


def notify(send: Callable[[str, Mapping[str, object]], object]) -> Handler:
    """Return the handler of `notify(…)`: `send` gets a line of text, and the properties as the policy has them.

    The line says what is done by whom for whom, and how it was decided; it holds no arguments. `send` may be a
    coroutine function, for async calls. Where it raises, or returns False, the call is denied.

    Raises:
        InvalidArgument: `send` can't be called.
    """
    if not callable(send):
        raise InvalidArgument("send", "must be a function of a text and a mapping")
    if not is_async(send):
        return Handler(before=lambda duty: send(_line(duty), duty.properties))

    async def told(duty: Duty) -> object:
        return await cast("Awaitable[object]", send(_line(duty), duty.properties))

    return Handler(before=told)


def _line(duty: Duty) -> str:
    request = duty.request
    acting = "" if request.actor == request.subject else f"{request.actor} for "
    what = "" if request.purpose is None or not isinstance(request.purpose, str) else f', purpose "{request.purpose}"'
    text = f"`{request.action}` by {acting}{request.subject}{what}: {duty.decision.outcome.value}"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
