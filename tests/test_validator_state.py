"""Test what a validator remembers and asks: replay, revocation, the cache, many threads, and mistakes of its host."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys.jwk import KeySet, VerificationKey, verification_key
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens.claims import ActLimits
from agentauthz.tokens.dpop import DpopKey
from agentauthz.tokens.issuers import TokenLimits
from agentauthz.tokens.once import MemoryOnce
from agentauthz.tokens.validator import Validator
from agentauthz.tokens.verified import VerifiedToken
from tests.issuing import (
    ACT,
    BOUND_KEY,
    ED,
    ES,
    ISSUER,
    KEYS,
    NOW,
    OTHER_ISSUER,
    RS,
    STRANGER,
    bound,
    dpop_validator,
    later,
    reason,
    token,
    trusted,
    validator,
)
from tests.support import Clock

URI = "https://pay.example/refunds"


# ---- replay


class Broken:
    """Be a store that fails, or answers something else than yes or no."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    def once(self, key: str, expires: dt.datetime) -> Any:
        if self.answer is None:
            raise OSError("the store is down")
        return self.answer


def test_case_27_a_token_counts_once_where_replay_is_watched() -> None:
    """Case 27: the second time the same `jti` is refused, in a new token too, and another one is taken."""
    asked = validator(replay=MemoryOnce(clock=Clock()))
    assert asked.verify(token()).jti == "token-1"
    assert reason(lambda: asked.verify(token())) == "replayed"
    assert reason(lambda: asked.verify(token(scope="other"))) == "replayed"
    assert asked.verify(token(jti="token-2")).jti == "token-2"
    assert validator().verify(token()).jti == validator().verify(token()).jti


def test_case_27_a_jti_is_its_issuers_own() -> None:
    """The same `jti` of another issuer is another token."""
    asked = validator(trusted(), trusted(issuer=OTHER_ISSUER), replay=MemoryOnce(clock=Clock()))
    assert asked.verify(token()).issuer == ISSUER
    assert asked.verify(token(iss=OTHER_ISSUER)).issuer == OTHER_ISSUER


def test_case_27_a_used_token_is_remembered_longer_than_it_is_taken() -> None:
    """A store whose clock runs ahead of ours, by no more than `leeway`, doesn't forget a token that is still taken."""
    clock, ahead = later(seconds=329), later(seconds=359)
    asked = validator(clock=clock, replay=MemoryOnce(clock=ahead))
    asked.verify(token())
    ahead.forward(seconds=1)
    assert reason(lambda: asked.verify(token())) == "replayed"


@pytest.mark.parametrize("store", [Broken(), Broken("yes"), Broken(1)])
def test_case_27_a_store_that_fails_grants_nothing(store: Any) -> None:
    """Case 27: a store that raises, or says anything but True, makes the token refused."""
    assert reason(lambda: validator(replay=store).verify(token())) in {"replay_unavailable", "replayed"}


def test_case_27_a_full_store_grants_nothing() -> None:
    """Case 27: when all places are taken by tokens that still count, no other is taken."""
    asked = validator(replay=MemoryOnce(1, clock=Clock()))
    assert asked.verify(token()).jti == "token-1"
    assert reason(lambda: asked.verify(token(jti="token-2"))) == "replay_unavailable"


def test_a_refused_token_is_not_used_up() -> None:
    """What is refused for another reason can still be used: replay is looked at last."""
    asked = validator(replay=MemoryOnce(clock=Clock()))
    bound = token(cnf={"jkt": DpopKey(BOUND_KEY).thumbprint}, jti="bound")
    assert reason(lambda: asked.verify(bound)) == "dpop_missing"
    assert reason(lambda: asked.verify(token(aud="https://other.example"))) == "audience"
    assert asked.verify(token()).jti == "token-1"


# ---- revocation


@pytest.mark.parametrize(
    ("answer", "why"), [(True, "revoked"), (None, "revocation_unavailable"), ("no", "revocation_unavailable")]
)
def test_case_28_revoked_and_unknown_are_refused(answer: Any, why: str) -> None:
    """Case 28: only a clear False lets a token stand."""
    assert reason(lambda: validator(revocation=lambda _: answer).verify(token())) == why
    assert validator(revocation=lambda _: False).verify(token()).revoked() is False


def test_case_28_a_hook_that_raises_refuses() -> None:
    """Case 28: a hook that raises makes the token refused, and leaves its cause for the log."""

    def down(_: VerifiedToken) -> bool:
        raise OSError("the database is down")

    with pytest.raises(TokenError, match="revocation_unavailable") as caught:
        validator(revocation=down).verify(token())
    assert isinstance(caught.value.__cause__, OSError)


def test_revocation_is_not_asked_about_tokens_for_others() -> None:
    """A token for another service is refused as such, and nobody is asked about it; a token service still asks."""
    asked = validator(revocation=lambda _: True)
    other = token(aud="https://other.example")
    assert reason(lambda: asked.verify(other)) == "audience"
    assert reason(lambda: asked.verify(token())) == "revoked"
    assert reason(lambda: asked.genuine(other, kind="access")) == "revoked"


def test_revocation_is_asked_again_by_the_token() -> None:
    """A verified token asks again: what was revoked since, or can't be known now, doesn't stand."""
    answers: list[Any] = [False]
    found = validator(revocation=lambda _: answers[-1]).verify(token())
    assert found.revoked() is False
    answers.append(True)
    assert found.revoked() is True
    answers.append(None)
    assert reason(found.revoked) == "revocation_unavailable"


def test_the_hook_sees_the_whole_token() -> None:
    """The hook is given the verified token itself, at verification and later."""
    seen: list[VerifiedToken] = []

    def hook(given: VerifiedToken) -> bool:
        seen.append(given)
        return False

    found = validator(revocation=hook).verify(token(act=ACT))
    found.revoked()
    assert seen == [found, found]


# ---- the cache


class Rotating:
    """Be a source whose keys can be replaced."""

    def __init__(self, now: KeySet = KEYS) -> None:
        self.now = now

    def keys(self, key_id: str | None) -> KeySet:
        return self.now

    async def akeys(self, key_id: str | None) -> KeySet:
        return self.now


def test_a_cached_token_is_the_same_and_still_checked() -> None:
    """What is kept is returned again; audience, replay, revocation and time are looked at each time."""
    clock, revoked = Clock(), [False]
    asked = validator(cache=10, clock=clock, revocation=lambda _: revoked[-1])
    first = asked.verify(token())
    assert asked.verify(token()) is first
    revoked.append(True)
    assert reason(lambda: asked.verify(token())) == "revoked"
    revoked.append(False)
    clock.forward(seconds=331)
    assert reason(lambda: asked.verify(token())) == "expired"
    once = validator(cache=10, replay=MemoryOnce(clock=Clock()))
    once.verify(token())
    assert reason(lambda: once.verify(token())) == "replayed"


def test_a_cached_token_grows_too_old() -> None:
    """`max_age` holds for what is kept too."""
    clock = Clock()
    asked = validator(cache=10, clock=clock, limits=TokenLimits(max_age=dt.timedelta(seconds=60)))
    asked.verify(token())
    clock.forward(seconds=91)
    assert reason(lambda: asked.verify(token())) == "too_old"


def test_a_cached_token_ends_with_its_key() -> None:
    """When an issuer retires a key, tokens of it that were kept are refused as all others are."""
    source = Rotating()
    asked = validator(trusted(keys=source), cache=10)
    asked.verify(token())
    source.now = KeySet([ES.public_key()])
    assert reason(lambda: asked.verify(token())) == "unknown_key"
    source.now = KeySet([SigningKey.generate(key_id="ed").public_key()])
    assert reason(lambda: asked.verify(token())) == "signature"


def test_a_cached_token_ends_with_what_its_key_is_for() -> None:
    """When a key is published for another algorithm, what it signed with the old one is refused."""
    source = Rotating(KeySet([verification_key({**RS.public_jwk(), "alg": "RS256"})]))
    asked = validator(trusted(keys=source), cache=10)
    asked.verify(token(key=RS))
    source.now = KeySet([verification_key({**RS.public_jwk(), "alg": "PS256"})])
    assert reason(lambda: asked.verify(token(key=RS))) == "algorithm"


def test_a_cached_token_ends_with_a_key_that_has_no_thumbprint() -> None:
    """Keys that a host made by hand, and left without a thumbprint, are not taken for each other."""
    first, second = (
        KeySet([VerificationKey(key.public_key().key, "ed", frozenset({"Ed25519"}))]) for key in (ED, STRANGER)
    )
    source = Rotating(first)
    asked = validator(trusted(keys=source), cache=10)
    assert asked.verify(token()) is asked.verify(token())
    source.now = second
    assert reason(lambda: asked.verify(token())) == "signature"


def test_a_cached_token_is_of_its_kind_and_its_text() -> None:
    """What was kept as one kind is not found as another, nor by a text that differs in the signature only."""
    asked = validator(trusted(token_kinds=["access", "jwt"]), cache=10)
    asked.verify(token())
    assert reason(lambda: asked.verify(token(), kind="jwt")) == "typ"
    forged = token().rpartition(".")[0] + ".AAAA"
    assert reason(lambda: asked.verify(forged)) == "signature"


def test_a_cached_bound_token_needs_a_fresh_proof() -> None:
    """A token that was kept is still refused without proof of its key."""
    text, key = bound()
    asked = dpop_validator(cache=10)
    asked.verify(text, dpop=key.proof("GET", URI, access_token=text), method="GET", uri=URI)
    assert reason(lambda: asked.verify(text)) == "dpop_missing"


def test_the_cache_is_bounded() -> None:
    """No more tokens are kept than was said, and the younger half of them is among them."""
    for size in (1, 2, 3, 10):
        asked, kept = validator(cache=size), []
        for number in range(30):
            kept.append(asked.verify(token(jti=f"t{number}")))
            assert len(asked._cache._kept) <= size
            for one in kept[-max(1, size // 2) :]:
                assert asked.verify(one.reveal()) is one


def test_a_full_cache_costs_no_more() -> None:
    """A cache that is full of good tokens is not gone through for each one more."""
    asked = validator(cache=1000)
    rooms, make_room = [], asked._cache._make_room

    def counted(now: float) -> None:
        rooms.append(now)
        make_room(now)

    asked._cache._make_room = counted  # type: ignore[method-assign]
    for number in range(2000):
        asked.verify(token(jti=f"t{number}"))
    assert len(rooms) == 2


def test_refused_tokens_are_not_kept() -> None:
    """Only what was verified is kept."""
    asked = validator(cache=3)
    with pytest.raises(TokenError):
        asked.verify(token(exp=NOW - 60, iat=NOW - 90))
    assert asked._cache._kept == {}


# ---- many at once, and mistakes of the host


@pytest.mark.parametrize("cache", [0, 5])
def test_threads_share_one_validator(cache: int) -> None:
    """Eight threads verify good and forged tokens with one validator, and each gets its own answer."""
    asked = validator(cache=cache)
    texts = {f"t{number}": token(jti=f"t{number}", sub=f"user-{number}") for number in range(20)}
    forged = token(key=SigningKey.generate(key_id="ed"))
    start = threading.Barrier(8)

    def work(_: int) -> bool:
        start.wait()
        for _ in range(5):
            for jti, text in texts.items():
                found = asked.verify(text)
                assert (found.jti, found.subject.id) == (jti, f"user-{jti[1:]}")
            assert reason(lambda: asked.verify(forged)) == "signature"
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_of_many_threads_one_token_is_taken_once() -> None:
    """Eight threads present the same token where it counts once: one is let in."""
    asked = validator(replay=MemoryOnce(clock=Clock()))
    text, start = token(), threading.Barrier(8)

    def work(_: int) -> bool:
        start.wait()
        try:
            return asked.verify(text).jti == "token-1"
        except TokenError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 1


@pytest.mark.parametrize("clock", [lambda: None, lambda: dt.datetime(2026, 1, 1)])  # noqa: DTZ001  (the point)
def test_a_clock_without_a_zone_is_a_mistake(clock: Any) -> None:
    """A clock that returns no moment with a zone raises, and nothing is verified."""
    with pytest.raises(InvalidArgument, match="clock"):
        validator(clock=clock).verify(token())


@pytest.mark.parametrize(
    "build",
    [
        lambda: Validator([]),
        lambda: Validator([trusted(), trusted()]),
        lambda: Validator([ISSUER]),  # type: ignore[list-item]
        lambda: Validator([trusted()], cache=-1),
        lambda: TokenLimits(leeway=dt.timedelta(seconds=121)),
        lambda: TokenLimits(leeway=dt.timedelta(seconds=-1)),
        lambda: TokenLimits(max_age=dt.timedelta(0)),
        lambda: TokenLimits(max_lifetime=3600),  # type: ignore[arg-type]
        lambda: ActLimits(depth=17),
        lambda: ActLimits(depth=0),
    ],
)
def test_what_can_not_be_meant_is_no_validator(build: Callable[[], object]) -> None:
    """A validator without issuers, with two of one name, or with limits outside of their bounds can't be made."""
    with pytest.raises(InvalidArgument):
        build()


def test_nothing_shows_keys_or_tokens() -> None:
    """The validator's own text names its issuers only."""
    asked = validator(cache=2)
    asked.verify(token())
    assert repr(asked) == f"Validator({ISSUER!r})"
    assert ED.public_jwk()["x"] not in repr(asked)
