"""Register the clients of a token service, and authenticate them (RFC 6749 §2.3, RFC 7523 §3, RFC 8705 §2)."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, NoReturn, TypeAlias, final

from attrs import field, frozen

from agentauthz.errors import ExchangeRefused, InvalidArgument, TokenError
from agentauthz.keys.base64url import from_base64url
from agentauthz.keys.jwk import KeySet
from agentauthz.principals import Principal
from agentauthz.sts.assertions import AssertionRules
from agentauthz.sts.credentials import MAX_ID, MAX_SECRET, Credentials, Pairs, credentials_of
from agentauthz.tokens.confirmation import certificate_thumbprint
from agentauthz.tokens.types import TOKEN_EXCHANGE

MIN_SECRET: Final = 22  # characters: 128 bits in base64url, what RFC 6749 §10.10 asks for
MAX_SECRETS: Final = 2  # the one in use, and its successor

_HASH: Final = re.compile(r"sha256\$(?P<salt>[0-9a-f]{32})\$(?P<digest>[0-9a-f]{64})")


@final
@frozen(eq=False, repr=False)
class SecretHash:
    """Be a client's secret as a salted SHA-256, which is what is kept; `text` writes it into a configuration.

    One fast hash is enough for secrets that are random, and only such are taken: `new_secret` makes one.
    """

    _salt: bytes
    _digest: bytes

    @classmethod
    def of(cls, secret: str) -> SecretHash:
        """Return the hash of a secret, with a salt of its own.

        Raises:
            InvalidArgument: shorter than 22 characters, or longer than 1,024.
        """
        if not isinstance(secret, str) or not MIN_SECRET <= len(secret) <= MAX_SECRET:
            raise InvalidArgument(
                "secret", f"must be {MIN_SECRET} to {MAX_SECRET} random characters: `new_secret()` makes one"
            )
        salt = secrets.token_bytes(16)
        return cls(salt, _digest(salt, secret))

    @classmethod
    def from_text(cls, text: str) -> SecretHash:
        """Return the hash that `text` wrote.

        Raises:
            InvalidArgument: it isn't one.
        """
        found = _HASH.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise InvalidArgument("secret", "must be what `SecretHash.text` wrote: `sha256$…$…`")
        return cls(bytes.fromhex(found["salt"]), bytes.fromhex(found["digest"]))

    def text(self) -> str:
        """Return the hash as text: no secret, and still nothing to show around."""
        return f"sha256${self._salt.hex()}${self._digest.hex()}"

    def matches(self, secret: str) -> bool:
        """Say whether it is the hash of `secret`, in a time that doesn't tell how much of it is right."""
        return hmac.compare_digest(self._digest, _digest(self._salt, secret))

    def __repr__(self) -> str:
        return "SecretHash(…)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InvalidArgument("secret", "can't be pickled or copied: write its `text()` where it is needed")


def new_secret() -> str:
    """Return a new client secret of 256 random bits, in characters that no encoding changes."""
    return secrets.token_urlsafe(32)


def _digest(salt: bytes, secret: str) -> bytes:
    return hashlib.sha256(salt + secret.encode("utf-8", "surrogatepass")).digest()


_DECOY: Final = SecretHash.of(new_secret())  # compared with where there is no secret, so that the time tells nothing


def _secret_hashes(given: str | SecretHash | Iterable[str | SecretHash] | None) -> tuple[SecretHash, ...]:
    if given is None:
        return ()
    several = [given] if isinstance(given, str | SecretHash) else list(given)
    if len(several) > MAX_SECRETS:
        raise InvalidArgument("secret", f"must be at most {MAX_SECRETS}: the one in use, and its successor")
    return tuple(one if isinstance(one, SecretHash) else SecretHash.of(one) for one in several)


def _texts(given: Iterable[str]) -> frozenset[str]:
    if isinstance(given, str):
        raise InvalidArgument("client", f"must have lists of names, not the one text `{given}`")
    names = frozenset(given)
    if not all(isinstance(name, str) and name for name in names):
        raise InvalidArgument("client", "must have lists of names that are texts and not empty")
    return names


@final
@frozen(eq=False, repr=False, kw_only=True)
class Client:
    """Be a party that may ask for tokens, or about them: who it is, how it proves that, and its ceilings.

    It proves who it is by a `secret` (hashed at once; two while one replaces the other), by one of its `keys`
    (`private_key_jwt`), or by the certificate of its TLS connection with the SHA-256 thumbprint `tls_thumbprint`
    (base64url, RFC 8705 §3.1). A `public` client proves nothing, and is never granted an exchange.

    As an actor it is the principal (`issuer`, `kind`, `id`); `issuer` None is the token service itself.
    `scopes`, `audiences`, `resources` and `detail_types` (RFC 9396) are the most that it can get, and empty means
    none; `id_token_scopes` are those that an ID token, which has none of its own, is exchanged for. `serves` are the
    audiences that mean this client, as a resource server: it may ask about tokens for them, and exchange them.
    `client_ids` are its names at other issuers, by issuer. `may_impersonate` lets it ask for a token in which no
    actor is seen, `may_unbind` for one without a key in exchange for one with; each is a decision to write down.

    Raises:
        InvalidArgument: nothing that proves who it is and not `public`, or both; shared secrets as `keys`; a
            malformed member.
    """

    id: str = field(kw_only=False)
    kind: Literal["agent", "service"] = "agent"
    issuer: str | None = None
    secret: tuple[SecretHash, ...] = field(default=None, converter=_secret_hashes)
    keys: KeySet | None = None
    tls_thumbprint: str | None = None
    public: bool = False
    grant_types: frozenset[str] = field(default=(TOKEN_EXCHANGE,), converter=_texts)
    scopes: frozenset[str] = field(default=(), converter=_texts)
    audiences: frozenset[str] = field(default=(), converter=_texts)
    resources: frozenset[str] = field(default=(), converter=_texts)
    detail_types: frozenset[str] = field(default=(), converter=_texts)
    serves: frozenset[str] = field(default=(), converter=_texts)
    id_token_scopes: frozenset[str] = field(default=(), converter=_texts)
    client_ids: Mapping[str, str] = field(factory=dict)
    may_impersonate: bool = False
    may_unbind: bool = False
    max_lifetime: dt.timedelta | None = None

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.id, str) or not 0 < len(self.id) <= MAX_ID or not self.id.isprintable():
            raise InvalidArgument("id", f"must be 1 to {MAX_ID} printable characters")
        if self.kind not in ("agent", "service"):
            raise InvalidArgument("kind", "must be agent or service")
        if self.keys is not None and (not self.keys.keys or any(key.symmetric for key in self.keys.keys)):
            raise InvalidArgument("keys", "must hold public keys: a shared secret is a `secret`")
        if self.tls_thumbprint is not None and len(from_base64url(self.tls_thumbprint) or b"") != 32:
            raise InvalidArgument("tls_thumbprint", "must be what `certificate_thumbprint` makes of a certificate")
        if self.max_lifetime is not None and self.max_lifetime <= dt.timedelta(0):
            raise InvalidArgument("max_lifetime", "must be longer than nothing")
        proves = bool(self.secret) or self.keys is not None or bool(self.tls_thumbprint)
        if proves == self.public:
            raise InvalidArgument(
                "client", f"`{self.id}` needs a `secret`, `keys` or a `tls_thumbprint`, or else `public=True`"
            )

    def principal(self, service: str) -> Principal:
        """Return the client as a principal of its issuer, or of the token service whose issuer is `service`."""
        return Principal(self.kind, self.id, self.issuer or service)

    def __repr__(self) -> str:
        return f"Client({self.id!r}, {self.kind})"


Registry: TypeAlias = Callable[[str], Client | None]


def _registry(given: Iterable[Client] | Registry) -> Registry:
    if callable(given):
        return given
    clients: dict[str, Client] = {}
    for client in given:
        if clients.setdefault(client.id, client) is not client:
            raise InvalidArgument("clients", f"`{client.id}` is registered twice")
    return clients.get


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@final
@frozen(eq=False)
class Clients:
    """Be the clients that a token service knows, and tell them apart; given as a list, or as what looks one up.

    `assertions` are the rules of `private_key_jwt`; without them no client authenticates that way. A client's name
    is no secret (RFC 6749 §2.2), yet no answer tells whether one is registered.
    """

    registry: Registry = field(converter=_registry)
    assertions: AssertionRules | None = None
    clock: Callable[[], dt.datetime] = _now

    def authenticate(self, pairs: Pairs, headers: Pairs, peer_cert: bytes | None = None) -> Client:
        """Return the client that a request proves to come from; a public one only says so.

        `pairs` are the form's parameters, `headers` the request's. `peer_cert` (DER or PEM) is the certificate that
        the host verified on this connection; never one that a header claims.

        Raises:
            ExchangeRefused: `invalid_client` (401) whatever is wrong, `invalid_request` for more than one method or
                a parameter twice, `server_error` (500) or `temporarily_unavailable` (503) where the registry or the
                store fails.
        """
        given = credentials_of(list(pairs), list(headers))
        if given.method == "private_key_jwt":
            return self._by_assertion(given)
        client = None if given.client_id is None else self._look_up(given.client_id)
        if given.method == "none":
            return self._by_certificate(client, peer_cert)
        return self._by_secret(client, given.proof or "")

    def _look_up(self, client_id: str) -> Client | None:
        if len(client_id) > MAX_ID:
            return None
        try:
            found = self.registry(client_id)
        except Exception as cause:
            raise ExchangeRefused("server_error", "client_registry", status=500) from cause
        return found if isinstance(found, Client) and found.id == client_id else None

    def _by_secret(self, client: Client | None, secret: str) -> Client:
        known = () if client is None else client.secret
        hashes = (*known, _DECOY, _DECOY)[:MAX_SECRETS]
        # SECURITY: as many comparisons whoever is asked for, and all of them, whichever matches
        matching = [one.matches(secret[:MAX_SECRET]) for one in hashes]
        if client is None or len(secret) > MAX_SECRET or True not in matching[: len(known)]:
            raise _unknown("client_secret")
        return client

    def _by_certificate(self, client: Client | None, peer_cert: bytes | None) -> Client:
        if client is not None and client.public:
            return client
        if client is None or client.tls_thumbprint is None or peer_cert is None:
            raise _unknown("client_not_authenticated")
        try:
            presented = certificate_thumbprint(peer_cert)
        except InvalidArgument:
            raise _unknown("client_certificate") from None
        if not hmac.compare_digest(presented.encode(), client.tls_thumbprint.encode()):
            raise _unknown("client_certificate")
        return client

    def _by_assertion(self, given: Credentials) -> Client:
        if self.assertions is None or given.proof is None:
            raise _unknown("client_assertion")
        try:
            client_id = self.assertions.named(given.proof)
            client = self._look_up(client_id)
            if client is None or client.keys is None or given.client_id not in (None, client_id):
                raise _unknown("client_assertion")
            use_up = self.assertions.check(given.proof, client.keys, self.clock())
        except TokenError as error:
            raise _unknown(f"client_assertion_{error.reason}") from None
        try:
            first = use_up()
        except Exception as cause:
            raise ExchangeRefused("temporarily_unavailable", "client_assertion_replay", status=503) from cause
        if not first:
            raise _unknown("client_assertion_replayed")
        return client


def _unknown(reason: str) -> ExchangeRefused:
    return ExchangeRefused("invalid_client", reason, status=401)
