"""Read the form that a request sends, within bounds (RFC 6749 §3.2 and appendix B)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl

from agentauthz.errors import ExchangeRefused
from agentauthz.sts.credentials import Pairs

MAX_BODY: Final = 64 * 1024  # bytes: two tokens, an assertion and the rest
MAX_PARAMETERS: Final = 100

_FORM: Final = re.compile(r'application/x-www-form-urlencoded(?:\s*;\s*charset="?utf-8"?)?', re.IGNORECASE)
_ENCODED: Final = re.compile(rb"(?:[^%\x00-\x20\x7f-\xff]|%[0-9A-Fa-f]{2})*")


def form_of(headers: Pairs, body: bytes | Pairs) -> list[tuple[str, str]]:
    """Return a form's parameters, in order and with those that come twice; `body` may be parsed already.

    Only the body counts: what stands in the URL is never a parameter (RFC 6749 §2.3.1).

    Raises:
        ExchangeRefused: `invalid_request`: another content type, a body that is coded or (413) too large, too many
            parameters, or no form in UTF-8.
    """
    _check_headers(headers)
    pairs = _parsed(body) if isinstance(body, bytes) else list(body)
    if len(pairs) > MAX_PARAMETERS:
        raise ExchangeRefused("invalid_request", "too_many_parameters")
    if sum(len(name) + len(value) for name, value in pairs) > MAX_BODY:
        raise too_large()
    return pairs


def too_large() -> ExchangeRefused:
    """Return the refusal of a body that is too large."""
    return ExchangeRefused("invalid_request", "body_too_large", status=413)


def values(headers: Pairs, name: str) -> list[str]:
    """Return the values of each header with that name, whatever its case."""
    return [value for key, value in headers if key.lower() == name]


def _check_headers(headers: Pairs) -> None:
    given = list(headers)
    kinds = values(given, "content-type")
    if len(kinds) != 1 or _FORM.fullmatch(kinds[0].strip()) is None:
        raise ExchangeRefused("invalid_request", "content_type")
    if any(coding.strip().lower() != "identity" for coding in values(given, "content-encoding")):
        raise ExchangeRefused("invalid_request", "content_encoding")


def _parsed(body: bytes) -> list[tuple[str, str]]:
    if len(body) > MAX_BODY:
        raise too_large()
    if _ENCODED.fullmatch(body) is None:
        raise ExchangeRefused("invalid_request", "form_encoding")
    if not body:
        return []
    try:
        return parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:  # its text quotes what it read
        raise ExchangeRefused("invalid_request", "form_encoding") from None
