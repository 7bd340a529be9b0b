"""Say whose tokens are trusted: each issuer with its own keys, algorithms, audiences and kinds of tokens."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable
from typing import Final, TypeAlias, cast, final

from attrs import field, frozen

from agentauthz.errors import InvalidArgument
from agentauthz.keys.jwk import ED25519_ALGORITHMS, MAC_BYTES, RSA_ALGORITHMS, KeySet
from agentauthz.tokens.claims import ActLimits
from agentauthz.tokens.jws import DEFAULT_ALGORITHMS
from agentauthz.tokens.sources import KeySource
from agentauthz.tokens.verified import TYPES, TokenKind

ScopeMapper: TypeAlias = Callable[[str], Iterable[str]]

MAX_LEEWAY: Final = dt.timedelta(seconds=120)

_PUBLIC: Final = RSA_ALGORITHMS | ED25519_ALGORITHMS | {"ES256", "ES384", "ES512"}
_SHARED: Final = frozenset(MAC_BYTES)
_NOTHING: Final = dt.timedelta(0)


@final
@frozen
class TokenLimits:
    """Be what a token's dates and actors may be.

    `max_lifetime`: from `iat` to `exp`; `max_age`: since `iat`; `leeway`: what clocks may differ by, at most 120 s;
    `act`: how many actors, and how strictly they are read.

    Raises:
        InvalidArgument: a duration that is none, not above zero, or a leeway below zero or above 120 s.
    """

    max_lifetime: dt.timedelta = dt.timedelta(hours=24)
    max_age: dt.timedelta = dt.timedelta(hours=24)
    leeway: dt.timedelta = dt.timedelta(seconds=30)
    act: ActLimits = ActLimits()

    def __attrs_post_init__(self) -> None:
        for name in ("max_lifetime", "max_age"):
            value = getattr(self, name)
            if type(value) is not dt.timedelta or value <= _NOTHING:
                raise InvalidArgument(name, "must be a timedelta above zero")
        if type(self.leeway) is not dt.timedelta or not _NOTHING <= self.leeway <= MAX_LEEWAY:
            raise InvalidArgument("leeway", "must be a timedelta of 0 to 120 seconds")
        if type(self.act) is not ActLimits:
            raise InvalidArgument("act", "must be ActLimits")


LIMITS: Final = TokenLimits()


def _texts(given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise InvalidArgument("issuer", 'takes lists of texts, such as ["https://pay.example"]')
    texts = tuple(given)
    if any(not isinstance(text, str) or not text for text in texts):
        raise InvalidArgument("issuer", "takes lists of texts that are not empty")
    return texts


def _set(given: Iterable[str]) -> frozenset[str]:
    return frozenset(_texts(given))


def _kinds(given: Iterable[TokenKind]) -> frozenset[TokenKind]:
    return cast("frozenset[TokenKind]", _set(given))


@final
@frozen(eq=False, repr=False)
class TrustedIssuer:
    """Be an issuer that is trusted, for tokens of `token_kinds` to `audiences`, signed by `keys` with `algorithms`.

    `issuer` is compared character by character with `iss` (RFC 7519 §7.3). `audiences` are the names of this service,
    one of which the token's `aud` has to hold; none: every token is refused. `algorithms` are either of public keys or,
    where all of them are HS256, HS384 or HS512, of shared secrets, never both.

    `actions` is asked for each scope what actions it permits (names, `prefix.*`, `*`); without it a scope permits
    the action of just its name, and one with a star nothing. `attributes` names the claims that become the subject's
    attributes (RFC 9068 §2.2.3.1). `actor_issuers` are the other issuers, of whose agents and services it may say that
    one is the current actor; earlier actors decide nothing, and may be anybody's (RFC 8693 §4.1).

    Raises:
        InvalidArgument: an empty or malformed argument, an algorithm or kind that isn't known, algorithms of both
            sorts, or keys that don't fit them.
    """

    issuer: str
    keys: KeySource | KeySet
    audiences: frozenset[str] = field(default=(), converter=_set)
    algorithms: frozenset[str] = field(default=DEFAULT_ALGORITHMS, converter=_set, kw_only=True)
    token_kinds: frozenset[TokenKind] = field(default=("access",), converter=_kinds, kw_only=True)
    actions: ScopeMapper | None = field(default=None, kw_only=True)
    attributes: tuple[str, ...] = field(default=("roles", "groups", "entitlements"), converter=_texts, kw_only=True)
    actor_issuers: frozenset[str] = field(default=(), converter=_set, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.issuer, str) or not self.issuer:
            raise InvalidArgument("issuer", "must be a text that is not empty")
        if not self.token_kinds or not self.token_kinds <= TYPES.keys():
            raise InvalidArgument("token_kinds", f"must be some of {', '.join(TYPES)}")
        if self.actions is not None and not callable(self.actions):
            raise InvalidArgument("actions", "must be a function of one scope")
        _check_algorithms(self.algorithms, self.keys)

    @property
    def shared_secret(self) -> bool:
        """Say whether this issuer's tokens are made with a secret that is shared with it."""
        return self.algorithms <= _SHARED

    def __repr__(self) -> str:
        return f"TrustedIssuer({self.issuer!r})"


def _check_algorithms(algorithms: Collection[str], keys: object) -> None:
    found = frozenset(algorithms)
    if not found or not (found <= _PUBLIC or found <= _SHARED):  # RFC 8725 §3.1, §3.2
        raise InvalidArgument("algorithms", "must be of public keys, or all of HS256, HS384, HS512")
    if isinstance(keys, KeySet):
        if any(key.symmetric != (found <= _SHARED) for key in keys.keys):
            raise InvalidArgument(
                "keys", "must fit the algorithms: shared secrets for HS256 and its kin, and only then"
            )
    elif not callable(getattr(keys, "keys", None)) or not callable(getattr(keys, "akeys", None)):
        raise InvalidArgument("keys", "must be a KeySet, or a source with `keys` and `akeys`")
