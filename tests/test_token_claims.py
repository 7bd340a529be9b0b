"""Refuse tokens whose dates, parties, scopes or actors are wrong, and accept what stands right beside each.

The number of a row is the case's number in the table of what must be refused: here 19 to 26, and 32 to 39.
"""

from __future__ import annotations

import datetime as dt
import json
from functools import partial
from typing import Any

import pytest

from agentauthz.tokens.claims import ActLimits
from agentauthz.tokens.issuers import TokenLimits
from agentauthz.tokens.validator import Validator
from tests.issuing import (
    ACT,
    GONE,
    ISSUER,
    NOW,
    OTHER_ISSUER,
    SERVICE,
    claims,
    raw,
    token,
    validator,
)
from tests.token_rows import HEAD, Row, acheck, check, name_of


def _with(name: str, value: Any) -> str:
    return token(**{name: value})


def _with_exp(text: str) -> str:
    return raw(HEAD, json.dumps(claims(exp=0)).replace('"exp": 0', f'"exp": {text}').encode())


def _strict_act() -> Validator:
    return validator(limits=TokenLimits(act=ActLimits(strict=True)))


def _deep(depth: int) -> dict[str, Any]:
    act: dict[str, Any] = {"sub": "first", "iss": ISSUER}
    for number in range(depth - 1):
        act = {"sub": f"agent-{number}", "iss": ISSUER, "act": act}
    return act


_EXPIRED: dict[str, Any] = {"iat": NOW - 300}

DATES = [
    Row(19, "no exp", partial(token, exp=GONE), "exp"),
    Row(
        19,
        "expired by the leeway and a second",
        partial(token, exp=NOW - 31, **_EXPIRED),
        "expired",
        partial(token, exp=NOW - 29, **_EXPIRED),
    ),
    Row(19, "expired by just the leeway", partial(token, exp=NOW - 30, **_EXPIRED), "expired"),
    *(
        Row(19, f"exp {value!r}", partial(token, exp=value), "exp", partial(token, exp=NOW + 300.5))
        for value in (str(NOW + 300), True, -1, None, [NOW + 300], {"n": 1})
    ),
    *(
        Row(19, f"exp {text}", partial(_with_exp, text), reason)
        for text, reason in (
            ("NaN", "malformed"),
            ("Infinity", "malformed"),
            ("-Infinity", "malformed"),
            ("1e400", "malformed"),
            ("99999999999999999999", "malformed"),
            ("9999999999999999999", "exp"),
            ("1e300", "exp"),
            ("-0.5", "exp"),
        )
    ),
    Row(20, "nbf beyond the leeway", partial(token, nbf=NOW + 31), "not_yet_valid", partial(token, nbf=NOW + 30)),
    Row(20, "iat beyond the leeway, nbf in the past", partial(token, iat=NOW + 31, nbf=NOW), "not_yet_valid"),
    Row(20, "iat beyond the leeway", partial(token, iat=NOW + 31), "not_yet_valid", partial(token, iat=NOW + 30)),
    *(
        Row(20, f"{name} {value!r}", partial(_with, name, value), name, partial(_with, name, NOW - 0.5))
        for name in ("nbf", "iat")
        for value in (str(NOW), True, -1, None)
    ),
    Row(20, "no iat", partial(token, iat=GONE), "iat"),
    Row(
        21,
        "a lifetime over the cap",
        partial(token, exp=NOW + 86_401),
        "lifetime",
        partial(token, exp=NOW + 86_400),
    ),
    Row(21, "exp before iat", partial(token, iat=NOW + 20, exp=NOW + 10), "lifetime"),
    Row(
        21,
        "older than max_age",
        partial(token, iat=NOW - 631),
        "too_old",
        partial(token, iat=NOW - 629),
        lambda: validator(limits=TokenLimits(max_age=dt.timedelta(minutes=10))),
    ),
]


PARTIES = [
    Row(22, "no iss", partial(token, iss=GONE), "issuer"),
    *(
        Row(22, f"iss {value!r}", partial(token, iss=value), "issuer")
        for value in (
            f"{ISSUER}/",
            ISSUER.upper(),
            "https://Issuer.example",
            ISSUER[:-1],
            f"{ISSUER}.evil.example",
            [ISSUER],
            {"a": ISSUER},
            None,
            "",
            f" {ISSUER}",
            OTHER_ISSUER,
        )
    ),
    Row(23, "no aud", partial(token, aud=GONE), "aud"),
    *(
        Row(23, f"aud {value!r}", partial(token, aud=value), reason, partial(token, aud=["https://x.example", SERVICE]))
        for value, reason in (
            ("https://other.example", "audience"),
            (SERVICE[:-1], "audience"),
            (f"{SERVICE}/", "audience"),
            (f"{SERVICE} x", "audience"),
            (SERVICE.upper(), "audience"),
            ([], "aud"),
            ([SERVICE, 7], "aud"),
            (["https://a.example", "https://b.example"], "audience"),
            (None, "aud"),
            ({SERVICE: 1}, "aud"),
            ("", "aud"),
            ([SERVICE, ""], "aud"),
            ([[SERVICE]], "aud"),
        )
    ),
    Row(24, "no typ", lambda: raw({"alg": "Ed25519", "kid": "ed"}), "typ", partial(token, typ="application/at+jwt")),
    *(
        Row(24, f"typ {typ}", partial(token, typ=typ), "typ")
        for typ in (
            "JWT",
            "dpop+jwt",
            "oauth-id-jag+jwt",
            "txntoken+jwt",
            "secevent+jwt",
            "AT+JWT",
            "at+jwt ",
            "jwt",
            "logout+jwt",
        )
    ),
    Row(24, "an empty typ", partial(token, typ=""), "header"),
    Row(25, "no sub", partial(token, sub=GONE), "sub"),
    *(
        Row(25, f"{name} {str(value)[:9]!r}", partial(_with, name, value), name)
        for name in ("sub", "jti", "client_id")
        for value in ("", 7, None, ["x"], True, "x" * 1025)
    ),
    Row(25, "no client_id", partial(token, client_id=GONE), "client_id"),
    Row(25, "no jti", partial(token, jti=GONE), "jti"),
    *(
        Row(26, f"scope {value!r}", partial(token, scope=value), "scope", partial(token, scope="a:b c.d/e!~#"))
        for value in (
            ["payments.read"],
            "a  b",
            " a",
            "a ",
            "",
            'a"b',
            "a\\b",
            "a\tb",
            "a\nb",
            "a\u00e9",
            None,
            7,
            {"a": 1},
        )
    ),
]

_NO_ACTS: list[Any] = ["worker", ["worker"], None, {}, 7, True, [ACT]]
_NO_CNF: list[Any] = [{"kid": "x"}, {}, None, "x", {"jkt": "short"}, {"jkt": 7}, {"x5t#S256": "A" * 44}]
_NO_DETAILS: list[Any] = [{"type": "t"}, [{}], [{"type": ""}], [{"type": 7}], ["t"], None, [{"type": "t"}, 7]]

CHAINS = [
    *(Row(32, f"act {value!r}", partial(token, act=value), "act", partial(token, act=ACT)) for value in _NO_ACTS),
    *(
        Row(33, f"act {value!r}", partial(token, act=value), "act", partial(token, act=ACT))
        for value in (
            {"iss": ISSUER},
            {"sub": ""},
            {"sub": 7},
            {"sub": None},
            {"sub": ["worker"]},
            {"sub": "w", "iss": 7},
            {"sub": "w", "iss": ""},
            {"sub": "w", "iss": None},
            {**ACT, "act": "planner"},
            {**ACT, "act": {}},
            {**ACT, "act": {"iss": ISSUER}},
            {**ACT, "act": [ACT]},
            {**ACT, "act": None},
        )
    ),
    Row(33, "a sub_profile that isn't known", partial(token, act={**ACT, "sub_profile": "robot"}), "sub_profile"),
    Row(33, "a sub_profile of the subject that isn't known", partial(token, sub_profile=["user"]), "sub_profile"),
    Row(
        33,
        "a text over 1 KiB",
        partial(token, act={**ACT, "note": "x" * 1025}),
        "act",
        partial(token, act={**ACT, "note": "x" * 1024}),
    ),
    Row(
        33,
        "an act over 8 KiB",
        partial(token, act={**ACT, "notes": ["x" * 1000] * 9}),
        "act",
        partial(token, act={**ACT, "notes": ["x" * 1000] * 7}),
    ),
    Row(34, "nine actors", lambda: token(act=_deep(9)), "depth", lambda: token(act=_deep(8))),
    Row(
        34,
        "three actors where two are the most",
        lambda: token(act=_deep(3)),
        "depth",
        lambda: token(act=_deep(2)),
        lambda: validator(limits=TokenLimits(act=ActLimits(depth=2))),
    ),
    Row(
        38,
        "no act, and client_id differs from sub, where an actor is needed",
        token,
        "actor_required",
        partial(token, act=ACT),
        lambda: validator(require_actor=True),
    ),
    *(
        Row(
            39,
            f"`{name}` within act, strictly",
            partial(token, act={**ACT, name: NOW + 9_000}),
            "act",
            partial(token, act={**ACT, "act": {"sub": "planner", "iss": ISSUER}}),
            _strict_act,
        )
        for name in ("exp", "nbf", "iat", "aud", "jti")
    ),
    Row(
        39,
        "an actor without iss, strictly",
        partial(token, act={"sub": "worker"}),
        "act",
        partial(token, act={"sub": "worker", "iss": ISSUER}),
        _strict_act,
    ),
]

OTHERS = [
    *(Row("RFC 7800 §3.1", f"cnf {value!r}", partial(token, cnf=value), "cnf") for value in _NO_CNF),
    *(
        Row(
            "RFC 9396 §2",
            f"authorization_details {value!r}",
            partial(token, authorization_details=value),
            "authorization_details",
            partial(token, authorization_details=[{"type": "payment", "actions": ["read"]}]),
        )
        for value in _NO_DETAILS
    ),
]

ROWS = [*DATES, *PARTIES, *CHAINS, *OTHERS]


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_what_must_be_refused_is_and_its_twin_is_not(row: Row) -> None:
    """The token of the row is refused for its reason; its twin is verified."""
    check(row)


@pytest.mark.parametrize("row", ROWS, ids=name_of)
async def test_the_async_form_refuses_the_same(row: Row) -> None:
    """`averify` refuses and accepts what `verify` does, for the same reasons."""
    await acheck(row)
