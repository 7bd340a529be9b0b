"""Test sending over httpx: what may be fetched, and that nothing that a server does outlasts or outgrows the bounds."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import logging
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agentauthz.errors import InvalidArgument, TransportError
from agentauthz.tokens.transport import HttpRequest, HttpResponse, HttpxTransport
from agentauthz.urls import checked_url
from tests.loopback import HOSTILE, Loopback, answer, everything_told, never

Send: TypeAlias = Callable[[HttpxTransport, HttpRequest], HttpResponse]


def _await(transport: HttpxTransport, request: HttpRequest) -> HttpResponse:
    async def send() -> HttpResponse:
        return await transport.aio(request)

    return asyncio.run(send())


@pytest.fixture(params=["sync", "async"])
def send(request: pytest.FixtureRequest) -> Send:
    """Return one of the two ways to send: what holds must hold in both."""
    return _await if request.param == "async" else lambda transport, sent: transport(sent)


# ---- addresses


@pytest.mark.parametrize("url", ["https://issuer.example/jwks", "https://issuer.example", "https://a_b:8443/x?y=%20",
                                 "https://[2001:db8::1]:443/", "https://127.0.0.1/jwks"])  # fmt: skip
def test_https_may_be_fetched(url: str) -> None:
    """An absolute https address is taken as it is."""
    assert checked_url("url", url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/jwks", "HTTP://issuer.example", "file:///etc/passwd", "ftp://issuer.example", "data:,{}",
        "//issuer.example/jwks", "/jwks", "issuer.example", "", "https://", "https:///jwks", "https://user@issuer.example",
        "https://user:secret@issuer.example", "https://issuer.example/#fragment", "https://issuer.example\\@evil.example",
        "https://issuer.example/a b", "https://issuer.example/\r\nHost: evil", "https://issuer.example:port/",
        " https://issuer.example", "https://issuer.example\n", "https://exämple.org",
        "https://x/" + "y" * 3000, None, b"",
    ],
)  # fmt: skip
@pytest.mark.parametrize("loopback_http", [False, True])
def test_other_addresses_are_refused(url: object, loopback_http: bool) -> None:
    """Plain http, other schemes, user names, fragments and what two parsers could read differently are refused."""
    with pytest.raises(InvalidArgument) as refused:
        checked_url("url", url, loopback_http=loopback_http)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "[::1]"])
def test_plain_http_is_for_the_loopback_interface(host: str) -> None:
    """With the switch, http is taken for this machine's loopback, and without it for nothing."""
    url = f"http://{host}:8080/jwks"
    assert checked_url("url", url, loopback_http=True) == url
    with pytest.raises(InvalidArgument, match="must be https"):
        checked_url("url", url)


@pytest.mark.parametrize("host", ["issuer.example", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0",
                                  "10.0.0.1", "[::]", "[2001:db8::1]", "127.1", "2130706433",
                                  "evil.localhost"])  # fmt: skip
def test_plain_http_is_for_no_other_host(host: str) -> None:
    """The switch opens the loopback only, not what looks like it."""
    with pytest.raises(InvalidArgument, match="must be https"):
        checked_url("url", f"http://{host}/jwks", loopback_http=True)


def test_a_request_is_checked_where_it_is_sent(send: Send) -> None:
    """The transport itself refuses plain http, whoever calls it, before anything is sent."""
    with Loopback(answer({})) as server:
        with pytest.raises(InvalidArgument, match="must be https"):
            send(HttpxTransport(), HttpRequest("GET", server.url))
        assert server.seen == []


# ---- what is sent, and what comes back


def test_a_request_arrives_and_is_answered(send: Send) -> None:
    """Method, headers and body arrive; status, headers and body come back; nothing else is sent along."""
    with Loopback(answer(b"no", 418, x_tea="green", set_cookie="a=b")) as server:
        sent = HttpRequest("POST", server.url, (("Authorization", "Basic x"),), b"token=t")
        found = send(HttpxTransport(loopback_http=True), sent)
        assert (found.status, found.body, found.header("X-TEA")) == (418, b"no", "green")
        [seen] = server.seen
        assert (seen.method, seen.path, seen.body) == ("POST", "/jwks?tenant=CANARY", b"token=t")
        names = {name.lower() for name in seen.headers}
        assert names == {"host", "authorization", "accept-encoding", "user-agent", "content-length"}
        assert seen.headers["Accept-Encoding"] == "identity"


def test_cookies_are_not_kept(send: Send) -> None:
    """A cookie that a server sets isn't sent back to it."""
    with Loopback(answer({}, set_cookie="id=1; Path=/")) as server:
        transport = HttpxTransport(loopback_http=True)
        for _ in range(2):
            send(transport, HttpRequest("GET", server.url))
        assert all("cookie" not in map(str.lower, seen.headers) for seen in server.seen)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(send: Send, status: int) -> None:
    """A redirect is given back as the answer that it is, and nobody calls at where it points."""
    with Loopback(answer({})) as other, Loopback(answer({}, status, location=other.url)) as server:
        assert send(HttpxTransport(loopback_http=True), HttpRequest("GET", server.url)).status == status
        assert other.seen == []


def test_the_environment_is_not_trusted(send: Send, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a proxy nor a password for the host is taken from the environment."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password CANARY\n")
    netrc.chmod(0o600)
    with Loopback(answer({})) as proxy, Loopback(answer({})) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url.partition("/jwks")[0])
        monkeypatch.setenv("NETRC", str(netrc))
        send(HttpxTransport(loopback_http=True), HttpRequest("GET", server.url))
        assert proxy.seen == []
        assert "Authorization" not in server.seen[0].headers


def test_a_call_works_where_a_loop_runs() -> None:
    """The synchronous call may be made from a coroutine: it has a loop of its own."""

    async def send() -> HttpResponse:
        return HttpxTransport(loopback_http=True)(HttpRequest("GET", server.url))

    with Loopback(answer({})) as server:
        assert asyncio.run(send()).status == 200


def test_one_header_is_read_if_there_is_one() -> None:
    """A header that came twice has no one value."""
    found = HttpResponse(200, (("X-A", "1"), ("x-a", "2"), ("x-b", "3")))
    assert (found.header("x-A"), found.header("x-b"), found.header("x-c")) == (None, "3", None)
    assert found.all_headers("X-a") == ["1", "2"]


# ---- bounds


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_stay_within_the_bounds(send: Send, name: str) -> None:
    """Whatever a server does, the request ends by its deadline, and little more than the largest body is read."""
    hostile, reason = HOSTILE[name]
    with Loopback(hostile) as server:
        transport = HttpxTransport(0.3, 10_000, loopback_http=True)
        began = time.monotonic()
        with pytest.raises(TransportError) as refused:
            send(transport, HttpRequest("GET", server.url))
        assert time.monotonic() - began < 1.5
        assert refused.value.reason == reason
        assert "CANARY" not in everything_told(refused.value)
        server.stop()
        assert all(connection.written < 20_000_000 for connection in server.connections)  # what the kernel buffers


def test_an_answer_as_large_as_the_bounds_is_taken(send: Send) -> None:
    """A body of exactly the largest size, in many chunks, is no error."""
    body = b"".join(b"64\r\n" + b"y" * 100 + b"\r\n" for _ in range(100)) + b"0\r\n\r\n"
    begin = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    with Loopback(lambda connection: connection.write(begin + body)) as server:
        found = send(HttpxTransport(max_body=10_000, loopback_http=True), HttpRequest("GET", server.url))
        assert found.body == b"y" * 10_000


def test_nobody_listens(send: Send) -> None:
    """A port that is closed is an error at once."""
    server = Loopback(answer({}))
    server._server.server_close()
    with pytest.raises(TransportError) as refused:
        send(HttpxTransport(loopback_http=True), HttpRequest("GET", server.url))
    assert refused.value.reason == "unreachable"


def test_a_request_can_be_cancelled() -> None:
    """A task that is cancelled while it waits for an answer ends at once, as cancelled."""

    async def cancel() -> None:
        task = asyncio.create_task(HttpxTransport(60, loopback_http=True).aio(HttpRequest("GET", server.url)))
        while not server.seen:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Loopback(never) as server:
        asyncio.run(cancel())


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": -1}, {"timeout": float("inf")}, {"max_body": 0},
                                     {"timeout": float("nan")}, {"max_headers": 0}])  # fmt: skip
def test_bounds_are_positive(options: dict[str, float]) -> None:
    """There is no way to ask for no bound."""
    with pytest.raises(InvalidArgument, match="must be a positive number"):
        HttpxTransport(**options)  # type: ignore[arg-type]


# ---- secrets


def test_nothing_that_is_sent_is_ever_told(send: Send, caplog: pytest.LogCaptureFixture) -> None:
    """Neither errors, with all that they hold, nor logs of any level, nor reprs tell headers or bodies."""
    caplog.set_level(logging.DEBUG)
    headers = (("Authorization", "Bearer CANARY\n"),)  # the library below would quote such a header, in its log too
    with Loopback(answer({})) as server:
        url = server.url.partition("?")[0]
        request = HttpRequest("POST", url, headers, b"token=CANARY")
        with pytest.raises(InvalidArgument, match="printable ASCII") as refused:
            send(HttpxTransport(loopback_http=True), request)
        good = HttpRequest("POST", url, (("Authorization", "Bearer CANARY"),), b"token=CANARY")
        found = send(HttpxTransport(loopback_http=True), good)
    assert "CANARY" not in everything_told(refused.value) + caplog.text + repr((request, good, found))


# ---- TLS, and httpx itself


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """Return a server's TLS for 127.0.0.1, and the file of the certificate to trust."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=test")
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    path.with_suffix(".key").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, path.with_suffix(".key"))
    return context, path


def test_certificates_are_verified(send: Send, tls: tuple[ssl.SSLContext, Path]) -> None:
    """A certificate that nobody vouches for is refused; one that `tls` trusts, for that host, is not."""
    with Loopback(answer({}), tls[0]) as server:
        with pytest.raises(TransportError, match="CERTIFICATE_VERIFY_FAILED"):
            send(HttpxTransport(), HttpRequest("GET", server.url))
        trusting = HttpxTransport(tls=ssl.create_default_context(cafile=tls[1]))
        assert send(trusting, HttpRequest("GET", server.url)).status == 200
        with pytest.raises(TransportError, match="CERTIFICATE_VERIFY_FAILED"):
            send(trusting, HttpRequest("GET", server.url.replace("127.0.0.1", "localhost")))


def test_tls_that_verifies_nothing_is_refused() -> None:
    """There is no switch that turns verifying off."""
    context = ssl.create_default_context()
    context.check_hostname = False
    with pytest.raises(InvalidArgument, match="must verify"):
        HttpxTransport(tls=context)
    with pytest.raises(InvalidArgument, match="must verify"):
        HttpxTransport(tls=ssl._create_unverified_context())


def test_without_httpx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where httpx isn't installed, the error says how to get it."""
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(InvalidArgument, match=r"install `agentauthz\[http\]`"):
        HttpxTransport()


def test_httpx_is_loaded_when_it_is_needed() -> None:
    """Importing sources of keys, introspection and the transport doesn't load httpx."""
    code = "import sys, agentauthz.tokens.introspection, agentauthz.tokens.sources; print('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
