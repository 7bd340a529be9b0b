"""Test where keys come from: given, a file, and an address that is slow, hostile, down or asked far too often."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys.jwk import KeySet
from agentauthz.keys.signing import KeyRing, SigningKey
from agentauthz.tokens import jws
from agentauthz.tokens.sources import FileKeys, HttpKeys, KeySource, RingKeys, StaticKeys
from agentauthz.tokens.transport import HttpRequest, HttpResponse
from tests.loopback import HOSTILE, Answer, Connection, Loopback, answer, everything_told, jwks
from tests.support import Clock

ONE, TWO = SigningKey.generate(), SigningKey.generate()
SECRET_JWK = {"kty": "oct", "k": "A" * 43, "kid": "shared"}
PRIVATE_JWK = {**TWO.public_jwk(), "d": "A" * 43}

Ask: TypeAlias = Callable[[KeySource, str | None], KeySet]


def _await(source: KeySource, key_id: str | None) -> KeySet:
    return asyncio.run(_coroutine(source, key_id))


async def _coroutine(source: KeySource, key_id: str | None) -> KeySet:
    return await source.akeys(key_id)


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Return one of the two ways to ask for keys: what holds must hold in both."""
    return _await if request.param == "async" else lambda source, key_id: source.keys(key_id)


@pytest.fixture
def server() -> Iterator[Loopback]:
    """Return an issuer that publishes one key."""
    with Loopback(answer(jwks(ONE))) as found:
        yield found


def _source(server: Loopback, clock: Clock | None = None, **options: Any) -> HttpKeys:
    return HttpKeys(server.url, clock=clock or Clock(), loopback_http=True, **options)


def _ids(keys: KeySet) -> set[str | None]:
    return {key.key_id for key in keys.keys}


def _unavailable(ask: Ask, source: KeySource, key_id: str | None = None) -> str:
    """Return why there are no keys."""
    with pytest.raises(TokenError) as refused:
        ask(source, key_id)
    assert refused.value.reason == "keys_unavailable"
    assert "CANARY" not in everything_told(refused.value)
    return refused.value.message


# ---- given once


def test_given_keys_are_the_keys(ask: Ask) -> None:
    """A key set, or the JWK set of one, is given back whatever is asked for."""
    assert _ids(ask(StaticKeys(jwks(ONE)), "other")) == {ONE.key_id}
    given = KeySet([ONE.public_key()])
    assert ask(StaticKeys(given), None) is given


def test_given_keys_are_public() -> None:
    """A JWK set with a secret in it is refused."""
    with pytest.raises(InvalidArgument, match="must be public"):
        StaticKeys({"keys": [SECRET_JWK]})


def test_the_keys_of_a_ring_are_those_that_it_has_now(ask: Ask) -> None:
    """A key counts from when it is announced until it is retired, and the set is made anew only when it changes."""
    ring = KeyRing(ONE)
    source = RingKeys(ring)
    assert _ids(ask(source, None)) == {ONE.key_id}
    assert ask(source, None) is ask(source, "other")
    ring.announce(TWO)
    assert _ids(ask(source, None)) == {ONE.key_id, TWO.key_id}
    ring.rotate(TWO)
    ring.retire(ONE.key_id)
    assert _ids(ask(source, None)) == {TWO.key_id}


# ---- a file


def _write(path: Path, content: object, mode: int = 0o644) -> Path:
    new = path.with_suffix(".new")
    new.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    new.chmod(mode)
    return new.rename(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file that holds one key."""
    return _write(tmp_path / "jwks.json", jwks(ONE))


def test_a_file_is_read_again_when_it_changes(ask: Ask, path: Path) -> None:
    """Keys of a file follow the file, and as long as it doesn't change they are the same objects."""
    source = FileKeys(path)
    before = ask(source, None)
    assert _ids(before) == {ONE.key_id}
    assert ask(source, "other") is before
    _write(path, jwks(TWO))
    assert _ids(ask(source, None)) == {TWO.key_id}


def _in_place(path: Path) -> None:
    path.write_bytes(b'{"keys": [')


def _become_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.unlink(), "No such file"),
        (_in_place, "no JSON object"),
        (lambda path: _write(path, {"keys": [SECRET_JWK]}), "must be public"),
        (lambda path: _write(path, jwks(TWO, TWO)), "same"),
        (lambda path: _write(path, {"keys": [{**ONE.public_jwk(), "x": "AAAA"}]}), "no valid public key"),
        (lambda path: _write(path, b" " * 300_000), "larger than"),
        (lambda path: path.chmod(0o666), "may be written by others"),
        (lambda path: path.chmod(0o664), "may be written by others"),
        (lambda path: (path.unlink(), path.mkdir()), "directory"),
        (_become_pipe, "must be a regular file"),
    ],
)
def test_a_file_that_was_spoiled_gives_no_keys(ask: Ask, path: Path, spoil: Callable[[Path], object], why: str) -> None:
    """The old keys don't outlive the file: what was to be removed could be one of them. A good file mends it."""
    source = FileKeys(path)
    spoil(path)
    for _ in range(2):
        assert why in _unavailable(ask, source)
    if path.is_dir():
        path.rmdir()
    _write(path, jwks(TWO))
    assert _ids(ask(source, None)) == {TWO.key_id}


def test_a_file_must_be_usable_at_first(tmp_path: Path) -> None:
    """A mistake in the path shows where the source is made."""
    for path in (tmp_path / "missing", tmp_path, "nul\0byte"):
        with pytest.raises(InvalidArgument):
            FileKeys(path)


def test_a_file_behind_a_link_is_followed(ask: Ask, path: Path, tmp_path: Path) -> None:
    """A link that is turned to another file, as orchestrators do it, is a change."""
    link = tmp_path / "link"
    link.symlink_to(path)
    source = FileKeys(link)
    other = _write(tmp_path / "other.json", jwks(TWO))
    (tmp_path / "fresh").symlink_to(other)
    (tmp_path / "fresh").rename(link)
    assert _ids(ask(source, None)) == {TWO.key_id}


# ---- an address: the cache


def test_keys_are_fetched_once(ask: Ask, server: Loopback) -> None:
    """While keys are fresh, nobody asks the issuer for those that are known."""
    source = _source(server)
    for key_id in (None, ONE.key_id, None):
        assert _ids(ask(source, key_id)) == {ONE.key_id}
    assert len(server.seen) == 1
    assert server.seen[0].headers["Accept"] == "application/jwk-set+json, application/json"


@pytest.mark.parametrize(
    ("control", "seconds"),
    [
        ("max-age=600", 600), ("public, MAX-AGE=600", 600), ('max-age="600"', 600), ("max-age=1", 60),
        ("max-age=0", 60), ("max-age=86400", 3600), ("max-age=999999999999", 300), ("max-age=-5", 300),
        ("max-age=soon", 300), ("", 300),
        ("no-store", 60), ("no-cache, max-age=600", 60), ("max-age=900, max-age=120", 120), ("s-maxage=900", 300),
    ],
)  # fmt: skip
def test_the_issuer_says_how_long_keys_are_fresh(ask: Ask, server: Loopback, control: str, seconds: int) -> None:
    """`max-age` counts, within a minute and an hour; where it is missing or nonsense, five minutes are right."""
    clock = Clock()
    server.answer = answer(jwks(ONE), cache_control=control)
    source = _source(server, clock)
    ask(source, None)
    clock.forward(seconds=seconds - 1)
    ask(source, None)
    assert len(server.seen) == 1
    clock.forward(seconds=1)
    ask(source, None)
    assert len(server.seen) == 2


def test_keys_rotate_without_an_interruption(ask: Ask, server: Loopback) -> None:
    """Tokens verify all through a rotation, announced or not; what a retired key signed doesn't any more."""
    clock, ring = Clock(), KeyRing(ONE)
    source = _source(server, clock)

    def verify(token: str) -> None:
        found = jws.parse(token)
        jws.verify(found, ask(source, found.key_id), jws.DEFAULT_ALGORITHMS)

    def publish() -> str:
        server.answer = answer(ring.jwks(), cache_control="max-age=600")
        return jws.make({}, ring.signer, typ="at+jwt")

    old = publish()
    verify(old)
    clock.forward(minutes=1)
    ring.rotate(TWO)
    new = publish()
    for token in (new, old, new):
        verify(token)
    assert len(server.seen) == 2  # one for the key that wasn't known
    ring.retire(ONE.key_id)
    publish()
    clock.forward(minutes=10)
    verify(new)
    with pytest.raises(TokenError) as refused:
        verify(old)
    assert refused.value.reason == "unknown_key"


def test_a_clock_that_is_set_back_makes_nothing_fresh(ask: Ask, server: Loopback) -> None:
    """By a clock that stands before the fetch, keys are fetched again, and refused if that fails."""
    clock = Clock()
    source = _source(server, clock)
    ask(source, None)
    clock.forward(hours=-2)
    ask(source, None)
    assert len(server.seen) == 2
    server.stop()
    clock.forward(hours=-2)
    _unavailable(ask, source)


def test_the_clock_must_know_its_zone() -> None:
    """A clock that returns no moment is an error of the host's."""
    source = HttpKeys("https://issuer.example", clock=lambda: 5, transport=lambda _: HttpResponse(200))  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidArgument, match="time zone"):
        source.keys(None)


# ---- case 29


def test_keys_outlive_an_outage_for_an_hour(ask: Ask, server: Loopback) -> None:
    """While the issuer is down, keys serve for an hour past their time; then nothing does; then it recovers."""
    clock = Clock()
    source = _source(server, clock)
    ask(source, None)
    good, server.answer = server.answer, answer(b"", 503)
    clock.forward(minutes=5)
    assert _ids(ask(source, ONE.key_id)) == {ONE.key_id}
    clock.forward(minutes=59, seconds=59)
    assert _ids(ask(source, ONE.key_id)) == {ONE.key_id}
    clock.forward(seconds=1)
    assert "status 503" in _unavailable(ask, source, ONE.key_id)
    server.answer = good
    clock.forward(seconds=28)
    assert "status 503" in _unavailable(ask, source, ONE.key_id)  # not asked again yet
    clock.forward(seconds=1)
    assert _ids(ask(source, ONE.key_id)) == {ONE.key_id}


def test_without_any_keys_nothing_is_verified(ask: Ask, server: Loopback) -> None:
    """An issuer that is down from the start leaves no keys, and is asked once in 30 seconds."""
    clock = Clock()
    source = _source(server, clock)
    server.stop()
    for _ in range(3):
        assert "failed with ConnectError" in _unavailable(ask, source)
        clock.forward(seconds=10)


def test_a_flapping_issuer_takes_no_keys_away(ask: Ask, server: Loopback) -> None:
    """Good and bad answers in turn: keys stay, fetches stay 30 seconds apart."""
    clock = Clock()
    source = _source(server, clock)
    good = server.answer
    for turn in range(10):
        server.answer = answer(b"<html>oops</html>") if turn % 2 else good
        assert _ids(ask(source, f"unknown-{turn}")) == {ONE.key_id}
        clock.forward(seconds=30)
    assert len(server.seen) == 10


# ---- case 30


@pytest.mark.parametrize(
    "url", ["http://issuer.example/jwks", "file:///etc/jwks.json", "https://u:p@issuer.example", ""]
)
def test_keys_come_from_https_only(url: str) -> None:
    """Other addresses are refused where the source is made."""
    with pytest.raises(InvalidArgument, match="https"):
        HttpKeys(url, loopback_http=True)


BAD_ANSWERS: dict[str, tuple[Answer, str]] = {
    "HTML": (answer(b"<!doctype html><title>Sign in</title>", content_type="text/html"), "no JSON object"),
    "truncated": (answer(b'{"keys": ['), "no JSON object"),
    "UTF-16": (answer(json.dumps(jwks(ONE)).encode("utf-16")), "no JSON object"),
    "a member twice": (answer(b'{"keys": [], "keys": []}'), "no JSON object"),
    "deep": (answer(b"[" * 100_000), "no JSON object"),
    "a list": (answer([ONE.public_jwk()]), "no JSON object"),
    "no keys": (answer({}), "must be a JWK set"),
    "keys are no list": (answer({"keys": {"0": ONE.public_jwk()}}), "must be a JWK set"),
    "keys are no objects": (answer({"keys": ["key"]}), "must be a JWK set"),
    "a symmetric key": (answer({"keys": [ONE.public_jwk(), SECRET_JWK]}), "must be public"),
    "a private key": (answer({"keys": [ONE.public_jwk(), PRIVATE_JWK]}), "must be public"),
    "one kid twice": (answer({"keys": [ONE.public_jwk(), {**TWO.public_jwk(), "kid": ONE.key_id}]}), "the same"),
    "101 keys": (answer({"keys": [{"kty": "RSA"}] * 101}), "at most 100"),
    "404": (answer(jwks(ONE), 404), "status 404"),
    "201": (answer(jwks(ONE), 201), "status 201"),
    "206": (answer(jwks(ONE), 206), "status 206"),
    "304": (answer(b"", 304), "status 304"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_an_answer_that_is_no_key_set_is_refused(ask: Ask, name: str) -> None:
    """What isn't a JWK set of public keys, each with a name of its own, gives no keys at all."""
    bad, why = BAD_ANSWERS[name]
    with Loopback(bad) as server:
        assert why in _unavailable(ask, _source(server))


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_bad_answer_replaces_no_keys(ask: Ask, server: Loopback, name: str) -> None:
    """What is refused leaves the keys that were there, for as long as they may serve."""
    clock = Clock()
    source = _source(server, clock)
    ask(source, None)
    server.answer = BAD_ANSWERS[name][0]
    clock.forward(minutes=10)
    assert _ids(ask(source, None)) == {ONE.key_id}
    assert len(server.seen) == 2


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_issuer_is_refused_within_the_bounds(ask: Ask, name: str) -> None:
    """Slow, endless, oversized, compressed and broken answers give no keys, and cost no more than the deadline."""
    with Loopback(HOSTILE[name][0]) as server:
        began = time.monotonic()
        assert f"({HOSTILE[name][1]})" in _unavailable(ask, _source(server, timeout=0.3))
        assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_refused(ask: Ask, status: int, server: Loopback) -> None:
    """Keys aren't fetched from where an answer points, though good ones are there."""
    with Loopback(answer(b"", status, location=server.url)) as redirecting:
        assert f"status {status}" in _unavailable(ask, _source(redirecting))
    assert server.seen == []


def test_keys_that_cannot_be_used_are_left_out(ask: Ask, server: Loopback) -> None:
    """Weak, malformed and unknown keys of a set that others maintain don't take the good ones away."""
    more = [
        {"kty": "EC", "crv": "P-256", "kid": "bad"},
        {"kty": "new", "kid": "new"},
        {"kty": ["EC"], "kid": ["odd"]},
        {**ONE.public_jwk(), "kid": "odd", "alg": ["EdDSA"]},
        {**TWO.public_jwk(), "use": "enc"},
    ]
    server.answer = answer({"keys": [*more, ONE.public_jwk()]})
    assert _ids(ask(_source(server), None)) == {ONE.key_id}


def test_a_transport_that_is_too_generous_is_not_relied_on(ask: Ask) -> None:
    """An answer of another transport is held to the same size, and what it raises isn't told."""
    url = "https://issuer.example/jwks"
    body = json.dumps(jwks(ONE)).encode()
    large = HttpKeys(url, transport=lambda _: HttpResponse(200, (), body + b" " * 300_000))
    assert "larger than" in _unavailable(ask, large)

    def fail(request: HttpRequest) -> HttpResponse:
        raise OSError("CANARY")

    assert "OSError" in _unavailable(ask, HttpKeys(url, transport=fail))
    assert _ids(ask(HttpKeys(url, transport=lambda _: HttpResponse(200, (), body)), None)) == {ONE.key_id}


# ---- case 31


@pytest.mark.parametrize("down", [False, True])
def test_random_key_ids_cause_one_fetch_per_cooldown(ask: Ask, server: Loopback, down: bool) -> None:
    """1,000 tokens with made-up `kid`s, over 100 seconds, cause four fetches, also when each fetch fails."""
    clock = Clock()
    source = _source(server, clock)
    ask(source, None)
    if down:
        server.answer = answer(b"", 500)
    clock.forward(seconds=30)
    for _ in range(1_000 if ask is not _await else 200):
        assert _ids(ask(source, secrets.token_hex(8))) == {ONE.key_id}
        clock.forward(seconds=0.1 if ask is not _await else 0.5)
    assert len(server.seen) == 1 + 4


@pytest.mark.parametrize("state", ["up", "failing", "failing from the start"])
def test_random_key_ids_from_many_threads_cause_one_fetch(server: Loopback, state: str) -> None:
    """1,000 made-up `kid`s from 16 threads at once cause one fetch, whether or not the issuer works."""
    clock = Clock()
    source = _source(server, clock)
    if state != "failing from the start":
        source.keys(None)
    if state != "up":
        server.answer = answer(b"", 500)
    server.seen.clear()
    clock.forward(seconds=30)
    start = threading.Barrier(16)

    def storm(_: int) -> None:
        start.wait()
        for _ in range(63):
            try:
                assert _ids(source.keys(secrets.token_hex(8))) == {ONE.key_id}
            except TokenError:
                assert state == "failing from the start"

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(storm, range(16)))
    assert len(server.seen) == 1


def test_random_key_ids_cost_known_keys_nothing(server: Loopback) -> None:
    """While a fetch for a made-up `kid` hangs, tokens of known keys are verified without waiting for it."""
    clock, hanging = Clock(), threading.Event()
    source = _source(server, clock)
    good = server.answer
    source.keys(None)

    def hang(connection: Connection) -> None:
        hanging.wait(5)
        good(connection)

    server.answer = hang
    clock.forward(seconds=30)
    attacker = threading.Thread(target=source.keys, args=("made-up",))
    attacker.start()
    while len(server.seen) < 2:
        time.sleep(0.005)
    assert _ids(source.keys(ONE.key_id)) == {ONE.key_id}
    assert attacker.is_alive()
    hanging.set()
    attacker.join()


# ---- threads, tasks, forks


class Gate:
    """Be an answer that is held back until `opened` is set."""

    def __init__(self, then: Answer) -> None:
        self.opened = threading.Event()
        self._then = then

    def __call__(self, connection: Connection) -> None:
        self.opened.wait(5)
        self._then(connection)


def test_threads_and_tasks_share_one_fetch(server: Loopback) -> None:
    """Eight threads, and eight tasks in each of two loops, wait for one fetch, and all get its keys."""
    server.answer = gate = Gate(answer(jwks(ONE)))
    source = _source(server)

    async def tasks() -> list[KeySet]:
        return await asyncio.gather(*(source.akeys(None) for _ in range(8)))

    with ThreadPoolExecutor(10) as pool:
        waiting: list[Any] = [pool.submit(source.keys, None) for _ in range(8)]
        waiting += [pool.submit(lambda: asyncio.run(tasks())) for _ in range(2)]
        while not server.seen:
            time.sleep(0.005)
        gate.opened.set()
        found = [future.result() for future in waiting]
    assert all(_ids(keys) == {ONE.key_id} for keys in found[:8] + found[8] + found[9])
    assert len(server.seen) == 1


async def test_waiting_for_keys_does_not_block_the_loop(server: Loopback) -> None:
    """The issuer answers only after other tasks of the loop ran: were the loop blocked, it never would."""
    server.answer = gate = Gate(answer(jwks(ONE)))
    waiting = asyncio.create_task(_source(server).akeys(None))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    gate.opened.set()
    assert _ids(await waiting) == {ONE.key_id}


async def test_asking_for_keys_inside_the_loop_ends_too(server: Loopback) -> None:
    """A fetch that a task began goes on while the loop is blocked by the synchronous way to ask."""
    server.answer = gate = Gate(answer(jwks(ONE)))
    source = _source(server)
    waiting = asyncio.create_task(source.akeys(None))
    await asyncio.sleep(0)
    threading.Timer(0.05, gate.opened.set).start()
    assert _ids(source.keys(None)) == _ids(await waiting) == {ONE.key_id}
    assert len(server.seen) == 1


async def test_a_task_that_gives_up_breaks_nobodys_fetch(server: Loopback) -> None:
    """The task whose call began the fetch is cancelled: the others get their keys."""
    server.answer = gate = Gate(answer(jwks(ONE)))
    source = _source(server)
    first, second = (asyncio.create_task(source.akeys(None)) for _ in range(2))
    await asyncio.sleep(0.02)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.opened.set()
    assert _ids(await second) == {ONE.key_id}
    assert len(server.seen) == 1


def test_a_transport_that_hangs_holds_nobody_up_twice(ask: Ask) -> None:
    """Nobody waits longer than the timeout, and who comes later doesn't wait for the same fetch again."""
    release = threading.Event()

    def hang(request: HttpRequest) -> HttpResponse:
        release.wait(5)
        return HttpResponse(500)

    source = HttpKeys("https://issuer.example/jwks", transport=hang, timeout=0.1, clock=Clock())
    began = time.monotonic()
    assert "in time" in _unavailable(ask, source)
    for _ in range(20):
        _unavailable(ask, source)
    assert time.monotonic() - began < 1.5
    release.set()


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no threads left, there are no keys, and the next fetch is tried as usual."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    clock = Clock()
    body = json.dumps(jwks(ONE)).encode()
    source = HttpKeys("https://issuer.example", clock=clock, transport=lambda _: HttpResponse(200, (), body))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(TokenError, match="no thread"):
            source.keys(None)
    clock.forward(seconds=30)
    assert _ids(source.keys(None)) == {ONE.key_id}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes don't fork here")
def test_a_forked_process_fetches_for_itself(server: Loopback) -> None:
    """A child forked while its parent's thread fetches, and holds the lock, gets its keys all the same."""
    good = server.answer
    server.answer = gate = Gate(good)
    source = _source(server)
    waiting = threading.Thread(target=source.keys, args=(None,))
    waiting.start()
    while not server.seen:
        time.sleep(0.005)
    server.answer = good
    with source._lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are other threads is the point
        if (child := os.fork()) == 0:
            signal.alarm(5)
            os._exit(0 if _ids(source.keys(None)) == {ONE.key_id} else 1)
    assert os.waitpid(child, 0)[1] == 0
    gate.opened.set()
    waiting.join()
    assert len(server.seen) == 2


def test_a_source_shows_its_address_only(server: Loopback) -> None:
    """Neither the query nor the keys are in the repr."""
    source = _source(server)
    source.keys(None)
    assert repr(source) == f"HttpKeys('{server.url.partition('?')[0]}')"
