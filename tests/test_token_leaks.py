"""Look for tokens, secrets and keys in all that may be shown: errors and their causes, logs, texts of objects."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from agentauthz.errors import AgentAuthzError, TokenError
from agentauthz.keys.jwk import KeySet, VerificationKey
from agentauthz.keys.signing import KeyRing, SigningKey
from agentauthz.tokens import jws
from agentauthz.tokens.dpop import DpopKey, DpopVerifier, Nonces
from agentauthz.tokens.introspection import Introspector
from agentauthz.tokens.once import MemoryOnce
from agentauthz.tokens.resource_server import challenge
from agentauthz.tokens.revocation import RevokedTokens, session_revoked
from agentauthz.tokens.verified import VerifiedToken
from tests.issuing import BOUND_KEY, ED, ES, RS, STRANGER, bound, dpop_validator, token, trusted, validator
from tests.support import Clock
from tests.test_token_claims import ROWS as CLAIMS
from tests.test_token_signatures import ROWS as SIGNATURES
from tests.token_rows import Row, name_of

URI = "https://pay.example/refunds"
CANARY = "canary-7f3a"
SHARED = b"a shared secret of 32 bytes: " + CANARY.encode()


def told(error: BaseException | None, seen: frozenset[int] = frozenset()) -> Iterator[str]:
    """Give all that an error and its causes tell to a log: texts, arguments, attributes, tracebacks."""
    if error is None or id(error) in seen:
        return
    yield from (str(error), repr(error), repr(error.args), repr(vars(error)))
    for name in ("doc", "object", "filename"):  # where decoders keep what they read
        yield repr(getattr(error, name, ""))
    yield "".join(traceback.format_exception(error))
    for other in (error.__cause__, error.__context__):
        yield from told(other, seen | {id(error)})


def parts_of(text: str) -> list[str]:
    """Return a token's text and those parts of it that tell anything, as text and as the bytes that they stand for."""
    return [part for part in (text, *text.split(".")) if len(part) > 20]


def secrets() -> list[str]:
    private = [key.to_pem().decode().splitlines()[1] for key in (ED, ES, RS, BOUND_KEY, STRANGER)]
    return [*private, CANARY, SHARED.decode()]


@pytest.mark.parametrize("row", [*SIGNATURES, *CLAIMS], ids=name_of)
def test_no_error_shows_its_token(row: Row, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing that is told of a refused token holds its text, a part of it, or what a claim of it says."""
    caplog.set_level(logging.DEBUG)
    text = row.refused()
    with pytest.raises(TokenError) as caught:
        row.validator().verify(text)
    everything = "\n".join([*told(caught.value), caplog.text])
    for part in [*parts_of(text), *secrets(), "payments.refund", "maria"]:
        assert part not in everything


def _broken_hook(found: VerifiedToken) -> bool:
    raise OSError(f"no answer about {found!r}")


class BrokenStore:
    """Be a store that quotes what it was asked."""

    def once(self, key: str, expires: Any) -> bool:
        raise OSError(f"no answer about {key}")


def _secret(*_: object) -> Any:
    raise RuntimeError("the transport fails")


BOUND_TEXT, BOUND_BY = bound()
PROOF = BOUND_BY.proof("GET", URI, access_token=BOUND_TEXT)

FAILURES: dict[str, tuple[Callable[[], object], list[str]]] = {
    "revocation": (lambda: validator(revocation=_broken_hook).verify(token(jti=CANARY)), [token(jti=CANARY)]),
    "replay": (lambda: validator(replay=BrokenStore()).verify(token(jti=CANARY)), [token(jti=CANARY)]),
    "mapper": (lambda: validator(trusted(actions=_secret)).verify(token(jti=CANARY)), [token(jti=CANARY)]),
    "proof": (
        lambda: dpop_validator().verify(BOUND_TEXT, dpop=[PROOF, PROOF], method="GET", uri=URI), [BOUND_TEXT, PROOF]
    ),
    "no proof": (lambda: dpop_validator().verify(BOUND_TEXT), [BOUND_TEXT]),
    "headers": (
        lambda: validator().authenticate([("Authorization", f"Bearer {CANARY} x")], method="GET", uri=URI), []
    ),
    "introspection": (
        lambda: validator(
            issuer := trusted(),
            introspection=Introspector("https://i.example/x", issuer, auth=("pay", CANARY), transport=_secret),
        ).verify(f"opaque-{CANARY}-token"),
        [f"opaque-{CANARY}-token"],
    ),
    "event": (partial(session_revoked, token(sub=CANARY), trusted()), [token(sub=CANARY)]),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_no_failure_shows_what_it_failed_on(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where a hook, a store or a server fails, neither its error nor ours shows a token, a proof or a secret."""
    caplog.set_level(logging.DEBUG)
    call, texts = FAILURES[name]
    with pytest.raises(AgentAuthzError) as caught:
        call()
    everything = "\n".join([*told(caught.value), caplog.text])
    for part in [*secrets(), *(part for text in texts for part in parts_of(text))]:
        assert part not in everything


def test_no_text_of_an_object_shows_a_token_or_a_key() -> None:
    """`repr`, `str` and `format` of all that holds tokens or keys hold none of them."""
    text, issuer = token(jti=CANARY), trusted()
    asked = validator(issuer, cache=3, replay=MemoryOnce(clock=Clock()), revocation=RevokedTokens(clock=Clock()))
    found = asked.verify(text)
    shared = KeySet([VerificationKey(SHARED, "s", frozenset({"HS256"}))])
    introspector = Introspector("https://i.example/x", issuer, auth=("pay", CANARY), transport=_secret)
    objects = [
        asked, found, issuer, jws.parse(text), shared, shared.keys[0], trusted(keys=shared, algorithms=["HS256"]),
        ED, RS,
        KeyRing(ED), DpopKey(BOUND_KEY), DpopVerifier(MemoryOnce()), Nonces(), introspector, found.chain,
        asked._open(text, "access"), asked._cache, SigningKey.generate(),
        challenge(TokenError("expired", "the token has expired")),
    ]  # fmt: skip
    shown = "\n".join(f"{one!r}\n{one!s}\n{one}" for one in objects)
    for part in [*parts_of(text), *secrets(), found.fingerprint()]:
        assert part not in shown


def test_the_canary_is_seen_where_it_is() -> None:
    """The search finds a token in an error's text, in the cause of one, and in what a decoder keeps."""
    text = token()
    for leak in (TokenError("x", f"the token {text}"), KeyError(text)):
        assert any(text in line for line in told(leak))
    with pytest.raises(UnicodeDecodeError) as caught:
        (text.encode() + b"\xff").decode()
    hidden = TokenError("malformed", "the token is malformed")
    hidden.__context__ = caught.value
    assert any(text in line for line in told(hidden))
