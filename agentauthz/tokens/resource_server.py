"""Say over HTTP what a protected resource has to say: what it is, who issues tokens for it, and why it refuses one.

It follows RFC 6750 §3, RFC 9449 §7.1 and RFC 9728, as the authorization specification of the Model Context Protocol
of 2026-07-28 asks for it. Nothing here says more than a client needs: which check failed stays in `TokenError.reason`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, final
from urllib.parse import SplitResult, urlsplit

from attrs import frozen

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.tokens.verified import VerifiedToken

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"  # RFC 9728 §3

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_URI: Final = re.compile(r"[!#-\[\]_a-z~|]+", re.IGNORECASE | re.ASCII)  # what may stand in a quoted string as it is
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+")  # RFC 6749 §3.3
_ALGORITHM: Final = re.compile(r"[A-Za-z0-9-]+")
_REALM: Final = re.compile(r"[ !#-\[\]-~]*")

_UNAVAILABLE: Final = frozenset(  # what this service, and no client, has to put right
    {"introspection", "keys_unavailable", "replay_unavailable", "revocation_unavailable"}
)


@final
@frozen
class Challenge:
    """Be the status and the headers of a refusal; the body may be empty.

    A header's name may stand twice in `headers`: send each, and don't make a dict of them.
    """

    status: int
    headers: tuple[tuple[str, str], ...]


def challenge(
    error: TokenError | None,
    *,
    resource_metadata: str | None = None,
    realm: str | None = None,
    scopes: Iterable[str] = (),
    dpop_algorithms: Iterable[str] = (),
    dpop_nonce: str | None = None,
) -> Challenge:
    """Return how to answer a request whose token was refused, or that had none (`error` None).

    `resource_metadata` is the URL of `metadata_url` (RFC 9728 §5.1), `scopes` what the request needs (RFC 6750 §3),
    `dpop_algorithms` what proofs may be signed with, where this service takes them, and `dpop_nonce` a fresh nonce
    (RFC 9449 §9). The status is 401; 403 for `insufficient_scope`; 400 for a request that can't be understood; 503,
    without a challenge, where it is this service that couldn't find out.

    Raises:
        InvalidArgument: a value that a header can't hold, or `dpop_nonce` missing where it is what is wanted.
    """
    given = _parameters(resource_metadata, realm, scopes)
    algorithms = _each(_ALGORITHM, "dpop_algorithms", dpop_algorithms)
    nonce = () if dpop_nonce is None else (("DPoP-Nonce", _one(_URI, "dpop_nonce", dpop_nonce)),)
    reason = None if error is None or error.reason == "missing" else error.reason
    if reason in _UNAVAILABLE:
        return Challenge(503, (("Cache-Control", "no-store"), *nonce))
    if reason == "dpop_nonce" and dpop_nonce is None:
        raise InvalidArgument("dpop_nonce", "must be given where a nonce is what the client lacks")
    status, code = _answer(reason)
    failed = [] if code is None else [("error", code)]
    by_proof = reason is not None and reason.startswith("dpop_")  # the client came with DPoP, or has to
    schemes = [] if by_proof else [_scheme("Bearer", [*failed, *given])]
    if algorithms or by_proof:
        named = [("algs", " ".join(algorithms))] if algorithms else []
        schemes.append(_scheme("DPoP", [*failed, *given, *named]))
    return Challenge(status, (*(("WWW-Authenticate", scheme) for scheme in schemes), *nonce))


def _answer(reason: str | None) -> tuple[int, str | None]:
    """Return the status and the `error` (RFC 6750 §3.1, RFC 9449 §7.1): none where there was no token."""
    if reason is None:
        return 401, None
    if reason == "dpop_nonce":
        return 401, "use_dpop_nonce"
    if reason in ("dpop_proof", "dpop_replayed"):
        return 401, "invalid_dpop_proof"
    return {"insufficient_scope": (403, "insufficient_scope"), "request": (400, "invalid_request")}.get(
        reason, (401, "invalid_token")
    )


def require_scopes(token: VerifiedToken, *scopes: str) -> None:
    """Refuse a token that lacks one of `scopes`, so that `challenge` can tell the client what to ask for.

    It is for answering early, by a route: what may happen is decided by the policies.

    Raises:
        TokenError: `insufficient_scope`.
    """
    if not set(scopes) <= set(token.scopes or ()):
        raise TokenError("insufficient_scope", "the token doesn't have the scopes that this needs")


def _parameters(resource_metadata: str | None, realm: str | None, scopes: Iterable[str]) -> list[tuple[str, str]]:
    found = [] if realm is None else [("realm", _one(_REALM, "realm", realm))]
    if needed := _each(_SCOPE, "scopes", scopes):
        found.append(("scope", " ".join(needed)))
    if resource_metadata is not None:
        found.append(("resource_metadata", _one(_URI, "resource_metadata", resource_metadata)))
    return found


def _scheme(name: str, parameters: Sequence[tuple[str, str]]) -> str:
    written = ", ".join(f'{key}="{value}"' for key, value in parameters)
    return f"{name} {written}".rstrip()


def _one(pattern: re.Pattern[str], argument: str, value: object) -> str:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise InvalidArgument(argument, "must be a text that a header can hold")
    return value


def _each(pattern: re.Pattern[str], argument: str, values: Iterable[str]) -> list[str]:
    if isinstance(values, str):
        raise InvalidArgument(argument, 'must be a list of texts, such as ["files:read"]')
    return [_one(pattern, argument, value) for value in values]


# ---- what the resource is


def canonical_resource(uri: str) -> str:
    """Return the one form of a resource's URI (RFC 8707 §2, MCP authorization): what `aud` of its tokens has to be.

    Scheme and host are in small letters, the scheme's own port is left out, and so is a slash at the end.

    Raises:
        InvalidArgument: not an absolute `http` or `https` URI, or one with a fragment or a user.
    """
    parts = _split(uri)
    query = f"?{parts.query}" if parts.query else ""
    return f"{_origin(parts)}{parts.path.rstrip('/')}{query}"


def metadata_url(resource: str) -> str:
    """Return where the metadata of a resource is (RFC 9728 §3.1): its path follows the well-known one.

    Raises:
        InvalidArgument: as for `canonical_resource`.
    """
    parts = _split(canonical_resource(resource))
    query = f"?{parts.query}" if parts.query else ""
    return f"{_origin(parts)}{WELL_KNOWN}{parts.path}{query}"


def protected_resource_metadata(
    resource: str,
    authorization_servers: Iterable[str],
    *,
    scopes: Iterable[str] = (),
    dpop_algorithms: Iterable[str] = (),
    dpop_required: bool = False,
    name: str | None = None,
) -> dict[str, object]:
    """Return the metadata document of a resource (RFC 9728 §2), to be answered as JSON at `metadata_url`.

    `authorization_servers` are the issuers whose tokens it takes, exactly as they name themselves.

    Raises:
        InvalidArgument: as for `canonical_resource`, no authorization server, or a malformed value.
    """
    servers = _each(_URI, "authorization_servers", authorization_servers)
    if not servers:
        raise InvalidArgument("authorization_servers", "must name at least one: clients have to get tokens somewhere")
    supported = _each(_SCOPE, "scopes", scopes)
    algorithms = _each(_ALGORITHM, "dpop_algorithms", dpop_algorithms)
    optional: dict[str, object] = {  # RFC 9728 §3.2: what has no value is left out
        "scopes_supported": supported,
        "dpop_signing_alg_values_supported": algorithms,
        "dpop_bound_access_tokens_required": dpop_required,
        "resource_name": name,
    }
    return {
        "resource": canonical_resource(resource),
        "authorization_servers": servers,
        "bearer_methods_supported": ["header"],
        **{key: value for key, value in optional.items() if value},
    }


def _split(uri: str) -> SplitResult:
    try:
        parts = urlsplit(_one(_URI, "resource", uri))
        parts.port  # noqa: B018  (it is read here, and may be no number)
    except ValueError:
        raise _no_resource() from None
    if parts.scheme.lower() not in _DEFAULT_PORTS or not parts.hostname or "#" in uri or "@" in parts.netloc:
        raise _no_resource()
    return parts


def _origin(parts: SplitResult) -> str:
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def _no_resource() -> InvalidArgument:
    return InvalidArgument("resource", "must be an absolute http or https URI without a fragment and a user")
