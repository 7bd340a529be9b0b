"""Turn the bytes of tokens into a chain, and a chain into tokens (RFC 8693)."""

from agentauthz.keys.jwk import KeySet
from agentauthz.keys.signing import KeyRing, Signer, SigningKey
from agentauthz.tokens.answer import ExchangedToken
from agentauthz.tokens.claims import ActLimits
from agentauthz.tokens.client import TokenExchangeClient
from agentauthz.tokens.client_auth import ClientSecretBasic, ClientSecretPost, PrivateKeyJwt
from agentauthz.tokens.confirmation import certificate_thumbprint
from agentauthz.tokens.dpop import DpopKey, DpopVerifier, Nonces
from agentauthz.tokens.exchange import JwtBearerRequest, TokenExchangeRequest
from agentauthz.tokens.introspection import Introspector
from agentauthz.tokens.issuers import TokenLimits, TrustedIssuer
from agentauthz.tokens.once import MemoryOnce, Once
from agentauthz.tokens.resource_server import (
    canonical_resource,
    challenge,
    metadata_url,
    protected_resource_metadata,
    require_scopes,
)
from agentauthz.tokens.revocation import Revocation, RevokedTokens, jti_hash, session_revoked
from agentauthz.tokens.sources import FileKeys, HttpKeys, KeySource, RingKeys, StaticKeys
from agentauthz.tokens.transport import HttpxTransport
from agentauthz.tokens.types import ACCESS_TOKEN, ID_JAG, ID_TOKEN, JWT, TXN_TOKEN
from agentauthz.tokens.validator import Validator
from agentauthz.tokens.verified import Confirmation, VerifiedToken

__all__ = [
    "ACCESS_TOKEN",
    "ID_JAG",
    "ID_TOKEN",
    "JWT",
    "TXN_TOKEN",
    "ActLimits",
    "ClientSecretBasic",
    "ClientSecretPost",
    "Confirmation",
    "DpopKey",
    "DpopVerifier",
    "ExchangedToken",
    "FileKeys",
    "HttpKeys",
    "HttpxTransport",
    "Introspector",
    "JwtBearerRequest",
    "KeyRing",
    "KeySet",
    "KeySource",
    "MemoryOnce",
    "Nonces",
    "Once",
    "PrivateKeyJwt",
    "Revocation",
    "RevokedTokens",
    "RingKeys",
    "Signer",
    "SigningKey",
    "StaticKeys",
    "TokenExchangeClient",
    "TokenExchangeRequest",
    "TokenLimits",
    "TrustedIssuer",
    "Validator",
    "VerifiedToken",
    "canonical_resource",
    "certificate_thumbprint",
    "challenge",
    "jti_hash",
    "metadata_url",
    "protected_resource_metadata",
    "require_scopes",
    "session_revoked",
]
