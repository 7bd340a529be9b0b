"""Test `act`, `may_act` and `cnf` as claims: the examples of the RFCs, and who is named by what."""

from __future__ import annotations

from typing import Any

import pytest

from agentauthz import Chain, Delegation, Principal
from agentauthz.errors import TokenError
from agentauthz.tokens.claims import (
    act_claim,
    chain_from_claims,
    confirmation_of,
    extended_act,
    identity_claims,
    kind_of,
    may_act_allows,
)
from agentauthz.tokens.verified import Confirmation
from tests.issuing import ED, ISSUER

RFC_USER = Principal.user("user@example.com", issuer="https://issuer.example.com")
ADMIN = Principal.agent("admin@example.com", issuer="https://issuer.example.com")
THUMBPRINT = ED.public_key().thumbprint


def test_rfc_8693_section_4_1_the_current_actor() -> None:
    """RFC 8693 §4.1, figure 5: one actor, of the token's own issuer."""
    chain = chain_from_claims({"act": {"sub": "admin@example.com"}}, subject=RFC_USER)
    assert chain.actor == ADMIN
    assert chain.subject == RFC_USER


def test_rfc_8693_section_4_1_the_nested_actors() -> None:
    """RFC 8693 §4.1, figure 6: the outermost acts now, the one within before; ours is the oldest first."""
    act: dict[str, Any] = {
        "sub": "https://service16.example.com", "act": {"sub": "https://service77.example.com"},
    }  # fmt: skip
    chain = chain_from_claims({"act": act}, subject=RFC_USER)
    assert [hop.to.id for hop in chain.delegations] == [
        "https://service77.example.com", "https://service16.example.com",
    ]  # fmt: skip
    assert chain.actor.id == "https://service16.example.com"


def test_a_chain_without_delegations_has_no_act() -> None:
    """Nothing was delegated: there is no claim, and without a claim nothing was."""
    assert act_claim(Chain(RFC_USER)) is None
    assert chain_from_claims({}, subject=RFC_USER) == Chain(RFC_USER)


def test_the_issuer_of_an_actor_is_always_written() -> None:
    """What we write names `iss`, `sub` and the kind of each actor, and nothing else."""
    chain = Chain(RFC_USER, [Delegation(Principal.agent("bot", issuer=ISSUER, trust=3))])
    assert act_claim(chain) == {"sub": "bot", "iss": ISSUER, "sub_profile": "ai_agent"}
    assert identity_claims(Principal.service("api")) == {"sub": "api", "sub_profile": "service"}
    assert extended_act({"sub": "first"}, ADMIN)["act"] == {"sub": "first"}


@pytest.mark.parametrize(
    "claim",
    [
        None, "admin@example.com", [], {}, "*", {"sub": "*", "iss": ADMIN.issuer},
        [{"sub": ADMIN.id, "iss": ADMIN.issuer}],
        {"sub": ADMIN.id}, {"sub": ADMIN.id, "iss": ISSUER}, {"sub": ADMIN.id, "iss": [ADMIN.issuer]},
        {"sub": "other", "iss": ADMIN.issuer}, {"sub": [ADMIN.id], "iss": ADMIN.issuer}, {"iss": ADMIN.issuer},
        {"sub": ADMIN.id.upper(), "iss": ADMIN.issuer}, {"sub": ADMIN.id, "iss": None},
    ],
)  # fmt: skip
def test_may_act_names_exactly_one_pair(claim: Any) -> None:
    """RFC 8693 §4.4: only the pair of `iss` and `sub` names an actor: no list, no star, no bare `sub`."""
    assert not may_act_allows(claim, ADMIN)
    assert may_act_allows({"sub": ADMIN.id, "iss": ADMIN.issuer, "note": "x"}, ADMIN)
    assert not may_act_allows({"sub": "bot", "iss": None}, Principal.agent("bot"))


@pytest.mark.parametrize(
    ("cnf", "found"),
    [
        ({"jkt": THUMBPRINT}, Confirmation(THUMBPRINT)),
        ({"x5t#S256": THUMBPRINT}, Confirmation(None, THUMBPRINT)),
        ({"jkt": THUMBPRINT, "x5t#S256": THUMBPRINT}, Confirmation(THUMBPRINT, THUMBPRINT)),
        ({"jwk": ED.public_jwk()}, Confirmation(THUMBPRINT)),
        ({"jwk": ED.public_jwk(), "jkt": THUMBPRINT, "kid": "x"}, Confirmation(THUMBPRINT)),
    ],
)
def test_rfc_7800_section_3_the_key_that_a_token_is_bound_to(cnf: Any, found: Confirmation) -> None:
    """RFC 7800 §3.2, RFC 9449 §6.1, RFC 8705 §3.1: a thumbprint, or a key whose thumbprint it is."""
    assert confirmation_of({"cnf": cnf}) == found
    assert confirmation_of({}) is None


@pytest.mark.parametrize(
    "jwk",
    [
        {}, "x", {"kty": "oct", "k": "A" * 43}, {**ED.public_jwk(), "x": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
    ],
)  # fmt: skip
def test_a_binding_to_no_public_key_is_refused(jwk: Any) -> None:
    """A `jwk` in `cnf` that is no public key, and one beside another key's thumbprint, are refused."""
    with pytest.raises(TokenError, match="cnf"):
        confirmation_of({"cnf": {"jwk": jwk}})
    two: dict[str, Any] = {"jwk": ED.public_jwk(), "jkt": "A" * 43}
    with pytest.raises(TokenError, match="cnf"):
        confirmation_of({"cnf": two})


def test_the_kind_of_a_party() -> None:
    """`sub_profile` says what a party is; what it doesn't know is refused, never taken for the default."""
    assert kind_of({}, "agent") == "agent"
    assert [kind_of({"sub_profile": name}, "user") for name in ("user", "service", "ai_agent")] == [
        "user", "service", "agent",
    ]  # fmt: skip
    for unknown in (None, "", "agent", 7, ["user"]):
        with pytest.raises(TokenError, match="sub_profile"):
            kind_of({"sub_profile": unknown}, "user")  # type: ignore[dict-item]
