"""Ask one address for one answer, bounded in size and time: where checkpoints are kept, and where they are sent."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from agentauthz.records.sinks.loop import Loop

if TYPE_CHECKING:
    import ssl

_SENT: Final = {"user-agent": "agentauthz", "accept-encoding": "identity"}


def ask(
    method: Literal["GET", "POST"],
    url: str,
    *,
    body: bytes = b"",
    headers: Mapping[str, str],
    timeout: float,
    limit: int,
    tls: ssl.SSLContext | None = None,
) -> bytes:
    """Return what an address answers to one request; nothing is followed, and nothing decoded.

    SECURITY: no message holds the address, which may hold a secret, or what was answered.

    Raises:
        ConnectionError: it answers with another status than 2xx, or with more than `limit` bytes.
        TimeoutError: it takes longer than `timeout` seconds, however slowly it goes on.
        httpx.HTTPError: it can't be reached, or breaks off.
    """
    import httpx

    async def answered() -> bytes:
        request = httpx.Request(method, url, headers={**headers, **_SENT}, content=body)
        answer = await transport.handle_async_request(request)
        try:
            if not 200 <= answer.status_code < 300:
                raise ConnectionError(f"it answered {answer.status_code}")
            found = bytearray()
            async with contextlib.aclosing(answer.aiter_raw()) as chunks:  # type: ignore[type-var]  # it is a generator
                async for chunk in chunks:
                    found += chunk
                    if len(found) > limit:
                        raise ConnectionError(f"it answered with more than {limit} bytes")
            return bytes(found)
        finally:
            await answer.aclose()

    loop = Loop(timeout)
    # its client would log each address, follow and decode
    transport = httpx.AsyncHTTPTransport(verify=tls or httpx.create_ssl_context(trust_env=False))
    try:
        return loop.run(answered())
    finally:
        loop.close(transport.aclose())
