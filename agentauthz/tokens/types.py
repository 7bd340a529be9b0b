"""Name the types of tokens (RFC 8693 §3) and the grants (RFC 8693 §2.1, RFC 7523 §2.1), as they go on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentauthz.tokens.verified import TokenKind

_TYPE: Final = "urn:ietf:params:oauth:token-type:"
ACCESS_TOKEN: Final = _TYPE + "access_token"  # issued by such a server, and maybe opaque
REFRESH_TOKEN: Final = _TYPE + "refresh_token"
ID_TOKEN: Final = _TYPE + "id_token"
JWT: Final = _TYPE + "jwt"  # says the form, not what it is for
SAML1: Final = _TYPE + "saml1"
SAML2: Final = _TYPE + "saml2"
ID_JAG: Final = _TYPE + "id-jag"  # an identity assertion that grants a token at another server
TXN_TOKEN: Final = _TYPE + "txn_token"

# what a token of a type is verified as; the other types can't be verified here
KINDS: Final[Mapping[str, TokenKind]] = {
    ACCESS_TOKEN: "access",
    ID_TOKEN: "id",
    JWT: "jwt",
    ID_JAG: "id-jag",
    TXN_TOKEN: "txn",
}

TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  # a grant's name, no secret
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
JWT_CLIENT_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 §2.2
