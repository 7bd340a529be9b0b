"""Hold what a verified token says, the key that it is bound to, and the kinds of tokens, which exclude each other."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Literal, NoReturn, TypeAlias, final

from attrs import field, frozen

from agentauthz.errors import InvalidArgument
from agentauthz.principals import Chain, Principal
from agentauthz.tokens.jws import is_compact

TokenKind: TypeAlias = Literal["access", "id", "jwt", "id-jag", "txn"]

# RFC 8725 §3.11: the header's `typ`, exactly; None: the header may lack it (OpenID Connect Core has ID tokens so)
TYPES: Final[Mapping[TokenKind, frozenset[str | None]]] = {
    "access": frozenset({"at+jwt", "application/at+jwt"}),  # RFC 9068 §2.1
    "id": frozenset({"JWT", None}),
    "jwt": frozenset({"JWT"}),
    "id-jag": frozenset({"oauth-id-jag+jwt"}),
    "txn": frozenset({"txntoken+jwt"}),
}


@final
@frozen(repr=False)
class Confirmation:
    """Be the key that a token is bound to (RFC 7800 `cnf`): a DPoP key's thumbprint, a certificate's, or both.

    `jkt` is RFC 9449 §6's, `x5t_s256` RFC 8705 §3.1's `x5t#S256`; each is base64url of 32 bytes.
    """

    jkt: str | None = None
    x5t_s256: str | None = None

    def claim(self) -> dict[str, str]:
        """Return the `cnf` claim."""
        named = {"jkt": self.jkt, "x5t#S256": self.x5t_s256}
        return {name: value for name, value in named.items() if value is not None}

    def __repr__(self) -> str:
        return f"Confirmation({', '.join(self.claim())})"


def actions_of(scopes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the actions that scopes permit where no mapper says: those of their names; a star is no pattern."""
    return tuple(scope for scope in scopes if "*" not in scope)


def never_revoked() -> bool:
    """Say that a token stands: there is nobody to ask."""
    return False


def _read_only(claims: Mapping[str, object]) -> Mapping[str, object]:
    return MappingProxyType(claims)


@final
@frozen(eq=False, repr=False)
class VerifiedToken:
    """Be what a genuine token says. Made by a `Validator`, after everything was checked.

    `chain` is oldest first, the reverse of `act`; its hops cover everything, since `scopes` are what narrows.
    `actions` are what the scopes permit: the scopes themselves, or what the issuer's mapper makes of them.
    `audience` is never empty. `revoked` asks again, at each decision, whether the token still stands; what it
    raises counts as revoked. `issued_at` and `expires_at` have a time zone. `admitted`: it was checked, too, that the
    token is meant for this service and comes from who may present it; only then a session can rest on it.
    """

    kind: TokenKind
    issuer: str
    chain: Chain
    audience: tuple[str, ...]
    scopes: tuple[str, ...] | None  # None: the token has no `scope` claim, which is no ceiling to exchange within
    actions: tuple[str, ...]
    client_id: str | None
    jti: str | None
    issued_at: dt.datetime
    expires_at: dt.datetime
    confirmation: Confirmation | None = None
    authorization_details: tuple[Mapping[str, object], ...] = ()
    claims: Mapping[str, object] = field(factory=dict, converter=_read_only)
    revoked: Callable[[], bool] = never_revoked
    _raw: str = ""
    admitted: bool = False

    @property
    def subject(self) -> Principal:
        """Return the principal whose authority the token carries (`sub`)."""
        return self.chain.subject

    @property
    def actor(self) -> Principal:
        """Return the current actor: the outermost `act`, or the subject (RFC 8693 §4.1)."""
        return self.chain.actor

    @property
    def token_type(self) -> Literal["Bearer", "DPoP"]:
        """Return the scheme that the token is presented with."""
        return "DPoP" if self.confirmation is not None and self.confirmation.jkt is not None else "Bearer"

    def reveal(self) -> str:
        """Return the token's text, to present it or to exchange it: a secret, never to be logged."""
        return self._raw

    def fingerprint(self) -> str:
        """Return the SHA-256, in hex, of the token's text, which names it without giving it away.

        Of a signed token it is that of what was signed: who has one signature of ECDSA can write another one.
        """
        named = self._raw.rpartition(".")[0] if is_compact(self._raw) else self._raw
        return hashlib.sha256(named.encode()).hexdigest()

    def __repr__(self) -> str:
        return f"<VerifiedToken {self.kind} of {self.subject}, actor {self.actor}, until {self.expires_at:%FT%TZ}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InvalidArgument("token", "can't be pickled or copied: verify it where it is needed")
