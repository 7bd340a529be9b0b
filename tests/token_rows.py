"""Offer the form of a case that must be refused: a token, why it is refused, and a twin that is accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
from attrs import frozen

from agentauthz.errors import TokenError
from agentauthz.tokens.validator import Validator
from tests.issuing import token, validator

HEAD: Final = {"alg": "Ed25519", "kid": "ed", "typ": "at+jwt"}

# what asks for a case to be refused
SECTIONS: Final[dict[int | str, str]] = {
    1: "RFC 8725 §3.2", 2: "RFC 8725 §3.1", 3: "RFC 8725 §3.1", 4: "RFC 8725 §3.1", 5: "RFC 8725 §3.10",
    6: "RFC 8725 §3.10", 7: "RFC 7515 §4.1.4", 8: "RFC 7515 §6", 9: "RFC 7517 §4.2, §4.3", 11: "RFC 8725 §3.4",
    12: "RFC 7518 §3.4", 13: "RFC 7515 §4.1.11", 14: "RFC 7515 §7.1", 15: "RFC 7515 §2", 16: "RFC 7515 §4",
    17: "RFC 8725 §3.7", 19: "RFC 7519 §4.1.4", 20: "RFC 7519 §4.1.5", 22: "RFC 7519 §7.3, RFC 8725 §3.8",
    23: "RFC 7519 §4.1.3, RFC 8725 §3.9", 24: "RFC 8725 §3.11, RFC 9068 §4", 25: "RFC 8725 §3.8, RFC 9068 §2.2",
    26: "RFC 6749 §3.3", 32: "RFC 8693 §4.1", 33: "RFC 8693 §4.1", 39: "RFC 8693 §4.1",
}  # fmt: skip


@frozen
class Row:
    """Be a case, by its number in the table of what must be refused, or by the section that asks for it."""

    case: int | str
    what: str
    refused: Callable[[], str]
    reason: str
    accepted: Callable[[], str] = token
    validator: Callable[[], Validator] = validator


def name_of(row: Row) -> str:
    asked_by = f", {SECTIONS[row.case]}" if row.case in SECTIONS else ""
    case = f"case {row.case}{asked_by}" if isinstance(row.case, int) else row.case
    return f"{case}: {row.what}".replace("§", "section ").encode("ascii", "backslashreplace").decode()


def check(row: Row) -> None:
    """Check that the row's token is refused for its reason, and its twin verified."""
    asked = row.validator()
    with pytest.raises(TokenError) as caught:
        asked.verify(row.refused())
    assert caught.value.reason == row.reason
    assert asked.verify(row.accepted()).kind == "access"


async def acheck(row: Row) -> None:
    """Check the same of the async form."""
    asked = row.validator()
    with pytest.raises(TokenError) as caught:
        await asked.averify(row.refused())
    assert caught.value.reason == row.reason
    assert (await asked.averify(row.accepted())).kind == "access"
