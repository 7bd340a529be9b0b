"""Test the ASGI side of a token service by the messages of ASGI 3 themselves: what no HTTP client can bring about."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlencode

import pytest

from agentauthz.errors import InvalidArgument
from agentauthz.sts import asgi
from agentauthz.sts.asgi import TokenApp, tls_peer
from agentauthz.sts.endpoint import TokenEndpoint
from agentauthz.sts.service import SecurityTokenService
from tests.token_service import SECRETS, make

FORM: Final = (b"content-type", b"application/x-www-form-urlencoded")
PLANNER: Final = {"client_id": "planner", "client_secret": SECRETS["planner"]}
URL: Final = "https://sts.example/tenant"


def scope(path: str = "/token", method: str = "POST", **more: Any) -> dict[str, Any]:
    """Return the scope of a request with a form."""
    return {"type": "http", "method": method, "path": path, "headers": [FORM], **more}


def parts(*bodies: bytes) -> list[dict[str, Any]]:
    """Return the messages of a body that comes in these parts."""
    return [
        {"type": "http.request", "body": body, "more_body": number < len(bodies)}
        for number, body in enumerate(bodies, 1)
    ]


async def asked(app: TokenApp, given: dict[str, Any], messages: Iterable[dict[str, Any]]) -> tuple[int, bytes] | None:
    """Return status and body of what the application sends; None: it sent nothing. After its messages it waits."""
    coming, sent = iter(list(messages)), []

    async def receive() -> dict[str, Any]:
        if (message := next(coming, None)) is None:
            await asyncio.sleep(60)
        return message or {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(given, receive, send)
    if not sent:
        return None
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], sent[1]["body"]


@pytest.fixture
def service() -> SecurityTokenService:
    """Return a token service whose issuer has a path."""
    return make(URL)[0]


async def test_a_body_comes_in_parts(service: SecurityTokenService) -> None:
    """A form that is cut anywhere is the same form."""
    app, body = TokenApp(TokenEndpoint(service)), urlencode({**PLANNER, "grant_type": "x"}).encode()
    for cut in (1, 20, len(body)):
        found = await asked(app, scope(), parts(body[:cut], b"", body[cut:]))
        assert found is not None
        assert json.loads(found[1])["error"] == "unsupported_grant_type"


async def test_who_leaves_is_not_answered(service: SecurityTokenService) -> None:
    """A disconnect before the end of the body ends the request without an answer, and without an exchange."""
    left = [*parts(b"grant", b"")[:1], {"type": "http.disconnect"}]
    assert await asked(TokenApp(TokenEndpoint(service)), scope(), left) is None


async def test_who_leaves_before_the_answer_does_no_harm(service: SecurityTokenService) -> None:
    """ASGI 2.4: a server whose `send` fails, as the client has left, isn't told of another failure."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Any) -> None:
        raise OSError

    await TokenApp(TokenEndpoint(service))(scope(), receive, send)


async def test_who_sends_too_slowly_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that doesn't end in time is 408, and recorded."""
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.05)
    service, sink = make(URL)
    found = await asked(TokenApp(TokenEndpoint(service)), scope(), parts(b"grant", b"")[:1])
    assert found is not None
    assert found[0] == 408
    assert [record.reasons[0].code for record in sink.decisions] == ["body_too_slow"]


@pytest.mark.parametrize("length", [b"65537", b"9" * 5000, b"-1", b"many"])
async def test_a_length_that_is_too_large_or_none_is_refused_unread(length: bytes) -> None:
    """A `Content-Length` over the cap, or that is no number, is 413 before anything is read, and recorded."""
    service, sink = make(URL)
    given = scope("/introspect", headers=[FORM, (b"content-length", length)])
    found = await asked(TokenApp(TokenEndpoint(service)), given, [])
    assert found is not None
    assert found[0] == 413
    (record,) = sink.decisions
    assert (record.action.name, record.reasons[0].code) == ("token.introspect", "body_too_large")


async def test_a_certificate_that_can_not_be_told_is_refused() -> None:
    """The host's way to the connection's certificate may fail: nothing is issued, and that is recorded."""
    service, sink = make(URL)
    broken: Any = lambda scope: 1 / 0
    found = await asked(TokenApp(TokenEndpoint(service), peer_cert=broken), scope(), parts(urlencode(PLANNER).encode()))
    assert found is not None
    assert (found[0], json.loads(found[1])["error"]) == (500, "server_error")
    assert [record.reasons[0].code for record in sink.decisions] == ["peer_cert"]


async def test_when_too_many_wait_more_are_told_to_come_later(
    service: SecurityTokenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all workers busy and no room to wait: 503 `temporarily_unavailable`; afterwards there is room again."""
    go_on, running = threading.Event(), threading.Event()
    authenticate = service.clients.authenticate

    class Slow:
        assertions = None

        @staticmethod
        def authenticate(*given: Any) -> Any:
            running.set()
            assert go_on.wait(10)
            return authenticate(*given)

    monkeypatch.setattr(service, "clients", Slow())
    app, body = TokenApp(TokenEndpoint(service), workers=1, waiting=0), parts(urlencode(PLANNER).encode())
    first = asyncio.create_task(asked(app, scope(), body))
    await asyncio.to_thread(running.wait, 10)
    busy = await asked(app, scope(), body)
    go_on.set()
    done = await first
    again = await asked(app, scope(), body)
    assert busy is not None
    assert (busy[0], json.loads(busy[1])["error"]) == (503, "temporarily_unavailable")
    assert [found and found[0] for found in (done, again)] == [400, 400]


async def test_a_task_that_is_cancelled_makes_room(service: SecurityTokenService) -> None:
    """Where the server cancels a request that waits for a worker, its place is free again."""
    app = TokenApp(TokenEndpoint(service), workers=1, waiting=0)
    for _ in range(3):
        task = asyncio.create_task(asked(app, scope(), parts(urlencode(PLANNER).encode())))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    for _ in range(200):
        found = await asked(app, scope(), parts(urlencode(PLANNER).encode()))
        if found is not None and found[0] == 400:
            return
        await asyncio.sleep(0.01)
    pytest.fail("no room was made")


async def test_the_application_starts_and_stops_with_its_server(service: SecurityTokenService) -> None:
    """The lifespan protocol is answered, and after the shutdown requests are told to come later."""
    app, sent = TokenApp(TokenEndpoint(service)), []
    coming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> dict[str, Any]:
        return next(coming)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    found = await asked(app, scope(), parts(urlencode(PLANNER).encode()))
    assert found is not None
    assert found[0] == 503


async def test_a_websocket_is_closed(service: SecurityTokenService) -> None:
    """A connection of another kind is closed, not left open."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await TokenApp(TokenEndpoint(service))({"type": "websocket"}, None, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize(
    ("path", "root", "status"),
    [
        ("/jwks", "", 200),
        ("/tenant/jwks", "/tenant", 200),
        ("/jwks", "/tenant", 200),
        ("/tenant/jwks", "", 404),
        ("/tenantjwks", "/tenant", 404),
        ("/.well-known/oauth-authorization-server/tenant", "", 200),
        ("/.well-known/oauth-authorization-server", "", 200),
        ("/.well-known/oauth-authorization-server/other", "", 404),
    ],
)
async def test_it_may_be_mounted_below_a_path(service: SecurityTokenService, path: str, root: str, status: int) -> None:
    """Paths count from where it is mounted, whether the framework leaves its part in `path` or takes it off."""
    found = await asked(TokenApp(TokenEndpoint(service)), scope(path, "GET", root_path=root), [])
    assert found is not None
    assert found[0] == status


def test_the_certificate_is_the_connections() -> None:
    """The TLS extension's chain begins with the peer's; one that didn't verify, and none, are none."""
    chain = ["first", "second"]
    assert tls_peer({"extensions": {"tls": {"client_cert_chain": chain}}}) == b"first"
    broken: list[Any] = [
        {"client_cert_chain": chain, "client_cert_error": "expired"},
        {"client_cert_chain": []},
        {},
        None,
    ]
    for tls in broken:
        assert tls_peer({"extensions": {"tls": tls}}) is None
    assert tls_peer({}) is None
    assert tls_peer({"extensions": None}) is None


@pytest.mark.parametrize("numbers", [{"workers": 0}, {"waiting": -1}])
def test_there_must_be_a_worker(service: SecurityTokenService, numbers: Any) -> None:
    """No workers, or less than nobody waiting, is refused when the application is made."""
    with pytest.raises(InvalidArgument):
        TokenApp(TokenEndpoint(service), **numbers)
