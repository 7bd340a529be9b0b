"""Run real HTTP servers on the loopback interface: well-behaved ones, and ones that misbehave in every known way."""

from __future__ import annotations

import gzip
import json
import ssl
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias


class Seen(NamedTuple):
    """Be a request that came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """Be what an answer is written to; `stopping` ends answers that would never end."""

    def __init__(self, write: Callable[[bytes], object], stopping: threading.Event) -> None:
        self._write = write
        self.stopping = stopping
        self.written = 0

    def write(self, data: bytes) -> None:
        self._write(data)
        self.written += len(data)


Answer: TypeAlias = Callable[[Connection], None]


class Loopback:
    """Be an HTTP server for one test: `answer` may be exchanged while it runs, and `seen` is what was asked."""

    def __init__(self, answer: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.seen: list[Seen] = []
        self.connections: list[Connection] = []
        self.stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up are the point
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_port}/jwks?tenant=CANARY"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.seen.append(Seen(self.command, self.path, dict(self.headers.items()), body))
                connection = Connection(self.wfile.write, outer.stopping)
                outer.connections.append(connection)
                outer.answer(connection)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def __enter__(self) -> Loopback:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Go down: what is connected is let go, and nobody can connect any more."""
        if not self.stopping.is_set():
            self.stopping.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


def head(status: int = 200, **headers: object) -> bytes:
    """Return the beginning of an answer; `cache_control` becomes `cache-control`."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status} X", *lines, "connection: close", "", ""]).encode()


def answer(body: bytes | object, status: int = 200, **headers: object) -> Answer:
    """Return a well-formed answer; a body that isn't bytes is sent as JSON."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content_type": "application/json", "content_length": len(sent), **headers}
    return lambda connection: connection.write(head(status, **headers) + sent)


# ---- ways to misbehave


def never(connection: Connection) -> None:
    """Say nothing at all."""
    connection.stopping.wait(10)


def drip(begin: bytes, *, each: bytes = b" ") -> Answer:
    """Return an answer that goes on, a byte every few milliseconds, and never comes to its end."""

    def go(connection: Connection) -> None:
        connection.write(begin)
        while not connection.stopping.wait(0.01):
            connection.write(each)

    return go


def endless(begin: bytes, *, each: bytes) -> Answer:
    """Return an answer that goes on as fast as the other side takes it."""

    def go(connection: Connection) -> None:
        connection.write(begin)
        while not connection.stopping.is_set():
            connection.write(each)

    return go


_KIB = b"x" * 1024

HOSTILE: Mapping[str, tuple[Answer, str]] = {  # with the reason that a transport must give
    "says nothing": (never, "deadline"),
    "drips its status line": (drip(b"HTTP/1.1 200 OK", each=b"K"), "deadline"),
    "drips its headers": (drip(b"HTTP/1.1 200 OK\r\nx: ", each=b"y"), "deadline"),
    "says 100 for ever": (drip(b"", each=b"HTTP/1.1 100 Continue\r\n\r\n"), "deadline"),
    "drips its body": (drip(head(200, content_length=1000)), "deadline"),
    "drips chunks": (drip(head(200, transfer_encoding="chunked"), each=b"1\r\n \r\n"), "deadline"),
    "sends for ever": (endless(head(200), each=_KIB), "too_large"),
    "sends chunks for ever": (
        endless(head(200, transfer_encoding="chunked"), each=b"400\r\n" + _KIB + b"\r\n"),
        "too_large",
    ),
    "sends headers for ever": (endless(b"HTTP/1.1 200 OK\r\n", each=b"x: " + _KIB + b"\r\n"), "unreachable"),
    "sends large headers": (answer({}, x=_KIB.decode() * 20), "too_large"),
    "is too large": (answer(b" " * 300_000), "too_large"),
    "is a bomb": (answer(gzip.compress(b" " * 10_000_000), content_encoding="gzip"), "encoding"),
    "is compressed": (answer(gzip.compress(b"{}"), content_encoding="br, gzip"), "encoding"),
    "breaks off": (lambda connection: connection.write(head(200, content_length=1000) + b"{"), "unreachable"),
    "is no HTTP": (lambda connection: connection.write(b"SSH-2.0-OpenSSH_9.9\r\n" * 3), "unreachable"),
    "hangs up": (lambda connection: None, "unreachable"),
}


def everything_told(error: BaseException) -> str:
    """Return all that an error could tell, with its causes and contexts, however they are hidden."""
    texts: list[str] = []
    found: BaseException | None = error
    while found is not None:
        texts += [str(found), repr(found), repr(found.args), repr(vars(found))]
        found = found.__cause__ or found.__context__
    return "\n".join(texts)


def jwks(*signers: Any) -> dict[str, list[Any]]:
    """Return the JWK set of some signers."""
    return {"keys": [signer.public_jwk() for signer in signers]}
