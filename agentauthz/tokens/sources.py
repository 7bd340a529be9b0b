"""Say where an issuer's keys come from: given once, a ring, a file, or an HTTPS address."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import re
import stat
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Final, Protocol, TypeAlias, final

from attrs import field, frozen

from agentauthz.errors import AgentAuthzError, InvalidArgument, TokenError
from agentauthz.keys.jwk import KeySet
from agentauthz.keys.signing import KeyRing
from agentauthz.tokens.strict import json_object
from agentauthz.tokens.transport import (
    MAX_BODY,
    TIMEOUT,
    HttpRequest,
    HttpResponse,
    HttpxTransport,
    Transport,
)
from agentauthz.urls import checked_url
from agentauthz.values import told_by

MIN_TTL: Final = dt.timedelta(minutes=1)
DEFAULT_TTL: Final = dt.timedelta(minutes=5)  # where the issuer says nothing
MAX_TTL: Final = dt.timedelta(hours=1)
STALE: Final = dt.timedelta(hours=1)  # how long keys outlive their time while the issuer can't be reached
COOLDOWN: Final = dt.timedelta(
    seconds=30
)  # between two fetches, whatever asked for them and whether or not they worked
GRACE: Final = 0.25  # seconds: a transport that keeps its deadline says better than we why there was no answer

_MAX_AGE: Final = re.compile(r'max-age="?([0-9]{1,9})"?', re.IGNORECASE)


class KeySource(Protocol):
    """Be where an issuer's keys come from."""

    def keys(self, key_id: str | None) -> KeySet:
        """Return the issuer's keys now; one that doesn't hold `key_id` may be fetched again first.

        Raises:
            TokenError: `keys_unavailable`.
        """

    async def akeys(self, key_id: str | None) -> KeySet:
        """Do what `keys` does without blocking the loop."""


def _given(keys: KeySet | Mapping[str, object]) -> KeySet:
    return keys if isinstance(keys, KeySet) else KeySet.of_jwks(keys)


@final
@frozen(eq=False)
class StaticKeys:
    """Be keys that never change: a `KeySet`, or a JWK set (RFC 7517 §5) of public keys.

    Raises:
        InvalidArgument: as for `KeySet.of_jwks`.
    """

    _keys: KeySet = field(converter=_given)

    def keys(self, key_id: str | None) -> KeySet:
        """Return the keys."""
        return self._keys

    async def akeys(self, key_id: str | None) -> KeySet:
        """Return the keys."""
        return self._keys


@final
@frozen(eq=False)
class RingKeys:
    """Be the keys of a ring of this process: each from when it is announced until it is retired."""

    ring: KeyRing

    def keys(self, key_id: str | None) -> KeySet:
        """Return the keys that the ring has now."""
        return self.ring.key_set()

    async def akeys(self, key_id: str | None) -> KeySet:
        """Return the keys that the ring has now."""
        return self.ring.key_set()


# ---- a file

_Identity: TypeAlias = tuple[int, ...]


@final
class FileKeys:
    """Be the keys of a file that holds a JWK set (RFC 7517 §5), read again whenever the file changes.

    A file that has become missing, malformed or writable for others gives no keys at all, not the old ones: what
    was to be removed from it could be among them. So replace it as a whole, by renaming a new file onto it.

    Raises:
        InvalidArgument: the file can't be used now.
    """

    def __init__(self, path: str | Path) -> None:
        self._path: Final = os.fspath(path)
        self._read: tuple[_Identity, KeySet | InvalidArgument] = self._reread()
        if isinstance(self._read[1], InvalidArgument):
            raise self._read[1]

    def keys(self, key_id: str | None) -> KeySet:
        """Return the keys that the file holds now.

        Raises:
            TokenError: `keys_unavailable`.
        """
        try:
            current = _identity(os.stat(self._path))
        except OSError:
            current = ()
        if current != self._read[0] or not current:
            self._read = self._reread()
        found = self._read[1]
        if isinstance(found, InvalidArgument):
            raise TokenError("keys_unavailable", f"the issuer's keys can't be had: {found}")
        return found

    async def akeys(self, key_id: str | None) -> KeySet:
        """Return the keys that the file holds now; a local file of this size doesn't block for long.

        Raises:
            TokenError: `keys_unavailable`.
        """
        return self.keys(key_id)

    def _reread(self) -> tuple[_Identity, KeySet | InvalidArgument]:
        """Return the file's identity and its keys, or why there are none, which counts until the file changes."""
        identity: _Identity = ()
        try:
            with open(self._path, "rb", opener=_without_blocking) as file:
                status = os.fstat(file.fileno())
                identity = _identity(status)
                _check_writers(status)
                content = file.read(MAX_BODY + 1)
            return identity, _key_set(content, skip_unusable=False)
        except _Unusable as why:
            return identity, InvalidArgument("path", f"`{self._path}` {why}")
        except (OSError, ValueError) as cause:
            why_not = getattr(cause, "strerror", None) or "no file can have such a name"
            return identity, InvalidArgument("path", f"`{self._path}` can't be read: {why_not}")

    def __repr__(self) -> str:
        return f"FileKeys({self._path!r})"


def _without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe put there must be refused, not waited for


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _check_writers(status: os.stat_result) -> None:
    """Refuse a file in which another user could put a key of their own."""
    if not stat.S_ISREG(status.st_mode):
        raise _Unusable("must be a regular file")
    if os.name == "posix" and status.st_uid not in (0, os.geteuid()):
        raise _Unusable("belongs to another user")
    if os.name == "posix" and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _Unusable("may be written by others than its owner: `chmod go-w` it")


class _Unusable(Exception):
    """Say why there are no keys, in words that follow the name of where they come from."""


def _key_set(content: bytes, *, skip_unusable: bool) -> KeySet:
    if len(content) > MAX_BODY:
        raise _Unusable(f"is larger than {MAX_BODY} bytes")
    try:
        return KeySet.of_jwks(json_object(content), skip_unusable=skip_unusable)
    except TokenError:
        raise _Unusable("is no JSON object that can be relied on") from None
    except InvalidArgument as refused:
        raise _Unusable(f"is no set to verify with: {refused}") from None


# ---- an address


@final
@frozen(eq=False)
class _Fetched:
    """Be what a fetch brought: fresh from `at` until `until`; outside, and also if the clock is set back, it isn't."""

    keys: KeySet
    at: dt.datetime
    until: dt.datetime
    ids: frozenset[str | None]

    def fresh(self, now: dt.datetime, longer: dt.timedelta = dt.timedelta()) -> bool:
        return self.at <= now < self.until + longer


@final
@frozen(eq=False)
class _Flight:
    """Be a fetch on its way, in a thread of its own: no caller that gives up, and no loop that ends, breaks it."""

    at: dt.datetime
    deadline: float  # by the monotonic clock: nobody waits longer
    done: Future[None] = field(factory=Future)

    def left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())


@final
class HttpKeys:
    """Be the keys that an issuer publishes at its `jwks_uri`, cached. Safe for threads, tasks, loops and forks.

    Keys are fresh for the answer's `max-age`, but at least a minute and at most an hour; when a fetch fails they
    serve for up to an hour more, and after that nothing is verified. All that wait share one fetch. A key that
    isn't known leads to a fetch too, but two fetches are at least 30 seconds apart, whether or not they worked: so
    many, and no more, can be caused by tokens that anyone makes up. A set with a symmetric or private key, or
    with one `kid` twice, is refused as a whole.

    `timeout` (seconds) is for one fetch. A `transport` of one's own must keep a deadline and follow no redirect.

    Raises:
        InvalidArgument: an address that is not https (see `checked_url`), or httpx is missing.
    """

    def __init__(
        self,
        url: str,
        *,
        transport: Transport | None = None,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        loopback_http: bool = False,
        timeout: float = TIMEOUT,
    ) -> None:
        self._url: Final = checked_url("url", url, loopback_http=loopback_http)
        self._name: Final = self._url.partition("?")[0]
        self._transport: Final = transport or HttpxTransport(timeout, loopback_http=loopback_http)
        self._clock: Final = clock
        self._timeout: Final = timeout
        self._fetched: _Fetched | None = None
        self._failure = "wasn't fetched yet"
        self._tried: dt.datetime | None = None
        self._lock = threading.Lock()  # for the two below, never held while anything is awaited
        self._flight: _Flight | None = None
        if hasattr(os, "register_at_fork"):  # where processes fork
            forked = weakref.WeakMethod(self._forked)
            os.register_at_fork(after_in_child=lambda: _call(forked()))

    def keys(self, key_id: str | None) -> KeySet:
        """Return the issuer's keys, fetched first where they are too old or lack `key_id`.

        Raises:
            TokenError: `keys_unavailable`.
        """
        if (flight := self._needed(key_id)) is not None:
            try:
                flight.done.result(flight.left())
            except TimeoutError:
                self._failure = "wasn't fetched in time"
        return self._usable()

    async def akeys(self, key_id: str | None) -> KeySet:
        """Do what `keys` does, without blocking the loop.

        Raises:
            TokenError: `keys_unavailable`.
        """
        if (flight := self._needed(key_id)) is not None:
            try:
                await asyncio.wait_for(asyncio.wrap_future(flight.done), flight.left())
            except TimeoutError:
                self._failure = "wasn't fetched in time"
        return self._usable()

    def _usable(self) -> KeySet:
        found = self._fetched
        if found is None or not found.fresh(told_by(self._clock), STALE):
            raise TokenError("keys_unavailable", f"the issuer's key set `{self._name}` {self._failure}")
        return found.keys

    def _needed(self, key_id: str | None) -> _Flight | None:
        """Return the fetch that must be waited for; None: what is there must do."""
        now, found = told_by(self._clock), self._fetched
        if found is not None and found.fresh(now) and (key_id is None or key_id in found.ids):
            return None
        with self._lock:
            if self._flight is not None:
                return self._flight
            if self._tried is not None and self._tried <= now < self._tried + COOLDOWN:
                return None
            self._tried = now
            flight = self._flight = _Flight(now, time.monotonic() + self._timeout + GRACE)
        flight.done.set_running_or_notify_cancel()  # from here on, nobody who stops waiting can cancel it
        try:
            threading.Thread(target=self._fly, args=(flight,), name="agentauthz-keys", daemon=True).start()
        except RuntimeError:
            self._land(flight, "can't be fetched: no thread could be started")
        return flight

    def _fly(self, flight: _Flight) -> None:
        try:
            self._fetched = self._fetch(flight.at)
            failure = "is out of date"
        except _Unusable as why:
            failure = str(why)
        except BaseException as cause:  # whatever it was, those that wait must learn that it is over
            failure = f"can't be fetched: {_told(cause)}"
        self._land(flight, failure)

    def _land(self, flight: _Flight, failure: str) -> None:
        self._failure = failure
        with self._lock:
            if self._flight is flight:
                self._flight = None
        flight.done.set_result(None)

    def _fetch(self, now: dt.datetime) -> _Fetched:
        accept = ("Accept", "application/jwk-set+json, application/json")
        answer = self._transport(HttpRequest("GET", self._url, (accept,)))
        if answer.status != 200:
            raise _Unusable(f"was answered with status {answer.status}")
        keys = _key_set(answer.body, skip_unusable=True)
        return _Fetched(keys, now, now + _time_to_live(answer), frozenset(key.key_id for key in keys.keys))

    def _forked(self) -> None:
        """Forget, in a child process, the lock and the fetch of a thread that only its parent has."""
        self._lock = threading.Lock()
        if self._flight is not None:
            self._flight = self._tried = None

    def __repr__(self) -> str:
        return f"HttpKeys({self._name!r})"


def _time_to_live(answer: HttpResponse) -> dt.timedelta:
    """Return how long an answer is fresh (RFC 9111 §5.2.2), within our bounds."""
    directives = ",".join(answer.all_headers("cache-control")).lower().replace(" ", "").split(",")
    ages = [int(found[1]) for directive in directives if (found := _MAX_AGE.fullmatch(directive))]
    if "no-store" in directives or "no-cache" in directives:
        ages = [0]
    return min(max(dt.timedelta(seconds=min(ages)), MIN_TTL), MAX_TTL) if ages else DEFAULT_TTL


def _told(cause: BaseException) -> str:
    return str(cause) if isinstance(cause, AgentAuthzError) else type(cause).__name__  # another's text may hold secrets


def _call(function: Callable[[], None] | None) -> None:
    if function is not None:
        function()
