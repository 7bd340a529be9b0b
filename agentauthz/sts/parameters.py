"""Read what a request asks the token service for: RFC 8693 §2.1, RFC 7523 §2.1, RFC 8707 §2, RFC 9396 §2."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, cast, final

from attrs import define, field

from agentauthz.errors import ExchangeRefused, TokenError
from agentauthz.tokens.strict import Json, json_object
from agentauthz.tokens.types import ACCESS_TOKEN, ID_JAG, ID_TOKEN, JWT, JWT_BEARER, TOKEN_EXCHANGE, TXN_TOKEN

MAX_PARAMETERS: Final = 64
MAX_REQUEST: Final = 128 * 1024  # characters of all names and values
MAX_TARGETS: Final = 16
MAX_NAME: Final = 1024  # characters of one audience or resource
MAX_SCOPE: Final = 4 * 1024
MAX_DETAILS: Final = 16 * 1024

SUBJECT_TYPES: Final = frozenset({ACCESS_TOKEN, ID_TOKEN, JWT, TXN_TOKEN})
ACTOR_TYPES: Final = frozenset({ACCESS_TOKEN, JWT})  # of an agent or a service; an identity of a person is no actor's
ISSUED_TYPES: Final = frozenset({ACCESS_TOKEN, JWT, ID_JAG, TXN_TOKEN})

_REPEATABLE: Final = frozenset({"audience", "resource"})
_EXCHANGE_ONLY: Final = frozenset(
    {"subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type", "impersonate"}
)
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:(?:[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+(?: [\x21\x23-\x5B\x5D-\x7E]+)*")  # RFC 6749 §3.3

Parameters = Mapping[str, tuple[str, ...]]


@final
@define(eq=False, repr=False)  # made at every exchange: what is frozen costs three times as much
class Asked:
    """Be what a request asks for, well formed and not granted yet.

    `subject_token` is the assertion where the grant is RFC 7523's. `scopes` and `details` None: not said.
    """

    grant_type: str
    subject_token: str
    subject_type: str
    actor_token: str | None = None
    actor_type: str | None = None
    requested_type: str | None = None
    audience: tuple[str, ...] = ()
    resource: tuple[str, ...] = ()
    scopes: tuple[str, ...] | None = None
    details: tuple[Mapping[str, Json], ...] | None = field(default=None)
    impersonate: bool = False

    @property
    def issued_type(self) -> str:
        """Return the type of the token to issue: where nothing is said, an access token, or the next of its kind."""
        return self.requested_type or (TXN_TOKEN if self.subject_type == TXN_TOKEN else ACCESS_TOKEN)

    def __repr__(self) -> str:
        return f"Asked({self.grant_type}, {self.subject_type})"


def parameters(pairs: Iterable[tuple[str, str]]) -> Parameters:
    """Return the values of each parameter; one without a value counts as left out (RFC 6749 §3.2).

    Raises:
        ExchangeRefused: `invalid_request`: too much, no text, or any but `audience` and `resource` twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    size = 0
    for number, (name, value) in enumerate(pairs):
        if not isinstance(name, str) or not isinstance(value, str):
            raise ExchangeRefused("invalid_request", "parameter_type")
        size += len(name) + len(value)
        if number == MAX_PARAMETERS or size > MAX_REQUEST:
            raise ExchangeRefused("invalid_request", "request_too_large")
        if not value:
            continue
        if name in found and name not in _REPEATABLE:
            raise ExchangeRefused("invalid_request", "parameter_twice")
        found[name] = (*found.get(name, ()), value)
    return found


def grant_type(given: Parameters) -> str:
    """Return which of the two grants is asked for.

    Raises:
        ExchangeRefused: `invalid_request` where none is, `unsupported_grant_type` for another.
    """
    if (grant := _one(given, "grant_type")) is None:
        raise ExchangeRefused("invalid_request", "grant_type_missing")
    if grant not in (TOKEN_EXCHANGE, JWT_BEARER):
        raise ExchangeRefused("unsupported_grant_type", "grant_type")
    return grant


def asked(given: Parameters) -> Asked:
    """Return what well-formed parameters ask for.

    Raises:
        ExchangeRefused: `invalid_request`, `invalid_target`, `invalid_scope` or `invalid_authorization_details`.
    """
    return (_exchange if grant_type(given) == TOKEN_EXCHANGE else _assertion)(given)


def _exchange(given: Parameters) -> Asked:
    subject_type = _typed(given, "subject_token_type", SUBJECT_TYPES)
    subject_token = _one(given, "subject_token")
    if subject_token is None or subject_type is None:
        raise ExchangeRefused("invalid_request", "subject_token_missing")
    actor_token, actor_type = _one(given, "actor_token"), _typed(given, "actor_token_type", ACTOR_TYPES)
    if (actor_token is None) != (actor_type is None):  # RFC 8693 §2.1: the one with the other, or neither
        raise ExchangeRefused("invalid_request", "actor_token_pairing")
    requested = _typed(given, "requested_token_type", ISSUED_TYPES)
    impersonate = _one(given, "impersonate")
    if impersonate not in (None, "true", "false") or (impersonate == "true" and actor_token is not None):
        raise ExchangeRefused("invalid_request", "impersonate")
    made = Asked(
        TOKEN_EXCHANGE, subject_token, subject_type, actor_token, actor_type, requested,
        *_targets(given), _scopes(given), _details(given), impersonate == "true",
    )  # fmt: skip
    _check_types(made)
    return made


def _assertion(given: Parameters) -> Asked:
    if (assertion := _one(given, "assertion")) is None:
        raise ExchangeRefused("invalid_request", "assertion_missing")
    if _EXCHANGE_ONLY & given.keys():
        raise ExchangeRefused("invalid_request", "parameter_of_another_grant")
    audience, resource = _targets(given)
    return Asked(
        JWT_BEARER, assertion, ID_JAG, audience=audience, resource=resource, scopes=_scopes(given),
        details=_details(given),
    )  # fmt: skip


def _check_types(made: Asked) -> None:
    replacing = made.subject_type == TXN_TOKEN
    if replacing and made.issued_type != TXN_TOKEN:  # a transaction token is no way out of its transaction
        raise ExchangeRefused("invalid_request", "requested_token_type")
    if made.issued_type == ID_JAG and made.subject_type != ID_TOKEN:
        raise ExchangeRefused("invalid_request", "requested_token_type")


def _one(given: Parameters, name: str) -> str | None:
    return given[name][0] if name in given else None


def _typed(given: Parameters, name: str, known: frozenset[str]) -> str | None:
    found = _one(given, name)
    if found is not None and found not in known:
        raise ExchangeRefused("invalid_request", name)
    return found


def _targets(given: Parameters) -> tuple[tuple[str, ...], tuple[str, ...]]:
    def named(name: str, good: Callable[[str], object]) -> tuple[str, ...]:
        values = tuple(dict.fromkeys(given.get(name, ())))
        if len(values) > MAX_TARGETS or any(len(value) > MAX_NAME or not good(value) for value in values):
            raise ExchangeRefused("invalid_target", f"{name}_malformed")
        return values

    return named("audience", str.isprintable), named("resource", _URI.fullmatch)


def _scopes(given: Parameters) -> tuple[str, ...] | None:
    text = _one(given, "scope")
    if text is None:
        return None
    if len(text) > MAX_SCOPE or _SCOPE.fullmatch(text) is None:
        raise ExchangeRefused("invalid_scope", "scope_malformed")
    return tuple(dict.fromkeys(text.split(" ")))


def _details(given: Parameters) -> tuple[Mapping[str, Json], ...] | None:
    """Return the authorization details: a JSON array of objects that each have a `type` (RFC 9396 §2)."""
    text = _one(given, "authorization_details")
    if text is None:
        return None
    refused = ExchangeRefused("invalid_authorization_details", "authorization_details_malformed")
    if len(text) > MAX_DETAILS:
        raise refused
    try:
        wrapped = json_object(f'{{"details":{text}}}'.encode("utf-8", "surrogatepass"))
    except TokenError:
        raise refused from None
    found = wrapped["details"]
    if len(wrapped) != 1 or not isinstance(found, list) or not found:
        raise refused
    if not all(isinstance(one, dict) and isinstance(one.get("type"), str) and one["type"] for one in found):
        raise refused
    return tuple(cast("list[dict[str, Json]]", found))
