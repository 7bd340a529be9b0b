"""Serve one action over HTTP: a token comes in and is verified, and the work runs in a session of what it says."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import httpx
from world import World, tell_token

from agentauthz import AgentAuthzError, Authorizer, Principal, Request, Session
from agentauthz.decision import Reason
from agentauthz.errors import TokenError
from agentauthz.tokens.client import ExchangedToken
from agentauthz.tokens.dpop import DpopKey
from agentauthz.tokens.resource_server import challenge
from agentauthz.tokens.validator import Validator

NOBODY: Final = Principal.service("nobody")  # in records: whoever came with a token that can't be relied on

Json = dict[str, Any]
Work = Callable[[Session, Json], Json]


def serve(
    world: World, name: str, action: str, listener: socket.socket, validator: Validator, decides: Authorizer, work: Work
) -> None:
    """Answer `POST /` forever: 200 with what `work` returns, 401 for a bad token, 403 for what may not happen."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                token = validator.authenticate(self.headers.items(), method="POST", uri=world.addresses[name])
            except TokenError as error:  # the reason goes into the record, and no further
                decides.refuse(Request(action, subject=NOBODY), Reason(error.reason, error.message))
                refusal = challenge(error, dpop_algorithms=["ES256"])
                return self.answer(refusal.status, {}, dict(refusal.headers))
            tell_token(name, token)
            try:
                with decides.session(token=token) as session:
                    self.answer(200, work(session, body))
            except (AgentAuthzError, httpx.HTTPError):
                self.answer(403, {"error": "access_denied"})

        def answer(self, status: int, document: Json, headers: Mapping[str, str] | None = None) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            for header, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(listener.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.serve_forever()


def call(url: str, token: ExchangedToken, body: Json, key: DpopKey | None = None) -> httpx.Response:
    """Send a request with a token, and with a proof where it is bound to a key."""
    proof = {} if key is None else {"DPoP": key.proof("POST", url, access_token=token.access_token)}
    headers = {"Authorization": token.authorization(), **proof}
    return httpx.post(url, json=body, headers=headers, timeout=30, trust_env=False)
