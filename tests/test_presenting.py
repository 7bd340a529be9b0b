"""Test how a token is presented: the headers of a request, proofs of the key that it is bound to, certificates."""

from __future__ import annotations

import pytest

from agentauthz.errors import TokenError
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens.dpop import DpopKey
from agentauthz.tokens.once import MemoryOnce
from tests.issuing import (
    BOUND_KEY,
    NOW,
    bound,
    dpop_validator,
    reason,
    token,
    validator,
)
from tests.support import Clock

URI = "https://pay.example/refunds"


# ---- how a token is presented


def headers(scheme: str, text: str, *proofs: str) -> list[tuple[str, str]]:
    return [("Host", "pay.example"), ("authorization", f"{scheme} {text}"), *(("DPoP", proof) for proof in proofs)]


async def test_a_bearer_token_is_authenticated() -> None:
    """RFC 6750 §2.1: one header, whose scheme is written in any case."""
    for scheme in ("Bearer", "bearer", "BEARER"):
        given = headers(scheme, token())
        assert validator().authenticate(given, method="GET", uri=URI).jti == "token-1"
        assert (await validator().aauthenticate(given, method="GET", uri=URI)).jti == "token-1"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "missing"),
        ([("Authorization", "")], "request"),
        ([("Authorization", "Bearer")], "request"),
        ([("Authorization", "Basic YTpi")], "request"),
        ([("Authorization", "Bearer a b")], "request"),
        ([("Authorization", "Bearer a"), ("authorization", "Bearer a")], "request"),
        ([("Authorization", "Bearer a.b.c, Bearer d.e.f")], "request"),
        ([("Authorization", "Bearer\ta.b.c")], "request"),
        ([("Authorization", "Bearer x")], "malformed"),
    ],
)
async def test_what_presents_no_token_is_refused(given: list[tuple[str, str]], why: str) -> None:
    """No header, several, another scheme or anything but one token are refused."""
    assert reason(lambda: validator().authenticate(given, method="GET", uri=URI)) == why
    with pytest.raises(TokenError, match=why):
        await validator().aauthenticate(given, method="GET", uri=URI)


def test_a_bound_token_needs_its_proof() -> None:
    """RFC 9449 §7.1: a token with `cnf.jkt` is taken with a proof of that key for this request and this token."""
    text, key = bound()
    proof = key.proof("POST", URI, access_token=text)
    found = dpop_validator().authenticate(headers("DPoP", text, proof), method="POST", uri=URI)
    assert found.token_type == "DPoP"


def test_case_40_a_bound_token_without_proof_is_refused() -> None:
    """Case 40, RFC 9449 §7.2: as Bearer, with or without a proof, and as DPoP without one."""
    text, key = bound()
    for given in (
        headers("Bearer", text), headers("Bearer", text, key.proof("GET", URI, access_token=text)),
        headers("DPoP", text),
    ):  # fmt: skip
        assert reason(lambda g=given: dpop_validator().authenticate(g, method="GET", uri=URI)) == "dpop_missing"  # type: ignore[misc]
    assert reason(lambda: dpop_validator().verify(text)) == "dpop_missing"
    assert reason(lambda: validator().verify(text, dpop="x", method="GET", uri=URI)) == "dpop_missing"


def test_a_proof_with_an_unbound_token_is_refused() -> None:
    """A token that is bound to no key can't be presented as DPoP: its holder has proven nothing."""
    proof = DpopKey(BOUND_KEY, clock=Clock()).proof("GET", URI, access_token=token())
    for call in (
        lambda: dpop_validator().authenticate(headers("DPoP", token(), proof), method="GET", uri=URI),
        lambda: dpop_validator().authenticate(headers("Bearer", token(), proof), method="GET", uri=URI),
        lambda: dpop_validator().verify(token(), dpop=[proof], method="GET", uri=URI),
    ):
        assert reason(call) == "dpop_unbound"


def test_a_proof_of_another_key_is_refused() -> None:
    """Case 41: the proof has to be made by the key that the token names."""
    text, _ = bound()
    other = DpopKey(SigningKey.generate("ES256"), clock=Clock())
    given = headers("DPoP", text, other.proof("GET", URI, access_token=text))
    assert reason(lambda: dpop_validator().authenticate(given, method="GET", uri=URI)) == "dpop_proof"


def test_case_46_a_certificate_bound_token_needs_the_certificate() -> None:
    """Case 46, RFC 8705 §3: without the peer's certificate, or with something else, the token is refused."""
    text = token(cnf={"x5t#S256": DpopKey(BOUND_KEY).thumbprint})
    for certificate in (None, b"no certificate"):
        given = {"method": "GET", "uri": URI, "peer_cert": certificate}
        assert reason(lambda g=given: validator().authenticate(headers("Bearer", text), **g)) == "certificate"  # type: ignore[misc]


# ---- what a token service asks


async def test_genuine_leaves_audience_proof_and_replay_to_its_caller() -> None:
    """`genuine` checks all but what belongs to one presentation, and uses nothing up."""
    text = token(aud="https://other.example", cnf={"jkt": DpopKey(BOUND_KEY).thumbprint})
    asked = validator(replay=MemoryOnce(clock=Clock()))
    for _ in range(2):
        assert asked.genuine(text, kind="access").audience == ("https://other.example",)
        assert (await asked.agenuine(text, kind="access")).audience == ("https://other.example",)
    assert reason(lambda: asked.genuine(token(exp=NOW - 60, iat=NOW - 90), kind="access")) == "expired"
    assert reason(lambda: validator(revocation=lambda _: True).genuine(text, kind="access")) == "revoked"
