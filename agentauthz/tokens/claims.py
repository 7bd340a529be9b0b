"""Turn `act` into a chain and back, and read `may_act` and `cnf` (RFC 8693 §4.1, §4.4; RFC 7800).

This is the one place where a chain, oldest hop first, meets the nesting of `act`, newest actor first. Nothing here
recurses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, cast, final

from attrs import frozen

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys.base64url import from_base64url
from agentauthz.keys.jwk import verification_key
from agentauthz.principals import MAX_DEPTH, Chain, Delegation, Principal, PrincipalKind
from agentauthz.tokens.strict import Json
from agentauthz.tokens.verified import Confirmation

MAX_ACT: Final = 8 * 1024  # bytes of the whole claim, as JSON
MAX_MEMBER: Final = 1024  # characters of one text in it

_PROFILES: Final[Mapping[str, PrincipalKind]] = {"user": "user", "service": "service", "ai_agent": "agent"}
_PROFILE_OF: Final[Mapping[PrincipalKind, str]] = {kind: profile for profile, kind in _PROFILES.items()}
_IDENTITY: Final = frozenset({"iss", "sub", "sub_profile", "act"})
_NOT_IDENTITY: Final = frozenset({"exp", "nbf", "iat", "aud", "jti"})  # RFC 8693 §4.1: they mean nothing in `act`
_KNOWN: Final = _IDENTITY | _NOT_IDENTITY


@final
@frozen
class ActLimits:
    """Be how much `act` may hold. `depth`: actors, at most 16.

    `strict` refuses members that aren't about identity (`exp`, `aud`, …), which are ignored else, and an actor
    without `iss`, which is else taken for one of the token's own issuer and marked with the attribute `inferred`.

    Raises:
        InvalidArgument: a depth outside 1 to 16.
    """

    depth: int = 8
    strict: bool = False

    def __attrs_post_init__(self) -> None:
        if type(self.depth) is not int or not 1 <= self.depth <= MAX_DEPTH:
            raise InvalidArgument("depth", f"must be a number from 1 to {MAX_DEPTH}")


LIMITS: Final = ActLimits()


def identity_claims(principal: Principal) -> dict[str, str]:
    """Return what names a principal in a token: `sub`, `iss` where there is one, and `sub_profile`."""
    issuer = {} if principal.issuer is None else {"iss": principal.issuer}
    return {"sub": principal.id, **issuer, "sub_profile": _PROFILE_OF[principal.kind]}


def act_claim(chain: Chain) -> dict[str, Json] | None:
    """Return the `act` claim of a chain, the current actor outermost; None where nothing was delegated."""
    act: dict[str, Json] | None = None
    for hop in chain.delegations:
        act = extended_act(act, hop.to)
    return act


def extended_act(inherited: Mapping[str, Json] | None, actor: Principal) -> dict[str, Json]:
    """Return `act` with a new current actor; what was there is nested in it, exactly as it was (RFC 8693 §4.1)."""
    named: dict[str, Json] = {**identity_claims(actor)}
    return named if inherited is None else {**named, "act": dict(inherited)}


def inherited_act(act: Mapping[str, Json], token_issuer: str) -> dict[str, Json]:
    """Return a token's `act` as a next token carries it on: each member as it was, and every actor with its issuer.

    An actor without `iss` is one of `token_issuer`, which another issuer's token has to say. Members that say nothing
    about who acts are left behind, since they mean nothing in it (RFC 8693 §4.1).
    """
    levels: list[dict[str, Json]] = []
    while True:
        levels.append({name: value for name, value in act.items() if name not in _NOT_IDENTITY and name != "act"})
        if "act" not in act:
            break
        act = cast("dict[str, Json]", act["act"])
    found: dict[str, Json] | None = None
    for level in reversed(levels):
        named = level if "iss" in level else {**level, "iss": token_issuer}
        found = named if found is None else {**named, "act": found}
    return cast("dict[str, Json]", found)


def chain_from_claims(claims: Mapping[str, Json], *, subject: Principal, limits: ActLimits = LIMITS) -> Chain:
    """Return the chain of a token's claims: `subject`, then each actor of `act` from the innermost out.

    Unknown members of an actor become its attributes. Only the outermost actor may decide anything (RFC 8693 §4.1).

    Raises:
        TokenError: `act`: no object, an actor without `sub`, a member of the wrong type or too long; `depth`: more
            actors than `limits` allow.
    """
    if "act" not in claims:
        return Chain(subject)
    act = claims["act"]
    if len(repr(act)) > MAX_ACT // 4 and act_size(act) > MAX_ACT:  # a character takes up to four bytes
        raise TokenError("act", "the token's `act` is too large")
    hops: list[Delegation] = []
    issuer = cast(str, subject.issuer)
    while True:
        if not isinstance(act, dict) or not act:
            raise TokenError("act", "the token has an `act` that is no object, or an empty one")
        if len(hops) == limits.depth:
            raise TokenError("depth", f"the token has more than {limits.depth} actors")
        hops.append(_hop(act, issuer, limits))
        if "act" not in act:
            break
        act = act["act"]
    return Chain(subject, reversed(hops))


def act_size(act: Json) -> int:
    """Return how large an `act` is, in bytes, as it counts against `MAX_ACT`."""
    return len(json.dumps(act, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _hop(act: Mapping[str, Json], token_issuer: str, limits: ActLimits) -> Delegation:
    if limits.strict and _NOT_IDENTITY & act.keys():
        raise TokenError("act", "the token's `act` holds members that say nothing about who acts")
    for value in act.values():
        if type(value) is str and len(value) > MAX_MEMBER:
            raise TokenError("act", "the token's `act` has a text that is too long")
    inferred = "iss" not in act
    if inferred and limits.strict:
        raise TokenError("act", "the token's `act` has an actor without `iss`")
    sub, issuer = act.get("sub"), act.get("iss", token_issuer)
    if type(sub) is not str or not sub or type(issuer) is not str or not issuer:
        raise TokenError("act", "the token's `act` has an actor without `sub`, or with an `iss` that is no text")
    kind = kind_of(act, "agent")
    if not inferred and act.keys() <= _KNOWN:
        return _plain_hop(kind, sub, issuer)
    more = {name: value for name, value in act.items() if name not in _KNOWN}
    return Delegation(Principal(kind, sub, issuer, {**more, "inferred": True} if inferred else more), via="token")


@lru_cache(maxsize=1024)
def _plain_hop(kind: PrincipalKind, sub: str, issuer: str) -> Delegation:
    """Return the hop to an actor with nothing but a name: the same few act in many tokens."""
    return Delegation(Principal(kind, sub, issuer), via="token")


def kind_of(named: Mapping[str, Json], default: PrincipalKind) -> PrincipalKind:
    """Return what kind of party a `sub_profile` says that claims name; `default` where there is none.

    Raises:
        TokenError: `sub_profile`: it is none of `user`, `service` and `ai_agent`.
    """
    if "sub_profile" not in named:
        return default
    profile = named["sub_profile"]
    if not isinstance(profile, str) or profile not in _PROFILES:
        raise TokenError("sub_profile", "the token names a party with a `sub_profile` that isn't known")
    return _PROFILES[profile]


def may_act_allows(claim: object, actor: Principal) -> bool:
    """Say whether a `may_act` claim (RFC 8693 §4.4) names `actor`, by the pair of `iss` and `sub`.

    A list, a wildcard, an `iss` that is no text, and a claim without `sub` name nobody; one without `iss` too,
    since a bare `sub` may be another issuer's.
    """
    if not isinstance(claim, Mapping):
        return False
    return actor.issuer is not None and claim.get("iss") == actor.issuer and claim.get("sub") == actor.id


def confirmation_of(claims: Mapping[str, Json]) -> Confirmation | None:
    """Return the key that a token is bound to (`jkt`, `x5t#S256`, or a whole `jwk`); None: it is a bearer token.

    Raises:
        TokenError: `cnf`: no object, nothing in it that is understood, no thumbprint of 32 bytes, or two keys.
    """
    if "cnf" not in claims:
        return None
    cnf = claims["cnf"]
    if not isinstance(cnf, dict) or not {"jkt", "x5t#S256", "jwk"} & cnf.keys():
        raise TokenError("cnf", "the token is bound to a key in a way that isn't understood")
    jkt, x5t = (_thumbprint(cnf[name]) if name in cnf else None for name in ("jkt", "x5t#S256"))
    if "jwk" in cnf:
        whole = _thumbprint_of(cnf["jwk"])
        if jkt not in (None, whole):
            raise TokenError("cnf", "the token is bound to two keys")
        jkt = whole
    return Confirmation(jkt, x5t)


def _thumbprint(value: Json) -> str:
    data = from_base64url(value) if isinstance(value, str) and len(value) == 43 else None
    if data is None or len(data) != 32:
        raise TokenError("cnf", "the token's `cnf` is no SHA-256 thumbprint")
    return cast(str, value)


def _thumbprint_of(jwk: Json) -> str:
    try:
        key = verification_key(cast("dict[str, Json]", jwk))
    except InvalidArgument:
        raise TokenError("cnf", "the token's `cnf` holds no public key") from None
    if key.symmetric:
        raise TokenError("cnf", "the token's `cnf` holds no public key")
    return key.thumbprint
