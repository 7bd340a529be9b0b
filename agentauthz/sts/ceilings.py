"""Say what a token service lets tokens be for at the most: its targets, and its limits."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Final, Literal, final

from attrs import field, frozen

from agentauthz.errors import InvalidArgument
from agentauthz.principals import MAX_DEPTH
from agentauthz.tokens.types import ACCESS_TOKEN, JWT
from agentauthz.tokens.verified import TokenKind

MAX_LIFETIME: Final = dt.timedelta(hours=24)


def _names(given: Iterable[str]) -> frozenset[str]:
    if isinstance(given, str):
        raise InvalidArgument("target", f"must have lists of names, not the one text `{given}`")
    return frozenset(given)


def _optional_names(given: Iterable[str] | None) -> frozenset[str] | None:
    return None if given is None else _names(given)


@final
@frozen(kw_only=True)
class Target:
    """Be a service that tokens may be for: `name` is sent as `audience` or as `resource`, and becomes their `aud`.

    `scopes` and `detail_types` (RFC 9396) are all that it understands; empty means none. `token_types` are the
    types that it takes (for an ID-JAG, the target is the other authorization server, and `client_ids` are the
    names that our clients have there). `reached_from` are the audiences whose tokens may be exchanged for one for
    this target, of an ID-JAG the service's issuer; None: those that their presenter is itself an audience of.

    Raises:
        InvalidArgument: no name, another `by`, or a lifetime that isn't positive.
    """

    name: str = field(kw_only=False)
    by: Literal["audience", "resource"] = "audience"
    scopes: frozenset[str] = field(default=(), converter=_names)
    detail_types: frozenset[str] = field(default=(), converter=_names)
    token_types: frozenset[str] = field(default=(ACCESS_TOKEN, JWT), converter=_names)
    reached_from: frozenset[str] | None = field(default=None, converter=_optional_names)
    client_ids: Mapping[str, str] = field(factory=dict)
    max_lifetime: dt.timedelta | None = None

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidArgument("name", "must be a string that is not empty")
        if self.by not in ("audience", "resource"):
            raise InvalidArgument("by", "must be audience or resource")
        if self.max_lifetime is not None and self.max_lifetime <= dt.timedelta(0):
            raise InvalidArgument("max_lifetime", "must be longer than nothing")


def _kinds(given: Iterable[TokenKind]) -> frozenset[TokenKind]:
    return frozenset(given)


@final
@frozen(kw_only=True)
class StsLimits:
    """Be the bounds of what a token service issues.

    `depth` is counted on the result, and refused beyond, as is a `lineage` of more ancestors. `single_use` are the
    kinds of subject tokens that are exchanged once. `require_may_act` refuses a subject token without `may_act`.
    `mapped_subjects`: of so many foreign subjects it is remembered what they were mapped to; no more are taken.

    Raises:
        InvalidArgument: a depth outside 1 to 16, or a lifetime that isn't within 24 hours.
    """

    max_lifetime: dt.timedelta = dt.timedelta(minutes=10)
    depth: int = 4
    lineage: int = 32
    single_use: frozenset[TokenKind] = field(default=("id-jag",), converter=_kinds)
    require_may_act: bool = False
    mapped_subjects: int = 100_000

    def __attrs_post_init__(self) -> None:
        if type(self.depth) is not int or not 1 <= self.depth <= MAX_DEPTH:
            raise InvalidArgument("depth", f"must be a number from 1 to {MAX_DEPTH}")
        if not dt.timedelta(seconds=1) <= self.max_lifetime <= MAX_LIFETIME:
            raise InvalidArgument("max_lifetime", "must be from a second to 24 hours")
        if "id-jag" not in self.single_use:  # SECURITY: an assertion that can be redeemed twice is no grant
            raise InvalidArgument("single_use", "must have `id-jag`")
