"""Send records to a collector over HTTP, as a JSON array that is compressed: what decision-log collectors take."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from agentauthz.errors import InvalidArgument
from agentauthz.records.sinks.background import Rejected
from agentauthz.records.sinks.extras import require
from agentauthz.records.sinks.loop import Loop
from agentauthz.records.sinks.shipped import Shipped
from agentauthz.records.sinks.waiting import ROOM, Delivery, Limits
from agentauthz.urls import checked_url

if TYPE_CHECKING:
    import ssl

    import httpx

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_MAX_ANSWER: Final = 64 * 1024  # bytes
_REST: Final = 0.1  # seconds for the rest of an answer whose status has come
_REJECTED: Final = frozenset({400, 413, 422})  # the fault of what was sent; of all else, time may be the cure


@final
class HttpSink(Shipped):
    """POST records to `url`: a JSON array of a `batch` of them at most, compressed with gzip (extra `http`).

    An answer 2xx acknowledges the whole array. After any other the same lines are sent again, at ever longer
    intervals, so a record may come twice: receivers tell by `stream` and `seq`. Where the answer is 400, 413 or 422
    the array is halved, to find the record that is rejected. `headers` may hold secrets, and are never shown.

    With `delivery` "acknowledged" an append returns once its record was, or raises after `timeout` seconds; with
    "queued" once it is in the queue, which holds `room` bytes and where it is full lets wait; with "lossy" a full queue
    gives up the oldest allows and effects, counts them, and sends a `stream.gap`. A record may wait `linger` seconds
    for others. `tls` is for a private certificate authority or a client certificate.

    Raises:
        InvalidArgument: httpx is missing, an address that isn't https (with `loopback_http`, http on this machine),
            headers that can't be sent, a `tls` that verifies nothing, or a bound that is no positive number.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] = _NONE,
        delivery: Delivery = "acknowledged",
        timeout: float = 5.0,
        room: int = ROOM,
        batch: int = 500,
        linger: float = 0.0,
        loopback_http: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        require("httpx", "http")
        checked_url("url", url, loopback_http=loopback_http)
        for name, value in headers.items():
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise InvalidArgument("headers", "must be of printable ASCII characters")
        if tls is not None and not (tls.check_hostname and tls.verify_mode.name == "CERT_REQUIRED"):
            raise InvalidArgument("tls", "must verify certificates and host names")
        limits = Limits(delivery, timeout, room, batch, linger)
        sent = {**headers, "content-type": "application/json", "content-encoding": "gzip", "user-agent": "agentauthz"}
        super().__init__(lambda: _Wire(url, sent, timeout, tls), limits, "process_crash")


@final
class _Wire:
    """Be one connection, kept open: httpx's transport alone, for its client logs each address, follows and decodes."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout: float, tls: ssl.SSLContext | None) -> None:
        import httpx

        self._loop = Loop(timeout)
        self._transport = httpx.AsyncHTTPTransport(verify=tls or httpx.create_ssl_context(trust_env=False))
        self._url, self._headers = url, headers

    def send(self, lines: Sequence[bytes]) -> None:
        import gzip  # who keeps records elsewhere doesn't load it

        body = gzip.compress(b"[" + b",".join(line.rstrip(b"\n") for line in lines) + b"]", compresslevel=6)
        status = self._loop.run(self._posted(body))
        if status in _REJECTED:
            raise Rejected(f"the collector answered {status}")
        if not 200 <= status < 300:
            raise ConnectionError(f"the collector answered {status}")

    async def _posted(self, body: bytes) -> int:
        """Return the status; the rest of an answer is of no interest, except that the connection can be used again."""
        import asyncio

        import httpx

        request = httpx.Request("POST", self._url, headers=self._headers, content=body)
        answer = await self._transport.handle_async_request(request)
        try:
            with contextlib.suppress(TimeoutError, httpx.HTTPError):
                async with asyncio.timeout(_REST):
                    await _read(answer)
            return answer.status_code
        finally:
            await answer.aclose()

    def close(self) -> None:
        self._loop.close(self._transport.aclose())


async def _read(answer: httpx.Response) -> None:
    read = 0
    async for chunk in answer.aiter_raw():
        read += len(chunk)
        if read > _MAX_ANSWER:
            return
