"""Ask for a token: the form fields of a token exchange (RFC 8693 §2.1) and of a JWT bearer grant (RFC 7523 §2.1)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias, final

from attrs import Factory, field, frozen

from agentauthz.errors import InvalidArgument
from agentauthz.tokens.strict import Json
from agentauthz.tokens.types import ACCESS_TOKEN, ID_JAG, JWT, JWT_BEARER, KINDS, TOKEN_EXCHANGE
from agentauthz.tokens.verified import VerifiedToken

Fields: TypeAlias = list[tuple[str, str]]
Details: TypeAlias = tuple[dict[str, Json], ...]

MAX_URI: Final = 2048  # characters
TOKEN_TEXT: Final = re.compile(r"[\x21-\x7e]+")  # never a line break, which would add a header

_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §3.3
_TYPE_OF: Final = {kind: uri for uri, kind in KINDS.items()}


def is_resource(uri: object) -> bool:
    """Say whether `uri` can be a `resource`: an absolute URI without a fragment (RFC 8707 §2)."""
    return isinstance(uri, str) and len(uri) <= MAX_URI and _URI.fullmatch(uri) is not None


def is_scope(value: object) -> bool:
    """Say whether `value` can be one scope (RFC 6749 §3.3): printable ASCII without space, `"` and `\\`."""
    return isinstance(value, str) and _SCOPE.fullmatch(value) is not None


def texts(argument: str, given: Iterable[str]) -> tuple[str, ...]:
    """Return what was given as a list of texts, each of which is still to be checked.

    Raises:
        InvalidArgument: one text, whose letters would be asked for one by one, or no list; `argument` is named.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidArgument(argument, "must be a list of texts: put a single one in []")
    return tuple(given)


def _resource(given: Iterable[str]) -> tuple[str, ...]:
    return texts("resource", given)


def _audience(given: Iterable[str]) -> tuple[str, ...]:
    return texts("audience", given)


def _scope(given: Iterable[str]) -> tuple[str, ...]:
    return texts("scope", given)


def _details(given: Iterable[Mapping[str, object]] | None) -> Details | None:
    """Return a copy in JSON's own types of what is asked for in detail (RFC 9396 §2): objects with a `type`."""
    if given is None:
        return None
    try:
        copied = json.loads(json.dumps(list(given), allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        copied = []
    if not copied or not all(isinstance(one, dict) and one.get("type") and type(one["type"]) is str for one in copied):
        raise InvalidArgument("authorization_details", "must be a list of objects for JSON, each with a `type`")
    return tuple(copied)


def _type_of(token: str | VerifiedToken | None, otherwise: str | None) -> str | None:
    return _TYPE_OF[token.kind] if isinstance(token, VerifiedToken) else otherwise


@final
@frozen(eq=False, repr=False)
class TokenExchangeRequest:
    """Be what a token exchange asks for (RFC 8693 §2.1), complete and well-formed.

    A token is its text, or a `VerifiedToken`, with which the result is compared where the client verifies it; its
    type is then known, and else an access token, though an actor token's must be said. `resource` are URIs and
    `audience` logical names of where the token is for; every scope is asked for at each of them (§2.1.1).
    Nothing asked as `scope`, `requested_token_type` or `authorization_details` leaves it to the service.

    Raises:
        InvalidArgument: an empty token, a type without its token or the reverse, a resource that is no absolute
            URI or has a fragment, an empty audience, a scope outside RFC 6749 §3.3, details that are no objects
            with a `type`, or an ID-JAG for other than one audience.
    """

    subject_token: str | VerifiedToken
    subject_token_type: str = field(
        default=Factory(lambda self: _type_of(self.subject_token, ACCESS_TOKEN), takes_self=True)
    )
    actor_token: str | VerifiedToken | None = None
    actor_token_type: str | None = field(
        default=Factory(lambda self: _type_of(self.actor_token, None), takes_self=True)
    )
    resource: tuple[str, ...] = field(default=(), converter=_resource)
    audience: tuple[str, ...] = field(default=(), converter=_audience)
    scope: tuple[str, ...] = field(default=(), converter=_scope)
    requested_token_type: str | None = None
    authorization_details: Details | None = field(default=None, converter=_details)

    def __attrs_post_init__(self) -> None:
        _check_token("subject_token", self.subject_token, self.subject_token_type)
        if (self.actor_token is None) != (self.actor_token_type is None):
            raise InvalidArgument("actor_token", "and `actor_token_type` belong together: give both or neither")
        if self.actor_token is not None:
            _check_token("actor_token", self.actor_token, self.actor_token_type)
        if self.requested_token_type is not None:
            _require_text("requested_token_type", self.requested_token_type)
        _check_targets(self.resource, self.audience, self.scope)
        if self.requested_token_type == ID_JAG and len(self.audience) != 1:
            raise InvalidArgument("audience", "must be one for an ID-JAG: the issuer that will redeem it")

    def build(self) -> Fields:
        """Return the form fields, in order; `resource` and `audience` repeat (RFC 8693 §2.1). They hold secrets."""
        single = {
            "grant_type": TOKEN_EXCHANGE,
            "subject_token": text_of(self.subject_token),
            "subject_token_type": self.subject_token_type,
            "actor_token": None if self.actor_token is None else text_of(self.actor_token),
            "actor_token_type": self.actor_token_type,
            "requested_token_type": self.requested_token_type,
        }
        return [*_given(single), *_targets(self)]

    def secrets(self) -> tuple[str, ...]:
        """Return the tokens' texts, for what must never show them."""
        return tuple(text_of(token) for token in (self.subject_token, self.actor_token) if token is not None)

    def __repr__(self) -> str:
        return f"<TokenExchangeRequest for {', '.join((*self.audience, *self.resource)) or 'any target'}>"


@final
@frozen(eq=False, repr=False)
class JwtBearerRequest:
    """Be what redeems an assertion, such as an ID-JAG of another issuer, for an access token (RFC 7523 §2.1).

    Raises:
        InvalidArgument: an empty assertion, or targets, scopes or details as for `TokenExchangeRequest`.
    """

    assertion: str | VerifiedToken
    resource: tuple[str, ...] = field(default=(), converter=_resource)
    scope: tuple[str, ...] = field(default=(), converter=_scope)
    authorization_details: Details | None = field(default=None, converter=_details)

    def __attrs_post_init__(self) -> None:
        _require_token("assertion", self.assertion)
        _check_targets(self.resource, (), self.scope)

    def build(self) -> Fields:
        """Return the form fields, in order. They hold secrets."""
        return [("grant_type", JWT_BEARER), ("assertion", text_of(self.assertion)), *_targets(self)]

    def secrets(self) -> tuple[str, ...]:
        """Return the assertion's text, for what must never show it."""
        return (text_of(self.assertion),)

    def __repr__(self) -> str:
        return f"<JwtBearerRequest for {', '.join(self.resource) or 'any target'}>"


AnyRequest: TypeAlias = TokenExchangeRequest | JwtBearerRequest


def text_of(token: str | VerifiedToken) -> str:
    """Return a token's text: a secret."""
    return token.reveal() if isinstance(token, VerifiedToken) else token


def _given(single: Mapping[str, str | None]) -> Fields:
    return [(name, value) for name, value in single.items() if value is not None]


def _targets(request: AnyRequest) -> Fields:
    audience = request.audience if isinstance(request, TokenExchangeRequest) else ()
    details = request.authorization_details
    return [
        *(("resource", uri) for uri in request.resource),
        *(("audience", name) for name in audience),
        *([("scope", " ".join(request.scope))] if request.scope else []),
        *([] if details is None else [("authorization_details", json.dumps(details, separators=(",", ":")))]),
    ]


def _check_token(argument: str, token: object, uri: object) -> None:
    _require_token(argument, token)
    _require_text(f"{argument}_type", uri)
    if isinstance(token, VerifiedToken) and uri not in (_TYPE_OF[token.kind], JWT):  # any of ours is a JWT
        raise InvalidArgument(f"{argument}_type", "must be that of the verified token: leave it out")


def _require_token(argument: str, token: object) -> None:
    text = text_of(token) if isinstance(token, VerifiedToken) else token
    if not isinstance(text, str) or TOKEN_TEXT.fullmatch(text) is None:  # the text is never quoted
        raise InvalidArgument(argument, "must be a token: printable ASCII without spaces, or a verified token")


def _require_text(argument: str, value: object) -> None:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InvalidArgument(argument, "must be printable text that is not empty")


def check_scopes(scope: Iterable[str]) -> None:
    """Check that each can be a scope.

    Raises:
        InvalidArgument: one can't.
    """
    if not all(is_scope(one) for one in scope):
        raise InvalidArgument("scope", 'must be scopes of printable ASCII, without spaces, `"` and `\\`')


def _check_targets(resource: Iterable[str], audience: Iterable[str], scope: Iterable[str]) -> None:
    if not all(is_resource(uri) for uri in resource):
        raise InvalidArgument("resource", "must be absolute URIs without a fragment")
    for name in audience:
        _require_text("audience", name)
    check_scopes(scope)
