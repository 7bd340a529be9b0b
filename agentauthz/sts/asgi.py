"""Serve a token endpoint over ASGI, alone or mounted in another application; no framework is needed.

```text
POST /token        POST /introspect   POST /revoke
GET  /jwks         GET  /.well-known/oauth-authorization-server
```
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypeAlias, final
from urllib.parse import urlsplit

from agentauthz.errors import ExchangeRefused, InvalidArgument
from agentauthz.sts import answers
from agentauthz.sts.endpoint import EXCHANGE, INTROSPECT, REVOKE, TokenEndpoint
from agentauthz.sts.forms import MAX_BODY, too_large
from agentauthz.tokens.transport import Headers, HttpResponse

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
PeerCert: TypeAlias = Callable[[Scope], bytes | None]
Posted: TypeAlias = Callable[..., HttpResponse]  # method, headers, body, and `peer_cert`

WELL_KNOWN: Final = "/.well-known/oauth-authorization-server"
BODY_SECONDS: Final = 10.0  # how long a client may take to send its form


def tls_peer(scope: Scope) -> bytes | None:
    """Return the certificate of the connection's peer, as PEM, where the server has the TLS extension of ASGI."""
    tls = (scope.get("extensions") or {}).get("tls") or {}
    chain = tls.get("client_cert_chain") or ()
    return None if not chain or tls.get("client_cert_error") else str(chain[0]).encode()


@final
class TokenApp:
    """Be the ASGI application of a token endpoint.

    Exchanges run in `workers` threads of its own, so that the loop never waits for them; when `waiting` more are
    there, others are told to try later (503). `peer_cert` tells the certificate that the TLS connection proved:
    write one where a proxy ends TLS, and trust its header only if nobody else can set it.

    Raises:
        InvalidArgument: fewer than one worker, or a negative number that may wait.
    """

    def __init__(
        self, endpoint: TokenEndpoint, *, workers: int = 8, waiting: int = 64, peer_cert: PeerCert = tls_peer
    ) -> None:
        if workers < 1 or waiting < 0:
            raise InvalidArgument("workers", "must be at least 1, and `waiting` at least 0")
        path = urlsplit(endpoint.issuer).path.rstrip("/")
        self._peer_cert: Final = peer_cert
        self._pool: Final = ThreadPoolExecutor(workers, thread_name_prefix="agentauthz-sts")
        self._room: Final = threading.Semaphore(workers + waiting)
        self._refuse: Final = endpoint.refuse
        self._posted: Final[Mapping[str, tuple[str, Posted]]] = {
            "/token": (EXCHANGE, endpoint.handle),
            "/introspect": (INTROSPECT, endpoint.introspect),
            **({"/revoke": (REVOKE, endpoint.revoke)} if endpoint.revokes else {}),
        }
        metadata = partial(answers.published, endpoint.metadata(), seconds=3600)
        self._read: Final[Mapping[str, Callable[[], HttpResponse]]] = {
            "/jwks": lambda: answers.published(endpoint.jwks(), seconds=300),
            WELL_KNOWN: metadata,
            WELL_KNOWN + path: metadata,  # RFC 8414 §3.1: the issuer's path comes last
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection, as ASGI 3 has it: `http`, `lifespan`; a `websocket` is closed."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await asyncio.to_thread(self._pool.shutdown)  # what has begun is finished, and recorded
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = str(scope["method"]), _path(scope)
        if path in self._posted:
            allowed = "POST, OPTIONS"
        elif path in self._read:
            allowed = "GET, HEAD, OPTIONS"
        else:
            await _send(send, HttpResponse(404, (("Content-Length", "0"),)))
            return
        if method == "OPTIONS":
            await _send(send, HttpResponse(204, (("Allow", allowed),)))
        elif path in self._posted:
            found = await self._post(path, method, scope, receive)
            if found is not None:  # else the client has left
                await _send(send, found)
        elif method in ("GET", "HEAD"):
            await _send(send, self._read[path](), head=method == "HEAD")
        else:
            await _send(send, HttpResponse(405, (("Allow", allowed), ("Content-Length", "0"))))

    async def _post(self, path: str, method: str, scope: Scope, receive: Receive) -> HttpResponse | None:
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        action, posted = self._posted[path]
        refused: ExchangeRefused | None = None
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(headers, receive) if method == "POST" else b""
            if body is None:
                return None
            work = partial(posted, method, headers, body, peer_cert=self._peer_cert(scope))
        except TimeoutError:
            refused = ExchangeRefused("invalid_request", "body_too_slow", status=408)
        except ExchangeRefused as found:
            refused = found
        except Exception:  # the host's way to the certificate
            refused = ExchangeRefused("server_error", "peer_cert", status=500)
        return await self._worked(work if refused is None else partial(self._refuse, action, refused))

    async def _worked(self, work: Callable[[], HttpResponse]) -> HttpResponse:
        """Return the answer that a worker makes; who finds none is told to come later, which nobody records."""
        if not self._room.acquire(blocking=False):
            return answers.error(ExchangeRefused("temporarily_unavailable", "too_many_requests", status=503))
        try:
            running = self._pool.submit(copy_context().run, work)
        except RuntimeError:  # it shuts down
            self._room.release()
            return answers.error(ExchangeRefused("temporarily_unavailable", "shutting_down", status=503))
        running.add_done_callback(lambda _: self._room.release())  # also where it never began
        return await asyncio.wrap_future(running)


def _path(scope: Scope) -> str:
    """Return the path below where the application is mounted; the well-known one may also stand at the root."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "").rstrip("/")
    if path.startswith(WELL_KNOWN):
        return path
    return path[len(root) :] if root and path.startswith(root + "/") else path


async def _body(headers: Headers, receive: Receive) -> bytes | None:
    """Return a request's whole body; None where the client left before its end.

    Raises:
        ExchangeRefused: larger than what is read.
    """
    announced = [value for name, value in headers if name.lower() == "content-length"]
    if any(not value.isdecimal() or int(value[:20]) > MAX_BODY for value in announced):
        raise too_large()
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise too_large()
        if not message.get("more_body", False):
            return bytes(body)


async def _send(send: Send, found: HttpResponse, *, head: bool = False) -> None:
    names = {name.lower() for name, _ in found.headers}
    length = () if found.status == 204 or "content-length" in names else (("Content-Length", str(len(found.body))),)
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (*found.headers, *length)]
    try:
        await send({"type": "http.response.start", "status": found.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if head else found.body})
    except OSError:  # ASGI 2.4: the client has left, and there is nobody to answer
        return
