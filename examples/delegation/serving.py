"""Serve one action over HTTP: a token comes in and is verified, and the work runs in a session of what it says."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.synchronize import Barrier
from typing import Any, Final

import httpx
from world import World, begin, tell_token

from agentauthz import AgentAuthzError, Session
from agentauthz.errors import TokenError
from agentauthz.tokens import DpopKey, ExchangedToken, Validator, challenge

MAX_BODY: Final = 10_000  # bytes

Json = dict[str, Any]
Work = Callable[[Session, Json], Json]


def serve(
    world: World, name: str, action: str, listener: socket.socket, ready: Barrier, validator: Validator, work: Work
) -> None:
    """Answer `POST /` forever: 200 with what `work` returns, 401 for a bad token, 403 for a denial, else 400."""
    authorizer = world.authorizer(name)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), MAX_BODY))
            try:
                token = validator.authenticate(self.headers.items(), method="POST", uri=world.addresses[name])
            except TokenError as error:  # the reason goes into the record, and no further
                authorizer.refuse_token(error, action=action)
                refusal = challenge(error, dpop_algorithms=["ES256"])
                return self.answer(refusal.status, {}, refusal.headers)
            tell_token(name, token)
            try:
                with authorizer.session(token=token) as session:
                    self.answer(200, work(session, json.loads(body)))
            except (AgentAuthzError, httpx.HTTPError):
                self.answer(403, {"error": "access_denied"})
            except (KeyError, TypeError, ValueError):
                self.answer(400, {"error": "invalid_request"})

        def answer(self, status: int, document: Json, headers: Iterable[tuple[str, str]] = ()) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            for header, value in (*headers, ("Content-Length", str(len(content)))):
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(listener.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    begin(ready)
    server.serve_forever()


def call(url: str, token: ExchangedToken, body: Json, key: DpopKey | None = None) -> httpx.Response:
    """Send a request with a token, and with a proof where it is bound to a key."""
    proof = {} if key is None else {"DPoP": key.proof("POST", url, access_token=token.access_token)}
    headers = {"Authorization": token.authorization(), **proof}
    return httpx.post(url, json=body, headers=headers, timeout=30, trust_env=False)
