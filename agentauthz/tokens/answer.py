"""Read a token endpoint's answer and hold it against what was asked (RFC 8693 §2.2, RFC 6749 §5): pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NoReturn, TypeAlias, cast, final

from attrs import field, frozen

from agentauthz.errors import ExchangeDenied, ExchangeProtocolError, InvalidArgument, TokenError
from agentauthz.tokens.exchange import TOKEN_TEXT, AnyRequest, Details, TokenExchangeRequest, is_resource, is_scope
from agentauthz.tokens.strict import Json, json_object
from agentauthz.tokens.transport import MAX_BODY, Headers, HttpResponse
from agentauthz.tokens.types import ACCESS_TOKEN, ID_JAG, ID_TOKEN, JWT, REFRESH_TOKEN, TXN_TOKEN
from agentauthz.tokens.verified import VerifiedToken

MAX_LIFETIME: Final = 10 * 366 * 86_400  # seconds: what says more was meant as something else
MAX_WORDS: Final = 200  # characters of a server's own text

_Answer: TypeAlias = Mapping[str, Json]
_TOKEN_TYPES: Final = {"bearer": "Bearer", "dpop": "DPoP", "n_a": "N_A"}
_NO_ACCESS: Final = frozenset({ID_TOKEN, REFRESH_TOKEN, ID_JAG, TXN_TOKEN})  # RFC 8693 §2.2.1: always `N_A`
_ERRORS: Final = frozenset(  # RFC 6749 §5.2 and §4.1.2.1, RFC 8707 §2, RFC 9396 §5, RFC 9449 §5 and §8, RFC 9470 §3
    "invalid_request invalid_client invalid_grant unauthorized_client unsupported_grant_type invalid_scope "
    "server_error temporarily_unavailable invalid_target invalid_authorization_details invalid_dpop_proof "
    "use_dpop_nonce insufficient_user_authentication".split()
)
_LONG_RUN: Final = re.compile(r"[A-Za-z0-9_\-.~+/=]{32,}")  # what a credential looks like and a sentence doesn't
_LISTS: Final = frozenset({"locations", "actions", "datatypes", "privileges"})  # RFC 9396 §2.2: fewer is narrower


@final
@frozen(eq=False, repr=False)
class ExchangedToken:
    """Be a token that a service issued, within what was asked.

    `token_type` is how it is presented: `Bearer`, `DPoP`, or `N_A` where it is no access token. `expires_in` is in
    seconds from the answer on. `scope` is None where neither side named any; `authorization_details` are those
    granted, likewise. `verified` is what it says, where the client has a validator.
    """

    access_token: str
    issued_token_type: str
    token_type: str
    expires_in: int | None = None
    scope: tuple[str, ...] | None = None
    authorization_details: Details | None = field(default=None)
    verified: VerifiedToken | None = None

    def authorization(self) -> str:
        """Return the `Authorization` header that presents the token: a secret. `DPoP` needs a proof beside it.

        Raises:
            InvalidArgument: the token is no access token (`N_A`, RFC 8693 §2.2.1).
        """
        if self.token_type == "N_A":  # noqa: S105  (a type, no secret)
            raise InvalidArgument("token", "is no access token: it can be exchanged or redeemed, not presented")
        return f"{self.token_type} {self.access_token}"

    def __repr__(self) -> str:
        return f"<ExchangedToken {self.issued_token_type.rpartition(':')[2]}, {self.token_type}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InvalidArgument("token", "can't be pickled or copied: ask for one where it is needed")


def parse_response(
    status: int,
    headers: Headers,
    body: bytes,
    request: AnyRequest,
    *,
    dpop: bool = False,
    secrets: Collection[str] = (),
) -> ExchangedToken:
    """Return the token of an answer that is complete and within what `request` asked.

    `dpop`: a proof was sent, so the token must be bound to its key. What a server writes is bounded and cleaned, and
    `secrets`, with the request's tokens, are cut out of it.

    Raises:
        ExchangeDenied: the endpoint refused (RFC 6749 §5.2).
        ExchangeProtocolError: a redirect, another status, too large, no strict JSON, a member missing or malformed, or
            more or other than what was asked.
    """
    if 300 <= status < 400:
        raise _bad("redirect", f"the token endpoint redirects (HTTP {status}), which is never followed")
    answer = _object(status, HttpResponse(status, headers), body)
    if status != 200:
        raise _denial(status, answer, [*request.secrets(), *secrets])
    kind = _issued_token_type(answer, request)
    return ExchangedToken(
        access_token=_access_token(answer),
        issued_token_type=kind,
        token_type=_token_type(answer, kind, dpop),
        expires_in=_expires_in(answer),
        scope=_scope(answer, request.scope),
        authorization_details=_granted(answer, request.authorization_details),
    )


def within_details(granted: Sequence[Mapping[str, object]], asked: Sequence[Mapping[str, object]]) -> bool:
    """Say whether each granted detail is one of those asked, or one with fewer locations, actions or the like.

    RFC 9396 has no general rule for what is narrower: any other difference is too much.
    """
    return all(any(_within_detail(one, other) for other in asked) for one in granted)


def _within_detail(granted: Mapping[str, object], asked: Mapping[str, object]) -> bool:
    return granted.keys() == asked.keys() and all(
        _same(value, asked[name]) or (name in _LISTS and _fewer(value, asked[name])) for name, value in granted.items()
    )


def _same(one: object, other: object) -> bool:
    return repr(_sorted(one)) == repr(_sorted(other))  # True is no 1, and 1 is no 1.0


def _sorted(value: object) -> object:
    if isinstance(value, Mapping):
        return [(name, _sorted(value[name])) for name in sorted(value)]
    return [_sorted(one) for one in value] if isinstance(value, list | tuple) else value


def _fewer(granted: object, asked: object) -> bool:
    if not isinstance(granted, list | tuple) or not isinstance(asked, list | tuple) or not granted:
        return False  # an empty list may well mean all
    return all(isinstance(one, str) and one in asked for one in granted)


# ---- the form of an answer


def _object(status: int, response: HttpResponse, body: bytes) -> _Answer:
    if len(body) > MAX_BODY:
        raise _bad("too_large", f"the token endpoint's answer is longer than {MAX_BODY} bytes")
    media = (response.header("content-type") or "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise _bad("not_json", f"the token endpoint answered HTTP {status} with something that is no JSON")
    try:
        return json_object(body)
    except TokenError:
        pass  # raised below, so that nothing hangs on to what was read
    raise _bad("malformed", f"the token endpoint answered HTTP {status} with JSON that is broken or has a member twice")


def _denial(status: int, answer: _Answer, secrets: Sequence[str]) -> Exception:
    error = answer.get("error")
    cleaned = error if isinstance(error, str) and error in _ERRORS else _words(error, secrets)
    if not 400 <= status < 600 or not cleaned:
        return _bad("status", f"the token endpoint answered HTTP {status} without a token and without an error")
    uri = answer.get("error_uri")
    usable = is_resource(uri) and not any(secret in cast(str, uri) for secret in secrets)
    return ExchangeDenied(
        cleaned,
        description=_words(answer.get("error_description"), secrets) or None,
        uri=cast(str, uri)[:MAX_WORDS] if usable else None,
        status=status,
    )


def _words(text: Json, secrets: Sequence[str]) -> str:
    """Return a server's words without control characters, without what may be a credential, and short."""
    if not isinstance(text, str):
        return ""
    for secret in secrets:
        text = text.replace(secret, "…") if secret else text
    text = "".join(" " if unicodedata.category(mark)[0] in "CZ" else mark for mark in text[: 10 * MAX_WORDS])
    return _LONG_RUN.sub("…", " ".join(text.split()))[:MAX_WORDS]


# ---- each member


def _issued_token_type(answer: _Answer, request: AnyRequest) -> str:
    if not isinstance(request, TokenExchangeRequest):
        if answer.get("issued_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
            raise _bad("issued_token_type", "the token endpoint issued something else than an access token")
        return ACCESS_TOKEN
    found, asked = answer.get("issued_token_type"), request.requested_token_type
    if not isinstance(found, str) or not is_resource(found):
        raise _bad("issued_token_type", "the token endpoint doesn't say what it issued: `issued_token_type` is missing")
    if (asked is None and found not in (ACCESS_TOKEN, JWT)) or asked not in (None, found):
        raise _bad("issued_token_type", "the token endpoint issued another type of token than was asked for")
    return found


def _access_token(answer: _Answer) -> str:
    found = answer.get("access_token")
    if not isinstance(found, str) or TOKEN_TEXT.fullmatch(found) is None:
        raise _bad("access_token", "the token endpoint's answer has no usable `access_token`")
    if "refresh_token" in answer:
        raise _bad("refresh_token", "the token endpoint issued a refresh token, which nobody asked for")
    return found


def _token_type(answer: _Answer, kind: str, dpop: bool) -> str:
    named = answer.get("token_type")
    found = _TOKEN_TYPES.get(named.lower()) if isinstance(named, str) else None
    if found is None:
        raise _bad("token_type", "the token endpoint's answer has no `token_type` that is known: Bearer, DPoP or N_A")
    if (found == "N_A" and kind == ACCESS_TOKEN) or (found != "N_A" and kind in _NO_ACCESS):
        raise _bad("token_type", f"the token endpoint's `token_type`, {found}, doesn't fit the type of token issued")
    if found == "Bearer" and dpop:
        raise _bad("not_bound", "the token endpoint issued a bearer token, though one bound to a key was asked for")
    if found == "DPoP" and not dpop:
        raise _bad("token_type", "the token endpoint bound the token to a key, though no proof of one was sent")
    return found


def _expires_in(answer: _Answer) -> int | None:
    found = answer.get("expires_in")
    if found is None and "expires_in" not in answer:
        return None
    if type(found) is not int or not 0 < found <= MAX_LIFETIME:
        raise _bad("expires_in", "the token endpoint's `expires_in` is no number of seconds that a token may live")
    return found


def _scope(answer: _Answer, asked: tuple[str, ...]) -> tuple[str, ...] | None:
    if "scope" not in answer:
        return asked or None  # RFC 6749 §5.1: left out, it is what was asked
    text = answer["scope"]
    found = tuple(text.split(" ")) if isinstance(text, str) and text else ()  # some servers send "" for none
    if not isinstance(text, str) or not all(is_scope(one) for one in found):
        raise _bad("scope", "the token endpoint's `scope` is no list of scopes, separated by single spaces")
    if asked and not set(found) <= set(asked):
        raise _bad("wider_scope", "the token endpoint granted a scope that nobody asked for")
    return found


def _granted(answer: _Answer, asked: Details | None) -> Details | None:
    found = answer.get("authorization_details")
    if "authorization_details" not in answer and asked is None:
        return None
    if not isinstance(found, list) or not all(isinstance(one, dict) and type(one.get("type")) is str for one in found):
        raise _bad("authorization_details", "the token endpoint doesn't say which authorization details it granted")
    granted = cast(Details, tuple(found))
    if asked is not None and not within_details(granted, asked):
        raise _bad("wider_details", "the token endpoint granted authorization details that nobody asked for")
    return granted


def _bad(reason: str, message: str) -> ExchangeProtocolError:
    return ExchangeProtocolError(reason, message)
