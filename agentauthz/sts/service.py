"""Hold `SecurityTokenService`: it exchanges a token for a narrower one, and every exchange is decided and recorded."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, final

from agentauthz.authorizer import Authorizer
from agentauthz.errors import ExchangeRefused
from agentauthz.keys.signing import KeyRing, Signer
from agentauthz.principals import Principal
from agentauthz.sts.ceilings import StsLimits, Target
from agentauthz.sts.clients import Client, Clients
from agentauthz.sts.issued import Issued
from agentauthz.tokens.once import Once
from agentauthz.tokens.verified import TokenKind, VerifiedToken

if TYPE_CHECKING:
    from typing import Protocol

    class Genuine(Protocol):
        """Be what verifies a token for a token service: a `Validator`."""

        def genuine(self, token: str, *, kind: TokenKind) -> VerifiedToken:
            """Return what a genuine token says."""

    class Proofs(Protocol):
        """Be what checks proofs of possession: a `DpopVerifier`."""

        def check(
            self, proofs: str | list[str] | None, *, method: str, uri: str, access_token: str | None = None
        ) -> str:
            """Return the thumbprint of the key that was proven."""


Revocation: TypeAlias = Callable[[VerifiedToken], bool | None]
Comparator: TypeAlias = Callable[[Mapping[str, object], Mapping[str, object]], bool]
SubjectMapper: TypeAlias = Callable[[VerifiedToken], str | None]
Customise: TypeAlias = Callable[[VerifiedToken, Client], Mapping[str, object]]


@final
class SecurityTokenService:
    """Exchange tokens (RFC 8693), and redeem identity assertions (RFC 7523).

    `verifiers` are by the type of token that each takes; `clients` are who may ask (`service.clients`).
    """

    def __init__(
        self,
        issuer: str,
        signer: Signer | KeyRing,
        verifiers: Mapping[str, Genuine],
        clients: Clients,
        authorizer: Authorizer,
        *,
        targets: Iterable[Target],
        limits: StsLimits | None = None,
        revoked: Revocation | None = None,
        replay: Once | None = None,
        dpop: Proofs | None = None,
        subject_mapper: SubjectMapper | None = None,
        comparators: Mapping[str, Comparator] | None = None,
        customise: Customise | None = None,
        transcribed: Iterable[str] = ("auth_time", "acr", "amr"),
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.issuer: Final = issuer
        self.keys: Final = signer if isinstance(signer, KeyRing) else KeyRing(signer)
        self.clients: Final = clients
        self.targets: Final = tuple(targets)

    def exchange(
        self,
        pairs: Iterable[tuple[str, str]],
        client: Client,
        *,
        dpop: str | list[str] | None = None,
        method: str = "POST",
        uri: str | None = None,
        peer_cert: bytes | None = None,
    ) -> Issued:
        """Return a token for what the parameters `pairs` ask for, on behalf of an authenticated `client`.

        `dpop` are the values of the request's `DPoP` headers, `uri` is the token endpoint's, which the proof names;
        `peer_cert` is the certificate that the host verified on this connection. One decision is recorded, whatever
        comes of it.

        Raises:
            ExchangeRefused: no token is issued; its `record_id` is that of the decision.
        """
        raise ExchangeRefused("server_error", "not_built", status=500)

    def refused(self, refusal: ExchangeRefused, *, client: Principal | None = None) -> ExchangeRefused:
        """Record what is refused before any token was looked at, such as a client that isn't known; return it.

        `client` is who asked, where that was proven.
        """
        return refusal
