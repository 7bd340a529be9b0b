"""Test asking an authorization server what a token says: only a clear yes counts, and nothing of the token is told."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import pytest

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.tokens.introspection import Introspector
from agentauthz.tokens.transport import HttpRequest, HttpResponse
from tests.issuing import reason, token, validator
from tests.loopback import HOSTILE, Loopback, answer, everything_told
from tests.support import NOON, Clock

ISSUER = "https://issuer.example"
TRUSTED: Any = SimpleNamespace(issuer=ISSUER)  # the one thing of a `TrustedIssuer` that is asked for here
TOKEN = "opaque-CANARY-token"
NOW = int(NOON.timestamp())
ACTIVE = {
    "active": True, "iss": ISSUER, "sub": "maria", "aud": "https://pay.example", "scope": "payments.read",
    "exp": NOW + 600, "iat": NOW, "client_id": "bot", "token_type": "Bearer",
}  # fmt: skip

Ask: TypeAlias = Callable[[Introspector, str], dict[str, Any]]


def _await(introspector: Introspector, token: str) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        return await introspector.aclaims(token)

    return asyncio.run(ask())


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Return one of the two ways to ask: what holds must hold in both."""
    return _await if request.param == "async" else lambda introspector, token: introspector.claims(token)


@pytest.fixture
def server() -> Iterator[Loopback]:
    """Return an authorization server that says that every token is active."""
    with Loopback(answer(ACTIVE)) as found:
        yield found


def _introspector(server: Loopback, **options: Any) -> Introspector:
    options = {"auth": ("api", "CANARY-secret"), "clock": Clock(), "loopback_http": True, **options}
    return Introspector(server.url.partition("?")[0], TRUSTED, **options)


def _refused(ask: Ask, introspector: Introspector, token: Any = TOKEN) -> TokenError:
    with pytest.raises(TokenError) as refused:
        ask(introspector, token)
    assert "CANARY" not in everything_told(refused.value)
    return refused.value


def test_an_active_token_gives_its_claims(ask: Ask, server: Loopback) -> None:
    """What the server says of an active token is given back, as it is."""
    assert ask(_introspector(server), TOKEN) == ACTIVE


def test_the_server_is_asked_by_an_authenticated_post(ask: Ask, server: Loopback) -> None:
    """RFC 7662 §2.1: the token goes in the body of a POST, with credentials as RFC 6749 §2.3.1 encodes them."""
    ask(_introspector(server, auth=("id:ä", "p&ss wörd")), TOKEN)
    [seen] = server.seen
    assert seen.method == "POST"
    assert dict(parse_qsl(seen.body.decode())) == {"token": TOKEN, "token_type_hint": "access_token"}
    assert seen.headers["Content-Type"] == "application/x-www-form-urlencoded"
    scheme, _, credentials = seen.headers["Authorization"].partition(" ")
    assert (scheme, base64.b64decode(credentials)) == ("Basic", b"id%3A%C3%A4:p%26ss+w%C3%B6rd")
    assert TOKEN not in seen.path + repr(seen.headers)


def test_delegation_and_binding_pass_through(ask: Ask, server: Loopback) -> None:
    """RFC 8693 §4.1, §4.4 and RFC 8705 §3.2: `act`, `may_act` and `cnf` are as the server said."""
    more = {"act": {"sub": "bot", "act": {"sub": "first"}}, "may_act": {"sub": "helper"}, "cnf": {"jkt": "x" * 43}}
    server.answer = answer({**ACTIVE, **more})
    found = ask(_introspector(server), TOKEN)
    assert {name: found[name] for name in more} == more


def test_a_missing_issuer_is_the_server(ask: Ask, server: Loopback) -> None:
    """`iss` is optional in an answer (RFC 7662 §2.2): then it is the issuer that was asked."""
    server.answer = answer({name: value for name, value in ACTIVE.items() if name != "iss"})
    assert ask(_introspector(server), TOKEN)["iss"] == ISSUER


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"active": False}, "inactive"),
        ({**ACTIVE, "active": False}, "inactive"),
        ({**ACTIVE, "active": "true"}, "introspection"),
        ({**ACTIVE, "active": 1}, "introspection"),
        ({**ACTIVE, "active": [True]}, "introspection"),
        ({**ACTIVE, "active": None}, "introspection"),
        ({name: value for name, value in ACTIVE.items() if name != "active"}, "introspection"),
        ({}, "introspection"),
        ({**ACTIVE, "iss": "https://other.example"}, "issuer"),
        ({**ACTIVE, "iss": ISSUER + "/"}, "issuer"),
        ({**ACTIVE, "iss": None}, "issuer"),
        ({**ACTIVE, "iss": [ISSUER]}, "issuer"),
        ({**ACTIVE, "exp": NOW}, "expired"),
        ({**ACTIVE, "exp": NOW - 0.5}, "expired"),
        ({**ACTIVE, "exp": -1}, "expired"),
        ({**ACTIVE, "exp": str(NOW + 600)}, "introspection"),
        ({**ACTIVE, "exp": True}, "introspection"),
        ({**ACTIVE, "exp": None}, "introspection"),
        ({**ACTIVE, "exp": math.nan}, "introspection"),
        ({**ACTIVE, "exp": math.inf}, "introspection"),
        ({**ACTIVE, "exp": 10**400}, "introspection"),
        ([ACTIVE], "introspection"),
        (True, "introspection"),
        (b"", "introspection"),
        (b"<html>active</html>", "introspection"),
        (b'{"active": false, "active": true}', "introspection"),
        (b'\xef\xbb\xbf{"active": true}', "introspection"),
        (b'{"a":' * 50_000, "introspection"),
    ],
)
def test_anything_but_a_clear_yes_is_an_error(ask: Ask, server: Loopback, said: object, reason: str) -> None:
    """Only `"active": true`, of this issuer and not expired, counts, and a no is never kept for a yes."""
    introspector = _introspector(server)
    server.answer = answer(said)
    assert _refused(ask, introspector).reason == reason
    server.answer = answer(ACTIVE)
    assert ask(introspector, TOKEN) == ACTIVE


@pytest.mark.parametrize("status", [201, 301, 302, 307, 400, 401, 403, 500, 503])
def test_another_status_is_no_answer(ask: Ask, server: Loopback, status: int) -> None:
    """A yes with another status than 200 is none; a redirect isn't followed with the credentials."""
    with Loopback(answer(ACTIVE)) as other:
        server.answer = answer(ACTIVE, status, location=other.url)
        refused = _refused(ask, _introspector(server))
        assert (refused.reason, str(status) in refused.message, other.seen) == ("introspection", True, [])


def test_a_server_that_is_down_says_nothing(ask: Ask, server: Loopback) -> None:
    """Nobody there: the token is refused."""
    introspector = _introspector(server)
    server.stop()
    assert _refused(ask, introspector).reason == "introspection"


@pytest.mark.parametrize("name", ["drips its body", "sends for ever", "is a bomb", "is too large", "breaks off"])
def test_hostile_answers_are_refused_within_the_bounds(ask: Ask, name: str) -> None:
    """The bounds of the transport hold here too."""
    from agentauthz.tokens.transport import HttpxTransport

    transport = HttpxTransport(0.3, loopback_http=True)
    with Loopback(HOSTILE[name][0]) as server:
        began = time.monotonic()
        refused = _refused(ask, _introspector(server, transport=transport, async_transport=transport.aio))
        assert f"({HOSTILE[name][1]})" in refused.message
        assert time.monotonic() - began < 1.5


@pytest.mark.parametrize(
    ("token", "reason"),
    [("", "malformed"), ("a b", "malformed"), ("a\n", "malformed"), ("tökén", "malformed"), (None, "malformed"),
     (b"token", "malformed"), ("\0", "malformed"), ("x" * 16_385, "too_large")],
)  # fmt: skip
def test_what_cannot_be_a_token_is_not_asked_for(ask: Ask, server: Loopback, token: object, reason: str) -> None:
    """RFC 6749 A.12: a token is printable ASCII; anything else is refused here, before a request."""
    assert _refused(ask, _introspector(server), token).reason == reason
    assert server.seen == []


# ---- what is kept


def test_an_answer_is_kept_for_a_short_time(ask: Ask, server: Loopback) -> None:
    """Within its time a token is asked for once; after it, again, so that a revocation shows."""
    clock = Clock()
    introspector = _introspector(server, clock=clock, cache_ttl=dt.timedelta(seconds=30))
    for _ in range(3):
        ask(introspector, TOKEN)
    assert len(server.seen) == 1
    ask(introspector, TOKEN + "2")
    assert len(server.seen) == 2
    server.answer = answer({"active": False})
    clock.forward(seconds=29.9)
    ask(introspector, TOKEN)
    clock.forward(seconds=0.1)
    assert _refused(ask, introspector).reason == "inactive"
    assert len(server.seen) == 3


def test_being_asked_again_keeps_nothing_longer(ask: Ask, server: Loopback) -> None:
    """A token that is used all the time is still asked for after its time."""
    clock = Clock()
    introspector = _introspector(server, clock=clock)
    for _ in range(20):
        ask(introspector, TOKEN)
        clock.forward(seconds=10)
    assert len(server.seen) == 7


def test_no_answer_is_kept_past_the_expiry(ask: Ask, server: Loopback) -> None:
    """RFC 7662 §4: `exp` ends what is kept, however long it could be."""
    clock = Clock()
    server.answer = answer({**ACTIVE, "exp": NOW + 10})
    introspector = _introspector(server, clock=clock, cache_ttl=dt.timedelta(minutes=5))
    ask(introspector, TOKEN)
    clock.forward(seconds=10)
    assert _refused(ask, introspector).reason == "expired"
    assert len(server.seen) == 2


def test_a_clock_that_is_set_back_keeps_nothing(ask: Ask, server: Loopback) -> None:
    """By a clock that stands before the answer, the server is asked again."""
    clock = Clock()
    introspector = _introspector(server, clock=clock)
    ask(introspector, TOKEN)
    clock.forward(hours=-1)
    ask(introspector, TOKEN)
    assert len(server.seen) == 2


def test_nothing_is_kept_where_that_is_asked_for(ask: Ask, server: Loopback) -> None:
    """With a time of zero, each use asks."""
    introspector = _introspector(server, cache_ttl=dt.timedelta())
    for _ in range(3):
        ask(introspector, TOKEN)
    assert len(server.seen) == 3


def test_what_is_kept_is_bounded_and_names_no_token() -> None:
    """Of 1,000 tokens at most 10 are kept, the youngest 5 among them, and none of them in clear."""
    asked: list[bytes] = []

    def transport(request: HttpRequest) -> HttpResponse:
        asked.append(request.body)
        return HttpResponse(200, (), json.dumps(ACTIVE).encode())

    url = "https://issuer.example/introspect"
    introspector = Introspector(url, TRUSTED, auth=("a", "b"), transport=transport, max_entries=10, clock=Clock())
    for number in range(1_000):
        introspector.claims(f"{TOKEN}-{number}")
    kept = {**introspector._answers._old, **introspector._answers._young}
    assert len(kept) <= 10
    assert "CANARY" not in repr(kept)
    for number in range(995, 1_000):
        introspector.claims(f"{TOKEN}-{number}")
    assert len(asked) == 1_000


def test_a_validator_learns_of_what_was_revoked(server: Loopback) -> None:
    """As a validator's revocation: an active token stands, an inactive one was revoked, and no answer is not known."""
    introspector = _introspector(server, cache_ttl=dt.timedelta(0))
    asked = validator(revocation=introspector.revoked)
    assert asked.verify(token()).revoked() is False
    server.answer = answer({"active": False})
    assert reason(lambda: asked.verify(token())) == "revoked"
    server.stop()
    assert reason(lambda: asked.verify(token())) == "revocation_unavailable"


def test_claims_can_be_changed_without_changing_what_is_kept(ask: Ask, server: Loopback) -> None:
    """What one caller does to its claims, the next doesn't see."""
    introspector = _introspector(server)
    ask(introspector, TOKEN)["scope"] = "everything"
    ask(introspector, TOKEN)["sub"] = "root"
    assert ask(introspector, TOKEN) == ACTIVE


# ---- transports, secrets, arguments


async def test_a_transport_alone_serves_both_ways() -> None:
    """A synchronous transport is called in a thread, so that the loop goes on."""

    def transport(_: HttpRequest) -> HttpResponse:
        return HttpResponse(200, (), json.dumps(ACTIVE).encode())

    introspector = Introspector("https://x.example", TRUSTED, auth=("a", "b"), transport=transport, clock=Clock())
    assert introspector.claims(TOKEN) == await introspector.aclaims(TOKEN) == ACTIVE


async def test_an_async_transport_alone_serves_one_way() -> None:
    """With nothing but an asynchronous transport, the synchronous way says what is missing."""

    async def transport(_: HttpRequest) -> HttpResponse:
        return HttpResponse(200, (), json.dumps(ACTIVE).encode())

    introspector = Introspector("https://x.example", TRUSTED, auth=("a", "b"), async_transport=transport, clock=Clock())
    with pytest.raises(InvalidArgument, match="`transport` must be given too"):
        introspector.claims(TOKEN)
    assert await introspector.aclaims(TOKEN) == ACTIVE


@pytest.mark.parametrize("body", [None, json.dumps(ACTIVE), 7, bytearray(b"{}")])
def test_a_transport_must_answer_with_bytes(ask: Ask, body: Any) -> None:
    """What another transport answers in another form is no answer."""
    introspector = Introspector(
        "https://x.example", TRUSTED, auth=("a", "b"), transport=lambda _: HttpResponse(200, (), body)
    )
    assert _refused(ask, introspector).reason == "introspection"


def test_what_a_transport_raises_is_not_told(ask: Ask) -> None:
    """Another transport's error, which may quote the request, is neither told nor the context of ours."""

    def transport(request: HttpRequest) -> HttpResponse:
        raise RuntimeError(request.body.decode() + dict(request.headers)["Authorization"])

    introspector = Introspector("https://x.example", TRUSTED, auth=("a", "CANARY"), transport=transport)
    assert "RuntimeError" in _refused(ask, introspector).message


def test_tokens_and_secrets_show_nowhere(ask: Ask, server: Loopback, caplog: pytest.LogCaptureFixture) -> None:
    """Neither logs of any level nor reprs hold the token or the secret."""
    caplog.set_level(logging.DEBUG)
    introspector = _introspector(server)
    ask(introspector, TOKEN)
    server.answer = answer(b"no")
    _refused(ask, introspector, TOKEN + "2")
    secret = base64.b64encode(b"api:CANARY-secret").decode()
    for hidden in ("CANARY", secret):
        assert hidden not in caplog.text + repr(introspector) + str(introspector)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"auth": ("a",)}, "auth"), ({"auth": ("a", "")}, "auth"), ({"auth": "ab"}, "auth"), ({"auth": (1, 2)}, "auth"),
        ({"cache_ttl": dt.timedelta(seconds=-1)}, "cache_ttl"), ({"cache_ttl": dt.timedelta(minutes=6)}, "cache_ttl"),
        ({"cache_ttl": 30}, "cache_ttl"), ({"max_entries": 0}, "max_entries"), ({"loopback_http": False}, "endpoint"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(server: Loopback, options: dict[str, object], argument: str) -> None:
    """What can't be right is an error where the introspector is made; no message repeats a secret."""
    with pytest.raises(InvalidArgument) as refused:
        _introspector(server, **options)
    assert refused.value.argument == argument
