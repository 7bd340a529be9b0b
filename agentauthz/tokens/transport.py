"""Send one HTTP request and read the answer within bounds: over httpx, or whatever else a team uses."""

from __future__ import annotations

import asyncio
import inspect
import re
import ssl
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, TypeAlias, final

from attrs import field, frozen

from agentauthz.errors import ExchangeProtocolError, InvalidArgument, TransportError
from agentauthz.urls import checked_url

if TYPE_CHECKING:
    import httpx

Headers: TypeAlias = tuple[tuple[str, str], ...]

TIMEOUT: Final = 5.0  # seconds
MAX_BODY: Final = 256 * 1024  # bytes
MAX_HEADERS: Final = 16 * 1024  # bytes

_HEADER: Final = re.compile(r"[\x20-\x7e]*")


@final
@frozen(repr=False)
class HttpRequest:
    """Be a request; its headers and body may hold secrets, so they are never shown."""

    method: str
    url: str
    headers: Headers = ()
    body: bytes = b""

    def __repr__(self) -> str:
        return f"HttpRequest({self.method} {self.url.partition('?')[0]})"


@final
@frozen(repr=False)
class HttpResponse:
    """Be an answer: status, headers as they came, and the whole body."""

    status: int
    headers: Headers = ()
    body: bytes = field(default=b"")

    def header(self, name: str) -> str | None:
        """Return the one header of that name, whatever its case; None where there is none, or more than one."""
        found = self.all_headers(name)
        return found[0] if len(found) == 1 else None

    def all_headers(self, name: str) -> list[str]:
        """Return every header of that name, whatever its case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def __repr__(self) -> str:
        return f"HttpResponse({self.status})"


# Each must keep a deadline and a size of its own, and follow no redirect
Transport: TypeAlias = Callable[[HttpRequest], HttpResponse]
AsyncTransport: TypeAlias = Callable[[HttpRequest], Awaitable[HttpResponse]]


def check_transport(argument: str, transport: object, *, awaited: bool) -> None:
    """Check that something can be asked to send a request.

    Raises:
        InvalidArgument: it can't be called, or has to be awaited though it won't be.
    """
    if not callable(transport) or (inspect.iscoroutinefunction(transport) and not awaited):
        raise InvalidArgument(argument, "must be a function that sends an HttpRequest, such as an HttpxTransport")


def no_answer(of: str, cause: Exception) -> ExchangeProtocolError:
    """Return the error for a transport that raised; its own text may quote what was sent, and isn't told."""
    if isinstance(cause, TransportError):
        return ExchangeProtocolError(cause.reason, cause.message)
    return ExchangeProtocolError("unreachable", f"{of} can't be reached: {type(cause).__name__}")


@final
class HttpxTransport:
    """Send requests over httpx: call it, or await `aio`. Safe for threads, loops and forks: nothing is kept open.

    `timeout` (seconds) is for the whole request, from the first look-up to the last byte, however slowly bytes
    drip in. Redirects aren't followed, content codings are refused unread, and neither proxies, credentials nor
    certificates are taken from the environment. `tls` is for a private certificate authority or a client
    certificate (RFC 8705 §2).

    Raises:
        InvalidArgument: httpx is missing, a bound that is no positive number, or a `tls` that verifies nothing.
    """

    def __init__(
        self,
        timeout: float = TIMEOUT,
        max_body: int = MAX_BODY,
        *,
        max_headers: int = MAX_HEADERS,
        loopback_http: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        for name, bound in (("timeout", timeout), ("max_body", max_body), ("max_headers", max_headers)):
            if not 0 < bound < float("inf"):
                raise InvalidArgument(name, "must be a positive number")
        if tls is not None and not (tls.check_hostname and tls.verify_mode == ssl.CERT_REQUIRED):
            raise InvalidArgument("tls", "must verify certificates and host names")
        _require_httpx()
        import httpx

        self._timeout = timeout
        self._max_body = max_body
        self._max_headers = max_headers
        self._loopback_http = loopback_http
        self._tls = tls or httpx.create_ssl_context(trust_env=False)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Send a request and return the answer, also where a loop runs; for that it uses a thread of its own.

        Raises:
            InvalidArgument: an address that may not be fetched, or headers that can't be sent.
            TransportError: no whole answer within the bounds.
        """
        answer: Future[HttpResponse] = Future()

        def run() -> None:
            try:
                answer.set_result(asyncio.run(self.aio(request)))
            except BaseException as failed:  # the caller raises it
                answer.set_exception(failed)

        try:
            threading.Thread(target=run, name="agentauthz-http", daemon=True).start()
        except RuntimeError:
            raise TransportError("unreachable", "no thread could be started for the request") from None
        try:
            return answer.result(self._timeout)  # a look-up of names can't be cancelled: don't wait for it
        except TimeoutError:
            raise self._late() from None

    async def aio(self, request: HttpRequest) -> HttpResponse:
        """Do what a call does, without blocking the loop."""
        checked_url("url", request.url, loopback_http=self._loopback_http)
        if not all(_HEADER.fullmatch(value) for _, value in request.headers):  # httpcore would log what it refuses
            raise InvalidArgument("headers", "must be of printable ASCII characters")
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(request)
        except TransportError:
            raise
        except TimeoutError:
            failed = self._late()
        except Exception as cause:  # its text may quote a header: it must not be told, nor be the context of what is
            failed = _unreachable(cause)
        raise failed

    async def _exchange(self, request: HttpRequest) -> HttpResponse:
        import httpx

        headers = [*request.headers, ("Accept-Encoding", "identity"), ("User-Agent", "agentauthz")]
        sent = httpx.Request(request.method, request.url, headers=headers, content=request.body or None)
        async with httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=None) as client:  # noqa: S113
            answer = await client.send(sent, stream=True, follow_redirects=False)
            try:
                found = self._checked_headers(answer)
                return HttpResponse(answer.status_code, found, await self._body(answer))
            finally:
                await answer.aclose()

    def _checked_headers(self, answer: httpx.Response) -> Headers:
        found = answer.headers.raw
        if sum(len(name) + len(value) for name, value in found) > self._max_headers:
            raise TransportError("too_large", f"the answer's headers are larger than {self._max_headers} bytes")
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise TransportError("encoding", "the answer is compressed, which wasn't asked for")
        return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in found)

    async def _body(self, answer: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > self._max_body:
                raise TransportError("too_large", f"the answer is larger than {self._max_body} bytes")
        return bytes(body)

    def _late(self) -> TransportError:
        return TransportError("deadline", f"there was no whole answer within {self._timeout:g} s")


def _unreachable(cause: Exception) -> TransportError:
    import httpx

    why = f": {cause}" if isinstance(cause, httpx.ConnectError) else ""  # nothing was sent yet
    return TransportError("unreachable", f"the request failed with {type(cause).__name__}{why}")


def _require_httpx() -> None:
    try:
        import httpx  # noqa: F401  (to see that it is there)
    except ImportError:
        raise InvalidArgument(
            "transport", "needs httpx: install `agentauthz[http]`, or give a transport of your own"
        ) from None
