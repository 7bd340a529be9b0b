"""The laws of tokens: nothing changed is genuine, chains go there and back, and nothing hostile does more than fail."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentauthz import Chain, Delegation, Principal
from agentauthz.errors import TokenError
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens.claims import ActLimits, act_claim, chain_from_claims, extended_act
from agentauthz.tokens.jws import is_compact
from agentauthz.tokens.verified import TYPES, TokenKind
from tests.issuing import ACT, ED, ES, ISSUER, claims, raw, token, trusted, validator

SIXTEEN = ActLimits(depth=16)

texts = st.text(min_size=1, max_size=40)
agents = st.builds(Principal, st.sampled_from(["user", "agent", "service"]), texts, texts)
chains = st.builds(
    lambda subject, actors: Chain(subject, [Delegation(actor, via="token") for actor in actors]),
    agents,
    st.lists(agents, max_size=16),
)
finite = st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
identities = st.fixed_dictionaries(
    {"sub": st.text(min_size=1, max_size=10)},
    optional={"iss": st.text(min_size=1, max_size=10), "role": st.text(max_size=10), "level": st.integers(0, 9)},
)


@pytest.mark.parametrize("key", [ED, ES], ids=["Ed25519", "ES256"])
def test_no_bit_of_a_token_can_be_changed(key: SigningKey) -> None:
    """Each single bit of a token's text, changed, makes it fail: header, claims, signature and the dots."""
    asked, good = validator(), token(key=key, act=ACT)
    assert asked.verify(good).jti == "token-1"
    for place, character in enumerate(good):
        for bit in range(8):
            changed = f"{good[:place]}{chr(ord(character) ^ 1 << bit)}{good[place + 1 :]}"
            with pytest.raises(TokenError):
                asked.verify(changed)


@pytest.mark.parametrize("key", [ED, ES], ids=["Ed25519", "ES256"])
def test_no_part_of_a_token_can_be_cut_or_swapped(key: SigningKey) -> None:
    """A token that lacks its first or last characters, or has a part of another genuine one, fails."""
    asked, good, other = validator(), token(key=key), token(key=key, sub="other", jti="token-2")
    for length in range(len(good)):
        for cut in (good[:length], good[length + 1 :]):
            with pytest.raises(TokenError):
                asked.verify(cut)
    parts, others = good.split("."), other.split(".")
    for mixed in ([parts[0], others[1], parts[2]], [parts[0], parts[1], others[2]]):
        with pytest.raises(TokenError, match="signature"):
            asked.verify(".".join(mixed))


@given(chains)
def test_a_chain_goes_into_a_token_and_comes_back(chain: Chain) -> None:
    """What `act_claim` writes, `chain_from_claims` reads as the same chain, over JSON, whatever the names are."""
    act = act_claim(chain)
    given_claims: dict[str, Any] = {} if act is None else {"act": json.loads(json.dumps(act))}
    found = chain_from_claims(given_claims, subject=chain.subject, limits=SIXTEEN)
    assert found == chain
    assert act_claim(found) == act


@given(chains.filter(lambda chain: chain.depth < 16), agents)
def test_extending_a_chain_is_extending_its_claim(chain: Chain, actor: Principal) -> None:
    """One more actor gives the same as a chain and as a claim."""
    longer = chain.extend(Delegation(actor, via="token"))
    assert act_claim(longer) == extended_act(act_claim(chain), actor)
    assert chain_from_claims({"act": act_claim(longer)}, subject=chain.subject, limits=SIXTEEN).actor == actor


@given(st.lists(identities, min_size=1, max_size=8), agents)
def test_what_earlier_actors_say_of_themselves_stays_as_it_is(levels: list[dict[str, Any]], actor: Principal) -> None:
    """Members of inherited actors, known or not, are the same JSON after an extension."""
    act: dict[str, Any] = {}
    for level in levels:
        act = {**level, "act": act} if act else dict(level)
    before = json.dumps(act)
    longer = extended_act(act, actor)
    assert json.dumps(longer["act"]) == before == json.dumps(act)
    chain = chain_from_claims({"act": longer}, subject=Principal.user("maria", issuer=ISSUER), limits=SIXTEEN)
    assert [hop.to.id for hop in chain.delegations] == [*(level["sub"] for level in levels), actor.id]


@given(st.sampled_from([*claims(), "act", "cnf", "nbf", "authorization_details", "sub_profile", "roles"]), anything)
def test_a_hostile_claim_is_refused_or_harmless(name: str, value: Any) -> None:
    """A genuine token with anything at all as one claim is verified or refused, and nothing else happens."""
    with contextlib.suppress(TokenError):
        found = validator().verify(token(**{name: value}))
        assert found.issuer == ISSUER
        assert found.subject.id


@given(anything)
def test_a_hostile_payload_is_refused(payload: Any) -> None:
    """A genuine signature over any JSON at all is no token without its claims."""
    body = json.dumps(payload).encode()
    with pytest.raises(TokenError):
        validator().verify(raw({"alg": "Ed25519", "kid": "ed", "typ": "at+jwt"}, body))


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "b64", "x"]), anything, max_size=5))
def test_a_hostile_header_is_refused(header: dict[str, Any]) -> None:
    """Whatever stands in the header, it raises nothing but `TokenError`."""
    with pytest.raises(TokenError):
        validator().verify(raw(header))


@given(st.text(max_size=200) | st.text("abcXYZ019-_.", max_size=200))
def test_hostile_text_is_refused(text: str) -> None:
    """Text that was never signed raises `TokenError`, as every kind."""
    kinds: tuple[TokenKind, ...] = tuple(TYPES)
    asked = validator(trusted(token_kinds=kinds), cache=2)
    for kind in kinds:
        with pytest.raises(TokenError):
            asked.verify(text, kind=kind)
    assert is_compact(text) in (True, False)
