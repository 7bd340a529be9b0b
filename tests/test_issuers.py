"""Test whose tokens are trusted: what a trusted issuer and the limits may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentauthz.errors import InvalidArgument
from agentauthz.keys.jwk import KeySet, VerificationKey
from agentauthz.tokens.issuers import TrustedIssuer
from agentauthz.tokens.jws import DEFAULT_ALGORITHMS
from tests.issuing import ED, ISSUER, KEYS, SERVICE, trusted

SHARED = KeySet([VerificationKey(bytes(32), "s", frozenset({"HS256"}))])


def test_what_is_not_said_is_strict() -> None:
    """By default there is no audience, no symmetric algorithm, and access tokens only."""
    issuer = TrustedIssuer(ISSUER, KEYS)
    assert issuer.audiences == frozenset()
    assert issuer.algorithms == DEFAULT_ALGORITHMS
    assert not any(name.startswith("HS") for name in issuer.algorithms)
    assert issuer.token_kinds == {"access"}
    assert not issuer.shared_secret
    assert trusted(keys=SHARED, algorithms=["HS256"]).shared_secret


@pytest.mark.parametrize(
    "build",
    [
        lambda: trusted(algorithms=["HS256", "ES256"]),
        lambda: trusted(algorithms=["HS256"]),
        lambda: trusted(keys=SHARED),
        lambda: trusted(keys=SHARED, algorithms=["ES256"]),
        lambda: trusted(algorithms=["none"]),
        lambda: trusted(algorithms=["es256"]),
        lambda: trusted(algorithms=[]),
        lambda: trusted(algorithms="ES256"),
        lambda: trusted(audiences=SERVICE),
        lambda: trusted(audiences=[""]),
        lambda: trusted(audiences=[7]),
        lambda: trusted(token_kinds=[]),
        lambda: trusted(token_kinds=["refresh"]),
        lambda: trusted(issuer=""),
        lambda: trusted(issuer=None),
        lambda: trusted(keys={"keys": []}),
        lambda: trusted(keys=None),
        lambda: trusted(actions=["payments.*"]),
        lambda: trusted(attributes="roles"),
    ],
)
def test_what_can_not_be_trusted_is_no_issuer(build: Callable[[], Any]) -> None:
    """Algorithms of both sorts, keys that don't fit them, unknown names and bare texts for lists can't be made."""
    with pytest.raises(InvalidArgument):
        build()


def test_an_issuer_shows_its_name_only() -> None:
    """Neither keys nor audiences stand in its text."""
    assert repr(trusted()) == f"TrustedIssuer({ISSUER!r})"
    assert ED.public_jwk()["x"] not in repr(trusted())
