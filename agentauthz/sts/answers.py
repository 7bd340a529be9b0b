"""Make the answers of a token service: JSON that nobody stores, and errors that tell no more than their code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from agentauthz.errors import ExchangeRefused
from agentauthz.tokens.transport import Headers, HttpResponse

# RFC 6749 §5.1: tokens are in the answer, and errors are about them
_NOT_STORED: Final = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))
_JSON: Final = ("Content-Type", "application/json")

# SECURITY: one text for each code, whatever the reason, so that an answer is no oracle
DESCRIPTIONS: Final[Mapping[str, str]] = {
    "invalid_request": "the request is malformed, or what it rests on is not acceptable",
    "invalid_client": "the client could not be authenticated",
    "invalid_grant": "the grant is not acceptable",
    "unauthorized_client": "the client may not do this",
    "unsupported_grant_type": "the grant type is not supported",
    "unsupported_token_type": "tokens of this type are not supported",
    "invalid_scope": "the scope is not available",
    "invalid_target": "the audience or resource is not available",
    "invalid_authorization_details": "the authorization details are not available",
    "invalid_dpop_proof": "the DPoP proof is not acceptable",
    "use_dpop_nonce": "a DPoP proof with a nonce of this server is needed",
    "insufficient_user_authentication": "the user has to authenticate again, or more strongly",
    "server_error": "the server could not answer",
    "temporarily_unavailable": "the server can not answer now: try again later",
}
_STATUSES: Final = frozenset({400, 401, 405, 408, 413, 500, 503})


def answer(document: Mapping[str, object], *, status: int = 200, headers: Headers = ()) -> HttpResponse:
    """Return JSON that is not to be stored."""
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    return HttpResponse(status, (_JSON, *_NOT_STORED, *headers), body)


def published(document: Mapping[str, object], *, seconds: int) -> HttpResponse:
    """Return JSON that everybody may keep for so many seconds."""
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    return HttpResponse(200, (_JSON, ("Cache-Control", f"public, max-age={seconds}")), body)


def error(refused: ExchangeRefused, *, headers: Headers = ()) -> HttpResponse:
    """Return the answer to a refused request (RFC 6749 §5.2): its code, the text for that, and nothing of its reason.

    A code that isn't known is a `server_error`, so that nothing unforeseen goes out.
    """
    known = refused.error in DESCRIPTIONS and refused.status in _STATUSES
    code, status = (refused.error, refused.status) if known else ("server_error", 500)
    more = {
        401: (("WWW-Authenticate", 'Basic realm="token service", charset="UTF-8"'),),  # RFC 6749 §5.2, RFC 9110 §15.5.2
        405: (("Allow", "POST"),),
        503: (("Retry-After", "1"),),
    }.get(status, ())
    return answer({"error": code, "error_description": DESCRIPTIONS[code]}, status=status, headers=(*more, *headers))


def nothing() -> HttpResponse:
    """Return an answer that says only that all went well (RFC 7009 §2.2)."""
    return HttpResponse(200, (("Content-Length", "0"), *_NOT_STORED))
