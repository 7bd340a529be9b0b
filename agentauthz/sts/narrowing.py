"""Narrow what a token is for: targets, scopes, details and life are what subject, client and target all allow.

RFC 8693 §2.1.1, RFC 8707 §2, RFC 9396 §6. Whatever is asked for beyond that is refused, never dropped.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias, cast

from agentauthz.decision import Obligation
from agentauthz.errors import ExchangeRefused
from agentauthz.obligations.expiring import shortest
from agentauthz.sts.ceilings import StsLimits, Target
from agentauthz.sts.details import Comparator
from agentauthz.sts.parameters import Asked
from agentauthz.sts.parties import Presenter, refused
from agentauthz.tokens.strict import Json
from agentauthz.tokens.types import ID_JAG, TXN_TOKEN
from agentauthz.tokens.verified import VerifiedToken

TargetKey: TypeAlias = tuple[str, str]
Targets: TypeAlias = Mapping[TargetKey, Target]
Details: TypeAlias = tuple[Mapping[str, Json], ...]

_BY: Final = ("audience", "resource")


def granted_targets(asked: Asked, token: VerifiedToken, presenter: Presenter, known: Targets) -> tuple[Target, ...]:
    """Return the targets asked for, all of them, or else those that the token is already for.

    Raises:
        ExchangeRefused: `invalid_target`; `invalid_request` where an ID-JAG's own `resource` is malformed.
    """
    wanted = [("audience", name) for name in asked.audience] + [("resource", name) for name in asked.resource]
    if not wanted:
        names = _assertion_resources(token) or token.audience
        wanted = [(by, name) for name in names for by in _BY if (by, name) in known]
        if not names or {name for _, name in wanted} != set(names):
            raise _no_target("target_missing")
    targets = []
    for by, name in wanted:
        target = known.get((by, name))
        if target is None:
            raise _no_target("target_unknown")
        if name not in (presenter.client.audiences if by == "audience" else presenter.client.resources):
            raise _no_target("target_beyond_client")
        if not _reaches(token, presenter, target):
            raise _no_target("target_beyond_subject")
        if asked.issued_type not in target.token_types:
            raise _no_target("target_token_type")
        targets.append(target)
    _check_single(asked, token, presenter, targets)
    return tuple(targets)


def _reaches(token: VerifiedToken, presenter: Presenter, target: Target) -> bool:
    """Say whether a token may become one for `target`: it is for it, or for one from which it may be reached."""
    resources = _assertion_resources(token)
    if target.name in (resources or token.audience):
        return True
    if resources:
        return False
    receives = presenter.receives(token)
    if target.reached_from is None:
        return receives or token.kind == "id-jag"  # which is for this service
    sources = {*token.audience, presenter.client.id} if receives else set(token.audience)
    return not target.reached_from.isdisjoint(sources)


def _assertion_resources(token: VerifiedToken) -> tuple[str, ...]:
    """Return the resources that an ID-JAG is restricted to."""
    if token.kind != "id-jag" or "resource" not in token.claims:
        return ()
    found = token.claims["resource"]
    names = found if isinstance(found, list) else [found]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise refused("assertion_resource")
    return tuple(names)


def _check_single(asked: Asked, token: VerifiedToken, presenter: Presenter, targets: list[Target]) -> None:
    """Check the targets of what is for exactly one: another authorization server, or a trust domain."""
    audiences = [target for target in targets if target.by == "audience"]
    if asked.issued_type == ID_JAG:
        if len(audiences) != 1 or audiences[0].name == presenter.service:
            raise _no_target("assertion_audience")
        if presenter.client.id not in audiences[0].client_ids:
            raise _no_target("assertion_client")
    if asked.issued_type == TXN_TOKEN:
        if len(targets) != 1 or (token.kind == "txn" and (targets[0].name,) != token.audience):
            raise _no_target("transaction_audience")


def granted_scopes(asked: Asked, token: VerifiedToken, presenter: Presenter, targets: Iterable[Target]) -> list[str]:
    """Return the scopes asked for, or all that subject, client and every target allow (RFC 8693 §2.1.1).

    Scopes are literal. An ID token has none: it is worth the client's `id_token_scopes`.

    Raises:
        ExchangeRefused: `invalid_scope`.
    """
    client = presenter.client
    held = client.id_token_scopes if token.kind == "id" else token.scopes
    if held is None:
        raise _no_scope("subject_without_scope")
    ceilings = [
        ("scope_beyond_subject", frozenset(held)),
        ("scope_beyond_client", client.scopes),
        *(("scope_beyond_target", target.scopes) for target in targets),
    ]
    if asked.scopes is not None:
        for reason, ceiling in ceilings:
            if not ceiling.issuperset(asked.scopes):
                raise _no_scope(reason)
        return list(asked.scopes)
    granted = [scope for scope in _ordered(held) if all(scope in ceiling for _, ceiling in ceilings)]
    if not granted:
        raise _no_scope("scope_empty")
    return granted


def _ordered(scopes: tuple[str, ...] | frozenset[str]) -> Iterable[str]:
    return scopes if isinstance(scopes, tuple) else sorted(scopes)


def granted_details(
    asked: Asked,
    token: VerifiedToken,
    presenter: Presenter,
    targets: Iterable[Target],
    comparators: Mapping[str, Comparator],
) -> Details:
    """Return the authorization details asked for, or the token's own.

    Each must be within one that the token has, and that no other is within: what allows one payment allows no two.

    Raises:
        ExchangeRefused: `invalid_authorization_details`; `server_error` where a comparator fails.
    """
    held = cast(Details, token.authorization_details)
    wanted = held if asked.details is None else asked.details
    left = list(held)
    for one in wanted:
        name = cast(str, one["type"])
        allowed = all(name in target.detail_types for target in targets) and name in presenter.client.detail_types
        if name not in comparators or not allowed:
            raise ExchangeRefused("invalid_authorization_details", "detail_type")
        alike = (at for at, own in enumerate(left) if own["type"] == name and _within(comparators[name], own, one))
        if (at := next(alike, None)) is None:
            raise ExchangeRefused("invalid_authorization_details", "detail_beyond_subject")
        del left[at]
    return wanted


def _within(comparator: Comparator, held: Mapping[str, Json], wanted: Mapping[str, Json]) -> bool:
    try:
        return comparator(held, wanted) is True
    except Exception as cause:
        raise ExchangeRefused("server_error", "comparator", status=500) from cause


def expiry(
    now: dt.datetime, tokens: Iterable[VerifiedToken | None], limits: StsLimits, most: Iterable[dt.timedelta | None]
) -> int:
    """Return when the result expires, in seconds since 1970: before each of `tokens`, and within every lifetime.

    Raises:
        ExchangeRefused: `no_life_left`: that is no later than now, though a leeway may still let the tokens pass.
    """
    lifetime = min([limits.max_lifetime, *(one for one in most if one is not None)])
    ends = min([now + lifetime, *(token.expires_at for token in tokens if token is not None)])
    expires = int(ends.timestamp())
    if expires <= now.timestamp():
        raise refused("no_life_left")
    return expires


def shortened(expires: int, now: dt.datetime, obligations: Iterable[Obligation]) -> int:
    """Return when the result expires once the obligations that shorten its life are met."""
    return int(shortest(dt.datetime.fromtimestamp(expires, dt.UTC), now, obligations).timestamp())


def _no_target(reason: str) -> ExchangeRefused:
    return ExchangeRefused("invalid_target", reason)


def _no_scope(reason: str) -> ExchangeRefused:
    return ExchangeRefused("invalid_scope", reason)
