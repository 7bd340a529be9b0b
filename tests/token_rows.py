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
    case = f"case {row.case}" if isinstance(row.case, int) else row.case
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
