"""Verify one access token in each library's own way, with the same checks: first they are seen to agree.

Checked are the signature, by a key that was read before and is found by its `kid`, `typ`, `iss`, `aud`, `exp`, `nbf`
and `iat`, and that the claims of RFC 9068 §2.2 are there; `act` becomes a list of actors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from agentauthz.errors import TokenError
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens.validator import Validator

Parties: TypeAlias = list[tuple[str, str]]  # the subject and each actor, from the first: issuer and name
Verifier: TypeAlias = Callable[[str], Parties]

LEEWAY: Final = 30  # seconds
TYPES: Final = ("at+jwt", "application/at+jwt")
_REQUIRED: Final = ("iss", "sub", "aud", "exp", "iat", "jti", "client_id")


class Refused(Exception):
    """Say that a token isn't in order."""


def of_agentauthz(validator: Validator) -> Verifier:
    """Return our own way, as parties, to be held against the others; what is timed is `validator.verify`."""

    def verify(token: str) -> Parties:
        try:
            chain = validator.verify(token).chain
        except TokenError as error:
            raise Refused from error
        return [(str(party.issuer), party.id) for party in (chain.subject, *(hop.to for hop in chain.delegations))]

    return verify


def of_joserfc(key: SigningKey, issuer: str, audience: str) -> Verifier:
    """Return the way of joserfc, with its registry of claims."""
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet

    keys = KeySet.import_key_set({"keys": [{**key.public_jwk()}]})
    options: dict[str, Any] = {name: {"essential": True} for name in _REQUIRED}
    registry = jwt.JWTClaimsRegistry(
        leeway=LEEWAY,
        **{**options, "iss": {"essential": True, "value": issuer}, "aud": {"essential": True, "value": audience}},
    )

    def verify(token: str) -> Parties:
        try:
            found = jwt.decode(token, keys, algorithms=["Ed25519"])
            registry.validate(found.claims)
        except JoseError as error:
            raise Refused from error
        return _parties(found.header, found.claims)

    return verify


def of_authlib(key: SigningKey, issuer: str, audience: str) -> Verifier:
    """Return the way of Authlib's own module `jose`, which knows Ed25519 by its older name `EdDSA` only."""
    import authlib.deprecate  # shows its warnings always, so it comes before they are ignored

    with warnings.catch_warnings(action="ignore", category=authlib.deprecate.AuthlibDeprecationWarning):
        # it is to go some day, in favour of joserfc
        from authlib.jose import JsonWebKey, JsonWebToken
        from authlib.jose.errors import JoseError

    keys = JsonWebKey.import_key_set({"keys": [key.public_jwk()]})
    options: dict[str, Any] = {name: {"essential": True} for name in _REQUIRED}
    options |= {"iss": {"essential": True, "value": issuer}, "aud": {"essential": True, "value": audience}}
    decode = JsonWebToken(["EdDSA"]).decode

    def verify(token: str) -> Parties:
        try:
            claims = decode(token, keys, claims_options=options)
            claims.validate(leeway=LEEWAY)
        except JoseError as error:
            raise Refused from error
        return _parties(claims.header, claims)

    return verify


def _parties(header: Mapping[str, Any], claims: Mapping[str, Any]) -> Parties:
    """Return what neither of the two reads itself."""
    if header.get("typ") not in TYPES:
        raise Refused
    found: Parties = []
    act = claims.get("act")
    while act is not None:
        if not isinstance(act, dict) or not isinstance(act.get("sub"), str) or not isinstance(act.get("iss"), str):
            raise Refused
        found.append((act["iss"], act["sub"]))
        act = act.get("act")
    return [(claims["iss"], claims["sub"]), *reversed(found)]


def agree(name: str, verify: Verifier, good: Sequence[str], wanted: Parties, bad: Mapping[str, str]) -> None:
    """Check that a library takes all that is good, finds the parties in it, and refuses all that is bad.

    Raises:
        AssertionError: it does not, so that its time says nothing.
    """
    if any(verify(token) != wanted for token in good):
        raise AssertionError(f"{name} finds other parties in the token")
    for what, token in bad.items():
        try:
            verify(token)
        except Refused:
            continue
        raise AssertionError(f"{name} takes a token that is wrong: {what}")
